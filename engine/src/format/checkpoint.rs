//! A checkpoint: the index as it was after one batch, so that recovery reads the log behind it only.
//!
//! A header block, then the body: segments, runs, recents, arcs. The body is written piece by piece while the index goes on
//! changing; the header, which has the checksum of all of it, comes last. Two slots are written in turn, so that the older one
//! stays good until the newer one is.

use super::{Damage, Identity, VERSION, check_version, checksum, fixed_layout, self_checked};
use crate::format::run::RunEntry;
use crate::limits::BLOCK;
use crate::store::arcs::arc::Arc;
use crate::store::arcs::codec::{decode_arc, decode_recents};
use rkyv::{Archive, Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"ePOSTchk";

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    pub(crate) check: u64,
    pub(crate) magic: [u8; 8],
    pub(crate) store: [u8; 16],
    /// Checksum of the body.
    pub(crate) body_check: u64,
    /// Bytes of the body, which begins at the next block.
    pub(crate) body_bytes: u64,
    /// Counts checkpoints: of two, the one with the higher number counts.
    pub(crate) number: u64,
    /// The last batch that is in it.
    pub(crate) sequence: u64,
    /// The chain's link after that batch.
    pub(crate) chain: u64,
    /// The last believed time of a sweep in Unix seconds, 0 for none.
    pub(crate) swept_s: u64,
    pub(crate) segments: u32,
    pub(crate) runs: u32,
    pub(crate) arcs: u32,
    pub(crate) generation_next: u32,
    pub(crate) shard: u32,
    pub(crate) version: u32,
}
fixed_layout!(CheckpointHeader, ArchivedCheckpointHeader, 104);
self_checked!(CheckpointHeader);

/// A segment known to a checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointSegment {
    /// The last batch in it, or `u64::MAX` if it was still open.
    pub(crate) last_sequence: u64,
    pub(crate) generation: u32,
    pub(crate) segment: u16,
    pub(crate) reserved: u16,
}
fixed_layout!(CheckpointSegment, ArchivedCheckpointSegment, 16);

/// What a checkpoint says besides its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) number: u64,
    pub(crate) sequence: u64,
    pub(crate) chain: u64,
    pub(crate) swept_s: Option<u64>,
    pub(crate) generation_next: u32,
}

/// A checkpoint being made: pieces of body in, bytes to write out, the header at the end.
pub(crate) struct CheckpointWriter {
    moment: Moment,
    segments: u32,
    runs: u32,
    arcs: u32,
    sum: checksum::Stream,
    body_bytes: u64,
    /// What has not been taken yet.
    waiting: Vec<u8>,
}

impl std::fmt::Debug for CheckpointWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointWriter").field("moment", &self.moment).field("body_bytes", &self.body_bytes).finish()
    }
}

impl CheckpointWriter {
    pub(crate) fn new(
        identity: &Identity,
        moment: Moment,
        segments: &[CheckpointSegment],
        runs: &[u32],
        recents: &[u8],
    ) -> CheckpointWriter {
        let count = |length: usize| u32::try_from(length).expect("segments and runs are numbered by 32 bits or fewer");
        let mut writer = CheckpointWriter {
            moment,
            segments: count(segments.len()),
            runs: count(runs.len()),
            arcs: 0,
            sum: checksum::Stream::new(identity.seed),
            body_bytes: 0,
            waiting: Vec::new(),
        };
        segments.iter().for_each(|segment| writer.push(&segment.encode()));
        runs.iter().for_each(|run| writer.push(&run.to_le_bytes()));
        writer.push(recents);
        writer
    }

    /// Appends an encoded arc.
    pub(crate) fn push_arc(&mut self, arc: &[u8]) {
        self.arcs += 1;
        self.push(arc);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.sum.add(bytes);
        self.body_bytes += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Up to `most` of the bytes that wait, and where in the file they belong.
    pub(crate) fn take(&mut self, most: usize) -> (u64, Vec<u8>) {
        let offset = BLOCK as u64 + self.body_bytes - self.waiting.len() as u64;
        let rest = self.waiting.split_off(most.min(self.waiting.len()));
        (offset, std::mem::replace(&mut self.waiting, rest))
    }

    /// The header block. Nothing may wait any more.
    pub(crate) fn finish(&self, identity: &Identity) -> Vec<u8> {
        assert!(self.waiting.is_empty(), "the body is written first");
        let header = CheckpointHeader {
            check: 0,
            magic: MAGIC,
            store: identity.store,
            body_check: self.sum.finish(),
            body_bytes: self.body_bytes,
            number: self.moment.number,
            sequence: self.moment.sequence,
            chain: self.moment.chain,
            swept_s: self.moment.swept_s.unwrap_or(0),
            segments: self.segments,
            runs: self.runs,
            arcs: self.arcs,
            generation_next: self.moment.generation_next,
            shard: identity.shard,
            version: VERSION,
        };
        let mut block = vec![0; BLOCK];
        block[..CheckpointHeader::SIZE].copy_from_slice(&header.seal(identity.seed));
        block
    }

    /// Bytes of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        BLOCK as u64 + self.body_bytes
    }
}

/// A checkpoint in plain form.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) moment: Moment,
    /// The segments there were.
    pub(crate) segments: Vec<CheckpointSegment>,
    /// The runs there were, by number.
    pub(crate) runs: Vec<u32>,
    pub(crate) recents: Vec<RunEntry>,
    /// None in the checkpoint that stands for a new store.
    pub(crate) arcs: Vec<Arc>,
}

impl CheckpointHeader {
    /// The header of this shard's checkpoint.
    pub(crate) fn of_file(bytes: &[u8], identity: &Identity) -> Result<CheckpointHeader, Damage> {
        let header = CheckpointHeader::open(bytes, identity.seed)?;
        if header.magic != MAGIC || header.store != identity.store || header.shard != identity.shard {
            return Err(Damage::Elsewhere);
        }
        check_version(header.version)?;
        Ok(header)
    }
}

impl Checkpoint {
    /// The checkpoint of a whole file. Bytes behind its end are leftovers of a longer one.
    pub(crate) fn from_file(file: &[u8], identity: &Identity) -> Result<Checkpoint, Damage> {
        let header = CheckpointHeader::of_file(file, identity)?;
        let body_bytes = usize::try_from(header.body_bytes).map_err(|_| Damage::Short)?;
        let body = file.get(BLOCK..).and_then(|rest| rest.get(..body_bytes)).ok_or(Damage::Short)?;
        if checksum::of(body, identity.seed) != header.body_check {
            return Err(Damage::Checksum);
        }
        let rows = |count: u32, size: usize| (count as usize).checked_mul(size).ok_or(Damage::Short);
        let (segments, rest) =
            body.split_at_checked(rows(header.segments, CheckpointSegment::SIZE)?).ok_or(Damage::Short)?;
        let (runs, rest) = rest.split_at_checked(rows(header.runs, 4)?).ok_or(Damage::Short)?;
        let (recents, length) = decode_recents(rest, identity.seed)?;
        let mut rest = rest.get(length..).ok_or(Damage::Short)?;
        let mut arcs = Vec::new();
        for _ in 0..header.arcs {
            let (arc, length) = decode_arc(rest, identity.seed)?;
            rest = rest.get(length..).ok_or(Damage::Short)?;
            arcs.push(arc);
        }
        if !rest.is_empty() {
            return Err(Damage::Checksum);
        }
        Ok(Checkpoint {
            moment: Moment {
                number: header.number,
                sequence: header.sequence,
                chain: header.chain,
                swept_s: (header.swept_s > 0).then_some(header.swept_s),
                generation_next: header.generation_next,
            },
            segments: segments
                .chunks_exact(CheckpointSegment::SIZE)
                .map(CheckpointSegment::decode)
                .collect::<Result<_, _>>()?,
            runs: runs.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number)).collect(),
            recents,
            arcs,
        })
    }
}
