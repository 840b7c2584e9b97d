//! Sealing: bytes a second from plaintext to sealed blocks and back, by size.
//!
//! Both directions hash twice (plaintext and ciphertext) and run AES-256-GCM-SIV once; the sizes are a text, an
//! attachment that converges, and one that is cut into chunks.
#![allow(missing_docs, reason = "criterion's macros make a public function without documentation")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use post::seal::{RingSecret, Secret, open, seal};
use std::hint::black_box;

/// Sizes that fit one block.
const SIZES: [usize; 4] = [1 << 10, 16 << 10, 256 << 10, 2 << 20];
/// A size that needs several.
const CHUNKED: usize = 12 << 20;
const RING: [u8; 16] = [7; 16];

fn sealing(criterion: &mut Criterion) {
    let secret = Secret::Convergent(RingSecret::new(1, [9; 32]));
    let mut group = criterion.benchmark_group("sealing");
    for size in SIZES.into_iter().chain([CHUNKED]) {
        let plaintext: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("seal", size), &plaintext, |bencher, plaintext| {
            bencher.iter(|| seal(RING, &secret, black_box(plaintext)).expect("within the bounds"));
        });
        if size == CHUNKED {
            continue;
        }
        let sealed = seal(RING, &secret, &plaintext).expect("within the bounds");
        group.bench_with_input(BenchmarkId::new("open", size), &sealed.blocks[0].1, |bencher, block| {
            bencher.iter(|| open(&sealed.reference, black_box(block)).expect("our own block"));
        });
    }
    group.finish();
}

criterion_group!(benches, sealing);
criterion_main!(benches);
