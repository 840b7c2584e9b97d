//! What keeps the log from growing: sweeps, cleaning, checkpoints, freeing. One round at a time.
//!
//! A round removes what has expired (perhaps nothing), copies what is live out of the least live segments (perhaps none),
//! writes the index as a checkpoint, and then frees the segments in which nothing was live at that moment, and punches large
//! dead records in others (`punching`). Only a checkpoint makes a segment free: without it, recovery would still need the
//! removals and leases written there. No stage of a round keeps clients waiting: each does a bounded piece of work a turn.
//!
//! Rounds begin after a sweep, when free segments run short, when much log has gathered, and on closing.
//!
//! Cleaning for want of segments must gain some. A put is refused when so much is live that every segment could be as dense
//! as what survivors are packed into (`Store::live_bytes_max`), with the reserve and the room for the index's growth left
//! alone; below that, some segment always is less dense. So a store that is nearly full moves its survivors round and round,
//! the more slowly the fuller it is, and one that is full still takes leases, removals and sweeps.

use super::checkpointing::Writing;
use super::cleaning::Cleaning;
use super::punching::Hole;
use super::segments::{self, Segment, Spare, State};
use super::sweeping::Sweeping;
use super::{Change, Pending, Store};
use crate::disk::{Disk, DiskError, Operation, Outcome};
use crate::limits;
use crate::request::{Error, Request, Response};
use std::collections::{BTreeSet, VecDeque};

/// A disk operation of upkeep.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Of a checkpoint.
    Write,
    Unlink {
        number: u32,
        freed: u64,
    },
    /// A piece of a segment being cleaned.
    Piece {
        offset: u32,
    },
    Punch {
        number: u32,
        bytes: u64,
    },
}

#[derive(Debug, Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    Sweeping(Sweeping),
    Cleaning(Cleaning),
    Writing(Box<Writing>),
    /// Unlinks and punches in flight, and holes still to be punched.
    Freeing {
        outstanding: usize,
        holes: VecDeque<Hole>,
    },
}

/// A sweep that somebody asked for, to be answered at the end of its last round.
#[derive(Clone, Copy, Debug)]
struct AskedSweep {
    tag: u64,
    cutoff: u32,
    /// Objects removed.
    expired: u64,
    /// Bytes freed in earlier rounds.
    freed: u64,
    /// There was no room for a removal in this round.
    cut_short: Option<Error>,
}

/// What segments are cleaned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Room on the disk: what is given back must be worth the copying.
    Bytes,
    /// Segments to write to: any gain will do.
    Segments,
}

/// There was nothing to gain when so much was live: not again before so much less is, or this batch, which may have sealed a
/// segment.
#[derive(Clone, Copy, Debug)]
struct Pause {
    live: u64,
    until: u64,
}

#[derive(Debug, Default)]
pub(super) struct Upkeep {
    pub(super) phase: Phase,
    /// Completions of operations of earlier rounds are passed over.
    pub(super) round: u64,
    sweep: Option<AskedSweep>,
    freed: u64,
    deferred: VecDeque<(u64, u64)>,
    checkpoint_requested: bool,
    /// Length of each slot's file, if it exists.
    pub(super) slots: [Option<u64>; 2],
    newest: u8,
    /// The newest checkpoint's number.
    number: u64,
    last_bytes: u64,
    /// After a failed round: not before this batch again, unless asked.
    not_before: u64,
    /// Cleaning for want of segments gained nothing.
    pause: Option<Pause>,
    /// Rounds for want of room since a put was last acknowledged, and how many had been then.
    rounds_in_vain: u64,
    puts_before: u64,
    turn: bool,
    /// Segments that were cleaned and still count live bytes, because damage hides whose: not cleaned again.
    pub(super) spoiled: BTreeSet<u32>,
    /// Free segments were short when it was last looked whether a round is due, and none was.
    found_nothing: bool,
}

impl Upkeep {
    /// As recovery found the checkpoint slots.
    pub(super) fn new(slots: [Option<u64>; 2], newest: u8, number: u64) -> Upkeep {
        let last_bytes = slots[usize::from(newest)].unwrap_or(0);
        Upkeep { slots, newest, number, last_bytes, ..Upkeep::default() }
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
            .with(Activity::Sweep, matches!(self.phase, Phase::Sweeping(_)))
            .with(Activity::Cleaning, matches!(self.phase, Phase::Cleaning(_)))
            .with(Activity::Checkpoint, matches!(self.phase, Phase::Writing(_)))
            .with(Activity::Freeing, matches!(self.phase, Phase::Freeing { .. }))
    }

    /// Whether a checkpoint was asked for, as on closing.
    pub(super) fn is_checkpoint_asked(&self) -> bool {
        self.checkpoint_requested
    }

    /// The slot that the next checkpoint goes to.
    pub(super) fn other_slot(&self) -> u8 {
        1 - self.newest
    }

    /// The number that the next checkpoint has.
    pub(super) fn next_number(&self) -> u64 {
        self.number + 1
    }

    pub(super) fn checkpoint_installed(&mut self, slot: u8, bytes: u64) {
        self.newest = slot;
        self.number += 1;
        let length = &mut self.slots[usize::from(slot)];
        *length = Some(length.unwrap_or(0).max(bytes));
        self.last_bytes = bytes;
    }

    /// No round before this batch, unless one is asked for.
    pub(super) fn wait_until(&mut self, sequence: u64) {
        self.not_before = sequence;
    }

    pub(super) fn request_checkpoint(&mut self) {
        self.checkpoint_requested = true;
    }

    pub(super) fn defer_sweep(&mut self, tag: u64, now_s: u64) {
        self.deferred.push_back((tag, now_s));
    }

    pub(super) fn begin_sweep(&mut self, tag: u64, cutoff: u32, sequence: u64) {
        assert!(self.sweep.is_none());
        self.sweep = Some(AskedSweep { tag, cutoff, expired: 0, freed: 0, cut_short: None });
        self.freed = 0;
        self.phase = Phase::Sweeping(Sweeping::new(cutoff, sequence));
    }

    /// So many objects are removed by this batch.
    pub(super) fn note_expired(&mut self, expired: u64, sequence: u64) {
        if let Some(sweep) = &mut self.sweep {
            sweep.expired += expired;
        }
        if let Phase::Sweeping(sweeping) = &mut self.phase {
            sweeping.sequence = sequence;
        }
    }

    /// Length of the newest checkpoint.
    pub(super) fn newest_bytes(&self) -> u64 {
        self.last_bytes
    }

    /// So many bytes have been given back.
    pub(super) fn note_freed(&mut self, bytes: u64) {
        self.freed += bytes;
    }

    pub(super) fn checkpoint_bytes(&self) -> u64 {
        self.slots.iter().flatten().sum()
    }

    /// Alternates between survivors and requests.
    pub(super) fn take_turn(&mut self) -> bool {
        self.turn = !self.turn;
        self.turn
    }

    /// No room for a removal: what has been removed so far is to make it.
    pub(super) fn cut_sweep_short(&mut self, error: Error) {
        if let Some(sweep) = &mut self.sweep {
            sweep.cut_short = Some(error);
        }
    }

    pub(super) fn is_sweep_cut_short(&self) -> bool {
        self.sweep.is_some_and(|sweep| sweep.cut_short.is_some())
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
                // With segments to spare, want of them is no reason yet: they may run short in this very turn.
                self.upkeep.found_nothing = !begun && self.segments_free() <= limits::SEGMENTS_RESERVED;
                begun
            }
            Phase::Sweeping(_) => self.advance_sweep(),
            Phase::Cleaning(_) => self.advance_cleaning(),
            Phase::Writing(_) => self.write_checkpoint(),
            Phase::Freeing { .. } => {
                let moved = self.punch_on();
                let has_ended = matches!(self.upkeep.phase, Phase::Freeing { outstanding: 0, .. });
                if has_ended {
                    self.end_round();
                }
                moved || has_ended
            }
        }
    }

    fn advance_sweep(&mut self) -> bool {
        let (moved, ended) = self.sweep_on();
        if ended {
            self.seal_hollow();
            if !self.upkeep.is_sweep_cut_short() {
                self.begin_cleaning(Want::Bytes, limits::VICTIMS_PER_SWEEP);
            } else if self.segments.dead_at(self.log.appended()).is_empty() {
                // Nothing died whole: what is left of something has to be moved.
                self.begin_cleaning(Want::Segments, 1);
            } else {
                self.begin_checkpoint();
            }
        }
        moved || ended
    }

    /// Open segments are neither freed nor cleaned: one in which hardly anything is live is closed for that.
    fn seal_hollow(&mut self) {
        let is_cut_short = self.upkeep.is_sweep_cut_short();
        for class in 0..self.log.open.len() {
            let Some(open) = self.log.open[class] else { continue };
            let Some(segment) = self.segments.get(open.number) else { continue };
            let is_worth_it = is_cut_short || open.at > self.settings.segment_bytes / 4;
            let share = if is_cut_short { 0 } else { limits::CLEAN_BELOW_PERCENT };
            let is_hollow = segment.live <= u64::from(open.at) * share / 100;
            // One that was never written has nothing to give back.
            if is_worth_it && is_hollow && open.at as usize > limits::BLOCK {
                self.log.open[class] = None;
                self.seal(open.number);
            }
        }
    }

    fn begin_round(&mut self) -> bool {
        if let Some((tag, now_s)) = self.upkeep.deferred.pop_front() {
            let request = Request::Sweep { now_s };
            self.changes.push_front(Change::asked(tag, request));
            return true;
        }
        if self.read_only {
            self.upkeep.checkpoint_requested = false;
            return false;
        }
        if std::mem::take(&mut self.upkeep.checkpoint_requested) {
            self.begin_checkpoint();
            return true;
        }
        if self.log.durable < self.upkeep.not_before {
            return false;
        }
        let due = self.settings.checkpoint_log_bytes.max(2 * self.upkeep.last_bytes);
        let is_log_long = self.log.bytes_since_checkpoint > due;
        let retired = self.run_files.retired_bytes();
        let share = limits::RETIRED_SHARE * self.upkeep.last_bytes.max(limits::CHUNK as u64);
        if is_log_long || retired > share || self.run_files.retired.len() >= limits::RETIRED_RUNS {
            self.begin_checkpoint();
            return true;
        }
        self.segments_free() <= limits::SEGMENTS_RESERVED && self.begin_freeing()
    }

    /// Free segments are short: what is dead first, then the least live.
    fn begin_freeing(&mut self) -> bool {
        let gives_segment = self.run_files.retired_bytes() >= u64::from(self.settings.segment_bytes);
        if gives_segment || !self.segments.dead_at(self.log.durable).is_empty() {
            self.begin_checkpoint();
            return true;
        }
        if self.is_pausing() || self.victims(Want::Segments).is_empty() {
            return false;
        }
        if self.upkeep.puts_before != self.counters.puts {
            self.upkeep.puts_before = self.counters.puts;
            self.upkeep.rounds_in_vain = 0;
        }
        self.upkeep.rounds_in_vain += 1;
        if self.upkeep.rounds_in_vain > self.segments.in_use() {
            // Once round the store, and no put got through: what is dead lies so that moving the rest gains nothing.
            self.upkeep.rounds_in_vain = 0;
            self.pause_cleaning();
            return false;
        }
        // Several at once pack better; but what they leave must fit what is free.
        let most = usize::try_from(self.segments_free()).unwrap_or(usize::MAX).clamp(1, limits::VICTIMS_PER_SWEEP);
        self.begin_cleaning(Want::Segments, most);
        true
    }

    fn pause_cleaning(&mut self) {
        let (live, until) = (self.segments.live_bytes(), self.log.durable + 16);
        self.upkeep.pause = Some(Pause { live, until });
    }

    fn is_pausing(&mut self) -> bool {
        let (live, durable) = (self.segments.live_bytes(), self.log.durable);
        self.upkeep.pause = self.upkeep.pause.filter(|pause| live >= pause.live && durable < pause.until);
        self.upkeep.pause.is_some()
    }

    fn begin_cleaning(&mut self, want: Want, most: usize) {
        let mut victims = self.victims(want);
        victims.truncate(most);
        self.upkeep.phase = Phase::Cleaning(Cleaning::of(victims));
    }

    /// Segments worth cleaning, least live first. What is still on its way to the disk is not read back from it.
    fn victims(&self, want: Want) -> Vec<u32> {
        let mut victims = match want {
            Want::Bytes => {
                // What a hole has given back, or will, is not worth copying for.
                let holes = self.holes.bytes_by_segment();
                let takes = |number: u32, segment: &Segment| {
                    let given_back = self.segments.punched(number) + holes.get(&number).copied().unwrap_or(0);
                    u64::from(segment.allocated).saturating_sub(given_back)
                };
                self.segments.victims(limits::CLEAN_BELOW_PERCENT, takes)
            }
            Want::Segments => {
                let full = self.settings.segment_bytes;
                self.segments.victims(limits::dense_percent(full), |_, _| u64::from(full))
            }
        };
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
            self.pause_cleaning();
        }
        self.free_or_end();
        true
    }

    /// The round has moved or removed what it could: what is dead now is freed.
    fn free_or_end(&mut self) {
        if !self.segments.dead_at(self.log.appended()).is_empty() || self.is_punching_due() {
            return self.begin_checkpoint();
        }
        // Nothing to free: a checkpoint would be for nothing. Records that could not be moved (unreadable, or being
        // changed) must not make us try for ever without pause.
        if self.upkeep.sweep.is_none() {
            self.pause_cleaning();
        }
        self.end_round();
    }

    pub(super) fn start_step(&mut self, operation: Operation, step: Step) {
        let round = self.upkeep.round;
        self.start(operation, Pending::Upkeep { round, step });
    }

    pub(super) fn upkeep_done(&mut self, round: u64, step: Step, result: Result<Outcome, DiskError>) {
        if round != self.upkeep.round {
            return;
        }
        match step {
            Step::Unlink { number, freed } => self.unlinked(number, freed, result.is_ok()),
            Step::Punch { number, bytes } => self.punched(number, bytes, result.map(|_| ())),
            Step::Piece { offset } => self.piece_read(offset, result),
            Step::Write => self.write_step_done(result.err()),
        }
    }

    /// Gives back what was dead at the checkpoint: segments' files, to be written again or to the file system, and the
    /// holes in others.
    pub(super) fn free_dead(&mut self) {
        let Phase::Writing(writing) = &mut self.upkeep.phase else { unreachable!("it was being written") };
        let dead = std::mem::take(&mut writing.dead);
        let retired = std::mem::take(&mut writing.retired);
        let sequence = writing.sequence;
        retired.into_iter().for_each(|number| self.unlink_run(number));
        let mut outstanding = 0;
        for number in dead {
            let Some(segment) = self.segments.get(number).copied() else { continue };
            assert_eq!(segment.live, 0, "nothing comes back to life");
            if segment.readers > 0 || self.log.supply.works_on(number) {
                continue;
            }
            let punched = self.segments.punched(number);
            self.segments.remove(number);
            self.upkeep.spoiled.remove(&number);
            self.tail.forget(number);
            self.set_generation(number, None);
            self.counters.segments_freed += 1;
            let file = segments::file(number);
            let unused = self.disk.release(file);
            let freed = u64::from(segment.allocated).saturating_sub(punched);
            // A file with holes is no written ground any more.
            let is_whole = segment.state == State::Sealed && punched == 0;
            let reusable = is_whole && unused && self.segments.has_spare_room();
            if reusable && self.segments.add_spare(Spare { number, allocated: segment.allocated }) {
                self.upkeep.freed += freed;
            } else {
                outstanding += 1;
                self.start_step(Operation::Unlink { file }, Step::Unlink { number, freed });
            }
        }
        let holes = self.take_holes(sequence);
        self.upkeep.phase = Phase::Freeing { outstanding, holes };
    }

    fn unlinked(&mut self, number: u32, freed: u64, done: bool) {
        if done {
            self.segments.note_unlinked(number);
            self.upkeep.freed += freed;
        }
        if let Phase::Freeing { outstanding, .. } = &mut self.upkeep.phase {
            *outstanding -= 1;
        }
    }

    pub(super) fn end_round(&mut self) {
        if matches!(self.upkeep.phase, Phase::Freeing { .. }) && self.upkeep.freed > 0 {
            // The names may come back after a power cut; recovery knows them as dead and removes them again.
            self.counters.syncs += 1;
            let unlinked = self.segments.take_unlinked();
            self.start(Operation::SyncDirectory, Pending::Names { unlinked });
        }
        self.upkeep.phase = Phase::Idle;
        self.upkeep.found_nothing = false;
        self.upkeep.round += 1;
        let freed = std::mem::take(&mut self.upkeep.freed);
        if let Some(mut sweep) = self.upkeep.sweep.take() {
            sweep.freed += freed;
            match sweep.cut_short.take() {
                // Now there is room for more removals.
                Some(_) if freed > 0 => {
                    self.upkeep.phase = Phase::Sweeping(Sweeping::new(sweep.cutoff, self.log.appended()));
                    self.upkeep.sweep = Some(sweep);
                }
                Some(error) => self.finish(sweep.tag, Err(error)),
                None => self.answer_sweep(sweep),
            }
        }
    }

    fn answer_sweep(&mut self, sweep: AskedSweep) {
        let AskedSweep { tag, expired, freed, .. } = sweep;
        self.counters.sweeps += 1;
        self.counters.expired += expired;
        self.finish(tag, Ok(Response::Swept { expired, freed_bytes: freed }));
    }

    /// A batch failed, and with it whatever this round had in it.
    pub(super) fn upkeep_failed(&mut self, error: Error) {
        self.survivors.clear();
        match &self.upkeep.phase {
            Phase::Writing(_) => return self.checkpoint_undone(),
            Phase::Freeing { .. } | Phase::Idle => return,
            Phase::Sweeping(_) | Phase::Cleaning(_) => {}
        }
        // What was removed before is durable; but whether it was all there was to remove is not known.
        let is_unfinished = matches!(&self.upkeep.phase, Phase::Sweeping(_));
        self.upkeep.phase = Phase::Idle;
        self.upkeep.found_nothing = false;
        self.upkeep.round += 1;
        match self.upkeep.sweep.take() {
            Some(sweep) if is_unfinished => self.finish(sweep.tag, Err(error)),
            Some(sweep) => self.answer_sweep(sweep),
            None => {}
        }
    }
}
