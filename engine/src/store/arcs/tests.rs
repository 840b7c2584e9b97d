//! Goal: whatever happens in whatever order, the index agrees with a map. Method: a random life of an index with tiny arcs, runs and
//! tags beside an ordered map of what should be there; puts, newer versions, moves, removals, leases, expiry, segments that
//! are used again, and, begun and ended at any moment between them, runs, merges, rebuilds, snapshots and walks.
//!
//! What is not checked here: that records confirm candidates, and that what is on disk is durable; that is the store's.

use super::arc::Digest;
use super::codec::{ExpiryRow, decode_arc, decode_recents, encode_recents};
use super::gathering::Gathering;
use super::locator::Locator;
use super::rebuild::Rebuild;
use super::runs::MergePlan;
use super::walk::{Entry, Step, Walk};
use super::{Index, Settings};
use crate::format::run::{RunEntry, RunWriter};
use crate::key::Key;
use crate::store::bare_index::Shelf;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SEED: u64 = 11;
const SEGMENTS: u16 = 12;

fn tiny(tag_bits: u32) -> Settings {
    Settings { seed: SEED, digest_seed: 3, arc_objects_max: 32, recents_max: 16, fan_in: 2, tag_bits }
}

/// SplitMix64: the whole life follows from its seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: impl ExactSizeIterator<Item = T>) -> Option<T> {
        let mut from = from;
        let length = from.len();
        if length == 0 { None } else { from.nth(self.below(length)) }
    }

    /// Placements cluster: few first bytes, so that many keys share an arc and some a position.
    fn key(&mut self) -> Key {
        let mut key = Key { placement: [0; 20], name: [0; 32], kind: 1 };
        key.placement[0] = self.below(16) as u8 * 16;
        key.placement[7] = self.below(8) as u8;
        key.placement[15] = self.below(4) as u8;
        key.name[0] = self.below(3) as u8;
        key
    }

    /// Mostly near, sometimes further from the rest than 16 bits of ticks reach.
    fn tick(&mut self) -> u32 {
        let near = 1_000_000 + self.below(500) as u32;
        match self.below(12) {
            0 => near + 60_000,
            1 => near + 200_000,
            2 => near - 200_000,
            3 => u32::MAX - self.below(2) as u32,
            _ => near,
        }
    }
}

/// What the index should hold.
type Model = BTreeMap<Key, Entry>;

/// How much of what matters really happened.
#[derive(Debug, Default)]
struct Coverage {
    splits: usize,
    rebuilds: usize,
    runs: usize,
    merges: usize,
    far: usize,
    stashed: usize,
    false_matches: usize,
    recycled: usize,
    expired: usize,
    /// Recents that moved while a rebuild went through them.
    moved_under_rebuilds: usize,
    /// Runs that were merged away while a rebuild went through them.
    merged_under_rebuilds: usize,
}

/// Something that takes time, and during which the index changes.
enum Work {
    Run { walk: Walk, writer: RunWriter },
    Merge { walk: Walk, writer: RunWriter, plan: MergePlan },
    Rebuild(Rebuild),
    Snapshot { arcs: Vec<Vec<u8>>, recents: Vec<u8>, model: Model, generations: Vec<Option<u32>> },
    Scan { walk: Walk, met: Vec<Entry>, always: BTreeSet<(Key, u64)> },
}

struct Life {
    chance: Chance,
    index: Index,
    shelf: Shelf,
    model: Model,
    generations: Vec<Option<u32>>,
    /// The next record's place.
    segment: u16,
    offset: u32,
    work: Vec<Work>,
    coverage: Coverage,
}

impl Life {
    fn new(seed: u64, tag_bits: u32) -> Life {
        let mut life = Life {
            chance: Chance(seed),
            index: Index::new(tiny(tag_bits)),
            shelf: Shelf::new(SEED),
            model: Model::new(),
            generations: vec![None; usize::from(SEGMENTS)],
            segment: 0,
            offset: 0,
            work: Vec::new(),
            coverage: Coverage::default(),
        };
        life.open_segment(0);
        life
    }

    fn open_segment(&mut self, segment: u16) {
        let held = &mut self.generations[usize::from(segment)];
        self.coverage.recycled += usize::from(held.is_some());
        *held = Some(held.map_or(1, |generation| generation + 1));
        self.index.set_generation(segment, *held);
        (self.segment, self.offset) = (segment, 64);
    }

    /// A place for a record, in a segment nothing points to if the present one is full.
    fn place(&mut self, length: u32) -> Option<(Locator, u32)> {
        if self.offset > 40 * 64 {
            let used: BTreeSet<u16> = self.model.values().map(|entry| entry.locator.segment()).collect();
            let free = (0..SEGMENTS).find(|segment| !used.contains(segment) && *segment != self.segment)?;
            self.open_segment(free);
        }
        let locator = Locator::new(self.segment, self.offset, length + 128);
        self.offset += 64;
        Some((locator, self.generations[usize::from(self.segment)].expect("an open segment")))
    }

    fn step(&mut self) {
        self.shelf.sequence += 1;
        match self.chance.below(24) {
            0..=7 => self.put(),
            8 => self.move_record(),
            9..=10 => self.remove(),
            11..=13 => self.touch(),
            14 => self.expire(),
            15..=16 => self.begin_work(),
            17..=21 => self.go_on(),
            22 if self.chance.below(4) == 0 => self.drop_damaged(),
            22 => self.scan(),
            _ => self.digest(),
        }
        while !self.model.is_empty() && self.index.misfits.len() > 3 && self.work.is_empty() {
            self.rebuild_now();
        }
    }

    fn put(&mut self) {
        let (key, tick, length) = (self.chance.key(), self.chance.tick(), self.chance.below(3) as u32 * 900);
        if !self.index.has_room(&key) {
            return;
        }
        let Some((locator, generation)) = self.place(length) else { return self.expire() };
        let held = self.model.get(&key).copied();
        let version = held.map_or(0, |held| held.version + 1);
        let entry = RunEntry { key, version, locator, length, generation };
        let end = match held {
            Some(held) => {
                assert_eq!(self.index.replace(held.locator, held.version, &entry, tick), Some(held.tick));
                held.tick.max(tick)
            }
            None => {
                self.index.insert(&entry, tick);
                tick
            }
        };
        self.model.insert(key, Entry { key, version, locator, length, generation, tick: end });
        if held.is_none() && self.chance.below(8) == 0 {
            // The batch fails: undone.
            assert_eq!(self.index.remove(&key, version, locator), Some(end));
            self.model.remove(&key);
        }
    }

    /// As cleaning does: same version, another place.
    fn move_record(&mut self) {
        let Some(held) = self.chance.pick(self.model.values().copied().collect::<Vec<_>>().into_iter()) else { return };
        let Some((locator, generation)) = self.place(held.length) else { return };
        let entry = RunEntry { key: held.key, version: held.version, locator, length: held.length, generation };
        assert_eq!(self.index.replace(held.locator, held.version, &entry, 0), Some(held.tick));
        assert_eq!(self.index.replace(held.locator, held.version, &entry, 0), None, "it is no longer there");
        self.model.insert(held.key, Entry { locator, generation, ..held });
    }

    fn remove(&mut self) {
        let Some(held) = self.chance.pick(self.model.values().copied().collect::<Vec<_>>().into_iter()) else { return };
        if self.chance.below(2) == 0 {
            assert_eq!(self.index.remove(&held.key, held.version, held.locator), Some(held.tick));
        } else {
            let row = self.index.expiry_row(&held).encode();
            let rows: Vec<ExpiryRow> = ExpiryRow::all(&row).collect();
            assert_eq!(self.index.remove_at(&rows[0]), Some(held.tick));
            assert_eq!(self.index.remove_at(&rows[0]), None, "a row removes once");
        }
        self.model.remove(&held.key);
    }

    /// What shares the tag may be extended too, to the same end; nothing else moves, and nothing ever back.
    fn touch(&mut self) {
        let (key, tick) = (self.chance.key(), self.chance.tick());
        let address = self.index.address(&key);
        let matched = self.index.extend(address, tick, |_, _| ());
        assert!(matched > 0 || !self.model.contains_key(&key));
        for (other, entry) in &mut self.model {
            let now = self.index.tick_of(other, entry.locator).expect("a held object has a lease");
            let shares_tag = self.index.hasher.hash(other).tag() == address.hash.tag();
            if *other == key {
                assert_eq!(now, entry.tick.max(tick));
            } else if now != entry.tick {
                assert!(shares_tag && now == tick && tick > entry.tick, "only a false match is extended too");
                self.coverage.false_matches += 1;
            }
            entry.tick = now;
        }
    }

    /// Both phases of a sweep.
    fn expire(&mut self) {
        let cutoff = self.chance.tick();
        let (mut from, mut ended) = (Some(0), Vec::new());
        while let Some(position) = from {
            let quantum = self.index.sweep_quantum(position, cutoff, self.chance.below(200));
            for (low, high) in quantum.ranges {
                let walk = Walk::between(self.shelf.identity, low, high);
                self.shelf.each(walk, &self.index, |entry| ended.extend((entry.tick < cutoff).then_some(entry)));
            }
            from = quantum.next;
        }
        let expected: Vec<Entry> = self.model.values().filter(|entry| entry.tick < cutoff).copied().collect();
        assert_eq!(ended, expected);
        // Some of them only, so that the index does not stay empty.
        for entry in ended.into_iter().filter(|entry| entry.key.placement[0] & 32 == 0) {
            let row = self.index.expiry_row(&entry);
            assert_eq!(self.index.remove_at(&row), Some(entry.tick));
            self.model.remove(&entry.key);
            self.coverage.expired += 1;
        }
    }

    fn begin_work(&mut self) {
        let identity = self.shelf.identity;
        let is_free = |work: &[Work], kind: fn(&Work) -> bool| !work.iter().any(kind);
        match self.chance.below(5) {
            0 if self.index.is_run_due() && is_free(&self.work, |work| matches!(work, Work::Run { .. })) => {
                self.coverage.moved_under_rebuilds += self.rebuilds(Gathering::is_among_recents);
                self.index.freeze_recents();
                let writer = self.shelf.begin_run();
                self.work.push(Work::Run { walk: Walk::of_frozen(identity), writer });
            }
            1 if is_free(&self.work, |work| matches!(work, Work::Merge { .. })) => {
                if let Some(plan) = self.index.merge_plan() {
                    let (walk, writer) = self.shelf.begin_merge(&plan);
                    self.work.push(Work::Merge { walk, writer, plan });
                }
            }
            2 => {
                self.work.extend(self.index.begin_rebuild(identity).map(Work::Rebuild));
            }
            3 if is_free(&self.work, |work| matches!(work, Work::Snapshot { .. })) => {
                self.index.begin_snapshot();
                let recents = encode_recents(self.index.recents(), SEED);
                let (model, generations) = (self.model.clone(), self.generations.clone());
                self.work.push(Work::Snapshot { arcs: Vec::new(), recents, model, generations });
            }
            4 if self.work.len() < 6 => {
                let walk = Walk::new(identity, [0; 20], [0xff; 20], None);
                let always = self.model.values().map(|entry| (entry.key, entry.version)).collect();
                self.work.push(Work::Scan { walk, met: Vec::new(), always });
            }
            _ => {}
        }
    }

    /// Does a little of some work under way.
    fn go_on(&mut self) {
        if self.work.is_empty() {
            return;
        }
        let at = self.chance.below(self.work.len());
        let mut work = self.work.swap_remove(at);
        let steps = self.chance.below(60);
        if steps == 0 {
            return self.abandon(work);
        }
        let mut is_done = false;
        for _ in 0..steps {
            is_done = self.work_once(&mut work);
            if is_done {
                break;
            }
        }
        if is_done { self.finish(work) } else { self.work.push(work) }
    }

    fn abandon(&mut self, work: Work) {
        match work {
            Work::Run { .. } => {
                self.coverage.moved_under_rebuilds += self.rebuilds(Gathering::is_among_recents);
                self.index.thaw_recents();
            }
            Work::Rebuild(rebuild) => self.index.abandon_rebuild(&rebuild),
            Work::Snapshot { .. } => self.index.abandon_snapshot(),
            Work::Merge { .. } | Work::Scan { .. } => {}
        }
    }

    fn work_once(&mut self, work: &mut Work) -> bool {
        let (walk, mut meet): (&mut Walk, Box<dyn FnMut(Entry)>) = match work {
            Work::Run { walk, writer } | Work::Merge { walk, writer, .. } => {
                (walk, Box::new(|entry| push(writer, entry)))
            }
            Work::Rebuild(rebuild) => return !self.shelf.gather(rebuild, &self.index, 1).expect("all pages are sound"),
            Work::Scan { walk, met, .. } => (walk, Box::new(|entry| met.push(entry))),
            Work::Snapshot { arcs, .. } => match self.index.next_of_snapshot() {
                Some(bytes) => {
                    arcs.push(bytes);
                    return false;
                }
                None => return true,
            },
        };
        // Few at once, so that the index often changes in between.
        let mut some = Vec::new();
        let step = walk.step(&self.index, 1 + self.index.len() % 3, &mut some);
        some.into_iter().for_each(&mut meet);
        match step {
            Step::More => {}
            Step::Need(need) => {
                drop(meet);
                self.shelf.supply(walk, need);
            }
            Step::End => return true,
        }
        false
    }

    /// A record that cannot be read any more is dropped, and the arc is rebuilt for its digest.
    fn drop_damaged(&mut self) {
        let Some(held) = self.chance.pick(self.model.values().copied().collect::<Vec<_>>().into_iter()) else { return };
        assert_eq!(self.index.drop_damaged(&held.key, held.locator), Some(held.tick));
        self.model.remove(&held.key);
        self.digest();
    }

    fn finish(&mut self, work: Work) {
        match work {
            Work::Run { writer, .. } => {
                let run = self.shelf.keep(writer);
                self.index.add_run(run);
                self.coverage.runs += 1;
            }
            Work::Merge { writer, plan, .. } => {
                let run = self.shelf.keep(writer);
                let is_merged = |gathering: &Gathering| gathering.run().is_some_and(|run| plan.runs.contains(&run));
                self.coverage.merged_under_rebuilds += self.rebuilds(is_merged);
                self.index.finish_merge(run, &plan.runs);
                self.coverage.merges += 1;
            }
            Work::Rebuild(rebuild) => {
                let arcs = self.index.arcs.len();
                let lost = self.index.finish_rebuild(rebuild).expect("all runs are sound");
                assert!(lost.is_empty());
                self.coverage.rebuilds += 1;
                self.coverage.splits += self.index.arcs.len() - arcs;
            }
            Work::Snapshot { arcs, recents, model, generations } => self.restore(&arcs, &recents, &model, &generations),
            Work::Scan { met, always, .. } => {
                assert!(met.windows(2).all(|pair| pair[0].key < pair[1].key), "each key once, in order");
                let met: BTreeSet<(Key, u64)> = met.iter().map(|entry| (entry.key, entry.version)).collect();
                for (key, version) in always {
                    let is_held = self.model.get(&key).is_some_and(|held| held.version == version);
                    // It may have been away in between, and then be back under the same version: a new put of version 0.
                    assert!(
                        !is_held || version == 0 || met.contains(&(key, version)),
                        "alive all the while, and not met"
                    );
                }
            }
        }
    }

    /// What a snapshot brings back is what the index was when it began.
    fn restore(&self, arcs: &[Vec<u8>], recents: &[u8], model: &Model, generations: &[Option<u32>]) {
        let decoded = arcs.iter().map(|bytes| {
            let (arc, length) = decode_arc(bytes, SEED).expect("what was encoded");
            assert_eq!(length, bytes.len());
            arc
        });
        let (recents, _) = decode_recents(recents, SEED).expect("what was encoded");
        let mut index = Index::restore(self.index.settings(), decoded.collect(), &recents).expect("a whole ring");
        for (segment, generation) in generations.iter().enumerate() {
            index.set_generation(segment as u16, *generation);
        }
        index.check();
        assert_eq!(index.len(), model.len());
        for entry in model.values() {
            assert_eq!(index.tick_of(&entry.key, entry.locator), Some(entry.tick));
        }
        let runs = self.shelf.numbers().into_iter().map(|number| self.shelf.open_run(number).expect("sound")).collect();
        index.adopt_runs(runs);
        let mut walked = Vec::new();
        self.shelf.each(Walk::new(self.shelf.identity, [0; 20], [0xff; 20], None), &index, |entry| walked.push(entry));
        // Entries that died since the snapshot may have fallen out of its runs by merging: replay removes them. The others are there.
        for (key, entry) in model.iter().filter(|(key, entry)| self.model.get(*key) == Some(*entry)) {
            assert!(walked.contains(entry), "{key:?} is missing");
        }
    }

    /// Rebuilds under way that are at such a point.
    fn rebuilds(&self, is_there: impl Fn(&Gathering) -> bool) -> usize {
        self.work.iter().filter(|work| matches!(work, Work::Rebuild(rebuild) if is_there(rebuild.gathering()))).count()
    }

    fn rebuild_now(&mut self) {
        let arcs = self.index.arcs.len();
        self.coverage.rebuilds += usize::from(self.shelf.rebuild(&mut self.index));
        self.coverage.splits += self.index.arcs.len() - arcs;
    }

    /// A scan of any range with any cursor, against the map.
    fn scan(&mut self) {
        let (from, to) = (self.chance.key().placement, self.chance.key().placement);
        let after = (self.chance.below(2) == 0).then(|| self.chance.key());
        let mut met = Vec::new();
        self.shelf.each(Walk::new(self.shelf.identity, from, to, after), &self.index, |entry| met.push(entry));
        let in_order = |entry: &&Entry| (entry.key.placement < from, entry.key);
        let is_inside = |key: &Key| match from <= to {
            true => from <= key.placement && key.placement <= to,
            false => from <= key.placement || key.placement <= to,
        };
        let mut expected: Vec<&Entry> = self.model.values().filter(|entry| is_inside(&entry.key)).collect();
        expected.sort_by_key(in_order);
        if let Some(after) = after {
            let is_before_all = from <= to && after.placement < from;
            expected.retain(|entry| {
                is_before_all || (entry.key.placement < from, entry.key) > (after.placement < from, after)
            });
        }
        assert!(met.iter().eq(expected), "from {from:?} to {to:?} after {after:?}");
    }

    fn digest(&mut self) {
        let (from, to) = (self.chance.key().placement, self.chance.key().placement);
        let (mut digest, edges) = self.index.digest(from, to);
        let stale = self.index.arcs.iter().filter(|arc| arc.is_stale).count();
        assert!(edges.len() <= 4 + stale);
        for (low, high) in edges {
            let walk = Walk::between(self.shelf.identity, low, high);
            self.shelf.each(walk, &self.index, |entry| digest.add(self.index.element(&entry.key, entry.version)));
        }
        let mut expected = Digest::default();
        for entry in self.model.values() {
            let placement = entry.key.placement;
            if if from <= to { from <= placement && placement <= to } else { from <= placement || placement <= to } {
                expected.add(self.index.element(&entry.key, entry.version));
            }
        }
        assert_eq!(digest, expected);
    }

    fn check(&mut self) {
        self.index.check();
        assert_eq!(self.index.len(), self.model.len());
        let mut live = BTreeMap::new();
        for entry in self.model.values() {
            assert_eq!(self.index.tick_of(&entry.key, entry.locator), Some(entry.tick));
            let found: Vec<(Locator, u32)> = self.index.candidates(&entry.key).collect();
            assert!(found.contains(&(entry.locator, entry.tick)), "the true one is among the candidates");
            assert!(self.index.recent(&entry.key).is_none_or(|recent| recent == *entry));
            *live.entry(entry.locator.segment()).or_insert(0) += entry.locator.bytes();
        }
        assert_eq!(self.index.live_bytes(), live);
        let tables = self.index.arcs.iter().map(|arc| &arc.table);
        self.coverage.far += tables.clone().map(|table| table.far.len()).sum::<usize>();
        self.coverage.stashed += tables.map(|table| table.stash.len()).sum::<usize>();
    }
}

fn push(writer: &mut RunWriter, entry: Entry) {
    let Entry { key, version, locator, length, generation, .. } = entry;
    writer.push(&RunEntry { key, version, locator, length, generation });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_random_life_agrees_with_a_map(seed: u64, tag_bits in prop_oneof![Just(4u32), Just(8), Just(16)]) {
        let mut life = Life::new(seed, tag_bits);
        for step in 0..1500 {
            life.step();
            if step % 16 == 0 {
                life.check();
            }
        }
        life.check();
    }
}

/// The lives above are worth something only if what is rare happens in them.
#[test]
fn the_random_lives_meet_every_rare_case() {
    let mut all = Coverage::default();
    for seed in 0..40 {
        let mut life = Life::new(seed, 4);
        for _ in 0..1500 {
            life.step();
        }
        life.check();
        all.splits += life.coverage.splits;
        all.rebuilds += life.coverage.rebuilds;
        all.runs += life.coverage.runs;
        all.merges += life.coverage.merges;
        all.far += life.coverage.far;
        all.stashed += life.coverage.stashed;
        all.false_matches += life.coverage.false_matches;
        all.recycled += life.coverage.recycled;
        all.expired += life.coverage.expired;
        all.moved_under_rebuilds += life.coverage.moved_under_rebuilds;
        all.merged_under_rebuilds += life.coverage.merged_under_rebuilds;
    }
    let Coverage { splits, rebuilds, runs, merges, far, stashed, false_matches, recycled, expired, .. } = all;
    let Coverage { moved_under_rebuilds, merged_under_rebuilds, .. } = all;
    let under_rebuilds = [moved_under_rebuilds, merged_under_rebuilds];
    let others = [splits, rebuilds, runs, merges, far, stashed, false_matches, recycled, expired];
    for count in under_rebuilds.into_iter().chain(others) {
        assert!(count > 0, "{all:?}");
    }
}

/// Goal: a rebuild misses nothing when a run comes to nothing while it goes through the recents. Method: after every number of
/// steps. The control that does not begin the recents anew lacks entries.
#[test]
fn recents_that_thaw_under_a_rebuild_are_gathered() {
    for steps in 0..40 {
        let mut life = Life::new(7, 16);
        while !life.index.is_rebuild_due() {
            life.put();
        }
        life.index.freeze_recents();
        let mut rebuild = life.index.begin_rebuild(life.shelf.identity).expect("one is due");
        for _ in 0..steps {
            life.shelf.gather(&mut rebuild, &life.index, 1).expect("there are no pages");
        }
        life.index.thaw_recents();
        while life.shelf.gather(&mut rebuild, &life.index, 7).expect("there are no pages") {}
        life.index.finish_rebuild(rebuild).expect("nothing is missed");
        life.check();
    }
}

/// An index of the real size of tags with a few runs, and what it holds.
fn small_index(seed: u64, objects: usize) -> Life {
    let mut life = Life::new(seed, 16);
    while life.model.len() < objects {
        life.put();
        life.shelf.sequence += 1;
        life.shelf.upkeep(&mut life.index);
    }
    life.check();
    life
}

/// Goal: a dead entry of a run stays dead when its segment is used again and another object comes to lie at its very place, with a
/// hash that looks the same in so small a table. Only the generation tells them apart.
#[test]
fn an_entry_of_another_generation_is_dead() {
    let mut life = Life::new(1, 4);
    let dead = life.chance.key();
    let locator = Locator::new(0, 64, 128);
    let entry = |key, generation| RunEntry { key, version: 0, locator, length: 0, generation };
    life.index.insert(&entry(dead, 1), 1_000);
    life.shelf.sequence = 1;
    life.shelf.write_run(&mut life.index);
    life.index.remove(&dead, 0, locator);
    life.index.set_generation(0, Some(2));
    loop {
        let other = life.chance.key();
        life.index.insert(&entry(other, 2), 2_000);
        let is_twin = other != dead && life.index.tick_of(&dead, locator).is_some();
        let mut met = Vec::new();
        life.shelf
            .each(Walk::new(life.shelf.identity, [0; 20], [0xff; 20], None), &life.index, |entry| met.push(entry.key));
        assert_eq!(met, [other], "whatever else is dead");
        if is_twin {
            return;
        }
        life.index.remove(&other, 0, locator);
    }
}

/// Goal: a damaged page hides only its own entries from walks, and none from the table; a rebuild names exactly the records
/// it misses, and comes right again when they are read or given up.
#[test]
fn damaged_pages_cost_their_entries_in_walks_only() {
    for seed in 0..20 {
        let mut life = small_index(seed, 150);
        if life.index.recents_len() > 0 {
            life.shelf.write_run(&mut life.index);
        }
        let number = life.chance.pick(life.shelf.numbers().into_iter()).expect("there are runs");
        let run = life.index.runs().iter().find(|run| run.number == number).expect("all files are in use");
        let pages = run.pages() as usize;
        let page = 1 + life.chance.below(pages);
        life.shelf.rot(number, page * crate::format::run::PAGE + life.chance.below(4096));

        let (met, damaged) = walk_over_damage(&life, Walk::new(life.shelf.identity, [0; 20], [0xff; 20], None));
        assert_eq!(damaged, 1);
        assert!(met.iter().all(|entry| life.model.get(&entry.key) == Some(entry)), "seed {seed}: nothing wrong is met");
        let missing: BTreeSet<Locator> =
            life.model.values().filter(|entry| !met.contains(entry)).map(|entry| entry.locator).collect();
        assert!(missing.len() <= crate::format::run::PAGE_ENTRIES);
        let mut walk = Walk::new(life.shelf.identity, [0; 20], [0xff; 20], None);
        let met_at_all = walk_skipping(&life, &mut walk, number);
        assert_eq!(walk.damaged_pages(), u64::from(life.index.runs.get(number).expect("it is in use").pages()));
        assert!(met_at_all.iter().all(|entry| life.model.get(&entry.key) == Some(entry)));
        rebuild_everything(&mut life, &missing);
    }
}

/// Walks without ever getting a byte of one run.
fn walk_skipping(life: &Life, walk: &mut Walk, number: u32) -> Vec<Entry> {
    let mut met = Vec::new();
    loop {
        match walk.step(&life.index, 10, &mut met) {
            Step::More => {}
            Step::Need(need) if need.run == number => walk.skip(need),
            Step::Need(need) => life.shelf.supply(walk, need),
            Step::End => return met,
        }
    }
}

/// Walks and counts what was damaged, once in the walk and once in its reports.
fn walk_over_damage(life: &Life, mut walk: Walk) -> (Vec<Entry>, u64) {
    let (mut met, mut reported) = (Vec::new(), 0);
    loop {
        match walk.step(&life.index, 10, &mut met) {
            Step::More => {}
            Step::Need(need) => reported += u64::from(life.shelf.try_supply(&mut walk, need).is_err()),
            Step::End => break,
        }
    }
    assert!(reported <= walk.damaged_pages());
    (met, walk.damaged_pages())
}

/// Makes every arc due by dropping an object in it, and gives up every second of the records that are missing.
fn rebuild_everything(life: &mut Life, missing: &BTreeSet<Locator>) {
    let firsts: Vec<Entry> = life
        .index
        .arcs()
        .iter()
        .filter_map(|arc| {
            life.model.values().find(|entry| (arc.low..=arc.high).contains(&super::hash::position(&entry.key)))
        })
        .copied()
        .collect();
    for first in firsts {
        life.index.drop_damaged(&first.key, first.locator).expect("it is held");
        life.model.remove(&first.key);
    }
    while let Some(mut rebuild) = life.index.begin_rebuild(life.shelf.identity) {
        let mut reported = 0;
        loop {
            match life.shelf.gather(&mut rebuild, &life.index, 7) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => reported += 1,
            }
        }
        assert!(reported <= rebuild.gathering().damaged_pages());
        let Err(lacking) = life.index.finish_rebuild(rebuild) else { continue };
        assert!(lacking.records.iter().all(|locator| missing.contains(locator)));
        let mut rebuild = *lacking.rebuild;
        for (at, locator) in lacking.records.iter().enumerate() {
            let entry = *life.model.values().find(|entry| entry.locator == *locator).expect("it is held");
            if at % 2 == 0 {
                rebuild.add_record(&entry.key, entry.version, *locator);
            } else {
                rebuild.give_up(*locator);
                life.model.remove(&entry.key);
            }
        }
        let lost = life.index.finish_rebuild(rebuild).expect("nothing is lacking any more");
        assert_eq!(lost.len(), lacking.records.len() / 2);
    }
    life.check();
    let (digest, edges) = life.index.digest([0; 20], [0xff; 20]);
    assert!(edges.is_empty(), "no digest is stale any more");
    let mut expected = Digest::default();
    life.model.values().for_each(|entry| expected.add(life.index.element(&entry.key, entry.version)));
    assert_eq!(digest, expected);
}

/// Goal: no bytes make a decoder panic, or give a table that panics later. Method: flip bits of real arcs, with the checksum made
/// to fit so that the checks behind it are met, and use whatever is believed.
#[test]
fn flipped_bits_are_refused_or_harmless() {
    let (mut refused, mut believed) = (0, 0);
    for seed in 0..300 {
        let mut life = small_index(seed % 10, 60);
        let mut chance = Chance(seed);
        let arc = &life.index.arcs[chance.below(life.index.arcs.len())];
        let mut bytes = super::codec::encode_arc(arc, SEED);
        for _ in 0..1 + chance.below(3) {
            // Half of them in the header and behind the arrays, where the counts and maps are.
            let at = if chance.below(2) == 0 { chance.below(72) } else { chance.below(bytes.len()) };
            bytes[at] ^= 1 << chance.below(8);
        }
        assert!(decode_arc(&bytes, SEED).is_err(), "seed {seed}: the checksum notices");
        let check = crate::format::checksum::of(&bytes[8..], SEED);
        bytes[..8].copy_from_slice(&check.to_le_bytes());
        bytes.truncate(bytes.len() - chance.below(2) * chance.below(bytes.len()));
        let Ok((mut arc, _)) = decode_arc(&bytes, SEED) else {
            refused += 1;
            continue;
        };
        believed += 1;
        for entry in life.model.values() {
            let hash = life.index.address(&entry.key).hash;
            arc.table.extend(hash, chance.tick(), |_, _| ());
            let found: Vec<(Locator, u32)> = arc.table.candidates(hash).collect();
            found.iter().for_each(|(locator, _)| assert!(arc.table.remove(hash, *locator).is_some()));
            arc.table.insert(hash, entry.locator, chance.tick());
        }
        arc.table.check();
        life.model.clear();
    }
    assert!(refused > 50 && believed > 20, "{refused} refused, {believed} believed");
}

proptest! {
    #[test]
    fn any_bytes_can_be_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..400), resealed: bool) {
        let mut bytes = bytes;
        if resealed && bytes.len() >= 8 {
            let check = crate::format::checksum::of(&bytes[8..], SEED);
            bytes[..8].copy_from_slice(&check.to_le_bytes());
        }
        let identity = Shelf::new(SEED).identity;
        let _ = decode_arc(&bytes, SEED);
        let _ = decode_recents(&bytes, SEED);
        let _ = crate::format::run::Run::read_header(&bytes, &identity, 1);
        let _ = crate::format::run::check_page(&bytes, &identity, 1, 0);
        prop_assert_eq!(ExpiryRow::all(&bytes).count(), bytes.len() / ExpiryRow::SIZE);
    }
}
