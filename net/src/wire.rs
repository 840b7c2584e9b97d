//! What nodes say to each other, and how it is laid out in bytes.
//!
//! A [`Message`] is a number that ties an answer to its question, and a [`Body`]. [`codec`] turns it into a frame
//! and back; `docs/protocol.md` describes every byte for other programs. Bytes from a peer never panic here: a frame
//! is refused with a typed [`WireError`], and nothing is allocated before its length was checked.
//!
//! Answers carry the request number of the question. Where an object travels, it is the frame's raw payload,
//! outside the CBOR body, and is sliced out of the received buffer without a copy.

pub mod body;
pub mod codec;
pub mod group;
pub mod range;

use crate::id::Id;
use crate::limits::{DATAGRAM_BODY_BYTES_MAX, STREAM_PAYLOAD_BYTES_MAX};
pub use body::*;
pub use codec::{Frame, HEADER_BYTES, decode, encode, frame_length};
pub use group::*;
pub use range::*;

/// Version of the wire format, in every frame.
pub const WIRE_VERSION: u8 = 1;

/// Which virtual node id of each host a frame goes between; a host has as many as its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Index of the sender's node id; the receiver derives the id from it and the certificate, and checks the weight.
    pub from: u16,
    /// Index of the receiver's node id.
    pub to: u16,
}

/// One thing said by one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Chosen by whoever asks; repeated in the answer.
    pub request: u64,
    /// What is said.
    pub body: Body,
}

/// How a message should travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small and soon stale: a datagram, if the path takes one; may be lost.
    Datagram,
    /// A stream of its own on the control connection.
    Stream,
    /// A stream on the bulk connection, where it holds up nothing else.
    Bulk,
}

impl Message {
    /// How this message should travel.
    #[must_use]
    pub fn lane(&self) -> Lane {
        let ids = match &self.body {
            Body::Ping(_) | Body::Pong(_) | Body::HopAck => 0,
            Body::LeafSet(gossip) => gossip.members.len() + gossip.departed.len(),
            Body::RowRequest(_) => 0,
            // A round trip takes less than an id.
            Body::Row(row) => row.entries.len() + row.round_trips.as_ref().map_or(0, Vec::len),
            Body::Subscribe(_) | Body::Leave(_) | Body::Taken(_) => 0,
            Body::Subscribed(subscribed) => subscribed.ids.len(),
            other if other.payload().len() > STREAM_PAYLOAD_BYTES_MAX => return Lane::Bulk,
            _ => return Lane::Stream,
        };
        // An id takes 21 bytes of CBOR; the rest of these bodies is under 64.
        if ids * (Id::LEN + 1) + 64 <= DATAGRAM_BODY_BYTES_MAX { Lane::Datagram } else { Lane::Stream }
    }
}

/// Why a frame is refused. Always the peer's fault, or the path's; the receiver counts it and drops the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame is shorter or longer than its header says.
    #[error("the frame's length is not what its header says")]
    Length,
    /// A format version this program does not speak.
    #[error("wire version {0} is not spoken here")]
    Version(u8),
    /// A message type this program does not know.
    #[error("message type {0} is not known here")]
    Type(u8),
    /// The body or the payload is over its bound, or there is a payload where the type has none.
    #[error("the body or payload is over its bound")]
    TooLarge,
    /// The body is not the CBOR map its type demands.
    #[error("the body is not what its type demands")]
    Body,
    /// A list in the body is over its bound.
    #[error("a list in the body is over its bound")]
    TooMany,
}
