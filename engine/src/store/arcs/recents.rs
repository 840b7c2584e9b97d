//! What the runs do not hold yet: entries appended since the last run was written, in order of their keys.
//!
//! Two maps. New entries go to `open`. When it is full, and what is in it durable, it becomes `frozen`: from then on it is written
//! to a run, and when that run is durable and has been added to the index, it is dropped. Both are read all the while.
//!
//! An entry here is not more alive than one in a run: the table decides. But it knows its whole key, so that a recent
//! object is found without reading its record.

use crate::format::run::RunEntry;
use crate::key::Key;
use crate::store::arcs::hash::position;
use crate::store::arcs::locator::Locator;
use std::collections::BTreeMap;
use std::ops::Bound;

/// An entry without its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recent {
    version: u64,
    locator: Locator,
    length: u32,
    generation: u32,
}

impl Recent {
    fn entry(self, key: Key) -> RunEntry {
        let Recent { version, locator, length, generation } = self;
        RunEntry { key, version, locator, length, generation }
    }
}

/// The entries that are in no run.
#[derive(Debug, Default)]
pub(crate) struct Recents {
    open: BTreeMap<Key, Recent>,
    frozen: BTreeMap<Key, Recent>,
    /// How often entries have moved between the maps, or out of them into a run.
    moves: u64,
}

impl Recents {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn frozen_len(&self) -> usize {
        self.frozen.len()
    }

    pub(super) fn insert(&mut self, entry: &RunEntry) {
        let RunEntry { key, version, locator, length, generation } = *entry;
        self.open.insert(key, Recent { version, locator, length, generation });
    }

    /// Adds many entries, in the order they were appended in. They are sorted once, by numbers that say where they lie: finding
    /// a place for each, or moving whole entries about, takes several times as long.
    pub(super) fn insert_all(&mut self, entries: &[RunEntry]) {
        let mut order: Vec<(u64, u32)> =
            (0..).zip(entries).map(|(number, entry)| (position(&entry.key), number)).collect();
        let entry = |number: u32| &entries[number as usize];
        order.sort_unstable_by(|(a_position, a), (b_position, b)| {
            a_position.cmp(b_position).then_with(|| entry(*a).key.cmp(&entry(*b).key)).then(a.cmp(b))
        });
        // Of two with one key the later stays, here and in what follows.
        let recents = order.into_iter().map(|(_, number)| {
            let RunEntry { key, version, locator, length, generation } = *entry(number);
            (key, Recent { version, locator, length, generation })
        });
        self.open.append(&mut recents.collect());
    }

    /// The newest entry of this key, which may be dead.
    pub(super) fn get(&self, key: &Key) -> Option<RunEntry> {
        let recent = self.open.get(key).or_else(|| self.frozen.get(key))?;
        Some(recent.entry(*key))
    }

    /// Forgets a dead entry. One in `frozen` stays: it is dropped with all the others.
    pub(super) fn forget(&mut self, key: &Key, locator: Locator) {
        if self.open.get(key).is_some_and(|recent| recent.locator == locator) {
            self.open.remove(key);
        }
    }

    /// Forgets a dead entry of which only its range of keys is known.
    pub(super) fn forget_between(&mut self, low: Key, high: Key, locator: Locator) {
        let found = self.open.range(low..=high).find(|(_, recent)| recent.locator == locator).map(|(key, _)| *key);
        if let Some(key) = found {
            self.open.remove(&key);
        }
    }

    /// The first entries in `open` and in `frozen` at or behind a key.
    pub(super) fn first(&self, which: Which, from: Bound<Key>) -> Option<RunEntry> {
        self.map(which).range((from, Bound::Unbounded)).next().map(|(key, recent)| recent.entry(*key))
    }

    /// The entries of one of the maps from a key to another, which is included.
    pub(super) fn between(&self, which: Which, from: Bound<Key>, to: Key) -> impl Iterator<Item = RunEntry> + '_ {
        self.map(which).range((from, Bound::Included(to))).map(|(key, recent)| recent.entry(*key))
    }

    fn map(&self, which: Which) -> &BTreeMap<Key, Recent> {
        match which {
            Which::Open => &self.open,
            Which::Frozen => &self.frozen,
        }
    }

    /// Changes whenever entries have moved between the maps, or out of them into a run.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    pub(super) fn freeze(&mut self) {
        assert!(self.frozen.is_empty(), "one run is written from memory at a time");
        self.frozen = std::mem::take(&mut self.open);
        self.moves += 1;
    }

    /// Takes back what was frozen: no run came of it.
    pub(super) fn thaw(&mut self) {
        let newer = std::mem::replace(&mut self.open, std::mem::take(&mut self.frozen));
        self.open.extend(newer);
        self.moves += 1;
    }

    pub(super) fn drop_frozen(&mut self) {
        self.frozen.clear();
        self.moves += 1;
    }

    /// All entries; where both maps have a key, the newer one last.
    pub(super) fn iter(&self) -> impl Iterator<Item = RunEntry> + '_ {
        self.frozen.iter().chain(&self.open).map(|(key, recent)| recent.entry(*key))
    }

    /// Bytes held, with the usual slack of tree nodes.
    pub(super) fn bytes(&self) -> usize {
        (self.open.len() + self.frozen.len()) * (size_of::<Key>() + size_of::<Recent>()) * 3 / 2
    }
}

/// One of the two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Open,
    Frozen,
}
