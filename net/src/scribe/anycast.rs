//! Anycast: looking through a tree for one application that takes something.
//!
//! The message carries where it has been and where it has yet to go. It starts towards the root by the route; the first node
//! of the tree that it meets puts its parent, and on top of it its children in drawn order, on the list of nodes to visit, and
//! each node visited does the same: depth first, children before parents, so that most searches end near the asker. A node
//! that subscribes asks its application. Whoever has the message keeps it until the next one has acknowledged it, and goes on
//! to the one after that if it does not. The search ends with the first application that accepts, or where nobody is left;
//! the asker is told by whoever ends it. If that node dies with the message, the asker hears nothing, and knows that much. And
//! where only the acknowledgement was lost two go on with it, and two may accept: the asker is told of the first.

use super::{Recent, Scribe, Waiting, shuffle};
use crate::call::Owner;
use crate::id::Id;
use crate::limits::{ANYCAST_VISITS_MAX, ANYCAST_WAIT, ANYCASTS_MAX, ANYCASTS_SEEN_MAX, SOLICIT_WAIT};
use crate::machine::{Action, Metric, Micros, Reply, RequestId};
use crate::pastry::Pastry;
use crate::site::{Due, Turn};
use crate::wire::{Anycast, AnycastAnswer, Body, Taken, TakenOutcome};
use bytes::Bytes;
use std::collections::BTreeMap;

/// An anycast that is with us.
#[derive(Debug)]
struct Held {
    anycast: Anycast,
    payload: Bytes,
    /// To whom it was given from here in vain.
    untaken: Vec<Id>,
    /// By when the application must have answered; if none, the next node has yet to acknowledge it.
    solicited: Option<Micros>,
}

/// The anycasts of this node's own, and those of others that it sees to.
#[derive(Debug)]
pub(super) struct Anycasts {
    asked: BTreeMap<u64, (RequestId, Micros)>,
    held: BTreeMap<u64, Held>,
    seen: Recent<(Id, u64)>,
}

impl Default for Anycasts {
    fn default() -> Anycasts {
        Anycasts { asked: BTreeMap::new(), held: BTreeMap::new(), seen: Recent::new(ANYCASTS_SEEN_MAX) }
    }
}

impl Anycasts {
    pub(super) fn open(&self) -> usize {
        self.asked.len() + self.held.len()
    }
}

impl Scribe {
    pub(super) fn anycast(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        request: RequestId,
        group: Id,
        payload: Bytes,
    ) {
        if self.anycasts.asked.len() >= ANYCASTS_MAX || self.anycasts.held.len() >= ANYCASTS_MAX {
            turn.reply(request, Reply::Busy);
            return;
        }
        if !pastry.is_ready() {
            turn.reply(request, Reply::Unavailable);
            return;
        }
        let question = turn.site.number();
        let due = turn.due_in(ANYCAST_WAIT, Due::Anycast(question));
        self.anycasts.asked.insert(question, (request, due));
        let asker = turn.site.me;
        let anycast = Anycast { group, asker, question, visited: vec![asker], pending: Vec::new() };
        self.go_on(pastry, turn, anycast, payload, Vec::new());
    }

    /// An anycast comes by.
    pub(super) fn anycast_received(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        from: Id,
        request: u64,
        mut anycast: Anycast,
        payload: Bytes,
    ) {
        let is_full = self.anycasts.held.len() >= ANYCASTS_MAX || !pastry.is_ready();
        let outcome = if is_full { TakenOutcome::Busy } else { TakenOutcome::Taken };
        turn.send(from, request, Body::Taken(Taken { outcome }));
        if is_full {
            turn.count(Metric::Dropped);
            return;
        }
        if !self.anycasts.seen.is_first((anycast.asker, anycast.question)) {
            return; // It came twice, as its acknowledgement was lost.
        }
        let me = turn.site.me;
        if !anycast.visited.contains(&me) {
            anycast.visited.push(me);
        }
        let is_member = self.groups.get(&anycast.group).is_some_and(|it| it.is_subscribed);
        if !is_member || anycast.asker == me {
            self.go_on(pastry, turn, anycast, payload, Vec::new());
            return;
        }
        let solicitation = turn.site.number();
        let (group, asker) = (anycast.group, anycast.asker);
        turn.out.push(Action::Solicit { group, asker, solicitation, payload: payload.clone() });
        let due = turn.due_in(SOLICIT_WAIT, Due::Solicitation(solicitation));
        self.anycasts.held.insert(solicitation, Held { anycast, payload, untaken: Vec::new(), solicited: Some(due) });
    }

    /// Our application has answered, or its time is up.
    pub(super) fn solicited(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, solicitation: u64, accepts: bool) {
        let is_asked = |held: &Held| held.solicited.is_some();
        if !self.anycasts.held.get(&solicitation).is_some_and(is_asked) {
            turn.count(Metric::Unexpected); // Too late, or never asked.
            return;
        }
        let Some(Held { anycast, payload, solicited, .. }) = self.anycasts.held.remove(&solicitation) else { return };
        turn.not_due(solicited.unwrap_or_default(), Due::Solicitation(solicitation));
        if accepts {
            end(turn, &anycast, true);
        } else {
            self.go_on(pastry, turn, anycast, payload, Vec::new());
        }
    }

    /// Takes an anycast to the next node, or ends it.
    fn go_on(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, mut anycast: Anycast, payload: Bytes, untaken: Vec<Id>) {
        self.list(pastry, turn, &mut anycast, &untaken);
        let next = if anycast.visited.len() < ANYCAST_VISITS_MAX { anycast.pending.pop() } else { None };
        let Some(next) = next else { return end(turn, &anycast, false) };
        let number = turn.call(next, Body::Anycast(anycast.clone(), payload.clone()), Owner::Scribe(Waiting::Visit));
        let Some(number) = number else { return };
        self.anycasts.held.insert(number, Held { anycast, payload, untaken, solicited: None });
    }

    /// Puts on the list of nodes to visit whom we know in the tree; outside of it, and where the parent is lost or one
    /// of the `untaken`, the next hop towards the root.
    fn list(&self, pastry: &Pastry, turn: &mut Turn<'_>, anycast: &mut Anycast, untaken: &[Id]) {
        let branch = self.groups.get(&anycast.group).map(|it| &it.branch);
        let mut known: Vec<Id> = branch.map(|branch| branch.children().collect()).unwrap_or_default();
        shuffle(turn, &mut known);
        let me = turn.site.me;
        let above = match branch.and_then(|branch| branch.parent()).filter(|parent| !untaken.contains(parent)) {
            Some(parent) => Some(parent),
            None if pastry.is_root(me, anycast.group) => None,
            // Outside of the tree with others left to visit, those others are in it.
            None if branch.is_none() && !anycast.pending.is_empty() => None,
            None => pastry.next_hop_towards(me, anycast.group, &anycast.visited),
        };
        let roster = turn.site.roster.clone();
        anycast.pending.retain(|id| roster.contains(*id));
        for id in above.into_iter().chain(known) {
            let is_listed = anycast.visited.contains(&id) || anycast.pending.contains(&id);
            if is_listed || id == me {
                continue;
            }
            if anycast.pending.len() >= ANYCAST_VISITS_MAX {
                turn.count(Metric::Dropped);
                return;
            }
            anycast.pending.push(id);
        }
    }

    /// The next node has taken an anycast, or has not.
    pub(super) fn visit_answered(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        number: u64,
        to: Id,
        outcome: Option<TakenOutcome>,
    ) {
        let Some(Held { mut anycast, payload, mut untaken, .. }) = self.anycasts.held.remove(&number) else { return };
        if outcome == Some(TakenOutcome::Taken) {
            return;
        }
        if outcome.is_none() {
            self.parent_silent(turn, anycast.group, to);
        }
        anycast.visited.push(to);
        untaken.push(to);
        self.go_on(pastry, turn, anycast, payload, untaken);
    }

    /// An anycast of ours has ended.
    pub(super) fn anycast_ended(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, answer: AnycastAnswer) {
        turn.send(from, request, Body::Taken(Taken { outcome: TakenOutcome::Taken }));
        if let Some((request, due)) = self.anycasts.asked.remove(&answer.question) {
            turn.not_due(due, Due::Anycast(answer.question));
            turn.reply(request, if answer.accepted { Reply::Accepted { by: from } } else { Reply::Nobody });
        }
    }

    /// An anycast of ours has not ended in time.
    pub(super) fn anycast_given_up(&mut self, turn: &mut Turn<'_>, question: u64) {
        if let Some((request, _)) = self.anycasts.asked.remove(&question) {
            turn.reply(request, Reply::Unavailable);
        }
    }
}

/// Tells the asker how its anycast ended here.
fn end(turn: &mut Turn<'_>, anycast: &Anycast, accepted: bool) {
    let answer = Body::AnycastAnswer(AnycastAnswer { question: anycast.question, accepted });
    if turn.site.roster.contains(anycast.asker) {
        turn.call(anycast.asker, answer, Owner::Scribe(Waiting::Verdict));
    }
}
