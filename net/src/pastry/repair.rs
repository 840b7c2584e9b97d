//! What a ready node does all the time, at its own pace, so that its tables come right whatever was missed.
//!
//! The clockwise neighbour is pinged when it has been silent, and by its answer both know of each other; the other one pings
//! us. Leaf sets are compared with a random member. The routing-table entry unheard of for the longest is pinged, as often as
//! nodes fail ([`super::failure_rate`]). Any message counts as a sign of life, so what is spoken with anyway is not pinged. And
//! certified neighbours that are missing from the leaf set are called out to, one at a time, which is how the halves of a parted
//! ring find each other again: once one that was thought dead has spoken, and ran all the while, all of them at once.

use super::{Pastry, join};
use crate::id::Id;
use crate::limits::{
    HEAL, LEAF_SET_EXCHANGE, MILLISECOND, NEIGHBOUR_LATE, NEIGHBOUR_PING, SECOND, SUSPECT_PINGS, TABLE_FIRST,
    TABLE_LOOK,
};
use crate::site::{Due, Turn};
use crate::wire::Body;

impl Pastry {
    pub(super) fn begin_upkeep(&mut self, turn: &mut Turn<'_>) {
        // A node that slept had these rounds before.
        turn.site.cancel(&[Due::Neighbours, Due::LeafSet, Due::Table, Due::Rows, Due::Announce, Due::Heal]);
        turn.due_about(NEIGHBOUR_PING, Due::Neighbours);
        turn.due_about(LEAF_SET_EXCHANGE, Due::LeafSet);
        turn.due_about(TABLE_FIRST, Due::Table);
        turn.due_about(HEAL / 10 + MILLISECOND, Due::Heal);
        self.begin_comparing(turn);
        self.await_confirmation(turn);
    }

    pub(super) fn ping_neighbours(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return; // Becoming ready begins these rounds anew.
        }
        let sides = [(self.leaf_set.clockwise(), NEIGHBOUR_PING), (self.leaf_set.counter_clockwise(), NEIGHBOUR_LATE)];
        let mut next = NEIGHBOUR_PING;
        for (id, patience) in sides.map(|(side, patience)| (side.first().copied(), patience)) {
            let Some(id) = id else { continue };
            let silent = turn.now.saturating_sub(self.liveness.last_heard(id));
            if silent >= patience {
                self.probe(turn, id);
            } else {
                next = next.min(patience - silent);
            }
        }
        turn.due_in(next.max(SECOND), Due::Neighbours);
    }

    pub(super) fn exchange_leaf_set(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return;
        }
        turn.due_about(LEAF_SET_EXCHANGE, Due::LeafSet);
        // Whoever was silent when last asked is looked at.
        if let Some((id, asked)) = self.exchanged.take()
            && self.leaf_set.contains(id)
            && self.liveness.last_heard(id) < asked
        {
            self.probe(turn, id);
        }
        let members = self.leaf_set.members();
        if members.is_empty() {
            return;
        }
        let chosen = members[(turn.site.random() % members.len() as u64) as usize];
        self.exchanged = Some((chosen, turn.now));
        self.send_leaf_set(turn, chosen, None, true);
    }

    pub(super) fn keep_table(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return;
        }
        let followed = self.leaf_set.members().len() + self.table.len();
        let period = self.failures.table_period(turn.now, followed, turn.site.roster.len());
        let stalest = self.table.ids().map(|id| (self.liveness.last_heard(id), id)).min();
        let [soon, late] = TABLE_LOOK;
        let next = stalest.map_or(late, |(heard, id)| {
            let left = (heard + period).saturating_sub(turn.now);
            if left == 0 {
                self.probe(turn, id);
            }
            left.clamp(soon, late)
        });
        turn.due_about(next, Due::Table);
    }

    pub(super) fn look_at_table_soon(&self, turn: &mut Turn<'_>) {
        if self.is_ready() {
            turn.site.cancel(&[Due::Table]);
            turn.due_in(TABLE_LOOK[0], Due::Table);
        }
    }

    pub(super) fn heal(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return;
        }
        turn.due_about(HEAL, Due::Heal);
        let mut missing = join::certified_neighbours(turn);
        missing.retain(|id| !self.leaf_set.contains(*id));
        if missing.is_empty() {
            return;
        }
        self.heal_rounds += 1;
        let chosen = missing[self.heal_rounds % missing.len()];
        let called = if std::mem::take(&mut self.is_healing) { missing } else { vec![chosen] };
        let presence = self.presence(turn);
        for id in called {
            self.liveness.call_out(turn, id, presence);
        }
    }

    /// One that was thought dead and was not has spoken: perhaps a parted ring has met again, and others are back too.
    pub(super) fn hurry_healing(&mut self, turn: &mut Turn<'_>) {
        if self.is_ready() && !self.is_healing {
            self.is_healing = true;
            turn.site.cancel(&[Due::Heal]);
            turn.due_about(SECOND, Due::Heal);
        }
    }

    /// A neighbour has just become a suspect: the one next to it on its other side is told, to look for itself. Either may be
    /// the root of its keys next, and mostly one of them notices long before the other would.
    pub(super) fn warn_beyond(&mut self, turn: &mut Turn<'_>, suspect: Id) {
        let has_just = self.liveness.open_ping(suspect).is_some_and(|(pings, _)| pings == SUSPECT_PINGS + 1);
        if !has_just || !self.is_ready() {
            return;
        }
        for side in [self.leaf_set.clockwise(), self.leaf_set.counter_clockwise()] {
            if let [neighbour, beyond, ..] = *side
                && neighbour == suspect
            {
                let mut gossip = self.gossip(turn);
                gossip.departed.insert(0, suspect);
                let request = turn.site.number();
                turn.send(beyond, request, Body::LeafSet(gossip));
            }
        }
    }

    /// A neighbour has died: the leaf set is told, and each looks for itself. Our new neighbours are looked at now.
    pub(super) fn announce_death(&mut self, turn: &mut Turn<'_>) {
        for id in self.leaf_set.members() {
            self.send_leaf_set(turn, id, None, false);
        }
        let adjacent: Vec<Id> = self.leaf_set.adjacent().collect();
        for id in adjacent {
            if turn.now.saturating_sub(self.liveness.last_heard(id)) >= NEIGHBOUR_PING / 4 {
                self.probe(turn, id);
            }
        }
    }
}
