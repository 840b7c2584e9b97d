//! Sweeps: what has expired is found, and removed by name.
//!
//! First the believed time goes to the log. Then the columns of leases are scanned, a quantum each turn, for arcs that hold an end
//! before the cutoff; those arcs are walked, which gives keys; and what is expired *when its removal is decided* goes, in
//! ordinary batches, with a row for each object. So a lease extended while the sweep was under way counts, and replaying the log
//! removes exactly what was removed.
//!
//! In a store that is full to the brim there may be no room for all those rows. Then the sweep stops where it is, what is dead by
//! then is freed, and it begins anew with the same cutoff, for as long as that frees something.

use super::arcs::codec::ExpiryRow;
use super::arcs::walk::Walk;
use super::upkeep::Phase;
use super::walks::{Errand, Walking};
use super::{Change, Store};
use crate::disk::Disk;
use crate::format::batch::batch_bytes;
use crate::format::record::record_bytes;
use crate::key::Key;
use crate::limits;
use std::collections::VecDeque;

const _: () = {
    let record = record_bytes(limits::EXPIRED_PER_RECORD * ExpiryRow::SIZE);
    assert!(limits::BLOCK + batch_bytes(record) <= limits::SEGMENT_BYTES_MIN as usize);
};

/// A sweep under way.
#[derive(Debug)]
pub(super) struct Sweeping {
    cutoff: u32,
    /// The batch with the believed time, or the last one with a removal.
    pub(super) sequence: u64,
    /// Where the scan of the leases goes on.
    position: Option<u64>,
    /// Ranges with expired leases, still to be walked.
    ranges: VecDeque<(Key, Key)>,
    is_walking: bool,
}

impl Sweeping {
    pub(super) fn new(cutoff: u32, sequence: u64) -> Sweeping {
        Sweeping { cutoff, sequence, position: Some(0), ranges: VecDeque::new(), is_walking: false }
    }
}

impl<D: Disk> Store<D> {
    /// Moves the sweep on. Returns whether it moved, and whether all it removed is durable.
    pub(super) fn sweep_on(&mut self) -> (bool, bool) {
        let is_cut_short = self.upkeep.is_sweep_cut_short();
        let Phase::Sweeping(sweeping) = &mut self.upkeep.phase else { return (false, false) };
        if is_cut_short {
            sweeping.position = None;
            sweeping.ranges.clear();
        }
        if let Some(position) = sweeping.position {
            let quantum = self.index.sweep_quantum(position, sweeping.cutoff, limits::SWEEP_QUANTUM_SLOTS);
            sweeping.ranges.extend(quantum.ranges);
            sweeping.position = quantum.next;
            return (true, false);
        }
        if sweeping.is_walking {
            return (false, false);
        }
        if let Some((low, high)) = sweeping.ranges.pop_front() {
            sweeping.is_walking = true;
            let cutoff = sweeping.cutoff;
            let walk = Walk::between(self.identity, low, high);
            self.begin_walk(Walking::new(walk, Errand::Expire { cutoff, found: Vec::new() }));
            return (true, false);
        }
        let is_durable = sweeping.sequence <= self.log.durable;
        (false, is_durable && !self.survivors.iter().any(|change| matches!(change, Change::Expired { .. })))
    }

    /// The walk of an arc has ended.
    pub(super) fn arc_swept(&mut self) {
        if let Phase::Sweeping(sweeping) = &mut self.upkeep.phase {
            sweeping.is_walking = false;
        }
    }
}
