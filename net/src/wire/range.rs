//! The bodies of upkeep's messages: what two holders have of a range. As in [`super::body`], keys once given are never reused.

use crate::id::{Id, Key};
use crate::wire::Scope;
use minicbor::{Decode, Encode};

/// What the sender holds of a range, of those objects that by its view belong on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RangeDigest {
    /// Which ring.
    #[n(0)]
    pub scope: Scope,
    /// First placement id, clockwise.
    #[n(1)]
    pub from: Id,
    /// Last placement id.
    #[n(2)]
    pub to: Id,
    /// Number of objects.
    #[n(3)]
    pub count: u32,
    /// Sum of the hashes of (key, version), modulo 2^128.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub content: [u8; 16],
    /// Sum of the hashes of (key, expiry), modulo 2^128.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub leases: [u8; 16],
    /// Set by a newcomer: it wants to know how new the receiver is.
    #[n(6)]
    pub newness: Option<Newness>,
}

/// What the sender holds of a range, of those objects that by its view belong on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RangeListing {
    /// Which ring.
    #[n(0)]
    pub scope: Scope,
    /// First placement id listed, clockwise.
    #[n(1)]
    pub from: Id,
    /// Last placement id listed.
    #[n(2)]
    pub to: Id,
    /// Every such object in the range.
    #[n(3)]
    pub entries: Vec<ListingEntry>,
    /// What the receiver is to do with it.
    #[n(4)]
    pub role: ListingRole,
    /// Of a node that started on an empty disk, how new it is.
    #[n(5)]
    pub newness: Option<Newness>,
}

/// How far the word of a node that started on an empty disk counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Newness {
    /// It has yet to compare notes with enough of those who were there before.
    #[n(1)]
    Newcomer,
    /// Nobody was there before: it has lately founded the ring, with others as new as itself.
    #[n(2)]
    Founder,
}

/// What a listing is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ListingRole {
    /// The answer to a digest that differed: fetch what you lack, and send back what I lack as a `Lacking`.
    #[n(0)]
    Difference,
    /// You lack these, or have older ones or shorter leases: fetch them from me.
    #[n(1)]
    Lacking,
    /// I hold these but no longer belong to their holders; you do: fetch what you lack.
    #[n(2)]
    Orphans,
}

/// One object of a listing: key, version, end of lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ListingEntry {
    /// The key.
    #[n(0)]
    pub key: Key,
    /// The version (0 for immutable kinds).
    #[n(1)]
    pub version: u64,
    /// End of the lease.
    #[n(2)]
    pub expiry: u64,
}
