//! Goal: to be away is not to be gone. A node that reboots costs no copy of anything; what it missed meanwhile it fetches, and
//! nothing else. A node that stays away is replaced, within C15's time; at once, where fewer than two copies are left.
//! Method: whole overlays in virtual time; every message that moves a block is counted, and every disk is looked at. The
//! control is the same ring with a node that does not come back. Seeds are fixed and printed.

use net::id::{Id, Key, Kind};
use net::limits::{ABSENCE, SECOND};
use net::machine::{Command, Metric, Micros, Reply};
use net::overlay::Overlay;
use net::ring::Parameters;
use net::sim::{Dice, Founding, NodeIndex, Weather, World, live_closest};

const MINUTE: Micros = 60 * SECOND;
/// Of the types Store and Fetch: each would move a block.
const MOVING: [u8; 2] = [18, 20];

fn ring(seed: u64, count: usize, objects: usize) -> (Founding, World<Overlay>, Vec<Key>) {
    println!("seed {seed}, {count} nodes");
    let founding = Founding::new(seed, count, Parameters::DEFAULT);
    let mut world = founding.world(seed, Weather::FAIR);
    world.run_for(MINUTE);
    let keys = insert(&mut world, &mut Dice::new(seed), objects);
    world.run_for(10 * SECOND);
    (founding, world, keys)
}

fn insert(world: &mut World<Overlay>, dice: &mut Dice, objects: usize) -> Vec<Key> {
    let expiry = world.now() / SECOND + 28 * 86_400;
    let keys = (0..objects).map(|_| {
        let value = dice.bytes(100);
        let key = Key::of(Kind::Content, &value);
        let node = world.nodes().find(|node| world.is_alive(*node)).expect("somebody is alive");
        let reply = world.ask(node, Command::Insert { key, value, expiry });
        assert!(matches!(reply, Some(Reply::Stored { copies: 2.., .. })), "{reply:?}");
        key
    });
    keys.collect()
}

fn moved(world: &World<Overlay>) -> u64 {
    MOVING.iter().map(|number| world.messages_of(*number)).sum()
}

fn start(founding: &Founding, world: &mut World<Overlay>, node: NodeIndex) {
    let id = world.id(node);
    world.start(node, founding.overlay(id, world.now(), Vec::new()));
}

fn holds(world: &World<Overlay>, node: NodeIndex, key: &Key) -> bool {
    world.store(node).get(key).is_some()
}

fn live_copies(world: &World<Overlay>, key: &Key) -> usize {
    world.nodes().filter(|node| world.is_alive(*node) && holds(world, *node, key)).count()
}

#[test]
fn a_reboot_of_every_node_in_turn_moves_no_data() {
    let (founding, mut world, keys) = ring(0x4eb0, 30, 300);
    let before = moved(&world);
    for node in world.nodes() {
        world.kill(node);
        world.run_for(2 * MINUTE);
        start(&founding, &mut world, node);
        world.run_for(MINUTE);
        assert_eq!(moved(&world), before, "blocks moved for node {node}");
        assert!(world.machine(node).unwrap().status().synced, "it has compared notes with all its partners");
    }
    world.run_for(20 * MINUTE);
    assert_eq!(moved(&world), before);
    assert!(keys.iter().all(|key| live_copies(&world, key) == 3));
}

#[test]
fn what_was_inserted_meanwhile_is_fetched_and_nothing_else() {
    let (founding, mut world, _) = ring(0x4eb1, 30, 300);
    let away = 7;
    world.kill(away);
    world.run_for(MINUTE);
    let fresh = insert(&mut world, &mut Dice::new(1), 150);
    world.run_for(5 * SECOND);
    assert!(fresh.iter().all(|key| live_copies(&world, key) == 3), "it does not wait for its copies");
    let (fetched, replicated) = (world.messages_of(20), world.metric(Metric::Replicated));
    start(&founding, &mut world, away);
    world.run_for(20 * MINUTE);
    let id = world.id(away);
    let all: Vec<Id> = world.live_ids();
    let missed = fresh.iter().filter(|key| live_closest(&all, key.placement(), 3).contains(&id)).count() as u64;
    assert!(missed > 5);
    assert_eq!(world.metric(Metric::Replicated) - replicated, missed);
    assert_eq!(world.messages_of(20) - fetched, missed);
}

/// The control of both: who stays away is replaced.
#[test]
fn control_who_stays_away_is_replaced() {
    let (_, mut world, keys) = ring(0x4eb0, 30, 300);
    let away = 7;
    let its = keys.iter().filter(|key| holds(&world, away, key)).count() as u64;
    assert!(its > 10);
    let before = world.metric(Metric::Replicated);
    world.kill(away);
    let killed = world.now();
    world.run_for(ABSENCE - 10 * SECOND);
    assert_eq!(world.metric(Metric::Replicated), before, "not before its time is over");
    let is_whole = |world: &World<Overlay>| keys.iter().all(|key| live_copies(world, key) == 3);
    assert!(world.run_until(15 * MINUTE, is_whole));
    println!("{its} copies, whole again after {} s", (world.now() - killed) / SECOND);
    assert!(world.now() <= killed + 15 * MINUTE);
    assert_eq!(world.metric(Metric::Replicated) - before, its);
}

#[test]
fn where_one_copy_is_left_nobody_is_waited_for() {
    let (_, mut world, keys) = ring(0x4eb2, 30, 300);
    let mut ids = world.live_ids();
    ids.sort();
    let pair = [ids[11], ids[12]].map(|id| world.index(id).unwrap());
    let lone: Vec<&Key> = keys.iter().filter(|key| pair.iter().all(|node| holds(&world, *node, key))).collect();
    assert!(lone.len() > 5, "neighbours share objects");
    pair.iter().for_each(|node| world.kill(*node));
    let killed = world.now();
    let are_two = |world: &World<Overlay>| lone.iter().all(|key| live_copies(world, key) >= 2);
    assert!(!are_two(&world));
    assert!(world.run_until(5 * MINUTE, are_two));
    println!("two copies again of {} after {} s", lone.len(), (world.now() - killed) / SECOND);
}
