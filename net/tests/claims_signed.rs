//! Goal: C21 and C22 (C23 is in `certificates.rs`): signed blocks are verified by the replica, and the newest is read.
//! Method: one replica alone, fed with crafted messages; whole overlays in virtual time, with replicas that serve old
//! blocks, lose their disk, or are cut off. Seeds are fixed and printed.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use net::id::{Id, Key, Kind};
use net::limits::{FOUNDING, SECOND};
use net::machine::{Action, Actions, Command, ComputeJob, ComputeResult, Event, Machine, Micros, Reply, Stored};
use net::overlay::Overlay;
use net::past::block::{Refusal, encode_signed, verify};
use net::ring::{MemberState, Parameters};
use net::sim::{Founding, MemoryStore, NodeIndex, Weather, World};
use net::wire::{Body, Fetch, FetchAnswer, FetchOutcome, Message, Place, Scope, StoreAnswer, StoreOutcome};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

const NOW: Micros = 1_790_000_000 * SECOND;

fn signer(of: u8) -> SigningKey {
    SigningKey::from_bytes(&[of; 32])
}

fn key_of(signer: &SigningKey, kind: Kind) -> Key {
    Key::of(kind, &signer.verifying_key().to_bytes())
}

fn head(signer: &SigningKey, version: u64, body: &[u8]) -> Bytes {
    encode_signed(Kind::Head, &signer.verifying_key().to_bytes(), version, body, |m| signer.sign(m).to_bytes())
}

/// One replica alone: what it asks for is done at once.
struct Replica {
    founding: Founding,
    overlay: Overlay,
    store: MemoryStore,
    peer: Id,
}

impl Replica {
    fn new() -> Replica {
        let founding = Founding::new(21, 2, Parameters::DEFAULT);
        let ids = founding.ids();
        let mut replica = Replica {
            overlay: founding.overlay(ids[0], 1, Vec::new()),
            peer: ids[1],
            founding,
            store: MemoryStore::default(),
        };
        replica.handle(Event::Boot);
        replica
    }

    fn handle(&mut self, event: Event) -> Vec<Body> {
        let mut events = vec![event];
        let mut said = Vec::new();
        while let Some(event) = events.pop() {
            let mut out = Actions::default();
            self.overlay.handle(NOW, event, &mut out);
            for action in out.drain() {
                match action {
                    Action::Send { message, .. } => said.push(message.body),
                    Action::Storage { op, operation } => {
                        events.push(Event::Storage { op, result: self.store.perform(operation) });
                    }
                    Action::Compute { op, job: ComputeJob::Verify { key, value } } => {
                        let result = match verify(&key, &value, &self.founding.trust()) {
                            Ok(version) => ComputeResult::Verified { version },
                            Err(refusal) => ComputeResult::Refused(refusal),
                        };
                        events.push(Event::Compute { op, result });
                    }
                    _ => {}
                }
            }
        }
        said
    }

    /// Offers a block as a peer does, and returns the answer.
    fn offer(&mut self, scope: Scope, key: Key, value: Bytes) -> StoreOutcome {
        let place = Place { scope, key, expiry: NOW / SECOND + 1_000 };
        let message = Message { request: 5, body: Body::Store(place, value) };
        let said = self.handle(Event::Message { from: self.peer, message });
        let outcome = said.iter().find_map(|body| match body {
            Body::StoreAnswer(StoreAnswer { outcome }) => Some(*outcome),
            _ => None,
        });
        outcome.expect("a replica answers")
    }

    fn scope(&self) -> Scope {
        Scope { ring: self.founding.ring.ring, epoch: self.founding.ring.epoch }
    }
}

#[test]
fn claim_21_the_replica_itself_refuses() {
    let mut replica = Replica::new();
    let scope = replica.scope();
    let owner = signer(1);
    let key = key_of(&owner, Kind::Head);
    let block = head(&owner, 5, b"five");
    assert_eq!(replica.offer(scope, key, block.clone()), StoreOutcome::Durable);

    // A bad signature, a wrong key, and a block of another kind.
    let mut broken = block.to_vec();
    broken[50] ^= 1;
    let bad_signature = StoreOutcome::Refused(Refusal::BadSignature);
    assert_eq!(replica.offer(scope, key, Bytes::from(broken)), bad_signature);
    let wrong_name = StoreOutcome::Refused(Refusal::WrongName);
    assert_eq!(replica.offer(scope, key, head(&signer(2), 9, b"another's")), wrong_name);
    assert_eq!(replica.offer(scope, key_of(&owner, Kind::Identity), block.clone()), wrong_name);

    // An older version; the same version with other bytes; the same again; a newer one.
    assert_eq!(replica.offer(scope, key, head(&owner, 4, b"four")), StoreOutcome::Superseded(5));
    assert_eq!(replica.offer(scope, key, head(&owner, 5, b"cinq")), StoreOutcome::Superseded(5));
    assert_eq!(replica.offer(scope, key, block.clone()), StoreOutcome::Durable);
    assert_eq!(replica.store.get(&key).map(|stored| &stored.value), Some(&block));
    assert_eq!(replica.offer(scope, key, head(&owner, 6, b"six")), StoreOutcome::Durable);
    assert_eq!(replica.store.get(&key).map(|stored| stored.version), Some(6));

    // Another ring, and another epoch, whose quorums need not meet ours.
    let other_ring = Scope { ring: [9; 16], ..scope };
    assert_eq!(replica.offer(other_ring, key, head(&owner, 7, b"seven")), StoreOutcome::WrongScope(1));
    let other_epoch = Scope { epoch: 2, ..scope };
    assert_eq!(replica.offer(other_epoch, key, head(&owner, 7, b"seven")), StoreOutcome::WrongScope(1));
    assert_eq!(replica.store.get(&key).map(|stored| stored.version), Some(6));
}

#[test]
fn a_fresh_replica_does_not_claim_that_something_is_absent() {
    let mut replica = Replica::new();
    let fetch = Fetch { scope: replica.scope(), key: key_of(&signer(1), Kind::Head) };
    let message = Message { request: 6, body: Body::Fetch(fetch) };
    let said = replica.handle(Event::Message { from: replica.peer, message });
    let unknown = Body::FetchAnswer(FetchAnswer { outcome: FetchOutcome::Unknown }, Bytes::new());
    assert!(said.contains(&unknown), "{said:?}");
    // A peer that is not in the ring document is not answered at all.
    let message = Message { request: 7, body: Body::Fetch(fetch) };
    assert!(replica.handle(Event::Message { from: Id([3; 20]), message }).is_empty());
}

fn ring(seed: u64, count: usize, k_head: u8) -> (Founding, World<Overlay>) {
    println!("seed {seed}, {count} nodes, k_head {k_head}");
    let founding = Founding::new(seed, count, Parameters { k_head, ..Parameters::DEFAULT });
    let mut world = founding.world(seed, Weather::FAIR);
    world.run_for(60 * SECOND);
    (founding, world)
}

fn put(world: &mut World<Overlay>, node: NodeIndex, key: Key, value: Bytes) -> Option<Reply> {
    let expiry = world.now() / SECOND + 86_400;
    world.ask(node, Command::PutSigned { key, value, expiry })
}

fn get(world: &mut World<Overlay>, node: NodeIndex, key: Key) -> Option<Reply> {
    world.ask(node, Command::GetSigned { key })
}

fn version_read(world: &mut World<Overlay>, node: NodeIndex, key: Key) -> Option<u64> {
    match get(world, node, key) {
        Some(Reply::Found { version, .. }) => Some(version),
        _ => None,
    }
}

fn replicas(founding: &Founding, world: &World<Overlay>, key: Key) -> Vec<NodeIndex> {
    let ids = founding.ring.eligible(key.placement(), usize::from(founding.ring.parameters.k_head));
    ids.into_iter().map(|id| world.index(id).expect("a member")).collect()
}

/// Makes these replicas hold what they held at version 1.
fn roll_back(world: &mut World<Overlay>, nodes: &[NodeIndex], key: Key, old: &Bytes) {
    for node in nodes {
        let expiry = world.now() / SECOND + 86_400;
        world.store_mut(*node).tamper(key, Stored { version: 1, expiry, value: old.clone() });
    }
}

#[test]
fn claim_22_all_are_asked_and_the_newest_is_returned() {
    for (k_head, faults) in [(5, 1), (7, 2)] {
        let seed = 0xc22 + u64::from(k_head);
        let (founding, mut world) = ring(seed, 25, k_head);
        for of in 0..20 {
            let owner = signer(of);
            let key = key_of(&owner, Kind::Head);
            let (old, new) = (head(&owner, 1, b"old"), head(&owner, 2, b"new"));
            assert!(matches!(put(&mut world, 0, key, old.clone()), Some(Reply::Stored { .. })));
            assert!(matches!(put(&mut world, 1, key, new.clone()), Some(Reply::Stored { .. })));
            world.run_for(5 * SECOND);
            let replicas = replicas(&founding, &world, key);
            assert!(replicas.iter().all(|node| world.store(*node).get(&key).map(|s| s.version) == Some(2)));

            // Up to f serve the old one. All replicas are asked.
            let reader = usize::from(of) % 25;
            let asked = Rc::new(RefCell::new(BTreeSet::new()));
            let seen = asked.clone();
            world.corrupt(
                reader,
                Box::new(move |action| {
                    if let Action::Send { to, message: Message { body: Body::Fetch(_), .. } } = &action {
                        seen.borrow_mut().insert(*to);
                    }
                    vec![action]
                }),
            );
            roll_back(&mut world, &replicas[..faults], key, &old);
            assert_eq!(version_read(&mut world, reader, key), Some(2));
            let others = replicas.iter().filter(|node| **node != reader).count();
            assert_eq!(asked.borrow().len(), others, "all k_head were asked");
            world.reform(reader);
            // The stale ones were brought up to date by the read.
            world.run_for(5 * SECOND);
            assert!(replicas.iter().all(|node| world.store(*node).get(&key).map(|s| s.version) == Some(2)));

            // All serve the old one: nothing in the ring can tell, but the version read tells a device that has seen 2.
            roll_back(&mut world, &replicas, key, &old);
            assert_eq!(version_read(&mut world, reader, key), Some(1));
        }
    }
}

#[test]
fn an_older_write_is_superseded_and_one_liar_cannot_say_so() {
    let (founding, mut world) = ring(0x5109, 20, 5);
    let owner = signer(9);
    let key = key_of(&owner, Kind::Head);
    assert!(matches!(put(&mut world, 0, key, head(&owner, 7, b"seven")), Some(Reply::Stored { .. })));
    let older = put(&mut world, 3, key, head(&owner, 6, b"six"));
    assert!(matches!(older, Some(Reply::Superseded { version: 7 })), "{older:?}");
    // The same again is an acknowledged retry.
    assert!(matches!(put(&mut world, 3, key, head(&owner, 7, b"seven")), Some(Reply::Stored { .. })));
    let liar = replicas(&founding, &world, key)[0];
    world.corrupt(
        liar,
        Box::new(|action| match action {
            Action::Send { to, mut message } => {
                if let Body::StoreAnswer(answer) = &mut message.body {
                    answer.outcome = StoreOutcome::Superseded(u64::MAX);
                }
                vec![Action::Send { to, message }]
            }
            other => vec![other],
        }),
    );
    assert!(matches!(put(&mut world, 4, key, head(&owner, 8, b"eight")), Some(Reply::Stored { .. })));
}

#[test]
fn quorums_do_not_shrink_and_absence_needs_one() {
    let (founding, mut world) = ring(0x5110, 12, 5);
    let owner = signer(10);
    let key = key_of(&owner, Kind::Head);
    assert!(matches!(get(&mut world, 0, key), Some(Reply::Absent)));
    assert!(matches!(put(&mut world, 0, key, head(&owner, 1, b"one")), Some(Reply::Stored { copies: 4.., .. })));
    let replicas = replicas(&founding, &world, key);
    let reader = world.nodes().find(|node| !replicas.contains(node)).unwrap();
    world.kill(replicas[0]);
    assert!(matches!(put(&mut world, reader, key, head(&owner, 2, b"two")), Some(Reply::Stored { copies: 4, .. })));
    assert_eq!(version_read(&mut world, reader, key), Some(2));
    // Two of five down: no write, no read, however long they are gone; nobody stands in.
    world.kill(replicas[1]);
    world.run_for(1_200 * SECOND);
    let asked = world.now();
    assert!(matches!(put(&mut world, reader, key, head(&owner, 3, b"three")), Some(Reply::Unavailable)));
    assert!(matches!(get(&mut world, reader, key), Some(Reply::Unavailable)));
    assert!(world.now() - asked <= 10 * SECOND, "of peers found dead, five seconds are enough");
    // One is back, having missed version 2: the read finds it all the same.
    let id = world.id(replicas[0]);
    world.start(replicas[0], founding.overlay(id, 77, Vec::new()));
    world.run_for(30 * SECOND);
    assert!(version_read(&mut world, reader, key) >= Some(2));
}

#[test]
fn a_wiped_replica_counts_again_only_after_comparing_notes() {
    let (founding, mut world) = ring(0x5111, 5, 5);
    let owner = signer(11);
    let key = key_of(&owner, Kind::Head);
    assert!(matches!(put(&mut world, 0, key, head(&owner, 3, b"three")), Some(Reply::Stored { .. })));
    world.run_for(5 * SECOND);
    // One is wiped and started anew, cut off from the others: it has an empty disk and says so.
    let wiped = 2;
    let id = world.id(wiped);
    world.kill(wiped);
    world.wipe(wiped);
    world.network().set_side(wiped, 1);
    world.start(wiped, founding.overlay(id, 5, Vec::new()));
    world.run_for(60 * SECOND);
    assert!(!world.machine(wiped).unwrap().status().synced);
    let alone = get(&mut world, wiped, key);
    assert!(matches!(alone, Some(Reply::Unavailable)), "{alone:?}");
    // The ring is whole again: it fetches what it should hold.
    world.network().set_side(wiped, 0);
    let came_back = world.run_until(600 * SECOND, |world| {
        world.store(wiped).get(&key).is_some() && world.machine(wiped).unwrap().status().synced
    });
    assert!(came_back);
    assert_eq!(version_read(&mut world, wiped, key), Some(3));
}

/// A ring document that makes a node a holder must not let it speak of what it has never compared.
#[test]
fn a_new_holder_does_not_say_absent_before_comparing_notes() {
    let (founding, mut world) = ring(0x5112, 4, 3);
    let owner = signer(12);
    let key = key_of(&owner, Kind::Head);
    let [a, b, c] = replicas(&founding, &world, key)[..] else { panic!("three replicas") };
    let new = world.nodes().find(|node| ![a, b, c].contains(node)).unwrap();
    assert!(world.nodes().all(|node| world.machine(node).unwrap().status().synced));
    // Stored on two of three.
    world.network().set_side(c, 1);
    assert!(matches!(put(&mut world, a, key, head(&owner, 1, b"one")), Some(Reply::Stored { copies: 2, .. })));
    // One of the two is declared dead, the other cut off for a moment; the third has never had it.
    world.kill(b);
    world.network().set_side(c, 0);
    world.network().set_side(a, 1);
    assert!(world.store(c).get(&key).is_none());
    let dead = world.id(b);
    let newer = founding.amended(|ring| {
        let (_, host) = ring.node_ids().find(|(id, _)| *id == dead).unwrap();
        ring.members[host].state = MemberState::Dead;
    });
    for node in [c, new] {
        assert!(matches!(world.ask(node, Command::AdoptRing { document: newer.document() }), Some(Reply::Done)));
    }
    let read = get(&mut world, new, key);
    assert!(matches!(read, Some(Reply::Unavailable)), "{read:?}");
    // The one that has it is back, and learns of the new document: all know, the new holder too.
    world.network().set_side(a, 0);
    let replicated = world.run_until(900 * SECOND, |world| world.store(new).get(&key).is_some());
    assert!(replicated);
    assert_eq!(version_read(&mut world, new, key), Some(1));
}

/// Three of five holders are declared dead one after the other, and each that takes a place can reach the one holder that is
/// behind and the other newcomers, but neither of the two left: so it copies the old head. Then everybody is cut off from the
/// one that has the new one. Returns the version a reader is told, if any; and what it is told when the links are whole.
fn three_joins_from_a_stale_holder(are_bold: bool) -> (Option<u64>, Option<u64>) {
    let (founding, mut world) = ring(0x5113, 14, 5);
    let owner = signer(13);
    let key = key_of(&owner, Kind::Head);
    assert!(matches!(put(&mut world, 0, key, head(&owner, 1, b"old")), Some(Reply::Stored { .. })));
    world.run_for(SECOND);
    let holders = replicas(&founding, &world, key);
    let reader = world.nodes().find(|node| !holders.contains(node)).unwrap();
    let [a, b, c, keeper, stale] = holders[..] else { panic!("five replicas") };
    // The new head is acknowledged by four of five.
    world.network().set_side(stale, 1);
    assert!(matches!(put(&mut world, reader, key, head(&owner, 2, b"new")), Some(Reply::Stored { copies: 4, .. })));
    world.kill(a);
    world.kill(b);
    world.kill(c);
    world.network().set_side(keeper, 2);
    world.network().set_side(stale, 0);
    let mut amended = founding.clone();
    let mut newcomers = Vec::new();
    for dead in [a, b, c] {
        let dead = world.id(dead);
        amended = amended.amended(|ring| {
            let (_, host) = ring.node_ids().find(|(id, _)| *id == dead).unwrap();
            ring.members[host].state = MemberState::Dead;
        });
        let document = amended.document();
        let adopters: Vec<NodeIndex> = world.nodes().filter(|node| world.is_alive(*node)).collect();
        for node in adopters {
            assert!(matches!(world.ask(node, Command::AdoptRing { document: document.clone() }), Some(Reply::Done)));
        }
        newcomers = replicas(&amended, &world, key);
        newcomers.retain(|node| ![keeper, stale].contains(node));
        world.run_for(240 * SECOND);
    }
    assert_eq!(newcomers.len(), 3);
    for node in &newcomers {
        assert_eq!(world.store(*node).get(&key).map(|stored| stored.version), Some(1), "it copied the old one");
        if are_bold {
            world.corrupt(*node, Box::new(bold));
        }
    }
    let reader = world
        .nodes()
        .find(|node| world.is_alive(*node) && ![keeper, stale].contains(node) && !newcomers.contains(node));
    let reader = reader.unwrap();
    let parted = version_read(&mut world, reader, key);
    world.network().set_side(keeper, 0);
    world.run_for(900 * SECOND);
    (parted, version_read(&mut world, reader, key))
}

/// A newcomer that takes what it has for the newest.
fn bold(action: Action) -> Vec<Action> {
    let Action::Send { to, mut message } = action else { return vec![action] };
    if let Body::FetchAnswer(FetchAnswer { outcome }, _) = &mut message.body
        && let FetchOutcome::Uncertain { version, expiry } = *outcome
    {
        *outcome = FetchOutcome::Found { version, expiry };
    }
    vec![Action::Send { to, message }]
}

#[test]
fn claim_22_three_joins_in_a_row_lose_no_acknowledged_head() {
    let (parted, whole) = three_joins_from_a_stale_holder(false);
    assert_eq!(parted, None, "four that never heard of the new head are no quorum");
    assert_eq!(whole, Some(2));
}

#[test]
fn claim_22_control_newcomers_that_do_not_wait_lose_it() {
    let (parted, _) = three_joins_from_a_stale_holder(true);
    assert_eq!(parted, Some(1), "the acknowledged head is lost to this reader");
}

/// Of five holders one is behind; of the four that have the new head three lose their disks at once, and the fourth is cut off.
/// Returns the version a reader is told, if any; and what it is told when that one is back.
fn three_lose_their_disks(are_bold: bool) -> (Option<u64>, Option<u64>) {
    let (founding, mut world) = ring(0x5115, 14, 5);
    world.run_for(FOUNDING);
    let owner = signer(14);
    let key = key_of(&owner, Kind::Head);
    assert!(matches!(put(&mut world, 0, key, head(&owner, 1, b"old")), Some(Reply::Stored { .. })));
    world.run_for(SECOND);
    let holders = replicas(&founding, &world, key);
    let reader = world.nodes().find(|node| !holders.contains(node)).unwrap();
    let [a, b, c, keeper, stale] = holders[..] else { panic!("five replicas") };
    world.network().set_side(stale, 1);
    assert!(matches!(put(&mut world, reader, key, head(&owner, 2, b"new")), Some(Reply::Stored { copies: 4, .. })));
    world.network().set_side(keeper, 2);
    [a, b, c].into_iter().for_each(|node| world.kill(node));
    world.run_for(30 * SECOND); // Until the writer has given the one behind up.
    world.network().set_side(stale, 0);
    for node in [a, b, c] {
        world.wipe(node);
        world.start(node, founding.overlay(world.id(node), 14, Vec::new()));
        if are_bold {
            world.corrupt(node, Box::new(as_if_never_new));
        }
    }
    world.run_for(300 * SECOND);
    for node in [a, b, c] {
        assert_eq!(world.store(node).get(&key).map(|stored| stored.version), Some(1), "it copied the old one");
    }
    let parted = version_read(&mut world, reader, key);
    world.network().set_side(keeper, 0);
    world.run_for(900 * SECOND);
    (parted, version_read(&mut world, reader, key))
}

/// A newcomer that does not say that it is one.
fn as_if_never_new(action: Action) -> Vec<Action> {
    let Action::Send { to, mut message } = action else { return vec![action] };
    match &mut message.body {
        Body::RangeListing(listing) => listing.newness = None,
        Body::RangeDigest(digest) => digest.newness = None,
        _ => {}
    }
    vec![Action::Send { to, message }]
}

#[test]
fn claim_22_three_that_lost_their_disks_do_not_vouch_for_each_other() {
    let (parted, whole) = three_lose_their_disks(false);
    assert_eq!(parted, None, "three that know nothing and one that is behind are no quorum");
    assert_eq!(whole, Some(2));
}

#[test]
fn claim_22_control_newcomers_that_count_for_each_other_lose_it() {
    let (parted, _) = three_lose_their_disks(true);
    assert_eq!(parted, Some(1), "the acknowledged head is lost to this reader");
}

/// When a ring is founded everybody's disk is empty. It serves as soon as a quorum is there, though they come one by one and
/// the last never; who comes later is one more.
#[test]
fn a_ring_is_founded_by_those_who_are_there() {
    let seed = 0x5116;
    println!("seed {seed}");
    let founding = Founding::new(seed, 5, Parameters::DEFAULT);
    let mut world = World::new(seed, Weather::FAIR, founding.trust(), founding.ring.parameters.grace_s);
    let ids = founding.ids();
    ids.iter().for_each(|id| _ = world.add(*id));
    for (node, minutes) in [(0, 0), (1, 3), (2, 4), (3, 6)] {
        world.start(node, founding.overlay(ids[node], 1, Vec::new()));
        world.run_for(minutes * 60 * SECOND);
    }
    let owner = signer(15);
    let key = key_of(&owner, Kind::Head);
    assert!(matches!(put(&mut world, 0, key, head(&owner, 1, b"one")), Some(Reply::Stored { copies: 4, .. })));
    assert_eq!(version_read(&mut world, 3, key), Some(1));
    // One begins anew while all are founders still; hours later the fifth comes, and stands in for one that goes.
    world.start(1, founding.overlay(ids[1], 2, Vec::new()));
    world.run_for(60 * SECOND);
    assert_eq!(version_read(&mut world, 2, key), Some(1));
    world.run_for(3_600 * SECOND);
    world.start(4, founding.overlay(ids[4], 1, Vec::new()));
    world.run_for(360 * SECOND);
    world.kill(2);
    world.run_for(60 * SECOND);
    assert_eq!(version_read(&mut world, 4, key), Some(1));
    assert!(matches!(put(&mut world, 0, key, head(&owner, 2, b"two")), Some(Reply::Stored { copies: 4, .. })));
    assert_eq!(version_read(&mut world, 3, key), Some(2));
}

/// A ring document issued on one side of a partition reaches the other when it heals; a member that it adds gets its own
/// ranges, and nobody else gets anything.
#[test]
fn a_ring_document_survives_a_partition_and_moves_what_it_must() {
    let founding = Founding::new(0x5114, 31, Parameters::DEFAULT);
    let (ids, newcomer) = (founding.ids(), 30);
    let first = founding.amended(|ring| ring.members[newcomer].state = MemberState::Dead);
    let mut world = World::new(0x5114, Weather::FAIR, founding.trust(), Parameters::DEFAULT.grace_s);
    for id in &ids {
        world.add(*id);
    }
    for (node, id) in ids.iter().enumerate().take(newcomer) {
        world.start(node, first.overlay(*id, 1, Vec::new()));
    }
    world.run_for(60 * SECOND);
    let mut keys = Vec::new();
    let expiry = world.now() / SECOND + 86_400;
    for nth in 0..300u32 {
        let value = Bytes::from(nth.to_le_bytes().to_vec());
        let key = Key::of(Kind::Content, &value);
        assert!(matches!(world.ask(0, Command::Insert { key, value, expiry }), Some(Reply::Stored { .. })));
        keys.push(key);
    }
    for of in 0..30 {
        let owner = signer(of);
        let key = key_of(&owner, Kind::Head);
        assert!(matches!(put(&mut world, 0, key, head(&owner, 1, b"one")), Some(Reply::Stored { .. })));
        keys.push(key);
    }
    world.run_for(10 * SECOND);
    (0..newcomer).for_each(|node| world.network().set_side(node, (node % 2) as u8));
    world.network().set_side(newcomer, 0);
    world.run_for(5 * 60 * SECOND);
    let second = first.amended(|ring| ring.members[newcomer].state = MemberState::Active);
    assert!(matches!(world.ask(0, Command::AdoptRing { document: second.document() }), Some(Reply::Done)));
    let epoch = |world: &World<Overlay>, node: NodeIndex| world.machine(node).unwrap().status().epoch;
    world.run_for(3 * 60 * SECOND);
    assert!((0..newcomer).all(|node| epoch(&world, node) == if node % 2 == 0 { 3 } else { 2 }), "as far as it reaches");
    let holders = |world: &World<Overlay>, key: &Key| -> BTreeSet<NodeIndex> {
        world.nodes().filter(|node| world.store(*node).get(key).is_some()).collect()
    };
    (0..newcomer).for_each(|node| world.network().set_side(node, 0));
    let is_known = world.run_until(15 * 60 * SECOND, |world| (0..newcomer).all(|node| epoch(world, node) == 3));
    assert!(is_known);
    world.run_for(30 * 60 * SECOND);
    let before: Vec<BTreeSet<NodeIndex>> = keys.iter().map(|key| holders(&world, key)).collect();
    let replicated = world.metric(net::machine::Metric::Replicated);
    world.start(newcomer, second.overlay(ids[newcomer], 2, Vec::new()));
    world.run_for(30 * 60 * SECOND);
    let mut due = 0;
    for (key, before) in keys.iter().zip(before) {
        let count = if key.kind == Kind::Head { 5 } else { 3 };
        let is_due = second.ring.eligible(key.placement(), count).contains(&ids[newcomer]);
        let gained: Vec<NodeIndex> = holders(&world, key).difference(&before).copied().collect();
        assert_eq!(gained, if is_due { vec![newcomer] } else { vec![] });
        due += u64::from(is_due);
    }
    println!("{due} of {} objects moved to the new member", keys.len());
    assert!(due > 10);
    assert_eq!(world.metric(net::machine::Metric::Replicated) - replicated, due);
}
