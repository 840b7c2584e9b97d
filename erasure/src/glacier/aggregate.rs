//! What an aggregate is: several objects as one payload, to be coded together.
//!
//! ```text
//!  0  "ePA1"                4 bytes
//!  4  count                 4        little-endian, as all numbers here; 1 to OBJECTS_PER_AGGREGATE_MAX
//!  8  directory            53 each   kind 1 ‖ name 32 ‖ version 8 ‖ expiry 8 ‖ length of the value 4
//!     values                         in the order of the directory, without gaps; the payload ends where the last one does
//! ```
//!
//! The directory comes first and the code is systematic, so what an aggregate holds can be read from the data of fragment 0,
//! or, of a long directory, of the first few. An object's bytes are not vouched for here: blocks prove themselves, and whoever
//! unpacks them checks them as a replica does.

use super::limits::{AGGREGATE_BYTES_MAX, ENTRY_BYTES, OBJECTS_PER_AGGREGATE_MAX, PREFACE_BYTES};
use bytes::Bytes;
use net::id::{Key, Kind, Name};
use net::limits::BLOCK_BYTES_MAX;
use net::machine::Seconds;
use std::collections::BTreeSet;

const MAGIC: &[u8; 4] = b"ePA1";

/// An object in an aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is stored under.
    pub key: Key,
    /// Its version, where its kind has versions.
    pub version: u64,
    /// When its lease ended when it was packed.
    pub expiry: Seconds,
    /// Its bytes.
    pub value: Bytes,
}

/// An object of which only the directory's entry has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is stored under.
    pub key: Key,
    /// Its version, where its kind has versions.
    pub version: u64,
    /// When its lease ended when it was packed.
    pub expiry: Seconds,
    /// Where in the payload its bytes begin.
    pub at: usize,
    /// How many they are.
    pub length: usize,
}

/// Why objects are not an aggregate, or bytes are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// The directory is longer than what was handed in. Nobody's fault; more must be fetched.
    #[error("the directory of the aggregate takes its first {bytes} bytes")]
    NeedsMore {
        /// Bytes from the beginning that are needed to go on.
        bytes: usize,
    },
    /// Not an aggregate: the fault of whoever wrote it.
    #[error("not an aggregate")]
    Malformed,
    /// No objects, too many, too large, of a kind that is not kept in aggregates, or one twice: the caller's fault.
    #[error("these objects are no aggregate")]
    Unfit,
}

/// Bytes of an aggregate of so many objects, whose values have so many bytes together.
#[must_use]
pub const fn packed_bytes(objects: usize, value_bytes: usize) -> usize {
    PREFACE_BYTES + objects * ENTRY_BYTES + value_bytes
}

/// Whether objects of this kind are kept in aggregates: what is meant to last. Fragments would be coded twice, what is
/// pending is fetched soon or not at all, and notes are of concern to one node alone.
#[must_use]
pub const fn is_aggregated(kind: Kind) -> bool {
    match kind {
        Kind::Content | Kind::Certificate | Kind::Identity | Kind::Head | Kind::Cluster => true,
        Kind::Fragment | Kind::Pending | Kind::Note => false,
    }
}

/// Packs objects, in the order in which they come.
///
/// # Errors
/// [`AggregateError::Unfit`] if they are over a bound.
pub fn pack(entries: &[Entry]) -> Result<Bytes, AggregateError> {
    let keys: BTreeSet<Key> = entries.iter().map(|entry| entry.key).collect();
    let value_bytes: usize = entries.iter().map(|entry| entry.value.len()).sum();
    let is_fit = (1..=OBJECTS_PER_AGGREGATE_MAX).contains(&entries.len())
        && keys.len() == entries.len()
        && entries.iter().all(|entry| is_aggregated(entry.key.kind) && entry.value.len() <= BLOCK_BYTES_MAX)
        && packed_bytes(entries.len(), value_bytes) <= AGGREGATE_BYTES_MAX;
    if !is_fit {
        return Err(AggregateError::Unfit);
    }
    let mut payload = Vec::with_capacity(packed_bytes(entries.len(), value_bytes));
    payload.extend_from_slice(MAGIC);
    payload.extend_from_slice(&number(entries.len()));
    for entry in entries {
        payload.push(entry.key.kind as u8);
        payload.extend_from_slice(&entry.key.name.0);
        payload.extend_from_slice(&entry.version.to_le_bytes());
        payload.extend_from_slice(&entry.expiry.to_le_bytes());
        payload.extend_from_slice(&number(entry.value.len()));
    }
    for entry in entries {
        payload.extend_from_slice(&entry.value);
    }
    assert!(payload.len() == packed_bytes(entries.len(), value_bytes));
    Ok(Bytes::from(payload))
}

/// The objects of an aggregate; their values are slices of the payload.
///
/// # Errors
/// [`AggregateError::Malformed`].
pub fn unpack(payload: &Bytes) -> Result<Vec<Entry>, AggregateError> {
    let listed = directory(payload).map_err(|_| AggregateError::Malformed)?;
    // The directory lists one object at least, and the last one ends the payload.
    if listed.last().is_none_or(|last| last.at + last.length != payload.len()) {
        return Err(AggregateError::Malformed);
    }
    let entry = |listed: Listed| Entry {
        key: listed.key,
        version: listed.version,
        expiry: listed.expiry,
        value: payload.slice(listed.at..listed.at + listed.length),
    };
    Ok(listed.into_iter().map(entry).collect())
}

/// What an aggregate holds, from its beginning alone.
///
/// # Errors
/// [`AggregateError::NeedsMore`] if the directory is longer than `prefix`, [`AggregateError::Malformed`] if it is none.
pub fn directory(prefix: &[u8]) -> Result<Vec<Listed>, AggregateError> {
    let preface: &[u8; PREFACE_BYTES] =
        prefix.first_chunk().ok_or(AggregateError::NeedsMore { bytes: PREFACE_BYTES })?;
    let [m0, m1, m2, m3, count @ ..] = *preface;
    let count = u32::from_le_bytes(count) as usize;
    if [m0, m1, m2, m3] != *MAGIC || !(1..=OBJECTS_PER_AGGREGATE_MAX).contains(&count) {
        return Err(AggregateError::Malformed);
    }
    let values_at = packed_bytes(count, 0);
    let entries = prefix.get(PREFACE_BYTES..values_at).ok_or(AggregateError::NeedsMore { bytes: values_at })?;
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    let mut listed = Vec::with_capacity(count);
    let mut keys = BTreeSet::new();
    let mut at = values_at;
    for entry in entries {
        let object = read_entry(entry, at).ok_or(AggregateError::Malformed)?;
        at += object.length;
        if at > AGGREGATE_BYTES_MAX || !keys.insert(object.key) {
            return Err(AggregateError::Malformed);
        }
        listed.push(object);
    }
    Ok(listed)
}

/// One entry of the directory, of a value that begins at `at`; none if it is over a bound.
fn read_entry(entry: &[u8; ENTRY_BYTES], at: usize) -> Option<Listed> {
    let (kind, rest) = entry.split_first()?;
    let kind = Kind::from_number(*kind).filter(|kind| is_aggregated(*kind))?;
    let (name, rest) = rest.split_first_chunk::<32>()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (expiry, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
    let listed = Listed {
        key: Key { name: Name(*name), kind },
        version: u64::from_le_bytes(*version),
        expiry: u64::from_le_bytes(*expiry),
        at,
        length,
    };
    (length <= BLOCK_BYTES_MAX).then_some(listed)
}

/// A count or a length in four bytes.
fn number(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("within the bounds of an aggregate").to_le_bytes()
}

const _: () = assert!(ENTRY_BYTES == 1 + 32 + 8 + 8 + 4);
