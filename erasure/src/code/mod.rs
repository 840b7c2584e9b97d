//! The code: which coefficients make which fragment of which others.
//!
//! Number the fragments 0 to n − 1 and take the numbers as elements of the field (adding is exclusive or). Fragment j < r is
//! data. Fragment i ≥ r is parity: the sum over all data j of d(j) / (i + j), a Cauchy matrix, which is what ISA-L's
//! `gf_gen_cauchy1_matrix` writes below its unit matrix.
//!
//! **Why no matrix is ever inverted.** Take the fraction F(z) = Σ d(j) / (z + j), and write it as N(z) / W(z) with
//! W(z) = Π (z + j) over the data j. Parity i is F(i) = N(i) / W(i). Data j is what remains of F at its pole j,
//! N(j) / Π (j + m) over the *other* data m. With u(i) = Π (i + m) over the data m ≠ i, both are the same thing:
//!
//! ```text
//! c(i) = N(i) / u(i)     for every fragment i, data or parity
//! ```
//!
//! N has fewer than r roots, so any r of its values give all others (Lagrange). Fragment w of the fragments s in a set S of
//! r is therefore
//!
//! ```text
//!                          u(s)     Π over t in S of (w + t)
//! c(w) = Σ over s of c(s) · ──── · ─────────────────────────────────────
//!                          u(w)    (w + s) · Π over t ≠ s in S of (s + t)
//! ```
//!
//! A plan costs r² additions of logarithms, whatever was lost; Gauss' elimination costs r³ multiplications. Data and parity
//! are alike in it, so the repair of one lost fragment of either sort is one row of r coefficients.
//!
//! `encode` and `plan` prepare coefficients and check what callers hand in; `plans` keeps plans.

mod encode;
mod plan;
mod plans;

pub use encode::Encoder;
pub use plan::Plan;
pub use plans::Plans;

use crate::error::Error;
use crate::field::Kernel;
use crate::field::arithmetic::{Exponent, invert};
use crate::limits::FRAGMENTS_MAX;

/// A code: r fragments of data suffice, of n in all.
///
/// Invariant: 1 ≤ r ≤ n ≤ [`FRAGMENTS_MAX`].
#[derive(Clone, Debug)]
pub struct Code {
    needed: usize,
    total: usize,
    kernel: Kernel,
    /// u(i) of the module's story, for i < n.
    weights: [Exponent; FRAGMENTS_MAX],
}

impl Code {
    /// The code of `total` fragments (n), any `needed` of which suffice (r), for the fastest kernel of this processor.
    pub fn new(needed: usize, total: usize) -> Result<Code, Error> {
        Code::with_kernel(needed, total, Kernel::fastest())
    }

    /// The same code on a chosen kernel: for tests and measurements, the bytes are the same on all of them.
    pub fn with_kernel(needed: usize, total: usize, kernel: Kernel) -> Result<Code, Error> {
        if needed == 0 || needed > total || total > FRAGMENTS_MAX {
            return Err(Error::Profile { needed, total });
        }
        let mut weights = [Exponent::ONE; FRAGMENTS_MAX];
        for (fragment, weight) in weights[..total].iter_mut().enumerate() {
            for data in (0..needed).filter(|data| *data != fragment) {
                *weight = weight.times(Exponent::of(element(fragment ^ data)));
            }
            *weight = weight.reduced();
        }
        Ok(Code { needed, total, kernel, weights })
    }

    /// How many fragments suffice (r).
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// How many fragments there are (n).
    pub fn total(&self) -> usize {
        self.total
    }

    /// How many of them are parity (n − r).
    pub fn parity(&self) -> usize {
        self.total - self.needed
    }

    /// What data fragment `data` is multiplied with in parity fragment `parity`: 1 / (i + j).
    fn cauchy(&self, parity: usize, data: usize) -> u8 {
        assert!(data < self.needed);
        assert!((self.needed..self.total).contains(&parity));
        invert(element(parity ^ data))
    }
}

/// A fragment's number, or the sum of two, as an element of the field.
fn element(number: usize) -> u8 {
    u8::try_from(number).expect("fragments are numbered below 256, and so are sums of their numbers")
}

/// All buffers have the length of the first.
fn check_lengths<'a>(mut lengths: impl Iterator<Item = usize> + 'a) -> Result<(), Error> {
    let Some(expected) = lengths.next() else { return Ok(()) };
    match lengths.find(|length| *length != expected) {
        Some(found) => Err(Error::LengthsDiffer { expected, found }),
        None => Ok(()),
    }
}
