//! Cleaning: what is live in the least live segments is written again elsewhere, so that they can be freed.
//!
//! A victim is read from front to back in large pieces that are not kept in the cache, and each record found is looked up:
//! live is what the index points to. That costs the victim's size in sequential reads and one look-up a record, whatever
//! else the store holds; looking for its records in the index would cost a walk of the whole index. Reading ends when as
//! many bytes have been found live as the segment counts.
//!
//! Whose turn it is: while clients write, cleaning reads only as much as it has credit for, and earns credit with each batch
//! of theirs; when they are silent, or free segments run short, it goes as fast as the disk lets it.
//!
//! A damaged header hides how long its record is. The next sound header is then looked for at every step of 64 bytes: a
//! header has a checksum of its own and says where it belongs, so what is found is a record.

use super::arcs::walk::Entry;
use super::read::{Purpose, Reading};
use super::segments;
use super::upkeep::{Phase, Step};
use super::{Change, Store};
use crate::disk::{Disk, DiskError, Operation, Outcome};
use crate::format::batch::{BatchHeader, batch_bytes};
use crate::format::record::{ALIGN, Action, Place, RecordHeader, record_bytes};
use crate::limits;
use bytes::Bytes;
use std::collections::VecDeque;

/// The cleaning of one round. Invariants: `piece` is of `victim`'s segment; at most one piece is being read.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    /// Segments still to be read.
    victims: VecDeque<u32>,
    victim: Option<Victim>,
    /// The part of it that is in memory.
    piece: Option<Piece>,
    piece_in_flight: bool,
    /// Records larger than a piece, being read one by one.
    fetching: usize,
    /// Records read, gathered until they fill a batch worth writing.
    staged: Vec<Change>,
    staged_bytes: usize,
    /// Bytes that may be read while clients write.
    credit: usize,
    gave_up: bool,
}

/// The segment being read.
#[derive(Clone, Copy, Debug)]
struct Victim {
    number: u32,
    generation: u32,
    /// Where to go on: a batch, or a record in one.
    at: u32,
    /// Where the records of the batch end and the next batch begins, if `at` is in a batch. Both are the same in a block that
    /// does not begin with a batch header.
    batch: Option<(u32, u32)>,
    end: u32,
    /// Live bytes not found yet.
    missing: u64,
    damaged: bool,
}

#[derive(Clone, Debug)]
struct Piece {
    offset: u32,
    bytes: Bytes,
}

/// What reading on from a place in a segment comes to.
enum Sifted {
    /// On to the next one.
    Passed,
    Live {
        entry: Entry,
        header: RecordHeader,
        value: Bytes,
    },
    /// Live, and larger than a piece.
    Large(Entry),
    /// The rest of it is in the next piece.
    Beyond,
    /// The segment has been read.
    End,
}

impl Cleaning {
    pub(super) fn of(victims: Vec<u32>) -> Cleaning {
        Cleaning { victims: victims.into(), ..Cleaning::default() }
    }

    /// No room for survivors: the rest stay where they are.
    pub(super) fn give_up(&mut self) {
        self.victims.clear();
        self.victim = None;
        self.piece = None;
        self.staged.clear();
        self.staged_bytes = 0;
        self.gave_up = true;
    }

    pub(super) fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// Clients have written so much.
    pub(super) fn earn(&mut self, bytes: u64) {
        let earned = usize::try_from(bytes).unwrap_or(usize::MAX) / limits::CLEANING_SHARE;
        self.credit = self.credit.saturating_add(earned).min(limits::CHUNK);
    }

    fn is_waiting(&self) -> bool {
        self.piece_in_flight || self.fetching > 0
    }

    fn has_more(&self) -> bool {
        self.victim.is_some() || !self.victims.is_empty()
    }

    fn stage(&mut self, survivor: Change, bytes: usize) {
        self.staged_bytes += bytes;
        self.staged.push(survivor);
    }
}

impl<D: Disk> Store<D> {
    /// Moves cleaning on. Returns whether it moved, and whether it has come to its end.
    pub(super) fn clean(&mut self) -> (bool, bool) {
        let mut moved = false;
        let mut sifted = 0;
        while sifted < limits::CLEANING_PER_TURN {
            let Some(before) = self.victim_at() else { break };
            if self.cleaning().is_some_and(|cleaning| cleaning.staged_bytes >= limits::SURVIVOR_BYTES) {
                break;
            }
            if !self.sift_one() {
                break;
            }
            moved = true;
            sifted += self.victim_at().map_or(0, |after| after.saturating_sub(before)) as usize;
        }
        moved |= self.read_on();
        moved |= self.hand_over();
        let survivors_wait = !self.survivors.is_empty();
        let Some(cleaning) = self.cleaning() else { return (true, false) };
        let ended = !cleaning.has_more() && !cleaning.is_waiting() && cleaning.staged.is_empty() && !survivors_wait;
        (moved, ended)
    }

    fn cleaning(&mut self) -> Option<&mut Cleaning> {
        match &mut self.upkeep.phase {
            Phase::Cleaning(cleaning) => Some(cleaning),
            _ => None,
        }
    }

    /// How far the victim has been read, if a piece of it is at hand.
    fn victim_at(&mut self) -> Option<u32> {
        let cleaning = self.cleaning()?;
        cleaning.piece.as_ref()?;
        cleaning.victim.map(|victim| victim.at)
    }

    /// Looks at the next batch or record of the piece at hand. Returns whether more of the piece is left.
    fn sift_one(&mut self) -> bool {
        let Phase::Cleaning(cleaning) = &mut self.upkeep.phase else { return false };
        let (Some(mut victim), Some(piece)) = (cleaning.victim, cleaning.piece.clone()) else { return false };
        let sifted = self.sift(&mut victim, &piece);
        let round = self.upkeep.round;
        let Some(cleaning) = self.cleaning() else { return false };
        cleaning.victim = Some(victim);
        match sifted {
            Sifted::Passed => true,
            Sifted::Live { entry, header, value } => {
                let bytes = value.len() + RecordHeader::SIZE;
                cleaning.stage(Change::survivor(entry, &header, value), bytes);
                true
            }
            Sifted::Large(entry) => {
                cleaning.fetching += 1;
                cleaning.piece = None;
                self.read_later(Reading::of(&entry, Purpose::Clean { round }));
                false
            }
            Sifted::Beyond => {
                cleaning.piece = None;
                false
            }
            Sifted::End => {
                cleaning.victim = None;
                cleaning.piece = None;
                if victim.damaged && victim.missing > 0 {
                    self.upkeep.spoiled.insert(victim.number);
                }
                false
            }
        }
    }

    /// Moves `victim.at` over one batch header or record of `piece`.
    fn sift(&mut self, victim: &mut Victim, piece: &Piece) -> Sifted {
        if victim.missing == 0 || victim.at >= victim.end {
            return Sifted::End;
        }
        let start = (victim.at - piece.offset) as usize;
        let Some(bytes) = piece.bytes.get(start..) else { return Sifted::Beyond };
        let place = Place { segment: victim.number, generation: victim.generation, offset: victim.at };
        // A file that a power cut has shortened may end within a header.
        let is_last = piece.offset as usize + piece.bytes.len() >= victim.end as usize;
        let too_short = if is_last { Sifted::End } else { Sifted::Beyond };
        let Some((records_end, batch_end)) = victim.batch else {
            return if bytes.len() < BatchHeader::SIZE { too_short } else { self.sift_batch(victim, bytes, place) };
        };
        if victim.at.saturating_add(RecordHeader::SIZE as u32) > records_end {
            (victim.at, victim.batch) = (batch_end, None);
            return Sifted::Passed;
        }
        if bytes.len() < RecordHeader::SIZE {
            return too_short;
        }
        let Ok(header) = RecordHeader::header_at(bytes, place, &self.identity) else {
            victim.at += ALIGN as u32;
            // Behind the last batch there is nothing to be damaged.
            victim.damaged |= records_end < batch_end;
            return Sifted::Passed;
        };
        let length = header.length as usize;
        let next = victim.at.saturating_add(u32::try_from(record_bytes(length)).unwrap_or(u32::MAX));
        let live = if header.action == Action::Put { self.live_entry(&header) } else { None };
        let Some(entry) = live else {
            victim.at = next;
            return Sifted::Passed;
        };
        let whole = RecordHeader::SIZE + length;
        let is_here = bytes.len() >= whole;
        if !is_here && start >= limits::BLOCK {
            return Sifted::Beyond;
        }
        victim.at = next;
        victim.missing = victim.missing.saturating_sub(entry.locator.bytes());
        if !is_here {
            return Sifted::Large(entry);
        }
        if RecordHeader::check_at(bytes, place, &self.identity).is_err() {
            self.drop_damaged(&header);
            return Sifted::Passed;
        }
        Sifted::Live { entry, header, value: piece.bytes.slice(start + RecordHeader::SIZE..start + whole) }
    }

    fn sift_batch(&self, victim: &mut Victim, bytes: &[u8], place: Place) -> Sifted {
        let header = BatchHeader::open(bytes, self.identity.seed).ok();
        let ours = |header: &BatchHeader| {
            header.store == self.identity.store
                && header.shard == self.identity.shard
                && (header.segment, header.generation, header.offset) == (place.segment, place.generation, place.offset)
        };
        let end_of = |bytes: usize| victim.at.checked_add(u32::try_from(bytes).ok()?);
        let ends = header.filter(ours).and_then(|header| {
            let body = header.body_bytes as usize;
            Some((end_of(BatchHeader::SIZE.checked_add(body)?)?, end_of(batch_bytes(body))?))
        });
        match ends {
            Some(ends) => {
                victim.batch = Some(ends);
                victim.at += BatchHeader::SIZE as u32;
            }
            // What is not a batch header may be one that was damaged, with records behind it.
            None => {
                let block_end = victim.at.saturating_add(limits::BLOCK as u32);
                victim.batch = Some((block_end, block_end));
            }
        }
        Sifted::Passed
    }

    /// Reads the next piece, or turns to the next victim, if it is time for that.
    fn read_on(&mut self) -> bool {
        if !self.may_read_on() {
            return false;
        }
        let Phase::Cleaning(cleaning) = &mut self.upkeep.phase else { return false };
        if cleaning.is_waiting() || cleaning.piece.is_some() || cleaning.staged_bytes >= limits::SURVIVOR_BYTES {
            return false;
        }
        let Some(victim) = cleaning.victim else {
            let Some(number) = cleaning.victims.pop_front() else { return false };
            let Some(segment) = self.segments.get(number) else { return true };
            cleaning.victim = Some(Victim {
                number,
                generation: segment.generation,
                at: limits::BLOCK as u32,
                batch: None,
                end: segment.allocated,
                missing: segment.live,
                damaged: false,
            });
            return true;
        };
        if victim.missing == 0 || victim.at >= victim.end {
            cleaning.piece = Some(Piece { offset: victim.at, bytes: Bytes::new() });
            return true;
        }
        let offset = victim.at - victim.at % limits::BLOCK as u32;
        let length = limits::CHUNK.min((victim.end - offset) as usize);
        cleaning.piece_in_flight = true;
        cleaning.credit = cleaning.credit.saturating_sub(length);
        let file = segments::file(victim.number);
        self.counters.cleaning_bytes += length as u64;
        self.start_step(
            Operation::Read { file, offset: u64::from(offset), length, keep: false },
            Step::Piece { offset },
        );
        true
    }

    /// Clients first: see the module.
    fn may_read_on(&mut self) -> bool {
        let is_short = self.segments_free() <= limits::SEGMENTS_RESERVED;
        let is_quiet = self.changes.is_empty() && self.log.flights.is_empty();
        is_short || is_quiet || self.cleaning().is_some_and(|cleaning| cleaning.credit > 0)
    }

    pub(super) fn piece_read(&mut self, offset: u32, result: Result<Outcome, DiskError>) {
        let Some(cleaning) = self.cleaning() else { return };
        cleaning.piece_in_flight = false;
        match result {
            Ok(Outcome::Read(bytes)) => {
                let Some(victim) = &mut cleaning.victim else { return };
                // The file ends here: what is missing is not in it.
                if offset as usize + bytes.len() <= victim.at as usize {
                    victim.end = victim.at;
                }
                cleaning.piece = Some(Piece { offset, bytes });
            }
            Ok(_) => unreachable!("a read brings bytes"),
            // The device failed: that says nothing about the records.
            Err(_) => cleaning.victim = None,
        }
    }

    /// Gives the survivors gathered to the write path, when it is done with those before.
    fn hand_over(&mut self) -> bool {
        if !self.survivors.is_empty() {
            return false;
        }
        let Phase::Cleaning(cleaning) = &mut self.upkeep.phase else { return false };
        let is_last = !cleaning.has_more() && !cleaning.is_waiting();
        if cleaning.staged.is_empty() || (cleaning.staged_bytes < limits::SURVIVOR_BYTES && !is_last) {
            return false;
        }
        self.survivors.extend(cleaning.staged.drain(..));
        cleaning.staged_bytes = 0;
        true
    }

    /// A record too large for a piece has been read by itself.
    pub(super) fn survivor_read(&mut self, round: u64, header: &RecordHeader, value: Bytes) {
        let live = self.live_entry(header);
        if self.survivor_counted(round)
            && let Some(entry) = live
            && let Some(cleaning) = self.cleaning()
            && !cleaning.gave_up
        {
            let bytes = value.len() + RecordHeader::SIZE;
            cleaning.stage(Change::survivor(entry, header, value), bytes);
        }
    }

    /// A record that cleaning could not read: it stays where it is, or was dropped as damaged.
    pub(super) fn survivor_lost(&mut self, round: u64) {
        self.survivor_counted(round);
    }

    fn survivor_counted(&mut self, round: u64) -> bool {
        let current = round == self.upkeep.round;
        match self.cleaning() {
            Some(cleaning) if current => {
                assert!(cleaning.fetching > 0);
                cleaning.fetching -= 1;
                true
            }
            _ => false,
        }
    }
}
