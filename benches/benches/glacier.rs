//! What a node does with the erasure code: bytes of an object a second.
//!
//! Aggregates are split into fragments with their hashes and paths, all of these are verified, and the aggregate is joined from the
//! last r, which codes and hashes once more.
#![allow(missing_docs, reason = "criterion's macros make a public function without documentation")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use erasure::glacier::fragment::verify;
use erasure::glacier::{Coder, Profile};
use std::hint::black_box;
use std::time::Duration;

const SIZES: [usize; 4] = [4 << 10, 64 << 10, 1 << 20, 4 << 20];

fn glacier(criterion: &mut Criterion) {
    for profile in [Profile::DEFAULT, Profile::WIDE] {
        let mut group = criterion.benchmark_group(format!("glacier {} of {}", profile.needed, profile.total));
        for size in SIZES {
            let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut coder = Coder::new();
            let (name, values) = coder.split(&payload, profile).expect("within bounds");
            let last = &values[values.len() - usize::from(profile.needed)..];
            assert!(coder.join(name, last).expect("sound") == payload, "not what was split");
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new("split", size), |bencher| {
                bencher.iter(|| coder.split(black_box(&payload), profile).expect("within bounds"));
            });
            group.bench_function(BenchmarkId::new("verify all", size), |bencher| {
                bencher.iter(|| {
                    for (index, value) in (0..profile.total).zip(black_box(&values)) {
                        black_box(verify(&name.fragment_key(index), value).expect("sound"));
                    }
                });
            });
            group.bench_function(BenchmarkId::new("join", size), |bencher| {
                bencher.iter(|| coder.join(name, black_box(last)).expect("sound"));
            });
        }
        group.finish();
    }
}

/// Few and short samples: there are many cells, and what is compared is compared by turns.
fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
}

criterion_group! { name = benches; config = config(); targets = glacier }
criterion_main!(benches);
