//! The first block of a segment: which one, and in which of its lives.

use super::{Damage, Identity, VERSION, check_version, fixed_layout, self_checked};
use crate::limits::BLOCK;
use rkyv::{Archive, Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"ePOSTseg";

/// A stretch of the log without a break. One begins when the store is opened, and after each write that failed: batches
/// numbered `sequence` or higher in segments of a generation below `generation` were abandoned then, and are void.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Era {
    /// The first batch of the era.
    pub(crate) sequence: u64,
    /// The first generation of segments opened in it.
    pub(crate) generation: u32,
    /// The class of objects this segment was opened for; says nothing about what is void.
    pub(crate) class: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) check: u64,
    pub(crate) magic: [u8; 8],
    pub(crate) store: [u8; 16],
    /// The chain's link before this segment's first batch.
    pub(crate) chain_before: u64,
    /// Sequence of this segment's first batch.
    pub(crate) first_sequence: u64,
    pub(crate) era: Era,
    pub(crate) segment: u32,
    /// Counts openings of segments in this shard: never repeats, so that leftovers of a recycled file are known as such.
    pub(crate) generation: u32,
    pub(crate) shard: u32,
    pub(crate) version: u32,
}
fixed_layout!(SegmentHeader, ArchivedSegmentHeader, 80);
self_checked!(SegmentHeader);

impl SegmentHeader {
    pub(crate) fn new(
        identity: &Identity,
        segment: u32,
        generation: u32,
        first_sequence: u64,
        chain_before: u64,
        era: Era,
    ) -> Self {
        SegmentHeader {
            check: 0,
            magic: MAGIC,
            store: identity.store,
            chain_before,
            first_sequence,
            era,
            segment,
            generation,
            shard: identity.shard,
            version: VERSION,
        }
    }

    /// The header block.
    pub(crate) fn to_block(self, identity: &Identity) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..Self::SIZE].copy_from_slice(&self.seal(identity.seed));
        block
    }

    /// The header, if it is sound and belongs to this file.
    pub(crate) fn from_block(bytes: &[u8], identity: &Identity, segment: u32) -> Result<Self, Damage> {
        let header = Self::open(bytes, identity.seed)?;
        let ours = header.magic == MAGIC
            && header.store == identity.store
            && header.shard == identity.shard
            && header.segment == segment;
        if !ours {
            return Err(Damage::Elsewhere);
        }
        check_version(header.version)?;
        Ok(header)
    }
}
