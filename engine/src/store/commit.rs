//! The write path: from changes lined up to answers that are durable.
//!
//! Group commit without a timer: a batch is what lined up while the batches before it were in flight. At most
//! [`limits::BATCHES_IN_FLIGHT`] overlap; answers go out in the order of the chain. A batch overlaps another only if it is not
//! much smaller: its answers go out behind the other's anyway, and what else would have joined it meanwhile makes one
//! write of many.

use super::apply::Changes;
use super::decide::{Decision, Importance, Write};
use super::log::{Flight, OpenSegment};
use super::read::Waiting;
use super::segments::{self, Segment, State};
use super::supply::ReadySegment;
use super::{Change, Pending, Store};
use crate::disk::{Disk, DiskError, Operation};
use crate::format::batch::{BatchWriter, batch_bytes};
use crate::format::record::{Place, record_bytes};
use crate::format::segment::{Era, SegmentHeader};
use crate::key::{Class, Key};
use crate::limits;
use crate::request::{Error, Request, Response};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};

/// A batch being built.
#[derive(Default)]
struct Draft {
    writer: Option<BatchWriter>,
    changes: Changes,
    /// The class whose open segment the writer writes for.
    class: usize,
    /// Classes that cannot be written now: their room is being made.
    blocked: [bool; Class::ALL.len()],
    swept_before: Option<u64>,
    answers: Vec<(u64, Result<Response, Error>)>,
}

impl Draft {
    /// Whether a put of this class must leave the batch to another's.
    fn is_not_for(&self, class: Class) -> bool {
        let wanted = class as usize;
        self.blocked[wanted] || (self.writer.is_some() && self.class != wanted)
    }
}

/// Requests left for a later batch while this one is filled. Whatever touches the same keys stays behind them.
#[derive(Default)]
struct Aside {
    changes: VecDeque<Change>,
    /// Keys of the first `keyed` changes: gathered when somebody asks, since most often all that is behind waits, too.
    keys: HashSet<Key>,
    keyed: usize,
}

impl Aside {
    fn push(&mut self, change: Change) {
        self.changes.push_back(change);
    }

    fn gather_keys(&mut self) {
        for change in self.changes.range(self.keyed..) {
            let Change::Asked { request: Request::Put { key, .. } | Request::RemoveIfOlder { key, .. }, .. } = change
            else {
                continue;
            };
            self.keys.insert(*key);
        }
        self.keyed = self.changes.len();
    }

    fn holds_up(&mut self, change: &Change) -> bool {
        if self.changes.is_empty() {
            return false;
        }
        self.gather_keys();
        match change {
            // These rest on records, not on what was asked before them.
            Change::Survivor { .. } | Change::Expired { .. } | Change::Lost { .. } => false,
            Change::Asked { request, .. } => match request {
                Request::Put { key, .. } | Request::RemoveIfOlder { key, .. } => self.keys.contains(key),
                Request::TouchMany { leases } => leases.iter().any(|(key, _)| self.keys.contains(key)),
                // Time passes for all keys, and in order.
                _ => true,
            },
        }
    }
}

/// Whether a record may be written now.
enum Room {
    Ready,
    /// After this batch has gone.
    NextBatch,
    /// When a file operation under way has ended.
    Later,
    Never(Error),
}

/// What became of a change.
enum Drafted {
    /// It is in the batch, or needed none.
    Settled,
    /// The batch has no room for it.
    NextBatch(Change),
    /// Its class cannot be written now.
    Blocked(Change),
}

impl<D: Disk> Store<D> {
    /// Builds one batch of what has lined up and hands it to the disk. Returns whether anything was done.
    ///
    /// A batch is of one class, and holds whatever of that class has lined up since the last one; leases and removals
    /// ride along with any. Survivors, which are a class of their own, and requests take turns, so that neither cleaning
    /// nor the clients starve.
    pub(super) fn build_batch(&mut self) -> bool {
        let lined_up = self.changes.len() + self.survivors.len();
        if lined_up == 0 || self.log.flights.len() >= limits::BATCHES_IN_FLIGHT || !self.is_worth_overlapping() {
            return false;
        }
        let confirmations = self.counters.confirmations;
        let mut draft = Draft { swept_before: self.swept_s, ..Draft::default() };
        if !self.survivors.is_empty() && self.upkeep.take_turn() {
            self.draft_survivors(&mut draft);
        }
        if draft.writer.is_none() {
            self.draft_requests(&mut draft);
        }
        // A request may be waiting for the very space that survivors are being moved to free.
        if draft.writer.is_none() {
            self.draft_survivors(&mut draft);
        }
        self.log.starved = None;
        let remaining = self.changes.len() + self.survivors.len();
        // What was confirmed out of memory is in line again, and can be decided now.
        self.launch(draft) || remaining < lined_up || self.counters.confirmations > confirmations
    }

    /// Whether what has lined up is worth a write of its own beside the one in flight.
    fn is_worth_overlapping(&self) -> bool {
        let next = batch_bytes(self.lined_up_bytes()) as u64;
        let is_enough = |before: u64| next * self.settings.overlap_share >= before.min(limits::BATCH_BYTES as u64);
        self.log.flights.back().is_none_or(|before| is_enough(before.bytes))
    }

    fn draft_survivors(&mut self, draft: &mut Draft) {
        for _ in 0..self.survivors.len() {
            let Some(change) = self.survivors.pop_front() else { return };
            if let Drafted::NextBatch(change) | Drafted::Blocked(change) = self.draft_change(draft, change) {
                self.survivors.push_front(change);
                return;
            }
        }
    }

    /// Every request in line is looked at once, and once more if a record at hand has said what the index does not know; those
    /// left wait for something that ends with a completion.
    fn draft_requests(&mut self, draft: &mut Draft) {
        let mut aside = Aside::default();
        for _ in 0..2 * self.changes.len() {
            let Some(change) = self.changes.pop_front() else { break };
            let class = change.class();
            if class.is_some_and(|class| draft.is_not_for(class)) || aside.holds_up(&change) {
                aside.push(change);
            } else {
                match self.draft_change(draft, change) {
                    Drafted::Settled => {}
                    Drafted::Blocked(change) => aside.push(change),
                    Drafted::NextBatch(change) => {
                        aside.push(change);
                        break;
                    }
                }
            }
            if aside.changes.len() >= limits::SET_ASIDE {
                break;
            }
        }
        for change in aside.changes.into_iter().rev() {
            self.changes.push_front(change);
        }
    }

    /// Adds one change to the batch, or settles it otherwise. Gives it back if it must wait.
    fn draft_change(&mut self, draft: &mut Draft, change: Change) -> Drafted {
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
            Decision::Confirm { key, locator, whole } => self.confirm(change, key, locator, whole),
            Decision::Crowded => {
                self.counters.crowded += 1;
                return Drafted::Blocked(change);
            }
            Decision::Write(write) => match self.make_room(draft, change.class(), &write) {
                Room::Ready => self.draft_write(draft, write, &change),
                Room::NextBatch => return Drafted::NextBatch(change),
                Room::Later => return Drafted::Blocked(change),
                Room::Never(error) => self.refuse(draft, &change, error),
            },
        }
        Drafted::Settled
    }

    fn refuse(&mut self, draft: &mut Draft, change: &Change, error: Error) {
        match change {
            Change::Asked { tag, .. } => draft.answers.push((*tag, Err(error))),
            // No room for a chore: a survivor stays where it is, what is expired or lost is met again.
            Change::Survivor { .. } | Change::Lost { .. } => self.upkeep.give_up_cleaning(),
            Change::Expired { .. } => self.upkeep.cut_sweep_short(error),
        }
    }

    fn draft_write(&mut self, draft: &mut Draft, mut write: Write, change: &Change) {
        let writer = draft.writer.as_mut().expect("room was made");
        let place = writer.next_place();
        writer.push(&write.header(place), &write.payload);
        let sequence = self.log.sequence_next;
        if let Some((tag, answer)) = write.answer.take() {
            draft.answers.push((tag, Ok(answer)));
        }
        let effect = write.effect(place);
        let removed = self.apply(&mut draft.changes, effect);
        match change {
            Change::Survivor { .. } => self.counters.cleaned += 1,
            Change::Expired { .. } => self.upkeep.note_expired(removed, sequence),
            Change::Lost { .. } => {}
            Change::Asked { tag, request, .. } => self.note_clock(*tag, request, sequence),
        }
    }

    fn note_clock(&mut self, tag: u64, request: &Request, sequence: u64) {
        match request {
            Request::Sweep { now_s } => {
                self.swept_s = Some(self.swept_s.unwrap_or(0).max(*now_s));
                self.counters.deletion_suspended = 0;
                self.upkeep.begin_sweep(tag, self.cutoff(*now_s), sequence);
            }
            Request::ConfirmClock { now_s } => {
                self.swept_s = Some(*now_s);
                self.counters.deletion_suspended = 0;
            }
            _ => {}
        }
    }

    /// Sees to it that this record can be pushed to the draft's writer.
    fn make_room(&mut self, draft: &mut Draft, class: Option<Class>, write: &Write) -> Room {
        let record = record_bytes(write.payload.len());
        if let Some(writer) = &draft.writer {
            let body = writer.body() + record;
            let open = self.log.open[draft.class].expect("a batch is being built in it");
            let end = open.at as usize + batch_bytes(body);
            let fits = body <= limits::BATCH_BYTES && end <= open.reserved as usize;
            return if fits { Room::Ready } else { Room::NextBatch };
        }
        // When segments are scarce, what is being moved to free some goes first.
        let scarce = !self.survivors.is_empty() && self.segments_free() <= limits::SEGMENTS_RESERVED;
        if scarce && write.importance == Importance::Put {
            return Room::NextBatch;
        }
        let needed = batch_bytes(record);
        let class = self.class_to_write(class, needed);
        let room = self.open_room(class, needed, write.importance);
        match room {
            Room::Ready => {
                draft.writer = Some(self.new_writer(class, needed));
                draft.class = class;
            }
            Room::Later => draft.blocked[class] = true,
            Room::NextBatch | Room::Never(_) => {}
        }
        room
    }

    /// The class whose segment a record is written to: its own, unless segments are scarce and another's has room. What has
    /// no class goes wherever there is room.
    fn class_to_write(&self, wanted: Option<Class>, needed: usize) -> usize {
        let size = self.settings.segment_bytes as usize;
        let fits = |class: usize| self.log.open[class].is_some_and(|open| open.at as usize + needed <= size);
        let other = (0..Class::ALL.len()).find(|class| fits(*class));
        match wanted.map(|class| class as usize) {
            None => other.unwrap_or(Class::Fresh as usize),
            Some(own) if fits(own) => own,
            Some(own) if self.has_room_for_classes() => own,
            Some(own) => other.unwrap_or(own),
        }
    }

    fn has_room_for_classes(&self) -> bool {
        self.segments_max() >= limits::SEGMENTS_FOR_CLASSES && self.segments_free() > limits::SEGMENTS_FREE_FOR_CLASSES
    }

    /// Sees to it that the class's open segment has room.
    fn open_room(&mut self, class: usize, needed: usize, importance: Importance) -> Room {
        let size = self.settings.segment_bytes as usize;
        let full = self.log.open[class].is_none_or(|open| open.at as usize + needed > size);
        if full && let Some(not_yet) = self.roll(class, importance) {
            return not_yet;
        }
        let open = self.log.open[class].expect("rolled");
        // Its header is durable before anything but its first batch lies in it.
        if open.at as usize > limits::BLOCK && open.first_sequence > self.log.durable {
            return Room::Later;
        }
        let (at, reserved) = (open.at as usize, open.reserved as usize);
        // Room is asked for all that has lined up. Survivors wait for it: batches of one each would waste what they gain.
        let wanted = (needed + self.lined_up_bytes()).next_multiple_of(limits::BLOCK).min(size - at);
        let enough = if importance == Importance::Clean { wanted } else { needed };
        let ends = if at + wanted <= reserved { reserved } else { self.take_unwritten(class, wanted) as usize };
        if at + enough <= ends {
            return Room::Ready;
        }
        if let Some(error) = self.log.starved {
            return Room::Never(error);
        }
        self.want_room(class, wanted);
        Room::Later
    }

    /// Bytes of records that have lined up, as far as one batch takes them.
    fn lined_up_bytes(&self) -> usize {
        let lined_up = self.survivors.iter().chain(&self.changes).take(limits::MAIL_PER_TURN);
        let bytes: usize = lined_up.map(|change| record_bytes(change.payload_bytes())).sum();
        bytes.min(limits::BATCH_BYTES)
    }

    fn new_writer(&mut self, class: usize, needed: usize) -> BatchWriter {
        let open = self.log.open[class].expect("room was made in it");
        let place = Place { segment: open.number, generation: open.generation, offset: open.at };
        let (sequence, chain) = (self.log.sequence_next, self.log.chain);
        let buffer = self.disk.buffer(self.lined_up_bytes().max(needed) + 2 * limits::BLOCK);
        if open.at as usize > limits::BLOCK {
            return BatchWriter::new(self.identity, place, sequence, chain, &[], buffer);
        }
        // The segment's header goes out with its first batch: one durable write for both.
        let era = Era { class: class as u32, ..self.log.era.expect("begun with the first segment") };
        let header = SegmentHeader::new(&self.identity, open.number, open.generation, sequence, chain, era);
        BatchWriter::new(self.identity, place, sequence, chain, &header.to_block(&self.identity), buffer)
    }

    /// Moves a class on to a new segment. Returns why not, if that is not possible now.
    fn roll(&mut self, class: usize, importance: Importance) -> Option<Room> {
        self.take_new_unwritten();
        if !self.log.supply.is_ready() {
            if let Some(error) = self.log.starved {
                return Some(Room::Never(error));
            }
            if self.log.supply.is_making() {
                self.want_segment();
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
        }
        let Some(ready) = self.take_file() else {
            self.want_segment();
            return Some(Room::Later);
        };
        if let Some(full) = self.log.open[class].take() {
            self.seal(full.number);
        }
        self.open_segment(class, ready);
        None
    }

    fn open_segment(&mut self, class: usize, ready: ReadySegment) {
        assert!(!self.log.supply.works_on(ready.number), "nothing of an earlier life is still written to it");
        let generation = self.log.generation_next;
        self.log.generation_next += 1;
        let sequence = self.log.sequence_next;
        self.log.era.get_or_insert(Era { sequence, generation, class: 0 });
        let segment = Segment {
            generation,
            allocated: ready.allocated,
            live: 0,
            last_sequence: 0,
            state: State::Open,
            readers: 0,
        };
        self.segments.insert(ready.number, segment);
        self.set_generation(ready.number, Some(generation));
        self.counters.recycled_segments += u64::from(ready.recycled);
        let at = limits::BLOCK as u32;
        self.log.open[class] = Some(OpenSegment {
            number: ready.number,
            generation,
            at,
            reserved: ready.written.min(self.settings.segment_bytes),
            first_sequence: self.log.sequence_next,
        });
        self.go_on_writing(ready);
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
        let held = buffer.capacity();
        let open = self.log.open[draft.class].as_mut().expect("the batch was built in it");
        let (number, first) = (open.number, open.at as usize == limits::BLOCK);
        let offset = if first { 0 } else { open.at };
        if first {
            open.first_sequence = sequence;
        }
        let bytes = Bytes::from_owner(buffer);
        open.at = offset + bytes.len() as u32;
        assert!(open.at <= open.reserved, "writes stay inside the file");
        let full = (self.settings.segment_bytes - open.at) as usize <= limits::BLOCK;
        self.segments.get_mut(number).expect("open").last_sequence = sequence;
        self.tail.push(number, offset, bytes.clone(), held, self.settings.tail_bytes);
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
            changes: draft.changes,
            swept_before: draft.swept_before,
            answers: draft.answers,
        });
        if full {
            // Cleaning may have it, whether or not anything more of its class comes.
            self.log.open[draft.class] = None;
            self.seal(number);
        }
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
        self.settle_changes(&flight.changes, flight.sequence);
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
    /// again in the hope of success. No open segment is written on: the next batch begins an era, and its segment's header
    /// makes void what may yet have reached the disk.
    fn abandon_flights(&mut self, error: DiskError) {
        let failed = if error == DiskError::NoSpace { Error::Full } else { Error::Io };
        let first = self.log.flights.front().expect("one failed");
        self.log.sequence_next = first.sequence;
        self.log.chain = first.chain_before;
        self.swept_s = first.swept_before;
        self.log.era = None;
        for open in std::mem::take(&mut self.log.open).into_iter().flatten() {
            self.seal(open.number);
        }
        let mut answers = Vec::new();
        while let Some(flight) = self.log.flights.pop_back() {
            self.undo(flight.changes);
            self.poison(flight.segment);
            answers.extend(flight.answers);
        }
        self.unsettled.clear();
        self.upkeep_failed(failed);
        self.walks_failed();
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
