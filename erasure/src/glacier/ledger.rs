//! The ledger: how fast a node works through what it has to mend, and when it will be through.
//!
//! The deficit is counted where it lies. Here is what was settled in the last hour, minute by minute, and from that how long the
//! rest takes: an estimate, and none where nothing was settled, rather than a guess.

use super::limits::SECOND;
use net::machine::Micros;

/// Minutes that are looked back upon.
const MINUTES: usize = 60;
const MINUTE: Micros = 60 * SECOND;

/// What was settled in each of the last minutes.
///
/// Invariant: a minute is in the place of its number modulo [`MINUTES`], and `settled` holds none older than [`MINUTES`] before
/// `latest`.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    settled: [u64; MINUTES],
    latest: Micros,
    /// When the work that is being measured began: nothing was open before.
    began: Option<Micros>,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { settled: [0; MINUTES], latest: 0, began: None }
    }
}

impl Ledger {
    /// There is something to do, so much of it in all. With nothing to do the clock stops.
    pub(super) fn is_open(&mut self, now: Micros, count: usize) {
        if count == 0 {
            *self = Ledger::default();
        } else {
            self.began.get_or_insert(now);
        }
    }

    /// So much of it is settled.
    pub(super) fn settle(&mut self, now: Micros, count: u64) {
        self.go_to(now / MINUTE);
        self.settled[place(self.latest)] += count;
    }

    fn go_to(&mut self, minute: Micros) {
        let passed = minute.saturating_sub(self.latest).min(MINUTES as u64);
        for step in 0..passed {
            self.settled[place(minute - step)] = 0;
        }
        self.latest = self.latest.max(minute);
    }

    /// How much was settled in the last hour, and in how many seconds: fewer where the work began later, but a minute at least, so that
    /// the first moments promise nothing.
    fn lately(&self, now: Micros) -> (u64, u64) {
        let mut until_now = self.clone();
        until_now.go_to(now / MINUTE);
        let hour = MINUTES as u64 * MINUTE;
        let span = self.began.map_or(0, |began| now.saturating_sub(began));
        (until_now.settled.iter().sum(), span.clamp(MINUTE, hour) / SECOND)
    }

    /// How much is settled in an hour, as it goes now.
    pub(super) fn an_hour(&self, now: Micros) -> u64 {
        let (settled, seconds) = self.lately(now);
        settled.saturating_mul(3_600) / seconds
    }

    /// In how many seconds so much will be settled, as it goes now; none if nothing goes.
    pub(super) fn seconds_to_go(&self, now: Micros, count: usize) -> Option<u64> {
        let (settled, seconds) = self.lately(now);
        match (count as u64, settled) {
            (0, _) => Some(0),
            (_, 0) => None,
            (count, settled) => Some(count.saturating_mul(seconds).div_ceil(settled)),
        }
    }
}

fn place(minute: Micros) -> usize {
    (minute % MINUTES as u64) as usize
}

#[cfg(test)]
mod tests {
    //! Goal: what the ledger says is what was settled in the hour before. Method: every settling is kept in a list, and
    //! counted there.
    use super::*;

    #[test]
    fn the_last_hour_is_what_counts() {
        let start = 1_000_000 * MINUTE;
        let (mut ledger, mut all, mut seed) = (Ledger::default(), Vec::new(), 9u64);
        assert_eq!(
            (ledger.an_hour(start), ledger.seconds_to_go(start, 5), ledger.seconds_to_go(start, 0)),
            (0, None, Some(0))
        );
        ledger.is_open(start, 1);
        let mut minute = start / MINUTE;
        for _ in 0..2_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Mostly from minute to minute, at times after hours.
            minute += if seed >> 60 == 0 { seed >> 52 & 0xff } else { seed >> 40 & 1 };
            let now = minute * MINUTE;
            ledger.settle(now, seed >> 33 & 7);
            all.push((minute, seed >> 33 & 7));
            let settled: u64 = all.iter().filter(|(at, _)| at + MINUTES as u64 > minute).map(|(_, count)| count).sum();
            let seconds = (now - start).clamp(MINUTE, 60 * MINUTE) / SECOND;
            assert_eq!(ledger.lately(now), (settled, seconds));
            if settled > 0 {
                assert_eq!(ledger.seconds_to_go(now, 40), Some((40 * seconds).div_ceil(settled)));
            }
        }
        ledger.is_open(start, 0);
        assert_eq!(ledger.lately(minute * MINUTE), (0, 60));
    }
}
