//! Goal: C92 in the ring: a node with a full disk refuses, and its copies go to the next; nothing else about it fails. How full a
//! ring of disks from 1 to 100 becomes before one insert in a hundred is refused.
//! Method: whole overlays in virtual time, with disks of limited size, filled from all sides; then each object that was
//! acknowledged is read, and its lease extended through several lease periods. The control is arithmetic: the same
//! objects given to the three nearest only. The seed is fixed and printed.

use net::id::{Id, Key, Kind};
use net::limits::SECOND;
use net::machine::{Command, Micros, Reply};
use net::overlay::Overlay;
use net::ring::Parameters;
use net::sim::{Dice, Founding, Weather, World, live_closest};
use std::collections::BTreeMap;

const MINUTE: Micros = 60 * SECOND;
const LEASE_S: u64 = 7_200;
const SMALLEST: u64 = 8 << 10;
/// So many inserts are looked at together. One in a hundred of all refused ends the filling.
const WINDOW: usize = 200;

struct Filled {
    world: World<Overlay>,
    stored: Vec<Key>,
    refused: usize,
    used: f64,
    /// How full it was when one in a hundred of a window was refused for the first time.
    first: f64,
}

/// The objects in the order of their insertion.
fn object(dice: &mut Dice) -> (Key, bytes::Bytes) {
    let length = 64 + dice.below(448);
    let value = dice.bytes(length);
    (Key::of(Kind::Content, &value), value)
}

fn capacities(dice: &mut Dice, count: usize) -> Vec<u64> {
    // Evenly spread over two orders of magnitude.
    (0..count).map(|_| (SMALLEST as f64 * 100f64.powf(dice.below(1_001) as f64 / 1_000.0)) as u64).collect()
}

fn filled(seed: u64, count: usize) -> Filled {
    println!("seed {seed}, {count} nodes");
    let parameters = Parameters { lease_s: LEASE_S, grace_s: 600, ..Parameters::DEFAULT };
    let founding = Founding::new(seed, count, parameters);
    let mut world = founding.world(seed, Weather::FAIR);
    let mut dice = Dice::new(seed);
    let capacities = capacities(&mut dice, count);
    let total: u64 = capacities.iter().sum();
    for (node, capacity) in capacities.iter().enumerate() {
        world.store_mut(node).capacity_bytes = Some(*capacity);
    }
    world.run_for(MINUTE);
    let (mut stored, mut refused, mut first) = (Vec::new(), 0, None);
    loop {
        let mut open = Vec::new();
        for _ in 0..WINDOW {
            let (key, value) = object(&mut dice);
            let expiry = world.now() / SECOND + LEASE_S;
            let node = dice.below(count);
            open.push((key, node, world.command(node, Command::Insert { key, value, expiry })));
            world.run_for(SECOND / 100);
        }
        world.run_for(20 * SECOND);
        let mut failed = 0;
        for (key, node, request) in open {
            match world.take_reply(node, request) {
                Some(Reply::Stored { .. }) => stored.push(key),
                Some(Reply::Unavailable) => failed += 1,
                other => panic!("a full ring refuses, and nothing else: {other:?}"),
            }
        }
        let used: u64 = world.nodes().map(|node| world.store(node).used_bytes()).sum();
        let used = used as f64 / total as f64;
        if failed * 100 >= WINDOW {
            first.get_or_insert(used);
        }
        refused += failed;
        if refused * 100 > stored.len() + refused {
            return Filled { world, stored, refused, used, first: first.unwrap_or(used) };
        }
    }
}

/// How full the same disks are when one in a hundred of all these objects has found room on fewer than two of the three nearest.
fn used_without_diversion(seed: u64, count: usize) -> f64 {
    let founding = Founding::new(seed, count, Parameters::DEFAULT);
    let ids: Vec<Id> = founding.roster.ids().collect();
    let mut dice = Dice::new(seed);
    let mut room: BTreeMap<Id, u64> = ids.iter().copied().zip(capacities(&mut dice, count)).collect();
    let total: u64 = room.values().sum();
    let (mut tried, mut failed) = (0, 0);
    loop {
        for _ in 0..WINDOW {
            tried += 1;
            let (key, value) = object(&mut dice);
            dice.below(count);
            let size = value.len() as u64;
            let nearest = live_closest(&ids, key.placement(), 3);
            let takers: Vec<Id> = nearest.into_iter().filter(|id| room[id] >= size).collect();
            failed += usize::from(takers.len() < 2);
            takers.iter().for_each(|id| *room.get_mut(id).unwrap() -= size);
        }
        if failed * 100 > tried {
            return 1.0 - room.values().sum::<u64>() as f64 / total as f64;
        }
    }
}

#[test]
fn claim_92_a_full_node_diverts_and_what_is_diverted_is_found_and_kept() {
    let (seed, count) = (0xc92, 40);
    let Filled { mut world, stored, refused, used, first } = filled(seed, count);
    let without = used_without_diversion(seed, count);
    println!("{:.1} % used when 1 % are refused; {:.1} % without diversion", 100.0 * used, 100.0 * without);
    println!("{} stored, {refused} refused; the first hundredth of a window at {:.1} %", stored.len(), 100.0 * first);
    assert!(used > without + 0.1, "the control: {used:.3} and {without:.3}");
    // Three lease periods; extended from one node, read from others. Upkeep goes on meanwhile, on disks that refuse.
    let mut dice = Dice::new(1);
    for _ in 0..6 {
        let expiry = world.now() / SECOND + LEASE_S;
        for keys in stored.chunks(1_000) {
            // What is reported is what one replica each has of a group, and so a little less than is known.
            let reply = world.ask(3, Command::Refresh { keys: keys.to_vec(), expiry });
            assert!(matches!(&reply, Some(Reply::Refreshed { known }) if *known * 10 >= keys.len() * 9), "{reply:?}");
        }
        world.run_for(MINUTE);
        for key in &stored {
            let leases = world.nodes().filter_map(|node| world.store(node).get(key)).map(|held| held.expiry);
            assert!(
                leases.filter(|held| *held >= expiry).count() >= 2,
                "both copies of it are extended, wherever they are"
            );
        }
        world.run_for(60 * MINUTE);
    }
    for key in &stored {
        let node = dice.below(count);
        let reply = world.ask(node, Command::Lookup { key: *key });
        assert!(matches!(&reply, Some(Reply::Found { .. })), "{reply:?}");
        let copies = world.nodes().filter(|node| world.store(*node).get(key).is_some()).count();
        assert!(copies >= 2, "{copies} copies");
    }
}
