//! The leaf set: the live nodes nearest to us on either side of the ring.
//!
//! Invariants:
//! - each side is sorted by distance from us in its direction, holds no duplicates, never us, and at most half of L;
//! - in a ring of at most L/2 other nodes both sides hold all of them, so a node may be on both sides;
//! - only nodes that have spoken to us themselves, and said that they are ready, are ever put in.

use crate::id::Id;

/// The nearest live nodes on both sides.
#[derive(Clone, Debug)]
pub(crate) struct LeafSet {
    me: Id,
    half: usize,
    clockwise: Vec<Id>,
    counter: Vec<Id>,
}

impl LeafSet {
    /// An empty leaf set with room for `size` nodes on both sides together.
    pub(crate) fn new(me: Id, size: usize) -> LeafSet {
        assert!(size >= 2, "a leaf set has two sides");
        LeafSet { me, half: size / 2, clockwise: Vec::new(), counter: Vec::new() }
    }

    pub(crate) fn contains(&self, id: Id) -> bool {
        self.clockwise.contains(&id) || self.counter.contains(&id)
    }

    /// Whether `id` is near enough to be put in, on a side where it is not yet.
    pub(crate) fn would_admit(&self, id: Id) -> bool {
        let me = self.me;
        let fits = |side: &[Id], distance: &dyn Fn(Id) -> Id| {
            let is_near = side.len() < self.half || side.last().is_some_and(|last| distance(id) < distance(*last));
            is_near && !side.contains(&id)
        };
        id != me && (fits(&self.clockwise, &|id| me.clockwise(id)) || fits(&self.counter, &|id| id.clockwise(me)))
    }

    /// Of these, who would be in the set if all of them were put in.
    pub(crate) fn nearest_of(&self, ids: &[Id]) -> Vec<Id> {
        if ids.is_empty() {
            return Vec::new();
        }
        let mut with_them = self.clone();
        for id in ids {
            with_them.insert(*id);
        }
        ids.iter().copied().filter(|id| with_them.contains(*id)).collect()
    }

    /// Puts `id` in, if it is near enough; returns whether anything changed.
    pub(crate) fn insert(&mut self, id: Id) -> bool {
        if !self.would_admit(id) {
            return false;
        }
        let (me, half) = (self.me, self.half);
        let put = |side: &mut Vec<Id>, distance: &dyn Fn(Id) -> Id| {
            if !side.contains(&id) {
                let at = side.partition_point(|other| distance(*other) < distance(id));
                side.insert(at, id);
                side.truncate(half);
            }
        };
        put(&mut self.clockwise, &|id| me.clockwise(id));
        put(&mut self.counter, &|id| id.clockwise(me));
        assert!(self.clockwise.len() <= half);
        assert!(self.counter.len() <= half);
        true
    }

    /// Takes `id` out; returns whether it was in. Where that makes room on one side, a member of the other may fit.
    pub(crate) fn remove(&mut self, id: Id) -> bool {
        if !self.contains(id) {
            return false;
        }
        self.clockwise.retain(|other| *other != id);
        self.counter.retain(|other| *other != id);
        for member in self.members() {
            self.insert(member);
        }
        true
    }

    /// Forgets everybody.
    pub(crate) fn clear(&mut self) {
        self.clockwise.clear();
        self.counter.clear();
    }

    /// Every node in the set once, farthest counter-clockwise first.
    pub(crate) fn members(&self) -> Vec<Id> {
        let mut members: Vec<Id> = self.counter.iter().rev().copied().collect();
        members.extend(self.clockwise.iter().filter(|id| !self.counter.contains(id)));
        members
    }

    /// Every node in the set, some twice where both sides hold it.
    pub(crate) fn sides(&self) -> impl Iterator<Item = Id> + '_ {
        self.clockwise.iter().chain(&self.counter).copied()
    }

    /// The nearest node on each side.
    pub(crate) fn adjacent(&self) -> impl Iterator<Item = Id> + '_ {
        let right = self.clockwise.first().copied();
        let left = self.counter.first().copied().filter(|id| Some(*id) != right);
        right.into_iter().chain(left)
    }

    /// Whether every node is known, because the ring is no larger than the set.
    pub(crate) fn is_whole_ring(&self) -> bool {
        // A side that is not full has met the other. Two full ones have when the farthest of one lies within the other.
        self.clockwise.len() < self.half
            || self
                .counter
                .last()
                .zip(self.clockwise.last())
                .is_some_and(|(counter, clockwise)| self.me.clockwise(*counter) <= self.me.clockwise(*clockwise))
    }

    /// Whether the root of `key` is us or in the set.
    pub(crate) fn covers(&self, key: Id) -> bool {
        let (Some(first), Some(last)) = (self.counter.last(), self.clockwise.last()) else { return true };
        self.is_whole_ring() || first.clockwise(key) <= first.clockwise(*last)
    }

    /// Of us and the set, the node nearest to `key` for which `allowed` holds; we are always allowed.
    pub(crate) fn nearest(&self, key: Id, allowed: impl Fn(Id) -> bool) -> Id {
        let mut best = self.me;
        for id in self.clockwise.iter().chain(&self.counter) {
            if id.is_nearer(key, best) && allowed(*id) {
                best = *id;
            }
        }
        best
    }

    /// Us and the set, nearest to `key` first.
    pub(crate) fn by_distance(&self, key: Id) -> Vec<Id> {
        let mut all = self.members();
        all.push(self.me);
        all.sort_by_key(|id| (id.distance(key), *id));
        all
    }

    /// The nodes on one side, nearest first.
    pub(crate) fn clockwise(&self) -> &[Id] {
        &self.clockwise
    }

    /// The nodes on the other side, nearest first.
    pub(crate) fn counter_clockwise(&self) -> &[Id] {
        &self.counter
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the set is what a sort of all nodes would give. Method: random insertions and removals against a sorted
    //! model; proptest prints the seed of a failure.
    use super::*;
    use proptest::prelude::*;

    fn id(x: u16) -> Id {
        let mut bytes = [0; 20];
        bytes[..2].copy_from_slice(&x.to_be_bytes());
        Id(bytes)
    }

    proptest! {
        #[test]
        fn agrees_with_sorting_everybody(
            me: u16,
            others in prop::collection::btree_set(any::<u16>(), 0..40),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            new in prop::collection::vec(any::<u16>(), 0..20),
            key: u16,
        ) {
            let me = id(me);
            let mut all: Vec<Id> = others.into_iter().map(id).filter(|x| *x != me).collect();
            let mut set = LeafSet::new(me, 8);
            for other in &all {
                set.insert(*other);
            }
            for index in gone {
                if !all.is_empty() {
                    let out = all.remove(index.index(all.len()));
                    set.remove(out);
                }
            }
            for other in &all {
                set.insert(*other);
            }
            // Of some more, a sort of all says who would be in it.
            let new: Vec<Id> = new.into_iter().map(id).filter(|x| *x != me && !all.contains(x)).collect();
            let mut with_new: Vec<Id> = all.iter().chain(&new).copied().collect();
            with_new.sort_by_key(|x| me.clockwise(*x));
            with_new.dedup();
            let from_the_end = with_new.len().saturating_sub(4);
            let would_be_in = |x: &&Id| with_new.iter().take(4).chain(&with_new[from_the_end..]).any(|near| near == *x);
            prop_assert_eq!(set.nearest_of(&new), new.iter().filter(would_be_in).copied().collect::<Vec<Id>>());
            all.sort_by_key(|x| me.clockwise(*x));
            prop_assert_eq!(&set.clockwise[..], &all[..all.len().min(4)]);
            all.reverse();
            prop_assert_eq!(&set.counter[..], &all[..all.len().min(4)]);
            let root = all.iter().copied().chain([me]).min_by_key(|x| (x.distance(id(key)), *x)).unwrap();
            if set.covers(id(key)) {
                prop_assert_eq!(set.nearest(id(key), |_| true), root);
            } else {
                prop_assert!(root != me);
            }
        }
    }
}
