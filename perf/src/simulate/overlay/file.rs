//! A trial as a file: JSON with everything that decides what happens, so that a failure can be kept, read, edited and run again.
//!
//! Times are microseconds, from the moment the plan is followed; a fault without `lasting` is for good. What the names mean is
//! said where the types are (`net::sim::faults`); here they are only spelled out, since `net` knows no JSON.

use crate::load::LoadError;
use net::machine::Micros;
use net::sim::faults::{FaultKind, PlannedFault};
use net::sim::trial::Trial;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Serialize, Deserialize)]
#[serde(remote = "FaultKind", rename_all = "snake_case")]
enum Kind {
    Down { node: u32, wiped: bool },
    Asleep { node: u32 },
    Cut { nodes: Vec<u32> },
    Blocked { from: u32, to: u32, both_ways: bool },
    Slow { from: u32, to: u32, both_ways: bool, by: Micros },
    Loss { millionths: u32 },
    Duplication { millionths: u32 },
    ClockStep { node: u32, by: i64 },
    ClockDrift { node: u32, millionths: i32 },
    SlowDisk { node: u32, by: Micros },
    FullDisk { node: u32 },
}

#[derive(Serialize, Deserialize)]
struct Fault {
    at: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lasting: Option<Micros>,
    #[serde(flatten, with = "Kind")]
    kind: FaultKind,
}

/// A trial, spelled out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    seed: u64,
    nodes: u32,
    lasting: Micros,
    calm: Micros,
    lookups: f64,
    objects: u32,
    faults: Vec<Fault>,
}

/// The trial as JSON, a line a fault.
pub(super) fn write(trial: &Trial) -> Result<String, LoadError> {
    let head = Written {
        seed: trial.seed,
        nodes: trial.nodes,
        lasting: trial.lasting,
        calm: trial.calm,
        lookups: trial.lookups,
        objects: trial.objects,
        faults: Vec::new(),
    };
    let lines: Result<Vec<String>, serde_json::Error> = trial
        .plan
        .iter()
        .map(|planned| {
            let PlannedFault { at, lasting, kind } = planned.clone();
            serde_json::to_string(&Fault { at, lasting, kind })
        })
        .collect();
    let head = serde_json::to_string(&head)?;
    let (head, _) = head.rsplit_once("[]").unwrap_or((&head, ""));
    Ok(format!("{head}[\n{}\n]}}\n", lines?.join(",\n")))
}

/// Reads a trial from a file that [`fn@write`] wrote, or somebody by hand.
pub(super) fn read(file: &Path) -> Result<Trial, LoadError> {
    parse(&std::fs::read_to_string(file)?)
}

fn parse(text: &str) -> Result<Trial, LoadError> {
    let Written { seed, nodes, lasting, calm, lookups, objects, faults } = serde_json::from_str(text)?;
    let unexpected = |got: String| Err(LoadError::Unexpected { expected: "a trial that can be run", got });
    if !(1..=1_000_000).contains(&nodes) || !(0.0..=10_000.0).contains(&lookups) || lasting.checked_add(calm).is_none()
    {
        return unexpected(format!("{nodes} nodes, {lookups} lookups, {lasting} and {calm} µs"));
    }
    let plan: Vec<PlannedFault> =
        faults.into_iter().map(|Fault { at, lasting, kind }| PlannedFault { at, lasting, kind }).collect();
    if let Some(node) = plan.iter().flat_map(|fault| fault.kind.nodes()).find(|node| *node >= nodes) {
        return unexpected(format!("a fault of node {node}, of {nodes}"));
    }
    Ok(Trial { seed, nodes, lasting, calm, lookups, objects, plan })
}

#[cfg(test)]
mod tests {
    //! Goal: what is read is what was written, and nonsense is refused. Method: a plan with every kind of fault, there and back.

    use super::*;
    use net::limits::SECOND;
    use net::sim::faults::{Hazards, Spell, draw};

    #[test]
    fn trials_go_there_and_back() {
        let spell = Some(Spell::exponential(600 * SECOND));
        let hazards = Hazards {
            sessions: spell,
            gaps: spell,
            wiped: 500_000,
            loss: 1,
            duplication: 1,
            cuts: 2,
            sleeps: 2,
            blocked_links: 2,
            slow_links: 2,
            clocks: 2,
            disks: 2,
        };
        let plan = draw(1, 20, 3_600 * SECOND, &hazards);
        let trial = Trial { seed: 1, nodes: 20, lasting: 3_600 * SECOND, calm: 0, lookups: 36.0, objects: 5, plan };
        let text = write(&trial).expect("it is written");
        assert_eq!(text.lines().count(), trial.plan.len() + 2);
        assert_eq!(parse(&text).expect("it is read"), trial);
        for wrong in [
            text.replace("\"nodes\":20", "\"nodes\":2"),
            text.replace("asleep", "awake"),
            text.replace("\"seed\"", "\"sead\""),
        ] {
            assert!(parse(&wrong).is_err());
        }
    }
}
