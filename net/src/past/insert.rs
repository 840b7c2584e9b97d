//! Inserting a content block: the writer's side, and the root's.
//!
//! The writer finds the root of the key and hands it the block; the root checks it and gives it to the k closest live
//! nodes on distinct hosts, itself among them. At a majority of k the writer hears that it is stored; the root goes on
//! to k, and asks the next closest in place of a holder that refuses, because it is full, or is silent. A root that is silent
//! is replaced by the next nearest, which does the same. There is no pointer to
//! such a diverted copy: it is at most [`SUBSTITUTES_MAX`] hosts beyond the k nearest, where readers ([`super::lookup`]) and those
//! who extend its lease ([`super::refresh`]) look as well. A pointer would save them some questions, and would itself have to be
//! kept on a full disk, refreshed, and handed on.

use super::holders::nearest_live;
use super::replica::{Incoming, out_of_scope};
use super::{Answer, Past, Then, rules};
use crate::call::Owner;
use crate::id::{Id, Key};
use crate::limits::{INSERT_TRIES, RETRY_PAUSE, SUBSTITUTES_MAX, TASKS_MAX};
use crate::machine::{Metric, Reply, RequestId, Seconds};
use crate::past::block::Verdict;
use crate::pastry::{Pastry, eligible, is_signed};
use crate::site::{Asker, Due, Turn};
use crate::wire::{Body, Inserted, Place, StoreOutcome};
use bytes::Bytes;

/// An insertion begun here.
#[derive(Debug)]
pub(super) struct Insertion {
    request: RequestId,
    key: Key,
    value: Bytes,
    expiry: Seconds,
    tries: u8,
    /// Who was handed the block and has not answered; at most one a try.
    silent: Vec<Id>,
}

/// The copying of a block to its holders, by us as its root.
#[derive(Debug)]
pub(super) struct Copying {
    incoming: Incoming,
    /// Everybody asked.
    tried: Vec<Id>,
    /// Those on which it is durable.
    durable: Vec<Id>,
    open: usize,
    answered: bool,
}

impl Past {
    pub(super) fn begin_insertion(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        key: Key,
        value: Bytes,
        expiry: Seconds,
    ) {
        let task = turn.site.number();
        self.insertions
            .insert(task, Insertion { request, key, value: value.clone(), expiry, tries: 0, silent: Vec::new() });
        // Our own caller's mistakes are found here, so that a root's refusal can be known for a lie.
        self.begin_verification(turn, key, value, Then::InsertionVerified(task));
    }

    pub(super) fn insertion_verified(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, task: u64, result: Verdict) {
        match result {
            Ok(_) => self.find_root(pastry, turn, task),
            Err(refusal) => self.end_insertion(turn, task, Reply::Refused(refusal)),
        }
    }

    /// Looks for the root. One that has not answered may be alive, and others reach it, though we do not: then the next nearest
    /// is handed the block, and copies it in its place.
    pub(super) fn find_root(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, task: u64) {
        let Some(insertion) = self.insertions.get_mut(&task) else { return };
        if insertion.tries >= INSERT_TRIES {
            self.end_insertion(turn, task, Reply::Unavailable);
            return;
        }
        insertion.tries += 1;
        let target = insertion.key.placement();
        if !insertion.silent.is_empty() {
            let silent = insertion.silent.clone();
            let nearest = nearest_live(pastry, turn, target, usize::from(INSERT_TRIES));
            let next = nearest.into_iter().find(|id| !silent.contains(id));
            self.insertion_located(turn, task, next);
            return;
        }
        match pastry.known_root(target) {
            Some(root) => self.insertion_located(turn, task, Some(root)),
            None => pastry.locate(turn, target, Asker::Insertion(task)),
        }
    }

    pub(crate) fn insertion_located(&mut self, turn: &mut Turn<'_>, task: u64, root: Option<Id>) {
        let Some(insertion) = self.insertions.get(&task) else { return };
        let place = Place { scope: turn.site.scope(), key: insertion.key, expiry: insertion.expiry };
        let body = Body::Insert(place, insertion.value.clone());
        if root.and_then(|root| turn.call(root, body, Owner::Insertion(task))).is_none() {
            self.insert_later(turn, task);
        }
    }

    pub(super) fn insertion_answered(&mut self, turn: &mut Turn<'_>, task: u64, from: Id, answer: Answer) {
        let Some(insertion) = self.insertions.get_mut(&task) else { return };
        if matches!(answer, Answer::Silence) {
            insertion.silent.push(from);
        }
        let quorum = rules(turn, eligible(&turn.site.roster, &insertion.key).len()).content_quorum();
        match answer {
            Answer::Body(Body::Inserted(Inserted { outcome: StoreOutcome::Durable, copies }))
                if usize::from(copies) >= quorum =>
            {
                self.end_insertion(turn, task, Reply::Stored { copies: usize::from(copies), version: 0 });
            }
            _ => self.insert_later(turn, task),
        }
    }

    fn insert_later(&mut self, turn: &mut Turn<'_>, task: u64) {
        let Some(insertion) = self.insertions.get(&task) else { return };
        turn.due_in(RETRY_PAUSE * u64::from(insertion.tries), Due::Task(task));
    }

    fn end_insertion(&mut self, turn: &mut Turn<'_>, task: u64, reply: Reply) {
        if let Some(insertion) = self.insertions.remove(&task) {
            turn.reply(insertion.request, reply);
        }
    }

    /// A peer asks us, as the root, to insert a block.
    pub(super) fn insert_asked(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, incoming: Incoming) {
        let key = incoming.place.key;
        let repeated = |c: &Copying| c.incoming.from == incoming.from && c.incoming.request == incoming.request;
        if self.copyings.values().any(repeated) {
            return; // Under way, and will be answered.
        }
        let outcome = if let Some(epoch) = out_of_scope(pastry, turn, incoming.from, &incoming.place.scope, &key) {
            StoreOutcome::WrongScope(epoch)
        } else if is_signed(key.kind) || !pastry.is_ready() || !pastry.covers(key.placement()) {
            StoreOutcome::NotMine
        } else if self.copyings.len() >= TASKS_MAX || self.is_overloaded() {
            turn.count(Metric::Dropped);
            StoreOutcome::Failed
        } else {
            let task = turn.site.number();
            let value = incoming.value.clone();
            let copying = Copying { incoming, tried: Vec::new(), durable: Vec::new(), open: 0, answered: false };
            self.copyings.insert(task, copying);
            self.begin_verification(turn, key, value, Then::CopyingVerified(task));
            return;
        };
        turn.send(incoming.from, incoming.request, Body::Inserted(Inserted { outcome, copies: 0 }));
    }

    pub(super) fn copying_verified(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, task: u64, result: Verdict) {
        match result {
            Ok(_) => self.copy_on(pastry, turn, task),
            Err(refusal) => {
                if let Some(copying) = self.copyings.remove(&task) {
                    let inserted = Inserted { outcome: StoreOutcome::Refused(refusal), copies: 0 };
                    turn.send(copying.incoming.from, copying.incoming.request, Body::Inserted(inserted));
                }
            }
        }
    }

    pub(super) fn copying_answered(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        task: u64,
        from: Id,
        answer: Answer,
    ) {
        let Some(copying) = self.copyings.get_mut(&task) else { return };
        copying.open -= 1;
        if matches!(&answer, Answer::Body(Body::StoreAnswer(a)) if a.outcome == StoreOutcome::Durable) {
            copying.durable.push(from);
        }
        self.copy_on(pastry, turn, task);
    }

    /// Asks as many of the next closest as are missing to k; tells the writer at the majority; ends when all is tried.
    fn copy_on(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, task: u64) {
        let Some(copying) = self.copyings.get_mut(&task) else { return };
        let Incoming { from, request, place, .. } = copying.incoming;
        let rules = rules(turn, eligible(&turn.site.roster, &place.key).len());
        let k = usize::from(rules.k);
        let count = k + SUBSTITUTES_MAX;
        for id in nearest_live(pastry, turn, place.key.placement(), count) {
            if copying.durable.len() + copying.open >= k {
                break;
            }
            if !copying.tried.contains(&id) {
                copying.tried.push(id);
                let body = Body::Store(Place { scope: turn.site.scope(), ..place }, copying.incoming.value.clone());
                copying.open += usize::from(turn.call(id, body, Owner::Copying(task)).is_some());
            }
        }
        let copies = copying.durable.len();
        let is_over = copying.open == 0;
        if !copying.answered && (copies >= rules.content_quorum() || is_over) {
            copying.answered = true;
            let outcome = if copies >= rules.content_quorum() { StoreOutcome::Durable } else { StoreOutcome::Failed };
            turn.send(from, request, Body::Inserted(Inserted { outcome, copies: copies as u8 }));
        }
        if is_over {
            self.copyings.remove(&task);
        }
    }
}
