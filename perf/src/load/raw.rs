//! The raw loop: what the same disk does when nothing but write and sync is asked of it.
//!
//! A batch of the size the engine would make is written with one `write` and made durable with one `fdatasync`, one
//! batch after the other, on one thread. Two variants, because file systems treat them differently: appending to a
//! growing file, and writing over a file written before. No index, no checksum, no acknowledgement: a ceiling for
//! anything that commits one batch at a time. [`overlapped`] is the ceiling for what keeps two batches in flight, as the
//! engine does: its own ring, direct, from registered memory, over ground written before.

use super::Dice;
use ::engine::ring::ceiling::{Ceiling, Ground, Sync};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The engine closes a batch at this size (engine/src/limits.rs).
pub(crate) const BATCH_BYTES: usize = ::engine::limits::BATCH_BYTES;

/// How the file is written.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// The file grows with every batch.
    Append,
    /// The file was written before; batches go over it.
    Overwrite,
}

/// Writes `total` values of `size` bytes, `depth` of them (bounded by [`BATCH_BYTES`]) per sync; returns the time.
pub(crate) fn write(dir: &Path, way: Way, size: usize, depth: usize, total: usize) -> io::Result<Duration> {
    let per_batch = depth.min((BATCH_BYTES / size).max(1));
    let mut batch = vec![0; size * per_batch];
    Dice::new(1).fill(&mut batch);
    let path = dir.join("raw");
    let file = open(&path, way, size * total)?;
    let start = Instant::now();
    let mut written = 0;
    while written < total {
        let now = per_batch.min(total - written);
        file.write_all_at(&batch[..now * size], (written * size) as u64)?;
        file.sync_data()?;
        written += now;
    }
    let elapsed = start.elapsed();
    std::fs::remove_file(&path)?;
    Ok(elapsed)
}

/// Writes `total` values of `size` bytes, `depth` of them in flight in two overlapped batches; returns the time in the faster
/// way of making them durable.
pub(crate) fn overlapped(dir: &Path, size: usize, depth: usize, total: usize) -> io::Result<Duration> {
    let in_flight = depth.min(2);
    let per_batch = (depth / in_flight).min((BATCH_BYTES / size).max(1));
    let batches = total.div_ceil(per_batch);
    let measure = |sync| {
        Ceiling { ground: Ground::Written, sync, batch_bytes: size * per_batch, in_flight, batches }.measure(dir)
    };
    Ok(measure(Sync::WithWrite)?.min(measure(Sync::AfterWrite)?))
}

/// A file ready to be written; for [`Way::Overwrite`] with every block on the disk already.
fn open(path: &Path, way: Way, bytes: usize) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    if let Way::Overwrite = way {
        let chunk = vec![0x5a; BATCH_BYTES];
        for start in (0..bytes).step_by(BATCH_BYTES) {
            file.write_all_at(&chunk[..BATCH_BYTES.min(bytes - start)], start as u64)?;
        }
    }
    file.sync_all()?;
    Ok(file)
}

/// Reads `total` values of `size` bytes in no order from a file that is in memory; returns the time.
pub(crate) fn read(dir: &Path, size: usize, total: usize) -> io::Result<Duration> {
    let path = dir.join("raw");
    let file = open(&path, Way::Overwrite, size * total)?;
    let mut buffer = vec![0; size];
    let mut dice = Dice::new(2);
    let start = Instant::now();
    for _ in 0..total {
        let at = dice.roll() % total as u64;
        file.read_exact_at(&mut buffer, at * size as u64)?;
    }
    let elapsed = start.elapsed();
    std::fs::remove_file(&path)?;
    Ok(elapsed)
}
