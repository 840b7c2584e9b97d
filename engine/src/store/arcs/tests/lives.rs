//! Goal: whatever happens in whatever order, the index agrees with a map. Method: random lives: puts, newer versions, moves,
//! removals, leases, expiry, segments that are used again, and, begun and ended at any moment between them, runs, merges,
//! rebuilds, snapshots and walks; and by hand, what random lives meet too seldom.

use super::{Coverage, Life};
use crate::format::run::RunEntry;
use crate::store::arcs::locator::Locator;
use crate::store::arcs::walk::Walk;
use proptest::prelude::*;

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
