//! Goal: a plan of faults does what it says and no more, and trials notice what they are there to notice.
//! Method: a machine that notes what happens to it, through plans of which the right notes are known by hand; rings with a
//! planted defect, one for each check, of which the violation is known; a plan of many faults of which two together uncover a
//! planted defect, shrunk to exactly those two. And trials of the ring as it ships, with all kinds of faults, in which nothing is wrong.

use net::id::{Id, Key, Kind};
use net::limits::{MILLISECOND, SECOND};
use net::machine::{Action, Actions, Event, Machine, Micros, OpId, Reply, StorageOperation, StorageResult, TimerId};
use net::overlay::Overlay;
use net::ring::Parameters;
use net::sim::faults::{FaultKind, Hazards, PlannedFault, Spell, draw};
use net::sim::shrink::shrink;
use net::sim::trial::{Outcome, Trial};
use net::sim::{Adversary, Dice, Founding, Weather, World};
use net::wire::{Body, Message, Presence};

/// Pings all others and stores an object each second, and notes what happens to it.
#[derive(Default)]
struct Diarist {
    others: Vec<Id>,
    rounds: u64,
    /// From whom, and when.
    heard: Vec<(Id, Micros)>,
    rang: Vec<Micros>,
    refused: usize,
    stored: usize,
}

impl Machine for Diarist {
    fn handle(&mut self, now: Micros, event: Event, out: &mut Actions) {
        match event {
            Event::Message { from, .. } => self.heard.push((from, now)),
            Event::Storage { result: StorageResult::Failed, .. } => self.refused += 1,
            Event::Storage { .. } => self.stored += 1,
            Event::Boot | Event::Timer(_) => {
                self.rang.push(now);
                self.rounds += 1;
                let body = Body::Ping(Presence { ready: true, epoch: 1, booted: 1 });
                for to in &self.others {
                    out.push(Action::Send { to: *to, message: Message { request: self.rounds, body: body.clone() } });
                }
                let value = bytes::Bytes::from(self.rounds.to_le_bytes().to_vec());
                let key = Key::of(Kind::Content, &value);
                let operation = StorageOperation::Put { key, version: 0, expiry: u64::MAX, value };
                out.push(Action::Storage { op: OpId(self.rounds), operation });
                out.push(Action::Arm { timer: TimerId(0), at: now + SECOND });
            }
            _ => {}
        }
    }
}

const EVEN: Weather = Weather { jitter: 0, ..Weather::FAIR };

/// Three of them, following a plan from their start; and when that was.
fn three(plan: Vec<PlannedFault>) -> (World<Diarist>, Vec<Id>, Micros) {
    let founding = Founding::new(1, 1, Parameters::DEFAULT);
    let mut world = World::new(1, EVEN, founding.trust(), 0);
    let mut dice = Dice::new(1);
    let ids: Vec<Id> = (0..3).map(|_| dice.id()).collect();
    let all = ids.clone();
    let diarist = move |node: usize| {
        let others = all.iter().enumerate().filter(|(other, _)| *other != node).map(|(_, id)| *id).collect();
        Diarist { others, ..Diarist::default() }
    };
    for id in &ids {
        let node = world.add(*id);
        world.start(node, diarist(node));
    }
    world.follow(plan, move |node, _| diarist(node));
    let begun = world.now();
    (world, ids, begun)
}

fn fault(at: Micros, lasting: Option<Micros>, kind: FaultKind) -> PlannedFault {
    PlannedFault { at: at * SECOND, lasting: lasting.map(|lasting| lasting * SECOND), kind }
}

/// How many messages of `from` reached the node.
fn heard(world: &World<Diarist>, node: usize, from: Id) -> usize {
    world.machine(node).map_or(0, |diary| diary.heard.iter().filter(|(id, _)| *id == from).count())
}

#[test]
fn a_node_is_down_while_any_fault_says_so_and_loses_its_disk_only_when_wiped() {
    let down = |wiped| FaultKind::Down { node: 0, wiped };
    let (mut world, ..) =
        three(vec![fault(4, Some(10), down(false)), fault(8, Some(12), down(false)), fault(30, Some(5), down(true))]);
    world.run_for(3 * SECOND + 500 * MILLISECOND);
    let held = world.store(0).iter().count();
    assert_eq!(held, 4);
    let mut up = Vec::new();
    for _ in 4..40 {
        world.run_for(SECOND);
        up.push(world.is_alive(0));
    }
    let expected: Vec<bool> = (4..40).map(|second| !(4..20).contains(&second) && !(30..35).contains(&second)).collect();
    assert_eq!(up, expected);
    assert_eq!(world.store(0).iter().count(), 5, "what it stored in five seconds on an empty disk");
}

#[test]
fn cuts_cross_and_each_heals_by_itself() {
    let cut = |nodes: &[u32]| FaultKind::Cut { nodes: nodes.to_vec() };
    let (mut world, ids, _) = three(vec![fault(10, Some(20), cut(&[0])), fault(20, Some(20), cut(&[0, 1]))]);
    let mut before = [0; 3];
    let mut gained = |world: &World<Diarist>| {
        let pairs = [(1, ids[0]), (2, ids[1]), (2, ids[0])];
        let now = pairs.map(|(node, from)| heard(world, node, from));
        let gained = [now[0] - before[0], now[1] - before[1], now[2] - before[2]];
        before = now;
        gained
    };
    world.run_for(9 * SECOND + 500 * MILLISECOND);
    assert_eq!(gained(&world), [10, 10, 10]);
    for expected in [[0, 10, 0], [0, 0, 0], [10, 0, 0], [10, 10, 10]] {
        world.run_for(10 * SECOND);
        assert_eq!(gained(&world), expected);
    }
}

#[test]
fn links_weather_disks_and_clocks_are_as_planned_and_right_again() {
    let (mut world, ids, begun) = three(vec![
        fault(10, Some(10), FaultKind::Blocked { from: 0, to: 1, both_ways: false }),
        fault(10, Some(10), FaultKind::Slow { from: 1, to: 2, both_ways: true, by: 300 * MILLISECOND }),
        fault(30, Some(10), FaultKind::FullDisk { node: 2 }),
        fault(50, Some(10), FaultKind::Loss { millionths: 1_000_000 }),
        fault(70, Some(10), FaultKind::Duplication { millionths: 1_000_000 }),
        fault(90, Some(1_000), FaultKind::ClockDrift { node: 1, millionths: 10_000 }),
    ]);
    world.run_for(29 * SECOND + 500 * MILLISECOND);
    assert_eq!([heard(&world, 1, ids[0]), heard(&world, 0, ids[1])], [20, 30], "blocked one way");
    let late = |world: &World<Diarist>, node: usize, from: Id| {
        let diary = world.machine(node).map(|diary| diary.heard.clone()).unwrap_or_default();
        diary.iter().filter(|(id, at)| *id == from && (at - begun) % SECOND > 200 * MILLISECOND).count()
    };
    assert_eq!([late(&world, 2, ids[1]), late(&world, 1, ids[2]), late(&world, 2, ids[0])], [10, 10, 0]);
    world.run_for(20 * SECOND);
    let diary = world.machine(2).map(|diary| (diary.refused, diary.stored));
    assert_eq!(diary, Some((10, 40)), "a full disk refuses what is new");
    let messages = |world: &World<Diarist>| heard(world, 0, ids[2]);
    assert_eq!(messages(&world), 50);
    world.run_for(20 * SECOND);
    assert_eq!(messages(&world), 60, "all was lost for ten seconds");
    world.run_for(20 * SECOND);
    assert_eq!(messages(&world), 90, "all came twice for ten seconds");
    world.run_for(1_100 * SECOND);
    let rang = |node: usize| world.machine(node).map_or(0, |diary| diary.rang.len());
    assert_eq!(rang(1), rang(0) + 10, "a clock that is a hundredth faster rings ten times more in 1,000 seconds");
    let shown = |node: usize| world.machine(node).and_then(|diary| diary.rang.last().copied()).unwrap_or(0);
    let gained = shown(1) - shown(0);
    assert!(
        (10 * SECOND..10 * SECOND + 10 * MILLISECOND).contains(&gained),
        "and keeps what it has gained: {gained} µs"
    );
}

#[test]
fn a_sleeper_sleeps_as_long_as_planned() {
    let (mut world, _, begun) = three(vec![fault(10, Some(30), FaultKind::Asleep { node: 0 })]);
    world.run_for(60 * SECOND - 500 * MILLISECOND);
    let rang = world.machine(0).map(|diary| diary.rang.clone()).unwrap_or_default();
    let gap = rang.windows(2).find(|pair| pair[1] - pair[0] > SECOND).map(|pair| (pair[0] - begun, pair[1] - begun));
    assert_eq!(gap, Some((9 * SECOND, 40 * SECOND)));
}

fn trial(seed: u64, nodes: u32, minutes: u64, hazards: &Hazards) -> Trial {
    let lasting = minutes * 60 * SECOND;
    let plan = draw(seed, nodes, lasting, hazards);
    Trial { seed, nodes, lasting, calm: 0, lookups: 60.0, objects: 20, plan }
}

/// Churn in which a node stays for half an hour, some messages that come twice, some nodes that sleep, some that lose their disk.
const WEARING: Hazards = Hazards {
    sessions: Some(Spell { mean: 1_800 * SECOND, shape: 1.0 }),
    gaps: Some(Spell { mean: 300 * SECOND, shape: 1.0 }),
    wiped: 50_000,
    loss: 20_000,
    duplication: 5_000,
    cuts: 0,
    sleeps: 3,
    blocked_links: 0,
    slow_links: 3,
    clocks: 2,
    disks: 2,
};

fn run(trial: &Trial) -> Outcome {
    trial.run(|_| true)
}

fn violation(outcome: &Outcome) -> &str {
    outcome.violation.as_ref().map_or("none", |violation| &violation.what)
}

#[test]
fn rings_in_trouble_keep_their_promises() {
    for seed in 1..=4 {
        let hazards = Hazards { cuts: (seed % 2) as u32, ..WEARING };
        let trial = Trial { calm: 960 * SECOND, ..trial(seed, 100, 10, &hazards) };
        let outcome = run(&trial);
        let figures = &outcome.figures;
        println!(
            "seed {seed}: {} right, {} astray, {} + {} lost, {} abandoned, {} of {} reads failed, {} destroyed",
            figures.right,
            figures.astray,
            figures.lost,
            figures.lost_parted,
            figures.abandoned,
            figures.reads_failed,
            figures.reads,
            figures.destroyed
        );
        assert_eq!(outcome.violation, None, "seed {seed}, {} faults", trial.plan.len());
        assert!(figures.right > 500 && figures.read_right > 100, "seed {seed}: much was asked");
    }
}

#[test]
fn the_same_trial_gives_the_same_run() {
    let first = trial(7, 60, 5, &WEARING);
    let (one, other) = (run(&first), run(&first));
    assert_eq!((one.figures.trace, one.figures.events), (other.figures.trace, other.figures.events));
    assert_ne!(one.figures.trace, run(&Trial { plan: Vec::new(), ..first }).figures.trace);
}

/// All nodes do this.
fn corrupted(world: &mut World<Overlay>, adversary: impl Fn() -> Adversary) {
    world.nodes().for_each(|node| world.corrupt(node, adversary()));
}

#[test]
fn a_wrong_root_is_noticed() {
    let quiet = trial(11, 60, 5, &Hazards::default());
    assert_eq!(run(&quiet).violation, None);
    let outcome = quiet.run_with(
        |world| {
            let liar = world.id(5);
            let lies = move |action: Action| match action {
                Action::Reply { request, reply: Reply::Located { hops, .. } } => {
                    vec![Action::Reply { request, reply: Reply::Located { root: liar, hops } }]
                }
                other => vec![other],
            };
            corrupted(world, || Box::new(lies));
        },
        |_| true,
    );
    assert!(violation(&outcome).contains("asked for the root of"), "{}", violation(&outcome));
}

#[test]
fn lookups_that_nobody_answers_are_noticed() {
    let quiet = trial(12, 60, 5, &Hazards::default());
    let gives_up = |action: Action| match action {
        Action::Reply { request, reply: Reply::Located { .. } } => {
            vec![Action::Reply { request, reply: Reply::Unavailable }]
        }
        other => vec![other],
    };
    let outcome = quiet.run_with(|world| corrupted(world, || Box::new(gives_up)), |_| true);
    assert!(violation(&outcome).contains("were answered by nobody"), "{}", violation(&outcome));
    let is_reply = |action: &Action| matches!(action, Action::Reply { reply: Reply::Located { .. }, .. });
    let silent = move |action: Action| if is_reply(&action) { vec![] } else { vec![action] };
    let outcome = quiet.run_with(|world| corrupted(world, || Box::new(silent)), |_| true);
    assert!(violation(&outcome).contains("has no answer to a lookup"), "{}", violation(&outcome));
}

#[test]
fn reads_of_other_bytes_and_of_nothing_are_noticed() {
    let quiet = trial(13, 60, 5, &Hazards::default());
    let answered = |quiet: &Trial, with: fn() -> Reply| {
        let adversary = move |action: Action| match action {
            Action::Reply { request, reply: Reply::Found { .. } } => vec![Action::Reply { request, reply: with() }],
            other => vec![other],
        };
        quiet.run_with(|world| corrupted(world, || Box::new(adversary)), |_| true)
    };
    let outcome = answered(&quiet, || Reply::Found { value: bytes::Bytes::from_static(b"other"), version: 0 });
    assert!(violation(&outcome).contains("read other bytes"), "{}", violation(&outcome));
    let outcome = answered(&quiet, || Reply::Absent);
    assert!(violation(&outcome).contains("is absent"), "{}", violation(&outcome));
}

/// Two nodes near each other say nothing to each other, not even through others, who see nothing wrong with either: all keys
/// have their roots and copies, and only the leaf sets of the two are not what they should be.
#[test]
fn leaf_sets_that_stay_wrong_are_noticed() {
    // So long that each is bound to have compared leaf sets with the other, in vain: one of 24 a turn, twice a minute.
    let quiet = Trial { calm: 960 * SECOND, ..trial(15, 60, 40, &Hazards::default()) };
    assert_eq!(run(&quiet).violation, None);
    let mut shunning = Vec::new();
    let outcome = quiet.run_with(
        |world| {
            let mut order: Vec<(Id, usize)> = world.nodes().map(|node| (world.id(node), node)).collect();
            order.sort_unstable();
            shunning = vec![order[20].1, order[26].1];
            for (node, shunned) in [(order[20].1, order[26].0), (order[26].1, order[20].0)] {
                let shuns = move |action: Action| match &action {
                    Action::Send { to, .. } if *to == shunned => vec![],
                    Action::Send { message: Message { body: Body::Relay(relay, _), .. }, .. }
                        if relay.to == shunned =>
                    {
                        vec![]
                    }
                    _ => vec![action],
                };
                world.corrupt(node, Box::new(shuns));
            }
        },
        |_| true,
    );
    let told = violation(&outcome);
    assert!(told.starts_with("2 leaf sets are wrong although all has been quiet: "), "{told}");
    for (node, shunned) in [(shunning[0], shunning[1]), (shunning[1], shunning[0])] {
        assert!(told.contains(&format!("node {node} lacks [{shunned}], holds ")), "{told}");
    }
}

/// A node that comes back in the last second is not in everybody's leaf set when that is looked at, and need not be.
#[test]
fn who_has_just_come_back_is_not_missed() {
    let quiet = Trial { calm: 960 * SECOND, ..trial(16, 60, 5, &Hazards::default()) };
    let down = FaultKind::Down { node: 7, wiped: false };
    let lasting = Some(quiet.lasting + quiet.calm - SECOND);
    let late = Trial { plan: vec![PlannedFault { at: 0, lasting, kind: down }], ..quiet };
    assert_eq!(run(&late).violation, None);
}

/// Of two that have just come back one is known and the nearer one not yet: the known one is held beyond where a set that
/// has both would end, and is none of those that a set without either has.
#[test]
fn one_that_has_just_come_back_may_be_held_while_another_is_not_yet_known() {
    let quiet = Trial { calm: 960 * SECOND, ..trial(17, 60, 5, &Hazards::default()) };
    let ids = Founding::new(quiet.seed, quiet.nodes as usize, Parameters::DEFAULT).ids();
    let mut order: Vec<(Id, u32)> = ids.into_iter().zip(0..).collect();
    order.sort_unstable();
    // Seen from the 20th: the second clockwise, and the thirteenth, where a side has room for twelve.
    let back = |place: usize, millis_before_the_end: u64| {
        let lasting = Some(quiet.lasting + quiet.calm - millis_before_the_end * MILLISECOND);
        PlannedFault { at: 0, lasting, kind: FaultKind::Down { node: order[place].1, wiped: false } }
    };
    let late = Trial { plan: vec![back(22, 30), back(33, 100_000)], ..quiet.clone() };
    assert_eq!(run(&late).violation, None);
}

fn without_upkeep(action: Action) -> Vec<Action> {
    let Action::Send { message, .. } = &action else { return vec![action] };
    match message.body {
        Body::RangeDigest(_) | Body::RangeAgreed | Body::RangeListing(_) => vec![],
        _ => vec![action],
    }
}

/// Copies that do not come back are noticed; and of the faults, one is named that takes a copy away.
#[test]
fn copies_that_do_not_come_back_are_noticed_and_the_fault_is_found() {
    let hazards = Hazards { sessions: Some(Spell::exponential(1_200 * SECOND)), loss: 10_000, ..Hazards::default() };
    let broken = Trial { calm: 1_200 * SECOND, lookups: 1.0, ..trial(14, 40, 5, &hazards) };
    let fails = |plan: &[PlannedFault]| {
        let trial = Trial { plan: plan.to_vec(), ..broken.clone() };
        let outcome = trial.run_with(|world| corrupted(world, || Box::new(without_upkeep)), |_| true);
        violation(&outcome).contains("copies of 3")
    };
    assert!(broken.plan.len() > 3, "{} faults", broken.plan.len());
    assert!(fails(&broken.plan));
    let shrunk = shrink(broken.plan.clone(), 60, fails);
    assert!(shrunk.is_minimal);
    assert!(matches!(&shrunk.least[..], [PlannedFault { kind: FaultKind::Down { .. }, .. }]), "{:?}", shrunk.least);
}

/// Breaks when it starts anew while it cannot hear its peer: a defect that needs two faults at once.
#[test]
fn the_two_faults_that_uncover_a_defect_together_are_found_among_many() {
    let hazards = Hazards {
        sessions: Some(Spell::exponential(60 * SECOND)),
        gaps: Some(Spell::exponential(5 * SECOND)),
        loss: 1_000,
        sleeps: 60,
        slow_links: 30,
        clocks: 5,
        disks: 5,
        ..Hazards::default()
    };
    let mut plan = draw(21, 3, 600 * SECOND, &hazards);
    // Whatever else silences node 0 or starts node 2 anew would do as well.
    let is_alike =
        |kind: &FaultKind| matches!(kind, FaultKind::Down { node: 0 | 2, .. } | FaultKind::Asleep { node: 0 | 2 });
    plan.retain(|fault| !is_alike(&fault.kind) && !matches!(fault.kind, FaultKind::ClockStep { .. }));
    let block = fault(300, Some(30), FaultKind::Blocked { from: 0, to: 2, both_ways: false });
    let wipe = fault(310, Some(5), FaultKind::Down { node: 2, wiped: true });
    plan.extend([block.clone(), wipe.clone()]);
    plan.sort_by_key(|fault| fault.at);
    assert!(plan.len() > 60, "{} faults", plan.len());
    // The planted defect: node 2 takes an empty disk and silence of node 0 for the founding of the ring.
    let fails = |plan: &[PlannedFault]| {
        let (mut world, ids, _) = three(plan.to_vec());
        world.run_for(322 * SECOND);
        world.store(2).iter().count() < 20 && heard(&world, 2, ids[0]) == 0
    };
    let shrunk = shrink(plan, 1_000, fails);
    assert!(shrunk.is_minimal);
    assert_eq!(shrunk.least, [block, wipe]);
    println!("{} tries", shrunk.tries);
}
