//! Whether a key has an object here, and which: what the index can say, and what the records must confirm.
//!
//! The index keeps 16 bits of a key's hash. For a recent entry it knows the whole key; of any other it can only say where the
//! record may lie. Whoever must know more reads the record's header and asks again, with what was found as a [`Fact`]. A
//! record at a place of a generation never changes, so a fact stays true however long the asking takes.

use super::Store;
use super::arcs::hash::KeyHash;
use super::arcs::locator::Locator;
use super::arcs::walk::Entry;
use crate::disk::Disk;
use crate::format::record::RecordHeader;
use crate::key::Key;

/// What the record at a place was found to be, for one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fact {
    pub(super) locator: Locator,
    pub(super) generation: u32,
    pub(super) says: Says,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Another key's record with the same tag.
    Stranger,
    /// The key's. `same` is the outcome of comparing its payload with a put's value, if that was done.
    Ours { version: u64, length: u32, same: Option<bool> },
}

/// What is known of a key's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Absent,
    Held(Entry),
    /// The record at this place must be read first.
    Unclear(Locator),
}

/// A place where a key's record may lie, with what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) locator: Locator,
    pub(super) generation: u32,
    /// End of the lease.
    pub(super) tick: u32,
    /// Length of the payload, if the entry is recent: then the key is known to be the right one.
    pub(super) length: Option<u32>,
}

impl<D: Disk> Store<D> {
    /// What is known of a key's object, given these facts.
    pub(super) fn presence(&self, key: &Key, facts: &[Fact]) -> Presence {
        if let Some(entry) = self.index.recent(key) {
            return Presence::Held(entry);
        }
        for (locator, tick) in self.index.candidates(key) {
            let generation = self.generation_of(locator);
            let fact = facts.iter().find(|fact| (fact.locator, fact.generation) == (locator, generation));
            match fact.map(|fact| fact.says) {
                None => return Presence::Unclear(locator),
                Some(Says::Stranger) => {}
                Some(Says::Ours { version, length, .. }) => {
                    return Presence::Held(Entry { key: *key, version, locator, length, generation, tick });
                }
            }
        }
        Presence::Absent
    }

    /// Where a key's record may lie: one place if the entry is recent, else all that match, of which one at most is its.
    pub(super) fn candidates(&self, key: &Key) -> Vec<Candidate> {
        if let Some(entry) = self.index.recent(key) {
            let Entry { locator, generation, tick, length, .. } = entry;
            return vec![Candidate { locator, generation, tick, length: Some(length) }];
        }
        let found = self.index.candidates(key);
        found
            .map(|(locator, tick)| Candidate { locator, generation: self.generation_of(locator), tick, length: None })
            .collect()
    }

    /// The key's entry, if the record with this header is it.
    pub(super) fn live_entry(&self, header: &RecordHeader) -> Option<Entry> {
        let (key, locator) = (header.key(), header.locator()?);
        let tick = self.index.tick_of(&key, locator)?;
        let (version, length, generation) = (header.version, header.length, header.generation);
        (self.generation_of(locator) == generation).then_some(Entry { key, version, locator, length, generation, tick })
    }

    /// Whether the index still has this entry.
    pub(super) fn is_live(&self, entry: &Entry) -> bool {
        self.index.tick_of(&entry.key, entry.locator).is_some() && self.generation_of(entry.locator) == entry.generation
    }

    /// The generation of the segment a locator names; 0, which no segment has, if it is not there.
    pub(super) fn generation_of(&self, locator: Locator) -> u32 {
        self.segments.get(u32::from(locator.segment())).map_or(0, |segment| segment.generation)
    }

    /// The batch not yet durable that changed a key with this hash last.
    pub(super) fn unsettled_by(&self, hash: KeyHash) -> Option<u64> {
        self.unsettled.get(&hash).copied()
    }
}
