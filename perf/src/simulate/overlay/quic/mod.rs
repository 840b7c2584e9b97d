//! The second level: at most fifty hosts with the frames, the certificates and QUIC's own state machine between them that ship,
//! over a network that loses, doubles and overtakes packets and is cut in two for a while.
//!
//! The first level (`net::sim`) hands messages from machine to machine, and goes to ten thousand nodes. This one
//! is for what lies between: handshakes, greetings, streams that block, connections that are lost and dialled anew. A ring
//! is founded, blocks are stored, small and large, and read all the while; a minute of the time, a third of the hosts
//! are cut off from the others. Promised: the ring comes together; every block is stored; a read that is answered is right; once the
//! cut has healed, every block is found by everybody asked. Not here: bandwidth, and what kernels do to packets.

mod host;
mod world;

use super::{Progress, attend};
use crate::load::LoadError;
use crate::report::{Findings, Watch, columns};
use crate::simulate::Ending;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use net::id::{Key, Kind};
use net::limits::{MILLISECOND, SECOND};
use net::machine::{Command, Micros, Reply};
use net::sim::trial::Stage;
use net::sim::{Dice, Weather};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use world::{GENESIS, World};

/// Hosts at most: each pair has connections of its own.
pub(super) const HOSTS_MAX: u32 = 50;
/// By then a ring has come together.
const FOUNDING: Micros = 120 * SECOND;
/// A third of the hosts is cut off for so long, or half of the time if that is shorter.
const CUT: Micros = 60 * SECOND;
/// What a cut has broken is whole again so long after it.
const CALM: Micros = 120 * SECOND;
/// The longest that a machine takes to reply.
const ANSWERED: Micros = 60 * SECOND;
/// Sizes of the blocks, in turn: a packet, several, and bulk.
const SIZES: [usize; 3] = [700, 20_000, 150_000];

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) seed: u64,
    pub(super) hosts: u8,
    pub(super) lasting: Micros,
    pub(super) objects: u32,
    /// Of a million packets.
    pub(super) loss_ppm: u32,
    pub(super) duplicates_ppm: u32,
    pub(super) is_cut: bool,
}

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    hosts: u8,
    seed: u64,
    virtual_seconds: u64,
    seconds: f64,
    interrupted: bool,
    events: u64,
    packets: u64,
    packet_bytes: u64,
    packets_lost: u64,
    packets_doubled: u64,
    packets_cut: u64,
    frames: u64,
    datagrams: u64,
    frames_dropped: u64,
    dials: u64,
    connections_lost: u64,
    stored: usize,
    reads: u64,
    reads_right: u64,
    trace: String,
}

impl Trial {
    fn duration(&self) -> Micros {
        FOUNDING + self.lasting + CALM + 2 * ANSWERED
    }

    /// Runs it; `attend` is told how far it is, and says whether to go on.
    pub(super) fn run(&self, mut attend: impl FnMut(Stage) -> bool) -> Result<(Figures, Option<String>), LoadError> {
        let begun = Instant::now();
        let weather = Weather {
            jitter: 10 * MILLISECOND,
            loss_ppm: self.loss_ppm,
            duplicates_ppm: self.duplicates_ppm,
            ..Weather::FAIR
        };
        let world = World::new(self.seed, self.hosts, weather)?;
        let mut run = Run { trial: *self, world, dice: Dice::new(!self.seed), blocks: Vec::new(), reads: (0, 0) };
        let ended = run.all(&mut attend);
        let mut figures = run.figures(begun);
        let violation = match ended {
            Ok(()) => None,
            Err(Ended::Interrupted) => {
                figures.interrupted = true;
                None
            }
            Err(Ended::Violated(what)) => Some(what),
        };
        Ok((figures, violation))
    }
}

/// Why a run ended early.
enum Ended {
    Interrupted,
    Violated(String),
}

struct Run {
    trial: Trial,
    world: World,
    dice: Dice,
    blocks: Vec<(Key, Bytes)>,
    /// Asked while the plan ran, and answered with the block.
    reads: (u64, u64),
}

impl Run {
    fn all(&mut self, attend: &mut impl FnMut(Stage) -> bool) -> Result<(), Ended> {
        while !self.world.is_ready() {
            if self.world.now >= GENESIS + FOUNDING {
                return Err(Ended::Violated("the ring has not come together".to_owned()));
            }
            self.second(attend)?;
        }
        self.store(attend)?;
        let (start, mut asked) = (self.world.now, Vec::new());
        let cut = CUT.min(self.trial.lasting / 2);
        let cut_at = start + (self.trial.lasting - cut) / 2;
        while self.world.now < start + self.trial.lasting {
            let is_time = (cut_at..cut_at + cut).contains(&self.world.now);
            let side = if self.trial.is_cut && is_time { self.world.hosts() / 3 } else { 0 };
            self.world.cut_off = (0..side).collect();
            asked.push(self.ask_one());
            self.second(attend)?;
        }
        self.world.cut_off.clear();
        for _ in 0..CALM / SECOND {
            self.second(attend)?;
        }
        for (at, block, request) in asked {
            self.reads.0 += 1;
            self.reads.1 += u64::from(self.judge(at, block, request, false)?);
        }
        let last: Vec<_> = (0..self.blocks.len()).map(|block| self.ask(block)).collect();
        self.wait(attend)?;
        for (at, block, request) in last {
            self.judge(at, block, request, true)?;
        }
        match self.world.counts().malformed {
            0 => Ok(()),
            some => Err(Ended::Violated(format!("{some} of the hosts' own frames did not decode"))),
        }
    }

    fn store(&mut self, attend: &mut impl FnMut(Stage) -> bool) -> Result<(), Ended> {
        let expiry = self.world.now / SECOND + 14 * 86_400;
        let mut asked = Vec::new();
        for object in 0..self.trial.objects as usize {
            let value = self.dice.bytes(SIZES[object % SIZES.len()]);
            let key = Key::of(Kind::Content, &value);
            let host = self.dice.below(self.world.hosts());
            asked.push(self.world.command(host, Command::Insert { key, value: value.clone(), expiry }));
            self.blocks.push((key, value));
        }
        self.wait(attend)?;
        for (object, request) in asked.into_iter().enumerate() {
            match self.world.take_reply(request) {
                Some(Reply::Stored { .. }) => {}
                reply => return Err(Ended::Violated(format!("block {object} was not stored: {reply:?}"))),
            }
        }
        Ok(())
    }

    fn ask_one(&mut self) -> (usize, usize, net::machine::RequestId) {
        let block = self.dice.below(self.blocks.len().max(1));
        self.ask(block)
    }

    fn ask(&mut self, block: usize) -> (usize, usize, net::machine::RequestId) {
        let host = self.dice.below(self.world.hosts());
        let (key, _) = self.blocks[block];
        (host, block, self.world.command(host, Command::Lookup { key }))
    }

    /// Whether a read was answered with the block. Another answer is a violation, and if it must be answered, none is, too.
    fn judge(
        &mut self,
        host: usize,
        block: usize,
        request: net::machine::RequestId,
        must: bool,
    ) -> Result<bool, Ended> {
        match self.world.take_reply(request) {
            Some(Reply::Found { value, .. }) if value == self.blocks[block].1 => Ok(true),
            Some(Reply::Found { .. }) => Err(Ended::Violated(format!("host {host} read another block than {block}"))),
            reply if must => Err(Ended::Violated(format!("host {host} did not find block {block}: {reply:?}"))),
            _ => Ok(false),
        }
    }

    fn wait(&mut self, attend: &mut impl FnMut(Stage) -> bool) -> Result<(), Ended> {
        let end = self.world.now + ANSWERED;
        while self.world.unanswered > 0 && self.world.now < end {
            self.second(attend)?;
        }
        Ok(())
    }

    fn second(&mut self, attend: &mut impl FnMut(Stage) -> bool) -> Result<(), Ended> {
        self.world.run_for(SECOND);
        let passed = self.world.now - GENESIS;
        let goes_on = attend(Stage { is_founding: self.blocks.is_empty(), passed, events: self.world.events });
        if goes_on { Ok(()) } else { Err(Ended::Interrupted) }
    }

    fn figures(&self, begun: Instant) -> Figures {
        let (packets, counts) = (self.world.packets, self.world.counts());
        Figures {
            hosts: self.trial.hosts,
            seed: self.trial.seed,
            virtual_seconds: (self.world.now - GENESIS) / SECOND,
            seconds: begun.elapsed().as_secs_f64(),
            interrupted: false,
            events: self.world.events,
            packets: packets.sent,
            packet_bytes: packets.bytes,
            packets_lost: packets.lost,
            packets_doubled: packets.doubled,
            packets_cut: packets.cut,
            frames: counts.frames,
            datagrams: counts.datagrams,
            frames_dropped: counts.dropped,
            dials: counts.dials,
            connections_lost: counts.connections_lost,
            stored: self.blocks.len(),
            reads: self.reads.0,
            reads_right: self.reads.1,
            trace: format!("{:016x}", self.world.trace),
        }
    }
}

/// Runs a trial, with a bar that shows how far it is.
pub(super) fn simulate(trial: &Trial, repeat: &str) -> Result<Ending, LoadError> {
    let (watch, progress) = (Watch::start(), Progress::default());
    let bar = ProgressBar::new(trial.duration() / SECOND);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} virtual seconds, {msg} events, {eta} left");
    bar.set_style(style.expect("a template"));
    let (figures, violation) = std::thread::scope(|scope| {
        let running = scope.spawn(|| trial.run(|stage| progress.show(stage)));
        attend(&progress.stop, || {
            bar.set_position(progress.virtual_seconds.load(Ordering::Relaxed));
            bar.set_message(progress.events.load(Ordering::Relaxed).to_string());
            running.is_finished()
        })?;
        running.join().map_err(|_| LoadError::Unexpected { expected: "a run", got: "a panic, above".to_owned() })?
    })?;
    bar.finish_and_clear();
    let mut findings = Findings::new("simulate overlay quic", Path::new("."), &watch, &figures, table(&figures))?;
    if figures.interrupted {
        findings.note("interrupted: the figures are of the time that was run");
    }
    let commit = findings.commit().to_owned();
    let violation = violation.map(|what| format!("seed {}, commit {commit}, {what}\nrepeat: {repeat}", trial.seed));
    Ok(Ending { findings, violation })
}

fn table(figures: &Figures) -> String {
    let line = |name: &str, figure: String| (name.to_owned(), vec![figure]);
    columns(&[
        line("hosts", figures.hosts.to_string()),
        line("virtual seconds", figures.virtual_seconds.to_string()),
        line("seconds it took", format!("{:.1}", figures.seconds)),
        line("events", figures.events.to_string()),
        line("packets", figures.packets.to_string()),
        line("packet bytes", figures.packet_bytes.to_string()),
        line("packets lost", figures.packets_lost.to_string()),
        line("packets doubled", figures.packets_doubled.to_string()),
        line("packets cut off", figures.packets_cut.to_string()),
        line("frames on streams", figures.frames.to_string()),
        line("frames as datagrams", figures.datagrams.to_string()),
        line("frames dropped", figures.frames_dropped.to_string()),
        line("connections dialled", figures.dials.to_string()),
        line("connection ends lost", figures.connections_lost.to_string()),
        line("blocks stored", figures.stored.to_string()),
        line("reads, cut and all", figures.reads.to_string()),
        line("of them right", figures.reads_right.to_string()),
        line("trace", figures.trace.clone()),
    ])
}

/// Certificates are judged by the real date; nothing else here knows of it.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    //! Goal: the real codec and QUIC's real state machine carry a ring through loss, duplicates, packets that overtake each other
    //! and a cut, the same way each time. Method: twenty hosts, twice with one seed and once with another; the control
    //! loses every packet, and must fail.

    use super::*;

    fn trial(seed: u64, hosts: u8) -> Trial {
        let (lasting, objects) = (120 * SECOND, 15);
        Trial { seed, hosts, lasting, objects, loss_ppm: 10_000, duplicates_ppm: 5_000, is_cut: true }
    }

    fn run(trial: &Trial) -> (Figures, Option<String>) {
        trial.run(|_| true).expect("a ring can be founded")
    }

    #[test]
    fn twenty_hosts_store_and_read_through_loss_and_a_cut_the_same_way_each_time() {
        let (first, violation) = run(&trial(7, 20));
        assert_eq!(violation, None, "seed 7: {first:?}");
        assert!(first.packets_lost > 0 && first.packets_doubled > 0 && first.packets_cut > 0, "{first:?}");
        assert!(first.connections_lost > 0, "the cut broke connections: {first:?}");
        assert_eq!((first.stored, first.reads), (15, 120));
        assert!(first.reads_right >= 60, "{first:?}");
        assert_eq!(run(&trial(7, 20)).0.trace, first.trace);
    }

    #[test]
    fn another_seed_is_another_run_and_a_network_that_loses_everything_is_seen() {
        assert_ne!(run(&trial(1, 5)).0.trace, run(&trial(2, 5)).0.trace);
        let lost = Trial { loss_ppm: 1_000_000, ..trial(1, 5) };
        assert!(run(&lost).1.is_some_and(|what| what.contains("not come together")));
    }
}
