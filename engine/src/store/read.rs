//! The read path: every value is checked against its record's checksum before it is handed out.
//!
//! Where the bytes come from: a recent batch still in memory; else the mapping of a sealed segment, if the pages are
//! resident and the record in them is sound; else a read through the ring, which makes resident what is read again and again.
//!
//! A get of a key that a batch in flight has changed waits for that batch: what it would say could be taken back by a power cut.

use super::index::Slot;
use super::segments::{self, Segment, State};
use super::{Change, Compared, Pending, Store};
use crate::disk::{Disk, DiskError, Operation, Outcome, Resident};
use crate::format::record::{RecordHeader, record_bytes};
use crate::key::Key;
use crate::limits;
use crate::request::{Entry, Error, Object, Request, Response};
use bytes::Bytes;

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
        slot: Option<Slot>,
    },
    /// A change that must look at a record in that batch.
    Change {
        tag: u64,
        request: Request,
    },
}

/// A record being read. Its segment is held in place meanwhile.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) key: Key,
    pub(super) slot: Slot,
    pub(super) purpose: Purpose,
}

#[derive(Debug)]
pub(super) enum Purpose {
    Get {
        tag: u64,
    },
    Compare {
        tag: u64,
        request: Request,
    },
    Clean {
        round: u64,
    },
    /// A live record of a segment that scrub found something wrong with.
    Scrub,
}

impl Reading {
    pub(super) fn of(header: &RecordHeader, purpose: Purpose) -> Reading {
        Reading { key: header.key(), slot: Slot::of(header), purpose }
    }

    pub(super) fn compare(tag: u64, request: Request, key: Key, slot: Slot) -> Reading {
        Reading { key, slot, purpose: Purpose::Compare { tag, request } }
    }
}

impl<D: Disk> Store<D> {
    pub(super) fn get(&mut self, tag: u64, key: Key) {
        let slot = self.index.get(&key);
        #[cfg(test)]
        let heedless = self.settings.flaw == super::Flaw::DirtyReads;
        #[cfg(not(test))]
        let heedless = false;
        if let Some(sequence) = self.unsettled.get(&key).copied()
            && !heedless
        {
            self.hold(slot);
            self.waiting.entry(sequence).or_default().push(Waiting::Get { tag, key, slot });
            return;
        }
        match slot {
            Some(slot) => self.read_later(Reading { key, slot, purpose: Purpose::Get { tag } }),
            None => self.finish(tag, Ok(Response::Got(None))),
        }
    }

    pub(super) fn scan(&mut self, tag: u64, from: [u8; 20], to: [u8; 20], after: Option<Key>, limit: usize) {
        let limit = limit.min(limits::SCAN_ENTRIES_MAX);
        let entries = self.index.range(from, to, after, limit).into_iter().map(|(key, slot)| Entry {
            key,
            version: slot.version,
            expiry_s: self.seconds(slot.expiry),
            len: slot.length,
        });
        let entries = entries.collect();
        self.answer_when_settled(tag, Ok(Response::Listed(entries)));
    }

    pub(super) fn resume(&mut self, waiting: Waiting) {
        match waiting {
            Waiting::Answer { tag, answer } => {
                if let Ok(Response::Touched { known }) = &answer {
                    self.counters.touches += *known as u64;
                }
                self.finish(tag, answer);
            }
            Waiting::Get { tag, key, slot } => {
                self.let_go(slot);
                match slot {
                    Some(slot) => self.read_later(Reading { key, slot, purpose: Purpose::Get { tag } }),
                    None => self.finish(tag, Ok(Response::Got(None))),
                }
            }
            Waiting::Change { tag, request } => self.line_up(tag, request),
        }
    }

    fn line_up(&mut self, tag: u64, request: Request) {
        self.changes.push_back(Change::Asked { tag, request, compared: None });
    }

    pub(super) fn resume_after_failure(&mut self, waiting: Waiting, error: Error) {
        match waiting {
            Waiting::Answer { tag, .. } => self.finish(tag, Err(error)),
            // The index is what is durable again: ask it anew.
            Waiting::Get { tag, key, slot } => {
                self.let_go(slot);
                self.get(tag, key);
            }
            Waiting::Change { tag, request } => self.line_up(tag, request),
        }
    }

    /// Keeps a slot's segment from being freed.
    fn hold(&mut self, slot: Option<Slot>) {
        if let Some(segment) = slot.and_then(|slot| self.segments.get_mut(slot.segment)) {
            segment.readers += 1;
        }
    }

    fn let_go(&mut self, slot: Option<Slot>) {
        if let Some(segment) = slot.and_then(|slot| self.segments.get_mut(slot.segment)) {
            assert!(segment.readers > 0, "let go once for each hold");
            segment.readers -= 1;
        }
    }

    /// Reads at once what is at hand, and lines up the rest for the disk. The record must be durable: what is on its way
    /// to the disk would be read as damage.
    pub(super) fn read_later(&mut self, mut reading: Reading) {
        let length = record_bytes(reading.slot.length as usize);
        if let Some((bytes, batch)) = self.tail.get(reading.slot.segment, reading.slot.offset, length) {
            // A small slice would keep its whole batch in memory for as long as a slow consumer holds it.
            let bytes = if length * 4 < batch { Bytes::copy_from_slice(&bytes) } else { bytes };
            return self.read(reading, bytes);
        }
        if self.is_at_rest(reading.slot.segment) {
            let file = segments::file(reading.slot.segment);
            let offset = u64::from(reading.slot.offset);
            if let Some(found) = self.disk.resident(file, offset, length) {
                let Some(unsound) = self.read_mapped(reading, found) else { return };
                // Perhaps it is memory that is wrong, or could not be had. What the device has decides.
                self.disk.distrust(file);
                reading = unsound;
            }
        }
        self.read_from_disk(reading);
    }

    /// Reads from the device whatever may be in memory.
    pub(super) fn read_from_disk(&mut self, reading: Reading) {
        self.hold(Some(reading.slot));
        self.readings.push_back(reading);
    }

    /// Gives the reading back if the record is not sound.
    fn read_mapped(&mut self, reading: Reading, found: Resident) -> Option<Reading> {
        let is_get = matches!(reading.purpose, Purpose::Get { .. });
        // What this shard goes on to use itself must be the very bytes that were checked.
        let copied = !is_get || reading.slot.length as usize <= limits::SMALL_VALUE;
        let Resident { mut checked, mut given } = found;
        if copied {
            checked = Bytes::copy_from_slice(&checked);
            given = checked.clone();
        }
        let Some(header) = self.check(&reading, &checked) else { return Some(reading) };
        self.counters.gets_mapped += u64::from(is_get);
        self.read_sound(reading, &header, &given);
        None
    }

    /// Whether a segment is sealed and its last batch has arrived: nothing is written to its file any more, and it may be
    /// read through the page cache.
    fn is_at_rest(&self, number: u32) -> bool {
        let rests = |segment: &Segment| segment.state == State::Sealed && segment.last_sequence <= self.log.durable;
        self.segments.get(number).is_some_and(rests)
    }

    /// Hands lined-up reads to the disk.
    pub(super) fn start_readings(&mut self) -> bool {
        let mut moved = false;
        while self.readings_in_flight < limits::READS_IN_FLIGHT {
            let Some(reading) = self.readings.pop_front() else { break };
            moved = true;
            self.readings_in_flight += 1;
            self.counters.gets_cold += u64::from(matches!(reading.purpose, Purpose::Get { .. }));
            let number = reading.slot.segment;
            let operation = Operation::Read {
                file: segments::file(number),
                offset: u64::from(reading.slot.offset),
                length: record_bytes(reading.slot.length as usize),
                keep: !matches!(reading.purpose, Purpose::Scrub) && self.is_at_rest(number),
            };
            self.start(operation, Pending::Read(reading));
        }
        moved
    }

    pub(super) fn reading_done(&mut self, reading: Reading, result: Result<Outcome, DiskError>) {
        self.let_go(Some(reading.slot));
        match result {
            Ok(Outcome::Read(bytes)) => self.read(reading, bytes),
            Ok(_) => unreachable!("a read brings bytes"),
            Err(_) => self.not_read(reading),
        }
    }

    /// The device failed a read: that says nothing about the record, so it stays in the index.
    fn not_read(&mut self, reading: Reading) {
        match reading.purpose {
            Purpose::Get { tag } | Purpose::Compare { tag, .. } => self.finish(tag, Err(Error::Io)),
            Purpose::Clean { round } => self.survivor_lost(round),
            Purpose::Scrub => self.rechecked(true),
        }
    }

    /// The record's bytes are here: check them, and do with them what they were read for.
    fn read(&mut self, reading: Reading, bytes: Bytes) {
        match self.check(&reading, &bytes) {
            Some(header) => self.read_sound(reading, &header, &bytes),
            None => self.found_damage(reading),
        }
    }

    fn read_sound(&mut self, reading: Reading, header: &RecordHeader, bytes: &Bytes) {
        let value = bytes.slice(RecordHeader::SIZE..RecordHeader::SIZE + reading.slot.length as usize);
        match reading.purpose {
            Purpose::Get { tag } => {
                let (version, expiry_s) = (reading.slot.version, self.seconds(reading.slot.expiry));
                self.finish(tag, Ok(Response::Got(Some(Object { version, expiry_s, value }))));
            }
            Purpose::Compare { tag, request } => {
                let same = matches!(&request, Request::Put { value: wanted, .. } if *wanted == value);
                let compared = Some(Compared { slot: reading.slot, same });
                self.changes.push_back(Change::Asked { tag, request, compared });
            }
            Purpose::Clean { round } => self.survivor_read(round, header, value),
            Purpose::Scrub => self.rechecked(true),
        }
    }

    fn check(&self, reading: &Reading, bytes: &Bytes) -> Option<RecordHeader> {
        self.segments.get(reading.slot.segment)?;
        let place = self.segments.place(&reading.slot);
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::SkipVerification {
            let header = RecordHeader::decode(bytes).ok()?;
            return (bytes.len() >= RecordHeader::SIZE + reading.slot.length as usize).then_some(header);
        }
        let header = RecordHeader::check_at(bytes, place, &self.identity).ok()?;
        let same = header.key() == reading.key
            && header.version == reading.slot.version
            && header.length == reading.slot.length;
        same.then_some(header)
    }

    /// A damaged record is counted and leaves the index, so that a put from a replica repairs it. The removal need not be
    /// durable: after a restart the damage is found again.
    fn drop_record(&mut self, key: Key, slot: &Slot) {
        self.counters.corrupt += 1;
        let still_indexed = self.index.get(&key).is_some_and(|held| held.is_same_record(slot));
        if still_indexed && !self.unsettled.contains_key(&key) {
            self.set_slot(key, None);
        }
    }

    /// A record whose header is sound and whose payload is not.
    pub(super) fn drop_damaged(&mut self, header: &RecordHeader) {
        self.drop_record(header.key(), &Slot::of(header));
    }

    fn found_damage(&mut self, reading: Reading) {
        self.drop_record(reading.key, &reading.slot);
        match reading.purpose {
            Purpose::Get { tag } => self.finish(tag, Ok(Response::Got(None))),
            Purpose::Compare { tag, request } => {
                self.line_up(tag, request);
            }
            Purpose::Clean { round } => self.survivor_lost(round),
            Purpose::Scrub => self.rechecked(false),
        }
    }
}
