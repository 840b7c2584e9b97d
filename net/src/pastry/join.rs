//! Joining: from the first ping to being ready.
//!
//! ```text
//! contacts   ping whom we may join through (the bootstraps, or our neighbours in the ring document)
//!    │          a contact is ready ──────────────▶ asked: route a join to our own id, through it
//!    │ nobody is ready, all have answered or       │ hops send rows, the root sends its leaf set
//!    │ are dead: the ring is starting, or we       ▼
//!    │ are alone                                 settling: ping that leaf set
//!    ▼                                             │ all have answered or are dead
//! ready ◀──────────────────────────────────────────┘   announce ourselves to the leaf set
//!    │ both neighbours have us in their leaf sets
//!    ▼
//! owner of the keys nearest to us ([`super::ownership`])
//! ```
//!
//! When a whole ring starts at once, everybody is a contact of its neighbours and nobody is ready; each becomes ready
//! when all its neighbours have spoken or failed to, and says so to those that spoke.

use super::Pastry;
use super::failure_rate::FailureRate;
use crate::id::Id;
use crate::limits::{CONTACT_WAIT, JOIN_TRIES, JOIN_WAIT, NEIGHBOUR_PING};
use crate::site::{Due, Notice, Turn};
use crate::wire::{Body, LeafSetGossip, Purpose, Route};
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Contacts,
    Asked,
    Settling,
}

/// What is still to be learned before this node is ready.
#[derive(Debug, Default)]
pub(super) struct Join {
    phase: Phase,
    /// Whom we await an answer from, or the news of its death.
    awaited: BTreeSet<Id>,
    /// Who has answered, ready or not.
    alive: BTreeSet<Id>,
    /// Contacts that led nowhere.
    tried: Vec<Id>,
    question: u64,
    attempts: u8,
    /// Whether our neighbours by the ring document were asked.
    by_roster: bool,
}

impl Join {
    /// Whether this is the number of the question by which we join.
    pub(super) fn asked_by(&self, request: u64) -> bool {
        self.phase != Phase::Contacts && self.question == request
    }
}

impl Pastry {
    /// Begins to join: at boot, and after a sleep. The routing table is kept; it is only ever a hint.
    pub(crate) fn begin_join(&mut self, turn: &mut Turn<'_>) {
        self.leaf_set.clear();
        self.hops.clear();
        self.measure_while_joining();
        self.joining = Some(Join::default());
        let bootstraps: Vec<Id> = self.bootstraps.iter().copied().filter(|id| *id != turn.site.me).collect();
        if bootstraps.is_empty() {
            self.contact_neighbours(turn);
        } else {
            self.contact(turn, bootstraps);
        }
    }

    /// A peer has said how it is.
    pub(super) fn join_heard(&mut self, turn: &mut Turn<'_>, id: Id, ready: bool) {
        let Some(join) = &mut self.joining else { return };
        join.alive.insert(id);
        let may_ask = join.phase == Phase::Contacts && !join.by_roster && ready && !join.tried.contains(&id);
        if may_ask {
            self.ask_to_join(turn, id);
        } else {
            self.join_settled(turn, id);
        }
    }

    /// `id` has answered or is dead; if it was the last one awaited, the next step follows.
    pub(super) fn join_settled(&mut self, turn: &mut Turn<'_>, id: Id) {
        let Some(join) = &mut self.joining else { return };
        if !join.awaited.remove(&id) || !join.awaited.is_empty() {
            return;
        }
        match join.phase {
            Phase::Contacts => self.contacts_settled(turn),
            Phase::Asked => {}
            Phase::Settling => self.become_ready(turn),
        }
    }

    /// The root of our id, asked by us, sends its leaf set; or a peer tells us of its own accord.
    pub(super) fn leaf_set_received(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, gossip: &LeafSetGossip) {
        if let Some(join) = &mut self.joining
            && join.phase == Phase::Asked
            && join.question == request
        {
            join.phase = Phase::Settling;
            let known: Vec<Id> = gossip.members.iter().copied().chain([from]).collect();
            self.settle(turn, known);
        }
        self.peer_says(turn, from, &gossip.presence);
        self.place_confirmed(turn, from, gossip);
        self.suggest(turn, &gossip.members);
        for id in &gossip.departed {
            // A hint only; and none at all about somebody who has just spoken to us.
            let silent = turn.now.saturating_sub(self.liveness.last_heard(*id)) > NEIGHBOUR_PING / 4;
            if self.leaf_set.contains(*id) && silent {
                self.probe(turn, *id);
            }
        }
        if gossip.wants_answer {
            self.send_leaf_set(turn, from, Some(request), false);
        }
    }

    /// The phase has taken long enough.
    pub(super) fn join_due(&mut self, turn: &mut Turn<'_>) {
        let Some(join) = &mut self.joining else { return };
        match join.phase {
            Phase::Contacts => {
                let contact = self.ready_contact();
                if let Some(id) = contact {
                    self.ask_to_join(turn, id);
                }
            }
            Phase::Asked => {
                join.phase = Phase::Contacts;
                self.contacts_settled(turn);
            }
            Phase::Settling => self.ask_awaited_again(turn),
        }
    }

    /// Whoever is awaited still is asked again: a sign of life ends a probe, but only a word about itself settles it, and that
    /// may be lost.
    fn ask_awaited_again(&mut self, turn: &mut Turn<'_>) {
        let awaited = self.joining.as_ref().map(|join| join.awaited.clone()).unwrap_or_default();
        for id in awaited {
            self.probe(turn, id);
        }
        turn.due_in(JOIN_WAIT, Due::Join);
    }

    fn contact(&mut self, turn: &mut Turn<'_>, ids: Vec<Id>) {
        let Some(join) = &mut self.joining else { return };
        join.phase = Phase::Contacts;
        join.awaited = ids.iter().copied().filter(|id| turn.site.roster.contains(*id)).collect();
        turn.due_in(CONTACT_WAIT, Due::Join);
        if join.awaited.is_empty() {
            self.contacts_settled(turn);
            return;
        }
        for id in ids {
            self.probe(turn, id);
        }
    }

    /// Our neighbours by the ring document, as many as a leaf set holds.
    fn contact_neighbours(&mut self, turn: &mut Turn<'_>) {
        if let Some(join) = &mut self.joining {
            join.by_roster = true;
        }
        let neighbours = certified_neighbours(turn);
        self.contact(turn, neighbours);
    }

    fn contacts_settled(&mut self, turn: &mut Turn<'_>) {
        let contact = self.ready_contact();
        let Some(join) = &mut self.joining else { return };
        match contact {
            Some(id) if join.attempts < JOIN_TRIES => self.ask_to_join(turn, id),
            _ if join.by_roster => self.become_ready(turn),
            _ => self.contact_neighbours(turn),
        }
    }

    /// A ready peer that has not yet led nowhere.
    fn ready_contact(&self) -> Option<Id> {
        let join = self.joining.as_ref()?;
        join.alive.iter().copied().find(|id| self.liveness.is_ready(*id) && !join.tried.contains(id))
    }

    fn ask_to_join(&mut self, turn: &mut Turn<'_>, contact: Id) {
        let me = turn.site.me;
        let question = turn.site.number();
        let Some(join) = &mut self.joining else { return };
        join.phase = Phase::Asked;
        join.tried.push(contact);
        join.attempts += 1;
        join.question = question;
        join.awaited.clear();
        let route = Route { target: me, origin: me, question, hops: 1, purpose: Purpose::Join };
        let request = turn.site.number();
        turn.send(contact, request, Body::Route(route));
        turn.due_in(JOIN_WAIT, Due::Join);
    }

    /// The leaf set to be is known: everybody in it must answer, if it has not yet, or be found dead.
    fn settle(&mut self, turn: &mut Turn<'_>, ids: Vec<Id>) {
        let me = turn.site.me;
        let Some(join) = &mut self.joining else { return };
        let is_open = |id: &Id| *id != me && turn.site.roster.contains(*id) && !join.alive.contains(id);
        let open: Vec<Id> = ids.into_iter().filter(is_open).collect();
        join.awaited = open.iter().copied().collect();
        if open.is_empty() {
            self.become_ready(turn);
        }
        for id in open {
            self.probe(turn, id);
        }
    }

    fn become_ready(&mut self, turn: &mut Turn<'_>) {
        let Some(join) = self.joining.take() else { return };
        self.failures = FailureRate::begin(turn.now);
        self.fill_table(turn);
        let mut told: BTreeSet<Id> = self.leaf_set.members().into_iter().collect();
        told.extend(join.alive);
        for id in told {
            self.send_leaf_set(turn, id, None, true);
        }
        self.begin_upkeep(turn);
        turn.notice(Notice::Ready);
    }
}

/// Our neighbours by the ring document on both sides, as many as a leaf set holds.
pub(super) fn certified_neighbours(turn: &Turn<'_>) -> Vec<Id> {
    let roster = &turn.site.roster;
    let half = usize::from(roster.ring().parameters.leaf_set) / 2;
    let mut ids: Vec<Id> = roster.clockwise_from(turn.site.me).take(half).collect();
    for id in roster.counter_clockwise_from(turn.site.me).take(half) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}
