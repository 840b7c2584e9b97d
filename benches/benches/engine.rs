//! The engine, one operation at a time: the latency of a durable put and of a hot get, thread hops included.
//!
//! Throughput with many operations in flight is `perf load engine`, which also knows the disk's ceiling.
#![allow(missing_docs, reason = "criterion's macros make a public function without documentation")]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use engine::{Config, Engine, Key};

/// Bytes of the values.
const SIZES: [usize; 2] = [4 << 10, 64 << 10];
/// The end of every lease; the engine has no clock.
const EXPIRY_S: u64 = 4_000_000_000;

/// The key of object `number`; spread over placement ids and shards.
fn key(number: u64) -> Key {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let mut key = Key { placement: [0; 20], name: [0; 32], kind: 1 };
    key.placement[..8].copy_from_slice(&mixed);
    key.placement[12..].copy_from_slice(&mixed);
    key.name[..8].copy_from_slice(&mixed);
    key
}

fn store(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let engine = Engine::open(Config::new(dir.path())).expect("a store");
    let mut client = engine.client();
    let mut group = criterion.benchmark_group("engine");
    let mut number = 0;
    for size in SIZES {
        let value = Bytes::from(vec![0x5a; size]);
        group.bench_function(BenchmarkId::new("put", size), |bencher| {
            bencher.iter(|| {
                number += 1;
                client.put(key(number), value.clone(), EXPIRY_S).expect("a durable put");
            });
        });
        let last = key(number);
        group.bench_function(BenchmarkId::new("get", size), |bencher| {
            bencher.iter(|| client.get(last).expect("an answer").expect("the object"));
        });
    }
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);
