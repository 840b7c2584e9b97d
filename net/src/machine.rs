//! The contract between a protocol core and whatever drives it.
//!
//! A [`Machine`] decides; it never does. It is handed the time and one [`Event`], and answers with [`Action`]s:
//! messages to send, timers to arm, storage to read or write, proofs to compute. Nothing in it reads a clock,
//! draws a random number, blocks, or iterates in an order that depends on a hash seed, so that the code run by
//! the simulator for a virtual year is the code that ships.
//!
//! Storage and computation are asynchronous in the contract: an action carries an [`OpId`], and the answer comes
//! back later, in any order, as [`Event::Storage`] or [`Event::Compute`]. After a restart no answers to old
//! operations arrive. The driver promises that every operation is answered exactly once while the process lives,
//! and that a put is answered with success only when it is durable.

use crate::id::{Id, Key};
use crate::wire::Message;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Wall-clock time in microseconds since the Unix epoch. The driver hands in a value that never goes backwards.
pub type Micros = u64;

/// Seconds since the Unix epoch; expiry of a lease.
pub type Seconds = u64;

/// Names one storage operation or computation of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Names one timer of one machine. Arming it again moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub u64);

/// Names one command of the driver; the machine replies to each exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A protocol core.
pub trait Machine {
    /// Takes one event at time `now` and appends what is to be done to `out`.
    fn handle(&mut self, now: Micros, event: Event, out: &mut Actions);
}

/// What happens to a machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// The process has started; the first event a machine sees.
    Boot,
    /// A frame from the peer that proved to be `from`, already decoded.
    Message {
        /// The sender's certified node id.
        from: Id,
        /// What it says.
        message: Message,
    },
    /// A timer armed earlier is due.
    Timer(TimerId),
    /// A storage operation has finished.
    Storage {
        /// Which one.
        op: OpId,
        /// How it ended.
        result: StorageResult,
    },
    /// A computation has finished.
    Compute {
        /// Which one.
        op: OpId,
        /// How it ended.
        result: ComputeResult,
    },
    /// Somebody on this node wants something.
    Command {
        /// To be named in the reply.
        request: RequestId,
        /// What is wanted.
        command: Command,
    },
    /// The transport has a verified connection to the peer (a hint, not a proof of liveness).
    PeerUp(Id),
    /// The transport lost its connection to the peer, or could not make one (a hint).
    PeerDown(Id),
}

/// What a machine wants done, in order.
#[derive(Debug, Default)]
pub struct Actions {
    list: Vec<Action>,
}

impl Actions {
    /// Appends one action.
    pub fn push(&mut self, action: Action) {
        self.list.push(action);
    }

    /// Takes all actions, leaving the list's capacity in place.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Action> {
        self.list.drain(..)
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// One thing a machine wants done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message to a peer; may be lost. The driver finds the address, dials if need be, and drops (counted)
    /// when the peer's bounded queue is full.
    Send {
        /// The peer's node id.
        to: Id,
        /// What to say.
        message: Message,
    },
    /// Let [`Event::Timer`] happen at `at` (or at once, if that is past).
    Arm {
        /// Which timer.
        timer: TimerId,
        /// When.
        at: Micros,
    },
    /// Perform a storage operation.
    Storage {
        /// To be named in the result.
        op: OpId,
        /// What to do.
        operation: StorageOperation,
    },
    /// Perform a computation that takes longer than a message may.
    Compute {
        /// To be named in the result.
        op: OpId,
        /// What to compute.
        job: ComputeJob,
    },
    /// Answer a command.
    Reply {
        /// Which one.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Hand a peer's [`Command::Tell`] to the application on this node, which answers with [`Command::Answer`].
    Deliver {
        /// The sender's certified node id.
        from: Id,
        /// To be named in the answer.
        conversation: u64,
        /// The application's bytes.
        payload: Bytes,
    },
    /// Hand what was published to a group to the application on this node, which subscribes to it. Bytes of a member of the
    /// ring; whether that member may publish is for the application to judge.
    Published {
        /// The group.
        group: Id,
        /// The node that published it, by the word of those it came through.
        publisher: Id,
        /// The application's bytes.
        payload: Bytes,
    },
    /// Ask the application on this node, which subscribes to the group, whether it takes what somebody looks for a taker of;
    /// it answers with [`Command::Accept`].
    Solicit {
        /// The group.
        group: Id,
        /// The node that looks for a taker, by the word of those it came through.
        asker: Id,
        /// To be named in the answer.
        solicitation: u64,
        /// The application's bytes.
        payload: Bytes,
    },
    /// All leases that ended before `through` have been compared with enough of the other holders, and what they knew
    /// better is durable here. The store may delete what ended longer ago than the ring's grace **and** before `through`, and
    /// nothing else; before the first such word of a process it deletes nothing. What is said here only rises.
    LeasesAgreed {
        /// A moment by the machine's clock.
        through: Seconds,
    },
    /// A newer ring document is in force: keep its bytes for the next start, use its addresses and revocations.
    RingAdopted {
        /// The document, arranged.
        roster: Arc<crate::roster::Roster>,
    },
    /// Count something.
    Metric {
        /// Which counter.
        metric: Metric,
        /// By how much.
        amount: u64,
    },
}

/// Counters a machine keeps through its driver. The names are part of `epost status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// A routed message was forwarded towards its root.
    Forwarded,
    /// A routed message reached its root here.
    Rooted,
    /// A next hop did not acknowledge and the message went another way.
    Rerouted,
    /// A neighbour was found dead.
    PeerDied,
    /// A block was refused by its verification.
    BlockRefused,
    /// A replica was copied to restore k.
    Replicated,
    /// A damaged or missing replica was replaced on read.
    Repaired,
    /// A bounded table was full and something was dropped.
    Dropped,
    /// A message made no sense in the state we are in.
    Unexpected,
}

/// A durable operation on this node's own store.
#[derive(Clone, Debug)]
pub enum StorageOperation {
    /// Read an object.
    Get {
        /// Which one.
        key: Key,
    },
    /// Store an object durably. If the key exists with the same version, only the lease is extended; a
    /// mutable kind is replaced by a higher version only.
    Put {
        /// Where.
        key: Key,
        /// Version of a mutable kind; 0 for immutable kinds.
        version: u64,
        /// End of the lease.
        expiry: Seconds,
        /// The block, exactly as received.
        value: Bytes,
    },
    /// Extend leases; never shortens one.
    Touch {
        /// Keys with their new expiry.
        leases: Vec<(Key, Seconds)>,
    },
    /// Remove an immutable object before its lease ends: somebody else has it durably, or nobody wants it any more.
    Remove {
        /// Which one; of a mutable kind none is removed.
        key: Key,
    },
    /// List keys in ring order, clockwise from `from` to `to` inclusive (the whole ring if `to` is `from - 1`).
    Scan {
        /// First placement id.
        from: Id,
        /// Last placement id.
        to: Id,
        /// Continue after this key.
        after: Option<Key>,
        /// At most so many.
        limit: usize,
    },
}

/// An entry of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The object's key.
    pub key: Key,
    /// Its version (0 for immutable kinds).
    pub version: u64,
    /// The end of its lease.
    pub expiry: Seconds,
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The version (0 for immutable kinds).
    pub version: u64,
    /// The end of its lease.
    pub expiry: Seconds,
    /// The block.
    pub value: Bytes,
}

/// How a storage operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageResult {
    /// Get: the object, or `None` when absent. A damaged object is reported as absent after it was counted.
    Got(Option<Stored>),
    /// Put: durable.
    Put,
    /// Put: the key holds a newer version (or the same version with other bytes), which stays.
    Superseded {
        /// The version that stays.
        version: u64,
    },
    /// Touch: durable; how many keys were known here.
    Touched {
        /// Keys that exist on this node.
        known: usize,
    },
    /// Remove: durable; whether there was something to remove.
    Removed(bool),
    /// Scan: entries in ring order; fewer than `limit` means the end was reached.
    Listed(Vec<Listed>),
    /// The store is full or read-only, or the device failed: nothing was changed.
    Failed,
}

/// Work on bytes that a machine does not look at itself.
#[derive(Clone, Debug)]
pub enum ComputeJob {
    /// Check that `value` is a legal block for `key` (see `past::block`): the hash of a content block, the
    /// signature and version of a signed block, the CA's signature on a certificate.
    Verify {
        /// The key it claims.
        key: Key,
        /// The block.
        value: Bytes,
    },
    /// Something else, of a layer above this crate.
    Work(Arc<dyn Work>),
}

/// A computation that a layer above this crate wants done: a function of what it carries, with nothing else to see.
pub trait Work: fmt::Debug + Send + Sync {
    /// Does it. The results are what the layer makes of them; none where it cannot be done.
    fn perform(&self) -> Option<Vec<Bytes>>;

    /// About how many bytes are read and written: what is small is not worth another thread.
    fn bytes(&self) -> usize;
}

/// How a computation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComputeResult {
    /// The block is legal for its key.
    Verified {
        /// Its version (0 for immutable kinds).
        version: u64,
    },
    /// It is not.
    Refused(crate::past::block::Refusal),
    /// What [`Work::perform`] gave.
    Worked(Option<Vec<Bytes>>),
}

/// What somebody on this node may ask of the overlay. Bounded: a command that finds the tables full is
/// answered with [`Reply::Busy`].
#[derive(Clone, Debug)]
pub enum Command {
    /// Store a content block on its k closest live nodes; done at a majority of k.
    Insert {
        /// The key; checked by each replica against the value.
        key: Key,
        /// The block.
        value: Bytes,
        /// End of the lease.
        expiry: Seconds,
    },
    /// Fetch an immutable block from any node that has it; what is returned has been verified.
    Lookup {
        /// Which one.
        key: Key,
    },
    /// Store a signed block (identity, head, certificate) on the ring document's k_head members for the key;
    /// done at the quorum.
    PutSigned {
        /// The key.
        key: Key,
        /// The signed block.
        value: Bytes,
        /// End of the lease.
        expiry: Seconds,
    },
    /// Fetch the newest authentic version of a signed block: all replicas are asked, the quorum must answer.
    GetSigned {
        /// Which one.
        key: Key,
    },
    /// Extend leases on every replica, in one message per holder batch.
    Refresh {
        /// Keys to extend.
        keys: Vec<Key>,
        /// New end of the lease.
        expiry: Seconds,
    },
    /// Say something to the application on the node `to` and wait for its answer.
    Tell {
        /// The peer's node id.
        to: Id,
        /// The application's bytes.
        payload: Bytes,
    },
    /// The application's answer to an [`Action::Deliver`]. Replied to with [`Reply::Done`].
    Answer {
        /// Who asked.
        to: Id,
        /// Which delivery this answers.
        conversation: u64,
        /// The application's bytes.
        payload: Bytes,
    },
    /// From now on, have what is published to this group, as [`Action::Published`], for as long as this process lives.
    /// Replied to with [`Reply::Done`] at once; the way up the tree is found, and found again, in the background.
    Subscribe {
        /// The group.
        group: Id,
    },
    /// No longer.
    Unsubscribe {
        /// The group.
        group: Id,
    },
    /// Hand the payload to the root of the group, from where it goes to all who subscribe: once to each that is in the tree
    /// at the time, and perhaps not to one that is just finding its way back into it.
    Publish {
        /// The group.
        group: Id,
        /// The application's bytes.
        payload: Bytes,
    },
    /// Look for one subscriber of the group, other than this node, whose application takes the payload.
    Anycast {
        /// The group.
        group: Id,
        /// The application's bytes.
        payload: Bytes,
    },
    /// The application's answer to an [`Action::Solicit`]. Replied to with [`Reply::Done`].
    Accept {
        /// Which one.
        solicitation: u64,
        /// Whether it takes it.
        accepts: bool,
    },
    /// Find the root of an id by routing there: the live node closest to it.
    Locate {
        /// The id.
        target: Id,
    },
    /// Take this signed ring document, if it is the CA's and newer than the one held, and pass it on to peers.
    AdoptRing {
        /// The signed document.
        document: Bytes,
    },
    /// Ask for a snapshot of the overlay's state, for `epost status`.
    Status,
}

/// The answer to a command.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Insert, PutSigned: durable on so many replicas (at least the quorum).
    Stored {
        /// Replicas that acknowledged so far.
        copies: usize,
        /// The block's version (0 for immutable kinds).
        version: u64,
    },
    /// Lookup, GetSigned: the verified block.
    Found {
        /// The block.
        value: Bytes,
        /// Its version.
        version: u64,
    },
    /// Lookup, GetSigned: enough replicas answered, and none has it.
    Absent,
    /// Fewer replicas than the quorum answered in time. A retry may succeed.
    Unavailable,
    /// PutSigned: a replica holds this version or a newer one with other bytes.
    Superseded {
        /// The highest version seen.
        version: u64,
    },
    /// Refresh: how many of the keys at least one replica knew.
    Refreshed {
        /// Keys known to at least one replica.
        known: usize,
    },
    /// Tell: the peer's application answered.
    Answered {
        /// Its bytes.
        payload: Bytes,
    },
    /// Answer, Accept: handed on. AdoptRing: this document, or a newer one, is in force. Subscribe, Unsubscribe: so be it.
    /// Publish: the root of the group has it.
    Done,
    /// Anycast: this subscriber's application has taken it.
    Accepted {
        /// Its node.
        by: Id,
    },
    /// Anycast: nobody of those who could be visited has taken it.
    Nobody,
    /// Locate: the root answered.
    Located {
        /// Its id.
        root: Id,
        /// Hops the question took.
        hops: u8,
    },
    /// AdoptRing: not a document of this ring signed by its CA.
    BadRing(crate::ring::RingError),
    /// The block is not legal for its key: the caller's mistake, or an attack.
    Refused(crate::past::block::Refusal),
    /// A bounded table is full; try again later.
    Busy,
    /// The overlay's state.
    Status(Box<crate::overlay::OverlayStatus>),
}
