//! The thread around a [`Store`]: mailbox in, completions out.
//!
//! Each shard has one thread, one ring and one mailbox. A [`Port`] is a caller's door to all shards: it knows which shard a
//! request belongs to, splits those that concern several, and puts the answers together. Nothing is locked; the queues are
//! bounded, and their bound is shared out to the ports, so that a request accepted by a port always has a place.

mod mailbox;
mod port;
mod run;

pub(crate) use mailbox::{Mailbox, Message};
pub use port::Port;
pub(crate) use port::Seats;
pub(crate) use run::run;
