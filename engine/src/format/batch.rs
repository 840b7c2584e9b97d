//! A batch: what is made durable by one flush. Header, records, trailer; a multiple of a block long.
//!
//! The trailer's chain link covers the header and all record headers, and through their checksums all payloads. A batch is
//! whole if the link and every payload fit; a torn one fails one of them.

use super::checksum::Link;
use super::record::{ALIGN, Action, Place, RecordHeader, payload_blocks, record_bytes};
use super::{Damage, Identity, fixed_layout, self_checked};
use crate::disk::Buffer;
use crate::limits::BLOCK;
use rkyv::{Archive, Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"ePOSTbat";
const TRAILER_MAGIC: u64 = 0x646e_6574_534f_5065;

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) check: u64,
    pub(crate) magic: [u8; 8],
    pub(crate) store: [u8; 16],
    pub(crate) chain_before: u64,
    pub(crate) sequence: u64,
    /// Bytes of records between header and trailer.
    pub(crate) body_bytes: u32,
    pub(crate) records: u32,
    pub(crate) segment: u32,
    pub(crate) generation: u32,
    pub(crate) offset: u32,
    pub(crate) shard: u32,
    pub(crate) reserved: [u8; 56],
}
fixed_layout!(BatchHeader, ArchivedBatchHeader, 128);
self_checked!(BatchHeader);

/// The end of a batch: four little-endian words, compared whole with what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) chain: u64,
    pub(crate) magic: u64,
    pub(crate) sequence: u64,
    pub(crate) body_bytes: u64,
}

impl Trailer {
    pub(crate) const SIZE: usize = 32;

    fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        for (word, value) in bytes.chunks_exact_mut(8).zip([self.chain, self.magic, self.sequence, self.body_bytes]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}
const _: () = assert!(BatchHeader::SIZE.is_multiple_of(ALIGN), "the first record is aligned");

/// Bytes on disk of a batch with this much body.
pub(crate) const fn batch_bytes(body: usize) -> usize {
    (BatchHeader::SIZE + body + Trailer::SIZE).next_multiple_of(BLOCK)
}

/// A batch being filled. The buffer is aligned for O_DIRECT and is written as it stands.
pub(crate) struct BatchWriter {
    identity: Identity,
    header: BatchHeader,
    /// The segment header block, if this is the segment's first batch, then the batch.
    buffer: Buffer,
    /// Where in the buffer the batch begins.
    start: usize,
    record_starts: Vec<usize>,
}

impl BatchWriter {
    /// `before` goes in front of the batch in the same write; `at` is where the batch itself (not `before`) will lie. It is
    /// built in `buffer`, which is empty.
    pub(crate) fn new(
        identity: Identity,
        at: Place,
        sequence: u64,
        chain_before: u64,
        before: &[u8],
        mut buffer: Buffer,
    ) -> BatchWriter {
        assert!(buffer.is_empty());
        assert!((at.offset as usize).is_multiple_of(BLOCK));
        assert!(before.len().is_multiple_of(BLOCK));
        let header = BatchHeader {
            check: 0,
            magic: MAGIC,
            store: identity.store,
            chain_before,
            sequence,
            body_bytes: 0,
            records: 0,
            segment: at.segment,
            generation: at.generation,
            offset: at.offset,
            shard: identity.shard,
            reserved: [0; 56],
        };
        buffer.extend(before);
        let start = buffer.len();
        buffer.pad(start + BatchHeader::SIZE);
        BatchWriter { identity, header, buffer, start, record_starts: Vec::new() }
    }

    /// Bytes of records so far.
    pub(crate) fn body(&self) -> usize {
        self.buffer.len() - self.start - BatchHeader::SIZE
    }

    pub(crate) fn records(&self) -> usize {
        self.record_starts.len()
    }

    /// Where the next record will lie.
    pub(crate) fn next_place(&self) -> Place {
        let offset = self.header.offset as usize + (self.buffer.len() - self.start);
        Place {
            segment: self.header.segment,
            generation: self.header.generation,
            offset: u32::try_from(offset).expect("a segment is below 4 GiB"),
        }
    }

    /// Appends a record whose header was made for [`BatchWriter::next_place`].
    pub(crate) fn push(&mut self, header: &RecordHeader, payload: &[u8]) {
        assert_eq!(header.place(), self.next_place());
        let start = self.buffer.len();
        self.buffer.extend(&header.seal_with(payload, &self.identity));
        self.buffer.extend(payload);
        self.buffer.pad(start + record_bytes(payload.len()));
        self.record_starts.push(start);
    }

    /// The bytes to write, and the chain's new link.
    pub(crate) fn finish(mut self) -> (Buffer, u64) {
        assert!(!self.record_starts.is_empty(), "an empty batch is never written");
        self.header.body_bytes = u32::try_from(self.body()).expect("a batch fits a segment");
        self.header.records = u32::try_from(self.record_starts.len()).expect("a batch fits a segment");
        let sealed = self.header.seal(self.identity.seed);
        self.buffer[self.start..self.start + BatchHeader::SIZE].copy_from_slice(&sealed);
        let mut link = Link::after(self.header.chain_before, self.identity.seed);
        link.add(&sealed);
        for start in &self.record_starts {
            link.add(&self.buffer[*start..*start + RecordHeader::SIZE]);
        }
        let chain = link.finish();
        let body_bytes = u64::from(self.header.body_bytes);
        let trailer = Trailer { chain, magic: TRAILER_MAGIC, sequence: self.header.sequence, body_bytes };
        self.buffer.extend(&trailer.encode());
        let padded = self.start + (self.buffer.len() - self.start).next_multiple_of(BLOCK);
        self.buffer.pad(padded);
        assert_eq!(self.buffer.len() - self.start, batch_bytes(self.header.body_bytes as usize));
        (self.buffer, chain)
    }
}

/// A batch read back from disk and believed: its link fits.
pub(crate) struct BatchView<'a> {
    pub(crate) header: BatchHeader,
    pub(crate) chain: u64,
    /// Records that fit, with their payloads.
    pub(crate) records: Vec<(RecordHeader, &'a [u8])>,
    /// Records whose payload does not fit its checksum.
    pub(crate) damaged: u32,
    /// Of these, those that have a block of zeros in their payload: if they are dead, they were punched.
    pub(crate) punched: u32,
}

impl BatchView<'_> {
    /// Bytes on disk.
    pub(crate) fn len(&self) -> usize {
        batch_bytes(self.header.body_bytes as usize)
    }
}

/// Reads the batch at `offset` of a whole segment's bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_batch<'a>(segment: &'a [u8], at: Place, identity: &Identity) -> Result<BatchView<'a>, Damage> {
    let bytes = segment.get(at.offset as usize..).ok_or(Damage::Short)?;
    read_batch_alone(bytes, at, identity)
}

/// The header of the batch at the start of `bytes`, which lie at `at`, and how long the batch is on disk: what a reader must
/// know who has only its first bytes.
pub(crate) fn batch_ahead(bytes: &[u8], at: Place, identity: &Identity) -> Result<(BatchHeader, usize), Damage> {
    let header = BatchHeader::open(bytes, identity.seed)?;
    let ours = header.magic == MAGIC
        && header.store == identity.store
        && header.shard == identity.shard
        && (header.segment, header.generation, header.offset) == (at.segment, at.generation, at.offset);
    if ours { Ok((header, batch_bytes(header.body_bytes as usize))) } else { Err(Damage::Elsewhere) }
}

/// Reads the batch at the start of `bytes`, which lie at `at`. The caller compares the chain with what it should be.
pub(crate) fn read_batch_alone<'a>(bytes: &'a [u8], at: Place, identity: &Identity) -> Result<BatchView<'a>, Damage> {
    let (header, _) = batch_ahead(bytes, at, identity)?;
    let body_end = BatchHeader::SIZE + header.body_bytes as usize;
    let body = bytes.get(BatchHeader::SIZE..body_end).ok_or(Damage::Short)?;
    let trailer = bytes.get(body_end..body_end + Trailer::SIZE).ok_or(Damage::Short)?;
    let mut link = Link::after(header.chain_before, identity.seed);
    link.add(&bytes[..BatchHeader::SIZE]);
    let mut view = BatchView { header, chain: 0, records: Vec::new(), damaged: 0, punched: 0 };
    read_records(body, &mut view, &mut link, identity)?;
    view.chain = link.finish();
    let expected = Trailer {
        chain: view.chain,
        magic: TRAILER_MAGIC,
        sequence: header.sequence,
        body_bytes: u64::from(header.body_bytes),
    };
    if trailer != expected.encode() {
        return Err(Damage::Checksum);
    }
    Ok(view)
}

/// Whether a block within the payload of the record at the start of `bytes`, which lie at `at`, is nothing but zeros.
fn has_empty_block(bytes: &[u8], at: Place, length: usize) -> bool {
    let blocks = payload_blocks(at.offset, u32::try_from(length).unwrap_or(0));
    let within = (blocks.start - at.offset) as usize..(blocks.end - at.offset) as usize;
    bytes.get(within).is_some_and(|blocks| blocks.chunks(BLOCK).any(|block| block.iter().all(|byte| *byte == 0)))
}

fn read_records<'a>(
    body: &'a [u8],
    view: &mut BatchView<'a>,
    link: &mut Link,
    identity: &Identity,
) -> Result<(), Damage> {
    let mut at = 0;
    // Its own account, but not more than can be there.
    view.records.reserve_exact((view.header.records as usize).min(body.len() / RecordHeader::SIZE));
    for _ in 0..view.header.records {
        let bytes = body.get(at..).ok_or(Damage::Short)?;
        link.add(bytes.get(..RecordHeader::SIZE).ok_or(Damage::Short)?);
        let said = RecordHeader::decode(bytes)?;
        let length = said.length as usize;
        let place = Place {
            segment: view.header.segment,
            generation: view.header.generation,
            offset: (view.header.offset as usize + BatchHeader::SIZE + at) as u32,
        };
        match RecordHeader::check_at(bytes, place, identity) {
            Ok(header) => view.records.push((header, &bytes[RecordHeader::SIZE..RecordHeader::SIZE + length])),
            Err(_) => {
                view.damaged += 1;
                view.punched += u32::from(said.action == Action::Put && has_empty_block(bytes, place, length));
            }
        }
        at = at.checked_add(record_bytes(length)).ok_or(Damage::Short)?;
    }
    if at == body.len() { Ok(()) } else { Err(Damage::Short) }
}
