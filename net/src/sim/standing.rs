//! Which nodes certainly are where they should be, and who of them ought to be the root of a key.
//!
//! A node *stands* from the moment it was seen ready after the last fault that took it away (down, asleep, its clock stepped, a
//! link of its own broken or mended). Who stood already when a question was asked, and still does when it is answered, was
//! nearest to a key all that time or was not: there is no moment in between at which another answer was right. While
//! the ring is parted, and for as long afterwards as it may take to become one again, what is right on either side is right.
//!
//! The nearest is found by brute force: all ids in order, from the key outwards both ways until somebody stands there. Nothing
//! of what a node believes goes into it, but for its own word that it is ready.

use super::World;
use super::faults::{FaultKind, PlannedFault};
use crate::id::Id;
use crate::limits::SECOND;
use crate::machine::Micros;
use crate::overlay::Overlay;
use std::collections::BTreeSet;

/// A ring that was parted is one again this long after it was healed (C09).
pub(super) const ONE_AGAIN_WITHIN: Micros = 900 * SECOND;
/// For this long after a cut the sides find out who is gone, which may be most of all neighbours at once. (After two minutes
/// one lookup of 2.6 million was still wrong: on a side of 92 of 1,000 nodes.)
pub(super) const CUT_NOTICED_WITHIN: Micros = 300 * SECOND;

/// Nodes cut off from the others, from when until when.
#[derive(Debug)]
struct Cut {
    number: usize,
    inside: BTreeSet<u32>,
    began: Micros,
    healed: Option<Micros>,
}

/// Where everybody stands.
#[derive(Debug)]
pub(super) struct Standing {
    /// All ids in order, with their nodes.
    order: Vec<(Id, u32)>,
    /// Since when each node stands.
    since: Vec<Option<Micros>>,
    /// When a fault last began or ended at each node.
    disturbed: Vec<Micros>,
    /// Nodes that do not stand.
    away: BTreeSet<u32>,
    /// The plan's beginnings and ends, by time: when, of which fault, and whether it begins.
    turns: Vec<(Micros, usize, bool)>,
    turned: usize,
    cuts: Vec<Cut>,
}

impl Standing {
    /// Of a world in which the plan is followed from `begun` on.
    pub(super) fn new(world: &World<Overlay>, plan: &[PlannedFault], begun: Micros) -> Standing {
        let mut order: Vec<(Id, u32)> = world.nodes().map(|node| (world.id(node), node as u32)).collect();
        order.sort_unstable();
        let ends =
            plan.iter().enumerate().filter_map(|(number, fault)| fault.end().map(|end| (begun + end, number, false)));
        let beginnings = plan.iter().enumerate().map(|(number, fault)| (begun + fault.at, number, true));
        let mut turns: Vec<(Micros, usize, bool)> = beginnings.chain(ends).collect();
        turns.sort_unstable();
        let count = order.len();
        let away = (0..count as u32).collect();
        Standing {
            order,
            since: vec![None; count],
            disturbed: vec![0; count],
            away,
            turns,
            turned: 0,
            cuts: Vec::new(),
        }
    }

    /// Looks at what has changed; returns which nodes have lost their disk since it was last called.
    pub(super) fn look(&mut self, world: &World<Overlay>, plan: &[PlannedFault]) -> Vec<u32> {
        let (now, mut wiped) = (world.now(), Vec::new());
        while let Some((at, number, begins)) = self.turns.get(self.turned).copied().filter(|(at, ..)| *at <= now) {
            self.turned += 1;
            let fault = &plan[number];
            match &fault.kind {
                FaultKind::Cut { nodes } if begins => {
                    let inside = nodes.iter().copied().collect();
                    self.cuts.push(Cut { number, inside, began: at, healed: None });
                }
                FaultKind::Cut { .. } => {
                    self.cuts.iter_mut().filter(|cut| cut.number == number).for_each(|cut| cut.healed = Some(at));
                }
                FaultKind::Down { node, wiped: true } if begins => {
                    wiped.push(*node);
                    self.disturb(*node, at);
                }
                FaultKind::Down { .. }
                | FaultKind::Asleep { .. }
                | FaultKind::ClockStep { .. }
                | FaultKind::Blocked { .. }
                | FaultKind::Slow { .. } => fault.kind.nodes().into_iter().for_each(|node| self.disturb(node, at)),
                FaultKind::SlowDisk { node, .. } | FaultKind::FullDisk { node } => self.disturbed[*node as usize] = at,
                FaultKind::Loss { .. } | FaultKind::Duplication { .. } | FaultKind::ClockDrift { .. } => {}
            }
        }
        self.cuts.retain(|cut| cut.healed.is_none_or(|healed| now < healed + ONE_AGAIN_WITHIN));
        let since = &mut self.since;
        self.away.retain(|node| {
            let machine = world.machine(*node as usize).filter(|_| !world.is_asleep(*node as usize));
            let is_ready = machine.is_some_and(|machine| machine.status().ready);
            since[*node as usize] = is_ready.then_some(now);
            !is_ready
        });
        wiped
    }

    fn disturb(&mut self, node: u32, at: Micros) {
        self.since[node as usize] = None;
        self.disturbed[node as usize] = at;
        self.away.insert(node);
    }

    /// Whether the node stands, and did at that time.
    pub(super) fn stood(&self, node: u32, at: Micros) -> bool {
        self.since[node as usize].is_some_and(|since| since <= at)
    }

    /// Nodes that stand.
    pub(super) fn count(&self) -> usize {
        self.since.len() - self.away.len()
    }

    /// Whether the ring is parted, or was so lately that it need not yet be one again.
    pub(super) fn is_parted(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Whether it was cut so lately that its sides need not yet have noticed.
    pub(super) fn is_newly_cut(&self, now: Micros) -> bool {
        self.cuts.iter().any(|cut| now < cut.began + CUT_NOTICED_WITHIN)
    }

    /// Whether some node that stood at `at` is nearer to `key` than `root`; of a parted ring, some node on its own side of every
    /// cut that is or lately was.
    pub(super) fn is_wrong(&self, root: Id, key: Id, at: Micros) -> bool {
        let is_nearer = |side: &dyn Fn(u32) -> bool| {
            let nearest = self.nearest(key, |node| self.stood(node, at) && side(node));
            nearest.is_some_and(|nearest| (nearest.distance(key), nearest) < (root.distance(key), root))
        };
        if self.cuts.is_empty() {
            return is_nearer(&|_| true);
        }
        // Judged by those on its own side.
        let node = self.order.binary_search_by_key(&root, |(id, _)| *id).map_or(u32::MAX, |place| self.order[place].1);
        self.cuts.iter().all(|cut| is_nearer(&|other| cut.inside.contains(&other) == cut.inside.contains(&node)))
    }

    /// The `count` nodes nearest to `key` that stood at `at`, nearest first.
    pub(super) fn nearest_standing(&self, key: Id, at: Micros, count: usize) -> Vec<u32> {
        let mut near = self.around(key, count, |node| self.stood(node, at));
        near.sort_by_key(|(id, _)| (id.distance(key), *id));
        near.into_iter().take(count).map(|(_, node)| node).collect()
    }

    /// When a fault last began or ended at one of the `count` nodes on each side of `key`.
    pub(super) fn disturbed_near(&self, key: Id, count: usize) -> Micros {
        let near = self.around(key, count, |_| true);
        near.into_iter().map(|(_, node)| self.disturbed[node as usize]).max().unwrap_or(0)
    }

    /// When a fault last began or ended at this node.
    pub(super) fn disturbed_at(&self, node: u32) -> Micros {
        self.disturbed[node as usize]
    }

    fn nearest(&self, key: Id, is_meant: impl Fn(u32) -> bool) -> Option<Id> {
        let near = self.around(key, 1, is_meant);
        near.into_iter().map(|(id, _)| id).min_by_key(|id| (id.distance(key), *id))
    }

    /// The first `count` nodes that are meant, from `key` on in both directions.
    fn around(&self, key: Id, count: usize, is_meant: impl Fn(u32) -> bool) -> Vec<(Id, u32)> {
        let (all, at) = (self.order.len(), self.order.partition_point(|(id, _)| *id < key));
        let onwards = (0..all).map(|step| self.order[(at + step) % all]);
        let backwards = (1..=all).map(|step| self.order[(at + all - step) % all]);
        let mut near: Vec<(Id, u32)> = onwards.filter(|(_, node)| is_meant(*node)).take(count).collect();
        near.extend(backwards.filter(|(_, node)| is_meant(*node)).take(count));
        near.sort_unstable();
        near.dedup();
        near
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the nearest is the nearest of all that stand, and a fault takes a node out until it is ready again. Method: random keys
    //! and random nodes away, against a scan of all; a small ring followed through a plan known by hand.

    use super::*;
    use crate::ring::Parameters;
    use crate::sim::{Dice, Founding, Weather, live_root};

    #[test]
    fn the_nearest_that_stands_is_that_of_a_scan() {
        let mut dice = Dice::new(1);
        let founding = Founding::new(1, 50, Parameters::DEFAULT);
        let world = founding.world(1, Weather::FAIR);
        let mut standing = Standing::new(&world, &[], world.now());
        for round in 0..500 {
            let live: Vec<u32> = (0..50).filter(|_| dice.below(4) > round % 4).collect();
            standing.since = (0..50).map(|node| live.contains(&node).then_some(7)).collect();
            let (key, ids) = (dice.id(), live.iter().map(|node| world.id(*node as usize)).collect::<Vec<Id>>());
            let root = live_root(&ids, key);
            assert_eq!(standing.nearest(key, |node| standing.stood(node, 7)), root);
            assert_eq!(standing.nearest(key, |node| standing.stood(node, 6)), None, "nobody stood before");
            for (node, id) in world.nodes().map(|node| (node, world.id(node))) {
                let is_nearer = root.is_some_and(|root| root != id && live_root(&[root, id], key) == Some(root));
                assert_eq!(standing.is_wrong(id, key, 7), is_nearer, "node {node}");
            }
        }
    }

    #[test]
    fn a_fallen_node_stands_again_when_it_is_ready() {
        let founding = Founding::new(2, 20, Parameters::DEFAULT);
        let mut world = founding.world(2, Weather::FAIR);
        world.run_for(60 * SECOND);
        let down = FaultKind::Down { node: 3, wiped: true };
        let plan = vec![PlannedFault { at: 10 * SECOND, lasting: Some(30 * SECOND), kind: down }];
        let begun = world.now();
        let ids = founding.ids();
        world.follow(plan.clone(), move |node, now| founding.overlay(ids[node], now, Vec::new()));
        let mut standing = Standing::new(&world, &plan, begun);
        let mut stood = Vec::new();
        for second in 1..60 {
            world.run_for(SECOND);
            let wiped = standing.look(&world, &plan);
            assert_eq!(wiped, if second == 10 { vec![3] } else { vec![] });
            stood.push(standing.stood(3, world.now()));
            assert_eq!(standing.count(), if standing.stood(3, world.now()) { 20 } else { 19 });
        }
        assert_eq!(stood[..9], [true; 9]);
        assert_eq!(stood[9..39], [false; 30]);
        assert!(stood[58], "it is ready again");
    }
}
