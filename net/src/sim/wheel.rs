//! The queue of what is to come: a hierarchical timing wheel, exact to the microsecond and to the order of insertion.
//!
//! ```text
//! level 7 … 256 slots of 2^56 µs      an entry lies on the level of the highest byte in which its time differs from
//!   …                                 the wheel's, in the slot that this byte of its time names
//! level 1 … 256 slots of 256 µs       when the wheel's time enters a slot, the slot's entries move to lower levels
//! level 0 … 256 slots of 1 µs         a slot holds one microsecond: its entries leave in the order they came
//! ```
//!
//! Invariants:
//! - the wheel's time is never later than the time of any entry in it;
//! - where an entry lies follows from its time and the wheel's alone, so it can be taken out without a search;
//! - of entries of the same time, all lie in one slot at any moment, in the order of their insertion: each list is appended
//!   to and emptied from the front, and a slot is spread over lower levels before anything is put there directly.
//!
//! So entries leave by (time, insertion), as from an ordered queue, each for at most eight moves. Nothing is allocated for
//! an entry while there were more at once before.

use crate::machine::Micros;

const LEVELS: usize = 8;
const SLOTS: usize = 256;
const NOBODY: u32 = u32::MAX;

/// Where an entry is, for as long as it is in the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// The first and the last entry of a list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

/// Where an entry is linked. What it stands for lies elsewhere, so that moving entries about touches little memory.
#[derive(Debug)]
struct Link {
    at: Micros,
    before: u32,
    /// The next in the list; of a free entry, the next free one.
    after: u32,
}

#[derive(Debug)]
struct Level {
    lists: [Ends; SLOTS],
    occupied: [u64; SLOTS / 64],
}

impl Level {
    const EMPTY: Level = Level { lists: [Ends { first: NOBODY, last: NOBODY }; SLOTS], occupied: [0; SLOTS / 64] };

    /// The first occupied slot from `from` on.
    fn next_occupied(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.occupied[word] & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.occupied.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// What is to come, by time and order of insertion.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    now: Micros,
    levels: Box<[Level; LEVELS]>,
    links: Vec<Link>,
    /// What each entry stands for; `None` for a free one.
    contents: Vec<Option<T>>,
    free: u32,
    len: usize,
}

impl<T> Wheel<T> {
    /// An empty wheel at this time.
    pub(super) fn new(now: Micros) -> Wheel<T> {
        Wheel {
            now,
            levels: Box::new([Level::EMPTY; LEVELS]),
            links: Vec::new(),
            contents: Vec::new(),
            free: NOBODY,
            len: 0,
        }
    }

    /// Entries in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts something in, behind everything of the same time.
    pub(super) fn push(&mut self, at: Micros, what: T) -> Place {
        assert!(at >= self.now, "the past does not come again");
        let link = Link { at, before: NOBODY, after: NOBODY };
        let index = if self.free == NOBODY {
            assert!(self.links.len() < NOBODY as usize, "the wheel is full");
            self.links.push(link);
            self.contents.push(Some(what));
            (self.links.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = self.links[index as usize].after;
            self.links[index as usize] = link;
            self.contents[index as usize] = Some(what);
            index
        };
        self.len += 1;
        self.link(index);
        Place(index)
    }

    /// Takes out the earliest entry that is due by `end`, with its time and the place it had.
    pub(super) fn pop(&mut self, end: Micros) -> Option<(Micros, Place, T)> {
        loop {
            let (level, slot) = self.earliest()?;
            let width = 8 * level;
            // The time at which the slot begins: higher bytes as now, this one the slot's, lower ones 0.
            let higher = if level + 1 == LEVELS { 0 } else { (self.now >> (width + 8)) << (width + 8) };
            let begins = higher | ((slot as u64) << width);
            if begins > end {
                return None;
            }
            assert!(begins >= self.now, "time goes on");
            self.now = begins;
            let first = self.levels[level].lists[slot].first;
            if level == 0 {
                let what = self.take(first)?;
                return Some((begins, Place(first), what));
            }
            self.spread(level, slot);
        }
    }

    /// Takes out an entry before its time.
    pub(super) fn cancel(&mut self, place: Place) -> Option<T> {
        self.take(place.0)
    }

    /// The lowest level with an entry, and its first occupied slot: what is on it comes before all that is above.
    fn earliest(&self) -> Option<(usize, usize)> {
        (0..LEVELS).find_map(|level| {
            let from = byte(self.now, level);
            self.levels[level].next_occupied(from).map(|slot| (level, slot))
        })
    }

    /// Moves the entries of a slot that time has entered to the levels below, in their order.
    fn spread(&mut self, level: usize, slot: usize) {
        let it = &mut self.levels[level];
        let mut next = it.lists[slot].first;
        it.lists[slot] = Ends { first: NOBODY, last: NOBODY };
        it.occupied[slot / 64] &= !(1 << (slot % 64));
        while next != NOBODY {
            let index = next;
            next = self.links[index as usize].after;
            self.link(index);
        }
    }

    fn location(&self, at: Micros) -> (usize, usize) {
        let differing = at ^ self.now;
        let level = (63 - (differing | 1).leading_zeros() as usize) / 8;
        (level, byte(at, level))
    }

    fn link(&mut self, index: u32) {
        let (level, slot) = self.location(self.links[index as usize].at);
        let level = &mut self.levels[level];
        let last = level.lists[slot].last;
        level.lists[slot].last = index;
        if last == NOBODY {
            level.lists[slot].first = index;
            level.occupied[slot / 64] |= 1 << (slot % 64);
        } else {
            self.links[last as usize].after = index;
        }
        let link = &mut self.links[index as usize];
        (link.before, link.after) = (last, NOBODY);
    }

    fn take(&mut self, index: u32) -> Option<T> {
        let what = self.contents.get_mut(index as usize)?.take()?;
        let link = &mut self.links[index as usize];
        let (at, before, after) = (link.at, link.before, link.after);
        link.after = self.free;
        self.free = index;
        self.len -= 1;
        let (level, slot) = self.location(at);
        let level = &mut self.levels[level];
        match before {
            NOBODY => level.lists[slot].first = after,
            before => self.links[before as usize].after = after,
        }
        match after {
            NOBODY => level.lists[slot].last = before,
            after => self.links[after as usize].before = before,
        }
        if before == NOBODY && after == NOBODY {
            level.occupied[slot / 64] &= !(1 << (slot % 64));
        }
        Some(what)
    }
}

fn byte(at: Micros, level: usize) -> usize {
    usize::from((at >> (8 * level)) as u8)
}

#[cfg(test)]
mod tests {
    //! Goal: entries leave as from an ordered queue. Method: random insertions (many at the same time, some far off),
    //! cancellations and bounded pops, beside a binary heap by (time, order); proptest prints the seed of a failure.

    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::collections::{BTreeSet, BinaryHeap};

    #[derive(Clone, Debug)]
    enum Step {
        Push { delay: u64 },
        Pop { within: u64 },
        Cancel(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let delay = (0u32..36, any::<u64>()).prop_map(|(bits, draw)| draw & ((1 << bits) - 1));
        prop_oneof![
            4 => delay.clone().prop_map(|delay| Step::Push { delay }),
            1 => (0u64..3).prop_map(|delay| Step::Push { delay }),
            3 => delay.prop_map(|within| Step::Pop { within }),
            1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn agrees_with_an_ordered_queue(begins in prop_oneof![Just(0u64), any::<u64>().prop_map(|x| x >> 1)], steps in prop::collection::vec(step(), 1..400)) {
            let (mut now, mut order) = (begins, 0u64);
            let mut wheel = Wheel::new(now);
            let mut heap = BinaryHeap::new();
            let mut places = Vec::new();
            let mut cancelled = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Push { delay } => {
                        order += 1;
                        heap.push(Reverse((now + delay, order)));
                        places.push((wheel.push(now + delay, order), order));
                    }
                    Step::Pop { within } => {
                        let end = now + within;
                        while heap.peek().is_some_and(|Reverse((_, order))| cancelled.contains(order)) {
                            heap.pop();
                        }
                        let expected = heap.peek().copied().filter(|Reverse((at, _))| *at <= end).map(|Reverse(e)| e);
                        let actual = wheel.pop(end);
                        prop_assert_eq!(actual.map(|(at, _, order)| (at, order)), expected);
                        if let Some((at, order)) = expected {
                            heap.pop();
                            places.retain(|(_, known)| *known != order);
                            now = at;
                        } else {
                            now = end;
                        }
                    }
                    Step::Cancel(which) => {
                        if !places.is_empty() {
                            let (place, order) = places.swap_remove(which.index(places.len()));
                            prop_assert_eq!(wheel.cancel(place), Some(order));
                            cancelled.insert(order);
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), places.len());
            }
        }
    }

    #[test]
    fn entries_that_left_make_room_for_others() {
        let mut wheel = Wheel::new(0);
        for round in 0..1_000u64 {
            let kept = wheel.push(round * 10 + 5, round);
            let moved = wheel.push(round * 10 + 7, round);
            assert_eq!(wheel.cancel(moved), Some(round));
            assert_eq!(wheel.pop(round * 10 + 6), Some((round * 10 + 5, kept, round)));
        }
        assert_eq!(wheel.links.len(), 2, "an entry that is put off leaves nothing behind");
    }
}
