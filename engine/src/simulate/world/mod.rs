//! The driver: runs a store beside the [model](super::model) on a simulated disk, life after life.
//!
//! A life is an opening (`begin_life`), random operations (`operations`), and an end: a power cut, a kill or an orderly
//! close, after which bits may rot. Every answer is judged when it comes (`judging`), and the whole store is compared with
//! the model after each opening and whenever it pauses (`checking`). Everything follows from one [`Chance`].

mod checking;
mod judging;
mod operations;

use super::model::{Doing, Held, Known};
use super::{Activities, Coverage, Plan, settings};
use crate::disk::FileName;
use crate::key::Key;
use crate::limits;
use crate::request::{Request, Response};
use crate::sim_disk::{Chance, Faults, SimDisk};
use crate::stats::Stats;
use crate::store::{Settings, Store, create, open};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct World {
    disk: SimDisk,
    coverage: Coverage,
    plan: Plan,
    chance: Chance,
    /// Which batches overlap: see [`Settings::overlap_share`].
    overlap_share: u64,
    store: Option<Store<SimDisk>>,
    keys: Vec<Key>,
    known: BTreeMap<Key, Known>,
    doing: BTreeMap<u64, Doing>,
    busy: BTreeSet<Key>,
    tag_next: u64,
    now: u64,
    value_next: u64,
    /// Rot has taken records of the log before they were in a checkpoint, or the disk pages of a run, in this life or in one
    /// before: the index may count as live what it cannot name any more, and scrub learns from the index what should be where.
    index_is_damaged: bool,
}

type Verdict = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds { return Err(format!($($message)+)); }
    };
}

use ensure;

impl World {
    /// Runs a plan from a seed. The error is the violation found.
    pub(super) fn run(seed: u64, plan: Plan) -> Result<Coverage, String> {
        let mut world = World::new(seed, plan);
        for life in 0..plan.lives {
            world.live().map_err(|violation| format!("seed {seed}, life {life}: {violation}"))?;
        }
        world.coverage.cuts = world.disk.tally().cuts;
        Ok(world.coverage)
    }

    fn new(seed: u64, plan: Plan) -> World {
        let mut chance = Chance::new(seed);
        let disk = SimDisk::new(chance.draw(), plan.disk_bytes);
        create(&mut disk.clone(), [7; 16], chance.draw(), 0, 1, 1).expect("a sound disk");
        let keys = (0..56).map(|number| any_key(&mut chance, number)).collect();
        let all = settings().overlap_share;
        let overlap_share = if chance.below(4) > 0 { all } else { limits::OVERLAP_SHARE };
        World {
            disk,
            coverage: Coverage::default(),
            plan,
            chance,
            overlap_share,
            store: None,
            keys,
            known: BTreeMap::new(),
            doing: BTreeMap::new(),
            busy: BTreeSet::new(),
            tag_next: 0,
            now: 1_000,
            value_next: 1,
            index_is_damaged: false,
        }
    }

    fn live(&mut self) -> Verdict {
        self.begin_life()?;
        let found = if self.plan.scrub_first { Some(self.scrub_everything()?) } else { None };
        self.check_everything()?;
        let Stats { corrupt, run_damage, .. } = self.store().stats();
        self.index_is_damaged |= run_damage > 0;
        let first = found.is_none_or(|found| found == corrupt) || self.index_is_damaged;
        self.coverage.scrubs_judged += u64::from(found.is_some() && !self.index_is_damaged);
        ensure!(first, "readers found damage that scrub had passed over: {found:?} before, {corrupt} after");
        self.disk.set_faults(self.plan.faults);
        let cut = self.chance.below(4) > 0;
        if cut {
            // Early and late, in a life that does much as in one that is refused most of what it asks.
            let within = u64::from(self.plan.steps) << self.chance.below(6) >> 3;
            self.disk.cut_after(self.chance.below(within) + 1);
        }
        for _ in 0..self.plan.steps {
            self.step()?;
            if self.disk.is_cut() {
                break;
            }
        }
        self.end_life()
    }

    /// Opens the store, sometimes with the power failing again meanwhile, and once more to see that recovery is the same.
    fn begin_life(&mut self) -> Verdict {
        self.disk.set_faults(Faults::default());
        while self.chance.below(3) == 0 {
            self.disk.cut_after(self.chance.below(30) + 1);
            let opened = open(self.disk.clone(), self.settings());
            let under_way = match &opened {
                Ok(store) if !self.disk.is_cut() => store.under_way(),
                _ => Activities::RECOVERY,
            };
            self.coverage.count_crash(under_way);
            drop(opened);
            self.die();
        }
        let before = self.open()?;
        let first = before.index_entries();
        drop(before);
        self.disk.kill();
        let again = self.open()?;
        ensure!(first == again.index_entries(), "recovering twice gives two states");
        self.index_is_damaged |= again.stats().corrupt > 0;
        self.store = Some(again);
        Ok(())
    }

    /// One pass over all sealed segments, in steps of any size. Returns how much damage is counted then.
    fn scrub_everything(&mut self) -> Result<u64, String> {
        let before = self.store().stats().corrupt;
        loop {
            let tag = self.tag_next;
            self.tag_next += 1;
            let budget_bytes = self.chance.below(100_000);
            self.store().submit(tag, Request::Scrub { budget_bytes });
            let answer = loop {
                if let Some((_, answer)) = self.store().take() {
                    break answer;
                }
                if !self.store().turn() {
                    self.store().wait();
                }
            };
            let Ok(Response::Scrubbed { wrapped, .. }) = answer else {
                return Err(format!("scrub answered {answer:?}"));
            };
            if wrapped {
                break;
            }
        }
        let corrupt = self.store().stats().corrupt;
        self.coverage.found_by_scrub += corrupt - before;
        Ok(corrupt)
    }

    fn open(&mut self) -> Result<Store<SimDisk>, String> {
        let store = open(self.disk.clone(), self.settings()).map_err(|e| format!("not opened: {e}"))?;
        if !self.plan.disk_may_lose && !self.plan.has_flaw() {
            let stats = store.stats();
            ensure!(stats.corrupt == 0 && stats.run_damage == 0, "recovery found damage on a disk that does none");
        }
        Ok(store)
    }

    fn settings(&self) -> Settings {
        let settings = settings();
        Settings {
            capacity_bytes: self.plan.segments * u64::from(settings.segment_bytes),
            // So narrow that false matches are common.
            tag_bits: 4,
            overlap_share: self.overlap_share,
            #[cfg(test)]
            flaw: self.plan.flaw,
            ..settings
        }
    }

    fn store(&mut self) -> &mut Store<SimDisk> {
        self.store.as_mut().expect("alive")
    }

    /// Lets the store move, or the disk if it does not. Notes what was under way when the power fails.
    fn advance(&mut self) {
        let under_way = (!self.disk.is_cut()).then(|| self.store().under_way());
        if !self.store().turn() {
            self.store().wait();
        }
        if let Some(under_way) = under_way.filter(|_| self.disk.is_cut()) {
            self.coverage.count_crash(under_way);
        }
    }

    /// The store dies: its process, or the power for all of the machine.
    fn die(&mut self) {
        if self.plan.power_stays {
            self.disk.kill();
            self.coverage.kills += 1;
        } else {
            self.disk.power_cut();
        }
    }

    /// What was in flight may or may not have happened.
    fn end_life(&mut self) -> Verdict {
        let clean = !self.disk.is_cut() && self.chance.below(3) == 0;
        if clean {
            self.drain()?;
            self.store().request_checkpoint();
            self.settle_down();
            if !self.disk.is_cut() {
                self.check_accounts()?;
            }
        }
        let stats = self.store().stats();
        // A merge passes over a damaged page and takes its file away: no later life can see that names are missing.
        self.index_is_damaged |= stats.run_damage > 0;
        let sound = !self.plan.is_faulty() && !self.plan.has_flaw();
        ensure!(!sound || stats.scrub_damaged == 0, "scrub found damage on a disk that does none");
        self.coverage.scrubbed += stats.scrubbed_bytes;
        self.coverage.scrub_damaged += stats.scrub_damaged;
        ensure!(!sound || stats.corrupt == 0, "{} damaged records on a disk that does no damage", stats.corrupt);
        ensure!(!sound || stats.run_damage == 0, "{} damages of runs on a disk that does none", stats.run_damage);
        self.coverage.cleaned += stats.cleaned;
        self.coverage.several_classes_open += u64::from(stats.open_classes > 1);
        self.coverage.recycled += stats.recycled_segments;
        self.coverage.prewritten_bytes += stats.prewritten_bytes;
        self.coverage.checkpoints += stats.checkpoints;
        self.coverage.segments_freed += stats.segments_freed;
        self.coverage.punched_bytes += stats.punched_bytes;
        self.coverage.splits += stats.splits;
        self.coverage.rebuilds += stats.rebuilds;
        self.coverage.runs_written += stats.runs_written;
        self.coverage.runs_merged += stats.runs_merged;
        self.coverage.false_matches += stats.false_matches;
        self.coverage.corrupt += stats.corrupt;
        self.coverage.read_only += u64::from(stats.read_only > 0 && !self.disk.is_cut());
        self.end_process();
        for (_, doing) in std::mem::take(&mut self.doing) {
            if let Doing::Change { results, .. } | Doing::Sweep { results, .. } = doing {
                self.may_hold(results);
            }
        }
        self.busy.clear();
        self.rot();
        Ok(())
    }

    /// A process may be killed and the power fail later, before anything was opened again.
    fn end_process(&mut self) {
        let has_power = !self.disk.is_cut();
        if has_power {
            let under_way = self.store().under_way();
            self.coverage.count_crash(under_way);
        }
        self.store = None;
        let killed = has_power && self.chance.below(2) == 0;
        if killed {
            self.disk.kill();
        }
        if self.plan.power_stays || (killed && self.chance.below(2) == 0) {
            self.disk.kill();
            self.coverage.kills += 1;
        } else {
            self.disk.power_cut();
        }
    }

    fn may_hold(&mut self, results: Vec<(Key, Option<Held>)>) {
        for (key, held) in results {
            self.known.entry(key).or_default().possible.push(held);
        }
    }

    fn rot(&mut self) {
        for _ in 0..self.plan.rot {
            let segments: Vec<_> =
                self.disk.files().into_iter().filter(|(file, _)| matches!(file, FileName::Segment(_))).collect();
            if segments.is_empty() {
                return;
            }
            let (file, length) = segments[self.chance.below(segments.len() as u64) as usize];
            if length > 0 {
                self.disk.rot(file, self.chance.below(length * 8));
            }
        }
    }

    fn drain(&mut self) -> Verdict {
        let mut turns = 0;
        while !self.doing.is_empty() && !self.disk.is_cut() {
            self.advance();
            self.listen()?;
            turns += 1;
            ensure!(turns < 200_000, "operations are not answered: {:?}", self.doing);
        }
        Ok(())
    }

    fn settle_down(&mut self) {
        while !self.store().is_idle() && !self.disk.is_cut() {
            self.advance();
        }
    }
}

/// Some keys share the first eight bytes of their placement, which is all a lease entry names.
fn any_key(chance: &mut Chance, number: u8) -> Key {
    let mut placement = [0; 20];
    let prefix = if number < 6 { 0x1234_5678_9abc_def0 } else { chance.draw() };
    placement[..8].copy_from_slice(&prefix.to_be_bytes());
    placement[8..16].copy_from_slice(&chance.draw().to_be_bytes());
    let mut name = [number; 32];
    name[1] = 0xee;
    Key { placement, name, kind: if number < 40 { 1 } else { 4 } }
}
