//! Control messages through one node: frame in, decision, frames out; what one core can take of them.
//!
//! The node is one of a thousand by its ring document, with a full leaf set. It is handed, in turn, a ping, a leaf set that
//! wants an answer, a message to be routed on, and the acknowledgement of that one: decoded as from a peer, handled by the
//! machine that ships, and whatever it sends is laid out as for a peer. No network, no disk, no timers that are due.
#![allow(missing_docs, reason = "criterion's macros make a public function without documentation")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use net::id::Id;
use net::machine::{Action, Actions, Event, Machine, Micros};
use net::overlay::Overlay;
use net::ring::Parameters;
use net::sim::{Dice, Founding};
use net::wire::{Body, Ends, LeafSetGossip, Message, Presence, Purpose, Route, decode, encode};
use std::hint::black_box;

const NODES: usize = 1_000;
/// Messages of a round.
const MESSAGES: u64 = 4;
const NOW: Micros = 1_790_000_000_000_000;

/// One node at work, with those around it.
struct Bench {
    node: Overlay,
    out: Actions,
    presence: Presence,
    peers: Vec<Id>,
    dice: Dice,
    request: u64,
}

impl Bench {
    fn new() -> Bench {
        let founding = Founding::new(1, NODES, Parameters::DEFAULT);
        let me = founding.ids()[0];
        let mut node = founding.overlay(me, 1, Vec::new());
        let mut out = Actions::default();
        let presence = Presence { ready: false, epoch: founding.ring.epoch, booted: 1 };
        node.handle(NOW, Event::Boot, &mut out);
        // Everybody answers, and nobody is ready yet: the ring begins.
        while !node.status().ready {
            let sent: Vec<Action> = out.drain().collect();
            for action in sent {
                if let Action::Send { to, message: Message { request, body: Body::Ping(_) } } = action {
                    let message = Message { request, body: Body::Pong(presence) };
                    node.handle(NOW, Event::Message { from: to, message }, &mut out);
                }
            }
        }
        let peers: Vec<Id> = founding.roster.neighbours(me).take(40).collect();
        let presence = Presence { ready: true, ..presence };
        for peer in &peers {
            let message = Message { request: 1, body: Body::Ping(presence) };
            node.handle(NOW, Event::Message { from: *peer, message }, &mut out);
        }
        assert_eq!(node.status().leaf_set.len(), usize::from(Parameters::DEFAULT.leaf_set));
        out.drain().for_each(drop);
        Bench { node, out, presence, peers, dice: Dice::new(1), request: 0 }
    }

    /// A frame comes from a peer and is dealt with; returns to whom what was sent on is addressed, with its request number.
    fn take(&mut self, from: Id, frame: &Bytes) -> Option<(Id, u64)> {
        let (_, message) = decode(frame).expect("our own frame");
        self.node.handle(NOW, Event::Message { from, message }, &mut self.out);
        let mut routed = None;
        for action in self.out.drain() {
            if let Action::Send { to, message } = action {
                if matches!(message.body, Body::Route(_)) {
                    routed = Some((to, message.request));
                }
                black_box(encode(&message, Ends::default()));
            }
        }
        routed
    }

    fn frame(&mut self, body: Body) -> Bytes {
        self.request += 1;
        encode(&Message { request: self.request, body }, Ends::default()).joined()
    }

    /// Lays out the frames that peers will send; not measured.
    fn round(&mut self) -> [(Id, Bytes); 3] {
        let peer = self.peers[self.dice.below(24)];
        let gossip = LeafSetGossip {
            presence: self.presence,
            members: self.peers[..24].to_vec(),
            departed: Vec::new(),
            wants_answer: true,
        };
        let (target, question) = (self.dice.id(), self.dice.roll());
        let route = Route { target, origin: peer, question, hops: 1, purpose: Purpose::Locate };
        [Body::Ping(self.presence), Body::LeafSet(gossip), Body::Route(route)].map(|body| (peer, self.frame(body)))
    }
}

fn control(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("control", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut elapsed = std::time::Duration::ZERO;
            for _ in 0..rounds {
                let frames = bench.round();
                let start = std::time::Instant::now();
                let mut routed = None;
                for (from, frame) in &frames {
                    routed = bench.take(*from, frame).or(routed);
                }
                if let Some((to, request)) = routed {
                    let ack = encode(&Message { request, body: Body::HopAck }, Ends::default()).joined();
                    bench.take(to, &ack);
                }
                elapsed += start.elapsed();
            }
            elapsed
        });
    });
    group.finish();
}

criterion_group!(benches, control);
criterion_main!(benches);
