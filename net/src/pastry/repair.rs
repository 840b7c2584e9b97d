//! What a ready node does all the time, at its own pace, so that its tables come right whatever was missed.
//!
//! Neighbours are pinged when they have been silent; leaf sets are compared with a random member; the routing-table
//! entry unheard of for the longest is pinged, and now and then a row compared; and one certified neighbour that is
//! missing from the leaf set is probed, which is how the halves of a parted ring find each other again.

use super::{Pastry, join};
use crate::limits::{HEAL, LEAF_SET_EXCHANGE, NEIGHBOUR_PING, TABLE_EXCHANGE_EVERY, TABLE_PING};
use crate::machine::Micros;
use crate::site::{Due, Turn};
use crate::wire::{Body, RowRequest};

/// A routing-table entry heard of within this is not pinged.
const TABLE_FRESH: Micros = 600 * crate::limits::SECOND;

impl Pastry {
    pub(super) fn ping_neighbours(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return; // Becoming ready begins these rounds anew.
        }
        turn.due_about(NEIGHBOUR_PING / 2, Due::Neighbours);
        let adjacent: Vec<_> = self.leaf_set.adjacent().collect();
        for id in adjacent {
            if turn.now.saturating_sub(self.liveness.last_heard(id)) >= NEIGHBOUR_PING / 2 {
                self.probe(turn, id);
            }
        }
    }

    pub(super) fn exchange_leaf_set(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return;
        }
        turn.due_about(LEAF_SET_EXCHANGE, Due::LeafSet);
        let members = self.leaf_set.members();
        if members.is_empty() {
            return;
        }
        let chosen = members[(turn.site.random() % members.len() as u64) as usize];
        self.send_leaf_set(turn, chosen, None, true);
        // A leaf set that does not answer is found out by the ping that goes with it.
        if turn.now.saturating_sub(self.liveness.last_heard(chosen)) > LEAF_SET_EXCHANGE {
            self.probe(turn, chosen);
        }
    }

    pub(super) fn keep_table(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return;
        }
        turn.due_about(TABLE_PING, Due::Table);
        self.table_rounds += 1;
        if let Some((id, heard)) = self.table.stalest() {
            let heard = heard.max(self.liveness.last_heard(id));
            if heard > 0 {
                self.table.prove(id, heard);
            }
            if turn.now.saturating_sub(heard) > TABLE_FRESH {
                self.probe(turn, id);
            }
        }
        if self.table_rounds.is_multiple_of(TABLE_EXCHANGE_EVERY) {
            self.exchange_row(turn);
        }
    }

    fn exchange_row(&mut self, turn: &mut Turn<'_>) {
        let rows = u64::from(self.table.rows());
        if rows == 0 {
            return;
        }
        let row = (turn.site.random() % rows) as u8;
        let peers = self.table.row(row);
        if !peers.is_empty() {
            let peer = peers[(turn.site.random() % peers.len() as u64) as usize];
            let request = turn.site.number();
            turn.send(peer, request, Body::RowRequest(RowRequest { row }));
        }
        let roster = turn.site.roster.clone();
        let liveness = &self.liveness;
        self.table.fill(&roster, || turn.site.random(), |id| !liveness.is_departed(id));
    }

    pub(super) fn heal(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return;
        }
        turn.due_about(HEAL, Due::Heal);
        let mut missing = join::certified_neighbours(turn);
        missing.retain(|id| !self.leaf_set.contains(*id));
        if !missing.is_empty() {
            self.heal_rounds += 1;
            let chosen = missing[self.heal_rounds % missing.len()];
            self.probe(turn, chosen);
        }
    }

    /// A neighbour has died: the leaf set is told, and each looks for itself. Our new neighbours are looked at now.
    pub(super) fn announce_death(&mut self, turn: &mut Turn<'_>) {
        for id in self.leaf_set.members() {
            self.send_leaf_set(turn, id, None, false);
        }
        let adjacent: Vec<_> = self.leaf_set.adjacent().collect();
        for id in adjacent {
            if turn.now.saturating_sub(self.liveness.last_heard(id)) >= NEIGHBOUR_PING / 4 {
                self.probe(turn, id);
            }
        }
    }
}
