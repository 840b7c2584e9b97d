//! Tests of the index, beside an ordered map of what should be there: a [`Life`] with tiny arcs, runs and tags changes both,
//! and `comparing` holds them against each other.
//!
//! `lives` are random ones, with the `work` that takes time and is met by changes; `replaying` is what an opening does; `damage` and `bytes` are what a disk may give
//! back; `table` is one table alone. What is not checked here: that records confirm candidates, and that what is on disk is
//! durable; that is the store's.

mod bytes;
mod comparing;
mod damage;
mod lives;
mod replaying;
mod table;
mod work;

use super::codec::ExpiryRow;
use super::locator::Locator;
use super::walk::{Entry, Walk};
use super::{Index, Settings};
use crate::format::run::RunEntry;
use crate::key::Key;
use crate::store::bare_index::Shelf;
use std::collections::{BTreeMap, BTreeSet};
use work::Work;

const SEED: u64 = 11;
const SEGMENTS: u16 = 12;

fn tiny(tag_bits: u32) -> Settings {
    Settings { seed: SEED, digest_seed: 3, arc_objects_max: 32, recents_max: 16, fan_in: 2, tag_bits }
}

/// SplitMix64: the whole life follows from its seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: impl ExactSizeIterator<Item = T>) -> Option<T> {
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

    /// A record that cannot be read any more is dropped, and the arc is rebuilt for its digest.
    fn drop_damaged(&mut self) {
        let Some(held) = self.chance.pick(self.model.values().copied().collect::<Vec<_>>().into_iter()) else { return };
        assert_eq!(self.index.drop_damaged(&held.key, held.locator), Some(held.tick));
        self.model.remove(&held.key);
        self.digest();
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
