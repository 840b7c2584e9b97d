//! Where a figure was measured: processor, memory, kernel, disk, and the commit.

use serde::Serialize;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// This machine, as far as a figure depends on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    disk: String,
    /// The commit, and whether the tree has been changed since.
    pub(crate) commit: String,
    compiler: String,
    /// The day of the measurement, year first.
    date: String,
}

impl Machine {
    /// Reads it from the system; what cannot be read is called unknown.
    pub(crate) fn here(dir: &Path) -> Machine {
        Machine {
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .split(' ')
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            disk: disk(dir),
            commit: commit(),
            compiler: said("rustc", &["--version"]).unwrap_or_else(unknown),
            date: today(),
        }
    }

    /// Where below `root` a record of today goes: `<machine>/<date>`.
    pub(crate) fn folder(&self, root: &Path) -> PathBuf {
        root.join(self.name()).join(&self.date)
    }

    /// Processor and cores, as a folder is named.
    fn name(&self) -> String {
        let mut name: String = self
            .processor
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
            .collect();
        while name.contains("--") {
            name = name.replace("--", "-");
        }
        format!("{}-{}-cores", name.trim_matches('-'), self.cores)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}, {} cores, {} MiB; Linux {}", self.processor, self.cores, self.memory_mib, self.kernel)?;
        write!(out, "{}; {}; commit {}; {}", self.disk, self.compiler, self.commit, self.date)
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The value of the first `name : value` line of a file below /proc.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or_else(unknown, |(_, value)| value.trim().to_owned())
}

/// What a program prints, if it ran well.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The commit, and whether the tree has been changed since.
fn commit() -> String {
    let tree = env!("CARGO_MANIFEST_DIR");
    let Some(hash) = said("git", &["-C", tree, "rev-parse", "--short=12", "HEAD"]) else { return unknown() };
    match said("git", &["-C", tree, "status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => hash,
        _ => format!("{hash} with changes"),
    }
}

/// File system, device and the device's write cache, of the disk that holds `dir`.
fn disk(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(_, place, _)| dir.starts_with(place))
        .max_by_key(|(_, place, _)| place.len());
    let Some((device, _, system)) = mount else { return unknown() };
    let name = device.trim_start_matches("/dev/");
    let setting = |what: &str| {
        let text = fs::read_to_string(format!("/sys/class/block/{name}/queue/{what}")).ok()?;
        Some(text.trim().to_owned())
    };
    match (setting("write_cache"), setting("rotational")) {
        (Some(cache), Some(rotational)) => {
            let kind = if rotational == "1" { "rotational" } else { "not rotational" };
            format!("{system} on {device} ({kind}, {cache} cache)")
        }
        _ => format!("{system} on {device}"),
    }
}

/// Today's date in UTC (days to civil, after the proleptic Gregorian calendar).
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let days = (seconds / 86_400) as i64 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
