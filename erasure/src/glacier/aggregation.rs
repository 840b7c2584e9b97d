//! Aggregation: what is stored through this node, packed and written as fragments.
//!
//! Every object that PAST has stored for this node waits here, whole, until it is written: its replicas cover the wait. A
//! log's head sets the clock: twenty seconds later all that waits is packed, so that a head and the records behind it are in
//! one aggregate, or in two that follow each other, and within a minute where 60 % of the network cannot take them. Without a head, objects wait for more of
//! them, up to ten minutes or a good aggregate's size.
//!
//! An aggregate counts as written when as many of its fragments are durable as repair would leave it with; a fragment
//! whose holder does not answer, or has no room, goes to the next in its place. Fewer, and all of it waits again. What waits, and what is
//! being written, is *exposed*, and the operator sees how many bytes that is. It is noted on the disk, and where the process ends before all is
//! written, the next one goes on with it (`notes`).

use super::aggregate::{Entry, is_aggregated, pack, packed_bytes};
use super::limits::{
    AGGREGATE_BYTES_GOOD, AGGREGATE_BYTES_MAX, AGGREGATE_BYTES_SMALL, FLUSH, FLUSH_AGAIN, FLUSH_HEADS,
    OBJECTS_PER_AGGREGATE_MAX, PENDING_BYTES_MAX, SMALL_LEASE_S, WRITTEN_MAX,
};
use super::name::AggregateName;
use super::notes::{Notes, Recall};
use super::site::{Due, Heard, Turn};
use super::steward::threshold;
use super::wire::{Outcome, Said};
use super::work::Split;
use bytes::Bytes;
use net::id::Key;
use net::machine::{Metric, OpId, Reply, RequestId, Seconds, StorageResult};
use net::roster::Host;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
enum Stage {
    Splitting(OpId),
    Placing {
        name: AggregateName,
        fragments: Vec<Bytes>,
        open: BTreeMap<u64, u8>,
        durable: usize,
        unplaced: Vec<u8>,
        is_second: bool,
        /// Hosts that took theirs not.
        unwilling: BTreeSet<Host>,
    },
}

/// An aggregate on its way to its holders.
#[derive(Debug)]
struct Writing {
    entries: Vec<Entry>,
    expiry: Seconds,
    stage: Stage,
}

/// What one node packs.
#[derive(Debug, Default)]
pub(super) struct Aggregation {
    waiting: BTreeMap<Key, Entry>,
    waiting_bytes: usize,
    writing: Option<Writing>,
    /// Immutable objects that were written, so that one stored again is not written again; the oldest first.
    written: BTreeMap<Key, Seconds>,
    written_in_order: VecDeque<Key>,
    notes: Notes,
    /// Aggregates written since the process started, and their bytes.
    pub(super) aggregates: u64,
    pub(super) aggregate_bytes: u64,
    /// Objects that found no room to wait.
    pub(super) passed_over: u64,
}

impl Aggregation {
    /// Bytes of objects that are not in fragments yet.
    pub(super) fn exposed_bytes(&self) -> usize {
        self.waiting_bytes
            + self.writing.iter().flat_map(|it| &it.entries).map(|entry| entry.value.len()).sum::<usize>()
    }

    /// Objects noted on the disk that are to be fetched before they can be written.
    pub(super) fn to_recall(&self) -> usize {
        self.notes.to_recall()
    }

    /// The process has started: what an earlier one has left is looked for.
    pub(super) fn boot(&mut self, turn: &mut Turn<'_>) {
        self.notes.boot(turn);
    }

    /// The time for notes has come.
    pub(super) fn note(&mut self, turn: &mut Turn<'_>) {
        let has_room = self.exposed_bytes() < PENDING_BYTES_MAX / 2;
        self.notes.go_on(turn, has_room);
    }

    /// The disk has answered. False if the operation was not a note's.
    pub(super) fn stored(&mut self, turn: &mut Turn<'_>, op: OpId, result: &StorageResult) -> bool {
        self.notes.stored(turn, op, result)
    }

    /// PAST has answered. False if the command was not of an aggregation.
    pub(super) fn replied(&mut self, turn: &mut Turn<'_>, request: RequestId, reply: &Reply) -> bool {
        match self.notes.replied(turn, request, reply) {
            Recall::Found(entry) => self.add(turn, entry),
            Recall::Absent => {}
            Recall::NotOurs => return false,
        }
        true
    }

    /// An object was stored through this node, or is to leave another aggregate.
    pub(super) fn add(&mut self, turn: &mut Turn<'_>, entry: Entry) {
        if !is_aggregated(entry.key.kind) {
            return;
        }
        let is_written = self.written.get(&entry.key).is_some_and(|expiry| *expiry >= entry.expiry);
        let is_newer = self.waiting.get(&entry.key).is_none_or(|other| other.version < entry.version);
        if is_written {
            self.notes.is_written(turn, &entry.key, entry.version);
        }
        if is_written || !is_newer {
            return;
        }
        if self.waiting_bytes + entry.value.len() > PENDING_BYTES_MAX {
            if !self.notes.put_off(turn, &entry) {
                self.passed_over += 1;
                turn.count(Metric::Dropped);
            }
            return;
        }
        self.notes.waits(turn, &entry);
        turn.due_by(if entry.key.kind.is_mutable() { FLUSH_HEADS } else { FLUSH }, Due::Flush);
        self.waiting_bytes += entry.value.len();
        if let Some(older) = self.waiting.insert(entry.key, entry) {
            self.waiting_bytes -= older.value.len();
        }
        if self.waiting_bytes >= AGGREGATE_BYTES_GOOD || self.waiting.len() >= OBJECTS_PER_AGGREGATE_MAX {
            turn.due_by(0, Due::Flush);
        }
    }

    /// Packs what waits, if nothing is being written.
    pub(super) fn flush(&mut self, turn: &mut Turn<'_>) {
        if self.writing.is_some() || self.waiting.is_empty() {
            return; // The end of what is being written begins the next.
        }
        let mut entries = Vec::new();
        let mut value_bytes = 0;
        while let Some((key, entry)) = self.waiting.pop_first() {
            let bytes = packed_bytes(entries.len() + 1, value_bytes + entry.value.len());
            let is_full = bytes > AGGREGATE_BYTES_GOOD && !entries.is_empty();
            if is_full || entries.len() >= OBJECTS_PER_AGGREGATE_MAX || bytes > AGGREGATE_BYTES_MAX {
                self.waiting.insert(key, entry);
                break;
            }
            value_bytes += entry.value.len();
            self.waiting_bytes -= entry.value.len();
            entries.push(entry);
        }
        let latest = entries.iter().map(|entry| entry.expiry).max().unwrap_or(0);
        let short = turn.seconds().saturating_add(SMALL_LEASE_S);
        let expiry = if value_bytes < AGGREGATE_BYTES_SMALL { latest.min(short) } else { latest };
        let Ok(payload) = pack(&entries) else {
            // Nothing is added that cannot be packed; if something was, it is not held on to.
            self.passed_over += entries.len() as u64;
            turn.count(Metric::Dropped);
            return;
        };
        let profile = turn.site.profile;
        let op = turn.work(Arc::new(Split { payload, profile }));
        self.writing = Some(Writing { entries, expiry, stage: Stage::Splitting(op) });
    }

    /// The fragments are made. False if the computation was not of an aggregation.
    pub(super) fn worked(&mut self, turn: &mut Turn<'_>, op: OpId, made: Option<&Vec<Bytes>>) -> bool {
        let Some(writing) = &mut self.writing else { return false };
        if !matches!(writing.stage, Stage::Splitting(ours) if ours == op) {
            return false;
        }
        let named = made.and_then(|made| {
            let (name, fragments) = made.split_first()?;
            Some((AggregateName::of_bytes(name.as_ref().try_into().ok()?)?, fragments.to_vec()))
        });
        match named {
            Some((name, fragments)) => {
                let unplaced = (0..name.total()).collect();
                let open = BTreeMap::new();
                writing.stage = Stage::Placing {
                    name,
                    fragments,
                    open,
                    durable: 0,
                    unplaced,
                    is_second: false,
                    unwilling: BTreeSet::new(),
                };
                self.place(turn);
            }
            None => self.wait_again(turn),
        }
        true
    }

    /// Sends the fragments that have no place yet to their holders; the second time, to the next of those who are away.
    fn place(&mut self, turn: &mut Turn<'_>) {
        let Some(Writing { expiry, stage, .. }) = &mut self.writing else { return };
        let Stage::Placing { name, fragments, open, unplaced, is_second, unwilling, .. } = stage else { return };
        let is_away = |host| *is_second && (turn.site.is_silent(host) || unwilling.contains(&host));
        let holders = turn.site.placement.holders(name, &is_away);
        for index in std::mem::take(unplaced) {
            let keeper = holders.get(usize::from(index)).and_then(|id| turn.site.first_of(*id));
            let said = Said::Keep { key: name.fragment_key(index), expiry: *expiry };
            let value = fragments.get(usize::from(index)).cloned().unwrap_or_default();
            match keeper.and_then(|keeper| turn.call(keeper, said, value)) {
                Some(call) => {
                    open.insert(call, index);
                }
                None => unplaced.push(index),
            }
        }
        self.settle(turn);
    }

    /// An answer, or silence. False if the call was not of an aggregation.
    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, request: u64, heard: &Heard) -> bool {
        let Some(Writing { stage: Stage::Placing { open, durable, unplaced, unwilling, .. }, .. }) = &mut self.writing
        else {
            return false;
        };
        let Some(index) = open.remove(&request) else { return false };
        match heard {
            Heard::Answer(_, Said::Kept { outcome: Outcome::Durable }, _) => *durable += 1,
            Heard::Answer(from, ..) => {
                unplaced.push(index);
                unwilling.extend(turn.site.roster.host(*from));
            }
            Heard::Silence => unplaced.push(index),
        }
        self.settle(turn);
        true
    }

    fn settle(&mut self, turn: &mut Turn<'_>) {
        let Some(Writing { stage: Stage::Placing { name, open, durable, unplaced, is_second, .. }, .. }) =
            &mut self.writing
        else {
            return;
        };
        if !open.is_empty() {
            return;
        }
        if !unplaced.is_empty() && !std::mem::replace(is_second, true) {
            return self.place(turn);
        }
        if *durable < usize::from(threshold(turn.site, name)) {
            return self.wait_again(turn);
        }
        let Some(writing) = self.writing.take() else { return };
        self.aggregates += 1;
        for Entry { key, expiry, value, version } in writing.entries {
            self.notes.is_written(turn, &key, version);
            self.aggregate_bytes += value.len() as u64;
            if !key.kind.is_mutable() && self.written.insert(key, expiry).is_none() {
                self.written_in_order.push_back(key);
            }
        }
        while self.written_in_order.len() > WRITTEN_MAX {
            self.written_in_order.pop_front().map(|key| self.written.remove(&key));
        }
        // Stewards learn of it in a round; soon, and not one round for each aggregate.
        if !self.waiting.is_empty() {
            turn.due_by(if self.waiting_bytes >= AGGREGATE_BYTES_GOOD { 0 } else { FLUSH_HEADS }, Due::Flush);
        }
    }

    /// Too few fragments are durable: all of it waits again.
    fn wait_again(&mut self, turn: &mut Turn<'_>) {
        let Some(writing) = self.writing.take() else { return };
        for entry in writing.entries {
            if self.waiting.get(&entry.key).is_none_or(|other| other.version < entry.version) {
                self.waiting_bytes += entry.value.len();
                if let Some(older) = self.waiting.insert(entry.key, entry) {
                    self.waiting_bytes -= older.value.len();
                }
            }
        }
        turn.due_by(FLUSH_AGAIN, Due::Flush);
    }
}
