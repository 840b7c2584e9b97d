//! Goal: the world itself can be trusted: it repeats, leaves nothing behind, and each fault does what it says.
//! Method: the same seed twice, in rough weather and through the wire codec; a quiet ring for hours; and, for the faults, a
//! machine that does nothing but ping, read and note what reaches it when, of which the right notes are known by hand.

use net::id::{Id, Key, Kind};
use net::limits::{MILLISECOND, SECOND};
use net::machine::{Action, Actions, Command, Event, Machine, Micros, OpId, StorageOperation, StorageResult, TimerId};
use net::overlay::Overlay;
use net::ring::Parameters;
use net::sim::{Dice, Fault, Founding, Weather, World};
use net::wire::{Body, Message, Presence};

fn run(seed: u64) -> (u64, u64) {
    let founding = Founding::new(seed, 40, Parameters::DEFAULT);
    let mut world = founding.world(seed, Weather::ROUGH);
    world.uses_codec = true;
    world.run_for(60 * SECOND);
    let expiry = world.now() / SECOND + 86_400;
    for i in 0..50u8 {
        let value = bytes::Bytes::from(vec![i; 300]);
        let key = Key::of(Kind::Content, &value);
        world.command(usize::from(i) % 40, Command::Insert { key, value, expiry });
        if i == 25 {
            world.kill(3);
        }
    }
    world.run_for(600 * SECOND);
    (world.trace(), world.events())
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first.0, run(8).0, "another seed gives another run");
}

#[test]
fn timers_armed_again_leave_nothing_behind() {
    let mut world: World<Overlay> = Founding::new(5, 30, Parameters::DEFAULT).world(5, Weather::FAIR);
    for _ in 0..12 {
        world.run_for(600 * SECOND);
        // A timer and a sweep of the disk a node; what is under way at any moment is less than a message a node.
        assert!(world.waiting() <= 3 * 30, "{} entries wait", world.waiting());
    }
}

const NUMBER: TimerId = TimerId(0);

/// Pings its peer and reads its disk each second, and notes what happens to it, by its own clock.
struct Diarist {
    peer: Id,
    rounds: u64,
    arrived: Vec<Micros>,
    read: Vec<Micros>,
    rang: Vec<Micros>,
    told: Vec<Micros>,
}

impl Machine for Diarist {
    fn handle(&mut self, now: Micros, event: Event, out: &mut Actions) {
        self.told.push(now);
        match event {
            Event::Message { .. } => self.arrived.push(now),
            Event::Storage { result: StorageResult::Got(None), .. } => self.read.push(now),
            Event::Timer(_) => self.rang.push(now),
            _ => {}
        }
        if matches!(event, Event::Boot | Event::Timer(_)) {
            self.rounds += 1;
            let body = Body::Ping(Presence { ready: true, epoch: 1, booted: 1 });
            out.push(Action::Send { to: self.peer, message: Message { request: self.rounds, body } });
            let operation = StorageOperation::Get { key: Key::of(Kind::Content, b"nothing") };
            out.push(Action::Storage { op: OpId(self.rounds), operation });
            out.push(Action::Arm { timer: NUMBER, at: now + SECOND });
        }
    }
}

/// Two of them, started at the same moment, and that moment.
fn pair(weather: Weather) -> (World<Diarist>, Micros) {
    let founding = Founding::new(1, 1, Parameters::DEFAULT);
    let mut world = World::new(1, weather, founding.trust(), 0);
    let mut dice = Dice::new(1);
    let ids = [dice.id(), dice.id()];
    for (id, peer) in [(ids[0], ids[1]), (ids[1], ids[0])] {
        let node = world.add(id);
        let (arrived, read, rang, told) = (vec![], vec![], vec![], vec![]);
        world.start(node, Diarist { peer, rounds: 0, arrived, read, rang, told });
    }
    let begun = world.now();
    (world, begun)
}

const EVEN: Weather = Weather { jitter: 0, ..Weather::FAIR };

#[test]
fn a_link_blocked_one_way_is_open_the_other() {
    let (mut world, _) = pair(EVEN);
    world.network().break_link(0, 1, Fault::Blocked);
    world.run_for(10 * SECOND + 500 * MILLISECOND);
    assert_eq!(world.machine(0).unwrap().arrived.len(), 11);
    assert_eq!(world.machine(1).unwrap().arrived.len(), 0);
    world.network().mend_link(0, 1);
    world.run_for(10 * SECOND);
    assert_eq!(world.machine(1).unwrap().arrived.len(), 10);
}

#[test]
fn a_link_slow_one_way_is_slow_by_as_much_as_ordered() {
    let (mut world, begun) = pair(EVEN);
    world.network().break_link(0, 1, Fault::Slow(250 * MILLISECOND));
    world.run_for(5 * SECOND + 500 * MILLISECOND);
    let latency = world.latency(0, 1);
    assert_eq!(latency, world.latency(1, 0));
    let arrivals = |late: Micros| (0..6).map(|round| begun + round * SECOND + late).collect::<Vec<Micros>>();
    assert_eq!(world.machine(0).unwrap().arrived, arrivals(latency));
    assert_eq!(world.machine(1).unwrap().arrived, arrivals(latency + 250 * MILLISECOND));
}

#[test]
fn a_partition_parts_both_ways_and_heals() {
    let (mut world, _) = pair(EVEN);
    world.network().set_side(0, 1);
    world.run_for(5 * SECOND + 500 * MILLISECOND);
    assert!((0..2).all(|node| world.machine(node).unwrap().arrived.is_empty()));
    world.network().set_side(0, 0);
    world.run_for(5 * SECOND);
    assert!((0..2).all(|node| world.machine(node).unwrap().arrived.len() == 5));
}

#[test]
fn a_slow_disk_answers_as_late_as_ordered() {
    let (mut usual, begun) = pair(EVEN);
    let (mut slow, _) = pair(EVEN);
    slow.slow_disk(0, 400 * MILLISECOND);
    usual.run_for(3 * SECOND + 900 * MILLISECOND);
    slow.run_for(3 * SECOND + 900 * MILLISECOND);
    let later: Vec<Micros> = usual.machine(0).unwrap().read.iter().map(|at| at + 400 * MILLISECOND).collect();
    assert_eq!(slow.machine(0).unwrap().read, later);
    assert_eq!(slow.machine(1).unwrap().read, usual.machine(1).unwrap().read, "the other disk is as ever");
    assert!(usual.machine(0).unwrap().read[0] < begun + 3 * MILLISECOND);
}

#[test]
fn a_clock_may_be_wrong_and_step_but_is_never_seen_to_go_back() {
    let (mut world, begun) = pair(EVEN);
    let hour = 3_600 * SECOND;
    world.set_clock(0, hour as i64);
    world.run_for(2 * SECOND + 500 * MILLISECOND);
    let ahead: Vec<Micros> = (1..=2).map(|round| begun + hour + round * SECOND).collect();
    assert_eq!(world.machine(0).unwrap().rang, ahead, "ahead, and the timers keep their delay");
    assert_eq!(world.machine(1).unwrap().rang, [begun + SECOND, begun + 2 * SECOND], "the other clock is right");
    world.set_clock(0, 0);
    world.run_for(3 * SECOND);
    let diary = world.machine(0).unwrap();
    assert!(diary.told.is_sorted());
    let on: Vec<Micros> = (1..=5).map(|round| begun + hour + round * SECOND).collect();
    assert_eq!(diary.rang, on, "set back, it runs on from where it was");
    let (peer, (arrived, read, rang, told)) = (diary.peer, (vec![], vec![], vec![], vec![]));
    world.start(0, Diarist { peer, rounds: 0, arrived, read, rang, told });
    world.run_for(1);
    assert_eq!(world.machine(0).unwrap().told, [world.now() - 1], "a new process reads the clock as it is");
}

#[test]
fn a_sleeper_hears_everything_when_it_wakes() {
    let (mut world, begun) = pair(EVEN);
    world.run_for(500 * MILLISECOND);
    world.sleep(0, 5 * SECOND);
    world.run_for(5 * SECOND + 10 * MILLISECOND);
    let diary = world.machine(0).unwrap();
    let woke = begun + 5 * SECOND + 500 * MILLISECOND;
    assert_eq!(diary.rang, [woke], "the timer rang once, late");
    assert_eq!(diary.arrived[1..], [woke; 5], "what came meanwhile waited");
}
