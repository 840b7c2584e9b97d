//! The world of the second level: hosts on a plane, a network of packets between them, and one queue of events in virtual time.
//!
//! One seed decides where hosts are, which packets are lost, doubled and overtaken, how long disks take, and what QUIC's state
//! machine draws (packet numbers it leaves out, bits it sets for grease). What the seed does not decide are connection ids, and TLS's
//! keys, random bytes and the order of its extensions: these are as long whatever they are, and nothing here or in QUIC
//! goes by their value. Certificates hold the real date, in fields of fixed length. So the same seed gives the same trace, which
//! holds every event and the length of every packet that arrives.

use super::host::{Clock, Counts, Effects, Host};
use super::now_s;
use crate::load::LoadError;
use bytes::Bytes;
use epost_gateway::node::transport::{Credentials, Directory};
use net::limits::{MILLISECOND, SECOND};
use net::machine::{
    Action, Actions, Command, ComputeJob, ComputeResult, Event, Machine, Micros, OpId, Reply, RequestId,
    StorageOperation, TimerId,
};
use net::overlay::{Overlay, OverlayConfig, OverlayStatus};
use net::past::block::verify;
use net::ring::{Parameters, RingDocument};
use net::roster::Roster;
use net::sim::{Dice, MemoryStore, Weather};
use post::entropy::Entropy;
use post::identity::organisation::{enrol_node, found};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// An ordinary moment in 2026.
pub(super) const GENESIS: Micros = 1_790_000_000 * SECOND;

enum Occurrence {
    Packet {
        from: usize,
        packet: Bytes,
    },
    /// Time passes for a host's connections.
    Wake,
    Timer(TimerId),
    Storage(OpId, StorageOperation),
    Event(Event),
}

struct Place {
    host: Host,
    machine: Overlay,
    store: MemoryStore,
    timers: BTreeMap<TimerId, Micros>,
    wake_at: Micros,
    at: (i64, i64),
}

/// Packets so far, and what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Packets {
    pub(super) sent: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) cut: u64,
}

pub(super) struct World {
    pub(super) now: Micros,
    pub(super) events: u64,
    pub(super) trace: u64,
    pub(super) packets: Packets,
    /// Those who reach each other and nobody else.
    pub(super) cut_off: BTreeSet<usize>,
    weather: Weather,
    dice: Dice,
    queue: BTreeMap<(Micros, u64), (usize, Occurrence)>,
    entries: u64,
    places: Vec<Place>,
    addresses: BTreeMap<SocketAddr, usize>,
    directory: Arc<Directory>,
    replies: BTreeMap<RequestId, Reply>,
    requests: u64,
    /// Commands that no machine has replied to yet.
    pub(super) unanswered: u64,
}

impl World {
    /// A ring of so many hosts, founded and enrolled as an operator does it, all of which start at once.
    pub(super) fn new(seed: u64, hosts: u8, weather: Weather) -> Result<World, LoadError> {
        let mut dice = Dice::new(seed);
        let mut entropy = Entropy::new(dice.bytes(32).first_chunk().copied().unwrap_or_default());
        let founded = found("epost.test", "epost.test", Parameters::DEFAULT, now_s(), &mut entropy).map_err(ring)?;
        let (authority, mut document) = (&founded.authority, founded.document.clone());
        let mut enrolled = Vec::new();
        for host in 0..hosts {
            let address = SocketAddr::from(([10, 0, 0, host + 1], 4433));
            let node =
                enrol_node(authority, &document, &address.to_string(), 1, now_s(), &mut entropy).map_err(ring)?;
            document = node.document.clone();
            enrolled.push((address, node));
        }
        let authority = authority.public_key();
        let directory = RingDocument::decode_verified(&document, &authority).map_err(ring)?;
        let directory = Arc::new(Directory::new(Arc::new(directory), authority));
        let roster = Arc::new(Roster::decode(document, &authority).map_err(ring)?);
        let clock = Clock::new(GENESIS);
        let mut world = World {
            now: GENESIS,
            events: 0,
            trace: 0,
            packets: Packets::default(),
            cut_off: BTreeSet::new(),
            weather,
            queue: BTreeMap::new(),
            entries: 0,
            places: Vec::new(),
            addresses: enrolled.iter().enumerate().map(|(at, (address, _))| (*address, at)).collect(),
            directory: directory.clone(),
            replies: BTreeMap::new(),
            requests: 0,
            unanswered: 0,
            dice,
        };
        for (at, (_, node)) in enrolled.into_iter().enumerate() {
            let own = Credentials {
                certificate: CertificateDer::from(node.certificate.to_vec()),
                key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(node.private_key.to_vec())),
            };
            let (id, roster, dice) = (node.node_id, roster.clone(), &mut world.dice);
            let config = OverlayConfig { id, roster, authority, seed: dice.roll(), bootstraps: Vec::new() };
            world.places.push(Place {
                host: Host::new(dice.roll(), id, clock, &own, directory.clone()).map_err(ring)?,
                machine: Overlay::new(config),
                store: MemoryStore::default(),
                timers: BTreeMap::new(),
                wake_at: Micros::MAX,
                at: (dice.below(1_000) as i64, dice.below(1_000) as i64),
            });
            world.later(0, at, Occurrence::Event(Event::Boot));
        }
        Ok(world)
    }

    pub(super) fn hosts(&self) -> usize {
        self.places.len()
    }

    /// Whether every machine is ready, and knows so many neighbours as there are, or half a leaf set. (One that hears of nobody
    /// takes itself for the whole ring.)
    pub(super) fn is_ready(&self) -> bool {
        let neighbours = (self.places.len() - 1).min(usize::from(Parameters::DEFAULT.leaf_set) / 2);
        let is_ready = |status: OverlayStatus| status.ready && status.leaf_set.len() >= neighbours;
        self.places.iter().all(|place| is_ready(place.machine.status()))
    }

    /// What all hosts have done so far.
    pub(super) fn counts(&self) -> Counts {
        self.places.iter().map(|place| place.host.counts).fold(Counts::default(), |sum, one| Counts {
            dials: sum.dials + one.dials,
            connections_lost: sum.connections_lost + one.connections_lost,
            frames: sum.frames + one.frames,
            datagrams: sum.datagrams + one.datagrams,
            dropped: sum.dropped + one.dropped,
            malformed: sum.malformed + one.malformed,
        })
    }

    pub(super) fn command(&mut self, host: usize, command: Command) -> RequestId {
        self.requests += 1;
        self.unanswered += 1;
        let request = RequestId(self.requests);
        self.later(0, host, Occurrence::Event(Event::Command { request, command }));
        request
    }

    pub(super) fn take_reply(&mut self, request: RequestId) -> Option<Reply> {
        self.replies.remove(&request)
    }

    /// Runs for a while.
    pub(super) fn run_for(&mut self, duration: Micros) {
        let end = self.now + duration;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), (host, what)) = entry.remove_entry();
            self.now = at;
            self.happen(host, what);
        }
        self.now = end;
    }

    fn later(&mut self, delay: Micros, host: usize, what: Occurrence) {
        self.entries += 1;
        self.queue.insert((self.now + delay, self.entries), (host, what));
    }

    fn happen(&mut self, at: usize, what: Occurrence) {
        let (now, mut effects) = (self.now, Effects::default());
        let place = &mut self.places[at];
        let (kind, length) = match &what {
            Occurrence::Packet { packet, .. } => (1, packet.len()),
            Occurrence::Wake if place.wake_at != now => return,
            Occurrence::Wake => (2, 0),
            // Armed anew since.
            Occurrence::Timer(timer) if place.timers.get(timer) != Some(&now) => return,
            Occurrence::Timer(_) => (3, 0),
            Occurrence::Storage(..) => (4, 0),
            Occurrence::Event(_) => (5, 0),
        };
        self.events += 1;
        let event = [kind, at as u64, length as u64, now];
        self.trace = event.into_iter().fold(self.trace, |trace, part| Dice::new(trace ^ part).roll());
        match what {
            Occurrence::Packet { from, packet } => {
                if self.cut_off.contains(&from) != self.cut_off.contains(&at) {
                    self.packets.cut += 1;
                    return;
                }
                let from = self.address(from);
                self.places[at].host.take(now, from, &packet, &mut effects);
            }
            Occurrence::Wake => {
                place.wake_at = Micros::MAX;
                place.host.wake(now, &mut effects);
            }
            Occurrence::Timer(timer) => {
                place.timers.remove(&timer);
                self.turn(at, Event::Timer(timer), &mut effects);
            }
            Occurrence::Storage(op, operation) => {
                let result = place.store.perform(operation);
                self.turn(at, Event::Storage { op, result }, &mut effects);
            }
            Occurrence::Event(event) => self.turn(at, event, &mut effects),
        }
        self.settle(at, effects);
    }

    /// Tells the machine what its host has for it, until there is no more; then lets the packets go.
    fn settle(&mut self, at: usize, mut effects: Effects) {
        loop {
            let messages = std::mem::take(&mut effects.messages);
            let downs = std::mem::take(&mut effects.downs);
            if messages.is_empty() && downs.is_empty() {
                break;
            }
            for (from, message) in messages {
                self.turn(at, Event::Message { from, message }, &mut effects);
            }
            for peer in downs {
                self.turn(at, Event::PeerDown(peer), &mut effects);
            }
        }
        for (to, packet) in effects.packets {
            self.carry(at, to, packet);
        }
        let place = &mut self.places[at];
        let due = place.host.next_due().map(|due| due.max(self.now + 1));
        if let Some(due) = due.filter(|due| *due < place.wake_at || place.wake_at <= self.now) {
            place.wake_at = due;
            self.later(due - self.now, at, Occurrence::Wake);
        }
    }

    fn turn(&mut self, at: usize, event: Event, effects: &mut Effects) {
        let mut actions = Actions::default();
        self.places[at].machine.handle(self.now, event, &mut actions);
        for action in actions.drain() {
            match action {
                Action::Send { to, message } => self.places[at].host.send(self.now, to, &message, effects),
                Action::Arm { timer, at: due } => {
                    let due = due.max(self.now);
                    self.places[at].timers.insert(timer, due);
                    self.later(due - self.now, at, Occurrence::Timer(timer));
                }
                Action::Storage { op, operation } => {
                    let delay = 200 + self.dice.roll() % (2 * MILLISECOND);
                    self.later(delay, at, Occurrence::Storage(op, operation));
                }
                Action::Compute { op, job: ComputeJob::Verify { key, value } } => {
                    let result = match verify(&key, &value, self.directory.trust()) {
                        Ok(version) => ComputeResult::Verified { version },
                        Err(refusal) => ComputeResult::Refused(refusal),
                    };
                    self.later(50, at, Occurrence::Event(Event::Compute { op, result }));
                }
                Action::Compute { op, job: ComputeJob::Work(work) } => {
                    let result = ComputeResult::Worked(work.perform());
                    self.later(50, at, Occurrence::Event(Event::Compute { op, result }));
                }
                Action::Reply { request, reply } => {
                    self.unanswered -= 1;
                    self.replies.insert(request, reply);
                }
                // No application is here, and nothing is swept in the time that is run.
                Action::Deliver { .. }
                | Action::Published { .. }
                | Action::Solicit { .. }
                | Action::LeasesAgreed { .. }
                | Action::RingAdopted { .. }
                | Action::Metric { .. } => {}
            }
        }
    }

    fn carry(&mut self, from: usize, to: SocketAddr, packet: Bytes) {
        self.packets.sent += 1;
        self.packets.bytes += packet.len() as u64;
        let Some(to) = self.addresses.get(&to).copied() else { return };
        let ((ax, ay), (bx, by)) = (self.places[from].at, self.places[to].at);
        let distance = ((ax - bx).pow(2) + (ay - by).pow(2)).unsigned_abs().isqrt();
        let latency = self.weather.latency_min + distance * self.weather.latency_span / 1_415;
        // Drawn for each packet whatever becomes of it.
        let draws: [u64; 4] = std::array::from_fn(|_| self.dice.roll());
        let spread = self.weather.jitter + 1;
        let jitter = |draw: u64| latency + draw % spread;
        if draws[0] % 1_000_000 < u64::from(self.weather.loss_ppm) {
            self.packets.lost += 1;
            return;
        }
        if draws[1] % 1_000_000 < u64::from(self.weather.duplicates_ppm) {
            self.packets.doubled += 1;
            self.later(jitter(draws[2]), to, Occurrence::Packet { from, packet: packet.clone() });
        }
        self.later(jitter(draws[3]), to, Occurrence::Packet { from, packet });
    }

    fn address(&self, host: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host as u8 + 1], 4433))
    }
}

/// A ring that cannot be founded is a fault of this program.
fn ring(error: impl std::fmt::Display) -> LoadError {
    LoadError::Ring(error.to_string())
}
