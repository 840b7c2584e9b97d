//! The erasure code: an object as n fragments, any r of which give it back; and Glacier, which keeps objects so.
//!
//! **What it is.** Two floors. Below, the code, on the standard library alone. Above, [`glacier`]: what is coded, how fragments
//! are named and checked, and where they lie.
//!
//! **The code.** A systematic Cauchy code over GF(2⁸) with polynomial 0x11d: fragments 0 to r − 1 are the data as they are,
//! fragments r to n − 1 are parity, r ≤ n ≤ 256. The bytes are those of ISA-L's `gf_gen_cauchy1_matrix` with its
//! `ec_encode_data`, so that another program can read what this one wrote. It is as dense as a code can be: *every* r
//! fragments suffice, and r − 1 never do.
//!
//! **What it is not.** The code does not name, place, hash or store fragments, and it cannot tell a damaged one from a sound
//! one: [`glacier::fragment`] verifies first, then decodes. Nothing here has I/O, a clock, randomness or threads.
//!
//! **Where to start.** For Glacier, [`glacier`]. For the code, [`Code`] names r and n. [`Encoder`] makes parity of data. [`Plan`] makes any wanted fragments, data
//! or parity, from any r that are present; one lost fragment costs one linear combination, without decoding the rest.
//! [`Plans`] keeps plans that come again, within a bound. All work on the caller's buffers; only making a plan allocates.
//!
//! Inside: `field` multiplies bytes (the scalar oracle, and beside it the kernels for AVX2 and GFNI, one of which is chosen
//! once at run time: [`Kernel`]); `code` knows which coefficients to multiply with, and no instruction set. `unsafe` is in
//! the kernels and in the one place that calls them, `field::combination`.
//!
//! There is no kernel for ARM's NEON yet: nobody here has run one, so ARM has the oracle's speed.
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(unsafe_code)]

mod code;
mod error;
mod field;
pub mod glacier;
pub mod limits;

pub use code::{Code, Encoder, Plan, Plans};
pub use error::Error;
pub use field::Kernel;
