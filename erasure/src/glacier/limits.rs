//! Every bound of Glacier, in one place, with the relations between them checked when this compiles.

use crate::limits::FRAGMENTS_MAX;
use net::limits::{BLOCK_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Most objects in one aggregate.
pub const OBJECTS_PER_AGGREGATE_MAX: usize = 4_096;
/// Largest aggregate, in bytes: the largest object, and room for a directory around it.
pub const AGGREGATE_BYTES_MAX: usize = BLOCK_BYTES_MAX + (4 << 10);
/// A fragment's data is a multiple of this many bytes, the widest vector of any kernel.
pub const FRAGMENT_STEP_BYTES: usize = 64;
/// Bytes of a fragment's header.
pub const HEADER_BYTES: usize = 44;
/// Bytes of a hash in a fragment.
pub const HASH_BYTES: usize = 32;
/// Most hashes on the way from a fragment up to the root: its index is a byte.
pub const PATH_HASHES_MAX: usize = 8;
/// Bytes at the start of an aggregate, before its directory.
pub const PREFACE_BYTES: usize = 8;
/// Bytes of one object's entry in the directory of an aggregate.
pub const ENTRY_BYTES: usize = 53;
/// Most codes (pairs of fragments needed and made) that a coder keeps prepared.
pub const CODES_KEPT_MAX: usize = 4;
/// Bytes of decoding plans kept for each of them.
pub const PLAN_BYTES_MAX: usize = 256 << 10;

/// Largest value a fragment can be: all of the largest aggregate, of which one fragment suffices.
pub const FRAGMENT_BYTES_MAX: usize =
    HEADER_BYTES + PATH_HASHES_MAX * HASH_BYTES + AGGREGATE_BYTES_MAX.next_multiple_of(FRAGMENT_STEP_BYTES);

// The largest object fits alone, and a fragment of it travels and is stored as objects are.
const _: () = assert!(PREFACE_BYTES + ENTRY_BYTES + BLOCK_BYTES_MAX <= AGGREGATE_BYTES_MAX);
const _: () = assert!(FRAGMENT_BYTES_MAX <= PAYLOAD_BYTES_MAX);
// The fullest directory leaves most of an aggregate to what it lists.
const _: () = assert!(PREFACE_BYTES + OBJECTS_PER_AGGREGATE_MAX * ENTRY_BYTES <= AGGREGATE_BYTES_MAX / 16);
// Lengths are written in four bytes, indexes in one, and a path is as long as the tree is deep.
const _: () = assert!(AGGREGATE_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(1 << PATH_HASHES_MAX == FRAGMENTS_MAX);
