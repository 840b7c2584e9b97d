//! How far a command is: a spinner on a terminal, lines elsewhere. On standard error.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Tells how far the start of the nodes is.
pub struct Progress {
    spinner: Option<ProgressBar>,
    total: usize,
}

impl Progress {
    /// A start of so many nodes.
    pub fn new(total: usize) -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(format!("starting {total} nodes"));
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let progress = Progress { spinner, total };
        if progress.spinner.is_none() {
            progress.say(&format!("starting {total} nodes"));
        }
        progress
    }

    /// A node is ready; some are missing.
    pub fn ready(&self, node: usize, missing: usize) {
        match &self.spinner {
            Some(bar) => bar.set_message(format!("{} of {} nodes are ready", self.total - missing, self.total)),
            None => self.say(&format!("node {} is ready", node + 1)),
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        let write = || {
            let _ = writeln!(io::stderr(), "epost: {text}");
        };
        match &self.spinner {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Nothing is on its way any more.
    pub fn end(&mut self) {
        if let Some(bar) = self.spinner.take() {
            bar.finish_and_clear();
        }
    }
}
