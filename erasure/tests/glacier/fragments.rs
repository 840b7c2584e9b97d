//! Goal: C35. Any r of n fragments give the aggregate back, r − 1 say that they are too few, and what is not a fragment's
//! exact bytes under its own key is refused. Method: random profiles, lengths and subsets; every bit of a fragment flipped;
//! fragments of a dishonest writer, made here from the drawing in docs/glacier.md and sharing no code with ours, which
//! also shows that the drawing is complete.

use bytes::Bytes;
use erasure::glacier::fragment::{value_bytes, verify};
use erasure::glacier::limits::{AGGREGATE_BYTES_MAX, FRAGMENT_BYTES_MAX};
use erasure::glacier::{AggregateName, Coder, FragmentError, Profile};
use erasure::{Code, Encoder};
use net::id::{Key, Kind, Name};
use proptest::prelude::*;
use proptest::sample::Index;

fn profile(needed: u8, total: u8) -> Profile {
    Profile { needed, total, repair_at: total }
}

/// Bytes that differ from place to place.
fn payload(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The indexes of `count` of the fragments, drawn by `picks`.
fn drawn(total: u8, count: usize, picks: &[Index]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..usize::from(total)).collect();
    picks.iter().take(count).map(|pick| left.swap_remove(pick.index(left.len()))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn claim_35_any_fragments_that_suffice_give_the_aggregate_back(
        needed in 1u8..=20,
        more in 0u8..=100,
        length in prop_oneof![1usize..=200, 1usize..=70_000],
        seed: u64,
        picks in prop::collection::vec(any::<Index>(), 120),
    ) {
        let total = needed + more;
        let payload = Bytes::from(payload(length, seed));
        let (name, values) = Coder::new().split(&payload, profile(needed, total)).expect("sound");
        prop_assert_eq!(values.len(), usize::from(total));
        prop_assert!(values.iter().all(|value| value.len() == value_bytes(length, needed, total)));
        let chosen = drawn(total, usize::from(needed), &picks);
        let mut given: Vec<Bytes> = chosen.iter().map(|index| values[*index].clone()).collect();
        let mut coder = Coder::new();
        prop_assert_eq!(coder.join(name, &given), Ok(payload.clone()));
        let missing: Vec<u8> = (0..total).filter(|index| !chosen.contains(&usize::from(*index))).collect();
        for (index, value) in coder.rebuild(name, &given, &missing).expect("as many as suffice") {
            prop_assert_eq!(&value, &values[usize::from(index)], "fragment {} rebuilt", index);
        }

        // One fewer is too few, whatever fills its place: one of them again, or one that is damaged.
        let last = given.pop().expect("at least one is needed");
        let too_few = Err(FragmentError::TooFew { sound: given.len(), needed: usize::from(needed) });
        prop_assert_eq!(coder.join(name, &given), too_few.clone());
        let mut damaged = last.to_vec();
        *damaged.last_mut().expect("not empty") ^= 1;
        let extra = given.first().cloned().into_iter().chain([Bytes::from(damaged)]);
        let with_extra: Vec<Bytes> = extra.chain(given.iter().cloned()).collect();
        prop_assert_eq!(coder.join(name, &with_extra), too_few);
        // With the sound one beside them they do no harm.
        let with_all: Vec<Bytes> = with_extra.into_iter().chain([last]).collect();
        prop_assert_eq!(coder.join(name, &with_all), Ok(payload));
    }

    #[test]
    fn no_bytes_bring_it_down(
        key: [u8; 32],
        profile_bytes in prop::array::uniform3(0u8..60),
        value in prop::collection::vec(any::<u8>(), 0..400),
        header in prop::collection::vec((0usize..44, any::<u8>()), 0..4),
        cut in any::<Index>(),
        is_true: bool,
    ) {
        let (name, values) = Coder::new().split(&payload(3_000, 1), profile(3, 12)).expect("sound");
        // A true fragment cut short or with a few bytes of its header changed, or bytes of chance behind a true magic.
        let mut value = if is_true { values[cut.index(12)].to_vec() } else { value };
        for (at, byte) in header {
            if let Some(place) = value.get_mut(at) { *place = byte; }
        }
        if !is_true && value.len() > 4 { value[..4].copy_from_slice(b"ePF1"); }
        let cut = cut.index(value.len() + 1);
        let mut chance = key;
        chance[29..].copy_from_slice(&profile_bytes);
        for bytes in [Bytes::from(value.clone()), Bytes::from(value).slice(..cut)] {
            for key in [Key { name: Name(chance), kind: Kind::Fragment }, name.fragment_key(0)] {
                let verified = verify(&key, &bytes);
                prop_assert!(verified.is_err() || values.contains(&bytes));
            }
            let joined = Coder::new().join(name, &[bytes]);
            prop_assert!(matches!(joined, Err(FragmentError::TooFew { .. })), "{:?}", joined);
        }
    }
}

#[test]
fn claim_35_no_flipped_bit_and_no_changed_length_is_accepted() {
    for (needed, total) in [(1, 1), (5, 56), (20, 116)] {
        let (name, values) = Coder::new().split(&payload(300, 7), profile(needed, total)).expect("sound");
        for index in [0, needed - 1, total - 1] {
            let key = name.fragment_key(index);
            let sound = values[usize::from(index)].clone();
            let fragment = verify(&key, &sound).expect("as it was made");
            assert_eq!((fragment.index, fragment.length), (index, 300));
            for bit in 0..8 * sound.len() {
                let mut flipped = sound.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(verify(&key, &Bytes::from(flipped)).is_err(), "bit {bit} of {index} of {total} may be flipped");
            }
            let longer = Bytes::from([&sound[..], &[0]].concat());
            assert_eq!(verify(&key, &longer), Err(FragmentError::Malformed));
            assert_eq!(verify(&key, &sound.slice(..sound.len() - 1)), Err(FragmentError::Malformed));
        }
    }
}

#[test]
fn claim_35_a_fragment_is_none_under_another_key() {
    let mut coder = Coder::new();
    let (name, values) = coder.split(&payload(1_000, 1), profile(3, 12)).expect("sound");
    let (other, of_other) = coder.split(&payload(1_000, 2), profile(3, 12)).expect("sound");
    for index in 0..12 {
        for (at, value) in values.iter().enumerate() {
            let found = verify(&name.fragment_key(index), value);
            assert_eq!(found.is_ok(), usize::from(index) == at, "{at} under the key of {index}");
            assert_eq!(verify(&other.fragment_key(index), value), Err(FragmentError::WrongName));
        }
    }
    let content = Key { kind: Kind::Content, ..name.fragment_key(0) };
    assert_eq!(verify(&content, &values[0]), Err(FragmentError::NotAFragment));
    let strangers: Vec<Bytes> = of_other.into_iter().chain(values[..2].iter().cloned()).collect();
    assert_eq!(coder.join(name, &strangers), Err(FragmentError::TooFew { sound: 2, needed: 3 }));
    assert_eq!(coder.rebuild(name, &values, &[12]), Err(FragmentError::NoSuchFragment { index: 12 }));
}

#[test]
fn lengths_around_all_edges() {
    let mut coder = Coder::new();
    for needed in [1usize, 2, 5, 20] {
        let edges = [1, 63 * needed, 64 * needed, 128 * needed].into_iter();
        let near = edges.flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]).filter(|length| *length > 0);
        for length in near.chain([AGGREGATE_BYTES_MAX - 1, AGGREGATE_BYTES_MAX]) {
            let payload = payload(length, 3);
            let total = u8::try_from(needed + 2).expect("small");
            let (name, values) = coder.split(&payload, profile(needed as u8, total)).expect("within bounds");
            assert!(values[0].len() <= FRAGMENT_BYTES_MAX);
            assert_eq!(coder.join(name, &values[2..]).as_deref(), Ok(&payload[..]), "{length} bytes, {needed} needed");
        }
    }
    for bytes in [0, AGGREGATE_BYTES_MAX + 1] {
        let refused = coder.split(&payload(bytes, 3), Profile::DEFAULT);
        assert_eq!(refused, Err(FragmentError::Length { bytes }));
    }
    assert!(matches!(coder.split(b"x", profile(3, 2)), Err(FragmentError::Code(_))));
    assert!(matches!(coder.split(b"x", profile(0, 2)), Err(FragmentError::Code(_))));
}

/// Fragments under one root by the drawing alone, whatever their data.
fn committed_to(needed: u8, length: u32, data: &[&[u8]]) -> (AggregateName, Vec<Bytes>) {
    fn hash(context: &str, parts: &[&[u8]]) -> [u8; 32] {
        blake3::derive_key(context, &parts.concat())
    }
    let total = data.len();
    let mut levels: Vec<Vec<[u8; 32]>> =
        vec![(0..total).map(|index| hash("ePOST 2026 fragment leaf", &[&[index as u8], data[index]])).collect()];
    while levels[levels.len() - 1].len() > 1 {
        let below = &levels[levels.len() - 1];
        let at = |index: usize| below.get(index).copied().unwrap_or([0; 32]);
        let pairs = 0..below.len().div_ceil(2);
        let above = pairs.map(|pair| hash("ePOST 2026 fragment inner", &[&at(2 * pair), &at(2 * pair + 1)])).collect();
        levels.push(above);
    }
    let header = |index: usize| {
        let numbers = [needed, total as u8, index as u8, 0];
        [b"ePF1", &numbers[..], &length.to_le_bytes(), &levels[levels.len() - 1][0]].concat()
    };
    let fragments = (0..total).map(|index| {
        let path = (0..levels.len() - 1).map(|height| levels[height].get((index >> height) ^ 1).unwrap_or(&[0; 32]));
        Bytes::from([&header(index)[..], &path.copied().collect::<Vec<_>>().concat(), data[index]].concat())
    });
    let mut name = hash("ePOST 2026 name aggregate", &[&header(0)]);
    name[29..].copy_from_slice(&[needed, total as u8, 0]);
    (AggregateName::of_bytes(name).expect("a name"), fragments.collect())
}

#[test]
fn claim_35_a_writer_of_two_objects_under_one_name_is_found_out_by_any_subset() {
    let mut coder = Coder::new();
    let (one, other) = (payload(150, 1), payload(150, 2));
    let (name, of_one) = coder.split(&one, profile(2, 7)).expect("sound");
    let (_, of_other) = coder.split(&other, profile(2, 7)).expect("sound");
    let data_at = of_one[0].len() - 128;
    let data = |values: &[Bytes], index: usize| values[index].slice(data_at..);
    // The drawing is the format: an honest writer's fragments come out the same.
    let honest: Vec<Bytes> = (0..7).map(|index| data(&of_one, index)).collect();
    let honest: Vec<&[u8]> = honest.iter().map(|data| &data[..]).collect();
    assert_eq!(committed_to(2, 150, &honest), (name, of_one.clone()));

    // Some of each object; one wrong byte in a single fragment; the zeros behind the end of the object not zeros.
    let mixed: Vec<Bytes> = (0..7).map(|index| data(if index < 4 { &of_one } else { &of_other }, index)).collect();
    let mut touched: Vec<Bytes> = (0..7).map(|index| data(&of_one, index)).collect();
    let mut byte = touched[6].to_vec();
    byte[5] ^= 1;
    touched[6] = Bytes::from(byte);
    let longer = [&one[..], &[1]].concat();
    let (_, of_longer) = coder.split(&longer, profile(2, 7)).expect("sound");
    let padded: Vec<Bytes> = (0..7).map(|index| data(&of_longer, index)).collect();
    for (what, dishonest) in [("mixed", mixed), ("touched", touched), ("padded", padded)] {
        let data: Vec<&[u8]> = dishonest.iter().map(|data| &data[..]).collect();
        let (name, values) = committed_to(2, 150, &data);
        for (index, value) in (0..7).zip(&values) {
            assert!(verify(&name.fragment_key(index), value).is_ok(), "alone, each is what was committed to");
        }
        for (first, second) in (0..7).flat_map(|first| (0..7).map(move |second| (first, second))) {
            if first != second {
                let given = [values[first].clone(), values[second].clone()];
                let joined = coder.join(name, &given);
                assert_eq!(joined, Err(FragmentError::Inconsistent), "{what}, by {first} and {second}");
                assert_eq!(coder.rebuild(name, &given, &[0]), Err(FragmentError::Inconsistent));
            }
        }
    }
}

/// Fragments are made in memory that had others before: nothing of those is left in them. Compared with fragments by the drawing, of
/// what the bare code makes in memory of its own.
#[test]
fn nothing_of_one_aggregate_is_left_in_another() {
    let mut coder = Coder::new();
    let shapes = [(5, 56, 300_001), (5, 56, 299_000), (5, 56, 200_000), (20, 116, 190_001), (3, 12, 500_003)];
    for (needed, total, length) in shapes.into_iter().chain(shapes) {
        let payload = payload(length, length as u64);
        let share = length.div_ceil(usize::from(needed)).next_multiple_of(64);
        let mut data = payload.clone();
        data.resize(share * usize::from(needed), 0);
        let code = Code::new(usize::from(needed), usize::from(total)).expect("a code");
        let mut parity = vec![vec![0; share]; usize::from(total - needed)];
        let data: Vec<&[u8]> = data.chunks(share).collect();
        let mut rows: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        Encoder::new(&code).encode(&data, &mut rows).expect("sound");
        let all: Vec<&[u8]> = data.into_iter().chain(parity.iter().map(Vec::as_slice)).collect();
        let made = coder.split(&payload, profile(needed, total)).expect("sound");
        assert!(made == committed_to(needed, length as u32, &all), "{length} bytes, {needed} of {total}");
    }
}
