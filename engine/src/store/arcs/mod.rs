//! The index: which record holds a key's object and until when, in about twelve bytes of memory an object.
//!
//! Sans I/O: nothing here reads, writes or knows a disk. The story, from small to large:
//!
//! - A [`Locator`] says in 48 bits where a record lies and what its segment is charged for it.
//! - A [`Table`] holds tag, locator and lease of every object of one [`Arc`] of the ring. It knows no keys: it says where a key's
//!   object *may* lie, and the record there confirms it.
//! - Keys are found in order in sorted runs ([`crate::format::run`]) and, until a run is written, in the recents.
//!   A [`Walk`] merges them and yields what is alive: an entry is, iff the table holds its locator.
//! - Everything that needs keys is such a walk: scans, the edges of digests, expiry, writing and merging runs. Only the growing
//!   or splitting of an arc ([`Rebuild`]) needs no order, and gathers the same entries as they come.
//! - A [`Snapshot`] hands out all arcs as they were at one moment, one by one, while the index goes on changing.
//!
//! What the caller owes
//! - A record's segment is announced ([`Index::set_generation`]) before an entry points there. One locator is one record as long
//!   as a slot holds it.
//! - A record in the log says which locator and version it replaces or removes: replay asks no other record. Rows of expiry
//!   and lease records say what they need themselves.
//! - Recents are frozen when they are durable. A run is added when it is durable, header last, *and* the batches that were in
//!   flight when its walk ended are: what the walk left out as dead could otherwise come back with a power cut, and no run would
//!   name it. The same holds for merges. If a batch fails and is undone meanwhile, the walk's result is thrown away.
//! - The checkpoint holds the arcs and the recents of one moment; every sound run found beside it is adopted.
//!
//! Invariants
//! - The arcs tile the ring: the first begins at 0, the last ends at 2^64 − 1, each begins where the one before ended.
//! - Each live entry is in the recents or in a run, with its locator, version and generation.
//! - Digests sum up exactly the live entries.

pub(crate) mod arc;
pub(crate) mod codec;
pub(crate) mod gathering;
pub(crate) mod hash;
pub(crate) mod locator;
pub(crate) mod rebuild;
mod recents;
pub(crate) mod runs;
pub(crate) mod snapshot;
mod sweep;
pub(crate) mod table;
pub(crate) mod walk;

#[cfg(test)]
mod tests;

use crate::format::Damage;
use crate::format::run::{Run, RunEntry};
use crate::key::Key;
use arc::{Arc, Digest, Known};
use hash::{Hasher, KeyHash, keys_at, position};
use locator::Locator;
use recents::Recents;
use runs::{MergePlan, Runs};
use snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use table::{Places, Table};
use walk::Entry;

/// What an index is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The store's secret seed.
    pub(crate) seed: u64,
    /// Seed of digest elements; stores that compare digests share it.
    pub(crate) digest_seed: u64,
    /// An arc with this many objects is split.
    pub(crate) arc_objects_max: usize,
    /// So many recents are worth a run.
    pub(crate) recents_max: usize,
    /// Runs merged at once.
    pub(crate) fan_in: usize,
    /// Bits of a tag: 16, except in tests that want false matches.
    pub(crate) tag_bits: u32,
}

/// Where the index looks for a key: enough to extend its lease or to remove it when the log is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) position: u64,
    pub(crate) hash: KeyHash,
}

/// Where an entry is looked for: its arc, and the slots there that have its tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    arc: usize,
    hash: KeyHash,
    places: Places,
}

/// One shard's index. See the module.
#[derive(Debug)]
pub(crate) struct Index {
    settings: Settings,
    hasher: Hasher,
    /// In the order of the ring.
    arcs: Vec<Arc>,
    recents: Recents,
    runs: Runs,
    /// The generation of each segment in use.
    generations: Vec<Option<u32>>,
    objects: usize,
    /// Counts changes of recents and runs, so that walks notice.
    sources_state: u64,
    /// Where arcs begin whose tables have become too small or much too large.
    misfits: BTreeSet<u64>,
    snapshot: Option<Snapshot>,
    snapshots: u64,
}

impl Index {
    /// An empty index: one small arc around the ring.
    pub(crate) fn new(settings: Settings) -> Index {
        let table = Table::new(rebuild::slots_for(0, &settings), 0);
        Index::of_arcs(settings, vec![Arc::new(0, u64::MAX, table)])
    }

    /// An empty index with arcs for so many entries at positions like these. What a log will bring is known before it is replayed;
    /// an index that had to grow meanwhile would find no time to.
    pub(crate) fn with_room(settings: Settings, entries: usize, mut positions: Vec<u64>) -> Index {
        positions.sort_unstable();
        let arcs = entries.div_ceil(settings.arc_objects_max / 2).max(1);
        // An arc begins at 0, and at each part of the positions at most one.
        let mut lows: Vec<u64> =
            (1..arcs).filter_map(|arc| positions.get(arc * positions.len() / arcs)).copied().collect();
        lows.retain(|low| *low > 0);
        lows.dedup();
        lows.insert(0, 0);
        let highs = lows[1..].iter().map(|low| low - 1).chain([u64::MAX]);
        let slots = rebuild::slots_for(entries.div_ceil(lows.len()), &settings);
        let arcs = lows.iter().zip(highs).map(|(low, high)| Arc::new(*low, high, Table::new(slots, 0)));
        Index::of_arcs(settings, arcs.collect())
    }

    /// The index of a checkpoint: its arcs in any order, and its recents. Segments and runs are announced afterwards.
    pub(crate) fn restore(settings: Settings, mut arcs: Vec<Arc>, recents: &[RunEntry]) -> Result<Index, Damage> {
        arcs.sort_unstable_by_key(|arc| arc.low);
        let begins =
            arcs.first().is_some_and(|arc| arc.low == 0) && arcs.last().is_some_and(|arc| arc.high == u64::MAX);
        let follows = arcs.windows(2).all(|pair| pair[0].high.checked_add(1) == Some(pair[1].low));
        if !begins || !follows {
            return Err(Damage::Checksum);
        }
        let mut index = Index::of_arcs(settings, arcs);
        index.recents.insert_all(recents);
        index.objects = index.arcs.iter().map(|arc| arc.table.len()).sum();
        index.misfits = index.arcs.iter().filter(|arc| rebuild::is_misfit(arc, &settings)).map(|arc| arc.low).collect();
        Ok(index)
    }

    fn of_arcs(settings: Settings, arcs: Vec<Arc>) -> Index {
        assert!(settings.arc_objects_max >= 2);
        assert!(settings.recents_max >= 1);
        Index {
            settings,
            hasher: Hasher::new(settings.seed, settings.digest_seed, settings.tag_bits),
            arcs,
            recents: Recents::default(),
            runs: Runs::default(),
            generations: Vec::new(),
            objects: 0,
            sources_state: 0,
            misfits: BTreeSet::new(),
            snapshot: None,
            snapshots: 0,
        }
    }

    /// What the index is held to.
    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    /// Objects in the index.
    pub(crate) fn len(&self) -> usize {
        self.objects
    }

    /// The arcs, in the order of the ring.
    pub(crate) fn arcs(&self) -> &[Arc] {
        &self.arcs
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        let arcs: usize = self.arcs.iter().map(Arc::bytes).sum();
        let fences: usize = self.runs.as_slice().iter().map(|run| run.fences.capacity() * 8 + size_of::<Run>()).sum();
        let generations = self.generations.capacity() * size_of::<Option<u32>>();
        arcs + self.recents.bytes() + fences + generations + self.snapshot.as_ref().map_or(0, Snapshot::bytes)
    }

    /// A segment is in use with this generation, or no longer.
    pub(crate) fn set_generation(&mut self, segment: u16, generation: Option<u32>) {
        let segment = usize::from(segment);
        if self.generations.len() <= segment {
            self.generations.resize(segment + 1, None);
        }
        self.generations[segment] = generation;
    }

    /// Where the index looks for a key.
    pub(crate) fn address(&self, key: &Key) -> Address {
        Address { position: position(key), hash: self.hasher.hash(key) }
    }

    /// What an object adds to digests.
    pub(crate) fn element(&self, key: &Key, version: u64) -> u128 {
        self.hasher.element(key, version)
    }

    // What is known of a key.

    /// The key's object, if it is among the recents: exact, no record need be read.
    pub(crate) fn recent(&self, key: &Key) -> Option<Entry> {
        // What is alive has its slot: most keys that are put are new, and need not be looked for by comparing.
        self.candidates(key).next()?;
        let found = self.recents.get(key)?;
        let tick = self.live_tick(&found)?;
        let RunEntry { key, version, locator, length, generation } = found;
        Some(Entry { key, version, locator, length, generation, tick })
    }

    /// Where the key's object may lie, and until when its lease would run. The record there must confirm it: others share the tag.
    pub(crate) fn candidates(&self, key: &Key) -> impl Iterator<Item = (Locator, u32)> + '_ {
        let Address { position, hash } = self.address(key);
        self.arc(position).table.candidates(hash)
    }

    /// The end of the lease of the key's object, if its record is the one at `locator`.
    pub(crate) fn tick_of(&self, key: &Key, locator: Locator) -> Option<u32> {
        let Address { position, hash } = self.address(key);
        self.arc(position).table.tick_of(hash, locator)
    }

    /// The end of an entry's lease, if the entry is alive.
    pub(crate) fn live_tick(&self, entry: &RunEntry) -> Option<u32> {
        if !self.is_in_use(entry) {
            return None;
        }
        self.tick_of(&entry.key, entry.locator)
    }

    /// [`Index::live_tick`] of each of these entries, which are in the order of the ring. They are looked at in two passes, first
    /// all tags, then all locators: no entry's look depends on another's, so the processor waits for many of them at once.
    pub(crate) fn live_ticks(&self, entries: &[RunEntry], looks: &mut Vec<Look>, ticks: &mut Vec<Option<u32>>) {
        let mut arc = 0;
        looks.clear();
        looks.extend(entries.iter().map(|entry| {
            let Address { position, hash } = self.address(&entry.key);
            if position < self.arcs[arc].low || position > self.arcs[arc].high {
                arc = self.arc_at(position);
            }
            Look { arc, hash, places: self.arcs[arc].table.places(hash) }
        }));
        ticks.clear();
        ticks.extend(entries.iter().zip(looks.iter()).map(|(entry, look)| {
            let Look { arc, hash, places } = *look;
            let is_in_use = self.is_in_use(entry);
            is_in_use.then(|| self.arcs[arc].table.tick_among(places, hash, entry.locator)).flatten()
        }));
    }

    /// Whether the segment that an entry points to is in use, and has not been used again since.
    fn is_in_use(&self, entry: &RunEntry) -> bool {
        let generation = self.generations.get(usize::from(entry.locator.segment())).copied().flatten();
        generation == Some(entry.generation)
    }

    /// Whether a new object at the key's position would find room. While it would not, puts there wait for a rebuild.
    pub(crate) fn has_room(&self, key: &Key) -> bool {
        rebuild::has_room(&self.arc(position(key)).table, &self.settings)
    }

    /// Whether some table is to be rebuilt, or is being rebuilt.
    pub(crate) fn is_rebuild_due(&self) -> bool {
        !self.misfits.is_empty()
    }

    // Changes.

    /// Adds an object. It always succeeds, so that what was decided, replayed or is undone can be applied; see
    /// [`Index::has_room`] for what is to be decided.
    pub(crate) fn insert(&mut self, entry: &RunEntry, tick: u32) {
        self.assert_in_use(entry);
        self.add(self.known(entry), tick);
        self.remember(entry);
    }

    /// Adds an object that the log brings, unless it is there. The caller owes [`Index::remember_all`] before anybody asks for keys.
    pub(crate) fn insert_replayed(&mut self, entry: &RunEntry, tick: u32) -> bool {
        self.assert_in_use(entry);
        let known = self.known(entry);
        let is_new = self.arc(known.position).table.tick_of(known.hash, known.locator).is_none();
        if is_new {
            self.add(known, tick);
        }
        is_new
    }

    /// Notes the keys of what was replayed, in its order. Some may have been removed again: what is alive the tables say.
    pub(crate) fn remember_all(&mut self, replayed: &[RunEntry]) {
        self.recents.insert_all(replayed);
        self.sources_state += 1;
    }

    fn add(&mut self, known: Known, tick: u32) {
        let arc = self.change(known.position);
        arc.table.insert(known.hash, known.locator, tick);
        arc.count_in(known.element);
        arc.note(known);
        self.objects += 1;
        self.measure(known.position);
    }

    #[cfg(test)]
    /// Points a key's object at a new record: of a newer version, or a survivor of cleaning. Its lease stays, unless `tick` is
    /// later. Returns the lease's end before, or `None` if `old` is not the key's record.
    pub(crate) fn replace(&mut self, old: Locator, old_version: u64, entry: &RunEntry, tick: u32) -> Option<u32> {
        self.assert_in_use(entry);
        let known = self.known(entry);
        let old_element = self.hasher.element(&entry.key, old_version);
        let arc = self.change(known.position);
        let before = arc.table.relocate(known.hash, old, known.locator, tick)?;
        arc.count_out(old_element);
        arc.count_in(known.element);
        arc.note(known);
        self.remember(entry);
        Some(before)
    }

    /// Removes a key's object. Returns the end of its lease, or `None` if `locator` is not the key's record.
    pub(crate) fn remove(&mut self, key: &Key, version: u64, locator: Locator) -> Option<u32> {
        let Address { position, hash } = self.address(key);
        let element = self.hasher.element(key, version);
        let tick = self.take_out(position, hash, locator, element)?;
        self.recents.forget(key, locator);
        self.sources_state += 1;
        Some(tick)
    }

    /// Removes what a row of an expiry record names, when the log is replayed.
    pub(crate) fn remove_at(&mut self, row: &codec::ExpiryRow) -> Option<u32> {
        let tick = self.take_out(row.position, row.hash, row.locator, row.element)?;
        let (low, high) = keys_at(row.position, row.position);
        self.recents.forget_between(low, high, row.locator);
        self.sources_state += 1;
        Some(tick)
    }

    /// The row that removes an entry when the log is replayed.
    pub(crate) fn expiry_row(&self, entry: &Entry) -> codec::ExpiryRow {
        let Address { position, hash } = self.address(&entry.key);
        let element = self.hasher.element(&entry.key, entry.version);
        codec::ExpiryRow { position, hash, locator: entry.locator, element }
    }

    #[cfg(test)]
    /// Drops an entry whose record cannot be read, so that it is not known which object it was. The arc's digest is stale until the
    /// arc has been rebuilt, which is now due.
    pub(crate) fn drop_damaged(&mut self, key: &Key, locator: Locator) -> Option<u32> {
        let Address { position, hash } = self.address(key);
        let arc = self.change(position);
        let tick = arc.table.remove(hash, locator)?;
        arc.is_stale = true;
        self.objects -= 1;
        self.measure(position);
        self.recents.forget(key, locator);
        self.sources_state += 1;
        Some(tick)
    }

    /// Extends the lease of everything that may be the key's, and returns how many that were. It never shortens one. What it has
    /// changed is told with the end before, for [`Index::restore_end`].
    pub(crate) fn extend(&mut self, address: Address, tick: u32, changed: impl FnMut(Locator, u32)) -> usize {
        self.change(address.position).table.extend(address.hash, tick, changed)
    }

    /// What [`Index::extend`] would extend, with the ends as they are.
    pub(crate) fn ends_at(&self, address: Address) -> impl Iterator<Item = (Locator, u32)> + '_ {
        self.arc(address.position).table.candidates(address.hash)
    }

    /// Sets the end of a lease back to what it was.
    pub(crate) fn restore_end(&mut self, address: Address, locator: Locator, tick: u32) {
        self.change(address.position).table.set_tick(address.hash, locator, tick);
    }

    // Runs.

    #[cfg(test)]
    /// Recents that are in no run and in none being written.
    pub(crate) fn recents_len(&self) -> usize {
        self.recents.len()
    }

    /// Whether the recents are worth a run, and none is being written. They must be durable when it is begun.
    pub(crate) fn is_run_due(&self) -> bool {
        self.recents.len() >= self.settings.recents_max && self.recents.frozen_len() == 0
    }

    /// Begins a run: the recents of now will be in it, see [`walk::Walk::of_frozen`].
    pub(crate) fn freeze_recents(&mut self) {
        self.recents.freeze();
        self.sources_state += 1;
    }

    /// Ends a run that came to nothing: its entries are recents again.
    pub(crate) fn thaw_recents(&mut self) {
        self.recents.thaw();
        self.sources_state += 1;
    }

    /// The frozen recents are durable in this run, or none of them was alive.
    pub(crate) fn add_run(&mut self, run: Option<Run>) {
        self.recents.drop_frozen();
        self.exchange_runs(run, &[]);
    }

    /// A merge is durable: its run takes the place of those it was made of.
    pub(crate) fn finish_merge(&mut self, run: Option<Run>, merged: &[u32]) {
        self.exchange_runs(run, merged);
    }

    /// Takes in the runs found in the directory. Returns those that can be unlinked, because a merge has taken their place.
    pub(crate) fn adopt_runs(&mut self, found: Vec<Run>) -> Vec<u32> {
        let superseded = runs::superseded(&found);
        for run in found.into_iter().filter(|run| !superseded.contains(&run.number)) {
            self.exchange_runs(Some(run), &[]);
        }
        superseded
    }

    /// The runs, oldest first.
    pub(crate) fn runs(&self) -> &[Run] {
        self.runs.as_slice()
    }

    /// What is best merged next.
    pub(crate) fn merge_plan(&self) -> Option<MergePlan> {
        let slack = 4 * self.settings.recents_max as u64;
        self.runs.merge_plan(self.settings.fan_in, self.objects as u64, slack)
    }

    /// All recents, for a checkpoint: what the log before it brought and no durable run holds.
    pub(crate) fn recents(&self) -> impl Iterator<Item = RunEntry> + '_ {
        self.recents.iter()
    }

    /// Changes whenever walks must find their places anew.
    pub(crate) fn sources_state(&self) -> u64 {
        self.sources_state
    }

    // Sums.

    /// The digest of the objects between two placement ids, both included, as far as whole arcs hold them; and the ranges of keys at
    /// the edges, and in arcs with a stale digest, that are still to be walked and added ([`Digest::add`] with [`Index::element`]).
    pub(crate) fn digest(&self, from: [u8; 20], to: [u8; 20]) -> (Digest, Vec<(Key, Key)>) {
        let (mut digest, mut edges) = (Digest::default(), Vec::new());
        let (low, high) = (Key::lowest(from), Key::highest(to));
        if from <= to {
            self.digest_between(low, high, &mut digest, &mut edges);
        } else {
            self.digest_between(low, Key::highest([0xff; 20]), &mut digest, &mut edges);
            self.digest_between(Key::lowest([0; 20]), high, &mut digest, &mut edges);
        }
        (digest, edges)
    }

    fn digest_between(&self, low: Key, high: Key, digest: &mut Digest, edges: &mut Vec<(Key, Key)>) {
        let (first, last) = (self.arc_at(position(&low)), self.arc_at(position(&high)));
        for arc in &self.arcs[first..=last] {
            let (arc_low, arc_high) = keys_at(arc.low, arc.high);
            if low <= arc_low && arc_high <= high && !arc.is_stale {
                digest.join(arc.digest);
            } else if arc.table.len() > 0 {
                edges.push((low.max(arc_low), high.min(arc_high)));
            }
        }
    }

    /// Takes out everything that lies in these segments, which are gone: on a disk that has lost a checkpoint. The keys are not
    /// known, so the arcs concerned are to be rebuilt before their sums can be told. Returns how many objects that were.
    pub(crate) fn forget_segments(&mut self, gone: &BTreeSet<u16>) -> usize {
        let mut forgotten = 0;
        for arc in &mut self.arcs {
            let taken = arc.table.retain(|locator| !gone.contains(&locator.segment()));
            if taken > 0 {
                arc.digest.count = arc.table.len() as u64;
                arc.is_stale = true;
                self.misfits.insert(arc.low);
                forgotten += taken;
            }
        }
        self.objects -= forgotten;
        self.sources_state += 1;
        forgotten
    }

    /// Objects in the stashes of all tables.
    pub(crate) fn stashed(&self) -> usize {
        self.arcs.iter().map(|arc| arc.table.stash.len()).sum()
    }

    /// Live bytes of every segment that an entry points into, counted anew from the slots: what the store's own accounts must
    /// agree with. They are counted in a list by number, not in a map: every entry is looked at, while nobody is served yet.
    pub(crate) fn live_bytes(&self) -> BTreeMap<u16, u64> {
        let mut live = vec![(false, 0); usize::from(u16::MAX) + 1];
        for arc in &self.arcs {
            arc.table.locators().for_each(|locator| {
                let (is_named, bytes) = &mut live[usize::from(locator.segment())];
                *is_named = true;
                *bytes += locator.bytes();
            });
        }
        let live = (0..=u16::MAX).zip(live);
        live.filter(|(_, (is_named, _))| *is_named).map(|(segment, (_, bytes))| (segment, bytes)).collect()
    }

    /// Where in each segment that an entry points into the last record begins that any does.
    pub(crate) fn last_records(&self) -> BTreeMap<u16, u32> {
        let mut last = vec![None; usize::from(u16::MAX) + 1];
        for arc in &self.arcs {
            arc.table.locators().for_each(|locator| {
                let last = &mut last[usize::from(locator.segment())];
                *last = (*last).max(Some(locator.offset()));
            });
        }
        (0..=u16::MAX).zip(last).filter_map(|(segment, offset)| Some((segment, offset?))).collect()
    }

    #[cfg(any(test, feature = "simulation"))]
    /// Panics unless the invariants hold that can be seen without keys. Reads everything.
    pub(crate) fn check(&self) {
        self.arcs.iter().for_each(Arc::check);
        assert_eq!(self.arcs[0].low, 0);
        assert_eq!(self.arcs[self.arcs.len() - 1].high, u64::MAX);
        assert!(self.arcs.windows(2).all(|pair| pair[0].high + 1 == pair[1].low), "the arcs tile the ring");
        assert_eq!(self.objects, self.arcs.iter().map(|arc| arc.table.len()).sum::<usize>());
    }

    /// The number of the arc that a position lies in.
    fn arc_at(&self, position: u64) -> usize {
        self.arcs.partition_point(|arc| arc.low <= position) - 1
    }

    fn arc(&self, position: u64) -> &Arc {
        &self.arcs[self.arc_at(position)]
    }

    /// The arc at a position, about to be changed: a snapshot that has not come to it takes its copy first.
    fn change(&mut self, position: u64) -> &mut Arc {
        let at = self.arc_at(position);
        let arc = &mut self.arcs[at];
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.save(arc);
        }
        arc
    }

    fn take_out(&mut self, position: u64, hash: KeyHash, locator: Locator, element: u128) -> Option<u32> {
        let arc = self.change(position);
        let tick = arc.table.remove(hash, locator)?;
        arc.count_out(element);
        self.objects -= 1;
        self.measure(position);
        Some(tick)
    }

    fn remember(&mut self, entry: &RunEntry) {
        self.recents.insert(entry);
        self.sources_state += 1;
    }

    /// Notes whether the table at a position has come to need a rebuild.
    fn measure(&mut self, position: u64) {
        let arc = &self.arcs[self.arc_at(position)];
        let low = arc.low;
        if rebuild::is_misfit(arc, &self.settings) {
            self.misfits.insert(low);
        } else {
            self.misfits.remove(&low);
        }
    }

    fn exchange_runs(&mut self, run: Option<Run>, replaced: &[u32]) {
        self.runs.remove(replaced);
        if let Some(run) = run {
            self.runs.add(run);
        }
        self.sources_state += 1;
    }

    fn known(&self, entry: &RunEntry) -> Known {
        self.hasher.known(&entry.key, entry.version, entry.locator)
    }

    fn assert_in_use(&self, entry: &RunEntry) {
        assert!(self.is_in_use(entry), "an entry points into a segment in use");
    }
}
