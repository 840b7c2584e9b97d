//! The doors through which bytes of a peer, or of a disk, come into Glacier. No bytes may make one panic; what one accepts it must
//! say again, and read the same. Counts, lengths and hashes are mended here, so that a fuzzer sees what lies behind them.
//!
//! The fuzz targets knock at them, and so does `tests/decoders.rs`, on the stable compiler, with the corpus.

use bytes::Bytes;
use erasure::glacier::aggregate::{directory, is_aggregated, pack, packed_bytes, unpack};
use erasure::glacier::fragment::{claimed_index, value_bytes, verify};
use erasure::glacier::limits::{
    AGGREGATE_BYTES_MAX, ENTRY_BYTES, FRAGMENT_STEP_BYTES, HASH_BYTES, HEADER_BYTES, PREFACE_BYTES,
};
use erasure::glacier::wire::Said;
use erasure::glacier::{AggregateError, AggregateName, Coder, FragmentError, Profile};
use net::id::{Key, Kind, Name};

/// Every door.
#[allow(dead_code)] // A fuzz target names its own.
pub(crate) const DOORS: [&str; 4] = ["fragment", "aggregate", "said", "key"];

/// Hands these bytes in at the door of this name; returns whether they were accepted, as they are or mended.
pub(crate) fn knock(door: &str, bytes: &[u8]) -> bool {
    match door {
        "fragment" => fragment(bytes),
        "aggregate" => aggregate(bytes),
        "said" => said(bytes),
        "key" => key(bytes),
        other => panic!("there is no door {other}"),
    }
}

/// A fragment as it is; and with its header, length and root mended, so that it proves what it is.
fn fragment(bytes: &[u8]) -> bool {
    let is_accepted = read_fragment(bytes);
    let mended = mended_fragment(bytes);
    if let Some(mended) = &mended {
        assert!(read_fragment(mended), "it is what its root says");
    }
    is_accepted || mended.is_some()
}

/// Verifies a value under the key that its header stands for, and joins it alone.
fn read_fragment(bytes: &[u8]) -> bool {
    let value = Bytes::copy_from_slice(bytes);
    let index = claimed_index(&value);
    assert_eq!(index, bytes.get(6).copied());
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return false };
    let mut manifest = *header;
    manifest[6] = 0;
    let Some(name) = AggregateName::of_manifest(&manifest, manifest[4], manifest[5]) else { return false };
    let index = header[6] % name.total();
    let key = name.fragment_key(index);
    let verified = verify(&key, &value);
    assert_eq!(verify(&Key { kind: Kind::Content, ..key }, &value), Err(FragmentError::NotAFragment));
    let joined = Coder::new().join(name, std::slice::from_ref(&value));
    let Ok(fragment) = verified else {
        assert_eq!(joined, Err(FragmentError::TooFew { sound: 0, needed: name.needed().into() }));
        return false;
    };
    assert_eq!((fragment.index, Some(fragment.index)), (index, claimed_index(&value)));
    assert!((1..=AGGREGATE_BYTES_MAX).contains(&fragment.length));
    assert_eq!(value.len(), value_bytes(fragment.length, name.needed(), name.total()));
    assert!(bytes.ends_with(&fragment.data));
    match joined {
        Ok(payload) => {
            assert_eq!((name.needed(), payload.len()), (1, fragment.length));
            let profile = Profile { needed: 1, total: name.total(), repair_at: name.total() };
            let (again, all) = Coder::new().split(&payload, profile).expect("it was one");
            assert_eq!((again, &all[usize::from(index)]), (name, &value), "split again, it is the same");
        }
        Err(error) if name.needed() == 1 => assert_eq!(error, FragmentError::Inconsistent),
        Err(error) => assert_eq!(error, FragmentError::TooFew { sound: 1, needed: name.needed().into() }),
    }
    true
}

/// The same numbers, path and data, as far as they can be a fragment's, under the root that they lead to.
fn mended_fragment(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut value = bytes.to_vec();
    let header = value.first_chunk_mut::<HEADER_BYTES>()?;
    header[..4].copy_from_slice(b"ePF1");
    let total = header[5].max(1);
    let needed = header[4].clamp(1, total);
    let index = header[6] % total;
    (header[4], header[5], header[6], header[7]) = (needed, total, index, 0);
    let path = usize::from(total).next_power_of_two().trailing_zeros() as usize;
    let data_at = HEADER_BYTES + HASH_BYTES * path;
    let steps = value.len().checked_sub(data_at)? / FRAGMENT_STEP_BYTES;
    value.truncate(data_at + steps * FRAGMENT_STEP_BYTES);
    // As many bytes of an aggregate as make shares of that length; the first byte of the length says how many fewer.
    let most = (steps * FRAGMENT_STEP_BYTES * usize::from(needed)).min(AGGREGATE_BYTES_MAX);
    let length = most.checked_sub(usize::from(value[8]) % FRAGMENT_STEP_BYTES)?;
    if length == 0 || value_bytes(length, needed, total) != value.len() {
        return None;
    }
    value[8..12].copy_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
    let data = [&[index], &value[data_at..]].concat();
    let mut hash = blake3::derive_key("ePOST 2026 fragment leaf", &data);
    for (height, neighbour) in value[HEADER_BYTES..data_at].chunks(HASH_BYTES).enumerate() {
        let is_left = (usize::from(index) >> height).is_multiple_of(2);
        let both = if is_left { [&hash[..], neighbour] } else { [neighbour, &hash[..]] };
        hash = blake3::derive_key("ePOST 2026 fragment inner", &both.concat());
    }
    value[12..HEADER_BYTES].copy_from_slice(&hash);
    Some(value)
}

/// An aggregate as it is; and with its count, kinds and lengths mended.
fn aggregate(bytes: &[u8]) -> bool {
    let is_accepted = read_aggregate(bytes);
    let mended = mended_aggregate(bytes);
    let is_mended = mended.is_some_and(|mended| read_aggregate(&mended));
    is_accepted || is_mended
}

fn read_aggregate(bytes: &[u8]) -> bool {
    let payload = Bytes::copy_from_slice(bytes);
    let listed = directory(bytes);
    let unpacked = unpack(&payload);
    match &listed {
        Ok(listed) => {
            let values_at = packed_bytes(listed.len(), 0);
            assert_eq!(directory(&bytes[..values_at]).as_ref(), Ok(listed), "from its beginning alone");
            let before = directory(&bytes[..values_at - 1]);
            assert_eq!(before, Err(AggregateError::NeedsMore { bytes: values_at }));
        }
        Err(AggregateError::NeedsMore { bytes: more }) => assert!(*more > bytes.len() && *more <= AGGREGATE_BYTES_MAX),
        Err(error) => assert_eq!(*error, AggregateError::Malformed),
    }
    let Ok(entries) = unpacked else { return false };
    let listed = listed.expect("it was unpacked by it");
    assert_eq!(listed.len(), entries.len());
    for (listed, entry) in listed.iter().zip(&entries) {
        assert_eq!((listed.key, listed.version, listed.expiry), (entry.key, entry.version, entry.expiry));
        assert_eq!(payload.get(listed.at..listed.at + listed.length), Some(&entry.value[..]));
    }
    assert_eq!(pack(&entries), Ok(payload), "packed again, it is the same");
    true
}

/// As many entries as fit in, of kinds that may be in one, with values that end where the bytes do.
fn mended_aggregate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut payload = bytes.to_vec();
    let fit = payload.len().checked_sub(PREFACE_BYTES)? / ENTRY_BYTES;
    let count = fit.min(usize::from(payload[4] % 8));
    let values_at = packed_bytes(count, 0);
    let mut left = payload.len() - values_at;
    payload[..4].copy_from_slice(b"ePA1");
    payload[4..8].copy_from_slice(&u32::try_from(count).ok()?.to_le_bytes());
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| is_aggregated(*kind)).collect();
    for (at, entry) in payload[PREFACE_BYTES..values_at].chunks_mut(ENTRY_BYTES).enumerate() {
        entry[0] = kinds[usize::from(entry[0]) % kinds.len()] as u8;
        let (_, length) = entry.split_last_chunk_mut::<4>()?;
        let asked = u32::from_le_bytes(*length) as usize;
        let given = if at + 1 == count { left } else { left.min(asked % 64) };
        left -= given;
        length.copy_from_slice(&u32::try_from(given).ok()?.to_le_bytes());
    }
    (count > 0).then_some(payload)
}

/// The body of a message.
fn said(bytes: &[u8]) -> bool {
    let Some(said) = Said::decode(bytes) else { return false };
    assert_eq!(Said::decode(&said.encode()), Some(said), "said again, it is the same");
    true
}

/// A name and a kind as they are; and as a fragment's key with its last bytes mended.
fn key(bytes: &[u8]) -> bool {
    let Some((name, rest)) = bytes.split_first_chunk::<32>() else { return false };
    let kind = rest.first().and_then(|kind| Kind::from_number(*kind)).unwrap_or(Kind::Fragment);
    let is_accepted = read_key(&Key { name: Name(*name), kind });
    let mut mended = *name;
    mended[30] = mended[30].max(1);
    mended[29] = mended[29].clamp(1, mended[30]);
    mended[31] %= mended[30];
    assert!(read_key(&Key { name: Name(mended), kind: Kind::Fragment }), "it is a fragment's");
    is_accepted
}

fn read_key(key: &Key) -> bool {
    let Some((name, index)) = AggregateName::of_key(key) else { return false };
    assert!(1 <= name.needed() && name.needed() <= name.total() && index < name.total());
    assert_eq!(name.fragment_key(index), *key);
    assert_eq!(AggregateName::of_bytes(*name.bytes()), Some(name));
    assert_eq!(name.placement(), key.placement());
    true
}
