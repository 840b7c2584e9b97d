//! What can be asked of the engine, and what it answers.

use crate::key::{Class, Key};
use bytes::Bytes;

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Store an object durably. Version 0 is an immutable object: if the key exists, only its lease is extended.
    /// A version above 0 replaces a lower one; the same version with the same bytes extends the lease; a lower version,
    /// or the same with other bytes, is answered [`Response::Superseded`].
    Put {
        /// Where.
        key: Key,
        /// Version of a mutable object; 0 for immutable ones.
        version: u64,
        /// The account it is charged to; kept in the record.
        account: u64,
        /// How it is expected to live.
        class: Class,
        /// End of the lease in Unix seconds; rounded up to the store's tick.
        expiry_s: u64,
        /// The bytes.
        value: Bytes,
    },
    /// Read an object. A damaged one is counted and reported as absent. One whose lease has ended is there until a sweep
    /// removes it: the caller judges by `expiry_s`.
    Get {
        /// Which one.
        key: Key,
    },
    /// Extend leases durably; never shortens one. Unknown keys are passed over.
    TouchMany {
        /// Keys with the Unix second their lease shall last to.
        leases: Vec<(Key, u64)>,
    },
    /// List entries clockwise from `from` to `to`, both included. When `to` lies before `from` the walk wraps around zero;
    /// the whole ring is `to = from - 1`.
    Scan {
        /// First placement id.
        from: [u8; 20],
        /// Last placement id.
        to: [u8; 20],
        /// Continue strictly after this key.
        after: Option<Key>,
        /// At most so many entries.
        limit: usize,
    },
    /// How many objects there are clockwise from `from` to `to`, both included, and a sum over their keys and versions: two
    /// stores with the same digest hold the same objects there. Leases are not in it.
    Digest {
        /// First placement id.
        from: [u8; 20],
        /// Last placement id.
        to: [u8; 20],
    },
    /// Remove an object if its version is below `version`.
    RemoveIfOlder {
        /// Which one.
        key: Key,
        /// Remove only below this.
        version: u64,
    },
    /// Remove every object whose lease and grace ended before `now_s`, and give back space.
    Sweep {
        /// The time, in Unix seconds.
        now_s: u64,
    },
    /// Tells the store that `now_s` is right although the clock has jumped (after a long downtime, once leases have been
    /// synchronised): deletion, suspended by the jump, goes on from here. Deletes nothing itself.
    ConfirmClock {
        /// The time, in Unix seconds.
        now_s: u64,
    },
    /// Read about so many bytes of sealed segments from the device and verify them, going on where the last scrub ended.
    /// Damaged objects leave the index, so that replicas repair them.
    Scrub {
        /// Bytes to read, over all shards. Each shard that has any reads at least one batch; none reads beyond the end of
        /// its pass.
        budget_bytes: u64,
    },
}

/// An answer. Everything it says is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Put: the object is durable and its lease lasts at least as long as asked.
    Put,
    /// Put: the store keeps this version.
    Superseded {
        /// The version that stays.
        version: u64,
    },
    /// Get: the object, or `None` when absent or damaged.
    Got(Option<Object>),
    /// TouchMany: how many of the keys are known here. Nothing is read for it: about one absent key in some thousands shares the
    /// tag of another's and is counted, too.
    Touched {
        /// Keys that exist, as far as the index can tell.
        known: usize,
    },
    /// Scan: entries in ring order; fewer than `limit` means that the end was reached.
    Listed(Vec<Entry>),
    /// Digest: of the range.
    Digest {
        /// Objects.
        count: u64,
        /// The sum, modulo 2^128, of a keyed hash of each object's key and version.
        sum: u128,
    },
    /// RemoveIfOlder: whether the object was removed.
    Removed(bool),
    /// Sweep: what it did.
    Swept {
        /// Objects removed.
        expired: u64,
        /// Bytes given back to the file system or made ready for new segments.
        freed_bytes: u64,
    },
    /// ConfirmClock: deletion goes on.
    Confirmed,
    /// Scrub: what was done.
    Scrubbed {
        /// Bytes read.
        bytes: u64,
        /// Sound records seen.
        records: u64,
        /// Damaged records and batches found in the segments that were finished, live or not.
        damaged: u64,
        /// Damaged pages of runs found: what they named is read as before, but not listed.
        damaged_pages: u64,
        /// A shard has come to the end of its pass: all its sealed segments and its runs were read since the pass before.
        wrapped: bool,
        /// Bytes a whole pass reads.
        store_bytes: u64,
    },
}

/// An object as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its version (0 for immutable objects).
    pub version: u64,
    /// The end of its lease in Unix seconds.
    pub expiry_s: u64,
    /// The bytes. May be a slice of a mapped segment: hold it as long as you like, it stays right.
    pub value: Bytes,
}

/// One entry of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The version (0 for immutable objects).
    pub version: u64,
    /// The end of the lease in Unix seconds.
    pub expiry_s: u64,
    /// Length of the value in bytes.
    pub len: u32,
}

/// An operation's end, named by the tag it was submitted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tag.
    pub tag: u64,
    /// How it ended.
    pub result: Result<Response, Error>,
}

/// Why an operation was not done. Nothing is half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store's capacity (or the disk, or the bound on objects) is reached. Reads go on; puts work again when leases
    /// have lapsed and been swept. The operator's matter.
    #[error("the store is full")]
    Full,
    /// The device failed to make data durable more than once, and this shard takes no more changes until it is opened again.
    #[error("the store is read-only after repeated write faults")]
    ReadOnly,
    /// The device failed this operation. A change may or may not be there after a restart; it was not acknowledged.
    #[error("the device failed")]
    Io,
    /// The value is larger than a segment can hold, or the request has too many parts. The caller's mistake.
    #[error("larger than the store accepts")]
    TooLarge,
    /// The engine is closed.
    #[error("the store is closed")]
    Closed,
}
