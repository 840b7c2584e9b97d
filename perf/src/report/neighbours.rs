//! How much of the machine others had while something was measured: a figure from a busy machine says so itself.
//!
//! Processor time that the whole machine spent, less that of this process and of the processes it waited for. What is
//! left is other people's work, and the kernel's on our behalf (its own threads write to the disk).

use std::fs;
use std::time::Instant;

/// Ticks of the kernel's accounts in a second (`USER_HZ`, the same on every Linux that matters here).
const TICKS_PER_SECOND: f64 = 100.0;
/// In a line of /proc/stat: user, nice, system, then idle and iowait, then irq, softirq and steal.
const BUSY_COLUMNS: [usize; 6] = [0, 1, 2, 5, 6, 7];
/// In /proc/self/stat behind the name: our own time in user mode and in the kernel, then that of awaited children.
const OWN_COLUMNS: [usize; 4] = [11, 12, 13, 14];

/// A moment from which on the machine is watched.
pub(crate) struct Watch {
    start: Instant,
    others: Option<f64>,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn start() -> Watch {
        Watch { start: Instant::now(), others: others_ticks() }
    }

    /// The share of all processors that others had since the start, in percent; `None` where /proc does not tell.
    pub(crate) fn others_percent(&self) -> Option<f64> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let whole = self.start.elapsed().as_secs_f64() * TICKS_PER_SECOND * cores;
        let ticks = others_ticks()? - self.others?;
        (whole > 0.0).then(|| (100.0 * ticks / whole).clamp(0.0, 100.0))
    }
}

fn others_ticks() -> Option<f64> {
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    Some(machine_ticks(&machine)? - own_ticks(&own)?)
}

fn machine_ticks(stat: &str) -> Option<f64> {
    sum(stat.lines().next()?.strip_prefix("cpu ")?, &BUSY_COLUMNS)
}

/// The name in brackets may hold anything, spaces and brackets too.
fn own_ticks(stat: &str) -> Option<f64> {
    sum(stat.rsplit_once(')')?.1, &OWN_COLUMNS)
}

fn sum(words: &str, columns: &[usize]) -> Option<f64> {
    let words: Vec<&str> = words.split_whitespace().collect();
    columns.iter().map(|column| words.get(*column)?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    //! Goal: the right columns are read. Method: lines as the kernel prints them, summed by hand.

    use super::*;

    #[test]
    fn idle_time_is_nobodys() {
        assert_eq!(machine_ticks("cpu  100 20 30 9999 8888 4 5 6 0 0\ncpu0 1 2 3 4\n"), Some(165.0));
        assert_eq!(machine_ticks("intr 1 2 3"), None);
    }

    #[test]
    fn a_name_with_brackets_moves_no_column() {
        let stat = "42 (a ) b) R 1 42 42 0 -1 4194304 10 20 0 0 7 8 9 10 20 0 1 0";
        assert_eq!(own_ticks(stat), Some(34.0));
    }
}
