//! The simulator: a store beside a reference map, on a disk that fails as disks do, from one seed.
//!
//! [`run`] lives through one seed of a [`Plan`]: a few lives of random operations, each ended by a power cut, a kill or an
//! orderly close, with the power also failing while the store is opened. What was acknowledged is compared with `model` at
//! every answer and after every opening; the first difference is the violation returned. The same seed, plan and commit
//! give the same run, operation for operation.
//!
//! Not part of the shipped program: behind the feature `simulation`, for `perf simulate` and the tests here. Planted
//! defects, which show that the checker catches them, exist in test builds only.

mod coverage;
#[cfg(test)]
mod crash_tests;
mod model;
mod world;

pub use coverage::{Activities, Activity, Coverage};

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
    /// Processes are killed; the machine never loses power, and what was handed to the disk may be seen by the next.
    pub power_stays: bool,
    /// After opening, a whole pass of scrub runs before anything is read; then no reader may find damage.
    pub scrub_first: bool,
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
        power_stays: false,
        scrub_first: false,
        #[cfg(test)]
        flaw: Flaw::None,
    };

    /// Writes, syncs and reads that fail, beside power cuts.
    pub const FAILING: Plan = Plan {
        faults: Faults { write_error: 6, sync_error: 60, read_error: 5, ..Plan::CRASHES.faults },
        ..Plan::CRASHES
    };

    /// A disk on which writes fail so often that most lives end read-only, and begin again soon: abandoned batches, segments
    /// opened in place of others and leftovers in recycled ones meet in every order.
    pub const BREAKING: Plan =
        Plan { lives: 20, steps: 40, faults: Faults { write_error: 80, ..Plan::CRASHES.faults }, ..Plan::CRASHES };

    /// A disk smaller than the store's capacity.
    pub const FULL_DISK: Plan = Plan { disk_bytes: 300 * 1024, steps: 300, ..Plan::CRASHES };

    /// A store that must clean as it goes.
    pub const LITTLE_ROOM: Plan = Plan { segments: 9, steps: 300, ..Plan::CRASHES };

    /// A disk that loses and misdirects writes it reported done, and flips bits.
    pub const LOSSY_DISK: Plan = Plan {
        faults: Faults { lost_write: 10, misdirected_write: 10, ..Plan::CRASHES.faults },
        rot: 3,
        disk_may_lose: true,
        ..Plan::CRASHES
    };

    /// Processes killed on a machine that goes on.
    pub const KILLS: Plan = Plan { power_stays: true, ..Plan::CRASHES };

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

/// A plan with a name to replay it by.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// As given on the command line.
    pub name: &'static str,
    /// What it does.
    pub plan: Plan,
}

/// Every campaign there is.
pub const CAMPAIGNS: [Campaign; 7] = [
    Campaign { name: "power-cuts", plan: Plan::CRASHES },
    Campaign { name: "failing-writes", plan: Plan::FAILING },
    Campaign { name: "breaking-disk", plan: Plan::BREAKING },
    Campaign { name: "full-disk", plan: Plan::FULL_DISK },
    Campaign { name: "little-room", plan: Plan::LITTLE_ROOM },
    Campaign { name: "lossy-disk", plan: Plan::LOSSY_DISK },
    Campaign { name: "kills", plan: Plan::KILLS },
];

/// Runs one seed of a plan.
///
/// # Errors
/// The violation found, for people: what was asked, what came, what the reference map allows.
pub fn run(seed: u64, plan: Plan) -> Result<Coverage, String> {
    world::World::run(seed, plan)
}

/// A store small enough that a short run fills, cleans and checkpoints it.
pub(crate) fn settings() -> Settings {
    Settings {
        segment_bytes: 64 * 1024,
        capacity_bytes: 20 * 64 * 1024,
        step_bytes: 16 * 1024,
        // Batches are small here, and all overlap.
        overlap_share: u64::from(u32::MAX),
        zeros_bytes: 16 * 1024,
        grace_s: 3,
        clock_jump_s: u64::MAX,
        objects_max: 1000,
        tail_bytes: 16 * 1024,
        punch_bytes_min: 4096,
        checkpoint_log_bytes: 300 * 1024,
        arc_objects_max: 16,
        recents_max: 16,
        run_fan_in: 2,
        tag_bits: 16,
        #[cfg(test)]
        flaw: Flaw::None,
    }
}
