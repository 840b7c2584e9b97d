//! Looking at a store that no node has open: the operator's `epost store`.
//!
//! Each shard is recovered as it would be for work, by the same code, on a disk that refuses every change: so what is
//! counted and verified is what a node would find, and the directory is the same afterwards, byte for byte (but for the
//! `lock` file, made if somebody has lost it). Reads come from the device: what lies in memory proves nothing.
//!
//! Unlike the rest of the crate this looks at a clock, to keep a scrub to its pace.

use crate::config::Config;
use crate::disk::ReadOnly;
use crate::engine::{at, explain, is_shard_name, lock, settings, shard_dir};
use crate::format::superblock::Superblock;
use crate::limits;
use crate::open_error::OpenError;
use crate::request::{Entry, Error, Request, Response};
use crate::ring::{Bell, RingDisk};
use crate::stats::Stats;
use crate::store::{self, Settings, Store};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What to do with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// Recover it and count.
    Count,
    /// Read every object from the device and check every byte of it.
    Verify,
    /// Read every sealed segment from front to back as the running scrub does, dead records and all, and every run.
    Scrub {
        /// Bytes a second over all shards; as fast as the device gives them if there is none.
        bytes_per_s: Option<u64>,
    },
}

/// How far an inspection has come: for a progress bar, and to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes looked at.
    pub done: AtomicU64,
    /// Bytes to look at; grows until all shards are recovered.
    pub total: AtomicU64,
    /// Damage found so far.
    pub damaged: AtomicU64,
    /// Set by the caller: the inspection ends soon, with what it has.
    pub stop: AtomicBool,
}

/// What was found in one shard.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Which one.
    pub shard: usize,
    /// Its counters and gauges once it was recovered.
    pub stats: Stats,
    /// Objects (verify) or records (scrub) found sound.
    pub sound: u64,
    /// Bytes of those objects, or bytes read.
    pub bytes: u64,
    /// Damaged objects (verify), or damaged records and batches, live or not (scrub). What recovery had to pass over is in
    /// the stats.
    pub damaged: u64,
    /// Objects and stretches that the device did not give.
    pub unreadable: u64,
    /// Placement ids of objects damaged or not given, at most [`limits::DAMAGED_LISTED`].
    pub damaged_ids: Vec<[u8; 20]>,
    /// Files of runs damaged or missing, within the store's directory. Objects that were named there and nowhere else are served,
    /// but not listed.
    pub damaged_runs: Vec<PathBuf>,
    /// Whether it was looked at to its end.
    pub is_complete: bool,
}

impl ShardReport {
    /// Whether nothing is wrong with what was looked at.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.unreadable == 0 && self.stats.corrupt == 0 && self.damaged_runs.is_empty()
    }
}

/// A store that is held, so that no node opens it, and not changed.
#[derive(Debug)]
pub struct Inspector {
    dir: PathBuf,
    first: Superblock,
    settings: Settings,
    _lock: File,
}

impl Inspector {
    /// Takes hold of the store in `dir`.
    ///
    /// # Errors
    /// Each case of [`OpenError`] says what is wrong and what helps.
    pub fn open(dir: &Path) -> Result<Inspector, OpenError> {
        require_store(dir)?;
        let lock = lock(dir)?;
        let first_dir = shard_dir(dir, 0);
        if !first_dir.is_dir() {
            return Err(OpenError::ShardMissing { dir: first_dir });
        }
        let first = superblock(&mut disk(&first_dir)?, &first_dir)?;
        let shards = first.shards as usize;
        if !(1..=limits::SHARDS_MAX).contains(&shards) {
            return Err(OpenError::SuperblockLost { dir: first_dir });
        }
        if let Some(dir) = (0..shards).map(|shard| shard_dir(dir, shard)).find(|dir| !dir.is_dir()) {
            return Err(OpenError::ShardMissing { dir });
        }
        let settings = settings_for_reading(dir, shards)?;
        Ok(Inspector { dir: dir.to_path_buf(), first, settings, _lock: lock })
    }

    /// Its shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.first.shards as usize
    }

    /// Inspects all shards at once, a thread for each.
    ///
    /// # Errors
    /// If a shard cannot be recovered.
    pub fn run(&self, inspection: Inspection, progress: &Progress) -> Result<Vec<ShardReport>, OpenError> {
        thread::scope(|scope| {
            let spawn = |shard| {
                let inspect = move || self.inspect(shard, inspection, progress);
                thread::Builder::new().name(format!("shard-{shard:02}")).spawn_scoped(scope, inspect)
            };
            let threads: Vec<_> = (0..self.shards()).map(spawn).collect();
            let joined = threads.into_iter().map(|thread| {
                let thread = thread.map_err(|_| OpenError::Thread)?;
                thread.join().map_err(|_| OpenError::Thread)?
            });
            joined.collect()
        })
    }

    fn inspect(&self, shard: usize, inspection: Inspection, progress: &Progress) -> Result<ShardReport, OpenError> {
        let dir = shard_dir(&self.dir, shard);
        let mut disk = disk(&dir)?;
        let superblock = superblock(&mut disk, &dir)?;
        if superblock != (Superblock { check: superblock.check, shard: shard as u32, ..self.first }) {
            return Err(OpenError::OtherStore { dir });
        }
        let mut store = store::open(disk, self.settings).map_err(|error| explain(&dir, error))?;
        let report = ShardReport::of(shard, store.stats());
        store.forbid_changes();
        progress.damaged.fetch_add(report.stats.corrupt + report.stats.damaged_runs, Ordering::Relaxed);
        let mut inspected = Inspected { store, progress, report, tag_next: 0 };
        match inspection {
            Inspection::Count => inspected.report.is_complete = true,
            Inspection::Verify => inspected.verify(),
            Inspection::Scrub { bytes_per_s } => {
                inspected.scrub(bytes_per_s.map(|bytes| (bytes / self.shards() as u64).max(1)));
            }
        }
        let Inspected { store, mut report, .. } = inspected;
        let within = shard_dir(Path::new(""), shard);
        report.damaged_runs = store.damaged_runs().map(|file| within.join(file.to_string())).collect();
        Ok(report)
    }
}

impl ShardReport {
    fn of(shard: usize, stats: Stats) -> ShardReport {
        ShardReport {
            shard,
            stats,
            sound: 0,
            bytes: 0,
            damaged: 0,
            unreadable: 0,
            damaged_ids: Vec::new(),
            damaged_runs: Vec::new(),
            is_complete: false,
        }
    }
}

/// Objects asked for at once, and their bytes.
const GETS_IN_FLIGHT: usize = 64;
const GET_BYTES_IN_FLIGHT: u64 = 32 << 20;
/// Bytes of one step of an unpaced scrub.
const SCRUB_STEP: u64 = 16 << 20;
/// How long a paced scrub sleeps at once, so that it can be stopped.
const NAP: Duration = Duration::from_millis(50);

/// One shard under inspection.
struct Inspected<'a> {
    store: Store<ReadOnly<RingDisk>>,
    progress: &'a Progress,
    report: ShardReport,
    tag_next: u64,
}

impl Inspected<'_> {
    fn is_stopped(&self) -> bool {
        self.progress.stop.load(Ordering::Relaxed)
    }

    fn submit(&mut self, request: Request) -> u64 {
        let tag = self.tag_next;
        self.tag_next += 1;
        self.store.submit(tag, request);
        tag
    }

    /// The next answer; something must have been asked.
    fn answer(&mut self) -> (u64, Result<Response, Error>) {
        loop {
            if let Some(answer) = self.store.take() {
                return answer;
            }
            if !self.store.turn() {
                self.store.wait();
            }
        }
    }

    /// Walks all objects along the ring, and gets each of them.
    fn verify(&mut self) {
        self.progress.total.fetch_add(self.report.stats.live_bytes, Ordering::Relaxed);
        let (mut after, mut listed) = (None, 0);
        loop {
            let limit = limits::SCAN_ENTRIES_MAX;
            self.submit(Request::Scan { from: [0; 20], to: [0xff; 20], after, limit });
            let entries = match self.answer() {
                (_, Ok(Response::Listed(entries))) => entries,
                // The device does not give the listing: nothing behind it can be looked at.
                _ => {
                    self.report.unreadable += 1;
                    return;
                }
            };
            let is_last = entries.len() < limit;
            listed += entries.len() as u64;
            after = entries.last().map(|entry| entry.key);
            if !self.verify_entries(entries) {
                return;
            }
            if is_last {
                // Of some it may not be known whose they are: the page of a run that named them is damaged.
                let unnamed = self.report.stats.objects.saturating_sub(listed);
                self.report.damaged += unnamed;
                self.progress.damaged.fetch_add(unnamed, Ordering::Relaxed);
                self.report.is_complete = true;
                return;
            }
        }
    }

    /// Gets these objects, many at once. Returns whether it came to the end of them.
    fn verify_entries(&mut self, entries: Vec<Entry>) -> bool {
        let mut asked: HashMap<u64, Entry> = HashMap::new();
        let mut bytes_asked = 0;
        let mut entries = entries.into_iter();
        loop {
            while asked.len() < GETS_IN_FLIGHT && bytes_asked < GET_BYTES_IN_FLIGHT && !self.is_stopped() {
                let Some(entry) = entries.next() else { break };
                bytes_asked += u64::from(entry.len);
                let tag = self.submit(Request::Get { key: entry.key });
                asked.insert(tag, entry);
            }
            if asked.is_empty() {
                return entries.len() == 0;
            }
            let (tag, result) = self.answer();
            let entry = asked.remove(&tag).expect("only what was asked is answered");
            bytes_asked -= u64::from(entry.len);
            self.judge(&entry, result);
        }
    }

    fn judge(&mut self, entry: &Entry, result: Result<Response, Error>) {
        self.progress.done.fetch_add(u64::from(entry.len), Ordering::Relaxed);
        match result {
            Ok(Response::Got(Some(object)))
                if object.version == entry.version && object.value.len() == entry.len as usize =>
            {
                self.report.sound += 1;
                self.report.bytes += u64::from(entry.len);
                return;
            }
            Ok(_) => self.report.damaged += 1,
            Err(_) => self.report.unreadable += 1,
        }
        self.progress.damaged.fetch_add(1, Ordering::Relaxed);
        if self.report.damaged_ids.len() < limits::DAMAGED_LISTED {
            self.report.damaged_ids.push(entry.key.placement);
        }
    }

    /// One pass of scrub, in steps, no faster than `bytes_per_s`.
    fn scrub(&mut self, bytes_per_s: Option<u64>) {
        let begun = Instant::now();
        let budget_bytes = bytes_per_s.map_or(SCRUB_STEP, |rate| (rate / 10).clamp(1, SCRUB_STEP));
        let mut is_first = true;
        while !self.is_stopped() {
            self.submit(Request::Scrub { budget_bytes });
            let (_, Ok(Response::Scrubbed { bytes, records, damaged, damaged_pages, wrapped, store_bytes })) =
                self.answer()
            else {
                self.report.unreadable += 1;
                return;
            };
            if std::mem::take(&mut is_first) {
                self.progress.total.fetch_add(store_bytes, Ordering::Relaxed);
            }
            self.progress.done.fetch_add(bytes, Ordering::Relaxed);
            self.progress.damaged.fetch_add(damaged + damaged_pages, Ordering::Relaxed);
            self.report.bytes += bytes;
            self.report.sound += records;
            self.report.damaged += damaged;
            self.report.unreadable = self.store.stats().device_errors;
            if wrapped {
                self.report.is_complete = true;
                return;
            }
            if let Some(rate) = bytes_per_s {
                self.keep_pace(begun, Duration::from_secs_f64(self.report.bytes as f64 / rate as f64));
            }
        }
    }

    /// Waits until so much time has passed.
    fn keep_pace(&self, begun: Instant, due: Duration) {
        while let Some(early) = due.checked_sub(begun.elapsed()).filter(|early| !early.is_zero()) {
            if self.is_stopped() {
                return;
            }
            thread::sleep(early.min(NAP));
        }
    }
}

fn disk(dir: &Path) -> Result<ReadOnly<RingDisk>, OpenError> {
    let bell = Arc::new(Bell::new().map_err(|source| at(dir, source))?);
    Ok(ReadOnly::new(RingDisk::open(dir, bell)?))
}

fn superblock(disk: &mut ReadOnly<RingDisk>, dir: &Path) -> Result<Superblock, OpenError> {
    store::superblock(disk).map_err(|error| explain(dir, error))
}

/// Refuses what is not a store, before even the lock is touched.
fn require_store(dir: &Path) -> Result<(), OpenError> {
    let no_store = || OpenError::NoStore { dir: dir.to_path_buf() };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(no_store());
        }
        Err(source) => return Err(at(dir, source)),
    };
    for entry in entries {
        let entry = entry.map_err(|source| at(dir, source))?;
        if is_shard_name(&entry.file_name().to_string_lossy()) {
            return Ok(());
        }
    }
    Err(no_store())
}

/// Settings under which a store does nothing of its own accord: no cleaning, no checkpoint.
fn settings_for_reading(dir: &Path, shards: usize) -> Result<Settings, OpenError> {
    let config = Config { capacity_bytes: 1 << 60, segment_bytes: limits::SEGMENT_BYTES_MAX, ..Config::new(dir) };
    Ok(Settings { checkpoint_log_bytes: u64::MAX, ..settings(&config, shards)? })
}
