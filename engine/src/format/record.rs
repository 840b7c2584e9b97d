//! One record: a fixed header and a raw payload, at a multiple of 64 bytes.
//!
//! A record is checkable alone, and its header without its payload: the header has a checksum of its own and holds the
//! payload's. So 128 bytes are enough to say which key, version and length lie at a place: that is how the index, which keeps
//! no keys, has its matches confirmed. The header repeats where it was written (segment, generation, offset), so that a
//! read served from the wrong place is noticed.

use super::{Damage, Identity, checksum, fixed_layout, self_checked};
use crate::key::{Class, Key};
use crate::limits::BLOCK;
use crate::store::arcs::Address;
use crate::store::arcs::hash::KeyHash;
use crate::store::arcs::locator::{Locator, OFFSET_MAX, SEGMENT_MAX, SizeClass};
use rkyv::{Archive, Deserialize, Serialize};
use std::ops::Range;

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
    /// A sweep began: the clock read `version` seconds.
    Swept,
    /// The clock was confirmed at `version` seconds.
    Confirmed,
    /// The objects of the rows in the payload have expired and are gone.
    Expired,
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

    /// Where the index says this record is. `None` if a segment or an offset is beyond what a locator holds.
    pub(crate) fn locator(&self) -> Option<Locator> {
        let bytes = u32::try_from(record_bytes(self.length as usize)).ok()?;
        let fits = self.segment <= SEGMENT_MAX
            && self.offset.is_multiple_of(ALIGN as u32)
            && self.offset <= OFFSET_MAX
            && u64::from(bytes) <= SizeClass::BYTES_MAX;
        fits.then(|| Locator::new(self.segment, self.offset, bytes))
    }

    /// The record of the same key that goes with this one, and its version.
    pub(crate) fn replaced(&self) -> Option<(Locator, u64)> {
        (self.replaces == 1).then(|| (Locator::from_bytes(self.replaced), self.replaced_version))
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
pub(crate) const fn record_bytes(payload: usize) -> usize {
    (RecordHeader::SIZE + payload).next_multiple_of(ALIGN)
}

/// The whole blocks that lie within the payload of a record at `offset` of its segment: what can be given back when the record
/// is dead and its header must stay. Empty if there are none.
pub(crate) fn payload_blocks(offset: u32, length: u32) -> Range<u32> {
    let start = offset.saturating_add(RecordHeader::SIZE as u32);
    let end = start.saturating_add(length) / BLOCK as u32 * BLOCK as u32;
    let start = start.div_ceil(BLOCK as u32).saturating_mul(BLOCK as u32);
    start..end.max(start)
}

/// One extended lease in the payload of a lease record: 20 bytes.
///
/// It says where the index looks for the key. Whatever matches there is extended, now and when the log is replayed: a lease
/// is never missed, and a stranger's with the same tag may come to last longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRow {
    pub(crate) address: Address,
    /// The new end.
    pub(crate) tick: u32,
}

impl LeaseRow {
    /// Bytes on disk.
    pub(crate) const SIZE: usize = 20;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.address.position.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.address.hash.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.tick.to_le_bytes());
        bytes
    }

    /// All rows of a payload; a remainder that is no row is left out.
    pub(crate) fn all(payload: &[u8]) -> impl Iterator<Item = LeaseRow> + '_ {
        payload.as_chunks::<{ Self::SIZE }>().0.iter().map(|row| {
            let word = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| row[at + byte]));
            let address = Address { position: word(0).swap_bytes(), hash: KeyHash(word(8)) };
            LeaseRow { address, tick: u32::from_le_bytes([16, 17, 18, 19].map(|byte| row[byte])) }
        })
    }
}
