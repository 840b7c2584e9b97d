//! Every bound of identity, sealing and delivery, and the checks between them.
//!
//! Bytes that come from a peer, the ring or a file are measured against these before anything is allocated.

/// Largest sealed block (ciphertext with its tag): the largest object the ring stores under one key.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// What AES-256-GCM-SIV adds to a plaintext.
pub const SEAL_TAG_BYTES: usize = 16;
/// Most plaintext in one block; longer objects are chunked.
pub const CHUNK_BYTES_MAX: usize = BLOCK_BYTES_MAX - SEAL_TAG_BYTES;
/// Largest object that may be sealed.
pub const OBJECT_BYTES_MAX: usize = 256 << 20;
/// Most chunks of one object.
pub const CHUNKS_MAX: usize = OBJECT_BYTES_MAX.div_ceil(CHUNK_BYTES_MAX);
/// Salted objects are padded to at least so many bytes, so that very short texts do not differ in size.
pub const PADDED_BYTES_MIN: usize = 256;
/// Attachments of at least this size are sealed convergently within the ring; smaller ones are salted.
pub const CONVERGENT_BYTES_MIN: usize = 64 << 10;
/// Store operations that one workflow keeps in flight.
pub const STORE_OPERATIONS_MAX: usize = 8;

/// Largest signed block (identity block, log head) made or read here.
pub const SIGNED_BLOCK_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(CHUNKS_MAX * 32 <= CHUNK_BYTES_MAX, "the chunk list must fit one block");
const _: () = assert!(CONVERGENT_BYTES_MIN < CHUNK_BYTES_MAX);
const _: () = assert!(PADDED_BYTES_MIN.is_power_of_two());
