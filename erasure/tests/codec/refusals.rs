//! Goal: what is handed in wrongly is refused with the reason, writes nothing, and never panics. Method: each error once by
//! name, then arbitrary numbers, indexes, counts and lengths by proptest, judged by the rules written down anew here.

use crate::fragments::{read, write};
use erasure::{Code, Encoder, Error, Plan, Plans};
use proptest::prelude::*;

#[test]
fn only_codes_that_exist_can_be_made() {
    for (needed, total) in [(0, 0), (0, 5), (6, 5), (1, 257), (257, 257), (usize::MAX, usize::MAX)] {
        assert_eq!(Code::new(needed, total).err(), Some(Error::Profile { needed, total }));
    }
    for (needed, total) in [(1, 1), (5, 5), (256, 256), (1, 256)] {
        assert!(Code::new(needed, total).is_ok());
    }
}

#[test]
fn encoding_wants_every_buffer_of_one_length() {
    let encoder = Encoder::new(&Code::new(2, 4).expect("a code"));
    let refusal = |data: &[usize], parity: &[usize]| {
        let data: Vec<Vec<u8>> = data.iter().map(|length| vec![1; *length]).collect();
        let mut parity: Vec<Vec<u8>> = parity.iter().map(|length| vec![9; *length]).collect();
        let refused = encoder.encode(&read(&data), &mut write(&mut parity)).err();
        assert!(refused.is_none() || parity.concat().iter().all(|byte| *byte == 9), "written all the same");
        refused
    };
    assert_eq!(refusal(&[3, 3], &[3, 3]), None);
    assert_eq!(refusal(&[3], &[3, 3]), Some(Error::BufferCount { given: 1, expected: 2 }));
    assert_eq!(refusal(&[3, 3, 3], &[3, 3]), Some(Error::BufferCount { given: 3, expected: 2 }));
    assert_eq!(refusal(&[3, 3], &[3]), Some(Error::BufferCount { given: 1, expected: 2 }));
    assert_eq!(refusal(&[3, 4], &[3, 3]), Some(Error::LengthsDiffer { expected: 3, found: 4 }));
    assert_eq!(refusal(&[3, 3], &[3, 2]), Some(Error::LengthsDiffer { expected: 3, found: 2 }));
    assert_eq!(refusal(&[0, 0], &[0, 1]), Some(Error::LengthsDiffer { expected: 0, found: 1 }));
}

#[test]
fn plans_want_different_fragments_that_exist() {
    let code = Code::new(2, 4).expect("a code");
    let refusal = |present: &[u8], wanted: &[u8]| Plan::new(&code, present, wanted).err();
    assert_eq!(refusal(&[0, 3], &[1, 2]), None);
    assert_eq!(refusal(&[0], &[1]), Some(Error::TooFewFragments { given: 1, needed: 2 }));
    assert_eq!(refusal(&[0, 4], &[1]), Some(Error::IndexOutOfRange { index: 4, total: 4 }));
    assert_eq!(refusal(&[0, 1, 255], &[2]), Some(Error::IndexOutOfRange { index: 255, total: 4 }));
    assert_eq!(refusal(&[0, 1], &[200]), Some(Error::IndexOutOfRange { index: 200, total: 4 }));
    assert_eq!(refusal(&[0, 0], &[1]), Some(Error::IndexTwice { index: 0 }));
    assert_eq!(refusal(&[0, 1, 1], &[2]), Some(Error::IndexTwice { index: 1 }));
    assert_eq!(refusal(&[0, 1], &[2, 2]), Some(Error::IndexTwice { index: 2 }));
    assert_eq!(refusal(&[0, 1], &[1]), Some(Error::IndexTwice { index: 1 }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_handed_in_there_is_an_answer(
        needed in 1usize..6,
        more in 0usize..6,
        present in proptest::collection::vec(0u8..13, 0..9),
        wanted in proptest::collection::vec(0u8..13, 0..4),
        lengths in proptest::collection::vec(prop_oneof![9 => Just(5usize), 1 => 0usize..7], 13),
        missing in prop_oneof![9 => Just(0usize), 1 => 0usize..3],
    ) {
        let total = needed + more;
        let code = Code::new(needed, total).expect("a code");
        let fragments: Vec<Vec<u8>> = lengths.iter().take(present.len().saturating_sub(missing)).map(|length| vec![1; *length]).collect();
        let mut outputs: Vec<Vec<u8>> = lengths.iter().rev().take(wanted.len()).map(|length| vec![9; *length]).collect();

        let named: Vec<u8> = present.iter().chain(&wanted).copied().collect();
        let distinct: std::collections::BTreeSet<u8> = named.iter().copied().collect();
        let indexes_are_sound = distinct.len() == named.len() && named.iter().all(|index| usize::from(*index) < total);
        let buffers: Vec<&Vec<u8>> = fragments.iter().take(needed).chain(&outputs).collect();
        let one_length = buffers.windows(2).all(|pair| pair[0].len() == pair[1].len());
        let sound = indexes_are_sound && one_length && present.len() >= needed && fragments.len() == present.len();

        let mut plans = Plans::new(&code, 1 << 16);
        for _ in 0..2 {
            let answer = plans.recover(&present, &read(&fragments), &wanted, &mut write(&mut outputs));
            prop_assert_eq!(answer.is_ok(), sound, "{:?}", answer);
            if !sound {
                prop_assert!(outputs.concat().iter().all(|byte| *byte == 9), "written all the same");
            }
        }
    }
}
