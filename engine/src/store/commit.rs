//! The write path: from changes lined up to answers that are durable.
//!
//! Group commit without a timer: a batch is what lined up while the batches before it were in flight. At most
//! [`limits::BATCHES_IN_FLIGHT`] overlap; answers go out in the order of the chain.

use super::decide::{Decision, Effect, Importance, Write};
use super::index::Slot;
use super::log::{Flight, OpenSegment, ReadySegment};
use super::read::{Reading, Waiting};
use super::segments::{self, Segment, State};
use super::{Change, Pending, Store};
use crate::disk::{Disk, DiskError, Operation};
use crate::format::batch::{BatchWriter, batch_bytes};
use crate::format::record::{Place, RecordHeader, record_bytes};
use crate::format::segment::SegmentHeader;
use crate::key::Key;
use crate::limits;
use crate::request::{Error, Request, Response};
use bytes::Bytes;

/// A batch being built.
struct Draft {
    writer: Option<BatchWriter>,
    undo: Vec<(Key, Option<Slot>)>,
    swept_before: Option<u64>,
    answers: Vec<(u64, Result<Response, Error>)>,
}

/// Whether a record may be written now.
enum Room {
    Ready,
    /// After this batch has gone, or when a file operation under way has ended.
    Later,
    Never(Error),
}

impl<D: Disk> Store<D> {
    /// Builds one batch of what has lined up and hands it to the disk. Returns whether anything was done.
    pub(super) fn build_batch(&mut self) -> bool {
        let lined_up = self.changes.len() + self.survivors.len();
        if lined_up == 0 || self.log.flights.len() >= limits::BATCHES_IN_FLIGHT || self.upkeep.wants_quiet() {
            return false;
        }
        let mut draft = Draft { writer: None, undo: Vec::new(), swept_before: self.swept_s, answers: Vec::new() };
        // Every change is looked at once: those put back wait for something that ends with a completion.
        let mut only_survivors = false;
        for _ in 0..lined_up {
            let Some(change) = self.next_change(only_survivors) else { break };
            let Some(change) = self.draft_change(&mut draft, change) else { continue };
            let was_survivor = matches!(change, Change::Survivor { .. });
            self.put_back(change);
            if was_survivor {
                break;
            }
            // A request may be waiting for the very space that survivors are being moved to free.
            only_survivors = true;
        }
        self.log.starved = None;
        let remaining = self.changes.len() + self.survivors.len();
        self.launch(draft) || remaining < lined_up
    }

    /// Survivors and requests take turns, so that neither cleaning nor the clients starve.
    fn next_change(&mut self, only_survivors: bool) -> Option<Change> {
        if only_survivors {
            return self.survivors.pop_front();
        }
        let survivor_first = self.upkeep.take_turn();
        if survivor_first && let Some(change) = self.survivors.pop_front() {
            return Some(change);
        }
        self.changes.pop_front().or_else(|| self.survivors.pop_front())
    }

    fn put_back(&mut self, change: Change) {
        match change {
            Change::Asked { .. } => self.changes.push_front(change),
            Change::Survivor { .. } => self.survivors.push_front(change),
        }
    }

    /// Adds one change to the batch, or settles it otherwise. Gives it back if it must wait.
    fn draft_change(&mut self, draft: &mut Draft, change: Change) -> Option<Change> {
        match self.decide(&change) {
            Decision::Drop => {}
            Decision::Answer(tag, answer) => {
                if let (Change::Asked { request: Request::Sweep { now_s }, .. }, Ok(_)) = (&change, &answer) {
                    assert!(self.clock_jumped(*now_s), "a believed sweep is written");
                    self.counters.deletion_suspended = 1;
                }
                draft.answers.push((tag, answer));
            }
            Decision::Defer { tag, now_s } => self.upkeep.defer_sweep(tag, now_s),
            Decision::Compare { tag, request, key, slot } => match self.unsettled.get(&key).copied() {
                // Its record may not be on the disk yet (cleaning may just have moved it into this very batch).
                Some(sequence) => self.waiting.entry(sequence).or_default().push(Waiting::Change { tag, request }),
                None => self.read_later(Reading::compare(tag, request, key, slot)),
            },
            Decision::Write(write) => match self.make_room(draft, write.payload.len(), write.importance) {
                Room::Ready => self.draft_write(draft, write, &change),
                Room::Later => return Some(change),
                Room::Never(error) => self.refuse(draft, &change, error),
            },
        }
        None
    }

    fn refuse(&mut self, draft: &mut Draft, change: &Change, error: Error) {
        match change {
            Change::Asked { tag, .. } => draft.answers.push((*tag, Err(error))),
            // Cleaning found no room for a survivor: the record stays where it is.
            Change::Survivor { .. } => self.upkeep.give_up_cleaning(),
        }
    }

    fn draft_write(&mut self, draft: &mut Draft, write: Write, change: &Change) {
        let writer = draft.writer.as_mut().expect("room was made");
        let length = u32::try_from(write.payload.len()).expect("bounded by the largest value");
        let place = writer.next_place();
        let mut header = RecordHeader::new(write.action, &write.key, place, length);
        header.version = write.version;
        header.account = write.account;
        header.lease_set = write.lease_set;
        header.class = write.class;
        header.expiry = write.expiry;
        writer.push(&header, &write.payload);
        let sequence = self.log.sequence_next;
        let slot =
            Slot { version: write.version, segment: place.segment, offset: place.offset, length, expiry: write.expiry };
        let mut removed = 0;
        match write.effect {
            Effect::Place => self.draft_slot(draft, write.key, Some(slot)),
            Effect::Remove(keys) => {
                removed = keys.len() as u64;
                keys.into_iter().for_each(|key| self.draft_slot(draft, key, None));
            }
            // One after the other: of a key named twice the later end counts, as it does on replay.
            Effect::Extend(leases) => leases.into_iter().for_each(|(key, expiry)| {
                let held = self.index.get(&key).expect("only known keys are extended");
                self.draft_slot(draft, key, Some(Slot { expiry: expiry.max(held.expiry), ..held }));
            }),
            Effect::Nothing => {}
        }
        if let Some((tag, answer)) = write.answer {
            draft.answers.push((tag, Ok(answer)));
        }
        match change {
            Change::Survivor { .. } => self.counters.cleaned += 1,
            Change::Asked { tag, request, .. } => self.note_clock(*tag, request, removed, sequence),
        }
    }

    /// Changes the index by the batch being built, and notes how to undo it.
    fn draft_slot(&mut self, draft: &mut Draft, key: Key, slot: Option<Slot>) {
        let old = self.set_slot(key, slot);
        draft.undo.push((key, old));
        self.unsettled.insert(key, self.log.sequence_next);
    }

    fn note_clock(&mut self, tag: u64, request: &Request, removed: u64, sequence: u64) {
        match request {
            Request::Sweep { now_s } => {
                self.swept_s = Some(self.swept_s.unwrap_or(0).max(*now_s));
                self.counters.deletion_suspended = 0;
                self.upkeep.begin_sweep(tag, removed, sequence);
            }
            Request::ConfirmClock { now_s } => {
                self.swept_s = Some(*now_s);
                self.counters.deletion_suspended = 0;
            }
            _ => {}
        }
    }

    /// Sees to it that a record with this payload can be pushed to the draft's writer.
    fn make_room(&mut self, draft: &mut Draft, payload: usize, importance: Importance) -> Room {
        let record = record_bytes(payload);
        if let Some(writer) = &draft.writer {
            let body = writer.body() + record;
            let open = self.log.open.expect("a batch is being built in it");
            let end = open.at as usize + batch_bytes(body);
            let fits = body <= limits::BATCH_BYTES && end <= open.reserved as usize;
            return if fits { Room::Ready } else { Room::Later };
        }
        let needed = batch_bytes(record);
        let full = self.log.open.is_none_or(|open| open.at as usize + needed > self.settings.segment_bytes as usize);
        if full && let Some(not_yet) = self.roll(importance) {
            return not_yet;
        }
        let open = self.log.open.expect("rolled");
        if open.at as usize + needed > open.reserved as usize {
            if let Some(error) = self.log.starved {
                return Room::Never(error);
            }
            self.grow(open, needed);
            return Room::Later;
        }
        draft.writer = Some(self.new_writer(open));
        Room::Ready
    }

    fn new_writer(&self, open: OpenSegment) -> BatchWriter {
        let place = Place { segment: open.number, generation: open.generation, offset: open.at };
        let (sequence, chain) = (self.log.sequence_next, self.log.chain);
        if open.at as usize > limits::BLOCK {
            return BatchWriter::new(self.identity, place, sequence, chain, &[]);
        }
        // The segment's header goes out with its first batch: one durable write for both.
        let header = SegmentHeader::new(&self.identity, open.number, open.generation, sequence, chain);
        BatchWriter::new(self.identity, place, sequence, chain, &header.to_block(&self.identity))
    }

    /// Moves on to a new segment. Returns why not, if that is not possible now.
    fn roll(&mut self, importance: Importance) -> Option<Room> {
        let Some(ready) = self.log.next.take() else {
            if let Some(error) = self.log.starved {
                return Some(Room::Never(error));
            }
            if self.log.preparing {
                return Some(Room::Later);
            }
            let left_alone = match importance {
                Importance::Put => limits::SEGMENTS_RESERVED,
                Importance::Keep => 2,
                Importance::Sweep => 1,
                Importance::Clean => 0,
            };
            if self.segments_free() <= left_alone {
                // A round of upkeep under way may free some; if none is, there was nothing to free.
                let wait = importance != Importance::Clean && self.upkeep.may_free();
                return Some(if wait { Room::Later } else { Room::Never(Error::Full) });
            }
            self.prepare_segment();
            // A recycled file is ready at once.
            return if self.log.next.is_some() { self.roll(importance) } else { Some(Room::Later) };
        };
        if let Some(open) = self.log.open.take() {
            self.seal(open.number);
        }
        let generation = self.log.generation_next;
        self.log.generation_next += 1;
        let segment = Segment {
            generation,
            allocated: ready.reserved,
            live: 0,
            last_sequence: 0,
            state: State::Open,
            readers: 0,
        };
        self.segments.insert(ready.number, segment);
        let at = limits::BLOCK as u32;
        self.log.open = Some(OpenSegment { number: ready.number, generation, at, reserved: ready.reserved });
        None
    }

    fn seal(&mut self, number: u32) {
        let segment = self.segments.get_mut(number).expect("the open segment is in the table");
        if segment.state == State::Open {
            segment.state = State::Sealed;
        }
    }

    /// Starts making the next segment's file, unless there is one or one is being made.
    fn prepare_segment(&mut self) {
        assert!(self.log.next.is_none());
        assert!(!self.log.preparing);
        if let Some(spare) = self.segments.take_spare() {
            self.log.next = Some(ReadySegment { number: spare.number, reserved: spare.allocated });
            return;
        }
        let Some(number) = self.segments.fresh_number() else {
            self.log.starved = Some(Error::Full);
            return;
        };
        self.log.preparing = true;
        self.start(Operation::Create { file: segments::file(number) }, Pending::PrepareCreate { number });
    }

    pub(super) fn prepared_create(&mut self, number: u32, error: Option<DiskError>) {
        if let Some(error) = error {
            return self.prepare_failed(error);
        }
        let reserved = self.settings.segment_bytes.min(limits::RESERVE_STEP);
        let file = segments::file(number);
        let operation = Operation::Reserve { file, length: u64::from(reserved) };
        self.start(operation, Pending::PrepareReserve { number, reserved });
    }

    pub(super) fn prepared_reserve(&mut self, number: u32, reserved: u32, error: Option<DiskError>) {
        if let Some(error) = error {
            self.start(Operation::Unlink { file: segments::file(number) }, Pending::Aside);
            return self.prepare_failed(error);
        }
        self.counters.syncs += 1;
        self.start(Operation::SyncDirectory, Pending::PrepareDirectory { number, reserved });
    }

    pub(super) fn prepared(&mut self, number: u32, reserved: u32, error: Option<DiskError>) {
        if let Some(error) = error {
            self.start(Operation::Unlink { file: segments::file(number) }, Pending::Aside);
            return self.prepare_failed(error);
        }
        self.log.preparing = false;
        self.log.next = Some(ReadySegment { number, reserved });
    }

    fn prepare_failed(&mut self, error: DiskError) {
        self.log.preparing = false;
        self.starve(error);
    }

    /// Whoever is in line for room is refused; the next in line makes a new attempt.
    fn starve(&mut self, error: DiskError) {
        self.log.starved = Some(match error {
            DiskError::NoSpace => Error::Full,
            DiskError::NotFound | DiskError::Failed { .. } => Error::Io,
        });
        if error != DiskError::NoSpace {
            self.count_write_fault();
        }
    }

    fn grow(&mut self, open: OpenSegment, needed: usize) {
        if self.log.growing {
            return;
        }
        let least = open.at + u32::try_from(needed).expect("a batch fits a segment");
        let reserved = least.next_multiple_of(limits::RESERVE_STEP).min(self.settings.segment_bytes);
        assert!(reserved >= least);
        self.log.growing = true;
        let file = segments::file(open.number);
        let operation = Operation::Reserve { file, length: u64::from(reserved) };
        self.start(operation, Pending::Grow { number: open.number, reserved });
    }

    pub(super) fn grown(&mut self, number: u32, reserved: u32, error: Option<DiskError>) {
        self.log.growing = false;
        if let Some(error) = error {
            return self.starve(error);
        }
        if let Some(segment) = self.segments.get_mut(number) {
            segment.allocated = segment.allocated.max(reserved);
        }
        if let Some(open) = &mut self.log.open
            && open.number == number
        {
            open.reserved = open.reserved.max(reserved);
        }
    }

    /// Hands the batch to the disk. Answers that needed no record wait for whatever their reasons wait for.
    fn launch(&mut self, draft: Draft) -> bool {
        let Some(writer) = draft.writer.filter(|writer| writer.records() > 0) else {
            let moved = !draft.answers.is_empty();
            for (tag, answer) in draft.answers {
                self.answer_when_settled(tag, answer);
            }
            return moved;
        };
        let (buffer, chain) = writer.finish();
        let sequence = self.log.sequence_next;
        let open = self.log.open.as_mut().expect("the batch was built in it");
        let (number, first) = (open.number, open.at as usize == limits::BLOCK);
        let offset = if first { 0 } else { open.at };
        let bytes = Bytes::from_owner(buffer);
        open.at = offset + bytes.len() as u32;
        assert!(open.at <= open.reserved, "writes stay inside the file");
        self.segments.get_mut(number).expect("open").last_sequence = sequence;
        self.tail.push(number, offset, bytes.clone(), self.settings.tail_bytes);
        let length = bytes.len() as u64;
        let operation =
            Operation::Write { file: segments::file(number), offset: u64::from(offset), bytes, durable: true };
        let token = self.start(operation, Pending::Batch);
        self.log.flights.push_back(Flight {
            token,
            sequence,
            chain_before: self.log.chain,
            segment: number,
            bytes: length,
            written: None,
            undo: draft.undo,
            swept_before: draft.swept_before,
            answers: draft.answers,
        });
        self.log.sequence_next += 1;
        self.log.chain = chain;
        self.log.bytes_since_checkpoint += length;
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::AckBeforeDurable {
            self.log.flights.back_mut().expect("pushed").written = Some(Ok(()));
            self.settle();
        }
        true
    }

    pub(super) fn batch_written(&mut self, token: u64, result: Result<(), DiskError>) {
        // A batch that was abandoned with the one before it is no longer there.
        if let Some(flight) = self.log.flights.iter_mut().find(|flight| flight.token == token) {
            flight.written = Some(result);
        }
    }

    /// Lets answers out in the order of the chain, as far as it is durable.
    pub(super) fn settle(&mut self) -> bool {
        let mut moved = false;
        while let Some(written) = self.log.flights.front().and_then(|flight| flight.written) {
            moved = true;
            match written {
                Ok(()) => self.settle_front(),
                Err(error) => self.abandon_flights(error),
            }
        }
        moved
    }

    fn settle_front(&mut self) {
        let flight = self.log.flights.pop_front().expect("there is one");
        assert_eq!(flight.sequence, self.log.durable + 1, "the chain has no gaps");
        self.log.durable = flight.sequence;
        self.counters.batches += 1;
        self.counters.batch_bytes += flight.bytes;
        self.upkeep.earn(flight.bytes);
        for (key, _) in &flight.undo {
            if self.unsettled.get(key) == Some(&flight.sequence) {
                self.unsettled.remove(key);
            }
        }
        for (tag, answer) in flight.answers {
            if let Ok(Response::Touched { known }) = &answer {
                self.counters.touches += *known as u64;
            }
            self.finish(tag, answer);
        }
        let later = self.waiting.split_off(&(flight.sequence + 1));
        for waiting in std::mem::replace(&mut self.waiting, later).into_values().flatten() {
            self.resume(waiting);
        }
    }

    /// A write failed. What was not acknowledged is undone, its segment is never written again, its file never synced
    /// again in the hope of success; the next batch opens a new segment, whose header makes void what may yet have reached
    /// the disk.
    fn abandon_flights(&mut self, error: DiskError) {
        let failed = if error == DiskError::NoSpace { Error::Full } else { Error::Io };
        let first = self.log.flights.front().expect("one failed");
        self.log.sequence_next = first.sequence;
        self.log.chain = first.chain_before;
        self.swept_s = first.swept_before;
        if let Some(open) = self.log.open.take() {
            self.seal(open.number);
        }
        let mut answers = Vec::new();
        while let Some(flight) = self.log.flights.pop_back() {
            for (key, old) in flight.undo.into_iter().rev() {
                self.set_slot(key, old);
            }
            self.poison(flight.segment);
            answers.extend(flight.answers);
        }
        self.unsettled.clear();
        self.upkeep_failed(failed);
        if error != DiskError::NoSpace {
            self.count_write_fault();
        }
        for (tag, _) in answers {
            self.finish(tag, Err(failed));
        }
        for waiting in std::mem::take(&mut self.waiting).into_values().flatten() {
            self.resume_after_failure(waiting, failed);
        }
    }

    fn poison(&mut self, number: u32) {
        self.tail.forget(number);
        let durable = self.log.durable;
        let segment = self.segments.get_mut(number).expect("a flight's segment is in use");
        segment.state = State::Poisoned;
        segment.last_sequence = segment.last_sequence.min(durable);
    }

    pub(super) fn count_write_fault(&mut self) {
        self.write_faults += 1;
        if self.write_faults > limits::WRITE_FAULTS_SURVIVED {
            self.read_only = true;
        }
    }

    /// Answers once everything appended so far is durable: the answer may rest on it.
    pub(super) fn answer_when_settled(&mut self, tag: u64, answer: Result<Response, Error>) {
        if self.log.flights.is_empty() {
            if let Ok(Response::Touched { known }) = &answer {
                self.counters.touches += *known as u64;
            }
            return self.finish(tag, answer);
        }
        let appended = self.log.appended();
        self.waiting.entry(appended).or_default().push(Waiting::Answer { tag, answer });
    }
}
