//! A short look, when a store is opened, at how this disk makes batches durable faster: what is believed until the batches
//! themselves have shown it (`habit`).
//!
//! Which way wins depends on the device, the file system and the kernel (decision 0006), so it is measured: small and large
//! batches, two in flight as the engine has them, each way by turns on ground that was written before. The look takes some
//! tenths of a second at most. Its scratch file is removed behind it; one that a kill left is overwritten and
//! removed by the next look.

use super::ceiling::{Ceiling, Ground, Sync};
use crate::limits::BATCHES_IN_FLIGHT;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const SMALL: usize = 4096;
const LARGE: usize = 256 * 1024;
/// From this size on a batch counts as large.
const LARGE_FROM: usize = 64 * 1024;
const ROUNDS: usize = 3;
/// No further round is begun after this time.
const ENOUGH: Duration = Duration::from_millis(100);

/// Whether a batch of so many bytes counts as large.
pub(super) fn is_large(bytes: usize) -> bool {
    bytes >= LARGE_FROM
}

/// The way for small batches and for large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    small: Sync,
    large: Sync,
}

impl Default for Ways {
    /// One operation for both.
    fn default() -> Ways {
        Ways { small: Sync::WithWrite, large: Sync::WithWrite }
    }
}

impl Ways {
    /// The way for a batch of so many bytes.
    #[must_use]
    pub fn of(&self, bytes: usize) -> Sync {
        if is_large(bytes) { self.large } else { self.small }
    }

    /// The same way for all.
    #[must_use]
    pub fn always(way: Sync) -> Ways {
        Ways { small: way, large: way }
    }
}

/// What a look at the disk found: for each size and way the time of a batch, summed over the rounds. The sum and not the best,
/// because a way that is fast only when a worker of the kernel gets its turn at once is not the faster one.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    small: [Duration; 2],
    large: [Duration; 2],
}

impl Probe {
    /// Looks at the disk that `dir` is on.
    ///
    /// # Errors
    /// If the file system fails, is full, or has no O_DIRECT: then nothing is known and any way will do.
    pub fn of(dir: &Path) -> io::Result<Probe> {
        let start = Instant::now();
        let mut probe = Probe { small: [Duration::ZERO; 2], large: [Duration::ZERO; 2] };
        for round in 0..ROUNDS {
            if round > 0 && start.elapsed() > ENOUGH {
                break;
            }
            for (nth, way) in WAYS.into_iter().enumerate() {
                probe.small[nth] += time(dir, way, SMALL, 16)?;
                probe.large[nth] += time(dir, way, LARGE, 4)?;
            }
        }
        Ok(probe)
    }

    /// The faster way for each size.
    #[must_use]
    pub fn ways(&self) -> Ways {
        let faster = |times: [Duration; 2]| if times[0] <= times[1] { WAYS[0] } else { WAYS[1] };
        Ways { small: faster(self.small), large: faster(self.large) }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ways = self.ways();
        write!(
            f,
            "4 KiB batches: {:?} with RWF_DSYNC, {:?} with fdatasync ({:?}); 256 KiB: {:?}, {:?} ({:?})",
            self.small[0], self.small[1], ways.small, self.large[0], self.large[1], ways.large
        )
    }
}

const WAYS: [Sync; 2] = [Sync::WithWrite, Sync::AfterWrite];

fn time(dir: &Path, sync: Sync, batch_bytes: usize, batches: usize) -> io::Result<Duration> {
    let ceiling = Ceiling { ground: Ground::Written, sync, batch_bytes, in_flight: BATCHES_IN_FLIGHT, batches };
    Ok(ceiling.measure(dir)? / batches as u32)
}
