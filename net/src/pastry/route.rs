//! Prefix routing, hop by hop, with acknowledgements; and the origin's side of a routed question.
//!
//! The next hop towards a target is the nearest member of the leaf set if the target lies within it; otherwise the node
//! nearest to it by the ring document, if that is worth a try ([`super::direct`]); otherwise the nearest to *us* of those known
//! that share one more digit: the routing-table entry, or a member of the leaf set; otherwise anybody known who shares as many
//! digits as we do and is nearer. A hop that does not acknowledge in time is probed, and passed over for this message; but not
//! the nearest member of the leaf set, for past it we would take ourselves for the root of its keys: the message is offered
//! again until it is acknowledged or that member found dead. So it waits, too, at a root that does not own its keys
//! ([`super::ownership`]).
//!
//! A question may be under way in copies: from its origin to two nodes that the ring document names ([`super::direct`]), and from
//! whoever waits for a silent node to the one that is the root if that is dead. One copy takes other ways, the rest end at the
//! first hop that does not acknowledge. They meet at the root, as do duplicates that arise where an acknowledgement was lost; it
//! answers each and counts the question once.

use super::Pastry;
use crate::id::Id;
use crate::limits::{
    HOP_TRIES_MAX, HOP_WAIT_MAX, HOPS_MAX, HOPS_OPEN_MAX, LOCATE_TRIES, LOCATE_WAIT, ROOTED_MAX, WAIT_UNKNOWN,
};
use crate::machine::{Metric, Micros};
use crate::site::{Asker, Due, Notice, Turn};
use crate::wire::{Body, Located, Purpose, Route};
use std::collections::{BTreeMap, VecDeque};

/// A message handed to a next hop that has yet to acknowledge.
#[derive(Debug)]
pub(super) struct Hop {
    route: Route,
    to: Id,
    /// Who did not acknowledge it, once for each time; we ourselves for each time it waited here.
    tried: Vec<Id>,
    sent: Micros,
    due: Micros,
    /// Whether it was sent straight to a node of which nothing was known.
    is_trial: bool,
    /// What is done if it is not acknowledged.
    otherwise: Otherwise,
}

impl Hop {
    fn new(route: Route, to: Id, tried: Vec<Id>, is_trial: bool) -> Hop {
        Hop { route, to, tried, sent: 0, due: 0, is_trial, otherwise: Otherwise::AnotherWay }
    }
}

/// What is done with a message that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Otherwise {
    /// It takes another way.
    AnotherWay,
    /// Nothing if the copy with this number, sent at the same time, is still under way; that one takes another way, then.
    Twin(u64),
    /// Nothing: somebody has acknowledged another copy.
    Nothing,
}

/// Where a message goes from here.
enum Way {
    To(Id),
    /// Straight to the node nearest to its target by the ring document.
    Straight(Id),
    /// We are the root.
    Arrived,
    /// Nobody nearer is left to be tried.
    Nowhere,
}

/// A routed question of ours.
#[derive(Debug)]
pub(super) struct Locate {
    target: Id,
    asker: Asker,
    asked: u8,
    due: Micros,
}

impl Locate {
    pub(super) fn new(target: Id, asker: Asker) -> Locate {
        Locate { target, asker, asked: 0, due: 0 }
    }
}

/// The questions answered here lately.
#[derive(Debug, Default)]
pub(super) struct Rooted {
    /// With when each came first.
    known: BTreeMap<(Id, u64), Micros>,
    order: VecDeque<(Id, u64)>,
}

impl Rooted {
    /// When this question came first, if it is not new here.
    fn first_asked(&mut self, origin: Id, question: u64, now: Micros) -> Option<Micros> {
        if let Some(first) = self.known.get(&(origin, question)) {
            return Some(*first);
        }
        self.known.insert((origin, question), now);
        self.order.push_back((origin, question));
        if self.order.len() > ROOTED_MAX {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        None
    }
}

impl Pastry {
    /// Sends a question of ours on its way, or once more.
    pub(super) fn ask(&mut self, turn: &mut Turn<'_>, question: u64) {
        let Some(locate) = self.locates.get_mut(&question) else { return };
        if locate.asked >= LOCATE_TRIES {
            let asker = locate.asker;
            self.locates.remove(&question);
            turn.notice(Notice::Located { asker, root: None });
            return;
        }
        locate.asked += 1;
        let target = locate.target;
        locate.due = turn.due_in(LOCATE_WAIT, Due::Locate(question));
        // A node that is not ready does not know whether it is the root; it asks again when the time is up.
        if self.is_ready() {
            let route = Route { target, origin: turn.site.me, question, hops: 0, purpose: Purpose::Locate };
            self.forward(turn, route, Vec::new());
        }
    }

    /// Whether this is a question of ours that had to be asked more than once.
    pub(super) fn was_asked_again(&self, question: u64) -> bool {
        self.locates.get(&question).is_some_and(|locate| locate.asked > 1)
    }

    pub(super) fn locate_due(&mut self, turn: &mut Turn<'_>, question: u64) {
        self.ask(turn, question);
    }

    /// The root has answered.
    pub(super) fn located(&mut self, turn: &mut Turn<'_>, from: Id, question: u64, located: Located) {
        if self.locates.get(&question).is_some_and(|locate| locate.target == located.target)
            && let Some(locate) = self.locates.remove(&question)
        {
            turn.not_due(locate.due, Due::Locate(question));
            turn.notice(Notice::Located { asker: locate.asker, root: Some((from, located.hops)) });
        }
    }

    /// A message of somebody's passes through here, or has arrived.
    pub(super) fn route_received(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, route: Route) {
        if !self.is_ready() {
            return; // Not acknowledged: the sender finds another way.
        }
        turn.send(from, request, Body::HopAck);
        if route.hops > HOPS_MAX || !turn.site.roster.contains(route.origin) {
            turn.count(Metric::Unexpected);
            return;
        }
        if route.purpose == Purpose::Join {
            self.help_join(turn, &route);
        }
        self.forward(turn, route, Vec::new());
    }

    /// Takes a message one hop on; `tried` did not acknowledge it.
    pub(super) fn forward(&mut self, turn: &mut Turn<'_>, route: Route, tried: Vec<Id>) {
        let way = self.way(turn, &route, &tried);
        let (to, wait) = match way {
            Way::Arrived if route.purpose == Purpose::Join || self.owns_keys(turn.now) => {
                self.arrived(turn, route);
                return;
            }
            Way::Arrived => {
                self.seek_ownership(turn);
                (turn.site.me, WAIT_UNKNOWN / 4)
            }
            Way::To(id) => (id, self.liveness.wait(id)),
            Way::Straight(id) => (id, self.direct_wait(id)),
            Way::Nowhere => {
                turn.count(Metric::Dropped);
                return;
            }
        };
        if self.hops.len() >= HOPS_OPEN_MAX {
            turn.count(Metric::Dropped);
            return;
        }
        let is_trial = matches!(way, Way::Straight(_)) && !self.is_in_service(to, turn.now);
        let may_be_two = is_trial && self.hops.len() + 1 < HOPS_OPEN_MAX;
        let second = if may_be_two { self.direct_second(turn, route.target, to, &tried) } else { None };
        let first = self.hand_over(turn, Hop::new(route, to, tried.clone(), is_trial), wait);
        if let Some(second) = second {
            let is_trial = !self.is_in_service(second, turn.now);
            let wait = self.direct_wait(second);
            let twin = self.hand_over(turn, Hop::new(route, second, tried, is_trial), wait);
            self.hops.entry(first).and_modify(|hop| hop.otherwise = Otherwise::Twin(twin));
            self.hops.entry(twin).and_modify(|hop| hop.otherwise = Otherwise::Twin(first));
        }
    }

    /// Sends a message to a next hop, or keeps it here for a while if that is us; returns the number by which it is acknowledged.
    fn hand_over(&mut self, turn: &mut Turn<'_>, mut hop: Hop, wait: Micros) -> u64 {
        let (request, to) = (turn.site.number(), hop.to);
        if to != turn.site.me {
            if hop.route.hops > 0 {
                turn.count(Metric::Forwarded);
            }
            turn.send(to, request, Body::Route(Route { hops: hop.route.hops + 1, ..hop.route }));
        }
        let times = hop.tried.iter().filter(|id| **id == to).count() as u32;
        let wait = if times == 0 { wait } else { wait.max((wait << times.min(8)).min(HOP_WAIT_MAX)) };
        hop.sent = turn.now;
        hop.due = turn.due_after(wait, Due::Hop(request));
        self.hops.insert(request, hop);
        request
    }

    pub(super) fn hop_acknowledged(&mut self, turn: &mut Turn<'_>, from: Id, request: u64) {
        if self.hops.get(&request).is_some_and(|hop| hop.to == from)
            && let Some(hop) = self.hops.remove(&request)
        {
            turn.not_due(hop.due, Due::Hop(request));
            self.liveness.acknowledged(from, hop.sent, turn.now);
            if hop.is_trial {
                self.direct.succeeded(hop.sent, turn.now);
            }
            if let Otherwise::Twin(twin) = hop.otherwise {
                self.hops.entry(twin).and_modify(|twin| twin.otherwise = Otherwise::Nothing);
            }
        }
    }

    /// The next hop did not acknowledge: once more, or another way.
    pub(super) fn hop_silent(&mut self, turn: &mut Turn<'_>, request: u64) {
        let Some(hop) = self.hops.remove(&request) else { return };
        if hop.is_trial {
            // Nobody we depend on: one ping tells whether it is worth another try.
            let presence = self.presence(turn);
            self.liveness.call_out(turn, hop.to, presence);
            self.direct.failed();
        } else if hop.to != turn.site.me {
            self.probe(turn, hop.to);
            self.prepare_next(turn, &hop);
        }
        self.reroute(turn, hop);
    }

    /// Whom a question waits for may be dead, and then the next nearest is the root; but that one must find it out, too. It is
    /// given a copy already, so that both do so at once.
    fn prepare_next(&mut self, turn: &mut Turn<'_>, hop: &Hop) {
        let Hop { route, to, .. } = *hop;
        let is_first = hop.otherwise == Otherwise::AnotherWay && !hop.tried.contains(&to);
        if !is_first || route.purpose != Purpose::Locate || !self.leaf_set.covers(route.target) {
            return;
        }
        let next = self.leaf_set.nearest(route.target, |id| id != to);
        if next != turn.site.me && self.hops.len() < HOPS_OPEN_MAX {
            let copy = Hop { otherwise: Otherwise::Nothing, ..Hop::new(route, next, Vec::new(), false) };
            self.hand_over(turn, copy, self.liveness.wait(next));
        }
    }

    /// A peer was found dead: nothing waits for it any longer.
    pub(super) fn hops_lost(&mut self, turn: &mut Turn<'_>, id: Id) {
        let lost: Vec<u64> = self.hops.iter().filter(|(_, hop)| hop.to == id).map(|(request, _)| *request).collect();
        for request in lost {
            if let Some(hop) = self.hops.remove(&request) {
                turn.not_due(hop.due, Due::Hop(request));
                self.reroute(turn, hop);
            }
        }
    }

    /// A message was not acknowledged: another way, unless another copy is under way.
    fn reroute(&mut self, turn: &mut Turn<'_>, hop: Hop) {
        let Hop { route, to, mut tried, .. } = hop;
        match hop.otherwise {
            Otherwise::Nothing => return,
            Otherwise::Twin(twin) => {
                if let Some(twin) = self.hops.get_mut(&twin) {
                    twin.tried.push(to);
                    twin.otherwise = Otherwise::AnotherWay;
                    return;
                }
            }
            Otherwise::AnotherWay => {}
        }
        if to != turn.site.me {
            turn.count(Metric::Rerouted);
        }
        tried.push(to);
        if tried.len() > HOP_TRIES_MAX {
            turn.count(Metric::Dropped);
        } else {
            self.forward(turn, route, tried);
        }
    }

    /// Where a message goes from here.
    fn way(&self, turn: &mut Turn<'_>, route: &Route, tried: &[Id]) -> Way {
        let (me, target) = (turn.site.me, route.target);
        let is_covered = self.leaf_set.covers(target);
        if !is_covered
            && route.purpose == Purpose::Locate
            && let Some(id) = self.direct_hop(turn, target, route.hops == 0, tried)
        {
            return Way::Straight(id);
        }
        // Nobody within the leaf set is passed over for being silent. Whoever joins is not yet a hop, even if somebody
        // already knows it.
        let mut passed_over = if is_covered { Vec::new() } else { tried.to_vec() };
        passed_over.extend((route.purpose == Purpose::Join).then_some(route.origin));
        match self.next_hop(me, target, &passed_over) {
            Some(id) => Way::To(id),
            None if is_covered => Way::Arrived,
            None => Way::Nowhere,
        }
    }

    /// The next hop towards `target` by leaf set and table, passing over these; `None` if nobody is nearer.
    fn next_hop(&self, me: Id, target: Id, passed_over: &[Id]) -> Option<Id> {
        let is_open = |id: &Id| !passed_over.contains(id);
        if self.leaf_set.covers(target) {
            let nearest = self.leaf_set.nearest(target, |id| is_open(&id));
            return (nearest != me).then_some(nearest);
        }
        let shared = me.shared_digits(target);
        let near = self.leaf_set.sides().filter(|id| id.shared_digits(target) > shared);
        let onward = self.table.towards(target).into_iter().chain(near).filter(is_open);
        let distance = |id: &Id| (self.liveness.round_trip(*id).unwrap_or(Micros::MAX), *id);
        if let Some(id) = onward.min_by_key(distance) {
            return Some(id);
        }
        let nearer = |id: &Id| is_open(id) && id.is_nearer(target, me);
        let known = || self.leaf_set.sides().chain(self.table.ids()).filter(nearer);
        let sharing = known().filter(|id| id.shared_digits(target) >= shared);
        let nearest = sharing.min_by_key(|id| (id.distance(target), *id));
        // At the edge of what we know digits may stand in the way; whoever is nearer is still a step on.
        nearest.or_else(|| known().min_by_key(|id| (id.distance(target), *id)))
    }

    /// We are the root.
    fn arrived(&mut self, turn: &mut Turn<'_>, route: Route) {
        // One that comes again is answered again, for the first answer may be lost; but it is counted once.
        let first = self.rooted.first_asked(route.origin, route.question, turn.now);
        if first.is_none() {
            turn.count(Metric::Rooted);
        }
        match route.purpose {
            Purpose::Locate => {
                let located = Located { target: route.target, hops: route.hops };
                turn.send(route.origin, route.question, Body::Located(located));
                // The origin itself asks again, not a hop that was impatient: our answer does not reach it.
                let was_repeated = first.is_some_and(|at| turn.now.saturating_sub(at) >= LOCATE_WAIT / 2);
                if was_repeated && route.origin != turn.site.me {
                    self.locate_through_relays(turn, route.origin, route.question, located);
                }
            }
            Purpose::Join => self.send_leaf_set(turn, route.origin, Some(route.question), false),
        }
    }

    /// Gives a joining node the rows of our table that are of use to it.
    fn help_join(&mut self, turn: &mut Turn<'_>, route: &Route) {
        let shared = turn.site.me.shared_digits(route.origin) as u8;
        // The first hop gives every row it shares, later ones the row that they are on the path for.
        let first = if route.hops <= 1 { 0 } else { shared };
        for row in first..=shared.min(self.table.rows()) {
            let row = self.row_told(row);
            if !row.entries.is_empty() {
                turn.send(route.origin, route.question, Body::Row(row));
            }
        }
    }

    /// Where a message for `target` would go from here, passing over these; `None` if nobody else is left who is nearer.
    pub(crate) fn next_hop_towards(&self, me: Id, target: Id, tried: &[Id]) -> Option<Id> {
        self.next_hop(me, target, tried)
    }

    /// Whether we are the root of `target`, as far as we know.
    pub(crate) fn is_root(&self, me: Id, target: Id) -> bool {
        self.is_ready() && self.next_hop(me, target, &[]).is_none()
    }
}
