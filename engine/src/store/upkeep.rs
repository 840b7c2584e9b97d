//! What keeps the log from growing: cleaning, checkpoints, freeing. One round at a time.
//!
//! A round copies what is live out of the least live segments (perhaps none), waits until no batch is in flight, writes the
//! index as a checkpoint, and then frees the segments in which nothing was live at that moment. Only a checkpoint makes a
//! segment free: without it, recovery would still need the removals and leases written there.
//!
//! Rounds begin after a sweep, when free segments run short, when much log has gathered, and on closing.

use super::cleaning::Cleaning;
use super::segments::{self, Spare, State};
use super::{Change, Pending, Store};
use crate::disk::{Disk, DiskError, FileName, Operation, Outcome};
use crate::format::checkpoint::{Checkpoint, CheckpointEntry, CheckpointSegment};
use crate::limits;
use crate::request::{Error, Request, Response};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};

/// A disk operation of upkeep.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Create,
    Directory,
    Chunk,
    Sync,
    Unlink {
        freed: u64,
    },
    /// A piece of a segment being cleaned.
    Piece {
        offset: u32,
    },
}

#[derive(Debug, Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// The swept batch is on its way.
    Sweeping {
        sequence: u64,
    },
    Cleaning(Cleaning),
    /// Waiting for no batch in flight.
    Quiet,
    Writing(Writing),
    /// Unlinks in flight.
    Freeing {
        outstanding: usize,
    },
}

#[derive(Debug)]
pub(super) struct Writing {
    slot: u8,
    file: Bytes,
    at: usize,
    /// Operations in flight.
    chunks: usize,
    /// No more is written; the round ends when nothing is in flight, so that nothing of it lands in the next one's file.
    failed: Option<DiskError>,
    sequence: u64,
    /// Segments dead as of this checkpoint.
    dead: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Upkeep {
    pub(super) phase: Phase,
    /// Completions of operations of earlier rounds are passed over.
    pub(super) round: u64,
    /// The sweep to answer at the end of the round: tag and objects expired.
    sweep: Option<(u64, u64)>,
    freed: u64,
    deferred: VecDeque<(u64, u64)>,
    checkpoint_requested: bool,
    /// Length of each slot's file, if it exists.
    slots: [Option<u64>; 2],
    newest: u8,
    last_bytes: u64,
    /// After a failed round: not before this batch again, unless asked.
    not_before: u64,
    turn: bool,
    /// Segments that were cleaned and still count live bytes, because damage hides whose: not cleaned again.
    pub(super) spoiled: BTreeSet<u32>,
    /// Since the last round ended it was looked whether another is due, and none is.
    found_nothing: bool,
}

impl Upkeep {
    /// As recovery found the checkpoint slots.
    pub(super) fn new(slots: [Option<u64>; 2], newest: u8) -> Upkeep {
        let last_bytes = slots[usize::from(newest)].unwrap_or(0);
        Upkeep { slots, newest, last_bytes, ..Upkeep::default() }
    }

    /// Whether no round is under way.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Whether space may become free without anybody doing anything.
    pub(super) fn may_free(&self) -> bool {
        !(self.is_resting() && self.found_nothing)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.is_resting() && !self.checkpoint_requested && self.deferred.is_empty()
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn under_way(&self) -> crate::simulate::Activities {
        use crate::simulate::{Activities, Activity};
        Activities::default()
            .with(Activity::Sweep, matches!(self.phase, Phase::Sweeping { .. }))
            .with(Activity::Cleaning, matches!(self.phase, Phase::Cleaning(_)))
            .with(Activity::Checkpoint, matches!(self.phase, Phase::Writing(_)))
            .with(Activity::Freeing, matches!(self.phase, Phase::Freeing { .. }))
    }

    pub(super) fn wants_quiet(&self) -> bool {
        matches!(self.phase, Phase::Quiet)
    }

    pub(super) fn request_checkpoint(&mut self) {
        self.checkpoint_requested = true;
    }

    pub(super) fn defer_sweep(&mut self, tag: u64, now_s: u64) {
        self.deferred.push_back((tag, now_s));
    }

    pub(super) fn begin_sweep(&mut self, tag: u64, expired: u64, sequence: u64) {
        assert!(self.sweep.is_none());
        self.sweep = Some((tag, expired));
        self.freed = 0;
        self.phase = Phase::Sweeping { sequence };
    }

    pub(super) fn checkpoint_bytes(&self) -> u64 {
        self.slots.iter().flatten().sum()
    }

    /// Alternates between survivors and requests.
    pub(super) fn take_turn(&mut self) -> bool {
        self.turn = !self.turn;
        self.turn
    }

    /// No room for survivors: the rest stay where they are, and the round goes on to its checkpoint.
    pub(super) fn give_up_cleaning(&mut self) {
        if let Phase::Cleaning(cleaning) = &mut self.phase {
            cleaning.give_up();
        }
    }

    /// Clients have written so much: cleaning may read its share.
    pub(super) fn earn(&mut self, bytes: u64) {
        if let Phase::Cleaning(cleaning) = &mut self.phase {
            cleaning.earn(bytes);
        }
    }
}

impl<D: Disk> Store<D> {
    /// Moves the current round on, or begins one that is due.
    pub(super) fn advance_upkeep(&mut self) -> bool {
        match &mut self.upkeep.phase {
            Phase::Idle => {
                let begun = self.begin_round();
                self.upkeep.found_nothing = !begun;
                begun
            }
            Phase::Sweeping { sequence } => {
                if *sequence > self.log.durable {
                    return false;
                }
                self.counters.sweeps += 1;
                self.counters.expired += self.upkeep.sweep.map_or(0, |(_, expired)| expired);
                self.begin_cleaning(limits::CLEAN_BELOW_PERCENT, limits::VICTIMS_PER_SWEEP);
                true
            }
            Phase::Cleaning(_) => self.advance_cleaning(),
            Phase::Quiet => {
                if !self.log.flights.is_empty() {
                    return false;
                }
                self.begin_checkpoint();
                true
            }
            Phase::Writing(_) => self.write_chunks(),
            Phase::Freeing { outstanding } => {
                if *outstanding > 0 {
                    return false;
                }
                self.end_round();
                true
            }
        }
    }

    fn begin_round(&mut self) -> bool {
        if let Some((tag, now_s)) = self.upkeep.deferred.pop_front() {
            let request = Request::Sweep { now_s };
            self.changes.push_front(Change::Asked { tag, request, compared: None });
            return true;
        }
        if self.read_only {
            self.upkeep.checkpoint_requested = false;
            return false;
        }
        if std::mem::take(&mut self.upkeep.checkpoint_requested) {
            self.upkeep.phase = Phase::Quiet;
            return true;
        }
        if self.log.durable < self.upkeep.not_before {
            return false;
        }
        let due = self.settings.checkpoint_log_bytes.max(2 * self.upkeep.last_bytes);
        if self.log.bytes_since_checkpoint > due {
            self.upkeep.phase = Phase::Quiet;
            return true;
        }
        if self.segments_free() > limits::SEGMENTS_RESERVED {
            return false;
        }
        // Free segments are short: what is dead first, then the least live.
        if !self.segments.dead_at(self.log.durable).is_empty() {
            self.upkeep.phase = Phase::Quiet;
            return true;
        }
        if self.victims(limits::CLEAN_PRESSED_PERCENT).is_empty() {
            return false;
        }
        self.begin_cleaning(limits::CLEAN_PRESSED_PERCENT, 1);
        true
    }

    fn begin_cleaning(&mut self, percent: u64, most: usize) {
        let mut victims = self.victims(percent);
        victims.truncate(most);
        self.upkeep.phase = Phase::Cleaning(Cleaning::of(victims));
    }

    /// Segments worth cleaning, least live first. What is still on its way to the disk is not read back from it.
    fn victims(&self, percent: u64) -> Vec<u32> {
        let mut victims = self.segments.victims(u64::from(self.settings.segment_bytes) * percent / 100);
        let durable = self.log.durable;
        victims.retain(|number| self.segments.get(*number).is_some_and(|segment| segment.last_sequence <= durable));
        victims.retain(|number| !self.upkeep.spoiled.contains(number));
        victims
    }

    fn advance_cleaning(&mut self) -> bool {
        let (moved, ended) = self.clean();
        if !ended {
            return moved;
        }
        if matches!(&self.upkeep.phase, Phase::Cleaning(cleaning) if cleaning.gave_up()) {
            self.upkeep.not_before = self.log.durable + 16;
        }
        if self.segments.dead_at(self.log.appended()).is_empty() {
            // Nothing to free: a checkpoint would be for nothing. Records that could not be moved (unreadable, or being
            // changed) must not make us try for ever without pause.
            if self.upkeep.sweep.is_none() {
                self.upkeep.not_before = self.log.durable + 16;
            }
            self.end_round();
        } else {
            self.upkeep.phase = Phase::Quiet;
        }
        true
    }

    /// Takes the index as it stands. No batch is in flight, so all of it is durable.
    fn begin_checkpoint(&mut self) {
        assert!(self.log.flights.is_empty());
        assert!(self.unsettled.is_empty(), "the index is what is durable");
        let sequence = self.log.durable;
        let checkpoint = self.snapshot(sequence);
        let slot = 1 - self.upkeep.newest;
        let file = Bytes::from(checkpoint.to_file(&self.identity));
        let dead = self.segments.dead_at(sequence);
        let name = FileName::Checkpoint(slot);
        self.upkeep.phase = Phase::Writing(Writing { slot, file, at: 0, chunks: 0, failed: None, sequence, dead });
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::FreeBeforeCheckpoint {
            return self.free_dead();
        }
        if self.upkeep.slots[usize::from(slot)].is_none() {
            self.count_chunk(1);
            self.start_step(Operation::Create { file: name }, Step::Create);
        }
    }

    fn snapshot(&self, sequence: u64) -> Checkpoint {
        let open = self.log.open.map(|open| open.number);
        Checkpoint {
            sequence,
            chain: self.log.chain,
            swept_s: self.swept_s,
            generation_next: self.log.generation_next,
            segments: self
                .segments
                .iter()
                .map(|(number, segment)| CheckpointSegment {
                    check: 0,
                    last_sequence: if Some(number) == open { u64::MAX } else { segment.last_sequence },
                    segment: number,
                    generation: segment.generation,
                })
                .collect(),
            entries: self
                .index
                .iter()
                .map(|(key, slot)| CheckpointEntry {
                    check: 0,
                    version: slot.version,
                    segment: slot.segment,
                    offset: slot.offset,
                    length: slot.length,
                    expiry: slot.expiry,
                    placement: key.placement,
                    name: key.name,
                    kind: key.kind,
                    reserved: [0; 3],
                })
                .collect(),
        }
    }

    fn count_chunk(&mut self, by: usize) {
        if let Phase::Writing(writing) = &mut self.upkeep.phase {
            writing.chunks += by;
        }
    }

    pub(super) fn start_step(&mut self, operation: Operation, step: Step) {
        let round = self.upkeep.round;
        self.start(operation, Pending::Upkeep { round, step });
    }

    fn write_chunks(&mut self) -> bool {
        let mut moved = false;
        loop {
            let Phase::Writing(writing) = &mut self.upkeep.phase else { return moved };
            let made = self.upkeep.slots[usize::from(writing.slot)].is_some();
            if !made || writing.failed.is_some() || writing.chunks >= 4 {
                return moved;
            }
            let (slot, at) = (writing.slot, writing.at);
            if at == writing.file.len() {
                return moved;
            }
            let end = (at + limits::CHUNK).min(writing.file.len());
            let bytes = writing.file.slice(at..end);
            writing.at = end;
            writing.chunks += 1;
            moved = true;
            let file = FileName::Checkpoint(slot);
            self.start_step(Operation::Write { file, offset: at as u64, bytes, durable: false }, Step::Chunk);
        }
    }

    pub(super) fn upkeep_done(&mut self, round: u64, step: Step, result: Result<Outcome, DiskError>) {
        if round != self.upkeep.round {
            return;
        }
        match step {
            Step::Unlink { freed } => return self.unlinked(freed, result.is_ok()),
            Step::Piece { offset } => return self.piece_read(offset, result),
            Step::Create | Step::Directory | Step::Chunk | Step::Sync => {}
        }
        let Phase::Writing(writing) = &mut self.upkeep.phase else {
            unreachable!("steps of this round are steps of its checkpoint");
        };
        writing.chunks -= 1;
        writing.failed = writing.failed.or(result.err());
        if let Some(error) = writing.failed {
            if writing.chunks == 0 {
                self.checkpoint_failed(error);
            }
            return;
        }
        let slot = usize::from(writing.slot);
        match step {
            Step::Create => {
                writing.chunks += 1;
                self.counters.syncs += 1;
                self.start_step(Operation::SyncDirectory, Step::Directory);
            }
            Step::Directory => self.upkeep.slots[slot] = Some(0),
            Step::Chunk if writing.at == writing.file.len() && writing.chunks == 0 => {
                writing.chunks += 1;
                let file = FileName::Checkpoint(writing.slot);
                self.counters.syncs += 1;
                self.start_step(Operation::Sync { file }, Step::Sync);
            }
            Step::Chunk => {}
            Step::Sync => self.checkpoint_written(),
            Step::Unlink { .. } | Step::Piece { .. } => unreachable!("dealt with above"),
        }
    }

    fn checkpoint_written(&mut self) {
        let Phase::Writing(writing) = &self.upkeep.phase else { unreachable!("it was being written") };
        let (slot, bytes, sequence) = (writing.slot, writing.file.len() as u64, writing.sequence);
        assert!(sequence <= self.log.durable);
        self.upkeep.newest = slot;
        let length = &mut self.upkeep.slots[usize::from(slot)];
        *length = Some(length.unwrap_or(0).max(bytes));
        self.upkeep.last_bytes = bytes;
        self.log.bytes_since_checkpoint = 0;
        self.counters.checkpoints += 1;
        self.free_dead();
    }

    /// Gives back what was dead at the checkpoint: one file to be written again, the others to the file system.
    fn free_dead(&mut self) {
        let Phase::Writing(writing) = &mut self.upkeep.phase else { unreachable!("it was being written") };
        let dead = std::mem::take(&mut writing.dead);
        let mut outstanding = 0;
        for number in dead {
            let Some(segment) = self.segments.get(number).copied() else { continue };
            assert_eq!(segment.live, 0, "nothing comes back to life");
            if segment.readers > 0 {
                continue;
            }
            self.segments.remove(number);
            self.upkeep.spoiled.remove(&number);
            self.tail.forget(number);
            self.counters.segments_freed += 1;
            let file = segments::file(number);
            let unused = self.disk.release(file);
            let freed = u64::from(segment.allocated);
            let reusable = segment.state == State::Sealed && unused && self.segments.has_spare_room();
            if reusable && self.segments.add_spare(Spare { number, allocated: segment.allocated }) {
                self.upkeep.freed += freed;
            } else {
                outstanding += 1;
                self.start_step(Operation::Unlink { file }, Step::Unlink { freed });
            }
        }
        self.upkeep.phase = Phase::Freeing { outstanding };
    }

    fn unlinked(&mut self, freed: u64, done: bool) {
        if done {
            self.upkeep.freed += freed;
        }
        if let Phase::Freeing { outstanding } = &mut self.upkeep.phase {
            *outstanding -= 1;
        }
    }

    fn end_round(&mut self) {
        if matches!(self.upkeep.phase, Phase::Freeing { .. }) && self.upkeep.freed > 0 {
            // The names may come back after a power cut; recovery knows them as dead and removes them again.
            self.counters.syncs += 1;
            self.start(Operation::SyncDirectory, Pending::Aside);
        }
        self.upkeep.phase = Phase::Idle;
        self.upkeep.found_nothing = false;
        self.upkeep.round += 1;
        if let Some((tag, expired)) = self.upkeep.sweep.take() {
            let answer = Response::Swept { expired, freed_bytes: self.upkeep.freed };
            self.finish(tag, Ok(answer));
        }
        self.upkeep.freed = 0;
    }

    /// The checkpoint could not be written. The older one is still good, so nothing is lost; nothing is freed.
    fn checkpoint_failed(&mut self, error: DiskError) {
        if error != DiskError::NoSpace {
            self.count_write_fault();
        }
        self.upkeep.not_before = self.log.durable + 256;
        self.end_round();
    }

    /// A batch failed, and with it whatever this round had in it.
    pub(super) fn upkeep_failed(&mut self, error: Error) {
        self.survivors.clear();
        match self.upkeep.phase {
            // What a checkpoint holds was durable before: it goes on.
            Phase::Writing(_) | Phase::Freeing { .. } | Phase::Idle => return,
            Phase::Sweeping { .. } | Phase::Cleaning(_) | Phase::Quiet => {}
        }
        let undone = matches!(self.upkeep.phase, Phase::Sweeping { sequence } if sequence > self.log.durable);
        self.upkeep.phase = Phase::Idle;
        self.upkeep.found_nothing = false;
        self.upkeep.round += 1;
        if let Some((tag, expired)) = self.upkeep.sweep.take() {
            // Cut short behind its own batch, a sweep has still removed what it removed.
            let answer = if undone { Err(error) } else { Ok(Response::Swept { expired, freed_bytes: 0 }) };
            self.finish(tag, answer);
        }
    }
}
