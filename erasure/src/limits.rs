//! Every bound of the codec, in one place, with the relations between them checked when this compiles.

/// Most fragments of one object, data and parity together: the field has 256 elements, and each fragment is one.
pub const FRAGMENTS_MAX: usize = 256;

/// Bytes of sources that are worked on at a time. All rows read the same sources, so these should stay in a second-level cache
/// or thereabouts until the last row is done. Much smaller blocks cost more than they save: where most of the work is
/// writing, long runs of each row count for more than near sources.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// Blocks are a multiple of this many bytes, as the steps of all kernels are (128 and 192), so that only an object's last block
/// has a tail.
pub(crate) const STEP_BYTES: usize = 384;

/// Bytes of a cache line, and of the widest vector: what outputs are aligned to.
pub(crate) const ALIGNMENT: usize = 64;

/// From this length on aligning pays for the vectors that are done twice.
pub(crate) const ALIGNED_FROM_BYTES: usize = 1 << 10;

/// From so many bytes of rows on they are written past the caches: more than a processor has for one of its cores.
pub(crate) const STREAMED_FROM_BYTES: usize = 32 << 20;

/// Most plans a cache keeps, however small they are: making room looks at each of them once.
pub const PLANS_MAX: usize = 256;

// A fragment's index is kept in a byte.
const _: () = assert!(FRAGMENTS_MAX == u8::MAX as usize + 1);
// Even with the most sources a block holds one step of each.
const _: () = assert!(BLOCK_BYTES / FRAGMENTS_MAX >= STEP_BYTES);
const _: () = assert!(ALIGNED_FROM_BYTES >= ALIGNMENT && STEP_BYTES.is_multiple_of(ALIGNMENT));
