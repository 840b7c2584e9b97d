//! The reference: a map that knows what was acknowledged, and a driver that runs a store beside it on a simulated disk.
//!
//! For each key the model keeps what is *certain* (acknowledged, or seen by a reader) and what is *possible* after a
//! restart (operations in flight or failed when the power went). The checker never asks the store what it should be. What it
//! does not check: that space comes back by a certain time, and the order of concurrent operations on one key (there is at
//! most one change in flight per key).

use super::{Activities, Coverage, Plan, settings};
use crate::disk::FileName;
use crate::key::{Class, Key};
use crate::limits;
use crate::request::{Error, Object, Request, Response};
use crate::sim_disk::{Chance, Faults, SimDisk};
use crate::stats::Stats;
use crate::store::{Settings, Store, create, open};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    version: u64,
    value: u64,
    expiry: u64,
}

#[derive(Clone, Debug, Default)]
struct Known {
    certain: Option<Held>,
    possible: Vec<Option<Held>>,
    /// A sweep may have removed it; the power failed before it was looked for.
    may_be_swept: bool,
    /// Versions with the values they ever had.
    history: BTreeSet<(u64, u64)>,
}

#[derive(Debug)]
enum Doing {
    /// Changes with what each key will hold, and the expected answer.
    Change {
        results: Vec<(Key, Option<Held>)>,
        expected: Response,
    },
    Sweep {
        results: Vec<(Key, Option<Held>)>,
        now: u64,
    },
    Get {
        key: Key,
        allowed: Vec<Option<Held>>,
    },
    Scrub,
}

/// A value's bytes, from its number: lengths from nothing to 12 KiB, mostly small.
pub(crate) fn bytes_of(value: u64) -> Bytes {
    let mut chance = Chance::new(value);
    let most = [200, 2000, 6000, 12_000][chance.below(4) as usize];
    let length = chance.below(most) as usize;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&chance.draw().to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

pub(super) struct World {
    disk: SimDisk,
    coverage: Coverage,
    plan: Plan,
    chance: Chance,
    store: Option<Store<SimDisk>>,
    keys: Vec<Key>,
    known: BTreeMap<Key, Known>,
    doing: BTreeMap<u64, Doing>,
    busy: BTreeSet<Key>,
    tag_next: u64,
    now: u64,
    value_next: u64,
    /// Rot has taken records of the log before they were in a checkpoint, or pages of a run: the index may count as live what it
    /// cannot name any more, and scrub learns from the index what should be where.
    index_is_damaged: bool,
}

type Verdict = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds { return Err(format!($($message)+)); }
    };
}

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
        World {
            disk,
            coverage: Coverage::default(),
            plan,
            chance,
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

    fn step(&mut self) -> Verdict {
        self.now += self.chance.below(6);
        if self.doing.len() < 12 {
            match self.chance.below(100) {
                0..45 => self.put(),
                45..60 => self.touch(),
                60..85 => self.get(),
                85..92 => self.remove(),
                92..95 => self.sweep(),
                95..97 => self.scrub(),
                _ => self.pause()?,
            }
        }
        for _ in 0..self.chance.below(5) {
            self.advance();
            self.listen()?;
        }
        Ok(())
    }

    fn submit(&mut self, request: Request, doing: Doing) {
        let tag = self.tag_next;
        self.tag_next += 1;
        if let Doing::Change { results, .. } | Doing::Sweep { results, .. } = &doing {
            for (key, held) in results {
                for other in self.doing.values_mut() {
                    if let Doing::Get { key: read, allowed } = other
                        && read == key
                    {
                        allowed.push(*held);
                    }
                }
                self.busy.insert(*key);
            }
        }
        self.doing.insert(tag, doing);
        self.store().submit(tag, request);
    }

    fn idle_key(&mut self) -> Option<Key> {
        let key = self.keys[self.chance.below(self.keys.len() as u64) as usize];
        (!self.busy.contains(&key)).then_some(key)
    }

    fn certain(&self, key: &Key) -> Option<Held> {
        self.known.get(key).and_then(|known| known.certain)
    }

    /// During a sweep, what it removes is left alone.
    fn is_expiring(&self, held: Held) -> bool {
        held.expiry + settings().grace_s < self.now
    }

    fn put(&mut self) {
        let Some(key) = self.idle_key() else { return };
        let held = self.certain(&key);
        let expiry = self.now + self.chance.below(250);
        let mutable = key.kind == 4;
        let (version, value) = match held {
            _ if !mutable => (0, u64::from(key.name[0]) << 32),
            None => (self.chance.below(5) + 1, self.fresh_value()),
            Some(held) => match self.chance.below(10) {
                0 => (held.version, held.value),
                1 => (held.version, self.fresh_value()),
                2 => (held.version.saturating_sub(1).max(1), self.fresh_value()),
                _ => (held.version + 1, self.fresh_value()),
            },
        };
        let superseded = |held: Held| (Some(held), Response::Superseded { version: held.version });
        let extended = |held: Held| (Some(Held { expiry: held.expiry.max(expiry), ..held }), Response::Put);
        let (result, expected) = match held {
            None => (Some(Held { version, value, expiry }), Response::Put),
            Some(held) if version > held.version => {
                (Some(Held { version, value, expiry: expiry.max(held.expiry) }), Response::Put)
            }
            Some(held) if version < held.version => superseded(held),
            Some(held) if value == held.value || bytes_of(value) == bytes_of(held.value) => extended(held),
            Some(held) => superseded(held),
        };
        self.known.entry(key).or_default().history.insert((version, value));
        let class = Class::ALL[self.chance.below(3) as usize];
        let (account, expiry_s) = (9, expiry);
        let request = Request::Put { key, version, account, class, expiry_s, value: bytes_of(value) };
        self.submit(request, Doing::Change { results: vec![(key, result)], expected });
    }

    fn fresh_value(&mut self) -> u64 {
        self.value_next += 1;
        self.value_next
    }

    fn touch(&mut self) {
        let mut leases = BTreeMap::new();
        for _ in 0..self.chance.below(8) + 1 {
            if let Some(key) = self.idle_key() {
                leases.insert(key, self.now + self.chance.below(400));
            }
        }
        let mut results = Vec::new();
        let mut known = 0;
        for (key, expiry) in &leases {
            let held = self.certain(key);
            known += usize::from(held.is_some());
            results.push((*key, held.map(|held| Held { expiry: held.expiry.max(*expiry), ..held })));
        }
        let request = Request::TouchMany { leases: leases.into_iter().collect() };
        self.submit(request, Doing::Change { results, expected: Response::Touched { known } });
    }

    fn remove(&mut self) {
        let Some(key) = self.idle_key() else { return };
        let held = self.certain(&key);
        let version = self.chance.below(6);
        let removes = held.is_some_and(|held| held.version < version);
        let result = if removes { None } else { held };
        let expected = Response::Removed(removes);
        self.submit(Request::RemoveIfOlder { key, version }, Doing::Change { results: vec![(key, result)], expected });
    }

    fn scrub(&mut self) {
        let budget_bytes = self.chance.below(200_000);
        self.submit(Request::Scrub { budget_bytes }, Doing::Scrub);
    }

    fn get(&mut self) {
        let mut key = self.keys[self.chance.below(self.keys.len() as u64) as usize];
        // Often one that is being changed.
        if !self.busy.is_empty() && self.chance.below(2) == 0 {
            let nth = self.chance.below(self.busy.len() as u64) as usize;
            key = *self.busy.iter().nth(nth).expect("counted");
        }
        let mut allowed = vec![self.certain(&key)];
        for doing in self.doing.values() {
            if let Doing::Change { results, .. } | Doing::Sweep { results, .. } = doing {
                allowed.extend(results.iter().filter(|(other, _)| *other == key).map(|(_, held)| *held));
            }
        }
        self.submit(Request::Get { key }, Doing::Get { key, allowed });
    }

    /// Only when it is clear which objects it will remove.
    fn sweep(&mut self) {
        let sweeping = self.doing.values().any(|doing| matches!(doing, Doing::Sweep { .. }));
        let unclear = self.busy.iter().any(|key| self.certain(key).is_some_and(|held| self.is_expiring(held)));
        let in_flight_expiring = self.doing.values().any(|doing| match doing {
            Doing::Change { results, .. } => {
                results.iter().any(|(_, held)| held.is_some_and(|held| self.is_expiring(held)))
            }
            Doing::Sweep { .. } | Doing::Get { .. } | Doing::Scrub => false,
        });
        if sweeping || unclear || in_flight_expiring {
            return;
        }
        let expiring =
            |(key, known): (&Key, &Known)| known.certain.filter(|held| self.is_expiring(*held)).map(|_| (*key, None));
        let results = self.known.iter().filter_map(expiring).collect();
        let now = self.now;
        self.submit(Request::Sweep { now_s: now }, Doing::Sweep { results, now });
    }

    /// Lets everything finish and compares a walk of the ring with the model.
    fn pause(&mut self) -> Verdict {
        self.drain()?;
        if self.disk.is_cut() || !self.doing.is_empty() {
            return Ok(());
        }
        let limit = self.chance.below(20) as usize + 1;
        let from = self.keys[self.chance.below(self.keys.len() as u64) as usize].placement;
        let mut to = from;
        for byte in to.iter_mut().rev() {
            let (lower, borrowed) = byte.overflowing_sub(1);
            *byte = lower;
            if !borrowed {
                break;
            }
        }
        let mut found = Vec::new();
        loop {
            let after = found.last().copied();
            let Some(page) = self.scan(from, to, after, limit)? else { return Ok(()) };
            let end = page.len() < limit;
            found.extend(page);
            if end {
                break;
            }
        }
        let mut expected: Vec<Key> =
            self.known.iter().filter(|(_, known)| known.certain.is_some()).map(|(key, _)| *key).collect();
        expected.sort_by_key(|key| (key.placement < from, *key));
        let lost: Vec<&Key> = expected.iter().filter(|key| !found.contains(key)).collect();
        let extra: Vec<&Key> = found.iter().filter(|key| !expected.contains(key)).collect();
        let same = found == expected || self.plan.disk_may_lose;
        let corrupt = self.store().stats().corrupt;
        ensure!(same, "a walk of the ring misses {lost:?} and has {extra:?} beside the model ({corrupt} damaged)");
        self.check_digest(expected.len() as u64)
    }

    /// The digest of the whole ring counts what the model holds, and is the sum of those of two parts.
    fn check_digest(&mut self, objects: u64) -> Verdict {
        let (mut middle, mut behind) = ([0xff; 20], [0; 20]);
        middle[0] = u8::try_from(self.chance.below(255)).expect("below 255");
        behind[0] = middle[0] + 1;
        let whole = self.digest([0; 20], [0xff; 20])?;
        if whole.is_none() || self.disk.is_cut() {
            return Ok(());
        }
        let (Some(low), Some(high)) = (self.digest([0; 20], middle)?, self.digest(behind, [0xff; 20])?) else {
            return Ok(());
        };
        let sum = (low.0 + high.0, low.1.wrapping_add(high.1));
        ensure!(
            whole == Some(sum) || self.plan.disk_may_lose,
            "the digest {whole:?} is not the sum of its parts {sum:?}"
        );
        let counts = sum.0 == objects || self.plan.disk_may_lose;
        ensure!(counts, "the digest counts {}, the model {objects}", sum.0);
        Ok(())
    }

    /// `None` if the power or a read fails.
    fn digest(&mut self, from: [u8; 20], to: [u8; 20]) -> Result<Option<(u64, u128)>, String> {
        let tag = self.tag_next;
        self.tag_next += 1;
        self.store().submit(tag, Request::Digest { from, to });
        while !self.disk.is_cut() {
            match self.store().take() {
                Some((_, Ok(Response::Digest { count, sum }))) => return Ok(Some((count, sum))),
                Some((_, Err(Error::Io))) if self.plan.is_faulty() => return Ok(None),
                Some((_, other)) => return Err(format!("digest answered {other:?}")),
                None => self.advance(),
            }
        }
        Ok(None)
    }

    fn scan(
        &mut self,
        from: [u8; 20],
        to: [u8; 20],
        after: Option<Key>,
        limit: usize,
    ) -> Result<Option<Vec<Key>>, String> {
        let tag = self.tag_next;
        self.tag_next += 1;
        self.store().submit(tag, Request::Scan { from, to, after, limit });
        while !self.disk.is_cut() {
            if let Some((answered, result)) = self.store().take() {
                ensure!(answered == tag, "only the scan was asked");
                if result == Err(Error::Io) && self.plan.is_faulty() {
                    return Ok(None);
                }
                let Ok(Response::Listed(entries)) = result else { return Err(format!("scan answered {result:?}")) };
                for entry in &entries {
                    let held = self.certain(&entry.key);
                    let same = held.is_some_and(|held| held.version == entry.version && held.expiry <= entry.expiry_s);
                    ensure!(same || self.plan.disk_may_lose, "scan lists {entry:?}, the model holds {held:?}");
                }
                return Ok(Some(entries.into_iter().map(|entry| entry.key).collect()));
            }
            self.advance();
        }
        // The power has failed. An answer that came with its last moment is not waited for by anybody later.
        while self.store().take().is_some() {}
        Ok(None)
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

    fn listen(&mut self) -> Verdict {
        while let Some((tag, result)) = self.store().take() {
            if self.disk.is_cut() {
                // Errors of a machine without power are nobody's answers; successes were durable before.
                if result.is_err() || !self.doing.contains_key(&tag) {
                    continue;
                }
            }
            let Some(doing) = self.doing.remove(&tag) else {
                return Err(format!("an answer nobody asked for, or a second one: {result:?}"));
            };
            self.judge(doing, result)?;
        }
        Ok(())
    }

    fn judge(&mut self, doing: Doing, result: Result<Response, Error>) -> Verdict {
        match (doing, result) {
            (Doing::Get { key, allowed }, Ok(Response::Got(object))) => self.judge_get(key, &allowed, object),
            (Doing::Scrub, Ok(Response::Scrubbed { .. })) => Ok(()),
            (Doing::Get { .. }, Err(Error::Io)) => {
                ensure!(self.plan.faults.read_error > 0, "a read failed on a sound disk");
                Ok(())
            }
            (Doing::Change { results, expected }, Ok(answer)) => {
                let repaired = self.plan.disk_may_lose;
                let as_expected = match (&answer, &expected) {
                    // A key that is not here may share the tag of one that is.
                    (Response::Touched { known }, Response::Touched { known: least }) => {
                        (*least..=results.len()).contains(known)
                    }
                    _ => answer == expected,
                };
                ensure!(repaired || as_expected, "answered {answer:?}, expected {expected:?} for {results:?}");
                self.coverage.acknowledged += 1;
                if self.was_logged(&results, &answer) {
                    // Its segment makes void what failed before it: that must not come back any more.
                    self.known.values_mut().for_each(|known| known.possible.clear());
                }
                let refused = matches!(answer, Response::Superseded { .. });
                self.hold(results, !refused || answer == expected);
                Ok(())
            }
            (Doing::Sweep { results, now }, Ok(Response::Swept { expired, .. })) => {
                let count = results.len() as u64;
                ensure!(self.plan.disk_may_lose || expired <= count, "swept {expired} instead of {count}");
                self.coverage.expired += expired;
                if expired == count && !self.plan.disk_may_lose {
                    self.hold(results, true);
                    return Ok(());
                }
                self.look_what_is_left(results, Some(now))
            }
            (Doing::Sweep { results, .. }, Err(error)) => {
                ensure!(error != Error::Io || self.plan.is_faulty(), "a sweep failed on a sound disk");
                self.look_what_is_left(results, None)
            }
            (Doing::Change { results, .. }, Err(error)) => {
                match error {
                    Error::Full | Error::ReadOnly => self.coverage.refused += 1,
                    Error::Io => self.coverage.failed += 1,
                    Error::TooLarge | Error::Closed => return Err(format!("answered {error:?}")),
                }
                ensure!(error != Error::Io || self.plan.is_faulty(), "a write failed on a sound disk");
                for (key, _) in &results {
                    self.busy.remove(key);
                }
                self.may_hold(results);
                Ok(())
            }
            (doing, answer) => Err(format!("{doing:?} was answered {answer:?}")),
        }
    }

    /// After a sweep that has not removed all whose lease the model knows to have ended: a stranger with the same tag may have
    /// been touched, and with it this one; or the sweep was cut short. What is left must still be held, or not have been looked at.
    fn look_what_is_left(&mut self, results: Vec<(Key, Option<Held>)>, swept_at: Option<u64>) -> Verdict {
        for (key, _) in results {
            let found = self.get_now(key)?;
            self.busy.remove(&key);
            match found {
                Some(None) => self.known.entry(key).or_default().certain = None,
                Some(Some(object)) => {
                    let has_ended = swept_at.is_some_and(|now| object.expiry_s + settings().grace_s < now);
                    let sound = !self.plan.is_faulty();
                    ensure!(!(has_ended && sound), "{key:?} outlived a sweep, though it ended at {}", object.expiry_s);
                    if swept_at.is_none() {
                        // Its removal failed, and may yet be on the disk until a later record makes it void.
                        self.may_hold(vec![(key, None)]);
                    }
                }
                // The power failed: either way, and no later record changes that.
                None => self.known.entry(key).or_default().may_be_swept = true,
            }
        }
        Ok(())
    }

    /// Reads an object and waits for it. `None` if the power fails meanwhile.
    fn get_now(&mut self, key: Key) -> Result<Option<Option<Object>>, String> {
        let mut tag = self.tag_next;
        self.tag_next += 1;
        self.store().submit(tag, Request::Get { key });
        while !self.disk.is_cut() {
            self.advance();
            while let Some((answered, result)) = self.store().take() {
                if answered != tag {
                    // What was in flight when the power failed may have happened: it stays among what is being done.
                    if !self.disk.is_cut() || (result.is_ok() && self.doing.contains_key(&answered)) {
                        let doing = self.doing.remove(&answered).ok_or("an answer nobody asked for")?;
                        self.judge(doing, result)?;
                    }
                    continue;
                }
                match result {
                    Ok(Response::Got(object)) => return Ok(Some(object)),
                    Err(Error::Io) if !self.disk.is_cut() => {
                        tag = self.tag_next;
                        self.tag_next += 1;
                        self.store().submit(tag, Request::Get { key });
                    }
                    other => ensure!(self.disk.is_cut(), "get answered {other:?}"),
                }
            }
        }
        Ok(None)
    }

    /// Whether this change cannot have been answered without a record.
    fn was_logged(&self, results: &[(Key, Option<Held>)], answer: &Response) -> bool {
        let changed =
            |(key, held): &(Key, Option<Held>)| self.certain(key).map(|held| held.value) != held.map(|held| held.value);
        *answer == Response::Removed(true) || (*answer == Response::Put && results.iter().all(changed))
    }

    fn hold(&mut self, results: Vec<(Key, Option<Held>)>, changes: bool) {
        for (key, held) in results {
            self.busy.remove(&key);
            if changes {
                self.known.entry(key).or_default().certain = held;
            }
        }
    }

    fn judge_get(&mut self, key: Key, allowed: &[Option<Held>], object: Option<Object>) -> Verdict {
        if self.plan.disk_may_lose {
            return self.judge_bytes(key, object.as_ref());
        }
        let seen = allowed.iter().find(|held| is_object(held.as_ref(), object.as_ref()));
        let Some(seen) = seen else {
            return Err(format!("get {key:?} gave {}, allowed {allowed:?}", describe(object.as_ref())));
        };
        // What a reader has seen must not be taken back: if it is what a change in flight leads to (and not what
        // there was when it began to read), that is certain now.
        let is_older = allowed.first() == Some(seen);
        let in_flight = self.doing.values().any(|doing| match doing {
            Doing::Change { results, .. } | Doing::Sweep { results, .. } => results.contains(&(key, *seen)),
            Doing::Get { .. } | Doing::Scrub => false,
        });
        if in_flight && !is_older {
            self.known.entry(key).or_default().certain = *seen;
        }
        Ok(())
    }

    /// On a disk that loses things: whatever is served was once put under this key and version, whole.
    fn judge_bytes(&self, key: Key, object: Option<&Object>) -> Verdict {
        let Some(object) = object else { return Ok(()) };
        let genuine = self.known.get(&key).is_some_and(|known| {
            known.history.iter().any(|(version, value)| *version == object.version && bytes_of(*value) == object.value)
        });
        ensure!(genuine, "wrong bytes served for {key:?}: {}", describe(Some(object)));
        Ok(())
    }

    /// After opening: every key is what was acknowledged, or what was possible.
    fn check_everything(&mut self) -> Verdict {
        for key in self.keys.clone() {
            let tag = self.tag_next;
            self.tag_next += 1;
            self.store().submit(tag, Request::Get { key });
            let answer = loop {
                if let Some(answer) = self.store().take() {
                    break answer;
                }
                self.advance();
            };
            let (_, Ok(Response::Got(object))) = answer else { return Err(format!("get answered {answer:?}")) };
            let lossy = self.plan.disk_may_lose;
            if lossy {
                self.judge_bytes(key, object.as_ref())?;
            }
            let known = self.known.entry(key).or_default();
            let swept = std::mem::take(&mut known.may_be_swept).then_some(&None);
            let mut states = std::iter::once(&known.certain).chain(&known.possible).chain(swept);
            let state = states.find(|held| is_object(held.as_ref(), object.as_ref())).copied();
            known.certain = match (state, &object) {
                (Some(held), _) => held,
                (None, object) if lossy => object.as_ref().map(|object| Held {
                    version: object.version,
                    value: known.value_of(object),
                    expiry: object.expiry_s,
                }),
                (None, object) => {
                    return Err(format!(
                        "after restart {key:?} is {}, acknowledged {:?}, possible {:?}",
                        describe(object.as_ref()),
                        known.certain,
                        known.possible
                    ));
                }
            };
            known.possible.clear();
        }
        self.coverage.openings_checked += 1;
        self.store().check_live()
    }

    /// When nothing is in flight: what is counted is what lies on the disk, and within the capacity.
    fn check_accounts(&mut self) -> Verdict {
        self.store().check_live()?;
        let on_disk = self.disk.taken_bytes();
        let counted = self.store().bytes_counted() + 2 * limits::BLOCK as u64;
        // Files whose making failed half-way are not counted and go at the next opening.
        let exact = on_disk == counted || self.plan.is_faulty();
        ensure!(exact, "{counted} bytes counted, {on_disk} on disk");
        let capacity = self.settings().capacity_bytes;
        ensure!(on_disk <= capacity + 128 * 1024, "{on_disk} bytes on disk, capacity {capacity}");
        Ok(())
    }
}

impl Known {
    fn value_of(&self, object: &Object) -> u64 {
        let same = |(version, value): &&(u64, u64)| *version == object.version && bytes_of(*value) == object.value;
        self.history.iter().find(same).map_or(0, |(_, value)| *value)
    }
}

fn is_object(held: Option<&Held>, object: Option<&Object>) -> bool {
    match (held, object) {
        (None, None) => true,
        (Some(held), Some(object)) => {
            // A lease may be longer than asked for: a touch extends whatever shares the tag. Never shorter.
            held.version == object.version && held.expiry <= object.expiry_s && bytes_of(held.value) == object.value
        }
        _ => false,
    }
}

fn describe(object: Option<&Object>) -> String {
    object.map_or("absent".to_owned(), |object| {
        format!("version {}, expiry {}, {} bytes", object.version, object.expiry_s, object.value.len())
    })
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
