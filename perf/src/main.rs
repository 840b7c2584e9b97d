//! How fast it is, against what, on which disk: measurements that somebody else can repeat.
//!
//! `perf load engine` measures the storage engine beside a raw append-and-sync loop on the same disk; `perf load mail`
//! measures mail through a running ring. Each prints a table for people (or JSON for machines) that names the
//! machine, the disk, the kernel and the commit, and writes it to `perf/record/` when asked to. What is not here:
//! rival stores (they would compile with ours) and the simulator's campaigns. Nothing here is a test: a number has no
//! right value.
//!
//! Start in [`load`] for what is measured and how, in [`report`] for what is said about it.
#![forbid(unsafe_code)]

mod load;
mod report;

use clap::{Parser, Subcommand};
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
    let said = match Arguments::parse().room {
        Room::Load { what } => load(&what),
        Room::Grow { store, objects, bytes } => load::growth::fill(&store, objects, bytes),
    };
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load(what: &Load) -> Result<(), load::LoadError> {
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
    };
    let (Load::Engine { output, .. } | Load::Growth { output, .. } | Load::Mail { output, .. }) = what;
    let mut report = measured?;
    if let Some(note) = &output.note {
        report.note(note);
    }
    report.publish(output.json, output.record)
}
