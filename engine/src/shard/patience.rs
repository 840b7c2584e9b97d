//! Looking a moment longer before going to sleep.
//!
//! Being woken costs tens of microseconds where a processor has gone idle, an answer from memory one. So whoever runs out of
//! work looks on for [`limits::PATIENCE`], giving the processor to any other thread that wants it at every step, and only
//! if that has paid lately: a row of vain attempts ends it, and then one sleep in [`limits::PATIENCE_RETRY`] tries again.
//! An idle thread therefore sleeps.

use crate::limits;
use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::Instant;

/// How much longer to look, learnt from what came of it.
pub(super) struct Patience {
    /// Vain attempts until it gives up.
    credit: u32,
    /// Sleeps since it gave up.
    slept: u32,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience { credit: limits::PATIENCE_CREDIT, slept: 0 }
    }

    /// Looks a while; whether something came.
    pub(super) fn look(&mut self, found: impl Fn() -> bool) -> bool {
        if self.credit == 0 {
            self.slept += 1;
            if self.slept < limits::PATIENCE_RETRY {
                return false;
            }
            self.slept = 0;
        }
        let start = Instant::now();
        while start.elapsed() < limits::PATIENCE {
            for _ in 0..32 {
                if found() {
                    self.credit = limits::PATIENCE_CREDIT;
                    return true;
                }
                spin_loop();
            }
            yield_now();
        }
        self.credit = self.credit.saturating_sub(1);
        false
    }
}
