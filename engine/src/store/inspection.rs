//! What the simulator sees of a store beside its answers: the index and the accounts, to be compared, never changed.

use super::Store;
use super::index::Slot;
use crate::disk::Disk;
use crate::format::record::record_bytes;
use crate::key::Key;
use crate::simulate::{Activities, Activity};
use std::collections::BTreeMap;

impl<D: Disk> Store<D> {
    /// The whole index: two openings of one disk must give the same.
    pub(crate) fn index_entries(&self) -> Vec<(Key, Slot)> {
        self.index.iter().map(|(key, slot)| (*key, *slot)).collect()
    }

    /// Whether each segment's account of what is live in it is what the index points to.
    pub(crate) fn check_live(&self) -> Result<(), String> {
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for (_, slot) in self.index.iter() {
            *live.entry(slot.segment).or_default() += record_bytes(slot.length as usize) as u64;
        }
        for (number, segment) in self.segments.iter() {
            let counted = live.remove(&number).unwrap_or(0);
            if segment.live != counted {
                return Err(format!("segment {number} counts {} live, has {counted}", segment.live));
            }
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
