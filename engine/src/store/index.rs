//! The index: which record holds a key's object, and until when.
//!
//! An ordered map in memory, about [`Index::BYTES_PER_OBJECT`] bytes an object: correct, simple, and able to walk a range
//! of the ring. It is rebuilt from a checkpoint and the log behind it. The compact tag table of the design
//! (12 bytes an object) is not here yet.

use crate::format::record::{LeaseEntry, RecordHeader};
use crate::key::Key;
use std::collections::BTreeMap;
use std::ops::Bound;

/// What the index knows of an object. The generation is the segment's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) version: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// End of the lease in ticks.
    pub(crate) expiry: u32,
}

impl Slot {
    /// The slot of the record with this header.
    pub(crate) fn of(header: &RecordHeader) -> Slot {
        Slot {
            version: header.version,
            segment: u32::from(header.segment),
            offset: header.offset,
            length: header.length,
            expiry: header.expiry,
        }
    }

    /// Whether both name the same record.
    pub(crate) fn is_same_record(&self, other: &Slot) -> bool {
        (self.segment, self.offset) == (other.segment, other.offset)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: BTreeMap<Key, Slot>,
}

impl Index {
    /// Key and slot, in tree nodes that are two thirds full on average, with their share of inner nodes.
    pub(crate) const BYTES_PER_OBJECT: u64 = ((size_of::<Key>() + size_of::<Slot>()) * 3 / 2 + 8) as u64;

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Slot> {
        self.slots.get(key).copied()
    }

    /// Puts, replaces or (with `None`) removes; returns what was there.
    pub(crate) fn set(&mut self, key: Key, slot: Option<Slot>) -> Option<Slot> {
        match slot {
            Some(slot) => self.slots.insert(key, slot),
            None => self.slots.remove(&key),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.slots.iter()
    }

    /// Keys whose lease ended before tick `cutoff`.
    pub(crate) fn expired(&self, cutoff: u32) -> Vec<Key> {
        self.slots.iter().filter(|(_, slot)| slot.expiry < cutoff).map(|(key, _)| *key).collect()
    }

    /// The key a lease entry speaks of, if its record is still the key's.
    pub(crate) fn find(&self, lease: &LeaseEntry) -> Option<Key> {
        let mut low = [0; 20];
        let mut high = [0xff; 20];
        low[..8].copy_from_slice(&lease.prefix);
        high[..8].copy_from_slice(&lease.prefix);
        self.slots
            .range(Key::lowest(low)..=Key::highest(high))
            .find(|(_, slot)| (slot.segment, slot.offset) == (lease.segment, lease.offset))
            .map(|(key, _)| *key)
    }

    /// Up to `limit` entries clockwise from `from` to `to`, strictly after `after`.
    pub(crate) fn range(&self, from: [u8; 20], to: [u8; 20], after: Option<Key>, limit: usize) -> Vec<(Key, Slot)> {
        let (lowest, highest) = (Bound::Included(Key::lowest(from)), Bound::Included(Key::highest(to)));
        let arcs = if from <= to {
            vec![(lowest, highest)]
        } else {
            vec![(lowest, Bound::Unbounded), (Bound::Unbounded, highest)]
        };
        let mut found = Vec::new();
        // A cursor in the second arc skips the first; a cursor in the first leaves the second whole.
        let skip = after.map_or(0, |key| arcs.iter().position(|arc| within(arc, &key)).unwrap_or(0));
        for (at, (low, high)) in arcs.into_iter().enumerate().skip(skip) {
            let low = match after {
                Some(key) if at == skip => tighter(low, key),
                _ => low,
            };
            if is_empty(&low, &high) {
                continue;
            }
            let room = limit - found.len();
            found.extend(self.slots.range((low, high)).take(room).map(|(key, slot)| (*key, *slot)));
        }
        found
    }
}

fn within(arc: &(Bound<Key>, Bound<Key>), key: &Key) -> bool {
    use std::ops::RangeBounds;
    (arc.0.as_ref(), arc.1.as_ref()).contains(key)
}

fn tighter(low: Bound<Key>, after: Key) -> Bound<Key> {
    match low {
        Bound::Included(key) if key > after => low,
        _ => Bound::Excluded(after),
    }
}

/// Whether a range has nothing in it in a way that `BTreeMap::range` would panic on.
fn is_empty(low: &Bound<Key>, high: &Bound<Key>) -> bool {
    match (low, high) {
        (Bound::Excluded(low), Bound::Included(high)) => low >= high,
        (Bound::Included(low), Bound::Included(high)) => low > high,
        _ => false,
    }
}

/// Whether `a` comes before `b` on a clockwise walk that starts at `from`: the order of merged scans.
pub(crate) fn walk_order(from: [u8; 20], key: &Key) -> (bool, Key) {
    (key.placement < from, *key)
}

#[cfg(test)]
mod tests {
    //! Goal: range walks are right at the seams. Method: brute force over all keys of a small ring.
    use super::*;
    use proptest::prelude::*;

    fn key(at: u8) -> Key {
        let mut placement = [0; 20];
        placement[0] = at;
        Key { placement, name: [at; 32], kind: 1 }
    }

    proptest! {
        #[test]
        fn ranges_agree_with_brute_force(
            held in proptest::collection::btree_set(0u8..32, 0..20),
            from in 0u8..32, to in 0u8..32, after in proptest::option::of(0u8..32), limit in 0usize..24,
        ) {
            let mut index = Index::default();
            for at in &held {
                let slot = Slot { version: 0, segment: 1, offset: u32::from(*at), length: 1, expiry: 1 };
                index.set(key(*at), Some(slot));
            }
            let walk: Vec<u8> = (0..32u8).map(|step| (from + step) % 32).collect();
            let end = walk.iter().position(|at| *at == to).unwrap();
            let arc = &walk[..=end];
            // A cursor outside the arc: the engine starts from the beginning if it lies before, nothing is promised beyond.
            let begin = match after.map(|after| arc.iter().position(|at| *at == after)) {
                Some(Some(position)) => position + 1,
                Some(None) => return Ok(()),
                None => 0,
            };
            let expected: Vec<Key> =
                arc[begin..].iter().filter(|at| held.contains(at)).take(limit).map(|at| key(*at)).collect();
            let found: Vec<Key> = index
                .range(key(from).placement, key(to).placement, after.map(key), limit)
                .into_iter()
                .map(|(key, _)| key)
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
