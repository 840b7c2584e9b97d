//! Inspections: what of an aggregate lives in PAST, until when, and what PAST has lost.
//!
//! ```text
//! directory   read from our own fragment 0; from the whole aggregate, where that is not here or the directory is longer
//!     ▼
//! look        each eligible holder of the objects is asked for those it has: versions and leases, no bytes
//!     ▼
//! judge       ┌ an object that no holder has, or a head that fewer than a quorum have ─▶ put back into PAST
//!             ├ a lease in PAST that ends later than the fragments' ─▶ theirs are extended
//!             └ little lives, or the aggregate is small and half its lease over ─▶ what lives is written into another
//! ```
//!
//! Fragments follow leases: owners extend those of objects, in PAST, and know nothing of aggregates. An aggregate is
//! inspected when half of its lease is over, and all are when several hosts have lost their disks. What is not found is put back
//! even where its lease may have ended meanwhile; then it has a week to be claimed. So nothing is lost for want of
//! knowledge, and what nobody wants ends by itself.
//!
//! An inspection that fails, because too few answer, is begun again later, and is counted until it succeeds, or until the
//! aggregate's lease ends: the operator sees it.

use super::aggregate::{Entry, Listed, directory, unpack};
use super::fragment::verify;
use super::gathering::{Gathering, Progress};
use super::ledger::Ledger;
use super::limits::{
    AGGREGATE_BYTES_SMALL, AUDIT_SOON, INSPECTION_AGAIN, INSPECTION_DOUBLINGS_MAX, INSPECTIONS_OPEN_MAX,
    KEYS_PER_MESSAGE_MAX, LIVE_SHARE_MIN, RESTORED_LEASE_S, RESTORES_OPEN_MAX,
};
use super::name::AggregateName;
use super::site::{Due, Heard, Turn};
use super::steward::{Steward, holder};
use super::wire::{Lease, Said};
use super::work::Join;
use bytes::Bytes;
use net::id::{Id, Key};
use net::machine::{Command, Metric, Micros, OpId, Reply, RequestId, Seconds, StorageOperation, StorageResult};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What holders have said of an object.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// Holders that have it, at the version it has in the aggregate or a later one.
    holders: usize,
    /// The latest version, and the latest end of a lease.
    version: u64,
    expiry: Seconds,
}

#[derive(Debug)]
enum Stage {
    Directory(OpId),
    Gathering(Gathering),
    Joining(OpId),
    Looking { open: BTreeMap<u64, Vec<Key>>, found: BTreeMap<Key, Found> },
    Restoring { waiting: VecDeque<Entry>, open: BTreeMap<RequestId, Entry>, has_failed: bool },
}

#[derive(Debug)]
struct Inspection {
    name: AggregateName,
    /// Objects that may be lost are put back; otherwise this is about leases.
    is_audit: bool,
    tries: u8,
    listed: Vec<Listed>,
    /// The objects, once the aggregate was joined.
    entries: Option<Vec<Entry>>,
    /// What was found, once all have been looked for.
    found: Option<BTreeMap<Key, Found>>,
    stage: Stage,
}

/// An inspection to come.
#[derive(Clone, Copy, Debug)]
struct Planned {
    is_audit: bool,
    tries: u8,
    at: Micros,
}

/// The inspections of one node.
#[derive(Debug, Default)]
pub(super) struct Inspections {
    open: BTreeMap<u64, Inspection>,
    planned: BTreeMap<AggregateName, Planned>,
    /// Leases of fragments to be extended, by keeper.
    extensions: BTreeMap<Id, Vec<(Key, Seconds)>>,
    extending: BTreeMap<u64, Id>,
    /// Objects put back into PAST since the process started.
    pub(super) restored: u64,
    /// Aggregates of which all is in PAST again, or always was.
    pub(super) ledger: Ledger,
}

impl Inspections {
    /// Aggregates that are to be inspected for lost objects, or are.
    pub(super) fn audits(&self) -> usize {
        let open = self.open.values().filter(|inspection| inspection.is_audit).count();
        open + self.planned.values().filter(|planned| planned.is_audit).count()
    }

    /// Plans to look for lost objects in these aggregates, when the news has spread.
    pub(super) fn audit(&mut self, turn: &mut Turn<'_>, names: Vec<AggregateName>) {
        if names.is_empty() {
            return;
        }
        for name in names {
            self.plan(name, Planned { is_audit: true, tries: 0, at: turn.now });
        }
        turn.due_by(AUDIT_SOON, Due::Tend);
    }

    fn plan(&mut self, name: AggregateName, planned: Planned) {
        let entry = self.planned.entry(name).or_insert(planned);
        entry.is_audit |= planned.is_audit;
    }

    /// Begins what is due, as far as there is room.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>, steward: &mut Steward) {
        let lease = turn.site.roster.ring().parameters.lease_s;
        let now = turn.seconds();
        for (name, watched) in &mut steward.watched {
            let whole = if watched.is_small { super::limits::SMALL_LEASE_S.min(lease) } else { lease };
            let is_half_over = watched.expiry < now.saturating_add(whole / 2);
            if is_half_over && !watched.is_moved && watched.looked_at + lease_pause(lease) <= turn.now {
                watched.looked_at = turn.now;
                self.plan(*name, Planned { is_audit: false, tries: 0, at: turn.now });
            }
        }
        while self.open.len() < INSPECTIONS_OPEN_MAX {
            let due = self.planned.iter().find(|(_, planned)| planned.at <= turn.now);
            let Some((name, planned)) = due.map(|(name, planned)| (*name, *planned)) else { break };
            self.planned.remove(&name);
            if !steward.watched.contains_key(&name) {
                continue;
            }
            let op = turn.storage(StorageOperation::Get { key: name.fragment_key(0) });
            let task = turn.site.number();
            let Planned { is_audit, tries, .. } = planned;
            let stage = Stage::Directory(op);
            self.open.insert(
                task,
                Inspection { name, is_audit, tries, listed: Vec::new(), entries: None, found: None, stage },
            );
        }
        self.ledger.is_open(turn.now, self.audits());
        if self.audits() > 0 {
            turn.due_by(INSPECTION_AGAIN, Due::Tend);
        }
        self.extend(turn);
    }

    /// The disk has answered. False if the operation was not of an inspection.
    pub(super) fn stored(
        &mut self,
        turn: &mut Turn<'_>,
        steward: &mut Steward,
        op: OpId,
        result: &StorageResult,
    ) -> bool {
        let is_its = |it: &Inspection| matches!(it.stage, Stage::Directory(ours) if ours == op);
        let Some(task) = self.task(is_its) else { return false };
        let Some(it) = self.open.get_mut(&task) else { return false };
        let here = match result {
            StorageResult::Got(Some(stored)) => verify(&it.name.fragment_key(0), &stored.value).ok(),
            _ => None,
        };
        match here.and_then(|fragment| directory(&fragment.data[..fragment.data.len().min(fragment.length)]).ok()) {
            Some(listed) => {
                it.listed = listed;
                it.look(turn);
            }
            None => it.gather(turn, steward),
        }
        self.settle(turn, steward, task);
        true
    }

    /// An answer, or silence. False if the call was not of an inspection.
    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, steward: &mut Steward, request: u64, heard: &Heard) -> bool {
        if self.extending.remove(&request).is_some() {
            self.extend(turn);
            return true;
        }
        let is_its = |it: &Inspection| match &it.stage {
            Stage::Gathering(gathering) => gathering.is_open(request),
            Stage::Looking { open, .. } => open.contains_key(&request),
            _ => false,
        };
        let Some(task) = self.task(is_its) else { return false };
        let Some(it) = self.open.get_mut(&task) else { return false };
        match &mut it.stage {
            Stage::Gathering(gathering) => gathering.answered(turn, request, heard),
            Stage::Looking { open, found } => {
                let keys = open.remove(&request).unwrap_or_default();
                if let Heard::Answer(_, Said::Seen { found: leases }, _) = heard
                    && leases.len() == keys.len()
                {
                    for (key, lease) in keys.into_iter().zip(leases) {
                        let wanted =
                            it.listed.iter().find(|listed| listed.key == key).map_or(0, |listed| listed.version);
                        note(found.entry(key).or_default(), *lease, wanted);
                    }
                }
            }
            _ => {}
        }
        self.settle(turn, steward, task);
        true
    }

    /// The aggregate is joined, or cannot be. False if the computation was not of an inspection.
    pub(super) fn worked(
        &mut self,
        turn: &mut Turn<'_>,
        steward: &mut Steward,
        op: OpId,
        made: Option<&Vec<Bytes>>,
    ) -> bool {
        let is_its = |it: &Inspection| matches!(it.stage, Stage::Joining(ours) if ours == op);
        let Some(task) = self.task(is_its) else { return false };
        let Some(it) = self.open.get_mut(&task) else { return false };
        match made.and_then(|made| made.first()).and_then(|payload| unpack(payload).ok()) {
            Some(entries) => {
                it.entries = Some(entries);
                match it.found.take() {
                    Some(found) => self.judge(turn, steward, task, found),
                    None => {
                        it.listed = it.entries.iter().flatten().map(listed).collect();
                        it.look(turn);
                    }
                }
            }
            None => {
                turn.count(Metric::BlockRefused);
                self.fail(turn, task);
            }
        }
        self.settle(turn, steward, task);
        true
    }

    /// PAST has answered. False if the command was not of an inspection.
    pub(super) fn replied(
        &mut self,
        turn: &mut Turn<'_>,
        steward: &mut Steward,
        request: RequestId,
        reply: &Reply,
    ) -> bool {
        let is_its =
            |it: &Inspection| matches!(&it.stage, Stage::Restoring { open, .. } if open.contains_key(&request));
        let Some(task) = self.task(is_its) else { return false };
        if let Some(Inspection { stage: Stage::Restoring { waiting, open, has_failed }, .. }) = self.open.get_mut(&task)
            && let Some(entry) = open.remove(&request)
        {
            match reply {
                Reply::Stored { .. } => {
                    self.restored += 1;
                    turn.count(Metric::Repaired);
                }
                // Somebody has written since: so be it.
                Reply::Superseded { .. } => {}
                // Bytes that no replica takes are of no use to anybody.
                Reply::Refused(_) => turn.count(Metric::BlockRefused),
                Reply::Busy => waiting.push_back(entry),
                _ => *has_failed = true,
            }
        }
        self.settle(turn, steward, task);
        true
    }

    fn task(&self, is_its: impl Fn(&Inspection) -> bool) -> Option<u64> {
        self.open.iter().find(|(_, inspection)| is_its(inspection)).map(|(task, _)| *task)
    }

    /// Goes on to the next stage when one is complete.
    fn settle(&mut self, turn: &mut Turn<'_>, steward: &mut Steward, task: u64) {
        let Some(it) = self.open.get_mut(&task) else { return };
        match &mut it.stage {
            Stage::Gathering(gathering) => match gathering.progress() {
                Progress::Waiting => {}
                Progress::Failed => self.fail(turn, task),
                Progress::Complete(values) => {
                    it.stage = Stage::Joining(turn.work(Arc::new(Join { name: it.name, values })));
                }
            },
            Stage::Looking { open, found } if open.is_empty() => {
                let found = std::mem::take(found);
                self.judge(turn, steward, task, found);
                self.settle(turn, steward, task); // It has gone on to another stage, or is over.
            }
            Stage::Restoring { waiting, open, has_failed } => {
                while open.len() < RESTORES_OPEN_MAX {
                    let Some(entry) = waiting.pop_front() else { break };
                    let request = turn.command(put_back(&entry));
                    open.insert(request, entry);
                }
                if open.is_empty() {
                    if *has_failed {
                        self.fail(turn, task);
                    } else {
                        self.is_over(turn, task);
                    }
                }
            }
            _ => {}
        }
    }

    /// All have been looked for: what is to be done?
    fn judge(&mut self, turn: &mut Turn<'_>, steward: &mut Steward, task: u64, found: BTreeMap<Key, Found>) {
        let Some(it) = self.open.get_mut(&task) else { return };
        let now = turn.seconds();
        let of = |key: &Key| found.get(key).copied().unwrap_or_default();
        let is_superseded = |listed: &Listed| of(&listed.key).version > listed.version;
        let is_lost = |listed: &&Listed| {
            !is_superseded(listed) && of(&listed.key).holders < if is_signed(&listed.key) { quorum(turn) } else { 1 }
        };
        let is_live = |listed: &&Listed| !is_superseded(listed) && of(&listed.key).expiry > now;
        let lost: Vec<Key> =
            if it.is_audit { it.listed.iter().filter(is_lost).map(|l| l.key).collect() } else { Vec::new() };
        let live: Vec<&Listed> = it.listed.iter().filter(is_live).collect();
        let whole: usize = it.listed.iter().map(|listed| listed.length).sum();
        let live_bytes: usize = live.iter().map(|listed| listed.length).sum();
        let latest = live.iter().map(|listed| of(&listed.key).expiry).max().unwrap_or(0);
        let is_poor = whole < AGGREGATE_BYTES_SMALL || live_bytes * 100 < whole * LIVE_SHARE_MIN;
        let moves = !it.is_audit && is_poor && !live.is_empty();
        if !lost.is_empty() || moves {
            let Some(entries) = it.entries.take() else {
                it.found = Some(found);
                it.gather(turn, steward);
                return;
            };
            if moves {
                let live: BTreeMap<Key, Seconds> = live.iter().map(|l| (l.key, of(&l.key).expiry)).collect();
                let moved = entries.into_iter().filter_map(|entry| {
                    let expiry = *live.get(&entry.key)?;
                    Some(Entry { expiry, ..entry })
                });
                steward.to_move.extend(moved);
                if let Some(watched) = steward.watched.get_mut(&it.name) {
                    watched.is_moved = true;
                }
                self.open.remove(&task);
                turn.due_by(0, Due::Flush);
                return;
            }
            let again = now.saturating_add(RESTORED_LEASE_S);
            let waiting = entries.into_iter().filter(|entry| lost.contains(&entry.key));
            let waiting = waiting.map(|entry| Entry { expiry: entry.expiry.max(again), ..entry }).collect();
            it.stage = Stage::Restoring { waiting, open: BTreeMap::new(), has_failed: false };
            return;
        }
        let name = it.name;
        self.is_over(turn, task);
        if let Some(watched) = steward.watched.get_mut(&name)
            && latest > watched.expiry
            && !watched.is_moved
        {
            watched.expiry = latest;
            for index in 0..name.total() {
                let key = name.fragment_key(index);
                for keeper in holder(turn.site, &name, index).into_iter().chain(steward.strays.get(&key).copied()) {
                    self.extensions.entry(keeper).or_default().push((key, latest));
                }
            }
        }
    }

    /// This inspection has found, or done, all there was.
    fn is_over(&mut self, turn: &mut Turn<'_>, task: u64) {
        let it = self.open.remove(&task);
        self.ledger.settle(turn.now, it.map_or(0, |it| it.is_audit.into()));
        turn.due_by(0, Due::Tend);
    }

    /// Sends extensions, a message a keeper at a time.
    fn extend(&mut self, turn: &mut Turn<'_>) {
        while self.extending.len() < super::limits::REPORTS_OPEN_MAX {
            let Some((keeper, mut leases)) = self.extensions.pop_first() else { return };
            let rest = leases.split_off(leases.len().min(KEYS_PER_MESSAGE_MAX));
            if !rest.is_empty() {
                self.extensions.insert(keeper, rest);
            }
            if let Some(call) = turn.call(keeper, Said::Extend { leases }, Bytes::new()) {
                self.extending.insert(call, keeper);
            }
        }
    }

    /// Not now: again later, each time after twice the pause, for as long as the aggregate is watched.
    fn fail(&mut self, turn: &mut Turn<'_>, task: u64) {
        let Some(it) = self.open.remove(&task) else { return };
        let tries = it.tries.saturating_add(1);
        let pause = INSPECTION_AGAIN << u32::from(it.tries.min(INSPECTION_DOUBLINGS_MAX));
        self.plan(it.name, Planned { is_audit: it.is_audit, tries, at: turn.now + pause });
        turn.due_by(INSPECTION_AGAIN, Due::Tend);
    }
}

impl Inspection {
    /// Fetches enough fragments to join the aggregate, from whoever may have one.
    fn gather(&mut self, turn: &mut Turn<'_>, steward: &Steward) {
        let mut sources = Vec::new();
        for index in 0..self.name.total() {
            let key = self.name.fragment_key(index);
            // One source an index: a stray is known to be there.
            let stray = steward.strays.get(&key).copied();
            let keeper = stray.or_else(|| holder(turn.site, &self.name, index));
            sources.extend(keeper.map(|keeper| (index, keeper)));
        }
        self.stage = Stage::Gathering(Gathering::new(turn, self.name, sources));
    }

    /// Asks the eligible holders of all objects what they have of them.
    fn look(&mut self, turn: &mut Turn<'_>) {
        let parameters = turn.site.roster.ring().parameters;
        let mut of_holder: BTreeMap<Id, Vec<Key>> = BTreeMap::new();
        for listed in &self.listed {
            let count = if is_signed(&listed.key) { parameters.k_head } else { parameters.k };
            for id in turn.site.roster.eligible(listed.key.placement(), usize::from(count)) {
                let keeper = turn.site.first_of(id).unwrap_or(id);
                of_holder.entry(keeper).or_default().push(listed.key);
            }
        }
        let mut open = BTreeMap::new();
        for (keeper, keys) in of_holder {
            for page in keys.chunks(KEYS_PER_MESSAGE_MAX / 4) {
                if let Some(call) = turn.call(keeper, Said::Look { keys: page.to_vec() }, Bytes::new()) {
                    open.insert(call, page.to_vec());
                }
            }
        }
        self.stage = Stage::Looking { open, found: BTreeMap::new() };
    }
}

fn note(found: &mut Found, lease: Option<Lease>, wanted: u64) {
    if let Some(lease) = lease {
        found.holders += usize::from(lease.version >= wanted);
        found.version = found.version.max(lease.version);
        found.expiry = found.expiry.max(lease.expiry);
    }
}

fn listed(entry: &Entry) -> Listed {
    Listed { key: entry.key, version: entry.version, expiry: entry.expiry, at: 0, length: entry.value.len() }
}

fn is_signed(key: &Key) -> bool {
    key.kind.is_mutable()
}

/// How many holders must have a head that nobody is to miss.
fn quorum(turn: &Turn<'_>) -> usize {
    let ring = turn.site.roster.ring();
    let hosts = ring.members.iter().filter(|member| member.state == net::ring::MemberState::Active).count();
    let k_head = ring.parameters.k_head.min(u8::try_from(hosts).unwrap_or(u8::MAX)).max(1);
    net::ring::Parameters { k_head, ..ring.parameters }.head_quorum()
}

fn put_back(entry: &Entry) -> Command {
    let Entry { key, value, expiry, .. } = entry.clone();
    if is_signed(&key) { Command::PutSigned { key, value, expiry } } else { Command::Insert { key, value, expiry } }
}

/// How long after a look at its leases an aggregate is not looked at again.
fn lease_pause(lease_s: Seconds) -> Micros {
    lease_s.saturating_mul(super::limits::SECOND) / 16
}
