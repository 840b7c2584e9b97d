//! The index against the map: scans and digests of any range, every lease, every candidate, and what is counted.

use super::Life;
use crate::key::Key;
use crate::store::arcs::arc::Digest;
use crate::store::arcs::locator::Locator;
use crate::store::arcs::walk::{Entry, Walk};
use std::collections::BTreeMap;

impl Life {
    /// A scan of any range with any cursor, against the map.
    pub(super) fn scan(&mut self) {
        let (from, to) = (self.chance.key().placement, self.chance.key().placement);
        let after = (self.chance.below(2) == 0).then(|| self.chance.key());
        let mut met = Vec::new();
        self.shelf.each(Walk::new(self.shelf.identity, from, to, after), &self.index, |entry| met.push(entry));
        let in_order = |entry: &&Entry| (entry.key.placement < from, entry.key);
        let is_inside = |key: &Key| match from <= to {
            true => from <= key.placement && key.placement <= to,
            false => from <= key.placement || key.placement <= to,
        };
        let mut expected: Vec<&Entry> = self.model.values().filter(|entry| is_inside(&entry.key)).collect();
        expected.sort_by_key(in_order);
        if let Some(after) = after {
            let is_before_all = from <= to && after.placement < from;
            expected.retain(|entry| {
                is_before_all || (entry.key.placement < from, entry.key) > (after.placement < from, after)
            });
        }
        assert!(met.iter().eq(expected), "from {from:?} to {to:?} after {after:?}");
    }

    pub(super) fn digest(&mut self) {
        let (from, to) = (self.chance.key().placement, self.chance.key().placement);
        let (mut digest, edges) = self.index.digest(from, to);
        let stale = self.index.arcs.iter().filter(|arc| arc.is_stale).count();
        assert!(edges.len() <= 4 + stale);
        for (low, high) in edges {
            let walk = Walk::between(self.shelf.identity, low, high);
            self.shelf.each(walk, &self.index, |entry| digest.add(self.index.element(&entry.key, entry.version)));
        }
        let mut expected = Digest::default();
        for entry in self.model.values() {
            let placement = entry.key.placement;
            if if from <= to { from <= placement && placement <= to } else { from <= placement || placement <= to } {
                expected.add(self.index.element(&entry.key, entry.version));
            }
        }
        assert_eq!(digest, expected);
    }

    pub(super) fn check(&mut self) {
        self.index.check();
        assert_eq!(self.index.len(), self.model.len());
        let mut live = BTreeMap::new();
        for entry in self.model.values() {
            assert_eq!(self.index.tick_of(&entry.key, entry.locator), Some(entry.tick));
            let found: Vec<(Locator, u32)> = self.index.candidates(&entry.key).collect();
            assert!(found.contains(&(entry.locator, entry.tick)), "the true one is among the candidates");
            assert!(self.index.recent(&entry.key).is_none_or(|recent| recent == *entry));
            *live.entry(entry.locator.segment()).or_insert(0) += entry.locator.bytes();
        }
        assert_eq!(self.index.live_bytes(), live);
        let tables = self.index.arcs.iter().map(|arc| &arc.table);
        self.coverage.far += tables.clone().map(|table| table.far.len()).sum::<usize>();
        self.coverage.stashed += tables.map(|table| table.stash.len()).sum::<usize>();
    }
}
