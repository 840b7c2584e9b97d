//! The only door to storage.
//!
//! A [`Disk`] is one shard's directory, seen as a handful of named files. Operations are submitted with a token and
//! complete later in any order, as they do on a ring; nothing here blocks except [`Disk::wait`]. The store above is written
//! against this trait only, so that it runs unchanged on io_uring and on the seeded, faulty [`crate::sim_disk::SimDisk`].
//!
//! What a disk promises: a completed [`Operation::Write`] with `durable` set, or any write followed by a completed
//! [`Operation::Sync`] of its file, survives a power cut; a created or unlinked name survives one after
//! [`Operation::SyncDirectory`]. Everything else may be lost in any subset of 512-byte sectors. After a *failed* sync
//! nothing may be assumed about what was written before it, and it must not be repeated as if a success would cover that.

mod buffer;
mod read_only;

pub use buffer::{Buffer, Pool};
pub(crate) use read_only::ReadOnly;

use bytes::Bytes;
use std::fmt;

/// Names one submitted operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A file of a shard's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// What store this is: written once.
    Superblock,
    /// One of the two slots for a checkpoint, 0 or 1.
    Checkpoint(u8),
    /// A segment of the log.
    Segment(u32),
    /// A sorted run of the index.
    Run(u32),
}

impl FileName {
    /// The file with this name, if it is one of ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<FileName> {
        let file = match name {
            "superblock" => FileName::Superblock,
            "checkpoint-0" => FileName::Checkpoint(0),
            "checkpoint-1" => FileName::Checkpoint(1),
            _ => match name.split_once('-')? {
                ("segment", number) => FileName::Segment(u32::from_str_radix(number, 16).ok()?),
                ("run", number) => FileName::Run(u32::from_str_radix(number, 16).ok()?),
                _ => return None,
            },
        };
        // One spelling per file: "segment-1" is not ours.
        (file.to_string() == name).then_some(file)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileName::Superblock => write!(f, "superblock"),
            FileName::Checkpoint(slot) => write!(f, "checkpoint-{slot}"),
            FileName::Segment(number) => write!(f, "segment-{number:08x}"),
            FileName::Run(number) => write!(f, "run-{number:08x}"),
        }
    }
}

/// Something to do. Files are opened by the disk as needed.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Make an empty file; one that exists stays as it is.
    Create {
        /// Which one.
        file: FileName,
    },
    /// Allocate the file's first `length` bytes, growing it with zeros.
    Reserve {
        /// Which one.
        file: FileName,
        /// Its length afterwards, at least.
        length: u64,
    },
    /// Write all of `bytes` at `offset`.
    Write {
        /// Which file.
        file: FileName,
        /// Where.
        offset: u64,
        /// What.
        bytes: Bytes,
        /// Complete only when the bytes survive a power cut.
        durable: bool,
    },
    /// Read up to `length` bytes at `offset`; fewer at the end of the file.
    Read {
        /// Which file.
        file: FileName,
        /// Where.
        offset: u64,
        /// How many.
        length: usize,
        /// The range is not written any more before the file is released: it may be kept in memory for [`Disk::resident`].
        keep: bool,
    },
    /// Make everything written to the file before survive a power cut.
    Sync {
        /// Which file.
        file: FileName,
    },
    /// Give back the blocks of a range, which then reads as zeros. The range begins and ends at multiples of a block. A power cut
    /// may bring back what was there, block by block.
    Punch {
        /// Which file.
        file: FileName,
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// Remove a file's name. Whoever still maps it keeps it.
    Unlink {
        /// Which file.
        file: FileName,
    },
    /// List the files with their lengths. Foreign names are passed over.
    List,
    /// Make created and unlinked names survive a power cut.
    SyncDirectory,
}

/// What an operation brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing to return.
    Done,
    /// The bytes read.
    Read(Bytes),
    /// The files and their lengths, by name.
    Listed(Vec<(FileName, u64)>),
}

/// The end of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Which one.
    pub token: Token,
    /// How it ended.
    pub result: Result<Outcome, DiskError>,
}

/// Why the device did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No space left (or over quota).
    #[error("no space left on the device")]
    NoSpace,
    /// There is no such file.
    #[error("no such file")]
    NotFound,
    /// Input/output error, or anything else the system reports, by its number.
    #[error("the device failed (errno {errno})")]
    Failed {
        /// The system's error number.
        errno: i32,
    },
}

/// Bytes that are in memory, seen in two ways.
///
/// What is in memory now may be gone the next moment, and the device may fail to bring it back. Where that happens `checked`
/// has zeros; so whatever it says is only as good as the check it passes.
#[derive(Clone, Debug)]
pub struct Resident {
    /// For whoever checks them, or copies them and checks the copy: on the shard's thread, and dropped before it returns.
    pub checked: Bytes,
    /// For whoever is given them when they have been found sound. They never change.
    pub given: Bytes,
}

/// Numbers about mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Files let go of that still take up space because somebody holds bytes of them.
    pub pinned: u64,
    /// Files not read through their mapping any more since it could not be read there, or was not sound.
    pub quarantined: u64,
}

/// One shard's directory. See the module for what it promises.
pub trait Disk {
    /// Starts an operation. Tokens of operations in flight are distinct.
    fn submit(&mut self, token: Token, operation: Operation);

    /// Memory to build a batch of about so many bytes in; a device may have some that is written with less work.
    fn buffer(&mut self, bytes: usize) -> Buffer {
        Buffer::with_capacity(bytes)
    }

    /// Bytes of such memory that the kernel has registered; 0 if it knows of none.
    fn registered_bytes(&self) -> u64 {
        0
    }

    /// The end of some operation, if one has ended.
    fn poll(&mut self) -> Option<Done>;

    /// Waits until an operation has ended, or until whoever drives the shard wants its attention. May return early.
    /// With nothing in flight it returns at once unless the implementation has another source of wake-ups.
    fn wait(&mut self);

    /// A range of a file that will not be written again before the file is released, if it can be had *now*, without waiting for
    /// the device and without a copy. The rest of the file may be written meanwhile, and may grow.
    fn resident(&mut self, file: FileName, offset: u64, length: usize) -> Option<Resident>;

    /// Bytes of the device that a file of this length takes: fewer than its length where holes were punched.
    fn taken(&mut self, _file: FileName, length: u64) -> u64 {
        length
    }

    /// Forgets everything kept about a file for [`Disk::resident`]. Returns whether nobody holds bytes of it any more, now or
    /// from before an earlier release, so that what they were given may be overwritten or punched.
    fn release(&mut self, file: FileName) -> bool;

    /// What [`Disk::resident`] gave of this file was not what was written: it gives nothing of it any more, and the file is
    /// read from the device, not from memory, until it is released.
    fn distrust(&mut self, _file: FileName) {}

    /// What became of the mappings that [`Disk::resident`] serves from.
    fn mappings(&self) -> Mappings {
        Mappings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a directory listing maps back to exactly the names we write. Method: round trip, and near misses refused.
    #[test]
    fn names_have_one_spelling() {
        for file in [
            FileName::Superblock,
            FileName::Checkpoint(0),
            FileName::Checkpoint(1),
            FileName::Segment(0xabc),
            FileName::Run(7),
        ] {
            assert_eq!(FileName::parse(&file.to_string()), Some(file));
        }
        for foreign in ["segment-1", "segment-0000000G", "checkpoint-2", "SUPERBLOCK", "", "segment-00000ABC"] {
            assert_eq!(FileName::parse(foreign), None, "{foreign}");
        }
    }
}
