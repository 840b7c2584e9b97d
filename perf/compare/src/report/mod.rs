//! What is said about a comparison: a table for people, JSON for machines, pictures for a page.
//!
//! A row is one store in one case of one workload, with a sample per round. What a store cannot do is a row without
//! samples and with a reason; it is never a zero. The description of the machine is the one that `perf` uses.

#[path = "../../../src/report/machine.rs"]
mod machine;
#[path = "../../../src/report/neighbours.rs"]
mod neighbours;
mod plot;
mod table;

use crate::fault::Fault;
use machine::Machine;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use neighbours::Watch;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// A rate.
    Higher,
    /// A time, a size, a cost.
    Lower,
}

/// A case: what is done, in which unit it is told, and which way is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    /// W1 to W10.
    pub(crate) workload: &'static str,
    /// What is done.
    pub(crate) name: String,
    /// The unit of the figures.
    pub(crate) unit: &'static str,
    /// Which way is good.
    pub(crate) better: Better,
}

impl Case {
    /// A rate.
    pub(crate) fn rate(workload: &'static str, name: impl Into<String>, unit: &'static str) -> Case {
        Case { workload, name: name.into(), unit, better: Better::Higher }
    }

    /// A cost.
    pub(crate) fn cost(workload: &'static str, name: impl Into<String>, unit: &'static str) -> Case {
        Case { workload, name: name.into(), unit, better: Better::Lower }
    }
}

/// One store in one case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The case.
    #[serde(flatten)]
    pub(crate) case: Case,
    /// The store, with "+ batcher" where one stood in front of it.
    pub(crate) store: String,
    /// A figure per round.
    pub(crate) samples: Vec<f64>,
    /// Why there is none.
    pub(crate) absent: Option<String>,
}

impl Row {
    /// Median, least and most; `None` without samples.
    pub(crate) fn spread(&self) -> Option<(f64, f64, f64)> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted.first().copied()?, sorted.last().copied()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some((median, low, high))
    }
}

/// Rows as they come in, in the order in which they were first heard of.
#[derive(Debug, Default)]
pub(crate) struct Book {
    rows: Vec<Row>,
}

impl Book {
    fn row(&mut self, case: &Case, store: &str) -> &mut Row {
        let known = self.rows.iter().position(|row| row.case == *case && row.store == store);
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row { case: case.clone(), store: store.to_owned(), samples: Vec::new(), absent: None });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// Notes a figure.
    pub(crate) fn sample(&mut self, case: &Case, store: &str, value: f64) {
        self.row(case, store).samples.push(value);
    }

    /// Notes that there is none, and why.
    pub(crate) fn absent(&mut self, case: &Case, store: &str, reason: impl Into<String>) {
        self.row(case, store).absent = Some(reason.into());
    }
}

/// A comparison with everything needed to judge it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    /// Share of the processors that others had meanwhile.
    others_percent: Option<f64>,
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    /// A report about this machine, the disk that holds `dir`, and what went on beside it during `watch`.
    pub(crate) fn new(dir: &Path, watch: &Watch, notes: Vec<String>, book: Book) -> Report {
        let mut rows = book.rows;
        // By workload, rates before costs, and otherwise as they came.
        rows.sort_by_key(|row| (order(row.case.workload), row.case.better == Better::Lower));
        Report { machine: Machine::here(dir), others_percent: watch.others_percent(), notes, rows }
    }

    /// The table.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("the engine beside other stores\n{}\n", self.machine);
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

    /// Writes table, JSON and pictures to `<root>/<machine>/<date>/`; returns the folder.
    pub(crate) fn record(&self, root: &Path) -> Result<PathBuf, Fault> {
        let folder = self.machine.folder(root);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("compare.json"), self.json()?)?;
        fs::write(folder.join("compare.txt"), self.text())?;
        let place = self.machine.to_string();
        for workload in self.workloads() {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.case.workload == workload).collect();
            let file = folder.join(format!("compare-{}.svg", workload.to_lowercase()));
            fs::write(file, plot::draw(workload, &place, &rows))?;
        }
        Ok(folder)
    }

    fn workloads(&self) -> Vec<&'static str> {
        let mut seen = Vec::new();
        for row in &self.rows {
            if !seen.contains(&row.case.workload) {
                seen.push(row.case.workload);
            }
        }
        seen
    }
}

/// The number of a workload.
fn order(workload: &str) -> u32 {
    workload.trim_start_matches('W').parse().unwrap_or(u32::MAX)
}

/// The cases of some rows, in order.
fn cases<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<&'a Case> {
    let mut seen: Vec<&Case> = Vec::new();
    for row in rows {
        if !seen.contains(&&row.case) {
            seen.push(&row.case);
        }
    }
    seen
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
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    format!("{scaled:.digits$}{letter}")
}

/// What a workload is called over a table or a picture.
fn title(workload: &str) -> &'static str {
    match workload {
        "W1" => "W1: durable puts",
        "W2" => "W2: hot gets",
        "W3" => "W3: cold gets",
        "W4" => "W4: listing a sixteenth of the ring",
        "W5" => "W5: durable lease extensions",
        "W6" => "W6: a tenth expires, until its space is back",
        "W7" => "W7: after kill -9",
        "W8" => "W8: memory per object",
        "W9" => "W9: device writes over lease periods",
        "W10" => "W10: foreground p99.9, quiet and while a tenth expires",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what is said is what was measured. Method: rows whose median, range and ratio are known by hand.

    use super::*;

    fn book() -> Book {
        let mut book = Book::default();
        let case = Case::rate("W1", "put", "puts/s");
        for (ours, theirs) in [(30_000.0, 10.0), (10_000.0, 20.0), (20_000.0, 40.0)] {
            book.sample(&case, "engine", ours);
            book.sample(&case, "redb <&>", theirs);
        }
        book.absent(&case, "files", "no such thing");
        book
    }

    #[test]
    fn a_row_is_its_samples() {
        let book = book();
        assert_eq!(book.rows[0].spread(), Some((20_000.0, 10_000.0, 30_000.0)));
        assert_eq!(book.rows[2].spread(), None);
        let text = table::render(&book.rows);
        assert!(text.contains("20.0k"), "{text}");
        assert!(text.contains("500"), "ours by theirs of the same round: {text}");
        assert!(text.contains("absent: no such thing"), "{text}");
    }

    #[test]
    fn a_picture_is_well_formed_and_names_all_stores() {
        let book = book();
        let rows: Vec<&Row> = book.rows.iter().collect();
        let picture = plot::draw("W1", "a machine", &rows);
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("redb &lt;&amp;&gt;") && !picture.contains("redb <&>"));
        assert!(picture.contains("no such thing"));
    }

    #[test]
    fn figures_have_three_digits() {
        let shown: Vec<String> = [0.0123, 1.5, 42.0, 420.0, 4200.0, 42_000.0, 4.2e6].map(figure).to_vec();
        assert_eq!(shown, ["0.012", "1.50", "42.0", "420", "4200", "42.0k", "4.20M"]);
    }
}
