//! Extending leases: one message a holder and batch of keys, whatever their number.
//!
//! Where copies were diverted because a holder was full, the groups that some holder did not know whole are sent once more,
//! to the next closest: as far as an insert may have gone.
//!
//! A holder's store can say how many of some keys it has, not which. Keys with the same replicas therefore travel as
//! a group, whose size each replica confirms; of several answers the largest counts. The sum is what is known at least.

use super::holders::holders;
use super::replica::bounded_lease;
use super::{Answer, Past, Then};
use crate::call::Owner;
use crate::id::{Id, Key};
use crate::limits::{GROUPS_PER_MESSAGE_MAX, KEYS_PER_MESSAGE_MAX, SUBSTITUTES_MAX};
use crate::machine::{Metric, Reply, RequestId, Seconds, StorageOperation, StorageResult};
use crate::pastry::{Pastry, eligible, is_signed};
use crate::site::Turn;
use crate::wire::{Body, Extend, Extended};
use std::collections::BTreeMap;

/// A refresh begun here.
#[derive(Debug)]
pub(super) struct Refreshing {
    request: RequestId,
    /// Of each group, how many keys some replica has confirmed.
    known: Vec<usize>,
    /// The keys of each group, and whether a holder has answered that it does not know all of them.
    groups: Vec<(Vec<Key>, bool)>,
    expiry: Seconds,
    /// Whether those beyond the holders were asked, too.
    is_broad: bool,
    /// The groups in each message that awaits an answer.
    open: BTreeMap<u64, Vec<usize>>,
    answers: usize,
}

impl Refreshing {
    fn ask(&mut self, turn: &mut Turn<'_>, task: u64, of_holder: BTreeMap<Id, Vec<usize>>) {
        for (holder, indices) in of_holder {
            for batch in batches(&indices, &self.groups) {
                let groups = batch.iter().map(|index| self.groups[*index].0.clone()).collect();
                let body = Body::Extend(Extend { scope: turn.site.scope(), expiry: self.expiry, groups });
                if let Some(call) = turn.call(holder, body, Owner::Refresh(task)) {
                    self.open.insert(call, batch);
                }
            }
        }
    }

    /// Of content that some holder lacks, those to whom copies may have been diverted, with its groups.
    fn beyond(&self, turn: &Turn<'_>) -> BTreeMap<Id, Vec<usize>> {
        let roster = &turn.site.roster;
        let mut of_holder: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
        for (index, (keys, is_diverted)) in self.groups.iter().enumerate() {
            if !is_diverted || keys.iter().any(|key| is_signed(key.kind)) {
                continue;
            }
            // Keys of one group have the same holders, not quite the same neighbours beyond: all of theirs are asked.
            let k = usize::from(roster.ring().parameters.k);
            let mut substitutes: Vec<Id> = keys
                .iter()
                .flat_map(|key| roster.eligible(key.placement(), k + SUBSTITUTES_MAX).into_iter().skip(k))
                .collect();
            substitutes.sort();
            substitutes.dedup();
            for id in substitutes {
                of_holder.entry(id).or_default().push(index);
            }
        }
        of_holder
    }
}

/// A peer's extension, of which some groups are still with the store.
#[derive(Debug)]
pub(super) struct Extending {
    from: Id,
    request: u64,
    known: Vec<u32>,
    open: usize,
}

impl Past {
    pub(super) fn begin_refresh(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        request: RequestId,
        keys: &[Key],
        expiry: Seconds,
    ) {
        let task = turn.site.number();
        let (groups, of_holder) = grouped(pastry, turn, keys);
        let mut refreshing = Refreshing {
            request,
            known: vec![0; groups.len()],
            groups: groups.into_iter().map(|keys| (keys, false)).collect(),
            expiry,
            is_broad: false,
            open: BTreeMap::new(),
            answers: 0,
        };
        refreshing.ask(turn, task, of_holder);
        self.refreshes.insert(task, refreshing);
        self.settle_refresh(turn, task);
    }

    pub(super) fn refresh_answered(&mut self, turn: &mut Turn<'_>, task: u64, request: u64, answer: Answer) {
        let Some(refreshing) = self.refreshes.get_mut(&task) else { return };
        let batch = refreshing.open.remove(&request).unwrap_or_default();
        if let Answer::Body(Body::Extended(Extended { known })) = answer {
            refreshing.answers += 1;
            for (index, known) in batch.into_iter().zip(known) {
                let (keys, is_diverted) = &mut refreshing.groups[index];
                let known = (known as usize).min(keys.len());
                *is_diverted |= known < keys.len();
                refreshing.known[index] = refreshing.known[index].max(known);
            }
        }
        self.settle_refresh(turn, task);
    }

    fn settle_refresh(&mut self, turn: &mut Turn<'_>, task: u64) {
        if !self.refreshes.get(&task).is_some_and(|refreshing| refreshing.open.is_empty()) {
            return;
        }
        let Some(mut refreshing) = self.refreshes.remove(&task) else { return };
        if !std::mem::replace(&mut refreshing.is_broad, true) {
            let beyond = refreshing.beyond(turn);
            refreshing.ask(turn, task, beyond);
            if !refreshing.open.is_empty() {
                self.refreshes.insert(task, refreshing);
                return;
            }
        }
        let is_answered = refreshing.answers > 0 || refreshing.groups.is_empty();
        let known = refreshing.known.iter().sum();
        turn.reply(refreshing.request, if is_answered { Reply::Refreshed { known } } else { Reply::Unavailable });
    }

    /// A peer extends leases on us.
    pub(super) fn extend_asked(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, extend: Extend) {
        if extend.scope.ring != turn.site.roster.ring().ring || self.is_overloaded() {
            turn.count(Metric::Dropped);
            return;
        }
        let expiry = bounded_lease(turn, extend.expiry);
        let id = turn.site.number();
        let open = extend.groups.len();
        self.extendings.insert(id, Extending { from, request, known: vec![0; open], open });
        for (group, keys) in extend.groups.into_iter().enumerate() {
            let leases = keys.into_iter().map(|key| (key, expiry)).collect();
            self.begin_storage(turn, StorageOperation::Touch { leases }, Then::Touched { extending: id, group });
        }
        self.settle_extending(turn, id);
    }

    pub(super) fn extend_finished(
        &mut self,
        turn: &mut Turn<'_>,
        extending: u64,
        group: usize,
        result: &StorageResult,
    ) {
        if let Some(extending) = self.extendings.get_mut(&extending) {
            extending.open -= 1;
            if let StorageResult::Touched { known } = result {
                extending.known[group] = u32::try_from(*known).unwrap_or(u32::MAX);
            }
        }
        self.settle_extending(turn, extending);
    }

    fn settle_extending(&mut self, turn: &mut Turn<'_>, id: u64) {
        if self.extendings.get(&id).is_some_and(|extending| extending.open == 0)
            && let Some(done) = self.extendings.remove(&id)
        {
            turn.send(done.from, done.request, Body::Extended(Extended { known: done.known }));
        }
    }
}

/// The keys in groups of the same replicas, none over the bound of a message, and the groups of each replica.
fn grouped(pastry: &Pastry, turn: &Turn<'_>, keys: &[Key]) -> (Vec<Vec<Key>>, BTreeMap<Id, Vec<usize>>) {
    let mut by_replicas: BTreeMap<Vec<Id>, Vec<Key>> = BTreeMap::new();
    for key in keys {
        let mut replicas = eligible(&turn.site.roster, key);
        replicas.extend(holders(pastry, turn, key));
        replicas.sort();
        replicas.dedup();
        by_replicas.entry(replicas).or_default().push(*key);
    }
    let mut groups = Vec::new();
    let mut of_holder: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
    for (replicas, keys) in by_replicas {
        for chunk in keys.chunks(KEYS_PER_MESSAGE_MAX) {
            for id in &replicas {
                of_holder.entry(*id).or_default().push(groups.len());
            }
            groups.push(chunk.to_vec());
        }
    }
    (groups, of_holder)
}

/// Splits the groups of one replica into messages within their bounds.
fn batches(indices: &[usize], groups: &[(Vec<Key>, bool)]) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut keys = 0;
    for index in indices {
        let size = groups[*index].0.len();
        let has_room = keys + size <= KEYS_PER_MESSAGE_MAX;
        match batches.last_mut().filter(|batch| has_room && batch.len() < GROUPS_PER_MESSAGE_MAX) {
            Some(batch) => batch.push(*index),
            None => {
                batches.push(vec![*index]);
                keys = 0;
            }
        }
        keys += size;
    }
    batches
}
