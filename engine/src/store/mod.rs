//! One shard as a state machine: requests in, disk operations out, answers when they are durable.
//!
//! A [`Store`] has no thread and no clock. Whoever drives it calls [`Store::submit`] with requests, [`Store::turn`] to let
//! it move, and [`Store::take`] for answers; between turns it may block in [`Store::wait`]. On a ring that is the shard's
//! thread; in the crash tests it is the test, which cuts the power wherever it likes.
//!
//! The story of a put: `submit` lines it up; when fewer than two batches are in flight, `commit` takes what has lined up,
//! `decide` looks at the index and says what each change means, its record goes into the batch and the index changes, the
//! batch is written. When it and all before it are durable the answers go out (`commit` again). Until then a get of a
//! changed key waits (`read`), so that nothing is told that a power cut could take back. If a write fails, the
//! index is rolled back to what is durable and the answers are errors.
//!
//! What lies behind: `upkeep` cleans segments, writes checkpoints and frees dead segments; `recovery` puts all of it
//! together again when the store is opened. `scrub` reads sealed segments and runs again to find rot before a reader does.

mod apply;
pub(crate) mod arcs;
mod bare_index;
mod checkpointing;
mod cleaning;
mod commit;
mod decide;
#[cfg(any(test, feature = "simulation"))]
mod inspection;
mod log;
mod pages;
mod presence;
mod punching;
mod read;
mod rebuilding;
mod recovery;
mod runs;
mod scrub;
mod scrub_runs;
mod segments;
mod supply;
mod sweeping;
mod upkeep;
mod walks;

#[cfg(test)]
mod full_tests;
#[cfg(test)]
mod scrub_tests;
#[cfg(test)]
mod tests;

pub use bare_index::{BareIndex, Walked};
pub(crate) use recovery::superblock;
pub use recovery::{StoreError, create, open};

use crate::disk::{Disk, Done, FileName, Operation, Token};
use crate::format::Identity;
use crate::format::record::{LeaseRow, RecordHeader};
use crate::key::Class;
use crate::limits;
use crate::request::{Error, Request, Response};
use crate::stats::Stats;
use apply::Unsettled;
use arcs::Index;
use arcs::codec::ExpiryRow;
use arcs::walk::{Entry, Need};
use bytes::Bytes;
use log::{Log, Tail};
use presence::Fact;
use punching::Holes;
use rebuilding::Rebuilding;
use runs::RunFiles;
use scrub::Scrub;
use segments::Segments;
use std::collections::{BTreeMap, HashMap, VecDeque};
use upkeep::Upkeep;
use walks::Walking;

/// What one shard is held to.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Size of a segment; a multiple of a block.
    pub segment_bytes: u32,
    /// Bytes this shard may use.
    pub capacity_bytes: u64,
    /// Bytes that a segment's file begins with and grows by.
    pub step_bytes: u32,
    /// A batch that overlaps another is at least one part in so many as large.
    pub overlap_share: u64,
    /// A chunk of the zeros written ahead of batches.
    pub zeros_bytes: u32,
    /// Seconds after its end that a lease still protects.
    pub grace_s: u64,
    /// Largest believable step of the clock between sweeps.
    pub clock_jump_s: u64,
    /// Most objects in the index.
    pub objects_max: usize,
    /// Bytes of recent batches kept in memory.
    pub tail_bytes: usize,
    /// Dead records with so many bytes of whole blocks are punched.
    pub punch_bytes_min: u32,
    /// A checkpoint is due after this much log.
    pub checkpoint_log_bytes: u64,
    /// An arc of the index with this many objects is split.
    pub arc_objects_max: usize,
    /// So many recent entries are worth a run.
    pub recents_max: usize,
    /// Runs merged at once.
    pub run_fan_in: usize,
    /// Bits of a tag in the index: 16, except in tests that want false matches.
    pub tag_bits: u32,
    #[cfg(test)]
    pub(crate) flaw: Flaw,
}

/// A change lined up for a batch.
#[derive(Debug)]
pub(crate) enum Change {
    /// What somebody asked for, with what records have said meanwhile.
    Asked { tag: u64, request: Request, facts: Vec<Fact> },
    /// A live record read by cleaning, to be written again.
    Survivor { entry: Entry, account: u64, class: u8, lease_set: u64, value: Bytes },
    /// What a sweep has found, to be removed if its lease still ends before the cutoff.
    Expired { entries: Vec<Entry>, cutoff: u32 },
    /// An object whose record is damaged.
    Lost { entry: Entry },
}

impl Change {
    fn asked(tag: u64, request: Request) -> Change {
        Change::Asked { tag, request, facts: Vec::new() }
    }

    /// The class it is written for; none for what leaves nothing live behind.
    fn class(&self) -> Option<Class> {
        match self {
            Change::Asked { request: Request::Put { class, .. }, .. } => Some(*class),
            Change::Survivor { .. } => Some(Class::Survivor),
            Change::Asked { .. } | Change::Expired { .. } | Change::Lost { .. } => None,
        }
    }

    /// About how many bytes it takes in a batch.
    fn payload_bytes(&self) -> usize {
        match self {
            Change::Asked { request: Request::Put { value, .. }, .. } | Change::Survivor { value, .. } => value.len(),
            Change::Asked { request: Request::TouchMany { leases }, .. } => leases.len() * LeaseRow::SIZE,
            Change::Expired { entries, .. } => entries.len() * ExpiryRow::SIZE,
            Change::Asked { .. } | Change::Lost { .. } => 0,
        }
    }

    /// A live record with its payload, found by cleaning.
    fn survivor(entry: Entry, header: &RecordHeader, value: Bytes) -> Change {
        let (account, class, lease_set) = (header.account, header.class, header.lease_set);
        Change::Survivor { entry, account, class, lease_set, value }
    }
}

/// What a disk operation in flight is for.
#[expect(clippy::large_enum_variant, reason = "as many as operations are in flight, most often readings")]
#[derive(Debug)]
enum Pending {
    Batch,
    Read(read::Reading),
    /// On a file being made ready.
    Supply {
        number: u32,
    },
    Unlink {
        number: u32,
    },
    /// A sync of the directory, after which these numbers' files are durably gone.
    Names {
        unlinked: Vec<u32>,
    },
    /// Pages for a walk.
    Walk {
        id: u64,
        need: Need,
    },
    /// Pages for the rebuild of a table.
    Rebuild {
        need: Need,
    },
    /// A step of a run being written.
    Run {
        id: u64,
    },
    /// A run's file being removed: if it stays, the next opening removes it.
    Aside,
    Upkeep {
        round: u64,
        step: upkeep::Step,
    },
    /// A stretch of a sealed segment, to be verified.
    Scrub,
    ScrubRun,
}

/// One shard's store. See the module.
pub struct Store<D: Disk> {
    disk: D,
    identity: Identity,
    tick_s: u32,
    settings: Settings,
    index: Index,
    segments: Segments,
    log: Log,
    tail: Tail,
    changes: VecDeque<Change>,
    survivors: VecDeque<Change>,
    pending: HashMap<u64, Pending>,
    token_next: u64,
    /// Keys changed by batches that are not durable yet, by hash, with the last such batch.
    unsettled: Unsettled,
    /// Answers and reads that wait until a batch is durable.
    waiting: BTreeMap<u64, Vec<read::Waiting>>,
    readings: VecDeque<read::Reading>,
    readings_in_flight: usize,
    finished: VecDeque<(u64, Result<Response, Error>)>,
    upkeep: Upkeep,
    walks: BTreeMap<u64, Walking>,
    walk_next: u64,
    run_files: RunFiles,
    rebuilding: Rebuilding,
    scrub: Scrub,
    holes: Holes,
    /// The last believed time of a sweep.
    swept_s: Option<u64>,
    write_faults: u64,
    read_only: bool,
    open_requests: u64,
    counters: Stats,
}

/// Defects that tests plant to see that they are caught.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Flaw {
    #[default]
    None,
    /// Acknowledge batches when they are submitted.
    AckBeforeDurable,
    /// Free dead segments without a checkpoint.
    FreeBeforeCheckpoint,
    /// Write no lease records.
    ForgetLeases,
    /// Serve values without checking them.
    SkipVerification,
    /// Replay batches that follow in number, whatever they were chained to and whoever made them void.
    Unchained,
    /// Let gets see what is not durable yet.
    DirtyReads,
    /// Write no rows for what has expired.
    ForgetExpiries,
    /// Take a run for durable that was not synced.
    RunNotDurable,
    /// Install a checkpoint whose last batch is not durable yet.
    CheckpointEarly,
    /// Note the dead for punching before their batch is durable.
    PunchEarly,
    /// Scrub finds damage and does nothing about it.
    ScrubLooksAway,
}

impl<D: Disk> Store<D> {
    /// Takes an operation. Its answer comes from [`Store::take`] under the same tag, exactly once.
    pub fn submit(&mut self, tag: u64, request: Request) {
        self.open_requests += 1;
        match request {
            Request::Get { key } => self.get(tag, key),
            Request::Scan { from, to, after, limit } => self.scan(tag, from, to, after, limit),
            Request::Digest { from, to } => self.digest(tag, from, to),
            Request::Scrub { budget_bytes } => self.scrub(tag, budget_bytes),
            change => self.changes.push_back(Change::asked(tag, change)),
        }
    }

    /// Lets everything move that can move without waiting. Returns whether something did.
    pub fn turn(&mut self) -> bool {
        let mut moved = false;
        while let Some(done) = self.disk.poll() {
            moved = true;
            self.complete(done);
        }
        moved |= self.settle();
        moved |= self.advance_upkeep();
        moved |= self.begin_runs();
        moved |= self.advance_walks();
        moved |= self.advance_rebuild();
        moved |= self.advance_supply();
        while self.build_batch() {
            moved = true;
        }
        moved |= self.advance_scrub();
        moved |= self.start_readings();
        moved
    }

    /// Blocks until the disk has something, or the shard is woken.
    pub fn wait(&mut self) {
        self.disk.wait();
    }

    /// The next finished operation.
    pub fn take(&mut self) -> Option<(u64, Result<Response, Error>)> {
        self.finished.pop_front()
    }

    /// Whether everything submitted has been answered and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let at_rest =
            self.pending.is_empty() && self.upkeep.is_idle() && self.changes.is_empty() && self.survivors.is_empty();
        let is_walking = !self.walks.is_empty() || self.rebuilding.is_under_way();
        self.open_requests == 0 && self.finished.is_empty() && !is_walking && at_rest
    }

    /// Asks for a checkpoint, so that the next opening is quick. Done when [`Store::is_idle`] holds again.
    pub fn request_checkpoint(&mut self) {
        self.upkeep.request_checkpoint();
    }

    /// Refuses every change from now on, and makes none of its own accord: what is looked at stays as it is.
    pub(crate) fn forbid_changes(&mut self) {
        self.read_only = true;
    }

    /// Runs found damaged or missing, by file name.
    pub(crate) fn damaged_runs(&self) -> impl Iterator<Item = FileName> + '_ {
        self.run_files.damaged.iter().map(|number| FileName::Run(*number))
    }

    /// Numbers for the operator.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mappings = self.disk.mappings();
        Stats {
            segments_pinned: mappings.pinned,
            segments_quarantined: mappings.quarantined,
            shards: 1,
            objects: self.index.len() as u64,
            leases: self.index.len() as u64,
            live_bytes: self.segments.live_bytes(),
            dead_bytes: self.segments.dead_bytes(),
            total_bytes: self.total_bytes(),
            capacity_bytes: self.settings.capacity_bytes,
            segments: self.segments.in_use(),
            registered_bytes: self.disk.registered_bytes(),
            open_classes: self.log.open.iter().flatten().count() as u64,
            index_bytes: self.index.bytes() as u64,
            arcs: self.index.arcs().len() as u64,
            stashed: self.index.stashed() as u64,
            recents: self.index.recents().count() as u64,
            runs: self.index.runs().len() as u64,
            run_bytes: self.run_files.total_bytes(),
            damaged_runs: self.run_files.damaged.len() as u64,
            queue_depth: self.open_requests,
            read_only: u64::from(self.read_only),
            ..self.counters
        }
    }

    fn total_bytes(&self) -> u64 {
        let beside = self.upkeep.checkpoint_bytes() + self.run_files.total_bytes();
        self.segments.taken_bytes() + self.log.supply.bytes() + beside
    }

    /// Segments this shard may still open within its capacity.
    fn segments_free(&self) -> u64 {
        let claimed = self.segments.in_use() + u64::from(self.log.supply.claims_one());
        self.segments_max().saturating_sub(claimed)
    }

    /// Segments that the capacity holds beside checkpoints and runs, as large as these may become. What was punched is not
    /// counted back in: the reserve is of whole segments, and would be gone when segments with holes are cleaned.
    fn segments_max(&self) -> u64 {
        let beside = self.upkeep.checkpoint_bytes() + self.run_files.total_bytes();
        let index_room = beside.max(self.index.len() as u64 * limits::INDEX_ROOM);
        let for_segments = self.settings.capacity_bytes.saturating_sub(index_room);
        (for_segments / u64::from(self.settings.segment_bytes)).min(u64::from(limits::SEGMENT_NUMBER_MAX))
    }

    /// So much may be live for cleaning to go on: then, even with the reserve untouched, some segment is less dense than what
    /// its survivors are packed into.
    fn live_bytes_max(&self) -> u64 {
        let segment = self.settings.segment_bytes;
        let usable = self.segments_max().saturating_sub(limits::SEGMENTS_RESERVED) * u64::from(segment);
        usable * limits::dense_percent(segment) / 100
    }

    fn start(&mut self, operation: Operation, pending: Pending) -> u64 {
        let token = self.token_next;
        self.token_next += 1;
        self.pending.insert(token, pending);
        self.disk.submit(Token(token), operation);
        token
    }

    fn complete(&mut self, done: Done) {
        let Done { token: Token(token), result } = done;
        let Some(pending) = self.pending.remove(&token) else {
            return;
        };
        if result.is_err() {
            self.counters.device_errors += 1;
        }
        match pending {
            Pending::Batch => self.batch_written(token, result.map(|_| ())),
            Pending::Read(reading) => {
                self.readings_in_flight -= 1;
                self.reading_done(reading, result);
            }
            Pending::Walk { id, need } => self.walk_pages_read(id, need, result),
            Pending::Rebuild { need } => self.rebuild_pages_read(need, result),
            Pending::Run { id } => self.run_step_done(id, result.err()),
            Pending::Aside => {}
            Pending::Supply { number } => self.supply_done(number, result.err()),
            // A file that could not be removed keeps its number until the store is opened again.
            Pending::Unlink { number } if result.is_ok() => self.segments.note_unlinked(number),
            Pending::Unlink { .. } => {}
            Pending::Names { unlinked } if result.is_ok() => self.segments.release_numbers(&unlinked),
            Pending::Names { unlinked } => unlinked.into_iter().for_each(|number| self.segments.note_unlinked(number)),
            Pending::Upkeep { round, step } => self.upkeep_done(round, step, result),
            Pending::Scrub => self.stretch_read(result),
            Pending::ScrubRun => self.run_stretch_read(result),
        }
    }

    fn finish(&mut self, tag: u64, result: Result<Response, Error>) {
        assert!(self.open_requests > 0, "every answer belongs to a request");
        self.open_requests -= 1;
        match &result {
            Ok(Response::Put) => self.counters.puts += 1,
            Ok(Response::Got(_)) => self.counters.gets += 1,
            Err(Error::Full | Error::ReadOnly | Error::TooLarge) => self.counters.refused += 1,
            _ => {}
        }
        self.finished.push_back((tag, result));
    }

    /// A segment is opened with this generation, or given up.
    fn set_generation(&mut self, number: u32, generation: Option<u32>) {
        self.index.set_generation(u16::try_from(number).expect("segment numbers have 16 bits"), generation);
    }

    /// The first tick at or after this second.
    fn tick(&self, expiry_s: u64) -> u32 {
        u32::try_from(expiry_s.div_ceil(u64::from(self.tick_s))).unwrap_or(u32::MAX)
    }

    fn seconds(&self, tick: u32) -> u64 {
        u64::from(tick) * u64::from(self.tick_s)
    }
}
