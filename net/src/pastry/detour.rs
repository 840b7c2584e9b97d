//! Ways round broken links: two nodes that cannot reach each other, though others reach both.
//!
//! The later pings of a probe of a member of the leaf set also go through *relays*, another member each time. A Pong that comes back that way
//! makes a *detour*: from then on what we say to that peer goes through that relay, until a ping sent straight is answered
//! straight again, which is tried now and then. A relay passes a frame on once, to its receiver or not at all; not to one that it has found dead itself.
//!
//! ```text
//! us ── Relay {from: us, to: peer, hops: 0, frame} ──▶ relay ── Relay {…, hops: 1, frame} ──▶ peer
//! ```
//!
//! A relay could put words into the mouth of the sender. So only Pastry's own control messages are ever relayed (see
//! [`may_be_relayed`]), and of those that come relayed we take
//!
//! - a Pong, if it answers our ping, which we sent that way because the straight way had failed;
//! - a Ping, to be answered the same way; it is no sign of life, but makes us probe the peer ourselves;
//! - Located, if it answers a question of ours that had to be asked again;
//! - anything else only from a peer to which we have found a detour ourselves.
//!
//! The rest is dropped and counted. What a lying relay gains is what a lying hop has anyway: it can mislead a lookup, not forge
//! an object.

use super::Pastry;
use crate::id::Id;
use crate::limits::{DETOUR_RETRY, DETOURS_MAX, RELAYED_BYTES_MAX, RELAYS_PER_PING, SUSPECT_PINGS};
use crate::machine::Metric;
use crate::site::{Due, Turn};
use crate::wire::{Body, Ends, Located, Message, Relay, decode, encode};
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Detour {
    relay: Id,
    /// The number of the ping by which the straight way is being tried again.
    retried: Option<u64>,
}

/// The detours in use.
#[derive(Debug, Default)]
pub(crate) struct Detours {
    by_peer: BTreeMap<Id, Detour>,
}

impl Detours {
    /// Through whom `message` must go to reach `to`; `None` if it goes straight.
    pub(crate) fn relay_for(&self, to: Id, body: &Body) -> Option<Id> {
        if self.by_peer.is_empty() || !may_be_relayed(body) {
            return None;
        }
        self.by_peer.get(&to).map(|detour| detour.relay)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_peer.len()
    }

    fn leads_to(&self, peer: Id) -> bool {
        self.by_peer.contains_key(&peer)
    }
}

/// What a relay may be trusted with.
fn may_be_relayed(body: &Body) -> bool {
    match body {
        Body::Ping(_)
        | Body::Pong(_)
        | Body::LeafSet(_)
        | Body::RowRequest(_)
        | Body::Row(_)
        | Body::Route(_)
        | Body::HopAck
        | Body::Located(_) => true,
        // Not even another relayed frame.
        _ => false,
    }
}

impl Turn<'_> {
    /// Sends to `to` through `relay`.
    pub(crate) fn send_through(&mut self, relay: Id, to: Id, message: &Message) {
        let frame = encode(message, Ends::default()).joined();
        if frame.len() > RELAYED_BYTES_MAX {
            self.count(Metric::Dropped);
            return;
        }
        let envelope = Relay { from: self.site.me, to, hops: 0 };
        let request = self.site.number();
        self.send_straight(relay, Message { request, body: Body::Relay(envelope, frame) });
    }
}

impl Pastry {
    /// The peer's straight pings stay unanswered: the next one goes through relays as well.
    pub(super) fn ping_through_relays(&mut self, turn: &mut Turn<'_>, id: Id) {
        let Some((pings, request)) = self.liveness.open_ping(id) else { return };
        // Who is not in the leaf set may be done without.
        if pings <= SUSPECT_PINGS || !self.leaf_set.contains(id) {
            return;
        }
        let message = Message { request, body: Body::Ping(self.presence(turn)) };
        for relay in self.relays(turn, id, (pings - SUSPECT_PINGS - 1) * RELAYS_PER_PING) {
            turn.send_through(relay, id, &message);
        }
    }

    /// An answer that has not arrived is given again, through relays too.
    pub(super) fn locate_through_relays(&mut self, turn: &mut Turn<'_>, origin: Id, question: u64, located: Located) {
        let message = Message { request: question, body: Body::Located(located) };
        let start = turn.site.random() as usize % self.leaf_set.members().len().max(1);
        for relay in self.relays(turn, origin, start) {
            turn.send_through(relay, origin, &message);
        }
    }

    /// Members of the leaf set that are thought alive, those nearest to `id` first, from the `start`th on, around.
    fn relays(&self, turn: &Turn<'_>, id: Id, start: usize) -> Vec<Id> {
        let me = turn.site.me;
        let may_relay = |relay: &Id| ![id, me].contains(relay) && !self.liveness.is_suspect(*relay);
        let relays: Vec<Id> = self.leaf_set.by_distance(id).into_iter().filter(may_relay).collect();
        relays.iter().cycle().skip(start).take(RELAYS_PER_PING.min(relays.len())).copied().collect()
    }

    /// A relayed frame has come: for somebody else, or for us.
    pub(super) fn relay_received(&mut self, turn: &mut Turn<'_>, via: Id, relay: &Relay, frame: Bytes) {
        if frame.len() > RELAYED_BYTES_MAX || !turn.site.roster.contains(relay.to) {
            turn.count(Metric::Unexpected);
        } else if relay.to == turn.site.me {
            self.relayed_to_us(turn, via, relay, &frame);
        } else if relay.from == via && relay.hops == 0 {
            if self.liveness.is_departed(relay.to) {
                return; // We have tried in vain ourselves; the sender has other relays.
            }
            let body = Body::Relay(Relay { hops: 1, ..*relay }, frame);
            let request = turn.site.number();
            turn.send_straight(relay.to, Message { request, body });
        } else {
            turn.count(Metric::Unexpected);
        }
    }

    fn relayed_to_us(&mut self, turn: &mut Turn<'_>, via: Id, relay: &Relay, frame: &Bytes) {
        let sender = relay.from;
        let is_peer = sender != turn.site.me && sender != via && turn.site.roster.contains(sender);
        let inner = decode(frame).ok().map(|(_, message)| message).filter(|message| may_be_relayed(&message.body));
        let Some(Message { request, body }) = inner.filter(|_| is_peer && relay.hops == 1) else {
            turn.count(Metric::Unexpected);
            return;
        };
        let has_detour = turn.site.detours.leads_to(sender);
        match body {
            Body::Pong(_) if self.liveness.open_ping(sender).is_some_and(|(_, number)| number == request) => {
                self.found_detour(turn, sender, via);
            }
            Body::Ping(_) if !has_detour => {
                let pong = Message { request, body: Body::Pong(self.presence(turn)) };
                turn.send_through(via, sender, &pong);
                self.probe(turn, sender);
                return;
            }
            Body::Located(located) if self.was_asked_again(request) => {
                self.located(turn, sender, request, located);
                return;
            }
            _ if has_detour => {}
            _ => {
                turn.count(Metric::Unexpected);
                return;
            }
        }
        self.heard(turn, sender, &body);
        self.receive(turn, sender, request, body);
    }

    fn found_detour(&mut self, turn: &mut Turn<'_>, peer: Id, relay: Id) {
        let detours = &mut turn.site.detours.by_peer;
        if detours.len() >= DETOURS_MAX && !detours.contains_key(&peer) {
            turn.count(Metric::Dropped);
            return;
        }
        let is_first = detours.is_empty();
        detours.insert(peer, Detour { relay, retried: None });
        if is_first {
            turn.due_about(DETOUR_RETRY, Due::Detours);
        }
    }

    /// The straight ways are tried again.
    pub(super) fn retry_straight(&mut self, turn: &mut Turn<'_>) {
        let peers: Vec<Id> = turn.site.detours.by_peer.keys().copied().collect();
        let presence = self.presence(turn);
        for peer in &peers {
            let request = turn.site.number();
            turn.site.detours.by_peer.entry(*peer).and_modify(|detour| detour.retried = Some(request));
            turn.send_straight(*peer, Message { request, body: Body::Ping(presence) });
        }
        if !peers.is_empty() {
            turn.due_about(DETOUR_RETRY, Due::Detours);
        }
    }

    /// A ping has come straight from a peer that we answer by a detour: it may be trying the straight way.
    pub(super) fn answer_straight(&self, turn: &mut Turn<'_>, from: Id, request: u64) {
        if turn.site.detours.leads_to(from) {
            turn.send_straight(from, Message { request, body: Body::Pong(self.presence(turn)) });
        }
    }

    /// A Pong has come; if it answers a ping that was sent straight, and straight, the detour is at an end.
    pub(super) fn straight_again(&mut self, turn: &mut Turn<'_>, from: Id, request: u64) {
        let detours = &mut turn.site.detours.by_peer;
        if detours.get(&from).is_some_and(|detour| detour.retried == Some(request)) {
            detours.remove(&from);
        }
    }

    /// The peer is dead, or no longer certified.
    pub(super) fn forget_detour(&mut self, turn: &mut Turn<'_>, peer: Id) {
        turn.site.detours.by_peer.remove(&peer);
    }
}
