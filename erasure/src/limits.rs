//! Every bound of the codec, in one place, with the relations between them checked when this compiles.

/// Most fragments of one object, data and parity together: the field has 256 elements, and each fragment is one.
pub const FRAGMENTS_MAX: usize = 256;

/// Bytes of sources that are worked on at a time. All rows read the same sources, so these should stay in the first-level
/// cache until the last row is done; 32 KiB is the smallest such cache among today's processors.
pub(crate) const BLOCK_BYTES: usize = 32 << 10;

/// Blocks are a multiple of this many bytes: the widest step of any kernel, so that only an object's last block has a
/// tail.
pub(crate) const STEP_BYTES: usize = 128;

/// Most plans a cache keeps, however small they are: making room looks at each of them once.
pub const PLANS_MAX: usize = 256;

// A fragment's index is kept in a byte.
const _: () = assert!(FRAGMENTS_MAX == u8::MAX as usize + 1);
// Even with the most sources a block holds one step of each.
const _: () = assert!(BLOCK_BYTES / FRAGMENTS_MAX >= STEP_BYTES);
