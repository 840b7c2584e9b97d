//! Why a store could not be opened: one clear line each, with the remedy.

use std::io;
use std::path::PathBuf;

/// Why a store could not be opened. The text of each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory has files in it that are not a store's. The operator's mistake; nothing was touched.
    #[error("{dir} is not an ePOST store and not empty (found {found}): choose another directory")]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// The first foreign name.
        found: String,
    },
    /// There is no store to look at. The operator's mistake.
    #[error(
        "there is no ePOST store in {dir}: name the directory that holds shard-00 (`dir` in the node's configuration)"
    )]
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// A shard's directory is not there: a store is whole only with all of them.
    #[error("{dir} is missing: put the shard's directory back (each of them holds a part of the objects)")]
    ShardMissing {
        /// The shard's directory.
        dir: PathBuf,
    },
    /// The store was written by a newer version of this program.
    #[error("{dir} has store format {found}, this program knows up to {known}: use a newer program")]
    NewerVersion {
        /// The directory.
        dir: PathBuf,
        /// Format on disk.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// The store was written by an older version of this program, in a format that is not read any more.
    #[error(
        "{dir} has store format {found}, this program reads {known}: open it with the program that wrote it, or remove it and let replicas refill it"
    )]
    OlderVersion {
        /// The directory.
        dir: PathBuf,
        /// Format on disk.
        found: u32,
        /// The format that is read.
        known: u32,
    },
    /// A shard's files belong to another store, or to another shard: directories were mixed up.
    #[error("{dir} belongs to another store or shard: put back the directory that was here")]
    OtherStore {
        /// The shard's directory.
        dir: PathBuf,
    },
    /// A shard that has data has lost its superblock (both copies): the disk is damaged.
    #[error(
        "{dir} has segments but no readable superblock: restore the directory, or remove it and let replicas refill it"
    )]
    SuperblockLost {
        /// The shard's directory.
        dir: PathBuf,
    },
    /// Another process has the store open.
    #[error("{dir} is in use by another process: stop it first")]
    AlreadyOpen {
        /// The directory.
        dir: PathBuf,
    },
    /// The kernel has no io_uring, or forbids it.
    #[error(
        "io_uring is not available ({source}): Linux 5.15 or newer is needed, with sysctl kernel.io_uring_disabled=0 and no seccomp filter against it"
    )]
    RingUnavailable {
        /// What the kernel said.
        source: io::Error,
    },
    /// The limit on locked memory is too small for a ring.
    #[error("not enough locked memory for io_uring: raise it with `ulimit -l 65536` (LimitMEMLOCK=64M under systemd)")]
    MemlockTooSmall,
    /// The capacity holds too few segments to work with.
    #[error(
        "a capacity of {capacity_bytes} bytes over {shards} shards is too small: at least {needed_bytes} are needed with these segments"
    )]
    CapacityTooSmall {
        /// What was configured.
        capacity_bytes: u64,
        /// Shards it is divided over.
        shards: usize,
        /// The least that works.
        needed_bytes: u64,
    },
    /// A setting is outside its bounds. The caller's mistake.
    #[error("setting {setting} is out of bounds: it must be {allowed}")]
    BadSetting {
        /// Which one.
        setting: &'static str,
        /// What it may be.
        allowed: &'static str,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The disk failed while the store was made or recovered.
    #[error("{dir}: {source}")]
    Disk {
        /// The shard's directory.
        dir: PathBuf,
        /// What failed.
        source: crate::disk::DiskError,
    },
    /// A thread could not be started, or ended before it was ready.
    #[error("a shard's thread could not be started")]
    Thread,
}
