//! A bounded memory of what was met lately: the latest so many.
//!
//! Invariant: `order` holds exactly what `known` holds, each once, oldest first, and no more than `max`.

use std::collections::{BTreeSet, VecDeque};

#[derive(Debug)]
pub(super) struct Recent<T> {
    max: usize,
    known: BTreeSet<T>,
    order: VecDeque<T>,
}

impl<T: Copy + Ord> Recent<T> {
    pub(super) fn new(max: usize) -> Recent<T> {
        Recent { max, known: BTreeSet::new(), order: VecDeque::new() }
    }

    /// Remembers `item`; returns whether it was not remembered before.
    pub(super) fn is_first(&mut self, item: T) -> bool {
        if !self.known.insert(item) {
            return false;
        }
        self.order.push_back(item);
        if self.order.len() > self.max {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        assert_eq!(self.order.len(), self.known.len());
        true
    }
}

#[cfg(test)]
mod tests {
    //! Goal: an item is new exactly if it is not among the latest remembered. Method: random items beside a plain list.
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_list(max in 1usize..6, items in prop::collection::vec(0u8..10, 0..60)) {
            let mut recent = Recent::new(max);
            let mut list: Vec<u8> = Vec::new();
            for item in items {
                let latest = &list[list.len().saturating_sub(max)..];
                let is_new = !latest.contains(&item);
                prop_assert_eq!(recent.is_first(item), is_new);
                if is_new {
                    list.push(item);
                }
            }
        }
    }
}
