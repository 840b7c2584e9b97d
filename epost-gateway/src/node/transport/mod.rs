//! How messages travel between hosts.
//!
//! The driver sees [`Transport`] and [`Receiver`] only: messages go out by node id and may be lost; messages come in
//! with the sender's proven node id. [`Quic`] is the one implementation; a second path for bulk between dedicated
//! hosts (TCP and TLS move it for less CPU at a common MTU) would stand beside it behind the same two traits.
//!
//! One host has at most a few QUIC connections with another, of two classes: *control* for everything small, *bulk*
//! for payloads above 64 KiB, so that a large object delays no answer. A connection is made when there is something
//! to send, used both ways whoever dialled, and closed when cold. Its life:
//!
//! 1. `socket`: one UDP socket; `tls`: mutual TLS 1.3 by the organisation's certificates.
//! 2. `admission`: who may in. The ring document and the certificate decide, never what the peer says.
//! 3. `greeting`: one hello each way; only then is the connection registered with its `peer`.
//! 4. Out: `peer` keeps a bounded queue per class, `quic` drains it, one unidirectional stream a frame; what is
//!    small and soon stale goes as a datagram.
//! 5. In: `inlet` reads frames as far as there is room for them, which each holds until its machine has taken it (`credit`).
//!    Eight frames that do not decode end the connection.
//!
//! Every frame carries the indices of the virtual node ids it goes between; ids follow from certificate and index.

pub mod admission;
mod credit;
pub mod directory;
pub mod greeting;
mod inlet;
mod peer;
mod quic;
mod socket;
pub mod tls;

pub use admission::{Admission, Refusal};
pub use credit::Credit;
pub use directory::Directory;
pub use quic::{Quic, QuicConfig};
pub use socket::{SocketError, dial_config, server_config};
pub use tls::{Credentials, dial_name};

use net::id::Id;
use net::wire::{Lane, Message};

/// What a connection is for; the index of its ALPN name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Everything small.
    Control = 0,
    /// Payloads that would hold up the small ones.
    Bulk = 1,
}

impl Class {
    /// The class of connection on whose streams messages of this lane travel.
    #[must_use]
    pub fn of(lane: Lane) -> Class {
        if lane == Lane::Bulk { Class::Bulk } else { Class::Control }
    }

    /// The class of a connection with this protocol name.
    #[must_use]
    pub fn named(protocol: &[u8]) -> Option<Class> {
        [Class::Control, Class::Bulk].into_iter().find(|class| protocol == tls::ALPN[*class as usize])
    }
}

/// Sends messages to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `message` from this host's `from`-th node id to the node `to`. Never blocks; the message may be lost,
    /// and is dropped (counted) when nobody of that id is known or the peer's queue is full.
    fn send(&self, from: u16, to: Id, message: Message);
}

/// Takes what comes from other nodes. Called from network threads; must not block.
pub trait Receiver: Send + Sync + 'static {
    /// A message for this host's `to`-th node id from the node whose certificate proves it to be `from`. `credit` is the room
    /// it holds on this host, to be dropped when the machine has taken the message; meanwhile the sender is slowed down.
    fn message(&self, to: u16, from: Id, message: Message, credit: Credit);

    /// There is a verified connection to the host of these ids.
    fn up(&self, peers: &[Id]);

    /// There is none any more, or none could be made.
    fn down(&self, peers: &[Id]);
}
