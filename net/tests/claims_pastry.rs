//! Goal: C02 to C07 (C01 is in `id`, C08 and C09 in `claims_churn`): routes end at the live node nearest to the key, in few
//! hops and by short ways, at a cost that hardly grows, however nodes join and die.
//! Method: whole overlays in virtual time; roots and leaf sets are compared with a sort of all live nodes, never with
//! what the nodes believe. Seeds are fixed and printed.

use net::id::Id;
use net::limits::{LEAF_SET_EXCHANGE, SECOND};
use net::machine::{Action, Command, Metric, Micros, Reply, RequestId};
use net::overlay::Overlay;
use net::ring::Parameters;
use net::sim::{Dice, Founding, NodeIndex, Weather, World, leaf_set_faults, live_root};
use net::wire::{Body, Message};
use std::collections::BTreeMap;
use std::sync::OnceLock;

const HALF: usize = 12;

/// Hops of correct answers, and how many were wrong or missing.
#[derive(Debug, Default)]
struct Routes {
    hops: Vec<u8>,
    /// Of each that left its node: time on the way to the root, and the time that the straight way takes.
    delays: Vec<(f64, f64)>,
    wrong: usize,
    unanswered: usize,
}

impl Routes {
    /// Mean of the delays by those of the straight ways.
    fn stretch(&self) -> f64 {
        let sum = |pick: fn(&(f64, f64)) -> f64| self.delays.iter().map(pick).sum::<f64>();
        sum(|delay| delay.0) / sum(|delay| delay.1)
    }

    fn mean(&self) -> f64 {
        self.hops.iter().map(|hops| f64::from(*hops)).sum::<f64>() / self.hops.len() as f64
    }
}

/// Routes `count` questions from random live nodes to random keys, and compares each answer with brute force.
fn route(world: &mut World<Overlay>, dice: &mut Dice, count: usize) -> Routes {
    let live = world.live_ids();
    let mut asked: Vec<(NodeIndex, RequestId, Id, Micros)> = Vec::new();
    for _ in 0..count {
        let node = world.index(live[dice.below(live.len())]).unwrap();
        let target = dice.id();
        let request = world.command(node, Command::Locate { target });
        asked.push((node, request, target, world.now()));
        world.run_for(5_000);
    }
    world.run_for(20 * SECOND);
    let mut routes = Routes::default();
    for (node, request, target, at) in asked {
        let taken = world.replied_at(node, request).map_or(0, |replied| replied - at);
        match world.take_reply(node, request) {
            Some(Reply::Located { root, hops }) if Some(root) == live_root(&live, target) => {
                routes.hops.push(hops);
                let root = world.index(root).unwrap();
                if root != node {
                    let straight = world.latency(node, root);
                    // The answer comes straight.
                    routes.delays.push((taken.saturating_sub(straight) as f64, straight as f64));
                }
            }
            Some(Reply::Located { .. }) => routes.wrong += 1,
            _ => routes.unanswered += 1,
        }
    }
    routes
}

/// A ring of `count` nodes that have all started at once and found each other.
fn settled(seed: u64, count: usize) -> World<Overlay> {
    let mut world = Founding::new(seed, count, Parameters::DEFAULT).world(seed, Weather::FAIR);
    assert!(
        world.run_until(120 * SECOND, |world| leaf_set_faults(world, HALF) == 0),
        "seed {seed}: {} of {count} leaf sets are wrong",
        leaf_set_faults(&world, HALF)
    );
    world
}

fn routes_reach_the_root(count: usize, questions: usize) {
    let seed = 0xc02 + count as u64;
    println!("seed {seed}, {count} nodes");
    judge_roots(count, questions, &route_and_count(seed, count, questions));
}

/// The routes, and how often a root was reached.
fn route_and_count(seed: u64, count: usize, questions: usize) -> (Routes, u64) {
    let mut world = settled(seed, count);
    let rooted = world.metric(Metric::Rooted);
    let routes = route(&mut world, &mut Dice::new(seed), questions);
    (routes, world.metric(Metric::Rooted) - rooted)
}

fn judge_roots(count: usize, questions: usize, (routes, rooted): &(Routes, u64)) {
    assert_eq!((routes.wrong, routes.unanswered), (0, 0), "{count} nodes");
    assert_eq!(*rooted, questions as u64, "each question is delivered once");
}

/// 10,000 routes among 1,000 nodes, which C02 and C03 look at.
fn in_a_thousand() -> &'static (Routes, u64) {
    static ROUTES: OnceLock<(Routes, u64)> = OnceLock::new();
    ROUTES.get_or_init(|| {
        println!("seed {}, 1,000 nodes", 0xc03);
        route_and_count(0xc03, 1_000, 10_000)
    })
}

#[test]
fn claim_02_routes_end_at_the_nearest_live_node() {
    for count in [1, 2, 50] {
        routes_reach_the_root(count, 10_000);
    }
    judge_roots(1_000, 10_000, in_a_thousand());
}

#[test]
#[ignore = "slow: 5,000 nodes"]
fn claim_02_routes_end_at_the_nearest_live_node_of_5000() {
    routes_reach_the_root(5_000, 10_000);
}

fn hops_are_few(count: usize, routes: &Routes) {
    assert_eq!((routes.wrong, routes.unanswered), (0, 0));
    let log16 = (count as f64).log2() / 4.0;
    let many = routes.hops.iter().filter(|hops| f64::from(**hops) > log16.ceil() + 1.0).count();
    println!("{count} nodes: mean {:.3} hops, log16 {log16:.3}, {many} of 10,000 over", routes.mean());
    assert!(routes.mean() <= log16);
    assert!(many <= 10, "99.9 % are within one hop of the logarithm");
}

#[test]
fn claim_03_hops_grow_with_the_logarithm() {
    hops_are_few(1_000, &in_a_thousand().0);
}

#[test]
#[ignore = "slow: 10,000 nodes"]
fn claim_03_hops_grow_with_the_logarithm_at_10000() {
    let seed = 0xc03 + 10_000;
    println!("seed {seed}, 10,000 nodes");
    hops_are_few(10_000, &route_and_count(seed, 10_000, 10_000).0);
}

/// A settled ring of nodes that route by their tables alone, some minutes old; each node is given to `prepare`.
fn by_tables(seed: u64, count: usize, prepare: impl Fn(&mut World<Overlay>, NodeIndex)) -> World<Overlay> {
    let founding = Founding::new(seed, count, Parameters::DEFAULT);
    let mut world = World::new(seed, Weather::FAIR, founding.trust(), 0);
    for id in founding.ids() {
        let node = world.add(id);
        world.start(node, founding.overlay(id, seed, Vec::new()).by_table_alone());
        prepare(&mut world, node);
    }
    world.run_for(180 * SECOND);
    assert_eq!(leaf_set_faults(&world, HALF), 0);
    world
}

fn drops(is_dropped: impl Fn(&Body) -> bool + 'static) -> Box<dyn FnMut(Action) -> Vec<Action>> {
    Box::new(move |action| match action {
        Action::Send { message: Message { body, .. }, .. } if is_dropped(&body) => vec![],
        other => vec![other],
    })
}

/// Nodes whose tables are what the ring document's order makes them: rows are neither told nor compared.
#[test]
fn claim_04_tables_of_near_nodes_and_the_control_with_random_ones() {
    let seed = 0xc04;
    println!("seed {seed}");
    let mut near = by_tables(seed, 1_000, |_, _| {});
    let routes = route(&mut near, &mut Dice::new(seed), 2_000);
    drop(near);
    let mut random = by_tables(seed, 1_000, |world, node| {
        world.corrupt(node, drops(|body| matches!(body, Body::RowRequest(_) | Body::Row(_))));
    });
    let control = route(&mut random, &mut Dice::new(seed), 2_000);
    println!("delay stretch {:.2} by the table alone, {:.2} with random entries", routes.stretch(), control.stretch());
    assert_eq!((routes.wrong, routes.unanswered), (0, 0));
    assert!(routes.stretch() < 2.0);
    assert!(control.stretch() > 2.0, "the control must fail");
}

fn stretch_is_small(count: usize) {
    let seed = 0xc04 + count as u64;
    println!("seed {seed}, {count} nodes");
    let mut world = settled(seed, count);
    world.run_for(60 * SECOND);
    let routes = route(&mut world, &mut Dice::new(seed), 4_000);
    println!("delay stretch {:.3}, mean {:.3} hops", routes.stretch(), routes.mean());
    assert_eq!((routes.wrong, routes.unanswered), (0, 0));
    assert!(routes.stretch() <= 1.3);
}

#[test]
fn claim_04_the_short_way_is_hardly_longer_than_the_straight_one() {
    stretch_is_small(400);
}

#[test]
#[ignore = "slow: 10,000 nodes"]
fn claim_04_the_short_way_is_hardly_longer_than_the_straight_one_at_10000() {
    stretch_is_small(10_000);
}

/// 600 nodes, a fifth of whom went ten minutes ago, so that their neighbours have found them dead and the rest knows nothing;
/// each that is left is given to `prepare`.
fn routes_where_a_fifth_is_away(prepare: impl Fn(&mut World<Overlay>, NodeIndex)) -> Routes {
    let seed = 0xc04a;
    println!("seed {seed}");
    let (mut world, mut dice) = (settled(seed, 600), Dice::new(seed));
    while world.live_ids().len() > 480 {
        world.kill(dice.below(600));
    }
    world.run_for(600 * SECOND);
    for node in world.nodes() {
        prepare(&mut world, node);
    }
    let routes = route(&mut world, &mut dice, 2_000);
    println!("delay stretch {:.3}, mean {:.3} hops", routes.stretch(), routes.mean());
    assert_eq!((routes.wrong, routes.unanswered), (0, 0));
    routes
}

#[test]
fn claim_04_the_short_way_stays_short_where_a_fifth_is_away() {
    assert!(routes_where_a_fifth_is_away(|_, _| {}).stretch() <= 1.6);
}

/// The control: of two copies that a question leaves its origin in, the second is lost.
#[test]
fn claim_04_control_one_copy_alone_waits_for_those_that_are_away() {
    let routes = routes_where_a_fifth_is_away(|world, node| {
        let mut sent = BTreeMap::new();
        world.corrupt(
            node,
            Box::new(move |action| match &action {
                Action::Send { message: Message { body: Body::Route(route), .. }, .. } if route.hops == 1 => {
                    let times = sent.entry(route.question).or_insert(0);
                    *times += 1;
                    if *times == 2 { vec![] } else { vec![action] }
                }
                _ => vec![action],
            }),
        );
    });
    assert!(routes.stretch() > 1.9);
}

/// Messages a node and second of a ring at rest, ten minutes old, and the most routing-table entries of a node. Counted over
/// several rounds of upkeep, which all nodes of a new ring have at much the same times.
fn at_rest(seed: u64, count: usize, prepare: impl Fn(&mut World<Overlay>, NodeIndex)) -> (f64, usize) {
    let mut world = settled(seed, count);
    for node in world.nodes() {
        prepare(&mut world, node);
    }
    world.run_for(600 * SECOND);
    let before = world.messages();
    world.run_for(1_200 * SECOND);
    let rate = (world.messages() - before) as f64 / count as f64 / 1_200.0;
    let entries = world.nodes().filter_map(|node| world.machine(node)).map(|machine| machine.status().routing_entries);
    (rate, entries.max().unwrap_or(0))
}

fn upkeep_hardly_grows(small: usize, large: usize) {
    let seed = 0xc05;
    println!("seed {seed}");
    let [(few, _), (many, entries)] = [small, large].map(|count| at_rest(seed, count, |_, _| {}));
    println!("{few:.3} messages a node and second at {small} nodes, {many:.3} at {large}; at most {entries} entries");
    assert!(many <= 1.5 * few);
    // 15 columns in each of the rows that a ring of this size fills, and some beyond.
    let rows = ((large as f64).log2() / 4.0).ceil() as usize;
    assert!(entries <= 15 * (rows + 1));
    assert!(many <= 0.3, "idle control is cheap");
}

#[test]
fn claim_05_upkeep_hardly_grows_with_the_ring() {
    upkeep_hardly_grows(64, 256);
}

#[test]
#[ignore = "slow: 4,096 nodes"]
fn claim_05_upkeep_hardly_grows_with_the_ring_to_4096() {
    upkeep_hardly_grows(256, 4_096);
}

/// The control: nodes that ask a share of the ring for something now and then.
#[test]
fn claim_05_control_asking_a_share_of_the_ring_grows() {
    let rates = [64, 256].map(|count| {
        let ids = Founding::new(0xc05, count, Parameters::DEFAULT).ids();
        let asks_many = move |world: &mut World<Overlay>, node: NodeIndex| {
            let everybody = ids.clone();
            world.corrupt(
                node,
                Box::new(move |action| match action {
                    Action::Send { to, message } if matches!(message.body, Body::LeafSet(_)) => {
                        let ask = |(nth, id): (usize, &Id)| {
                            let body = Body::RowRequest(net::wire::RowRequest { row: 0 });
                            (id != &to)
                                .then_some(Action::Send { to: *id, message: Message { request: nth as u64, body } })
                        };
                        let questions = everybody.iter().step_by(64).enumerate().filter_map(ask);
                        questions.chain([Action::Send { to, message: message.clone() }]).collect()
                    }
                    other => vec![other],
                }),
            );
        };
        at_rest(0xc05, count, asks_many).0
    });
    println!("{rates:?} messages a node and second");
    assert!(rates[1] > 1.5 * rates[0], "the measure would not notice");
}

#[test]
fn claim_06_two_hundred_join_through_one_contact() {
    let seed = 0xc06;
    println!("seed {seed}");
    let founding = Founding::new(seed, 300, Parameters::DEFAULT);
    let ids = founding.ids();
    let mut world = World::new(seed, Weather::FAIR, founding.trust(), 0);
    let nodes: Vec<NodeIndex> = ids.iter().map(|id| world.add(*id)).collect();
    for node in &nodes[..100] {
        world.start(*node, founding.overlay(ids[*node], seed, Vec::new()));
    }
    assert!(world.run_until(120 * SECOND, |world| leaf_set_faults(world, HALF) == 0));
    for node in &nodes[100..] {
        world.start(*node, founding.overlay(ids[*node], seed, vec![ids[0]]));
    }
    let begun = world.now();
    let done = world.run_until(300 * SECOND, |world| leaf_set_faults(world, HALF) == 0);
    println!("exact after {} s", (world.now() - begun) / SECOND);
    assert!(done, "{} leaf sets are wrong after 5 minutes", leaf_set_faults(&world, HALF));
}

#[test]
fn claim_07_a_tenth_dies_at_once() {
    let seed = 0xc07;
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    let mut world = settled(seed, 500);
    let before = route(&mut world, &mut dice, 5_000);
    let mut killed = 0;
    while killed < 50 {
        let node = dice.below(500);
        if world.is_alive(node) {
            world.kill(node);
            killed += 1;
        }
    }
    world.run_for(2 * LEAF_SET_EXCHANGE);
    let after = route(&mut world, &mut dice, 5_000);
    println!("hops before {:.3}, after {:.3}", before.mean(), after.mean());
    assert_eq!((after.wrong, after.unanswered), (0, 0));
    assert!(after.mean() <= before.mean() * 1.02);
}

#[test]
fn claim_07_half_a_leaf_set_less_one_dies_side_by_side() {
    let seed = 0xc07b;
    println!("seed {seed}");
    let mut world = settled(seed, 200);
    let mut live = world.live_ids();
    live.sort();
    let dead = &live[50..50 + HALF - 1];
    for id in dead {
        let node = world.index(*id).unwrap();
        world.kill(node);
    }
    world.run_for(2 * LEAF_SET_EXCHANGE);
    // Every key that the dead were the roots of has another root, and all find it.
    let rest = world.live_ids();
    let mut dice = Dice::new(seed);
    for id in dead {
        for from in 0..20 {
            let node = world.index(rest[dice.below(rest.len())]).unwrap();
            let reply = world.ask(node, Command::Locate { target: *id });
            let Some(Reply::Located { root, .. }) = reply else { panic!("no answer from {from}: {reply:?}") };
            assert_eq!(Some(root), live_root(&rest, *id));
        }
    }
    assert_eq!(route(&mut world, &mut dice, 1_000).wrong, 0);
    assert!(world.run_until(240 * SECOND, |world| leaf_set_faults(world, HALF) == 0), "whole again in five minutes");
}

/// The control of C06 and C07: when nobody pings or gossips, leaf sets stay wrong.
#[test]
fn claim_07_control_without_repair_leaf_sets_stay_wrong() {
    let mut world = settled(0xc07c, 100);
    for node in world.nodes() {
        let is_repair = |body: &Body| matches!(body, Body::Ping(_) | Body::LeafSet(_));
        world.corrupt(
            node,
            Box::new(move |action| match action {
                Action::Send { message, .. } if is_repair(&message.body) => vec![],
                other => vec![other],
            }),
        );
    }
    world.kill(5);
    world.run_for(2 * LEAF_SET_EXCHANGE);
    assert!(leaf_set_faults(&world, HALF) > 0, "the checker would not notice");
}
