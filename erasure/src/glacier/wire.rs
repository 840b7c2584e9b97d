//! What Glacier's nodes say to each other: the body of a [`net::wire::Body::Glacier`].
//!
//! ```text
//! asks       answers     payload
//! Keep       Kept        of Keep: the fragment       may be sent twice, kept once
//! Fetch      Fetched     of Fetched: the fragment
//! Look       Seen                                     what the receiver has of these keys, fragments or whole objects
//! Report     Reported                                 how many fragments the sender has that the receiver is steward of
//! Listing    Listed                                   which ones: a page
//! Extend     Extended                                 leases of fragments
//! Emptied    Noticed                                  the sender has started on an empty disk
//! ```
//!
//! An array [number, fields], both by `minicbor`; numbers once given are never reused. Bodies come from peers: a list over
//! its bound or bytes that are no message are refused, nothing else.

use super::limits::KEYS_PER_MESSAGE_MAX;
use minicbor::{Decode, Decoder, Encode};
use net::id::Key;
use net::machine::Seconds;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Said {
    /// Keep the payload, a fragment, under this key until then.
    #[n(0)]
    Keep {
        /// The fragment's key.
        #[n(0)]
        key: Key,
        /// End of its lease.
        #[n(1)]
        expiry: Seconds,
    },
    /// How that ended.
    #[n(1)]
    Kept {
        /// Whether it is durable, or why not.
        #[n(0)]
        outcome: Outcome,
    },
    /// Give me this fragment.
    #[n(2)]
    Fetch {
        /// Its key.
        #[n(0)]
        key: Key,
    },
    /// Here it is as the payload; or it is not here, and the payload is empty.
    #[n(3)]
    Fetched {
        /// End of its lease, where it is here.
        #[n(0)]
        expiry: Option<Seconds>,
    },
    /// What do you have of these?
    #[n(4)]
    Look {
        /// Keys of fragments or of objects.
        #[n(0)]
        keys: Vec<Key>,
    },
    /// This, in the order asked.
    #[n(5)]
    Seen {
        /// Version and end of the lease of each key; `None` where it is not here.
        #[n(0)]
        found: Vec<Option<Lease>>,
    },
    /// So many fragments are here of aggregates that you are the steward of.
    #[n(6)]
    Report {
        /// How many.
        #[n(0)]
        count: u32,
        /// The sum of the hashes of their keys, modulo 2^128.
        #[cbor(n(1), with = "minicbor::bytes")]
        sum: [u8; 16],
    },
    /// The answer to a report.
    #[n(7)]
    Reported {
        /// It is news: list them.
        #[n(0)]
        wants_listing: bool,
    },
    /// A page of those fragments, in the order of their keys.
    #[n(8)]
    Listing {
        /// Keys with the ends of their leases.
        #[n(0)]
        entries: Vec<(Key, Seconds)>,
        /// Whether a list begins.
        #[n(1)]
        is_first: bool,
        /// Whether it ends.
        #[n(2)]
        is_last: bool,
    },
    /// The page is taken in.
    #[n(9)]
    Listed,
    /// Extend these leases; none is ever shortened.
    #[n(10)]
    Extend {
        /// Keys with the new ends of their leases.
        #[n(0)]
        leases: Vec<(Key, Seconds)>,
    },
    /// Done as far as they are here.
    #[n(11)]
    Extended,
    /// The sender has started on an empty disk: whatever it had is lost, and whoever is steward of what it knew must tell it.
    #[n(12)]
    Emptied,
    /// Heard.
    #[n(13)]
    Noticed,
}

/// Whether a fragment is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Outcome {
    /// Durable.
    #[n(0)]
    Durable,
    /// It is not a fragment of this key.
    #[n(1)]
    Refused,
    /// The disk is full, or the node busy.
    #[n(2)]
    Failed,
}

/// What a node has under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Lease {
    /// The version (0 for what has none).
    #[n(0)]
    pub version: u64,
    /// The end of the lease.
    #[n(1)]
    pub expiry: Seconds,
}

impl Said {
    /// Lays out a body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("encoding into a Vec cannot fail")
    }

    /// Reads a body; `None` if it is none, or a list is over its bound.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Said> {
        let mut decoder = Decoder::new(body);
        let said: Said = decoder.decode().ok()?;
        let listed = match &said {
            Said::Look { keys } => keys.len(),
            Said::Seen { found } => found.len(),
            Said::Listing { entries, .. } | Said::Extend { leases: entries } => entries.len(),
            _ => 0,
        };
        (decoder.position() == body.len() && listed <= KEYS_PER_MESSAGE_MAX).then_some(said)
    }

    /// Whether this answers something.
    pub(super) fn is_answer(&self) -> bool {
        matches!(
            self,
            Said::Kept { .. }
                | Said::Fetched { .. }
                | Said::Seen { .. }
                | Said::Reported { .. }
                | Said::Listed
                | Said::Extended
                | Said::Noticed
        )
    }
}
