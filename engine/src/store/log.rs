//! The state of the log's end: the segment being written, batches in flight, and what is durable.
//!
//! Invariants:
//! - batches are numbered 1, 2, 3 …; `durable < flights[0].sequence < flights[1].sequence < sequence_next`;
//! - batch n + 2 is submitted only after batch n is durable, so a batch on disk proves everything up to two before it;
//! - `chain` is the link after the last batch built;
//! - a segment's second batch is submitted only after its first is durable, and with it the segment's header: so a
//!   generation that was ever used shows in the first two blocks of its segment, and is not used again.

use super::index::Slot;
use crate::disk::DiskError;
use crate::key::Key;
use crate::request::{Error, Response};
use bytes::Bytes;
use std::collections::VecDeque;

/// The segment that batches are appended to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenSegment {
    pub(crate) number: u32,
    pub(crate) generation: u32,
    /// Where the next batch goes.
    pub(crate) at: u32,
    /// Length of the file: writes stay below it.
    pub(crate) reserved: u32,
    /// The batch that carries the segment's header; meaningless while `at` is behind the header.
    pub(crate) first_sequence: u64,
}

/// A segment's file ready to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadySegment {
    pub(crate) number: u32,
    pub(crate) reserved: u32,
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
    /// What the index held before, in the order of change.
    pub(crate) undo: Vec<(Key, Option<Slot>)>,
    pub(crate) swept_before: Option<u64>,
    pub(crate) answers: Vec<(u64, Result<Response, Error>)>,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) open: Option<OpenSegment>,
    pub(crate) next: Option<ReadySegment>,
    /// A segment file is being made.
    pub(crate) preparing: bool,
    /// The open segment's file is being lengthened.
    pub(crate) growing: bool,
    /// The last attempt to get room failed like this; requests now in line are refused with it.
    pub(crate) starved: Option<Error>,
    pub(crate) sequence_next: u64,
    pub(crate) chain: u64,
    pub(crate) durable: u64,
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) generation_next: u32,
    pub(crate) bytes_since_checkpoint: u64,
}

impl Log {
    /// The last batch handed to the disk.
    pub(crate) fn appended(&self) -> u64 {
        self.sequence_next - 1
    }
}

/// Recent batches of the open segment, kept in memory to serve reads; bounded by [`crate::limits::TAIL_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Tail {
    batches: VecDeque<TailBatch>,
    bytes: usize,
}

#[derive(Debug)]
struct TailBatch {
    segment: u32,
    offset: u32,
    bytes: Bytes,
}

impl Tail {
    pub(crate) fn push(&mut self, segment: u32, offset: u32, bytes: Bytes, limit: usize) {
        self.bytes += bytes.len();
        self.batches.push_back(TailBatch { segment, offset, bytes });
        while self.bytes > limit && self.batches.len() > crate::limits::BATCHES_IN_FLIGHT {
            let oldest = self.batches.pop_front().expect("checked not to be empty");
            self.bytes -= oldest.bytes.len();
        }
    }

    /// The bytes of a record, and how large the batch is that they would keep in memory.
    pub(crate) fn get(&self, segment: u32, offset: u32, length: usize) -> Option<(Bytes, usize)> {
        let batch = self.batches.iter().rev().find(|batch| batch.segment == segment && batch.offset <= offset)?;
        let start = (offset - batch.offset) as usize;
        let end = start.checked_add(length)?;
        (end <= batch.bytes.len()).then(|| (batch.bytes.slice(start..end), batch.bytes.len()))
    }

    /// Forgets a segment: it was abandoned, or is about to be written anew.
    pub(crate) fn forget(&mut self, segment: u32) {
        self.batches.retain(|batch| batch.segment != segment);
        self.bytes = self.batches.iter().map(|batch| batch.bytes.len()).sum();
    }
}
