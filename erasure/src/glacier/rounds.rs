//! Rounds: what a node keeps is reported to its stewards.
//!
//! The steward of an aggregate is the holder of its fragment 0, as far as that one answers; otherwise the next in its place. Each round
//! a node goes through its own disk once, sums the keys of its fragments for each steward, and sends each its sum: one small
//! message for all that the two share, whatever it is. Only where the sum is news to the steward does the node go through its
//! disk again and list them, page by page, all such stewards in step, so that one pass serves them all.
//!
//! A report is also the sign of life by which a steward knows how long a host has been away.

use super::limits::{KEYS_PER_MESSAGE_MAX, REPORTS_OPEN_MAX, ROUND, ROUND_SOON};
use super::name::AggregateName;
use super::site::{Due, Heard, Site, Turn};
use super::wire::Said;
use bytes::Bytes;
use net::id::{Id, Key};
use net::machine::{Listed, OpId, Seconds, StorageOperation, StorageResult};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A sum over keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: u32,
    pub(super) hashes: u128,
}

impl Sum {
    pub(super) fn add(&mut self, key: &Key) {
        let mut hasher = blake3::Hasher::new_derive_key("ePOST 2026 glacier report");
        hasher.update(&key.name.0);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.count = self.count.wrapping_add(1);
        self.hashes = self.hashes.wrapping_add(u128::from_le_bytes(hash));
    }
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// The disk is gone through for sums.
    Summing { op: OpId, sums: BTreeMap<Id, Sum> },
    /// Sums are sent.
    Reporting { waiting: VecDeque<(Id, Sum)>, open: BTreeMap<u64, Id>, listeners: BTreeSet<Id> },
    /// The disk is gone through for lists.
    Reading { op: OpId, listeners: BTreeSet<Id>, is_first: bool },
    /// A page is sent to all who want it; the next begins after `after`, if there is one.
    Listing { open: BTreeMap<u64, Id>, listeners: BTreeSet<Id>, after: Option<Key> },
}

/// The reports of one node.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    stage: Stage,
    /// To whom there was something to report last time.
    told: BTreeSet<Id>,
    /// Something has changed since this round began.
    is_outdated: bool,
}

/// Who is steward of an aggregate, as far as we know who answers.
pub(super) fn steward(site: &Site, name: &AggregateName) -> Option<Id> {
    let first = site.placement.holder_of_first(name)?;
    let is_silent = site.roster.host(first).is_none_or(|host| site.is_silent(host));
    let next = || site.placement.holders(name, &|host| site.is_silent(host)).first().copied();
    site.first_of(if is_silent { next()? } else { first })
}

impl Rounds {
    /// The time for a round has come.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>) {
        turn.due_by(ROUND, Due::Round);
        if !matches!(self.stage, Stage::Idle) {
            self.is_outdated = true;
            return;
        }
        let op = scan(turn, None);
        self.stage = Stage::Summing { op, sums: BTreeMap::new() };
    }

    /// A page of our disk. False if it was not asked for here.
    pub(super) fn stored(&mut self, turn: &mut Turn<'_>, op: OpId, result: &StorageResult) -> bool {
        match &mut self.stage {
            Stage::Summing { op: ours, .. } | Stage::Reading { op: ours, .. } if *ours == op => {}
            _ => return false,
        }
        let StorageResult::Listed(entries) = result else {
            self.end(turn, true);
            return true;
        };
        let next = (entries.len() >= KEYS_PER_MESSAGE_MAX).then(|| entries.last().map(|entry| entry.key)).flatten();
        match std::mem::take(&mut self.stage) {
            Stage::Summing { mut sums, .. } => {
                for (name, entry) in fragments(entries) {
                    if let Some(steward) = steward(turn.site, &name) {
                        sums.entry(steward).or_default().add(&entry.key);
                    }
                }
                if next.is_some() {
                    let op = scan(turn, next);
                    self.stage = Stage::Summing { op, sums };
                } else {
                    self.report_all(turn, sums);
                }
            }
            Stage::Reading { listeners, is_first, .. } => self.list(turn, entries, listeners, is_first, next),
            other => self.stage = other,
        }
        true
    }

    /// All sums are known. Whom nothing is to be reported any more is told so once.
    fn report_all(&mut self, turn: &mut Turn<'_>, mut sums: BTreeMap<Id, Sum>) {
        for id in std::mem::replace(&mut self.told, sums.keys().copied().collect()) {
            sums.entry(id).or_default();
        }
        let waiting = sums.into_iter().collect();
        self.stage = Stage::Reporting { waiting, open: BTreeMap::new(), listeners: BTreeSet::new() };
        self.report_on(turn);
    }

    fn report_on(&mut self, turn: &mut Turn<'_>) {
        let Stage::Reporting { waiting, open, listeners } = &mut self.stage else { return };
        while open.len() < REPORTS_OPEN_MAX {
            let Some((steward, sum)) = waiting.pop_front() else { break };
            let said = Said::Report { count: sum.count, sum: sum.hashes.to_le_bytes() };
            if let Some(call) = turn.call(steward, said, Bytes::new()) {
                open.insert(call, steward);
            }
        }
        if open.is_empty() && waiting.is_empty() {
            let listeners = std::mem::take(listeners);
            if listeners.is_empty() {
                self.end(turn, false);
            } else {
                let op = scan(turn, None);
                self.stage = Stage::Reading { op, listeners, is_first: true };
            }
        }
    }

    /// Sends a page of fragments, each to its steward, if that one listens.
    fn list(
        &mut self,
        turn: &mut Turn<'_>,
        entries: &[Listed],
        listeners: BTreeSet<Id>,
        is_first: bool,
        after: Option<Key>,
    ) {
        let mut pages: BTreeMap<Id, Vec<(Key, Seconds)>> = BTreeMap::new();
        for (name, entry) in fragments(entries) {
            if let Some(steward) = steward(turn.site, &name).filter(|id| listeners.contains(id)) {
                pages.entry(steward).or_default().push((entry.key, entry.expiry));
            }
        }
        let is_last = after.is_none();
        let mut open = BTreeMap::new();
        for listener in &listeners {
            let entries = pages.remove(listener).unwrap_or_default();
            if !entries.is_empty() || is_first || is_last {
                let said = Said::Listing { entries, is_first, is_last };
                if let Some(call) = turn.call(*listener, said, Bytes::new()) {
                    open.insert(call, *listener);
                }
            }
        }
        self.stage = Stage::Listing { open, listeners, after };
        self.list_on(turn);
    }

    fn list_on(&mut self, turn: &mut Turn<'_>) {
        let Stage::Listing { open, listeners, after } = &mut self.stage else { return };
        if !open.is_empty() {
            return;
        }
        match (*after, std::mem::take(listeners)) {
            (Some(after), listeners) if !listeners.is_empty() => {
                let op = scan(turn, Some(after));
                self.stage = Stage::Reading { op, listeners, is_first: false };
            }
            _ => self.end(turn, false),
        }
    }

    /// An answer, or silence. False if the call was not of a round.
    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, request: u64, heard: &Heard) -> bool {
        match &mut self.stage {
            Stage::Reporting { open, listeners, .. } => {
                let Some(steward) = open.remove(&request) else { return false };
                match heard {
                    Heard::Answer(_, Said::Reported { wants_listing: true }, _) => {
                        listeners.insert(steward);
                    }
                    Heard::Silence => self.is_outdated = true, // Somebody else is steward now.
                    Heard::Answer(..) => {}
                }
                self.report_on(turn);
            }
            Stage::Listing { open, listeners, .. } => {
                let Some(listener) = open.remove(&request) else { return false };
                if matches!(heard, Heard::Silence) {
                    listeners.remove(&listener);
                }
                self.list_on(turn);
            }
            _ => return false,
        }
        true
    }

    fn end(&mut self, turn: &mut Turn<'_>, has_failed: bool) {
        self.stage = Stage::Idle;
        if std::mem::take(&mut self.is_outdated) || has_failed {
            turn.due_by(6 * ROUND_SOON, Due::Round);
        }
    }
}

/// Of a page of our disk, the fragments.
fn fragments(entries: &[Listed]) -> impl Iterator<Item = (AggregateName, &Listed)> {
    entries.iter().filter_map(|entry| AggregateName::of_key(&entry.key).map(|(name, _)| (name, entry)))
}

fn scan(turn: &mut Turn<'_>, after: Option<Key>) -> OpId {
    let (first, last) = (Id::default(), Id([0xff; Id::LEN]));
    turn.storage(StorageOperation::Scan { from: first, to: last, after, limit: KEYS_PER_MESSAGE_MAX })
}
