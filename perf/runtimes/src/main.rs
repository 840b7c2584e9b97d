//! Decision 0001 measured: the disk work of a shard on the raw ring and on four runtimes.
//!
//! Five contenders do the same eight cases on the same segment: durable appends of 4 KiB records in batches, and random reads.
//! Rounds are interleaved: in each, every contender does every case in turn, so that a busy minute of the machine falls on
//! all of them. After every append case the segment is read back, and a figure counts only if each record that it counts
//! lies there. What is told is the median of the rounds with their range, and the ratio to the raw ring in the same round.
//!
//! Start in [`work`] for what is done, in [`contender`] for who does it and how, in [`segment`] for what must be on the disk
//! afterwards. `unsafe` is where the kernel gets a pointer: `pages`, `contender/raw.rs`, `contender/pool.rs`, `meter`.

mod contender;
mod fault;
mod limits;
mod meter;
mod pages;
mod report;
mod segment;
mod stop;
#[cfg(test)]
mod tests;
mod work;

use clap::Parser;
use contender::{CONTENDERS, Contender};
use fault::Fault;
use report::{Report, Row, Watch};
use segment::Segment;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use work::{CASES, Done, Job};

/// Compares the raw ring, glommio, tokio-uring, compio and tokio's thread pool on a shard's disk work.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// A quarter of a minute instead of eight minutes: one round of short cases, for looking only.
    #[arg(long)]
    quick: bool,
    /// Where the segment is written, which chooses the disk; removed afterwards.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Rounds (5, or 1 with --quick).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Milliseconds of one case of one contender in one round (2000, or 300 with --quick).
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    case_ms: Option<u64>,
    /// MiB of the segment (512, or 128 with --quick).
    #[arg(long, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    mib: Option<u64>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write table, JSON and picture to perf/record, by machine and date.
    #[arg(long)]
    record: bool,
    /// Write table, JSON and picture below this folder instead.
    #[arg(long)]
    record_to: Option<PathBuf>,
    /// A sentence about the circumstances, kept with the result.
    #[arg(long)]
    note: Option<String>,
}

/// How much is measured.
struct Plan {
    rounds: u32,
    time: Duration,
    segment_bytes: u64,
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("runtimes: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<(), Fault> {
    limits::check()?;
    stop::listen();
    let plan = plan(arguments);
    std::fs::create_dir_all(&arguments.dir).map_err(|source| Fault::Folder { dir: arguments.dir.clone(), source })?;
    // Removed when it is dropped, also on the way out of a fault.
    let scratch = tempfile::Builder::new()
        .prefix("runtimes-")
        .tempdir_in(&arguments.dir)
        .map_err(|source| Fault::Folder { dir: arguments.dir.clone(), source })?;
    let segment = Segment::write_beforehand(&scratch.path().join("segment"), plan.segment_bytes)
        .map_err(|source| Fault::segment(&arguments.dir, plan.segment_bytes, source))?;
    for contender in &CONTENDERS {
        can_work(contender, &segment)?;
    }
    let watch = Watch::start();
    let rows = measure(&plan, &segment)?;
    let report = Report::new(scratch.path(), &watch, notes(arguments, &plan), rows);
    publish(arguments, &report)
}

fn publish(arguments: &Arguments, report: &Report) -> Result<(), Fault> {
    if arguments.json {
        print!("{}", report.json()?);
    } else {
        print!("{}", report.text());
    }
    let usual = arguments.record.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../record"));
    if let Some(root) = arguments.record_to.clone().or(usual) {
        eprintln!("recorded in {}", report.record(&root)?.display());
    }
    Ok(())
}

fn plan(arguments: &Arguments) -> Plan {
    let pick = |quick, full| if arguments.quick { quick } else { full };
    Plan {
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 5 }),
        time: Duration::from_millis(arguments.case_ms.unwrap_or(pick(300, 2_000))),
        segment_bytes: arguments.mib.unwrap_or(pick(128, 512)) << 20,
    }
}

/// Starts the contender and lets it end at once: what it lacks on this machine is said before anything is measured.
fn can_work(contender: &Contender, segment: &Segment) -> Result<(), Fault> {
    for case in CASES {
        let job = Job { case, segment: segment.clone(), time: Duration::ZERO, number: 0, seed: 0 };
        (contender.run)(&job).map_err(|source| Fault::cannot(contender.name, source))?;
    }
    Ok(())
}

/// All rounds; a row per case and contender, in the order of [`CASES`] and [`CONTENDERS`].
fn measure(plan: &Plan, segment: &Segment) -> Result<Vec<Row>, Fault> {
    let mut rows: Vec<Row> =
        CASES.iter().flat_map(|case| CONTENDERS.iter().map(|contender| Row::new(*case, contender.name))).collect();
    // One is on every record, so that it cannot be taken for that of another job; zero is the segment's own.
    let mut number = 0;
    for round in 0..plan.rounds {
        for (place, case) in CASES.iter().enumerate() {
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, case.name);
            for turn in 0..CONTENDERS.len() {
                let who = order(round as usize, turn);
                number += 1;
                let job = Job { case: *case, segment: segment.clone(), time: plan.time, number, seed: round.into() };
                let done = play(&CONTENDERS[who], &job)?;
                rows[place * CONTENDERS.len() + who].note(&done);
            }
        }
    }
    Ok(rows)
}

/// Who is next: each round begins with another one, and every second goes the other way round, so that nobody always works
/// behind the same other one.
fn order(round: usize, turn: usize) -> usize {
    let count = CONTENDERS.len();
    let turn = if round.is_multiple_of(2) { turn } else { count - 1 - turn };
    (turn + round) % count
}

/// One measurement; the figure is given out only when all that it counts is on the disk.
fn play(contender: &Contender, job: &Job) -> Result<Done, Fault> {
    let done = (contender.run)(job).map_err(|source| Fault::cannot(contender.name, source))?;
    stop::check()?;
    if job.case.is_append() {
        job.segment.check(job.number, done.operations).map_err(|source| Fault::Lost {
            contender: contender.name,
            case: job.case.name,
            source,
        })?;
    }
    if done.operations == 0 {
        return Err(Fault::Nothing { contender: contender.name, case: job.case.name });
    }
    Ok(done)
}

/// What a reader must know to judge the figures.
fn notes(arguments: &Arguments, plan: &Plan) -> Vec<String> {
    let mut notes = vec![
        format!(
            "{} of {} ms a case: median (range); \"x raw\" is the rate by that of the raw ring in the same round",
            match plan.rounds {
                1 => "one round".to_owned(),
                rounds => format!("{rounds} rounds"),
            },
            plan.time.as_millis()
        ),
        format!(
            "records of 4 KiB, O_DIRECT, round and round in a segment of {} MiB written beforehand; counted when durable, \
             read back after each case",
            plan.segment_bytes >> 20
        ),
        "DSYNC: RWF_DSYNC on the raw ring and in the pool, elsewhere a file opened with O_DSYNC".to_owned(),
        "processor µs: of the whole process for one record or read, helper threads included, the kernel's own workers not"
            .to_owned(),
        "flushes: of the whole device, per fdatasync or DSYNC write; below 1 where one flush \
         served several of them, above where others flushed too".to_owned(),
        format!("built from {}", contender::versions()),
    ];
    if arguments.quick {
        notes.push("a quick run, for looking: not a figure to quote".to_owned());
    }
    notes.extend(arguments.note.clone());
    notes
}
