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
    let Room::Load { what } = Arguments::parse().room;
    let measured = match &what {
        Load::Engine { dir, rounds, .. } => load::engine::measure(dir, *rounds),
        Load::Mail { dir, messages, connections, bytes, rounds, epost, .. } => load::mail::measure(&load::mail::Plan {
            dir: dir.clone(),
            messages: *messages,
            connections: *connections,
            bytes: *bytes,
            rounds: *rounds,
            epost: epost.clone(),
        }),
    };
    let (Load::Engine { output, .. } | Load::Mail { output, .. }) = &what;
    let said = measured.and_then(|mut report| {
        if let Some(note) = &output.note {
            report.note(note);
        }
        report.publish(output.json, output.record)
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}
