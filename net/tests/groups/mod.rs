//! What the tests of Scribe share: rings, groups with subscribers in them, and the trees as they are seen from outside.

use bytes::Bytes;
use net::id::Id;
use net::limits::SECOND;
use net::machine::{Action, Command, Reply};
use net::overlay::Overlay;
use net::ring::Parameters;
use net::sim::{Dice, Founding, NodeIndex, Weather, World, leaf_set_faults};
use net::wire::Body;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const HALF: usize = 12;

/// Edges of a tree or of routes: from a node to the next one towards the root.
pub(crate) type Edges = BTreeSet<(Id, Id)>;

/// A ring that has settled.
pub(crate) fn settled(seed: u64, count: usize, weather: Weather) -> (Founding, World<Overlay>) {
    println!("seed {seed}, {count} nodes");
    let founding = Founding::new(seed, count, Parameters::DEFAULT);
    let mut world = founding.world(seed, weather);
    assert!(world.run_until(180 * SECOND, |world| leaf_set_faults(world, HALF) == 0), "no ring, seed {seed}");
    (founding, world)
}

/// So many different live nodes.
pub(crate) fn draw(world: &World<Overlay>, dice: &mut Dice, count: usize) -> Vec<NodeIndex> {
    let mut nodes: Vec<NodeIndex> = world.nodes().filter(|node| world.is_alive(*node)).collect();
    (0..count).map(|_| nodes.swap_remove(dice.below(nodes.len()))).collect()
}

pub(crate) fn subscribe(world: &mut World<Overlay>, group: Id, nodes: &[NodeIndex]) {
    for node in nodes {
        world.command(*node, Command::Subscribe { group });
    }
}

pub(crate) fn kill(world: &mut World<Overlay>, ids: &[Id]) {
    for id in ids {
        let node = world.index(*id).unwrap();
        world.kill(node);
    }
}

/// A group's edges as the children see them, and as the parents do.
pub(crate) fn tree(world: &World<Overlay>, group: Id) -> (Edges, Edges) {
    let (mut upward, mut downward) = (Edges::new(), Edges::new());
    for node in world.nodes() {
        let place = world.machine(node).and_then(|machine| machine.place_in_tree(group));
        let Some((parent, children)) = place else { continue };
        upward.extend(parent.map(|parent| (world.id(node), parent)));
        downward.extend(children.into_iter().map(|child| (child, world.id(node))));
    }
    (upward, downward)
}

/// Live nodes that have children in a group.
pub(crate) fn interior(world: &World<Overlay>, group: Id) -> Vec<Id> {
    let parents: BTreeSet<Id> = tree(world, group).1.into_iter().map(|(_, parent)| parent).collect();
    parents.into_iter().filter(|id| world.index(*id).is_some_and(|node| world.is_alive(node))).collect()
}

/// Publishes from a node and lets it spread; returns the reply and how many copies each node's application got.
pub(crate) fn publish(
    world: &mut World<Overlay>,
    from: NodeIndex,
    group: Id,
    payload: &Bytes,
) -> (Option<Reply>, BTreeMap<NodeIndex, usize>) {
    let request = world.command(from, Command::Publish { group, payload: payload.clone() });
    world.run_for(15 * SECOND);
    (world.take_reply(from, request), copies(world, group, world.id(from), payload))
}

/// What the applications got since they were last asked; nothing else may be among it.
pub(crate) fn copies(
    world: &mut World<Overlay>,
    group: Id,
    publisher: Id,
    payload: &Bytes,
) -> BTreeMap<NodeIndex, usize> {
    let mut copies = BTreeMap::new();
    for node in world.nodes() {
        for published in world.take_published(node) {
            assert_eq!(published, (group, publisher, payload.clone()), "something else was published");
            *copies.entry(node).or_default() += 1;
        }
    }
    copies
}

/// One copy for each of these that lives.
pub(crate) fn once_each(world: &World<Overlay>, nodes: &[NodeIndex]) -> BTreeMap<NodeIndex, usize> {
    nodes.iter().filter(|node| world.is_alive(**node)).map(|node| (*node, 1)).collect()
}

/// Makes all nodes lose what `is_lost` picks from among what they send.
pub(crate) fn lose(world: &mut World<Overlay>, is_lost: impl Fn(&Body) -> bool + Copy + 'static) {
    for node in world.nodes() {
        world.corrupt(
            node,
            Box::new(move |action| match action {
                Action::Send { message, .. } if is_lost(&message.body) => vec![],
                other => vec![other],
            }),
        );
    }
}
