//! When expired leases are swept, and when the clock is believed.
//!
//! A node that was away, or whose clock has jumped, does not know which leases were extended meanwhile on other replicas;
//! the engine then deletes nothing until it is told that its clock is right. It is told so once the node has been at work
//! for [`CLOCK_TRUST_TIME`] without another gap: by then replicas have exchanged their leases. A gap shorter than the
//! ring's grace needs no such care, because what was extended during it had not yet ended when it began.

use super::limits::{CLOCK_JUMP_MIN_S, CLOCK_TRUST_TIME};
use net::machine::{Micros, Seconds};
use std::time::Duration;

/// The sweeping of one engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweeper {
    period: Micros,
    jump: Micros,
    next: Micros,
    last: Micros,
    at_work_since: Micros,
    confirmed: bool,
}

/// A sweep that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The time to sweep by.
    pub now_s: Seconds,
    /// Tell the engine first that its clock is right.
    pub confirm: bool,
}

impl Sweeper {
    /// Sweeps every `period`, first at once, from `now` on; `jump_s` as in [`jump_s`].
    pub(super) fn new(period: Duration, jump_s: Seconds, now: Micros) -> Sweeper {
        let period = micros(period);
        let jump = jump_s.saturating_mul(1_000_000);
        Sweeper { period, jump, next: now, last: now, at_work_since: now, confirmed: false }
    }

    /// When the next sweep is due.
    pub(super) fn next(&self) -> Micros {
        self.next
    }

    /// The sweep that is due now, if one is. `wall` is the system's clock, which may have been set back behind `now` after
    /// it had run ahead: what a clock says that was since corrected ends no lease.
    pub(super) fn due(&mut self, now: Micros, wall: Micros) -> Option<Due> {
        if now < self.next {
            return None;
        }
        if now - self.last >= self.jump {
            self.at_work_since = now;
            self.confirmed = false;
        }
        self.last = now;
        self.next = now + self.period;
        let confirm = !self.confirmed && now - self.at_work_since >= micros(CLOCK_TRUST_TIME);
        self.confirmed |= confirm;
        Some(Due { now_s: now.min(wall) / 1_000_000, confirm })
    }
}

/// The gap between two sweeps that counts as a jump, for a ring with this grace and a node with this period.
pub(super) fn jump_s(grace_s: Seconds, period_s: Seconds) -> Seconds {
    grace_s.max(CLOCK_JUMP_MIN_S).max(period_s.saturating_mul(2))
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX / 4)
}

#[cfg(test)]
mod tests {
    //! Goal: the clock is believed only after an hour at work without a gap, once. Method: hours walked through by hand.
    use super::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn the_clock_is_believed_after_an_hour_without_a_gap() {
        let start = 1_000_000 * SECOND;
        let mut sweeper = Sweeper::new(Duration::from_secs(60), jump_s(10, 60), start);
        let mut now = start;
        let mut confirmed_after = Vec::new();
        for _ in 0..200 {
            let due = sweeper.due(now, now).expect("due each minute");
            assert_eq!(due.now_s, now / SECOND);
            assert_eq!(sweeper.due(now + 59 * SECOND, now + 59 * SECOND), None);
            if due.confirm {
                confirmed_after.push((now - start) / SECOND);
            }
            now += 60 * SECOND;
        }
        assert_eq!(confirmed_after, [3_600]);
        now += 3_600 * SECOND;
        assert!(!sweeper.due(now, now).expect("due").confirm, "after a gap it is not believed");
        for minute in 1..=60 {
            let then = now + minute * 60 * SECOND;
            assert_eq!(sweeper.due(then, then).expect("due").confirm, minute == 60);
        }
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_moment_ends_no_lease() {
        let start = 1_000_000 * SECOND;
        let mut sweeper = Sweeper::new(Duration::from_secs(60), jump_s(10, 60), start);
        assert!(sweeper.due(start, start).is_some());
        // Set ahead by years and put right: this process's clock, which never goes back, stays ahead.
        let ahead = 300_000_000 * SECOND;
        let mut confirmed = false;
        for minute in 1..=100 {
            let wall = start + minute * 60 * SECOND;
            let due = sweeper.due(wall + ahead, wall).expect("due each minute");
            assert_eq!(due.now_s, wall / SECOND);
            confirmed |= due.confirm;
        }
        assert!(confirmed, "that the clock is right is said of the right clock");
    }

    #[test]
    fn a_jump_is_never_shorter_than_the_grace_or_the_period() {
        assert_eq!(jump_s(0, 60), CLOCK_JUMP_MIN_S);
        assert_eq!(jump_s(3 * 86_400, 60), 3 * 86_400);
        assert_eq!(jump_s(0, 86_400), 2 * 86_400);
    }
}
