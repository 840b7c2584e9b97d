//! Pastry: who is near us on the ring, and which way a message goes to the root of its target.
//!
//! As published (leaf set, prefix routing table, join through the root of one's own id), with what deployments taught:
//!
//! - a node takes no routed messages before everybody in its leaf set has answered it or was found dead;
//! - only nodes certified by the ring document are admitted, and to the leaf set only on their own word;
//! - each hop acknowledges; a silent one is passed over at once and probed ([`route`]), after a time that follows from its
//!   round trips ([`round_trip`]);
//! - nobody answers for another's keys: a node owns its own only while its neighbours know of it ([`ownership`]);
//! - of the nodes that fit a slot of the routing table the nearest has it ([`proximity`]);
//! - what the ring document already tells need not be found hop by hop ([`direct`]);
//! - repair is periodic, not a reaction to each loss, which would feed on itself under churn ([`repair`]), at a pace that
//!   follows from how often nodes fail ([`failure_rate`]);
//! - dead nodes are remembered, so that gossip does not revive them ([`liveness`]);
//! - certified neighbours that are missing are probed for ever, which heals partitions;
//! - peers behind a broken link are reached through others ([`detour`]);
//! - a node that slept notices by a late timer and joins anew ([`join`]).

pub(crate) mod detour;
mod direct;
mod failure_rate;
mod join;
mod leaf_set;
pub(crate) mod liveness;
mod ownership;
mod proximity;
mod repair;
mod round_trip;
mod route;
mod routing_table;

use crate::id::{Id, Kind};
use crate::limits::LOCATES_MAX;
use crate::machine::{Metric, Micros};
use crate::roster::Roster;
use crate::site::{Asker, Due, Notice, Turn};
use crate::wire::{Body, LeafSetGossip, Presence, RingRequest};
use direct::Direct;
use failure_rate::FailureRate;
use join::Join;
use leaf_set::LeafSet;
use liveness::{Liveness, Verdict};
use ownership::Ownership;
use proximity::Proximity;
use route::{Hop, Locate, Rooted};
use routing_table::RoutingTable;
use std::collections::BTreeMap;

/// One node's Pastry.
#[derive(Debug)]
pub(crate) struct Pastry {
    leaf_set: LeafSet,
    table: RoutingTable,
    liveness: Liveness,
    /// What is still to be learned before this node is ready; `None` when it is.
    joining: Option<Join>,
    bootstraps: Vec<Id>,
    hops: BTreeMap<u64, Hop>,
    locates: BTreeMap<u64, Locate>,
    rooted: Rooted,
    ownership: Ownership,
    proximity: Proximity,
    direct: Direct,
    failures: FailureRate,
    /// With whom leaf sets were last compared, and when.
    exchanged: Option<(Id, Micros)>,
    heal_rounds: usize,
    /// Whether all missing neighbours are to be called out to in the next round.
    is_healing: bool,
    ring_asked: Micros,
}

impl Pastry {
    pub(crate) fn new(me: Id, leaf_set_size: usize, bootstraps: Vec<Id>) -> Pastry {
        Pastry {
            leaf_set: LeafSet::new(me, leaf_set_size),
            table: RoutingTable::new(me),
            liveness: Liveness::default(),
            joining: Some(Join::default()),
            bootstraps,
            hops: BTreeMap::new(),
            locates: BTreeMap::new(),
            rooted: Rooted::default(),
            ownership: Ownership::default(),
            proximity: Proximity::default(),
            direct: Direct::default(),
            failures: FailureRate::default(),
            exchanged: None,
            heal_rounds: 0,
            is_healing: false,
            ring_asked: 0,
        }
    }

    /// Routes by the table alone from now on.
    pub(crate) fn use_table_alone(&mut self) {
        self.direct = Direct::unused();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.joining.is_none()
    }

    pub(crate) fn leaf_set(&self) -> Vec<Id> {
        self.leaf_set.members()
    }

    pub(crate) fn routing_entries(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn open_questions(&self) -> usize {
        self.locates.len()
    }

    /// What we say of ourselves.
    pub(crate) fn presence(&self, turn: &Turn<'_>) -> Presence {
        Presence { ready: self.is_ready(), epoch: turn.site.roster.ring().epoch, booted: turn.site.booted }
    }

    /// The root of `key`, if it is us or in our leaf set; a node whose answer is overdue is passed over.
    pub(crate) fn known_root(&self, key: Id) -> Option<Id> {
        (self.is_ready() && self.leaf_set.covers(key))
            .then(|| self.leaf_set.nearest(key, |id| !self.liveness.is_suspect(id)))
    }

    /// Whether this node is taken for alive: it is in our leaf set, or lies beyond its reach and was not found dead.
    pub(crate) fn is_believed_alive(&self, id: Id) -> bool {
        self.leaf_set.contains(id) || !self.leaf_set.covers(id) && !self.liveness.is_departed(id)
    }

    /// Whether `key` lies within our leaf set, so that we know who is alive near it.
    pub(crate) fn covers(&self, key: Id) -> bool {
        self.leaf_set.covers(key)
    }

    /// Whether the ring is no larger than the leaf set.
    pub(crate) fn knows_whole_ring(&self) -> bool {
        self.leaf_set.is_whole_ring()
    }

    /// Any message from a certified peer is a sign of life.
    pub(crate) fn heard(&mut self, turn: &mut Turn<'_>, from: Id, body: &Body) {
        let Some(died) = self.liveness.heard(turn, from) else { return };
        // Who has started since was away, and its return says nothing of the others.
        if told_presence(body).is_none_or(|presence| presence.booted < died) {
            self.hurry_healing(turn);
        }
    }

    /// A Pastry message that came straight from its sender, who is certified.
    pub(crate) fn received(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, body: Body) {
        match body {
            Body::Ping(_) => self.answer_straight(turn, from, request),
            Body::Pong(_) => self.straight_again(turn, from, request),
            _ => {}
        }
        self.receive(turn, from, request, body);
    }

    fn receive(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, body: Body) {
        match body {
            Body::Ping(presence) => {
                let mine = self.presence(turn);
                turn.send(from, request, Body::Pong(mine));
                self.peer_says(turn, from, &presence);
            }
            Body::Pong(presence) => {
                self.liveness.ponged(from, request, turn.now);
                self.peer_says(turn, from, &presence);
            }
            Body::LeafSet(gossip) => self.leaf_set_received(turn, from, request, &gossip),
            Body::RowRequest(wanted) => {
                let row = self.row_told(wanted.row);
                turn.send(from, request, Body::Row(row));
            }
            Body::Row(row) => self.row_received(turn, from, request, row),
            Body::Route(route) => self.route_received(turn, from, request, route),
            Body::HopAck => self.hop_acknowledged(turn, from, request),
            Body::Located(located) => self.located(turn, from, request, located),
            Body::Relay(relay, frame) => self.relay_received(turn, from, &relay, frame),
            _ => turn.count(Metric::Unexpected),
        }
    }

    /// Something of ours is due.
    pub(crate) fn due(&mut self, turn: &mut Turn<'_>, due: Due) {
        match due {
            Due::Neighbours => self.ping_neighbours(turn),
            Due::LeafSet => self.exchange_leaf_set(turn),
            Due::Table => self.keep_table(turn),
            Due::Rows => self.compare_rows(turn),
            Due::Announce => self.announce_again(turn),
            Due::Detours => self.retry_straight(turn),
            Due::Heal => self.heal(turn),
            Due::Join => self.join_due(turn),
            Due::Hop(request) => self.hop_silent(turn, request),
            Due::Locate(question) => self.locate_due(turn, question),
            Due::Probe(id) => {
                let presence = self.presence(turn);
                match self.liveness.probe_due(turn, id, presence) {
                    Verdict::Dead => self.peer_died(turn, id),
                    Verdict::Open => {
                        self.ping_through_relays(turn, id);
                        self.warn_beyond(turn, id);
                    }
                }
            }
            _ => unreachable!("not a matter of Pastry"),
        }
    }

    /// Makes sure that a peer is alive.
    pub(crate) fn probe(&mut self, turn: &mut Turn<'_>, id: Id) {
        if id != turn.site.me && turn.site.roster.contains(id) {
            let presence = self.presence(turn);
            self.liveness.probe(turn, id, presence);
        }
    }

    /// Finds the root of `target`; the answer comes as [`Notice::Located`].
    pub(crate) fn locate(&mut self, turn: &mut Turn<'_>, target: Id, asker: Asker) {
        if self.locates.len() >= LOCATES_MAX {
            turn.count(Metric::Dropped);
            turn.notice(Notice::Located { asker, root: None });
            return;
        }
        let question = turn.site.number();
        self.locates.insert(question, Locate::new(target, asker));
        self.ask(turn, question);
    }

    /// The ring document has changed: whoever is no longer in it is no longer known here.
    pub(crate) fn roster_changed(&mut self, turn: &mut Turn<'_>) {
        let known: Vec<Id> = self.leaf_set.members().into_iter().chain(self.table.ids()).collect();
        for id in known {
            if !turn.site.roster.contains(id) {
                self.liveness.forget(turn, id);
                self.drop_peer(turn, id);
            }
        }
        turn.notice(Notice::Neighbourhood);
    }

    /// A peer has said how it is.
    fn peer_says(&mut self, turn: &mut Turn<'_>, from: Id, presence: &Presence) {
        let restarted = self.liveness.heard_presence(from, presence);
        if presence.ready {
            self.admit(turn, from);
        } else if self.leaf_set.remove(from) {
            turn.notice(Notice::Neighbourhood);
        }
        // It has gone and come back before we missed it, and may know fewer of its neighbours than we do.
        if restarted && presence.ready && self.is_ready() && self.leaf_set.contains(from) {
            self.send_leaf_set(turn, from, None, false);
        }
        self.compare_epochs(turn, from, presence.epoch);
        self.join_heard(turn, from, presence.ready);
    }

    /// Asks a peer that has a newer ring document for it, at most every few seconds.
    pub(crate) fn compare_epochs(&mut self, turn: &mut Turn<'_>, from: Id, epoch: u64) {
        let mine = turn.site.roster.ring().epoch;
        if epoch > mine && turn.now >= self.ring_asked + crate::limits::CALL_WAIT {
            self.ring_asked = turn.now;
            let request = turn.site.number();
            turn.send(from, request, Body::RingRequest(RingRequest { epoch: mine }));
        }
    }

    /// Whether the peer was found dead and has not spoken since.
    pub(crate) fn is_departed(&self, id: Id) -> bool {
        self.liveness.is_departed(id)
    }

    /// Whether a ring document was lately asked for.
    pub(crate) fn awaits_ring(&self, now: Micros) -> bool {
        self.ring_asked > 0 && now <= self.ring_asked + crate::limits::CALL_WAIT
    }

    /// A ready peer that has spoken to us goes where it fits.
    fn admit(&mut self, turn: &mut Turn<'_>, id: Id) {
        assert!(turn.site.roster.contains(id), "only certified nodes speak to us");
        self.table.prove(id, self.liveness.round_trip(id));
        if self.leaf_set.insert(id) {
            turn.notice(Notice::Neighbourhood);
        }
    }

    /// These are known by hearsay: good enough for the routing table, and for a probe of those that would be in the leaf set if
    /// all of them were alive. A leaf set with a gap has room for each of them, but not for all.
    fn suggest(&mut self, turn: &mut Turn<'_>, ids: &[Id]) {
        let mut near = Vec::new();
        for id in ids.iter().copied().filter(|id| *id != turn.site.me) {
            // Most of what gossip says is known: nothing follows from it, certified or not.
            let is_near = self.leaf_set.would_admit(id);
            if !(is_near || self.table.has_room(id)) || !turn.site.roster.contains(id) {
                continue;
            }
            if !self.liveness.is_departed(id) {
                self.table.suggest(id);
            }
            // One that joins has asked whom it needs to, and a leaf set that is not yet full would admit anybody.
            if is_near && self.is_ready() && self.liveness.deserves_probe(id, turn.now) {
                near.push(id);
            }
        }
        for id in self.leaf_set.nearest_of(&near) {
            self.probe(turn, id);
        }
    }

    /// A probe found the peer dead.
    fn peer_died(&mut self, turn: &mut Turn<'_>, id: Id) {
        let was_adjacent = self.leaf_set.adjacent().any(|neighbour| neighbour == id);
        if self.leaf_set.contains(id) {
            turn.notice(Notice::Neighbourhood);
        }
        if self.leaf_set.contains(id) || self.table.towards(id) == Some(id) {
            self.failures.failed(turn.now);
            self.look_at_table_soon(turn); // By this rate it may be due.
        }
        self.drop_peer(turn, id);
        turn.notice(Notice::Departed(id));
        // Only the two next to it tell the others: 24 neighbours telling 24 others each would be a storm.
        if was_adjacent && self.is_ready() {
            self.announce_death(turn);
        }
        self.hops_lost(turn, id);
        self.join_settled(turn, id);
    }

    fn drop_peer(&mut self, turn: &mut Turn<'_>, id: Id) {
        self.forget_detour(turn, id);
        self.leaf_set.remove(id);
        let draw = turn.site.random();
        let roster = turn.site.roster.clone();
        let liveness = &self.liveness;
        self.table.replace(id, &roster, draw, |other| !liveness.is_departed(other));
    }

    fn send_leaf_set(&self, turn: &mut Turn<'_>, to: Id, request: Option<u64>, wants_answer: bool) {
        let request = request.unwrap_or_else(|| turn.site.number());
        let gossip = LeafSetGossip { wants_answer, ..self.gossip(turn) };
        turn.send(to, request, Body::LeafSet(gossip));
    }

    fn gossip(&self, turn: &Turn<'_>) -> LeafSetGossip {
        LeafSetGossip {
            presence: self.presence(turn),
            members: self.leaf_set.members(),
            departed: self.liveness.lately_departed(),
            wants_answer: false,
        }
    }
}

/// The replicas of `key` among all members, whether they answer or not: who is eligible.
pub(crate) fn eligible(roster: &Roster, key: &crate::id::Key) -> Vec<Id> {
    let parameters = &roster.ring().parameters;
    let count = if is_signed(key.kind) { parameters.k_head } else { parameters.k };
    roster.eligible(key.placement(), usize::from(count))
}

/// Whether blocks of this kind have a writer and versions, and live on the eligible members alone.
pub(crate) fn is_signed(kind: Kind) -> bool {
    kind.is_mutable()
}

/// What a message says of its sender, if anything.
fn told_presence(body: &Body) -> Option<&Presence> {
    match body {
        Body::Ping(presence) | Body::Pong(presence) => Some(presence),
        Body::LeafSet(gossip) => Some(&gossip.presence),
        _ => None,
    }
}
