//! Writing runs: the recents when there are enough of them, and merges of runs that have become many.
//!
//! Both are walks whose entries go to a file (see [`super::walks`]): pages, sync, header, directory. A run counts when all of that
//! is done *and* the batches it covers are durable. Its name is in no checkpoint yet: until one says so, recovery takes its
//! entries from the log, and unlinks it. In the same way the runs it was merged from are unlinked only when a checkpoint that
//! does not name them is durable.
//!
//! When a batch fails, runs being written are given up: undoing may revive entries they have passed over.

use super::arcs::walk::{Entry, Walk};
use super::walks::{Errand, Walking};
use super::{Pending, Store};
use crate::disk::{Disk, DiskError, FileName, Operation};
use crate::format::run::{FinishedRun, Run, RunEntry, RunWriter};
use crate::limits;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A run being written.
pub(super) struct RunWriting {
    number: u32,
    writer: Option<RunWriter>,
    finished: Option<FinishedRun>,
    /// The runs it is merged from; none if it is written from memory.
    merged: Vec<u32>,
    last_sequence: u64,
    stage: Stage,
    /// Disk operations in flight.
    outstanding: usize,
    failed: Option<DiskError>,
    gave_up: bool,
    bytes: u64,
}

impl std::fmt::Debug for RunWriting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let merged = &self.merged;
        f.debug_struct("RunWriting")
            .field("number", &self.number)
            .field("stage", &self.stage)
            .field("merged", merged)
            .finish()
    }
}

/// How far it is. Each stage begins when the one before is done and nothing is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Create,
    Pages,
    Sync,
    Header,
    Directory,
    /// The file is whole and durable; the batches it covers may not be.
    Whole,
    Over,
}

/// Runs on disk beside those of the index.
#[derive(Debug, Default)]
pub(super) struct RunFiles {
    /// Bytes of every run file there is, and of all of them.
    bytes: BTreeMap<u32, u64>,
    total_bytes: u64,
    /// Merged into others; a durable checkpoint may still name them.
    pub(super) retired: Vec<u32>,
    pub(super) number_next: u32,
    /// Found damaged, or missing at the opening, and not unlinked since.
    pub(super) damaged: BTreeSet<u32>,
    /// Found at the opening and named by nothing: to be unlinked.
    pub(super) orphans: Vec<u32>,
    /// After a failure: not before this batch again.
    pub(super) not_before: u64,
}

impl RunFiles {
    /// Bytes of every run file there is: asked for with every put.
    pub(super) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// A run's file has so many bytes now.
    pub(super) fn note_bytes(&mut self, number: u32, bytes: u64) {
        let before = self.bytes.insert(number, bytes).unwrap_or(0);
        self.total_bytes = self.total_bytes - before + bytes;
    }

    fn forget(&mut self, number: u32) {
        self.total_bytes -= self.bytes.remove(&number).unwrap_or(0);
        self.damaged.remove(&number);
    }

    /// Whether there is a file of this run.
    pub(super) fn has(&self, number: u32) -> bool {
        self.bytes.contains_key(&number)
    }

    /// Bytes of runs that wait for a checkpoint without them.
    pub(super) fn retired_bytes(&self) -> u64 {
        self.retired.iter().filter_map(|number| self.bytes.get(number)).sum()
    }

    /// So many pages of a run were found damaged. Returns that number, for the counter.
    pub(super) fn note_damage(&mut self, number: u32, pages: u64) -> u64 {
        if pages > 0 {
            self.damaged.insert(number);
        }
        pages
    }
}

impl RunWriting {
    pub(super) fn push(&mut self, entry: &Entry) {
        let Entry { key, version, locator, length, generation, .. } = *entry;
        let writer = self.writer.as_mut().expect("entries come before the end");
        writer.push(&RunEntry { key, version, locator, length, generation });
    }

    /// Whether it takes no more entries until something has been written.
    pub(super) fn is_full(&self) -> bool {
        let waiting = self.writer.as_ref().map_or(0, RunWriter::waiting);
        self.stage != Stage::Pages || waiting >= limits::RUN_WRITE_BYTES
    }

    /// There are no more entries.
    pub(super) fn end(&mut self) {
        self.finished = self.writer.take().and_then(RunWriter::finish);
    }

    pub(super) fn give_up(&mut self) {
        self.gave_up = true;
    }

    fn is_done(&self) -> bool {
        self.stage == Stage::Over
    }
}

impl<D: Disk> Store<D> {
    /// Begins what is due: a run of the recents, or a merge.
    pub(super) fn begin_runs(&mut self) -> bool {
        if self.read_only || self.log.durable < self.run_files.not_before {
            return false;
        }
        let is_writing = |merging: bool| {
            self.walks
                .values()
                .any(|walking| matches!(&walking.errand, Errand::Run(writing) if writing.merged.is_empty() != merging))
        };
        let covered = self.index.runs().last().map_or(0, |run| run.last_sequence);
        if self.index.is_run_due() && !is_writing(false) && self.log.appended() > covered {
            self.index.freeze_recents();
            let sequences = (covered + 1, self.log.appended());
            self.begin_run(Walk::of_frozen(self.identity), 0, sequences, Vec::new());
            return true;
        }
        // A checkpoint may be asked for because the store is closing: nothing long is begun then.
        if is_writing(true) || self.upkeep.is_checkpoint_asked() {
            return false;
        }
        let Some(plan) = self.index.merge_plan() else { return false };
        self.begin_run(Walk::of_runs(self.identity, plan.runs.clone()), plan.level, plan.sequences, plan.runs);
        true
    }

    fn begin_run(&mut self, walk: Walk, level: u32, sequences: (u64, u64), merged: Vec<u32>) {
        let number = self.run_files.number_next;
        self.run_files.number_next += 1;
        self.run_files.note_bytes(number, 0);
        let writing = RunWriting {
            number,
            writer: Some(RunWriter::new(self.identity, number, level, sequences)),
            finished: None,
            merged,
            last_sequence: sequences.1,
            stage: Stage::Create,
            outstanding: 1,
            failed: None,
            gave_up: false,
            bytes: 0,
        };
        let id = self.begin_walk(Walking::new(walk, Errand::Run(Box::new(writing))));
        self.start(Operation::Create { file: FileName::Run(number) }, Pending::Run { id });
    }

    pub(super) fn run_step_done(&mut self, id: u64, error: Option<DiskError>) {
        let Some(Walking { errand: Errand::Run(writing), .. }) = self.walks.get_mut(&id) else { return };
        assert!(writing.outstanding > 0);
        writing.outstanding -= 1;
        writing.failed = writing.failed.or(error);
    }

    pub(super) fn is_run_going_on(&self, walking: &Walking) -> bool {
        matches!(&walking.errand, Errand::Run(writing) if !writing.is_done())
    }

    /// Writes what is ready to be written of a run.
    pub(super) fn advance_run(&mut self, id: u64, walking: &mut Walking) -> bool {
        let has_ended = walking.has_ended;
        let Errand::Run(writing) = &mut walking.errand else { return false };
        if writing.failed.is_some() || writing.gave_up {
            walking.has_ended = true;
            return writing.outstanding == 0 && self.discard_run(writing);
        }
        if writing.stage == Stage::Pages {
            let moved = self.write_pages(id, writing, has_ended);
            if writing.stage == Stage::Pages {
                return moved;
            }
        }
        if writing.outstanding > 0 {
            return false;
        }
        let file = FileName::Run(writing.number);
        let (stage, operation) = match writing.stage {
            Stage::Create => {
                writing.stage = Stage::Pages;
                return true;
            }
            Stage::Pages => unreachable!("dealt with above"),
            Stage::Sync => {
                self.counters.syncs += 1;
                #[cfg(test)]
                if self.settings.flaw == super::Flaw::RunNotDurable {
                    writing.stage = Stage::Header;
                    return true;
                }
                (Stage::Header, Operation::Sync { file })
            }
            Stage::Header => {
                let finished = writing.finished.as_mut().expect("a run with entries");
                let bytes = Bytes::from_owner(std::mem::take(&mut finished.header));
                #[cfg(test)]
                let durable = self.settings.flaw != super::Flaw::RunNotDurable;
                #[cfg(not(test))]
                let durable = true;
                (Stage::Directory, Operation::Write { file, offset: 0, bytes, durable })
            }
            Stage::Directory => {
                self.counters.syncs += 1;
                (Stage::Whole, Operation::SyncDirectory)
            }
            Stage::Whole => return self.install_run(writing),
            Stage::Over => return false,
        };
        writing.stage = stage;
        writing.outstanding += 1;
        self.start(operation, Pending::Run { id });
        true
    }

    /// Hands whole pages to the disk, two writes at a time; at the end the rest.
    fn write_pages(&mut self, id: u64, writing: &mut RunWriting, has_ended: bool) -> bool {
        if writing.outstanding >= 2 {
            return false;
        }
        let file = FileName::Run(writing.number);
        let (offset, bytes) = match (&mut writing.writer, &mut writing.finished) {
            (Some(writer), _) if writer.waiting() >= limits::RUN_WRITE_BYTES => writer.take(),
            (None, Some(finished)) => {
                writing.stage = Stage::Sync;
                (finished.offset, std::mem::take(&mut finished.rest))
            }
            // Nothing of it is alive any more.
            (None, None) if has_ended => {
                writing.stage = Stage::Whole;
                return true;
            }
            _ => return false,
        };
        writing.bytes = writing.bytes.max(offset + bytes.len() as u64);
        self.run_files.note_bytes(writing.number, writing.bytes);
        self.counters.run_bytes_written += bytes.len() as u64;
        writing.outstanding += 1;
        let bytes = Bytes::from_owner(bytes);
        self.start(Operation::Write { file, offset, bytes, durable: false }, Pending::Run { id });
        true
    }

    /// The run takes the place of the frozen recents, or of the runs it was merged from.
    fn install_run(&mut self, writing: &mut RunWriting) -> bool {
        if writing.last_sequence > self.log.durable {
            return false;
        }
        writing.stage = Stage::Over;
        let run: Option<Run> = writing.finished.take().map(|finished| finished.run);
        if run.is_none() {
            self.unlink_run(writing.number);
        }
        if writing.merged.is_empty() {
            self.counters.runs_written += u64::from(run.is_some());
            self.index.add_run(run);
        } else {
            self.counters.runs_merged += writing.merged.len() as u64;
            self.index.finish_merge(run, &writing.merged);
            self.run_files.retired.append(&mut writing.merged);
        }
        true
    }

    /// Gives up a run of which no operation is in flight. Returns whether there was something to give up.
    fn discard_run(&mut self, writing: &mut RunWriting) -> bool {
        if writing.is_done() {
            return false;
        }
        writing.stage = Stage::Over;
        self.unlink_run(writing.number);
        if writing.merged.is_empty() {
            self.index.thaw_recents();
        }
        if let Some(error) = writing.failed {
            self.run_files.not_before = self.log.durable + 64;
            if error != DiskError::NoSpace {
                self.count_write_fault();
            }
        }
        true
    }

    pub(super) fn unlink_run(&mut self, number: u32) {
        self.run_files.forget(number);
        self.disk.release(FileName::Run(number));
        self.start(Operation::Unlink { file: FileName::Run(number) }, Pending::Aside);
    }
}
