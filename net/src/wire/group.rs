//! The bodies of Scribe's messages: about groups and their trees. As in [`super::body`], keys once given are never reused.

use crate::id::Id;
use minicbor::{Decode, Encode};

/// Asks for a place below the receiver in a group's tree; asked again every so often, it keeps the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subscribe {
    /// The group.
    #[n(0)]
    pub group: Id,
}

/// The answer to a [`Subscribe`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subscribed {
    /// How it ended.
    #[n(0)]
    pub outcome: SubscribeOutcome,
    /// Accepted: the way from the root of the tree down to the sender, both included, as far as the sender knows it. Below:
    /// children of the sender in this group. Refused: nobody.
    #[n(1)]
    pub ids: Vec<Id>,
}

/// How a [`Subscribe`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SubscribeOutcome {
    /// The receiver is below the sender now.
    #[n(0)]
    Accepted,
    /// The sender has too many children: the receiver should go below one of these. If it was below the sender it still is,
    /// until it leaves.
    #[n(1)]
    Below,
    /// The receiver is above the sender, or the sender is not ready, or full.
    #[n(2)]
    Refused,
}

/// The sender is no longer below the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Leave {
    /// In the tree of this group.
    #[n(0)]
    pub group: Id,
}

/// One publication. Publisher and number together are its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Publication {
    /// To which group.
    #[n(0)]
    pub group: Id,
    /// By which node.
    #[n(1)]
    pub publisher: Id,
    /// The publisher's number for it, never used again.
    #[n(2)]
    pub number: u64,
    /// Which way it goes.
    #[n(3)]
    pub way: Way,
}

/// Which way a publication goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Way {
    /// From its publisher to the root.
    #[n(0)]
    Up,
    /// From a parent to its child.
    #[n(1)]
    Down,
}

/// Whether a [`Publication`], an [`Anycast`] or an [`AnycastAnswer`] is seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Taken {
    /// How it ended.
    #[n(0)]
    pub outcome: TakenOutcome,
}

/// How the handing on of a group's message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum TakenOutcome {
    /// The sender of this sees to it.
    #[n(0)]
    Taken,
    /// A publication coming down: the sender of this is not below the receiver.
    #[n(1)]
    Astray,
    /// A publication going up: the sender of this is not the root of the group.
    #[n(2)]
    NotRoot,
    /// The sender of this has too much to do; try again, or somebody else.
    #[n(3)]
    Busy,
}

/// Looks through a group's tree, depth first, for one member that takes the payload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Anycast {
    /// Which group.
    #[n(0)]
    pub group: Id,
    /// Who asks, and is answered directly.
    #[n(1)]
    pub asker: Id,
    /// The asker's number for it.
    #[n(2)]
    pub question: u64,
    /// Nodes that have had it.
    #[n(3)]
    pub visited: Vec<Id>,
    /// Nodes that have yet to have it; the last comes next.
    #[n(4)]
    pub pending: Vec<Id>,
}

/// How an anycast ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AnycastAnswer {
    /// The asker's number for it.
    #[n(0)]
    pub question: u64,
    /// Whether the sender has taken it. If not, all that could be visited have been, and nobody did.
    #[n(1)]
    pub accepted: bool,
}
