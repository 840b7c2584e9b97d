//! The table of segments: what is in use, how much of it is live, what can be written next.

use crate::disk::FileName;
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a segment may still be written, read, recycled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Batches are appended to it.
    Open,
    /// It never changes again; may be mapped, cleaned, recycled.
    Sealed,
    /// A write to it failed: what was acknowledged is read, nothing is written, and its file is not used again.
    Poisoned,
}

/// A segment in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) generation: u32,
    /// Length of its file.
    pub(crate) allocated: u32,
    /// Bytes of records the index points to.
    pub(crate) live: u64,
    /// The last batch in it.
    pub(crate) last_sequence: u64,
    pub(crate) state: State,
    /// Reads in flight or waiting; while there are any, it is not freed.
    pub(crate) readers: u32,
}

/// A dead segment's file, kept to be written again: its blocks are allocated and initialised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spare {
    pub(crate) number: u32,
    pub(crate) allocated: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Segments {
    table: BTreeMap<u32, Segment>,
    spares: Vec<Spare>,
    spares_max: usize,
    /// Numbers that have a file, or may have one after a power cut.
    taken: BTreeSet<u32>,
    /// Numbers whose file is removed, though not durably yet.
    unlinked: Vec<u32>,
    /// Bytes of holes in segments in use that have any.
    punched: BTreeMap<u32, u64>,
    /// The live bytes of all of them.
    live: u64,
}

impl Segments {
    /// How many dead segments are kept, in a store of so many.
    pub(crate) fn limit_spares(&mut self, segments_max: u64) {
        let share = usize::try_from(segments_max / limits::SPARE_SHARE).unwrap_or(usize::MAX);
        self.spares_max = share.clamp(1, limits::SPARE_SEGMENTS_MAX);
    }

    pub(crate) fn insert(&mut self, number: u32, segment: Segment) {
        self.live += segment.live;
        let before = self.table.insert(number, segment);
        assert!(before.is_none(), "segment {number} is in use");
        self.taken.insert(number);
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<Segment> {
        self.punched.remove(&number);
        let segment = self.table.remove(&number)?;
        self.live -= segment.live;
        Some(segment)
    }

    /// So many bytes of a segment's file are holes now that were none.
    pub(crate) fn note_punched(&mut self, number: u32, bytes: u64) {
        let segment = self.table.get(&number).expect("holes lie in segments in use");
        let punched = self.punched.entry(number).or_insert(0);
        // Damaged entries may have named the same bytes twice.
        *punched = (*punched + bytes).min(u64::from(segment.allocated));
    }

    /// Bytes of a segment's file that are holes.
    pub(crate) fn punched(&self, number: u32) -> u64 {
        self.punched.get(&number).copied().unwrap_or(0)
    }

    /// Bytes of holes in all segments.
    pub(crate) fn punched_bytes(&self) -> u64 {
        self.punched.values().sum()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Segment> {
        self.table.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Segment> {
        self.table.get_mut(&number)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.table.iter().map(|(number, segment)| (*number, segment))
    }

    pub(crate) fn in_use(&self) -> u64 {
        self.table.len() as u64
    }

    /// The lowest number that no file has, from now on taken.
    pub(crate) fn fresh_number(&mut self) -> Option<u32> {
        let number = (0..=limits::SEGMENT_NUMBER_MAX).zip(&self.taken).find(|(free, taken)| free != *taken);
        let number = number.map_or_else(|| u32::try_from(self.taken.len()).ok(), |(free, _)| Some(free))?;
        (number <= limits::SEGMENT_NUMBER_MAX && self.taken.insert(number)).then_some(number)
    }

    /// A number's file is removed.
    pub(crate) fn note_unlinked(&mut self, number: u32) {
        self.unlinked.push(number);
    }

    /// Numbers to be released when a sync of the directory that begins now has succeeded.
    pub(crate) fn take_unlinked(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.unlinked)
    }

    /// These numbers' files are durably gone.
    pub(crate) fn release_numbers(&mut self, numbers: &[u32]) {
        for number in numbers {
            assert!(!self.table.contains_key(number));
            self.taken.remove(number);
        }
    }

    pub(crate) fn add_spare(&mut self, spare: Spare) -> bool {
        if !self.has_spare_room() {
            return false;
        }
        self.taken.insert(spare.number);
        self.spares.push(spare);
        true
    }

    pub(crate) fn take_spare(&mut self) -> Option<Spare> {
        self.spares.pop()
    }

    pub(crate) fn has_spare(&self) -> bool {
        !self.spares.is_empty()
    }

    pub(crate) fn spares(&self) -> u64 {
        self.spares.len() as u64
    }

    pub(crate) fn has_spare_room(&self) -> bool {
        self.spares.len() < self.spares_max
    }

    /// The index points to so many bytes more of a segment.
    pub(crate) fn charge(&mut self, number: u32, bytes: u64) {
        let segment = self.table.get_mut(&number).expect("the index points into segments in use");
        segment.live += bytes;
        self.live += bytes;
    }

    /// The index points to so many bytes less of a segment.
    pub(crate) fn discharge(&mut self, number: u32, bytes: u64) {
        let segment = self.table.get_mut(&number).expect("the index points into segments in use");
        assert!(segment.live >= bytes, "live bytes never fall below what is indexed");
        segment.live -= bytes;
        self.live -= bytes;
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live
    }

    /// Bytes of sealed segments that hold nothing live and are no holes.
    pub(crate) fn dead_bytes(&self) -> u64 {
        let sealed = self.table.iter().filter(|(_, segment)| segment.state != State::Open);
        let dead = |(number, segment): (&u32, &Segment)| {
            u64::from(segment.allocated).saturating_sub(segment.live + self.punched(*number))
        };
        sealed.map(dead).sum()
    }

    /// Bytes of segments' files and spares on the device.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.allocated_bytes() - self.punched_bytes()
    }

    /// The lengths of segments' files and spares.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        let used: u64 = self.table.values().map(|segment| u64::from(segment.allocated)).sum();
        used + self.spares.iter().map(|spare| u64::from(spare.allocated)).sum::<u64>()
    }

    /// Segments with nothing live whose last batch is covered by a checkpoint at `sequence`, and that nobody is reading.
    pub(crate) fn dead_at(&self, sequence: u64) -> Vec<u32> {
        self.table
            .iter()
            .filter(|(_, segment)| segment.state != State::Open && segment.live == 0 && segment.readers == 0)
            .filter(|(_, segment)| segment.last_sequence <= sequence)
            .map(|(number, _)| *number)
            .collect()
    }

    /// Sealed segments with something live in them of which that is less than so many percent, least live first. The share is of
    /// what each takes, as `takes` says.
    pub(crate) fn victims(&self, percent: u64, takes: impl Fn(u32, &Segment) -> u64) -> Vec<u32> {
        let mut victims: Vec<(u64, u32)> = self
            .table
            .iter()
            .filter(|(_, segment)| segment.state != State::Open && segment.live > 0)
            .filter(|(number, segment)| segment.live < takes(**number, segment) * percent / 100)
            .map(|(number, segment)| (segment.live, *number))
            .collect();
        victims.sort_unstable();
        victims.into_iter().map(|(_, number)| number).collect()
    }
}

/// The file of a segment.
pub(crate) fn file(number: u32) -> FileName {
    FileName::Segment(number)
}
