//! Parity from data.

use super::{Code, check_lengths};
use crate::error::Error;
use crate::field::Combination;

/// Makes the parity fragments of one code. Build it once and keep it: it holds the matrix in the kernel's shape.
#[derive(Clone, Debug)]
pub struct Encoder {
    code: Code,
    rows: Combination,
}

impl Encoder {
    /// Prepares the parity rows of `code`'s matrix.
    pub fn new(code: &Code) -> Encoder {
        let first = code.needed();
        let rows =
            Combination::new(code.kernel, code.parity(), code.needed(), |row, data| code.cauchy(first + row, data));
        Encoder { code: code.clone(), rows }
    }

    /// The code this is for.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// Writes all n − r parity fragments of the r data fragments, each in order of its index. Allocates nothing.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), Error> {
        if data.len() != self.code.needed() {
            return Err(Error::BufferCount { given: data.len(), expected: self.code.needed() });
        }
        if parity.len() != self.code.parity() {
            return Err(Error::BufferCount { given: parity.len(), expected: self.code.parity() });
        }
        check_lengths(data.iter().map(|data| data.len()).chain(parity.iter().map(|parity| parity.len())))?;
        self.rows.apply(data, parity);
        Ok(())
    }
}
