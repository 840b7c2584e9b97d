//! How far a command is, step by step: a bar on a terminal, lines elsewhere. On standard error.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Without a terminal, a step that only waits says where it stands so often.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Without a terminal, a step of many pieces says where it stands so many times.
const LINES_A_STEP: usize = 4;

/// Tells how far it is.
pub struct Progress {
    is_terminal: bool,
    bar: Option<ProgressBar>,
    done: usize,
    total: usize,
    said: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Of a command that has not begun.
    pub fn new() -> Self {
        Progress { is_terminal: io::stderr().is_terminal(), bar: None, done: 0, total: 0, said: Instant::now() }
    }

    /// A step of so many pieces begins; 0 if nobody knows how many.
    pub fn begin(&mut self, what: &str, total: usize) {
        self.end();
        (self.done, self.total, self.said) = (0, total, Instant::now());
        if !self.is_terminal {
            self.say(what);
            return;
        }
        let bar = if total > 0 { ProgressBar::new(total as u64) } else { ProgressBar::new_spinner() };
        let looks = if total > 0 { "{spinner} {msg}  {bar:30}  {pos} of {len}" } else { "{spinner} {msg}  {elapsed}" };
        bar.set_style(ProgressStyle::with_template(looks).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    /// One of few pieces is done: worth a line.
    pub fn advance(&mut self, what: &str) {
        self.done += 1;
        match &self.bar {
            Some(bar) => bar.set_position(self.done as u64),
            None => self.say(what),
        }
    }

    /// So many of many pieces are done.
    pub fn reach(&mut self, done: usize) {
        let quarter = |done: usize| (done * LINES_A_STEP).checked_div(self.total).unwrap_or(0);
        let is_news = quarter(done) > quarter(self.done);
        self.done = done;
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None if is_news => self.say(&format!("{done} of {}", self.total)),
            None => {}
        }
    }

    /// Where a step stands that only waits.
    pub fn stands(&mut self, where_it_is: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(where_it_is.to_owned()),
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                self.say(where_it_is);
            }
            None => {}
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        let write = || {
            let _ = writeln!(io::stderr(), "epost: {text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Nothing is on its way any more.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
