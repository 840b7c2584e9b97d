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

/// Longest mail address (RFC 5321: a path is 256 bytes with its brackets).
pub const ADDRESS_BYTES_MAX: usize = 254;
/// Longest local part of an address.
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Longest name of an organisation.
pub const ORGANISATION_NAME_BYTES_MAX: usize = 64;
/// Longest `host:port` of a node.
pub const HOST_BYTES_MAX: usize = 260;
/// Most virtual node ids of one host.
pub const NODE_WEIGHT_MAX: u16 = 64;

/// How far apart honest clocks may be.
pub const CLOCK_SKEW_S: u64 = 600;
/// How long an authority's own certificate is good.
pub const AUTHORITY_VALIDITY_S: u64 = 20 * YEAR_S;
/// How long a node's certificate is good.
pub const NODE_VALIDITY_S: u64 = YEAR_S;
/// How long a user's certificate is good.
pub const USER_VALIDITY_S: u64 = YEAR_S;
/// How long past its end a user's certificate still counts, so that a late renewal stops nobody's mail.
pub const CERTIFICATE_GRACE_S: u64 = 30 * DAY_S;
const DAY_S: u64 = 86_400;
const YEAR_S: u64 = 365 * DAY_S;

/// Most slots in a key file.
pub const KEY_SLOTS_MAX: usize = 32;
/// Largest key file read.
pub const KEY_FILE_BYTES_MAX: usize = 64 << 10;
/// Most KEM keys that an account keeps, old ones included.
pub const KEM_KEYS_MAX: usize = 64;
/// Most memory that a key file may demand for one password.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most passes that a key file may demand.
pub const ARGON2_PASSES_MAX: u32 = 32;
/// Most lanes that a key file may demand.
pub const ARGON2_LANES_MAX: u32 = 16;

/// Most bytes of XML in an identity block.
pub const IDENTITY_BYTES_MAX: usize = 48 << 10;
/// Most elements in an identity block.
pub const XML_ELEMENTS_MAX: usize = 256;
/// Most attributes of one element.
pub const XML_ATTRIBUTES_MAX: usize = 16;
/// Deepest nesting.
pub const XML_DEPTH_MAX: usize = 4;
/// Most KEM keys that an identity block publishes.
pub const PUBLISHED_KEM_KEYS_MAX: usize = 8;
/// Most public logs that an identity block names.
pub const PUBLIC_LOGS_MAX: usize = 64;
/// Longest name of a public log.
pub const LOG_NAME_BYTES_MAX: usize = 128;

const _: () = assert!(IDENTITY_BYTES_MAX + 45 + 64 <= SIGNED_BLOCK_BYTES_MAX);
const _: () = assert!(SIGNED_BLOCK_BYTES_MAX <= net::limits::SIGNED_BLOCK_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES_MAX <= net::limits::BLOCK_BYTES_MAX);
const _: () = assert!(PUBLISHED_KEM_KEYS_MAX + PUBLIC_LOGS_MAX + 2 <= XML_ELEMENTS_MAX);
const _: () =
    assert!(KEY_SLOTS_MAX * 160 + KEM_KEYS_MAX * 48 + net::limits::CERTIFICATE_BYTES_MAX + 1024 <= KEY_FILE_BYTES_MAX);
const _: () = assert!(CLOCK_SKEW_S < CERTIFICATE_GRACE_S);

/// Longest encoded reference of a whole message that a notification carries.
pub const MESSAGE_REFERENCE_BYTES_MAX: usize = 1 << 20;
/// Largest notification.
pub const NOTIFICATION_BYTES_MAX: usize = MESSAGE_REFERENCE_BYTES_MAX + (32 << 10);
/// Largest receipt.
pub const RECEIPT_BYTES_MAX: usize = 20 << 10;
/// How long a notification may be under way, held by others while its recipient is away: 60 days.
pub const NOTIFICATION_HOLD_S: u64 = 60 * DAY_S;

const _: () = assert!(NOTIFICATION_BYTES_MAX + 2 <= net::limits::PAYLOAD_BYTES_MAX);
const _: () = assert!(net::limits::CERTIFICATE_BYTES_MAX + 2 * ADDRESS_BYTES_MAX + 2048 <= RECEIPT_BYTES_MAX);
const _: () = assert!(RECEIPT_BYTES_MAX + 4096 <= NOTIFICATION_BYTES_MAX - MESSAGE_REFERENCE_BYTES_MAX);
const _: () = assert!(NOTIFICATION_HOLD_S > CLOCK_SKEW_S * 100);
