//! Mending checksums, so that damage behind them is seen by what lies behind them.

use super::{Door, IDENTITY};
use crate::format::batch::BatchHeader;
use crate::format::checkpoint::{CheckpointHeader, CheckpointSegment};
use crate::format::checksum::{self, Link};
use crate::format::record::{RecordHeader, record_bytes};
use crate::format::run::PAGE;
use crate::format::segment::SegmentHeader;
use crate::format::superblock::{SUPERBLOCK_SEED, Superblock};
use crate::limits::BLOCK;
use crate::store::arcs::codec::{arc_length, recents_length};

impl Door {
    /// Puts right the checksums of bytes that are long enough to have some.
    pub(super) fn mend(self, bytes: &mut [u8]) {
        match self {
            Door::Superblock => seal(bytes.get_mut(..Superblock::SIZE), SUPERBLOCK_SEED),
            Door::SegmentHeader => seal(bytes.get_mut(..SegmentHeader::SIZE), IDENTITY.seed),
            Door::Batch => batch(bytes),
            Door::Record => record(bytes),
            Door::Leases | Door::Expiries => {}
            Door::Checkpoint => checkpoint(bytes),
            Door::Arc | Door::Recents => seal(Some(bytes), IDENTITY.seed),
            Door::RunHeader => {
                seal(bytes.get_mut(..72), IDENTITY.seed);
                bytes.chunks_mut(PAGE).skip(1).for_each(|page| seal(Some(page), IDENTITY.seed));
            }
            Door::RunPage => seal(Some(bytes), IDENTITY.seed),
        }
    }
}

/// A structure whose first eight bytes are the checksum of the rest.
fn seal(structure: Option<&mut [u8]>, seed: u64) {
    if let Some((check, rest)) = structure.and_then(|bytes| bytes.split_first_chunk_mut::<8>()) {
        *check = checksum::of(rest, seed).to_le_bytes();
    }
}

/// A record's own checksum and its payload's, if the payload is there.
fn record(bytes: &mut [u8]) {
    let Ok(header) = RecordHeader::decode(bytes) else { return };
    let end = RecordHeader::SIZE.saturating_add(header.length as usize);
    if let Some(payload) = bytes.get(RecordHeader::SIZE..end) {
        let check = checksum::of(payload, IDENTITY.seed);
        bytes[8..16].copy_from_slice(&check.to_le_bytes());
    }
    seal(bytes.get_mut(..RecordHeader::SIZE), IDENTITY.seed);
}

/// Header, records and the link of the trailer.
fn batch(bytes: &mut [u8]) {
    seal(bytes.get_mut(..BatchHeader::SIZE), IDENTITY.seed);
    let Ok(header) = BatchHeader::decode(bytes) else { return };
    let mut link = Link::after(header.chain_before, IDENTITY.seed);
    link.add(&bytes[..BatchHeader::SIZE]);
    let mut at = BatchHeader::SIZE;
    for _ in 0..header.records {
        let Some(rest) = bytes.get_mut(at..).filter(|rest| rest.len() >= RecordHeader::SIZE) else { return };
        record(rest);
        link.add(&rest[..RecordHeader::SIZE]);
        let Ok(found) = RecordHeader::decode(rest) else { return };
        at = at.saturating_add(record_bytes(found.length as usize));
    }
    let trailer = BatchHeader::SIZE.saturating_add(header.body_bytes as usize);
    if let Some(chain) = bytes.get_mut(trailer..).and_then(|bytes| bytes.first_chunk_mut::<8>()) {
        *chain = link.finish().to_le_bytes();
    }
}

/// The recents and arcs in the body, the body, and the header, which has the body's checksum behind magic and store.
fn checkpoint(bytes: &mut [u8]) {
    let Some((block, body)) = bytes.split_at_mut_checked(BLOCK) else { return };
    let Ok(header) = CheckpointHeader::decode(block) else { return };
    let length = usize::try_from(header.body_bytes).unwrap_or(usize::MAX).min(body.len());
    let body = &mut body[..length];
    let rows = (header.segments as usize * CheckpointSegment::SIZE).saturating_add(header.runs as usize * 4);
    let mut rest = body.get_mut(rows..).and_then(|rest| {
        let length = recents_length(rest);
        part(rest, length)
    });
    for _ in 0..header.arcs {
        let Some(arcs) = rest else { break };
        let length = arc_length(arcs);
        rest = part(arcs, length);
    }
    block[32..40].copy_from_slice(&checksum::of(body, IDENTITY.seed).to_le_bytes());
    seal(block.get_mut(..CheckpointHeader::SIZE), IDENTITY.seed);
}

/// Seals the first `length` bytes, and gives the rest.
fn part(bytes: &mut [u8], length: Option<usize>) -> Option<&mut [u8]> {
    let (first, rest) = bytes.split_at_mut_checked(length?)?;
    seal(Some(first), IDENTITY.seed);
    Some(rest)
}
