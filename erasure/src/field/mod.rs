//! The field and its linear combinations: everything that touches fragments' bytes.
//!
//! Encoding, decoding and repair are one operation here, a [`Combination`]: rows of coefficients, each row the sum of all
//! sources, byte for byte, times the row's coefficients. `arithmetic` is the field itself, `scalar` the plain version of that
//! operation, `avx2`, `gfni_256` and `gfni_512` the fast ones, `kernel` chooses, and `combination` prepares coefficients for
//! the kernel chosen, cuts long fragments into blocks that stay in the cache, and calls it.

pub(crate) mod arithmetic;
mod combination;
mod kernel;
mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gfni_256;
#[cfg(target_arch = "x86_64")]
mod gfni_512;

pub(crate) use combination::Combination;
pub use kernel::Kernel;
