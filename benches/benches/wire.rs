//! Frames: what laying out and reading a message costs, by type and payload.
//!
//! The payload travels beside the body and is not copied, so the cost must not grow with it; the largest body that
//! travels often is the leaf set's.
#![allow(missing_docs, reason = "criterion's macros make a public function without documentation")]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use net::id::{Id, Key, Kind};
use net::wire::{Body, Ends, LeafSetGossip, Message, Place, Presence, Scope, decode, encode};
use std::hint::black_box;

/// Nodes in the gossip: a full leaf set.
const LEAF_SET: u8 = 24;

fn messages() -> Vec<(String, Message)> {
    let mut messages = Vec::new();
    for bytes in [0, 4 << 10, 64 << 10, 1 << 20] {
        let payload = Bytes::from(vec![0x5a; bytes]);
        let place = Place {
            scope: Scope { ring: [7; 16], epoch: 3 },
            key: Key::of(Kind::Content, &payload),
            expiry: 4_000_000_000,
        };
        messages.push((format!("store/{bytes}"), Message { request: 1, body: Body::Store(place, payload) }));
    }
    let members = (0..LEAF_SET).map(|number| Id([number; 20])).collect();
    let presence = Presence { ready: true, epoch: 3, booted: 1 };
    let gossip = LeafSetGossip { presence, members, departed: Vec::new(), wants_answer: true };
    messages.push(("leaf-set".to_owned(), Message { request: 2, body: Body::LeafSet(gossip) }));
    messages
}

fn frames(criterion: &mut Criterion) {
    let ends = Ends { from: 0, to: 0 };
    let mut group = criterion.benchmark_group("wire");
    for (name, message) in messages() {
        group.bench_with_input(BenchmarkId::new("encode", &name), &message, |bencher, message| {
            bencher.iter(|| encode(black_box(message), ends));
        });
        let frame = encode(&message, ends).joined();
        group.bench_with_input(BenchmarkId::new("decode", &name), &frame, |bencher, frame| {
            bencher.iter(|| decode(black_box(frame)).expect("our own frame"));
        });
    }
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
