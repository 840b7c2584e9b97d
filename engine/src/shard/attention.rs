//! How one side stops looking without missing anything the other puts in.
//!
//! Somebody who takes from a queue and finds it empty wants to sleep (or to forget the queue) and be called when something
//! comes. Somebody who puts something in wants to call only if that is needed: a call is a system call, or a message.
//! The taker says that he wants to be called and *then* looks a last time; the putter puts in and *then* asks whether he
//! must call. A full fence stands between the two steps of each, so that one of them sees the other: either the last look
//! finds the thing, or the putter calls. Both may happen; neither never does.
//!
//! Three places need this: a shard that sleeps, a shard that has emptied a port's queue, and a port's owner who has seen
//! all answers. `tests/loom.rs` runs this file through every order of steps and memory that the language allows, and sees
//! the same without its fences fail.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether the taker wants to be called.
pub(crate) struct Attention {
    wanted: AtomicBool,
}

impl Attention {
    /// Nobody is looking yet: the first to put something in calls.
    pub(crate) fn wanted() -> Attention {
        Attention { wanted: AtomicBool::new(true) }
    }

    /// The taker is looking.
    pub(crate) fn given() -> Attention {
        Attention { wanted: AtomicBool::new(false) }
    }

    /// For the taker, before he looks a last time: from now on whoever puts something in calls.
    pub(crate) fn want(&self) {
        // Exchanged, as everywhere here, not stored: then all changes of the word have one order that is easy to think about.
        self.wanted.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// For the taker who is about to ask for something himself: the answer calls him. What he asks through carries this along,
    /// so it needs no fence.
    pub(crate) fn want_next(&self) {
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.swap(true, Ordering::Relaxed);
        }
    }

    /// For the taker who goes on looking instead: whether he was still waiting to be called. If not, the call is on its way.
    pub(crate) fn give(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// For the putter, after putting something in: whether he, and nobody else, must call.
    pub(crate) fn must_call(&self) -> bool {
        fence(Ordering::SeqCst);
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::AcqRel)
    }
}
