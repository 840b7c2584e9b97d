//! The small object store that every workflow of a user runs over.
//!
//! Workflows (append to a folder, send a mail, open an account) are `async` functions over an [`ObjectStore`];
//! they do not know whether it is a ring of nodes, the simulator, or a map in memory. All I/O, the clock and
//! randomness come in through it. What it promises: `put` and `put_signed` return success only when the block is
//! durable at its quorum; `get` returns verified bytes or nothing; `get_signed` returns the newest authentic
//! block among the answers of at least a quorum, never "the first that came".

pub mod concurrent;
pub mod memory;

use bytes::Bytes;
use net::id::{Id, Key};
use net::machine::{Micros, Seconds};
use std::future::Future;

/// Why the store could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Fewer replicas than the quorum answered in time. Nothing is lost; a retry may succeed.
    #[error("fewer replicas than the quorum answered")]
    Unavailable,
    /// This node has too much in flight. Retry later.
    #[error("this node is busy")]
    Busy,
    /// The replicas refused the block as not legal for its key: a defect of the caller or an attack.
    #[error("the replicas refused the block")]
    Refused,
    /// A signed block of this version or a newer one, with other bytes, is already there: another writer was
    /// faster (a takeover), or our memory of the head is stale.
    #[error("superseded by version {version}")]
    Superseded {
        /// The highest version seen.
        version: u64,
    },
}

/// Replicated, verified, leased storage; and a way to speak to another user's node.
pub trait ObjectStore: Send + Sync + 'static {
    /// Stores an immutable block (`Kind::Content` or `Kind::Cluster`) at its quorum. Idempotent.
    fn put(&self, key: Key, value: Bytes, expiry: Seconds) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Fetches an immutable block; `None` when enough replicas answered and none has it.
    fn get(&self, key: Key) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;

    /// Stores a signed block (identity, head, certificate) at its quorum.
    fn put_signed(
        &self,
        key: Key,
        value: Bytes,
        expiry: Seconds,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Fetches the newest authentic version of a signed block, as stored.
    fn get_signed(&self, key: Key) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;

    /// Extends leases; returns how many of the keys at least one replica knew.
    fn refresh(&self, keys: Vec<Key>, expiry: Seconds) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Says something to the application on node `to` and returns its answer.
    fn tell(&self, to: Id, payload: Bytes) -> impl Future<Output = Result<Bytes, StoreError>> + Send;

    /// Wall-clock time; never goes backwards.
    fn now(&self) -> Micros;

    /// 32 fresh bytes from a cryptographic generator.
    fn entropy(&self) -> [u8; 32];
}
