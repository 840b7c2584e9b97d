//! The state of the log's end: the segments being written, batches in flight, and what is durable.
//!
//! Each class of objects has its own open segment, so that what dies together lies together; but there is one chain of
//! batches over all of them, and a batch lies in one segment.
//!
//! Invariants:
//! - batches are numbered 1, 2, 3 …; `durable < flights[0].sequence < flights[1].sequence < sequence_next`;
//! - batch n + 2 is submitted only after batch n is durable, so a batch on disk proves everything up to two before it;
//! - `chain` is the link after the last batch built;
//! - segments in `open` are of the current era: a failed write seals all of them.
//! - a segment's second batch is submitted only after its first is durable, and with it the segment's header: so a
//!   generation that was ever used shows in the first two blocks of its segment, and is not used again.

use super::apply::Changes;
use super::supply::Supply;
use crate::disk::DiskError;
use crate::format::segment::Era;
use crate::key::Class;
use crate::request::{Error, Response};
use bytes::Bytes;
use std::collections::VecDeque;

/// A segment that batches are appended to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenSegment {
    pub(crate) number: u32,
    pub(crate) generation: u32,
    /// Where the next batch goes.
    pub(crate) at: u32,
    /// Bytes of the file made ready: writes stay below it.
    pub(crate) reserved: u32,
    /// The batch that carries the segment's header; meaningless while `at` is behind the header.
    pub(crate) first_sequence: u64,
}

/// A batch on its way to the disk.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) token: u64,
    pub(crate) sequence: u64,
    pub(crate) chain_before: u64,
    pub(crate) segment: u32,
    pub(crate) bytes: u64,
    pub(crate) written: Option<Result<(), DiskError>>,
    /// What it changed in the index.
    pub(super) changes: Changes,
    pub(crate) swept_before: Option<u64>,
    pub(crate) answers: Vec<(u64, Result<Response, Error>)>,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The open segment of each class, by its number.
    pub(crate) open: [Option<OpenSegment>; Class::ALL.len()],
    /// Files made ready ahead of need.
    pub(crate) supply: Supply,
    /// The last attempt to get room failed like this; requests now in line are refused with it.
    pub(crate) starved: Option<Error>,
    pub(crate) sequence_next: u64,
    pub(crate) chain: u64,
    pub(crate) durable: u64,
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) generation_next: u32,
    /// When the last break was; `None` until the first segment is opened after one.
    pub(crate) era: Option<Era>,
    pub(crate) bytes_since_checkpoint: u64,
}

impl Log {
    /// The last batch handed to the disk.
    pub(crate) fn appended(&self) -> u64 {
        self.sequence_next - 1
    }

    /// The class whose open segment this is.
    pub(crate) fn class_of(&self, number: u32) -> Option<usize> {
        self.open.iter().position(|open| open.is_some_and(|open| open.number == number))
    }

    /// Bytes of batches in flight.
    pub(crate) fn bytes_in_flight(&self) -> u64 {
        self.flights.iter().map(|flight| flight.bytes).sum()
    }
}

/// Recent batches of the open segments, kept in memory to serve reads; bounded by [`crate::limits::TAIL_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Tail {
    batches: VecDeque<TailBatch>,
    /// Bytes of memory that the batches keep.
    held: usize,
}

#[derive(Debug)]
struct TailBatch {
    segment: u32,
    offset: u32,
    bytes: Bytes,
    held: usize,
}

impl Tail {
    /// Keeps a batch, which lies in a buffer of `held` bytes.
    pub(crate) fn push(&mut self, segment: u32, offset: u32, bytes: Bytes, held: usize, limit: usize) {
        assert!(held >= bytes.len());
        self.held += held;
        self.batches.push_back(TailBatch { segment, offset, bytes, held });
        while self.held > limit && self.batches.len() > crate::limits::BATCHES_IN_FLIGHT {
            let oldest = self.batches.pop_front().expect("checked not to be empty");
            self.held -= oldest.held;
        }
    }

    /// The bytes of a record, and how large the batch is that they would keep in memory.
    pub(crate) fn get(&self, segment: u32, offset: u32, length: usize) -> Option<(Bytes, usize)> {
        let batch = self.batches.iter().rev().find(|batch| batch.segment == segment && batch.offset <= offset)?;
        let start = (offset - batch.offset) as usize;
        let end = start.checked_add(length)?;
        (end <= batch.bytes.len()).then(|| (batch.bytes.slice(start..end), batch.held))
    }

    /// Forgets a segment: it was abandoned, or is about to be written anew.
    pub(crate) fn forget(&mut self, segment: u32) {
        self.batches.retain(|batch| batch.segment != segment);
        self.held = self.batches.iter().map(|batch| batch.held).sum();
    }
}
