//! What takes time, and during which the index changes: runs, merges, rebuilds, snapshots, scans.

use super::{Life, Model, SEED};
use crate::format::run::{RunEntry, RunWriter};
use crate::key::Key;
use crate::store::arcs::Index;
use crate::store::arcs::codec::{decode_arc, decode_recents, encode_recents};
use crate::store::arcs::gathering::Gathering;
use crate::store::arcs::rebuild::Rebuild;
use crate::store::arcs::runs::MergePlan;
use crate::store::arcs::walk::{Entry, Step, Walk};
use std::collections::BTreeSet;

/// Something that takes time, and during which the index changes.
pub(super) enum Work {
    Run { walk: Walk, writer: RunWriter },
    Merge { walk: Walk, writer: RunWriter, plan: MergePlan },
    Rebuild(Rebuild),
    Snapshot { arcs: Vec<Vec<u8>>, recents: Vec<u8>, model: Model, generations: Vec<Option<u32>> },
    Scan { walk: Walk, met: Vec<Entry>, always: BTreeSet<(Key, u64)> },
}

impl Life {
    pub(super) fn begin_work(&mut self) {
        let identity = self.shelf.identity;
        let is_free = |work: &[Work], kind: fn(&Work) -> bool| !work.iter().any(kind);
        match self.chance.below(5) {
            0 if self.index.is_run_due() && is_free(&self.work, |work| matches!(work, Work::Run { .. })) => {
                self.coverage.moved_under_rebuilds += self.rebuilds(Gathering::is_among_recents);
                self.index.freeze_recents();
                let writer = self.shelf.begin_run();
                self.work.push(Work::Run { walk: Walk::of_frozen(identity), writer });
            }
            1 if is_free(&self.work, |work| matches!(work, Work::Merge { .. })) => {
                if let Some(plan) = self.index.merge_plan() {
                    let (walk, writer) = self.shelf.begin_merge(&plan);
                    self.work.push(Work::Merge { walk, writer, plan });
                }
            }
            2 => {
                self.work.extend(self.index.begin_rebuild(identity).map(Work::Rebuild));
            }
            3 if is_free(&self.work, |work| matches!(work, Work::Snapshot { .. })) => {
                self.index.begin_snapshot();
                let recents = encode_recents(self.index.recents(), SEED);
                let (model, generations) = (self.model.clone(), self.generations.clone());
                self.work.push(Work::Snapshot { arcs: Vec::new(), recents, model, generations });
            }
            4 if self.work.len() < 6 => {
                let walk = Walk::new(identity, [0; 20], [0xff; 20], None);
                let always = self.model.values().map(|entry| (entry.key, entry.version)).collect();
                self.work.push(Work::Scan { walk, met: Vec::new(), always });
            }
            _ => {}
        }
    }

    /// Does a little of some work under way.
    pub(super) fn go_on(&mut self) {
        if self.work.is_empty() {
            return;
        }
        let at = self.chance.below(self.work.len());
        let mut work = self.work.swap_remove(at);
        let steps = self.chance.below(60);
        if steps == 0 {
            return self.abandon(work);
        }
        let mut is_done = false;
        for _ in 0..steps {
            is_done = self.work_once(&mut work);
            if is_done {
                break;
            }
        }
        if is_done { self.finish(work) } else { self.work.push(work) }
    }

    fn abandon(&mut self, work: Work) {
        match work {
            Work::Run { .. } => {
                self.coverage.moved_under_rebuilds += self.rebuilds(Gathering::is_among_recents);
                self.index.thaw_recents();
            }
            Work::Rebuild(rebuild) => self.index.abandon_rebuild(&rebuild),
            Work::Snapshot { .. } => self.index.abandon_snapshot(),
            Work::Merge { .. } | Work::Scan { .. } => {}
        }
    }

    fn work_once(&mut self, work: &mut Work) -> bool {
        let (walk, mut meet): (&mut Walk, Box<dyn FnMut(Entry)>) = match work {
            Work::Run { walk, writer } | Work::Merge { walk, writer, .. } => {
                (walk, Box::new(|entry| push(writer, entry)))
            }
            Work::Rebuild(rebuild) => return !self.shelf.gather(rebuild, &self.index, 1).expect("all pages are sound"),
            Work::Scan { walk, met, .. } => (walk, Box::new(|entry| met.push(entry))),
            Work::Snapshot { arcs, .. } => match self.index.next_of_snapshot() {
                Some(bytes) => {
                    arcs.push(bytes);
                    return false;
                }
                None => return true,
            },
        };
        // Few at once, so that the index often changes in between.
        let mut some = Vec::new();
        let step = walk.step(&self.index, 1 + self.index.len() % 3, &mut some);
        some.into_iter().for_each(&mut meet);
        match step {
            Step::More => {}
            Step::Need(need) => {
                drop(meet);
                self.shelf.supply(walk, need);
            }
            Step::End => return true,
        }
        false
    }

    fn finish(&mut self, work: Work) {
        match work {
            Work::Run { writer, .. } => {
                let run = self.shelf.keep(writer);
                self.index.add_run(run);
                self.coverage.runs += 1;
            }
            Work::Merge { writer, plan, .. } => {
                let run = self.shelf.keep(writer);
                let is_merged = |gathering: &Gathering| gathering.run().is_some_and(|run| plan.runs.contains(&run));
                self.coverage.merged_under_rebuilds += self.rebuilds(is_merged);
                self.index.finish_merge(run, &plan.runs);
                self.coverage.merges += 1;
            }
            Work::Rebuild(rebuild) => {
                let arcs = self.index.arcs.len();
                let lost = self.index.finish_rebuild(rebuild).expect("all runs are sound");
                assert!(lost.is_empty());
                self.coverage.rebuilds += 1;
                self.coverage.splits += self.index.arcs.len() - arcs;
            }
            Work::Snapshot { arcs, recents, model, generations } => self.restore(&arcs, &recents, &model, &generations),
            Work::Scan { met, always, .. } => {
                assert!(met.windows(2).all(|pair| pair[0].key < pair[1].key), "each key once, in order");
                let met: BTreeSet<(Key, u64)> = met.iter().map(|entry| (entry.key, entry.version)).collect();
                for (key, version) in always {
                    let is_held = self.model.get(&key).is_some_and(|held| held.version == version);
                    // It may have been away in between, and then be back under the same version: a new put of version 0.
                    assert!(
                        !is_held || version == 0 || met.contains(&(key, version)),
                        "alive all the while, and not met"
                    );
                }
            }
        }
    }

    /// What a snapshot brings back is what the index was when it began.
    fn restore(&self, arcs: &[Vec<u8>], recents: &[u8], model: &Model, generations: &[Option<u32>]) {
        let decoded = arcs.iter().map(|bytes| {
            let (arc, length) = decode_arc(bytes, SEED).expect("what was encoded");
            assert_eq!(length, bytes.len());
            arc
        });
        let (recents, _) = decode_recents(recents, SEED).expect("what was encoded");
        let mut index = Index::restore(self.index.settings(), decoded.collect(), &recents).expect("a whole ring");
        for (segment, generation) in generations.iter().enumerate() {
            index.set_generation(segment as u16, *generation);
        }
        index.check();
        assert_eq!(index.len(), model.len());
        for entry in model.values() {
            assert_eq!(index.tick_of(&entry.key, entry.locator), Some(entry.tick));
        }
        let runs = self.shelf.numbers().into_iter().map(|number| self.shelf.open_run(number).expect("sound")).collect();
        index.adopt_runs(runs);
        let mut walked = Vec::new();
        self.shelf.each(Walk::new(self.shelf.identity, [0; 20], [0xff; 20], None), &index, |entry| walked.push(entry));
        // Entries that died since the snapshot may have fallen out of its runs by merging: replay removes them. The others are there.
        for (key, entry) in model.iter().filter(|(key, entry)| self.model.get(*key) == Some(*entry)) {
            assert!(walked.contains(entry), "{key:?} is missing");
        }
    }

    /// Rebuilds under way that are at such a point.
    fn rebuilds(&self, is_there: impl Fn(&Gathering) -> bool) -> usize {
        self.work.iter().filter(|work| matches!(work, Work::Rebuild(rebuild) if is_there(rebuild.gathering()))).count()
    }

    pub(super) fn rebuild_now(&mut self) {
        let arcs = self.index.arcs.len();
        self.coverage.rebuilds += usize::from(self.shelf.rebuild(&mut self.index));
        self.coverage.splits += self.index.arcs.len() - arcs;
    }
}

fn push(writer: &mut RunWriter, entry: Entry) {
    let Entry { key, version, locator, length, generation, .. } = entry;
    writer.push(&RunEntry { key, version, locator, length, generation });
}
