//! The thread around a [`Store`]: requests in, completions out.
//!
//! Each shard has one thread, one ring and one mailbox. A [`Port`] is a caller's door to all shards: it knows which shard a
//! request belongs to, splits those that concern several, and puts the answers together. Nothing is locked; the queues are
//! bounded, and their bound is shared out to the ports, so that a request accepted by a port always has a place.
//!
//! The way of a get: the owner pushes it into his port's queue for the shard; if the shard has not been told of that queue,
//! word goes into its mailbox, and if it sleeps, the bell is rung. The shard takes what is in the queue, the answers go into
//! the port's other queue, and the owner is woken once a turn, if he has seen all answers before. While both are at work an
//! operation costs neither a system call nor an allocation on this way; `attention` is why nothing is missed.
//!
//! Another thread never reads the index or a mapping by itself: both belong to the shard's thread, which changes them
//! without locks, and a reader beside it would need every part of them to be atomic, and its own say in when a segment is
//! recycled.

mod attention;
mod desk;
mod listing;
mod mailbox;
mod patience;
mod port;
mod run;
mod slab;

/// What the protocols are made of: named here, so that the model of them (`tests/loom.rs`) can put its own in place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}

pub(crate) use mailbox::{Mailbox, Message};
pub use port::Port;
pub(crate) use port::Seats;
pub(crate) use run::run;
