//! Goal: an index that is given its room beforehand and its keys afterwards, as by an opening, is the index that was
//! told of every change as it came. Method: random logs of puts, replacements and removals over clustered and over spread keys, into
//! both; every live entry, lease, candidate and sum of the one against the other.

use super::{Chance, SEED, tiny};
use crate::format::run::RunEntry;
use crate::key::Key;
use crate::store::arcs::Index;
use crate::store::arcs::hash::position;
use crate::store::arcs::locator::Locator;
use std::collections::BTreeMap;

enum Step {
    Put(RunEntry, u32),
    Remove(Key, u64, Locator),
}

/// What a log may hold: at most one object of a key at a time.
fn log(chance: &mut Chance, is_spread: bool) -> Vec<Step> {
    let mut alive: BTreeMap<Key, (u64, Locator)> = BTreeMap::new();
    let mut steps = Vec::new();
    for number in 0..20 + chance.below(1_500) as u32 {
        let mut key = chance.key();
        if is_spread {
            key.placement[..8].copy_from_slice(&chance.next().to_be_bytes());
        }
        let known = chance.pick(alive.keys().copied().collect::<Vec<_>>().into_iter());
        let key = known.filter(|_| chance.below(3) == 0).unwrap_or(key);
        if let Some((version, locator)) = alive.remove(&key) {
            steps.push(Step::Remove(key, version, locator));
            if chance.below(3) == 0 {
                continue;
            }
        }
        let (version, locator) = (u64::from(number), Locator::new(3, number * 64, 64));
        alive.insert(key, (version, locator));
        steps.push(Step::Put(RunEntry { key, version, locator, length: 1, generation: 5 }, chance.tick()));
    }
    steps
}

fn recent(index: &Index) -> Vec<RunEntry> {
    index.recents().filter(|entry| index.live_tick(entry).is_some()).collect()
}

#[test]
fn an_opening_makes_the_index_that_was() {
    let mut arcs_seen = 0;
    for seed in 0..200 {
        let mut chance = Chance(SEED + seed);
        let steps = log(&mut chance, seed % 2 == 0);
        let puts = steps.iter().filter_map(|step| match step {
            Step::Put(entry, _) => Some(position(&entry.key)),
            Step::Remove(..) => None,
        });
        let sampled = puts.clone().step_by(1 + chance.below(5)).collect();
        let mut told = Index::new(tiny(4));
        let mut replayed = Index::with_room(tiny(4), puts.count(), sampled);
        arcs_seen += replayed.arcs().len();
        told.set_generation(3, Some(5));
        replayed.set_generation(3, Some(5));
        let mut entries = Vec::new();
        for step in &steps {
            match step {
                Step::Put(entry, tick) => {
                    told.insert(entry, *tick);
                    assert!(replayed.insert_replayed(entry, *tick), "seed {seed}");
                    assert!(!replayed.insert_replayed(entry, *tick), "seed {seed}: what is there is not added again");
                    entries.push(*entry);
                }
                Step::Remove(key, version, locator) => {
                    let tick = told.remove(key, *version, *locator);
                    assert_eq!(replayed.remove(key, *version, *locator), tick, "seed {seed}");
                }
            }
        }
        replayed.remember_all(&entries);
        replayed.check();
        assert_eq!(replayed.len(), told.len(), "seed {seed}");
        assert_eq!(replayed.live_bytes(), told.live_bytes(), "seed {seed}");
        assert_eq!(recent(&replayed), recent(&told), "seed {seed}");
        assert_eq!(recent(&replayed).len(), replayed.len(), "seed {seed}: every live entry has its key");
        for entry in recent(&told) {
            assert_eq!(replayed.live_tick(&entry), told.live_tick(&entry), "seed {seed}");
            assert!(replayed.candidates(&entry.key).any(|(locator, _)| locator == entry.locator), "seed {seed}");
        }
        let ring = ([0; 20], [0xff; 20]);
        assert_eq!(replayed.digest(ring.0, ring.1), told.digest(ring.0, ring.1), "seed {seed}");
    }
    assert!(arcs_seen > 1_000, "room is made in several arcs: {arcs_seen}");
}

/// Goal: what is spread as the sample is finds its place without the stash. Method: as many objects as room was made for.
#[test]
fn room_made_beforehand_is_enough() {
    let settings = crate::store::arcs::Settings { arc_objects_max: 1024, ..tiny(16) };
    for entries in [0, 1, 500, 1_023, 1_024, 5_000, 20_000] {
        let mut chance = Chance(SEED + entries);
        let keys: Vec<Key> = (0..entries)
            .map(|_| {
                let mut key = chance.key();
                key.placement[..8].copy_from_slice(&chance.next().to_be_bytes());
                key
            })
            .collect();
        let positions = keys.iter().map(position).step_by(3).collect();
        let mut index = Index::with_room(settings, keys.len(), positions);
        index.set_generation(0, Some(1));
        for (number, key) in (0..).zip(&keys) {
            let locator = Locator::new(0, number * 64, 64);
            index.insert_replayed(&RunEntry { key: *key, version: 0, locator, length: 1, generation: 1 }, 1_000_000);
        }
        index.check();
        assert_eq!((index.len(), index.stashed()), (keys.len(), 0), "{entries} objects");
        assert!(!index.is_rebuild_due(), "{entries} objects");
    }
}
