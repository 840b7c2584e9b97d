//! What a job costs: wall time, processor time, and the flushes that the device was asked for.

use crate::stop;
use crate::work::{Done, Job};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where a device's `stat` tells how many flushes it has done (Documentation/block/stat.rst of the kernel).
const FLUSHES_COLUMN: usize = 15;

/// Begun when the runtime is ready and has its buffers, stopped when the last operation is durable.
pub(crate) struct Meter {
    begun: Instant,
    end: Instant,
    processor: Duration,
    device: Option<Device>,
    flushes: Option<u64>,
}

impl Meter {
    /// Begins.
    pub(crate) fn start(job: &Job) -> Meter {
        let device = Device::of(&job.segment.path);
        let flushes = device.as_ref().and_then(Device::flushes);
        let (processor, begun) = (processor_time(), Instant::now());
        Meter { begun, end: begun + job.time, processor, device, flushes }
    }

    /// Whether nothing new is to be begun.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end || stop::asked()
    }

    /// What came of it; a commit is what a caller waits for until his records are durable.
    pub(crate) fn stop(&self, operations: u64, commits: u64) -> Done {
        let elapsed = self.begun.elapsed();
        let processor = processor_time().saturating_sub(self.processor);
        let now = self.device.as_ref().and_then(Device::flushes);
        let flushes = now.zip(self.flushes).map(|(now, before)| now.saturating_sub(before));
        Done { operations, commits, elapsed, processor, flushes }
    }
}

/// Processor time of this process and all its threads, those of the ring that work for it included.
fn processor_time() -> Duration {
    // SAFETY: `rusage` is plain integers, for which zeros are a value, and getrusage writes to nothing but the struct it is
    // given, which lives on this stack.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// The accounts of a block device: the kernel's own, not a contender's.
struct Device(PathBuf);

impl Device {
    /// The one that holds a file; `None` where there is none (a network, memory, several).
    fn of(file: &Path) -> Option<Device> {
        let number = fs::metadata(file).ok()?.dev();
        let (major, minor) = (libc::major(number), libc::minor(number));
        let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        // Flushes are those of the whole device, not of a part.
        let whole = if folder.join("partition").exists() { folder.parent()?.to_owned() } else { folder };
        Some(Device(whole.join("stat")))
    }

    /// Flushes it has done; `None` on a kernel that does not count them (before 5.5).
    fn flushes(&self) -> Option<u64> {
        flushes(&fs::read_to_string(&self.0).ok()?)
    }
}

fn flushes(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(FLUSHES_COLUMN)?.parse().ok()
}

#[cfg(test)]
mod tests {
    //! Goal: the right column is read. Method: a line as the kernel prints it.

    use super::*;

    #[test]
    fn flushes_are_the_column_before_the_last() {
        let line = "  10 11 12 13 20 21 22 23 0 31 32 40 41 42 43 777 51\n";
        assert_eq!(flushes(line), Some(777));
        assert_eq!(flushes("10 11 12 13 20 21 22 23 0 31 32\n"), None);
    }
}
