//! A failing trial's plan, made smaller, with a bar that counts the tries.
//!
//! A smaller plan fails if a trial with it ends at a violation of the same kind: the text, but for its numbers and names, is the
//! same. So one fault is not exchanged for another on the way. A try that goes on beyond the virtual time of the first
//! violation by [`LATER`] is given up as one that does not fail.

use super::{attend, file};
use crate::load::LoadError;
use indicatif::{ProgressBar, ProgressStyle};
use net::limits::SECOND;
use net::machine::Micros;
use net::sim::faults::PlannedFault;
use net::sim::inspector::Violation;
use net::sim::shrink::{Shrunk, shrink};
use net::sim::trial::{Outcome, SETTLING, Trial};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// With fewer faults a violation may show later, by at most this.
const LATER: Micros = 300 * SECOND;

/// Says which part of the plan suffices, as JSON, for `--plan`.
pub(super) fn shrunk(trial: &Trial, outcome: &Outcome, tries_max: usize) -> Result<String, LoadError> {
    let Some(violation) = &outcome.violation else { return Ok(String::new()) };
    if trial.plan.is_empty() {
        return Ok("no fault was needed for it".to_owned());
    }
    let (stop, tried) = (AtomicBool::new(false), AtomicU64::new(0));
    let bar = ProgressBar::new(tries_max as u64);
    bar.set_style(
        ProgressStyle::with_template("making the plan smaller {wide_bar} {pos}/{len} tries").expect("a template"),
    );
    let found = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            least(trial, violation, tries_max, &stop, || {
                tried.fetch_add(1, Ordering::Relaxed);
            })
        });
        attend(&stop, || {
            bar.set_position(tried.load(Ordering::Relaxed));
            running.is_finished()
        })?;
        running
            .join()
            .map_err(|_| LoadError::Unexpected { expected: "a smaller plan", got: "a panic, above".to_owned() })
    })?;
    bar.finish_and_clear();
    let small = Trial { plan: found.least, ..trial.clone() };
    let minimal = if found.is_minimal { "none of them can be left out" } else { "stopped before it was the least" };
    Ok(format!(
        "{} of {} faults suffice ({minimal}; {} tries), for --plan:\n{}",
        small.plan.len(),
        trial.plan.len(),
        found.tries,
        file::write(&small)?
    ))
}

fn least(
    trial: &Trial,
    violation: &Violation,
    tries_max: usize,
    stop: &AtomicBool,
    attempt: impl Fn(),
) -> Shrunk<PlannedFault> {
    let (kind, end) = (kind_of(violation), violation.at + LATER + SETTLING);
    shrink(trial.plan.clone(), tries_max, |plan| {
        attempt();
        let fewer = Trial { plan: plan.to_vec(), ..trial.clone() };
        let outcome = fewer.run(|stage| stage.passed < end && !stop.load(Ordering::Relaxed));
        outcome.violation.is_some_and(|violation| kind_of(&violation) == kind)
    })
}

/// What was seen, without what tells one such violation from another: words with digits, and what is in brackets.
fn kind_of(violation: &Violation) -> String {
    let is_common = |word: &&str| !word.contains(|letter: char| letter.is_ascii_digit() || "[](),".contains(letter));
    violation.what.split_whitespace().filter(is_common).collect::<Vec<&str>>().join(" ")
}

#[cfg(test)]
mod tests {
    //! Goal: the smaller plan is what is needed for the same failure. Method: a ring in which all messages are lost for a while,
    //! among other faults; two texts of one kind, and of two.

    use super::*;
    use net::sim::faults::{FaultKind, Hazards, draw};

    #[test]
    fn of_a_failing_plan_the_fault_that_matters_is_left() {
        let (nodes, lasting) = (30, 120 * SECOND);
        let mut plan = draw(1, nodes, lasting, &Hazards { sleeps: 5, slow_links: 5, disks: 5, ..Hazards::default() });
        let deaf = PlannedFault { at: 30 * SECOND, lasting: None, kind: FaultKind::Loss { millionths: 1_000_000 } };
        plan.insert(7, deaf.clone());
        let trial = Trial { seed: 1, nodes, lasting, calm: 0, lookups: 360.0, objects: 0, plan };
        let violation = trial.run(|_| true).violation.expect("nobody hears anything");
        let found = least(&trial, &violation, 100, &AtomicBool::new(false), || {});
        assert_eq!((found.least, found.is_minimal), (vec![deaf], true));
    }

    #[test]
    fn kinds_are_told_apart_by_their_words() {
        let kind = |what: &str| kind_of(&Violation { at: 0, what: what.to_owned() });
        assert_eq!(kind("node 5 was told a1b2 (node Some(3))"), kind("node 7 was told c3d4 (node Some(1))"));
        assert_ne!(kind("node 5 has no answer to a read"), kind("node 5 has no answer to a lookup"));
    }
}
