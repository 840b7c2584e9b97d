//! Goal: a host of weight w is w nodes, carries w shares, and is never two of an object's holders, whatever other hosts do.
//! Method: whole overlays in virtual time, each virtual node a machine with a disk of its own; holders are found by looking at
//! every disk, and compared with a sort of all live ids that passes over hosts already met. The load by weight is printed,
//! and compared with the weights within three standard deviations: of the sum of that many random arcs of the ring, and of
//! that many objects. The control of the fallback shows that leaf sets alone do not reach enough hosts. Seeds are fixed.

use ed25519_dalek::{Signer, SigningKey};
use net::id::{Id, Key, Kind};
use net::limits::SECOND;
use net::machine::{Command, Micros, Reply};
use net::overlay::Overlay;
use net::past::block::encode_signed;
use net::ring::Parameters;
use net::sim::{Dice, Founding, NodeIndex, Weather, World};
use std::collections::{BTreeMap, BTreeSet};

const MINUTE: Micros = 60 * SECOND;

struct Ring {
    founding: Founding,
    world: World<Overlay>,
    /// The host of each node of the world.
    hosts: Vec<usize>,
    keys: Vec<Key>,
}

impl Ring {
    fn new(seed: u64, weights: &[u16]) -> Ring {
        println!(
            "seed {seed}, {} hosts, {} nodes",
            weights.len(),
            weights.iter().map(|w| usize::from(*w)).sum::<usize>()
        );
        let founding = Founding::weighted(seed, weights, Parameters::DEFAULT);
        let mut world = founding.world(seed, Weather::FAIR);
        world.run_for(2 * MINUTE);
        let host_of: BTreeMap<Id, usize> = founding.ring.node_ids().collect();
        let hosts = world.nodes().map(|node| host_of[&world.id(node)]).collect();
        Ring { founding, world, hosts, keys: Vec::new() }
    }

    fn insert(&mut self, seed: u64, count: usize) {
        let mut dice = Dice::new(seed);
        let expiry = self.world.now() / SECOND + 28 * 86_400;
        let live: Vec<NodeIndex> = self.world.nodes().filter(|node| self.world.is_alive(*node)).collect();
        let asked: Vec<_> = (0..count)
            .map(|_| {
                let value = dice.bytes(64);
                let key = Key::of(Kind::Content, &value);
                self.keys.push(key);
                let node = live[dice.below(live.len())];
                let request = self.world.command(node, Command::Insert { key, value, expiry });
                self.world.run_for(20_000);
                (node, request)
            })
            .collect();
        self.world.run_for(20 * SECOND);
        for (node, request) in asked {
            let reply = self.world.take_reply(node, request);
            assert!(matches!(reply, Some(Reply::Stored { .. })), "{reply:?}");
        }
    }

    /// The live nodes that ought to hold this, nearest first: on as many distinct hosts.
    fn nearest(&self, key: &Key, count: usize) -> Vec<NodeIndex> {
        let mut live: Vec<NodeIndex> = self.world.nodes().filter(|node| self.world.is_alive(*node)).collect();
        let place = key.placement();
        live.sort_by_key(|node| (self.world.id(*node).distance(place), self.world.id(*node)));
        let mut met = BTreeSet::new();
        live.retain(|node| met.insert(self.hosts[*node]));
        live.truncate(count);
        live
    }

    fn holders(&self, key: &Key) -> BTreeSet<NodeIndex> {
        let nodes = self.world.nodes().filter(|node| self.world.is_alive(*node));
        nodes.filter(|node| self.world.store(*node).get(key).is_some()).collect()
    }

    /// How many objects are not on all of the nearest three hosts alive.
    fn incomplete(&self) -> usize {
        let is_incomplete = |key: &&Key| {
            let holders = self.holders(key);
            self.nearest(key, 3).iter().any(|node| !holders.contains(node))
        };
        self.keys.iter().filter(is_incomplete).count()
    }

    fn nodes_of(&self, host: usize) -> Vec<NodeIndex> {
        self.world.nodes().filter(|node| self.hosts[*node] == host).collect()
    }
}

#[test]
fn the_load_follows_the_weights() {
    // One host of weight 64 and four of 16 beside many small ones.
    let mut weights = vec![64, 16, 16, 16, 16];
    weights.extend([8; 6].iter().chain(&[4; 12]).chain(&[2; 24]).chain(&[1; 48]));
    let mut ring = Ring::new(0x7ea1, &weights);
    ring.insert(1, 2_500);
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let (mut rooted, mut held) = (BTreeMap::new(), BTreeMap::new());
    for key in &ring.keys {
        let nearest = ring.nearest(key, 3);
        assert_eq!(
            ring.holders(key),
            nearest.iter().copied().collect(),
            "on the three nearest hosts, and nowhere else"
        );
        *rooted.entry(weights[ring.hosts[nearest[0]]]).or_insert(0.0) += 1.0;
        for node in nearest {
            *held.entry(weights[ring.hosts[node]]).or_insert(0.0) += 1.0;
        }
    }
    println!("weight  hosts  share of ids  of roots  of replicas  replicas a unit of weight");
    let count = ring.keys.len() as f64;
    for class in [1u16, 2, 4, 8, 16, 64] {
        let hosts = weights.iter().filter(|weight| **weight == class).count() as f64;
        let ids = hosts * f64::from(class);
        let share = ids / total;
        let roots: f64 = rooted.get(&class).copied().unwrap_or(0.0);
        let replicas: f64 = held.get(&class).copied().unwrap_or(0.0);
        println!(
            "{class:>6}  {hosts:>5}  {:>11.1}%  {:>7.1}%  {:>10.1}%  {:>10.1}",
            100.0 * share,
            100.0 * roots / count,
            100.0 * replicas / (3.0 * count),
            replicas / ids
        );
        // The arcs of n ids of many are about exponential: their sum varies by 1/√n of itself. Objects add their own.
        let deviation = ((1.0 - share) / ids + (1.0 - share) / (share * count)).sqrt();
        let ratio = roots / (share * count);
        assert!(
            (ratio - 1.0).abs() <= 3.0 * deviation,
            "weight {class}: {ratio:.3} of its share, deviation {deviation:.3}"
        );
    }
    let giant: f64 = held[&64u16] / (3.0 * count);
    assert!(giant < 1.0 / 3.0, "of three replicas one at most");
    assert!(giant > 0.75 * 64.0 / total, "and yet it carries its share of the replicas: {giant:.3}");
}

#[test]
fn replicas_are_on_distinct_hosts_whatever_hosts_do() {
    let weights: Vec<u16> = (0..24).map(|host| [1, 1, 2, 4, 8, 16][host % 6]).collect();
    let mut ring = Ring::new(0x7ea2, &weights);
    ring.insert(2, 300);
    assert_eq!(ring.incomplete(), 0);
    let mut dice = Dice::new(0x7ea2);
    for event in 0..3 {
        // A host dies with all its ids and its disk, one host after the other; a great one first.
        let host = if event == 0 { 5 } else { dice.below(weights.len()) };
        let nodes = ring.nodes_of(host);
        println!("event {event}: host {host} of weight {}", weights[host]);
        let begun = ring.world.now();
        for node in &nodes {
            ring.world.kill(*node);
            ring.world.wipe(*node);
        }
        ring.world.run_for(MINUTE);
        while ring.incomplete() > 0 && ring.world.now() < begun + 15 * MINUTE {
            ring.world.run_for(30 * SECOND);
        }
        println!("  three hosts again after {} s", (ring.world.now() - begun) / SECOND);
        assert_eq!(ring.incomplete(), 0, "event {event}");
        for node in nodes {
            let id = ring.world.id(node);
            ring.world.start(node, ring.founding.overlay(id, ring.world.now(), Vec::new()));
        }
        ring.world.run_for(5 * MINUTE);
        assert_eq!(ring.incomplete(), 0, "event {event}, it is back");
    }
}

/// Whether the leaf set of some node lies on fewer than this many hosts besides its own.
fn short_leaf_sets(ring: &Ring, hosts: usize) -> usize {
    let is_short = |node: &NodeIndex| {
        let status = ring.world.machine(*node).unwrap().status();
        let others: BTreeSet<usize> =
            status.leaf_set.iter().map(|id| ring.hosts[ring.world.index(*id).unwrap()]).collect();
        others.iter().filter(|host| **host != ring.hosts[*node]).count() < hosts
    };
    ring.world.nodes().filter(is_short).count()
}

#[test]
fn a_giant_among_dwarfs_shares_with_as_many_hosts_as_it_must() {
    let mut weights = vec![64];
    weights.extend([1; 9]);
    let mut ring = Ring::new(0x7ea3, &weights);
    let short = short_leaf_sets(&ring, 4);
    println!("{short} nodes whose leaf set lies on fewer than four other hosts");
    assert!(short > 0, "the control: leaf sets alone would not do");
    ring.insert(3, 200);
    for key in ring.keys.clone() {
        assert_eq!(ring.holders(&key), ring.nearest(&key, 3).into_iter().collect());
    }
    // Heads on five hosts; read back by any.
    for of in 0..10 {
        let owner = SigningKey::from_bytes(&[of + 1; 32]);
        let public = owner.verifying_key().to_bytes();
        let key = Key::of(Kind::Head, &public);
        let value = encode_signed(Kind::Head, &public, 1, b"head", |bytes| owner.sign(bytes).to_bytes());
        let expiry = ring.world.now() / SECOND + 86_400;
        let reply = ring.world.ask(usize::from(of), Command::PutSigned { key, value, expiry });
        assert!(matches!(reply, Some(Reply::Stored { copies: 4.., .. })), "{reply:?}");
        ring.world.run_for(SECOND);
        assert_eq!(ring.holders(&key), ring.nearest(&key, 5).into_iter().collect());
        assert!(matches!(ring.world.ask(40, Command::GetSigned { key }), Some(Reply::Found { version: 1, .. })));
    }
    // Its death costs a copy of all, and no more.
    for node in ring.nodes_of(0) {
        ring.world.kill(node);
        ring.world.wipe(node);
    }
    let begun = ring.world.now();
    while ring.incomplete() > 0 && ring.world.now() < begun + 15 * MINUTE {
        ring.world.run_for(30 * SECOND);
    }
    println!("without the giant: three hosts again after {} s", (ring.world.now() - begun) / SECOND);
    assert_eq!(ring.incomplete(), 0);
}
