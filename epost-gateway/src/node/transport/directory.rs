//! The hosts of the ring, prepared for the questions the transport asks: whose is this nonce, where does this node id
//! live, which ids does this host have. (`net::roster` answers the overlay's questions, which are about ids alone.)

use net::id::Id;
use net::past::block::Trust;
use net::ring::{MemberState, RingDocument};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What names a host for good: drawn by the CA at enrolment, kept through every renewal.
pub type Nonce = [u8; 16];

/// One host of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What its node ids follow from.
    pub nonce: Nonce,
    /// Where its QUIC endpoint is, `address:port`.
    pub address: String,
    /// Its virtual node ids, by index; never empty.
    pub ids: Vec<Id>,
    /// Whether it is a node. A client is let in and answered, and never dialled.
    pub has_place: bool,
}

impl Host {
    /// The host's first node id, which greetings and logs name it by.
    #[must_use]
    pub fn first(&self) -> Id {
        self.ids[0]
    }
}

/// The hosts of one ring document, dead ones left out.
#[derive(Clone, Debug)]
pub struct Directory {
    trust: Trust,
    document: Arc<RingDocument>,
    hosts: BTreeMap<Nonce, Arc<Host>>,
    seats: BTreeMap<Id, Seat>,
}

/// Where one node id lives.
#[derive(Clone, Debug)]
pub struct Seat {
    /// On which host.
    pub host: Arc<Host>,
    /// As its how-many-th id.
    pub index: u16,
}

impl Directory {
    /// Reads the members out of `document`, which `authority` has signed.
    #[must_use]
    pub fn new(document: Arc<RingDocument>, authority: [u8; 32]) -> Directory {
        let mut hosts = BTreeMap::new();
        let mut seats = BTreeMap::new();
        for member in document.members.iter().filter(|member| member.state != MemberState::Dead) {
            let id = |index| RingDocument::node_id(&document.ring, &member.nonce, index);
            let ids: Vec<Id> = (0..member.weight).map(id).collect();
            assert!(!ids.is_empty(), "a verified ring document has no member of weight 0");
            let has_place = member.state.has_place();
            let host = Arc::new(Host { nonce: member.nonce, address: member.host.clone(), ids, has_place });
            for (index, id) in (0..member.weight).zip(&host.ids) {
                seats.insert(*id, Seat { host: host.clone(), index });
            }
            hosts.insert(member.nonce, host);
        }
        Directory { trust: Trust::new(authority, &document), document, hosts, seats }
    }

    /// The authority, and whom it no longer vouches for.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The document this was read from.
    #[must_use]
    pub fn document(&self) -> &Arc<RingDocument> {
        &self.document
    }

    /// The host with this nonce, if it is a member and not dead.
    #[must_use]
    pub fn host(&self, nonce: &Nonce) -> Option<&Arc<Host>> {
        self.hosts.get(nonce)
    }

    /// Where this node id lives.
    #[must_use]
    pub fn seat(&self, id: &Id) -> Option<&Seat> {
        self.seats.get(id)
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }
}
