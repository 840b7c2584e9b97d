//! A deterministic generator of keys, salts and nonces, seeded from outside.
//!
//! `post` draws no randomness itself: whoever drives it hands in 32 fresh bytes (`ObjectStore::entropy`, or the
//! operating system in the command line), and everything that is needed follows from them. Each request hashes
//! the state under a BLAKE3 key; the state is then replaced, so that a later look at memory does not reveal what
//! was drawn before.

use hpke::rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// A generator over one secret seed. It is as unpredictable as its seed, and no more.
pub struct Entropy {
    state: Zeroizing<[u8; 32]>,
}

impl Entropy {
    /// A generator over `seed`, which must be fresh and secret.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Entropy {
        Entropy { state: Zeroizing::new(seed) }
    }

    /// Fills `destination` and moves the state on.
    pub fn fill(&mut self, destination: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.state).update(b"output").finalize_xof().fill(destination);
        let mut next = *blake3::keyed_hash(&self.state, b"next").as_bytes();
        *self.state = next;
        next.zeroize();
    }

    /// `N` fresh bytes.
    #[must_use]
    pub fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

impl TryRng for Entropy {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.draw()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.draw()))
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        self.fill(destination);
        Ok(())
    }
}

impl TryCryptoRng for Entropy {}

#[cfg(test)]
mod tests {
    //! Goal: the stream follows from the seed alone and does not repeat. Method: two generators side by side.
    use super::*;

    #[test]
    fn the_seed_decides_everything() {
        let (mut a, mut b, mut c) = (Entropy::new([1; 32]), Entropy::new([1; 32]), Entropy::new([2; 32]));
        let first: [u8; 48] = a.draw();
        assert_eq!(first, b.draw::<48>());
        assert_ne!(first, c.draw::<48>());
        assert_ne!(first, a.draw::<48>());
        assert_eq!(format!("{a:?}"), "Entropy");
    }
}
