//! Segments' files, made ready before batches need them.
//!
//! A batch into a block that was never written costs more than its bytes: at completion the file system has to note that
//! the block now holds data (decision 0006). So a file is allocated and then written with zeros in the background, a chunk
//! at a time, ahead of the batches; a dead segment's file, written in an earlier life, is better still and taken first.
//!
//! The work is bounded by need. A file begins small and grows when half of it is used, at most doubling; one further file is
//! made when an open segment is half full; a store that is not written makes nothing. Each chunk of zeros may be used as
//! soon as it is written: a small batch that has come to the end of them waits for one chunk, which saves some batches behind
//! it what it saves this one. Large batches do not wait, and zeros stand back while they are in flight: a byte of
//! zeros costs the device what a byte of a batch does, and what it saves is the same for every batch, however large. They, and
//! whatever batch comes while zeros stand back, take all of the room as it is, allocated and partly unwritten.
//!
//! Invariants:
//! - zeros are written only behind the end of what batches may use (`OpenSegment::reserved`), so that a batch and zeros
//!   never meet;
//! - a file that is worked on is new or its segment's, and a segment is not freed before an operation on its file has ended:
//!   else zeros of one life would fall on the batches of the next.

use super::segments::{self, Spare, State};
use super::{Pending, Store};
use crate::disk::{Buffer, Disk, DiskError, Operation};
use crate::limits;
use crate::request::Error;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What zeros are written from, by all shards.
static ZEROS: LazyLock<Bytes> = LazyLock::new(|| {
    let mut zeros = Buffer::with_capacity(limits::ZEROS);
    zeros.pad(limits::ZEROS);
    Bytes::from_owner(zeros)
});

/// A file ready to be opened as a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadySegment {
    pub(crate) number: u32,
    /// Bytes of the file.
    pub(crate) allocated: u32,
    /// So many of them are written, and may be used at once.
    pub(crate) written: u32,
    /// It has been a segment before.
    pub(crate) recycled: bool,
}

/// A file being made or lengthened.
#[derive(Debug)]
struct Work {
    is_new: bool,
    /// Zeros reach to here.
    at: u32,
    to: u32,
    stage: Stage,
    /// Somebody waits for the room, and wants so much of it.
    awaited: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Creating,
    /// Its name is being made durable.
    Naming,
    Allocating,
    /// Between two chunks of zeros.
    Resting,
    Zeroing,
    Syncing,
}

#[derive(Debug, Default)]
pub(crate) struct Supply {
    /// A file for whoever needs one next.
    ready: Option<ReadySegment>,
    /// By segment number.
    works: BTreeMap<u32, Work>,
    /// After a failure: nothing is made ahead of need before this batch.
    not_before: u64,
}

impl Supply {
    /// Whether a new file is ready or being made: it counts as a segment in use.
    pub(crate) fn claims_one(&self) -> bool {
        self.ready.is_some() || self.is_making()
    }

    pub(crate) fn is_making(&self) -> bool {
        self.works.values().any(|work| work.is_new)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    pub(crate) fn take_ready(&mut self) -> Option<ReadySegment> {
        self.ready.take()
    }

    /// Whether this file is being made ready.
    pub(crate) fn works_on(&self, number: u32) -> bool {
        self.works.contains_key(&number)
    }

    /// Bytes of files that are not in the table of segments.
    pub(crate) fn bytes(&self) -> u64 {
        let made =
            |work: &&Work| work.is_new && !matches!(work.stage, Stage::Creating | Stage::Naming | Stage::Allocating);
        let making: u64 = self.works.values().filter(made).map(|work| u64::from(work.to)).sum();
        making + self.ready.map_or(0, |ready| u64::from(ready.allocated))
    }
}

impl<D: Disk> Store<D> {
    /// Moves on what is being made ready, and begins what will soon be needed.
    pub(super) fn advance_supply(&mut self) -> bool {
        if self.log.supply.works.is_empty() && self.changes.is_empty() && self.survivors.is_empty() {
            return false;
        }
        self.plan_ahead();
        let resting =
            |(number, work): (&u32, &Work)| (work.stage == Stage::Resting).then_some((work.awaited.is_none(), *number));
        let mut numbers: Vec<_> = self.log.supply.works.iter().filter_map(resting).collect();
        // What is waited for comes first.
        numbers.sort_unstable();
        let mut moved = false;
        for (_, number) in numbers {
            moved |= self.advance_work(number);
        }
        moved
    }

    fn advance_work(&mut self, number: u32) -> bool {
        let zeroing = self.log.supply.works.values().any(|work| work.stage == Stage::Zeroing);
        let busy = zeroing || self.is_large(self.log.bytes_in_flight());
        let work = &self.log.supply.works[&number];
        if work.awaited.is_some_and(|wanted| work.is_new || self.is_large(wanted as u64)) {
            self.made(number);
            return true;
        }
        let file = segments::file(number);
        let work = self.log.supply.works.get_mut(&number).expect("looked at above");
        if work.at == work.to {
            work.stage = Stage::Syncing;
            self.counters.syncs += 1;
            self.start(Operation::Sync { file }, Pending::Supply { number });
            return true;
        }
        if busy {
            return false;
        }
        let offset = work.at;
        if !work.is_new {
            let open = self.log.open.iter().flatten().find(|open| open.number == number);
            assert!(open.is_some_and(|open| open.reserved <= offset), "zeros go behind what batches may use");
        }
        let chunk = (work.to - offset).min(self.settings.zeros_bytes);
        work.at += chunk;
        work.stage = Stage::Zeroing;
        let bytes = ZEROS.slice(..chunk as usize);
        self.counters.prewritten_bytes += u64::from(chunk);
        let operation = Operation::Write { file, offset: u64::from(offset), bytes, durable: false };
        self.start(operation, Pending::Supply { number });
        true
    }

    /// Whether zeros save batches of so many bytes less than they cost.
    fn is_large(&self, bytes: u64) -> bool {
        bytes * limits::ZEROS_SHARE > u64::from(self.settings.zeros_bytes)
    }

    /// Lengthens open segments that are half used, and has a new file made when one is half full.
    fn plan_ahead(&mut self) {
        if self.log.durable < self.log.supply.not_before || self.read_only {
            return;
        }
        let size = self.settings.segment_bytes;
        for class in 0..self.log.open.len() {
            let Some(open) = self.log.open[class] else { continue };
            let ahead = open.reserved.min(2 * limits::STEPS_AT_ONCE * self.settings.step_bytes) / 2;
            if open.reserved < size && open.reserved < open.at + ahead {
                self.lengthen(class, 0);
            }
        }
        let half_full = self.log.open.iter().flatten().any(|open| open.at > size / 2);
        let room = self.segments_free() > limits::SEGMENTS_FREE_FOR_CLASSES;
        if half_full && room && !self.log.supply.claims_one() && !self.segments.has_spare() {
            self.make_segment(limits::STEPS_AT_ONCE * self.settings.step_bytes);
        }
        self.trim_spares();
    }

    /// A file for a segment, if one is ready.
    pub(super) fn take_file(&mut self) -> Option<ReadySegment> {
        if let Some(ready) = self.log.supply.take_ready() {
            return Some(ready);
        }
        let Spare { number, allocated } = self.segments.take_spare()?;
        Some(ReadySegment { number, allocated, written: allocated, recycled: true })
    }

    /// Somebody waits for a new file: one is begun if none is being made, and it is opened with the zeros it has by then.
    pub(super) fn want_segment(&mut self) {
        if !self.log.supply.is_making() {
            self.make_segment(self.settings.step_bytes);
        }
        for work in self.log.supply.works.values_mut().filter(|work| work.is_new) {
            work.awaited.get_or_insert(0);
        }
    }

    /// Zeros are written to what a newly opened segment's file has beyond those it came with.
    pub(super) fn go_on_writing(&mut self, ready: ReadySegment) {
        if ready.written < ready.allocated {
            let (at, to) = (ready.written, ready.allocated);
            let work = Work { is_new: false, at, to, stage: Stage::Resting, awaited: None };
            let before = self.log.supply.works.insert(ready.number, work);
            assert!(before.is_none(), "a ready file is not being made");
        }
    }

    /// A new file that only waits for zeros is ready as it is.
    pub(super) fn take_new_unwritten(&mut self) {
        let resting = |(_, work): &(&u32, &Work)| work.is_new && work.stage == Stage::Resting;
        if let Some(number) = self.log.supply.works.iter().find(resting).map(|(number, _)| *number) {
            self.made(number);
        }
    }

    /// Room in a class's open segment that only waits for zeros may be used as it is by a large batch, and by any while
    /// zeros stand back. Returns where it ends.
    pub(super) fn take_unwritten(&mut self, class: usize, wanted: usize) -> u32 {
        let open = self.log.open[class].expect("somebody writes to it");
        let Some(work) = self.log.supply.works.get(&open.number) else { return open.reserved };
        let is_large = self.is_large(wanted as u64) || self.is_large(self.log.bytes_in_flight());
        if work.stage != Stage::Resting || !is_large {
            return open.reserved;
        }
        let to = work.to;
        self.made(open.number);
        to.max(open.reserved)
    }

    fn make_segment(&mut self, bytes: u32) {
        assert!(!self.log.supply.claims_one());
        let Some(number) = self.segments.fresh_number() else {
            self.log.starved = Some(Error::Full);
            return;
        };
        let to = bytes.min(self.settings.segment_bytes);
        let work = Work { is_new: true, at: 0, to, stage: Stage::Creating, awaited: None };
        self.log.supply.works.insert(number, work);
        self.start(Operation::Create { file: segments::file(number) }, Pending::Supply { number });
    }

    /// Somebody waits for this much room in a class's open segment.
    pub(super) fn want_room(&mut self, class: usize, needed: usize) {
        self.lengthen(class, needed);
        let open = self.log.open[class].expect("looked at above");
        let work = self.log.supply.works.get_mut(&open.number).expect("it is being lengthened");
        work.awaited = Some(needed);
    }

    /// Has the file of a class's open segment lengthened, unless it already is.
    fn lengthen(&mut self, class: usize, needed: usize) {
        let open = self.log.open[class].expect("somebody writes to it, or will");
        if self.log.supply.works_on(open.number) {
            return;
        }
        let step = self.settings.step_bytes;
        let least = open.at + u32::try_from(needed).expect("a batch fits a segment");
        let usual = open.reserved + open.reserved.clamp(step, limits::STEPS_AT_ONCE * step);
        let to = usual.max(least.next_multiple_of(step)).min(self.settings.segment_bytes);
        assert!(to >= least);
        let work = Work { is_new: false, at: open.reserved, to, stage: Stage::Allocating, awaited: None };
        self.log.supply.works.insert(open.number, work);
        let operation = Operation::Reserve { file: segments::file(open.number), length: u64::from(to) };
        self.start(operation, Pending::Supply { number: open.number });
    }

    /// An operation on a file being made ready has ended.
    pub(super) fn supply_done(&mut self, number: u32, error: Option<DiskError>) {
        if let Some(error) = error {
            return self.supply_failed(number, error);
        }
        if !self.log.supply.works[&number].is_new && self.log.class_of(number).is_none() {
            // Sealed meanwhile.
            self.note_allocated(number);
            self.log.supply.works.remove(&number);
            return;
        }
        let work = self.log.supply.works.get_mut(&number).expect("a file being made has its work noted");
        let (file, to) = (segments::file(number), work.to);
        match work.stage {
            Stage::Creating => {
                work.stage = Stage::Naming;
                self.counters.syncs += 1;
                self.start(Operation::SyncDirectory, Pending::Supply { number });
            }
            Stage::Naming => {
                work.stage = Stage::Allocating;
                self.start(Operation::Reserve { file, length: u64::from(to) }, Pending::Supply { number });
            }
            Stage::Allocating => {
                work.stage = Stage::Resting;
                self.note_allocated(number);
            }
            Stage::Zeroing => {
                work.stage = Stage::Resting;
                if !work.is_new {
                    work.awaited = None;
                    let at = work.at;
                    self.extend_room(number, at);
                }
            }
            Stage::Syncing => self.made(number),
            Stage::Resting => unreachable!("nothing is in flight then"),
        }
    }

    /// A segment's file is as long as was asked for.
    fn note_allocated(&mut self, number: u32) {
        let to = self.log.supply.works[&number].to;
        if let Some(segment) = self.segments.get_mut(number) {
            segment.allocated = segment.allocated.max(to);
        }
    }

    /// The room may be used.
    fn made(&mut self, number: u32) {
        let work = self.log.supply.works.remove(&number).expect("it was being made");
        if work.is_new {
            assert!(self.log.supply.ready.is_none(), "one file is made at a time");
            let (allocated, written) = (work.to, work.at);
            self.log.supply.ready = Some(ReadySegment { number, allocated, written, recycled: false });
        } else {
            self.extend_room(number, work.to);
        }
    }

    /// Batches may use a segment's file up to here, if it is still open.
    fn extend_room(&mut self, number: u32, to: u32) {
        if let Some(class) = self.log.class_of(number)
            && let Some(open) = &mut self.log.open[class]
        {
            open.reserved = open.reserved.max(to);
        }
    }

    fn supply_failed(&mut self, number: u32, error: DiskError) {
        let work = self.log.supply.works.remove(&number).expect("it was being made");
        self.log.supply.not_before = self.log.durable + 16;
        if work.is_new {
            self.unlink(number);
        } else if error != DiskError::NoSpace
            && let Some(class) = self.log.class_of(number)
        {
            // After a failed write or sync nothing more is entrusted to this file.
            self.log.open[class] = None;
            self.seal(number);
        }
        self.starve(error, work.awaited.is_some());
    }

    /// Whoever is in line for this room is refused; the next in line makes a new attempt.
    fn starve(&mut self, error: DiskError, awaited: bool) {
        if awaited {
            self.log.starved = Some(match error {
                DiskError::NoSpace => Error::Full,
                DiskError::NotFound | DiskError::Failed { .. } => Error::Io,
            });
        }
        if error != DiskError::NoSpace {
            self.count_write_fault();
        }
    }

    /// No more batches go to this segment, and no more zeros.
    pub(super) fn seal(&mut self, number: u32) {
        let segment = self.segments.get_mut(number).expect("an open segment is in the table");
        if segment.state == State::Open {
            segment.state = State::Sealed;
        }
        let works = &mut self.log.supply.works;
        if works.get(&number).is_some_and(|work| work.stage == Stage::Resting) {
            works.remove(&number);
        }
    }

    /// Removes a file whose number is used again once that is durable.
    pub(super) fn unlink(&mut self, number: u32) {
        self.start(Operation::Unlink { file: segments::file(number) }, Pending::Unlink { number });
    }

    /// Spares beyond the capacity go: a checkpoint may have grown into their place.
    fn trim_spares(&mut self) {
        let kept = self.segments.in_use() + u64::from(self.log.supply.claims_one());
        if kept + self.segments.spares() > self.segments_max()
            && let Some(spare) = self.segments.take_spare()
        {
            self.unlink(spare.number);
        }
    }
}
