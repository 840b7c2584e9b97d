//! What is said about a measurement: a table for people, JSON for machines, a file for the record.

mod findings;
mod machine;
mod neighbours;
pub(crate) mod plot;
mod table;

use crate::load::LoadError;
use machine::Machine;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use findings::{Findings, columns};
pub(crate) use neighbours::Watch;

/// One round of one case: operations per second here, and of what it is compared with.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// The figure.
    pub(crate) value: f64,
    /// The figure it is compared with, measured in the same round.
    pub(crate) raw: Option<f64>,
}

impl Sample {
    /// A figure with nothing beside it.
    pub(crate) fn alone(value: f64) -> Sample {
        Sample { value, raw: None }
    }

    /// Two rates of the same round.
    pub(crate) fn against(count: usize, elapsed: Duration, raw_count: usize, raw_elapsed: Duration) -> Sample {
        Sample { value: count as f64 / elapsed.as_secs_f64(), raw: Some(raw_count as f64 / raw_elapsed.as_secs_f64()) }
    }
}

/// One case with its rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) case: String,
    /// The unit of the figures.
    pub(crate) unit: &'static str,
    /// One sample per round.
    pub(crate) samples: Vec<Sample>,
}

impl Row {
    /// A case without samples yet.
    pub(crate) fn new(case: impl Into<String>, unit: &'static str) -> Row {
        Row { case: case.into(), unit, samples: Vec::new() }
    }
}

/// A measurement with everything needed to judge it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Which one.
    pub(crate) what: &'static str,
    machine: Machine,
    /// Share of the processors that others had meanwhile.
    others_percent: Option<f64>,
    notes: Vec<String>,
    /// The cases.
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// A report about this machine, the disk that holds `dir`, and what went on beside it during `watch`.
    pub(crate) fn new(what: &'static str, dir: &Path, watch: &Watch) -> Report {
        let others_percent = watch.others_percent();
        Report { what, machine: Machine::here(dir), others_percent, notes: Vec::new(), rows: Vec::new() }
    }

    /// Adds a sentence that a reader needs to understand the figures.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints the report, and writes it to the record when asked to.
    pub(crate) fn publish(&self, json: bool, record: bool) -> Result<(), LoadError> {
        let text = serde_json::to_string_pretty(self)?;
        if json {
            println!("{text}");
        } else {
            print!("{}", self.table());
        }
        if record {
            let file = place(&self.machine, self.what)?;
            std::fs::write(&file, text + "\n")?;
            std::fs::write(file.with_extension("txt"), self.table())?;
            eprintln!("recorded in {}", file.display());
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut text = format!("{}\n{}\n", self.what, self.machine);
        if let Some(percent) = self.others_percent {
            text += &format!(
                "other processes and the kernel's own threads had {percent:.0} % of the processors meanwhile\n"
            );
        }
        text += &table::render(&self.rows);
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        text
    }
}

/// `perf/record/<machine>/<date>/<what>.json`, with its folder.
fn place(machine: &Machine, what: &str) -> Result<PathBuf, LoadError> {
    let folder = machine.folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("record"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{}.json", what.replace(' ', "-"))))
}
