//! A run: the keys that a stretch of the log brought in, sorted, so that ranges of the ring can be walked.
//!
//! The index in memory knows no keys; runs are where they are found in order. An entry is live iff the index holds a slot
//! for its key with exactly its locator, and the locator's segment is still in the generation the entry names. So runs
//! are never changed and need no tombstones: what is dead falls out when runs are merged.
//!
//! A file is pages of 4,096 bytes: header, entries in order, fences. A page has a checksum and says of which run and which page it
//! is. The header is written last, when the pages are durable: a run with a sound header is whole.

use super::{Damage, Identity, VERSION, check_version, checksum, fixed_layout, self_checked};
use crate::key::Key;
use crate::limits::BLOCK;
use crate::store::arcs::hash::{KEY_BYTES, key_bytes, key_of, position};
use crate::store::arcs::locator::Locator;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"ePOSTrun";
/// Bytes of a page.
pub(crate) const PAGE: usize = BLOCK;
/// Bytes of a page before its entries.
const PAGE_HEADER: usize = 24;
/// Entries in a full page.
pub(crate) const PAGE_ENTRIES: usize = (PAGE - PAGE_HEADER) / RunEntry::SIZE;
const _: () = assert!(PAGE_ENTRIES <= u8::MAX as usize);
/// There is a fence for every so many pages of entries.
pub(crate) const FENCE_PAGES: usize = 16;
/// Fences in a full page.
const PAGE_FENCES: usize = (PAGE - PAGE_HEADER) / 8;

const ENTRIES: u16 = 1;
const FENCES: u16 = 2;

/// What a run says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunEntry {
    pub(crate) key: Key,
    pub(crate) version: u64,
    pub(crate) locator: Locator,
    /// Bytes of payload.
    pub(crate) length: u32,
    /// The generation of the locator's segment when the record was written there.
    pub(crate) generation: u32,
}

impl RunEntry {
    /// Bytes on disk.
    pub(crate) const SIZE: usize = KEY_BYTES + 8 + Locator::SIZE + 4 + 4;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..53].copy_from_slice(&key_bytes(&self.key));
        bytes[53..61].copy_from_slice(&self.version.to_le_bytes());
        bytes[61..67].copy_from_slice(&self.locator.to_bytes());
        bytes[67..71].copy_from_slice(&self.length.to_le_bytes());
        bytes[71..].copy_from_slice(&self.generation.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; Self::SIZE]) -> RunEntry {
        RunEntry {
            key: key_of(field(bytes, 0)),
            version: u64::from_le_bytes(*field(bytes, 53)),
            locator: Locator::from_bytes(*field(bytes, 61)),
            length: u32::from_le_bytes(*field(bytes, 67)),
            generation: u32::from_le_bytes(*field(bytes, 71)),
        }
    }
}

/// `N` bytes at `at` of a structure of fixed size that holds them.
fn field<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..at + N].try_into().expect("the field lies inside")
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
struct RunHeader {
    check: u64,
    magic: [u8; 8],
    store: [u8; 16],
    first_sequence: u64,
    last_sequence: u64,
    entries: u64,
    number: u32,
    level: u32,
    shard: u32,
    version: u32,
}
fixed_layout!(RunHeader, ArchivedRunHeader, 72);
self_checked!(RunHeader);

/// What is known of a run without reading its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) number: u32,
    /// How often its entries were merged: a run written from memory has level 0.
    pub(crate) level: u32,
    /// The batches whose puts it holds.
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    pub(crate) entries: u64,
    /// The position of the first entry of pages 1, 17, 33, …
    pub(crate) fences: Vec<u64>,
}

impl Run {
    /// Pages of entries; they follow the header page.
    pub(crate) fn pages(&self) -> u32 {
        u32::try_from(self.entries.div_ceil(PAGE_ENTRIES as u64)).expect("checked when the run was read or written")
    }

    /// Bytes of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        let fences = self.fence_pages();
        PAGE as u64 * (1 + u64::from(self.pages()) + fences as u64)
    }

    /// Pages of the file.
    pub(crate) fn file_pages(&self) -> u32 {
        u32::try_from(self.file_bytes() / PAGE as u64)
            .expect("a page holds more than one entry, and those are below 2^32")
    }

    /// Whether page `page` of the file is sound, the one that belongs there, and of this run. Page 0 is the header.
    pub(crate) fn check_file_page(&self, bytes: &[u8], identity: &Identity, page: u32) -> Result<(), Damage> {
        if page == 0 {
            let found = Run::read_header(bytes, identity, self.number)?;
            let known = Run { fences: Vec::new(), ..*self };
            return if found == known { Ok(()) } else { Err(Damage::Elsewhere) };
        }
        let kind = if page <= self.pages() { ENTRIES } else { FENCES };
        PageAt { run: self.number, page }.check(bytes, identity, kind).map(drop)
    }

    /// Where the fences lie in the file: offset and bytes, for [`Run::read_fences`].
    pub(crate) fn fences_at(&self) -> (u64, usize) {
        (PAGE as u64 * (1 + u64::from(self.pages())), PAGE * self.fence_pages())
    }

    /// The page of entries (from 0) to begin with, to meet every entry at or behind `position`.
    pub(crate) fn page_before(&self, position: u64) -> u32 {
        // Keys may share a position, so one begins at the last fence strictly below.
        let below = self.fences.partition_point(|fence| *fence < position);
        u32::try_from(below.saturating_sub(1) * FENCE_PAGES).expect("there are fewer than 2^32 pages")
    }

    /// The page of entries (from 0) at which everything at or before `position` has been met.
    pub(crate) fn page_behind(&self, position: u64) -> u32 {
        let reached = self.fences.partition_point(|fence| *fence <= position);
        u32::try_from(reached * FENCE_PAGES).map_or(self.pages(), |page| page.min(self.pages()))
    }

    /// The run of a header page, without its fences.
    pub(crate) fn read_header(page: &[u8], identity: &Identity, number: u32) -> Result<Run, Damage> {
        let header = RunHeader::open(page, identity.seed)?;
        if header.magic != MAGIC || header.store != identity.store {
            return Err(Damage::Elsewhere);
        }
        check_version(header.version)?;
        if header.shard != identity.shard || header.number != number {
            return Err(Damage::Elsewhere);
        }
        if header.entries == 0 || header.entries > u64::from(u32::MAX) || header.first_sequence > header.last_sequence {
            return Err(Damage::Checksum);
        }
        Ok(Run {
            number,
            level: header.level,
            first_sequence: header.first_sequence,
            last_sequence: header.last_sequence,
            entries: header.entries,
            fences: Vec::new(),
        })
    }

    /// Takes in the fences from the bytes at [`Run::fences_at`].
    pub(crate) fn read_fences(&mut self, bytes: &[u8], identity: &Identity) -> Result<(), Damage> {
        let mut fences = Vec::with_capacity(self.fence_count());
        for index in 0..self.fence_pages() {
            let page = bytes.get(index * PAGE..(index + 1) * PAGE).ok_or(Damage::Short)?;
            let at = PageAt { run: self.number, page: 1 + self.pages() + index as u32 };
            let count = at.check(page, identity, FENCES)?;
            let words = page[PAGE_HEADER..].chunks_exact(8).take(count);
            fences.extend(words.map(|word| u64::from_le_bytes(*field(word, 0))));
        }
        if fences.len() != self.fence_count() || !fences.is_sorted() {
            return Err(Damage::Checksum);
        }
        self.fences = fences;
        Ok(())
    }

    fn fence_count(&self) -> usize {
        (self.pages() as usize).div_ceil(FENCE_PAGES)
    }

    fn fence_pages(&self) -> usize {
        self.fence_count().div_ceil(PAGE_FENCES)
    }

    pub(crate) fn to_header(&self, identity: &Identity) -> [u8; PAGE] {
        let header = RunHeader {
            check: 0,
            magic: MAGIC,
            store: identity.store,
            first_sequence: self.first_sequence,
            last_sequence: self.last_sequence,
            entries: self.entries,
            number: self.number,
            level: self.level,
            shard: identity.shard,
            version: VERSION,
        };
        let mut page = [0; PAGE];
        page[..RunHeader::SIZE].copy_from_slice(&header.seal(identity.seed));
        page
    }
}

/// Which page of which run. Page 0 is the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PageAt {
    run: u32,
    page: u32,
}

impl PageAt {
    /// Fills in the header of a page whose body is in place.
    fn seal(self, page: &mut [u8], identity: &Identity, kind: u16, count: usize) {
        assert_eq!(page.len(), PAGE);
        page[8..12].copy_from_slice(&self.run.to_le_bytes());
        page[12..16].copy_from_slice(&self.page.to_le_bytes());
        page[16..20].copy_from_slice(&identity.shard.to_le_bytes());
        page[20..22].copy_from_slice(&kind.to_le_bytes());
        page[22..24].copy_from_slice(&u16::try_from(count).expect("a page holds few").to_le_bytes());
        let check = checksum::of(&page[8..], identity.seed);
        page[..8].copy_from_slice(&check.to_le_bytes());
    }

    /// How many items a page holds, if it is sound and this one.
    fn check(self, page: &[u8], identity: &Identity, kind: u16) -> Result<usize, Damage> {
        if page.len() != PAGE {
            return Err(Damage::Short);
        }
        if u64::from_le_bytes(*field(page, 0)) != checksum::of(&page[8..], identity.seed) {
            return Err(Damage::Checksum);
        }
        let found = [8, 12, 16].map(|at| u32::from_le_bytes(*field(page, at)));
        if found != [self.run, self.page, identity.shard] || u16::from_le_bytes(*field(page, 20)) != kind {
            return Err(Damage::Elsewhere);
        }
        let count = usize::from(u16::from_le_bytes(*field(page, 22)));
        let most = if kind == ENTRIES { PAGE_ENTRIES } else { PAGE_FENCES };
        if count > most { Err(Damage::Checksum) } else { Ok(count) }
    }
}

/// How many entries page `page` (from 0) of a run's entries holds, if it is sound and this one.
pub(crate) fn check_page(bytes: &[u8], identity: &Identity, run: u32, page: u32) -> Result<usize, Damage> {
    PageAt { run, page: page.checked_add(1).ok_or(Damage::Elsewhere)? }.check(bytes, identity, ENTRIES)
}

/// The bytes of entry `index` of a checked page. They begin with the key's, so they sort as entries do.
pub(crate) fn entry_bytes(page: &[u8], index: usize) -> &[u8; RunEntry::SIZE] {
    field(page, PAGE_HEADER + index * RunEntry::SIZE)
}

/// Writes a run, a page at a time.
pub(crate) struct RunWriter {
    identity: Identity,
    run: Run,
    /// Whole pages that nobody has taken yet, then the page being filled.
    pages: AlignedVec<BLOCK>,
    /// Offset in the file of the first of them.
    offset: u64,
    /// Entries in the page being filled.
    filling: usize,
    last: Option<Key>,
}

impl RunWriter {
    pub(crate) fn new(identity: Identity, number: u32, level: u32, sequences: (u64, u64)) -> RunWriter {
        let (first_sequence, last_sequence) = sequences;
        assert!(first_sequence <= last_sequence);
        let run = Run { number, level, first_sequence, last_sequence, entries: 0, fences: Vec::new() };
        RunWriter { identity, run, pages: AlignedVec::new(), offset: PAGE as u64, filling: 0, last: None }
    }

    /// Appends an entry. Keys come in order, each once.
    pub(crate) fn push(&mut self, entry: &RunEntry) {
        assert!(self.last.is_none_or(|last| last < entry.key), "a run's keys ascend");
        assert!(self.run.entries < u64::from(u32::MAX));
        self.last = Some(entry.key);
        if self.filling == PAGE_ENTRIES {
            self.seal_page();
        }
        if self.filling == 0 {
            if (self.run.pages() as usize).is_multiple_of(FENCE_PAGES) {
                self.run.fences.push(position(&entry.key));
            }
            self.pages.resize(self.pages.len() + PAGE, 0);
        }
        let at = self.pages.len() - PAGE + PAGE_HEADER + self.filling * RunEntry::SIZE;
        self.pages[at..at + RunEntry::SIZE].copy_from_slice(&entry.encode());
        self.filling += 1;
        self.run.entries += 1;
    }

    /// Bytes of whole pages that wait to be taken.
    pub(crate) fn waiting(&self) -> usize {
        self.pages.len() - if self.filling > 0 { PAGE } else { 0 }
    }

    /// The pages so far and the offset they belong at. Call when [`RunWriter::waiting`] is worth a write.
    pub(crate) fn take(&mut self) -> (u64, AlignedVec<BLOCK>) {
        let whole = self.waiting();
        let mut kept = AlignedVec::new();
        kept.extend_from_slice(&self.pages[whole..]);
        let mut taken = std::mem::replace(&mut self.pages, kept);
        taken.resize(whole, 0);
        let offset = self.offset;
        self.offset += whole as u64;
        (offset, taken)
    }

    /// The rest of the pages with their offset, the header page that belongs at offset 0 once all pages are durable, and what
    /// the run is. A run without entries is no run: there is nothing to write.
    pub(crate) fn finish(mut self) -> Option<FinishedRun> {
        if self.run.entries == 0 {
            return None;
        }
        self.seal_page();
        for (page, fences) in (1 + self.run.pages()..).zip(self.run.fences.chunks(PAGE_FENCES)) {
            let start = self.pages.len();
            self.pages.resize(start + PAGE, 0);
            let bytes = &mut self.pages[start..];
            for (word, fence) in bytes[PAGE_HEADER..].chunks_exact_mut(8).zip(fences) {
                word.copy_from_slice(&fence.to_le_bytes());
            }
            PageAt { run: self.run.number, page }.seal(bytes, &self.identity, FENCES, fences.len());
        }
        assert_eq!(self.offset + self.pages.len() as u64, self.run.file_bytes());
        let mut header = AlignedVec::new();
        header.extend_from_slice(&self.run.to_header(&self.identity));
        Some(FinishedRun { offset: self.offset, rest: self.pages, header, run: self.run })
    }

    fn seal_page(&mut self) {
        let start = self.pages.len() - PAGE;
        let at = PageAt { run: self.run.number, page: self.run.pages() };
        at.seal(&mut self.pages[start..], &self.identity, ENTRIES, self.filling);
        self.filling = 0;
    }
}

/// What is left to write of a run, and what it is.
pub(crate) struct FinishedRun {
    /// Where `rest` belongs.
    pub(crate) offset: u64,
    pub(crate) rest: AlignedVec<BLOCK>,
    /// The first page of the file; to be written when all others are durable.
    pub(crate) header: AlignedVec<BLOCK>,
    pub(crate) run: Run,
}
