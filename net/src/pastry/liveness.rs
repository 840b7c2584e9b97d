//! Who is alive: what peers themselves have said, and who has failed to answer.
//!
//! Nobody is believed alive or dead on another's word. Hearsay only leads to a probe: a few pings, each waited for a
//! little longer ([`PROBE_WAITS`], or as the peer's own round trips demand: [`super::round_trip`]). Whoever answers none of them is dead until it speaks again itself, so gossip cannot
//! revive a zombie; it is not even probed again on hearsay for a while.

use super::round_trip::RoundTrip;
use crate::id::Id;
use crate::id_table::IdTable;
use crate::limits::{
    DEPARTED_FORGOTTEN, DEPARTED_MAX, DEPARTED_TOLD_MAX, HEARSAY_REST, HEARSAY_REST_MAX, PEERS_FORGOTTEN, PEERS_MAX,
    PROBE_WAITS, READY_REST, SECOND, SUSPECT_PINGS, WAIT_UNKNOWN,
};
use crate::machine::{Metric, Micros};
use crate::site::{Due, Turn};
use crate::wire::{Body, Presence};
use std::collections::BTreeMap;

/// What is kept of each peer; there are many, so only what all of them need.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// When it last spoke to us; 0 for never.
    heard: Micros,
    booted: u64,
    round_trip: RoundTrip,
    ready: bool,
}

/// A ping that its peer has not answered.
#[derive(Clone, Copy, Debug)]
struct Pinged {
    request: u64,
    at: Micros,
    /// The probe that it is a part of, until the peer speaks.
    probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    pings: usize,
    /// When the answer to the last ping is overdue.
    due: Micros,
}

/// What a probe's timer found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has answered, or another ping is under way.
    Open,
    /// It is dead.
    Dead,
}

/// What is known of each peer's liveness.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    peers: IdTable<Peer>,
    /// The last ping to each peer in `peers` that has left it unanswered: few at any time.
    pinged: BTreeMap<Id, Pinged>,
    departed: BTreeMap<Id, Departed>,
}

/// A peer that was found dead.
#[derive(Clone, Copy, Debug)]
struct Departed {
    since: Micros,
    /// For so long hearsay does not lead to another probe.
    rest: Micros,
}

impl Liveness {
    /// The peer has spoken, which answers a probe; returns since when it was thought dead, if it was.
    pub(crate) fn heard(&mut self, turn: &mut Turn<'_>, id: Id) -> Option<Micros> {
        self.peer(id).heard = turn.now;
        if let Some(probe) = self.pinged.get_mut(&id).and_then(|pinged| pinged.probe.take()) {
            turn.not_due(probe.due, Due::Probe(id));
        }
        self.departed.remove(&id).map(|departed| departed.since)
    }

    /// The peer has said how it is; returns whether it has restarted since it last said so.
    pub(crate) fn heard_presence(&mut self, id: Id, presence: &Presence) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let restarted = peer.booted != 0 && peer.booted != presence.booted;
        peer.ready = presence.ready;
        peer.booted = presence.booted;
        restarted
    }

    pub(crate) fn last_heard(&self, id: Id) -> Micros {
        self.peers.get(id).map_or(0, |peer| peer.heard)
    }

    pub(crate) fn is_ready(&self, id: Id) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.heard > 0 && peer.ready)
    }

    /// Whether its answer to a ping is overdue.
    pub(crate) fn is_suspect(&self, id: Id) -> bool {
        self.probe_of(id).is_some_and(|probe| probe.pings > SUSPECT_PINGS)
    }

    /// Whether it has left our last ping unanswered, lately.
    pub(crate) fn is_unresponsive(&self, id: Id, now: Micros) -> bool {
        let is_late = |at: Micros| (SECOND..HEARSAY_REST_MAX).contains(&now.saturating_sub(at));
        self.pinged.get(&id).is_some_and(|pinged| self.last_heard(id) < pinged.at && is_late(pinged.at))
    }

    pub(crate) fn is_departed(&self, id: Id) -> bool {
        self.departed.contains_key(&id)
    }

    /// Whether hearsay about `id` deserves a probe. One that has just said that it is not ready does not: it tells all
    /// that asked when it is.
    pub(crate) fn deserves_probe(&self, id: Id, now: Micros) -> bool {
        let has_rested = |since: Micros, rest: Micros| now.saturating_sub(since) >= rest;
        let was_buried = self.departed.get(&id).is_some_and(|departed| !has_rested(departed.since, departed.rest));
        let has_spoken = self.peers.get(id).is_some_and(|peer| peer.heard > 0 && !has_rested(peer.heard, READY_REST));
        !was_buried && !has_spoken
    }

    /// Those lately found dead, latest first.
    pub(crate) fn lately_departed(&self) -> Vec<Id> {
        let mut departed: Vec<(Micros, Id)> = self.departed.iter().map(|(id, it)| (it.since, *id)).collect();
        departed.sort_by(|a, b| b.cmp(a));
        departed.truncate(DEPARTED_TOLD_MAX);
        departed.into_iter().map(|(_, id)| id).collect()
    }

    /// Begins to probe a peer, unless that is under way.
    pub(crate) fn probe(&mut self, turn: &mut Turn<'_>, id: Id, presence: Presence) {
        if self.probe_of(id).is_none() {
            self.peer(id);
            self.ping(turn, id, presence, Some((1, PROBE_WAITS[0])));
        }
    }

    /// Pings a peer once, to learn where it is or whether it is back; nothing follows if it does not answer.
    pub(crate) fn call_out(&mut self, turn: &mut Turn<'_>, id: Id, presence: Presence) {
        self.peer(id);
        self.ping(turn, id, presence, None);
    }

    /// A probe's timer: pings again, or finds the peer dead.
    pub(crate) fn probe_due(&mut self, turn: &mut Turn<'_>, id: Id, presence: Presence) -> Verdict {
        let Some(Probe { pings, .. }) = self.probe_of(id) else { return Verdict::Open };
        let Some(wait) = PROBE_WAITS.get(pings) else {
            self.bury(turn, id);
            return Verdict::Dead;
        };
        self.ping(turn, id, presence, Some((pings + 1, *wait)));
        Verdict::Open
    }

    /// Pings a peer. As a probe's so-many-eth ping, its answer is overdue when [`Due::Probe`] comes, after that wait at least.
    /// A probe that is under way goes on beside any other ping.
    fn ping(&mut self, turn: &mut Turn<'_>, id: Id, presence: Presence, probe: Option<(usize, Micros)>) {
        let request = turn.site.number();
        turn.send(id, request, Body::Ping(presence));
        let under_way = self.probe_of(id);
        let probe = probe.map(|(pings, least)| {
            let due = turn.due_after(self.wait(id).max(least), Due::Probe(id));
            Probe { pings, due }
        });
        self.pinged.insert(id, Pinged { request, at: turn.now, probe: probe.or(under_way) });
    }

    fn probe_of(&self, id: Id) -> Option<Probe> {
        self.pinged.get(&id).and_then(|pinged| pinged.probe)
    }

    /// How many pings of the probe under way have been sent, and the number of the last.
    pub(crate) fn open_ping(&self, id: Id) -> Option<(usize, u64)> {
        let pinged = self.pinged.get(&id)?;
        Some((pinged.probe?.pings, pinged.request))
    }

    /// The peer has answered the ping with this number.
    pub(crate) fn ponged(&mut self, id: Id, request: u64, now: Micros) {
        if let Some(pinged) = self.pinged.get(&id).copied().filter(|pinged| pinged.request == request) {
            self.pinged.remove(&id);
            self.acknowledged(id, pinged.at, now);
        }
    }

    /// The peer has acknowledged something that was sent to it at `asked`.
    pub(crate) fn acknowledged(&mut self, id: Id, asked: Micros, now: Micros) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.round_trip.sample(asked, now);
        }
    }

    /// How long the peer takes to answer, once that is known.
    pub(crate) fn round_trip(&self, id: Id) -> Option<Micros> {
        self.peers.get(id).and_then(|peer| peer.round_trip.smoothed())
    }

    /// How long to wait for the peer to acknowledge something.
    pub(crate) fn wait(&self, id: Id) -> Micros {
        self.peers.get(id).map_or(WAIT_UNKNOWN, |peer| peer.round_trip.wait(WAIT_UNKNOWN))
    }

    /// Forgets a peer that is no longer certified.
    pub(crate) fn forget(&mut self, turn: &mut Turn<'_>, id: Id) {
        self.peers.remove(id);
        if let Some(probe) = self.pinged.remove(&id).and_then(|pinged| pinged.probe) {
            turn.not_due(probe.due, Due::Probe(id));
        }
        self.departed.remove(&id);
    }

    fn bury(&mut self, turn: &mut Turn<'_>, id: Id) {
        self.peers.remove(id);
        self.pinged.remove(&id);
        self.departed.retain(|_, it| turn.now.saturating_sub(it.since) < DEPARTED_FORGOTTEN);
        // Gossip that will not let go of the dead costs a probe now and then, and ever more seldom.
        let rest = self.departed.get(&id).map_or(HEARSAY_REST, |it| (2 * it.rest).min(HEARSAY_REST_MAX));
        self.departed.insert(id, Departed { since: turn.now, rest });
        if self.departed.len() > DEPARTED_MAX {
            let oldest = self.departed.iter().min_by_key(|(id, it)| (it.since, **id)).map(|(id, _)| *id);
            oldest.map(|id| self.departed.remove(&id));
        }
        turn.count(Metric::PeerDied);
    }

    /// What is known of a peer, from now on if it was not.
    fn peer(&mut self, id: Id) -> &mut Peer {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains(id) {
            self.make_room();
        }
        self.peers.entry(id)
    }

    /// Forgets the peers unheard of for the longest time, of those not being probed: some at once, so that a node whom many
    /// speak to does not search them all for each.
    fn make_room(&mut self) {
        let is_probed = |id: Id| self.pinged.get(&id).is_some_and(|pinged| pinged.probe.is_some());
        let mut quiet: Vec<(Micros, Id)> =
            self.peers.iter().filter(|(id, _)| !is_probed(*id)).map(|(id, peer)| (peer.heard, id)).collect();
        if quiet.len() > PEERS_FORGOTTEN {
            quiet.select_nth_unstable(PEERS_FORGOTTEN);
            quiet.truncate(PEERS_FORGOTTEN);
        }
        for (_, id) in quiet {
            self.peers.remove(id);
            self.pinged.remove(&id);
        }
    }
}
