//! Goal: whatever a machine asks for is done, answered exactly once, and within bounds. Method: a machine that asks for
//! what the test tells it to, and reports every event it sees; the engine under it is a real one in a temporary folder.
//! Not checked here: what the transport does with a message (`tests/transport.rs`), what a real machine decides
//! (`net`).

use super::*;
use crate::node::limits::{
    COMMANDS_MAX, COMPUTE_INLINE_BYTES_MAX, COMPUTE_UNDER_WAY_MAX, DELIVERIES_MAX, STORAGE_WAITING_MAX,
};
use crate::node::start::Ending;
use crate::node::transport::{Admission, Directory};
use bytes::Bytes;
use engine::Engine;
use net::id::{Id, Key, Kind};
use net::machine::{ComputeJob, StorageOperation, StorageResult, Stored, TimerId};
use net::past::block::{Refusal, encode_signed};
use net::ring::{Parameters, RingDocument};
use net::wire::{Body, Message};
use std::sync::Mutex;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;

/// Does what the next page of its script says when it is given a command, and reports every event.
struct Scripted {
    script: Arc<Mutex<VecDeque<Vec<Action>>>>,
    seen: std_mpsc::Sender<(Micros, Event)>,
}

impl Machine for Scripted {
    fn handle(&mut self, now: Micros, event: Event, out: &mut Actions) {
        // Each command takes the next page of the script; the request it names is filled in here.
        if let Event::Command { request, command: Command::Status } = &event {
            for action in self.script.lock().unwrap().pop_front().unwrap_or_default() {
                out.push(match action {
                    Action::Reply { reply, .. } => Action::Reply { request: *request, reply },
                    other => other,
                });
            }
        }
        let _ = self.seen.send((now, event));
    }
}

struct Nowhere(Arc<Mutex<Vec<(u16, Id, Message)>>>);

impl Transport for Nowhere {
    fn send(&self, from: u16, to: Id, message: Message) {
        self.0.lock().unwrap().push((from, to, message));
    }
}

/// A driver at work over a real engine.
struct Bench {
    inbox: Arc<Inbox>,
    script: Arc<Mutex<VecDeque<Vec<Action>>>>,
    seen: std_mpsc::Receiver<(Micros, Event)>,
    sent: Arc<Mutex<Vec<(u16, Id, Message)>>>,
    deliveries: mpsc::Receiver<Delivery>,
    registry: Registry,
    clock: Arc<Clock>,
    thread: Option<JoinHandle<()>>,
    ending: watch::Receiver<bool>,
    engine: Engine,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn start() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let settings = engine::Config {
            shards: 1,
            capacity_bytes: 1 << 30,
            segment_bytes: 8 << 20,
            tick_s: 1,
            grace_s: 0,
            ..engine::Config::new(folder.path().join("store"))
        };
        let engine = Engine::open(settings).unwrap();
        let registry = Registry::default();
        let ring = ring();
        let admission = Arc::new(Admission::new(Arc::new(Directory::new(Arc::new(ring.clone()), [0; 32])), &registry));
        let (ended, ending) = watch::channel(false);
        let ended = Arc::new(ended);
        let (workshop, _) = Workshop::open(&admission, || Ending::new(&ended), &registry).unwrap();
        let inbox = Inbox::of_host(1, 1, &registry).remove(0);
        let wake = inbox.clone();
        let port = engine.port(64, Arc::new(move || wake.ring()));
        let (seen_sender, seen) = std_mpsc::channel();
        let (deliver, deliveries) = mpsc::channel(DELIVERIES_MAX);
        let script: Arc<Mutex<VecDeque<Vec<Action>>>> = Arc::default();
        let sent = Arc::default();
        let clock = Arc::new(Clock::start());
        let agreed = Arc::new(Agreed::new(4));
        (0..3).for_each(|other| agreed.tell(other, u64::MAX));
        let driver = Driver {
            index: 3,
            machine: Scripted { script: script.clone(), seen: seen_sender },
            inbox: inbox.clone(),
            transport: Arc::new(Nowhere(Arc::clone(&sent))),
            storage: Storage::new(port, &registry),
            workshop,
            clock: clock.clone(),
            deliveries: deliver,
            rings: Arc::new(watch::channel(Arc::new(Roster::new(ring, Bytes::new()))).0),
            scrubber: None,
            agreed: agreed.clone(),
            sweeper: Some(Sweeper::new(Duration::from_millis(200), 0, clock.now())),
            counters: Counters::new(&registry),
        };
        let guard = Ending::new(&ended);
        let thread = std::thread::spawn(move || {
            let _guard = guard;
            run(vec![driver]);
        });
        let thread = Some(thread);
        let bench =
            Bench { inbox, script, seen, sent, deliveries, registry, clock, thread, ending, engine, _folder: folder };
        assert!(matches!(bench.next(), (_, Event::Boot)));
        bench
    }

    /// Has the machine do this; what it replies, if anything, arrives where the result leads.
    fn perform(&self, actions: Vec<Action>) -> oneshot::Receiver<Reply> {
        self.script.lock().unwrap().push_back(actions);
        let (reply, receiver) = oneshot::channel();
        assert!(self.inbox.order(Order { command: Command::Status, reply: Some(reply) }).is_ok());
        assert!(matches!(self.next(), (_, Event::Command { .. })));
        receiver
    }

    fn next(&self) -> (Micros, Event) {
        self.seen.recv_timeout(Duration::from_secs(30)).expect("the machine sees nothing")
    }

    fn store(&self, op: u64, operation: StorageOperation) -> StorageResult {
        self.perform(vec![Action::Storage { op: OpId(op), operation }]);
        match self.next() {
            (_, Event::Storage { op: OpId(answered), result }) if answered == op => result,
            other => panic!("{other:?}"),
        }
    }

    fn drops(&self, cause: &str) -> u64 {
        self.registry.to_json()["drops"][cause].as_u64().unwrap()
    }

    fn stop(mut self) {
        self.inbox.stop();
        self.thread.take().unwrap().join().unwrap();
        assert!(*self.ending.borrow());
    }
}

fn ring() -> RingDocument {
    RingDocument {
        ring: [1; 16],
        epoch: 1,
        parameters: Parameters::DEFAULT,
        members: vec![],
        revocations: vec![],
        domain: "epost.test".into(),
    }
}

fn content(bytes: usize) -> (Key, Bytes) {
    let value = Bytes::from(vec![bytes as u8; bytes]);
    (Key::of(Kind::Content, &value), value)
}

#[test]
fn storage_operations_mean_to_the_engine_what_they_mean_to_the_machine() {
    let bench = Bench::start();
    let far = bench.clock.now() / 1_000_000 + 10_000;
    let (key, value) = content(100_000);
    let put = |key, version, value: &Bytes| StorageOperation::Put { key, version, expiry: far, value: value.clone() };
    assert_eq!(bench.store(1, StorageOperation::Get { key }), StorageResult::Got(None));
    assert_eq!(bench.store(2, put(key, 0, &value)), StorageResult::Put);
    let stored =
        |version, value: &Bytes| StorageResult::Got(Some(Stored { version, expiry: far, value: value.clone() }));
    assert_eq!(bench.store(3, StorageOperation::Get { key }), stored(0, &value));

    let head = Key::of(Kind::Head, b"a log");
    let (old, new) = (Bytes::from_static(b"old"), Bytes::from_static(b"new"));
    assert_eq!(bench.store(4, put(head, 0, &old)), StorageResult::Superseded { version: 0 });
    assert_eq!(bench.store(5, put(head, 4, &old)), StorageResult::Put);
    assert_eq!(bench.store(6, put(head, 7, &new)), StorageResult::Put);
    assert_eq!(bench.store(7, put(head, 7, &new)), StorageResult::Put);
    assert_eq!(bench.store(8, put(head, 7, &old)), StorageResult::Superseded { version: 7 });
    assert_eq!(bench.store(9, put(head, 4, &old)), StorageResult::Superseded { version: 7 });
    assert_eq!(bench.store(10, StorageOperation::Get { key: head }), stored(7, &new));

    let leases = vec![(key, far + 50), (head, far + 50), (content(5).0, far)];
    assert_eq!(bench.store(11, StorageOperation::Touch { leases }), StorageResult::Touched { known: 2 });
    let whole = StorageOperation::Scan { from: Id([0; 20]), to: Id([0xff; 20]), after: None, limit: 10 };
    let StorageResult::Listed(listed) = bench.store(12, whole) else { panic!() };
    let mut keys = vec![(key, 0), (head, 7)];
    keys.sort_by_key(|(key, _)| key.placement());
    assert_eq!(listed.iter().map(|l| (l.key, l.version)).collect::<Vec<_>>(), keys);
    assert!(listed.iter().all(|l| l.expiry == far + 50));
    let rest = StorageOperation::Scan { from: Id([0; 20]), to: Id([0xff; 20]), after: Some(keys[0].0), limit: 10 };
    let StorageResult::Listed(listed) = bench.store(13, rest) else { panic!() };
    assert_eq!(listed.iter().map(|l| l.key).collect::<Vec<_>>(), [keys[1].0]);

    for (op, key, was_here) in [(14, key, true), (15, key, false), (16, head, false)] {
        assert_eq!(bench.store(op, StorageOperation::Remove { key }), StorageResult::Removed(was_here));
    }
    assert_eq!(bench.store(17, StorageOperation::Get { key }), StorageResult::Got(None));
    assert_eq!(
        bench.store(18, StorageOperation::Get { key: head }),
        StorageResult::Got(Some(Stored { version: 7, expiry: far + 50, value: new }))
    );
    bench.stop();
}

#[test]
fn expired_objects_are_swept() {
    let bench = Bench::start();
    let now_s = bench.clock.now() / 1_000_000;
    let (short, value) = content(10);
    let (long, other) = content(20);
    for (op, key, value, expiry) in [(1, short, value, now_s + 2), (2, long, other, now_s + 10_000)] {
        let put = StorageOperation::Put { key, version: 0, expiry, value };
        assert_eq!(bench.store(op, put), StorageResult::Put);
    }
    let mut op = 3;
    while bench.clock.now() / 1_000_000 < now_s + 4 {
        let held = bench.store(op, StorageOperation::Get { key: short });
        assert!(matches!(held, StorageResult::Got(Some(_))), "it went before leases were agreed on");
        std::thread::sleep(Duration::from_millis(50));
        op += 1;
    }
    bench.perform(vec![Action::LeasesAgreed { through: now_s + 3 }]);
    while bench.store(op, StorageOperation::Get { key: short }) != StorageResult::Got(None) {
        assert!(bench.clock.now() / 1_000_000 < now_s + 60, "it stays");
        std::thread::sleep(Duration::from_millis(50));
        op += 1;
    }
    assert!(matches!(bench.store(op + 1, StorageOperation::Get { key: long }), StorageResult::Got(Some(_))));
    assert_eq!(bench.registry.to_json()["swept_objects"], 1);
    bench.stop();
}

#[test]
fn every_storage_operation_is_answered_once_even_beyond_the_bound() {
    let bench = Bench::start();
    let (key, _) = content(1);
    let count = STORAGE_WAITING_MAX as u64 + 500;
    let get = |op| Action::Storage { op: OpId(op), operation: StorageOperation::Get { key } };
    bench.perform((0..count).map(get).collect());
    let mut answered = std::collections::BTreeMap::new();
    for _ in 0..count {
        let (_, Event::Storage { op, result }) = bench.next() else { panic!() };
        assert!(answered.insert(op.0, result).is_none(), "answered twice");
    }
    let failed = answered.values().filter(|result| **result == StorageResult::Failed).count() as u64;
    assert_eq!(failed, bench.drops("storage queue full"));
    assert!((300..=500).contains(&failed), "{failed} of {count} failed");
    bench.stop();
}

#[test]
fn a_driver_does_not_outlive_its_engine() {
    let bench = Bench::start();
    let Bench { engine, mut ending, thread, script, inbox, .. } = bench;
    drop(engine);
    let get = Action::Storage { op: OpId(1), operation: StorageOperation::Get { key: content(1).0 } };
    script.lock().unwrap().push_back(vec![get]);
    assert!(inbox.order(Order { command: Command::Status, reply: None }).is_ok());
    thread.unwrap().join().unwrap();
    assert!(*ending.borrow_and_update());
}

#[test]
fn timers_go_off_in_order_and_not_before_their_time() {
    let bench = Bench::start();
    let now = bench.clock.now();
    let arm = |timer, after_ms: u64| Action::Arm { timer: TimerId(timer), at: now + after_ms * 1_000 };
    bench.perform(vec![arm(1, 120), arm(2, 60), arm(3, 0), arm(4, 30), arm(4, 90)]);
    for (timer, after_ms) in [(3, 0), (2, 60), (4, 90), (1, 120)] {
        let (at, event) = bench.next();
        assert!(matches!(event, Event::Timer(TimerId(id)) if id == timer), "{event:?} instead of {timer}");
        assert!(at >= now + after_ms * 1_000);
    }
    bench.stop();
}

#[test]
fn blocks_are_checked_whoever_does_it() {
    let bench = Bench::start();
    let (small, small_value) = content(100);
    let (large, large_value) = content(1 << 20);
    let signer = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
    let public = signer.verifying_key().to_bytes();
    let head = encode_signed(Kind::Head, &public, 9, b"body", |m| ed25519_dalek::Signer::sign(&signer, m).to_bytes());
    let verify = |op, key, value: &Bytes| Action::Compute {
        op: OpId(op),
        job: ComputeJob::Verify { key, value: value.clone() },
    };
    bench.perform(vec![
        verify(1, small, &small_value),
        verify(2, small, &large_value),
        verify(3, large, &large_value),
        verify(4, large, &small_value),
        verify(5, Key::of(Kind::Head, &public), &head),
    ]);
    let mut results = std::collections::BTreeMap::new();
    for _ in 0..5 {
        let (_, Event::Compute { op, result }) = bench.next() else { panic!() };
        assert!(results.insert(op.0, result).is_none());
    }
    let wrong = ComputeResult::Refused(Refusal::WrongName);
    let good = |version| ComputeResult::Verified { version };
    assert_eq!(results.into_values().collect::<Vec<_>>(), [good(0), wrong.clone(), good(0), wrong, good(9)]);
    bench.stop();
}

/// The machine asks for more than all queues hold, and looks at no result before it has asked for the last.
#[test]
fn results_that_nobody_takes_stop_no_worker() {
    let registry = Registry::default();
    let (ended, ending) = watch::channel(false);
    let ended = Arc::new(ended);
    let admission = Arc::new(Admission::new(Arc::new(Directory::new(Arc::new(ring()), [0; 32])), &registry));
    let (workshop, workers) = Workshop::open(&admission, || Ending::new(&ended), &registry).unwrap();
    let inbox = Inbox::of_host(1, 1, &registry).remove(0);
    let (key, value) = content(COMPUTE_INLINE_BYTES_MAX + 1);
    let count = COMPUTE_UNDER_WAY_MAX as u64 + 1_000;
    let mut done = 0;
    for op in 0..count {
        let job = ComputeJob::Verify { key, value: value.clone() };
        done += u64::from(workshop.submit(OpId(op), job, &inbox).is_some());
    }
    while done < count {
        match inbox.next_computed() {
            Some((_, result)) => {
                assert_eq!(result, ComputeResult::Verified { version: 0 });
                done += 1;
            }
            None => inbox.sleep(Duration::from_secs(1)),
        }
        assert!(!*ending.borrow(), "a worker has died");
    }
    drop(workshop);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

#[test]
fn messages_go_out_from_the_machines_own_index() {
    let bench = Bench::start();
    let message = Message { request: 4, body: Body::HopAck };
    bench.perform(vec![Action::Send { to: Id([8; 20]), message: message.clone() }]);
    // The next command's event comes after the action of the one before.
    bench.perform(vec![]);
    assert_eq!(*bench.sent.lock().unwrap(), [(3, Id([8; 20]), message)]);
    bench.stop();
}

#[test]
fn deliveries_are_answered_through_the_machine_and_dropped_when_nobody_takes_them() {
    let mut bench = Bench::start();
    let deliver =
        |conversation| Action::Deliver { from: Id([7; 20]), conversation, payload: Bytes::from_static(b"mail") };
    bench.perform((0..DELIVERIES_MAX as u64 + 5).map(deliver).collect());
    bench.perform(vec![]);
    assert_eq!(bench.drops("application's delivery queue full"), 5);
    let delivery = bench.deliveries.blocking_recv().unwrap();
    assert_eq!((delivery.from, &delivery.payload[..]), (Id([7; 20]), &b"mail"[..]));
    assert!(delivery.answer.send(Bytes::from_static(b"thanks")));
    let (_, Event::Command { command: Command::Answer { to, conversation, payload }, .. }) = bench.next() else {
        panic!()
    };
    assert_eq!((to, conversation, &payload[..]), (Id([7; 20]), 0, &b"thanks"[..]));
    bench.stop();
}

#[test]
fn without_an_application_nothing_is_accepted_and_publications_are_counted() {
    let bench = Bench::start();
    let (group, payload) = (Id([1; 20]), Bytes::from_static(b"who?"));
    let solicit = Action::Solicit { group, asker: Id([7; 20]), solicitation: 9, payload: payload.clone() };
    bench.perform(vec![solicit, Action::Published { group, publisher: Id([7; 20]), payload }]);
    let (_, Event::Command { command: Command::Accept { solicitation, accepts }, .. }) = bench.next() else { panic!() };
    assert_eq!((solicitation, accepts), (9, false));
    assert_eq!(bench.drops("publication without an application"), 1);
    bench.stop();
}

#[test]
fn callers_get_their_reply_or_are_told_that_there_are_too_many() {
    let bench = Bench::start();
    let reply = bench.perform(vec![Action::Reply { request: RequestId(0), reply: Reply::Done }]);
    assert!(matches!(reply.blocking_recv(), Ok(Reply::Done)));
    // Commands the machine never replies to, until no more are taken.
    let mut waiting = Vec::new();
    for _ in 0..COMMANDS_UNDER_WAY_MAX {
        waiting.push(bench.perform(vec![]));
    }
    let (sender, refused) = oneshot::channel();
    assert!(bench.inbox.order(Order { command: Command::Status, reply: Some(sender) }).is_ok());
    assert!(matches!(refused.blocking_recv(), Ok(Reply::Busy)));
    assert_eq!(bench.drops("too many commands under way"), 1);
    assert_eq!(bench.registry.to_json()["queue_commands"], COMMANDS_UNDER_WAY_MAX as u64);
    // Stopped, it leaves nobody waiting.
    let registry = bench.registry.clone();
    bench.stop();
    assert!(waiting.into_iter().all(|caller| caller.blocking_recv().is_err()));
    assert_eq!(registry.to_json()["queue_commands"], 0);
}

#[test]
fn orders_beyond_the_queue_are_given_back() {
    let inbox = Inbox::of_host(1, 1, &Registry::default()).remove(0);
    let order = || Order { command: Command::Status, reply: None };
    for _ in 0..COMMANDS_MAX {
        assert!(inbox.order(order()).is_ok());
    }
    assert!(inbox.order(order()).is_err());
}
