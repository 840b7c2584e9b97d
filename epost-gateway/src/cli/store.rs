//! `epost store verify|stats|scrub`: looking at the store of a node that is not running.
//!
//! The engine's inspector does the work and changes nothing; this shows how far it is, stops it on Ctrl-C, and tells what it
//! found. Damaged objects are named by their placement ids only: those say nothing of whose they are or what is in them. Damaged
//! runs of the index are named by their files.
//!
//! Exit codes: 0 all is well; 1 damage was found, or the device failed; 2 it could not be looked at, and the line on standard
//! error says what helps; 130 stopped by Ctrl-C.

use super::{figures, table};
use engine::{Inspection, Inspector, OpenError, Progress, ShardReport, Stats};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

/// What to do with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Check every object.
    Verify,
    /// Count.
    Stats,
    /// Read all sealed data.
    Scrub {
        /// At most so fast.
        mib_per_s: Option<u32>,
    },
}

/// Why a store was not looked at.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody has it open, most likely its node.
    #[error("{0} is open in another process: if that is its node, ask it with `epost status`, or stop it first")]
    Running(String),
    /// The files are another user's.
    #[error("{path}: permission denied: run this as the user that runs the node")]
    NotAllowed {
        /// What may not be opened.
        path: String,
    },
    /// Anything else the engine says.
    #[error(transparent)]
    Open(OpenError),
    /// The system gives no signals.
    #[error("signals cannot be listened for: {0}")]
    NoSignals(io::Error),
    /// The thread that looked at it is gone.
    #[error("looking at the store ended before it was done")]
    Ended,
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::AlreadyOpen { dir } => StoreError::Running(dir.display().to_string()),
            OpenError::Io { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                StoreError::NotAllowed { path: path.display().to_string() }
            }
            OpenError::Disk { dir, source: engine::disk::DiskError::Failed { errno } }
                if io::Error::from_raw_os_error(errno).kind() == io::ErrorKind::PermissionDenied =>
            {
                StoreError::NotAllowed { path: dir.display().to_string() }
            }
            error => StoreError::Open(error),
        }
    }
}

impl StoreError {
    /// 2 when the operator can put it right, 1 when something broke.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            StoreError::Open(OpenError::Disk { .. } | OpenError::Thread)
            | StoreError::NoSignals(_)
            | StoreError::Ended => 1,
            StoreError::Running(_) | StoreError::NotAllowed { .. } | StoreError::Open(_) => 2,
        }
    }
}

/// What to print, and what to end with.
pub struct Report {
    /// The table, or JSON.
    pub text: String,
    /// See the module.
    pub exit_code: u8,
}

const STOPPED: u8 = 130;

/// Looks at the store in `dir`.
///
/// # Errors
/// [`StoreError`], when it cannot be opened.
pub async fn look(dir: &Path, action: Action, as_json: bool) -> Result<Report, StoreError> {
    let begun = Instant::now();
    let inspection = match action {
        Action::Verify => Inspection::Verify,
        Action::Stats => Inspection::Count,
        Action::Scrub { mib_per_s } => Inspection::Scrub { bytes_per_s: mib_per_s.map(|mib| u64::from(mib) << 20) },
    };
    let progress = Arc::new(Progress::default());
    let (store, told) = (dir.to_path_buf(), progress.clone());
    // Before the work begins: from then on Ctrl-C asks it to stop.
    let interrupts = signal(SignalKind::interrupt()).map_err(StoreError::NoSignals)?;
    let work = tokio::task::spawn_blocking(move || Inspector::open(&store)?.run(inspection, &told));
    let shards = watch(work, interrupts, &progress, action).await?;
    let was_stopped = progress.stop.load(Ordering::Relaxed) && shards.iter().any(|shard| !shard.is_complete);
    let exit_code = match (was_stopped, shards.iter().all(ShardReport::is_sound)) {
        (_, false) => 1,
        (true, true) => STOPPED,
        (false, true) => 0,
    };
    let findings = Findings { action, shards, was_stopped, seconds: begun.elapsed().as_secs_f64() };
    Ok(Report { text: if as_json { findings.to_json(dir) } else { findings.to_text() }, exit_code })
}

/// Writes the report; a reader that has gone away is no failure.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Shows how far it is until it is done; Ctrl-C ends it soon.
async fn watch(
    mut work: JoinHandle<Result<Vec<ShardReport>, OpenError>>,
    mut interrupts: Signal,
    progress: &Progress,
    action: Action,
) -> Result<Vec<ShardReport>, StoreError> {
    let bar = bar(action);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = interrupts.recv() => progress.stop.store(true, Ordering::Relaxed),
            _ = tick.tick() => show(bar.as_ref(), progress),
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(done.map_err(|_| StoreError::Ended)??)
}

/// A bar on a terminal, nothing elsewhere.
fn bar(action: Action) -> Option<ProgressBar> {
    if action == Action::Stats || !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(0).with_message("recovering");
    let style = "{bar:32} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    Some(bar)
}

fn show(bar: Option<&ProgressBar>, progress: &Progress) {
    let Some(bar) = bar else { return };
    let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    let (done, total, damaged) = (read(&progress.done), read(&progress.total), read(&progress.damaged));
    if total == 0 {
        return;
    }
    bar.set_length(total.max(done));
    bar.set_position(done);
    bar.set_message(if damaged > 0 { format!("{damaged} damaged") } else { String::new() });
}

/// What an inspection has found.
struct Findings {
    action: Action,
    shards: Vec<ShardReport>,
    was_stopped: bool,
    seconds: f64,
}

/// Whether a number says something of a store that is only looked at: its capacity is a setting of the node, and what counts work
/// is 0.
fn is_of_a_store_at_rest(name: &str) -> bool {
    !figures::counts_work(name) && !["capacity_bytes", "read_only", "deletion_suspended"].contains(&name)
}

impl Findings {
    fn to_text(&self) -> String {
        match self.action {
            Action::Stats => self.stats_text(),
            Action::Verify => self.table(["objects", "bytes", "damaged", "unreadable", "lost in the log"]),
            Action::Scrub { .. } => {
                self.table(["sound records", "bytes read", "damaged", "unreadable", "lost in the log"])
            }
        }
    }

    fn stats_text(&self) -> String {
        let mut total = Stats::default();
        self.shards.iter().for_each(|shard| total.add(&shard.stats));
        let name = |shard: &ShardReport| format!("shard {:02}", shard.shard);
        let headings: Vec<String> = self.shards.iter().map(name).chain(["total".to_owned()]).collect();
        let columns: Vec<_> =
            self.shards.iter().map(|shard| &shard.stats).chain([&total]).map(figures::named).collect();
        figures::grouped(&headings, &columns, is_of_a_store_at_rest)
    }

    fn table(&self, headings: [&str; 5]) -> String {
        let headings: Vec<&str> = ["shard"].into_iter().chain(headings).collect();
        let row = |name: String, figures: [u64; 5]| {
            let [sound, bytes, damaged, unreadable, lost] = figures;
            let counts = [damaged, unreadable, lost].map(|count| count.to_string());
            [name, sound.to_string(), table::bytes(bytes)].into_iter().chain(counts).collect::<Vec<_>>()
        };
        let mut rows: Vec<_> =
            self.shards.iter().map(|shard| row(format!("{:02}", shard.shard), figures_of(shard))).collect();
        rows.push(row("total".to_owned(), self.total()));
        table::render(&headings, &rows) + &self.verdict() + &self.damaged_ids() + &self.damaged_runs()
    }

    fn total(&self) -> [u64; 5] {
        let add = |sum: [u64; 5], shard: &ShardReport| {
            let mut figures = figures_of(shard);
            figures.iter_mut().zip(sum).for_each(|(figure, before)| *figure = figure.saturating_add(before));
            figures
        };
        self.shards.iter().fold([0; 5], add)
    }

    fn verdict(&self) -> String {
        let [_, bytes, damaged, unreadable, lost] = self.total();
        let mut text = String::new();
        if self.was_stopped {
            text += "Stopped before the end: the rest was not looked at.\n";
        }
        let rate = table::bytes((bytes as f64 / self.seconds.max(0.001)) as u64);
        text += &format!("{} in {:.1} s, {rate}/s.\n", table::bytes(bytes), self.seconds);
        let runs = self.shards.iter().map(|shard| shard.damaged_runs.len()).sum::<usize>();
        if runs > 0 && damaged + unreadable + lost == 0 {
            return text + "Only the index is damaged.\n";
        }
        if damaged + unreadable + lost == 0 {
            return text + if self.was_stopped { "No damage was found before.\n" } else { "No damage was found.\n" };
        }
        text + "Damage was found. What is damaged is never served; a running node gets it again from other nodes.\n"
    }

    fn damaged_ids(&self) -> String {
        let ids: Vec<String> = self.ids().collect();
        if ids.is_empty() {
            return String::new();
        }
        let [_, _, damaged, unreadable, _] = self.total();
        let unlisted = (damaged + unreadable).saturating_sub(ids.len() as u64);
        let more = if unlisted > 0 { format!("  … and {unlisted} more\n") } else { String::new() };
        format!("Placement ids of damaged or unreadable objects:\n  {}\n{more}", ids.join("\n  "))
    }

    fn damaged_runs(&self) -> String {
        let files: Vec<String> = self.runs().collect();
        if files.is_empty() {
            return String::new();
        }
        let meaning = "What they named is served, but neither listed nor expired until cleaning has moved it";
        format!("Damaged or missing runs of the index. {meaning}:\n  {}\n", files.join("\n  "))
    }

    fn runs(&self) -> impl Iterator<Item = String> + '_ {
        self.shards.iter().flat_map(|shard| shard.damaged_runs.iter()).map(|file| file.display().to_string())
    }

    fn ids(&self) -> impl Iterator<Item = String> + '_ {
        let hexadecimal = |id: &[u8; 20]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.shards.iter().flat_map(|shard| shard.damaged_ids.iter()).map(hexadecimal)
    }

    fn to_json(&self, dir: &Path) -> String {
        let shard = |shard: &ShardReport| {
            let [sound, bytes, damaged, unreadable, lost] = figures_of(shard);
            json!({
                "shard": shard.shard,
                "is_complete": shard.is_complete,
                "sound": sound,
                "bytes": bytes,
                "damaged": damaged,
                "unreadable": unreadable,
                "lost_in_the_log": lost,
                "stats": figures::named(&shard.stats),
            })
        };
        let action = match self.action {
            Action::Verify => "verify",
            Action::Stats => "stats",
            Action::Scrub { .. } => "scrub",
        };
        let report: Value = json!({
            "action": action,
            "dir": dir,
            "is_sound": self.shards.iter().all(ShardReport::is_sound),
            "is_complete": self.shards.iter().all(|shard| shard.is_complete),
            "seconds": self.seconds,
            "damaged_ids": self.ids().collect::<Vec<_>>(),
            "damaged_runs": self.runs().collect::<Vec<_>>(),
            "shards": self.shards.iter().map(shard).collect::<Vec<_>>(),
        });
        format!("{report:#}\n")
    }
}

/// Sound, bytes, damaged, unreadable, and what recovery had to pass over.
fn figures_of(shard: &ShardReport) -> [u64; 5] {
    [shard.sound, shard.bytes, shard.damaged, shard.unreadable, shard.stats.corrupt]
}
