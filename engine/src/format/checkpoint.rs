//! A checkpoint: the whole index as it was after one batch, so that recovery reads the log behind it only.
//!
//! Two slots are written in turn, so that the older one stays good until the newer one is.

use super::{Damage, Identity, VERSION, check_version, checksum, fixed_layout, self_checked};
use crate::key::Key;
use rkyv::{Archive, Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"ePOSTchk";

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    pub(crate) check: u64,
    pub(crate) magic: [u8; 8],
    pub(crate) store: [u8; 16],
    /// Checksum of the body.
    pub(crate) body_check: u64,
    /// The last batch that is in it.
    pub(crate) sequence: u64,
    /// The chain's link after that batch.
    pub(crate) chain: u64,
    /// The last believed time of a sweep in Unix seconds, 0 for none.
    pub(crate) swept_s: u64,
    pub(crate) entries: u64,
    pub(crate) segments: u32,
    pub(crate) generation_next: u32,
    pub(crate) shard: u32,
    pub(crate) version: u32,
}
fixed_layout!(CheckpointHeader, ArchivedCheckpointHeader, 88);
self_checked!(CheckpointHeader);

/// A segment known to a checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointSegment {
    /// Unused, 0: the body has one checksum for all.
    pub(crate) check: u64,
    /// The last batch in it, or `u64::MAX` if it was still open.
    pub(crate) last_sequence: u64,
    pub(crate) segment: u32,
    pub(crate) generation: u32,
}
fixed_layout!(CheckpointSegment, ArchivedCheckpointSegment, 24);

/// An index entry in a checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointEntry {
    /// Unused, 0: the body has one checksum for all.
    pub(crate) check: u64,
    pub(crate) version: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) expiry: u32,
    pub(crate) placement: [u8; 20],
    pub(crate) name: [u8; 32],
    pub(crate) kind: u8,
    pub(crate) reserved: [u8; 3],
}
fixed_layout!(CheckpointEntry, ArchivedCheckpointEntry, 88);

impl CheckpointEntry {
    pub(crate) fn key(&self) -> Key {
        Key { placement: self.placement, name: self.name, kind: self.kind }
    }
}

/// A checkpoint in plain form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) sequence: u64,
    pub(crate) chain: u64,
    pub(crate) swept_s: Option<u64>,
    pub(crate) generation_next: u32,
    /// The segments there were.
    pub(crate) segments: Vec<CheckpointSegment>,
    pub(crate) entries: Vec<CheckpointEntry>,
}

impl Checkpoint {
    pub(crate) fn to_file(&self, identity: &Identity) -> Vec<u8> {
        let body = self.segments.len() * CheckpointSegment::SIZE + self.entries.len() * CheckpointEntry::SIZE;
        let mut file = Vec::with_capacity(CheckpointHeader::SIZE + body);
        file.resize(CheckpointHeader::SIZE, 0);
        for segment in &self.segments {
            file.extend_from_slice(&segment.encode());
        }
        for entry in &self.entries {
            file.extend_from_slice(&entry.encode());
        }
        let header = CheckpointHeader {
            check: 0,
            magic: MAGIC,
            store: identity.store,
            body_check: checksum::of(&file[CheckpointHeader::SIZE..], identity.seed),
            sequence: self.sequence,
            chain: self.chain,
            swept_s: self.swept_s.unwrap_or(0),
            entries: self.entries.len() as u64,
            segments: u32::try_from(self.segments.len()).expect("segment numbers are 32 bits"),
            generation_next: self.generation_next,
            shard: identity.shard,
            version: VERSION,
        };
        file[..CheckpointHeader::SIZE].copy_from_slice(&header.seal(identity.seed));
        file
    }

    pub(crate) fn from_file(file: &[u8], identity: &Identity) -> Result<Checkpoint, Damage> {
        let header = CheckpointHeader::open(file, identity.seed)?;
        if header.magic != MAGIC || header.store != identity.store || header.shard != identity.shard {
            return Err(Damage::Elsewhere);
        }
        check_version(header.version)?;
        let entries = usize::try_from(header.entries).map_err(|_| Damage::Short)?;
        let segments_bytes = (header.segments as usize).checked_mul(CheckpointSegment::SIZE).ok_or(Damage::Short)?;
        let entries_bytes = entries.checked_mul(CheckpointEntry::SIZE).ok_or(Damage::Short)?;
        let rest = &file[CheckpointHeader::SIZE..];
        let body_bytes = segments_bytes.checked_add(entries_bytes).ok_or(Damage::Short)?;
        let body = rest.get(..body_bytes).ok_or(Damage::Short)?;
        if checksum::of(body, identity.seed) != header.body_check {
            return Err(Damage::Checksum);
        }
        let (segments, entries) = body.split_at(segments_bytes);
        Ok(Checkpoint {
            sequence: header.sequence,
            chain: header.chain,
            swept_s: (header.swept_s > 0).then_some(header.swept_s),
            generation_next: header.generation_next,
            segments: segments
                .chunks_exact(CheckpointSegment::SIZE)
                .map(CheckpointSegment::decode)
                .collect::<Result<_, _>>()?,
            entries: entries
                .chunks_exact(CheckpointEntry::SIZE)
                .map(CheckpointEntry::decode)
                .collect::<Result<_, _>>()?,
        })
    }
}
