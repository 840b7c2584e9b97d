//! Pastry: who is near us on the ring, and which way a message goes to the root of its target.
//!
//! As published (leaf set, prefix routing table, join through the root of one's own id), with what deployments taught:
//!
//! - a node takes no routed messages before everybody in its leaf set has answered it or was found dead;
//! - only nodes certified by the ring document are admitted, and to the leaf set only on their own word;
//! - each hop acknowledges; a silent one is passed over at once and probed ([`route`]);
//! - repair is periodic, not a reaction to each loss, which would feed on itself under churn ([`repair`]);
//! - dead nodes are remembered, so that gossip does not revive them ([`liveness`]);
//! - certified neighbours that are missing are probed for ever, which heals partitions;
//! - a node that slept notices by a late timer and joins anew ([`join`]).

mod join;
mod leaf_set;
pub(crate) mod liveness;
mod repair;
mod round_trip;
mod route;
mod routing_table;

use crate::id::{Id, Kind};
use crate::limits::LOCATES_MAX;
use crate::machine::{Metric, Micros};
use crate::roster::{Host, Roster};
use crate::site::{Asker, Due, Notice, Turn};
use crate::wire::{Body, LeafSetGossip, Presence, RingRequest};
use join::Join;
use leaf_set::LeafSet;
use liveness::{Liveness, Verdict};
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
    /// Rounds of table and healing upkeep so far.
    table_rounds: u64,
    heal_rounds: usize,
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
            table_rounds: 0,
            heal_rounds: 0,
            ring_asked: 0,
        }
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

    /// Of us and the leaf set, the `count` active nodes nearest to `key`, on distinct hosts, nearest first. These are
    /// the live holders of a content block if we are one of them, or its root.
    pub(crate) fn closest(&self, roster: &Roster, key: Id, count: usize) -> Vec<Id> {
        distinct_hosts(roster, self.leaf_set.by_distance(key), count)
    }

    /// Whether `key` lies within our leaf set, so that [`Pastry::closest`] can be relied on for it.
    pub(crate) fn covers(&self, key: Id) -> bool {
        self.leaf_set.covers(key)
    }

    /// The `count` nearest distinct hosts on each side.
    pub(crate) fn sides(&self, roster: &Roster, count: usize) -> [Vec<Id>; 2] {
        let near = |side: &[Id]| distinct_hosts(roster, side.to_vec(), count);
        [near(self.leaf_set.counter_clockwise()), near(self.leaf_set.clockwise())]
    }

    /// Whether the ring is no larger than the leaf set.
    pub(crate) fn knows_whole_ring(&self) -> bool {
        self.leaf_set.is_whole_ring()
    }

    /// Any message from a certified peer is a sign of life.
    pub(crate) fn heard(&mut self, turn: &mut Turn<'_>, from: Id) {
        self.liveness.heard(turn, from);
    }

    /// A Pastry message; the sender is certified.
    pub(crate) fn receive(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, body: Body) {
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
                let entries = self.table.row(wanted.row);
                turn.send(from, request, Body::Row(crate::wire::Row { row: wanted.row, entries }));
            }
            Body::Row(row) => {
                for id in row.entries {
                    self.suggest(turn, id);
                }
            }
            Body::Route(route) => self.route_received(turn, from, request, route),
            Body::HopAck => self.hop_acknowledged(turn, from, request),
            Body::Located(located) => self.located(turn, from, request, located),
            _ => turn.count(Metric::Unexpected),
        }
    }

    /// Something of ours is due.
    pub(crate) fn due(&mut self, turn: &mut Turn<'_>, due: Due) {
        match due {
            Due::Neighbours => self.ping_neighbours(turn),
            Due::LeafSet => self.exchange_leaf_set(turn),
            Due::Table => self.keep_table(turn),
            Due::Heal => self.heal(turn),
            Due::Join => self.join_due(turn),
            Due::Hop(request) => self.hop_silent(turn, request),
            Due::Locate(question) => self.locate_due(turn, question),
            Due::Probe(id) => {
                let presence = self.presence(turn);
                if self.liveness.probe_due(turn, id, presence) == Verdict::Dead {
                    self.peer_died(turn, id);
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
        if restarted && presence.ready && self.is_ready() {
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
        self.table.prove(id, turn.now);
        if self.leaf_set.insert(id) {
            turn.notice(Notice::Neighbourhood);
        }
    }

    /// Somebody is known by hearsay: good enough for the routing table, and for a probe if it belongs in the leaf set.
    fn suggest(&mut self, turn: &mut Turn<'_>, id: Id) {
        // Most of what gossip says is known: nothing follows from it, certified or not.
        let is_news = self.table.has_room(id) || self.leaf_set.would_admit(id);
        if id == turn.site.me || !is_news || !turn.site.roster.contains(id) {
            return;
        }
        if !self.liveness.is_departed(id) {
            self.table.suggest(id);
        }
        // One that joins has asked whom it needs to, and a leaf set that is not yet full would admit anybody.
        let is_needed = self.is_ready() && self.leaf_set.would_admit(id);
        if is_needed && self.liveness.deserves_probe(id, turn.now) {
            self.probe(turn, id);
        }
    }

    /// A probe found the peer dead.
    fn peer_died(&mut self, turn: &mut Turn<'_>, id: Id) {
        let was_adjacent = self.leaf_set.adjacent().any(|neighbour| neighbour == id);
        if self.leaf_set.contains(id) {
            turn.notice(Notice::Neighbourhood);
        }
        self.drop_peer(turn, id);
        // Only the two next to it tell the others: 24 neighbours telling 24 others each would be a storm.
        if was_adjacent && self.is_ready() {
            self.announce_death(turn);
        }
        self.join_settled(turn, id);
    }

    fn drop_peer(&mut self, turn: &mut Turn<'_>, id: Id) {
        self.leaf_set.remove(id);
        let draw = turn.site.random();
        let roster = turn.site.roster.clone();
        let liveness = &self.liveness;
        self.table.replace(id, &roster, draw, |other| !liveness.is_departed(other));
    }

    fn send_leaf_set(&self, turn: &mut Turn<'_>, to: Id, request: Option<u64>, wants_answer: bool) {
        let request = request.unwrap_or_else(|| turn.site.number());
        let gossip = LeafSetGossip {
            presence: self.presence(turn),
            members: self.leaf_set.members(),
            departed: self.liveness.lately_departed(),
            wants_answer,
        };
        turn.send(to, request, Body::LeafSet(gossip));
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

/// The first `count` active ids of `nearest_first` that are on distinct hosts.
fn distinct_hosts(roster: &Roster, nearest_first: Vec<Id>, count: usize) -> Vec<Id> {
    let mut hosts: Vec<Host> = Vec::with_capacity(count);
    let mut chosen = Vec::with_capacity(count);
    for id in nearest_first {
        if chosen.len() == count {
            break;
        }
        let Some(host) = roster.host(id) else { continue };
        if roster.is_active(id) && !hosts.contains(&host) {
            hosts.push(host);
            chosen.push(id);
        }
    }
    chosen
}
