//! The clock handed to the machines: wall-clock time that never goes backwards and never stands still.
//!
//! It is the system time at start plus what the monotonic clock has counted since. When the wall clock is ahead of
//! that (it was set forward, or the machine slept, which the monotonic clock does not count) the difference is
//! added once and for good. When the wall clock is set back, this clock runs on ahead of it until the next start:
//! a lease then ends late, never early.

use net::machine::Micros;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One per process; share it by reference or `Arc`.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// What the clock read at `started`; only grows.
    anchor: AtomicU64,
}

impl Clock {
    /// Reads the system time once.
    #[must_use]
    pub fn start() -> Clock {
        Clock { started: Instant::now(), anchor: AtomicU64::new(wall()) }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.read(micros(self.started.elapsed()), wall())
    }

    fn read(&self, elapsed: Micros, wall: Micros) -> Micros {
        let anchor = wall.saturating_sub(elapsed);
        self.anchor.fetch_max(anchor, Ordering::Relaxed).max(anchor) + elapsed
    }
}

/// The system time, which may go backwards.
pub(super) fn wall() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

fn micros(duration: std::time::Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX / 2)
}

#[cfg(test)]
mod tests {
    //! Goal: steps of the wall clock never turn time back or stop it. Method: feed the reading both clocks by hand.
    use super::*;

    #[test]
    fn the_clock_follows_forward_steps_and_ignores_backward_ones() {
        let clock = Clock { started: Instant::now(), anchor: AtomicU64::new(1_000) };
        assert_eq!(clock.read(10, 1_010), 1_010);
        assert_eq!(clock.read(20, 500), 1_020, "set back: it runs on");
        assert_eq!(clock.read(30, 5_030), 5_030, "set forward, or slept: it follows");
        assert_eq!(clock.read(40, 1_040), 5_040, "and stays there");
    }

    #[test]
    fn it_starts_at_the_system_time() {
        let before = wall();
        let read = Clock::start().now();
        assert!(before <= read);
        assert!(read <= wall() + 1_000_000);
    }
}
