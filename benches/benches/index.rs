//! The engine's index alone, without a disk: look-ups, lease extensions, walks, sweeps, and bytes of memory an object.
//!
//! The size is 1M objects unless `INDEX_OBJECTS` says otherwise. Sweeps are of 100M leases (1.2 GB) unless `INDEX_LEASES` does.
//! Bytes an object are printed, since criterion measures time only.
#![allow(missing_docs, reason = "criterion's macros make a public function without documentation")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::Key;
use engine::store::BareIndex;
use std::hint::black_box;

/// Leases of one `TouchMany` in the engine's figures.
const TOUCHES: u64 = 1_000;
/// Where leases end.
const TICK: u32 = 500_000;

fn number_from(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |value| value.parse().expect("a number"))
}

/// The key of object `number`: a position anywhere on the ring.
fn key(number: u64) -> Key {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let spread = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes();
    let mut key = Key { placement: [0; 20], name: [0; 32], kind: 1 };
    key.placement[..8].copy_from_slice(&spread);
    key.name[..8].copy_from_slice(&mixed.to_be_bytes());
    key
}

fn filled(objects: u64) -> BareIndex {
    let mut bare = BareIndex::new(7);
    (0..objects).for_each(|number| bare.put(key(number), TICK));
    let bytes = bare.bytes();
    println!("{objects} objects: {bytes} bytes, {:.2} an object", bytes as f64 / objects as f64);
    bare
}

fn keys(criterion: &mut Criterion) {
    let objects = number_from("INDEX_OBJECTS", 1_000_000) as u64;
    let mut bare = filled(objects);
    let mut group = criterion.benchmark_group("index");
    let mut number = 0;
    group.bench_function("candidates of a held key", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % objects;
            bare.candidates(black_box(&key(number)))
        });
    });
    group.bench_function("candidates of a strange key", |bencher| {
        bencher.iter(|| {
            number += 1;
            bare.candidates(black_box(&key(objects + number)))
        });
    });
    group.throughput(Throughput::Elements(TOUCHES));
    let mut tick = TICK;
    group.bench_function("1,000 sorted lease extensions", |bencher| {
        let batch = |number: &mut u64| {
            let mut batch: Vec<Key> = (0..TOUCHES).map(|at| key((*number + at) % objects)).collect();
            *number += TOUCHES;
            batch.sort_unstable();
            batch
        };
        bencher.iter_batched(
            || batch(&mut number),
            |batch| {
                tick += 1;
                batch.iter().map(|key| bare.touch(key, tick.min(TICK + 30_000))).sum::<usize>()
            },
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(objects));
    group.sample_size(10);
    group.bench_function("walk around the ring", |bencher| {
        bencher.iter(|| {
            let walked = bare.walk([0; 20], [0xff; 20]);
            assert_eq!(walked.entries, objects);
        });
    });
    group.bench_function("checkpoint to memory and back", |bencher| bencher.iter(|| bare.checkpoint_and_restore()));
    group.bench_function("fill", |bencher| {
        bencher.iter(|| {
            let mut bare = BareIndex::new(7);
            (0..objects).for_each(|number| bare.put(key(number), TICK));
            bare
        });
    });
    group.finish();
}

fn leases(criterion: &mut Criterion) {
    let leases = number_from("INDEX_LEASES", 100_000_000);
    let bare = BareIndex::of_leases(leases, |number| TICK + (number % 20_000) as u32);
    println!("{leases} leases: {:.2} bytes an object", bare.bytes() as f64 / leases as f64);
    let mut group = criterion.benchmark_group("sweep");
    group.throughput(Throughput::Elements(leases as u64));
    group.sample_size(10);
    group.bench_function("nothing has ended", |bencher| bencher.iter(|| assert_eq!(bare.sweep(black_box(TICK)), 0)));
    group.finish();
}

criterion_group!(benches, keys, leases);
criterion_main!(benches);
