//! The head of a log: the one mutable block, from which everything else is found.
//!
//! ```text
//! "ePB1" | kind u8 = Head | public key 32 | version u64 LE | cover( CBOR map ) | signature 64      (net::past::block)
//!
//!   0 hash of the previous head's block (zeros for the first)      5 latest full cluster, or null
//!   1 writer epoch                                                 6 snapshot, or null:
//!   2 number of records                                               [[sealed reference…], sequence, entries]
//!   3 number of entries                                            7 [high-water marks…]
//!   4 [handles of the partial cluster's 0..=50 records]
//! ```
//!
//! Invariants, checked whenever a head is read:
//! - the partial cluster is empty only in a log without records;
//! - the records before it fill whole clusters, and there is a cluster if and only if there are such records;
//! - the snapshot lies within the log, and is of 1 to [`SNAPSHOT_OBJECTS_MAX`] objects;
//! - the version is at least 1 and the writer epoch at least 1.

use super::LogError;
use super::cover::{cover, uncover};
use super::keys::{ReadKeys, WriteKeys};
use super::limits::{CLUSTER_RECORDS, MARKS_MAX, SNAPSHOT_OBJECTS_MAX};
use super::record::Handle;
use crate::seal::Reference;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use net::id::{Key, Kind, Name};
use net::past::block::{decode_signed, encode_signed};

/// The state of a log at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Orders the heads; each write of the head raises it by one.
    pub version: u64,
    /// Hash of the head before it; zeros for the first.
    pub previous: [u8; 32],
    /// Raised by each writer that opens the log.
    pub epoch: u64,
    /// Number of records, and so the latest record's number.
    pub sequence: u64,
    /// Number of entries in all records.
    pub entries: u64,
    /// The records after the last full cluster, in order.
    pub partial: Vec<Name>,
    /// The latest full cluster.
    pub cluster: Option<Name>,
    /// The latest snapshot.
    pub snapshot: Option<Snapshot>,
    /// High-water marks: numbers below which every number given out lies.
    pub marks: Vec<u64>,
}

/// Where a log's latest snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Snapshot {
    /// The sealed state, cut into objects; at least one.
    #[n(0)]
    pub objects: Vec<Reference>,
    /// The record after which it was the state.
    #[n(1)]
    pub sequence: u64,
    /// The number of entries up to there.
    #[n(2)]
    pub entries: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct HeadBody {
    #[cbor(n(0), with = "minicbor::bytes")]
    previous: [u8; 32],
    #[n(1)]
    epoch: u64,
    #[n(2)]
    sequence: u64,
    #[n(3)]
    entries: u64,
    #[n(4)]
    partial: Vec<Handle>,
    #[n(5)]
    cluster: Option<Handle>,
    #[n(6)]
    snapshot: Option<Snapshot>,
    #[n(7)]
    marks: Vec<u64>,
}

impl Head {
    /// The head of a new log.
    #[must_use]
    pub fn first(marks: Vec<u64>) -> Head {
        Head {
            version: 1,
            previous: [0; 32],
            epoch: 1,
            sequence: 0,
            entries: 0,
            partial: Vec::new(),
            cluster: None,
            snapshot: None,
            marks,
        }
    }

    /// The head after this one, whose block has the hash `hash`; the caller changes what changes.
    #[must_use]
    pub fn next(&self, hash: [u8; 32]) -> Head {
        Head { version: self.version + 1, previous: hash, ..self.clone() }
    }

    /// The latest record.
    #[must_use]
    pub fn latest(&self) -> Option<Name> {
        self.partial.last().copied()
    }

    fn is_sound(&self) -> bool {
        let Some(clustered) = self.sequence.checked_sub(self.partial.len() as u64) else { return false };
        let is_full = self.partial.len() <= CLUSTER_RECORDS && clustered.is_multiple_of(CLUSTER_RECORDS as u64);
        let has_latest = self.partial.is_empty() == (self.sequence == 0);
        let has_cluster = self.cluster.is_some() == (clustered > 0);
        let has_snapshot = self.snapshot.as_ref().is_none_or(|snapshot| {
            let is_within = snapshot.sequence <= self.sequence && snapshot.entries <= self.entries;
            is_within && (1..=SNAPSHOT_OBJECTS_MAX).contains(&snapshot.objects.len())
        });
        let is_written = self.version >= 1 && self.epoch >= 1 && self.marks.len() <= MARKS_MAX;
        is_full && has_latest && has_cluster && has_snapshot && is_written
    }

    /// The head as a signed block.
    pub(super) fn seal(&self, keys: &WriteKeys, entropy: &[u8; 32]) -> Bytes {
        assert!(self.is_sound());
        let body = HeadBody {
            previous: self.previous,
            epoch: self.epoch,
            sequence: self.sequence,
            entries: self.entries,
            partial: self.partial.iter().copied().map(Handle::from).collect(),
            cluster: self.cluster.map(Handle::from),
            snapshot: self.snapshot.clone(),
            marks: self.marks.clone(),
        };
        let body = zeroize::Zeroizing::new(minicbor::to_vec(&body).expect("encoding into a Vec does not fail"));
        let covered = cover(keys.read(), &place(self.version), entropy, &body);
        encode_signed(Kind::Head, keys.read().public_key(), self.version, &covered, |bytes| keys.sign(bytes))
    }

    /// Reads a head of the log that `keys` read.
    ///
    /// # Errors
    /// [`LogError::BadHead`] if it is not one.
    pub fn open(keys: &ReadKeys, block: &Bytes) -> Result<Head, LogError> {
        let signed = decode_signed(block).map_err(|_| LogError::BadHead)?;
        if signed.kind != Kind::Head || &signed.public_key != keys.public_key() {
            return Err(LogError::BadHead);
        }
        let body = uncover(keys, &place(signed.version), &signed.body).ok_or(LogError::BadHead)?;
        let body: HeadBody = minicbor::decode(&body).map_err(|_| LogError::BadHead)?;
        let head = Head {
            version: signed.version,
            previous: body.previous,
            epoch: body.epoch,
            sequence: body.sequence,
            entries: body.entries,
            partial: body.partial.into_iter().map(Name::from).collect(),
            cluster: body.cluster.map(Name::from),
            snapshot: body.snapshot,
            marks: body.marks,
        };
        if head.is_sound() { Ok(head) } else { Err(LogError::BadHead) }
    }
}

/// The hash of a head's block, which the next head names.
#[must_use]
pub fn hash_of(block: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key("ePOST 2026 previous head").update(block).finalize().as_bytes()
}

/// The head key of the log with this public key.
#[must_use]
pub fn head_key(public_key: &[u8; 32]) -> Key {
    Key::of(Kind::Head, public_key)
}

fn place(version: u64) -> Vec<u8> {
    [&b"head"[..], &version.to_le_bytes()].concat()
}
