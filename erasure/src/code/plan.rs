//! Any fragments from any r others: decoding, and the repair of what was lost.

use super::{Code, check_lengths, element};
use crate::error::Error;
use crate::field::Combination;
use crate::field::arithmetic::Exponent;
use crate::limits::FRAGMENTS_MAX;

/// How to make the wanted fragments of the present ones, for any bytes in them.
///
/// It holds r coefficients for each wanted fragment. One plan serves all objects whose same fragments were lost; [`super::Plans`]
/// finds it again.
#[derive(Clone, Debug)]
pub struct Plan {
    needed: usize,
    wanted: usize,
    rows: Combination,
}

impl Plan {
    /// Plans to make the fragments `wanted` of the first r of the fragments `present`; more may be named, and are checked and
    /// not used. Both are indexes in the order in which buffers will be handed to [`Plan::apply`].
    pub fn new(code: &Code, present: &[u8], wanted: &[u8]) -> Result<Plan, Error> {
        if present.len() < code.needed() {
            return Err(Error::TooFewFragments { given: present.len(), needed: code.needed() });
        }
        let mut named = [false; FRAGMENTS_MAX];
        for &index in present.iter().chain(wanted) {
            if usize::from(index) >= code.total() {
                return Err(Error::IndexOutOfRange { index, total: code.total() });
            }
            if std::mem::replace(&mut named[usize::from(index)], true) {
                return Err(Error::IndexTwice { index });
            }
        }
        let present = &present[..code.needed()];
        // What the formula has for each s alone, u(s) / Π (s + t) …
        let mut of_present = [Exponent::ONE; FRAGMENTS_MAX];
        for (factor, &index) in of_present.iter_mut().zip(present) {
            let others = product_of_sums(index, present.iter().copied().filter(|other| *other != index));
            *factor = code.weights[usize::from(index)].over(others).reduced();
        }
        // … and for each w alone, Π (w + t) / u(w). What is left for a pair of both is 1 / (w + s).
        let mut of_wanted = [Exponent::ONE; FRAGMENTS_MAX];
        for (factor, &index) in of_wanted.iter_mut().zip(wanted) {
            let all = product_of_sums(index, present.iter().copied());
            *factor = all.over(code.weights[usize::from(index)]).reduced();
        }
        let rows = Combination::new(code.kernel, wanted.len(), code.needed(), |row, source| {
            let between = Exponent::of(wanted[row] ^ present[source]);
            of_wanted[row].times(of_present[source]).over(between).element()
        });
        Ok(Plan { needed: code.needed(), wanted: wanted.len(), rows })
    }

    /// Writes the wanted fragments. `fragments` are the present ones, at least the first r of them, and `outputs` take the
    /// wanted ones, both in the order in which the plan was made. Allocates nothing.
    ///
    /// That the fragments are those of the plan cannot be seen from their bytes: hand in others, and the result is
    /// worthless, as it is when one of them is damaged.
    pub fn apply(&self, fragments: &[&[u8]], outputs: &mut [&mut [u8]]) -> Result<(), Error> {
        if fragments.len() < self.needed {
            return Err(Error::TooFewFragments { given: fragments.len(), needed: self.needed });
        }
        if outputs.len() != self.wanted {
            return Err(Error::BufferCount { given: outputs.len(), expected: self.wanted });
        }
        let fragments = &fragments[..self.needed];
        check_lengths(
            fragments.iter().map(|fragment| fragment.len()).chain(outputs.iter().map(|output| output.len())),
        )?;
        self.rows.apply(fragments, outputs);
        Ok(())
    }

    /// Bytes its coefficients take.
    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}

/// Π (index + other) over the others, none of which is the index.
fn product_of_sums(index: u8, others: impl Iterator<Item = u8>) -> Exponent {
    others.fold(Exponent::ONE, |product, other| product.times(Exponent::of(element(usize::from(index ^ other)))))
}
