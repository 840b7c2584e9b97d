//! A ring of the overlay's shipped machines in virtual time: what a node's upkeep costs, how far a lookup travels, and
//! whether it ends at the right node.
//!
//! The nodes start within [`FOUNDING`], settle, and are then watched for the time asked for. Meanwhile lookups are issued at
//! a steady rate, each at a random node for a random key; its answer is compared with the nearest of all live ids, sorted,
//! which no node has seen. The same seed gives the same run, by its trace hash. Everything measured counts from the moment
//! the ring has settled; only processor time is the machine's, everything else virtual.

use super::{Ending, attend};
use crate::load::LoadError;
use crate::report::{Findings, Watch, columns};
use indicatif::{ProgressBar, ProgressStyle};
use net::id::Id;
use net::limits::{MILLISECOND, SECOND};
use net::machine::{Command, Micros, Reply, RequestId};
use net::overlay::Overlay;
use net::ring::Parameters;
use net::sim::{Dice, Founding, NodeIndex, Weather, World};
use serde::Serialize;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The nodes start one after the other within this: so soon that each is there before its neighbours give it up.
const FOUNDING: Micros = 2 * SECOND;
/// From the first start until the ring has settled.
const SETTLING: Micros = 60 * SECOND;
/// By then a lookup has been answered, or never will be.
const PATIENCE: Micros = 15 * SECOND;
/// Types of the messages that lookups cause: [`net::wire::Body`]'s Route, HopAck and Located.
const LOOKUP_TYPES: [u8; 3] = [7, 8, 9];

/// What is to be run.
#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Nodes of the ring.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    nodes: u32,
    /// Virtual hours after the ring has settled; a fraction will do.
    #[arg(long, default_value_t = 1.0, value_parser = hours)]
    hours: f64,
    /// Decides everything that happens.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lookups a node and virtual hour.
    #[arg(long, default_value_t = 36.0, value_parser = hours)]
    lookups: f64,
}

fn hours(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hours) if (0.0..=10_000.0).contains(&hours) => Ok(hours),
        Ok(_) => Err("between 0 and 10000".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    nodes: u32,
    virtual_hours: f64,
    seed: u64,
    interrupted: bool,
    founding_seconds: f64,
    seconds: f64,
    events: u64,
    messages: u64,
    events_per_second: f64,
    control_per_node_second: f64,
    lookups: u64,
    right: u64,
    wrong: u64,
    unanswered: u64,
    hops_mean: f64,
    hops_by_logarithm: f64,
    hops_most: u8,
    delay_stretch: f64,
    resident_bytes_most: Option<u64>,
    trace: String,
}

/// A lookup that has not been judged.
struct Asked {
    at: Micros,
    node: NodeIndex,
    request: RequestId,
    target: Id,
}

/// What became of the lookups.
#[derive(Default)]
struct Lookups {
    waiting: VecDeque<Asked>,
    issued: u64,
    right: u64,
    wrong: u64,
    unanswered: u64,
    hops: u64,
    hops_most: u8,
    /// Time on the way to the root, and the time the straight way takes, summed over lookups that left their node.
    travelled: Micros,
    straight: Micros,
}

impl Lookups {
    fn issue(&mut self, world: &mut World<Overlay>, dice: &mut Dice) {
        let (node, target) = (dice.below(world.nodes().len()), dice.id());
        let request = world.command(node, Command::Locate { target });
        self.waiting.push_back(Asked { at: world.now(), node, request, target });
        self.issued += 1;
    }

    /// Judges those that have had their time; `live` is sorted.
    fn judge(&mut self, world: &mut World<Overlay>, live: &[Id], patience: Micros) {
        while self.waiting.front().is_some_and(|asked| asked.at + patience <= world.now()) {
            let Some(asked) = self.waiting.pop_front() else { return };
            let replied = world.replied_at(asked.node, asked.request);
            match (world.take_reply(asked.node, asked.request), replied) {
                (Some(Reply::Located { root, hops }), Some(at)) if root == nearest(live, asked.target) => {
                    self.right += 1;
                    self.hops += u64::from(hops);
                    self.hops_most = self.hops_most.max(hops);
                    let root = world.index(root).filter(|root| *root != asked.node);
                    if let Some(straight) = root.map(|root| world.latency(asked.node, root)) {
                        self.travelled += (at - asked.at).saturating_sub(straight); // The answer comes straight.
                        self.straight += straight;
                    }
                }
                (Some(Reply::Located { .. }), _) => self.wrong += 1,
                _ => self.unanswered += 1,
            }
        }
    }
}

/// The live id nearest to `key`, by brute force over those that can be it: its neighbours in sorted order.
fn nearest(live: &[Id], key: Id) -> Id {
    let at = live.partition_point(|id| *id < key);
    let around = [live[at % live.len()], live[(at + live.len() - 1) % live.len()]];
    around.into_iter().min_by_key(|id| (id.distance(key), *id)).unwrap_or(key)
}

/// What the simulating thread tells the one that shows the progress.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    virtual_seconds: AtomicU64,
    events: AtomicU64,
}

/// Runs the plan.
pub(crate) fn simulate(plan: &Plan) -> Result<Ending, LoadError> {
    let (watch, progress) = (Watch::start(), Progress::default());
    let bar = ProgressBar::new((SETTLING + duration(plan)) / SECOND);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} virtual seconds, {msg} events, {eta} left");
    bar.set_style(style.expect("a template"));
    let mut figures = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(plan, &progress));
        attend(&progress.stop, || {
            bar.set_position(progress.virtual_seconds.load(Ordering::Relaxed));
            bar.set_message(progress.events.load(Ordering::Relaxed).to_string());
            running.is_finished()
        })?;
        running.join().map_err(|_| LoadError::Unexpected { expected: "a run", got: "a panic, above".to_owned() })
    })?;
    bar.finish_and_clear();
    figures.resident_bytes_most = resident_bytes_most();
    let mut findings = Findings::new("simulate overlay", Path::new("."), &watch, &figures, table(&figures))?;
    if figures.interrupted {
        findings.note("interrupted: the figures are of the time that was run");
    }
    let violation = (figures.wrong + figures.unanswered > 0).then(|| {
        format!(
            "{} lookups ended at a wrong node and {} nowhere, commit {}\nrepeat: cargo run --release -p perf -- simulate overlay --nodes {} --hours {} --seed {} --lookups {}",
            figures.wrong, figures.unanswered, findings.commit(), plan.nodes, plan.hours, plan.seed, plan.lookups
        )
    });
    Ok(Ending { findings, violation })
}

fn duration(plan: &Plan) -> Micros {
    (plan.hours * 3_600.0) as u64 * SECOND
}

fn run(plan: &Plan, progress: &Progress) -> Figures {
    let begun = Instant::now();
    let mut world = founded(plan, progress);
    let founding_seconds = begun.elapsed().as_secs_f64();
    let mut live = world.live_ids();
    live.sort();
    let (mut dice, mut lookups) = (Dice::new(plan.seed ^ 0x100c), Lookups::default());
    let (start, begun) = (world.now(), Instant::now());
    let (events, messages, caused) = (world.events(), world.messages(), by_lookups(&world));
    let per_second = plan.lookups * f64::from(plan.nodes) / 3_600.0;
    for second in 1..=duration(plan) / SECOND {
        if progress.stop.load(Ordering::Relaxed) {
            break;
        }
        let due = (second as f64 * per_second) as u64 - lookups.issued;
        for _ in 0..due {
            lookups.issue(&mut world, &mut dice);
            world.run_for(SECOND / due);
        }
        let rest = (start + second * SECOND).saturating_sub(world.now());
        world.run_for(rest);
        lookups.judge(&mut world, &live, PATIENCE);
        show(&world, progress);
    }
    let (seconds, passed) = (begun.elapsed().as_secs_f64(), world.now() - start);
    let (events, messages) = (world.events() - events, world.messages() - messages);
    let control = messages - (by_lookups(&world) - caused);
    world.run_for(PATIENCE); // For the last lookups.
    lookups.judge(&mut world, &live, PATIENCE);
    let per_right = |sum: u64| sum as f64 / lookups.right.max(1) as f64;
    Figures {
        nodes: plan.nodes,
        virtual_hours: passed as f64 / (3_600 * SECOND) as f64,
        seed: plan.seed,
        interrupted: progress.stop.load(Ordering::Relaxed),
        founding_seconds,
        seconds,
        events,
        messages,
        events_per_second: events as f64 / seconds,
        control_per_node_second: control as f64 / f64::from(plan.nodes) / (passed.max(1) as f64 / SECOND as f64),
        lookups: lookups.issued,
        right: lookups.right,
        wrong: lookups.wrong,
        unanswered: lookups.unanswered,
        hops_mean: per_right(lookups.hops),
        hops_by_logarithm: per_right(lookups.hops) / (f64::from(plan.nodes.max(2)).log2() / 4.0),
        hops_most: lookups.hops_most,
        delay_stretch: lookups.travelled as f64 / lookups.straight.max(1) as f64,
        resident_bytes_most: None,
        trace: format!("{:016x}", world.trace()),
    }
}

/// A ring whose nodes have all started and settled.
fn founded(plan: &Plan, progress: &Progress) -> World<Overlay> {
    let founding = Founding::new(plan.seed, plan.nodes as usize, Parameters::DEFAULT);
    let mut world = World::new(plan.seed, Weather::FAIR, founding.trust(), founding.ring.parameters.grace_s);
    let end = world.now() + SETTLING;
    let ids = founding.ids();
    // In the order of the document, which is not that of the ring; some at a time.
    let batch = ids.len().div_ceil((FOUNDING / MILLISECOND) as usize);
    for ids in ids.chunks(batch) {
        for id in ids {
            let node = world.add(*id);
            world.start(node, founding.overlay(*id, plan.seed, Vec::new()));
        }
        world.run_for(MILLISECOND);
    }
    while world.now() < end && !progress.stop.load(Ordering::Relaxed) {
        world.run_for(SECOND.min(end - world.now()));
        show(&world, progress);
    }
    world
}

fn show(world: &World<Overlay>, progress: &Progress) {
    progress.virtual_seconds.store((world.now() - World::<Overlay>::GENESIS) / SECOND, Ordering::Relaxed);
    progress.events.store(world.events(), Ordering::Relaxed);
}

fn by_lookups(world: &World<Overlay>) -> u64 {
    LOOKUP_TYPES.into_iter().map(|number| world.messages_of(number)).sum()
}

/// The most memory this process ever had, as the kernel says.
fn resident_bytes_most() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn table(figures: &Figures) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, figure: String| lines.push((name.to_owned(), vec![figure]));
    line("nodes", figures.nodes.to_string());
    line("virtual hours", format!("{:.2}", figures.virtual_hours));
    line("seconds to found the ring", format!("{:.1}", figures.founding_seconds));
    line("seconds", format!("{:.1}", figures.seconds));
    line("events", figures.events.to_string());
    line("messages", figures.messages.to_string());
    line("events/s", format!("{:.0}", figures.events_per_second));
    line("control messages a node and second", format!("{:.3}", figures.control_per_node_second));
    line("lookups", figures.lookups.to_string());
    line("  right", figures.right.to_string());
    line("  wrong", figures.wrong.to_string());
    line("  unanswered", figures.unanswered.to_string());
    line("hops, mean", format!("{:.3}", figures.hops_mean));
    line("  by log16 of the nodes", format!("{:.3}", figures.hops_by_logarithm));
    line("  most", figures.hops_most.to_string());
    line("delay stretch", format!("{:.2}", figures.delay_stretch));
    if let Some(bytes) = figures.resident_bytes_most {
        line("memory at most, MB", (bytes / 1_000_000).to_string());
    }
    line("trace", figures.trace.clone());
    columns(&lines)
}

#[cfg(test)]
mod tests {
    //! Goal: the command runs a ring whose lookups are right, and the same ring for the same seed. Method: a small ring for a
    //! few minutes, twice; the nearest id against a scan of all.

    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan { nodes: 60, hours: 0.1, seed, lookups: 60.0 }
    }

    #[test]
    fn lookups_are_right_and_the_run_repeats() {
        let first = run(&plan(3), &Progress::default());
        assert_eq!((first.lookups, first.wrong, first.unanswered), (360, 0, 0));
        assert!(first.delay_stretch >= 1.0);
        assert_eq!(first.trace, run(&plan(3), &Progress::default()).trace);
        assert_ne!(first.trace, run(&plan(4), &Progress::default()).trace);
    }

    #[test]
    fn the_nearest_of_sorted_ids_is_the_nearest_of_all() {
        let mut dice = Dice::new(5);
        for count in 1..40 {
            let mut live: Vec<Id> = (0..count).map(|_| dice.id()).collect();
            live.sort();
            let key = dice.id();
            assert_eq!(Some(nearest(&live, key)), net::sim::live_root(&live, key));
        }
    }
}
