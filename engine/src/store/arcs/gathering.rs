//! Everything that may lie in one arc, in no order: what a rebuild needs (see [`super::rebuild`]).
//!
//! A walk would bring the same in the order of keys, and pay for the order with a search in memory for each entry and whenever the
//! index has changed. Here the recents are gone through first, and then the pages of one run after the other. What is gone
//! through may be dead by then, and the same entry may come twice; the one who takes it asks the table.
//!
//! Why nothing is missed. Entries move from the open recents to the frozen ones (or back, when a run came to nothing), from the
//! frozen ones to a run, and from run to run by merges; only what is added anew, and so noted, comes into the recents. An entry
//! that is in the recents at the end has therefore been there all the while, and was gone through: the recents are begun anew
//! whenever something moved between their maps meanwhile. Any other entry lies in a run at the end, and the end is when every
//! run that is there has been gone through. A run that was merged away is no longer asked for; the one in its place is.
//!
//! It does no I/O, like a walk: it says what it needs, and is given it. Damaged pages are passed over.

use super::Index;
use super::hash::{key_bytes, keys_at};
use super::recents::Which;
use super::walk::{Head, Need};
use crate::format::run::RunEntry;
use crate::format::{Damage, Identity};
use crate::key::Key;
use bytes::Bytes;
use std::ops::Bound;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more, for another turn.
    More,
    /// Nothing without these bytes.
    Need(Need),
    /// There is no more, as long as the index does not change.
    End,
}

/// A place in the recents.
#[derive(Clone, Copy, Debug)]
struct Place {
    which: Which,
    from: Bound<Key>,
    /// What [`super::recents::Recents::moves`] was when they were begun.
    moves: u64,
}

/// The gathering of an arc's entries, under way.
#[derive(Debug)]
pub(super) struct Gathering {
    identity: Identity,
    low: u64,
    high: u64,
    /// `None` when the recents have been gone through.
    place: Option<Place>,
    /// The run that is being gone through.
    head: Option<Head>,
    /// Runs that have been gone through.
    passed: Vec<u32>,
    damaged_pages: u64,
}

impl Gathering {
    pub(super) fn new(identity: Identity, low: u64, high: u64, index: &Index) -> Gathering {
        let place =
            Place { which: Which::Open, from: Bound::Included(keys_at(low, high).0), moves: index.recents.moves() };
        Gathering { identity, low, high, place: Some(place), head: None, passed: Vec::new(), damaged_pages: 0 }
    }

    /// Goes through about so many entries, and hands on those at the arc's positions.
    pub(super) fn go_on(&mut self, index: &Index, steps: usize, mut take: impl FnMut(&RunEntry)) -> Progress {
        let mut left = steps;
        while let Some(place) = self.place {
            if left == 0 {
                return Progress::More;
            }
            let taken = self.pass_recents(place, index, left, &mut take);
            left = left.saturating_sub(taken.max(1));
        }
        if self.head.as_ref().is_some_and(|head| index.runs.get(head.run()).is_none()) {
            self.head = None;
        }
        while left > 0 {
            let Some(head) = self.head.as_mut() else {
                if !self.begin_run(index) {
                    return Progress::End;
                }
                continue;
            };
            left = pass_entries(head, self.low, self.high, left, &mut take);
            if head.has_entry() {
                continue;
            }
            if let Some(need) = head.need() {
                return Progress::Need(need);
            }
            self.passed.push(head.run());
            self.head = None;
        }
        Progress::More
    }

    /// Hands over bytes that were needed. The first damage is returned to be counted. Bytes that are no longer needed are ignored.
    pub(super) fn supply(&mut self, need: Need, bytes: Bytes) -> Result<(), Damage> {
        let Some(head) = self.head.as_mut().filter(|head| head.need() == Some(need)) else { return Ok(()) };
        head.take_in(bytes, &self.identity, &mut self.damaged_pages).map_or(Ok(()), Err)
    }

    /// Whether everything the index has now was gone through.
    pub(super) fn is_whole(&self, index: &Index) -> bool {
        self.place.is_none() && index.runs.as_slice().iter().all(|run| self.passed.contains(&run.number))
    }

    /// Goes through some of the recents. Returns how many.
    fn pass_recents(&mut self, place: Place, index: &Index, most: usize, take: &mut impl FnMut(&RunEntry)) -> usize {
        let (first, last) = keys_at(self.low, self.high);
        let moves = index.recents.moves();
        let begin = Place { which: Which::Open, from: Bound::Included(first), moves };
        let mut place = if place.moves == moves { place } else { begin };
        let mut taken = 0;
        for entry in index.recents.between(place.which, place.from, last).take(most) {
            take(&entry);
            place.from = Bound::Excluded(entry.key);
            taken += 1;
        }
        self.place = match place.which {
            _ if taken == most => Some(place),
            Which::Open => Some(Place { which: Which::Frozen, ..begin }),
            Which::Frozen => None,
        };
        taken
    }

    /// Turns to a run that has not been gone through, if there is one.
    fn begin_run(&mut self, index: &Index) -> bool {
        let (first, last) = keys_at(self.low, self.high);
        let next = index.runs.as_slice().iter().find(|run| !self.passed.contains(&run.number));
        self.head = next.map(|run| Head::new(run, &key_bytes(&first), &key_bytes(&last)));
        self.head.is_some()
    }

    #[cfg(test)]
    /// Pages passed over because they were damaged or could not be read.
    pub(super) fn damaged_pages(&self) -> u64 {
        self.damaged_pages
    }

    #[cfg(test)]
    /// The run that is being gone through; `None` in the recents and between runs.
    pub(super) fn run(&self) -> Option<u32> {
        self.head.as_ref().map(Head::run)
    }

    #[cfg(test)]
    /// Whether it is still among the recents, and has gone through some.
    pub(super) fn is_among_recents(&self) -> bool {
        self.place.is_some_and(|place| place.which == Which::Frozen || matches!(place.from, Bound::Excluded(_)))
    }
}

/// Goes through the entries of a run that are in memory, at most so many. Returns how many more it might have been.
fn pass_entries(head: &mut Head, low: u64, high: u64, most: usize, take: &mut impl FnMut(&RunEntry)) -> usize {
    let mut left = most;
    while left > 0
        && let Some(bytes) = head.bytes()
    {
        if (low..=high).contains(&head.front()) {
            take(&RunEntry::decode(bytes));
        }
        head.advance();
        left -= 1;
    }
    left
}
