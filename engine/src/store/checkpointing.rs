//! Writing a checkpoint while everything goes on.
//!
//! It is the index as of one batch: the segments and runs there were, the recents, and every arc; an arc that changes before
//! its turn is copied first (see [`super::arcs::snapshot`]). The body goes out in pieces, one each turn. When all of it is
//! written *and the batch it is as of is durable*, the header follows and both are synced. Only then is anything freed that
//! recovery from an older checkpoint would need: dead segments, and runs that were merged into others.

use super::Store;
use super::segments::State;
use super::upkeep::{Phase, Step};
use crate::disk::{Disk, DiskError, FileName, Operation};
use crate::format::checkpoint::{CheckpointSegment, CheckpointWriter, Moment};
use crate::limits;
use crate::store::arcs::codec::encode_recents;
use bytes::Bytes;

/// A checkpoint being written.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) slot: u8,
    writer: CheckpointWriter,
    stage: Stage,
    /// Operations in flight.
    outstanding: usize,
    /// No more is written; the round ends when nothing is in flight, so that nothing of it lands in the next one's file.
    failed: Option<Failure>,
    pub(super) sequence: u64,
    /// Bytes of log before it.
    log_bytes: u64,
    /// How long the file is once the writes in flight are done.
    reaches: u64,
    /// Segments dead as of this checkpoint.
    pub(super) dead: Vec<u32>,
    /// Runs that this checkpoint does not name any more.
    pub(super) retired: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Create,
    Directory,
    Named,
    Body,
    Header,
    Sync,
    Written,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Device(DiskError),
    /// A batch that is in it failed.
    Undone,
}

impl<D: Disk> Store<D> {
    /// Takes the moment of the last batch built.
    pub(super) fn begin_checkpoint(&mut self) {
        let sequence = self.log.appended();
        let moment = Moment {
            number: self.upkeep.next_number(),
            sequence,
            chain: self.log.chain,
            swept_s: self.swept_s,
            generation_next: self.log.generation_next,
        };
        let runs: Vec<u32> = self.index.runs().iter().map(|run| run.number).collect();
        let recents = encode_recents(self.index.recents(), self.identity.seed);
        let dead = self.segments.dead_at(sequence);
        let writer = CheckpointWriter::new(&self.identity, moment, &self.segment_rows(&dead), &runs, &recents);
        self.index.begin_snapshot();
        let slot = self.upkeep.other_slot();
        let is_there = self.upkeep.slots[usize::from(slot)].is_some();
        self.upkeep.phase = Phase::Writing(Box::new(Writing {
            slot,
            writer,
            stage: if is_there { Stage::Body } else { Stage::Create },
            outstanding: 0,
            failed: None,
            sequence,
            log_bytes: self.log.bytes_since_checkpoint,
            reaches: 0,
            dead,
            retired: std::mem::take(&mut self.run_files.retired),
        }));
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::FreeBeforeCheckpoint {
            self.index.abandon_snapshot();
            self.free_dead();
        }
    }

    /// The segments that will be left when those dead now are freed: what is written over a dead one may be torn.
    fn segment_rows(&self, dead: &[u32]) -> Vec<CheckpointSegment> {
        let row = |(number, segment): (u32, &super::segments::Segment)| CheckpointSegment {
            last_sequence: if segment.state == State::Open { u64::MAX } else { segment.last_sequence },
            generation: segment.generation,
            segment: u16::try_from(number).expect("segment numbers have 16 bits"),
            reserved: 0,
        };
        self.segments.iter().filter(|(number, _)| !dead.contains(number)).map(row).collect()
    }

    /// Writes the next piece, or goes on to the next stage when nothing is in flight.
    pub(super) fn write_checkpoint(&mut self) -> bool {
        let Phase::Writing(writing) = &mut self.upkeep.phase else { return false };
        if let Some(failure) = writing.failed {
            return writing.outstanding == 0 && self.checkpoint_failed(failure);
        }
        let file = FileName::Checkpoint(writing.slot);
        match writing.stage {
            _ if writing.outstanding > 0 && writing.stage != Stage::Body => false,
            Stage::Create => {
                writing.stage = Stage::Directory;
                self.start_write_step(Operation::Create { file })
            }
            Stage::Directory => {
                writing.stage = Stage::Named;
                self.counters.syncs += 1;
                self.start_write_step(Operation::SyncDirectory)
            }
            Stage::Named => {
                writing.stage = Stage::Body;
                self.upkeep.slots[usize::from(writing.slot)] = Some(0);
                true
            }
            Stage::Body => self.write_body(file),
            Stage::Header => {
                let is_durable = writing.sequence <= self.log.durable;
                #[cfg(test)]
                let is_durable = is_durable || self.settings.flaw == super::Flaw::CheckpointEarly;
                if !is_durable {
                    return false;
                }
                writing.stage = Stage::Sync;
                let bytes = Bytes::from(writing.writer.finish(&self.identity));
                self.start_write_step(Operation::Write { file, offset: 0, bytes, durable: false })
            }
            Stage::Sync => {
                writing.stage = Stage::Written;
                self.counters.syncs += 1;
                self.start_write_step(Operation::Sync { file })
            }
            Stage::Written => {
                self.checkpoint_written();
                true
            }
        }
    }

    fn write_body(&mut self, file: FileName) -> bool {
        let Phase::Writing(writing) = &mut self.upkeep.phase else { return false };
        if writing.outstanding >= limits::CHECKPOINT_WRITES_IN_FLIGHT {
            return false;
        }
        let mut has_ended = false;
        while writing.writer.waiting() < limits::CHUNK && !has_ended {
            match self.index.next_of_snapshot() {
                Some(arc) => writing.writer.push_arc(&arc),
                None => has_ended = true,
            }
        }
        if writing.writer.waiting() == 0 {
            if writing.outstanding > 0 {
                return false;
            }
            writing.stage = Stage::Header;
            return true;
        }
        let (offset, bytes) = writing.writer.take(limits::CHUNK);
        writing.reaches = offset + bytes.len() as u64;
        self.start_write_step(Operation::Write { file, offset, bytes: Bytes::from(bytes), durable: false })
    }

    fn start_write_step(&mut self, operation: Operation) -> bool {
        if let Phase::Writing(writing) = &mut self.upkeep.phase {
            writing.outstanding += 1;
        }
        self.start_step(operation, Step::Write);
        true
    }

    pub(super) fn write_step_done(&mut self, error: Option<DiskError>) {
        let Phase::Writing(writing) = &mut self.upkeep.phase else {
            unreachable!("steps of this round are steps of its checkpoint");
        };
        writing.outstanding -= 1;
        writing.failed = writing.failed.or(error.map(Failure::Device));
        if error.is_none()
            && let Some(length) = &mut self.upkeep.slots[usize::from(writing.slot)]
        {
            *length = writing.reaches.max(*length);
        }
    }

    /// A batch failed. What the checkpoint holds may have been undone, unless all of it was durable before.
    pub(super) fn checkpoint_undone(&mut self) {
        let durable = self.log.durable;
        if let Phase::Writing(writing) = &mut self.upkeep.phase
            && writing.sequence > durable
        {
            writing.failed = writing.failed.or(Some(Failure::Undone));
        }
    }

    fn checkpoint_written(&mut self) {
        let Phase::Writing(writing) = &self.upkeep.phase else { unreachable!("it was being written") };
        #[cfg(test)]
        let is_durable = writing.sequence <= self.log.durable || self.settings.flaw == super::Flaw::CheckpointEarly;
        #[cfg(not(test))]
        let is_durable = writing.sequence <= self.log.durable;
        assert!(is_durable, "a checkpoint never says more than the log");
        let (slot, bytes) = (writing.slot, writing.writer.file_bytes());
        self.log.bytes_since_checkpoint = self.log.bytes_since_checkpoint.saturating_sub(writing.log_bytes);
        self.upkeep.checkpoint_installed(slot, bytes);
        self.counters.checkpoints += 1;
        self.free_dead();
    }

    /// The checkpoint could not be written. The older one is still good, so nothing is lost; nothing is freed. Returns true.
    fn checkpoint_failed(&mut self, failure: Failure) -> bool {
        self.index.abandon_snapshot();
        if let Phase::Writing(writing) = &mut self.upkeep.phase {
            self.run_files.retired.append(&mut writing.retired);
        }
        match failure {
            Failure::Undone => self.upkeep.wait_until(self.log.durable + 16),
            Failure::Device(error) => {
                if error != DiskError::NoSpace {
                    self.count_write_fault();
                }
                self.upkeep.wait_until(self.log.durable + 256);
            }
        }
        self.end_round();
        true
    }
}
