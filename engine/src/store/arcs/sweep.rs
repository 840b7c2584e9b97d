//! The first phase of a sweep: which arcs hold a lease that has ended.
//!
//! It reads the columns of leases and nothing else, an arc at a time, as far as a budget goes. The second phase walks those arcs,
//! where each entry comes with its key and its lease, and removes what has ended by name.

use super::Index;
use super::hash::keys_at;
use crate::key::Key;

/// What a quantum of a sweep found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quantum {
    /// The ranges of keys of arcs that hold ended leases.
    pub(crate) ranges: Vec<(Key, Key)>,
    /// The position to go on from; `None` when the ring is done.
    pub(crate) next: Option<u64>,
}

impl Index {
    /// Looks for leases that end before `cutoff`, from the arc at position `from` on, until about so many slots were looked at.
    /// Always at least one arc.
    pub(crate) fn sweep_quantum(&self, from: u64, cutoff: u32, budget_slots: usize) -> Quantum {
        let (mut ranges, mut looked_at) = (Vec::new(), 0);
        for arc in &self.arcs[self.arc_at(from)..] {
            if looked_at > 0 && looked_at + arc.table.slots() > budget_slots {
                return Quantum { ranges, next: Some(arc.low) };
            }
            looked_at += arc.table.slots();
            if arc.table.has_expired(cutoff) {
                ranges.push(keys_at(arc.low, arc.high));
            }
        }
        Quantum { ranges, next: None }
    }
}
