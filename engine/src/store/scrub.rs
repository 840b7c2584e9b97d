//! Scrub: sealed segments are read again, in order and within a budget, so that rot is found while replicas can still repair it.
//!
//! Whoever drives the store decides how much and when ([`crate::Request::Scrub`]); the engine has no clock. A cursor
//! goes round the sealed segments; behind the last of them a pass goes through the runs (see [`super::scrub_runs`]).
//! What it reads comes from the device, not from memory: a cached page proves nothing. Of each batch it verifies the
//! header, the link over all record headers, the records' own checksums, and the places they repeat (segment,
//! generation, offset), which is how a write that went elsewhere is noticed.
//!
//! What a sealed segment may hold besides sound batches is no damage: zeros that were never written, the payloads of
//! dead records that were punched, and behind its last batch the remains of what was given up before a restart. So a
//! stretch that cannot be read counts only if a batch that counts lies behind it, or the index points into it. To
//! notice the second, the bytes of sound records the index points to are added up; if at the segment's end they are
//! less than it should have live, or anything was suspect, every live record of the segment is read alone. Which those
//! are, a walk of the whole index says: it costs a reading of all runs, but names what has lost even its header. One
//! that is damaged leaves the index, as when a get finds it: replicas repair it.
//!
//! Invariants:
//! - one read of a stretch in flight at a time, or up to [`limits::SCRUB_RECHECKS_IN_FLIGHT`] of single records;
//! - while a read is in flight its segment is held, so the cursor's generation is the file's;
//! - a step ends between batches, with an empty window: between requests nothing is kept but the cursor;
//! - each step that finds a sealed segment or a run moves the cursor, whatever the budget.

use super::arcs::walk::{Entry, Walk};
use super::read::{Purpose, Reading};
use super::scrub_runs::RunCursor;
use super::segments::{self, Segment, State};
use super::walks::{Errand, Walking};
use super::{Change, Pending, Store};
use crate::disk::{Disk, DiskError, Operation, Outcome};
use crate::format::batch::{BatchView, batch_ahead, read_batch_alone};
use crate::format::record::{Action, Place, record_bytes};
use crate::format::run::Run;
use crate::limits::{self, BLOCK};
use crate::request::Response;
use std::collections::VecDeque;

/// The state of scrubbing between turns.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// Steps asked for, each with its tag and budget.
    waiting: VecDeque<(u64, u64)>,
    pub(super) step: Option<Step>,
    /// The number at which the current pass began; it ends when the cursor would come by it again.
    first: Option<u32>,
    cursor: Option<Cursor>,
    /// The segment the cursor left last.
    left: Option<u32>,
    /// The pass has gone through the segments, and is among the runs.
    pub(super) runs: Option<RunCursor>,
    /// The store is being closed: steps end where they are.
    is_stopping: bool,
}

/// One request being worked on.
#[derive(Debug)]
pub(super) struct Step {
    tag: u64,
    pub(super) budget: u64,
    pub(super) bytes: u64,
    records: u64,
    damaged: u64,
    /// Of runs.
    pub(super) damaged_pages: u64,
    /// Bytes read from the cursor on and not yet verified.
    window: Vec<u8>,
    /// A stretch of so many bytes is being read.
    pub(super) reading: Option<usize>,
    /// Live records of a segment in trouble, to be read alone.
    rechecks: VecDeque<Entry>,
    rechecking: usize,
    /// A walk is looking for more of them.
    is_listing: bool,
}

/// Where scrubbing is within a segment, and what it has found there.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    segment: u32,
    generation: u32,
    offset: usize,
    /// The last sound batch: its number and link.
    before: Option<(u64, u64)>,
    /// Bytes of sound records that the index pointed to.
    live_seen: u64,
    /// Something unreadable that is not zeros lies between here and the last sound batch.
    in_gap: bool,
    /// Damaged records, and stretches that were batches.
    suspect: u64,
    /// Live records that were read alone and found damaged.
    lost: u64,
    rechecked: bool,
    /// The device failed to read a stretch of it.
    was_refused: bool,
}

impl Cursor {
    fn at_start(number: u32, segment: &Segment) -> Cursor {
        Cursor {
            segment: number,
            generation: segment.generation,
            offset: 0,
            before: None,
            live_seen: 0,
            in_gap: false,
            suspect: 0,
            lost: 0,
            rechecked: false,
            was_refused: false,
        }
    }

    fn place(&self) -> Place {
        let offset = u32::try_from(self.offset).expect("a segment is below 4 GiB");
        Place { segment: self.segment, generation: self.generation, offset }
    }
}

/// What lies at the cursor.
enum Ahead<'a> {
    Batch(BatchView<'a>),
    /// So many bytes of it are missing in the window.
    Incomplete(usize),
    /// Not a batch that can be read.
    Gap,
}

impl<D: Disk> Store<D> {
    pub(super) fn scrub(&mut self, tag: u64, budget: u64) {
        self.scrub.waiting.push_back((tag, budget));
    }

    /// Ends scrubs where they are, so that the store can be closed: they are answered with what they have done.
    pub fn stop_scrubbing(&mut self) {
        self.scrub.is_stopping = true;
        if let Some(step) = &mut self.scrub.step {
            step.rechecks.clear();
            step.is_listing = false;
        }
        for walking in self.walks.values_mut().filter(|walking| matches!(walking.errand, Errand::Recheck { .. })) {
            walking.has_ended = true;
        }
    }

    /// Moves scrubbing on. Returns whether something happened.
    pub(super) fn advance_scrub(&mut self) -> bool {
        if self.scrub.step.is_none() {
            let Some((tag, budget)) = self.scrub.waiting.pop_front() else { return false };
            self.scrub.step = Some(Step {
                tag,
                budget,
                bytes: 0,
                records: 0,
                damaged: 0,
                damaged_pages: 0,
                window: Vec::new(),
                reading: None,
                rechecks: VecDeque::new(),
                rechecking: 0,
                is_listing: false,
            });
        }
        let rechecked = self.recheck();
        let step = self.step();
        let is_busy = step.reading.is_some() || step.rechecking > 0 || !step.rechecks.is_empty() || step.is_listing;
        if is_busy || self.is_dropping() {
            return rechecked;
        }
        self.move_cursor();
        true
    }

    /// Nothing is in flight: reads on, leaves the segment, or ends the step.
    fn move_cursor(&mut self) {
        if self.scrub.is_stopping {
            return self.end_step(false);
        }
        if let Some(cursor) = self.scrub.runs {
            return self.move_run_cursor(cursor);
        }
        let (spent, budget) = (self.step().bytes, self.step().budget);
        let Some(cursor) = self.cursor_still_there() else {
            // Leaving a segment is the end of a step that has used its budget, so that each step moves on.
            if spent > 0 && spent >= budget {
                return self.end_step(false);
            }
            return self.enter_next_segment();
        };
        let end = self.segments.get(cursor.segment).map_or(0, |segment| segment.allocated as usize);
        if cursor.offset >= end {
            return self.leave_segment(cursor);
        }
        let is_between_batches = self.step().window.is_empty();
        if spent > 0 && spent >= budget && is_between_batches {
            return self.end_step(false);
        }
        self.read_stretch(&cursor, end);
    }

    pub(super) fn step(&mut self) -> &mut Step {
        self.scrub.step.as_mut().expect("called during a step")
    }

    /// The cursor, unless its segment was freed (and perhaps opened anew) since the last step.
    fn cursor_still_there(&mut self) -> Option<Cursor> {
        let cursor = self.scrub.cursor?;
        let same = self.segments.get(cursor.segment).is_some_and(|segment| segment.generation == cursor.generation);
        if !(same && self.is_settled(cursor.segment)) {
            self.scrub.cursor = None;
            self.step().window.clear();
        }
        self.scrub.cursor
    }

    /// Whether nothing is written to a segment any more.
    fn is_settled(&self, number: u32) -> bool {
        let settled = |segment: &Segment| segment.state != State::Open && segment.last_sequence <= self.log.durable;
        self.segments.get(number).is_some_and(settled)
    }

    /// Goes on with the next sealed segment by number, round from where the pass began; behind the last one come the runs.
    fn enter_next_segment(&mut self) {
        let sealed: Vec<u32> =
            self.segments.iter().map(|(number, _)| number).filter(|number| self.is_settled(*number)).collect();
        if self.scrub.first.is_none() && !sealed.is_empty() {
            // A store that is often opened begins elsewhere each time, and so gets round all the same.
            self.scrub.first = Some(sealed[(self.log.durable % sealed.len() as u64) as usize]);
        }
        let Some(first) = self.scrub.first else { return self.enter_runs() };
        let way = |number: &u32| number.wrapping_sub(first);
        let gone = self.scrub.left.map(|left| way(&left));
        let next = sealed.iter().filter(|number| gone.is_none_or(|gone| way(number) > gone)).min_by_key(|n| way(n));
        let Some((number, segment)) = next.and_then(|number| Some((*number, self.segments.get(*number)?))) else {
            return self.enter_runs();
        };
        self.scrub.cursor = Some(Cursor::at_start(number, segment));
    }

    fn enter_runs(&mut self) {
        self.scrub.runs = Some(self.first_run_page());
    }

    /// At a segment's end: if anything is wrong with it, its live records are read one by one before it is left.
    fn leave_segment(&mut self, mut cursor: Cursor) {
        if self.is_in_trouble(&cursor) && !cursor.rechecked {
            cursor.rechecked = true;
            self.scrub.cursor = Some(cursor);
            self.list_live(cursor.segment);
            return;
        }
        let damaged = cursor.suspect.max(cursor.lost);
        self.step().damaged += damaged;
        self.step().window.clear();
        self.counters.scrub_damaged += damaged;
        self.scrub.left = Some(cursor.segment);
        self.scrub.cursor = None;
    }

    /// Whether damage just found still has to leave the index: before that a segment is not left, so that nobody finds it again.
    fn is_dropping(&self) -> bool {
        let was_in_trouble = self.scrub.cursor.is_some_and(|cursor| cursor.rechecked);
        was_in_trouble && self.changes.iter().any(|change| matches!(change, Change::Lost { .. }))
    }

    fn is_in_trouble(&self, cursor: &Cursor) -> bool {
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::ScrubLooksAway {
            return false;
        }
        let live = self.segments.get(cursor.segment).map_or(0, |segment| segment.live);
        cursor.suspect > 0 || cursor.was_refused || cursor.live_seen < live
    }

    /// Begins a walk to all that lives in a segment.
    fn list_live(&mut self, number: u32) {
        self.step().is_listing = true;
        let walk = Walk::new(self.identity, [0; 20], [0xff; 20], None);
        self.begin_walk(Walking::new(walk, Errand::Recheck { segment: number }));
    }

    /// The walk has come to an entry of the segment.
    pub(super) fn recheck_later(&mut self, entry: &Entry) {
        self.step().rechecks.push_back(*entry);
    }

    /// Whether the walk is far enough ahead.
    pub(super) fn has_enough_to_recheck(&self) -> bool {
        self.scrub.step.as_ref().is_some_and(|step| step.rechecks.len() >= limits::SCRUB_RECHECKS_LISTED)
    }

    /// The walk has ended.
    pub(super) fn listed_live(&mut self) {
        self.step().is_listing = false;
    }

    pub(super) fn end_pass(&mut self) {
        self.scrub.left = None;
        self.scrub.runs = None;
        // Where nothing is sealed yet, going round is no pass.
        self.counters.scrub_passes += u64::from(self.scrub.first.take().is_some());
        self.end_step(true);
    }

    pub(super) fn end_step(&mut self, wrapped: bool) {
        let step = self.scrub.step.take().expect("called during a step");
        let store_bytes = self.segments.allocated_bytes() + self.index.runs().iter().map(Run::file_bytes).sum::<u64>();
        let Step { tag, bytes, records, damaged, damaged_pages, .. } = step;
        self.finish(tag, Ok(Response::Scrubbed { bytes, records, damaged, damaged_pages, wrapped, store_bytes }));
    }

    /// Reads the next stretch: what the batch at the cursor lacks, or as much as the budget leaves.
    fn read_stretch(&mut self, cursor: &Cursor, end: usize) {
        let step = self.scrub.step.as_mut().expect("called during a step");
        let missing = match look_ahead(&step.window, cursor, end, &self.identity) {
            Ahead::Incomplete(missing) => missing,
            Ahead::Batch(_) | Ahead::Gap => 0,
        };
        let left = usize::try_from(step.budget.saturating_sub(step.bytes)).unwrap_or(usize::MAX);
        let from = cursor.offset + step.window.len();
        assert!(from < end, "a window never covers more than its segment");
        let length = left.clamp(BLOCK, limits::SCRUB_CHUNK).max(missing).next_multiple_of(BLOCK).min(end - from);
        step.reading = Some(length);
        self.segments.get_mut(cursor.segment).expect("looked at above").readers += 1;
        let file = segments::file(cursor.segment);
        self.start(Operation::Read { file, offset: from as u64, length, keep: false }, Pending::Scrub);
    }

    /// A stretch was read: verifies what is whole of it.
    pub(super) fn stretch_read(&mut self, result: Result<Outcome, DiskError>) {
        let mut cursor = self.scrub.cursor.expect("the cursor stays while a read is in flight");
        let wanted = self.step().reading.take().expect("one stretch at a time");
        let segment = self.segments.get_mut(cursor.segment).expect("held while it was read");
        assert_eq!(segment.generation, cursor.generation, "held while it was read");
        assert!(segment.readers > 0, "let go once for each hold");
        segment.readers -= 1;
        let allocated = segment.allocated as usize;
        let mut end = allocated;
        let last = segment.last_sequence;
        let mut step = self.scrub.step.take().expect("called during a step");
        match result {
            Ok(Outcome::Read(bytes)) => {
                step.bytes += bytes.len() as u64;
                self.counters.scrubbed_bytes += bytes.len() as u64;
                step.window.extend_from_slice(&bytes);
                if bytes.len() < wanted {
                    // A file cut short: what the index has behind its end is found missing when the segment is left.
                    end = cursor.offset + step.window.len();
                }
                let verified = self.verify_window(&mut cursor, &mut step, end, last);
                step.window.drain(..verified);
                if bytes.len() < wanted {
                    cursor.offset = allocated;
                    step.window.clear();
                }
            }
            Ok(_) => unreachable!("a read brings bytes"),
            Err(_) => {
                // The device does not give this stretch, which is counted as its error and says nothing of the records: they
                // are tried one by one, and scrubbing goes on behind it.
                step.bytes += wanted as u64;
                cursor.offset += step.window.len() + wanted;
                cursor.was_refused = true;
                cursor.before = None;
                step.window.clear();
            }
        }
        self.scrub.cursor = Some(cursor);
        self.scrub.step = Some(step);
    }

    /// Verifies batches from the window's start on, and returns how many bytes of it are done with.
    fn verify_window(&mut self, cursor: &mut Cursor, step: &mut Step, end: usize, last: u64) -> usize {
        let mut at = 0;
        while at < step.window.len() {
            let bytes = &step.window[at..];
            if cursor.offset == 0 {
                // The segment's header is judged by nobody but recovery: a power cut may have kept the batch written with
                // it and not the header itself, and batches repeat all that it says.
                cursor.offset = BLOCK.min(bytes.len());
                at += cursor.offset;
                continue;
            }
            let length = match look_ahead(bytes, cursor, end, &self.identity) {
                Ahead::Batch(view) => {
                    let (sound, live) = self.verify_batch(&view, cursor, last);
                    step.records += sound;
                    self.counters.scrubbed_records += sound;
                    cursor.live_seen += live;
                    // Of a last batch whose padding a power cut took from the file, all that counts may be there.
                    view.len().min(bytes.len())
                }
                Ahead::Incomplete(_) => break,
                Ahead::Gap => {
                    let block = &bytes[..BLOCK.min(bytes.len())];
                    cursor.in_gap |= block.iter().any(|byte| *byte != 0);
                    block.len()
                }
            };
            cursor.offset += length;
            at += length;
        }
        at
    }

    /// A batch whose link fits: judges what lies before it, its place in the chain and its records. Returns how many
    /// records are sound, and how many bytes of them the index points to.
    fn verify_batch(&self, view: &BatchView<'_>, cursor: &mut Cursor, last: u64) -> (u64, u64) {
        let counts = view.header.sequence <= last;
        let follows = cursor.before.is_none_or(|(sequence, chain)| {
            view.header.sequence != sequence.wrapping_add(1) || view.header.chain_before == chain
        });
        if counts {
            cursor.suspect += u64::from(std::mem::take(&mut cursor.in_gap));
            // What was punched is dead; if it is not, the bytes that should live are found missing.
            cursor.suspect += u64::from(!follows) + u64::from(view.damaged - view.punched);
        }
        cursor.before = Some((view.header.sequence, view.chain));
        let mut live = 0;
        for (header, _) in view.records.iter().filter(|(header, _)| header.action == Action::Put) {
            live += self.live_entry(header).map_or(0, |entry| entry.locator.bytes());
        }
        (view.records.len() as u64, live)
    }

    /// Hands records of a segment in trouble to the read path, which drops those that are damaged.
    fn recheck(&mut self) -> bool {
        let mut moved = false;
        while self.step().rechecking < limits::SCRUB_RECHECKS_IN_FLIGHT {
            let Some(entry) = self.step().rechecks.pop_front() else { break };
            moved = true;
            let hash = self.index.address(&entry.key).hash;
            if self.is_live(&entry) && self.unsettled_by(hash).is_none() {
                let length = record_bytes(entry.length as usize) as u64;
                self.counters.scrubbed_bytes += length;
                self.step().bytes += length;
                self.step().rechecking += 1;
                self.read_from_disk(Reading::of(&entry, Purpose::Scrub { entry }));
            }
        }
        moved
    }

    /// A record read alone is sound, or was found damaged, or the device did not give it.
    pub(super) fn rechecked(&mut self, is_sound: bool) {
        let step = self.step();
        assert!(step.rechecking > 0);
        step.rechecking -= 1;
        let cursor = self.scrub.cursor.as_mut().expect("the cursor stays while records of its segment are read");
        cursor.lost += u64::from(!is_sound);
    }
}

/// What lies at the cursor, whose first bytes are `window`; the segment ends at `end`.
fn look_ahead<'a>(window: &'a [u8], cursor: &Cursor, end: usize, identity: &crate::format::Identity) -> Ahead<'a> {
    let room = end - cursor.offset;
    if window.len() < BLOCK.min(room) {
        return Ahead::Incomplete(BLOCK.min(room) - window.len());
    }
    match batch_ahead(window, cursor.place(), identity) {
        Ok((_, length)) if length > window.len() && length <= room => Ahead::Incomplete(length - window.len()),
        Ok(_) => read_batch_alone(window, cursor.place(), identity).map_or(Ahead::Gap, Ahead::Batch),
        Err(_) => Ahead::Gap,
    }
}
