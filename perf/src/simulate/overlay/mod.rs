//! A ring of the overlay's shipped machines in virtual time: what it costs, how far a lookup travels, and whether it keeps its
//! promises while things go wrong.
//!
//! What is run is a trial (`net::sim::trial`): nodes start, settle, follow a plan of faults, and are asked at a steady rate
//! all the while; what they answer and what is on their disks is judged from outside. The same seed gives the same run, by its trace
//! hash. Everything measured counts from the moment the ring has settled; only processor time is the machine's, everything
//! else virtual. Five ways to use it:
//!
//! - one trial, with the faults that the command line describes or a file holds ([`hazards`], [`mod@file`]), and pictures of it
//!   ([`plots`]); if it fails, its plan is made smaller ([`shrunk`]) and printed;
//! - the same at several sizes, side by side (`--sizes`);
//! - many seeds, each with trouble of its own ([`campaign`]);
//! - few hosts with frames, certificates and QUIC's own state machine between them ([`quic`]).

mod campaign;
mod figures;
mod file;
mod hazards;
mod plots;
mod quic;
mod shrunk;

use super::{Ending, attend};
use crate::load::LoadError;
use crate::report::{Findings, Watch};
use figures::{Figures, Took, resident_bytes_most};
use indicatif::{ProgressBar, ProgressStyle};
use net::limits::SECOND;
use net::machine::Micros;
use net::sim::faults::draw;
use net::sim::trial::{Outcome, Stage, Trial};
use serde::Serialize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// By the end of this, what has gone wrong is right again (C09, C15), and it was seen.
const CALM: Micros = 17 * 60 * SECOND;
/// Objects inserted when something is to go wrong and nobody says how many: this many for a thousand nodes.
const OBJECTS_A_THOUSAND: u32 = 100;

/// What is to be run.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Plan {
    /// Nodes of the ring.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    nodes: u32,
    /// What lies between the machines: messages as they are, or frames in packets of QUIC's own state machine (at most 50 nodes;
    /// of the faults, loss, duplication and one partition).
    #[arg(long, value_enum, default_value = "messages", conflicts_with_all = ["sizes", "seeds", "plan", "keep", "plots", "drawn"])]
    transport: Between,
    /// Several sizes instead, one after the other, side by side: 256,1000,4000.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with_all = ["seeds", "plan"])]
    sizes: Vec<u32>,
    /// Virtual hours after the ring has settled; a fraction will do.
    #[arg(long, default_value_t = 1.0, value_parser = hours)]
    hours: f64,
    /// The same in minutes.
    #[arg(long, value_parser = hours, conflicts_with = "hours")]
    minutes: Option<f64>,
    /// Decides everything that happens.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Many seeds A..B instead, B not among them, each with churn, loss, partitions and more as it draws them, unless faults are
    /// described here.
    #[arg(long, value_parser = super::disk::seeds, conflicts_with = "plan")]
    seeds: Option<Range<u64>>,
    /// With the faults that a campaign draws for this seed.
    #[arg(long)]
    drawn: bool,
    /// Lookups a node and virtual hour.
    #[arg(long, default_value_t = 36.0, value_parser = hours)]
    lookups: f64,
    /// Objects inserted before, and read all the while; none if nothing goes wrong and nothing is said.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    objects: Option<u32>,
    /// How long the ring is left alone afterwards, to come right again: 17min if anything goes wrong.
    #[arg(long, value_parser = hazards::spell)]
    calm: Option<Micros>,
    #[command(flatten)]
    said: hazards::Said,
    /// A trial kept as JSON, instead of all of the above.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Write the trial as JSON, with the plan that was drawn, and run it.
    #[arg(long, conflicts_with = "seeds")]
    keep: Option<PathBuf>,
    /// Write a picture of hops, delay stretch, traffic and replicas into this folder.
    #[arg(long, conflicts_with = "seeds")]
    plots: Option<PathBuf>,
    /// Runs that making a failing plan smaller may take.
    #[arg(long, default_value_t = 200)]
    tries: usize,
}

fn hours(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hours) if (0.0..=10_000.0).contains(&hours) => Ok(hours),
        Ok(_) => Err("between 0 and 10000".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What lies between the machines.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// Messages are handed from machine to machine.
    Messages,
    /// Frames travel in packets of QUIC.
    Quic,
}

impl Plan {
    /// The trial of the second level.
    fn second_level(&self) -> Result<quic::Trial, LoadError> {
        let hosts = u8::try_from(self.nodes).ok().filter(|_| self.nodes <= quic::HOSTS_MAX);
        let hosts = hosts.ok_or_else(|| LoadError::Unexpected {
            expected: "at most 50 nodes with --transport quic, for each pair has connections of its own",
            got: format!("--nodes {}", self.nodes),
        })?;
        let (loss_ppm, duplicates_ppm, is_cut) = self.said.of_packets().ok_or_else(|| LoadError::Unexpected {
            expected: "of the faults only loss, duplication and at most one partition with --transport quic",
            got: "others".to_owned(),
        })?;
        let objects = self.objects.unwrap_or(30).max(1);
        Ok(quic::Trial { seed: self.seed, hosts, lasting: self.lasting(), objects, loss_ppm, duplicates_ppm, is_cut })
    }

    fn lasting(&self) -> Micros {
        (self.minutes.map_or(self.hours * 3_600.0, |minutes| minutes * 60.0)) as u64 * SECOND
    }

    /// The trial of this size and seed; `is_drawn` if its faults are a campaign's.
    fn trial(&self, nodes: u32, seed: u64, is_drawn: bool) -> Trial {
        let hazards = self.said.hazards().or_else(|| is_drawn.then(|| hazards::drawn(seed)));
        let (lasting, is_quiet) = (self.lasting(), hazards.is_none());
        let usual = if is_quiet { 0 } else { (nodes * OBJECTS_A_THOUSAND / 1_000).clamp(10, 1_000) };
        Trial {
            seed,
            nodes,
            lasting,
            calm: self.calm.unwrap_or(if is_quiet { 0 } else { CALM }),
            lookups: self.lookups,
            objects: self.objects.unwrap_or(usual),
            plan: hazards.map(|hazards| draw(seed, nodes, lasting, &hazards)).unwrap_or_default(),
        }
    }
}

/// What the simulating thread tells the one that shows the progress.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    virtual_seconds: AtomicU64,
    events: AtomicU64,
}

impl Progress {
    /// What a trial is to be told, and is asked to stop by.
    fn show(&self, stage: Stage) -> bool {
        self.virtual_seconds.store(stage.passed / SECOND, Ordering::Relaxed);
        self.events.store(stage.events, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }
}

#[derive(Serialize)]
struct Sizes {
    trials: Vec<Figures>,
}

/// Runs the plan.
pub(crate) fn simulate(plan: &Plan) -> Result<Ending, LoadError> {
    if plan.transport == Between::Quic {
        return quic::simulate(&plan.second_level()?, &format!("{} --seed {}", repeat(plan), plan.seed));
    }
    if let Some(seeds) = &plan.seeds {
        let trial = |seed| plan.trial(plan.nodes, seed, true);
        return campaign::simulate(seeds, trial, &format!("{} --drawn", repeat(plan)));
    }
    if !plan.sizes.is_empty() {
        return several(plan);
    }
    let trial = match &plan.plan {
        Some(file) => file::read(file)?,
        None => plan.trial(plan.nodes, plan.seed, plan.drawn),
    };
    if let Some(file) = &plan.keep {
        std::fs::write(file, file::write(&trial)?)?;
    }
    let watch = Watch::start();
    let (outcome, figures) = one(&trial)?;
    let table = figures::table(std::slice::from_ref(&figures));
    let mut findings = Findings::new("simulate overlay", Path::new("."), &watch, &figures, table)?;
    if figures.interrupted {
        findings.note("interrupted: the figures are of the time that was run");
    }
    if let Some(folder) = &plan.plots {
        let file = plots::write(folder, &figures, findings.commit())?;
        eprintln!("drawn in {}", file.display());
    }
    let violation = match &figures.violation {
        None => None,
        Some(what) => {
            let least = shrunk::shrunk(&trial, &outcome, plan.tries)?;
            let place = plan.plan.as_ref().map(|file| format!("--plan {}", file.display()));
            let again = place
                .map_or_else(|| format!("{} --seed {}", repeat(plan), plan.seed), |place| format!("{COMMAND} {place}"));
            Some(format!("seed {}, commit {}, {what}\nrepeat: {again}\n{least}", trial.seed, findings.commit()))
        }
    };
    Ok(Ending { findings, violation })
}

const COMMAND: &str = "cargo run --release -p perf -- simulate overlay";

/// The command line as it was given, but for what names seeds and files.
fn repeat(plan: &Plan) -> String {
    let mut words = std::env::args().skip_while(|word| word != "overlay").skip(1);
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" | "--seeds" | "--plots" | "--keep" | "--note" => drop(words.next()),
            "--json" | "--record" => {}
            _ if ["--seed=", "--seeds=", "--plots=", "--keep=", "--note="]
                .iter()
                .any(|start| word.starts_with(start)) => {}
            _ => kept.push(word),
        }
    }
    if kept.is_empty() { format!("{COMMAND} --nodes {}", plan.nodes) } else { format!("{COMMAND} {}", kept.join(" ")) }
}

/// The same at several sizes.
fn several(plan: &Plan) -> Result<Ending, LoadError> {
    let (watch, mut trials) = (Watch::start(), Vec::new());
    for nodes in &plan.sizes {
        let (_, figures) = one(&plan.trial(*nodes, plan.seed, plan.drawn))?;
        let is_over = figures.interrupted || figures.violation.is_some();
        trials.push(figures);
        if is_over {
            break;
        }
    }
    let table = figures::table(&trials);
    let sizes = Sizes { trials };
    let mut findings = Findings::new("simulate overlay sizes", Path::new("."), &watch, &sizes, table)?;
    findings.note("one process after the other sizes: its memory at most is that of the largest so far");
    let failed = sizes.trials.iter().find_map(|it| it.violation.as_ref().map(|what| (it.nodes, what)));
    let violation =
        failed.map(|(nodes, what)| format!("{nodes} nodes, seed {}, commit {}, {what}", plan.seed, findings.commit()));
    Ok(Ending { findings, violation })
}

/// One trial, with a bar that shows how far it is.
fn one(trial: &Trial) -> Result<(Outcome, Figures), LoadError> {
    let progress = Progress::default();
    let bar = ProgressBar::new(trial.duration() / SECOND);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} virtual seconds, {msg} events, {eta} left");
    bar.set_style(style.expect("a template"));
    let (outcome, took) = std::thread::scope(|scope| {
        let running = scope.spawn(|| timed(trial, &progress));
        attend(&progress.stop, || {
            bar.set_position(progress.virtual_seconds.load(Ordering::Relaxed));
            bar.set_message(progress.events.load(Ordering::Relaxed).to_string());
            running.is_finished()
        })?;
        running.join().map_err(|_| LoadError::Unexpected { expected: "a run", got: "a panic, above".to_owned() })
    })?;
    bar.finish_and_clear();
    let mut figures = Figures::new(trial, &outcome, took);
    figures.resident_bytes_most = resident_bytes_most();
    Ok((outcome, figures))
}

fn timed(trial: &Trial, progress: &Progress) -> (Outcome, Took) {
    let (begun, mut founded) = (Instant::now(), None);
    let outcome = trial.run(|stage| {
        if stage.is_founding {
            founded = Some(begun.elapsed());
        }
        progress.show(stage)
    });
    (outcome, Took { founding: founded.unwrap_or_default(), whole: begun.elapsed() })
}

#[cfg(test)]
mod tests {
    //! Goal: the command runs a ring whose lookups are right, the same ring for the same seed, and campaigns that say which
    //! seed failed. Method: a small ring for a few minutes, twice; a few seeds in trouble, one of them with a trial that
    //! cannot go well.

    use super::*;
    use net::sim::faults::{FaultKind, PlannedFault};

    fn trial(seed: u64) -> Trial {
        Trial { seed, nodes: 60, lasting: 360 * SECOND, calm: 0, lookups: 60.0, objects: 0, plan: Vec::new() }
    }

    #[test]
    fn lookups_are_right_and_the_run_repeats() {
        let run = |seed| trial(seed).run(|_| true).figures;
        let first = run(3);
        assert_eq!((first.lookups, first.right, first.wrong, first.unanswered), (360, 360, 0, 0));
        assert!(first.travelled >= first.straight);
        assert_eq!(first.trace, run(3).trace);
        assert_ne!(first.trace, run(4).trace);
    }

    #[test]
    fn a_campaign_runs_every_seed_and_names_those_that_fail() {
        let all_lost = PlannedFault { at: 0, lasting: None, kind: FaultKind::Loss { millionths: 1_000_000 } };
        let of_seed = |seed| Trial { plan: if seed == 3 { vec![all_lost.clone()] } else { vec![] }, ..trial(seed) };
        let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let rows = campaign::run(&(1..5), &of_seed, &done, &stop);
        assert_eq!(rows.iter().map(|row| row.seed).collect::<Vec<u64>>(), [1, 2, 3, 4]);
        assert_eq!(rows.iter().map(|row| row.violation.is_some()).collect::<Vec<bool>>(), [false, false, true, false]);
        assert_eq!(done.into_inner(), 4);
    }
}
