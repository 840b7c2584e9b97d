//! What the submission server counts. Nothing it refuses or cuts goes uncounted.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the start of the process.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl Counters {
            /// Every counter by name, for the status page.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
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

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
