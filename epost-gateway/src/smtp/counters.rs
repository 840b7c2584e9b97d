//! What the submission server counts. Nothing it refuses or cuts goes uncounted.

use crate::node::status::{Counter, Registry};

macro_rules! counters {
    ($(#[doc = $help:literal] $name:ident,)*) => {
        /// Counts since the start of the process.
        #[derive(Debug)]
        pub struct Counters {
            $(#[doc = $help] pub $name: Counter,)*
        }

        impl Counters {
            /// The counters of this node, in the registry as `smtp_` and their name.
            pub(super) fn new(registry: &Registry) -> Self {
                Counters { $($name: registry.counter(concat!("smtp_", stringify!($name)), $help.trim_ascii()),)* }
            }
        }
    };
}

counters! {
    /// Connections served.
    sessions,
    /// Connections refused because a bound was reached.
    connections_refused,
    /// TLS handshakes that failed.
    handshakes_failed,
    /// Bytes thrown away because they came in clear after STARTTLS.
    injected_bytes,
    /// Commands, good and bad.
    commands,
    /// Commands in error.
    bad_commands,
    /// Logins that succeeded.
    logins,
    /// Logins with a wrong name or password.
    logins_failed,
    /// MAIL or From that was not the user.
    senders_refused,
    /// Recipients unknown here, or in a domain that is not ours.
    recipients_refused,
    /// Messages with a bare CR or LF, a NUL, an over-long line, or two From.
    texts_refused,
    /// Messages beyond the size limit.
    messages_too_large,
    /// Messages refused for lack of memory.
    messages_no_memory,
    /// Messages that could not be stored at their quorum.
    messages_unavailable,
    /// Messages answered with 250.
    messages_accepted,
    /// Connections cut: too many errors, silence, or a client that does not read.
    sessions_cut,
}
