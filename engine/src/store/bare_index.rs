//! The index with nothing around it: no disk, no log, runs in memory. What benches measure and the index's own tests drive.
//!
//! It does what a shard's store does with an index, at once instead of in quanta: when the recents are full it writes them as
//! a run, merges runs when that is due, and rebuilds arcs that have become too small. Every byte of a run is encoded,
//! checked and decoded as it would be from a disk.

use super::arcs::arc::Arc;
use super::arcs::codec::decode_arc;
use super::arcs::gathering::Progress;
use super::arcs::hash::KeyHash;
use super::arcs::locator::{Locator, OFFSET_MAX, UNIT};
use super::arcs::rebuild::Rebuild;
use super::arcs::runs::MergePlan;
use super::arcs::table::Table;
use super::arcs::walk::{Entry, Need, Step, Walk};
use super::arcs::{Index, Settings};
use crate::format::run::{PAGE, Run, RunEntry, RunWriter};
use crate::format::{Damage, Identity};
use crate::key::Key;
use crate::limits;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Bytes of the records that the entries pretend to have.
const RECORD_BYTES: u32 = 4096;
/// The generation of all segments.
const GENERATION: u32 = 1;

/// An index that keeps its runs itself. See the module.
pub struct BareIndex {
    pub(crate) index: Index,
    pub(crate) shelf: Shelf,
    /// Where the next record is pretended to lie.
    next: (u16, u32),
}

/// The files of runs, in memory.
pub(crate) struct Shelf {
    pub(crate) identity: Identity,
    files: BTreeMap<u32, Bytes>,
    next_number: u32,
    /// The last batch that a run covers, and the present one.
    covered: u64,
    pub(crate) sequence: u64,
}

/// Counts of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Walked {
    /// Live entries met.
    pub entries: u64,
    /// Bytes of runs read.
    pub bytes: u64,
}

impl BareIndex {
    /// An empty index with the bounds of a real one.
    #[must_use]
    pub fn new(seed: u64) -> BareIndex {
        let settings = Settings {
            seed,
            digest_seed: 0,
            arc_objects_max: limits::ARC_OBJECTS_MAX,
            recents_max: limits::RECENTS_MAX,
            fan_in: limits::RUN_FAN_IN,
            tag_bits: 16,
        };
        BareIndex { index: Index::new(settings), shelf: Shelf::new(seed), next: (0, 0) }
    }

    /// An index of so many leases and nothing else: for sweeps of more objects than keys would fit in memory.
    #[must_use]
    pub fn of_leases(objects: usize, tick_of: impl Fn(usize) -> u32) -> BareIndex {
        let mut bare = BareIndex::new(0);
        let arcs = objects.div_ceil(limits::ARC_OBJECTS_MAX * 4 / 5).max(1);
        let step = u64::MAX / arcs as u64;
        let filled = (0..arcs).map(|at| {
            let low = step * at as u64;
            let high = if at + 1 == arcs { u64::MAX } else { low + step - 1 };
            let range = objects * at / arcs..objects * (at + 1) / arcs;
            let mut arc = Arc::new(low, high, Table::new(range.len() * 10 / 9, tick_of(0)));
            for number in range {
                let hash = KeyHash((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
                arc.table.insert(hash, bare.next_locator(), tick_of(number));
                arc.digest.add(0);
            }
            arc
        });
        let arcs = filled.collect();
        let settings = bare.index.settings();
        bare.index = Index::restore(settings, arcs, &[]).expect("the arcs tile the ring");
        bare
    }

    /// Adds an object whose lease ends at `tick`, and does the upkeep that has become due.
    pub fn put(&mut self, key: Key, tick: u32) {
        let locator = self.next_locator();
        let entry = RunEntry { key, version: 0, locator, length: RECORD_BYTES, generation: GENERATION };
        self.shelf.sequence += 1;
        self.index.insert(&entry, tick);
        self.shelf.upkeep(&mut self.index);
    }

    /// How many records would have to be read to say whether the key is held.
    #[must_use]
    pub fn candidates(&self, key: &Key) -> usize {
        self.index.candidates(key).count()
    }

    /// Extends a lease; returns how many entries it may have been.
    pub fn touch(&mut self, key: &Key, tick: u32) -> usize {
        let address = self.index.address(key);
        self.index.extend(address, tick, |_, _| ())
    }

    /// Looks at all leases; returns in how many arcs one has ended.
    #[must_use]
    pub fn sweep(&self, cutoff: u32) -> usize {
        let (mut found, mut from) = (0, Some(0));
        while let Some(position) = from {
            let quantum = self.index.sweep_quantum(position, cutoff, limits::SWEEP_QUANTUM_SLOTS);
            found += quantum.ranges.len();
            from = quantum.next;
        }
        found
    }

    /// Walks the ring from one placement id to another.
    #[must_use]
    pub fn walk(&self, from: [u8; 20], to: [u8; 20]) -> Walked {
        let mut walked = Walked::default();
        let (mut walk, mut met) = (Walk::new(self.shelf.identity, from, to, None), Vec::new());
        loop {
            let step = walk.step(&self.index, limits::WALK_ENTRIES_PER_STEP, &mut met);
            walked.entries += met.drain(..).len() as u64;
            match step {
                Step::More => {}
                Step::Need(need) => {
                    walked.bytes += need.length as u64;
                    self.shelf.supply(&mut walk, need);
                }
                Step::End => return walked,
            }
        }
    }

    /// Encodes all arcs and reads them back, as a checkpoint and an opening do; returns the bytes between.
    #[must_use]
    pub fn checkpoint_and_restore(&mut self) -> u64 {
        let (settings, mut bytes, mut arcs) = (self.index.settings(), 0, Vec::new());
        self.index.begin_snapshot();
        while let Some(arc) = self.index.next_of_snapshot() {
            bytes += arc.len() as u64;
            arcs.push(decode_arc(&arc, settings.seed).expect("what was encoded").0);
        }
        let restored = Index::restore(settings, arcs, &[]).expect("the arcs tile the ring");
        assert_eq!(restored.len(), self.index.len());
        bytes
    }

    /// Objects held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory the index holds: not those of the runs, which belong on a disk.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index.bytes()
    }

    fn next_locator(&mut self) -> Locator {
        let (segment, offset) = self.next;
        if offset == 0 {
            self.index.set_generation(segment, Some(GENERATION));
        }
        self.next =
            if offset + RECORD_BYTES > OFFSET_MAX - UNIT { (segment + 1, 0) } else { (segment, offset + RECORD_BYTES) };
        Locator::new(segment, offset, RECORD_BYTES)
    }
}

impl Shelf {
    pub(crate) fn new(seed: u64) -> Shelf {
        let identity = Identity { store: [7; 16], shard: 0, seed };
        Shelf { identity, files: BTreeMap::new(), next_number: 0, covered: 0, sequence: 0 }
    }

    /// Everything that is due.
    pub(crate) fn upkeep(&mut self, index: &mut Index) {
        if index.is_run_due() {
            self.write_run(index);
        }
        while self.merge(index) {}
        while self.rebuild(index) {}
    }

    /// Writes the recents as a run.
    pub(crate) fn write_run(&mut self, index: &mut Index) {
        index.freeze_recents();
        let writer = self.begin_run();
        let run = self.fill_run(Walk::of_frozen(self.identity), writer, index);
        index.add_run(run);
    }

    /// The writer of a run from memory. Its batches are those since the last one.
    pub(crate) fn begin_run(&mut self) -> RunWriter {
        let sequences = (self.covered + 1, self.sequence.max(self.covered + 1));
        self.covered = sequences.1;
        self.next_number += 1;
        RunWriter::new(self.identity, self.next_number, 0, sequences)
    }

    /// Merges what is due. Returns whether something was.
    pub(crate) fn merge(&mut self, index: &mut Index) -> bool {
        let Some(plan) = index.merge_plan() else { return false };
        let (walk, writer) = self.begin_merge(&plan);
        let run = self.fill_run(walk, writer, index);
        index.finish_merge(run, &plan.runs);
        plan.runs.iter().for_each(|number| {
            self.files.remove(number);
        });
        true
    }

    /// What reads and what writes a merge.
    pub(crate) fn begin_merge(&mut self, plan: &MergePlan) -> (Walk, RunWriter) {
        self.next_number += 1;
        let writer = RunWriter::new(self.identity, self.next_number, plan.level, plan.sequences);
        (Walk::of_runs(self.identity, plan.runs.clone()), writer)
    }

    /// Rebuilds an arc that is due. Returns whether one was.
    pub(crate) fn rebuild(&mut self, index: &mut Index) -> bool {
        let Some(mut rebuild) = index.begin_rebuild(self.identity) else { return false };
        while self.gather(&mut rebuild, index, limits::WALK_STEPS_PER_TURN).expect("all pages are sound") {}
        index.finish_rebuild(rebuild).expect("all runs are sound");
        true
    }

    /// Moves a rebuild on. Returns whether there is more.
    pub(crate) fn gather(&self, rebuild: &mut Rebuild, index: &Index, steps: usize) -> Result<bool, Damage> {
        match rebuild.gather(index, steps) {
            Progress::More => Ok(true),
            Progress::Need(need) => rebuild.supply(need, self.bytes_of(need)).map(|()| true),
            Progress::End => Ok(false),
        }
    }

    /// Writes what a walk meets to a file.
    fn fill_run(&mut self, walk: Walk, mut writer: RunWriter, index: &Index) -> Option<Run> {
        self.each(walk, index, |entry| {
            let Entry { key, version, locator, length, generation, .. } = entry;
            writer.push(&RunEntry { key, version, locator, length, generation });
        });
        self.keep(writer)
    }

    /// Keeps what was written as a file, and returns the run as it is read from there.
    pub(crate) fn keep(&mut self, mut writer: RunWriter) -> Option<Run> {
        let mut file = vec![0; PAGE];
        let (offset, pages) = writer.take();
        assert_eq!(offset, file.len() as u64);
        file.extend_from_slice(&pages);
        let finished = writer.finish()?;
        assert_eq!(finished.offset, file.len() as u64);
        file.extend_from_slice(&finished.rest);
        file[..PAGE].copy_from_slice(&finished.header);
        self.files.insert(finished.run.number, Bytes::from(file));
        Some(self.open_run(finished.run.number).expect("what was just written"))
    }

    /// A run as it is read from its file.
    pub(crate) fn open_run(&self, number: u32) -> Result<Run, Damage> {
        let file = self.files.get(&number).ok_or(Damage::Short)?;
        let mut run = Run::read_header(file, &self.identity, number)?;
        let (offset, length) = run.fences_at();
        let fences = file.get(offset as usize..offset as usize + length).ok_or(Damage::Short)?;
        run.read_fences(fences, &self.identity)?;
        Ok(run)
    }

    /// Numbers of all files.
    #[cfg(test)]
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.files.keys().copied().collect()
    }

    /// Damages a byte of a file.
    #[cfg(test)]
    pub(crate) fn rot(&mut self, number: u32, at: usize) {
        let mut file = self.files[&number].to_vec();
        file[at] ^= 1;
        self.files.insert(number, Bytes::from(file));
    }

    /// Steps through a walk to its end.
    pub(crate) fn each(&self, mut walk: Walk, index: &Index, mut meet: impl FnMut(Entry)) {
        let mut met = Vec::new();
        loop {
            let step = walk.step(index, limits::WALK_ENTRIES_PER_STEP, &mut met);
            met.drain(..).for_each(&mut meet);
            match step {
                Step::More => {}
                Step::Need(need) => self.supply(&mut walk, need),
                Step::End => return,
            }
        }
    }

    /// Gives a walk what it needs, which is sound.
    pub(crate) fn supply(&self, walk: &mut Walk, need: Need) {
        self.try_supply(walk, need).expect("all pages are sound");
    }

    /// Gives a walk what it needs.
    pub(crate) fn try_supply(&self, walk: &mut Walk, need: Need) -> Result<(), Damage> {
        walk.supply(need, self.bytes_of(need))
    }

    fn bytes_of(&self, need: Need) -> Bytes {
        let start = usize::try_from(need.offset).expect("it lies in memory");
        self.files[&need.run].slice(start..start + need.length)
    }
}
