//! Goal: a table loses nothing, never shortens a lease, and fills up well. Method: random operations beside a map, with
//! ends of leases over the whole range of ticks; and filling to the load at which tables are rebuilt.

use super::Chance;
use crate::store::arcs::hash::KeyHash;
use crate::store::arcs::locator::Locator;
use crate::store::arcs::table::Table;
use std::collections::HashMap;

fn locator(number: usize) -> Locator {
    Locator::new((number >> 20) as u16, (number as u32 & 0xf_ffff) * 64, 64)
}

/// Ends that wander, so that the base has to follow, with some far away in either direction.
fn tick(chance: &mut Chance, step: usize) -> u32 {
    let now = 500_000 + step as u32 * 300;
    match chance.below(20) {
        0 => chance.next() as u32,
        1 => 0,
        _ => now + chance.below(20_000) as u32,
    }
}

#[test]
fn a_table_agrees_with_a_map_whatever_the_leases() {
    let mut rebased = 0;
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let mut table = Table::new(16 * (1 + chance.below(12)), 500_000);
        let base = table.base;
        let mut model: HashMap<(KeyHash, Locator), u32> = HashMap::new();
        for step in 0..2_000 {
            // Hashes of few bits, so that they and their tags collide.
            let hash = KeyHash(chance.next() & 0xffff_0000_ffff_0007);
            let known = chance.pick(model.keys().copied().collect::<Vec<_>>().into_iter());
            match (chance.below(4), known) {
                (0 | 1, _) if model.len() < table.slots() * 11 / 10 => {
                    let end = tick(&mut chance, step);
                    table.insert(hash, locator(step), end);
                    model.insert((hash, locator(step)), end);
                }
                (2, Some((hash, held))) => {
                    let end = tick(&mut chance, step);
                    let mut told = Vec::new();
                    let matched = table.extend(hash, end, |locator, before| told.push((locator, before)));
                    let before: HashMap<_, _> = model.clone();
                    let mut changed = Vec::new();
                    for ((other, locator), held) in &mut model {
                        let now = table.tick_of(*other, *locator).expect("it is there");
                        assert!(
                            now == *held || (now == end && end > *held && other.tag() == hash.tag()),
                            "seed {seed}"
                        );
                        changed.extend((now != *held).then_some((*locator, *held)));
                        *held = now;
                    }
                    told.sort_unstable();
                    changed.sort_unstable();
                    assert_eq!(told, changed, "seed {seed}: every change is told, and what was before");
                    assert!(matched >= 1);
                    assert_eq!(model[&(hash, held)], before[&(hash, held)].max(end));
                }
                (_, Some((hash, held))) => {
                    assert_eq!(table.remove(hash, held), model.remove(&(hash, held)), "seed {seed}");
                    assert_eq!(table.remove(hash, held), None);
                }
                _ => {}
            }
            table.check();
        }
        rebased += usize::from(table.base != base);
        agree(&table, &model, &mut chance);
    }
    assert!(rebased > 30, "bases moved in {rebased} of 60 tables");
}

fn agree(table: &Table, model: &HashMap<(KeyHash, Locator), u32>, chance: &mut Chance) {
    assert_eq!(table.len(), model.len());
    for ((hash, locator), end) in model {
        assert_eq!(table.tick_of(*hash, *locator), Some(*end));
        assert!(table.candidates(*hash).any(|candidate| candidate == (*locator, *end)));
    }
    let mut held: Vec<(Locator, u32)> = table.iter().collect();
    let mut expected: Vec<(Locator, u32)> = model.iter().map(|((_, locator), end)| (*locator, *end)).collect();
    held.sort_unstable();
    expected.sort_unstable();
    assert_eq!(held, expected);
    for _ in 0..50 {
        let cutoff = tick(chance, chance.0 as usize % 2_000);
        assert_eq!(table.has_expired(cutoff), model.values().any(|end| *end < cutoff));
    }
    for end in model.values().flat_map(|end| [*end, end.saturating_add(1)]) {
        assert_eq!(table.has_expired(end), model.values().any(|other| *other < end));
    }
}

/// At the load at which a table is rebuilt, almost nothing has had to go to the stash; and the arrays are ten bytes a slot.
#[test]
fn tables_fill_to_their_bound_without_the_stash() {
    for slots in [512, 4_096, 16_384, 53_248] {
        let mut chance = Chance(slots as u64);
        let mut table = Table::new(slots, 1_000);
        for number in 0..slots * 95 / 100 {
            table.insert(KeyHash(chance.next()), locator(number), 1_000);
        }
        table.check();
        assert!(table.stash.len() * 1_000 <= slots, "{} of {slots} in the stash", table.stash.len());
        assert!(table.bytes() - table.stash.len() * 36 <= slots * Table::SLOT_BYTES);
    }
}
