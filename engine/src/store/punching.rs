//! Punching: the blocks of large dead records are given back to the file system, long before their segment is empty.
//!
//! Copying what is live to regain what is dead costs a byte written for each byte kept; a hole costs nothing. But a
//! hole is whole blocks, and only of a payload: *headers stay*, since the links of the log run over them, and cleaning and scrub
//! step from one to the next. So a dead record of 64 KiB gives back 15 blocks of its 16, and one of 4 KB none:
//! small records come back by copying, large ones by holes ([`limits::PUNCH_BYTES_MIN`]; decision 0008).
//!
//! When a durable batch ends a record, the blocks that lie within its payload are noted. They are punched at the end of
//! a round, once a checkpoint that knows the record as dead is durable: no recovery from it reads the payload. Nothing
//! needs to be durable about the hole itself: a power cut may bring the old bytes back, and then the file takes the
//! room it did before, which the next opening sees. What was noted and not punched then is forgotten; cleaning gets it.
//!
//! Readers: nobody is given bytes of a record that has died, but somebody may hold some from before, out of the
//! mapping. So a segment is punched only when [`Disk::release`] has said, at some moment after the deaths, that nobody
//! holds bytes of it, and no read of it is under way. Otherwise its holes wait for a later round.
//!
//! Invariants:
//! - a hole lies within one payload and within its file, and begins and ends at multiples of a block;
//! - what is noted died in a durable batch;
//! - what is being punched died in a batch that the newest durable checkpoint covers, in a sealed segment.

use super::Store;
use super::arcs::locator::SizeClass;
use super::arcs::walk::Entry;
use super::segments::{self, State};
use super::upkeep::{Phase, Step};
use crate::disk::{Disk, DiskError, Operation};
use crate::format::record::payload_blocks;
use crate::limits;
use std::collections::{BTreeMap, VecDeque};

/// The blocks within a dead record's payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    segment: u32,
    generation: u32,
    offset: u32,
    bytes: u32,
    /// The batch in which the record died.
    sequence: u64,
}

/// Holes to be punched when a checkpoint covers them.
#[derive(Debug, Default)]
pub(super) struct Holes {
    noted: VecDeque<Hole>,
    /// Bytes of those that no round has seen yet.
    fresh_bytes: u64,
    /// The device has refused a hole: it is asked for none any more.
    refused: bool,
}

impl Holes {
    /// What they will give back, by segment.
    pub(super) fn bytes_by_segment(&self) -> BTreeMap<u32, u64> {
        let mut bytes = BTreeMap::new();
        for hole in &self.noted {
            *bytes.entry(hole.segment).or_insert(0) += u64::from(hole.bytes);
        }
        bytes
    }
}

impl<D: Disk> Store<D> {
    /// A durable batch has ended this record.
    pub(super) fn note_dead(&mut self, entry: &Entry, sequence: u64) {
        let blocks = payload_blocks(entry.locator.offset(), entry.length);
        let bytes = blocks.end - blocks.start;
        // A length that does not fit its locator is not to be trusted with its neighbours' bytes.
        let fits = SizeClass::of_record(entry.length) == Some(entry.locator.class());
        if bytes < self.settings.punch_bytes_min || self.holes.refused || !fits {
            return;
        }
        if self.holes.noted.len() >= limits::HOLES_NOTED_MAX {
            self.counters.holes_forgotten += 1;
            return;
        }
        let (segment, generation) = (u32::from(entry.locator.segment()), entry.generation);
        self.holes.noted.push_back(Hole { segment, generation, offset: blocks.start, bytes, sequence });
        self.holes.fresh_bytes += u64::from(bytes);
    }

    /// Whether what has died since the last round is worth a checkpoint: it gives back more than that writes.
    pub(super) fn is_punching_due(&self) -> bool {
        self.holes.fresh_bytes > self.upkeep.newest_bytes().max(limits::BLOCK as u64)
    }

    /// The holes that may be punched now that a checkpoint at `sequence` is durable. Those that have to wait stay noted.
    pub(super) fn take_holes(&mut self, sequence: u64) -> VecDeque<Hole> {
        let mut by_segment: BTreeMap<u32, Vec<Hole>> = BTreeMap::new();
        for hole in std::mem::take(&mut self.holes.noted) {
            by_segment.entry(hole.segment).or_default().push(hole);
        }
        self.holes.fresh_bytes = 0;
        let mut ready = VecDeque::new();
        for (number, mut holes) in by_segment {
            let Some(segment) = self.segments.get(number).copied() else { continue };
            // A disk that lost writes may have left a file shorter than what the index says of it.
            holes.retain(|hole| hole.generation == segment.generation && hole.offset + hole.bytes <= segment.allocated);
            let (covered, later): (Vec<Hole>, Vec<Hole>) =
                holes.into_iter().partition(|hole| hole.sequence <= sequence);
            self.holes.noted.extend(later);
            let is_settled = segment.state == State::Sealed && segment.last_sequence <= self.log.durable;
            if covered.is_empty() || segment.state == State::Poisoned {
                continue;
            }
            if is_settled && segment.readers == 0 && self.disk.release(segments::file(number)) {
                ready.extend(covered);
            } else {
                self.holes.noted.extend(covered);
            }
        }
        ready
    }

    /// Punches on, a few holes at a time. Returns whether it moved.
    pub(super) fn punch_on(&mut self) -> bool {
        let mut moved = false;
        while let Phase::Freeing { outstanding, holes } = &mut self.upkeep.phase
            && *outstanding < limits::PUNCHES_IN_FLIGHT
            && let Some(hole) = holes.pop_front()
        {
            *outstanding += 1;
            moved = true;
            let (file, offset, bytes) = (segments::file(hole.segment), u64::from(hole.offset), u64::from(hole.bytes));
            let step = Step::Punch { number: hole.segment, bytes };
            self.start_step(Operation::Punch { file, offset, length: bytes }, step);
        }
        moved
    }

    pub(super) fn punched(&mut self, number: u32, bytes: u64, result: Result<(), DiskError>) {
        let Phase::Freeing { outstanding, holes } = &mut self.upkeep.phase else {
            unreachable!("a round ends when nothing of it is in flight");
        };
        *outstanding -= 1;
        if result.is_ok() {
            self.segments.note_punched(number, bytes);
            self.counters.punched_bytes += bytes;
            self.upkeep.note_freed(bytes);
        } else {
            // Not every file system has holes; cleaning needs none.
            holes.clear();
            self.holes = Holes { refused: true, ..Holes::default() };
        }
    }
}
