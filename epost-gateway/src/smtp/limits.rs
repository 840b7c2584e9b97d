//! Every bound of the submission server, in one place.

use std::time::Duration;

/// The longest line in command mode, CRLF included: RFC 4954 §4 asks for 12,288 octets, far beyond the 512 of a
/// command with its extensions.
pub const COMMAND_LINE_BYTES_MAX: usize = 12_288;

/// Octets read from a client and not yet looked at.
pub const INPUT_BYTES: usize = 16 * 1024;

/// An unended line in command mode is skipped up to here; then the connection ends.
pub const SKIPPED_BYTES_MAX: usize = 1024 * 1024;

/// The longest line of message text taken. RFC 5321 promises a client 998 and CRLF; programs that write more exist.
pub const TEXT_LINE_BYTES_MAX: usize = 64 * 1024;

/// What a client may still send of a message that is refused already, before the connection is cut.
pub const DRAINED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Recipients of one message (RFC 5321 §4.5.3.1.8 asks for at least 100).
pub const RECIPIENTS_MAX: usize = 100;

/// Recipients refused in one transaction before no more are looked up.
pub const RECIPIENTS_REFUSED_MAX: usize = 100;

/// Headers that submission itself may add: trace, From, Date, Message-ID.
pub const ADDED_HEADER_BYTES_MAX: usize = 2048;

/// Commands in error before the connection ends.
pub const BAD_COMMANDS_MAX: u32 = 20;

/// Wrong passwords before the connection ends.
pub const LOGIN_FAILURES_MAX: u32 = 3;

/// Commands a client may give before it has logged in.
pub const COMMANDS_BEFORE_LOGIN_MAX: u32 = 100;

/// Granularity in which message memory is taken from the common budget.
pub const MEMORY_STEP_BYTES: usize = 64 * 1024;

const _: () = assert!(COMMAND_LINE_BYTES_MAX < INPUT_BYTES);
const _: () = assert!(SKIPPED_BYTES_MAX > INPUT_BYTES);
const _: () = assert!(TEXT_LINE_BYTES_MAX > 1000);
const _: () = assert!(RECIPIENTS_MAX >= 100);
const _: () = assert!(MEMORY_STEP_BYTES > ADDED_HEADER_BYTES_MAX);

/// The bounds an operator may set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest message as stored, with the headers submission adds; SIZE in EHLO leaves room for those.
    pub message_bytes_max: usize,
    /// Memory for messages being received, over all connections.
    pub received_bytes_max: usize,
    /// Connections at a time.
    pub connections_max: usize,
    /// Connections at a time from one address.
    pub connections_per_address_max: usize,
    /// How long a client that has not logged in may be silent.
    pub silence_before_login_max: Duration,
    /// How long a client that has logged in may be silent between commands (RFC 5321 §4.5.3.2.7: 5 minutes).
    pub silence_max: Duration,
    /// How long a TLS handshake may take.
    pub handshake_max: Duration,
    /// How long one reply may wait for a client that does not read.
    pub write_max: Duration,
    /// What a wrong password costs, times the failures so far.
    pub login_failure_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes_max: 25 * 1024 * 1024,
            received_bytes_max: 256 * 1024 * 1024,
            connections_max: 512,
            connections_per_address_max: 64,
            silence_before_login_max: Duration::from_secs(60),
            silence_max: Duration::from_secs(300),
            handshake_max: Duration::from_secs(30),
            write_max: Duration::from_secs(60),
            login_failure_delay: Duration::from_secs(1),
        }
    }
}
