//! The disk on io_uring: one ring and one directory per shard thread.
//!
//! Reads, writes, syncs, allocation and unlinking go through the ring; opening and listing, which are rare, are plain calls.
//! Batches, which are aligned, are written with O_DIRECT out of registered memory, durably and without passing the page
//! cache. Checkpoints go through it. What segments hold durably is served from their mapping (`mapping`) if it is in memory
//! (`residency`), and read otherwise (`read`); a page that cannot be read does not end the process (`fault`).
//!
//! `unsafe` in this crate is here: pushing entries whose buffers must stay alive until their completion
//! (this file, `write` and `ceiling`), the mapping (`mapping`), the handler of its faults (`fault`), and asking the kernel about a
//! file (`handle`).

pub mod ceiling;

mod fault;
mod habit;
mod handle;
mod mapping;
mod pool;
mod read;
mod residency;
mod setup;
mod write;

pub use setup::Bell;
pub(crate) use setup::{open_ring, pin_to_processor};

use crate::disk::{Buffer, Disk, DiskError, Done, FileName, Mappings, Operation, Outcome, Resident, Token};
use crate::limits::RING_ENTRIES;
use crate::open_error::OpenError;
use habit::Habits;
use handle::Handle;
use io_uring::{IoUring, opcode, squeue, types};
use mapping::{Mapping, Pinned};
use read::{Reading, Reads};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use write::{Memory, Writing};

/// Bytes of a block in a file's metadata, whatever the file system's own are.
const STAT_BLOCK_BYTES: u64 = 512;

/// One shard's directory on io_uring.
///
/// `Drop` waits for everything in flight; only then are the ring, the files and the buffers dropped.
pub struct RingDisk {
    ring: IoUring,
    dir: PathBuf,
    directory: Arc<File>,
    files: BTreeMap<FileName, Handle>,
    /// Operations in flight, by the number the kernel gives back. Owns their buffers.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    done: VecDeque<Done>,
    bell: Arc<Bell>,
    bell_armed: bool,
    /// Made when the first batch is. Behind `ring`, which is closed first.
    memory: Option<Memory>,
    /// How batches are made durable.
    habits: Habits,
    reads: Reads,
    /// Mappings let go of while somebody held bytes of them.
    pinned: Vec<(FileName, Pinned)>,
    /// Mappings let go of after they were quarantined.
    quarantined_before: u64,
}

/// What an operation in flight owns until the kernel is done with it.
enum Flight {
    Write(Writing),
    /// The sync behind a write, with the write's outcome once it has one.
    Linked(Option<(Writing, i32)>),
    Read(Reading),
    Plain {
        token: Token,
        _file: Option<Arc<File>>,
        _path: Option<CString>,
    },
    Bell {
        _count: Box<[u8; 8]>,
    },
}

impl RingDisk {
    /// Opens `dir`, which must exist. To be called on the thread that will use it.
    ///
    /// # Errors
    /// If there is no io_uring, too little memory may be locked, or the directory cannot be opened.
    pub fn open(dir: &Path, bell: Arc<Bell>) -> Result<RingDisk, OpenError> {
        let directory = File::open(dir).map_err(|source| OpenError::Io { path: dir.to_path_buf(), source })?;
        Ok(RingDisk {
            ring: open_ring(RING_ENTRIES)?,
            dir: dir.to_path_buf(),
            directory: Arc::new(directory),
            files: BTreeMap::new(),
            flights: Vec::new(),
            free: Vec::new(),
            done: VecDeque::new(),
            bell,
            bell_armed: false,
            memory: None,
            habits: Habits::default(),
            reads: Reads::new(),
            pinned: Vec::new(),
            quarantined_before: 0,
        })
    }

    fn perform(&mut self, token: Token, operation: Operation) -> Result<(), DiskError> {
        match operation {
            Operation::Create { file } => {
                self.handle(file, true)?;
                self.finish(token, Ok(Outcome::Done));
            }
            Operation::Reserve { file, length } => {
                let file = self.handle(file, false)?.cached.clone();
                let entry = opcode::Fallocate::new(types::Fd(file.as_raw_fd()), length).build();
                self.launch(Flight::Plain { token, _file: Some(file), _path: None }, |_| entry);
            }
            Operation::Write { file, offset, bytes, durable } => {
                let handle = self.handle(file, false)?;
                let (cached, direct) = (handle.cached.clone(), handle.direct.clone());
                self.start_write(Writing {
                    token,
                    cached,
                    direct,
                    offset,
                    bytes,
                    durable,
                    linked: None,
                    since: Instant::now(),
                });
            }
            Operation::Read { file, offset, length, keep } => self.read(token, file, offset, length, keep)?,
            Operation::Sync { file } => {
                let file = self.handle(file, false)?.cached.clone();
                self.sync(token, file, types::FsyncFlags::DATASYNC);
            }
            Operation::SyncDirectory => self.sync(token, self.directory.clone(), types::FsyncFlags::empty()),
            Operation::Punch { file, offset, length } => {
                let file = self.handle(file, false)?.cached.clone();
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let entry =
                    opcode::Fallocate::new(types::Fd(file.as_raw_fd()), length).offset(offset).mode(mode).build();
                self.launch(Flight::Plain { token, _file: Some(file), _path: None }, |_| entry);
            }
            Operation::Unlink { file } => self.unlink(token, file)?,
            Operation::List => {
                let files = self.list()?;
                self.finish(token, Ok(Outcome::Listed(files)));
            }
        }
        Ok(())
    }

    fn sync(&mut self, token: Token, file: Arc<File>, flags: types::FsyncFlags) {
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(flags).build();
        self.launch(Flight::Plain { token, _file: Some(file), _path: None }, |_| entry);
    }

    fn unlink(&mut self, token: Token, file: FileName) -> Result<(), DiskError> {
        self.files.remove(&file);
        let path = self.dir.join(file.to_string());
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| DiskError::NotFound)?;
        let entry = opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
        // The string's bytes are on the heap: moving the `CString` into the flight leaves the pointer good.
        self.launch(Flight::Plain { token, _file: None, _path: Some(path) }, |_| entry);
        Ok(())
    }

    fn list(&self) -> Result<Vec<(FileName, u64)>, DiskError> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(|error| failure(&error))? {
            let entry = entry.map_err(|error| failure(&error))?;
            if let Some(file) = entry.file_name().to_str().and_then(FileName::parse) {
                files.push((file, entry.metadata().map_err(|error| failure(&error))?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn handle(&mut self, file: FileName, create: bool) -> Result<&mut Handle, DiskError> {
        use std::collections::btree_map::Entry;
        match self.files.entry(file) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Handle::open(&self.dir, file, create)?)),
        }
    }

    /// Gives a flight its number and pushes its entry, which is made from the flight where it will stay.
    fn launch(&mut self, flight: Flight, entry: impl FnOnce(&mut Flight) -> squeue::Entry) {
        let number = self.flight_number();
        let flight = self.flights[number].insert(flight);
        let entry = entry(flight).user_data(number as u64);
        self.push(&[entry]);
    }

    fn flight_number(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        })
    }

    /// Pushes entries that belong together: a link must not be cut in two by a submission.
    fn push(&mut self, entries: &[squeue::Entry]) {
        loop {
            // SAFETY: every pointer in an entry leads into heap memory owned by its `Flight` (a `Bytes`, of the pool or
            // not, an `AlignedVec`, a `CString`, a `Box`), which stays in `flights`, untouched, until the kernel's completion for it has been
            // reaped; descriptors are of files the flight, or `self`, keeps open. `Drop` waits for all completions, and
            // a leaked `RingDisk` leaks the flights with it.
            if unsafe { self.ring.submission().push_multiple(entries) }.is_ok() {
                return;
            }
            self.enter(0);
            // A kernel that is full of completions takes no more entries until they are reaped.
            self.reap();
        }
    }

    /// Hands pushed entries to the kernel and waits for `want` completions.
    fn enter(&mut self, want: usize) {
        match self.ring.submit_and_wait(want) {
            Ok(_) => {}
            // A signal, or a full completion queue: reaping makes progress.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => panic!("io_uring_enter failed on our own ring: {error}"),
        }
    }

    fn reap(&mut self) {
        loop {
            let next = self.ring.completion().next();
            let Some(completion) = next else { return };
            self.completed(completion.user_data() as usize, completion.result());
        }
    }

    fn completed(&mut self, number: usize, result: i32) {
        let flight = self.flights[number].take().expect("the kernel completes each operation once");
        self.free.push(number);
        if matches!(flight, Flight::Bell { .. }) {
            self.bell_armed = false;
            return;
        }
        let flight = match flight {
            Flight::Write(Writing { linked: Some(sync), .. }) => {
                let Flight::Write(writing) = flight else { unreachable!("looked at above") };
                return self.linked_written(sync, writing, result);
            }
            Flight::Linked(written) => {
                let (writing, written) = written.expect("a link's first operation ends first");
                return self.linked_synced(writing, written, result);
            }
            flight => flight,
        };
        if matches!(-result, libc::EINTR | libc::EAGAIN) {
            return self.again(flight);
        }
        let outcome = if result < 0 { Err(errno(-result)) } else { Ok(result as usize) };
        match flight {
            Flight::Write(writing) => match outcome {
                Err(error) => self.finish(writing.token, Err(error)),
                Ok(written) => self.written(writing, written),
            },
            Flight::Read(reading) => match outcome {
                Err(error) => self.read_failed(reading, error),
                Ok(more) => self.read_more(reading, more),
            },
            Flight::Plain { token, .. } => self.finish(token, outcome.map(|_| Outcome::Done)),
            Flight::Linked(_) | Flight::Bell { .. } => unreachable!("dealt with above"),
        }
    }

    fn again(&mut self, flight: Flight) {
        match flight {
            Flight::Plain { token, .. } => self.finish(token, Err(DiskError::Failed { errno: libc::EAGAIN })),
            Flight::Write(writing) => self.start_write(writing),
            flight => self.launch(flight, entry_of),
        }
    }

    fn finish(&mut self, token: Token, result: Result<Outcome, DiskError>) {
        self.done.push_back(Done { token, result });
    }

    fn arm_bell(&mut self) {
        if self.bell_armed {
            return;
        }
        self.bell_armed = true;
        let mut count = Box::new([0; 8]);
        let entry = opcode::Read::new(types::Fd(self.bell.as_raw_fd()), count.as_mut_ptr(), 8).build();
        self.launch(Flight::Bell { _count: count }, |_| entry);
    }

    fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }
}

/// The entry of a read that lies where it will stay.
fn entry_of(flight: &mut Flight) -> squeue::Entry {
    match flight {
        Flight::Read(reading) => reading.entry(),
        Flight::Write(_) | Flight::Linked(_) | Flight::Plain { .. } | Flight::Bell { .. } => {
            unreachable!("made where they are launched")
        }
    }
}

fn errno(number: i32) -> DiskError {
    match number {
        libc::ENOSPC | libc::EDQUOT => DiskError::NoSpace,
        libc::ENOENT => DiskError::NotFound,
        errno => DiskError::Failed { errno },
    }
}

fn failure(error: &io::Error) -> DiskError {
    errno(error.raw_os_error().unwrap_or(libc::EIO))
}

impl Disk for RingDisk {
    fn submit(&mut self, token: Token, operation: Operation) {
        if let Err(error) = self.perform(token, operation) {
            self.finish(token, Err(error));
        }
    }

    fn buffer(&mut self, bytes: usize) -> Buffer {
        let memory = self.memory.get_or_insert_with(|| Memory::of(&self.ring));
        memory.take(bytes).unwrap_or_else(|| Buffer::with_capacity(bytes))
    }

    fn registered_bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, Memory::registered_bytes)
    }

    fn poll(&mut self) -> Option<Done> {
        if self.done.is_empty() {
            self.reads.tick();
            self.start_reads();
            if !self.ring.submission().is_empty() {
                self.enter(0);
            }
            self.reap();
        }
        self.done.pop_front()
    }

    fn wait(&mut self) {
        if !self.done.is_empty() {
            return;
        }
        self.start_reads();
        self.arm_bell();
        self.enter(1);
        self.reap();
        self.reads.tick();
    }

    fn resident(&mut self, file: FileName, offset: u64, length: usize) -> Option<Resident> {
        if !self.files.contains_key(&file) {
            self.handle(file, false).ok()?;
        }
        let handle = self.files.get_mut(&file)?;
        if handle.mapping.is_none() && !handle.unmappable {
            handle.mapping = Mapping::of(&handle.cached).ok();
            handle.unmappable = handle.mapping.is_none();
        }
        let mapping = handle.mapping.as_mut()?;
        // Where it cannot be mapped anew, what was mapped goes on being served.
        let _ = mapping.follow(&handle.cached, offset, length);
        mapping.resident(offset, length, self.reads.now_ms(), &mut self.reads.trust)
    }

    fn taken(&mut self, file: FileName, length: u64) -> u64 {
        let metadata = self.handle(file, false).ok().and_then(|handle| handle.cached.metadata().ok());
        metadata.map_or(length, |metadata| length.min(metadata.blocks() * STAT_BLOCK_BYTES))
    }

    fn release(&mut self, file: FileName) -> bool {
        if let Some(handle) = self.files.get_mut(&file) {
            handle.unmappable = false;
            if let Some(mapping) = handle.mapping.take() {
                self.quarantined_before += u64::from(mapping.is_quarantined());
                self.pinned.extend(mapping.release().map(|pinned| (file, pinned)));
            }
        }
        self.pinned.retain(|(_, pinned)| pinned.is_held());
        // A name that was used before may seem held for longer than it is; never for shorter.
        self.pinned.iter().all(|(held, _)| *held != file)
    }

    fn distrust(&mut self, file: FileName) {
        if let Some(mapping) = self.files.get_mut(&file).and_then(|handle| handle.mapping.as_mut()) {
            mapping.quarantine();
        }
    }

    fn mappings(&self) -> Mappings {
        let quarantined = |handle: &&Handle| handle.mapping.as_ref().is_some_and(Mapping::is_quarantined);
        Mappings {
            pinned: self.pinned.iter().filter(|(_, pinned)| pinned.is_held()).count() as u64,
            quarantined: self.quarantined_before + self.files.values().filter(quarantined).count() as u64,
        }
    }
}

impl Drop for RingDisk {
    fn drop(&mut self) {
        if self.bell_armed {
            self.bell.ring();
        }
        while self.in_flight() > 0 {
            self.enter(1);
            self.reap();
        }
    }
}
