//! Goal: a sender feels that a machine takes less than it sends. What a host holds for one peer stays under its bound, nothing is
//! lost while the machine takes something every few seconds, and other peers, pings, and control beside bulk get through.
//!
//! Method: real endpoints on loopback, and a receiver in the machine's place that keeps what comes together with its credit until
//! the test lets go. The control is the same receiver giving each credit back at once: then everything that is sent
//! piles up in it.

mod organisation;

use bytes::Bytes;
use epost_gateway::node::limits::{CONNECTION_FRAME_BYTES_MAX, CONNECTION_FRAMES_MAX, STREAMS_MAX};
use epost_gateway::node::status::Registry;
use epost_gateway::node::transport::{Admission, Credit, Quic, QuicConfig, Receiver, Transport};
use net::id::Id;
use net::wire::{Body, Message, Presence};
use organisation::{Organisation, node_id, nonce};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Far beyond what anything here takes; a hang ends the test instead of stalling it.
const PATIENCE: Duration = Duration::from_secs(40);

/// What has come to a machine that is held back.
#[derive(Default)]
struct Held {
    heard: Vec<(Id, Message)>,
    credits: Vec<Credit>,
    /// Whether credits are kept.
    keeps: bool,
    downs: usize,
}

struct Machine(Arc<Mutex<Held>>);

impl Receiver for Machine {
    fn message(&self, _: u16, from: Id, message: Message, credit: Credit) {
        let mut held = self.0.lock().unwrap();
        held.heard.push((from, message));
        if held.keeps {
            held.credits.push(credit);
        }
    }

    fn up(&self, _: &[Id]) {}

    fn down(&self, _: &[Id]) {
        self.0.lock().unwrap().downs += 1;
    }
}

struct Station {
    quic: Quic,
    registry: Registry,
    held: Arc<Mutex<Held>>,
}

impl Station {
    fn member(organisation: &Organisation, host: u8, keeps: bool) -> Station {
        let registry = Registry::default();
        let held = Arc::new(Mutex::new(Held { keeps, ..Held::default() }));
        let config = QuicConfig {
            listen: organisation.address(host),
            nonce: nonce(host),
            credentials: organisation.enrol(host, |_| {}),
            secret: Zeroizing::new([host; 32]),
            admission: Arc::new(Admission::new(organisation.directory(), &registry)),
        };
        let quic = Quic::open(config, Arc::new(Machine(held.clone())), &registry).unwrap();
        Station { quic, registry, held }
    }

    fn plain(&self, name: &str) -> usize {
        self.registry.to_json()[name].as_u64().unwrap() as usize
    }

    /// Everything this station has dropped, for whatever cause.
    fn drops(&self) -> u64 {
        self.registry.to_json()["drops"].as_object().unwrap().values().map(|drops| drops.as_u64().unwrap()).sum()
    }

    /// Numbers of the messages from this host so far.
    fn heard(&self, host: u8) -> Vec<u64> {
        let from = node_id(host);
        self.held.lock().unwrap().heard.iter().filter(|(id, _)| *id == from).map(|(_, m)| m.request).collect()
    }

    /// The machine takes what it holds, and from now on everything at once.
    fn let_go(&self) {
        let mut held = self.held.lock().unwrap();
        held.keeps = false;
        let credits = std::mem::take(&mut held.credits);
        drop(held);
        drop(credits);
    }

    /// Sends all of these to host 2, as fast as this host's own queue takes them.
    async fn flood(&self, messages: impl Iterator<Item = Message>) {
        for message in messages {
            while self.plain("queue_peers") >= 1_000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.quic.send(0, node_id(2), message);
        }
    }
}

async fn until(what: &str, stations: &[&Station], is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        let seen: Vec<_> = stations.iter().map(|station| station.registry.to_json()).collect();
        assert!(start.elapsed() < PATIENCE, "never seen: {what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn tell(bytes: usize, request: u64) -> Message {
    Message { request, body: Body::Tell(Bytes::from(vec![request as u8; bytes])) }
}

fn ping(request: u64) -> Message {
    Message { request, body: Body::Ping(Presence { ready: true, epoch: 1, booted: 3 }) }
}

const FLOOD: u64 = 1_200;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_held_back_stops_its_sender_and_nobody_else() {
    let organisation = Organisation::with_members(1, 3);
    let (one, two) = (Station::member(&organisation, 1, false), Station::member(&organisation, 2, true));
    let three = Station::member(&organisation, 3, false);
    one.flood((0..FLOOD).map(|request| tell(1_000, request))).await;
    until("the connection's credit used up, and its streams", &[&one, &two], || {
        // QUIC tells of streams that have become free in batches of an eighth.
        two.heard(1).len() == CONNECTION_FRAMES_MAX && two.plain("queue_frames") >= STREAMS_MAX as usize * 3 / 4
    })
    .await;
    // What the machine has not been given waits where it came from; the drain there has one frame in hand.
    let waits = FLOOD as usize - CONNECTION_FRAMES_MAX - STREAMS_MAX as usize - 1;
    assert!(one.plain("queue_peers") >= waits, "{:?}", one.registry.to_json());
    assert!(two.plain("frame_bytes_held") <= 2 * CONNECTION_FRAMES_MAX * 1_100);

    one.quic.send(0, node_id(2), ping(FLOOD));
    three.quic.send(0, node_id(2), tell(1_000, 1));
    until("a ping of the same peer and a message of another", &[&one, &two, &three], || {
        two.heard(1).contains(&FLOOD) && two.heard(3) == [1]
    })
    .await;
    assert_eq!(two.heard(1).len(), CONNECTION_FRAMES_MAX + 1, "and nothing else");

    two.let_go();
    until("the rest", &[&one, &two], || two.heard(1).len() as u64 > FLOOD).await;
    assert_eq!(two.heard(1).into_iter().collect::<BTreeSet<u64>>(), (0..=FLOOD).collect());
    assert_eq!((one.drops(), two.drops()), (0, 0));
    until("all room given back", &[&two], || two.plain("frame_bytes_held") + two.plain("queue_frames") == 0).await;
}

/// The control: without credit kept, the same flood piles up at the receiver.
#[tokio::test(flavor = "multi_thread")]
async fn without_credit_a_machine_held_back_is_flooded() {
    let organisation = Organisation::with_members(1, 2);
    let (one, two) = (Station::member(&organisation, 1, false), Station::member(&organisation, 2, false));
    one.flood((0..FLOOD).map(|request| tell(1_000, request))).await;
    until("the whole flood", &[&one, &two], || two.heard(1).len() as u64 == FLOOD).await;
    assert!(FLOOD as usize > 4 * CONNECTION_FRAMES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_stays_under_its_bound_and_holds_up_no_control() {
    const OBJECTS: u64 = 60;
    let organisation = Organisation::with_members(1, 3);
    let (one, two) = (Station::member(&organisation, 1, false), Station::member(&organisation, 2, true));
    let three = Station::member(&organisation, 3, false);
    // One after the other, for the queue of the sender takes 32 MiB and the receiver as much.
    for request in 0..OBJECTS {
        one.quic.send(0, node_id(2), tell(1 << 20, request));
        until("room to send", &[&one, &two], || one.plain("queue_peers") < 20).await;
    }
    let fits = CONNECTION_FRAME_BYTES_MAX / ((1 << 20) + 100);
    until("the connection's bytes used up", &[&one, &two], || two.heard(1).len() == fits).await;
    one.quic.send(0, node_id(2), tell(1_000, OBJECTS));
    three.quic.send(0, node_id(2), tell(1 << 20, 1));
    until("control of the same peer, and bulk of another", &[&one, &two, &three], || {
        two.heard(1).contains(&OBJECTS) && two.heard(3) == [1]
    })
    .await;
    assert_eq!(two.heard(1).len(), fits + 1);
    assert!(two.plain("frame_bytes_held") <= CONNECTION_FRAME_BYTES_MAX + (2 << 20));
    two.let_go();
    until("the rest", &[&one, &two], || two.heard(1).len() as u64 == OBJECTS + 1).await;
    assert_eq!((one.drops(), two.drops()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_in_time_is_dropped_and_the_connection_stays() {
    let organisation = Organisation::with_members(1, 2);
    let (one, two) = (Station::member(&organisation, 1, false), Station::member(&organisation, 2, true));
    let sent = (CONNECTION_FRAMES_MAX + 10) as u64;
    one.flood((0..sent).map(|request| tell(1_000, request))).await;
    let overdue = || two.registry.to_json()["drops"]["no room for a frame in time"] == 10;
    until("ten frames dropped", &[&one, &two], overdue).await;
    two.let_go();
    one.quic.send(0, node_id(2), tell(1_000, sent));
    until("what is sent next", &[&one, &two], || two.heard(1).contains(&sent)).await;
    assert_eq!(two.heard(1).len(), CONNECTION_FRAMES_MAX + 1);
    assert_eq!((one.drops(), two.drops(), one.plain("dials")), (0, 10, 1));
    assert_eq!(one.held.lock().unwrap().downs + two.held.lock().unwrap().downs, 0, "nobody was taken for gone");
}
