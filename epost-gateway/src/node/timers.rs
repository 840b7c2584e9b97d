//! The timers of one machine: armed, moved, due.

use super::limits::TIMERS_MAX;
use net::machine::{Micros, TimerId};
use std::collections::BTreeMap;

/// Timers in the order they are due. Both maps hold the same timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<(Micros, TimerId), ()>,
    at: BTreeMap<TimerId, Micros>,
}

impl Timers {
    /// Arms a timer, or moves it.
    ///
    /// # Panics
    /// If the machine arms more timers than any bounded machine needs.
    pub(super) fn arm(&mut self, timer: TimerId, at: Micros) {
        if let Some(before) = self.at.insert(timer, at) {
            self.due.remove(&(before, timer));
        }
        self.due.insert((at, timer), ());
        assert!(self.at.len() <= TIMERS_MAX, "a machine's timers are bounded");
        assert_eq!(self.at.len(), self.due.len());
    }

    /// When the first one is due.
    pub(super) fn first(&self) -> Option<Micros> {
        self.due.first_key_value().map(|((at, _), ())| *at)
    }

    /// Takes the first one that is due.
    pub(super) fn take_due(&mut self, now: Micros) -> Option<TimerId> {
        let (at, timer) = *self.due.first_key_value()?.0;
        if at > now {
            return None;
        }
        self.due.pop_first();
        self.at.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each armed timer happens once, in order, at its last time. Method: a list that is searched, as model.
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn timers_agree_with_a_list(steps in prop::collection::vec((0u64..8, 0u64..100, any::<bool>()), 0..200)) {
            let mut timers = Timers::default();
            let mut model: Vec<(Micros, TimerId)> = Vec::new();
            for (id, at, arm) in steps {
                if arm {
                    timers.arm(TimerId(id), at);
                    model.retain(|(_, timer)| *timer != TimerId(id));
                    model.push((at, TimerId(id)));
                } else {
                    model.sort();
                    let expected = model.first().filter(|(due, _)| *due <= at).copied();
                    prop_assert_eq!(timers.take_due(at), expected.map(|(_, timer)| timer));
                    model.retain(|entry| Some(*entry) != expected);
                }
                prop_assert_eq!(timers.first(), model.iter().map(|(at, _)| *at).min());
            }
        }
    }
}
