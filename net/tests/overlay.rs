//! Goal: what the overlay does beside routing and storing: direct messages, ring documents that change, partitions,
//! sleep, and fairness to its bounds.
//! Method: whole overlays in virtual time, in fair and rough weather, some through the wire codec.

use bytes::Bytes;
use net::id::{Id, Key, Kind};
use net::limits::SECOND;
use net::machine::{Action, Actions, Command, Event, Machine, Metric, Reply};
use net::overlay::Overlay;
use net::ring::{MemberState, Parameters, RingError};
use net::sim::{Dice, Fault, Founding, Weather, World, leaf_set_faults, live_root};
use net::wire::{
    Body, Fetch, LeafSetGossip, ListingRole, Message, Place, Presence, Purpose, RangeDigest, RangeListing, Route, Row,
    Scope,
};

fn ring(seed: u64, count: usize, weather: Weather) -> (Founding, World<Overlay>) {
    println!("seed {seed}, {count} nodes");
    let founding = Founding::new(seed, count, Parameters::DEFAULT);
    let mut world = founding.world(seed, weather);
    world.uses_codec = true;
    world.run_for(60 * SECOND);
    (founding, world)
}

#[test]
fn a_message_is_delivered_once_and_answered() {
    let (_, mut world) = ring(1, 5, Weather { loss_ppm: 150_000, duplicates_ppm: 200_000, ..Weather::ROUGH });
    let (mut answered, mut delivered) = (0, 0);
    for round in 0..60u8 {
        let to = world.id(3);
        let request = world.command(0, Command::Tell { to, payload: Bytes::from(vec![round; 10]) });
        for _ in 0..40 {
            world.run_for(SECOND / 2);
            for (from, conversation, payload) in world.take_delivered(3) {
                assert_eq!((from, payload), (world.id(0), Bytes::from(vec![round; 10])));
                delivered += 1;
                world.command(3, Command::Answer { to: from, conversation, payload: Bytes::from(vec![round + 1]) });
            }
        }
        if let Some(Reply::Answered { payload }) = world.take_reply(0, request) {
            assert_eq!(payload, Bytes::from(vec![round + 1]));
            answered += 1;
        }
    }
    println!("{delivered} delivered, {answered} answered");
    assert!(delivered <= 60, "a repeated question is not delivered again");
    assert!(answered >= 55);
    // To a node that is down, and to one that is not in the ring.
    world.kill(3);
    let to = world.id(3);
    assert!(matches!(world.ask(0, Command::Tell { to, payload: Bytes::new() }), Some(Reply::Unavailable)));
    let to = Id([1; 20]);
    assert!(matches!(world.ask(0, Command::Tell { to, payload: Bytes::new() }), Some(Reply::Unavailable)));
}

#[test]
fn a_new_ring_document_reaches_everybody_and_shuts_out_the_dead() {
    let (founding, mut world) = ring(2, 20, Weather::FAIR);
    let newer = founding.amended(|ring| ring.members[7].state = MemberState::Dead);
    let forged = Founding::new(99, 20, Parameters::DEFAULT).amended(|_| {});
    let reply = world.ask(0, Command::AdoptRing { document: forged.document() });
    assert!(matches!(reply, Some(Reply::BadRing(RingError::BadSignature))), "{reply:?}");
    assert!(matches!(world.ask(0, Command::AdoptRing { document: newer.document() }), Some(Reply::Done)));
    let outcast = founding.ids()[7];
    let everybody = world.run_until(180 * SECOND, |world| {
        let has_it = |node| world.machine(node).is_some_and(|machine| machine.status().epoch == 2);
        world.nodes().all(|node| world.id(node) == outcast || has_it(node))
    });
    assert!(everybody, "the document is passed on");
    for node in world.nodes().filter(|node| *node != 0 && world.id(*node) != outcast) {
        assert!(world.adopted(node).is_some_and(|roster| roster.ring().epoch == 2), "the driver is told");
    }
    world.run_for(60 * SECOND);
    for node in world.nodes().filter(|node| world.id(*node) != outcast) {
        assert!(!world.machine(node).unwrap().status().leaf_set.contains(&outcast));
    }
    // The older document does not come back.
    assert!(matches!(world.ask(0, Command::AdoptRing { document: founding.document() }), Some(Reply::Done)));
    assert_eq!(world.machine(0).unwrap().status().epoch, 2);
}

#[test]
fn a_member_of_a_newer_document_is_let_in() {
    let (founding, mut world) = ring(12, 10, Weather::FAIR);
    let newer = founding.amended(|ring| {
        let mut member = ring.members[0].clone();
        member.nonce = [0xee; 16];
        ring.members.push(member);
    });
    let id = *newer.ids().last().unwrap();
    let node = world.add(id);
    world.start(node, newer.overlay(id, 12, Vec::new()));
    assert!(world.run_until(180 * SECOND, |world| leaf_set_faults(world, 12) == 0), "it is in every leaf set");
    assert!(world.nodes().all(|node| world.machine(node).unwrap().status().epoch == 2));
    // Somebody whom no document names is not listened to, however often he asks.
    let stranger = Founding::new(13, 1, Parameters::DEFAULT);
    let node = world.add(stranger.ids()[0]);
    world.start(node, founding.overlay(stranger.ids()[0], 13, Vec::new()));
    world.run_for(120 * SECOND);
    for other in world.nodes().filter(|other| *other != node) {
        assert!(!world.machine(other).unwrap().status().leaf_set.contains(&stranger.ids()[0]));
    }
}

#[test]
fn a_parted_ring_heals() {
    let (_, mut world) = ring(3, 60, Weather::FAIR);
    for node in 0..30 {
        world.network().set_side(node, 1);
    }
    world.run_for(1_800 * SECOND);
    assert!(leaf_set_faults(&world, 12) > 0, "there are two rings");
    for node in 0..30 {
        world.network().set_side(node, 0);
    }
    assert!(world.run_until(900 * SECOND, |world| leaf_set_faults(world, 12) == 0), "one ring within 15 minutes");
}

#[test]
fn gossip_does_not_revive_the_dead() {
    let (_, mut world) = ring(8, 30, Weather::FAIR);
    let dead = world.id(9);
    // One node gossips for ever that it has the dead one in its leaf set.
    world.corrupt(
        3,
        Box::new(move |action| match action {
            Action::Send { to, mut message } => {
                if let Body::LeafSet(gossip) = &mut message.body {
                    gossip.members.push(dead);
                }
                vec![Action::Send { to, message }]
            }
            other => vec![other],
        }),
    );
    world.kill(9);
    world.run_for(120 * SECOND);
    for _ in 0..60 {
        world.run_for(20 * SECOND);
        for node in world.nodes().filter(|node| *node != 9) {
            assert!(!world.machine(node).unwrap().status().leaf_set.contains(&dead));
        }
    }
}

#[test]
fn a_node_that_slept_joins_anew() {
    let (_, mut world) = ring(4, 30, Weather::FAIR);
    world.sleep(5, 3_600 * SECOND);
    world.run_for(600 * SECOND);
    let sleeper = world.id(5);
    for node in world.nodes().filter(|node| *node != 5) {
        assert!(!world.machine(node).unwrap().status().leaf_set.contains(&sleeper), "it is missed");
    }
    world.run_for(3_000 * SECOND);
    assert!(world.run_until(180 * SECOND, |world| leaf_set_faults(world, 12) == 0));
}

#[test]
fn rough_weather_loses_no_acknowledged_block() {
    let (_, mut world) = ring(5, 40, Weather { loss_ppm: 50_000, ..Weather::ROUGH });
    let mut dice = Dice::new(5);
    let expiry = world.now() / SECOND + 86_400;
    let mut stored = Vec::new();
    for _ in 0..100 {
        let value = dice.bytes(200);
        let key = Key::of(Kind::Content, &value);
        let node = dice.below(40);
        if let Some(Reply::Stored { .. }) = world.ask(node, Command::Insert { key, value, expiry }) {
            stored.push(key);
        }
    }
    println!("{} of 100 stored, {} rerouted", stored.len(), world.metric(Metric::Rerouted));
    assert!(stored.len() >= 95);
    for key in stored {
        let node = dice.below(40);
        let reply = world.ask(node, Command::Lookup { key });
        assert!(matches!(reply, Some(Reply::Found { .. })), "{reply:?}");
    }
}

#[test]
fn one_node_alone_works() {
    let (_, mut world) = ring(6, 1, Weather::FAIR);
    let value = Bytes::from_static(b"alone");
    let key = Key::of(Kind::Content, &value);
    let expiry = world.now() / SECOND + 86_400;
    let reply = world.ask(0, Command::Insert { key, value: value.clone(), expiry });
    assert!(matches!(reply, Some(Reply::Stored { copies: 1, .. })), "{reply:?}");
    assert!(matches!(world.ask(0, Command::Lookup { key }), Some(Reply::Found { value: found, .. }) if found == value));
    let absent = Key::of(Kind::Content, b"never stored");
    assert!(matches!(world.ask(0, Command::Lookup { key: absent }), Some(Reply::Absent)));
    assert!(matches!(world.ask(0, Command::GetSigned { key: Key::of(Kind::Head, b"x") }), Some(Reply::Absent)));
    assert!(matches!(world.ask(0, Command::Status), Some(Reply::Status(status)) if status.ready && status.synced));
}

#[test]
fn five_nodes_start_one_by_one_and_survive_kills() {
    // As `epost up` does: processes appear over a second or two, and one or all are killed and come back.
    let seed = 7;
    let founding = Founding::new(seed, 5, Parameters::DEFAULT);
    let ids = founding.ids();
    let mut world = World::new(seed, Weather::FAIR, founding.trust(), founding.ring.parameters.grace_s);
    for id in &ids {
        let node = world.add(*id);
        world.start(node, founding.overlay(*id, seed, Vec::new()));
        world.run_for(SECOND / 3);
    }
    assert!(world.run_until(20 * SECOND, |world| leaf_set_faults(world, 12) == 0), "ready within 20 s");
    let mut dice = Dice::new(seed);
    let expiry = world.now() / SECOND + 86_400;
    let mut keys = Vec::new();
    for round in 0..40 {
        if round == 15 {
            world.kill(1);
        }
        let value = dice.bytes(100);
        let key = Key::of(Kind::Content, &value);
        let node = [0, 2, 3, 4][dice.below(4)];
        let reply = world.ask(node, Command::Insert { key, value, expiry });
        assert!(matches!(reply, Some(Reply::Stored { copies: 2.., .. })), "round {round}: {reply:?}");
        keys.push(key);
    }
    for node in 0..5 {
        world.kill(node);
    }
    for (node, id) in ids.iter().enumerate() {
        world.start(node, founding.overlay(*id, 99, Vec::new()));
    }
    assert!(world.run_until(20 * SECOND, |world| leaf_set_faults(world, 12) == 0));
    for (at, key) in keys.iter().enumerate() {
        let reply = world.ask(at % 5, Command::Lookup { key: *key });
        assert!(matches!(reply, Some(Reply::Found { .. })), "{at}: {reply:?}");
    }
}

#[test]
fn a_client_is_answered_and_has_no_place() {
    let founding =
        Founding::new(12, 2, Parameters::DEFAULT).amended(|ring| ring.members[1].state = MemberState::Client);
    let (node, client, stranger) = (founding.ids()[0], founding.ids()[1], Id([7; 20]));
    let mut overlay = founding.overlay(node, 1, Vec::new());
    let mut out = Actions::default();
    overlay.handle(World::<Overlay>::GENESIS, Event::Boot, &mut out);
    assert!(overlay.status().ready, "the client is nobody to wait for");
    let mut say = |from: Id, body: Body| {
        out.drain().for_each(drop);
        let event = Event::Message { from, message: Message { request: 9, body } };
        overlay.handle(World::<Overlay>::GENESIS + SECOND, event, &mut out);
        assert!(overlay.status().leaf_set.is_empty() && overlay.status().routing_entries == 0);
        out.drain().filter(|action| !matches!(action, Action::Arm { .. })).collect::<Vec<_>>()
    };
    let is_refused = |actions: &[Action]| matches!(actions, [Action::Metric { metric: Metric::Unexpected, amount: 1 }]);

    let scope = Scope { ring: founding.ring.ring, epoch: founding.ring.epoch };
    let value = Bytes::from_static(b"a block");
    let key = Key::of(Kind::Content, &value);
    let asked = [
        Body::Fetch(Fetch { scope, key }),
        Body::Insert(Place { scope, key, expiry: 1_800_000_000 }, value.clone()),
        Body::Tell(value),
    ];
    for body in asked {
        let actions = say(client, body.clone());
        let is_begun = |action: &Action| {
            matches!(action, Action::Storage { .. } | Action::Compute { .. } | Action::Deliver { .. })
        };
        assert!(matches!(&actions[..], [action] if is_begun(action)), "{actions:?}");
        assert!(is_refused(&say(stranger, body)), "a stranger is not heard");
    }
    let presence = Presence { ready: true, epoch: scope.epoch, booted: 1 };
    let actions = say(client, Body::Ping(presence));
    assert!(
        matches!(&actions[..], [Action::Send { to, message }] if *to == client && matches!(message.body, Body::Pong(_)))
    );

    let gossip = LeafSetGossip { presence, members: vec![client], departed: vec![node], wants_answer: true };
    let route = Route { target: node, origin: client, question: 1, hops: 0, purpose: Purpose::Join };
    let digest =
        RangeDigest { scope, from: node, to: client, count: 0, content: [0; 16], leases: [0; 16], newness: None };
    let listing =
        RangeListing { scope, from: node, to: client, entries: vec![], role: ListingRole::Orphans, newness: None };
    let others = [
        Body::Pong(presence),
        Body::LeafSet(gossip),
        Body::Row(Row { row: 0, entries: vec![client], round_trips: None }),
        Body::Route(route),
        Body::HopAck,
        Body::RangeDigest(digest),
        Body::RangeListing(listing),
        Body::RingDocument(founding.document()),
    ];
    for body in others {
        let actions = say(client, body.clone());
        assert!(is_refused(&actions), "{body:?}: {actions:?}");
    }
}

/// Pastry knows that the root lives, for it speaks with it through others; the block goes to the next nearest.
#[test]
fn a_block_is_inserted_although_its_root_cannot_be_reached() {
    let (_, mut world) = ring(13, 30, Weather::FAIR);
    let mut dice = Dice::new(13);
    for _ in 0..10 {
        let value = dice.bytes(100);
        let key = Key::of(Kind::Content, &value);
        let root = live_root(&world.live_ids(), key.placement()).and_then(|id| world.index(id)).unwrap();
        let writer = (root + 1 + dice.below(29)) % 30;
        world.network().break_link(writer, root, Fault::Blocked);
        world.network().break_link(root, writer, Fault::Blocked);
        world.run_for(30 * SECOND);
        let expiry = world.now() / SECOND + 86_400;
        let reply = world.ask(writer, Command::Insert { key, value: value.clone(), expiry });
        assert!(matches!(reply, Some(Reply::Stored { .. })), "{reply:?}");
        let reply = world.ask(writer, Command::Lookup { key });
        assert!(matches!(&reply, Some(Reply::Found { value: found, .. }) if *found == value), "{reply:?}");
        world.network().mend_link(writer, root);
        world.network().mend_link(root, writer);
    }
}
