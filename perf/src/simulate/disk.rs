//! The crash campaigns on a simulated disk, on all cores: each seed of each campaign is a run of its own.
//!
//! A thread per core takes the next run from one counter; runs are independent and single-threaded, so what a seed does
//! has nothing to do with how many cores there are. The first violation (or panic, which is one too) stops everything.

use super::{Ending, attend};
use crate::load::LoadError;
use crate::report::{Findings, Watch};
use engine::simulate::{Activity, CAMPAIGNS, Campaign, Coverage, run};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The seeds `A..B`, B not among them.
pub(crate) fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("seeds are given as A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let seeds = number(first)?..number(end)?;
    if seeds.is_empty() { Err("no seed in this range".to_owned()) } else { Ok(seeds) }
}

/// The campaigns of these names; all of them if none is named.
pub(crate) fn campaigns(names: &[String]) -> Result<Vec<Campaign>, LoadError> {
    let known = || CAMPAIGNS.map(|campaign| campaign.name).join(", ");
    if names.is_empty() {
        return Ok(CAMPAIGNS.to_vec());
    }
    let find = |name: &String| {
        let found = CAMPAIGNS.into_iter().find(|campaign| campaign.name == name);
        found.ok_or_else(|| LoadError::Unexpected {
            expected: "the name of a campaign",
            got: format!("{name} ({})", known()),
        })
    };
    names.iter().map(find).collect()
}

/// What one campaign covered.
#[derive(Clone, Debug, Serialize)]
struct Row {
    campaign: &'static str,
    runs: u64,
    crash_points: u64,
    power_cuts: u64,
    kills: u64,
    fell_in: Vec<(&'static str, u64)>,
    at_rest: u64,
    openings_checked: u64,
    acknowledged: u64,
    expired: u64,
    cleaned: u64,
    checkpoints: u64,
    segments_freed: u64,
    bytes_punched: u64,
    arcs_split: u64,
    runs_written: u64,
    runs_merged: u64,
    false_matches: u64,
    refused: u64,
    damage_noticed: u64,
    device_errors: u64,
    violations: u64,
}

#[derive(Serialize)]
struct Figures {
    seeds: String,
    seconds: f64,
    interrupted: bool,
    campaigns: Vec<Row>,
    total: Row,
}

/// What all threads share.
struct Work<'a> {
    seeds: Range<u64>,
    campaigns: &'a [Campaign],
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    covered: Mutex<Vec<(u64, Coverage)>>,
    violation: Mutex<Option<(usize, u64, String)>>,
}

impl Work<'_> {
    fn runs(&self) -> u64 {
        (self.seeds.end - self.seeds.start) * self.campaigns.len() as u64
    }

    /// Takes runs until there are no more.
    fn labour(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.runs() {
                return;
            }
            let which = (number % self.campaigns.len() as u64) as usize;
            let seed = self.seeds.start + number / self.campaigns.len() as u64;
            let plan = self.campaigns[which].plan;
            let outcome = catch_unwind(|| run(seed, plan)).unwrap_or_else(|panic| Err(said(panic.as_ref())));
            match outcome {
                Ok(coverage) => {
                    let mut covered = self.covered.lock().expect("no thread panics with it");
                    covered[which].0 += 1;
                    covered[which].1.add(&coverage);
                }
                Err(violation) => {
                    self.stop.store(true, Ordering::Relaxed);
                    let mut first = self.violation.lock().expect("no thread panics with it");
                    first.get_or_insert((which, seed, violation));
                }
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a text"))
}

/// Runs every campaign for every seed. The command line that repeats a violation is in it.
pub(crate) fn simulate(seeds: Range<u64>, campaigns: &[Campaign]) -> Result<Ending, LoadError> {
    let work = Work {
        seeds: seeds.clone(),
        campaigns,
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        covered: Mutex::new(vec![(0, Coverage::default()); campaigns.len()]),
        violation: Mutex::new(None),
    };
    let (watch, start) = (Watch::start(), Instant::now());
    let progress = ProgressBar::new(work.runs());
    progress.set_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len} runs, {msg} crash points, {eta} left")
            .expect("a template"),
    );
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let interrupted = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(|| work.labour())).collect();
        attend(&work.stop, || {
            progress.set_position(work.done.load(Ordering::Relaxed));
            let covered = work.covered.lock().expect("no thread panics with it");
            progress.set_message(covered.iter().map(|(_, coverage)| coverage.crash_points).sum::<u64>().to_string());
            workers.iter().all(|worker| worker.is_finished())
        })
    })?;
    progress.finish_and_clear();
    let violation = work.violation.into_inner().expect("no thread panics with it");
    let covered = work.covered.into_inner().expect("no thread panics with it");
    let guilty = |which: usize| u64::from(violation.as_ref().is_some_and(|(found, _, _)| *found == which));
    let rows: Vec<Row> = campaigns
        .iter()
        .zip(&covered)
        .enumerate()
        .map(|(which, (campaign, (runs, coverage)))| row(campaign.name, *runs, coverage, guilty(which)))
        .collect();
    let mut sum = Coverage::default();
    covered.iter().for_each(|(_, coverage)| sum.add(coverage));
    let total = row("all", covered.iter().map(|(runs, _)| runs).sum(), &sum, u64::from(violation.is_some()));
    let seconds = start.elapsed().as_secs_f64();
    let text = table(&rows, &total);
    let figures =
        Figures { seeds: format!("{}..{}", seeds.start, seeds.end), seconds, interrupted, campaigns: rows, total };
    let mut findings = Findings::new("simulate disk", Path::new("."), &watch, &figures, text)?;
    findings.note(format!("seeds {}, {seconds:.0} s on {cores} threads", figures.seeds));
    if interrupted {
        findings.note("interrupted: what is counted was covered, the rest was not run");
    }
    let violation = violation.map(|(which, seed, violation)| {
        let name = campaigns[which].name;
        format!(
            "campaign {name}, commit {}: {violation}\nrepeat: cargo run --release -p perf -- simulate disk --campaign {name} --seeds {seed}..{}",
            findings.commit(),
            seed + 1
        )
    });
    Ok(Ending { findings, violation })
}

fn row(campaign: &'static str, runs: u64, covered: &Coverage, violations: u64) -> Row {
    Row {
        campaign,
        runs,
        crash_points: covered.crash_points,
        power_cuts: covered.cuts,
        kills: covered.kills,
        fell_in: Activity::ALL.map(|activity| (activity.name(), covered.fell_in(activity))).to_vec(),
        at_rest: covered.at_rest,
        openings_checked: covered.openings_checked,
        acknowledged: covered.acknowledged,
        expired: covered.expired,
        cleaned: covered.cleaned,
        checkpoints: covered.checkpoints,
        segments_freed: covered.segments_freed,
        bytes_punched: covered.punched_bytes,
        arcs_split: covered.splits,
        runs_written: covered.runs_written,
        runs_merged: covered.runs_merged,
        false_matches: covered.false_matches,
        refused: covered.refused,
        damage_noticed: covered.corrupt,
        device_errors: covered.failed,
        violations,
    }
}

/// One column a campaign: there are more counts than campaigns.
fn table(rows: &[Row], total: &Row) -> String {
    let columns: Vec<&Row> = rows.iter().chain((rows.len() > 1).then_some(total)).collect();
    let mut lines = vec![("".to_owned(), columns.iter().map(|row| row.campaign.to_owned()).collect::<Vec<_>>())];
    let mut line = |name: &str, figure: &dyn Fn(&Row) -> u64| {
        lines.push((name.to_owned(), columns.iter().map(|row| figure(row).to_string()).collect()));
    };
    line("runs", &|row| row.runs);
    line("crash points", &|row| row.crash_points);
    line("  by power cut", &|row| row.power_cuts);
    line("  by kill", &|row| row.kills);
    for (nth, activity) in Activity::ALL.into_iter().enumerate() {
        line(&format!("  while in {}", activity.name()), &|row| row.fell_in[nth].1);
    }
    line("  at rest", &|row| row.at_rest);
    line("openings checked", &|row| row.openings_checked);
    line("changes acknowledged", &|row| row.acknowledged);
    line("objects expired", &|row| row.expired);
    line("records cleaned", &|row| row.cleaned);
    line("checkpoints", &|row| row.checkpoints);
    line("segments freed", &|row| row.segments_freed);
    line("bytes punched", &|row| row.bytes_punched);
    line("arcs split", &|row| row.arcs_split);
    line("runs written", &|row| row.runs_written);
    line("runs merged", &|row| row.runs_merged);
    line("records of strangers", &|row| row.false_matches);
    line("changes refused", &|row| row.refused);
    line("damage noticed", &|row| row.damage_noticed);
    line("device errors answered", &|row| row.device_errors);
    line("violations", &|row| row.violations);
    crate::report::columns(&lines)
}

#[cfg(test)]
mod tests {
    //! Goal: the command covers what it says. Method: a few seeds of every campaign, and ranges as people type them.

    use super::*;

    #[test]
    fn seeds_are_a_range_with_something_in_it() {
        assert_eq!(seeds("3..7"), Ok(3..7));
        for wrong in ["", "3", "7..3", "3..3", "a..b", "-1..4"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_campaign_runs_and_finds_nothing() {
        let ending = simulate(1..3, &CAMPAIGNS).unwrap();
        assert_eq!(ending.violation, None);
        assert!(campaigns(&["nonsense".to_owned()]).is_err());
    }
}
