//! Prefix routing, hop by hop, with acknowledgements; and the origin's side of a routed question.
//!
//! The next hop towards a target is the nearest member of the leaf set if the target lies within it; otherwise the
//! routing-table entry that shares one more digit; otherwise anybody known who shares as many digits as we do and is
//! nearer. A hop that does not acknowledge in time is passed over for this message and probed. Duplicates that arise
//! (an acknowledgement was lost) meet at the root, which answers each question once.

use super::Pastry;
use crate::id::Id;
use crate::limits::{HOP_TRIES_MAX, HOPS_MAX, HOPS_OPEN_MAX, LOCATE_TRIES, LOCATE_WAIT, ROOTED_MAX};
use crate::machine::{Metric, Micros};
use crate::site::{Asker, Due, Notice, Turn};
use crate::wire::{Body, Located, Purpose, Route, Row};
use std::collections::{BTreeSet, VecDeque};

/// A message handed to a next hop that has yet to acknowledge.
#[derive(Debug)]
pub(super) struct Hop {
    route: Route,
    to: Id,
    tried: Vec<Id>,
    sent: Micros,
    due: Micros,
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
    known: BTreeSet<(Id, u64)>,
    order: VecDeque<(Id, u64)>,
}

impl Rooted {
    /// Whether this question is new here.
    fn is_first(&mut self, origin: Id, question: u64) -> bool {
        if !self.known.insert((origin, question)) {
            return false;
        }
        self.order.push_back((origin, question));
        if self.order.len() > ROOTED_MAX {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        true
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
        // Whoever joins is not yet a hop, even if somebody already knows it.
        let tried = if route.purpose == Purpose::Join { vec![route.origin] } else { Vec::new() };
        self.forward(turn, route, tried);
    }

    /// Takes a message one hop on; `tried` did not acknowledge it.
    pub(super) fn forward(&mut self, turn: &mut Turn<'_>, route: Route, tried: Vec<Id>) {
        let Some(to) = self.next_hop(turn.site.me, route.target, &tried) else {
            self.arrived(turn, route);
            return;
        };
        if self.hops.len() >= HOPS_OPEN_MAX {
            turn.count(Metric::Dropped);
            return;
        }
        if route.hops > 0 {
            turn.count(Metric::Forwarded);
        }
        let request = turn.site.number();
        turn.send(to, request, Body::Route(Route { hops: route.hops + 1, ..route }));
        let due = turn.due_after(self.liveness.wait(to), Due::Hop(request));
        self.hops.insert(request, Hop { route, to, tried, sent: turn.now, due });
    }

    pub(super) fn hop_acknowledged(&mut self, turn: &mut Turn<'_>, from: Id, request: u64) {
        if self.hops.get(&request).is_some_and(|hop| hop.to == from)
            && let Some(hop) = self.hops.remove(&request)
        {
            turn.not_due(hop.due, Due::Hop(request));
            self.liveness.acknowledged(from, hop.sent, turn.now);
        }
    }

    /// The next hop did not acknowledge: another way.
    pub(super) fn hop_silent(&mut self, turn: &mut Turn<'_>, request: u64) {
        let Some(Hop { route, to, mut tried, .. }) = self.hops.remove(&request) else { return };
        self.probe(turn, to);
        turn.count(Metric::Rerouted);
        tried.push(to);
        if tried.len() > HOP_TRIES_MAX {
            turn.count(Metric::Dropped);
        } else {
            self.forward(turn, route, tried);
        }
    }

    /// Where a message for `target` goes from here; `None` if we are its root.
    fn next_hop(&self, me: Id, target: Id, tried: &[Id]) -> Option<Id> {
        if self.leaf_set.covers(target) {
            let nearest = self.leaf_set.nearest(target, |id| !tried.contains(&id));
            return (nearest != me).then_some(nearest);
        }
        if let Some(entry) = self.table.towards(target).filter(|id| !tried.contains(id)) {
            return Some(entry);
        }
        let shared = me.shared_digits(target);
        let known = self.leaf_set.members().into_iter().chain(self.table.ids());
        let nearer =
            known.filter(|id| !tried.contains(id) && id.shared_digits(target) >= shared && id.is_nearer(target, me));
        nearer.min_by_key(|id| (id.distance(target), *id))
    }

    /// We are the root.
    fn arrived(&mut self, turn: &mut Turn<'_>, route: Route) {
        // One that comes again is answered again, for the first answer may be lost; but it is counted once.
        if self.rooted.is_first(route.origin, route.question) {
            turn.count(Metric::Rooted);
        }
        match route.purpose {
            Purpose::Locate => {
                let located = Located { target: route.target, hops: route.hops };
                turn.send(route.origin, route.question, Body::Located(located));
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
            let entries = self.table.row(row);
            if !entries.is_empty() {
                turn.send(route.origin, route.question, Body::Row(Row { row, entries }));
            }
        }
    }
}
