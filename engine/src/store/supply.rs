//! Segments' files, made ready before batches need them.
//!
//! A batch into a block that was never written costs more than its bytes: at completion the file system has to note that
//! the block now holds data (decision 0006). So a file is allocated and then written with zeros in the background, a chunk
//! at a time, ahead of the batches; a dead segment's file, written in an earlier life, is better still and taken first.
//!
//! The work is bounded by need. A file begins small and grows when half of it is used, at most doubling; one further file is
//! made when an open segment is half full; a store that is not written makes nothing. Zeros stand back: none are written
//! while large batches are in flight (a byte of zeros costs the device what a byte of a batch does, and what it
//! saves is the same for every batch, however large), and whoever needs the room takes it as it is, allocated and partly
//! unwritten: at once, or when the chunk in flight has ended.
//!
//! Invariant: zeros are written only behind the end of what batches may use (`OpenSegment::reserved`), so that a batch and
//! zeros never meet.

use super::log::OpenSegment;
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
    pub(crate) reserved: u32,
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
    /// Somebody waits for the room: no more zeros.
    hurried: bool,
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

    /// Bytes of files that are not in the table of segments.
    pub(crate) fn bytes(&self) -> u64 {
        let made =
            |work: &&Work| work.is_new && !matches!(work.stage, Stage::Creating | Stage::Naming | Stage::Allocating);
        let making: u64 = self.works.values().filter(made).map(|work| u64::from(work.to)).sum();
        making + self.ready.map_or(0, |ready| u64::from(ready.reserved))
    }
}

impl<D: Disk> Store<D> {
    /// Moves on what is being made ready, and begins what will soon be needed.
    pub(super) fn advance_supply(&mut self) -> bool {
        if self.log.supply.works.is_empty() && self.changes.is_empty() && self.survivors.is_empty() {
            return false;
        }
        self.plan_ahead();
        let resting = |(number, work): (&u32, &Work)| (work.stage == Stage::Resting).then_some(*number);
        let numbers: Vec<u32> = self.log.supply.works.iter().filter_map(resting).collect();
        let mut moved = false;
        for number in numbers {
            moved |= self.advance_work(number);
        }
        moved
    }

    fn advance_work(&mut self, number: u32) -> bool {
        let zeroing = self.log.supply.works.values().any(|work| work.stage == Stage::Zeroing);
        let busy = zeroing || self.log.bytes_in_flight() > limits::ZEROS_BESIDE;
        let work = self.log.supply.works.get_mut(&number).expect("listed by the caller");
        if work.hurried {
            self.made(number);
            return true;
        }
        let file = segments::file(number);
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
        let chunk = (work.to - offset).min(limits::ZEROS as u32);
        work.at += chunk;
        work.stage = Stage::Zeroing;
        let bytes = ZEROS.slice(..chunk as usize);
        self.counters.prewritten_bytes += u64::from(chunk);
        let operation = Operation::Write { file, offset: u64::from(offset), bytes, durable: false };
        self.start(operation, Pending::Supply { number });
        true
    }

    /// Lengthens open segments that are half used, and has a new file made when one is half full.
    fn plan_ahead(&mut self) {
        if self.log.durable < self.log.supply.not_before || self.read_only {
            return;
        }
        let size = self.settings.segment_bytes;
        for open in self.log.open.into_iter().flatten() {
            let ahead = open.reserved.min(2 * limits::STEPS_AT_ONCE * self.settings.step_bytes) / 2;
            if open.reserved < size && open.reserved < open.at + ahead {
                self.lengthen(open, 0);
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
        Some(ReadySegment { number, reserved: allocated, recycled: true })
    }

    /// Somebody waits for a new file: one is begun if none is being made, and no more zeros are written to it.
    pub(super) fn want_segment(&mut self) {
        if !self.log.supply.is_making() {
            self.make_segment(self.settings.step_bytes);
        }
        for work in self.log.supply.works.values_mut().filter(|work| work.is_new) {
            work.hurried = true;
        }
    }

    /// A new file that only waits for zeros is ready as it is.
    pub(super) fn take_new_unwritten(&mut self) {
        let resting = |(_, work): &(&u32, &Work)| work.is_new && work.stage == Stage::Resting;
        if let Some(number) = self.log.supply.works.iter().find(resting).map(|(number, _)| *number) {
            self.made(number);
        }
    }

    /// Room in an open segment that only waits for zeros may be used as it is. Returns where it ends.
    pub(super) fn take_unwritten(&mut self, open: OpenSegment) -> u32 {
        let Some(work) = self.log.supply.works.get(&open.number) else { return open.reserved };
        if work.stage != Stage::Resting {
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
        let work = Work { is_new: true, at: 0, to, stage: Stage::Creating, hurried: false };
        self.log.supply.works.insert(number, work);
        self.start(Operation::Create { file: segments::file(number) }, Pending::Supply { number });
    }

    /// Somebody waits for this much room in an open segment.
    pub(super) fn want_room(&mut self, open: OpenSegment, needed: usize) {
        self.lengthen(open, needed);
        if let Some(work) = self.log.supply.works.get_mut(&open.number) {
            work.hurried = true;
        }
    }

    fn lengthen(&mut self, open: OpenSegment, needed: usize) {
        if self.log.supply.works.contains_key(&open.number) {
            return;
        }
        let step = self.settings.step_bytes;
        let least = open.at + u32::try_from(needed).expect("a batch fits a segment");
        let usual = open.reserved + open.reserved.clamp(step, limits::STEPS_AT_ONCE * step);
        let to = usual.max(least.next_multiple_of(step)).min(self.settings.segment_bytes);
        assert!(to >= least);
        let work = Work { is_new: false, at: open.reserved, to, stage: Stage::Allocating, hurried: false };
        self.log.supply.works.insert(open.number, work);
        let operation = Operation::Reserve { file: segments::file(open.number), length: u64::from(to) };
        self.start(operation, Pending::Supply { number: open.number });
    }

    /// An operation on a file being made ready has ended.
    pub(super) fn supply_done(&mut self, number: u32, error: Option<DiskError>) {
        if let Some(error) = error {
            return self.supply_failed(number, error);
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
                if let Some(segment) = self.segments.get_mut(number) {
                    segment.allocated = segment.allocated.max(to);
                }
            }
            Stage::Zeroing => work.stage = Stage::Resting,
            Stage::Syncing => self.made(number),
            Stage::Resting => unreachable!("nothing is in flight then"),
        }
    }

    /// The room may be used.
    fn made(&mut self, number: u32) {
        let work = self.log.supply.works.remove(&number).expect("it was being made");
        if work.is_new {
            assert!(self.log.supply.ready.is_none(), "one file is made at a time");
            self.log.supply.ready = Some(ReadySegment { number, reserved: work.to, recycled: false });
        } else if let Some(class) = self.log.class_of(number)
            && let Some(open) = &mut self.log.open[class]
        {
            open.reserved = open.reserved.max(work.to);
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
        self.starve(error, work.hurried);
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

    pub(super) fn seal(&mut self, number: u32) {
        let segment = self.segments.get_mut(number).expect("an open segment is in the table");
        if segment.state == State::Open {
            segment.state = State::Sealed;
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
