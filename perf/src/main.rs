//! How fast it is, against what, on which disk: measurements that somebody else can repeat.
//!
//! `perf load engine` measures the storage engine beside a raw append-and-sync loop on the same disk; `perf load mail`
//! measures mail through a running ring, `perf load net` what travels between two hosts, beside quinn alone. Each prints a table for people (or JSON for machines) that names the
//! machine, the disk, the kernel and the commit, and writes it to `perf/record/` when asked to. `perf simulate` breaks the
//! engine instead, on a simulated disk or by killing it, or runs the overlay in virtual time, and says what it covered; a
//! violation is exit code 1. What is not here: rival stores (they would compile with ours). A measurement is no test: a
//! number has no right value.
//!
//! Start in [`load`] for what is measured and how, in [`mod@simulate`] for what is broken, in [`report`] for what is said.
#![forbid(unsafe_code)]

mod load;
mod report;
mod simulate;

use clap::{Parser, Subcommand};
use load::LoadError;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures ePOST and says on what.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    room: Room,
}

#[derive(Subcommand)]
enum Room {
    /// Puts load on a part and measures it.
    Load {
        #[command(subcommand)]
        what: Load,
    },
    /// Breaks the engine, or runs the overlay, and checks that it keeps its promises; a violation is exit code 1.
    Simulate {
        #[command(subcommand)]
        what: Simulate,
    },
    /// Fills a store, measures it and waits to be killed: the other half of `load growth`.
    #[command(hide = true)]
    Grow {
        /// The store's directory.
        store: PathBuf,
        /// How many objects.
        objects: usize,
        /// Bytes of a value.
        bytes: usize,
    },
}

#[derive(Subcommand)]
enum Load {
    /// The storage engine: durable puts, hot gets and lease extensions, beside a raw loop on the same disk.
    Engine {
        #[command(flatten)]
        output: Output,
        /// Where to put the stores and files measured; they are removed afterwards.
        #[arg(long, default_value = "target")]
        dir: PathBuf,
        /// How often everything is measured.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// The storage engine as it grows: put, get, scan, sweep, memory and restart at several numbers of objects.
    Growth {
        #[command(flatten)]
        output: Output,
        /// Where to put the stores; they are removed afterwards.
        #[arg(long, default_value = "target")]
        dir: PathBuf,
        /// Numbers of objects, one after the other.
        #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
        objects: Vec<usize>,
        /// Bytes of a value.
        #[arg(long, default_value_t = 64)]
        bytes: usize,
    },
    /// Mail: from SMTP accept to visible over IMAP, through a ring of five processes.
    Mail {
        #[command(flatten)]
        output: Output,
        /// Where to put the ring; it is removed afterwards.
        #[arg(long, default_value = "target")]
        dir: PathBuf,
        /// Messages per round.
        #[arg(long, default_value_t = 1000)]
        messages: usize,
        /// SMTP connections that send them.
        #[arg(long, default_value_t = 20)]
        connections: usize,
        /// Bytes of a message's body.
        #[arg(long, default_value_t = 10_240)]
        bytes: usize,
        /// How often everything is measured.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// The binary to measure; built first when not given.
        #[arg(long)]
        epost: Option<PathBuf>,
    },
    /// Messages between two hosts over loopback: latency, rate and bulk, beside quinn alone.
    Net {
        #[command(flatten)]
        output: Output,
        /// How often everything is measured.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

#[derive(Subcommand)]
enum Simulate {
    /// Power cuts, kills and faults on a simulated disk, by seed, on all cores.
    Disk {
        #[command(flatten)]
        output: Output,
        /// Seeds A..B, B not among them; each is run in every campaign.
        #[arg(long, default_value = "1..101", value_parser = simulate::disk::seeds)]
        seeds: Range<u64>,
        /// Only this campaign (may be given several times): power-cuts, failing-writes, breaking-disk, full-disk,
        /// little-room, lossy-disk, kills.
        #[arg(long)]
        campaign: Vec<String>,
    },
    /// A writer on a real file system, killed with SIGKILL at random moments, beside an independent journal.
    Kill {
        #[command(flatten)]
        output: Output,
        /// Where to put the store; it is removed afterwards, unless something was wrong with it.
        #[arg(long, default_value = "target")]
        dir: PathBuf,
        /// Kills.
        #[arg(long, default_value_t = 200)]
        rounds: u64,
        /// The seed of the operations.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Plant a defect: the writer acknowledges puts before it submits them. Exit code 0 if that was caught.
        #[arg(long)]
        control: bool,
    },
    /// A ring of the overlay's nodes in virtual time: what it costs, and whether its lookups are right.
    Overlay {
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        plan: Box<simulate::overlay::Plan>,
    },
    /// The process that `kill` kills.
    #[command(hide = true)]
    Writer {
        #[command(flatten)]
        orders: simulate::Orders,
    },
}

/// Where the result goes.
#[derive(clap::Args)]
struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write the result to perf/record, by machine and date.
    #[arg(long)]
    record: bool,
    /// A sentence about the circumstances, kept with the result.
    #[arg(long)]
    note: Option<String>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().room {
        Room::Load { what } => measure(&what).map(|()| ExitCode::SUCCESS),
        Room::Grow { store, objects, bytes } => load::growth::fill(&store, objects, bytes).map(|()| ExitCode::SUCCESS),
        Room::Simulate { what } => simulate(what),
    };
    done.unwrap_or_else(|error| {
        eprintln!("perf: {error}");
        ExitCode::FAILURE
    })
}

fn measure(what: &Load) -> Result<(), LoadError> {
    let measured = match what {
        Load::Engine { dir, rounds, .. } => load::engine::measure(dir, *rounds),
        Load::Growth { dir, objects, bytes, .. } => {
            load::growth::measure(&load::growth::Plan { dir: dir.clone(), objects: objects.clone(), bytes: *bytes })
        }
        Load::Mail { dir, messages, connections, bytes, rounds, epost, .. } => load::mail::measure(&load::mail::Plan {
            dir: dir.clone(),
            messages: *messages,
            connections: *connections,
            bytes: *bytes,
            rounds: *rounds,
            epost: epost.clone(),
        }),
        Load::Net { rounds, .. } => load::net::measure(*rounds),
    };
    let (Load::Engine { output, .. }
    | Load::Growth { output, .. }
    | Load::Mail { output, .. }
    | Load::Net { output, .. }) = what;
    let mut report = measured?;
    if let Some(note) = &output.note {
        report.note(note);
    }
    report.publish(output.json, output.record)
}

fn simulate(what: Simulate) -> Result<ExitCode, LoadError> {
    let (output, mut ending, control) = match what {
        Simulate::Disk { output, seeds, campaign } => {
            (output, simulate::disk::simulate(seeds, &simulate::disk::campaigns(&campaign)?)?, false)
        }
        Simulate::Kill { output, dir, rounds, seed, control } => {
            (output, simulate::kill::simulate(&simulate::kill::Plan { dir, rounds, seed, control })?, control)
        }
        Simulate::Overlay { output, plan } => (output, simulate::overlay::simulate(&plan)?, false),
        Simulate::Writer { orders } => return simulate::write(&orders).map(|()| ExitCode::SUCCESS),
    };
    if let Some(note) = &output.note {
        ending.findings.note(note);
    }
    ending.findings.publish(output.json, output.record)?;
    if let Some(violation) = &ending.violation {
        eprintln!("violation: {violation}");
    }
    if control {
        eprintln!("control: the defect was {}", if ending.violation.is_some() { "caught" } else { "NOT caught" });
    }
    Ok(if ending.violation.is_some() == control { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
