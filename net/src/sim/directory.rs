//! Which node has an id: an open table, asked once for every message.
//!
//! Invariants: at most half of the slots are taken, a power of two; an id is found by going on from the slot that its first
//! bytes name until an empty one. Ids are hashes, so their own bytes scatter them; nothing is ever taken out.

use super::{NodeIndex, mix};
use crate::id::Id;

/// An empty slot.
const NOBODY: u32 = u32::MAX;

/// The nodes' ids, and the way back from an id to its node.
#[derive(Debug, Default)]
pub(super) struct Directory {
    ids: Vec<Id>,
    /// Some bits of the id, and the node.
    slots: Vec<(u32, u32)>,
}

impl Directory {
    /// The id of a node.
    pub(super) fn id(&self, node: NodeIndex) -> Id {
        self.ids[node]
    }

    /// The node with this id.
    pub(super) fn find(&self, id: Id) -> Option<NodeIndex> {
        if self.slots.is_empty() {
            return None;
        }
        let (tag, mut slot) = self.home(id);
        loop {
            let (known, node) = self.slots[slot];
            if node == NOBODY {
                return None;
            }
            if known == tag && self.ids[node as usize] == id {
                return Some(node as usize);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds the next node.
    ///
    /// # Panics
    /// If another node has this id.
    pub(super) fn add(&mut self, id: Id) -> NodeIndex {
        assert!(self.find(id).is_none(), "ids are unique");
        assert!(self.ids.len() < NOBODY as usize / 2, "the world is full");
        self.ids.push(id);
        if 2 * self.ids.len() > self.slots.len() {
            self.slots = vec![(0, NOBODY); (4 * self.ids.len()).next_power_of_two()];
            (0..self.ids.len()).for_each(|node| self.enter(node));
        } else {
            self.enter(self.ids.len() - 1);
        }
        self.ids.len() - 1
    }

    fn enter(&mut self, node: NodeIndex) {
        let (tag, mut slot) = self.home(self.ids[node]);
        while self.slots[slot].1 != NOBODY {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = (tag, node as u32);
    }

    fn home(&self, id: Id) -> (u32, usize) {
        let [b0, b1, b2, b3, b4, b5, b6, b7, ..] = id.0;
        let drawn = mix(u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        ((drawn >> 32) as u32, drawn as usize & (self.slots.len() - 1))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every id leads to its node, and no other. Method: more ids than the first tables hold, half of them alike in the
    //! bytes that name the slot; ids that were never added.

    use super::*;
    use crate::sim::Dice;

    #[test]
    fn ids_lead_to_their_nodes() {
        let mut dice = Dice::new(1);
        let mut directory = Directory::default();
        assert_eq!(directory.find(dice.id()), None);
        let ids: Vec<Id> = (0..2_000)
            .map(|nth| {
                let mut id = dice.id();
                if nth % 2 == 0 {
                    id.0[..8].fill((nth % 7) as u8);
                }
                id
            })
            .collect();
        for id in &ids {
            directory.add(*id);
        }
        for (node, id) in ids.iter().enumerate() {
            assert_eq!((directory.find(*id), directory.id(node)), (Some(node), *id));
        }
        assert!((0..2_000).all(|_| directory.find(dice.id()).is_none()));
    }
}
