//! The read path: every value is checked against its record's checksums before it is handed out.
//!
//! Where the bytes come from: a recent batch still in memory; else the mapping of the segment, if the pages are
//! resident and the record in them is sound; else a read through the ring, which makes resident what is read again and
//! again. A shard's thread never touches a mapped page that is not there.
//!
//! A segment that is still being written is read through memory like a sealed one, up to where its batches are durable
//! ([`Store::settled_end`]). Why no byte that is served can be stale:
//! - batches begin and end at blocks, one behind the other, and a block is written with a batch once in a generation; so what lies
//!   below the durable end is not written again before the segment is released;
//! - nothing above that end is asked for through memory: a read that is to be kept is cut off there, and pages are read
//!   singly, not ahead. Whatever may lie in memory of the blocks above (an older generation, zeros written ahead), a batch's
//!   direct write drops from the page cache before it is reported done, by what the kernel promises;
//! - should a kernel not keep that, the record says so: segment, generation and offset stand in its header, and the payload is
//!   summed. Then the device is asked, whose answer counts, and the segment is not read through memory again.
//!
//! The index says where a key's record *may* lie; the record says whether it is the key's. A get reads the whole record
//! at once and tries the next candidate if it was a stranger's. A change needs the header only, and is decided again with what
//! was found.
//!
//! A get of a key that a batch in flight has changed waits for that batch: what it would say could be taken back by a power cut.

use super::arcs::locator::Locator;
use super::arcs::walk::Entry;
use super::presence::{Candidate, Fact, Says};
use super::segments::{self, State};
use super::{Change, Pending, Store};
use crate::disk::{Disk, DiskError, Operation, Outcome, Resident};
use crate::format::record::{Place, RecordHeader, record_bytes};
use crate::key::Key;
use crate::limits;
use crate::request::{Error, Object, Request, Response};
use bytes::Bytes;
use std::collections::VecDeque;

/// Something that waits for a batch to be durable.
#[derive(Debug)]
pub(super) enum Waiting {
    Answer {
        tag: u64,
        answer: Result<Response, Error>,
    },
    /// A get, with what the index said when it was asked.
    Get {
        tag: u64,
        key: Key,
        candidates: VecDeque<Candidate>,
    },
    /// A change that must look at a record in that batch.
    Change(Change),
}

/// A record being read for a key. The segments of all its candidates are held in place meanwhile.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) key: Key,
    /// Where it may lie: the first is being read.
    pub(super) candidates: VecDeque<Candidate>,
    pub(super) purpose: Purpose,
    /// It may be read through the page cache, which has said nothing wrong of it yet.
    pub(super) trusts_memory: bool,
}

#[derive(Debug)]
pub(super) enum Purpose {
    Get {
        tag: u64,
    },
    /// A change to be decided again: its record's header, or all of the record, to be compared with the put's value.
    Confirm {
        change: Change,
        whole: bool,
    },
    Clean {
        round: u64,
    },
    /// A live record of a segment that scrub found something wrong with.
    Scrub {
        entry: Entry,
    },
}

/// What a record turned out to be.
enum Finding {
    /// The key's; its payload is sound, if that was read.
    Ours(RecordHeader),
    Stranger,
    /// The key's, and its payload is damaged.
    Damaged(RecordHeader),
    /// Its header is damaged: it may be anybody's.
    Unreadable,
}

impl Reading {
    pub(super) fn of(entry: &Entry, purpose: Purpose) -> Reading {
        let Entry { key, locator, generation, tick, length, .. } = *entry;
        let candidate = Candidate { locator, generation, tick, length: Some(length) };
        Reading::at(key, VecDeque::from([candidate]), purpose)
    }

    fn at(key: Key, candidates: VecDeque<Candidate>, purpose: Purpose) -> Reading {
        Reading { key, candidates, purpose, trusts_memory: true }
    }

    fn target(&self) -> Candidate {
        *self.candidates.front().expect("a reading has something to read")
    }

    fn is_get(&self) -> bool {
        matches!(self.purpose, Purpose::Get { .. })
    }

    /// Whether the header is all that is wanted.
    fn is_header_only(&self) -> bool {
        matches!(self.purpose, Purpose::Confirm { whole: false, .. })
    }

    /// Whether nobody will want the record again soon.
    fn is_passing(&self) -> bool {
        matches!(self.purpose, Purpose::Clean { .. } | Purpose::Scrub { .. })
    }

    /// How many bytes are wanted; `None` if that stands in the record's header.
    fn wanted(&self) -> Option<usize> {
        if self.is_header_only() {
            return Some(RecordHeader::SIZE);
        }
        self.target().length.map(|length| record_bytes(length as usize))
    }
}

impl<D: Disk> Store<D> {
    pub(super) fn get(&mut self, tag: u64, key: Key) {
        let candidates = VecDeque::from(self.candidates(&key));
        #[cfg(test)]
        let heedless = self.settings.flaw == super::Flaw::DirtyReads;
        #[cfg(not(test))]
        let heedless = false;
        let hash = self.index.address(&key).hash;
        if let Some(sequence) = self.unsettled_by(hash)
            && !heedless
        {
            self.hold(&candidates);
            self.waiting.entry(sequence).or_default().push(Waiting::Get { tag, key, candidates });
            return;
        }
        self.read_or_absent(tag, key, candidates);
    }

    fn read_or_absent(&mut self, tag: u64, key: Key, candidates: VecDeque<Candidate>) {
        if candidates.is_empty() {
            return self.finish(tag, Ok(Response::Got(None)));
        }
        self.read_later(Reading::at(key, candidates, Purpose::Get { tag }));
    }

    pub(super) fn resume(&mut self, waiting: Waiting) {
        match waiting {
            Waiting::Answer { tag, answer } => {
                if let Ok(Response::Touched { known }) = &answer {
                    self.counters.touches += *known as u64;
                }
                self.finish(tag, answer);
            }
            Waiting::Get { tag, key, candidates } => {
                self.let_go(&candidates);
                self.read_or_absent(tag, key, candidates);
            }
            Waiting::Change(change) => self.changes.push_back(change),
        }
    }

    pub(super) fn resume_after_failure(&mut self, waiting: Waiting, error: Error) {
        match waiting {
            Waiting::Answer { tag, .. } => self.finish(tag, Err(error)),
            // The index is what is durable again: ask it anew.
            Waiting::Get { tag, key, candidates } => {
                self.let_go(&candidates);
                self.get(tag, key);
            }
            Waiting::Change(change) => self.changes.push_back(change),
        }
    }

    /// Keeps the candidates' segments from being freed.
    fn hold(&mut self, candidates: &VecDeque<Candidate>) {
        for candidate in candidates {
            if let Some(segment) = self.segments.get_mut(u32::from(candidate.locator.segment())) {
                segment.readers += 1;
            }
        }
    }

    fn let_go(&mut self, candidates: &VecDeque<Candidate>) {
        for candidate in candidates {
            if let Some(segment) = self.segments.get_mut(u32::from(candidate.locator.segment())) {
                assert!(segment.readers > 0, "let go once for each hold");
                segment.readers -= 1;
            }
        }
    }

    /// Reads a record's header, or all of it, and decides the change anew.
    pub(super) fn confirm(&mut self, change: Change, key: Key, locator: Locator, whole: bool) {
        let hash = self.index.address(&key).hash;
        // Its record may not be on the disk yet (cleaning may just have moved it into this very batch).
        if let Some(sequence) = self.unsettled_by(hash) {
            return self.waiting.entry(sequence).or_default().push(Waiting::Change(change));
        }
        let tick = self.index.tick_of(&key, locator).unwrap_or(0);
        let generation = self.generation_of(locator);
        self.counters.confirmations += 1;
        let candidates = VecDeque::from([Candidate { locator, generation, tick, length: None }]);
        self.read_later(Reading::at(key, candidates, Purpose::Confirm { change, whole }));
    }

    /// Reads at once what is at hand, and lines up the rest for the disk. The record must be durable: what is on its way
    /// to the disk would be read as damage.
    pub(super) fn read_later(&mut self, mut reading: Reading) {
        if let Some(bytes) = self.in_tail(&reading) {
            return self.read(reading, &bytes);
        }
        if let Some(found) = self.in_mapping(&reading) {
            let Some(unsound) = self.read_mapped(reading, found) else { return };
            reading = self.without_memory(unsound);
        }
        self.read_from_disk(reading);
    }

    /// What memory had was not sound: perhaps it is memory that is wrong, or could not be had. What the device has decides.
    fn without_memory(&mut self, mut reading: Reading) -> Reading {
        self.disk.distrust(segments::file(u32::from(reading.target().locator.segment())));
        reading.trusts_memory = false;
        reading
    }

    /// Reads what is not at hand.
    pub(super) fn read_from_disk(&mut self, reading: Reading) {
        self.hold(&reading.candidates);
        self.readings.push_back(reading);
    }

    /// The record's bytes, if its batch is still in memory.
    fn in_tail(&self, reading: &Reading) -> Option<Bytes> {
        let locator = reading.target().locator;
        let (number, offset) = (u32::from(locator.segment()), locator.offset());
        let length = match reading.wanted() {
            Some(length) => length,
            None => self.length_in(&self.tail.get(number, offset, RecordHeader::SIZE)?.0),
        };
        let (bytes, batch) = self.tail.get(number, offset, length)?;
        // A small slice would keep its whole batch in memory for as long as a slow consumer holds it.
        Some(if length * 4 < batch { Bytes::copy_from_slice(&bytes) } else { bytes })
    }

    /// The record's bytes, if nothing is written there any more and the pages are in memory.
    fn in_mapping(&mut self, reading: &Reading) -> Option<Resident> {
        let locator = reading.target().locator;
        let (number, offset) = (u32::from(locator.segment()), u64::from(locator.offset()));
        let end = u64::from(self.settled_end(number));
        let is_settled = |length: usize| end.checked_sub(offset).is_some_and(|left| length as u64 <= left);
        let file = segments::file(number);
        let length = match reading.wanted() {
            Some(length) => length,
            None if !is_settled(RecordHeader::SIZE) => return None,
            None => {
                let found = self.disk.resident(file, offset, RecordHeader::SIZE)?;
                self.length_in(&found.checked)
            }
        };
        if !is_settled(length) {
            return None;
        }
        self.disk.resident(file, offset, length)
    }

    /// How long a record is stands in its header; one that is damaged is read no further.
    fn length_in(&self, header: &[u8]) -> usize {
        record_bytes(RecordHeader::open(header, self.identity.seed).map_or(0, |header| header.length as usize))
    }

    /// Gives the reading back if the record is not sound.
    fn read_mapped(&mut self, reading: Reading, found: Resident) -> Option<Reading> {
        // What this shard goes on to use itself must be the very bytes that were checked.
        let copied = !reading.is_get() || found.checked.len() <= limits::SMALL_VALUE + RecordHeader::SIZE;
        let Resident { mut checked, mut given } = found;
        if copied {
            checked = Bytes::copy_from_slice(&checked);
            given = checked.clone();
        }
        match self.examine(&reading, &checked) {
            Finding::Damaged(_) | Finding::Unreadable => return Some(reading),
            Finding::Stranger => self.found_stranger(reading),
            Finding::Ours(header) => {
                self.counters.gets_mapped += u64::from(reading.is_get());
                self.found(reading, &header, &given);
            }
        }
        None
    }

    /// Up to here a segment's file is not written any more before it is released, so that it may be read through the page cache:
    /// all of it if it is sealed and its last batch has arrived, else as far as its batches are durable. 0 if that is not known.
    fn settled_end(&self, number: u32) -> u32 {
        let Some(segment) = self.segments.get(number) else { return 0 };
        let open = self.log.open.iter().flatten().find(|open| open.number == number);
        match (segment.state, open) {
            (State::Sealed, _) if segment.last_sequence <= self.log.durable => segment.allocated,
            // The batches in flight are its last ones, one behind the other.
            (State::Open, Some(open)) => {
                let flights = self.log.flights.iter().filter(|flight| flight.segment == number);
                let flying: u64 = flights.map(|flight| flight.bytes).sum();
                open.at - u32::try_from(flying).expect("batches lie in their segment")
            }
            _ => 0,
        }
    }

    /// Hands lined-up reads to the disk.
    pub(super) fn start_readings(&mut self) -> bool {
        let mut moved = false;
        while self.readings_in_flight < limits::READS_IN_FLIGHT {
            let Some(mut reading) = self.readings.pop_front() else { break };
            moved = true;
            // A stranger's record may have been in the batch that was being built when the reading was lined up: it is in
            // memory by now, and perhaps not on the disk. What scrub reads rests on the disk, and is looked at there.
            let is_from_disk = matches!(reading.purpose, Purpose::Scrub { .. });
            if !is_from_disk && let Some(bytes) = self.in_tail(&reading) {
                self.let_go(&reading.candidates);
                self.read(reading, &bytes);
                continue;
            }
            self.readings_in_flight += 1;
            self.counters.gets_cold += u64::from(reading.is_get());
            let locator = reading.target().locator;
            let number = u32::from(locator.segment());
            let allocated = self.segments.get(number).map_or(0, |segment| segment.allocated);
            // The locator knows the length to within 1/64, and not below.
            let wanted = reading.wanted().unwrap_or_else(|| usize::try_from(locator.bytes()).unwrap_or(usize::MAX));
            let settled = self.settled_end(number);
            reading.trusts_memory &= locator.offset() < settled && !reading.is_passing();
            let keep = reading.trusts_memory;
            let end = if keep { settled } else { allocated };
            let operation = Operation::Read {
                file: segments::file(number),
                offset: u64::from(locator.offset()),
                length: wanted.min(end.saturating_sub(locator.offset()) as usize),
                keep,
            };
            self.start(operation, Pending::Read(reading));
        }
        moved
    }

    pub(super) fn reading_done(&mut self, reading: Reading, result: Result<Outcome, DiskError>) {
        self.let_go(&reading.candidates);
        match result {
            Ok(Outcome::Read(bytes)) => match self.examine(&reading, &bytes) {
                Finding::Damaged(_) | Finding::Unreadable if reading.trusts_memory => {
                    let reading = self.without_memory(reading);
                    self.read_from_disk(reading);
                }
                finding => self.act_on(finding, reading, &bytes),
            },
            Ok(_) => unreachable!("a read brings bytes"),
            Err(_) => self.not_read(reading),
        }
    }

    /// The device failed a read: that says nothing about the record, so it stays in the index.
    fn not_read(&mut self, reading: Reading) {
        match reading.purpose {
            Purpose::Get { tag } | Purpose::Confirm { change: Change::Asked { tag, .. }, .. } => {
                self.finish(tag, Err(Error::Io));
            }
            Purpose::Confirm { .. } => {}
            Purpose::Clean { round } => self.survivor_lost(round),
            Purpose::Scrub { .. } => self.rechecked(true),
        }
    }

    /// The record's bytes are here: check them, and do with them what they were read for.
    fn read(&mut self, reading: Reading, bytes: &Bytes) {
        let finding = self.examine(&reading, bytes);
        self.act_on(finding, reading, bytes);
    }

    fn act_on(&mut self, finding: Finding, reading: Reading, bytes: &Bytes) {
        match finding {
            Finding::Ours(header) => self.found(reading, &header, bytes),
            Finding::Stranger => self.found_stranger(reading),
            Finding::Damaged(header) => {
                self.drop_damaged(&header);
                self.found_gone(reading);
            }
            Finding::Unreadable => self.found_unreadable(reading),
        }
    }

    fn examine(&self, reading: &Reading, bytes: &Bytes) -> Finding {
        let Candidate { locator, generation, length, .. } = reading.target();
        let place = Place { segment: u32::from(locator.segment()), generation, offset: locator.offset() };
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::SkipVerification {
            let Ok(header) = RecordHeader::decode(bytes) else { return Finding::Unreadable };
            let end = RecordHeader::SIZE + header.length as usize;
            let Some(_) = bytes.get(..end) else { return Finding::Unreadable };
            return Finding::Ours(header);
        }
        let Ok(header) = RecordHeader::header_at(bytes, place, &self.identity) else { return Finding::Unreadable };
        if header.key() != reading.key {
            return Finding::Stranger;
        }
        if length.is_some_and(|length| length != header.length) {
            return Finding::Damaged(header);
        }
        if reading.is_header_only() {
            return Finding::Ours(header);
        }
        match RecordHeader::check_at(bytes, place, &self.identity) {
            Ok(header) => Finding::Ours(header),
            Err(_) => Finding::Damaged(header),
        }
    }

    /// The key's record, sound as far as it was read: `bytes` begin with it.
    fn found(&mut self, reading: Reading, header: &RecordHeader, bytes: &Bytes) {
        let target = reading.target();
        let value = if reading.is_header_only() {
            Bytes::new()
        } else {
            bytes.slice(RecordHeader::SIZE..RecordHeader::SIZE + header.length as usize)
        };
        match reading.purpose {
            Purpose::Get { tag } => {
                let (version, expiry_s) = (header.version, self.seconds(target.tick));
                self.finish(tag, Ok(Response::Got(Some(Object { version, expiry_s, value }))));
            }
            Purpose::Confirm { change, whole } => {
                let same = match &change {
                    Change::Asked { request: Request::Put { value: wanted, .. }, .. } if whole => {
                        Some(*wanted == value)
                    }
                    _ => None,
                };
                let says = Says::Ours { version: header.version, length: header.length, same };
                self.decide_again(change, target, says);
            }
            Purpose::Clean { round } => self.survivor_read(round, header, value),
            Purpose::Scrub { .. } => self.rechecked(true),
        }
    }

    fn decide_again(&mut self, mut change: Change, target: Candidate, says: Says) {
        if let Change::Asked { facts, .. } = &mut change {
            facts.retain(|fact| fact.locator != target.locator);
            facts.push(Fact { locator: target.locator, generation: target.generation, says });
        }
        self.changes.push_front(change);
    }

    /// The next candidate, or nothing.
    fn found_stranger(&mut self, mut reading: Reading) {
        let target = reading.target();
        self.counters.false_matches += u64::from(!reading.is_passing());
        match reading.purpose {
            Purpose::Get { tag } => {
                reading.candidates.pop_front();
                self.read_or_absent(tag, reading.key, reading.candidates);
            }
            Purpose::Confirm { change, .. } => self.decide_again(change, target, Says::Stranger),
            Purpose::Clean { round } => self.survivor_lost(round),
            // The runs know whose it should be.
            Purpose::Scrub { entry } => {
                self.counters.corrupt += 1;
                self.found_lost(entry);
            }
        }
    }

    /// The key's record is damaged, and its removal is lined up in front of all changes.
    fn found_gone(&mut self, reading: Reading) {
        match reading.purpose {
            Purpose::Get { tag } => self.finish(tag, Ok(Response::Got(None))),
            Purpose::Confirm { change, .. } => self.changes.push_back(change),
            Purpose::Clean { round } => self.survivor_lost(round),
            Purpose::Scrub { .. } => self.rechecked(false),
        }
    }

    /// Whose record it is, the runs know: a walk to the key says whether this one is the key's.
    fn found_unreadable(&mut self, mut reading: Reading) {
        self.counters.corrupt += 1;
        let target = reading.target();
        match reading.purpose {
            Purpose::Get { tag } => {
                self.resolve(reading.key, target, None);
                reading.candidates.pop_front();
                self.read_or_absent(tag, reading.key, reading.candidates);
            }
            Purpose::Confirm { change, .. } => self.resolve(reading.key, target, Some(change)),
            Purpose::Clean { round } => self.survivor_lost(round),
            Purpose::Scrub { entry } => self.found_lost(entry),
        }
    }

    /// Scrub found nothing of an entry's record.
    fn found_lost(&mut self, entry: Entry) {
        if self.is_live(&entry) {
            self.changes.push_front(Change::Lost { entry });
        }
        self.rechecked(false);
    }

    /// It is now known whether an unreadable record is its key's.
    pub(super) fn resolved(&mut self, found: Option<Entry>, target: Candidate, change: Option<Change>) {
        let ours = found.filter(|entry| (entry.locator, entry.generation) == (target.locator, target.generation));
        if let Some(change) = change {
            // If it was the key's, its removal stands in front, and the index will not name it any more.
            self.decide_again(change, target, Says::Stranger);
        }
        if let Some(entry) = ours {
            self.changes.push_front(Change::Lost { entry });
        }
    }

    /// A record whose header is sound and whose payload is not: it is counted, and its object removed, so that a put from a
    /// replica repairs it. The log says so, because what is decided next rests on it.
    pub(super) fn drop_damaged(&mut self, header: &RecordHeader) {
        self.counters.corrupt += 1;
        if let Some(entry) = self.live_entry(header) {
            self.changes.push_front(Change::Lost { entry });
        }
    }
}
