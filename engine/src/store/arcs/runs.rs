//! Which runs there are, and which are merged next.
//!
//! Runs lie in the order of the log: their ranges of batches do not overlap, and an older run never has a lower level than a
//! newer one. A run written from memory has level 0; merging `fan_in` neighbours of one level gives a run of the next. So there
//! are fewer than `fan_in` runs of each level once merging has caught up, and an entry is rewritten once a level.
//!
//! Levels alone would let the highest level fill with entries that died long ago. So when the runs hold more than twice what
//! is alive, the oldest ones are merged even though their level is not full.

use crate::format::run::Run;

/// The runs of one shard, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
}

/// Runs to be merged into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MergePlan {
    /// Their numbers.
    pub(crate) runs: Vec<u32>,
    /// The level of the result.
    pub(crate) level: u32,
    /// The batches the result covers.
    pub(crate) sequences: (u64, u64),
}

impl Runs {
    pub(super) fn as_slice(&self) -> &[Run] {
        &self.runs
    }

    pub(super) fn get(&self, number: u32) -> Option<&Run> {
        self.runs.iter().find(|run| run.number == number)
    }

    pub(super) fn add(&mut self, run: Run) {
        assert!(!run.fences.is_empty(), "a run without entries is no run, and its fences were read");
        assert!(self.get(run.number).is_none(), "each run has its own number");
        let at = self.runs.partition_point(|held| held.first_sequence < run.first_sequence);
        self.runs.insert(at, run);
    }

    pub(super) fn remove(&mut self, numbers: &[u32]) {
        self.runs.retain(|run| !numbers.contains(&run.number));
    }

    /// What is best merged next, when so many objects are alive. `slack` entries more than twice that are no reason.
    pub(super) fn merge_plan(&self, fan_in: usize, alive: u64, slack: u64) -> Option<MergePlan> {
        assert!(fan_in >= 2);
        self.full_level(fan_in).or_else(|| self.mostly_dead(fan_in, alive, slack))
    }

    /// The oldest runs of the lowest level that is full.
    fn full_level(&self, fan_in: usize) -> Option<MergePlan> {
        let groups: Vec<&[Run]> = self.runs.chunk_by(|run, next| run.level == next.level).collect();
        let full = groups.into_iter().rev().find(|group| group.len() >= fan_in)?;
        Some(plan(&full[..fan_in], full[0].level + 1))
    }

    /// The oldest runs, if all runs together hold mostly dead entries.
    fn mostly_dead(&self, fan_in: usize, alive: u64, slack: u64) -> Option<MergePlan> {
        let entries: u64 = self.runs.iter().map(|run| run.entries).sum();
        if self.runs.is_empty() || entries <= alive * 2 + slack {
            return None;
        }
        let oldest = &self.runs[..self.runs.len().min(fan_in)];
        Some(plan(oldest, oldest[0].level))
    }
}

fn plan(runs: &[Run], level: u32) -> MergePlan {
    let (first, last) = (&runs[0], &runs[runs.len() - 1]);
    MergePlan {
        runs: runs.iter().map(|run| run.number).collect(),
        level,
        sequences: (first.first_sequence, last.last_sequence),
    }
}

/// Those of the runs found in a directory that another one was merged from: its range of batches lies inside that of a run
/// with a higher number. They were about to be unlinked.
pub(crate) fn superseded(found: &[Run]) -> Vec<u32> {
    let covers = |run: &Run, by: &Run| {
        by.number > run.number && by.first_sequence <= run.first_sequence && run.last_sequence <= by.last_sequence
    };
    found.iter().filter(|run| found.iter().any(|by| covers(run, by))).map(|run| run.number).collect()
}
