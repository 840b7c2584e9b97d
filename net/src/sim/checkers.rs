//! What ought to be, computed the plain way from outside: by looking at every node.

use super::{NodeIndex, World};
use crate::id::Id;
use crate::overlay::Overlay;

/// The live node nearest to `key`.
#[must_use]
pub fn live_root(live: &[Id], key: Id) -> Option<Id> {
    live.iter().copied().min_by_key(|id| (id.distance(key), *id))
}

/// The `count` live nodes nearest to `key`, nearest first.
#[must_use]
pub fn live_closest(live: &[Id], key: Id, count: usize) -> Vec<Id> {
    let mut ids = live.to_vec();
    ids.sort_by_key(|id| (id.distance(key), *id));
    ids.truncate(count);
    ids
}

/// A live node whose leaf set is not what sorting all live nodes gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongLeafSet {
    /// Whose it is.
    pub node: NodeIndex,
    /// Whether it says that it is ready, as it should.
    pub is_ready: bool,
    /// Who should be in it and is not.
    pub lacks: Vec<Id>,
    /// Who is in it and should not be.
    pub holds: Vec<Id>,
}

/// The live nodes that do not have exactly the leaf set that sorting all live nodes gives, or are not ready; in ring order.
/// Those that are not `settled` are not judged, and whether others know of them is not asked.
#[must_use]
pub fn wrong_leaf_sets(world: &World<Overlay>, half: usize, settled: impl Fn(NodeIndex) -> bool) -> Vec<WrongLeafSet> {
    let mut live: Vec<(Id, NodeIndex)> =
        world.nodes().filter(|node| world.is_alive(*node)).map(|node| (world.id(node), node)).collect();
    live.sort();
    let sure: Vec<(Id, NodeIndex)> = live.iter().copied().filter(|(_, node)| settled(*node)).collect();
    let judge = |(id, node): &(Id, NodeIndex)| {
        let status = world.machine(*node)?.status();
        let [right, left] = sides(&live, *id, half);
        let near = right.iter().chain(&left);
        let lacks = near.filter(|(id, node)| settled(*node) && !status.leaf_set.contains(id));
        let lacks: Vec<Id> = lacks.map(|(id, _)| *id).collect();
        // Of those that are not settled any may be known: then the set reaches as far as the settled alone make it, at most.
        let [right, left] = sides(&sure, *id, half);
        let reach = [right.last(), left.last()].map(|last| last.map_or(*id, |(last, _)| *last));
        let is_right = |other: &Id| {
            let is_alive = live.binary_search_by_key(other, |(id, _)| *id).is_ok();
            let is_within =
                id.clockwise(*other) <= id.clockwise(reach[0]) || other.clockwise(*id) <= reach[1].clockwise(*id);
            is_alive && is_within
        };
        let holds: Vec<Id> = status.leaf_set.iter().copied().filter(|id| !is_right(id)).collect();
        let is_faulty = !status.ready || !lacks.is_empty() || !holds.is_empty();
        is_faulty.then_some(WrongLeafSet { node: *node, is_ready: status.ready, lacks, holds })
    };
    sure.iter().filter_map(judge).collect()
}

/// The `half` nodes on either side of one of these, which are in order, nearest first: clockwise, and the other way.
fn sides(nodes: &[(Id, NodeIndex)], id: Id, half: usize) -> [Vec<(Id, NodeIndex)>; 2] {
    let (count, at) = (nodes.len(), nodes.partition_point(|(other, _)| *other < id));
    let steps = 1..=half.min(count - 1);
    let right = steps.clone().map(|step| nodes[(at + step) % count]).collect();
    [right, steps.map(|step| nodes[(at + count - step) % count]).collect()]
}

/// How many live nodes have a wrong leaf set ([`wrong_leaf_sets`]), all being judged.
#[must_use]
pub fn leaf_set_faults(world: &World<Overlay>, half: usize) -> usize {
    wrong_leaf_sets(world, half, |_| true).len()
}
