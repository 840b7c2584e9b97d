//! A shard's mailbox: a bounded queue of messages, and a bell that is rung only when the shard sleeps.
//!
//! Requests do not pass through it. They lie in their port's own queue ([`super::port`]); the mailbox brings word that there
//! is mail in a port, once for as much of it as comes while the shard has not yet emptied that queue.

use super::attention::Attention;
use super::port::PortShared;
use super::sync::{AtomicBool, Ordering, fence};
use crate::ring::Bell;
use crate::stats::Stats;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use std::sync::Arc;

/// What can be put into a mailbox.
pub(crate) enum Message {
    /// There are requests in this port's queue for the shard.
    Mail(Arc<PortShared>),
    /// Send the shard's numbers.
    Stats(Sender<Stats>),
    /// Finish what is there, write a checkpoint, end.
    Close,
}

/// The sending side; cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: Sender<Message>,
    shared: Arc<Shared>,
}

struct Shared {
    sleeper: Attention,
    /// The shard has ended: what it has not taken, nobody will.
    ended: AtomicBool,
    bell: Arc<Bell>,
}

/// The shard's side.
pub(crate) struct Slot {
    receiver: Receiver<Message>,
    shared: Arc<Shared>,
}

impl Mailbox {
    pub(crate) fn new(capacity: usize, bell: Arc<Bell>) -> (Mailbox, Slot) {
        let (sender, receiver) = bounded(capacity);
        let shared = Arc::new(Shared { sleeper: Attention::given(), ended: AtomicBool::new(false), bell });
        (Mailbox { sender, shared: shared.clone() }, Slot { receiver, shared })
    }

    /// Puts a message in; false if the shard has ended, and the message is gone. Blocks while the mailbox is full, which
    /// word of mail does not meet: each port sends one at a time, and ports share out the places.
    pub(crate) fn put(&self, message: Message) -> bool {
        if self.sender.send(message).is_err() {
            return false;
        }
        if self.shared.sleeper.must_call() {
            self.shared.bell.ring();
        }
        true
    }

    /// Whether the shard has ended. Asked after something was put where the shard would have found it, the answer "no" means
    /// that the shard, or its end, will find it.
    pub(super) fn has_ended(&self) -> bool {
        fence(Ordering::SeqCst);
        self.shared.ended.load(Ordering::Relaxed)
    }
}

impl Slot {
    pub(crate) fn take(&self) -> Result<Message, TryRecvError> {
        self.receiver.try_recv()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Calls `sleep` unless there is a message.
    pub(crate) fn sleep_with(&self, sleep: impl FnOnce()) {
        self.shared.sleeper.want();
        if self.receiver.is_empty() {
            sleep();
        }
        self.shared.sleeper.give();
    }

    /// Says that nothing will be taken any more, before the last look at what is there.
    pub(super) fn end(&self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
