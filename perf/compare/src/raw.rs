//! The device itself: what it gives when nothing but write and sync is asked of it, with the batches a store would make.
//!
//! *Append*: one thread, one batch at a time, `write` and `fdatasync` on a growing file. *Overlapped*: two threads with half
//! of what is in flight each, direct writes over blocks written before, `fdatasync` behind each: while one batch waits for
//! the flush the next is already on its way. No index, no checksum, no answer to anybody: ceilings, not stores. And fio,
//! where it is installed, as a third party's word.

use crate::data::Dice;
use crate::fault::Fault;
use crate::pump::{Done, Limit, by_threads};
use crate::stop;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The engine closes a batch at this size; so does the batcher.
const BATCH_BYTES: usize = engine::limits::BATCH_BYTES;
/// What direct writes are aligned to.
const BLOCK: usize = engine::limits::BLOCK;
/// Batches under way at once.
const LANES: usize = 2;
/// Bytes of each lane's file, written round and round.
const LANE_BYTES: usize = 64 << 20;

/// Values of `size` in one batch when `depth` are in flight.
fn per_batch(size: usize, depth: usize) -> usize {
    depth.min((BATCH_BYTES / size).max(1))
}

/// One batch at a time on a growing file; an operation is a value.
pub(crate) fn append(dir: &Path, size: usize, depth: usize, limit: Limit) -> Result<Done, Fault> {
    let values = per_batch(size, depth);
    let mut batch = vec![0; size * values];
    Dice::new(1).fill(&mut batch);
    let path = dir.join("raw");
    let file = File::create(&path)?;
    let begin = Instant::now();
    let mut done = Done::default();
    while begin.elapsed() < limit.time && done.count < limit.operations {
        stop::check()?;
        let start = Instant::now();
        file.write_all_at(&batch, (done.count * size) as u64)?;
        file.sync_data()?;
        done.latencies.note(start.elapsed());
        done.count += values;
    }
    done.elapsed = begin.elapsed();
    std::fs::remove_file(&path)?;
    Ok(done)
}

/// Files written before, one for each batch that can be under way.
pub(crate) struct Lanes {
    dir: PathBuf,
    /// Each with the place where its next batch goes.
    free: Mutex<Vec<(File, usize)>>,
}

impl Lanes {
    /// Writes the files.
    pub(crate) fn make(dir: &Path) -> Result<Lanes, Fault> {
        let mut files = Vec::with_capacity(LANES);
        for lane in 0..LANES {
            files.push((lane_file(&lane_path(dir, lane))?, 0));
        }
        Ok(Lanes { dir: dir.to_owned(), free: Mutex::new(files) })
    }

    fn free(&self) -> MutexGuard<'_, Vec<(File, usize)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two batches under way at once, each written directly over old blocks; an operation is a value.
    pub(crate) fn overlapped(&self, size: usize, depth: usize, limit: Limit) -> Result<Done, Fault> {
        let lanes = LANES.min(depth);
        let values = per_batch(size, depth.div_ceil(lanes));
        let bytes = (size * values).next_multiple_of(BLOCK);
        // A buffer that starts at a block's boundary, without unsafe: a longer one, from its first such address on.
        let mut memory = vec![0; bytes + BLOCK];
        Dice::new(2).fill(&mut memory);
        let skip = memory.as_ptr().align_offset(BLOCK);
        let batch = &memory[skip..skip + bytes];
        let batches = Limit { operations: (limit.operations / values).max(1), ..limit };
        let mut done = by_threads(lanes, batches, |_| {
            // At most as many threads as lanes, so there is one for each.
            let Some((file, at)) = self.free().pop() else { return Ok(()) };
            let at = if at + bytes > LANE_BYTES { 0 } else { at };
            file.write_all_at(batch, at as u64)?;
            file.sync_data()?;
            self.free().push((file, at + bytes));
            Ok(())
        })?;
        done.count *= values;
        Ok(done)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for lane in 0..LANES {
            // It lies in scratch, which is removed at the end in any case.
            let _ = std::fs::remove_file(lane_path(&self.dir, lane));
        }
    }
}

fn lane_path(dir: &Path, lane: usize) -> PathBuf {
    dir.join(format!("raw-{lane}"))
}

/// A file with every block on the disk already, open for direct writes.
fn lane_file(path: &Path) -> Result<File, Fault> {
    let file = File::create(path)?;
    let chunk = vec![0x5a; BATCH_BYTES];
    for start in (0..LANE_BYTES).step_by(BATCH_BYTES) {
        file.write_all_at(&chunk, start as u64)?;
    }
    file.sync_all()?;
    Ok(OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?)
}

/// What fio is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fio {
    /// Values of so many bytes, one at a time, an `fdatasync` behind each.
    DurableWrites(usize),
    /// Direct reads of a block in no order, so many in flight.
    ColdReads(usize),
}

/// Operations a second after fio; `None` where it is not installed.
pub(crate) fn fio(dir: &Path, what: Fio, limit: Limit) -> Result<Option<f64>, Fault> {
    let path = dir.join("fio");
    let mut command = Command::new("fio");
    command.arg("--name=raw").arg(format!("--filename={}", path.display()));
    command.args(["--output-format=json", "--size=256m", "--time_based"]);
    command.arg(format!("--runtime={}ms", limit.time.as_millis()));
    let side = match what {
        Fio::DurableWrites(size) => {
            command.args(["--rw=write", "--ioengine=psync", "--fdatasync=1"]).arg(format!("--bs={size}"));
            "write"
        }
        Fio::ColdReads(depth) => {
            command.args(["--rw=randread", "--ioengine=io_uring", "--direct=1", "--bs=4096"]);
            command.arg(format!("--iodepth={depth}"));
            "read"
        }
    };
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    // It may have failed before it made one.
    let _ = std::fs::remove_file(&path);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Fault::Child { program: "fio".to_owned(), said });
    }
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(said["jobs"][0][side]["iops"].as_f64())
}
