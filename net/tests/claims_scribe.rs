//! Goal: C29 to C32, and what else Scribe promises: the tree is the routes turned round, everybody in it gets each
//! publication once, it mends itself, nobody is overloaded, and an anycast finds a taker if there is one.
//! Method: whole overlays in virtual time. Trees are read out of all nodes from outside, both as parents and as children see
//! them; routes are recorded from the messages that nodes send; copies are counted where applications get them. Seeds are
//! fixed and printed.

use bytes::Bytes;
use net::id::Id;
use net::limits::{CHILDREN_MAX, GROUPS_MAX, HEARTBEAT, PUBLICATION_BYTES_MAX, SECOND};
use net::machine::{Action, Command, Metric, Reply, RequestId};
use net::overlay::Overlay;
use net::ring::{MemberState, Parameters};
use net::sim::{Dice, Founding, NodeIndex, Weather, World, leaf_set_faults, live_closest, live_root};
use net::wire::Body;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const HALF: usize = 12;

/// Edges of a tree or of routes: from a node to the next one towards the root.
type Edges = BTreeSet<(Id, Id)>;

/// A ring that has settled.
fn settled(seed: u64, count: usize, weather: Weather) -> (Founding, World<Overlay>) {
    println!("seed {seed}, {count} nodes");
    let founding = Founding::new(seed, count, Parameters::DEFAULT);
    let mut world = founding.world(seed, weather);
    assert!(world.run_until(180 * SECOND, |world| leaf_set_faults(world, HALF) == 0), "seed {seed}: no ring");
    (founding, world)
}

/// So many different live nodes.
fn draw(world: &World<Overlay>, dice: &mut Dice, count: usize) -> Vec<NodeIndex> {
    let mut nodes: Vec<NodeIndex> = world.nodes().filter(|node| world.is_alive(*node)).collect();
    (0..count).map(|_| nodes.swap_remove(dice.below(nodes.len()))).collect()
}

fn subscribe(world: &mut World<Overlay>, group: Id, nodes: &[NodeIndex]) {
    for node in nodes {
        world.command(*node, Command::Subscribe { group });
    }
}

fn kill(world: &mut World<Overlay>, ids: &[Id]) {
    for id in ids {
        let node = world.index(*id).unwrap();
        world.kill(node);
    }
}

/// A group's edges as the children see them, and as the parents do.
fn tree(world: &World<Overlay>, group: Id) -> (Edges, Edges) {
    let (mut upward, mut downward) = (Edges::new(), Edges::new());
    for node in world.nodes() {
        let place = world.machine(node).and_then(|machine| machine.place_in_tree(group));
        let Some((parent, children)) = place else { continue };
        upward.extend(parent.map(|parent| (world.id(node), parent)));
        downward.extend(children.into_iter().map(|child| (child, world.id(node))));
    }
    (upward, downward)
}

/// Live nodes that have children in a group.
fn interior(world: &World<Overlay>, group: Id) -> Vec<Id> {
    let parents: BTreeSet<Id> = tree(world, group).1.into_iter().map(|(_, parent)| parent).collect();
    parents.into_iter().filter(|id| world.index(*id).is_some_and(|node| world.is_alive(node))).collect()
}

/// Publishes from a node and lets it spread; returns the reply and how many copies each node's application got.
fn publish(
    world: &mut World<Overlay>,
    from: NodeIndex,
    group: Id,
    payload: &Bytes,
) -> (Option<Reply>, BTreeMap<NodeIndex, usize>) {
    let request = world.command(from, Command::Publish { group, payload: payload.clone() });
    world.run_for(15 * SECOND);
    (world.take_reply(from, request), copies(world, group, world.id(from), payload))
}

/// What the applications got since they were last asked; nothing else may be among it.
fn copies(world: &mut World<Overlay>, group: Id, publisher: Id, payload: &Bytes) -> BTreeMap<NodeIndex, usize> {
    let mut copies = BTreeMap::new();
    for node in world.nodes() {
        for published in world.take_published(node) {
            assert_eq!(published, (group, publisher, payload.clone()), "something else was published");
            *copies.entry(node).or_default() += 1;
        }
    }
    copies
}

/// One copy for each of these that lives.
fn once_each(world: &World<Overlay>, nodes: &[NodeIndex]) -> BTreeMap<NodeIndex, usize> {
    nodes.iter().filter(|node| world.is_alive(**node)).map(|node| (*node, 1)).collect()
}

/// Makes all nodes lose what `is_lost` picks from among what they send.
fn lose(world: &mut World<Overlay>, is_lost: impl Fn(&Body) -> bool + Copy + 'static) {
    for node in world.nodes() {
        world.corrupt(
            node,
            Box::new(move |action| match action {
                Action::Send { message, .. } if is_lost(&message.body) => vec![],
                other => vec![other],
            }),
        );
    }
}

/// Has all nodes note the hops of routed questions, by target.
fn record_routes(world: &mut World<Overlay>) -> Rc<RefCell<BTreeMap<Id, Edges>>> {
    let recorded: Rc<RefCell<BTreeMap<Id, Edges>>> = Rc::default();
    for node in world.nodes() {
        let (from, recorder) = (world.id(node), recorded.clone());
        let note = move |action| {
            if let Action::Send { to, message } = &action
                && let Body::Route(route) = &message.body
            {
                recorder.borrow_mut().entry(route.target).or_default().insert((from, *to));
            }
            vec![action]
        };
        world.corrupt(node, Box::new(note));
    }
    recorded
}

/// Trees of five groups of 200, and the routes of their subscribers.
fn trees_and_routes(seed: u64, count: usize, children_max: usize) -> (Vec<(Edges, Edges)>, Vec<Edges>) {
    println!("seed {seed}, {count} nodes");
    let founding = Founding::new(seed, count, Parameters::DEFAULT);
    let mut world = World::new(seed, Weather::FAIR, founding.trust(), founding.ring.parameters.grace_s);
    for id in founding.ids() {
        let node = world.add(id);
        let mut machine = founding.overlay(id, seed, Vec::new());
        machine.set_children_max(children_max);
        world.start(node, machine);
    }
    assert!(world.run_until(180 * SECOND, |world| leaf_set_faults(world, HALF) == 0), "seed {seed}: no ring");
    // Static: nobody comes or goes, and the tables have come to rest.
    world.run_for(600 * SECOND);
    let mut dice = Dice::new(seed);
    let recorded = record_routes(&mut world);
    let (mut trees, mut routes) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let group = dice.id();
        let members = draw(&world, &mut dice, 200);
        // The first questions may still change routing tables, where somebody who speaks takes the place of hearsay.
        for _ in 0..2 {
            recorded.borrow_mut().clear();
            for node in &members {
                world.command(*node, Command::Locate { target: group });
            }
            world.run_for(2 * SECOND);
        }
        subscribe(&mut world, group, &members);
        world.run_for(if children_max < 100 { 2 * HEARTBEAT } else { 5 * SECOND });
        trees.push(tree(&world, group));
        routes.push(recorded.borrow().get(&group).cloned().unwrap_or_default());
        // Everybody in the tree was asked for, and nobody is the root but the live node nearest.
        let root = live_root(&world.live_ids(), group);
        let parentless = |node: &NodeIndex| {
            world.machine(*node).unwrap().place_in_tree(group).is_some_and(|(parent, _)| parent.is_none())
        };
        let roots: Vec<Id> = world.nodes().filter(parentless).map(|node| world.id(node)).collect();
        assert_eq!(roots, Vec::from_iter(root), "seed {seed}");
    }
    (trees, routes)
}

#[test]
fn claim_29_the_tree_is_the_routes_turned_round() {
    let (trees, routes) = trees_and_routes(0xc29, 1_000, CHILDREN_MAX);
    for ((upward, downward), routes) in trees.into_iter().zip(routes) {
        println!("{} edges", routes.len());
        assert!(routes.len() >= 199, "there are routes");
        let differing = |tree: &Edges| tree.symmetric_difference(&routes).copied().collect::<Vec<_>>();
        assert_eq!(differing(&upward), []);
        assert_eq!(differing(&downward), []);
    }
}

/// The control of C29: a tree in which parents send children below each other is another one, and the comparison sees it.
#[test]
fn claim_29_control_a_tree_with_handovers_is_another() {
    let (trees, routes) = trees_and_routes(0xc29, 300, 4);
    assert!(trees.into_iter().zip(routes).all(|((upward, _), routes)| upward != routes));
}

/// A ring of 1,000 with 500 subscribers to one group.
fn five_hundred(seed: u64, weather: Weather) -> (World<Overlay>, Dice, Id, Vec<NodeIndex>) {
    let (_, mut world) = settled(seed, 1_000, weather);
    let mut dice = Dice::new(seed);
    let group = dice.id();
    let members = draw(&world, &mut dice, 500);
    subscribe(&mut world, group, &members);
    world.run_for(20 * SECOND);
    (world, dice, group, members)
}

/// Kills a tenth of the interior nodes, the root left alone.
fn kill_a_tenth_of_the_interior(world: &mut World<Overlay>, dice: &mut Dice, group: Id) {
    let mut inner = interior(world, group);
    inner.retain(|id| Some(*id) != live_root(&world.live_ids(), group));
    let count = inner.len().div_ceil(10);
    println!("{count} of {} interior nodes die", inner.len());
    assert!(count >= 5);
    for _ in 0..count {
        let id = inner.swap_remove(dice.below(inner.len()));
        kill(world, &[id]);
    }
}

#[test]
fn claim_30_each_subscriber_gets_one_copy_and_again_after_a_tenth_died() {
    let (mut world, mut dice, group, members) = five_hundred(0xc30, Weather::FAIR);
    for _ in 0..3 {
        let (from, payload) = (draw(&world, &mut dice, 1)[0], dice.bytes(100));
        let (reply, copies) = publish(&mut world, from, group, &payload);
        assert!(matches!(reply, Some(Reply::Done)), "{reply:?}");
        assert_eq!(copies, once_each(&world, &members));
    }
    for round in 0..3 {
        kill_a_tenth_of_the_interior(&mut world, &mut dice, group);
        world.run_for(2 * HEARTBEAT);
        let (from, payload) = (draw(&world, &mut dice, 1)[0], dice.bytes(100));
        let (_, copies) = publish(&mut world, from, group, &payload);
        assert_eq!(copies, once_each(&world, &members), "round {round}: after two upkeep periods");
    }
}

/// The control of C30: when nobody asks for a place any more, those below the dead stay cut off.
#[test]
fn claim_30_control_without_repair_subscribers_stay_cut_off() {
    let (mut world, mut dice, group, members) = five_hundred(0xc30, Weather::FAIR);
    lose(&mut world, |body| matches!(body, Body::Subscribe(_)));
    kill_a_tenth_of_the_interior(&mut world, &mut dice, group);
    world.run_for(2 * HEARTBEAT);
    let from = draw(&world, &mut dice, 1)[0];
    let (_, copies) = publish(&mut world, from, group, &Bytes::from_static(b"who hears this?"));
    assert!(copies.len() < once_each(&world, &members).len(), "the count would not notice");
}

/// How many of 20 × 200 copies are missing, or too many, when a message in twenty is lost and another comes twice.
fn copies_wrong_in_bad_weather(seed: u64, spoil: impl FnOnce(&mut World<Overlay>)) -> usize {
    let weather = Weather { loss_ppm: 50_000, duplicates_ppm: 50_000, ..Weather::ROUGH };
    let (_, mut world) = settled(seed, 300, Weather::FAIR);
    let mut dice = Dice::new(seed);
    let group = dice.id();
    let members = draw(&world, &mut dice, 200);
    subscribe(&mut world, group, &members);
    world.network().weather = weather;
    world.uses_codec = true;
    world.run_for(3 * HEARTBEAT);
    spoil(&mut world);
    let mut wrong = 0;
    for _ in 0..20 {
        let (from, payload) = (draw(&world, &mut dice, 1)[0], dice.bytes(50));
        let (reply, copies) = publish(&mut world, from, group, &payload);
        assert!(matches!(reply, Some(Reply::Done)), "{reply:?}");
        wrong += members.iter().filter(|node| copies.get(node) != Some(&1)).count();
        wrong += copies.keys().filter(|node| !members.contains(node)).count();
    }
    wrong
}

#[test]
fn claim_30_one_copy_each_although_messages_are_lost_and_doubled() {
    assert_eq!(copies_wrong_in_bad_weather(0xc30a, |_| {}), 0);
}

/// The control: if copies are not sent again, the weather is seen.
#[test]
fn claim_30_control_without_repetition_copies_are_missing() {
    let wrong = copies_wrong_in_bad_weather(0xc30a, |world| {
        for node in world.nodes() {
            let mut sent = BTreeSet::new();
            let once = move |action| match &action {
                Action::Send { message, .. }
                    if matches!(message.body, Body::Publication(..)) && !sent.insert(message.request) =>
                {
                    vec![]
                }
                _ => vec![action],
            };
            world.corrupt(node, Box::new(once));
        }
    });
    println!("{wrong} of 4,000 copies are wrong");
    assert!(wrong > 100);
}

/// Kills the root of a group of 200 in a ring of 500; a minute later one publishes. Who misses it?
fn missing_a_minute_after_the_root_died(seed: u64, spoil: impl FnOnce(&mut World<Overlay>)) -> usize {
    let (_, mut world) = settled(seed, 500, Weather::FAIR);
    let mut dice = Dice::new(seed);
    let mut missing = 0;
    let groups: Vec<(Id, Vec<NodeIndex>)> = (0..5).map(|_| (dice.id(), draw(&world, &mut dice, 200))).collect();
    for (group, members) in &groups {
        subscribe(&mut world, *group, members);
    }
    world.run_for(2 * HEARTBEAT);
    spoil(&mut world);
    // Not only the root, but the next in line too.
    for (at, (group, members)) in groups.iter().enumerate() {
        let dead = live_closest(&world.live_ids(), *group, 1 + at % 2);
        kill(&mut world, &dead);
        world.run_for(60 * SECOND);
        let from = draw(&world, &mut dice, 1)[0];
        let payload = dice.bytes(20);
        let (_, copies) = publish(&mut world, from, *group, &payload);
        let expected = once_each(&world, members);
        assert!(copies.iter().all(|(node, count)| *count == 1 && expected.contains_key(node)));
        missing += expected.len() - copies.len();
    }
    missing
}

#[test]
fn claim_31_publishing_works_a_minute_after_the_root_died() {
    assert_eq!(missing_a_minute_after_the_root_died(0xc31, |_| {}), 0);
}

/// The control of C31: a new root that nobody asks for a place has nobody to publish to.
#[test]
fn claim_31_control_without_repair_nobody_hears_the_new_root() {
    let spoil = |world: &mut World<Overlay>| lose(world, |body| matches!(body, Body::Subscribe(_)));
    assert!(missing_a_minute_after_the_root_died(0xc31, spoil) > 100);
}

/// What was asked to be published while the root is dying is not lost on its way to the root.
#[test]
fn a_publication_waits_for_the_new_root() {
    let (_, mut world) = settled(31, 200, Weather::FAIR);
    let mut dice = Dice::new(31);
    for _ in 0..10 {
        let group = dice.id();
        let from = draw(&world, &mut dice, 1)[0];
        let root = live_root(&world.live_ids(), group).unwrap();
        if world.id(from) == root {
            continue;
        }
        kill(&mut world, &[root]);
        let reply = world.ask(from, Command::Publish { group, payload: Bytes::from_static(b"now") });
        assert!(matches!(reply, Some(Reply::Done)), "{reply:?}");
    }
}

#[test]
fn a_node_that_joins_nearer_becomes_the_root() {
    let seed = 32;
    println!("seed {seed}");
    let founding = Founding::new(seed, 200, Parameters::DEFAULT);
    let mut dice = Dice::new(seed);
    let group = dice.id();
    let ids = founding.ids();
    // The three nearest start when the others have been at work for a while.
    let late = live_closest(&ids, group, 3);
    let mut world = World::new(seed, Weather::FAIR, founding.trust(), 0);
    for id in &ids {
        let node = world.add(*id);
        if !late.contains(id) {
            world.start(node, founding.overlay(*id, seed, Vec::new()));
        }
    }
    world.run_for(120 * SECOND);
    let members = draw(&world, &mut dice, 100);
    subscribe(&mut world, group, &members);
    world.run_for(HEARTBEAT);
    for id in late.iter().rev() {
        let node = world.index(*id).unwrap();
        world.start(node, founding.overlay(*id, seed, Vec::new()));
        world.run_for(60 * SECOND);
        let place = world.machine(node).unwrap().place_in_tree(group);
        assert!(place.is_some_and(|(parent, children)| parent.is_none() && !children.is_empty()));
        let (from, payload) = (draw(&world, &mut dice, 1)[0], dice.bytes(10));
        let (_, copies) = publish(&mut world, from, group, &payload);
        assert_eq!(copies, once_each(&world, &members));
    }
}

/// The largest share of all edges that one node bears as a parent, in per cent, of 1,000 groups whose sizes follow Zipf in a
/// ring of 500, where the names of the 40 largest lie nearest to one node.
fn largest_share(children_max: usize) -> f64 {
    let (seed, count) = (0xc32, 500);
    println!("seed {seed}, {count} nodes, at most {children_max} children");
    let founding = Founding::new(seed, count, Parameters::DEFAULT);
    let mut world = World::new(seed, Weather::FAIR, founding.trust(), 0);
    for id in founding.ids() {
        let node = world.add(id);
        let mut machine = founding.overlay(id, seed, Vec::new());
        machine.set_children_max(children_max);
        world.start(node, machine);
    }
    assert!(world.run_until(180 * SECOND, |world| leaf_set_faults(world, HALF) == 0), "seed {seed}: no ring");
    let mut dice = Dice::new(seed);
    let crowded = world.id(0);
    let mut groups = Vec::new();
    for rank in 1..=1_000usize {
        let mut group = dice.id();
        if rank <= 40 {
            group.0[..16].copy_from_slice(&crowded.0[..16]);
        }
        let members = draw(&world, &mut dice, (count / rank).max(2));
        subscribe(&mut world, group, &members);
        groups.push((group, members));
    }
    world.run_for(10 * HEARTBEAT);
    let borne: Vec<usize> = world.nodes().map(|node| world.machine(node).unwrap().status().group_children).collect();
    let (all, most) = (borne.iter().sum::<usize>(), borne.iter().copied().max().unwrap());
    let share = most as f64 * 100.0 / all as f64;
    println!("{all} edges, at most {most} on one node: {share:.2} %");
    for (group, members) in groups.iter().step_by(37) {
        let (from, payload) = (draw(&world, &mut dice, 1)[0], dice.bytes(10));
        let (_, copies) = publish(&mut world, from, *group, &payload);
        assert_eq!(copies, once_each(&world, members));
    }
    share
}

#[test]
fn claim_32_no_node_bears_a_twentieth_of_the_edges() {
    assert!(largest_share(CHILDREN_MAX) <= 5.0);
}

#[test]
fn claim_32_control_without_the_bottleneck_remover_one_node_bears_more() {
    assert!(largest_share(usize::MAX) > 5.0);
}

/// The applications of `takers` accept what comes next, those of all others decline; returns the reply, who accepted, and
/// how many were asked.
fn anycast(
    world: &mut World<Overlay>,
    from: NodeIndex,
    group: Id,
    takers: &[NodeIndex],
) -> (Option<Reply>, Vec<Id>, usize) {
    let request = world.command(from, Command::Anycast { group, payload: Bytes::from_static(b"who?") });
    let (mut accepted, mut asked) = (Vec::new(), 0);
    for _ in 0..600 {
        world.run_for(SECOND / 10);
        for node in world.nodes() {
            for (of, solicitation, payload) in world.take_solicited(node) {
                assert_eq!((of, payload), (group, Bytes::from_static(b"who?")));
                let accepts = takers.contains(&node);
                world.command(node, Command::Accept { solicitation, accepts });
                accepted.extend(accepts.then(|| world.id(node)));
                asked += 1;
            }
        }
        if let Some(reply) = world.take_reply(from, request) {
            return (Some(reply), accepted, asked);
        }
    }
    (None, accepted, asked)
}

#[test]
fn an_anycast_finds_a_taker_if_there_is_one_and_says_so_if_there_is_none() {
    let (_, mut world) = settled(33, 200, Weather::FAIR);
    world.uses_codec = true;
    let mut dice = Dice::new(33);
    let mut asked_in_all = 0;
    for round in 0..30 {
        let group = dice.id();
        let from = draw(&world, &mut dice, 1)[0];
        let mut members = draw(&world, &mut dice, 1 + round / 2);
        subscribe(&mut world, group, &members);
        world.run_for(10 * SECOND);
        members.retain(|node| *node != from);
        // Nobody takes it: everybody was asked, once.
        let (reply, _, asked) = anycast(&mut world, from, group, &[]);
        assert!(matches!(reply, Some(Reply::Nobody)), "round {round}: {reply:?}");
        assert_eq!(asked, members.len(), "round {round}");
        // One takes it, whichever that is.
        if let Some(taker) = members.last().copied() {
            let (reply, accepted, asked) = anycast(&mut world, from, group, &[taker]);
            assert!(matches!(reply, Some(Reply::Accepted { by }) if by == world.id(taker)), "round {round}: {reply:?}");
            assert_eq!(accepted, [world.id(taker)]);
            assert!(asked <= members.len());
            // All would: the first that is asked does.
            let (reply, accepted, asked) = anycast(&mut world, from, group, &members);
            assert!(matches!(reply, Some(Reply::Accepted { by }) if accepted == [by]), "round {round}: {reply:?}");
            asked_in_all += asked;
            assert_eq!(asked, 1);
        }
    }
    println!("{asked_in_all} asked where all would accept");
    // A group that nobody is in.
    let (reply, _, asked) = anycast(&mut world, 3, dice.id(), &[]);
    assert!(matches!(reply, Some(Reply::Nobody)) && asked == 0, "{reply:?}");
}

#[test]
fn an_anycast_goes_round_the_dead_and_through_bad_weather() {
    let (_, mut world) = settled(34, 200, Weather::FAIR);
    let mut dice = Dice::new(34);
    let group = dice.id();
    let members = draw(&world, &mut dice, 60);
    subscribe(&mut world, group, &members);
    world.run_for(20 * SECOND);
    world.network().weather = Weather::ROUGH;
    let mut found = 0;
    for round in 0..20 {
        let inner = interior(&world, group);
        kill(&mut world, &[inner[dice.below(inner.len())]]);
        let from = draw(&world, &mut dice, 1)[0];
        let takers: Vec<NodeIndex> = members.iter().copied().filter(|node| *node != from).collect();
        let (reply, accepted, _) = anycast(&mut world, from, group, &takers);
        assert!(accepted.len() <= 1, "round {round}: taken twice");
        assert!(!matches!(reply, Some(Reply::Nobody)), "round {round}: there are takers");
        found += usize::from(matches!(reply, Some(Reply::Accepted { .. })));
    }
    println!("{found} of 20 found");
    assert!(found >= 19, "only one that dies with the message loses it");
}

/// The control of the anycasts: if the message goes nowhere, the asker is told that it does not know.
#[test]
fn control_an_anycast_that_is_lost_is_not_nobody() {
    let (_, mut world) = settled(35, 50, Weather::FAIR);
    let group = Dice::new(35).id();
    subscribe(&mut world, group, &[1, 2, 3, 4]);
    world.run_for(20 * SECOND);
    lose(&mut world, |body| matches!(body, Body::AnycastAnswer(_)));
    let (reply, accepted, _) = anycast(&mut world, 7, group, &[1, 2, 3, 4]);
    assert_eq!(accepted.len(), 1);
    assert!(matches!(reply, Some(Reply::Unavailable)), "{reply:?}");
}

#[test]
fn nothing_is_left_of_a_group_that_all_have_left() {
    let (_, mut world) = settled(36, 200, Weather::ROUGH);
    let mut dice = Dice::new(36);
    let groups: Vec<(Id, Vec<NodeIndex>)> = (0..10).map(|_| (dice.id(), draw(&world, &mut dice, 40))).collect();
    for (group, members) in &groups {
        subscribe(&mut world, *group, members);
    }
    world.run_for(2 * HEARTBEAT);
    let statuses = |world: &World<Overlay>| -> (usize, usize) {
        let all = world.nodes().map(|node| world.machine(node).unwrap().status());
        all.fold((0, 0), |(groups, children), it| (groups + it.groups, children + it.group_children))
    };
    let (places, children) = statuses(&world);
    assert!(places >= 400 && children >= 390, "{places} places, {children} children");
    for (group, members) in &groups {
        for node in members {
            world.command(*node, Command::Unsubscribe { group: *group });
        }
    }
    world.run_for(6 * HEARTBEAT);
    assert_eq!(statuses(&world), (0, 0));
}

#[test]
fn who_slept_restarted_or_was_parted_is_in_the_tree_again() {
    let seed = 37;
    let (founding, mut world) = settled(seed, 100, Weather::FAIR);
    let mut dice = Dice::new(seed);
    let group = dice.id();
    let members = draw(&world, &mut dice, 50);
    subscribe(&mut world, group, &members);
    world.run_for(HEARTBEAT);
    // A third of the ring sleeps for ten minutes; of those awake everybody gets everything meanwhile.
    let sleepers = draw(&world, &mut dice, 33);
    for node in &sleepers {
        world.sleep(*node, 600 * SECOND);
    }
    world.run_for(300 * SECOND);
    let awake: Vec<NodeIndex> = members.iter().copied().filter(|node| !sleepers.contains(node)).collect();
    let from = world.nodes().find(|node| !sleepers.contains(node)).unwrap();
    let (_, copies) = publish(&mut world, from, group, &Bytes::from_static(b"night"));
    assert_eq!(copies, once_each(&world, &awake));
    world.run_for(400 * SECOND);
    world.nodes().for_each(|node| drop(world.take_published(node)));
    let (_, copies) = publish(&mut world, from, group, &Bytes::from_static(b"morning"));
    assert_eq!(copies, once_each(&world, &members));
    // Interior nodes restart, and know nothing of their children; their applications do not subscribe again.
    let restarted = interior(&world, group);
    for id in restarted.iter().take(5) {
        let node = world.index(*id).unwrap();
        world.start(node, founding.overlay(*id, seed + 1, Vec::new()));
    }
    world.run_for(2 * HEARTBEAT + 10 * SECOND);
    let is_still = |node: &NodeIndex| !restarted[..5].contains(&world.id(*node));
    let still: Vec<NodeIndex> = members.iter().copied().filter(is_still).collect();
    let (_, copies) = publish(&mut world, from, group, &Bytes::from_static(b"noon"));
    assert_eq!(copies, once_each(&world, &still));
    // Two halves, two roots; then one again.
    (0..50).for_each(|node| world.network().set_side(node, 1));
    world.run_for(300 * SECOND);
    let side = |node: NodeIndex| node < 50;
    for from in [10, 80] {
        let half: Vec<NodeIndex> = still.iter().copied().filter(|node| side(*node) == side(from)).collect();
        let (_, copies) = publish(&mut world, from, group, &Bytes::from_static(b"half"));
        assert_eq!(copies, once_each(&world, &half));
    }
    (0..50).for_each(|node| world.network().set_side(node, 0));
    assert!(world.run_until(900 * SECOND, |world| leaf_set_faults(world, HALF) == 0));
    world.run_for(2 * HEARTBEAT);
    let (_, copies) = publish(&mut world, from, group, &Bytes::from_static(b"whole"));
    assert_eq!(copies, once_each(&world, &still));
}

#[test]
fn who_is_not_in_the_ring_document_is_nobodys_child_or_parent() {
    let (founding, mut world) = settled(38, 60, Weather::FAIR);
    let mut dice = Dice::new(38);
    let group = dice.id();
    let members: Vec<NodeIndex> = world.nodes().collect();
    subscribe(&mut world, group, &members);
    world.run_for(HEARTBEAT);
    let root = live_root(&world.live_ids(), group).unwrap();
    let parent = interior(&world, group).into_iter().find(|id| *id != root);
    let outcasts: Vec<Id> = [Some(root), parent].into_iter().flatten().collect();
    let newer = founding.amended(|ring| {
        for (member, id) in ring.members.iter_mut().zip(founding.ids()) {
            if outcasts.contains(&id) {
                member.state = MemberState::Dead;
            }
        }
    });
    world.command(0, Command::AdoptRing { document: newer.document() });
    world.run_for(300 * SECOND);
    for node in world.nodes().filter(|node| !outcasts.contains(&world.id(*node))) {
        let (parent, children) = world.machine(node).unwrap().place_in_tree(group).unwrap();
        assert!(parent.iter().chain(&children).all(|id| !outcasts.contains(id)));
    }
}

#[test]
fn bounds_hold_and_are_counted() {
    let (_, mut world) = settled(39, 20, Weather::FAIR);
    let mut dice = Dice::new(39);
    let payload = Bytes::from(vec![0; PUBLICATION_BYTES_MAX + 1]);
    let group = dice.id();
    assert!(matches!(world.ask(0, Command::Publish { group, payload: payload.clone() }), Some(Reply::Refused(_))));
    assert!(matches!(world.ask(0, Command::Anycast { group, payload: payload.clone() }), Some(Reply::Refused(_))));
    let payload = payload.slice(1..);
    assert!(
        matches!(world.ask(0, Command::Publish { group, payload }), Some(Reply::Done)),
        "nobody listens, and that is fine"
    );
    // A root of more groups than a node may be in.
    let root = world.id(5);
    let named = |number: usize| {
        let mut group = root;
        group.0[18..].copy_from_slice(&(number as u16).to_be_bytes());
        group
    };
    let requests: Vec<(NodeIndex, RequestId)> = (0..GROUPS_MAX + 100)
        .map(|number| {
            let node = if number < GROUPS_MAX { 6 } else { 7 };
            (node, world.command(node, Command::Subscribe { group: named(number) }))
        })
        .collect();
    world.run_for(20 * SECOND);
    for (node, request) in requests {
        assert!(matches!(world.take_reply(node, request), Some(Reply::Done)));
    }
    let full = world.machine(5).unwrap().status();
    assert_eq!(full.groups, GROUPS_MAX);
    assert!(world.metric(Metric::Dropped) >= 100);
    assert!(matches!(world.ask(6, Command::Subscribe { group: dice.id() }), Some(Reply::Busy)));
    // An answer to nothing is counted, no more.
    let unexpected = world.metric(Metric::Unexpected);
    assert!(matches!(world.ask(0, Command::Accept { solicitation: 1, accepts: true }), Some(Reply::Done)));
    assert_eq!(world.metric(Metric::Unexpected), unexpected + 1);
}
