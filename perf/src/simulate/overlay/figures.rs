//! What is said of trials: the figures of each, as a table with a column a trial, and as JSON.

use crate::report::columns;
use net::limits::SECOND;
use net::sim::trial::{Minute, Outcome, STRETCH_STEP, Trial};
use serde::Serialize;
use std::time::Duration;

/// How long the parts of a trial took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    pub(super) founding: Duration,
    pub(super) whole: Duration,
}

/// What was found in one trial.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    pub(super) nodes: u32,
    virtual_hours: f64,
    pub(super) seed: u64,
    pub(super) faults: usize,
    pub(super) interrupted: bool,
    founding_seconds: f64,
    founding_events: u64,
    pub(super) seconds: f64,
    pub(super) events: u64,
    messages: u64,
    events_per_second: f64,
    control_per_node_second: f64,
    pub(super) lookups: u64,
    pub(super) right: u64,
    pub(super) wrong: u64,
    pub(super) astray: u64,
    pub(super) lost: u64,
    pub(super) lost_parted: u64,
    pub(super) unanswered: u64,
    pub(super) abandoned: u64,
    pub(super) reads: u64,
    pub(super) reads_failed: u64,
    pub(super) destroyed: u64,
    hops_mean: f64,
    hops_by_logarithm: f64,
    hops_most: usize,
    delay_stretch: f64,
    /// Lookups by hops, from none on.
    pub(super) hops: Vec<u64>,
    /// Lookups by delay stretch, in steps of a fifth.
    pub(super) stretches: Vec<u64>,
    /// Virtual minute by minute: messages a node and second, of upkeep and all.
    pub(super) traffic: Vec<(f64, f64)>,
    /// Virtual seconds, and how many objects have no, one, two, three copies on running nodes.
    pub(super) copies: Vec<(u64, Vec<u32>)>,
    /// Memory of the process at its most, so far.
    pub(super) resident_bytes_most: Option<u64>,
    pub(super) violation: Option<String>,
    trace: String,
}

impl Figures {
    pub(super) fn new(trial: &Trial, outcome: &Outcome, took: Took) -> Figures {
        let seen = &outcome.figures;
        let nodes = f64::from(trial.nodes);
        let lookups = seen.hops.iter().sum::<u64>().max(1) as f64;
        let hops = seen.hops.iter().enumerate().map(|(hops, count)| hops as u64 * count).sum::<u64>() as f64;
        let seconds = took.whole.saturating_sub(took.founding).as_secs_f64();
        let passed = seen.passed.max(1) as f64 / SECOND as f64;
        let hops_most = seen.hops.iter().rposition(|count| *count > 0).unwrap_or(0);
        let a_second = |minute: &Minute, sent: u64| sent as f64 / 60.0 / minute.standing.max(1) as f64;
        Figures {
            nodes: trial.nodes,
            virtual_hours: passed / 3_600.0,
            seed: trial.seed,
            faults: trial.plan.len(),
            interrupted: outcome.is_interrupted,
            founding_seconds: took.founding.as_secs_f64(),
            founding_events: seen.founding_events,
            seconds,
            events: seen.events,
            messages: seen.messages,
            events_per_second: seen.events as f64 / seconds.max(1e-9),
            control_per_node_second: seen.control as f64 / nodes / passed,
            lookups: seen.lookups,
            right: seen.right,
            wrong: seen.wrong,
            astray: seen.astray,
            lost: seen.lost,
            lost_parted: seen.lost_parted,
            unanswered: seen.unanswered,
            abandoned: seen.abandoned,
            reads: seen.reads,
            reads_failed: seen.reads_failed,
            destroyed: seen.destroyed,
            hops_mean: hops / lookups,
            hops_by_logarithm: hops / lookups / (nodes.max(2.0).log2() / 4.0),
            hops_most,
            delay_stretch: seen.travelled as f64 / seen.straight.max(1) as f64,
            hops: seen.hops[..=hops_most].to_vec(),
            stretches: seen.stretches.clone(),
            traffic: seen
                .traffic
                .iter()
                .map(|minute| (a_second(minute, minute.control), a_second(minute, minute.messages)))
                .collect(),
            copies: seen.copies.iter().map(|(at, copies)| (at / SECOND, copies.clone())).collect(),
            resident_bytes_most: None,
            violation: outcome.violation.as_ref().map(|violation| {
                format!("after {:.1} virtual seconds: {}", violation.at as f64 / SECOND as f64, violation.what)
            }),
            trace: format!("{:016x}", seen.trace),
        }
    }

    /// The stretch that so large a share of the lookups do not exceed, to a fifth.
    fn stretch_at(&self, share: f64) -> f64 {
        let all: u64 = self.stretches.iter().sum();
        let mut sum = 0;
        let step = self.stretches.iter().position(|count| {
            sum += count;
            sum as f64 >= share * all as f64
        });
        step.map_or(0.0, |step| (step + 1) as f64 * STRETCH_STEP)
    }
}

/// A column a trial.
pub(super) fn table(trials: &[Figures]) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, figure: &dyn Fn(&Figures) -> String| {
        lines.push((name.to_owned(), trials.iter().map(figure).collect::<Vec<String>>()));
    };
    line("nodes", &|it| it.nodes.to_string());
    line("seed", &|it| it.seed.to_string());
    line("virtual hours", &|it| format!("{:.2}", it.virtual_hours));
    line("seconds to found the ring", &|it| format!("{:.1}", it.founding_seconds));
    line("  events", &|it| it.founding_events.to_string());
    line("seconds", &|it| format!("{:.1}", it.seconds));
    line("events", &|it| it.events.to_string());
    line("messages", &|it| it.messages.to_string());
    line("events/s", &|it| format!("{:.0}", it.events_per_second));
    line("control messages a node and second", &|it| format!("{:.3}", it.control_per_node_second));
    line("lookups", &|it| it.lookups.to_string());
    line("  right", &|it| it.right.to_string());
    line("  wrong", &|it| it.wrong.to_string());
    line("  unanswered", &|it| it.unanswered.to_string());
    if trials.iter().any(|it| it.faults > 0) {
        line("  astray: past a node new there, or cut off", &|it| it.astray.to_string());
        line("  answered by nobody", &|it| it.lost.to_string());
        line("  the same, parted", &|it| it.lost_parted.to_string());
        line("  abandoned: the asker fell", &|it| it.abandoned.to_string());
        line("faults", &|it| it.faults.to_string());
    }
    if trials.iter().any(|it| it.reads > 0) {
        line("reads", &|it| it.reads.to_string());
        line("  that failed", &|it| it.reads_failed.to_string());
        line("objects whose disks were all wiped", &|it| it.destroyed.to_string());
    }
    line("hops, mean", &|it| format!("{:.3}", it.hops_mean));
    line("  by log16 of the nodes", &|it| format!("{:.3}", it.hops_by_logarithm));
    line("  most", &|it| it.hops_most.to_string());
    line("delay stretch, of sums", &|it| format!("{:.2}", it.delay_stretch));
    line("  median, at most", &|it| format!("{:.1}", it.stretch_at(0.5)));
    line("  of 99 in 100, at most", &|it| format!("{:.1}", it.stretch_at(0.99)));
    let memory = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| (bytes / 1_000_000).to_string());
    line("memory of the process so far, MB", &|it| memory(it.resident_bytes_most));
    line("  a node, kB", &|it| memory(it.resident_bytes_most.map(|bytes| bytes / u64::from(it.nodes) * 1_000)));
    line("trace", &|it| it.trace.clone());
    columns(&lines)
}

/// The most memory this process ever had, as the kernel says.
pub(super) fn resident_bytes_most() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}
