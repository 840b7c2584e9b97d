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
#[must_use]
pub fn wrong_leaf_sets(world: &World<Overlay>, half: usize) -> Vec<WrongLeafSet> {
    let mut live = world.live_ids();
    live.sort();
    let count = live.len();
    let judge = |at: usize| {
        let reach = half.min(count - 1);
        let mut right: Vec<Id> = (1..=reach).map(|step| live[(at + step) % count]).collect();
        right.extend((1..=reach).map(|step| live[(at + count - step) % count]));
        let node = world.index(live[at])?;
        let status = world.machine(node)?.status();
        let lacks: Vec<Id> = right.iter().copied().filter(|id| !status.leaf_set.contains(id)).collect();
        let holds: Vec<Id> = status.leaf_set.iter().copied().filter(|id| !right.contains(id)).collect();
        let is_right = status.ready && lacks.is_empty() && holds.is_empty();
        (!is_right).then_some(WrongLeafSet { node, is_ready: status.ready, lacks, holds })
    };
    (0..count).filter_map(judge).collect()
}

/// How many there are of [`wrong_leaf_sets`].
#[must_use]
pub fn leaf_set_faults(world: &World<Overlay>, half: usize) -> usize {
    wrong_leaf_sets(world, half).len()
}
