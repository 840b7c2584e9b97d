//! Who is alive: what peers themselves have said, and who has failed to answer.
//!
//! Nobody is believed alive or dead on another's word. Hearsay only leads to a probe: a few pings, each waited for a
//! little longer ([`PROBE_WAITS`]). Whoever answers none of them is dead until it speaks again itself, so gossip cannot
//! revive a zombie; it is not even probed again on hearsay for a while.

use crate::id::Id;
use crate::limits::{DEPARTED_MAX, DEPARTED_TOLD_MAX, HEARSAY_REST, PEERS_MAX, PROBE_WAITS};
use crate::machine::{Metric, Micros};
use crate::site::{Due, Turn};
use crate::wire::{Body, Presence};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// When it last spoke to us; 0 for never.
    heard: Micros,
    ready: bool,
    booted: u64,
    probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    begun: Micros,
    pings: usize,
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
    peers: BTreeMap<Id, Peer>,
    departed: BTreeMap<Id, Micros>,
}

impl Liveness {
    /// The peer has spoken.
    pub(crate) fn heard(&mut self, id: Id, now: Micros) {
        self.departed.remove(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            (peer.heard, peer.probe) = (now, None);
            return;
        }
        if self.peers.len() >= PEERS_MAX {
            self.make_room();
        }
        self.peers.insert(id, Peer { heard: now, ..Peer::default() });
    }

    /// The peer has said how it is; returns whether it has restarted since it last said so.
    pub(crate) fn heard_presence(&mut self, id: Id, presence: &Presence) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let restarted = peer.booted != 0 && peer.booted != presence.booted;
        peer.ready = presence.ready;
        peer.booted = presence.booted;
        restarted
    }

    pub(crate) fn last_heard(&self, id: Id) -> Micros {
        self.peers.get(&id).map_or(0, |peer| peer.heard)
    }

    pub(crate) fn is_ready(&self, id: Id) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.heard > 0 && peer.ready)
    }

    /// Whether its answer to a ping is overdue.
    pub(crate) fn is_suspect(&self, id: Id) -> bool {
        self.peers.get(&id).and_then(|peer| peer.probe).is_some_and(|probe| probe.pings > 1)
    }

    pub(crate) fn is_departed(&self, id: Id) -> bool {
        self.departed.contains_key(&id)
    }

    /// Whether hearsay about `id` deserves a probe.
    pub(crate) fn deserves_probe(&self, id: Id, now: Micros) -> bool {
        self.departed.get(&id).is_none_or(|since| now.saturating_sub(*since) >= HEARSAY_REST)
    }

    /// Those lately found dead, latest first.
    pub(crate) fn lately_departed(&self) -> Vec<Id> {
        let mut departed: Vec<(Micros, Id)> = self.departed.iter().map(|(id, since)| (*since, *id)).collect();
        departed.sort_by(|a, b| b.cmp(a));
        departed.truncate(DEPARTED_TOLD_MAX);
        departed.into_iter().map(|(_, id)| id).collect()
    }

    /// Begins to probe a peer, unless that is under way.
    pub(crate) fn probe(&mut self, turn: &mut Turn<'_>, id: Id, presence: Presence) {
        if !self.peers.contains_key(&id) && self.peers.len() >= PEERS_MAX {
            self.make_room();
        }
        let peer = self.peers.entry(id).or_default();
        if peer.probe.is_some() {
            return;
        }
        peer.probe = Some(Probe { begun: turn.now, pings: 1 });
        let request = turn.site.number();
        turn.send(id, request, Body::Ping(presence));
        turn.due_in(PROBE_WAITS[0], Due::Probe(id));
    }

    /// A probe's timer: pings again, or finds the peer dead.
    pub(crate) fn probe_due(&mut self, turn: &mut Turn<'_>, id: Id, presence: Presence) -> Verdict {
        let Some(peer) = self.peers.get_mut(&id) else { return Verdict::Open };
        let Some(probe) = &mut peer.probe else { return Verdict::Open };
        let waited: Micros = PROBE_WAITS[..probe.pings.min(PROBE_WAITS.len())].iter().sum();
        if turn.now < probe.begun + waited {
            return Verdict::Open; // The timer of an earlier probe.
        }
        if probe.pings >= PROBE_WAITS.len() {
            self.bury(turn, id);
            return Verdict::Dead;
        }
        let wait = PROBE_WAITS[probe.pings];
        probe.pings += 1;
        let request = turn.site.number();
        turn.send(id, request, Body::Ping(presence));
        turn.due_in(wait, Due::Probe(id));
        Verdict::Open
    }

    /// Forgets a peer that is no longer certified.
    pub(crate) fn forget(&mut self, id: Id) {
        self.peers.remove(&id);
        self.departed.remove(&id);
    }

    fn bury(&mut self, turn: &mut Turn<'_>, id: Id) {
        self.peers.remove(&id);
        self.departed.insert(id, turn.now);
        if self.departed.len() > DEPARTED_MAX {
            let oldest = self.departed.iter().min_by_key(|(id, since)| (**since, **id)).map(|(id, _)| *id);
            oldest.map(|id| self.departed.remove(&id));
        }
        turn.count(Metric::PeerDied);
    }

    /// Forgets the peer unheard of for the longest time, of those not being probed.
    fn make_room(&mut self) {
        let quiet = self.peers.iter().filter(|(_, peer)| peer.probe.is_none());
        if let Some(id) = quiet.min_by_key(|(id, peer)| (peer.heard, **id)).map(|(id, _)| *id) {
            self.peers.remove(&id);
        }
    }
}
