//! The kernel for AVX2 with GFNI, for processors that have no AVX-512: 32 bytes times a coefficient in one instruction.
//!
//! GFNI's own multiplication is modulo 0x11b, the polynomial of AES, and of no use here. Multiplying by a fixed coefficient,
//! however, is linear in the bits of the other factor, whatever the polynomial, so it is an 8 × 8 matrix of bits, and GFNI has
//! an instruction that multiplies such a matrix with each byte. All 256 matrices are made by the compiler.
//!
//! Two vectors of each source by up to six rows: twelve running sums, two sources and a matrix are fifteen of the sixteen
//! registers. The last vector of a fragment ends where the fragment ends and overlaps what was done before: the same bytes are
//! written again. Only a fragment shorter than a vector goes through a copy.
#![allow(unsafe_code, reason = "vectors are loaded and stored through pointers")]

use super::arithmetic::multiply_bitwise;
use std::arch::x86_64::{
    __m256i, _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm256_xor_si256,
};
use std::ops::Range;

/// Rows that [`combine`] makes at a time, at most.
pub(super) const ROWS: usize = 6;

/// Bytes of a vector.
const WIDTH: usize = 32;

/// The matrix of each coefficient.
static MATRICES: [u64; 256] = matrices();

/// The multiplication by `coefficient` as a matrix of bits.
pub(super) fn matrix(coefficient: u8) -> u64 {
    MATRICES[usize::from(coefficient)]
}

/// The instruction takes the row of the result's bit i from byte 7 − i of the matrix, and sums the bits of the operand that
/// the row names. Bit j of the operand stands for 2ʲ and contributes the coefficient times 2ʲ, so the row of bit i has bit j
/// where that product has bit i.
const fn matrices() -> [u64; 256] {
    let mut matrices = [0; 256];
    let mut coefficient = 0;
    while coefficient < 256 {
        let mut column = 0;
        while column < 8 {
            let product = multiply_bitwise(coefficient as u8, 1 << column);
            let mut row = 0;
            while row < 8 {
                matrices[coefficient] |= ((product >> row & 1) as u64) << (8 * (7 - row) + column);
                row += 1;
            }
            column += 1;
        }
        coefficient += 1;
    }
    matrices
}

/// Writes the bytes `range` of up to [`ROWS`] rows: the sums of all sources times their coefficients.
///
/// # Safety
/// The processor has AVX2 and GFNI. All sources and outputs are at least `range.end` bytes long.
#[target_feature(enable = "avx2,gfni")]
pub(super) unsafe fn combine(matrices: &[u64], sources: &[&[u8]], outputs: &mut [&mut [u8]], range: Range<usize>) {
    assert!(matrices.len() == sources.len() * outputs.len());
    // SAFETY: the caller's promises are those of `rows`.
    unsafe {
        match outputs.len() {
            1 => rows::<1>(matrices, sources, outputs, range),
            2 => rows::<2>(matrices, sources, outputs, range),
            3 => rows::<3>(matrices, sources, outputs, range),
            4 => rows::<4>(matrices, sources, outputs, range),
            5 => rows::<5>(matrices, sources, outputs, range),
            6 => rows::<6>(matrices, sources, outputs, range),
            _ => unreachable!("a group has 1 to 6 rows"),
        }
    }
}

/// # Safety
/// As [`combine`]; there are `COUNT` outputs.
#[target_feature(enable = "avx2,gfni")]
unsafe fn rows<const COUNT: usize>(
    matrices: &[u64],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    range: Range<usize>,
) {
    let mut at = range.start;
    // SAFETY: each call is for bytes below `range.end`, which the caller promises all buffers have; the overlapping one
    // begins at zero or later, because there is a whole vector before the end.
    unsafe {
        while range.end - at >= 2 * WIDTH {
            tile::<COUNT, 2>(matrices, sources, outputs, at);
            at += 2 * WIDTH;
        }
        if range.end - at >= WIDTH {
            tile::<COUNT, 1>(matrices, sources, outputs, at);
            at += WIDTH;
        }
        if range.end > at {
            if range.end >= WIDTH {
                tile::<COUNT, 1>(matrices, sources, outputs, range.end - WIDTH);
            } else {
                short::<COUNT>(matrices, sources, outputs, at..range.end);
            }
        }
    }
}

/// `VECTORS` vectors of each row, from the byte `at`.
///
/// # Safety
/// As [`combine`]; all buffers have `VECTORS × 32` bytes from `at`.
#[inline]
#[target_feature(enable = "avx2,gfni")]
unsafe fn tile<const COUNT: usize, const VECTORS: usize>(
    matrices: &[u64],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    at: usize,
) {
    let mut sums = [[_mm256_setzero_si256(); VECTORS]; COUNT];
    for (source, matrices) in sources.iter().zip(matrices.as_chunks::<COUNT>().0) {
        let mut bytes = [_mm256_setzero_si256(); VECTORS];
        for (vector, bytes) in bytes.iter_mut().enumerate() {
            // SAFETY: the source has 32 bytes from `at + 32 · vector` (the caller's promise); the load asks for no alignment.
            *bytes = unsafe { _mm256_loadu_si256(source.as_ptr().add(at).add(vector * WIDTH).cast()) };
        }
        add_products(&mut sums, &bytes, matrices);
    }
    for (output, sums) in outputs.iter_mut().zip(&sums) {
        for (vector, sum) in sums.iter().enumerate() {
            // SAFETY: the output has 32 bytes from `at + 32 · vector` (the caller's promise), borrowed mutably; the store
            // asks for no alignment.
            unsafe { _mm256_storeu_si256(output.as_mut_ptr().add(at).add(vector * WIDTH).cast(), *sum) };
        }
    }
}

/// Rows that are shorter than a vector, through copies of a vector's size.
#[target_feature(enable = "avx2,gfni")]
fn short<const COUNT: usize>(matrices: &[u64], sources: &[&[u8]], outputs: &mut [&mut [u8]], range: Range<usize>) {
    let length = range.len();
    let mut sums = [[_mm256_setzero_si256()]; COUNT];
    let mut padded = [0u8; WIDTH];
    for (source, matrices) in sources.iter().zip(matrices.as_chunks::<COUNT>().0) {
        padded[..length].copy_from_slice(&source[range.clone()]);
        // SAFETY: `padded` is 32 bytes.
        let bytes = unsafe { _mm256_loadu_si256(padded.as_ptr().cast()) };
        add_products(&mut sums, &[bytes], matrices);
    }
    for (output, [sum]) in outputs.iter_mut().zip(&sums) {
        // SAFETY: `padded` is 32 bytes.
        unsafe { _mm256_storeu_si256(padded.as_mut_ptr().cast(), *sum) };
        output[range.clone()].copy_from_slice(&padded[..length]);
    }
}

/// Adds one source's bytes times each row's coefficient to that row's sums.
#[inline]
#[target_feature(enable = "avx2,gfni")]
fn add_products<const COUNT: usize, const VECTORS: usize>(
    sums: &mut [[__m256i; VECTORS]; COUNT],
    bytes: &[__m256i; VECTORS],
    matrices: &[u64; COUNT],
) {
    for (sums, matrix) in sums.iter_mut().zip(matrices) {
        let matrix = _mm256_set1_epi64x(matrix.cast_signed());
        for (sum, bytes) in sums.iter_mut().zip(bytes) {
            *sum = _mm256_xor_si256(*sum, _mm256_gf2p8affine_epi64_epi8::<0>(*bytes, matrix));
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the matrices are the multiplication. Method: all 65,536 products by the instruction's definition, in plain
    //! arithmetic, so that it runs on any processor.
    use super::matrix;
    use crate::field::arithmetic::multiply;

    #[test]
    fn every_matrix_times_every_byte_is_the_product() {
        for coefficient in 0..=255 {
            let rows = matrix(coefficient).to_le_bytes();
            for byte in 0..=255 {
                let product =
                    (0..8).fold(0, |product, bit| product | ((rows[7 - bit] & byte).count_ones() as u8 & 1) << bit);
                assert_eq!(product, multiply(coefficient, byte), "{coefficient} · {byte}");
            }
        }
    }
}
