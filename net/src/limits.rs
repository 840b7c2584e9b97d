//! Every bound of the overlay, in one place, with the relations between them checked when this compiles.
//!
//! A table at its bound drops, counts the drop ([`crate::machine::Metric::Dropped`]) or answers
//! [`crate::machine::Reply::Busy`]; nothing grows with what strangers send.

use crate::machine::Micros;

/// One second of machine time.
pub const SECOND: Micros = 1_000_000;
/// One millisecond of machine time.
pub const MILLISECOND: Micros = 1_000;

// --- wire ---------------------------------------------------------------------------------------------------

/// Largest CBOR body of a frame, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Largest object a block may be, in bytes.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Largest raw payload of a frame, in bytes: an object and room for what encloses it.
pub const PAYLOAD_BYTES_MAX: usize = BLOCK_BYTES_MAX + (64 << 10);
/// Largest datagram body: it must fit the smallest path a QUIC datagram may meet.
pub const DATAGRAM_BODY_BYTES_MAX: usize = 1_100;
/// A payload above this travels in the bulk lane.
pub const STREAM_PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Most ids in one message.
pub const IDS_PER_MESSAGE_MAX: usize = 64;
/// Most keys in one message: of a refresh, or of a listing.
pub const KEYS_PER_MESSAGE_MAX: usize = 1_000;
/// Most replica sets told apart in one refresh message.
pub const GROUPS_PER_MESSAGE_MAX: usize = 64;
/// Most hops a routed message may take.
pub const HOPS_MAX: u8 = 40;

// Each key of a listing takes at most 35 (key) + 9 (version) + 9 (expiry) + 1 (array) bytes of CBOR.
const _: () = assert!(KEYS_PER_MESSAGE_MAX * 54 + 1_024 <= BODY_BYTES_MAX);
const _: () = assert!(KEYS_PER_MESSAGE_MAX * 35 + GROUPS_PER_MESSAGE_MAX * 9 + 1_024 <= BODY_BYTES_MAX);
const _: () = assert!(IDS_PER_MESSAGE_MAX * 22 + 256 <= BODY_BYTES_MAX);
const _: () = assert!(crate::ring::DOCUMENT_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!(HOPS_MAX as usize >= crate::id::Id::DIGITS);

// --- blocks -------------------------------------------------------------------------------------------------

/// Largest signed block (identity, head), in bytes: a full head carries a partial cluster.
pub const SIGNED_BLOCK_BYTES_MAX: usize = 512 << 10;
/// Largest X.509 certificate read, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 << 10;

const _: () = assert!(SIGNED_BLOCK_BYTES_MAX <= BLOCK_BYTES_MAX);
const _: () = assert!(CERTIFICATE_BYTES_MAX <= SIGNED_BLOCK_BYTES_MAX);
