//! Goal: what was packed is what is unpacked, the directory can be read from fragment 0 on, and other bytes are refused.
//! Method: random objects; every prefix; a parser of chance and of bent bytes; the bounds, one above each.

use bytes::Bytes;
use erasure::glacier::aggregate::{AggregateError, Entry, directory, pack, packed_bytes, unpack};
use erasure::glacier::fragment::verify;
use erasure::glacier::limits::{AGGREGATE_BYTES_MAX, OBJECTS_PER_AGGREGATE_MAX};
use erasure::glacier::{Coder, Profile};
use net::id::{Key, Kind, Name};
use net::limits::BLOCK_BYTES_MAX;
use proptest::prelude::*;

const KINDS: [Kind; 5] = [Kind::Content, Kind::Certificate, Kind::Identity, Kind::Head, Kind::Cluster];

fn entry() -> impl Strategy<Value = Entry> {
    (0usize..5, any::<[u8; 32]>(), any::<u64>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(
        |(kind, name, version, expiry, value)| {
            let key = Key { name: Name(name), kind: KINDS[kind] };
            Entry { key, version, expiry, value: value.into() }
        },
    )
}

/// The `nth` of many objects.
fn object(nth: usize, length: usize) -> Entry {
    let key = Key::of(Kind::Content, &nth.to_le_bytes());
    Entry { key, version: 0, expiry: 1, value: vec![nth as u8; length].into() }
}

proptest! {
    #[test]
    fn what_was_packed_is_unpacked(entries in prop::collection::vec(entry(), 1..40)) {
        let payload = pack(&entries).expect("within bounds");
        let value_bytes = entries.iter().map(|entry| entry.value.len()).sum();
        prop_assert_eq!(payload.len(), packed_bytes(entries.len(), value_bytes));
        prop_assert_eq!(unpack(&payload), Ok(entries.clone()));
        let whole = directory(&payload).expect("its own directory");
        for (listed, entry) in whole.iter().zip(&entries) {
            prop_assert_eq!((listed.key, listed.version, listed.expiry), (entry.key, entry.version, entry.expiry));
            prop_assert_eq!(&payload[listed.at..listed.at + listed.length], &entry.value[..]);
        }
        for end in 0..payload.len() {
            let prefix = payload.slice(..end);
            prop_assert_eq!(unpack(&prefix), Err(AggregateError::Malformed), "cut at {}", end);
            match directory(&prefix) {
                Ok(listed) => prop_assert_eq!(&listed, &whole),
                Err(AggregateError::NeedsMore { bytes }) => prop_assert!(end < bytes && bytes <= packed_bytes(entries.len(), 0)),
                Err(other) => prop_assert!(false, "cut at {}: {:?}", end, other),
            }
        }
        let longer = Bytes::from([&payload[..], &[0]].concat());
        prop_assert_eq!(unpack(&longer), Err(AggregateError::Malformed));
        let twice: Vec<Entry> = entries.iter().chain(&entries[..1]).cloned().collect();
        prop_assert_eq!(pack(&twice), Err(AggregateError::Unfit));
    }

    #[test]
    fn no_bytes_bring_it_down_and_what_is_read_is_what_is_written(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        is_true: bool,
        bent in prop::collection::vec((0usize..200, any::<u8>()), 0..3),
    ) {
        if is_true { bytes = pack(&[object(1, 40), object(2, 40)]).expect("within bounds").to_vec(); }
        for (at, byte) in bent {
            if let Some(place) = bytes.get_mut(at) { *place = byte; }
        }
        if bytes.len() > 8 && !is_true { bytes[..8].copy_from_slice(b"ePA1\x03\0\0\0"); }
        let bytes = Bytes::from(bytes);
        // There is one way to write an aggregate: whatever is accepted, packing it again gives the same bytes.
        if let Ok(entries) = unpack(&bytes) { prop_assert_eq!(pack(&entries), Ok(bytes)); }
    }
}

#[test]
fn the_directory_is_read_from_the_first_fragments() {
    // 900 objects of 20 bytes: 47,708 bytes of directory before 18,000 of values, a fragment has 13,184.
    let entries: Vec<Entry> = (0..900).map(|nth| object(nth, 20)).collect();
    let payload = pack(&entries).expect("within bounds");
    let (name, values) = Coder::new().split(&payload, Profile::DEFAULT).expect("sound");
    let mut prefix = Vec::new();
    let mut read = 0;
    let listed = loop {
        match directory(&prefix) {
            Ok(listed) => break listed,
            Err(AggregateError::NeedsMore { bytes }) => {
                assert!(bytes > prefix.len(), "more is asked for than is there")
            }
            Err(other) => panic!("{other}"),
        }
        let index = u8::try_from(read).expect("fewer than needed");
        prefix.extend_from_slice(&verify(&name.fragment_key(index), &values[read]).expect("as it was made").data);
        read += 1;
    };
    assert_eq!(read, 4);
    assert_eq!(listed.len(), 900);
    assert!(listed.iter().zip(&entries).all(|(listed, entry)| listed.key == entry.key && listed.length == 20));
}

#[test]
fn bounds_hold_and_the_largest_object_fits() {
    let largest = [object(0, BLOCK_BYTES_MAX)];
    let payload = pack(&largest).expect("the largest object fits");
    assert_eq!(unpack(&payload).as_deref(), Ok(&largest[..]));
    assert_eq!(pack(&[object(0, BLOCK_BYTES_MAX + 1)]), Err(AggregateError::Unfit));
    let rest = AGGREGATE_BYTES_MAX - packed_bytes(2, BLOCK_BYTES_MAX);
    assert!(pack(&[object(0, BLOCK_BYTES_MAX), object(1, rest)]).is_ok());
    assert_eq!(pack(&[object(0, BLOCK_BYTES_MAX), object(1, rest + 1)]), Err(AggregateError::Unfit));

    let many: Vec<Entry> = (0..=OBJECTS_PER_AGGREGATE_MAX).map(|nth| object(nth, 0)).collect();
    assert_eq!(pack(&many), Err(AggregateError::Unfit));
    let full = pack(&many[1..]).expect("as many as may be");
    assert_eq!(unpack(&full).map(|entries| entries.len()), Ok(OBJECTS_PER_AGGREGATE_MAX));
    assert_eq!(pack(&[]), Err(AggregateError::Unfit));
    for kind in [Kind::Fragment, Kind::Pending] {
        let entry = Entry { key: Key::of(kind, b"x"), ..object(0, 1) };
        assert_eq!(pack(&[entry]), Err(AggregateError::Unfit));
    }

    // What no packer writes: none at all, more than may be, a key twice, a kind that is not kept, a length over the bound.
    let two = pack(&[object(1, 5), object(2, 5)]).expect("within bounds");
    let bent = |at: usize, bytes: &[u8]| {
        let mut payload = two.to_vec();
        payload[at..at + bytes.len()].copy_from_slice(bytes);
        unpack(&payload.into())
    };
    assert_eq!(bent(4, &0u32.to_le_bytes()), Err(AggregateError::Malformed));
    assert_eq!(bent(4, &u32::MAX.to_le_bytes()), Err(AggregateError::Malformed));
    assert_eq!(bent(8 + 53, &two[8..8 + 33]), Err(AggregateError::Malformed));
    assert_eq!(bent(8, &[Kind::Pending as u8]), Err(AggregateError::Malformed));
    assert_eq!(bent(8 + 49, &u32::MAX.to_le_bytes()), Err(AggregateError::Malformed));
    assert!(bent(8 + 33, &9u64.to_le_bytes()).is_ok_and(|entries| entries[0].version == 9), "control: a sound change");
}
