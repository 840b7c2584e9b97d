//! Records and clusters: the immutable blocks of a log.
//!
//! ```text
//! record   "ePR1" cover( CBOR { 0 sequence, 1 epoch, 2 previous handle, 3 [≤ 4 older handles], 4 [entry bytes…] } )
//! cluster  "ePC1" cover( CBOR { 0 sequence of its first record, 1 previous cluster, 2 [50 handles] } )
//! ```
//!
//! A record's number counts from 1. Its back references name the records before its predecessor, so that a damaged record
//! costs itself only. A handle is the hash of the block, so a chain of handles cannot be changed in the middle.

use super::LogError;
use super::cover::{cover, uncover};
use super::keys::ReadKeys;
use super::limits::{
    BACK_REFERENCES_MAX, CLUSTER_BYTES_MAX, CLUSTER_RECORDS, RECORD_ENTRIES_BYTES_MAX, RECORD_ENTRIES_MAX,
};
use crate::limits::BLOCK_BYTES_MAX;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use net::id::{Key, Kind, Name};
use zeroize::Zeroizing;

const RECORD_MAGIC: &[u8; 4] = b"ePR1";
const CLUSTER_MAGIC: &[u8; 4] = b"ePC1";

/// A record, read and checked against its handle.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number; the first record is 1.
    pub sequence: u64,
    /// The epoch of the writer that wrote it.
    pub epoch: u64,
    /// The handle of the record before it; `None` for the first.
    pub previous: Option<Name>,
    /// Handles of the records before that one, newest first.
    pub back: Vec<Name>,
    /// What was appended.
    pub entries: Vec<Bytes>,
}

/// A full cluster: the handles of [`CLUSTER_RECORDS`] records in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Number of its first record.
    pub first: u64,
    /// The cluster before it; `None` for the first.
    pub previous: Option<Name>,
    /// The handles.
    pub records: Vec<Name>,
}

/// A handle as it is encoded.
#[derive(Encode, Decode, Clone, Copy)]
#[cbor(transparent)]
pub(super) struct Handle(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

impl From<Name> for Handle {
    fn from(name: Name) -> Handle {
        Handle(name.0)
    }
}

impl From<Handle> for Name {
    fn from(handle: Handle) -> Name {
        Name(handle.0)
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct RecordBody {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    epoch: u64,
    #[n(2)]
    previous: Option<Handle>,
    #[n(3)]
    back: Vec<Handle>,
    #[n(4)]
    entries: Vec<minicbor::bytes::ByteVec>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ClusterBody {
    #[n(0)]
    first: u64,
    #[n(1)]
    previous: Option<Handle>,
    #[n(2)]
    records: Vec<Handle>,
}

/// The key of a record with this handle.
#[must_use]
pub fn record_key(handle: Name) -> Key {
    Key { name: handle, kind: Kind::Content }
}

/// The key of a cluster with this handle.
#[must_use]
pub fn cluster_key(handle: Name) -> Key {
    Key { name: handle, kind: Kind::Cluster }
}

impl Record {
    /// The record as a block, with the key it is stored under.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] over the bounds of a record.
    pub(super) fn seal(&self, keys: &ReadKeys, entropy: &[u8; 32]) -> Result<(Key, Bytes), LogError> {
        let bytes: usize = self.entries.iter().map(Bytes::len).sum();
        if bytes > RECORD_ENTRIES_BYTES_MAX || self.entries.len() > RECORD_ENTRIES_MAX {
            return Err(LogError::TooLarge);
        }
        assert!(self.sequence >= 1);
        assert!(self.back.len() <= BACK_REFERENCES_MAX);
        assert_eq!(self.previous.is_none(), self.sequence == 1);
        let body = RecordBody {
            sequence: self.sequence,
            epoch: self.epoch,
            previous: self.previous.map(Handle::from),
            back: self.back.iter().copied().map(Handle::from).collect(),
            entries: self.entries.iter().map(|entry| entry.to_vec().into()).collect(),
        };
        let block = sealed(keys, RECORD_MAGIC, entropy, &encoded(&body));
        assert!(block.len() <= BLOCK_BYTES_MAX);
        Ok((Key::of(Kind::Content, &block), block))
    }

    /// Reads the record with number `sequence` from the block under `handle`.
    ///
    /// # Errors
    /// [`LogError::Tampered`] if it is anything else.
    pub fn open(keys: &ReadKeys, handle: Name, sequence: u64, block: &[u8]) -> Result<Record, LogError> {
        let key = record_key(handle);
        let tampered = || LogError::Tampered(key);
        if Key::of(Kind::Content, block) != key {
            return Err(tampered());
        }
        let body = opened(keys, RECORD_MAGIC, block).ok_or_else(tampered)?;
        let body: RecordBody = minicbor::decode(&body).map_err(|_| tampered())?;
        let is_linked = body.previous.is_none() == (sequence == 1) && body.back.len() <= BACK_REFERENCES_MAX;
        if body.sequence != sequence || !is_linked || body.back.len() as u64 + 2 > sequence.max(2) {
            return Err(tampered());
        }
        Ok(Record {
            sequence,
            epoch: body.epoch,
            previous: body.previous.map(Name::from),
            back: body.back.into_iter().map(Name::from).collect(),
            entries: body.entries.into_iter().map(|entry| Bytes::from(Vec::from(entry))).collect(),
        })
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The entries are the user's own.
        let bytes: usize = self.entries.iter().map(Bytes::len).sum();
        write!(f, "Record {} (epoch {}, {} entries, {bytes} bytes)", self.sequence, self.epoch, self.entries.len())
    }
}

impl Cluster {
    /// The cluster as a block, with the key it is stored under.
    pub(super) fn seal(&self, keys: &ReadKeys, entropy: &[u8; 32]) -> (Key, Bytes) {
        assert_eq!(self.records.len(), CLUSTER_RECORDS);
        assert_eq!(self.first % CLUSTER_RECORDS as u64, 1);
        let body = ClusterBody {
            first: self.first,
            previous: self.previous.map(Handle::from),
            records: self.records.iter().copied().map(Handle::from).collect(),
        };
        let block = sealed(keys, CLUSTER_MAGIC, entropy, &encoded(&body));
        assert!(block.len() <= CLUSTER_BYTES_MAX);
        (Key::of(Kind::Cluster, &block), block)
    }

    /// Reads the cluster whose first record is `first` from the block under `handle`.
    ///
    /// # Errors
    /// [`LogError::Tampered`] if it is anything else.
    pub fn open(keys: &ReadKeys, handle: Name, first: u64, block: &[u8]) -> Result<Cluster, LogError> {
        let key = cluster_key(handle);
        let tampered = || LogError::Tampered(key);
        if block.len() > CLUSTER_BYTES_MAX || Key::of(Kind::Cluster, block) != key {
            return Err(tampered());
        }
        let body = opened(keys, CLUSTER_MAGIC, block).ok_or_else(tampered)?;
        let body: ClusterBody = minicbor::decode(&body).map_err(|_| tampered())?;
        let is_linked = body.previous.is_none() == (first == 1);
        if body.first != first || body.records.len() != CLUSTER_RECORDS || !is_linked {
            return Err(tampered());
        }
        let records = body.records.into_iter().map(Name::from).collect();
        Ok(Cluster { first, previous: body.previous.map(Name::from), records })
    }
}

fn encoded<T: Encode<()>>(body: &T) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(minicbor::to_vec(body).expect("encoding into a Vec does not fail"))
}

fn sealed(keys: &ReadKeys, magic: &[u8; 4], entropy: &[u8; 32], body: &[u8]) -> Bytes {
    Bytes::from([&magic[..], &cover(keys, magic, entropy, body)].concat())
}

fn opened(keys: &ReadKeys, magic: &[u8; 4], block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    uncover(keys, magic, block.strip_prefix(magic)?)
}
