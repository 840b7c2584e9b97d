//! Goal: whatever instructions compute them, the bytes are the oracle's, and no byte beside the outputs changes. Method: every
//! length from 0 to 1,024 and those around the edges of blocks, for every number of rows that a kernel has code for, at
//! offsets that align nothing; then random codes, lengths and sets by proptest, which prints what failed, shrunk.

use crate::fragments::{Chance, encoded, read, write};
use erasure::{Code, Encoder, Kernel, Plan};
use proptest::prelude::*;

/// Kernels beside the oracle.
fn fast() -> impl Iterator<Item = Kernel> {
    Kernel::available().filter(|kernel| kernel.name() != "scalar")
}

fn oracle() -> Kernel {
    Kernel::available().next().expect("the oracle is always there")
}

/// What lies around the outputs and must stay.
const AROUND: u8 = 0xee;

/// Encodes random data of `length` on every kernel, all buffers at odd offsets, and compares with the oracle.
fn compare(needed: usize, total: usize, length: usize, chance: &mut Chance) {
    let code = Code::with_kernel(needed, total, oracle()).expect("a code");
    let expected = encoded(&code, length, chance);
    let shifted: Vec<(usize, Vec<u8>)> = expected[..needed]
        .iter()
        .map(|data| {
            let offset = chance.below(67);
            (offset, [&vec![0; offset][..], data].concat())
        })
        .collect();
    let data: Vec<&[u8]> = shifted.iter().map(|(offset, bytes)| &bytes[*offset..]).collect();
    for kernel in fast() {
        let encoder = Encoder::new(&Code::with_kernel(needed, total, kernel).expect("a code"));
        let offsets: Vec<usize> = (needed..total).map(|_| chance.below(67)).collect();
        let mut around: Vec<Vec<u8>> = offsets.iter().map(|offset| vec![AROUND; offset + length + 67]).collect();
        let mut parity: Vec<&mut [u8]> =
            around.iter_mut().zip(&offsets).map(|(bytes, offset)| &mut bytes[*offset..offset + length]).collect();
        encoder.encode(&data, &mut parity).expect("sound");
        for ((bytes, offset), expected) in around.iter().zip(offsets).zip(&expected[needed..]) {
            let (before, rest) = bytes.split_at(offset);
            let (written, behind) = rest.split_at(length);
            assert!(written == expected, "{}: {needed} of {total}, {length} bytes", kernel.name());
            assert!(before.iter().chain(behind).all(|byte| *byte == AROUND), "{}: {length} bytes", kernel.name());
        }
    }
}

#[test]
fn every_length_to_1024_gives_the_oracles_bytes() {
    let mut chance = Chance(7);
    for length in 0..=1_024 {
        // Nine rows are eight and one, six and three, four, four and one.
        compare(3, 12, length, &mut chance);
    }
}

#[test]
fn every_number_of_rows_gives_the_oracles_bytes() {
    let mut chance = Chance(8);
    for rows in 0..=17 {
        for length in 0..=200 {
            compare(2, 2 + rows, length, &mut chance);
        }
    }
}

#[test]
fn the_edges_of_blocks_give_the_oracles_bytes() {
    let mut chance = Chance(9);
    for (needed, total) in [(1, 3), (5, 14), (32, 37), (128, 131), (250, 256)] {
        let block = (1 << 20) / needed;
        let whole = block / 384 * 384;
        // Blocks begin up to 63 bytes later, where a cache line does. In steps that meet each remainder of a vector often, for
        // the oracle takes long.
        let edges = [block, whole, 2 * whole].into_iter().flat_map(|edge| (edge - 65..=edge + 129).step_by(13));
        for length in edges.chain([whole - 1, whole, whole + 1, 2 * whole - 1, 2 * whole, 2 * whole + 1]) {
            compare(needed, total, length, &mut chance);
        }
    }
}

/// 33 MiB of parity, which is more than is written through the caches: at offsets that align nothing, and then all of it
/// beginning with the same byte of a cache line, as streaming wants it.
#[test]
fn what_is_written_past_the_caches_are_the_oracles_bytes() {
    let mut chance = Chance(11);
    let (needed, total, length) = (2, 35, (1 << 20) + 333);
    compare(needed, total, length, &mut chance);
    let code = Code::with_kernel(needed, total, oracle()).expect("a code");
    let expected = encoded(&code, length, &mut chance);
    for kernel in fast() {
        let encoder = Encoder::new(&Code::with_kernel(needed, total, kernel).expect("a code"));
        for offset in [0, 1, 63] {
            let mut around = vec![vec![AROUND; length + 200]; total - needed];
            let starts: Vec<usize> = around.iter().map(|bytes| bytes.as_ptr().align_offset(64) + offset).collect();
            let mut parity: Vec<&mut [u8]> =
                around.iter_mut().zip(&starts).map(|(bytes, start)| &mut bytes[*start..start + length]).collect();
            encoder.encode(&read(&expected[..needed]), &mut parity).expect("sound");
            for ((bytes, start), expected) in around.iter().zip(starts).zip(&expected[needed..]) {
                assert!(&bytes[start..start + length] == expected, "{}: offset {offset}", kernel.name());
                let mut outside = bytes[..start].iter().chain(&bytes[start + length..]);
                assert!(outside.all(|byte| *byte == AROUND), "{}: offset {offset}", kernel.name());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_recoveries_give_the_oracles_bytes(
        (needed, total) in (1usize..=256).prop_flat_map(|total| (1..=total.min(64), Just(total))),
        length in 0usize..2_000,
        wanted in 0usize..20,
        seed: u64,
    ) {
        let mut chance = Chance(seed);
        let fragments: Vec<Vec<u8>> = (0..needed).map(|_| chance.bytes(length)).collect();
        let order = chance.shuffled(total);
        let (present, lost) = order.split_at(needed);
        let lost = &lost[..wanted.min(lost.len())];
        let mut results = Kernel::available().map(|kernel| {
            let code = Code::with_kernel(needed, total, kernel).expect("a code");
            let mut outputs = vec![vec![0; length]; lost.len()];
            let plan = Plan::new(&code, present, lost).expect("sound");
            plan.apply(&read(&fragments), &mut write(&mut outputs)).expect("sound");
            (kernel, outputs)
        });
        let (_, expected) = results.next().expect("the oracle");
        for (kernel, outputs) in results {
            prop_assert!(outputs == expected, "{}", kernel.name());
        }
    }
}
