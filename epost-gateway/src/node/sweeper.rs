//! When expired leases are swept, and when the clock is believed.
//!
//! The machines of a host say how far they have agreed on leases with other nodes ([`Agreed`]); a sweep takes what ended
//! before all of them had, and longer ago than the grace. Before each has spoken there is none.
//!
//! A node that was away, or whose clock has jumped, does not know which leases were extended meanwhile on other replicas;
//! the engine then deletes nothing until it is told that its clock is right. It is told so once the node has been at work
//! for [`CLOCK_TRUST_TIME`] without another gap: by then replicas have exchanged their leases. A gap shorter than the
//! ring's grace needs no such care, because what was extended during it had not yet ended when it began.

use super::limits::{CLOCK_JUMP_MIN_S, CLOCK_TRUST_TIME};
use net::machine::{Micros, Seconds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Until when each machine of a host has agreed on leases with other nodes, in seconds; 0 for not yet.
#[derive(Debug)]
pub(super) struct Agreed {
    through: Vec<AtomicU64>,
}

impl Agreed {
    /// Of so many machines, none has agreed on anything yet.
    pub(super) fn new(machines: usize) -> Agreed {
        Agreed { through: (0..machines).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The machine of this index has agreed on what ended before `through`.
    pub(super) fn tell(&self, index: u16, through: Seconds) {
        if let Some(told) = self.through.get(usize::from(index)) {
            told.fetch_max(through, Ordering::Relaxed);
        }
    }

    /// Until when all machines have agreed.
    pub(super) fn through(&self) -> Seconds {
        self.through.iter().map(|told| told.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

/// The sweeping of one engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweeper {
    period: Micros,
    jump: Micros,
    grace_s: Seconds,
    next: Micros,
    last: Micros,
    /// What was swept by, at last.
    swept: Micros,
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
    /// Sweeps every `period`, first at once, from `now` on, in a ring with this grace.
    pub(super) fn new(period: Duration, grace_s: Seconds, now: Micros) -> Sweeper {
        let jump = jump_s(grace_s, period.as_secs()).saturating_mul(1_000_000);
        let period = micros(period);
        Sweeper { period, jump, grace_s, next: now, last: now, swept: now, at_work_since: now, confirmed: false }
    }

    /// When the next sweep is due.
    pub(super) fn next(&self) -> Micros {
        self.next
    }

    /// The sweep that is due now, if one is. `wall` is the system's clock, which may have been set back behind `now` after
    /// it had run ahead: what a clock says that was since corrected ends no lease. `agreed` as in [`Agreed::through`].
    pub(super) fn due(&mut self, now: Micros, wall: Micros, agreed: Seconds) -> Option<Due> {
        if now < self.next {
            return None;
        }
        let has_gap = now - self.last >= self.jump;
        self.last = now;
        self.next = now + self.period;
        // The engine takes off the grace from the time it is told.
        let by = now.min(wall).min(agreed.saturating_add(self.grace_s).saturating_mul(1_000_000));
        // The engine doubts a leap of what it is told, too, as when others were away for long.
        if has_gap || by.saturating_sub(self.swept) >= self.jump {
            self.at_work_since = now;
            self.confirmed = false;
        }
        if agreed == 0 {
            return None;
        }
        self.swept = by;
        let confirm = !self.confirmed && now - self.at_work_since >= micros(CLOCK_TRUST_TIME);
        self.confirmed |= confirm;
        Some(Due { now_s: by / 1_000_000, confirm })
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
        let mut sweeper = Sweeper::new(Duration::from_secs(60), 10, start);
        let mut now = start;
        let mut confirmed_after = Vec::new();
        for _ in 0..200 {
            let due = sweeper.due(now, now, now / SECOND).expect("due each minute");
            assert_eq!(due.now_s, now / SECOND);
            assert_eq!(sweeper.due(now + 59 * SECOND, now + 59 * SECOND, now / SECOND), None);
            if due.confirm {
                confirmed_after.push((now - start) / SECOND);
            }
            now += 60 * SECOND;
        }
        assert_eq!(confirmed_after, [3_600]);
        now += 3_600 * SECOND;
        assert!(!sweeper.due(now, now, now / SECOND).expect("due").confirm, "after a gap it is not believed");
        for minute in 1..=60 {
            let then = now + minute * 60 * SECOND;
            assert_eq!(sweeper.due(then, then, then / SECOND).expect("due").confirm, minute == 60);
        }
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_moment_ends_no_lease() {
        let start = 1_000_000 * SECOND;
        let mut sweeper = Sweeper::new(Duration::from_secs(60), 10, start);
        assert!(sweeper.due(start, start, start / SECOND).is_some());
        // Set ahead by years and put right: this process's clock, which never goes back, stays ahead.
        let ahead = 300_000_000 * SECOND;
        let mut confirmed = false;
        for minute in 1..=100 {
            let wall = start + minute * 60 * SECOND;
            let due = sweeper.due(wall + ahead, wall, (wall + ahead) / SECOND).expect("due each minute");
            assert_eq!(due.now_s, wall / SECOND);
            confirmed |= due.confirm;
        }
        assert!(confirmed, "that the clock is right is said of the right clock");
    }

    #[test]
    fn nothing_is_swept_beyond_what_is_agreed_on() {
        let agreed = Agreed::new(2);
        let start = 1_000_000 * SECOND;
        let mut sweeper = Sweeper::new(Duration::from_secs(60), 1_000, start);
        let mut minute = 0;
        let mut due = |agreed: &Agreed, minutes: u64| {
            minute += minutes;
            let now = start + minute * 60 * SECOND;
            (sweeper.due(now, now, agreed.through()), now / SECOND)
        };
        assert_eq!(due(&agreed, 1).0, None);
        agreed.tell(0, 1_000_100);
        assert_eq!(due(&agreed, 1).0, None, "one of two machines has yet to agree");
        agreed.tell(1, 999_000);
        assert_eq!(due(&agreed, 1).0, Some(Due { now_s: 1_000_000, confirm: false }), "the lesser, and the grace");
        agreed.tell(1, 998_000);
        assert_eq!(agreed.through(), 999_000, "what was agreed on stays so");
        agreed.tell(1, 1_000_100);
        let (swept, now_s) = due(&agreed, 1);
        assert_eq!(swept, Some(Due { now_s, confirm: false }), "and never later than now");
        // Others were away for so long that the engine will doubt the leap: it is told an hour later that all is well.
        assert_eq!((1..=28 * 24 * 60).filter(|_| due(&agreed, 1).0.is_some_and(|due| due.confirm)).count(), 1);
        let mut confirmed_after = Vec::new();
        for minute in 0..=120 {
            let (_, now_s) = due(&agreed, 0);
            agreed.tell(0, now_s);
            agreed.tell(1, now_s);
            if due(&agreed, 1).0.is_some_and(|due| due.confirm) {
                confirmed_after.push(minute);
            }
        }
        assert_eq!(confirmed_after, [60]);
    }

    #[test]
    fn a_jump_is_never_shorter_than_the_grace_or_the_period() {
        assert_eq!(jump_s(0, 60), CLOCK_JUMP_MIN_S);
        assert_eq!(jump_s(3 * 86_400, 60), 3 * 86_400);
        assert_eq!(jump_s(0, 86_400), 2 * 86_400);
    }
}
