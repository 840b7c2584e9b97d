//! One node's place in one tree: the way up to the root, and the children below. Bookkeeping only, without messages.
//!
//! The way up is what the parent said when it last gave us our place: the root, ..., our parent. It is how a loop is found.
//! Nobody is given a place below us who is on our way up; and should two nodes have taken each other in at the same moment,
//! or more of them in a ring, the ways they tell each other grow with every heartbeat, until one finds itself on its own.
//!
//! Invariants: we are neither on our way up nor among our children; nobody is on the way twice; our parent is not our
//! child; the way is no longer than [`PATH_MAX`].

use crate::id::Id;
use crate::limits::{CHILD_SILENCE, HEARTBEAT, PATH_MAX};
use crate::machine::Micros;
use std::collections::BTreeMap;

/// Our place in one tree.
#[derive(Debug)]
pub(super) struct Branch {
    me: Id,
    /// From the root to our parent; empty if we are the root, or have no parent yet.
    path: Vec<Id>,
    /// When each child was last heard of.
    children: BTreeMap<Id, Micros>,
}

/// The way up that was offered leads through ourselves, is too long, or is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadPath;

impl Branch {
    pub(super) fn new(me: Id) -> Branch {
        Branch { me, path: Vec::new(), children: BTreeMap::new() }
    }

    pub(super) fn parent(&self) -> Option<Id> {
        self.path.last().copied()
    }

    /// Whether `id` is on our way up, as far as we know.
    pub(super) fn is_above(&self, id: Id) -> bool {
        self.path.contains(&id)
    }

    /// The way up that we tell a child: down to ourselves.
    pub(super) fn path_below(&self) -> Vec<Id> {
        self.path.iter().copied().chain([self.me]).collect()
    }

    /// Takes the place below the last of `path`; returns whose place was given up for it.
    pub(super) fn attach(&mut self, path: Vec<Id>) -> Result<Option<Id>, BadPath> {
        let is_twice = path.iter().enumerate().any(|(nth, id)| path[..nth].contains(id));
        let Some(parent) = path.last().copied() else { return Err(BadPath) };
        if path.len() > PATH_MAX || is_twice || path.contains(&self.me) {
            return Err(BadPath);
        }
        // Whoever is above us by its own word is no longer below us.
        self.children.remove(&parent);
        let former = self.parent().filter(|former| *former != parent);
        self.path = path;
        self.assert_invariants();
        Ok(former)
    }

    /// Gives up our place; returns below whom it was.
    pub(super) fn detach(&mut self) -> Option<Id> {
        let former = self.parent();
        self.path.clear();
        former
    }

    /// Takes in a child, or hears of it once more.
    pub(super) fn adopt(&mut self, child: Id, now: Micros) {
        assert!(child != self.me);
        assert!(!self.is_above(child));
        self.children.insert(child, now);
        self.assert_invariants();
    }

    /// A child has given a sign of life; nothing follows from that of somebody who is none.
    pub(super) fn heard(&mut self, child: Id, now: Micros) {
        if let Some(heard) = self.children.get_mut(&child) {
            *heard = now;
        }
    }

    /// Returns whether it was a child.
    pub(super) fn remove(&mut self, child: Id) -> bool {
        self.children.remove(&child).is_some()
    }

    /// Keeps only the children for which `keep` holds.
    pub(super) fn retain(&mut self, keep: impl Fn(Id) -> bool) {
        self.children.retain(|child, _| keep(*child));
    }

    /// Drops the children that have been silent too long.
    pub(super) fn expire(&mut self, now: Micros) {
        self.children.retain(|_, heard| now.saturating_sub(*heard) < CHILD_SILENCE);
    }

    pub(super) fn has_child(&self, id: Id) -> bool {
        self.children.contains_key(&id)
    }

    pub(super) fn child_count(&self) -> usize {
        self.children.len()
    }

    pub(super) fn children(&self) -> impl Iterator<Item = Id> + '_ {
        self.children.keys().copied()
    }

    /// The other children of whom we have heard lately enough to send somebody to them.
    pub(super) fn siblings(&self, child: Id, now: Micros) -> Vec<Id> {
        let is_fresh = |heard: Micros| now.saturating_sub(heard) <= HEARTBEAT + HEARTBEAT / 4;
        self.children.iter().filter(|(id, heard)| **id != child && is_fresh(**heard)).map(|(id, _)| *id).collect()
    }

    fn assert_invariants(&self) {
        assert!(!self.path.contains(&self.me));
        assert!(!self.children.contains_key(&self.me));
        assert!(self.path.len() <= PATH_MAX);
        assert!(self.parent().is_none_or(|parent| !self.has_child(parent)));
    }
}

#[cfg(test)]
mod tests {
    //! Goal: whoever takes whom in, and however stale the ways up are, after a few heartbeats there is no loop.
    //! Method: nodes that ask random others for places, with answers delivered late and in any order, so that loops do
    //! arise; then rounds of heartbeats, as the nodes would hold them; then everybody's parents are followed, from outside.
    //! The control goes without heartbeats. Proptest prints the seed of a failure.

    use super::*;
    use proptest::prelude::*;

    fn id(number: usize) -> Id {
        let mut bytes = [0; Id::LEN];
        bytes[0] = number as u8;
        Id(bytes)
    }

    fn number(id: Id) -> usize {
        usize::from(id.0[0])
    }

    /// What one node gives another that asks: a way up, unless the asker is on it.
    fn give(branches: &mut [Branch], from: usize, to: usize) -> Option<Vec<Id>> {
        if branches[to].is_above(id(from)) {
            return None;
        }
        branches[to].adopt(id(from), 1);
        Some(branches[to].path_below())
    }

    /// Takes what was given; a former parent hears of it.
    fn take(branches: &mut [Branch], from: usize, to: usize, path: Option<Vec<Id>>) {
        match path.map(|path| branches[from].attach(path)) {
            Some(Ok(Some(former))) => {
                branches[number(former)].remove(id(from));
            }
            Some(Ok(None)) => {}
            Some(Err(BadPath)) | None => {
                branches[to].remove(id(from));
                if branches[from].parent() == Some(id(to)) {
                    branches[from].detach();
                }
            }
        }
    }

    fn has_loop(branches: &[Branch]) -> bool {
        (0..branches.len()).any(|start| {
            let mut at = start;
            for _ in 0..branches.len() {
                match branches[at].parent() {
                    Some(parent) => at = number(parent),
                    None => return false,
                }
            }
            true
        })
    }

    /// Random requests; the answers arrive in the order drawn.
    fn tangled(count: usize, asked: &[(usize, usize, bool)]) -> Vec<Branch> {
        let mut branches: Vec<Branch> = (0..count).map(|node| Branch::new(id(node))).collect();
        let mut late = Vec::new();
        for (from, to, is_late) in asked.iter().map(|(from, to, is_late)| (from % count, to % count, is_late)) {
            if from == to {
                continue;
            }
            let path = give(&mut branches, from, to);
            late.push((from, to, path));
            if !is_late {
                while let Some((from, to, path)) = late.pop() {
                    take(&mut branches, from, to, path);
                }
            }
        }
        for (from, to, path) in late {
            take(&mut branches, from, to, path);
        }
        branches
    }

    fn requests() -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
        prop::collection::vec((0usize..12, 0usize..12, any::<bool>()), 0..80)
    }

    proptest! {
        #[test]
        fn heartbeats_end_every_loop(count in 2usize..12, asked in requests()) {
            let mut branches = tangled(count, &asked);
            // The way round a loop is told on by one node a round, and a loop is no longer than there are nodes.
            for _ in 0..=count {
                for node in 0..count {
                    if let Some(parent) = branches[node].parent() {
                        let path = give(&mut branches, node, number(parent));
                        take(&mut branches, node, number(parent), path);
                    }
                }
            }
            prop_assert!(!has_loop(&branches));
            for branch in &branches {
                branch.assert_invariants();
            }
        }

        #[test]
        fn children_are_as_in_a_list(asked in prop::collection::vec((1usize..9, 0u8..4, 0u64..200), 0..60)) {
            let mut branch = Branch::new(id(0));
            let mut list: Vec<(Id, Micros)> = Vec::new();
            let mut now = 1;
            for (child, what, later) in asked {
                now += later * crate::limits::SECOND;
                let child = id(child);
                match what {
                    0 => {
                        branch.adopt(child, now);
                        list.retain(|(id, _)| *id != child);
                        list.push((child, now));
                    }
                    1 => {
                        branch.heard(child, now);
                        list.iter_mut().filter(|(id, _)| *id == child).for_each(|it| it.1 = now);
                    }
                    2 => {
                        prop_assert_eq!(branch.remove(child), list.iter().any(|(id, _)| *id == child));
                        list.retain(|(id, _)| *id != child);
                    }
                    _ => {
                        branch.expire(now);
                        list.retain(|(_, heard)| now - heard < CHILD_SILENCE);
                    }
                }
                list.sort();
                prop_assert_eq!(branch.children().collect::<Vec<_>>(), list.iter().map(|it| it.0).collect::<Vec<_>>());
                prop_assert_eq!(branch.child_count(), list.len());
            }
        }
    }

    #[test]
    fn control_without_heartbeats_a_loop_stays() {
        let mut branches: Vec<Branch> = (0..2).map(|node| Branch::new(id(node))).collect();
        let one = give(&mut branches, 0, 1);
        let other = give(&mut branches, 1, 0);
        take(&mut branches, 0, 1, one);
        take(&mut branches, 1, 0, other);
        assert!(has_loop(&branches), "the checker would not notice");
    }

    #[test]
    fn a_way_that_is_none_is_not_taken() {
        let mut branch = Branch::new(id(0));
        assert_eq!(branch.attach(vec![]), Err(BadPath));
        assert_eq!(branch.attach(vec![id(1), id(0)]), Err(BadPath));
        assert_eq!(branch.attach(vec![id(1), id(2), id(1)]), Err(BadPath));
        assert_eq!(branch.attach((1..=PATH_MAX + 1).map(id).collect()), Err(BadPath));
        assert_eq!(branch.attach((1..=PATH_MAX).map(id).collect()), Ok(None));
        assert_eq!(branch.attach(vec![id(3)]), Ok(Some(id(PATH_MAX))));
        assert_eq!(branch.detach(), Some(id(3)));
    }
}
