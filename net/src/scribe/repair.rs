//! Finding a parent, keeping it, and finding another: what a node in a tree does at each heartbeat and when the ring changes.
//!
//! ```text
//!            no next hop: we are the root
//! climb ──▶ ask the next hop ──▶ accepted ──▶ heartbeat: ask the parent again ──▶ accepted, ...
//!   ▲             │ told to go below a sibling: ask that one        │
//!   │             ▼                                                 ▼
//!   └──── silent, or refused: pass over it, or rest a second     silent, or refused: no parent
//! ```
//!
//! Being passed over does not make a root: only a node that is its own next hop with nobody passed over stands at the root.
//! Of a next hop that is dead Pastry finds out within seconds, as it is probed when it does not answer; the trees hear of
//! each death that Pastry finds. So a root that dies is followed by the next nearest as soon as that one knows, whatever
//! those below it believe.

use super::tree::BadPath;
use super::{Group, Scribe, leave};
use crate::call::Owner;
use crate::id::Id;
use crate::limits::{CLIMB_PAUSE, CLIMB_PAUSES_EQUAL, CLIMB_TRIES_MAX, HEARTBEAT, HEARTBEATS_SPARED_MAX, SECOND};
use crate::pastry::Pastry;
use crate::scribe::Waiting;
use crate::site::{Due, Turn};
use crate::wire::{Body, Subscribe, SubscribeOutcome, Subscribed};

/// A place asked for.
#[derive(Debug)]
pub(super) struct Climb {
    to: Id,
    request: u64,
    /// Who has been asked before in this climb, and led nowhere.
    tried: Vec<Id>,
}

impl Climb {
    pub(super) fn to(&self) -> Id {
        self.to
    }
}

impl Scribe {
    /// The heartbeat of one group.
    pub(super) fn tend(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, group: Id) {
        self.change(group, |it| it.branch.expire(turn.now));
        let Some(it) = self.groups.get_mut(&group) else { return };
        if !it.is_needed() {
            self.prune(turn, group);
            return;
        }
        let less = turn.site.random() % (HEARTBEAT / 10);
        it.due_again(turn, group, HEARTBEAT - less);
        if it.climb.is_some() || !pastry.is_ready() {
            return; // Being ready begins all of this anew.
        }
        if pastry.is_root(turn.site.me, group) {
            self.stand_at_root(turn, group);
            return;
        }
        match it.branch.parent() {
            Some(_) if it.may_spare(turn) => it.spared += 1,
            Some(parent) => self.ask(turn, group, parent, Vec::new()),
            None => self.climb(pastry, turn, group, Vec::new()),
        }
    }

    /// Looks for a place by the route towards the group, passing over those tried.
    fn climb(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, group: Id, tried: Vec<Id>) {
        if !pastry.is_ready() {
            return; // Being ready begins all of this anew.
        }
        match pastry.next_hop_towards(turn.site.me, group, &tried).filter(|hop| !tried.contains(hop)) {
            Some(hop) if tried.len() < CLIMB_TRIES_MAX => self.ask(turn, group, hop, tried),
            None if tried.is_empty() => self.stand_at_root(turn, group),
            _ => self.rest(turn, group),
        }
    }

    /// Asks `to` for a place below it.
    fn ask(&mut self, turn: &mut Turn<'_>, group: Id, to: Id, tried: Vec<Id>) {
        let request = turn.call(to, Body::Subscribe(Subscribe { group }), Owner::Scribe(Waiting::Place(group)));
        match (self.groups.get_mut(&group), request) {
            (Some(it), Some(request)) => it.climb = Some(Climb { to, request, tried }),
            _ => self.rest(turn, group),
        }
    }

    /// Nobody is left to be asked: once more, soon; later, if that goes on.
    fn rest(&mut self, turn: &mut Turn<'_>, group: Id) {
        if let Some(it) = self.groups.get_mut(&group) {
            it.climb = None;
            let wait = (CLIMB_PAUSE << (it.rests / CLIMB_PAUSES_EQUAL).min(5)).min(HEARTBEAT);
            it.rests += 1;
            it.due_again(turn, group, wait);
        }
    }

    /// We are the root of a group: nobody is above us.
    pub(super) fn stand_at_root(&mut self, turn: &mut Turn<'_>, group: Id) {
        let Some(it) = self.groups.get_mut(&group) else { return };
        it.rests = 0;
        let asked = it.climb.take().map(|climb| climb.to);
        if let Some(former) = it.branch.detach().or(asked) {
            leave(turn, former, group);
        }
    }

    /// Somebody asked for a place has answered, or has not.
    pub(super) fn place_answered(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        group: Id,
        from: Id,
        request: u64,
        place: Option<Subscribed>,
    ) {
        let climb = self.groups.get_mut(&group).and_then(|it| it.climb.take_if(|climb| climb.request == request));
        let Some(Climb { mut tried, .. }) = climb else {
            // We have thought better of it; unless it is our parent, it must not believe that we are below it.
            let is_parent = self.groups.get(&group).is_some_and(|it| it.branch.parent() == Some(from));
            if !is_parent && place.is_some_and(|place| place.outcome == SubscribeOutcome::Accepted) {
                leave(turn, from, group);
            }
            return;
        };
        let Some(it) = self.groups.get_mut(&group) else { return };
        tried.push(from);
        match place {
            Some(Subscribed { outcome: SubscribeOutcome::Accepted, ids }) => {
                if self.place_taken(turn, group, from, ids) {
                    return;
                }
            }
            Some(Subscribed { outcome: SubscribeOutcome::Below, ids }) => {
                let me = turn.site.me;
                let may = |id: &Id| *id != me && !tried.contains(id) && !it.branch.has_child(*id);
                let sibling = ids.into_iter().find(|id| may(id) && turn.site.roster.contains(*id));
                if let Some(sibling) = sibling.filter(|_| tried.len() < CLIMB_TRIES_MAX) {
                    self.ask(turn, group, sibling, tried);
                    return;
                }
                if it.branch.parent() == Some(from) {
                    return; // It would rather have us elsewhere, but we are still below it.
                }
            }
            Some(Subscribed { outcome: SubscribeOutcome::Refused, .. }) | None => {}
        }
        let Some(it) = self.groups.get_mut(&group) else { return };
        if it.branch.parent() == Some(from) {
            it.branch.detach();
        }
        // Who was sent below a sibling, in vain, has its old place still.
        if it.branch.parent().is_none() {
            self.climb(pastry, turn, group, tried);
        }
    }

    /// Takes the place given, if the way up from there is one.
    fn place_taken(&mut self, turn: &mut Turn<'_>, group: Id, from: Id, path: Vec<Id>) -> bool {
        let Some(it) = self.groups.get_mut(&group) else { return false };
        (it.spared, it.rests) = (0, 0);
        let is_from_it = path.last() == Some(&from);
        let attached = self.change(group, |it| if is_from_it { it.branch.attach(path) } else { Err(BadPath) });
        let Some(Ok(former)) = attached else {
            leave(turn, from, group);
            return false;
        };
        if let (Some(it), Some(former)) = (self.groups.get_mut(&group), former) {
            it.former = Some(former);
            leave(turn, former, group);
        }
        true
    }

    /// This node takes routed messages from now on: each group finds its place by the routes of now. Not all in one moment,
    /// for after a sleep there may be many.
    pub(crate) fn ready(&mut self, turn: &mut Turn<'_>) {
        let spread = (self.groups.len() as u64 * SECOND / 100).min(HEARTBEAT) + 1;
        for (group, it) in &mut self.groups {
            it.climb = None;
            it.spared = HEARTBEATS_SPARED_MAX;
            let wait = turn.site.random() % spread;
            it.due_again(turn, *group, wait);
        }
    }

    /// The leaf set has changed: we may have become the root of some groups, and others may have of ours.
    pub(crate) fn neighbourhood_changed(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        if !pastry.is_ready() {
            return;
        }
        let groups: Vec<Id> = self.groups.keys().copied().collect();
        for group in groups {
            let is_root = pastry.is_root(turn.site.me, group);
            let Some(it) = self.groups.get(&group) else { continue };
            if is_root {
                self.stand_at_root(turn, group);
            } else if it.branch.parent().is_none() && it.climb.is_none() {
                self.climb(pastry, turn, group, Vec::new());
            }
        }
    }

    /// Pastry has found a peer dead: it is nobody's child and nobody's parent.
    pub(crate) fn departed(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, peer: Id) {
        self.keep_only(pastry, turn, |id| id != peer);
    }

    /// The ring document has changed: whoever is no longer in it is neither child nor parent.
    pub(crate) fn roster_changed(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        let roster = turn.site.roster.clone();
        self.keep_only(pastry, turn, |id| roster.contains(id));
    }

    fn keep_only(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, keep: impl Fn(Id) -> bool) {
        let groups: Vec<Id> = self.groups.keys().copied().collect();
        for group in groups {
            let Some(it) = self.groups.get_mut(&group) else { continue };
            let before = it.branch.child_count();
            it.branch.retain(&keep);
            self.children -= before - it.branch.child_count();
            if it.branch.parent().is_some_and(|parent| !keep(parent)) {
                it.branch.detach();
                if it.climb.as_ref().is_none_or(|climb| !keep(climb.to)) {
                    self.climb(pastry, turn, group, Vec::new());
                }
            }
            self.prune(turn, group);
        }
    }

    /// Our parent did not answer an anycast: it is asked for our place at once.
    pub(super) fn parent_silent(&mut self, turn: &mut Turn<'_>, group: Id, parent: Id) {
        let is_idle = |it: &Group| it.branch.parent() == Some(parent) && it.climb.is_none();
        if self.groups.get(&group).is_some_and(is_idle) {
            self.ask(turn, group, parent, Vec::new());
        }
    }
}

impl Group {
    /// Moves the next heartbeat.
    fn due_again(&mut self, turn: &mut Turn<'_>, group: Id, wait: u64) {
        turn.not_due(self.due, Due::Group(group));
        self.due = turn.due_in(wait, Due::Group(group));
    }

    /// Whether a publication stands in for this heartbeat: the parent saw it acknowledged, as we saw it. Not too often, as a
    /// publication does not tell the way from the root.
    fn may_spare(&self, turn: &Turn<'_>) -> bool {
        self.spared < HEARTBEATS_SPARED_MAX && turn.now.saturating_sub(self.parent_heard) < HEARTBEAT / 2
    }
}
