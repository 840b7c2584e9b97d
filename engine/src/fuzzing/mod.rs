//! Doors to every decoder of bytes from disk, for fuzzing: no bytes may make one panic, and what one accepts it must write
//! the same.
//!
//! Checksums stand in the way of a fuzzer as they do of an accident. So each input knocks twice: as it is, and with
//! its checksums mended, which reaches what lies behind them. That is more than a disk can do to us (it does not know
//! the seed), and still nothing may panic: a bug of ours could write such bytes.
//!
//! Not part of the shipped program: a feature, turned on by `engine/fuzz` alone, and the tests here, which run the committed
//! corpus and seeded mutations of it on a stable compiler.

mod mend;
#[cfg(test)]
mod tests;

use crate::disk::Buffer;
use crate::format::batch::{BatchWriter, read_batch};
use crate::format::checkpoint::{Checkpoint, CheckpointHeader, CheckpointSegment, CheckpointWriter, Moment};
use crate::format::record::{Action, LeaseRow, Place, RecordHeader};
use crate::format::run::{PAGE, Run, RunEntry, RunWriter, check_page, entry_bytes};
use crate::format::segment::{Era, SegmentHeader};
use crate::format::superblock::Superblock;
use crate::format::{Damage, Identity};
use crate::key::Key;
use crate::limits::BLOCK;
use crate::store::arcs::codec::{ExpiryRow, decode_arc, decode_recents, encode_arc, encode_recents};
use crate::store::arcs::locator::Locator;
use crate::store::arcs::{Index, Settings};

/// The store that all examples belong to.
const IDENTITY: Identity = Identity { store: *b"fuzzing-fuzzing-", shard: 1, seed: 0x5eed_5eed_5eed_5eed };
/// Where batches and records are read.
const AT: Place = Place { segment: 7, generation: 9, offset: BLOCK as u32 };
/// The run that pages belong to.
const RUN: u32 = 3;

/// A decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The file that says what store this is.
    Superblock,
    /// The first block of a segment.
    SegmentHeader,
    /// A batch with its records.
    Batch,
    /// One record, as a read finds it.
    Record,
    /// Rows of extended leases.
    Leases,
    /// Rows of expired entries.
    Expiries,
    /// A checkpoint's file.
    Checkpoint,
    /// An arc of the index.
    Arc,
    /// Entries that are in no run yet.
    Recents,
    /// A run's first page, and the fences behind it.
    RunHeader,
    /// A page of a run's entries.
    RunPage,
}

impl Door {
    /// All there are.
    pub const ALL: [Door; 11] = [
        Door::Superblock,
        Door::SegmentHeader,
        Door::Batch,
        Door::Record,
        Door::Leases,
        Door::Expiries,
        Door::Checkpoint,
        Door::Arc,
        Door::Recents,
        Door::RunHeader,
        Door::RunPage,
    ];

    /// The name of its target, and of its folder in the corpus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Door::Superblock => "superblock",
            Door::SegmentHeader => "segment_header",
            Door::Batch => "batch",
            Door::Record => "record",
            Door::Leases => "leases",
            Door::Expiries => "expiries",
            Door::Checkpoint => "checkpoint",
            Door::Arc => "arc",
            Door::Recents => "recents",
            Door::RunHeader => "run_header",
            Door::RunPage => "run_page",
        }
    }

    /// Decodes the bytes as they are, and with their checksums mended. Returns whether either was accepted.
    ///
    /// # Panics
    /// If what was accepted is not written the same: that is what is looked for.
    pub fn knock(self, bytes: &[u8]) -> bool {
        let plain = self.decode(bytes).is_ok();
        let mut mended = bytes.to_vec();
        self.mend(&mut mended);
        self.decode(&mended).is_ok() || plain
    }

    fn decode(self, bytes: &[u8]) -> Result<(), Damage> {
        match self {
            Door::Superblock => superblock(bytes),
            Door::SegmentHeader => segment_header(bytes),
            Door::Batch => batch(bytes),
            Door::Record => record(bytes),
            Door::Leases => leases(bytes),
            Door::Expiries => expiries(bytes),
            Door::Checkpoint => checkpoint(bytes),
            Door::Arc => arc(bytes),
            Door::Recents => recents(bytes),
            Door::RunHeader => run_header(bytes),
            Door::RunPage => run_page(bytes),
        }
    }

    /// Sound bytes, for a corpus to begin with.
    #[must_use]
    pub fn examples(self) -> Vec<Vec<u8>> {
        match self {
            Door::Superblock => vec![Superblock::new(IDENTITY, 4, 3600).to_file()[..Superblock::SIZE].to_vec()],
            Door::SegmentHeader => {
                let header = SegmentHeader::new(
                    &IDENTITY,
                    AT.segment,
                    AT.generation,
                    5,
                    0xc0ffee,
                    Era { sequence: 4, generation: AT.generation, class: 1 },
                );
                vec![header.to_block(&IDENTITY)[..SegmentHeader::SIZE].to_vec()]
            }
            Door::Batch => vec![example_batch(&[b"one"]), example_batch(&[b"", &[3; 300], b"three"])],
            Door::Record => {
                let header = RecordHeader::new(Action::Put, &example_key(1), AT, 5);
                let mut bytes = header.seal_with(b"bytes", &IDENTITY).to_vec();
                bytes.extend_from_slice(b"bytes");
                vec![bytes]
            }
            Door::Leases => vec![vec![7; 3 * LeaseRow::SIZE]],
            Door::Expiries => vec![vec![7; 3 * ExpiryRow::SIZE]],
            Door::Checkpoint => vec![checkpoint_file(&Checkpoint::default()), checkpoint_file(&example_checkpoint())],
            Door::Arc => [0, 3, 40].map(example_arc).to_vec(),
            Door::Recents => {
                let entries = |count| (0..count).map(example_entry);
                [0, 1, 5].map(|count| encode_recents(entries(count), IDENTITY.seed)).to_vec()
            }
            Door::RunHeader => [3, 2_000].map(|count| example_run(count).0).to_vec(),
            Door::RunPage => [1, 54].map(|count| example_run(count).1).to_vec(),
        }
    }
}

fn superblock(bytes: &[u8]) -> Result<(), Damage> {
    let superblock = Superblock::from_file(bytes)?;
    let written = superblock.to_file();
    let written = &written[..Superblock::SIZE];
    let copies = [bytes.get(..Superblock::SIZE), bytes.get(BLOCK..BLOCK + Superblock::SIZE)];
    assert!(copies.contains(&Some(written)), "one of the copies is written the same");
    Ok(())
}

fn segment_header(bytes: &[u8]) -> Result<(), Damage> {
    let header = SegmentHeader::from_block(bytes, &IDENTITY, AT.segment)?;
    assert_eq!(header.seal(IDENTITY.seed), bytes[..SegmentHeader::SIZE]);
    Ok(())
}

/// The batch lies behind a segment's header.
fn batch(bytes: &[u8]) -> Result<(), Damage> {
    let mut segment = vec![0; BLOCK];
    segment.extend_from_slice(bytes);
    let view = read_batch(&segment, AT, &IDENTITY)?;
    assert!(view.len() >= view.header.body_bytes as usize);
    assert_eq!(view.records.len() + view.damaged as usize, view.header.records as usize);
    assert_eq!(view.header.seal(IDENTITY.seed), bytes[..view.header.seal(IDENTITY.seed).len()]);
    for (header, payload) in &view.records {
        let start = (header.offset - AT.offset) as usize;
        assert_eq!(header.seal_with(payload, &IDENTITY), bytes[start..start + RecordHeader::SIZE]);
        assert_eq!(**payload, bytes[start + RecordHeader::SIZE..][..payload.len()]);
    }
    Ok(())
}

fn record(bytes: &[u8]) -> Result<(), Damage> {
    let header = RecordHeader::check_at(bytes, AT, &IDENTITY)?;
    let payload = &bytes[RecordHeader::SIZE..RecordHeader::SIZE + header.length as usize];
    assert_eq!(header.seal_with(payload, &IDENTITY), bytes[..RecordHeader::SIZE]);
    Ok(())
}

fn leases(bytes: &[u8]) -> Result<(), Damage> {
    let written: Vec<u8> = LeaseRow::all(bytes).flat_map(|row| row.encode()).collect();
    assert_eq!(written, bytes[..written.len()]);
    assert!(bytes.len() - written.len() < LeaseRow::SIZE);
    Ok(())
}

/// Padding is not read.
fn expiries(bytes: &[u8]) -> Result<(), Damage> {
    let written: Vec<u8> = ExpiryRow::all(bytes).flat_map(|row| row.encode()).collect();
    for (row, read) in written.chunks(ExpiryRow::SIZE).zip(bytes.chunks(ExpiryRow::SIZE)) {
        assert_eq!(row[..22], read[..22]);
        assert_eq!(row[24..], read[24..]);
    }
    assert!(bytes.len() - written.len() < ExpiryRow::SIZE);
    Ok(())
}

/// What is left of the header's block is not read.
fn checkpoint(bytes: &[u8]) -> Result<(), Damage> {
    let written = checkpoint_file(&Checkpoint::from_file(bytes, &IDENTITY)?);
    assert_eq!(written[..CheckpointHeader::SIZE], bytes[..CheckpointHeader::SIZE]);
    assert_eq!(written[BLOCK..], bytes[BLOCK..written.len()]);
    Ok(())
}

fn checkpoint_file(checkpoint: &Checkpoint) -> Vec<u8> {
    let Checkpoint { moment, segments, runs, recents, arcs } = checkpoint;
    let recents = encode_recents(recents.iter().copied(), IDENTITY.seed);
    let mut writer = CheckpointWriter::new(&IDENTITY, *moment, segments, runs, &recents);
    arcs.iter().for_each(|arc| writer.push_arc(&encode_arc(arc, IDENTITY.seed)));
    let (_, body) = writer.take(usize::MAX);
    let mut file = writer.finish(&IDENTITY);
    file.extend(body);
    file
}

fn arc(bytes: &[u8]) -> Result<(), Damage> {
    let (arc, length) = decode_arc(bytes, IDENTITY.seed)?;
    arc.check();
    assert_eq!(encode_arc(&arc, IDENTITY.seed), bytes[..length]);
    Ok(())
}

fn recents(bytes: &[u8]) -> Result<(), Damage> {
    let (entries, length) = decode_recents(bytes, IDENTITY.seed)?;
    assert_eq!(encode_recents(entries.into_iter(), IDENTITY.seed), bytes[..length]);
    Ok(())
}

fn run_header(bytes: &[u8]) -> Result<(), Damage> {
    let mut run = Run::read_header(bytes, &IDENTITY, RUN)?;
    assert_eq!(run.to_header(&IDENTITY)[..72], bytes[..72]);
    let _ = (run.page_before(u64::MAX), run.page_behind(0), run.file_bytes());
    let fences = bytes.get(PAGE..).unwrap_or_default();
    if run.read_fences(fences, &IDENTITY).is_ok() {
        assert!(run.page_before(u64::MAX) <= run.pages());
        assert!(run.page_behind(u64::MAX) <= run.pages());
    }
    Ok(())
}

fn run_page(bytes: &[u8]) -> Result<(), Damage> {
    for index in 0..check_page(bytes, &IDENTITY, RUN, 0)? {
        let entry = entry_bytes(bytes, index);
        assert_eq!(RunEntry::decode(entry).encode(), *entry);
    }
    Ok(())
}

fn example_key(number: u8) -> Key {
    Key { placement: [number; 20], name: [number; 32], kind: 1 }
}

fn example_batch(payloads: &[&[u8]]) -> Vec<u8> {
    let mut writer = BatchWriter::new(IDENTITY, AT, 5, 0xc0ffee, &[], Buffer::with_capacity(PAGE));
    for (number, payload) in (0..).zip(payloads) {
        let header = RecordHeader::new(Action::Put, &example_key(number), writer.next_place(), payload.len() as u32);
        writer.push(&header, payload);
    }
    writer.finish().0.to_vec()
}

fn example_checkpoint() -> Checkpoint {
    Checkpoint {
        moment: Moment { number: 2, sequence: 5, chain: 6, swept_s: Some(7), generation_next: 10 },
        segments: vec![CheckpointSegment { last_sequence: 4, generation: 9, segment: 7, reserved: 0 }],
        runs: vec![RUN],
        recents: (0..2).map(example_entry).collect(),
        arcs: example_index(3).arcs().to_vec(),
    }
}

fn example_entry(number: u32) -> RunEntry {
    let mut key = example_key(1);
    key.placement[..4].copy_from_slice(&number.to_be_bytes());
    let locator = Locator::new(7, 4096 + number * 256, 200);
    RunEntry { key, version: 0, locator, length: 72, generation: 9 }
}

/// The first arc of an index with so many entries.
fn example_arc(count: u32) -> Vec<u8> {
    encode_arc(&example_index(count).arcs()[0], IDENTITY.seed)
}

fn example_index(count: u32) -> Index {
    let settings = Settings {
        seed: IDENTITY.seed,
        digest_seed: 0,
        arc_objects_max: 64,
        recents_max: 1_000,
        fan_in: 8,
        tag_bits: 16,
    };
    let mut index = Index::new(settings);
    index.set_generation(7, Some(9));
    for number in 0..count {
        index.insert(&example_entry(number), 1000 + number * 3000);
    }
    index
}

/// Header with fences, and first page, of a run with so many entries.
fn example_run(count: u32) -> (Vec<u8>, Vec<u8>) {
    let mut writer = RunWriter::new(IDENTITY, RUN, 0, (1, 9));
    (0..count).for_each(|number| writer.push(&example_entry(number)));
    let (_, first) = writer.take();
    let finished = writer.finish().expect("it has entries");
    let mut pages = first.to_vec();
    pages.extend_from_slice(&finished.rest);
    let (at, length) = finished.run.fences_at();
    let mut header = finished.header.to_vec();
    header.extend_from_slice(&pages[at as usize - PAGE..at as usize - PAGE + length]);
    (header, pages[..PAGE].to_vec())
}
