//! The bodies of messages: CBOR maps with integer keys, one struct a type.
//!
//! Keys once given are never reused. A receiver skips keys it does not know, and a field that is missing is an
//! error; new fields are therefore optional. Objects are not in here: they are the frame's payload.

use crate::id::{Id, Key, Kind, Name};
use crate::limits::{BODY_BYTES_MAX, GROUPS_PER_MESSAGE_MAX, IDS_PER_MESSAGE_MAX, KEYS_PER_MESSAGE_MAX};
use crate::past::block::Refusal;
use crate::wire::WireError;
use crate::wire::group::{Anycast, AnycastAnswer, Leave, Publication, Subscribe, Subscribed, Taken};
use crate::wire::range::{RangeDigest, RangeListing};
use bytes::Bytes;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

/// What a message says. The number of each type is on the wire: never renumber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// 1: first frame of a connection, both ways.
    Hello(Hello),
    /// 2: are you there?
    Ping(Presence),
    /// 3: I am.
    Pong(Presence),
    /// 4: what the sender knows of its neighbourhood.
    LeafSet(LeafSetGossip),
    /// 5: asks for a row of the routing table.
    RowRequest(RowRequest),
    /// 6: a row of the routing table.
    Row(Row),
    /// 7: goes hop by hop to the root of its target.
    Route(Route),
    /// 8: the hop has arrived (not: the message has reached its root).
    HopAck,
    /// 9: the root's answer to a [`Body::Route`].
    Located(Located),
    /// 10: asks for the ring document, if the receiver has a newer one.
    RingRequest(RingRequest),
    /// 11: a signed ring document, as the payload.
    RingDocument(Bytes),
    /// 12: a frame to be passed on to somebody whom its sender does not reach, as the payload.
    Relay(Relay, Bytes),
    /// 16: asks the root of a key to store the payload on k nodes.
    Insert(Place, Bytes),
    /// 17: how the insertion went.
    Inserted(Inserted),
    /// 18: asks one replica to store the payload.
    Store(Place, Bytes),
    /// 19: whether it did.
    StoreAnswer(StoreAnswer),
    /// 20: asks one replica for an object.
    Fetch(Fetch),
    /// 21: the object as the payload, or why not.
    FetchAnswer(FetchAnswer, Bytes),
    /// 22: extends leases on one replica.
    Extend(Extend),
    /// 23: how many were known there.
    Extended(Extended),
    /// 24: what the sender holds of a range of the ring, as sums.
    RangeDigest(RangeDigest),
    /// 25: the receiver holds the same.
    RangeAgreed,
    /// 26: what the sender holds of a range of the ring, as a list.
    RangeListing(RangeListing),
    /// 32: the application's bytes, as the payload.
    Tell(Bytes),
    /// 33: the application's answer, as the payload.
    Told(Bytes),
    /// 40: the sender wants to be below the receiver in a group's tree, or to stay there.
    Subscribe(Subscribe),
    /// 41: whether it is.
    Subscribed(Subscribed),
    /// 42: the sender is no longer below the receiver in a group's tree.
    Leave(Leave),
    /// 43: what is published to a group, as the payload; on its way to the root, or down the tree.
    Publication(Publication, Bytes),
    /// 44: a message of a group has arrived and is seen to, or why not.
    Taken(Taken),
    /// 45: looks for one member of a group that takes the payload.
    Anycast(Anycast, Bytes),
    /// 46: how that ended, told to whoever asked.
    AnycastAnswer(AnycastAnswer),
    /// 48: what the layer of fragments says to itself on another node: its own CBOR body, unread here, and a fragment as the
    /// payload.
    Glacier(Bytes, Bytes),
}

impl Body {
    /// The type's number on the wire.
    #[must_use]
    pub fn number(&self) -> u8 {
        match self {
            Body::Hello(_) => 1,
            Body::Ping(_) => 2,
            Body::Pong(_) => 3,
            Body::LeafSet(_) => 4,
            Body::RowRequest(_) => 5,
            Body::Row(_) => 6,
            Body::Route(_) => 7,
            Body::HopAck => 8,
            Body::Located(_) => 9,
            Body::RingRequest(_) => 10,
            Body::RingDocument(_) => 11,
            Body::Relay(..) => 12,
            Body::Insert(..) => 16,
            Body::Inserted(_) => 17,
            Body::Store(..) => 18,
            Body::StoreAnswer(_) => 19,
            Body::Fetch(_) => 20,
            Body::FetchAnswer(..) => 21,
            Body::Extend(_) => 22,
            Body::Extended(_) => 23,
            Body::RangeDigest(_) => 24,
            Body::RangeAgreed => 25,
            Body::RangeListing(_) => 26,
            Body::Tell(_) => 32,
            Body::Told(_) => 33,
            Body::Subscribe(_) => 40,
            Body::Subscribed(_) => 41,
            Body::Leave(_) => 42,
            Body::Publication(..) => 43,
            Body::Taken(_) => 44,
            Body::Anycast(..) => 45,
            Body::AnycastAnswer(_) => 46,
            Body::Glacier(..) => 48,
        }
    }

    /// The raw payload; empty for types that have none.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        match self {
            Body::RingDocument(payload)
            | Body::Relay(_, payload)
            | Body::Insert(_, payload)
            | Body::Store(_, payload)
            | Body::FetchAnswer(_, payload)
            | Body::Tell(payload)
            | Body::Told(payload)
            | Body::Publication(_, payload)
            | Body::Anycast(_, payload)
            | Body::Glacier(_, payload) => payload.clone(),
            _ => Bytes::new(),
        }
    }
}

/// First frame of a connection. A peer of another ring or wire version is disconnected.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The ring.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub ring: [u8; 16],
    /// Epoch of the sender's ring document.
    #[n(1)]
    pub epoch: u64,
    /// The sender's node id (its first, of several virtual ones).
    #[n(2)]
    pub node: Id,
    /// Highest wire version the sender speaks.
    #[n(3)]
    pub version: u8,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Presence {
    /// Whether the sender takes routed messages.
    #[n(0)]
    pub ready: bool,
    /// Epoch of the sender's ring document.
    #[n(1)]
    pub epoch: u64,
    /// When the sender's process started, in microseconds since the Unix epoch: tells a restart from a pause.
    #[n(2)]
    pub booted: u64,
}

/// The sender's neighbourhood.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LeafSetGossip {
    /// The sender.
    #[n(0)]
    pub presence: Presence,
    /// Its leaf set.
    #[n(1)]
    pub members: Vec<Id>,
    /// Whom it has lately found dead, or suspects to be. A hint: nobody is believed dead on another's word.
    #[n(2)]
    pub departed: Vec<Id>,
    /// Whether the receiver should answer with its own.
    #[n(3)]
    pub wants_answer: bool,
}

/// Asks for a row of the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RowRequest {
    /// Row number: digits shared with the receiver's id.
    #[n(0)]
    pub row: u8,
}

/// A row of the routing table.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Row {
    /// Row number: digits the entries share with the sender's id.
    #[n(0)]
    pub row: u8,
    /// Its entries, nearest to the sender first.
    #[n(1)]
    pub entries: Vec<Id>,
    /// The sender's round trip to each of them in microseconds, 0 where it is not known.
    #[n(2)]
    pub round_trips: Option<Vec<u32>>,
}

/// A message on its way to the root of `target`. The frame's request number ties the [`Body::HopAck`] of this hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Route {
    /// Where to.
    #[n(0)]
    pub target: Id,
    /// Who asks, and is answered directly.
    #[n(1)]
    pub origin: Id,
    /// The origin's request number, repeated in the answer.
    #[n(2)]
    pub question: u64,
    /// Hops taken so far.
    #[n(3)]
    pub hops: u8,
    /// What for.
    #[n(4)]
    pub purpose: Purpose,
}

/// Why a message is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Purpose {
    /// The origin wants to know the root of the target.
    #[n(0)]
    Locate,
    /// The origin joins: each hop sends it rows of its table, the root its leaf set.
    #[n(1)]
    Join,
}

/// The root of a target answers. The frame's request number is the question's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Located {
    /// The target asked for.
    #[n(0)]
    pub target: Id,
    /// Hops the question took.
    #[n(1)]
    pub hops: u8,
}

/// Asks for the ring document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RingRequest {
    /// The epoch the sender has.
    #[n(0)]
    pub epoch: u64,
}

/// Between whom a frame goes that is passed on by a third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Relay {
    /// Whose frame it is.
    #[n(0)]
    pub from: Id,
    /// For whom.
    #[n(1)]
    pub to: Id,
    /// 0 on the way to the relay, 1 on the way from it. A frame is passed on once.
    #[n(2)]
    pub hops: u8,
}

/// The ring and epoch a storage message is meant for: one of another ring is refused, and of another epoch too
/// where the replicas of a head are concerned, since quorums of two epochs need not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Scope {
    /// The ring.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub ring: [u8; 16],
    /// Epoch of the sender's ring document.
    #[n(1)]
    pub epoch: u64,
}

/// Where an object is to be kept, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Place {
    /// Which ring.
    #[n(0)]
    pub scope: Scope,
    /// Under which key.
    #[n(1)]
    pub key: Key,
    /// End of its lease, in seconds since the Unix epoch.
    #[n(2)]
    pub expiry: u64,
}

/// How an insertion went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Inserted {
    /// How it ended.
    #[n(0)]
    pub outcome: StoreOutcome,
    /// Replicas on which the object is durable so far.
    #[n(1)]
    pub copies: u8,
}

/// Whether a replica stored an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoreAnswer {
    /// How it ended.
    #[n(0)]
    pub outcome: StoreOutcome,
}

/// How an attempt to store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Durable.
    Durable,
    /// The replica holds this version, newer than or of other bytes than the one offered.
    Superseded(u64),
    /// The block is not legal for its key.
    Refused(Refusal),
    /// The replica is full, read-only, or busy.
    Failed,
    /// The replica does not belong to the holders of this key, as it sees the ring.
    NotMine,
    /// Another ring, or another epoch of its document (the replica's epoch).
    WrongScope(u64),
}

/// Asks one replica for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Fetch {
    /// Which ring.
    #[n(0)]
    pub scope: Scope,
    /// Which object.
    #[n(1)]
    pub key: Key,
}

/// What a replica has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FetchAnswer {
    /// Whether it has the object.
    #[n(0)]
    pub outcome: FetchOutcome,
}

/// Whether a replica has an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// Here it is, as the payload.
    Found {
        /// The version it is stored under.
        version: u64,
        /// The end of its lease.
        expiry: u64,
    },
    /// The replica does not have it, and would if it existed.
    Absent,
    /// The replica does not have it, but is too new to its place to know whether it should.
    Unknown,
    /// The replica's storage failed, or it is busy.
    Failed,
    /// Another ring, or another epoch of its document (the replica's epoch).
    WrongScope(u64),
    /// Here is what the replica has, but it is too new to its place to know whether that is the newest. Signed blocks only.
    Uncertain {
        /// The version it is stored under.
        version: u64,
        /// The end of its lease.
        expiry: u64,
    },
}

/// Extends leases on one replica.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extend {
    /// Which ring.
    #[n(0)]
    pub scope: Scope,
    /// New end of the leases; none is ever shortened.
    #[n(1)]
    pub expiry: u64,
    /// The keys, those with the same set of replicas together, so that the answers of several can be joined.
    #[n(2)]
    pub groups: Vec<Vec<Key>>,
}

/// How many leases were extended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extended {
    /// Of each group, how many keys are stored there.
    #[n(0)]
    pub known: Vec<u32>,
}

impl Body {
    /// Lists within their bounds?
    pub(super) fn check(&self) -> Result<(), WireError> {
        let within = match self {
            Body::LeafSet(gossip) => {
                gossip.members.len() <= IDS_PER_MESSAGE_MAX && gossip.departed.len() <= IDS_PER_MESSAGE_MAX
            }
            Body::Row(row) => {
                let round_trips = row.round_trips.as_ref().map_or(0, Vec::len);
                row.entries.len().max(round_trips) <= IDS_PER_MESSAGE_MAX
            }
            Body::Extend(extend) => {
                extend.groups.len() <= GROUPS_PER_MESSAGE_MAX
                    && extend.groups.iter().map(Vec::len).sum::<usize>() <= KEYS_PER_MESSAGE_MAX
            }
            Body::Extended(extended) => extended.known.len() <= GROUPS_PER_MESSAGE_MAX,
            Body::RangeListing(listing) => listing.entries.len() <= KEYS_PER_MESSAGE_MAX,
            Body::Subscribed(subscribed) => subscribed.ids.len() <= IDS_PER_MESSAGE_MAX,
            Body::Anycast(anycast, _) => {
                anycast.visited.len() <= IDS_PER_MESSAGE_MAX && anycast.pending.len() <= IDS_PER_MESSAGE_MAX
            }
            Body::Glacier(body, _) => body.len() <= BODY_BYTES_MAX,
            _ => true,
        };
        if within { Ok(()) } else { Err(WireError::TooMany) }
    }
}

// Ids and keys are byte strings; outcomes are arrays [number, argument].

impl<C> Encode<C> for Id {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Id {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Id, DecodeError> {
        let bytes = d.bytes()?;
        bytes.try_into().map(Id).map_err(|_| DecodeError::message("an id has 20 bytes"))
    }
}

impl<C> Encode<C> for Key {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        let mut bytes = [0u8; 33];
        bytes[0] = self.kind as u8;
        bytes[1..].copy_from_slice(&self.name.0);
        e.bytes(&bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Key {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Key, DecodeError> {
        let (kind, name) = d.bytes()?.split_first().ok_or_else(|| DecodeError::message("a key has 33 bytes"))?;
        let kind = Kind::from_number(*kind).filter(|kind| kind.is_spoken_of());
        let kind = kind.ok_or_else(|| DecodeError::message("no such kind"))?;
        let name = name.try_into().map_err(|_| DecodeError::message("a key has 33 bytes"))?;
        Ok(Key { kind, name: Name(name) })
    }
}

impl StoreOutcome {
    fn parts(self) -> (u8, u64) {
        match self {
            StoreOutcome::Durable => (0, 0),
            StoreOutcome::Superseded(version) => (1, version),
            StoreOutcome::Refused(refusal) => (2, refusal_number(refusal)),
            StoreOutcome::Failed => (3, 0),
            StoreOutcome::NotMine => (4, 0),
            StoreOutcome::WrongScope(epoch) => (5, epoch),
        }
    }
}

impl<C> Encode<C> for StoreOutcome {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        let (number, argument) = self.parts();
        e.array(2)?.u8(number)?.u64(argument)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for StoreOutcome {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<StoreOutcome, DecodeError> {
        let [number, argument] = numbers::<2>(d)?;
        match number {
            0 => Ok(StoreOutcome::Durable),
            1 => Ok(StoreOutcome::Superseded(argument)),
            2 => Ok(StoreOutcome::Refused(refusal_from(argument)?)),
            3 => Ok(StoreOutcome::Failed),
            4 => Ok(StoreOutcome::NotMine),
            5 => Ok(StoreOutcome::WrongScope(argument)),
            _ => Err(DecodeError::message("no such outcome")),
        }
    }
}

impl<C> Encode<C> for FetchOutcome {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        let (number, first, second) = match *self {
            FetchOutcome::Found { version, expiry } => (0, version, expiry),
            FetchOutcome::Absent => (1, 0, 0),
            FetchOutcome::Unknown => (2, 0, 0),
            FetchOutcome::Failed => (3, 0, 0),
            FetchOutcome::WrongScope(epoch) => (4, epoch, 0),
            FetchOutcome::Uncertain { version, expiry } => (5, version, expiry),
        };
        e.array(3)?.u8(number)?.u64(first)?.u64(second)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for FetchOutcome {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<FetchOutcome, DecodeError> {
        let [number, first, second] = numbers::<3>(d)?;
        match number {
            0 => Ok(FetchOutcome::Found { version: first, expiry: second }),
            1 => Ok(FetchOutcome::Absent),
            2 => Ok(FetchOutcome::Unknown),
            3 => Ok(FetchOutcome::Failed),
            4 => Ok(FetchOutcome::WrongScope(first)),
            5 => Ok(FetchOutcome::Uncertain { version: first, expiry: second }),
            _ => Err(DecodeError::message("no such outcome")),
        }
    }
}

fn numbers<const N: usize>(d: &mut Decoder<'_>) -> Result<[u64; N], DecodeError> {
    if d.array()? != Some(N as u64) {
        return Err(DecodeError::message("an outcome is an array of fixed length"));
    }
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = d.u64()?;
    }
    Ok(numbers)
}

fn refusal_number(refusal: Refusal) -> u64 {
    match refusal {
        Refusal::WrongName => 0,
        Refusal::BadSignature => 1,
        Refusal::Malformed => 2,
        Refusal::NotCertified => 3,
    }
}

fn refusal_from(number: u64) -> Result<Refusal, DecodeError> {
    match number {
        0 => Ok(Refusal::WrongName),
        1 => Ok(Refusal::BadSignature),
        2 => Ok(Refusal::Malformed),
        3 => Ok(Refusal::NotCertified),
        _ => Err(DecodeError::message("no such refusal")),
    }
}
