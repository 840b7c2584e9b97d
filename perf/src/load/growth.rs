//! Cost as a store grows: put, get, scan, sweep, memory and restart at several numbers of objects, side by side.
//!
//! Every number is measured in a process of its own: a child fills a fresh store with small objects, measures, says what it
//! saw on its standard output, and then waits to be killed with SIGKILL. The parent kills it and opens the store itself, which
//! is the restart that is measured. Memory is the child's anonymous memory with N objects less that of the same process with the
//! empty store, so allocator slack and buffers count against us. The page cache is warm at the restart: only the process died.

use super::{Dice, LoadError, pump};
use crate::report::{Report, Row, Sample, Watch};
use bytes::Bytes;
use engine::{Class, Config, Engine, Key, Request, Response};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Operations in flight while filling and reading.
const DEPTH: usize = 256;
/// Objects read, and leases extended, at each size.
const SAMPLED: usize = 1_000_000;
/// Leases in one request.
const LEASES: usize = 1_000;
/// Sweeps with nothing due; their median counts.
const SWEEPS: usize = 9;
/// Entries asked for by one scan request.
const SCAN_PAGE: usize = 8_192;
/// The time that sweeps are told; the engine has no clock of its own.
const NOW_S: u64 = 1_800_000_000;
/// The end of all leases.
const EXPIRY_S: u64 = NOW_S + 90 * 24 * 3600;
/// The filling child tells of its progress this often.
const TOLD_EVERY: usize = 65_536;

/// What is measured.
pub(crate) struct Plan {
    /// Where the stores go; they are removed afterwards.
    pub(crate) dir: PathBuf,
    /// Numbers of objects, one after the other.
    pub(crate) objects: Vec<usize>,
    /// Bytes of a value.
    pub(crate) bytes: usize,
}

/// What the child saw.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    put_per_s: f64,
    get_per_s: f64,
    extend_per_s: f64,
    scan_per_s: f64,
    sweep_ms: f64,
    bytes_per_object: f64,
    index_bytes_per_object: f64,
}

/// Measures every size once; the rows name the size.
pub(crate) fn measure(plan: &Plan) -> Result<Report, LoadError> {
    std::fs::create_dir_all(&plan.dir)?;
    let scratch = tempfile::Builder::new().prefix("perf-growth-").tempdir_in(&plan.dir)?;
    let watch = Watch::start();
    let mut rows = Vec::new();
    for &objects in &plan.objects {
        let store = scratch.path().join(format!("store{objects}"));
        rows.extend(measure_one(&store, objects, plan.bytes)?);
        std::fs::remove_dir_all(&store)?;
    }
    let mut report = Report::new("load growth", scratch.path(), &watch);
    report.note(format!("objects of {} bytes, two shards, {DEPTH} operations in flight, one round", plan.bytes));
    report.note(
        "memory: anonymous memory of the process with the objects less that with the empty store, divided by the objects; \
         index: the engine's own account of its index",
    );
    report.note("sweep: median of sweeps that find nothing due, from request to answer, both shards at once");
    report
        .note("restart: after SIGKILL right behind the last acknowledgement, page cache warm, from open to the answer");
    report.rows = rows;
    Ok(report)
}

fn measure_one(store: &Path, objects: usize, bytes: usize) -> Result<Vec<Row>, LoadError> {
    let mut child = Filler::start(store, objects, bytes)?;
    let seen = child.seen(objects)?;
    child.kill()?;
    let restart = Restart::measure(store, objects, bytes)?;
    let of = |what: &str| format!("{what}, {} objects", short(objects));
    let row = |what: &str, unit, value| {
        let mut row = Row::new(of(what), unit);
        row.samples.push(Sample::alone(value));
        row
    };
    Ok(vec![
        row("put", "puts/s", seen.put_per_s),
        row("get hot", "gets/s", seen.get_per_s),
        row("extend leases, 1000 a batch", "leases/s", seen.extend_per_s),
        row("scan of all ids", "ids/s", seen.scan_per_s),
        row("sweep with nothing due", "ms", seen.sweep_ms),
        row("memory", "B/object", seen.bytes_per_object),
        row("index", "B/object", seen.index_bytes_per_object),
        row("kill -9 to open", "ms", millis(restart.open)),
        row("kill -9 to first get", "ms", millis(restart.first_get)),
        row("kill -9 to first put", "ms", millis(restart.first_put)),
    ])
}

fn short(objects: usize) -> String {
    match objects {
        n if n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n.is_multiple_of(1_000) => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The child, ended by force whatever happens to the parent's errands.
struct Filler(Child);

impl Filler {
    fn start(store: &Path, objects: usize, bytes: usize) -> Result<Filler, LoadError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("grow").arg(store).arg(objects.to_string()).arg(bytes.to_string());
        Ok(Filler(command.stdout(Stdio::piped()).spawn()?))
    }

    /// Follows the child until it says what it saw.
    fn seen(&mut self, objects: usize) -> Result<Seen, LoadError> {
        let progress = ProgressBar::new(objects as u64);
        if let Ok(style) = ProgressStyle::with_template("filling {wide_bar} {human_pos}/{human_len} {elapsed}") {
            progress.set_style(style);
        }
        let output = self
            .0
            .stdout
            .take()
            .ok_or(LoadError::Unexpected { expected: "the child's output", got: "nothing".to_owned() })?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            match line.parse::<u64>() {
                Ok(filled) => progress.set_position(filled),
                Err(_) => {
                    progress.finish_and_clear();
                    return Ok(serde_json::from_str(&line)?);
                }
            }
        }
        Err(LoadError::Unexpected { expected: "the child's figures", got: "its end".to_owned() })
    }

    fn kill(mut self) -> Result<(), LoadError> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // After `kill` there is nobody left to end or wait for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Times from the beginning of the opening.
struct Restart {
    open: Duration,
    first_get: Duration,
    first_put: Duration,
}

impl Restart {
    fn measure(store: &Path, objects: usize, bytes: usize) -> Result<Restart, LoadError> {
        let start = Instant::now();
        let engine = Engine::open(Config::new(store))?;
        let open = start.elapsed();
        let mut client = engine.client();
        if client.get(key(objects / 2))?.is_none() {
            return Err(LoadError::Unexpected { expected: "the object after the restart", got: "nothing".to_owned() });
        }
        let first_get = start.elapsed();
        client.put(key(objects), vec![1; bytes], EXPIRY_S)?;
        let first_put = start.elapsed();
        Ok(Restart { open, first_get, first_put })
    }
}

/// The key with this number, the same in both processes.
fn key(number: usize) -> Key {
    let mut dice = Dice::new((number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut key = Key { placement: [0; 20], name: [0; 32], kind: 1 };
    dice.fill(&mut key.placement);
    dice.fill(&mut key.name);
    key
}

/// The child: fills, measures, tells, and waits for its end.
pub(crate) fn fill(store: &Path, objects: usize, bytes: usize) -> Result<(), LoadError> {
    let engine = Engine::open(Config::new(store))?;
    let before = anonymous_bytes()?;
    let put = fill_store(&engine, objects, bytes)?;
    let anonymous = anonymous_bytes()?.saturating_sub(before);
    let mut dice = Dice::new(7);
    let sampled = SAMPLED.min(objects);
    let get = pump(&engine, DEPTH, sampled, |_| Request::Get { key: key(dice.roll() as usize % objects) })?;
    let requests = (sampled / LEASES).max(1);
    let extend = pump(&engine, 4, requests, |turn| {
        let first = turn * LEASES;
        let leases = (first..first + LEASES).map(|number| (key(number % objects), EXPIRY_S + 24 * 3600)).collect();
        Request::TouchMany { leases }
    })?;
    let scan = scan_all(&engine, objects)?;
    let sweep = sweep_nothing(&engine)?;
    let seen = Seen {
        put_per_s: objects as f64 / put.as_secs_f64(),
        get_per_s: sampled as f64 / get.as_secs_f64(),
        extend_per_s: (requests * LEASES) as f64 / extend.as_secs_f64(),
        scan_per_s: objects as f64 / scan.as_secs_f64(),
        sweep_ms: millis(sweep),
        bytes_per_object: anonymous as f64 / objects as f64,
        index_bytes_per_object: engine.stats().index_bytes as f64 / objects as f64,
    };
    say(&serde_json::to_string(&seen)?)?;
    loop {
        std::thread::park();
    }
}

fn fill_store(engine: &Engine, objects: usize, bytes: usize) -> Result<Duration, LoadError> {
    let mut pool = vec![0; bytes + 4096];
    Dice::new(3).fill(&mut pool);
    let pool = Bytes::from(pool);
    let mut unsaid = Ok(());
    let time = pump(engine, DEPTH, objects, |turn| {
        if turn.is_multiple_of(TOLD_EVERY) && unsaid.is_ok() {
            unsaid = say(&turn.to_string());
        }
        let start = turn % 4096;
        Request::Put {
            key: key(turn),
            version: 0,
            account: 1,
            class: Class::Fresh,
            expiry_s: EXPIRY_S,
            value: pool.slice(start..start + bytes),
        }
    })?;
    unsaid?;
    Ok(time)
}

fn scan_all(engine: &Engine, objects: usize) -> Result<Duration, LoadError> {
    let mut client = engine.client();
    let start = Instant::now();
    let (mut after, mut seen) = (None, 0);
    loop {
        let entries = client.scan([0; 20], [0xff; 20], after, SCAN_PAGE)?;
        seen += entries.len();
        match entries.last() {
            Some(last) if entries.len() == SCAN_PAGE => after = Some(last.key),
            _ => break,
        }
    }
    if seen != objects {
        return Err(LoadError::Unexpected { expected: "a scan of every object", got: format!("{seen} entries") });
    }
    Ok(start.elapsed())
}

fn sweep_nothing(engine: &Engine) -> Result<Duration, LoadError> {
    let mut client = engine.client();
    let mut times = Vec::with_capacity(SWEEPS);
    for turn in 0..SWEEPS {
        let start = Instant::now();
        let answer = client.call(Request::Sweep { now_s: NOW_S + turn as u64 })?;
        times.push(start.elapsed());
        if let Response::Swept { expired: 1.., .. } = answer {
            return Err(LoadError::Unexpected { expected: "nothing due", got: format!("{answer:?}") });
        }
    }
    times.sort_unstable();
    Ok(times[SWEEPS / 2])
}

fn say(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// Anonymous memory of this process, as the kernel counts it.
fn anonymous_bytes() -> Result<u64, LoadError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .ok_or(LoadError::Unexpected { expected: "RssAnon in /proc/self/status", got: "none".to_owned() })?;
    Ok(kib * 1024)
}
