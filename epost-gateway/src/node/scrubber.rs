//! When and how much sealed data is read again to find rot.
//!
//! The engine scrubs when it is told, as much as it is told; here is the pace: the whole store once in so many days. Time earns
//! credit, what was read costs it. Credit is spent in steps of some size, because the engine reads whole batches, and is
//! bounded, so that a machine that slept does not make up for it all at once.

use super::limits::{SCRUB_CREDIT_MAX, SCRUB_PERIOD, SCRUB_STEP_MIN};
use net::machine::Micros;
use std::time::Duration;

/// The scrubbing of one engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scrubber {
    /// How long a pass over the whole store shall take.
    pass: Duration,
    last: Micros,
    /// Bytes of a pass, as the engine last said. Unknown at first: then one batch is asked for.
    store_bytes: Option<u64>,
    /// Bytes earned and not spent; below zero when a step read more than it had.
    credit: i64,
}

impl Scrubber {
    /// One pass in so many days, beginning at `now`; none at all if `days` is 0.
    pub(super) fn new(days: u32, now: Micros) -> Option<Scrubber> {
        let pass = Duration::from_secs(u64::from(days) * 86_400);
        (days > 0).then_some(Scrubber { pass, last: now, store_bytes: None, credit: 0 })
    }

    /// Bytes to scrub now, if it is time for a step.
    pub(super) fn due(&mut self, now: Micros) -> Option<u64> {
        let elapsed = now.saturating_sub(self.last);
        if u128::from(elapsed) < SCRUB_PERIOD.as_micros() {
            return None;
        }
        self.last = now;
        let Some(store_bytes) = self.store_bytes else { return Some(1) };
        let earned = u128::from(store_bytes) * u128::from(elapsed) / self.pass.as_micros().max(1);
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(earned).min(SCRUB_CREDIT_MAX);
        u64::try_from(self.credit).ok().filter(|credit| *credit >= SCRUB_STEP_MIN)
    }

    /// What a step has read, and what a whole pass reads by now.
    pub(super) fn done(&mut self, bytes: u64, store_bytes: u64) {
        self.credit = self.credit.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.store_bytes = Some(store_bytes);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a pass takes the time it shall, whatever a step really reads; no burst after sleep. Method: an engine by hand
    //! that reads whole batches of its own size, over a month of seconds.
    use super::*;

    const SECOND: Micros = 1_000_000;
    const DAY: Micros = 86_400 * SECOND;

    /// Days until `store_bytes` have been read, by an engine that reads at least `batch` bytes a step.
    fn days_of_a_pass(days: u32, store_bytes: u64, batch: u64) -> u64 {
        let mut scrubber = Scrubber::new(days, 0).expect("it is on");
        let (mut read, mut now) = (0, 0);
        while read < store_bytes {
            now += 7 * SECOND;
            if let Some(budget) = scrubber.due(now) {
                let bytes = budget.next_multiple_of(batch);
                read += bytes;
                scrubber.done(bytes, store_bytes);
            }
        }
        now / DAY
    }

    #[test]
    fn a_pass_takes_the_time_it_shall() {
        for store_bytes in [1 << 30, 16 << 30, 4 << 40] {
            for batch in [4096, 1 << 20, 5 << 20] {
                let days = days_of_a_pass(30, store_bytes, batch);
                assert!((28..=31).contains(&days), "{store_bytes} bytes in batches of {batch} took {days} days");
            }
        }
        assert!((6..=7).contains(&days_of_a_pass(7, 16 << 30, 1 << 20)));
        assert!(Scrubber::new(0, 0).is_none());
    }

    #[test]
    fn sleep_is_not_made_up_for() {
        let mut scrubber = Scrubber::new(30, 0).expect("it is on");
        assert_eq!(scrubber.due(SECOND), None, "not every moment");
        assert_eq!(scrubber.due(DAY), Some(1), "the first step finds out how much there is");
        scrubber.done(4096, 1 << 40);
        assert_eq!(scrubber.due(20 * DAY), Some(SCRUB_CREDIT_MAX as u64));
        // Read, and more than was asked for: the next step waits until that is earned.
        scrubber.done(SCRUB_CREDIT_MAX as u64 + (64 << 20), 1 << 40);
        assert_eq!(scrubber.due(20 * DAY + 10 * SECOND), None);
        assert_eq!(scrubber.due(20 * DAY - DAY), None, "a clock set back earns nothing");
    }
}
