//! A table by id: what is known of each of many nodes, found with a look or two however many there are.
//!
//! Ids are hashes, so an ordered map's comparisons of twenty bytes a step buy nothing; a node looks a peer up for each
//! message that comes, and a simulated world its nodes for each that is sent.
//!
//! Invariants:
//! - `entries` holds each id once, in the order of insertion until the first removal, which puts the last one into the gap;
//! - `slots` are a power of two, at most three quarters of them taken; a taken one names a place in `entries` and some bits
//!   of the id there, and an id is found by going on from its home slot until it, or an empty slot, is met.
//!
//! The order of iteration follows from what was done, and from nothing else.

use crate::id::Id;

/// An empty slot.
const EMPTY: u32 = u32::MAX;
/// So many low bits of a slot name the entry, the others are the tag.
const PLACE_BITS: u32 = 24;
const PLACE: u32 = (1 << PLACE_BITS) - 1;

/// Values by id.
#[derive(Debug)]
pub(crate) struct IdTable<T> {
    entries: Vec<(Id, T)>,
    slots: Vec<u32>,
}

impl<T> Default for IdTable<T> {
    fn default() -> IdTable<T> {
        IdTable { entries: Vec::new(), slots: Vec::new() }
    }
}

impl<T> IdTable<T> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where `id` is among the entries.
    pub(crate) fn place(&self, id: Id) -> Option<usize> {
        self.slot(id).ok().map(|slot| (self.slots[slot] & PLACE) as usize)
    }

    /// The entry at a place.
    pub(crate) fn at(&self, place: usize) -> &(Id, T) {
        &self.entries[place]
    }

    pub(crate) fn contains(&self, id: Id) -> bool {
        self.place(id).is_some()
    }

    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        self.place(id).map(|place| &self.entries[place].1)
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.place(id).map(|place| &mut self.entries[place].1)
    }

    /// The value of `id`, the default one if it had none.
    pub(crate) fn entry(&mut self, id: Id) -> &mut T
    where
        T: Default,
    {
        let place = self.place(id).unwrap_or_else(|| self.add(id, T::default()));
        &mut self.entries[place].1
    }

    /// Adds an id that is not there; returns its place.
    ///
    /// # Panics
    /// If there are 16 million already.
    pub(crate) fn add(&mut self, id: Id, value: T) -> usize {
        let place = self.entries.len();
        assert!(place < PLACE as usize, "the table is full");
        if place == self.entries.capacity() {
            self.entries.reserve_exact(place / 2 + 4); // There are many tables: less to spare than a vector keeps.
        }
        self.entries.push((id, value));
        if 4 * self.entries.len() > 3 * self.slots.len() {
            self.slots = vec![EMPTY; (2 * self.slots.len()).max(8)];
            (0..self.entries.len()).for_each(|place| self.enter(place));
        } else {
            self.enter(place);
        }
        place
    }

    /// Takes an id out.
    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        let mut gap = self.slot(id).ok()?;
        let place = (self.slots[gap] & PLACE) as usize;
        // Whoever was put beyond the gap because it was taken moves up, or he would not be found.
        let mask = self.slots.len() - 1;
        let mut next = (gap + 1) & mask;
        while self.slots[next] != EMPTY {
            let (home, _) = self.home(self.entries[(self.slots[next] & PLACE) as usize].0);
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(gap) & mask) {
                self.slots[gap] = self.slots[next];
                gap = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[gap] = EMPTY;
        let last = self.entries.len() - 1;
        if place != last
            && let Ok(slot) = self.slot(self.entries[last].0)
        {
            self.slots[slot] = (self.slots[slot] & !PLACE) | place as u32;
        }
        Some(self.entries.swap_remove(place).1)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (Id, &T)> {
        self.entries.iter().map(|(id, value)| (*id, value))
    }

    fn enter(&mut self, place: usize) {
        let (mut slot, tag) = self.home(self.entries[place].0);
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = tag | place as u32;
    }

    /// The slot of an id; if it is not there, an error.
    fn slot(&self, id: Id) -> Result<usize, ()> {
        if self.slots.is_empty() {
            return Err(());
        }
        let (mut slot, tag) = self.home(id);
        loop {
            let taken = self.slots[slot];
            if taken == EMPTY {
                return Err(());
            }
            if taken & !PLACE == tag && self.entries[(taken & PLACE) as usize].0 == id {
                return Ok(slot);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Where the search for an id begins, and its tag.
    fn home(&self, id: Id) -> (usize, u32) {
        let [b0, b1, b2, b3, b4, b5, b6, b7, .., e0, e1, e2, e3, e4, e5, e6, e7] = id.0;
        let first = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        let last = u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7]);
        // Neighbours on the ring have their first bytes in common, so all are mixed (by the golden ratio, as Knuth does).
        let mixed = (first ^ last.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 32) as usize & (self.slots.len() - 1), (mixed >> 32) as u32 & !PLACE)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the table holds what an ordered map holds. Method: random insertions, removals and looks over few ids (so that they
    //! meet) and over ids alike in all bytes that name the slot, beside a `BTreeMap`; proptest prints the seed of a failure.

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Put(Id, u32),
        Remove(Id),
    }

    fn id() -> impl Strategy<Value = Id> {
        (0u8..60, any::<bool>()).prop_map(|(nth, alike)| {
            let mut id = Id([nth; Id::LEN]);
            if alike {
                id.0[..8].fill(7);
                id.0[12..].fill(7);
            }
            id
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (id(), any::<u32>()).prop_map(|(id, value)| Step::Put(id, value)),
            5 => id().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_an_ordered_map(steps in prop::collection::vec(step(), 0..400)) {
            let (mut table, mut model) = (IdTable::default(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Put(id, value) => {
                        *table.entry(id) = value;
                        model.insert(id, value);
                    }
                    Step::Remove(id) => prop_assert_eq!(table.remove(id), model.remove(&id)),
                }
                prop_assert_eq!(table.len(), model.len());
                let held: BTreeMap<Id, u32> = table.iter().map(|(id, value)| (id, *value)).collect();
                prop_assert_eq!(&held, &model);
                for nth in 0..60 {
                    let id = Id([nth; Id::LEN]);
                    prop_assert_eq!(table.get(id), model.get(&id));
                    prop_assert_eq!(table.place(id).map(|place| *table.at(place)), model.get(&id).map(|value| (id, *value)));
                }
            }
        }
    }
}
