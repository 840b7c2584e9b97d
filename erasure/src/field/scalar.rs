//! The oracle: one byte after the other, by logarithms. Every other kernel must give its bytes.
//!
//! It is the code for processors without a kernel of their own, too; some fifty times slower than the fastest. It uses none
//! of the tables of the kernels, so that a fault in those cannot hide.

use super::arithmetic;
use std::ops::Range;

/// Rows that [`combine`] makes at a time.
pub(super) const ROWS: usize = 1;

/// Writes the bytes `range` of one row: the sum of each source times its coefficient.
pub(super) fn combine(coefficients: &[u8], sources: &[&[u8]], outputs: &mut [&mut [u8]], range: Range<usize>) {
    assert!(outputs.len() == ROWS);
    assert!(coefficients.len() == sources.len());
    let output = &mut outputs[0][range.clone()];
    output.fill(0);
    for (source, &coefficient) in sources.iter().zip(coefficients) {
        for (sum, &byte) in output.iter_mut().zip(&source[range.clone()]) {
            *sum ^= arithmetic::multiply(coefficient, byte);
        }
    }
}
