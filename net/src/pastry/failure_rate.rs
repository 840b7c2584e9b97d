//! How often peers fail, and so how often the routing table needs to be looked at.
//!
//! As in MSPastry: a message takes about log16 N hops, all but the last through the routing table, and is to meet a dead
//! entry with a chance of at most [`LOSS_TARGET`] on its way. An entry that is looked at every T while nodes fail at a rate μ
//! is dead with a chance of about Tμ/2 (a little less, so we err on the busy side). That gives T, once μ is known: from the
//! moments of the last few deaths among the peers we follow. Nothing has to be tuned for a calm ring or a restless one.

use crate::limits::{FAILURES_KEPT, LOSS_TARGET, TABLE_PERIOD_MAX, TABLE_PERIOD_MIN};
use crate::machine::Micros;
use std::collections::VecDeque;

/// When peers that we followed were last found dead.
#[derive(Debug, Default)]
pub(crate) struct FailureRate {
    since: Micros,
    failures: VecDeque<Micros>,
}

impl FailureRate {
    /// Nothing is known before `now`.
    pub(crate) fn begin(now: Micros) -> FailureRate {
        FailureRate { since: now, failures: VecDeque::new() }
    }

    /// A peer of our tables was found dead.
    pub(crate) fn failed(&mut self, now: Micros) {
        self.failures.push_back(now);
        if self.failures.len() > FAILURES_KEPT {
            self.since = self.failures.pop_front().unwrap_or(now);
        }
    }

    /// How long an entry of the routing table may go unheard of, where `followed` peers are followed in a ring of `members`.
    pub(crate) fn table_period(&self, now: Micros, followed: usize, members: usize) -> Micros {
        // As if one more were failing now: a calm beginning proves little.
        let failures = self.failures.len() as u64 + 1;
        let watched = now.saturating_sub(self.since).saturating_mul(followed as u64);
        let period = watched.saturating_mul(2 * 4) / LOSS_TARGET / (failures * quarters_of_hops(members));
        period.clamp(TABLE_PERIOD_MIN, TABLE_PERIOD_MAX)
    }
}

/// How many hops a message takes through tables, in quarters: log16 of `members` less the last hop.
fn quarters_of_hops(members: usize) -> u64 {
    u64::from(members.next_power_of_two().trailing_zeros()).saturating_sub(4).max(1)
}

#[cfg(test)]
mod tests {
    //! Goal: the period keeps the chance of meeting a dead entry near its target. Method: peers that fail at a known rate,
    //! for which the exact formula of MSPastry gives the chance; and rings that are calm, or gone at once.
    use super::*;
    use crate::limits::SECOND;
    use crate::sim::Dice;

    /// The chance that a message meets a dead entry, by MSPastry's formula, for entries probed every `period`.
    fn raw_loss(period: Micros, session: Micros, members: usize) -> f64 {
        let failed = period as f64 / session as f64;
        let dead = 1.0 - (1.0 - (-failed).exp()) / failed;
        1.0 - (1.0 - dead).powf((members as f64).log2() / 4.0 - 1.0)
    }

    #[test]
    fn the_period_meets_the_target_at_known_rates() {
        for (session_s, members) in [(2 * 3_600, 10_000), (8_280, 500), (20_000, 4_096)] {
            let (mut periods, followed) = (Vec::new(), 60);
            for seed in 0..40 {
                let (mut dice, mut rate, mut now) = (Dice::new(seed), FailureRate::begin(0), 0);
                for _ in 0..200 {
                    // One of `followed` peers fails, after an exponential time.
                    let draw = (dice.roll() >> 11) as f64 / (1u64 << 53) as f64;
                    now += (-(1.0 - draw).ln() * (session_s * SECOND) as f64 / f64::from(followed)) as Micros;
                    rate.failed(now);
                }
                periods.push(rate.table_period(now, followed as usize, members));
            }
            periods.sort_unstable();
            let loss = raw_loss(periods[periods.len() / 2], session_s * SECOND, members);
            assert!((0.03..0.06).contains(&loss), "{loss:.3} of the messages meet a dead entry, the target is 0.05");
        }
    }

    #[test]
    fn a_calm_ring_is_left_alone_and_a_dying_one_looked_at_often() {
        let mut rate = FailureRate::begin(0);
        assert_eq!(rate.table_period(0, 60, 10_000), TABLE_PERIOD_MIN);
        assert_eq!(rate.table_period(24 * 3_600 * SECOND, 60, 10_000), TABLE_PERIOD_MAX);
        (0..FAILURES_KEPT as u64 + 5).for_each(|nth| rate.failed(24 * 3_600 * SECOND + nth * SECOND));
        assert_eq!(rate.table_period(24 * 3_600 * SECOND + 30 * SECOND, 60, 10_000), TABLE_PERIOD_MIN);
    }

    #[test]
    fn hops_are_the_logarithm_less_one_and_never_none() {
        for (members, expected) in [(0, 1), (1, 1), (16, 1), (32, 1), (256, 4), (257, 5), (4_096, 8), (10_000, 10)] {
            assert_eq!(quarters_of_hops(members), expected, "{members} members");
        }
    }
}
