//! How long each operation took, and what share of them took longer.

use std::time::Duration;

/// Times of many operations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    times: Vec<Duration>,
}

impl Latencies {
    /// Notes one.
    pub(crate) fn note(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// Takes over those of another thread.
    pub(crate) fn absorb(&mut self, other: Latencies) {
        self.times.extend(other.times);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    /// The time that `share` of the operations took at most, in milliseconds; `None` without operations.
    pub(crate) fn quantile_ms(&mut self, share: f64) -> Option<f64> {
        self.times.sort_unstable();
        let last = self.times.len().checked_sub(1)?;
        let at = (self.times.len() as f64 * share).ceil() as usize;
        Some(self.times[at.saturating_sub(1).min(last)].as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: quantiles by their definition. Method: a thousand times known by hand.

    use super::*;

    #[test]
    fn quantiles_of_one_to_a_thousand() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile_ms(0.5), None);
        for ms in (1..=1000).rev() {
            latencies.note(Duration::from_millis(ms));
        }
        assert_eq!(latencies.quantile_ms(0.5), Some(500.0));
        assert_eq!(latencies.quantile_ms(0.999), Some(999.0));
        assert_eq!(latencies.quantile_ms(1.0), Some(1000.0));
    }
}
