//! Single-writer logs: how everything a user owns changes, and is found again from a single key.
//!
//! A log is a chain of immutable records and one mutable head, signed by the log's own key and stored at H(that key).
//! An append stores one record and then one head, each at its quorum; there is no consensus round, because there is
//! one writer. A crash between the two leaves the old state and an orphan record, whose lease runs out.
//!
//! ```text
//!                     head v ── previous head's hash, writer epoch, sequence, marks
//!                     │   │ └── snapshot (sealed objects; the state after record s)
//!             cluster │   │ partial: handles of the latest 1..=50 records
//!     ┌───────────────┘   └──────────┬──────┬─────┐
//!   cluster ◄── cluster            record  record record      record: sequence, epoch, previous, ≤ 4 back references,
//!   50 handles  50 handles            ◄──────◄─────◄──                 entries (bytes; opaque here)
//! ```
//!
//! - [`record`]: records and clusters; [`head`]: heads; [`keys`]: who may write, who may read; [`cover`]: encryption of a
//!   private log's blocks.
//! - [`writer`]: open, append, snapshot, resolve; [`reader`]: the head and the exact reverse history.
//! - [`journal`]: a log together with the state its entries make. Folders, the mailbox and the outbox are journals.
//!
//! What it is not: a log knows nothing of mail, and does not retry, schedule or lock. One task writes at a time.

pub mod cover;
pub mod head;
pub mod journal;
pub mod keys;
pub mod limits;
pub mod reader;
pub mod record;
pub mod writer;

use crate::seal::OpenError;
use crate::store::{ObjectStore, StoreError};
use net::id::Key;
use net::machine::Seconds;
use std::sync::Arc;

/// Where logs live: the store, the ring that seals are made for, and how long leases are.
#[derive(Debug)]
pub struct LogStore<S> {
    /// The store.
    pub store: Arc<S>,
    /// The ring's id.
    pub ring: [u8; 16],
    /// Length of a lease, in seconds.
    pub lease_s: u64,
}

impl<S> Clone for LogStore<S> {
    fn clone(&self) -> LogStore<S> {
        LogStore { store: Arc::clone(&self.store), ring: self.ring, lease_s: self.lease_s }
    }
}

impl<S: ObjectStore> LogStore<S> {
    /// When a lease taken now ends.
    #[must_use]
    pub fn expiry(&self) -> Seconds {
        (self.store.now() / 1_000_000).saturating_add(self.lease_s)
    }
}

/// Why a log could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Fewer replicas than the quorum answered. The log is as it was before.
    #[error("storage below quorum")]
    Unavailable,
    /// A head was sent, but its quorum did not answer: whether it stands is unknown. Nothing else may be written until
    /// [`resolve`](writer::LogWriter::resolve) has sent the same bytes again.
    #[error("a write is unresolved")]
    Unresolved,
    /// Another writer has written version `version`: this one must stop and open the log anew.
    #[error("another writer took over with version {version}")]
    TakenOver {
        /// The highest version seen.
        version: u64,
    },
    /// The replicas refused a block: a defect of ours, or the wrong key.
    #[error("the replicas refused the block")]
    Refused,
    /// More bytes or entries than one record takes, or more than the log's bounds: the caller's mistake.
    #[error("too much for one record")]
    TooLarge,
    /// So many records came after the last snapshot that the log might not be opened again: a snapshot must be written
    /// before more is appended.
    #[error("a snapshot must be written first")]
    SnapshotDue,
    /// The newest head found is older than one this device has seen: replicas are lying, or the tail was lost.
    #[error("the newest head is version {seen}, but version {remembered} was seen before")]
    RolledBack {
        /// The version found; 0 for none.
        seen: u64,
        /// The version remembered.
        remembered: u64,
    },
    /// A block that the log refers to does not exist any more.
    #[error("a block of the log is missing")]
    Missing(Key),
    /// The head is not one of this log, or contradicts itself.
    #[error("the head is damaged")]
    BadHead,
    /// A record or cluster does not have the handle, the place in the chain, or the key that it must have.
    #[error("a block of the log was tampered with")]
    Tampered(Key),
    /// The snapshot does not open, or is not one.
    #[error("the snapshot is damaged")]
    BadSnapshot,
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> LogError {
        match error {
            StoreError::Unavailable | StoreError::Busy => LogError::Unavailable,
            StoreError::Refused => LogError::Refused,
            StoreError::Superseded { version } => LogError::TakenOver { version },
        }
    }
}

impl From<OpenError> for LogError {
    fn from(error: OpenError) -> LogError {
        match error {
            OpenError::Missing(key) => LogError::Missing(key),
            OpenError::Store(error) => error.into(),
            OpenError::WrongHandle | OpenError::WrongKey | OpenError::WrongPlaintext => LogError::BadSnapshot,
        }
    }
}
