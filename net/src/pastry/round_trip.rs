//! How long a peer takes to answer, and so how long to wait for it: RFC 6298, section 2, in microseconds.
//!
//! A sample is the time from one question to the answer that carries its number, so that a repeated question confuses
//! nothing (Karn's rule holds by itself). Times that clocks have spoilt, by going back or leaping, are no samples.

use crate::limits::{ROUND_TRIP_MAX, WAIT_MAX, WAIT_MIN};
use crate::machine::Micros;

/// What the samples so far say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    /// 0 while there is no sample; never above [`ROUND_TRIP_MAX`].
    smoothed: u32,
    variation: u32,
}

impl RoundTrip {
    /// Takes the sample of a question asked at `asked` and answered at `now`.
    pub(crate) fn sample(&mut self, asked: Micros, now: Micros) {
        let Some(taken) = now.checked_sub(asked).filter(|taken| *taken <= ROUND_TRIP_MAX) else { return };
        // At most 10 s: fits with room for the sums below.
        let taken = taken.max(1) as u32;
        if self.smoothed == 0 {
            *self = RoundTrip { smoothed: taken, variation: taken / 2 };
        } else {
            self.variation = (3 * self.variation + self.smoothed.abs_diff(taken)) / 4;
            self.smoothed = ((7 * self.smoothed + taken) / 8).max(1);
        }
    }

    /// The round trip, if there was a sample.
    pub(crate) fn smoothed(self) -> Option<Micros> {
        (self.smoothed > 0).then_some(Micros::from(self.smoothed))
    }

    /// How long to wait for an answer; `unknown` while there was no sample.
    pub(crate) fn wait(self, unknown: Micros) -> Micros {
        let known = |smoothed: Micros| (smoothed + 4 * Micros::from(self.variation)).clamp(WAIT_MIN, WAIT_MAX);
        self.smoothed().map_or(unknown, known)
    }
}

const _: () = assert!(8 * ROUND_TRIP_MAX <= u32::MAX as u64);

#[cfg(test)]
mod tests {
    //! Goal: the estimate is RFC 6298's, and stays within bounds. Method: the same formulas in floating point beside it over
    //! random samples; times that went backwards or leapt. Proptest prints the seed of a failure.
    use super::*;
    use crate::limits::{MILLISECOND, SECOND};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_formulas(samples in prop::collection::vec(1_000u64..10_000_000, 1..60)) {
            let mut estimate = RoundTrip::default();
            let (mut smoothed, mut variation) = (0.0, 0.0);
            for taken in samples {
                let sample = taken as f64;
                if smoothed == 0.0 {
                    (smoothed, variation) = (sample, sample / 2.0);
                } else {
                    variation = 0.75 * variation + 0.25 * f64::abs(smoothed - sample);
                    smoothed = 0.875 * smoothed + 0.125 * sample;
                }
                estimate.sample(SECOND, SECOND + taken);
                let expected = (smoothed + 4.0 * variation).clamp(WAIT_MIN as f64, WAIT_MAX as f64);
                // Whole numbers lose less than one a step in each of the two, of which old ones fade.
                prop_assert!((estimate.wait(0) as f64 - expected).abs() <= 50.0);
                prop_assert!((WAIT_MIN..=WAIT_MAX).contains(&estimate.wait(0)));
            }
        }
    }

    #[test]
    fn spoilt_times_are_no_samples() {
        let mut estimate = RoundTrip::default();
        estimate.sample(2 * SECOND, SECOND);
        estimate.sample(SECOND, 3_600 * SECOND);
        assert_eq!((estimate.smoothed(), estimate.wait(500 * MILLISECOND)), (None, 500 * MILLISECOND));
        estimate.sample(SECOND, SECOND + 40 * MILLISECOND);
        assert_eq!(estimate.wait(0), 120 * MILLISECOND);
        estimate.sample(2 * SECOND, SECOND);
        assert_eq!(estimate.wait(0), 120 * MILLISECOND);
    }
}
