//! The file that all work on, and what must be in it.
//!
//! A record is a page: where it lies, which job wrote it, the how-manieth of the job it is, and noise that no disk can
//! shorten. So a read can tell whether it got the page it asked for, and after a job every record that was counted can be
//! looked for. Jobs write records in order, round and round, each at the place behind the one before:
//!
//! ```text
//! page     0        1        2     ...     slots-1
//!       record 1 record 2 record 3  ...  record slots
//!       record slots+1 ...
//! ```
//!
//! All of the file is written before anything is measured, as the engine does with its segments: while the clock runs no
//! block is allocated.

use crate::pages::{PAGE, Pages};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes at the start of a page that say what it is: place, job, record, each eight bytes, little-endian.
const STAMP: usize = 24;
/// Bytes read or written at once outside the measurement.
const STRETCH: usize = 1 << 20;

/// A file of pages, all of them written.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Pages in it.
    pub(crate) slots: u64,
}

impl Segment {
    /// Writes every page, durably.
    pub(crate) fn write_beforehand(path: &Path, bytes: u64) -> io::Result<Segment> {
        assert!(bytes > 0);
        assert!(bytes.is_multiple_of(STRETCH as u64), "a segment is whole MiB");
        let file = OpenOptions::new().write(true).create_new(true).custom_flags(libc::O_DIRECT).open(path)?;
        let segment = Segment { path: path.to_owned(), slots: bytes / PAGE as u64 };
        let (mut appends, mut stretch) = (Appends::new(&segment, 0), Pages::new(STRETCH));
        while appends.written() < segment.slots {
            let at = appends.fill(stretch.bytes_mut());
            file.write_all_at(stretch.bytes(), at)?;
        }
        file.sync_all()?;
        Ok(segment)
    }

    /// Opens it for direct I/O, with these flags besides.
    pub(crate) fn open(&self, flags: i32) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT | flags).open(&self.path)
    }

    /// Reads back what a job wrote: all `count` records, as far as its later ones did not overwrite its earlier ones.
    ///
    /// By plain system calls, and direct: pages in the kernel's memory would be in the way of the next job's writes.
    pub(crate) fn check(&self, job: u64, count: u64) -> io::Result<()> {
        let (file, noise, mut stretch) = (self.open(0)?, noise(), Pages::new(STRETCH));
        for start in (0..self.slots.min(count)).step_by(STRETCH / PAGE) {
            file.read_exact_at(stretch.bytes_mut(), start * PAGE as u64)?;
            for (slot, page) in (start..self.slots.min(count)).zip(stretch.bytes().chunks_exact(PAGE)) {
                let due = last_record(slot, self.slots, count);
                let found = [word(page, 0), word(page, 1), word(page, 2)];
                if found != [slot * PAGE as u64, job, due] || page[STAMP..] != noise[STAMP..] {
                    return Err(io::Error::other(format!(
                        "record {due} of job {job} was counted, but is not on page {slot}; place, job and record there: {found:?}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The last of `count` records that fell on this page; the first is number one.
fn last_record(slot: u64, slots: u64, count: u64) -> u64 {
    assert!(slot < slots);
    assert!(slot < count, "a page that the job reached");
    slot + 1 + (count - 1 - slot) / slots * slots
}

/// The records of one job, in order.
pub(crate) struct Appends {
    slots: u64,
    job: u64,
    written: u64,
    noise: Box<[u8]>,
}

impl Appends {
    /// None yet.
    pub(crate) fn new(segment: &Segment, job: u64) -> Appends {
        Appends { slots: segment.slots, job, written: 0, noise: noise() }
    }

    /// Copies the next records into a buffer, as a commit has to; returns the place of the first in the segment.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> u64 {
        let first = self.written % self.slots;
        let pages = (buffer.len() / PAGE) as u64;
        assert!(first + pages <= self.slots, "writes divide the segment");
        for (slot, page) in (first..).zip(buffer.chunks_exact_mut(PAGE)) {
            self.written += 1;
            page.copy_from_slice(&self.noise);
            for (number, word) in [slot * PAGE as u64, self.job, self.written].into_iter().enumerate() {
                page[number * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
        }
        first * PAGE as u64
    }

    /// Records so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

/// Whether this is all of the page that lies at this place.
pub(crate) fn arrived(page: &[u8], at: u64) -> io::Result<()> {
    if page.len() == PAGE && word(page, 0) == at {
        return Ok(());
    }
    Err(io::Error::other(format!("a read of the page at {at} brought {} bytes, or those of another page", page.len())))
}

/// What follows a write or read that moved fewer bytes than it should: never in a file of this length.
pub(crate) fn whole(moved: usize, wanted: usize) -> io::Result<()> {
    if moved == wanted { Ok(()) } else { Err(io::Error::other(format!("{moved} of {wanted} bytes moved"))) }
}

fn word(page: &[u8], number: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&page[number * 8..][..8]);
    u64::from_le_bytes(bytes)
}

/// A page of noise (Marsaglia's xorshift).
fn noise() -> Box<[u8]> {
    let mut state = 1_u64;
    let words = (0..PAGE / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}
