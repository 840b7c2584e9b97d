//! The simulator: a store beside a reference map, on a disk that fails as disks do, from one seed.
//!
//! [`run`] lives through one seed of a [`Plan`]: a few lives of random operations, each ended by a power cut, a kill or an
//! orderly close, with the power also failing while the store is opened. What was acknowledged is compared with `model` at
//! every answer and after every opening; the first difference is the violation returned. The same seed, plan and commit
//! give the same run, operation for operation.
//!
//! Not part of the shipped program: behind the feature `simulation`, for `perf simulate` and the tests here. Planted
//! defects, which show that the checker catches them, exist in test builds only.

#[cfg(test)]
mod crash_tests;
mod model;

#[cfg(test)]
pub(crate) use model::bytes_of;

use crate::sim_disk::Faults;
#[cfg(test)]
use crate::store::Flaw;
use crate::store::Settings;

/// What a run does and what may go wrong in it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the store is opened.
    pub lives: u32,
    /// Steps of a life; each submits at most one operation.
    pub steps: u32,
    /// What goes wrong while the store is in use.
    pub faults: Faults,
    /// Bits flipped between lives.
    pub rot: u32,
    /// The disk reports as done what is not durable, or damages what is: only wrong bytes count as violations.
    pub disk_may_lose: bool,
    /// Room on the disk.
    pub disk_bytes: u64,
    /// Capacity of the store.
    pub segments: u64,
    #[cfg(test)]
    pub(crate) flaw: Flaw,
}

impl Plan {
    /// Power cuts and kills on a disk that keeps its promises.
    pub const CRASHES: Plan = Plan {
        lives: 6,
        steps: 120,
        faults: Faults {
            read_error: 0,
            write_error: 0,
            sync_error: 0,
            lost_write: 0,
            misdirected_write: 0,
            lying_sync: false,
        },
        rot: 0,
        disk_may_lose: false,
        disk_bytes: u64::MAX,
        segments: 20,
        #[cfg(test)]
        flaw: Flaw::None,
    };

    fn is_faulty(&self) -> bool {
        let Faults { read_error, write_error, sync_error, lost_write, misdirected_write, lying_sync } = self.faults;
        read_error + write_error + sync_error + lost_write + misdirected_write > 0 || lying_sync || self.disk_may_lose
    }

    #[cfg(test)]
    fn has_flaw(&self) -> bool {
        self.flaw != Flaw::None
    }

    #[cfg(not(test))]
    fn has_flaw(&self) -> bool {
        false
    }
}

/// What runs have covered, so that a reader can see that something was tested.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    /// Power cuts.
    pub cuts: u64,
    /// Power cuts while a store was being opened.
    pub cuts_in_recovery: u64,
    /// Changes acknowledged.
    pub acknowledged: u64,
    /// Objects removed by sweeps.
    pub expired: u64,
    /// Records moved by cleaning.
    pub cleaned: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Lives that ended with several classes' segments open.
    pub several_classes_open: u64,
    /// Segments opened in a file used before.
    pub recycled: u64,
    /// Zeros written ahead of need.
    pub prewritten_bytes: u64,
    /// Segments given back.
    pub segments_freed: u64,
    /// Changes refused for want of room.
    pub refused: u64,
    /// Damage noticed.
    pub corrupt: u64,
    /// Lives that ended read-only after repeated write faults.
    pub read_only: u64,
    /// Changes answered with a device error.
    pub failed: u64,
}

impl Coverage {
    /// Adds what another run covered.
    pub fn add(&mut self, other: &Coverage) {
        self.cuts += other.cuts;
        self.cuts_in_recovery += other.cuts_in_recovery;
        self.acknowledged += other.acknowledged;
        self.expired += other.expired;
        self.cleaned += other.cleaned;
        self.checkpoints += other.checkpoints;
        self.several_classes_open += other.several_classes_open;
        self.recycled += other.recycled;
        self.prewritten_bytes += other.prewritten_bytes;
        self.segments_freed += other.segments_freed;
        self.refused += other.refused;
        self.corrupt += other.corrupt;
        self.read_only += other.read_only;
        self.failed += other.failed;
    }
}

/// Runs one seed of a plan.
///
/// # Errors
/// The violation found, for people: what was asked, what came, what the reference map allows.
pub fn run(seed: u64, plan: Plan) -> Result<Coverage, String> {
    model::World::run(seed, plan)
}

/// A store small enough that a short run fills, cleans and checkpoints it.
pub(crate) fn settings() -> Settings {
    Settings {
        segment_bytes: 64 * 1024,
        capacity_bytes: 20 * 64 * 1024,
        step_bytes: 16 * 1024,
        grace_s: 3,
        clock_jump_s: u64::MAX,
        objects_max: 1000,
        tail_bytes: 16 * 1024,
        checkpoint_log_bytes: 300 * 1024,
        #[cfg(test)]
        flaw: Flaw::None,
    }
}
