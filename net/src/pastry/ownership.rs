//! Whose keys are whose: a node answers as the root of a key only while it may take itself for it.
//!
//! Two nodes must not both answer for a key because one of them has missed something. A node therefore owns its keys only
//!
//! - once both its neighbours have *confirmed* it: after it became ready they have sent a leaf set with it in, so from then
//!   on they pass such messages on to it, and before that they answered them;
//! - while both neighbours have been heard of within a *lease*: one that is cut off, or slept, stops answering soon;
//! - and past a neighbour that does not answer it never answers: the message waits until that neighbour is found dead, which
//!   takes a whole probe, so a lost message or a slow moment makes no second root.
//!
//! A message that finds its root not the owner waits there, while the neighbours are asked. As long as fewer messages are lost
//! in a row than a probe has pings, no key has two owners; and a key whose owner died has another within
//! [`NEIGHBOUR_PING`](crate::limits::NEIGHBOUR_PING) and a probe, or within a probe once somebody asks for it.

use super::Pastry;
use crate::id::Id;
use crate::limits::{ANNOUNCE_PAUSE, ANNOUNCE_TRIES, OWNERSHIP_LEASE};
use crate::machine::Micros;
use crate::site::{Due, Turn};
use crate::wire::LeafSetGossip;
use std::collections::BTreeSet;

/// What is still to be confirmed of our place.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    /// Neighbours that have yet to send a leaf set with us in it.
    unconfirmed: BTreeSet<Id>,
    announced: u8,
}

impl Pastry {
    /// Whether the neighbours have confirmed our place since we became ready.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_ready() && self.ownership.unconfirmed.is_empty()
    }

    /// Whether we may answer as the root of keys that nobody we know is nearer to.
    pub(super) fn owns_keys(&self, now: Micros) -> bool {
        self.is_confirmed() && self.leaf_set.adjacent().all(|id| self.is_within_lease(id, now))
    }

    fn is_within_lease(&self, id: Id, now: Micros) -> bool {
        now.saturating_sub(self.liveness.last_heard(id)) <= OWNERSHIP_LEASE
    }

    /// We have told our leaf set that we are ready: the two next to us must have heard it.
    pub(super) fn await_confirmation(&mut self, turn: &mut Turn<'_>) {
        self.ownership = Ownership { unconfirmed: self.leaf_set.adjacent().collect(), announced: 0 };
        if !self.ownership.unconfirmed.is_empty() {
            turn.due_after(ANNOUNCE_PAUSE, Due::Announce);
        }
    }

    /// A leaf set has come: perhaps we are in it.
    pub(super) fn place_confirmed(&mut self, turn: &mut Turn<'_>, from: Id, gossip: &LeafSetGossip) {
        if gossip.members.contains(&turn.site.me) {
            self.ownership.unconfirmed.remove(&from);
        }
    }

    /// Tells those who have not confirmed our place once more. Who never does, though it answers pings, is let be in the end.
    pub(super) fn announce_again(&mut self, turn: &mut Turn<'_>) {
        let leaf_set = &self.leaf_set;
        self.ownership.unconfirmed.retain(|id| leaf_set.contains(*id));
        self.ownership.announced += 1;
        if self.ownership.announced >= ANNOUNCE_TRIES {
            self.ownership.unconfirmed.clear();
        }
        for id in self.ownership.unconfirmed.clone() {
            self.send_leaf_set(turn, id, None, true);
        }
        if !self.ownership.unconfirmed.is_empty() {
            turn.due_after(ANNOUNCE_PAUSE, Due::Announce);
        }
    }

    /// Something waits here for us to own our keys: whoever stands in the way is asked for a sign of life.
    pub(super) fn seek_ownership(&mut self, turn: &mut Turn<'_>) {
        let adjacent: Vec<Id> = self.leaf_set.adjacent().collect();
        for id in adjacent {
            if !self.is_within_lease(id, turn.now) {
                self.probe(turn, id);
            }
        }
    }
}
