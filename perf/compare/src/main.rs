//! The engine beside other stores: the same work, on the same disk, in the same minutes.
//!
//! `compare` plays ten workloads (W1 to W10) on the engine and on RocksDB, fjall, redb, LMDB, SQLite and a file per object,
//! every one of them durable at each acknowledgement, and says what came of it in a table, as JSON and in pictures.
//! Nothing here is a test: a figure has no right value. What a store cannot do is absent with the reason.
//!
//! Start in [`store`] for what a store must do here, in [`workload`] for what is done to it, in [`report`] for what is said
//! about it. `unsafe` is needed once, to open LMDB's map (`store/lmdb.rs`).

mod batcher;
mod data;
mod device;
mod fault;
mod latency;
mod pump;
mod raw;
mod report;
mod stop;
mod store;
mod workload;

use clap::{Parser, Subcommand, ValueEnum};
use fault::Fault;
use report::{Report, Watch};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use store::{Kind, Setting};
use workload::{Plan, Stage, VALUE_BYTES, Workload};

/// Compares the engine with other stores and says on what machine.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    child: Option<Room>,
    #[command(flatten)]
    choice: Choice,
}

/// What to compare, and how thoroughly.
#[derive(clap::Args)]
struct Choice {
    /// A few minutes instead of an hour: fewer objects, fewer rounds, shorter cases.
    #[arg(long)]
    quick: bool,
    /// Only these workloads, as in W1,W5.
    #[arg(long, value_delimiter = ',', ignore_case = true)]
    only: Vec<Workload>,
    /// Only these stores.
    #[arg(long, value_delimiter = ',')]
    stores: Vec<Kind>,
    /// Where the stores are made; removed afterwards.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Rounds of W1 to W5 and W8.
    #[arg(long)]
    rounds: Option<usize>,
    /// Rounds of W6, W7, W9 and W10.
    #[arg(long)]
    long_rounds: Option<usize>,
    /// Objects of 4,000 B that W2 to W5, W7 and W8 work on.
    #[arg(long)]
    objects: Option<usize>,
    /// Objects of 4,000 B that W6, W9 and W10 work on.
    #[arg(long)]
    expiring: Option<usize>,
    /// Memory for each store's own cache.
    #[arg(long, default_value_t = 256)]
    cache_mib: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write table, JSON and pictures to perf/record, by machine and date.
    #[arg(long)]
    record: bool,
    /// Write table, JSON and pictures below this folder instead.
    #[arg(long)]
    record_to: Option<PathBuf>,
    /// A sentence about the circumstances, kept with the result.
    #[arg(long)]
    note: Option<String>,
}

#[derive(Subcommand)]
enum Room {
    /// A part that must be done in a process of its own; started by the comparison.
    #[command(hide = true)]
    Child {
        #[arg(long)]
        store: Kind,
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        task: Task,
        #[arg(long, default_value_t = 0)]
        first: usize,
        #[arg(long)]
        objects: usize,
        #[arg(long)]
        cache_mib: usize,
    },
}

/// What a child does.
#[derive(Clone, Copy, ValueEnum)]
enum Task {
    /// Puts until it is killed.
    Put,
    /// Opens, reads, and says how much memory that took.
    Memory,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.child {
        Some(Room::Child { store, dir, task, first, objects, cache_mib }) => {
            let data_bytes = (objects * VALUE_BYTES) as u64;
            let setting = Setting { cache_bytes: cache_mib << 20, data_bytes, cold: false };
            child(store, &dir, task, (first, objects), &setting)
        }
        None => compare(&arguments.choice),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("compare: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn child(kind: Kind, dir: &Path, task: Task, (first, objects): (usize, usize), setting: &Setting) -> Result<(), Fault> {
    match task {
        Task::Put => workload::put_until_killed(kind, dir, first, setting),
        Task::Memory => {
            let held = workload::measure_memory(kind, dir, objects, setting)?;
            println!("{}", serde_json::to_string(&held)?);
            Ok(())
        }
    }
}

fn compare(choice: &Choice) -> Result<(), Fault> {
    stop::listen();
    std::fs::create_dir_all(&choice.dir)?;
    // Removed when it is dropped, also on the way out of a fault.
    let scratch = tempfile::Builder::new().prefix("compare-").tempdir_in(&choice.dir)?;
    let mut stage = Stage::new(plan(choice), scratch.path().canonicalize()?);
    let chosen: &[Workload] = if choice.only.is_empty() { Workload::value_variants() } else { &choice.only };
    let watch = Watch::start();
    stage.play(chosen)?;
    let notes = notes(choice, &mut stage);
    let report = Report::new(scratch.path(), &watch, notes, stage.book);
    if choice.json {
        print!("{}", report.json()?);
    } else {
        print!("{}", report.text());
    }
    let usual = choice.record.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../record"));
    if let Some(root) = choice.record_to.clone().or(usual) {
        eprintln!("recorded in {}", report.record(&root)?.display());
    }
    Ok(())
}

fn plan(choice: &Choice) -> Plan {
    let pick = |quick, full| if choice.quick { quick } else { full };
    let ms = |quick, full| Duration::from_millis(if choice.quick { quick } else { full });
    Plan {
        kinds: if choice.stores.is_empty() { Kind::all() } else { choice.stores.clone() },
        rounds: choice.rounds.unwrap_or(pick(1, 5)),
        long_rounds: choice.long_rounds.unwrap_or(pick(1, 3)),
        objects: choice.objects.unwrap_or(pick(30_000, 500_000)),
        expiring: choice.expiring.unwrap_or(pick(20_000, 500_000)),
        put_time: ms(200, 600),
        case_time: ms(300, 1_500),
        patience: ms(6_000, 30_000),
        cache_bytes: choice.cache_mib << 20,
    }
}

/// What a reader must know to judge the figures.
fn notes(choice: &Choice, stage: &mut Stage) -> Vec<String> {
    let plan = &stage.plan;
    let mut notes = vec![
        format!(
            "{}, {} rounds of W1 to W5 and W8, {} of W6, W7, W9 and W10: median (range); \"ours x\" is how many times better \
             ours was in the same round",
            if choice.quick { "quick run" } else { "full run" },
            plan.rounds,
            plan.long_rounds
        ),
        format!(
            "every acknowledgement is durable; {} MiB for a store's own cache (SQLite: per connection; engine, LMDB and \
             files have none), the page cache is everybody's; values do not compress; built for this processor",
            plan.cache_bytes >> 20
        ),
    ];
    if Kind::Rocksdb.is_built() {
        notes.push(match option_env!("ROCKSDB_LIB_DIR") {
            Some(_) => "RocksDB is the system's library, not the one its crate would build".to_owned(),
            None => "RocksDB is the one that its crate builds (11.8.1)".to_owned(),
        });
    } else {
        notes.push("RocksDB is absent: this binary was built without it".to_owned());
    }
    notes.append(&mut stage.notes);
    notes.extend(choice.note.clone());
    notes
}
