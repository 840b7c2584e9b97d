//! A world of machines in virtual time: the code that ships, under a network, a clock and disks that we rule.
//!
//! One seed decides everything: latencies, losses, duplicates, the moment each disk answers. The same seed gives the
//! same run, event for event ([`World::trace`]); a failing test is replayed from the seed it prints. What happens to a message
//! depends on the seed, its link and itself, never on how many went before (`network`). Blocks are verified for real.
//! What is to come waits in a timing wheel (`wheel`), by time and order of insertion. What is **not** simulated: bandwidth
//! and queueing, and damage to a disk beyond losing or altering whole objects (the engine's own
//! tests do that).
//!
//! Start at [`World`]; [`Founding`] makes a ring to put into it. What goes wrong in it is data ([`faults`]). [`trial::Trial`] runs a
//! ring through such a plan, judged all the while from outside ([`inspector`]); a plan that fails is made smaller by [`shrink`].

mod checkers;
pub mod faults;
pub mod inspector;
mod network;
pub mod shrink;
mod standing;
mod store;
pub mod trial;
mod wheel;
mod world;

pub use checkers::{WrongLeafSet, leaf_set_faults, live_closest, live_root, wrong_leaf_sets};
pub use network::{Fault, Network, Weather};
pub use store::MemoryStore;
pub use world::{Adversary, NodeIndex, World};

use crate::id::Id;
use crate::overlay::{Overlay, OverlayConfig};
use crate::past::block::Trust;
use crate::ring::{Member, MemberState, Parameters, RingDocument};
use crate::roster::Roster;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use std::sync::Arc;

/// Mixes a number so that neighbours have nothing in common (splitmix64's finaliser).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A seeded sequence, for the choices of a test.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Dice {
        Dice(mix(seed))
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// The next number from 0 up to but not 1.
    pub fn fraction(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next id.
    pub fn id(&mut self) -> Id {
        let mut bytes = [0; Id::LEN];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.roll().to_le_bytes()[..chunk.len()]));
        Id(bytes)
    }

    /// The next so many bytes.
    pub fn bytes(&mut self, count: usize) -> Bytes {
        (0..count).map(|_| self.roll() as u8).collect::<Vec<u8>>().into()
    }
}

/// An organisation with its CA key and its ring, for tests.
#[derive(Clone, Debug)]
pub struct Founding {
    ca: SigningKey,
    /// The ring.
    pub ring: RingDocument,
    /// The ring, arranged and signed.
    pub roster: Arc<Roster>,
}

impl Founding {
    /// A ring of `hosts` members of weight one.
    #[must_use]
    pub fn new(seed: u64, hosts: usize, parameters: Parameters) -> Founding {
        Founding::weighted(seed, &vec![1; hosts], parameters)
    }

    /// A ring of members of these weights.
    #[must_use]
    pub fn weighted(seed: u64, weights: &[u16], parameters: Parameters) -> Founding {
        let members = weights.iter().enumerate().map(|(host, weight)| {
            let mut nonce = [0; 16];
            nonce[..8].copy_from_slice(&mix(seed ^ mix(host as u64)).to_le_bytes());
            nonce[8..].copy_from_slice(&(host as u64).to_le_bytes());
            Member {
                nonce,
                host: format!("node-{host}.epost.test:4433"),
                organisation: "epost.test".into(),
                weight: *weight,
                state: MemberState::Active,
            }
        });
        let mut ring = [0; 16];
        ring[..8].copy_from_slice(&mix(seed).to_le_bytes());
        let members = members.collect();
        Founding::of(
            seed,
            RingDocument { ring, epoch: 1, parameters, members, revocations: vec![], domain: "epost.test".into() },
        )
    }

    /// The ring described by this document, signed by a CA whose key follows from the seed.
    #[must_use]
    pub fn of(seed: u64, ring: RingDocument) -> Founding {
        let mut key = [0x5a; 32];
        key[..8].copy_from_slice(&mix(seed ^ 0xca).to_le_bytes());
        let ca = SigningKey::from_bytes(&key);
        let document = ring.encode_signed(|body| ca.sign(body).to_bytes());
        let roster = Arc::new(Roster::new(ring.clone(), document));
        Founding { ca, ring, roster }
    }

    /// The CA's key pair.
    #[must_use]
    pub fn ca(&self) -> &SigningKey {
        &self.ca
    }

    /// The CA's public key.
    #[must_use]
    pub fn authority(&self) -> [u8; 32] {
        self.ca.verifying_key().to_bytes()
    }

    /// Whom replicas of this ring believe.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::new(self.authority(), &self.ring)
    }

    /// The same ring one epoch later.
    #[must_use]
    pub fn amended(&self, change: impl FnOnce(&mut RingDocument)) -> Founding {
        let mut ring = self.ring.clone();
        ring.epoch += 1;
        change(&mut ring);
        let document = ring.encode_signed(|body| self.ca.sign(body).to_bytes());
        Founding { ca: self.ca.clone(), roster: Arc::new(Roster::new(ring.clone(), document)), ring }
    }

    /// The signed document.
    #[must_use]
    pub fn document(&self) -> Bytes {
        self.roster.document().clone()
    }

    /// The first node id of each host, in member order.
    #[must_use]
    pub fn ids(&self) -> Vec<Id> {
        self.ring.members.iter().map(|member| RingDocument::node_id(&self.ring.ring, &member.nonce, 0)).collect()
    }

    /// A node of this ring that joins through `bootstraps`, or finds its neighbours itself if there are none.
    #[must_use]
    pub fn overlay(&self, id: Id, seed: u64, bootstraps: Vec<Id>) -> Overlay {
        Overlay::new(self.node(id, seed, bootstraps))
    }

    /// What such a node is started with.
    #[must_use]
    pub fn node(&self, id: Id, seed: u64, bootstraps: Vec<Id>) -> OverlayConfig {
        let seed = mix(seed) ^ u64::from_le_bytes([id.0[0], id.0[1], id.0[2], id.0[3], id.0[4], id.0[5], 0, 0]);
        OverlayConfig { id, roster: self.roster.clone(), authority: self.authority(), seed, bootstraps }
    }

    /// A world in which all nodes of this ring start at once.
    #[must_use]
    pub fn world(&self, seed: u64, weather: Weather) -> World<Overlay> {
        let mut world = World::new(seed, weather, self.trust(), self.ring.parameters.grace_s);
        for id in self.roster.ids() {
            let node = world.add(id);
            world.start(node, self.overlay(id, seed, Vec::new()));
        }
        world
    }
}
