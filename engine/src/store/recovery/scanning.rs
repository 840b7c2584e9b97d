//! Reading the log behind the checkpoint, and cutting it into batches.
//!
//! First the heads of all segments are read: they say which segments can hold anything new. Those are then read to their
//! ends, one behind the other, some chunks ahead; what has come is cut while more is on its way, so a segment is never in memory
//! as a whole. A batch that does not fit is stepped over, a block at a time.
//!
//! Of a segment that was open at the checkpoint, reading begins with the last record that the checkpoint's index points to:
//! batches are appended, so what lies before that record in the same life of the file is of the record's own batch or an
//! earlier one, and those are all in the checkpoint.
//!
//! Whoever acts on what is read must not see it vanish in the next power cut: each segment is synced behind its last chunk,
//! before anything of it counts. Nobody writes meanwhile, so it is all the same whether that is done before or after.

use super::Recovery;
use super::reading::{bytes_of, chunks, in_order};
use crate::disk::{Disk, DiskError, Operation, Outcome};
use crate::format::Identity;
use crate::format::batch::{BatchHeader, BatchView, batch_ahead, read_batch_alone};
use crate::format::record::{Action, LeaseRow, Place, RecordHeader};
use crate::format::segment::{Era, SegmentHeader};
use crate::limits::{self, BLOCK};
use crate::store::arcs::codec::ExpiryRow;
use crate::store::{StoreError, segments};
use std::collections::BTreeMap;
use std::ops::Range;

/// What replay needs of a batch: not its payloads.
pub(super) struct Scanned {
    pub(super) chain_before: u64,
    pub(super) chain: u64,
    pub(super) segment: u32,
    pub(super) generation: u32,
    pub(super) damaged: u32,
    pub(super) records: Vec<(RecordHeader, Rows)>,
}

/// What replay needs of a payload.
pub(super) enum Rows {
    None,
    Leases(Vec<LeaseRow>),
    Expired(Vec<ExpiryRow>),
}

pub(super) struct ScannedSegment {
    pub(super) number: u32,
    pub(super) generation: u32,
    pub(super) era: Era,
    pub(super) batches: BTreeMap<u64, Scanned>,
}

/// A segment as the directory has it.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) generation: u32,
    pub(super) allocated: u32,
    pub(super) last_sequence: u64,
}

/// A segment that may hold batches behind the checkpoint.
struct Unread {
    number: u32,
    /// Of its file.
    length: u64,
    header: Option<SegmentHeader>,
    /// By its header, or without one by its batches.
    generation: Option<u32>,
    /// All before this block is in the checkpoint.
    from: u64,
}

impl Unread {
    fn allocated(&self) -> u32 {
        u32::try_from(self.length).unwrap_or(u32::MAX)
    }

    /// What there is to read: a segment of ours is no longer than that.
    fn bytes(&self) -> Range<u64> {
        let end = self.length.min(u64::from(limits::SEGMENT_BYTES_MAX));
        self.from.min(end)..end
    }
}

impl Recovery {
    /// Looks at the heads of these segments, by number and length, and reads those that may hold batches behind the checkpoint.
    pub(super) fn scan_segments<D: Disk>(&mut self, disk: &mut D, files: &[(u32, u64)]) -> Result<(), StoreError> {
        let unread = self.read_heads(disk, files)?;
        let cutters = read_segments(disk, &self.identity, &unread)?;
        let mut headless = Vec::new();
        for (unread, cutter) in unread.into_iter().zip(cutters) {
            match unread.header {
                Some(header) => self.note_scanned(&unread, header.era, cutter),
                None => headless.extend(self.with_generation(unread, cutter.newest)),
            }
        }
        // Now that their generation is known, they are read for their batches.
        let cutters = read_segments(disk, &self.identity, &headless)?;
        for (unread, cutter) in headless.iter().zip(cutters) {
            // Nothing is known to be void; the chain still tells what continues it.
            let era = Era { sequence: u64::MAX, generation: cutter.generation(), class: 0 };
            self.note_scanned(unread, era, cutter);
        }
        Ok(())
    }

    fn read_heads<D: Disk>(&mut self, disk: &mut D, files: &[(u32, u64)]) -> Result<Vec<Unread>, StoreError> {
        let read = |(number, _): &(u32, u64)| Operation::Read {
            file: segments::file(*number),
            offset: 0,
            length: 2 * BLOCK,
            keep: false,
        };
        let mut unread = Vec::new();
        let mut rest = files.iter();
        in_order(disk, limits::HEADS_AHEAD, files.iter().map(read), |result| {
            let (number, length) = *rest.next().expect("one head for each file");
            match result {
                Ok(outcome) => unread.extend(self.look_at_head(number, length, &bytes_of(outcome))),
                Err(DiskError::NotFound) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        Ok(unread)
    }

    /// A segment by its first two blocks: returned if it may hold batches behind the checkpoint.
    fn look_at_head(&mut self, number: u32, length: u64, blocks: &[u8]) -> Option<Unread> {
        let header = SegmentHeader::from_block(blocks, &self.identity, number).ok();
        let generation = header.map(|header| header.generation);
        let unread = Unread { number, length, header, generation, from: self.begin_of_log(number, generation) };
        let allocated = unread.allocated();
        // The first batch may be there although the header that went out with it is not.
        if let Some(generation) = newest_generation(blocks, number, &self.identity) {
            self.note_generation(generation);
        }
        let known = self.known.get(&number).copied();
        // Sealed before the checkpoint, and still the same: nothing in it is new.
        if let Some((generation, last_sequence)) = known
            && last_sequence <= self.sequence
            && header.is_none_or(|header| header.generation <= generation)
        {
            self.found.insert(number, Found { generation, allocated, last_sequence });
            return None;
        }
        // Freed or given up before the checkpoint, and not opened since: a recycled file never written again, or one whose
        // removal was not durable. What made its last batches void may be gone.
        if let Some(header) = header.filter(|header| known.is_none() && header.generation < self.generation_floor) {
            self.found.insert(number, Found { generation: header.generation, allocated, last_sequence: 0 });
            return None;
        }
        Some(unread)
    }

    /// From which block on a segment may hold batches behind the checkpoint, if it is in this generation.
    fn begin_of_log(&self, number: u32, generation: Option<u32>) -> u64 {
        let known = self.known.get(&number).map(|(generation, _)| *generation);
        let last_record = u16::try_from(number).ok().and_then(|number| self.last_records.get(&number));
        match last_record {
            Some(offset) if known.is_some() && known == generation => u64::from(*offset) / BLOCK as u64 * BLOCK as u64,
            _ => 0,
        }
    }

    /// A segment whose header is lost, with the highest generation of its batches; none if nothing of it is behind the checkpoint.
    fn with_generation(&mut self, unread: Unread, newest: Option<u32>) -> Option<Unread> {
        let known = self.known.get(&unread.number).copied();
        let is_behind = |generation: &u32| known.is_some() || *generation >= self.generation_floor;
        if newest.is_some_and(|generation| is_behind(&generation)) {
            return Some(Unread { generation: newest, ..unread });
        }
        let generation = newest.or(known.map(|(generation, _)| generation)).unwrap_or(0);
        let found = Found { generation, allocated: unread.allocated(), last_sequence: 0 };
        self.found.insert(unread.number, found);
        None
    }

    fn note_scanned(&mut self, unread: &Unread, era: Era, cutter: Cutter) {
        let generation = cutter.generation();
        self.log_bytes += cutter.offset - unread.bytes().start;
        self.note_generation(generation);
        self.found.insert(unread.number, Found { generation, allocated: unread.allocated(), last_sequence: 0 });
        self.scanned.push(ScannedSegment { number: unread.number, generation, era, batches: cutter.batches });
    }

    fn note_generation(&mut self, used: u32) {
        self.generation_next = self.generation_next.max(used.saturating_add(1));
    }
}

/// Reads segments from end to end, each into a cutter of its own, and syncs them.
fn read_segments<D: Disk>(disk: &mut D, identity: &Identity, unread: &[Unread]) -> Result<Vec<Cutter>, StoreError> {
    let cutter = |unread: &Unread| Cutter::new(*identity, unread.number, unread.generation, unread.bytes());
    let mut cutters: Vec<Cutter> = unread.iter().map(cutter).collect();
    let operations = unread.iter().flat_map(|unread| {
        let file = segments::file(unread.number);
        chunks(file, unread.bytes()).chain([Operation::Sync { file }])
    });
    let mut cutting = cutters.iter_mut();
    let mut current = cutting.next();
    in_order(disk, limits::CHUNKS_AHEAD, operations, |result| {
        let cutter = current.as_mut().expect("there is a segment to each operation");
        match result? {
            Outcome::Done => {
                cutter.end();
                current = cutting.next();
            }
            outcome => cutter.feed(&bytes_of(outcome)),
        }
        Ok::<_, DiskError>(())
    })?;
    Ok(cutters)
}

/// Cuts a segment into batches while it is being read.
struct Cutter {
    identity: Identity,
    segment: u32,
    /// Batches of this one are taken. Where it is not known, only generations are looked for.
    generation: Option<u32>,
    /// The highest generation of batch headers, where that is looked for.
    newest: Option<u32>,
    /// Where the segment ends.
    length: u64,
    /// Where what is not cut yet begins.
    offset: u64,
    /// Read, and not cut yet: the beginning of a batch.
    window: Vec<u8>,
    batches: BTreeMap<u64, Scanned>,
}

impl Cutter {
    fn new(identity: Identity, segment: u32, generation: Option<u32>, bytes: Range<u64>) -> Cutter {
        let (window, batches) = (Vec::new(), BTreeMap::new());
        let Range { start: offset, end: length } = bytes;
        Cutter { identity, segment, generation, newest: None, length, offset, window, batches }
    }

    /// Of the batches it has taken.
    fn generation(&self) -> u32 {
        self.generation.expect("it was known before they were looked for")
    }

    /// Takes the bytes that come next, whole blocks up to the end of the file, and cuts what is whole.
    fn feed(&mut self, bytes: &[u8]) {
        let mut window = std::mem::take(&mut self.window);
        if window.is_empty() {
            // Most often: nothing has to be moved but the beginning of a batch at its end.
            let cut = self.cut(bytes);
            window.extend_from_slice(&bytes[cut..]);
        } else {
            window.extend_from_slice(bytes);
            let cut = self.cut(&window);
            window.drain(..cut);
        }
        self.window = window;
    }

    /// There are no more bytes, whatever length the file was said to have.
    fn end(&mut self) {
        self.length = self.offset + self.window.len() as u64;
        self.feed(&[]);
        assert!(self.window.is_empty(), "what no more bytes can complete is stepped over");
    }

    /// Cuts bytes that begin where the last cut was, and returns how many.
    fn cut(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let Some(step) = self.step(&bytes[at..]) else { break };
            let step = step.min(bytes.len() - at);
            at += step;
            self.offset += step as u64;
        }
        at
    }

    /// How far the next block or batch reaches; none if more of it must be read to know.
    fn step(&mut self, bytes: &[u8]) -> Option<usize> {
        let Some(generation) = self.generation else {
            let block = &bytes[..BLOCK.min(bytes.len())];
            self.newest = self.newest.max(newest_generation(block, self.segment, &self.identity));
            return Some(BLOCK);
        };
        if self.offset == 0 {
            return Some(BLOCK);
        }
        let offset = u32::try_from(self.offset).expect("a segment is below 4 GiB");
        let place = Place { segment: self.segment, generation, offset };
        let Ok((_, length)) = batch_ahead(bytes, place, &self.identity) else { return Some(BLOCK) };
        let left = self.length.saturating_sub(self.offset);
        if length as u64 > left.next_multiple_of(BLOCK as u64) {
            return Some(BLOCK);
        }
        if bytes.len() < length && (bytes.len() as u64) < left {
            return None;
        }
        match read_batch_alone(bytes, place, &self.identity) {
            Ok(view) => {
                self.batches.insert(view.header.sequence, scanned(&view));
                Some(length)
            }
            Err(_) => Some(BLOCK),
        }
    }
}

fn scanned(view: &BatchView<'_>) -> Scanned {
    let records = view.records.iter().map(|(header, payload)| {
        let rows = match header.action {
            Action::Lease => Rows::Leases(LeaseRow::all(payload).collect()),
            Action::Expired => Rows::Expired(ExpiryRow::all(payload).collect()),
            _ => Rows::None,
        };
        (*header, rows)
    });
    Scanned {
        chain_before: view.header.chain_before,
        chain: view.chain,
        segment: view.header.segment,
        generation: view.header.generation,
        damaged: view.damaged,
        records: records.collect(),
    }
}

/// The highest generation of the batch headers in these blocks of a segment.
fn newest_generation(bytes: &[u8], segment: u32, identity: &Identity) -> Option<u32> {
    let headers = bytes.chunks(BLOCK).filter_map(|block| BatchHeader::open(block, identity.seed).ok());
    headers
        .filter(|header| header.store == identity.store && header.shard == identity.shard)
        .filter(|header| header.segment == segment)
        .map(|header| header.generation)
        .max()
}

#[cfg(test)]
mod tests {
    //! Goal: a segment cut while it is read gives what it gives when it is looked at whole, and its parts are let go of. Method:
    //! batches of random sizes with leftovers, zeros and flipped bits among them, fed in pieces of random length, against a
    //! reader of the whole; and files that end early or in the middle of a block.
    use super::*;
    use crate::disk::Buffer;
    use crate::format::batch::{BatchWriter, read_batch};
    use crate::key::Key;
    use crate::sim_disk::Chance;

    const IDENTITY: Identity = Identity { store: [4; 16], shard: 1, seed: 77 };
    const SEGMENT: u32 = 9;
    const GENERATION: u32 = 5;

    fn segment(chance: &mut Chance) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK];
        for sequence in 1..=2 + chance.below(30) {
            // Some are of an earlier life of the file.
            let generation = GENERATION - u32::from(chance.below(6) == 0);
            let at = Place { segment: SEGMENT, generation, offset: bytes.len() as u32 };
            let mut writer = BatchWriter::new(IDENTITY, at, sequence, sequence, &[], Buffer::with_capacity(BLOCK));
            for _ in 0..1 + chance.below(4) {
                let payload = vec![chance.draw() as u8; chance.below(9_000) as usize];
                let key = Key { placement: [chance.draw() as u8; 20], name: [2; 32], kind: 1 };
                let header = RecordHeader::new(Action::Put, &key, writer.next_place(), payload.len() as u32);
                writer.push(&header, &payload);
            }
            bytes.extend_from_slice(&writer.finish().0);
            bytes.resize(bytes.len() + BLOCK * chance.below(3) as usize, 0);
        }
        for _ in 0..chance.below(4) {
            let at = chance.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << chance.below(8);
        }
        bytes.truncate(bytes.len() - chance.below(bytes.len() as u64 / 2) as usize * chance.below(2) as usize);
        bytes
    }

    fn whole(bytes: &[u8]) -> BTreeMap<u64, Scanned> {
        let (mut batches, mut at) = (BTreeMap::new(), BLOCK);
        while at < bytes.len() {
            let place = Place { segment: SEGMENT, generation: GENERATION, offset: at as u32 };
            match read_batch(bytes, place, &IDENTITY) {
                Ok(view) => {
                    at += view.len();
                    batches.insert(view.header.sequence, scanned(&view));
                }
                Err(_) => at += BLOCK,
            }
        }
        batches
    }

    fn cut(bytes: &[u8], generation: Option<u32>, said: Range<u64>, chance: &mut Chance) -> Cutter {
        let mut rest = &bytes[said.start as usize..];
        let mut cutter = Cutter::new(IDENTITY, SEGMENT, generation, said);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at((BLOCK * (1 + chance.below(9) as usize)).min(rest.len()));
            cutter.feed(piece);
            rest = behind;
        }
        cutter.end();
        cutter
    }

    #[test]
    fn a_segment_in_pieces_is_the_segment() {
        let mut batches_seen = 0;
        for seed in 0..400 {
            let mut chance = Chance::new(seed);
            let bytes = segment(&mut chance);
            // A file may turn out shorter than the directory said.
            let said = bytes.len() as u64 + chance.below(2) * 50_000;
            let cutter = cut(&bytes, Some(GENERATION), 0..said, &mut chance);
            let seen = |batches: &BTreeMap<u64, Scanned>| -> Vec<_> {
                let row = |(sequence, batch): (&u64, &Scanned)| {
                    let keys: Vec<Key> = batch.records.iter().map(|(header, _)| header.key()).collect();
                    (*sequence, batch.chain, batch.damaged, keys)
                };
                batches.iter().map(row).collect()
            };
            assert_eq!(seen(&cutter.batches), seen(&whole(&bytes)), "seed {seed}");
            assert_eq!(cutter.offset, bytes.len() as u64, "seed {seed}");
            batches_seen += cutter.batches.len();
            let looking = cut(&bytes, None, 0..said, &mut chance);
            assert_eq!(looking.newest, newest_generation(&bytes, SEGMENT, &IDENTITY), "seed {seed}");
            // Begun at any record, the batches behind its own are the same.
            let records = cutter
                .batches
                .iter()
                .flat_map(|(sequence, batch)| batch.records.iter().map(move |(header, _)| (*sequence, header.offset)));
            let records: Vec<(u64, u32)> = records.collect();
            if records.is_empty() {
                continue;
            }
            let (sequence, offset) = records[chance.below(records.len() as u64) as usize];
            let from = u64::from(offset) / BLOCK as u64 * BLOCK as u64;
            let mut begun = cut(&bytes, Some(GENERATION), from..said, &mut chance).batches;
            let behind = whole(&bytes).split_off(&(sequence + 1));
            assert_eq!(seen(&begun.split_off(&(sequence + 1))), seen(&behind), "seed {seed} from {from}");
        }
        assert!(batches_seen > 2_000, "{batches_seen}");
    }
}
