//! Goal: any r fragments give all the others, data and parity, in any order. Method: for small codes every set of r, for large
//! ones random sets, on every kernel; what is recovered is compared with what was encoded.

use crate::fragments::{Chance, encoded, read, write};
use erasure::{Code, Error, Kernel, Plan, Plans};

/// Recovers `wanted` from `present` and compares, by a plan and by the cache.
fn check(code: &Code, plans: &mut Plans, all: &[Vec<u8>], present: &[u8], wanted: &[u8]) {
    let fragments: Vec<&[u8]> = present.iter().map(|index| &all[usize::from(*index)][..]).collect();
    let expected: Vec<&[u8]> = wanted.iter().map(|index| &all[usize::from(*index)][..]).collect();
    let mut outputs = vec![vec![0x5a; all[0].len()]; wanted.len()];
    let plan = Plan::new(code, present, wanted).expect("sound");
    plan.apply(&fragments, &mut write(&mut outputs)).expect("sound");
    assert!(read(&outputs) == expected, "{code:?}: {wanted:?} of {present:?}");
    for _ in 0..2 {
        outputs.iter_mut().for_each(|output| output.fill(0x5a));
        plans.recover(present, &fragments, wanted, &mut write(&mut outputs)).expect("sound");
        assert!(read(&outputs) == expected, "{code:?}: {wanted:?} of {present:?}, by the cache");
    }
}

#[test]
fn every_set_of_fragments_gives_all_others() {
    let mut chance = Chance(2);
    for kernel in Kernel::available() {
        for total in 1..=10 {
            for needed in 1..=total {
                let code = Code::with_kernel(needed, total, kernel).expect("a code");
                let mut plans = Plans::new(&code, 1 << 20);
                let all = encoded(&code, 1 + chance.below(150), &mut chance);
                for set in (0u32..1 << total).filter(|set| set.count_ones() as usize == needed) {
                    let (present, lost): (Vec<u8>, Vec<u8>) = (0..total as u8).partition(|index| set >> index & 1 == 1);
                    check(&code, &mut plans, &all, &present, &lost);
                    for lost in lost {
                        check(&code, &mut plans, &all, &present, &[lost]);
                    }
                }
            }
        }
    }
}

#[test]
fn random_sets_of_large_codes_give_all_others_in_any_order() {
    let mut chance = Chance(3);
    for kernel in Kernel::available() {
        for (needed, total, rounds) in
            [(5, 56, 60), (20, 116, 20), (32, 64, 20), (128, 256, 3), (1, 256, 5), (255, 256, 3), (256, 256, 1)]
        {
            let code = Code::with_kernel(needed, total, kernel).expect("a code");
            let mut plans = Plans::new(&code, 1 << 20);
            let all = encoded(&code, 1 + chance.below(200), &mut chance);
            for _ in 0..rounds {
                let order = chance.shuffled(total);
                let (present, lost) = order.split_at(needed);
                check(&code, &mut plans, &all, present, lost);
                // One lost fragment, and more present than are needed.
                if let Some((one, more)) = lost.split_first() {
                    let surplus: Vec<u8> = present.iter().chain(more).copied().collect();
                    check(&code, &mut plans, &all, &surplus, &[*one]);
                }
            }
        }
    }
}

#[test]
fn all_data_lost_is_recovered_from_parity_alone() {
    let mut chance = Chance(4);
    for (needed, total) in [(5, 56), (16, 32), (32, 64), (128, 256)] {
        let code = Code::new(needed, total).expect("a code");
        let all = encoded(&code, 4_099, &mut chance);
        let data: Vec<u8> = (0..needed).map(|index| index as u8).collect();
        let parity: Vec<u8> = (needed..2 * needed).map(|index| index as u8).collect();
        check(&code, &mut Plans::new(&code, 0), &all, &parity, &data);
    }
}

#[test]
fn a_fragment_less_is_refused_and_nothing_wanted_is_nothing_done() {
    let code = Code::new(3, 7).expect("a code");
    let all = encoded(&code, 10, &mut Chance(5));
    assert_eq!(Plan::new(&code, &[6, 2], &[0]).err(), Some(Error::TooFewFragments { given: 2, needed: 3 }));
    check(&code, &mut Plans::new(&code, 1 << 20), &all, &[1, 6, 3], &[]);
}

#[test]
fn fragments_may_be_empty() {
    for kernel in Kernel::available() {
        let code = Code::with_kernel(3, 7, kernel).expect("a code");
        let all = encoded(&code, 0, &mut Chance(6));
        check(&code, &mut Plans::new(&code, 1 << 20), &all, &[1, 6, 3], &[0, 5]);
    }
}
