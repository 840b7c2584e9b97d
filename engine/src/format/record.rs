//! One record: a fixed header and a raw payload, at a multiple of 64 bytes.
//!
//! A record is checkable alone, and its header without its payload: the header has a checksum of its own and holds the
//! payload's. So 128 bytes are enough to say which key, version and length lie at a place: that is how the index, which keeps
//! no keys, has its matches confirmed. The header repeats where it was written (segment, generation, offset), so that a
//! read served from the wrong place is noticed.

use super::{Damage, Identity, checksum, fixed_layout, self_checked};
use crate::key::{Class, Key};
use rkyv::{Archive, Deserialize, Serialize};

/// Alignment of records: the unit in which the index counts offsets.
pub(crate) const ALIGN: usize = 64;

/// What a record does to the index. The numbers are on disk: only ever append.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Action {
    /// Number 0 is no action, so that zeros are not a record.
    Nothing,
    /// The key's object is this payload.
    Put,
    /// Leases in the payload are extended.
    Lease,
    /// The key's object is gone.
    Remove,
    /// Objects whose lease ended before tick `expiry` are gone; the clock read `version` seconds.
    Swept,
    /// The clock was confirmed at `version` seconds.
    Confirmed,
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) generation: u32,
    pub(crate) offset: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Checksum of the rest of this header.
    pub(crate) check: u64,
    /// Checksum of the payload.
    pub(crate) payload_check: u64,
    pub(crate) version: u64,
    pub(crate) account: u64,
    /// Reserved for set leases.
    pub(crate) lease_set: u64,
    /// Bytes of payload.
    pub(crate) length: u32,
    /// Expiry tick at the time of writing; lease records may have extended it since.
    pub(crate) expiry: u32,
    pub(crate) generation: u32,
    pub(crate) offset: u32,
    pub(crate) segment: u16,
    /// The index's locator of the record that goes with this one: replay removes exactly that, and reads nothing for it.
    pub(crate) replaced: [u8; 6],
    /// Its version.
    pub(crate) replaced_version: u64,
    pub(crate) action: Action,
    pub(crate) kind: u8,
    pub(crate) class: u8,
    /// 1 if there is a record that goes, 0 if not.
    pub(crate) replaces: u8,
    pub(crate) placement: [u8; 20],
    pub(crate) name: [u8; 32],
}
fixed_layout!(RecordHeader, ArchivedRecordHeader, 128);
self_checked!(RecordHeader);
const _: () = assert!(RecordHeader::SIZE.is_multiple_of(ALIGN));

impl RecordHeader {
    pub(crate) fn new(action: Action, key: &Key, place: Place, length: u32) -> RecordHeader {
        RecordHeader {
            check: 0,
            payload_check: 0,
            version: 0,
            account: 0,
            lease_set: 0,
            length,
            expiry: 0,
            generation: place.generation,
            offset: place.offset,
            segment: u16::try_from(place.segment).expect("segment numbers have 16 bits"),
            replaced: [0; 6],
            replaced_version: 0,
            action,
            kind: key.kind,
            class: Class::Fresh as u8,
            replaces: 0,
            placement: key.placement,
            name: key.name,
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key { placement: self.placement, name: self.name, kind: self.kind }
    }

    pub(crate) fn place(&self) -> Place {
        Place { segment: u32::from(self.segment), generation: self.generation, offset: self.offset }
    }

    /// The header's bytes, with the checksums of `payload` and of the header itself.
    pub(crate) fn seal_with(&self, payload: &[u8], identity: &Identity) -> [u8; Self::SIZE] {
        assert_eq!(payload.len(), self.length as usize);
        RecordHeader { payload_check: checksum::of(payload, identity.seed), ..*self }.seal(identity.seed)
    }

    /// The header at the start of `bytes`, which must lie at `place`, once it is known to be what was written there. Says
    /// nothing about the payload.
    pub(crate) fn header_at(bytes: &[u8], place: Place, identity: &Identity) -> Result<RecordHeader, Damage> {
        let header = Self::open(bytes, identity.seed)?;
        if header.place() != place {
            return Err(Damage::Elsewhere);
        }
        Ok(header)
    }

    /// Reads the record at the start of `bytes`, which must lie at `place`. Returns the header, once header and payload are
    /// known to be what was written there.
    pub(crate) fn check_at(bytes: &[u8], place: Place, identity: &Identity) -> Result<RecordHeader, Damage> {
        let header = Self::header_at(bytes, place, identity)?;
        let payload = bytes.get(Self::SIZE..Self::SIZE + header.length as usize).ok_or(Damage::Short)?;
        if checksum::of(payload, identity.seed) != header.payload_check {
            return Err(Damage::Checksum);
        }
        Ok(header)
    }
}

/// Bytes a record with this much payload takes, with padding.
pub(crate) fn record_bytes(payload: usize) -> usize {
    (RecordHeader::SIZE + payload).next_multiple_of(ALIGN)
}

/// One extended lease in the payload of a lease record: 20 bytes.
///
/// It names the record (segment, offset) and eight bytes of its key: while the log is replayed in order that is exact,
/// because the index then is what it was when the lease was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseEntry {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) expiry: u32,
    pub(crate) prefix: [u8; 8],
}

impl LeaseEntry {
    pub(crate) const SIZE: usize = 20;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.expiry.to_le_bytes());
        bytes[12..].copy_from_slice(&self.prefix);
        bytes
    }

    /// All entries of a payload; a remainder that is no entry is left out.
    pub(crate) fn all(payload: &[u8]) -> impl Iterator<Item = LeaseEntry> + '_ {
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        payload.chunks_exact(Self::SIZE).map(move |bytes| {
            let mut prefix = [0; 8];
            prefix.copy_from_slice(&bytes[12..]);
            LeaseEntry { segment: word(bytes), offset: word(&bytes[4..]), expiry: word(&bytes[8..]), prefix }
        })
    }
}
