//! Goal: our fragments are ISA-L's fragments. Method: the matrix, read off by encoding unit vectors, against one made here by
//! search (the inverse of a byte is the byte whose product, bit by bit, is one), and against an independent port of ISA-L to
//! Rust, for every r and n up to 40 and for the profiles in use; parity of random bytes against that port, too. It was
//! checked against ISA-L 2.30's own functions by the benches, which refuse to measure a library that gives other bytes.

use crate::fragments::{Chance, encoded, read, write};
use erasure::{Code, Encoder};
use rusty_erasure_core::encode::Coder;
use rusty_erasure_core::matrix::Matrix;

/// Profiles in use or offered, the customary ones, and the largest.
const LARGE: [(usize, usize); 6] = [(5, 56), (20, 116), (32, 64), (128, 256), (1, 256), (255, 256)];

/// The matrix that the encoder really uses, rows of parity only: the parity of the unit vectors.
fn parity_rows(needed: usize, total: usize) -> Vec<u8> {
    let code = Code::new(needed, total).expect("a code");
    let unit: Vec<Vec<u8>> =
        (0..needed).map(|row| (0..needed).map(|column| u8::from(row == column)).collect()).collect();
    let mut rows = vec![vec![0; needed]; total - needed];
    Encoder::new(&code).encode(&read(&unit), &mut write(&mut rows)).expect("sound");
    rows.concat()
}

fn product(left: u8, right: u8) -> u8 {
    let mut sum = 0;
    for bit in (0..8).rev() {
        sum = sum << 1 ^ if sum & 0x80 == 0 { 0 } else { 0x1d };
        if right >> bit & 1 == 1 {
            sum ^= left;
        }
    }
    sum
}

#[test]
fn the_matrix_is_the_inverse_of_the_sum_of_indexes() {
    let inverses: Vec<u8> = (0..=255u8)
        .map(|element| (0..=255u8).find(|other| product(element, *other) == 1).unwrap_or_default())
        .collect();
    for (needed, total) in (1..=40).flat_map(|total| (1..=total).map(move |needed| (needed, total))).chain(LARGE) {
        let expected: Vec<u8> = (needed..total)
            .flat_map(|row| (0..needed).map(move |column| row ^ column))
            .map(|sum| inverses[sum])
            .collect();
        assert_eq!(parity_rows(needed, total), expected, "{needed} of {total}");
    }
}

#[test]
fn matrix_and_parity_are_those_of_a_port_of_isa_l() {
    let mut chance = Chance(1);
    // The port makes no code without parity, and none of 256 fragments.
    let small = (2..=40).flat_map(|total| (1..total).map(move |needed| (needed, total)));
    for (needed, total) in small.chain(LARGE.map(|(needed, total)| (needed.min(254), total.min(255)))) {
        let matrix = Matrix::cauchy(needed, total - needed).expect("a code");
        assert_eq!(parity_rows(needed, total), matrix.parity_bytes(), "{needed} of {total}");
        let length = chance.below(if total > 40 { 700 } else { 100 });
        let ours = encoded(&Code::new(needed, total).expect("a code"), length, &mut chance);
        let mut theirs = vec![vec![0; length]; total - needed];
        let coder = Coder::new(matrix).expect("a code");
        coder.encode(&read(&ours[..needed]), &mut write(&mut theirs)).expect("sound");
        assert!(ours[needed..] == theirs, "parity of {needed} of {total}, {length} bytes");
    }
}
