//! What is said about a comparison: a table for people, JSON for machines, a picture for a page.
//!
//! A row is one contender in one case, with a figure a round. The description of the machine is the one that `perf` uses.

#[path = "../../../src/report/machine.rs"]
mod machine;
#[path = "../../../src/report/neighbours.rs"]
mod neighbours;
mod plot;
mod table;

use crate::fault::Fault;
use crate::work::{Case, Done};
use machine::Machine;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use neighbours::Watch;

/// One contender in one case; all lists have an entry a round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    case: Case,
    contender: &'static str,
    /// In the unit of the case.
    per_second: Vec<f64>,
    /// Of one record or read.
    processor_microseconds: Vec<f64>,
    /// Empty for reads, and where the kernel does not tell.
    flushes_per_commit: Vec<f64>,
}

impl Row {
    /// No round yet.
    pub(crate) fn new(case: Case, contender: &'static str) -> Row {
        let none = Vec::new;
        Row { case, contender, per_second: none(), processor_microseconds: none(), flushes_per_commit: none() }
    }

    /// Notes a round.
    pub(crate) fn note(&mut self, done: &Done) {
        assert!(done.operations > 0, "a round is a figure");
        let operations = done.operations as f64;
        self.per_second.push(operations / done.elapsed.as_secs_f64());
        self.processor_microseconds.push(done.processor.as_secs_f64() * 1e6 / operations);
        if let Some(flushes) = done.flushes.filter(|_| done.commits > 0) {
            self.flushes_per_commit.push(flushes as f64 / done.commits as f64);
        }
    }
}

/// A comparison with everything needed to judge it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    what: &'static str,
    machine: Machine,
    /// Share of the processors that others had meanwhile.
    others_percent: Option<f64>,
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    /// A report about this machine, the disk that holds `dir`, and what went on beside it during `watch`.
    pub(crate) fn new(dir: &Path, watch: &Watch, notes: Vec<String>, rows: Vec<Row>) -> Report {
        let others_percent = watch.others_percent();
        Report { what: "runtimes", machine: Machine::here(dir), others_percent, notes, rows }
    }

    /// The table.
    pub(crate) fn text(&self) -> String {
        let mut text =
            format!("{}: a shard's disk work on the raw ring and on four runtimes\n{}\n", self.what, self.machine);
        if let Some(percent) = self.others_percent {
            text += &format!(
                "other processes and the kernel's own threads had {percent:.0} % of the processors meanwhile\n"
            );
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        text + &table::render(&self.rows)
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> Result<String, Fault> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Writes table, JSON and picture to `<root>/<machine>/<date>/`; returns the folder.
    pub(crate) fn record(&self, root: &Path) -> Result<PathBuf, Fault> {
        let folder = self.machine.folder(root);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("runtimes.json"), self.json()?)?;
        fs::write(folder.join("runtimes.txt"), self.text())?;
        fs::write(folder.join("runtimes.svg"), plot::draw(&self.machine.to_string(), &self.rows))?;
        Ok(folder)
    }
}

/// The rows of each case, which lie together; the first of each is the one that others are compared with.
fn by_case(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|left, right| left.case == right.case)
}

/// Median, least and most; `None` of nothing.
fn spread(figures: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.first().copied()?, sorted.last().copied()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
    Some((median, low, high))
}

/// A figure as people read it: three digits that count, and a letter for thousands and millions.
fn figure(value: f64) -> String {
    let (scaled, letter) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 9_995.0 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{letter}")
}

#[cfg(test)]
mod tests {
    //! Goal: what is said is what was measured. Method: rows whose median, range and ratio are known by hand.

    use super::*;
    use crate::work::CASES;
    use std::time::Duration;

    fn rows() -> Vec<Row> {
        let (mut raw, mut other) = (Row::new(CASES[0], "raw ring"), Row::new(CASES[0], "other <&>"));
        // Of the medians the ratio would be 0.5, of the rounds it is 0.25.
        for (by_raw, by_other) in [(4_000, 1_000), (2_000, 1_500), (8_000, 2_000), (3_000, 3_000), (5_000, 500)] {
            raw.note(&done(by_raw));
            other.note(&done(by_other));
        }
        vec![raw, other, Row::new(CASES[6], "raw ring")]
    }

    fn done(operations: u64) -> Done {
        let (elapsed, processor) = (Duration::from_secs(2), Duration::from_micros(3 * operations));
        Done { operations, commits: 10, elapsed, processor, flushes: Some(9) }
    }

    #[test]
    fn median_and_range_are_those_of_the_rounds() {
        let rows = rows();
        assert_eq!(spread(&rows[0].per_second), Some((2_000.0, 1_000.0, 4_000.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)), "of an even number it lies between");
        assert_eq!(spread(&[]), None);
        assert_eq!((rows[1].processor_microseconds[0], rows[1].flushes_per_commit[0]), (3.0, 0.9));
    }

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let text = table::render(&rows());
        let line = text.lines().find(|line| line.contains("other")).expect("there");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["other", "<&>", "750", "(250-1500)", "0.25", "(0.10-1.00)", "3.00", "0.90"], "{text}");
    }

    #[test]
    fn a_picture_is_well_formed_and_names_all() {
        let picture = plot::draw("a machine", &rows());
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("other &lt;&amp;&gt;") && !picture.contains("other <&>"));
        assert!(picture.contains(CASES[0].name) && picture.contains(CASES[6].name));
        assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
    }

    #[test]
    fn figures_have_three_digits() {
        let shown = [0.012, 1.5, 42.0, 420.0, 4200.0, 42_000.0, 4.2e6].map(figure);
        assert_eq!(shown, ["0.01", "1.50", "42.0", "420", "4200", "42.0k", "4.20M"]);
    }
}
