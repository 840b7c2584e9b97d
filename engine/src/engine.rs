//! The engine: shard threads over one directory.
//!
//! ```text
//! dir/lock                 held while the store is open
//! dir/shard-00/superblock  written last when the store is made: without it there is no store
//! dir/shard-00/segment-*   the log
//! dir/shard-00/checkpoint-0, -1
//! dir/shard-01/…
//! ```

use crate::client::Client;
use crate::config::Config;
use crate::format::VERSION;
use crate::format::superblock::Superblock;
use crate::limits;
use crate::open_error::OpenError;
use crate::ring::{Bell, RingDisk, pin_to_processor};
use crate::shard::{Mailbox, Message, Port, Seats, run};
use crate::stats::Stats;
use crate::store::{self, Settings, StoreError};
use crossbeam::channel::{Sender, bounded};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// An open store. Dropping it closes it.
pub struct Engine {
    mailboxes: Arc<[Mailbox]>,
    threads: Vec<JoinHandle<()>>,
    seats: Arc<Seats>,
    /// Held until everything else is gone.
    _lock: File,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("shards", &self.mailboxes.len()).finish()
    }
}

impl Engine {
    /// Opens the store in `config.dir`, or makes one if the directory is empty or absent. Returns when every shard has
    /// recovered.
    ///
    /// # Errors
    /// Each case of [`OpenError`] says what is wrong and what helps.
    pub fn open(config: Config) -> Result<Engine, OpenError> {
        check(&config)?;
        fs::create_dir_all(&config.dir).map_err(|source| at(&config.dir, source))?;
        refuse_foreign(&config.dir)?;
        let lock = lock(&config.dir)?;
        let first = match existing(&config)? {
            Some(superblock) => superblock,
            None => make(&config)?,
        };
        let shards = first.shards as usize;
        let settings = settings(&config, shards)?;
        let seats = Arc::new(Seats::default());
        let mut mailboxes = Vec::new();
        let mut threads = Vec::new();
        let (ready, opened) = bounded(shards);
        for shard in 0..shards {
            let bell = Arc::new(Bell::new().map_err(|source| at(&config.dir, source))?);
            // A little more than the ports share out: for closing and for questions about numbers.
            let (mailbox, slot) = Mailbox::new(limits::MAILBOX + 64, bell.clone());
            let start = Start {
                dir: shard_dir(&config.dir, shard),
                first,
                shard,
                settings,
                pin: config.pin,
                bell,
                ready: ready.clone(),
            };
            let thread = thread::Builder::new()
                .name(format!("shard-{shard:02}"))
                .spawn(move || {
                    if let Some(store) = start.open() {
                        run(shard, store, &slot);
                    }
                })
                .map_err(|_| OpenError::Thread)?;
            mailboxes.push(mailbox);
            threads.push(thread);
        }
        drop(ready);
        let engine = Engine { mailboxes: mailboxes.into(), threads, seats, _lock: lock };
        for _ in 0..shards {
            // On an error the engine is dropped, which ends the shards that did open.
            opened.recv().map_err(|_| OpenError::Thread)??;
        }
        Ok(engine)
    }

    /// A bounded, asynchronous door for one owner. `wake` is called, from a shard's thread, once per batch of completions:
    /// it must be quick and must not block.
    #[must_use]
    pub fn port(&self, capacity: usize, wake: Arc<dyn Fn() + Send + Sync>) -> Port {
        Port::new(self.mailboxes.clone(), self.seats.clone(), capacity, wake)
    }

    /// A blocking door, for tools and tests.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self)
    }

    /// The numbers of all shards.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut total = Stats::default();
        for mailbox in self.mailboxes.iter() {
            let (sender, receiver) = bounded(1);
            if mailbox.put(Message::Stats(sender))
                && let Ok(stats) = receiver.recv()
            {
                total.add(&stats);
            }
        }
        total
    }

    /// Answers what has been submitted, writes checkpoints and ends the threads. Ports answer [`crate::Error::Closed`] from
    /// then on.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for mailbox in self.mailboxes.iter() {
            // A shard that has already ended needs no telling.
            mailbox.put(Message::Close);
        }
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the thread; the store's files are sound as after a kill.
            let _ = thread.join();
        }
    }
}

/// What a shard's thread needs to begin.
struct Start {
    dir: PathBuf,
    first: Superblock,
    shard: usize,
    settings: Settings,
    pin: bool,
    bell: Arc<Bell>,
    ready: Sender<Result<(), OpenError>>,
}

impl Start {
    /// Opens the shard on its own thread (a ring belongs to one) and reports.
    fn open(self) -> Option<store::Store<RingDisk>> {
        if self.pin {
            // Where pinning is not allowed, the scheduler decides.
            let _ = pin_to_processor(self.shard);
        }
        let opened = self.try_open();
        let (store, report) = match opened {
            Ok(store) => (Some(store), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // If nobody waits for the report any more, the mailbox is about to be closed too.
        let _ = self.ready.send(report);
        store
    }

    fn try_open(&self) -> Result<store::Store<RingDisk>, OpenError> {
        if !self.dir.is_dir() {
            return Err(OpenError::ShardMissing { dir: self.dir.clone() });
        }
        let mut disk = RingDisk::open(&self.dir, self.bell.clone())?;
        let superblock = store::superblock(&mut disk).map_err(|error| explain(&self.dir, error))?;
        let expected = Superblock { check: superblock.check, shard: self.shard as u32, ..self.first };
        if superblock != expected {
            return Err(OpenError::OtherStore { dir: self.dir.clone() });
        }
        store::open(disk, self.settings).map_err(|error| explain(&self.dir, error))
    }
}

pub(crate) fn at(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_path_buf(), source }
}

pub(crate) fn explain(dir: &Path, error: StoreError) -> OpenError {
    let dir = dir.to_path_buf();
    match error {
        StoreError::Disk(source) => OpenError::Disk { dir, source },
        StoreError::NoSuperblock => OpenError::SuperblockLost { dir },
        StoreError::Newer { found } => OpenError::NewerVersion { dir, found, known: VERSION },
        StoreError::Older { found } => OpenError::OlderVersion { dir, found, known: VERSION },
    }
}

pub(crate) fn shard_dir(dir: &Path, shard: usize) -> PathBuf {
    dir.join(format!("shard-{shard:02}"))
}

fn check(config: &Config) -> Result<(), OpenError> {
    let bad = |setting, allowed| Err(OpenError::BadSetting { setting, allowed });
    if !(1..=limits::SHARDS_MAX).contains(&config.shards) {
        return bad("shards", "1 to 64");
    }
    if config.tick_s == 0 {
        return bad("tick_s", "at least 1");
    }
    if !(limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX).contains(&config.segment_bytes) {
        return bad("segment_bytes", "64 KiB to 256 MiB");
    }
    Ok(())
}

/// The capacity shared out to the shards, in segments that fit it.
pub(crate) fn settings(config: &Config, shards: usize) -> Result<Settings, OpenError> {
    let capacity_bytes = config.capacity_bytes / shards as u64;
    let modest = config.segment_bytes.min(limits::SEGMENT_BYTES_MODEST);
    let needed_bytes = u64::from(modest) * limits::SEGMENTS_MIN * shards as u64;
    if config.capacity_bytes < needed_bytes {
        return Err(OpenError::CapacityTooSmall { capacity_bytes: config.capacity_bytes, shards, needed_bytes });
    }
    let most = u32::try_from(capacity_bytes / limits::SEGMENTS_MIN).unwrap_or(u32::MAX);
    let segment_bytes = config.segment_bytes.min(most) / limits::BLOCK as u32 * limits::BLOCK as u32;
    Ok(Settings {
        segment_bytes,
        capacity_bytes,
        step_bytes: limits::STEP_BYTES,
        overlap_share: limits::OVERLAP_SHARE,
        zeros_bytes: limits::ZEROS as u32,
        grace_s: config.grace_s,
        clock_jump_s: config.clock_jump_s,
        objects_max: config.objects_per_shard_max,
        tail_bytes: limits::TAIL_BYTES,
        punch_bytes_min: limits::PUNCH_BYTES_MIN,
        checkpoint_log_bytes: limits::CHECKPOINT_LOG_BYTES,
        arc_objects_max: limits::ARC_OBJECTS_MAX,
        recents_max: limits::RECENTS_MAX,
        run_fan_in: limits::RUN_FAN_IN,
        tag_bits: 16,
        #[cfg(test)]
        flaw: store::Flaw::None,
    })
}

pub(crate) fn is_shard_name(name: &str) -> bool {
    name.strip_prefix("shard-").is_some_and(|number| number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Refuses a directory with anything in it that is not ours, before anything is written.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir).map_err(|source| at(dir, source))? {
        let name = entry.map_err(|source| at(dir, source))?.file_name();
        let name = name.to_string_lossy();
        // A file system's own directory at the root of a disk given to us whole.
        if name != "lock" && name != "lost+found" && !is_shard_name(&name) {
            return Err(OpenError::NotOurs { dir: dir.to_path_buf(), found: name.into_owned() });
        }
    }
    Ok(())
}

pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| at(&path, source))?;
    for _ in 0..limits::LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A process that has just ended, or one that is being started and holds copies of our descriptors until it runs
            // its program, lets go in a moment.
            Err(TryLockError::WouldBlock) => thread::sleep(limits::LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(at(&path, source)),
        }
    }
    Err(OpenError::AlreadyOpen { dir: dir.to_path_buf() })
}

fn any_shard_dir(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let mut shards = Vec::new();
    for entry in fs::read_dir(dir).map_err(|source| at(dir, source))? {
        let entry = entry.map_err(|source| at(dir, source))?;
        if is_shard_name(&entry.file_name().to_string_lossy()) {
            shards.push(entry.path());
        }
    }
    Ok(shards)
}

/// The first shard's superblock, if there is a store. One whose making was cut short is none: it holds no data.
fn existing(config: &Config) -> Result<Option<Superblock>, OpenError> {
    let mut has_data = None;
    for dir in any_shard_dir(&config.dir)? {
        for entry in fs::read_dir(&dir).map_err(|source| at(&dir, source))? {
            let name = entry.map_err(|source| at(&dir, source))?.file_name();
            if name.to_string_lossy() != "superblock" {
                has_data = Some(dir.clone());
            }
        }
    }
    let dir = shard_dir(&config.dir, 0);
    if !dir.is_dir() {
        return has_data.map_or(Ok(None), |_| Err(OpenError::ShardMissing { dir }));
    }
    let bell = Arc::new(Bell::new().map_err(|source| at(&dir, source))?);
    let mut disk = RingDisk::open(&dir, bell)?;
    match store::superblock(&mut disk) {
        Ok(superblock) => Ok(Some(superblock)),
        Err(StoreError::NoSuperblock) if has_data.is_none() => Ok(None),
        Err(error) => Err(explain(&dir, error)),
    }
}

/// Makes a store: all shards, the first one last, so that a store is there only when all of it is.
fn make(config: &Config) -> Result<Superblock, OpenError> {
    settings(config, config.shards)?;
    let mut random = [0; 24];
    let path = Path::new("/dev/urandom");
    File::open(path).and_then(|mut file| file.read_exact(&mut random)).map_err(|source| at(path, source))?;
    let (mut store_id, mut seed) = ([0; 16], [0; 8]);
    store_id.copy_from_slice(&random[..16]);
    seed.copy_from_slice(&random[16..]);
    // The directory's own name must survive, too.
    if let Some(parent) = config.dir.canonicalize().ok().as_deref().and_then(Path::parent) {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|source| at(parent, source))?;
    }
    let bell = Arc::new(Bell::new().map_err(|source| at(&config.dir, source))?);
    for shard in (0..config.shards).rev() {
        let dir = shard_dir(&config.dir, shard);
        fs::create_dir_all(&dir).map_err(|source| at(&dir, source))?;
        let parent = File::open(&config.dir).and_then(|parent| parent.sync_all());
        parent.map_err(|source| at(&config.dir, source))?;
        let mut disk = RingDisk::open(&dir, bell.clone())?;
        let (seed, shards) = (u64::from_le_bytes(seed), config.shards as u32);
        store::create(&mut disk, store_id, seed, shard as u32, shards, config.tick_s)
            .map_err(|error| explain(&dir, error))?;
    }
    let mut disk = RingDisk::open(&shard_dir(&config.dir, 0), bell)?;
    store::superblock(&mut disk).map_err(|error| explain(&config.dir, error))
}
