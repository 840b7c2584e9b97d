//! What a simulation found: counts with the machine and the commit, as a table for people and as JSON.

use super::machine::Machine;
use super::{Watch, place};
use crate::load::LoadError;
use serde::Serialize;
use std::path::Path;

/// Counts of a simulation with everything needed to judge them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Findings {
    what: &'static str,
    machine: Machine,
    others_percent: Option<f64>,
    notes: Vec<String>,
    figures: serde_json::Value,
    #[serde(skip)]
    table: String,
}

impl Findings {
    /// Findings on this machine and the disk that holds `dir`, with the same figures as a table.
    pub(crate) fn new(
        what: &'static str,
        dir: &Path,
        watch: &Watch,
        figures: &impl Serialize,
        table: String,
    ) -> Result<Findings, LoadError> {
        let (machine, others_percent) = (Machine::here(dir), watch.others_percent());
        let figures = serde_json::to_value(figures)?;
        Ok(Findings { what, machine, others_percent, notes: Vec::new(), figures, table })
    }

    /// Adds a sentence that a reader needs to understand the figures.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The commit that was run.
    pub(crate) fn commit(&self) -> &str {
        &self.machine.commit
    }

    /// Prints the findings, and writes them to the record when asked to.
    pub(crate) fn publish(&self, json: bool, record: bool) -> Result<(), LoadError> {
        let text = serde_json::to_string_pretty(self)?;
        let mut table = format!("{}\n{}\n{}", self.what, self.machine, self.table);
        for note in &self.notes {
            table += &format!("{note}\n");
        }
        if json {
            println!("{text}");
        } else {
            print!("{table}");
        }
        if record {
            let file = place(&self.machine, self.what)?;
            std::fs::write(&file, text + "\n")?;
            std::fs::write(file.with_extension("txt"), table)?;
            eprintln!("recorded in {}", file.display());
        }
        Ok(())
    }
}

/// Lines of a name and figures, aligned: names to the left, figures to the right.
pub(crate) fn columns(lines: &[(String, Vec<String>)]) -> String {
    let name = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let count = lines.iter().map(|(_, figures)| figures.len()).max().unwrap_or(0);
    let widest = |column: usize| lines.iter().filter_map(|(_, figures)| figures.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..count).map(|column| widest(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (first, figures) in lines {
        text += &format!("{first:name$}");
        for (figure, width) in figures.iter().zip(&widths) {
            text += &format!("  {figure:>width$}");
        }
        text.push('\n');
    }
    text
}
