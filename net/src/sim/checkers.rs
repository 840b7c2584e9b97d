//! What ought to be, computed the plain way from outside: by looking at every node.

use super::World;
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

/// How many live nodes do not have exactly the leaf set that sorting all live nodes gives. A node that is not ready
/// counts as one.
#[must_use]
pub fn leaf_set_faults(world: &World<Overlay>, half: usize) -> usize {
    let mut live = world.live_ids();
    live.sort();
    let count = live.len();
    let is_faulty = |at: &usize| {
        let reach = half.min(count - 1);
        let mut right: Vec<Id> = (1..=reach).map(|step| live[(at + step) % count]).collect();
        right.extend((1..=reach).map(|step| live[(at + count - step) % count]));
        right.sort();
        right.dedup();
        let status = world.index(live[*at]).and_then(|node| world.machine(node)).map(Overlay::status);
        status.is_none_or(|status| {
            let mut actual = status.leaf_set;
            actual.sort();
            !status.ready || actual != right
        })
    };
    (0..count).filter(is_faulty).count()
}
