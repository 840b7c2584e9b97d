//! Scribe: groups of subscribers, and a tree for each, along which what is published to it comes to all of them.
//!
//! A group is a point on the ring; the live node nearest to it is its root. Whoever subscribes asks its Pastry next hop
//! towards that point for a place below it, the hop does the same if it is not yet in the tree, and so up to the root: the
//! tree is the Pastry routes of its subscribers, turned round. Nodes on the way carry a group that they do not subscribe to
//! for as long as they have children in it.
//!
//! - All of it is soft state. Every heartbeat a node asks its parent for its place again, and is told the way from the root
//!   down to it. One question and one answer show each of the two that the other lives, that they agree on who is below whom,
//!   and that the way has no loop ([`tree`]). A publication that was acknowledged does as well for a while.
//! - A node whose parent is silent, gone, or has forgotten it looks for another one, by the routes of now. The root is whoever
//!   is nearest now; it has nothing that those below it could not bring again ([`repair`]).
//! - Publications go to the root directly and then down, acknowledged by every child ([`publish`]).
//! - An anycast goes through the tree depth first until an application takes it ([`anycast`]).
//! - A node with too many children tells some of them to go below others.
//!
//! What it is not: a log. Who is not in the tree when a publication passes has missed it. And it does not judge:
//! publications are bytes of some member of the ring, who may publish and to whom it is readable is the business of the
//! application, which must sign and seal what it publishes. Every member on the way could alter or withhold it.

mod anycast;
mod publish;
mod recent;
mod repair;
mod tree;

use crate::id::Id;
use crate::limits::{CHILDREN_HELD_MAX, CHILDREN_MAX, GROUPS_MAX, PUBLICATION_BYTES_MAX};
use crate::machine::{Command, Metric, Micros, Reply, RequestId};
use crate::past::Answer;
use crate::past::block::Refusal;
use crate::pastry::Pastry;
use crate::site::{Due, Turn};
use crate::wire::{Body, Leave, SubscribeOutcome, Subscribed, TakenOutcome, Way};
use anycast::Anycasts;
use publish::Publishing;
use recent::Recent;
use repair::Climb;
use std::collections::BTreeMap;
use tree::Branch;

/// What an open request of Scribe's is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// For a place below somebody in this group.
    Place(Id),
    /// For the root to take a publication of ours.
    Root(u64),
    /// For a child in this group to take a copy.
    Copy(Id),
    /// For the next node to take an anycast.
    Visit,
    /// For the asker to hear how its anycast ended; nothing follows.
    Verdict,
}

/// A group in whose tree we are.
#[derive(Debug)]
struct Group {
    /// Whether the application here wants what is published.
    is_subscribed: bool,
    branch: Branch,
    /// The place we have asked for.
    climb: Option<Climb>,
    /// Below whom we were before; its copies may still be on their way.
    former: Option<Id>,
    /// When our parent last sent a publication.
    parent_heard: Micros,
    /// Heartbeats spared in a row.
    spared: u8,
    /// How often in a row nobody was left to be asked for a place.
    rests: u32,
    /// When the next heartbeat is due.
    due: Micros,
    /// Publisher and number of what has passed here.
    passed: Recent<(Id, u64)>,
}

/// One node's Scribe.
#[derive(Debug)]
pub(crate) struct Scribe {
    groups: BTreeMap<Id, Group>,
    /// Children over all groups.
    children: usize,
    children_max: usize,
    publishing: BTreeMap<u64, Publishing>,
    copies_open: usize,
    anycasts: Anycasts,
}

impl Default for Scribe {
    fn default() -> Scribe {
        Scribe {
            groups: BTreeMap::new(),
            children: 0,
            children_max: CHILDREN_MAX,
            publishing: BTreeMap::new(),
            copies_open: 0,
            anycasts: Anycasts::default(),
        }
    }
}

impl Scribe {
    pub(crate) fn set_children_max(&mut self, count: usize) {
        self.children_max = count;
    }

    /// Groups in whose trees we are.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Children over all groups.
    pub(crate) fn children(&self) -> usize {
        assert_eq!(self.children, self.groups.values().map(|group| group.branch.child_count()).sum::<usize>());
        self.children
    }

    /// Commands and anycasts under way.
    pub(crate) fn open(&self) -> usize {
        self.publishing.len() + self.anycasts.open()
    }

    /// Our parent and children in a group, if we are in its tree.
    pub(crate) fn place(&self, group: Id) -> Option<(Option<Id>, Vec<Id>)> {
        self.groups.get(&group).map(|group| (group.branch.parent(), group.branch.children().collect()))
    }

    pub(crate) fn command(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, request: RequestId, command: Command) {
        match command {
            Command::Subscribe { group } => self.subscribe(pastry, turn, request, group),
            Command::Unsubscribe { group } => {
                if let Some(it) = self.groups.get_mut(&group) {
                    it.is_subscribed = false;
                    self.prune(turn, group);
                }
                turn.reply(request, Reply::Done);
            }
            Command::Publish { payload, .. } | Command::Anycast { payload, .. }
                if payload.len() > PUBLICATION_BYTES_MAX =>
            {
                turn.reply(request, Reply::Refused(Refusal::Malformed));
            }
            Command::Publish { group, payload } => self.publish(pastry, turn, request, group, payload),
            Command::Anycast { group, payload } => self.anycast(pastry, turn, request, group, payload),
            Command::Accept { solicitation, accepts } => {
                self.solicited(pastry, turn, solicitation, accepts);
                turn.reply(request, Reply::Done);
            }
            _ => unreachable!("not a matter of Scribe"),
        }
    }

    /// A message of Scribe's; the sender is certified.
    pub(crate) fn receive(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, from: Id, request: u64, body: Body) {
        match body {
            Body::Subscribe(subscribe) => self.place_asked(pastry, turn, from, request, subscribe.group),
            Body::Leave(leave) => {
                self.change(leave.group, |it| it.branch.remove(from));
                self.prune(turn, leave.group);
            }
            Body::Publication(publication, payload) => match publication.way {
                Way::Up => self.publication_up(pastry, turn, from, request, publication, payload),
                Way::Down => self.publication_down(turn, from, request, publication, payload),
            },
            Body::Anycast(anycast, payload) => self.anycast_received(pastry, turn, from, request, anycast, payload),
            Body::AnycastAnswer(answer) => self.anycast_ended(turn, from, request, answer),
            _ => turn.count(Metric::Unexpected),
        }
    }

    /// The answer to something asked here, or its silence.
    pub(crate) fn answered(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        waiting: Waiting,
        from: Id,
        request: u64,
        answer: Answer,
    ) {
        let (place, taken) = match answer {
            Answer::Body(Body::Subscribed(place)) => (Some(place), None),
            Answer::Body(Body::Taken(taken)) => (None, Some(taken.outcome)),
            _ => (None, None),
        };
        match waiting {
            Waiting::Place(group) => self.place_answered(pastry, turn, group, from, request, place),
            Waiting::Root(number) => self.root_answered(turn, number, taken == Some(TakenOutcome::Taken)),
            Waiting::Copy(group) => self.copy_answered(turn, group, from, taken),
            Waiting::Visit => self.visit_answered(pastry, turn, request, from, taken),
            Waiting::Verdict => {}
        }
    }

    /// Something of ours is due.
    pub(crate) fn due(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, due: Due) {
        match due {
            Due::Group(group) => self.tend(pastry, turn, group),
            Due::Publishing(number) => self.find_root(pastry, turn, number),
            Due::Anycast(question) => self.anycast_given_up(turn, question),
            Due::Solicitation(number) => self.solicited(pastry, turn, number, false),
            _ => unreachable!("not a matter of Scribe"),
        }
    }

    /// The application here subscribes.
    fn subscribe(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, request: RequestId, group: Id) {
        let is_new = !self.groups.contains_key(&group);
        if is_new && self.groups.len() >= GROUPS_MAX {
            turn.reply(request, Reply::Busy);
            return;
        }
        self.groups.entry(group).or_insert_with(|| Group::new(turn.site.me)).is_subscribed = true;
        if is_new {
            self.tend(pastry, turn, group);
        }
        turn.reply(request, Reply::Done);
    }

    /// Somebody asks for a place below us, or for the one it has once more.
    fn place_asked(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, from: Id, request: u64, group: Id) {
        let (outcome, ids) = self.place_given(pastry, turn, from, group);
        turn.send(from, request, Body::Subscribed(Subscribed { outcome, ids }));
    }

    fn place_given(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        from: Id,
        group: Id,
    ) -> (SubscribeOutcome, Vec<Id>) {
        let refused = (SubscribeOutcome::Refused, Vec::new());
        let (me, now) = (turn.site.me, turn.now);
        if !pastry.is_ready() || from == me {
            return refused;
        }
        let is_new = !self.groups.contains_key(&group);
        let is_child = self.groups.get(&group).is_some_and(|group| group.branch.has_child(from));
        let is_full = !is_child && self.children >= CHILDREN_HELD_MAX;
        if is_full || (is_new && self.groups.len() >= GROUPS_MAX) {
            turn.count(Metric::Dropped);
            return refused;
        }
        if !is_new && pastry.is_root(me, group) {
            self.stand_at_root(turn, group);
        }
        let below = self.handover(turn, group, from, is_child);
        let it = self.groups.entry(group).or_insert_with(|| Group::new(me));
        if it.branch.is_above(from) {
            self.change(group, |it| it.branch.remove(from));
            return refused;
        }
        if !below.is_empty() {
            // Until it leaves it stays where it is, so that it misses nothing.
            it.branch.heard(from, now);
            return (SubscribeOutcome::Below, below);
        }
        self.change(group, |it| it.branch.adopt(from, now));
        if is_new {
            self.tend(pastry, turn, group);
        }
        let path = self.groups.get(&group).map(|group| group.branch.path_below()).unwrap_or_default();
        (SubscribeOutcome::Accepted, path)
    }

    /// The bottleneck remover: if we have too many children, and this is the largest of our groups, the siblings below one of
    /// which the child should go; in drawn order, so that they fill evenly.
    fn handover(&self, turn: &mut Turn<'_>, group: Id, child: Id, is_child: bool) -> Vec<Id> {
        if self.children + usize::from(!is_child) <= self.children_max {
            return Vec::new();
        }
        let count = |group: &Group| group.branch.child_count();
        let Some(it) = self.groups.get(&group).filter(|it| count(it) > usize::from(is_child)) else {
            return Vec::new(); // There are no siblings.
        };
        if self.groups.values().any(|other| count(other) > count(it)) {
            return Vec::new();
        }
        let mut siblings = it.branch.siblings(child, turn.now);
        shuffle(turn, &mut siblings);
        siblings.truncate(crate::limits::SIBLINGS_TOLD_MAX);
        siblings
    }

    /// Changes a group, and keeps count of the children.
    fn change<T>(&mut self, group: Id, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let it = self.groups.get_mut(&group)?;
        let before = it.branch.child_count();
        let changed = change(it);
        self.children = self.children - before + it.branch.child_count();
        Some(changed)
    }

    /// Leaves the tree of a group that nobody here or below needs any more.
    fn prune(&mut self, turn: &mut Turn<'_>, group: Id) {
        if self.groups.get(&group).is_none_or(Group::is_needed) {
            return;
        }
        let Some(it) = self.groups.remove(&group) else { return };
        turn.not_due(it.due, Due::Group(group));
        let asked = it.climb.map(|climb| climb.to());
        let parent = it.branch.parent();
        for above in parent.into_iter().chain(asked.filter(|asked| Some(*asked) != parent)) {
            leave(turn, above, group);
        }
    }
}

impl Group {
    fn new(me: Id) -> Group {
        Group {
            is_subscribed: false,
            branch: Branch::new(me),
            climb: None,
            former: None,
            parent_heard: 0,
            spared: 0,
            rests: 0,
            due: 0,
            passed: Recent::new(crate::limits::PUBLICATIONS_SEEN_MAX),
        }
    }

    fn is_needed(&self) -> bool {
        self.is_subscribed || self.branch.child_count() > 0
    }
}

/// Tells somebody that we are not below it. If this is lost, its silence or our next refusal of a copy tells it.
fn leave(turn: &mut Turn<'_>, above: Id, group: Id) {
    let request = turn.site.number();
    turn.send(above, request, Body::Leave(Leave { group }));
}

/// Puts a list in drawn order.
fn shuffle(turn: &mut Turn<'_>, ids: &mut [Id]) {
    for last in (1..ids.len()).rev() {
        ids.swap(last, (turn.site.random() % (last as u64 + 1)) as usize);
    }
}
