//! Linear combinations of fragments, prepared once and applied to many bytes.
//!
//! A kernel makes a few rows at a time (its group), because each source byte it loads then serves all of them, and as many
//! running sums as there are registers. Coefficients are kept in the order in which kernels read them and in the shape their
//! instructions want:
//!
//! ```text
//! group 0: source 0 × rows 0..G, source 1 × rows 0..G, … source r − 1 × rows 0..G
//! group 1: source 0 × rows G..2G, …                       (the last group may have fewer rows)
//! ```
//!
//! Blocks come outermost: all groups read the same block of the sources, which is small enough for a second-level cache, and long
//! enough that each stream through it is worth the prefetcher's while. Without blocks, each group would fetch all of the
//! sources anew, from wherever they are.
//!
//! Vectors that lie across two cache lines cost twice. Buffers from an allocator begin with the same part of a line as a rule, so
//! the first [`ALIGNMENT`] bytes are done on their own, and the rest from where the first output's next line begins.
#![allow(unsafe_code, reason = "it calls the kernels, on what it asserts")]

use super::kernel::{Kernel, Kind};
use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::{avx2, gfni_256, gfni_512};
use crate::limits::{ALIGNED_FROM_BYTES, ALIGNMENT, BLOCK_BYTES, STEP_BYTES, STREAMED_FROM_BYTES};

/// Rows of coefficients, ready for a kernel.
///
/// Invariants: `coefficients` holds exactly `sources × rows` of them, in groups of the kernel's rows, in the kernel's shape;
/// `sources` is at least 1; `block` is a multiple of [`STEP_BYTES`] and not zero.
#[derive(Clone, Debug)]
pub(crate) struct Combination {
    kernel: Kernel,
    sources: usize,
    rows: usize,
    block: usize,
    coefficients: Coefficients,
}

/// Coefficients in the shape of the kernel that uses them.
#[derive(Clone, Debug)]
enum Coefficients {
    Scalar(Vec<u8>),
    #[cfg(target_arch = "x86_64")]
    Nibbles(Vec<avx2::Nibbles>),
    #[cfg(target_arch = "x86_64")]
    Matrices(Vec<u64>),
}

impl Combination {
    /// Prepares `rows` rows over `sources` sources; `coefficient` is asked for each (row, source) once.
    pub(crate) fn new(
        kernel: Kernel,
        rows: usize,
        sources: usize,
        coefficient: impl FnMut(usize, usize) -> u8,
    ) -> Combination {
        assert!(sources > 0, "a sum of nothing has no length");
        let coefficients = match kernel.kind() {
            Kind::Scalar => Coefficients::Scalar(in_groups(scalar::ROWS, rows, sources, coefficient, |byte| byte)),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Coefficients::Nibbles(in_groups(avx2::ROWS, rows, sources, coefficient, avx2::Nibbles::of)),
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni256 => {
                Coefficients::Matrices(in_groups(gfni_256::ROWS, rows, sources, coefficient, gfni_256::matrix))
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni512 => {
                Coefficients::Matrices(in_groups(gfni_512::ROWS, rows, sources, coefficient, gfni_256::matrix))
            }
        };
        let block = BLOCK_BYTES / sources / STEP_BYTES * STEP_BYTES;
        assert!(block >= STEP_BYTES, "more sources than a code has");
        Combination { kernel, sources, rows, block, coefficients }
    }

    /// Bytes its coefficients take.
    pub(crate) fn bytes(&self) -> usize {
        match &self.coefficients {
            Coefficients::Scalar(all) => size_of_val(&all[..]),
            #[cfg(target_arch = "x86_64")]
            Coefficients::Nibbles(all) => size_of_val(&all[..]),
            #[cfg(target_arch = "x86_64")]
            Coefficients::Matrices(all) => size_of_val(&all[..]),
        }
    }

    /// Writes every row. There are as many sources and outputs as it was prepared for, all of one length: the callers
    /// have checked what came from outside, here it is asserted, because the kernels lean on it.
    pub(crate) fn apply(&self, sources: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert!(sources.len() == self.sources);
        assert!(outputs.len() == self.rows);
        let length = sources[0].len();
        assert!(sources.iter().all(|source| source.len() == length));
        assert!(outputs.iter().all(|output| output.len() == length));
        let is_streamed = length.saturating_mul(self.rows) >= STREAMED_FROM_BYTES;
        let is_long = length >= ALIGNED_FROM_BYTES;
        let to_next_line = |output: &&mut [u8]| output.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let head = outputs.first().filter(|_| is_long).map_or(0, to_next_line);
        let first = (head > 0).then_some(0..ALIGNMENT);
        let blocks = (head..length).step_by(self.block).map(|start| start..length.min(start + self.block));
        for range in first.into_iter().chain(blocks) {
            match (self.kernel.kind(), &self.coefficients) {
                (Kind::Scalar, Coefficients::Scalar(all)) => {
                    let groups = all.chunks(scalar::ROWS * self.sources);
                    for (group, outputs) in groups.zip(outputs.chunks_mut(scalar::ROWS)) {
                        scalar::combine(group, sources, outputs, range.clone());
                    }
                }
                #[cfg(target_arch = "x86_64")]
                (Kind::Avx2, Coefficients::Nibbles(all)) => {
                    let groups = all.chunks(avx2::ROWS * self.sources);
                    for (group, outputs) in groups.zip(outputs.chunks_mut(avx2::ROWS)) {
                        // SAFETY: a `Kernel` of this kind exists only where the processor has AVX2; all sources and
                        // outputs are `length` bytes (asserted above), and `range` ends at or before that.
                        unsafe { avx2::combine(group, sources, outputs, range.clone()) };
                    }
                }
                #[cfg(target_arch = "x86_64")]
                (Kind::Gfni256, Coefficients::Matrices(all)) => {
                    let groups = all.chunks(gfni_256::ROWS * self.sources);
                    for (group, outputs) in groups.zip(outputs.chunks_mut(gfni_256::ROWS)) {
                        // SAFETY: a `Kernel` of this kind exists only where the processor has AVX2 and GFNI; all sources
                        // and outputs are `length` bytes (asserted above), and `range` ends at or before that.
                        unsafe { gfni_256::combine(group, sources, outputs, range.clone()) };
                    }
                }
                #[cfg(target_arch = "x86_64")]
                (Kind::Gfni512, Coefficients::Matrices(all)) => {
                    let groups = all.chunks(gfni_512::ROWS * self.sources);
                    for (group, outputs) in groups.zip(outputs.chunks_mut(gfni_512::ROWS)) {
                        // SAFETY: a `Kernel` of this kind exists only where the processor has AVX-512F, AVX-512BW and
                        // GFNI; all sources and outputs are `length` bytes (asserted above), and `range` ends at or
                        // before that.
                        unsafe { gfni_512::combine(group, sources, outputs, range.clone(), is_streamed) };
                    }
                }
                #[cfg(target_arch = "x86_64")]
                _ => unreachable!("coefficients are made in the shape of their kernel"),
            }
        }
    }
}

/// The coefficients in the order kernels read them: group by group, in a group source by source, for each source the rows.
fn in_groups<Shape>(
    group_rows: usize,
    rows: usize,
    sources: usize,
    mut coefficient: impl FnMut(usize, usize) -> u8,
    shape: impl Fn(u8) -> Shape,
) -> Vec<Shape> {
    let mut all = Vec::with_capacity(rows * sources);
    for first in (0..rows).step_by(group_rows) {
        let group = first..rows.min(first + group_rows);
        for source in 0..sources {
            all.extend(group.clone().map(|row| shape(coefficient(row, source))));
        }
    }
    all
}
