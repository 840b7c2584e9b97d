//! The world: nodes, their disks, and one queue of events in virtual time.

use super::network::{Network, Weather};
use super::store::MemoryStore;
use super::{mix, network};
use crate::id::Id;
use crate::limits::{MILLISECOND, SECOND};
use crate::machine::{
    Action, Actions, Command, ComputeJob, ComputeResult, Event, Machine, Metric, Micros, OpId, Reply, RequestId,
    StorageOperation, TimerId,
};
use crate::past::block::{Trust, verify};
use crate::roster::Roster;
use crate::wire::{Ends, Message, decode, encode};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// A node of the world.
pub type NodeIndex = usize;

/// Rewrites what a node does, to make it faulty: returns what is done instead of the action.
pub type Adversary = Box<dyn FnMut(Action) -> Vec<Action>>;

const SWEEP: Micros = 60 * SECOND;
/// The numbers of message types lie below.
const MESSAGE_TYPES: usize = 64;

enum Occurrence {
    Event(Event),
    /// A storage operation completes; it is performed at that moment, so that a crash before it undoes it.
    Complete(OpId, StorageOperation),
    Timer(TimerId, u64),
    Sweep,
}

struct Entry {
    at: Micros,
    order: u64,
    node: NodeIndex,
    /// The life of the node for which it is meant.
    life: u64,
    what: Occurrence,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Node<M> {
    id: Id,
    machine: Option<M>,
    life: u64,
    store: MemoryStore,
    /// Each timer's latest arming; earlier ones are void.
    timers: BTreeMap<TimerId, u64>,
    adversary: Option<Adversary>,
    /// Nothing happens on this node before; what was due happens then.
    asleep_until: Micros,
    delivered: Vec<(Id, u64, Bytes)>,
    adopted: Option<Arc<Roster>>,
}

/// A world of machines.
pub struct World<M> {
    now: Micros,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    nodes: Vec<Node<M>>,
    by_id: BTreeMap<Id, NodeIndex>,
    network: Network,
    trust: Trust,
    grace_s: u64,
    seed: u64,
    requests: u64,
    replies: BTreeMap<(NodeIndex, RequestId), (Micros, Reply)>,
    metrics: BTreeMap<Metric, u64>,
    events: u64,
    /// Messages sent, by the number of their type.
    messages: [u64; MESSAGE_TYPES],
    trace: u64,
    /// Whether each message goes through the wire codec and must come out the same.
    pub uses_codec: bool,
}

impl<M: Machine> World<M> {
    /// Time at which worlds begin: an ordinary moment in 2026.
    pub const GENESIS: Micros = 1_790_000_000 * SECOND;

    /// An empty world. Blocks are verified under `trust`; disks are swept each minute of what expired `grace_s` ago.
    #[must_use]
    pub fn new(seed: u64, weather: Weather, trust: Trust, grace_s: u64) -> World<M> {
        World {
            now: Self::GENESIS,
            order: 0,
            queue: BinaryHeap::new(),
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            network: network::Network::new(mix(seed), weather),
            trust,
            grace_s,
            seed,
            requests: 0,
            replies: BTreeMap::new(),
            metrics: BTreeMap::new(),
            events: 0,
            messages: [0; MESSAGE_TYPES],
            trace: 0,
            uses_codec: false,
        }
    }

    /// Adds a node with an empty disk, not yet started.
    pub fn add(&mut self, id: Id) -> NodeIndex {
        let node = self.nodes.len();
        assert!(self.by_id.insert(id, node).is_none(), "ids are unique");
        self.network.add_node();
        self.nodes.push(Node {
            id,
            machine: None,
            life: 0,
            store: MemoryStore::default(),
            timers: BTreeMap::new(),
            adversary: None,
            asleep_until: 0,
            delivered: Vec::new(),
            adopted: None,
        });
        self.later(SWEEP + mix(self.seed ^ node as u64) % SWEEP, node, 0, Occurrence::Sweep);
        node
    }

    /// Starts (or starts anew) a node's process on its disk.
    pub fn start(&mut self, node: NodeIndex, machine: M) {
        let it = &mut self.nodes[node];
        it.machine = Some(machine);
        it.life += 1;
        it.timers.clear();
        it.asleep_until = 0;
        let life = it.life;
        self.later(0, node, life, Occurrence::Event(Event::Boot));
    }

    /// Kills a node's process; its disk stays.
    pub fn kill(&mut self, node: NodeIndex) {
        self.nodes[node].machine = None;
        self.nodes[node].life += 1;
    }

    /// Empties a node's disk.
    pub fn wipe(&mut self, node: NodeIndex) {
        self.nodes[node].store = MemoryStore::default();
    }

    /// Stops a node for a while, as a closed laptop; what reaches it meanwhile is dealt with when it wakes.
    pub fn sleep(&mut self, node: NodeIndex, duration: Micros) {
        self.nodes[node].asleep_until = self.now + duration;
    }

    /// Makes a node faulty.
    pub fn corrupt(&mut self, node: NodeIndex, adversary: Adversary) {
        self.nodes[node].adversary = Some(adversary);
    }

    /// Makes a faulty node correct again.
    pub fn reform(&mut self, node: NodeIndex) {
        self.nodes[node].adversary = None;
    }

    /// Gives a node a command; its reply is found by [`World::reply`].
    pub fn command(&mut self, node: NodeIndex, command: Command) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let life = self.nodes[node].life;
        self.later(0, node, life, Occurrence::Event(Event::Command { request, command }));
        request
    }

    /// Tells a node that its transport lost a peer.
    pub fn hint_down(&mut self, node: NodeIndex, peer: Id) {
        let life = self.nodes[node].life;
        self.later(0, node, life, Occurrence::Event(Event::PeerDown(peer)));
    }

    /// The reply to a command, if it has come.
    #[must_use]
    pub fn reply(&self, node: NodeIndex, request: RequestId) -> Option<&Reply> {
        self.replies.get(&(node, request)).map(|(_, reply)| reply)
    }

    /// When the reply to a command came.
    #[must_use]
    pub fn replied_at(&self, node: NodeIndex, request: RequestId) -> Option<Micros> {
        self.replies.get(&(node, request)).map(|(at, _)| *at)
    }

    /// Takes the reply to a command.
    pub fn take_reply(&mut self, node: NodeIndex, request: RequestId) -> Option<Reply> {
        self.replies.remove(&(node, request)).map(|(_, reply)| reply)
    }

    /// Gives a command and runs until its reply has come, for at most two virtual minutes.
    pub fn ask(&mut self, node: NodeIndex, command: Command) -> Option<Reply> {
        let request = self.command(node, command);
        let end = self.now + 120 * SECOND;
        while self.now < end && self.reply(node, request).is_none() && self.step(end) {}
        self.take_reply(node, request)
    }

    /// Runs for a while.
    pub fn run_for(&mut self, duration: Micros) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `is_done`, looked at every second, or until the time is up; returns whether it was done.
    pub fn run_until(&mut self, limit: Micros, mut is_done: impl FnMut(&World<M>) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end {
            if is_done(self) {
                return true;
            }
            self.run_for(SECOND);
        }
        is_done(self)
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }

    /// All nodes.
    pub fn nodes(&self) -> std::ops::Range<NodeIndex> {
        0..self.nodes.len()
    }

    /// Whether a node's process runs.
    #[must_use]
    pub fn is_alive(&self, node: NodeIndex) -> bool {
        self.nodes[node].machine.is_some()
    }

    /// Ids of the nodes whose processes run.
    #[must_use]
    pub fn live_ids(&self) -> Vec<Id> {
        self.nodes.iter().filter(|node| node.machine.is_some()).map(|node| node.id).collect()
    }

    /// A node's id.
    #[must_use]
    pub fn id(&self, node: NodeIndex) -> Id {
        self.nodes[node].id
    }

    /// The node with this id.
    #[must_use]
    pub fn index(&self, id: Id) -> Option<NodeIndex> {
        self.by_id.get(&id).copied()
    }

    /// A node's machine, if its process runs.
    #[must_use]
    pub fn machine(&self, node: NodeIndex) -> Option<&M> {
        self.nodes[node].machine.as_ref()
    }

    /// A node's disk.
    #[must_use]
    pub fn store(&self, node: NodeIndex) -> &MemoryStore {
        &self.nodes[node].store
    }

    /// A node's disk, to damage it.
    pub fn store_mut(&mut self, node: NodeIndex) -> &mut MemoryStore {
        &mut self.nodes[node].store
    }

    /// How long a message between two nodes takes when nothing delays it.
    #[must_use]
    pub fn latency(&self, from: NodeIndex, to: NodeIndex) -> Micros {
        self.network.latency(from, to)
    }

    /// The network.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Messages handed to a node's application and not yet taken: sender, conversation, bytes.
    pub fn take_delivered(&mut self, node: NodeIndex) -> Vec<(Id, u64, Bytes)> {
        std::mem::take(&mut self.nodes[node].delivered)
    }

    /// The ring document a node has last adopted while running.
    #[must_use]
    pub fn adopted(&self, node: NodeIndex) -> Option<&Arc<Roster>> {
        self.nodes[node].adopted.as_ref()
    }

    /// What all nodes together have counted.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> u64 {
        self.metrics.get(&metric).copied().unwrap_or(0)
    }

    /// Events dealt with so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Messages sent so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.iter().sum()
    }

    /// Messages sent so far of the type with this number ([`crate::wire::Body::number`]).
    #[must_use]
    pub fn messages_of(&self, number: u8) -> u64 {
        self.messages[usize::from(number)]
    }

    /// A hash over everything that has happened so far, in order.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace
    }

    fn later(&mut self, delay: Micros, node: NodeIndex, life: u64, what: Occurrence) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at: self.now + delay, order: self.order, node, life, what }));
    }

    /// Deals with the next entry, if it is due by `end`.
    fn step(&mut self, end: Micros) -> bool {
        if self.queue.peek().is_none_or(|Reverse(entry)| entry.at > end) {
            return false;
        }
        let Some(Reverse(entry)) = self.queue.pop() else { return false };
        self.now = entry.at;
        let node = &mut self.nodes[entry.node];
        if let Occurrence::Sweep = entry.what {
            node.store.sweep(self.now / SECOND, self.grace_s);
            self.later(SWEEP, entry.node, 0, Occurrence::Sweep);
            return true;
        }
        if node.asleep_until > self.now && node.life == entry.life {
            let delay = node.asleep_until - self.now;
            self.later(delay, entry.node, entry.life, entry.what);
            return true;
        }
        if node.life != entry.life || node.machine.is_none() {
            return true;
        }
        let event = match entry.what {
            Occurrence::Event(event) => event,
            Occurrence::Complete(op, operation) => Event::Storage { op, result: node.store.perform(operation) },
            Occurrence::Timer(timer, arming) if node.timers.get(&timer) == Some(&arming) => Event::Timer(timer),
            Occurrence::Timer(..) => return true,
            Occurrence::Sweep => return true,
        };
        self.events += 1;
        self.trace = mix(self.trace ^ mix(self.now) ^ mix((entry.node as u64) << 8 | u64::from(kind_of(&event))));
        self.happen(entry.node, event);
        true
    }

    fn happen(&mut self, node: NodeIndex, event: Event) {
        let mut out = Actions::default();
        if let Some(machine) = &mut self.nodes[node].machine {
            machine.handle(self.now, event, &mut out);
        }
        for action in out.drain() {
            match &mut self.nodes[node].adversary {
                None => self.perform(node, action),
                Some(adversary) => {
                    for action in adversary(action) {
                        self.perform(node, action);
                    }
                }
            }
        }
    }

    fn perform(&mut self, node: NodeIndex, action: Action) {
        let life = self.nodes[node].life;
        match action {
            Action::Send { to, message } => self.send(node, to, message),
            Action::Arm { timer, at } => {
                let arming = self.order;
                self.nodes[node].timers.insert(timer, arming);
                let delay = at.saturating_sub(self.now);
                self.later(delay, node, life, Occurrence::Timer(timer, arming));
            }
            Action::Storage { op, operation } => {
                let delay = 200 + mix(self.seed ^ mix(op.0) ^ node as u64) % (2 * MILLISECOND);
                self.later(delay, node, life, Occurrence::Complete(op, operation));
            }
            Action::Compute { op, job: ComputeJob::Verify { key, value } } => {
                let result = match verify(&key, &value, &self.trust) {
                    Ok(version) => ComputeResult::Verified { version },
                    Err(refusal) => ComputeResult::Refused(refusal),
                };
                let delay = 20 + mix(self.seed ^ mix(op.0)) % 300;
                self.later(delay, node, life, Occurrence::Event(Event::Compute { op, result }));
            }
            Action::Reply { request, reply } => {
                let earlier = self.replies.insert((node, request), (self.now, reply));
                assert!(earlier.is_none(), "a command is replied to once");
            }
            Action::Deliver { from, conversation, payload } => {
                self.nodes[node].delivered.push((from, conversation, payload));
            }
            Action::RingAdopted { roster } => self.nodes[node].adopted = Some(roster),
            Action::Metric { metric, amount } => *self.metrics.entry(metric).or_default() += amount,
        }
    }

    fn send(&mut self, node: NodeIndex, to: Id, message: Message) {
        self.messages[usize::from(message.body.number())] += 1;
        let Some(receiver) = self.index(to) else { return };
        let message = if self.uses_codec { through_codec(message) } else { message };
        let from = self.nodes[node].id;
        let life = self.nodes[receiver].life;
        for delay in self.network.carry(node, receiver).into_iter().flatten() {
            let event = Event::Message { from, message: message.clone() };
            self.later(delay, receiver, life, Occurrence::Event(event));
        }
    }
}

/// The message as the receiver reads it off the wire; it must be the one that was sent.
fn through_codec(message: Message) -> Message {
    let ends = Ends { from: 1, to: 2 };
    let (read_ends, read) = decode(&encode(&message, ends).joined()).expect("our own frames decode");
    assert_eq!(read_ends, ends);
    assert_eq!(read, message);
    read
}

fn kind_of(event: &Event) -> u8 {
    match event {
        Event::Boot => 0,
        Event::Message { message, .. } => message.body.number(),
        Event::Timer(_) => 100,
        Event::Storage { .. } => 101,
        Event::Compute { .. } => 102,
        Event::Command { .. } => 103,
        Event::PeerUp(_) => 104,
        Event::PeerDown(_) => 105,
    }
}
