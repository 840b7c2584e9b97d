//! The bounds of mail: what a message, a folder, a mailbox and an outbox may grow to.
//!
//! Everything a stranger can make us hold is bounded here; the assertions below keep the bounds consistent with
//! each other and with those of the log.

use crate::limits::{
    ADDRESS_BYTES_MAX, CLOCK_SKEW_S, CONVERGENT_BYTES_MIN, MESSAGE_REFERENCE_BYTES_MAX, NOTIFICATION_HOLD_S,
    OBJECT_BYTES_MAX,
};
use crate::log::limits::RECORD_ENTRIES_BYTES_MAX;

/// Largest message, in bytes, that is stored or assembled, whatever an operator configures.
pub const MESSAGE_BYTES_MAX: usize = 50 << 20;
/// Most MIME entities that are told apart in one message; what follows stays inside its parent's range.
pub const PARTS_MAX: usize = 1_000;
/// Deepest nesting of MIME entities that is followed; deeper ones are opaque.
pub const DEPTH_MAX: usize = 50;
/// Longest boundary that is honoured, in bytes (RFC 2046 allows 70).
pub const BOUNDARY_BYTES_MAX: usize = 256;
/// Most parameters kept of one header field.
pub const PARAMETERS_MAX: usize = 32;
/// Longest media type, encoding or parameter name kept, in bytes.
pub const TOKEN_BYTES_MAX: usize = 128;
/// Longest parameter value, description, id or location kept, in bytes.
pub const TEXT_BYTES_MAX: usize = 2_048;
/// Most bytes of text one structure holds in all; the fields after that are left empty.
pub const STRUCTURE_BYTES_MAX: usize = 256 << 10;

/// Parts smaller than this, in bytes as they are in the message, stay inline in the skeleton.
pub const PART_BYTES_MIN: usize = 4 << 10;
/// Most header fields that one delivery strips from a message.
pub const STRIPPED_FIELDS_MAX: usize = 256;
/// Longest trace prepended to a message, in bytes.
pub const TRACE_BYTES_MAX: usize = 4 << 10;

/// Longest header section of a message that a folder takes, in bytes: the folder's index holds it.
pub const HEADER_BYTES_MAX: usize = 256 << 10;
/// Most messages in one folder.
pub const FOLDER_ENTRIES_MAX: usize = 1_000_000;
/// Most keywords on one message.
pub const KEYWORDS_MAX: usize = 128;
/// Longest keyword, in bytes.
pub const KEYWORD_BYTES_MAX: usize = 255;
/// How long a folder remembers a notification's id, in seconds: 90 days, beyond the longest hold.
pub const NOTIFICATION_MEMORY_S: u64 = 90 * 86_400;
/// Most notification ids a folder remembers; at this many, deliveries wait until old ones are forgotten.
pub const NOTIFICATIONS_MAX: usize = 1 << 18;
/// Most moves into a folder that are remembered.
pub const MOVES_MAX: usize = 1 << 14;

/// Most folders of one account.
pub const FOLDERS_MAX: usize = 4_096;
/// Longest folder name, in bytes.
pub const FOLDER_NAME_BYTES_MAX: usize = 1_000;
/// Most levels in a folder name.
pub const FOLDER_LEVELS_MAX: usize = 32;

/// Most messages waiting in one outbox.
pub const OUTBOX_MESSAGES_MAX: usize = 10_000;
/// Most recipients of one message.
pub const RECIPIENTS_MAX: usize = 1_000;
/// Longest reason kept of a failed delivery, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// Most keys in one batch of lease refreshes.
pub const REFRESH_BATCH_MAX: usize = 1_000;

// An entry of a folder always fits into one record, and a delivery is remembered for longer than it can be held.
const _: () = assert!(
    HEADER_BYTES_MAX + 4 * STRUCTURE_BYTES_MAX + MESSAGE_REFERENCE_BYTES_MAX < RECORD_ENTRIES_BYTES_MAX,
    "an entry fits into a record"
);
const _: () =
    assert!(RECIPIENTS_MAX * (ADDRESS_BYTES_MAX + 8) + MESSAGE_REFERENCE_BYTES_MAX < RECORD_ENTRIES_BYTES_MAX);
const _: () = assert!(NOTIFICATION_MEMORY_S > NOTIFICATION_HOLD_S + 3 * CLOCK_SKEW_S);
const _: () = assert!(PART_BYTES_MIN < CONVERGENT_BYTES_MIN);
const _: () = assert!(MESSAGE_BYTES_MAX <= OBJECT_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(NOTIFICATIONS_MAX * 40 < 64 << 20);
