//! Pages of runs that are damaged: what walks and rebuilds make of them.

use super::{Life, small_index};
use crate::format::run;
use crate::store::arcs::arc::Digest;
use crate::store::arcs::hash;
use crate::store::arcs::locator::Locator;
use crate::store::arcs::walk::{Entry, Step, Walk};
use std::collections::BTreeSet;

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
        life.shelf.rot(number, page * run::PAGE + life.chance.below(4096));

        let (met, damaged) = walk_over_damage(&life, Walk::new(life.shelf.identity, [0; 20], [0xff; 20], None));
        assert_eq!(damaged, 1);
        assert!(met.iter().all(|entry| life.model.get(&entry.key) == Some(entry)), "seed {seed}: nothing wrong is met");
        let missing: BTreeSet<Locator> =
            life.model.values().filter(|entry| !met.contains(entry)).map(|entry| entry.locator).collect();
        assert!(missing.len() <= run::PAGE_ENTRIES);
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
        .filter_map(|arc| life.model.values().find(|entry| (arc.low..=arc.high).contains(&hash::position(&entry.key))))
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
