//! IMAP4rev1 (RFC 3501): how mail clients read the folders of an account on this node.
//!
//! Served besides: LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE CHILDREN UNSELECT UIDPLUS MOVE SPECIAL-USE, STARTTLS, and
//! AUTH=PLAIN under TLS only. Not served, and not claimed: IMAP4rev2, CONDSTORE and QRESYNC, SORT, THREAD, LIST-EXTENDED,
//! MULTIAPPEND, COMPRESS.
//!
//! The way of a command:
//!
//! ```text
//! octets ─ frame ─ parse ─ command ─ session ─┬─ folders: LIST, SELECT, STATUS, APPEND ...
//!   (connection: order, time, TLS)            └─ messages: FETCH, STORE, SEARCH, COPY ...
//!                                                  │ selected: what this client knows of the folder
//!                                                  │ fetch, section, structure, envelope: what is answered
//! octets ─ wire ◄── response ◄─────────────────────┘
//! ```
//!
//! What holds everywhere:
//! - a client's octets are bounded before they are kept ([`limits`]) and never indexed blindly or asserted about;
//! - a folder is seen through immutable views; a session never holds a lock, and tells changes only where RFC 3501
//!   allows it (`selected`);
//! - listing folders, envelopes and structures fetches no message; bodies are fetched a little ahead and streamed;
//! - no password before TLS; no subject, address or body in a log.
//!
//! What it is not: it stores nothing and decides nothing about mail. That is [`crate::account`], over [`post`].
//!
//! Start with [`command`] for what can be asked, then `session`.

pub mod command;
mod connection;
mod date;
mod envelope;
mod fetch;
pub mod frame;
pub mod limits;
mod list;
mod listener;
pub mod parse;
mod prefetch;
mod response;
mod search;
mod section;
mod selected;
pub mod sequence;
mod session;
mod socket;
mod structure;
#[cfg(test)]
pub(crate) mod test_client;
#[cfg(test)]
pub(crate) mod test_reader;
pub mod utf7;
mod wire;

pub use listener::{listen, serve};
pub use wire::Stream;

use crate::account::Accounts;
use post::store::ObjectStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

/// What has happened on the IMAP side of this node since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions begun.
    pub sessions: AtomicU64,
    /// Connections refused because there were too many.
    pub refused: AtomicU64,
    /// TLS handshakes that failed.
    pub handshake_failed: AtomicU64,
    /// Whole commands received.
    pub commands: AtomicU64,
    /// Commands answered BAD.
    pub bad: AtomicU64,
    /// Logins with a wrong user or password.
    pub login_failed: AtomicU64,
}

impl Counters {
    /// Every counter by name, for the status page.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let counters = [
            ("sessions", &self.sessions),
            ("refused", &self.refused),
            ("handshakes_failed", &self.handshake_failed),
            ("commands", &self.commands),
            ("bad", &self.bad),
            ("logins_failed", &self.login_failed),
        ];
        counters.map(|(name, counter)| (name, counter.load(Ordering::Relaxed))).to_vec()
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What all sessions of a node share, over all its listeners.
pub struct Service<S: ObjectStore> {
    accounts: Accounts<S>,
    counters: Arc<Counters>,
    append_room: Arc<Semaphore>,
}

impl<S: ObjectStore> Service<S> {
    /// A service for these accounts, counting here.
    #[must_use]
    pub fn new(accounts: Accounts<S>, counters: Arc<Counters>) -> Self {
        let append_room = Arc::new(Semaphore::new(limits::APPEND_BYTES_IN_FLIGHT_MAX));
        Self { accounts, counters, append_room }
    }
}

impl<S: ObjectStore> Clone for Service<S> {
    fn clone(&self) -> Self {
        Self {
            accounts: self.accounts.clone(),
            counters: Arc::clone(&self.counters),
            append_room: Arc::clone(&self.append_room),
        }
    }
}
