//! Every bound of the IMAP room, in one place.
//!
//! A client is a stranger until it has logged in and may be broken afterwards: nothing it sends makes this side
//! hold more than what is written here. The size of a message is the account's own bound
//! (`Account::message_bytes_max`), since submission and APPEND must agree on it.

use post::mail::limits as mail;
use std::time::Duration;

/// Octets of one command line's text, between literals.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Octets of one literal that is not the message of an APPEND.
pub const LITERAL_BYTES_MAX: usize = 64 * 1024;
/// Octets of a line or a literal before login: a user name and a password need no more.
pub const LOGIN_BYTES_MAX: usize = 8 * 1024;
/// Octets of a whole command, its short literals included, without the message of an APPEND.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;
/// Literals in one command.
pub const LITERALS_MAX: usize = 256;
/// Octets of a refused non-synchronising literal we are ready to read and throw away before we hang up instead.
pub const SKIP_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Octets of APPENDed messages being received by all sessions of the node together. Those that come
/// on top wait for a turn, up to [`APPEND_WAIT_MAX`].
pub const APPEND_BYTES_IN_FLIGHT_MAX: usize = 512 * 1024 * 1024;

/// Octets of a command's tag.
pub const TAG_BYTES_MAX: usize = 128;
/// Octets of a folder name (UTF-8).
pub const FOLDER_NAME_BYTES_MAX: usize = mail::FOLDER_NAME_BYTES_MAX;
/// Levels of a folder name.
pub const FOLDER_LEVELS_MAX: usize = mail::FOLDER_LEVELS_MAX;
/// Wildcards in one LIST pattern: bounds the matching, which costs their number times both lengths.
pub const WILDCARDS_MAX: usize = 64;
/// Ranges in one sequence set.
pub const SEQUENCE_RANGES_MAX: usize = 16 * 1024;
/// Flags named in one STORE or APPEND.
pub const FLAGS_MAX: usize = 64;
/// Octets of one keyword.
pub const KEYWORD_BYTES_MAX: usize = 128;
/// Keywords of a folder a client is told of in FLAGS; more may be set all the same.
pub const KEYWORDS_TOLD_MAX: usize = 512;
/// Data items in one FETCH.
pub const FETCH_ITEMS_MAX: usize = 64;
/// Field names in one HEADER.FIELDS.
pub const HEADER_NAMES_MAX: usize = 256;
/// Numbers in one part specifier, as in `BODY[1.2.3]`.
pub const PART_LEVELS_MAX: usize = 64;
/// Search keys nested in parentheses, NOT and OR.
pub const SEARCH_DEPTH_MAX: usize = 32;
/// Search keys in one command.
pub const SEARCH_KEYS_MAX: usize = 256;
/// Strings in the list of one ID command (30 pairs by RFC 2971).
pub const ID_STRINGS_MAX: usize = 60;
/// Capability names in one ENABLE.
pub const ENABLE_NAMES_MAX: usize = 32;

/// Addresses rendered from one header field of an ENVELOPE.
pub const ENVELOPE_ADDRESSES_MAX: usize = 4096;
/// Octets of one header field looked at for an ENVELOPE.
pub const ENVELOPE_FIELD_BYTES_MAX: usize = 512 * 1024;
/// Comments nested in one address header.
pub const COMMENT_DEPTH_MAX: usize = 32;

/// Messages being fetched ahead of the client, for FETCH and SEARCH.
pub const PREFETCH_MESSAGES_MAX: usize = 16;
/// Their octets together; one message may always be fetched, whatever its size.
pub const PREFETCH_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Whole messages a session keeps for the next FETCH (clients read large ones in pieces).
pub const CACHED_MESSAGES_MAX: usize = 2;
/// Their octets together.
pub const CACHED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages judged from the index before a search lets others have a turn.
pub const SEARCH_TURN_MESSAGES: usize = 512;
/// Messages above this size are worked on (searched) on the blocking pool, not on the reactor.
pub const INLINE_WORK_BYTES_MAX: usize = 256 * 1024;

/// Octets of output gathered before the client must take some.
pub const OUTPUT_BYTES_MAX: usize = 32 * 1024;
/// Octets of one write: a slow client must take this much within [`WRITE_WAIT_MAX`].
pub const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Octets the input buffer starts with, and grows by.
pub const READ_BYTES: usize = 16 * 1024;

/// Malformed commands in a row before the session is ended.
pub const BAD_COMMANDS_MAX: u32 = 10;
/// Failed logins on one connection before it is ended.
pub const LOGIN_FAILURES_MAX: u32 = 3;
/// Sessions of one listener.
pub const SESSIONS_MAX: usize = 1024;
/// Sessions from one address. Everyone behind one NAT, or on this machine, shares it.
pub const SESSIONS_PER_ADDRESS_MAX: usize = 256;

/// A logged-in client that says nothing for so long is sent away (RFC 3501 §5.4 asks for at least 30 minutes).
pub const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// The time to log in.
pub const LOGIN_WAIT_MAX: Duration = Duration::from_secs(2 * 60);
/// The time for a TLS handshake.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest pause in the middle of a command.
pub const COMMAND_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// The time a client may take to accept [`WRITE_BYTES_MAX`] octets.
pub const WRITE_WAIT_MAX: Duration = Duration::from_secs(2 * 60);
/// The time an APPEND waits for [`APPEND_BYTES_IN_FLIGHT_MAX`].
pub const APPEND_WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between signs of life during IDLE, so that address translators keep the connection.
pub const IDLE_SIGN_OF_LIFE: Duration = Duration::from_secs(4 * 60);
/// The time sessions get to end after a shutdown was asked for.
pub const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(LOGIN_BYTES_MAX <= LINE_BYTES_MAX);
const _: () = assert!(LINE_BYTES_MAX + LITERAL_BYTES_MAX <= COMMAND_BYTES_MAX);
const _: () = assert!(FOLDER_NAME_BYTES_MAX < LOGIN_BYTES_MAX);
const _: () = assert!(TAG_BYTES_MAX < LOGIN_BYTES_MAX);
const _: () = assert!(SEQUENCE_RANGES_MAX * 2 <= LINE_BYTES_MAX);
const _: () = assert!(PART_LEVELS_MAX >= mail::DEPTH_MAX);
const _: () = assert!(FLAGS_MAX <= mail::KEYWORDS_MAX && KEYWORD_BYTES_MAX <= mail::KEYWORD_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_IN_FLIGHT_MAX >= mail::MESSAGE_BYTES_MAX);
const _: () = assert!(SKIP_BYTES_MAX >= mail::MESSAGE_BYTES_MAX as u64);
const _: () = assert!(CACHED_BYTES_MAX >= mail::MESSAGE_BYTES_MAX);
const _: () = assert!(OUTPUT_BYTES_MAX <= WRITE_BYTES_MAX);
const _: () = assert!(SESSIONS_PER_ADDRESS_MAX <= SESSIONS_MAX);
const _: () = assert!(APPEND_BYTES_IN_FLIGHT_MAX <= u32::MAX as usize);
const _: () = assert!(IDLE_SIGN_OF_LIFE.as_secs() < IDLE_MAX.as_secs());
const _: () = assert!(CACHED_MESSAGES_MAX >= 1 && PREFETCH_MESSAGES_MAX >= 1);
