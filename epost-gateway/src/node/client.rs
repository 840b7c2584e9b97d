//! The overlay as the rest of the process sees it: an [`ObjectStore`], and packets from other users' nodes.
//!
//! A call becomes a command in the overlay thread's inbox and waits for its reply. "Busy" is tried again a few times with
//! a growing pause; everything else is the caller's to retry, who knows whether that makes sense.

use super::clock::Clock;
use super::driver::answer_order;
use super::inbox::{Inbox, Order};
use super::limits::{BUSY_PAUSE, BUSY_RETRIES, KEYS_PER_REFRESH_MAX, REPLY_TIME};
use super::status::Counter;
use bytes::Bytes;
use net::id::{Id, Key};
use net::machine::{Command, Micros, Reply, Seconds};
use net::overlay::OverlayStatus;
use post::store::{ObjectStore, StoreError};
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// The ring as an object store. Cheap to clone.
#[derive(Clone)]
pub struct RingStore {
    pub(super) inbox: Arc<Inbox>,
    pub(super) clock: Arc<Clock>,
    pub(super) busy: Counter,
}

impl fmt::Debug for RingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RingStore")
    }
}

impl RingStore {
    /// The overlay's state.
    ///
    /// # Errors
    /// [`StoreError::Busy`], or [`StoreError::Unavailable`] when the overlay thread has stopped.
    pub async fn status(&self) -> Result<OverlayStatus, StoreError> {
        match self.ask(Command::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(refusal(&other)),
        }
    }

    /// Gives a command and waits for its reply, trying again while the overlay is busy.
    pub(super) async fn ask(&self, command: Command) -> Result<Reply, StoreError> {
        let mut pause = BUSY_PAUSE;
        for _ in 0..BUSY_RETRIES {
            match self.ask_once(command.clone()).await? {
                Reply::Busy => sleep(pause).await,
                reply => return Ok(reply),
            }
            pause *= 2;
        }
        match self.ask_once(command).await? {
            Reply::Busy => {
                self.busy.increment();
                Err(StoreError::Busy)
            }
            reply => Ok(reply),
        }
    }

    async fn ask_once(&self, command: Command) -> Result<Reply, StoreError> {
        if self.inbox.is_stopping() {
            return Err(StoreError::Unavailable);
        }
        let (reply, receiver) = oneshot::channel();
        if self.inbox.order(Order { command, reply: Some(reply) }).is_err() {
            return Ok(Reply::Busy);
        }
        match timeout(REPLY_TIME, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => Err(StoreError::Unavailable),
        }
    }
}

/// What a reply that is no success means to the caller.
fn refusal(reply: &Reply) -> StoreError {
    match reply {
        Reply::Refused(_) => StoreError::Refused,
        Reply::Superseded { version } => StoreError::Superseded { version: *version },
        Reply::Busy => StoreError::Busy,
        // `Unavailable`; and replies that do not belong to the command, which no machine gives.
        _ => StoreError::Unavailable,
    }
}

fn stored(reply: &Reply) -> Result<(), StoreError> {
    if let Reply::Stored { .. } = reply { Ok(()) } else { Err(refusal(reply)) }
}

fn found(reply: Reply) -> Result<Option<Bytes>, StoreError> {
    match reply {
        Reply::Found { value, .. } => Ok(Some(value)),
        Reply::Absent => Ok(None),
        other => Err(refusal(&other)),
    }
}

impl ObjectStore for RingStore {
    async fn put(&self, key: Key, value: Bytes, expiry: Seconds) -> Result<(), StoreError> {
        stored(&self.ask(Command::Insert { key, value, expiry }).await?)
    }

    async fn get(&self, key: Key) -> Result<Option<Bytes>, StoreError> {
        found(self.ask(Command::Lookup { key }).await?)
    }

    async fn put_signed(&self, key: Key, value: Bytes, expiry: Seconds) -> Result<(), StoreError> {
        stored(&self.ask(Command::PutSigned { key, value, expiry }).await?)
    }

    async fn get_signed(&self, key: Key) -> Result<Option<Bytes>, StoreError> {
        found(self.ask(Command::GetSigned { key }).await?)
    }

    async fn refresh(&self, keys: Vec<Key>, expiry: Seconds) -> Result<usize, StoreError> {
        let mut sum = 0;
        // In pieces, each of which the overlay thread handles in one go.
        for keys in keys.chunks(KEYS_PER_REFRESH_MAX) {
            match self.ask(Command::Refresh { keys: keys.to_vec(), expiry }).await? {
                Reply::Refreshed { known } => sum += known,
                other => return Err(refusal(&other)),
            }
        }
        Ok(sum)
    }

    async fn tell(&self, to: Id, payload: Bytes) -> Result<Bytes, StoreError> {
        match self.ask(Command::Tell { to, payload }).await? {
            Reply::Answered { payload } => Ok(payload),
            other => Err(refusal(&other)),
        }
    }

    fn now(&self) -> Micros {
        self.clock.now()
    }

    fn entropy(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the system has a random generator");
        bytes
    }
}

/// A packet from another user's node, to be answered.
#[derive(Debug)]
pub struct Delivery {
    /// The node that sent it, proven by its certificate.
    pub from: Id,
    /// What the sender's application says.
    pub payload: Bytes,
    /// Where the answer goes. Dropped unanswered, the sender's request times out and will be repeated.
    pub answer: Answer,
}

/// The right to answer one delivery.
pub struct Answer {
    inbox: Arc<Inbox>,
    to: Id,
    conversation: u64,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer(to {:?})", self.to)
    }
}

impl Answer {
    pub(super) fn new(inbox: Arc<Inbox>, to: Id, conversation: u64) -> Answer {
        Answer { inbox, to, conversation }
    }

    /// Sends the answer. False if this node is too busy even for that: the sender will ask again.
    pub fn send(self, payload: Bytes) -> bool {
        self.inbox.order(answer_order(self.to, self.conversation, payload)).is_ok()
    }
}
