//! Many trials, one a seed, on all cores: each in trouble of its own, as its seed draws it.
//!
//! A thread per core takes the next seed from one counter; trials are independent and single-threaded, so what a seed does has
//! nothing to do with how many cores there are. A seed that fails does not stop the others: each is a line.

use super::figures::{Figures, Took};
use super::{Ending, attend, file};
use crate::load::LoadError;
use crate::report::{Findings, Watch, columns};
use indicatif::{ProgressBar, ProgressStyle};
use net::sim::trial::Trial;
use serde::Serialize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// One seed of a campaign.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) seed: u64,
    faults: usize,
    events: u64,
    lookups: u64,
    right: u64,
    wrong: u64,
    astray: u64,
    lost: u64,
    lost_parted: u64,
    unanswered: u64,
    abandoned: u64,
    reads: u64,
    reads_failed: u64,
    destroyed: u64,
    pub(super) violation: Option<String>,
}

#[derive(Serialize)]
struct Campaign {
    seeds: String,
    nodes: u32,
    minutes_in_trouble: f64,
    minutes_of_calm: f64,
    seconds: f64,
    interrupted: bool,
    failing: usize,
    rows: Vec<Row>,
}

/// Runs the trial of each seed until it ends or everybody is told to stop; the rows come by seed.
pub(super) fn run(
    seeds: &Range<u64>,
    trial: &(impl Fn(u64) -> Trial + Sync),
    done: &AtomicU64,
    stop: &AtomicBool,
) -> Vec<Row> {
    let (next, rows) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let labour = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            if let Some(row) = row(&trial(seed), stop) {
                rows.lock().expect("no thread panics with it").push(row);
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(labour))));
    let mut rows = rows.into_inner().expect("no thread panics with it");
    rows.sort_by_key(|row: &Row| row.seed);
    rows
}

/// A trial's row, unless it was stopped. A panic is a violation, too.
fn row(trial: &Trial, stop: &AtomicBool) -> Option<Row> {
    let run = || trial.run(|_| !stop.load(Ordering::Relaxed));
    let Ok(outcome) = catch_unwind(AssertUnwindSafe(run)) else {
        return Some(Row::panicked(trial));
    };
    let it = Figures::new(trial, &outcome, Took::default());
    (!it.interrupted).then_some(Row {
        seed: it.seed,
        faults: it.faults,
        events: it.events,
        lookups: it.lookups,
        right: it.right,
        wrong: it.wrong,
        astray: it.astray,
        lost: it.lost,
        lost_parted: it.lost_parted,
        unanswered: it.unanswered,
        abandoned: it.abandoned,
        reads: it.reads,
        reads_failed: it.reads_failed,
        destroyed: it.destroyed,
        violation: it.violation,
    })
}

impl Row {
    fn panicked(trial: &Trial) -> Row {
        let (seed, faults) = (trial.seed, trial.plan.len());
        let violation = Some("a panic, above".to_owned());
        let (events, lookups, right, wrong, astray, lost, lost_parted) = (0, 0, 0, 0, 0, 0, 0);
        let (unanswered, abandoned, reads, reads_failed, destroyed) = (0, 0, 0, 0, 0);
        Row {
            seed,
            faults,
            events,
            lookups,
            right,
            wrong,
            astray,
            lost,
            lost_parted,
            unanswered,
            abandoned,
            reads,
            reads_failed,
            destroyed,
            violation,
        }
    }
}

/// Runs a campaign and says what it found; `repeat` is the command line of one seed, without the seed.
pub(super) fn simulate(
    seeds: &Range<u64>,
    trial: impl Fn(u64) -> Trial + Sync,
    repeat: &str,
) -> Result<Ending, LoadError> {
    let (watch, start) = (Watch::start(), Instant::now());
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let bar = ProgressBar::new(seeds.end - seeds.start);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {eta} left").expect("a template"));
    let rows = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(seeds, &trial, &done, &stop));
        attend(&stop, || {
            bar.set_position(done.load(Ordering::Relaxed));
            running.is_finished()
        })?;
        running.join().map_err(|_| LoadError::Unexpected { expected: "a campaign", got: "a panic, above".to_owned() })
    })?;
    bar.finish_and_clear();
    let model = trial(seeds.start);
    let minutes = |time: net::machine::Micros| time as f64 / (60 * net::limits::SECOND) as f64;
    let failing: Vec<&Row> = rows.iter().filter(|row| row.violation.is_some()).collect();
    let campaign = Campaign {
        seeds: format!("{}..{}", seeds.start, seeds.end),
        nodes: model.nodes,
        minutes_in_trouble: minutes(model.lasting),
        minutes_of_calm: minutes(model.calm),
        seconds: start.elapsed().as_secs_f64(),
        interrupted: stop.load(Ordering::Relaxed),
        failing: failing.len(),
        rows: rows.clone(),
    };
    let mut findings = Findings::new("simulate overlay campaign", Path::new("."), &watch, &campaign, table(&campaign))?;
    if campaign.interrupted {
        findings.note("interrupted: what is counted was run to its end, the rest was not");
    }
    let violation = match failing.first() {
        None => None,
        Some(first) => {
            let text = file::write(&trial(first.seed))?;
            let kept = std::env::temp_dir().join(format!("overlay-{}.json", first.seed));
            std::fs::write(&kept, text)?;
            let lines: Vec<String> = failing
                .iter()
                .map(|row| format!("seed {}: {}", row.seed, row.violation.as_deref().unwrap_or("")))
                .collect();
            Some(format!(
                "commit {}\n{}\nrepeat and shrink: {repeat} --seed {}\nor, from the plan that was drawn: --plan {}",
                findings.commit(),
                lines.join("\n"),
                first.seed,
                kept.display()
            ))
        }
    };
    Ok(Ending { findings, violation })
}

fn table(campaign: &Campaign) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, figure: String| lines.push((name.to_owned(), vec![figure]));
    let sum = |figure: fn(&Row) -> u64| campaign.rows.iter().map(figure).sum::<u64>().to_string();
    line("seeds", campaign.seeds.clone());
    line("  run", campaign.rows.len().to_string());
    line("  failing", campaign.failing.to_string());
    line("nodes", campaign.nodes.to_string());
    line("virtual minutes in trouble", format!("{:.1}", campaign.minutes_in_trouble));
    line("virtual minutes of calm", format!("{:.1}", campaign.minutes_of_calm));
    line("seconds", format!("{:.0}", campaign.seconds));
    line("faults", sum(|row| row.faults as u64));
    line("events", sum(|row| row.events));
    line("lookups", sum(|row| row.lookups));
    line("  right", sum(|row| row.right));
    line("  wrong", sum(|row| row.wrong));
    line("  unanswered", sum(|row| row.unanswered));
    line("  astray: past a node new there, or cut off", sum(|row| row.astray));
    line("  answered by nobody", sum(|row| row.lost));
    line("  the same, parted", sum(|row| row.lost_parted));
    line("  abandoned: the asker fell", sum(|row| row.abandoned));
    line("reads", sum(|row| row.reads));
    line("  that failed", sum(|row| row.reads_failed));
    line("objects whose disks were all wiped", sum(|row| row.destroyed));
    columns(&lines)
}
