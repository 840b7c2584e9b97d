//! The ring document, arranged for questions: is this id certified, on which host, and who is eligible for a key?
//!
//! Every node holds one, shared between the virtual nodes of a host. Only ids in it are ever admitted to a leaf set
//! or a routing table, so a peer cannot bring in a friend the CA does not know.

use crate::id::Id;
use crate::ring::{MemberState, RingDocument, RingError};
use bytes::Bytes;
use std::ops::Range;

/// Position of a host in the document's member list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub u32);

/// A virtual node's place on the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) id: Id,
    pub(crate) host: Host,
    /// Which of the host's ids it is.
    index: u16,
    /// Whether its member is active: one that is given new objects.
    pub(crate) active: bool,
}

/// A ring document with its virtual node ids sorted along the ring.
#[derive(Debug)]
pub struct Roster {
    ring: RingDocument,
    document: Bytes,
    seats: Vec<Seat>,
    /// Ids of clients, sorted.
    clients: Vec<Id>,
    /// The ids of all members, those of one side by side, in the document's order.
    ids: Vec<Id>,
    /// Where each member's begin; and the end.
    ids_at: Vec<u32>,
}

impl Roster {
    /// Arranges `ring`. `document` is the signed document as received, which this node passes on to others; it may be
    /// empty where nothing is to be passed on.
    #[must_use]
    pub fn new(ring: RingDocument, document: Bytes) -> Roster {
        let mut seats = Vec::new();
        let mut clients = Vec::new();
        let mut ids = Vec::new();
        let mut ids_at = vec![0];
        for (host, member) in ring.members.iter().enumerate() {
            let of_member = (0..member.weight).map(|index| RingDocument::node_id(&ring.ring, &member.nonce, index));
            let first = ids.len();
            ids.extend(of_member);
            ids_at.push(u32::try_from(ids.len()).expect("far fewer seats than 2^32"));
            if member.state.has_place() {
                let active = member.state == MemberState::Active;
                let seat = |(id, index): (&Id, u16)| Seat { id: *id, host: Host(host as u32), index, active };
                seats.extend(ids[first..].iter().zip(0..).map(seat));
            } else if member.state == MemberState::Client {
                clients.extend_from_slice(&ids[first..]);
            }
        }
        seats.sort_by_key(|seat| seat.id);
        seats.dedup_by_key(|seat| seat.id);
        clients.sort();
        Roster { ring, document, seats, clients, ids, ids_at }
    }

    /// Reads a signed ring document and arranges it.
    ///
    /// # Errors
    /// As [`RingDocument::decode_verified`].
    pub fn decode(document: Bytes, authority: &[u8; 32]) -> Result<Roster, RingError> {
        let ring = RingDocument::decode_verified(&document, authority)?;
        Ok(Roster::new(ring, document))
    }

    /// The document.
    #[must_use]
    pub fn ring(&self) -> &RingDocument {
        &self.ring
    }

    /// The signed document, as received.
    #[must_use]
    pub fn document(&self) -> &Bytes {
        &self.document
    }

    /// How many node ids have a place on the ring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// All ids, in ring order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = Id> + '_ {
        self.seats.iter().map(|seat| seat.id)
    }

    /// Whether this id is certified for a place on the ring.
    #[must_use]
    pub fn contains(&self, id: Id) -> bool {
        self.seat(id).is_some()
    }

    /// Whether this id is a client's: it may ask, and has no place on the ring.
    #[must_use]
    pub fn is_client(&self, id: Id) -> bool {
        self.clients.binary_search(&id).is_ok()
    }

    /// The host behind an id.
    #[must_use]
    pub fn host(&self, id: Id) -> Option<Host> {
        self.seat(id).map(|seat| seat.host)
    }

    /// The host behind an id, and which of the host's ids it is.
    #[must_use]
    pub fn host_and_index(&self, id: Id) -> Option<(Host, u16)> {
        self.seat(id).map(|seat| (seat.host, seat.index))
    }

    /// One of the ids of a host, whatever its state; none at or beyond its weight.
    #[must_use]
    pub fn id_of(&self, host: Host, index: u16) -> Option<Id> {
        let at = self.ids_at.get(host.0 as usize..)?;
        let (first, end) = (*at.first()? as usize, *at.get(1)? as usize);
        self.ids.get(first..end)?.get(usize::from(index)).copied()
    }

    /// Whether this id belongs to an active member, one that is given new objects.
    #[must_use]
    pub fn is_active(&self, id: Id) -> bool {
        self.seat(id).is_some_and(|seat| seat.active)
    }

    /// The `count` active members nearest to `placement`, nearest first, at most one id a host: the eligible replicas,
    /// whether or not they answer. The same as [`RingDocument::eligible`], without the scan.
    #[must_use]
    pub fn eligible(&self, placement: Id, count: usize) -> Vec<Id> {
        first_hosts(self.nearest_active(placement), count)
    }

    /// The ids of active members with their hosts, nearest to `placement` first.
    pub fn nearest_active(&self, placement: Id) -> impl Iterator<Item = (Id, Host)> + '_ {
        self.outwards(placement).filter(|seat| seat.active).map(|seat| (seat.id, seat.host))
    }

    /// All ids but `id` itself, nearest to it first.
    pub fn neighbours(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        self.outwards(id).map(|seat| seat.id).filter(move |other| *other != id)
    }

    /// All ids clockwise from `id`, `id` itself left out.
    pub fn clockwise_from(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        self.seats_clockwise_from(id).map(|seat| seat.id)
    }

    /// All ids counter-clockwise from `id`, `id` itself left out.
    pub fn counter_clockwise_from(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        self.seats_counter_clockwise_from(id).map(|seat| seat.id)
    }

    /// As [`Roster::clockwise_from`], with all that is known of each.
    pub(crate) fn seats_clockwise_from(&self, id: Id) -> impl Iterator<Item = &Seat> + '_ {
        let (before, after) = self.seats.split_at(self.position(id));
        after.iter().chain(before).filter(move |seat| seat.id != id)
    }

    /// As [`Roster::counter_clockwise_from`], with all that is known of each.
    pub(crate) fn seats_counter_clockwise_from(&self, id: Id) -> impl Iterator<Item = &Seat> + '_ {
        let (before, after) = self.seats.split_at(self.position(id));
        before.iter().rev().chain(after.iter().rev()).filter(move |seat| seat.id != id)
    }

    /// The places along the ring of the ids between `low` and `high`, both included, where `low <= high`.
    #[must_use]
    pub fn between(&self, low: Id, high: Id) -> Range<usize> {
        let first = self.position(low);
        let end = self.position(high);
        let is_there = self.seats.get(end).is_some_and(|seat| seat.id == high);
        first..(end + usize::from(is_there)).max(first)
    }

    /// The id at a place along the ring.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn id_at(&self, place: usize) -> Id {
        self.seats[place].id
    }

    /// The place of an id.
    pub(crate) fn seat(&self, id: Id) -> Option<&Seat> {
        let at = self.position(id);
        self.seats.get(at).filter(|seat| seat.id == id)
    }

    /// How many ids come before `id`. Ids are hashes, spread evenly, so the search begins where one with these first bytes
    /// would be, and widens from there: a few looks in a ring of any size, and never more than twice a plain search takes.
    fn position(&self, id: Id) -> usize {
        let count = self.seats.len();
        let [b0, b1, b2, b3, ..] = id.0;
        let guess = ((u64::from(u32::from_be_bytes([b0, b1, b2, b3])) * count as u64) >> 32) as usize;
        // Before `low` all ids are smaller; at `high` and after it none is.
        let (mut low, mut high, mut reach) = (0, count, 4);
        let mut at = guess.min(count.saturating_sub(1));
        if count > 0 && self.seats[at].id < id {
            while at < count && self.seats[at].id < id {
                low = at + 1;
                at += reach;
                reach *= 2;
            }
            high = at.min(count);
        } else if count > 0 {
            while self.seats[at].id >= id {
                high = at;
                if at == 0 {
                    break;
                }
                at = at.saturating_sub(reach);
                reach *= 2;
            }
            if high > 0 {
                low = at + 1;
            }
        }
        low + self.seats[low..high].partition_point(|seat| seat.id < id)
    }

    /// All seats, nearest to `point` first; at equal distance the smaller id first, as [`Id::is_nearer`] has it.
    fn outwards(&self, point: Id) -> impl Iterator<Item = &Seat> + '_ {
        let count = self.seats.len();
        let start = self.position(point);
        // `up` and `down` are steps taken clockwise from `start` and counter-clockwise from just before it.
        let (mut up, mut down) = (0, 0);
        std::iter::from_fn(move || {
            if up + down == count {
                return None;
            }
            let above = &self.seats[(start + up) % count];
            let below = &self.seats[(start + count - 1 - down) % count];
            if above.id.is_nearer(point, below.id) || above.id == below.id {
                up += 1;
                Some(above)
            } else {
                down += 1;
                Some(below)
            }
        })
    }
}

/// Of ids with their hosts, the first `count` on distinct ones.
pub(crate) fn first_hosts(ids: impl Iterator<Item = (Id, Host)>, count: usize) -> Vec<Id> {
    let mut hosts: Vec<Host> = Vec::with_capacity(count);
    let mut chosen = Vec::with_capacity(count);
    for (id, host) in ids {
        if chosen.len() == count {
            break;
        }
        if !hosts.contains(&host) {
            hosts.push(host);
            chosen.push(id);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    //! Goal: the arranged document answers as the plain one. Method: random rings against the scans of
    //! [`RingDocument`]; the seed is printed by proptest.
    use super::*;
    use crate::ring::{Member, Parameters};
    use proptest::prelude::*;

    fn ring(hosts: Vec<(u16, u8)>) -> RingDocument {
        let members = hosts.iter().enumerate().map(|(i, (weight, state))| Member {
            nonce: (i as u128).to_le_bytes(),
            host: String::new(),
            organisation: String::new(),
            weight: *weight,
            state: [MemberState::Active, MemberState::Draining, MemberState::Dead, MemberState::Client]
                [usize::from(*state)],
        });
        RingDocument {
            ring: [1; 16],
            epoch: 1,
            parameters: Parameters::DEFAULT,
            members: members.collect(),
            revocations: vec![],
            domain: "epost.test".into(),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_document(hosts in prop::collection::vec((1u16..4, 0u8..4), 0..12), key: [u8; 20], other: [u8; 20]) {
            let plain = ring(hosts);
            let roster = Roster::new(plain.clone(), Bytes::new());
            for count in [1, 3, 5, 20] {
                prop_assert_eq!(roster.eligible(Id(key), count), plain.eligible(Id(key), count));
            }
            let mut all: Vec<Id> = plain.node_ids().map(|(id, _)| id).collect();
            all.sort_by_key(|id| (id.distance(Id(key)), *id));
            prop_assert_eq!(roster.neighbours(Id(key)).collect::<Vec<_>>(), all.clone());
            for (id, host) in plain.node_ids() {
                prop_assert_eq!(roster.host(id), Some(Host(host as u32)));
            }
            all.sort_by_key(|id| Id(key).clockwise(*id));
            prop_assert_eq!(roster.clockwise_from(Id(key)).collect::<Vec<_>>(), all.clone());
            all.reverse();
            prop_assert_eq!(roster.counter_clockwise_from(Id(key)).collect::<Vec<_>>(), all);
            prop_assert!(!roster.contains(Id(key)) && !roster.is_client(Id(key)));
            for (host, member) in plain.members.iter().enumerate() {
                for id in (0..member.weight).map(|index| RingDocument::node_id(&plain.ring, &member.nonce, index)) {
                    prop_assert_eq!(roster.is_client(id), member.state == MemberState::Client);
                    prop_assert_eq!(roster.contains(id), plain.node_ids().any(|(other, at)| (other, at) == (id, host)));
                }
            }
            let (low, high) = (Id(key).min(Id(other)), Id(key).max(Id(other)));
            let mut within: Vec<Id> = plain.node_ids().map(|(id, _)| id).filter(|id| (low..=high).contains(id)).collect();
            within.sort();
            prop_assert_eq!(roster.between(low, high).map(|at| roster.id_at(at)).collect::<Vec<_>>(), within);
            for (id, _) in plain.node_ids() {
                prop_assert_eq!(roster.between(id, id).len(), 1);
            }
            prop_assert_eq!(roster.position(Id(key)), plain.node_ids().filter(|(id, _)| *id < Id(key)).count());
            for (id, _) in plain.node_ids() {
                prop_assert_eq!(roster.position(id), plain.node_ids().filter(|(other, _)| *other < id).count());
            }
        }
    }

    #[test]
    fn positions_are_right_in_a_large_ring_and_at_its_ends() {
        let plain = ring(vec![(3, 0); 1_000]);
        let roster = Roster::new(plain, Bytes::new());
        let ids: Vec<Id> = roster.ids().collect();
        let mut one = Id::default();
        one.0[Id::LEN - 1] = 1;
        let around = ids.iter().flat_map(|id| [id.wrapping_sub(one), *id, id.wrapping_add(one)]);
        for id in around.chain([Id::default(), one, Id([0xff; Id::LEN]), Id([0x7f; Id::LEN])]) {
            assert_eq!(roster.position(id), ids.partition_point(|other| *other < id));
        }
        // Ids that are not spread at all: the search is only slower.
        let seats = (0..500u16).map(|nth| {
            let mut id = Id([0xee; Id::LEN]);
            id.0[18..].copy_from_slice(&nth.to_be_bytes());
            Seat { id, host: Host(0), index: nth, active: true }
        });
        let crowded = Roster { seats: seats.collect(), ..Roster::new(ring(vec![]), Bytes::new()) };
        let ids: Vec<Id> = crowded.ids().collect();
        for id in ids.iter().copied().chain([Id::default(), Id([0xee; Id::LEN]), Id([0xff; Id::LEN])]) {
            assert_eq!(crowded.position(id), ids.partition_point(|other| *other < id));
        }
    }
}
