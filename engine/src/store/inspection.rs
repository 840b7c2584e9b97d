//! What the simulator sees of a store beside its answers: the index and the accounts, to be compared, never changed.

use super::Store;
use super::arcs::locator::Locator;
use crate::disk::Disk;
use crate::simulate::{Activities, Activity};
use std::collections::BTreeMap;

impl<D: Disk> Store<D> {
    /// The whole index, as it is on the disk's tables: two openings of one disk must give the same.
    pub(crate) fn index_entries(&self) -> Vec<(Locator, u32)> {
        let mut entries: Vec<(Locator, u32)> = self.index.arcs().iter().flat_map(|arc| arc.table.iter()).collect();
        entries.sort_unstable();
        entries
    }

    /// Whether each segment's account of what is live in it is what the index points to, and the index's own invariants hold.
    pub(crate) fn check_live(&self) -> Result<(), String> {
        self.index.check();
        let mut live: BTreeMap<u16, u64> = self.index.live_bytes();
        for (number, segment) in self.segments.iter() {
            let counted = u16::try_from(number).ok().and_then(|number| live.remove(&number)).unwrap_or(0);
            if segment.live != counted {
                return Err(format!("segment {number} counts {} live, has {counted}", segment.live));
            }
        }
        let total: u64 = self.segments.iter().map(|(_, segment)| segment.live).sum();
        if total != self.segments.live_bytes() {
            return Err(format!("{} bytes are counted live in all, {total} by segment", self.segments.live_bytes()));
        }
        if live.is_empty() { Ok(()) } else { Err(format!("slots in segments that are not there: {live:?}")) }
    }

    /// What the store is doing, so that a crash can be told where it fell.
    pub(crate) fn under_way(&self) -> Activities {
        self.upkeep.under_way().with(Activity::Commit, !self.log.flights.is_empty())
    }

    /// Bytes that the store believes it uses on the disk, without its superblock.
    pub(crate) fn bytes_counted(&self) -> u64 {
        self.total_bytes()
    }
}
