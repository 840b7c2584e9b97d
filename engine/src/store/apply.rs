//! What records do to the index, and how that is taken back when their batch fails.
//!
//! Every change of the index by the log goes through here, so that the bytes that segments count as live, the digests and
//! the table never part. Extended leases are taken back, too: a touch that comes later must not find them and be answered
//! without a record.

use super::Store;
use super::arcs::Address;
use super::arcs::hash::KeyHash;
use super::arcs::locator::Locator;
use super::arcs::walk::Entry;
use super::decide::Effect;
use crate::disk::Disk;
use crate::format::record::Place;
use crate::format::run::RunEntry;
use std::hash::{BuildHasherDefault, Hasher};

/// What a batch has changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// How to undo it, in the order of change.
    undo: Vec<Undo>,
    /// The keys concerned, by hash: until the batch is durable, gets of them wait.
    hashes: Vec<KeyHash>,
}

#[derive(Debug)]
enum Undo {
    Placed { new: Entry, replaced: Option<Entry> },
    Removed(Entry),
    Extended { address: Address, locator: Locator, tick: u32 },
}

/// A map from key hashes, which are hashes already.
pub(super) type Unsettled = std::collections::HashMap<KeyHash, u64, BuildHasherDefault<AsItIs>>;

/// Takes a 64-bit hash for what it is.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl<D: Disk> Store<D> {
    /// Changes the index by a record of the batch being built. Returns how many objects it removed.
    pub(super) fn apply(&mut self, changes: &mut Changes, effect: Effect) -> u64 {
        match effect {
            Effect::Nothing => 0,
            Effect::Place { new, replaced } => {
                if let Some(replaced) = &replaced {
                    self.take_out(replaced);
                }
                self.put_in(&new);
                self.unsettle(changes, self.index.address(&new.key).hash);
                changes.undo.push(Undo::Placed { new, replaced });
                0
            }
            Effect::Remove(entries) => {
                for entry in &entries {
                    self.take_out(entry);
                    self.unsettle(changes, self.index.address(&entry.key).hash);
                    changes.undo.push(Undo::Removed(*entry));
                }
                entries.len() as u64
            }
            Effect::Extend(leases) => {
                changes.undo.reserve(leases.len());
                changes.hashes.reserve(leases.len());
                for lease in leases {
                    let address = lease.address;
                    let undo = |locator, tick| changes.undo.push(Undo::Extended { address, locator, tick });
                    self.index.extend(address, lease.tick, undo);
                    self.unsettle(changes, address.hash);
                }
                0
            }
        }
    }

    fn unsettle(&mut self, changes: &mut Changes, hash: KeyHash) {
        self.unsettled.insert(hash, self.log.sequence_next);
        changes.hashes.push(hash);
    }

    /// The batch is durable.
    pub(super) fn settle_changes(&mut self, changes: &Changes, sequence: u64) {
        for hash in &changes.hashes {
            if self.unsettled.get(hash) == Some(&sequence) {
                self.unsettled.remove(hash);
            }
        }
        for undo in &changes.undo {
            if let Undo::Removed(gone) | Undo::Placed { replaced: Some(gone), .. } = undo {
                self.note_dead(gone, sequence);
            }
        }
    }

    /// The batch failed, and all behind it have been undone.
    pub(super) fn undo(&mut self, changes: Changes) {
        for undo in changes.undo.into_iter().rev() {
            match undo {
                Undo::Placed { new, replaced } => {
                    self.take_out(&new);
                    if let Some(replaced) = replaced {
                        self.put_in(&replaced);
                    }
                }
                Undo::Removed(entry) => self.put_in(&entry),
                Undo::Extended { address, locator, tick } => self.index.restore_end(address, locator, tick),
            }
        }
    }

    fn put_in(&mut self, entry: &Entry) {
        let Entry { key, version, locator, length, generation, tick } = *entry;
        self.segments.charge(u32::from(locator.segment()), locator.bytes());
        self.index.insert(&RunEntry { key, version, locator, length, generation }, tick);
    }

    fn take_out(&mut self, entry: &Entry) {
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::PunchEarly {
            self.note_dead(entry, 0);
        }
        let tick = self.index.remove(&entry.key, entry.version, entry.locator);
        assert!(tick.is_some(), "what is removed was decided about a moment ago");
        self.segments.discharge(u32::from(entry.locator.segment()), entry.locator.bytes());
    }
}

/// The locator of a record that was given this place.
pub(super) fn locator_at(place: Place, record_bytes: usize) -> Locator {
    let segment = u16::try_from(place.segment).expect("segment numbers have 16 bits");
    Locator::new(segment, place.offset, u32::try_from(record_bytes).expect("a record is smaller than its segment"))
}
