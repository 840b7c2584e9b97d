//! The workloads, W1 to W10, and the stage they are played on.
//!
//! Rounds are the outer loop and stores the inner one, so that what the machine does to one store it does to all. A
//! store that fails in a case is absent from it, with its own words; only a request to stop ends the comparison.

mod expire;
mod get;
mod lease;
mod list;
mod memory;
mod periods;
mod put;
mod restart;
mod shelf;

use crate::data::Objects;
use crate::fault::Fault;
use crate::report::{Book, Case};
use crate::store::{Kind, Setting};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use memory::measure as measure_memory;
pub(crate) use restart::put_until_killed;
pub(crate) use shelf::VALUE_BYTES;

/// What can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Workload {
    /// Durable puts.
    W1,
    /// Hot gets.
    W2,
    /// Cold gets.
    W3,
    /// Listing.
    W4,
    /// Lease extensions.
    W5,
    /// Expiry, until space is back.
    W6,
    /// Restart after kill -9.
    W7,
    /// Memory per object.
    W8,
    /// Device writes over lease periods.
    W9,
    /// Latency while expiring: measured together with W6.
    W10,
}

/// How much of everything.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Stores, in the order of the tables.
    pub(crate) kinds: Vec<Kind>,
    /// Rounds of W1 to W5 and W8.
    pub(crate) rounds: usize,
    /// Rounds of W6, W7, W9 and W10, which make a store each time.
    pub(crate) long_rounds: usize,
    /// Objects in the stores that W2 to W5, W7 and W8 share.
    pub(crate) objects: usize,
    /// Objects of the stores in which a tenth expires (W6, W10), and over whose leases periods pass (W9).
    pub(crate) expiring: usize,
    /// Time of one case of W1.
    pub(crate) put_time: Duration,
    /// Time of one case of W2 to W5.
    pub(crate) case_time: Duration,
    /// How long W6 waits for space, and W10 looks at a foreground: as long when it is quiet as when something expires, since
    /// the longest waits of a longer time are longer.
    pub(crate) patience: Duration,
    /// Memory for each store's own cache.
    pub(crate) cache_bytes: usize,
}

/// Plays one workload.
type Play = fn(&mut Stage) -> Result<(), Fault>;

/// Everything a workload needs, and where it leaves its figures.
pub(crate) struct Stage {
    pub(crate) plan: Plan,
    /// Scratch, removed at the end.
    pub(crate) scratch: PathBuf,
    pub(crate) objects: Objects,
    pub(crate) book: Book,
    pub(crate) notes: Vec<String>,
    progress: ProgressBar,
    /// Stores whose shelf is there; those that could not be loaded are not asked again.
    shelved: Vec<Kind>,
}

impl Stage {
    pub(crate) fn new(plan: Plan, scratch: PathBuf) -> Stage {
        let progress = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed_precise} {msg:40}") {
            progress.set_style(style);
        }
        let objects = Objects::new(1);
        Stage { plan, scratch, objects, book: Book::default(), notes: Vec::new(), progress, shelved: Vec::new() }
    }

    /// Plays all that were chosen.
    pub(crate) fn play(&mut self, chosen: &[Workload]) -> Result<(), Fault> {
        self.progress.set_length(self.steps(chosen) as u64);
        let has = |workload| chosen.contains(&workload);
        if has(Workload::W1) {
            put::play(self)?;
        }
        if [Workload::W2, Workload::W3, Workload::W4, Workload::W5, Workload::W7, Workload::W8].into_iter().any(has) {
            shelf::fill(self)?;
        }
        let shared: [(Workload, Play); 6] = [
            (Workload::W2, get::hot),
            (Workload::W3, get::cold),
            (Workload::W4, list::play),
            (Workload::W5, lease::play),
            (Workload::W8, memory::play),
            (Workload::W7, restart::play),
        ];
        for (workload, play) in shared {
            if has(workload) {
                play(self)?;
            }
        }
        shelf::clear(self)?;
        if has(Workload::W6) || has(Workload::W10) {
            expire::play(self)?;
        }
        if has(Workload::W9) {
            periods::play(self)?;
        }
        self.progress.finish_and_clear();
        Ok(())
    }

    /// Steps that the progress bar will show.
    fn steps(&self, chosen: &[Workload]) -> usize {
        let (plan, stores) = (&self.plan, self.plan.kinds.len());
        let has = |workload| chosen.contains(&workload);
        let mut steps = 0;
        if has(Workload::W1) {
            steps += put::steps(plan);
        }
        let on_shelf = [Workload::W2, Workload::W3, Workload::W4, Workload::W5, Workload::W8];
        let short = on_shelf.into_iter().filter(|workload| has(*workload)).count();
        steps += short * plan.rounds * stores;
        if short > 0 || has(Workload::W7) {
            steps += stores;
        }
        let long = [has(Workload::W6) || has(Workload::W10), has(Workload::W7), has(Workload::W9)];
        steps + long.into_iter().filter(|chosen| *chosen).count() * plan.long_rounds * stores
    }

    /// Says what is being done now.
    pub(crate) fn now(&self, words: String) -> Result<(), Fault> {
        crate::stop::check()?;
        if self.progress.is_hidden() {
            eprintln!("{}/{} {words}", self.progress.position(), self.progress.length().unwrap_or(0));
        }
        self.progress.set_message(words);
        Ok(())
    }

    /// One step is done.
    pub(crate) fn step(&self) {
        self.progress.inc(1);
    }

    /// How a store of `objects` objects is opened.
    pub(crate) fn setting(&self, data_bytes: u64) -> Setting {
        Setting { cache_bytes: self.plan.cache_bytes, data_bytes, cold: false }
    }

    /// Notes a figure, or a fault as the reason for its absence.
    pub(crate) fn take(&mut self, case: &Case, store: &str, measured: Result<f64, Fault>) -> Result<(), Fault> {
        match measured {
            Ok(value) => self.book.sample(case, store, value),
            Err(Fault::Interrupted) => return Err(Fault::Interrupted),
            Err(fault) => self.book.absent(case, store, fault.to_string()),
        }
        Ok(())
    }

    /// Notes a fault that took several cases with it.
    pub(crate) fn excuse<T>(
        &mut self,
        cases: &[Case],
        store: &str,
        done: Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Fault::Interrupted) => Err(Fault::Interrupted),
            Err(fault) => {
                for case in cases {
                    self.book.absent(case, store, fault.to_string());
                }
                Ok(None)
            }
        }
    }
}
