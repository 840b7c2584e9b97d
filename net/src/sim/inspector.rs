//! The continuous checkers: what a ring promises, looked at from outside while it runs.
//!
//! Each check is exact about what it takes for wrong; what may honestly happen is counted instead:
//!
//! - **A lookup ends at its root.** Wrong is an answer when some node that has stood (see `standing`) for
//!   [`STOOD_BEFORE`] before the question was asked, and still does when the answer comes, is nearer to the key than the root named.
//!   Past a node that stands for less, or while a cut is new, it counts only as *astray*: who answers may honestly not have heard
//!   of the nearer one. Wrong is also a question that its origin, standing all the while, has no answer to within [`PATIENCE`].
//!   "Nobody answered" is an answer; it is counted, and wrong if more than [`LOST_MOST`] end so, of those asked while the ring
//!   is not parted.
//! - **A read returns the bytes inserted.** Wrong are other bytes; and "absent" while the ring is whole and a majority of the k
//!   nearest that stand hold the object. That nobody answers is counted.
//! - **Nothing is deleted before its time.** A disk that was once seen to hold an object holds it, with a lease no shorter, as
//!   long as the lease lasts and the disk is not wiped. So no object is on no disk unless faults took all disks that it was on;
//!   such objects are counted as destroyed.
//! - **k copies come back.** Wrong is an object with fewer than k copies on running nodes for [`RESTORED_WITHIN`], in which no fault began
//!   or ended at any holder or near its key.
//! - **In the end, when nothing has gone wrong for a while,** every leaf set is what sorting all live ids gives. Nodes that came
//!   back within [`SETTLED_WITHIN`] are neither judged nor missed.
//!
//! Not checked here: signed blocks and their quorums, virtual nodes, what a lying node can do (net's claim tests do that).

use super::standing::{ONE_AGAIN_WITHIN, Standing};
use super::trial::Figures;
use super::{Dice, NodeIndex, World, wrong_leaf_sets};
use crate::id::{Id, Key};
use crate::limits::{HOPS_MAX, SECOND};
use crate::machine::{Command, Micros, Reply, RequestId};
use crate::overlay::Overlay;
use crate::sim::faults::PlannedFault;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A node that stood for so long when a question was asked must be known to its neighbours.
pub const STOOD_BEFORE: Micros = 60 * SECOND;
/// A node to which nothing has happened for so long has a right leaf set, and is in those of others.
pub const SETTLED_WITHIN: Micros = 180 * SECOND;
/// So many wrong leaf sets are told in full.
const TOLD_MAX: usize = 4;
/// By then a lookup has been answered, or never will be.
pub const PATIENCE: Micros = 15 * SECOND;
/// By then a read has been.
pub const READ_PATIENCE: Micros = 60 * SECOND;
/// Of a million lookups asked while the ring is not parted, so many may end nowhere, beyond the first few.
pub const LOST_MOST: u64 = 1_000;
/// So many lookups may end nowhere in any run.
const LOST_FEW: u64 = 3;
/// Copies are back within this (C15), and a round of upkeep more for what a check may miss.
pub const RESTORED_WITHIN: Micros = 900 * SECOND + 60 * SECOND;
/// How many nodes on each side of a key are its neighbourhood.
const NEIGHBOURHOOD: usize = 12;

const _: () = assert!(RESTORED_WITHIN >= ONE_AGAIN_WITHIN);

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, from the moment the plan was followed.
    pub at: Micros,
    /// What was seen.
    pub what: String,
}

/// A question that has not been judged.
#[derive(Debug)]
struct Asked {
    at: Micros,
    node: NodeIndex,
    request: RequestId,
    about: About,
}

#[derive(Debug)]
enum About {
    Root(Id),
    Object(usize),
}

/// An object inserted before the plan began.
#[derive(Debug)]
struct Object {
    key: Key,
    value: Bytes,
    expiry: u64,
    /// Disks seen to hold it, and not wiped since.
    disks: BTreeSet<u32>,
    /// Since when it has had fewer than k copies on running nodes.
    short_since: Option<Micros>,
    is_destroyed: bool,
}

/// Everything that is watched.
#[derive(Debug)]
pub(super) struct Inspector {
    begun: Micros,
    k: usize,
    standing: Standing,
    waiting: Vec<Asked>,
    objects: Vec<Object>,
    places: BTreeMap<Key, usize>,
}

impl Inspector {
    pub(super) fn new(world: &World<Overlay>, plan: &[PlannedFault], k: usize) -> Inspector {
        let begun = world.now();
        let standing = Standing::new(world, plan, begun);
        Inspector { begun, k, standing, waiting: Vec::new(), objects: Vec::new(), places: BTreeMap::new() }
    }

    /// An object that is durable.
    pub(super) fn stored(&mut self, key: Key, value: Bytes, expiry: u64) {
        self.places.insert(key, self.objects.len());
        let (disks, short_since) = (BTreeSet::new(), None);
        self.objects.push(Object { key, value, expiry, disks, short_since, is_destroyed: false });
    }

    /// Notes which faults have begun and ended.
    pub(super) fn look(&mut self, world: &World<Overlay>, plan: &[PlannedFault]) {
        for node in self.standing.look(world, plan) {
            self.objects.iter_mut().for_each(|object| {
                object.disks.remove(&node);
            });
        }
    }

    /// Asks a random node that stands for the root of a random key, or for an object.
    pub(super) fn ask(&mut self, world: &mut World<Overlay>, dice: &mut Dice, reads: bool, figures: &mut Figures) {
        let mut node = dice.below(world.nodes().len());
        for _ in 0..64 {
            if self.standing.stood(node as u32, world.now()) && world.is_alive(node) && !world.is_asleep(node) {
                break;
            }
            node = dice.below(world.nodes().len());
        }
        if !world.is_alive(node) {
            return; // Hardly anybody is there.
        }
        let (about, command) = if reads && !self.objects.is_empty() {
            figures.reads += 1;
            let which = dice.below(self.objects.len());
            (About::Object(which), Command::Lookup { key: self.objects[which].key })
        } else {
            figures.lookups += 1;
            let target = dice.id();
            (About::Root(target), Command::Locate { target })
        };
        let request = world.command(node, command);
        self.waiting.push(Asked { at: world.now(), node, request, about });
    }

    /// Judges what has been answered, or should have been.
    pub(super) fn judge(&mut self, world: &mut World<Overlay>, figures: &mut Figures) -> Result<(), Violation> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut verdict = Ok(());
        for asked in waiting {
            let replied = world.replied_at(asked.node, asked.request);
            let patience = if matches!(asked.about, About::Root(_)) { PATIENCE } else { READ_PATIENCE };
            match world.take_reply(asked.node, asked.request) {
                None if world.now() < asked.at + patience => self.waiting.push(asked),
                reply => {
                    let judged = match asked.about {
                        About::Root(target) => self.judge_root(world, &asked, target, reply, replied, figures),
                        About::Object(which) => self.judge_read(world, &asked, which, reply, figures),
                    };
                    verdict = verdict.and(judged);
                }
            }
        }
        verdict
    }

    fn judge_root(
        &self,
        world: &World<Overlay>,
        asked: &Asked,
        target: Id,
        reply: Option<Reply>,
        replied: Option<Micros>,
        figures: &mut Figures,
    ) -> Result<(), Violation> {
        let stood = self.standing.stood(asked.node as u32, asked.at);
        match (reply, replied) {
            (Some(Reply::Located { root, hops }), Some(at)) => {
                let settled = asked.at.saturating_sub(STOOD_BEFORE);
                if self.standing.is_wrong(root, target, settled) && !self.standing.is_newly_cut(at) {
                    figures.wrong += 1;
                    let nearest = self.standing.nearest_standing(target, settled, 1);
                    return self.violated(
                        world,
                        format!(
                            "node {} asked for the root of {target:?} and was told {root:?} (node {:?}), but node {nearest:?} is nearer and had stood for {} s before",
                            asked.node,
                            world.index(root),
                            STOOD_BEFORE / SECOND
                        ),
                    );
                }
                if self.standing.is_wrong(root, target, asked.at) {
                    figures.astray += 1;
                } else {
                    figures.arrived(hops.min(HOPS_MAX), at - asked.at, straight(world, asked.node, root));
                }
            }
            _ if !stood => figures.abandoned += 1,
            (Some(_), _) if self.standing.is_parted() => figures.lost_parted += 1,
            (Some(_), _) => {
                figures.lost += 1;
                let allowed = LOST_FEW + figures.lookups * LOST_MOST / 1_000_000;
                if figures.lost > allowed {
                    return self.violated(
                        world,
                        format!("{} of {} lookups were answered by nobody", figures.lost, figures.lookups),
                    );
                }
            }
            (None, _) => {
                figures.unanswered += 1;
                let patience = PATIENCE / SECOND;
                return self
                    .violated(world, format!("node {} has no answer to a lookup after {patience} s", asked.node));
            }
        }
        Ok(())
    }

    fn judge_read(
        &self,
        world: &World<Overlay>,
        asked: &Asked,
        which: usize,
        reply: Option<Reply>,
        figures: &mut Figures,
    ) -> Result<(), Violation> {
        let object = &self.objects[which];
        match reply {
            Some(Reply::Found { value, .. }) if value == object.value => figures.read_right += 1,
            Some(Reply::Found { .. }) => {
                return self.violated(world, format!("node {} read other bytes of {:?}", asked.node, object.key));
            }
            _ if object.is_destroyed || !self.standing.stood(asked.node as u32, asked.at) => figures.abandoned += 1,
            Some(Reply::Absent) => {
                figures.reads_failed += 1;
                let settled = asked.at.saturating_sub(STOOD_BEFORE);
                let nearest = self.standing.nearest_standing(object.key.placement(), settled, self.k);
                let holding =
                    nearest.iter().filter(|node| world.store(**node as usize).get(&object.key).is_some()).count();
                if 2 * holding > self.k && !self.standing.is_parted() {
                    let what = format!(
                        "node {} was told that {:?} is absent, which {holding} of nodes {nearest:?} hold",
                        asked.node, object.key
                    );
                    return self.violated(world, what);
                }
            }
            Some(_) => figures.reads_failed += 1,
            None => {
                let patience = READ_PATIENCE / SECOND;
                return self.violated(world, format!("node {} has no answer to a read after {patience} s", asked.node));
            }
        }
        Ok(())
    }

    /// Looks at every disk; returns how many objects have no, one, two … copies on running nodes, up to k.
    pub(super) fn count(&mut self, world: &World<Overlay>, figures: &mut Figures) -> Result<Vec<u32>, Violation> {
        let mut holders: Vec<Vec<u32>> = vec![Vec::new(); self.objects.len()];
        for node in world.nodes() {
            for (key, stored) in world.store(node).iter() {
                let Some(which) = self.places.get(key).copied() else { continue };
                let object = &self.objects[which];
                if stored.value != object.value || stored.expiry < object.expiry {
                    return self
                        .violated(world, format!("node {node} keeps other bytes, or a shorter lease, of {key:?}"));
                }
                holders[which].push(node as u32);
            }
        }
        let mut copies = vec![0; self.k + 1];
        for (which, holders) in holders.into_iter().enumerate() {
            let live = holders.iter().filter(|node| world.is_alive(**node as usize)).count();
            copies[live.min(self.k)] += 1;
            let lasts = self.objects[which].expiry > world.now() / SECOND;
            if lasts && let Some(missing) = self.objects[which].disks.iter().find(|node| !holders.contains(node)) {
                let key = self.objects[which].key;
                return self.violated(world, format!("node {missing} has deleted {key:?} before its lease ended"));
            }
            self.held(world, which, holders, live, figures)?;
        }
        Ok(copies)
    }

    /// An object is on these disks, so many of them running.
    fn held(
        &mut self,
        world: &World<Overlay>,
        which: usize,
        holders: Vec<u32>,
        live: usize,
        figures: &mut Figures,
    ) -> Result<(), Violation> {
        let now = world.now();
        let object = &mut self.objects[which];
        if holders.is_empty() && !object.is_destroyed {
            object.is_destroyed = true;
            figures.destroyed += 1;
        }
        if live >= self.k.min(self.standing.count()) || object.is_destroyed {
            object.short_since = None;
        } else {
            object.short_since.get_or_insert(now);
        }
        object.disks = holders.into_iter().collect();
        let (key, Some(since)) = (object.key, object.short_since) else { return Ok(()) };
        let near = self.standing.disturbed_near(key.placement(), NEIGHBOURHOOD);
        let disks = self.objects[which].disks.iter().map(|node| self.standing.disturbed_at(*node)).max();
        let quiet_since = since.max(near).max(disks.unwrap_or(0));
        if now - quiet_since > RESTORED_WITHIN && !self.standing.is_parted() {
            let minutes = (now - quiet_since) / (60 * SECOND);
            return self
                .violated(world, format!("{key:?} has {live} copies of {}, for {minutes} quiet minutes", self.k));
        }
        Ok(())
    }

    /// All has been quiet: every leaf set is right. Who has just come back is not yet judged, nor missed.
    pub(super) fn conclude(&self, world: &World<Overlay>, leaf_set: usize) -> Result<(), Violation> {
        let settled = |node: NodeIndex| self.standing.disturbed_at(node as u32) + SETTLED_WITHIN <= world.now();
        let wrong = wrong_leaf_sets(world, leaf_set / 2, settled);
        if wrong.is_empty() {
            return Ok(());
        }
        let numbers = |ids: &[Id]| ids.iter().filter_map(|id| world.index(*id)).collect::<Vec<NodeIndex>>();
        let told = wrong.iter().take(TOLD_MAX).map(|set| {
            let ready = if set.is_ready { "" } else { " is not ready," };
            format!("node {}{ready} lacks {:?}, holds {:?}", set.node, numbers(&set.lacks), numbers(&set.holds))
        });
        let told = told.collect::<Vec<String>>().join("; ");
        self.violated(world, format!("{} leaf sets are wrong although all has been quiet: {told}", wrong.len()))
    }

    /// Nodes that stand.
    pub(super) fn standing(&self) -> usize {
        self.standing.count()
    }

    /// Questions that wait for their answer.
    pub(super) fn open(&self) -> usize {
        self.waiting.len()
    }

    fn violated<T>(&self, world: &World<Overlay>, what: String) -> Result<T, Violation> {
        Err(Violation { at: world.now() - self.begun, what })
    }
}

/// How long the straight way to the root takes, if it is another node.
fn straight(world: &World<Overlay>, from: NodeIndex, root: Id) -> Option<Micros> {
    let root = world.index(root).filter(|root| *root != from)?;
    Some(world.latency(from, root))
}

#[cfg(test)]
mod tests {
    //! Goal: what is on the disks is judged as said on top. Method: a ring that stores an object; disks altered by hand, of which
    //! the verdict is known. (What is asked is judged in tests/faults.rs, with defects planted in whole rings.)

    use super::*;
    use crate::id::Kind;
    use crate::machine::{Action, StorageOperation, Stored};
    use crate::ring::Parameters;
    use crate::sim::faults::FaultKind;
    use crate::sim::{Founding, Weather};

    fn ring() -> (World<Overlay>, Inspector, Key, Vec<u32>) {
        let founding = Founding::new(1, 30, Parameters::DEFAULT);
        let mut world = founding.world(1, Weather::FAIR);
        world.run_for(60 * SECOND);
        let value = Bytes::from_static(b"an object");
        let (key, expiry) = (Key::of(Kind::Content, &value), world.now() / SECOND + 1_000_000);
        let reply = world.ask(0, Command::Insert { key, value: value.clone(), expiry });
        assert!(matches!(reply, Some(Reply::Stored { .. })));
        world.run_for(10 * SECOND);
        let mut inspector = Inspector::new(&world, &[], 3);
        inspector.stored(key, value, expiry);
        inspector.look(&world, &[]);
        assert_eq!(inspector.count(&world, &mut Figures::default()), Ok(vec![0, 0, 0, 1]));
        let holders = inspector.objects[0].disks.iter().copied().collect();
        (world, inspector, key, holders)
    }

    fn said(inspector: &mut Inspector, world: &World<Overlay>) -> String {
        inspector
            .count(world, &mut Figures::default())
            .map_or_else(|violation| violation.what, |_| "nothing".to_owned())
    }

    #[test]
    fn what_vanishes_before_its_lease_ends_is_noticed() {
        let (mut world, mut inspector, key, holders) = ring();
        world.store_mut(holders[1] as usize).lose(&key);
        assert!(said(&mut inspector, &world).contains("before its lease ended"));
    }

    #[test]
    fn other_bytes_and_shorter_leases_are_noticed() {
        let alterations: [fn(&mut Stored); 2] = [|stored| stored.expiry -= 1, |stored| stored.value = Bytes::new()];
        for alter in alterations {
            let (mut world, mut inspector, key, holders) = ring();
            let Some(mut stored) = world.store(holders[0] as usize).get(&key).cloned() else { panic!("it holds it") };
            alter(&mut stored);
            world.store_mut(holders[0] as usize).tamper(key, stored);
            assert!(said(&mut inspector, &world).contains("other bytes, or a shorter lease"));
        }
    }

    #[test]
    fn what_all_disks_lost_by_wiping_is_destroyed_and_not_missed() {
        let (mut world, _, key, holders) = ring();
        let downs = holders.iter().map(|node| FaultKind::Down { node: *node, wiped: true });
        let plan: Vec<PlannedFault> = downs.map(|kind| PlannedFault { at: 0, lasting: None, kind }).collect();
        let mut inspector = Inspector::new(&world, &plan, 3);
        let stored = world.store(holders[0] as usize).get(&key).cloned();
        inspector.stored(key, stored.map(|stored| stored.value).unwrap_or_default(), world.now() / SECOND + 1_000);
        holders.iter().for_each(|node| {
            world.kill(*node as usize);
            world.wipe(*node as usize);
        });
        let mut figures = Figures::default();
        inspector.look(&world, &plan);
        assert_eq!(inspector.count(&world, &mut figures), Ok(vec![1, 0, 0, 0]));
        assert_eq!(figures.destroyed, 1);
    }

    #[test]
    fn copies_short_for_long_in_a_quiet_place_are_noticed() {
        let (mut world, _, key, holders) = ring();
        let mut inspector = Inspector::new(&world, &[], 3);
        let value = Bytes::from_static(b"an object");
        inspector.stored(key, value, world.now() / SECOND + 1_000);
        let is_put =
            |action: &Action| matches!(action, Action::Storage { operation: StorageOperation::Put { .. }, .. });
        for node in world.nodes() {
            world.corrupt(node, Box::new(move |action| if is_put(&action) { vec![] } else { vec![action] }));
        }
        world.kill(holders[2] as usize);
        inspector.look(&world, &[]);
        assert_eq!(said(&mut inspector, &world), "nothing");
        world.run_for(RESTORED_WITHIN);
        assert_eq!(said(&mut inspector, &world), "nothing");
        world.run_for(SECOND);
        assert!(said(&mut inspector, &world).contains("2 copies of 3"), "{}", said(&mut inspector, &world));
    }
}
