//! The kernel for AVX-512 with GFNI: 64 bytes times a coefficient in one instruction.
//!
//! Three vectors of each source by up to eight rows at a time: twenty-four running sums, three vectors of a source and the
//! product just made are 28 of the 32 registers, and each matrix that is loaded serves three times. The last vectors of a
//! fragment end where it ends and overlap what was done before: the same bytes are written again. Only a fragment shorter
//! than a vector is read and written through a mask; bytes behind the mask are not touched, not even by the memory system.
//!
//! Rows can be *streamed*: written past the caches, so that the memory they go to is not fetched first. That halves the traffic
//! of what is too much for any cache anyway, and hurts whatever would have been read again from there.
#![allow(unsafe_code, reason = "vectors are loaded and stored through pointers")]

use std::arch::x86_64::{
    __m512i, __mmask64, _mm_sfence, _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_mask_storeu_epi8,
    _mm512_maskz_loadu_epi8, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_stream_si512,
    _mm512_xor_si512,
};
use std::ops::Range;

/// Rows that [`combine`] makes at a time, at most.
pub(super) const ROWS: usize = 8;

/// Bytes of a vector.
const WIDTH: usize = 64;

/// Writes the bytes `range` of up to [`ROWS`] rows: the sums of all sources times their coefficients. Rows that begin with
/// vectors' alignment are streamed if `is_streamed`.
///
/// # Safety
/// The processor has AVX-512F, AVX-512BW and GFNI. All sources and outputs are at least `range.end` bytes long.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
pub(super) unsafe fn combine(
    matrices: &[u64],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    range: Range<usize>,
    is_streamed: bool,
) {
    assert!(matrices.len() == sources.len() * outputs.len());
    // SAFETY: the caller's promises are those of `rows`.
    unsafe {
        match outputs.len() {
            1 => rows::<1>(matrices, sources, outputs, range, is_streamed),
            2 => rows::<2>(matrices, sources, outputs, range, is_streamed),
            3 => rows::<3>(matrices, sources, outputs, range, is_streamed),
            4 => rows::<4>(matrices, sources, outputs, range, is_streamed),
            5 => rows::<5>(matrices, sources, outputs, range, is_streamed),
            6 => rows::<6>(matrices, sources, outputs, range, is_streamed),
            7 => rows::<7>(matrices, sources, outputs, range, is_streamed),
            8 => rows::<8>(matrices, sources, outputs, range, is_streamed),
            _ => unreachable!("a group has 1 to 8 rows"),
        }
    }
}

/// # Safety
/// As [`combine`]; there are `COUNT` outputs.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn rows<const COUNT: usize>(
    matrices: &[u64],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    range: Range<usize>,
    is_streamed: bool,
) {
    let mut at = range.start;
    let is_aligned = outputs.iter().all(|output| (output.as_ptr().addr() + at).is_multiple_of(WIDTH));
    // SAFETY: each call is for bytes below `range.end`, which the caller promises all buffers have; those that overlap what was
    // done begin at zero or later, because there are as many bytes before the end. What is streamed begins with a vector's
    // alignment, as all of it does if the first is (checked above), and is fenced before anything else touches it.
    unsafe {
        if is_streamed && is_aligned {
            while range.end - at >= 3 * WIDTH {
                tile::<COUNT, 3, true>(matrices, sources, outputs, at);
                at += 3 * WIDTH;
            }
            _mm_sfence();
        }
        while range.end - at >= 3 * WIDTH {
            tile::<COUNT, 3, false>(matrices, sources, outputs, at);
            at += 3 * WIDTH;
        }
        match (range.end - at).div_ceil(WIDTH) {
            3 if range.end >= 3 * WIDTH => {
                tile::<COUNT, 3, false>(matrices, sources, outputs, range.end - 3 * WIDTH);
            }
            2 if range.end >= 2 * WIDTH => {
                tile::<COUNT, 2, false>(matrices, sources, outputs, range.end - 2 * WIDTH);
            }
            _ => {
                while range.end - at >= WIDTH {
                    tile::<COUNT, 1, false>(matrices, sources, outputs, at);
                    at += WIDTH;
                }
                if range.end > at && range.end >= WIDTH {
                    tile::<COUNT, 1, false>(matrices, sources, outputs, range.end - WIDTH);
                } else if range.end > at {
                    short::<COUNT>(matrices, sources, outputs, at, range.end - at);
                }
            }
        }
    }
}

/// `VECTORS` vectors of each row, from the byte `at`.
///
/// # Safety
/// As [`combine`]; all buffers have `VECTORS × 64` bytes from `at`. If the rows are streamed, that byte of each output has an
/// address divisible by 64, and the caller fences before these bytes are accessed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn tile<const COUNT: usize, const VECTORS: usize, const IS_STREAMED: bool>(
    matrices: &[u64],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    at: usize,
) {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; COUNT];
    for (source, matrices) in sources.iter().zip(matrices.as_chunks::<COUNT>().0) {
        let mut bytes = [_mm512_setzero_si512(); VECTORS];
        for (vector, bytes) in bytes.iter_mut().enumerate() {
            // SAFETY: the source has 64 bytes from `at + 64 · vector` (the caller's promise); the load asks for no alignment.
            *bytes = unsafe { _mm512_loadu_si512(source.as_ptr().add(at).add(vector * WIDTH).cast()) };
        }
        add_products(&mut sums, &bytes, matrices);
    }
    for (output, sums) in outputs.iter_mut().zip(&sums) {
        for (vector, sum) in sums.iter().enumerate() {
            // SAFETY: the output has 64 bytes from `at + 64 · vector` (the caller's promise), borrowed mutably; the store
            // asks for no alignment, unless it is streamed, and then the caller promises it, and the fence.
            unsafe {
                let place = output.as_mut_ptr().add(at).add(vector * WIDTH).cast();
                if IS_STREAMED {
                    _mm512_stream_si512(place, *sum);
                } else {
                    _mm512_storeu_si512(place.cast(), *sum);
                }
            }
        }
    }
}

/// Bytes of rows that are shorter than a vector, `length` from the byte `at`.
///
/// # Safety
/// As [`combine`]; all buffers have `length` bytes from `at`, and `length` is 1 to 63.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn short<const COUNT: usize>(
    matrices: &[u64],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    at: usize,
    length: usize,
) {
    assert!(length < WIDTH);
    let mask: __mmask64 = (1 << length) - 1;
    let mut sums = [[_mm512_setzero_si512()]; COUNT];
    for (source, matrices) in sources.iter().zip(matrices.as_chunks::<COUNT>().0) {
        // SAFETY: the mask has a bit for each of the `length` bytes that the source has from `at` (the caller's promise); the
        // load touches no byte without its bit.
        let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, source.as_ptr().add(at).cast()) };
        add_products(&mut sums, &[bytes], matrices);
    }
    for (output, [sum]) in outputs.iter_mut().zip(&sums) {
        // SAFETY: the mask has a bit for each of the `length` bytes that the output has from `at` (the caller's promise),
        // borrowed mutably; the store touches no byte without its bit.
        unsafe { _mm512_mask_storeu_epi8(output.as_mut_ptr().add(at).cast(), mask, *sum) };
    }
}

/// Adds one source's bytes times each row's coefficient to that row's sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn add_products<const COUNT: usize, const VECTORS: usize>(
    sums: &mut [[__m512i; VECTORS]; COUNT],
    bytes: &[__m512i; VECTORS],
    matrices: &[u64; COUNT],
) {
    for (sums, matrix) in sums.iter_mut().zip(matrices) {
        let matrix = _mm512_set1_epi64(matrix.cast_signed());
        for (sum, bytes) in sums.iter_mut().zip(bytes) {
            *sum = _mm512_xor_si512(*sum, _mm512_gf2p8affine_epi64_epi8::<0>(*bytes, matrix));
        }
    }
}
