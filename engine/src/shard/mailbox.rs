//! A shard's mailbox: a bounded queue and a bell that is rung only when the shard sleeps.

use super::port::Ticket;
use crate::request::Request;
use crate::ring::Bell;
use crate::stats::Stats;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// What can be put into a mailbox.
pub(crate) enum Message {
    /// An operation, and where its answer goes. Dropped unanswered, it is answered as closed.
    Ask { ticket: Ticket, request: Request },
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
    asleep: AtomicBool,
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
        let shared = Arc::new(Shared { asleep: AtomicBool::new(false), bell });
        (Mailbox { sender, shared: shared.clone() }, Slot { receiver, shared })
    }

    /// Puts a message in; false if the shard has ended, and the message is gone. Blocks while the mailbox is full, which
    /// does not happen to operations: ports share out its places.
    pub(crate) fn put(&self, message: Message) -> bool {
        if self.sender.send(message).is_err() {
            return false;
        }
        // The message is visible before `asleep` is read; the shard sets `asleep` before it looks for messages a last time.
        // One of the two sees the other.
        fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::Relaxed) && self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.shared.bell.ring();
        }
        true
    }
}

impl Slot {
    pub(crate) fn take(&self) -> Result<Message, TryRecvError> {
        self.receiver.try_recv()
    }

    /// Calls `sleep` unless there is a message.
    pub(crate) fn sleep_with(&self, sleep: impl FnOnce()) {
        self.shared.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.receiver.is_empty() {
            sleep();
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
    }
}
