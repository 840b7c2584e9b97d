//! The kernel for AVX2 alone: 32 bytes times a coefficient in two table look-ups.
//!
//! Multiplying is linear, so the product of a byte is the sum of the products of its halves, and of each half there are only
//! sixteen. The shuffle instruction looks sixteen bytes up in such a table at once, in each of its two lanes. All tables are
//! made by the compiler, 8 KiB.
//!
//! Two vectors of each source by up to four rows: eight running sums, four halves and a row's two tables are fourteen of the
//! sixteen registers. Tails as in `gfni_256`.
#![allow(unsafe_code, reason = "vectors are loaded and stored through pointers")]

use super::arithmetic::multiply_bitwise;
use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256, _mm256_set1_epi8,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
};
use std::ops::Range;

/// Rows that [`combine`] makes at a time, at most.
pub(super) const ROWS: usize = 4;

/// Bytes of a vector.
const WIDTH: usize = 32;

/// A coefficient's products with 0 to 15, and with 16 times 0 to 15. A look-up never crosses a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(super) struct Nibbles {
    low: [u8; 16],
    high: [u8; 16],
}

/// The tables of each coefficient.
static NIBBLES: [Nibbles; 256] = nibbles();

impl Nibbles {
    /// The tables of `coefficient`.
    pub(super) fn of(coefficient: u8) -> Nibbles {
        NIBBLES[usize::from(coefficient)]
    }
}

const fn nibbles() -> [Nibbles; 256] {
    let mut all = [Nibbles { low: [0; 16], high: [0; 16] }; 256];
    let mut coefficient = 0;
    while coefficient < 256 {
        let mut half = 0;
        while half < 16 {
            all[coefficient].low[half] = multiply_bitwise(coefficient as u8, half as u8);
            all[coefficient].high[half] = multiply_bitwise(coefficient as u8, (half as u8) << 4);
            half += 1;
        }
        coefficient += 1;
    }
    all
}

/// Writes the bytes `range` of up to [`ROWS`] rows: the sums of all sources times their coefficients.
///
/// # Safety
/// The processor has AVX2. All sources and outputs are at least `range.end` bytes long.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn combine(tables: &[Nibbles], sources: &[&[u8]], outputs: &mut [&mut [u8]], range: Range<usize>) {
    assert!(tables.len() == sources.len() * outputs.len());
    // SAFETY: the caller's promises are those of `rows`.
    unsafe {
        match outputs.len() {
            1 => rows::<1>(tables, sources, outputs, range),
            2 => rows::<2>(tables, sources, outputs, range),
            3 => rows::<3>(tables, sources, outputs, range),
            4 => rows::<4>(tables, sources, outputs, range),
            _ => unreachable!("a group has 1 to 4 rows"),
        }
    }
}

/// # Safety
/// As [`combine`]; there are `COUNT` outputs.
#[target_feature(enable = "avx2")]
unsafe fn rows<const COUNT: usize>(
    tables: &[Nibbles],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    range: Range<usize>,
) {
    let mut at = range.start;
    // SAFETY: each call is for bytes below `range.end`, which the caller promises all buffers have; the overlapping one
    // begins at zero or later, because there is a whole vector before the end.
    unsafe {
        while range.end - at >= 2 * WIDTH {
            tile::<COUNT, 2>(tables, sources, outputs, at);
            at += 2 * WIDTH;
        }
        if range.end - at >= WIDTH {
            tile::<COUNT, 1>(tables, sources, outputs, at);
            at += WIDTH;
        }
        if range.end > at {
            if range.end >= WIDTH {
                tile::<COUNT, 1>(tables, sources, outputs, range.end - WIDTH);
            } else {
                short::<COUNT>(tables, sources, outputs, at..range.end);
            }
        }
    }
}

/// `VECTORS` vectors of each row, from the byte `at`.
///
/// # Safety
/// As [`combine`]; all buffers have `VECTORS × 32` bytes from `at`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn tile<const COUNT: usize, const VECTORS: usize>(
    tables: &[Nibbles],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    at: usize,
) {
    let mut sums = [[_mm256_setzero_si256(); VECTORS]; COUNT];
    for (source, tables) in sources.iter().zip(tables.as_chunks::<COUNT>().0) {
        let mut bytes = [_mm256_setzero_si256(); VECTORS];
        for (vector, bytes) in bytes.iter_mut().enumerate() {
            // SAFETY: the source has 32 bytes from `at + 32 · vector` (the caller's promise); the load asks for no alignment.
            *bytes = unsafe { _mm256_loadu_si256(source.as_ptr().add(at).add(vector * WIDTH).cast()) };
        }
        add_products(&mut sums, &bytes, tables);
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
#[target_feature(enable = "avx2")]
fn short<const COUNT: usize>(tables: &[Nibbles], sources: &[&[u8]], outputs: &mut [&mut [u8]], range: Range<usize>) {
    let length = range.len();
    let mut sums = [[_mm256_setzero_si256()]; COUNT];
    let mut padded = [0u8; WIDTH];
    for (source, tables) in sources.iter().zip(tables.as_chunks::<COUNT>().0) {
        padded[..length].copy_from_slice(&source[range.clone()]);
        // SAFETY: `padded` is 32 bytes.
        let bytes = unsafe { _mm256_loadu_si256(padded.as_ptr().cast()) };
        add_products(&mut sums, &[bytes], tables);
    }
    for (output, [sum]) in outputs.iter_mut().zip(&sums) {
        // SAFETY: `padded` is 32 bytes.
        unsafe { _mm256_storeu_si256(padded.as_mut_ptr().cast(), *sum) };
        output[range.clone()].copy_from_slice(&padded[..length]);
    }
}

/// Adds one source's bytes times each row's coefficient to that row's sums.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products<const COUNT: usize, const VECTORS: usize>(
    sums: &mut [[__m256i; VECTORS]; COUNT],
    bytes: &[__m256i; VECTORS],
    tables: &[Nibbles; COUNT],
) {
    let mask = _mm256_set1_epi8(0x0f);
    let mut halves = [(mask, mask); VECTORS];
    for ((low, high), bytes) in halves.iter_mut().zip(bytes) {
        *low = _mm256_and_si256(*bytes, mask);
        *high = _mm256_and_si256(_mm256_srli_epi64::<4>(*bytes), mask);
    }
    for (sums, tables) in sums.iter_mut().zip(tables) {
        // SAFETY: each of the two tables is an array of sixteen bytes; the loads ask for no alignment.
        let (low_table, high_table) =
            unsafe { (_mm_loadu_si128(tables.low.as_ptr().cast()), _mm_loadu_si128(tables.high.as_ptr().cast())) };
        let low_table = _mm256_broadcastsi128_si256(low_table);
        let high_table = _mm256_broadcastsi128_si256(high_table);
        for (sum, (low, high)) in sums.iter_mut().zip(&halves) {
            let product =
                _mm256_xor_si256(_mm256_shuffle_epi8(low_table, *low), _mm256_shuffle_epi8(high_table, *high));
            *sum = _mm256_xor_si256(*sum, product);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the tables are the multiplication. Method: all 65,536 products as sums of two look-ups.
    use super::Nibbles;
    use crate::field::arithmetic::multiply;

    #[test]
    fn every_sum_of_two_look_ups_is_the_product() {
        for coefficient in 0..=255 {
            let tables = Nibbles::of(coefficient);
            for byte in 0..=255u8 {
                let product = tables.low[usize::from(byte & 15)] ^ tables.high[usize::from(byte >> 4)];
                assert_eq!(product, multiply(coefficient, byte), "{coefficient} · {byte}");
            }
        }
    }
}
