//! What waits for one machine: bounded queues in, and the alarm that wakes its overlay thread.
//!
//! A thread that has several machines has one alarm for all of them; each inbox remembers whether it has been rung, so that the
//! thread looks only where something has come. What may wait for a host is the same however many machines it has.
//!
//! Four kinds of thread fill an inbox: the network's, callers with commands, compute workers, and the engine's shards
//! (whose completions wait in the engine's port; they only ring the alarm). A full queue drops what comes, counted, or
//! tells the caller "busy"; nothing here blocks.
//!
//! Messages have a queue for each lane, so that no object goes before a ping. Those that came by stream or in bulk have waited
//! for a place here, which they hold with their [`Credit`] until the machine takes them: their queues are never full.
//! Datagrams, and what machines of one host say to each other, have waited for nothing and may be dropped.
//!
//! The alarm costs a system call only when the thread sleeps, so a burst of events wakes it once.

use super::limits::{
    COMMAND_BYTES_MAX, COMMANDS_MAX, COMPUTE_UNDER_WAY_MAX, EVENT_BYTES_MAX, EVENTS_MIN, PEER_EVENTS_MAX, SLEEP_TIME,
    WEIGHT_MAX, places,
};
use super::status::{Counter, Registry};
use super::transport::{Credit, Receiver};
use crossbeam::queue::ArrayQueue;
use net::id::Id;
use net::machine::{Command, ComputeResult, Event, OpId, Reply};
use net::wire::{Lane, Message};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// The lanes in which messages come, each with its queue, in the order in which they have their turn.
pub(super) const LANES: [Lane; 3] = [Lane::Datagram, Lane::Stream, Lane::Bulk];

/// A command and where its reply goes.
pub(super) struct Order {
    pub command: Command,
    /// Nobody waits for the reply to an answer.
    pub reply: Option<oneshot::Sender<Reply>>,
}

impl Order {
    fn object_bytes(&self) -> usize {
        match &self.command {
            Command::Insert { value, .. } | Command::PutSigned { value, .. } => value.len(),
            Command::Tell { payload, .. } | Command::Answer { payload, .. } => payload.len(),
            Command::Publish { payload, .. } | Command::Anycast { payload, .. } => payload.len(),
            Command::Refresh { keys, .. } => size_of_val(keys.as_slice()),
            Command::AdoptRing { document } => document.len(),
            Command::Lookup { .. }
            | Command::GetSigned { .. }
            | Command::Locate { .. }
            | Command::Subscribe { .. }
            | Command::Unsubscribe { .. }
            | Command::Accept { .. }
            | Command::Status => 0,
        }
    }
}

/// Bytes that wait for all machines of a host.
#[derive(Default)]
struct Waiting {
    message_bytes: AtomicUsize,
    order_bytes: AtomicUsize,
}

/// What waits for one machine.
pub(super) struct Inbox {
    /// By lane.
    messages: [ArrayQueue<(Id, Message, Credit)>; 3],
    peers: ArrayQueue<Event>,
    orders: ArrayQueue<Order>,
    all: Arc<Waiting>,
    computed: ArrayQueue<(OpId, ComputeResult)>,
    /// Computations given to the workers whose results have not been taken yet; `computed` has a place for each.
    computing: AtomicUsize,
    stopping: AtomicBool,
    /// Whether something has come since the thread last looked.
    rung: AtomicBool,
    alarm: Arc<Alarm>,
    messages_full: Counter,
    peers_full: Counter,
}

impl Inbox {
    /// One for each of a host's `ids` node ids, by index, whose machines are dealt out to `threads` threads in turn.
    pub(super) fn of_host(ids: usize, threads: usize, registry: &Registry) -> Vec<Arc<Inbox>> {
        assert!((1..=WEIGHT_MAX).contains(&ids) && (1..=ids).contains(&threads));
        let all = Arc::new(Waiting::default());
        let alarms: Vec<Arc<Alarm>> = (0..threads).map(|_| Arc::default()).collect();
        (0..ids).map(|id| Arc::new(Inbox::new(ids, alarms[id % threads].clone(), all.clone(), registry))).collect()
    }

    fn new(ids: usize, alarm: Arc<Alarm>, all: Arc<Waiting>, registry: &Registry) -> Inbox {
        Inbox {
            messages: LANES.map(|lane| ArrayQueue::new(places(lane, ids))),
            peers: ArrayQueue::new((PEER_EVENTS_MAX / ids).max(EVENTS_MIN)),
            orders: ArrayQueue::new(COMMANDS_MAX),
            all,
            computed: ArrayQueue::new(COMPUTE_UNDER_WAY_MAX),
            computing: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            alarm,
            messages_full: registry.drops("machine's message queue full"),
            peers_full: registry.drops("machine's peer event queue full"),
        }
    }

    /// Takes in a message. Drops it if it holds no place here and there is none.
    pub(super) fn message(&self, from: Id, message: Message, credit: Credit) {
        let lane = credit.lane();
        if lane == Lane::Datagram {
            let bytes = weight(&message);
            let waiting = self.all.message_bytes.fetch_add(bytes, Ordering::Relaxed);
            if waiting + bytes > EVENT_BYTES_MAX || self.messages[lane as usize].push((from, message, credit)).is_err()
            {
                self.all.message_bytes.fetch_sub(bytes, Ordering::Relaxed);
                return self.messages_full.increment();
            }
        } else {
            let pushed = self.messages[lane as usize].push((from, message, credit));
            assert!(pushed.is_ok(), "there are as many places as credits for them");
        }
        self.ring();
    }

    /// Takes the next message of a lane, whose room is free from now on.
    pub(super) fn next_message(&self, lane: Lane) -> Option<(Id, Message)> {
        let (from, message, _credit) = self.messages[lane as usize].pop()?;
        if lane == Lane::Datagram {
            let bytes = weight(&message);
            let waiting = self.all.message_bytes.fetch_sub(bytes, Ordering::Relaxed);
            assert!(waiting >= bytes);
        }
        Some((from, message))
    }

    fn peer(&self, event: Event) {
        match self.peers.push(event) {
            Ok(()) => self.ring(),
            Err(_) => self.peers_full.increment(),
        }
    }

    pub(super) fn next_peer(&self) -> Option<Event> {
        self.peers.pop()
    }

    /// Takes in a command; gives it back when there are too many.
    pub(super) fn order(&self, order: Order) -> Result<(), Order> {
        let bytes = order.object_bytes();
        let waiting = self.all.order_bytes.fetch_add(bytes, Ordering::Relaxed);
        let pushed = if waiting + bytes > COMMAND_BYTES_MAX { Err(order) } else { self.orders.push(order) };
        match &pushed {
            Ok(()) => self.ring(),
            Err(_) => drop(self.all.order_bytes.fetch_sub(bytes, Ordering::Relaxed)),
        }
        pushed
    }

    pub(super) fn next_order(&self) -> Option<Order> {
        let order = self.orders.pop()?;
        let bytes = order.object_bytes();
        let waiting = self.all.order_bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(waiting >= bytes);
        Some(order)
    }

    /// Takes the place of one more computation's result; false if there is none, and the work must be done elsewhere.
    pub(super) fn expect_computed(&self) -> bool {
        let has_place = self.computing.fetch_add(1, Ordering::Relaxed) < COMPUTE_UNDER_WAY_MAX;
        if !has_place {
            self.forgo_computed();
        }
        has_place
    }

    /// Gives back a place that was taken in vain.
    pub(super) fn forgo_computed(&self) {
        let before = self.computing.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0);
    }

    pub(super) fn computed(&self, op: OpId, result: ComputeResult) {
        let pushed = self.computed.push((op, result));
        assert!(pushed.is_ok(), "a place was taken for every computation under way");
        self.ring();
    }

    pub(super) fn next_computed(&self) -> Option<(OpId, ComputeResult)> {
        let computed = self.computed.pop()?;
        self.forgo_computed();
        Some(computed)
    }

    /// Wakes the thread: something waits for it elsewhere.
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.alarm.ring();
    }

    /// Whether something has come since this was last asked. Asked before looking, so that what comes meanwhile is seen at the
    /// next look.
    pub(super) fn take_rung(&self) -> bool {
        self.rung.swap(false, Ordering::SeqCst)
    }

    /// Tells the thread to end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.ring();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Sleeps until something arrives here or for another machine of the thread, at most `time`. Only that thread calls it,
    /// after it has found nothing to do.
    pub(super) fn sleep(&self, time: Duration) {
        self.alarm.sleep(time.min(SLEEP_TIME));
    }

    /// Messages and commands waiting.
    pub(super) fn len(&self) -> usize {
        self.messages.iter().map(ArrayQueue::len).sum::<usize>()
            + self.orders.len()
            + self.peers.len()
            + self.computed.len()
    }
}

/// Memory a waiting message takes: its payload, and something for the rest.
fn weight(message: &Message) -> usize {
    message.body.payload().len() + 512
}

/// Hands what the transport brings to the inbox it is for.
pub(super) struct Switchboard {
    /// By index of the node id.
    pub inboxes: Vec<Arc<Inbox>>,
}

impl Receiver for Switchboard {
    fn message(&self, to: u16, from: Id, message: Message, credit: Credit) {
        // The transport has checked the index against the same list of ids.
        self.inboxes[usize::from(to)].message(from, message, credit);
    }

    fn up(&self, peers: &[Id]) {
        for inbox in &self.inboxes {
            peers.iter().for_each(|peer| inbox.peer(Event::PeerUp(*peer)));
        }
    }

    fn down(&self, peers: &[Id]) {
        for inbox in &self.inboxes {
            peers.iter().for_each(|peer| inbox.peer(Event::PeerDown(*peer)));
        }
    }
}

/// Wakes one thread, for the price of a store while it is awake.
///
/// Invariant: when something has been put where the sleeper looks and the alarm has been rung since the sleeper last
/// went to sleep, it does not stay asleep. Whoever rings sets `rung` and then looks at `asleep`; the sleeper sets
/// `asleep` and then looks at `rung`; in the one order of these (they are sequentially consistent), one of the two sees
/// the other.
#[derive(Default)]
struct Alarm {
    sleeper: OnceLock<Thread>,
    rung: AtomicBool,
    asleep: AtomicBool,
}

impl Alarm {
    fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    /// Sleeps until it is rung, or has been since the last sleep; at most `time`. May wake for no reason.
    fn sleep(&self, time: Duration) {
        let sleeper = self.sleeper.get_or_init(std::thread::current);
        assert_eq!(sleeper.id(), std::thread::current().id(), "an alarm has one sleeper");
        self.asleep.store(true, Ordering::SeqCst);
        if !self.rung.swap(false, Ordering::SeqCst) {
            std::thread::park_timeout(time);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no wake-up is lost and no queue grows past its bound. Method: a sleeper with a long time limit against
    //! many threads that push; a flood with nobody taking.
    use super::*;
    use crate::node::limits::EVENTS_MAX;
    use bytes::Bytes;
    use net::wire::Body;

    fn tell(bytes: usize) -> Message {
        Message { request: 1, body: Body::Tell(Bytes::from(vec![0; bytes])) }
    }

    #[test]
    fn every_message_pushed_is_taken() {
        let inbox = Inbox::of_host(1, 1, &Registry::default()).remove(0);
        let pushers: Vec<_> = (0..4u8)
            .map(|i| {
                let inbox = inbox.clone();
                std::thread::spawn(move || {
                    for n in 0..5_000 {
                        while inbox.messages[Lane::Datagram as usize].is_full() {
                            std::thread::yield_now();
                        }
                        inbox.message(Id([i; 20]), tell(0), Credit::none());
                        if n % 64 == 0 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut taken = 0;
        while taken + inbox.messages_full.get() < 20_000 {
            while inbox.next_message(Lane::Datagram).is_some() {
                taken += 1;
            }
            inbox.sleep(Duration::from_secs(60));
        }
        for pusher in pushers {
            pusher.join().unwrap();
        }
        assert_eq!(inbox.all.message_bytes.load(Ordering::Relaxed), 0);
    }

    /// As with the engine's port: an item is put in a place the alarm knows nothing of, then the alarm is rung; the next
    /// item comes only once this one has been taken, so the first lost wake-up stops everything until the time runs out.
    #[test]
    fn no_ring_is_slept_through() {
        const ITEMS: usize = 20_000;
        let alarm = Arc::new(Alarm::default());
        let place = Arc::new(AtomicUsize::new(0));
        let putter = {
            let (alarm, place) = (alarm.clone(), place.clone());
            std::thread::spawn(move || {
                for item in 1..=ITEMS {
                    place.store(item, Ordering::SeqCst);
                    alarm.ring();
                    while place.load(Ordering::SeqCst) != 0 {
                        std::thread::yield_now();
                    }
                }
            })
        };
        let mut taken = 0;
        while taken < ITEMS {
            if place.swap(0, Ordering::SeqCst) != 0 {
                taken += 1;
                continue;
            }
            let start = std::time::Instant::now();
            alarm.sleep(Duration::from_secs(30));
            assert!(start.elapsed() < Duration::from_secs(29), "item {taken} was slept through");
        }
        putter.join().unwrap();
    }

    #[test]
    fn room_is_held_until_the_machine_takes_the_message() {
        let inbox = Inbox::of_host(1, 1, &Registry::default()).remove(0);
        let room = Arc::new(tokio::sync::Semaphore::new(3));
        for lane in LANES {
            let permit = room.clone().try_acquire_owned().unwrap();
            inbox.message(Id::default(), tell(10), Credit::holding(lane, permit));
        }
        for (taken, lane) in LANES.into_iter().enumerate() {
            assert_eq!(room.available_permits(), taken);
            assert!(inbox.next_message(lane).is_some() && inbox.next_message(lane).is_none());
        }
        assert_eq!(room.available_permits(), 3);
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let registry = Registry::default();
        let inbox = Inbox::of_host(1, 1, &registry).remove(0);
        for _ in 0..EVENTS_MAX + 10 {
            inbox.message(Id::default(), tell(0), Credit::none());
        }
        assert_eq!(inbox.messages_full.get(), 10);
        while inbox.next_message(Lane::Datagram).is_some() {}
        let large = EVENT_BYTES_MAX / 64;
        for _ in 0..64 {
            inbox.message(Id::default(), tell(large), Credit::none());
        }
        assert_eq!(inbox.messages_full.get(), 11, "the last of 64 does not fit with the overhead counted");
    }
}
