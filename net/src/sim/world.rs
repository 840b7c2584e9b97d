//! The world: nodes, their disks, and one queue of events in virtual time.

mod script;

use super::network::{Network, Sending, Weather};
use super::store::MemoryStore;
use super::wheel::{Place, Wheel};
use super::{mix, network};
use crate::id::Id;
use crate::id_table::IdTable;
use crate::limits::{MILLISECOND, SECOND};
use crate::machine::{
    Action, Actions, Command, ComputeJob, ComputeResult, Event, Machine, Metric, Micros, OpId, Reply, RequestId,
    Seconds, StorageOperation, TimerId,
};
use crate::past::block::{Trust, verify};
use crate::roster::Roster;
use crate::wire::{Ends, Message, decode, encode};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A node of the world.
pub type NodeIndex = usize;

/// Rewrites what a node does, to make it faulty: returns what is done instead of the action.
pub type Adversary = Box<dyn FnMut(Action) -> Vec<Action>>;

const SWEEP: Micros = 60 * SECOND;
/// The numbers of message types lie below.
const MESSAGE_TYPES: usize = 64;
const METRICS: usize = Metric::Unexpected as usize + 1;

enum Occurrence {
    Event(Event),
    /// A storage operation completes; it is performed at that moment, so that a crash before it undoes it.
    Complete(OpId, StorageOperation),
    Timer(TimerId),
    Sweep,
    /// A fault of the script begins, or ends.
    Fault {
        number: u32,
        begins: bool,
    },
}

struct Entry {
    node: u32,
    /// The life of the node for which it is meant.
    life: u32,
    what: Occurrence,
}

struct Node<M> {
    machine: Option<M>,
    /// Which of the world's disks is its own.
    disk: usize,
    /// The timers that are armed, each once.
    timers: Vec<(TimerId, Place)>,
    adversary: Option<Adversary>,
    /// Nothing happens on this node before; what was due happens then.
    asleep_until: Micros,
    /// How far its clock is ahead of the world's; behind it, if negative. Without what it has gained by its present drift.
    clock_ahead: i64,
    /// The same of the clock that its process hands to the machine, which never goes back.
    shown_ahead: i64,
    /// What its machine was last told the time is.
    clock_shown: Micros,
    /// How much faster than the world's its clock goes, in millionths, and since when.
    drift: (i32, Micros),
    /// How much longer than others its disk takes.
    disk_slowness: Micros,
    /// Until when its machine has agreed on leases with others, since it was started.
    leases_agreed: Seconds,
    delivered: Vec<(Id, u64, Bytes)>,
    published: Vec<(Id, Id, Bytes)>,
    solicited: Vec<(Id, u64, Bytes)>,
    adopted: Option<Arc<Roster>>,
}

impl<M> Node<M> {
    /// What its clock has gained by its drift.
    fn gained(&self, now: Micros) -> i64 {
        let (millionths, since) = self.drift;
        (i128::from(now - since.min(now)) * i128::from(millionths) / 1_000_000) as i64
    }

    /// How long in the world what is so long by its clock lasts.
    fn lasts(&self, delay: Micros) -> Micros {
        match self.drift.0 {
            0 => delay,
            millionths => {
                (u128::from(delay) * 1_000_000).div_ceil((1_000_000 + i128::from(millionths)).unsigned_abs()) as Micros
            }
        }
    }
}

/// A disk, and the nodes whose it is: one, or all those of a host.
struct Disk {
    store: MemoryStore,
    nodes: Vec<NodeIndex>,
}

/// A world of machines.
pub struct World<M> {
    now: Micros,
    queue: Wheel<Entry>,
    nodes: Vec<Node<M>>,
    disks: Vec<Disk>,
    /// How often each node has started or been killed; apart from the nodes, for the senders of messages to look at.
    lives: Vec<u32>,
    directory: IdTable<()>,
    /// What the machine at work wants done; kept for its capacity.
    actions: Actions,
    /// To whom the machine at work has sent messages of which types in this turn; kept for its capacity.
    sent: Vec<(u32, u8)>,
    network: Network,
    trust: Trust,
    grace_s: u64,
    seed: u64,
    requests: u64,
    replies: BTreeMap<(NodeIndex, RequestId), (Micros, Reply)>,
    metrics: [u64; METRICS],
    events: u64,
    /// Messages sent, by the number of their type.
    messages: [u64; MESSAGE_TYPES],
    trace: u64,
    script: script::Script<M>,
    /// Whether each message goes through the wire codec and must come out the same.
    pub uses_codec: bool,
}

impl<M: Machine> World<M> {
    /// Time at which worlds begin: an ordinary moment in 2026.
    pub const GENESIS: Micros = 1_790_000_000 * SECOND;

    /// An empty world. Blocks are verified under `trust`; disks are swept each minute of what expired `grace_s` ago, by
    /// each node's clock, as far as its machine has agreed on leases.
    #[must_use]
    pub fn new(seed: u64, weather: Weather, trust: Trust, grace_s: u64) -> World<M> {
        World {
            now: Self::GENESIS,
            queue: Wheel::new(Self::GENESIS),
            nodes: Vec::new(),
            disks: Vec::new(),
            lives: Vec::new(),
            directory: IdTable::default(),
            actions: Actions::default(),
            sent: Vec::new(),
            network: network::Network::new(mix(seed), weather),
            trust,
            grace_s,
            seed,
            requests: 0,
            replies: BTreeMap::new(),
            metrics: [0; METRICS],
            events: 0,
            messages: [0; MESSAGE_TYPES],
            trace: 0,
            script: script::Script::default(),
            uses_codec: false,
        }
    }

    /// Adds a node with an empty disk, not yet started.
    pub fn add(&mut self, id: Id) -> NodeIndex {
        assert!(!self.directory.contains(id), "ids are unique");
        let node = self.directory.add(id, ());
        self.lives.push(0);
        self.network.add_node();
        self.disks.push(Disk { store: MemoryStore::default(), nodes: vec![node] });
        self.nodes.push(Node {
            machine: None,
            disk: node,
            timers: Vec::new(),
            adversary: None,
            asleep_until: 0,
            clock_ahead: 0,
            shown_ahead: 0,
            clock_shown: 0,
            drift: (0, 0),
            disk_slowness: 0,
            leases_agreed: 0,
            delivered: Vec::new(),
            published: Vec::new(),
            solicited: Vec::new(),
            adopted: None,
        });
        self.later(SWEEP + mix(self.seed ^ node as u64) % SWEEP, node, 0, Occurrence::Sweep);
        node
    }

    /// Starts (or starts anew) a node's process on its disk.
    pub fn start(&mut self, node: NodeIndex, machine: M) {
        self.kill(node);
        let it = &mut self.nodes[node];
        it.machine = Some(machine);
        it.asleep_until = 0;
        it.shown_ahead = it.clock_ahead;
        it.clock_shown = 0;
        self.later(0, node, self.lives[node], Occurrence::Event(Event::Boot));
    }

    /// Kills a node's process; its disk stays.
    pub fn kill(&mut self, node: NodeIndex) {
        self.nodes[node].machine = None;
        self.nodes[node].leases_agreed = 0;
        self.lives[node] += 1;
        for (_, place) in self.nodes[node].timers.drain(..) {
            self.queue.cancel(place);
        }
    }

    /// Empties a node's disk.
    pub fn wipe(&mut self, node: NodeIndex) {
        *self.store_mut(node) = MemoryStore::default();
    }

    /// Lets these nodes, which have stored nothing yet, have one disk between them, as the ids of one host do.
    pub fn share_disk(&mut self, nodes: &[NodeIndex]) {
        let Some(first) = nodes.first().map(|node| self.nodes[*node].disk) else { return };
        for node in nodes {
            let before = std::mem::replace(&mut self.nodes[*node].disk, first);
            assert!(self.disks[before].store.used_bytes() == 0, "nothing is stored yet");
            self.disks[before].nodes.retain(|other| other != node);
            self.disks[first].nodes.push(*node);
        }
    }

    /// Stops a node for a while, as a closed laptop; what reaches it meanwhile is dealt with when it wakes.
    pub fn sleep(&mut self, node: NodeIndex, duration: Micros) {
        self.nodes[node].asleep_until = self.now + duration;
    }

    /// Puts a node's clock so far ahead of the world's (or behind it, if negative), and lets it step there. The machine is
    /// told what the clock that ships tells: it follows a step ahead; set back, it runs on from where it was until the process
    /// starts anew. Timers keep their delay.
    pub fn set_clock(&mut self, node: NodeIndex, ahead: i64) {
        let it = &mut self.nodes[node];
        it.clock_ahead = ahead - it.gained(self.now);
        it.shown_ahead = it.shown_ahead.max(it.clock_ahead);
    }

    /// Lets a node's clock step, ahead or back.
    pub fn step_clock(&mut self, node: NodeIndex, by: i64) {
        let it = &self.nodes[node];
        self.set_clock(node, it.clock_ahead + it.gained(self.now) + by);
    }

    /// Lets a node's clock go faster than the world's by so many millionths, or slower if negative, from now on. What it has
    /// gained by then stays.
    pub fn set_drift(&mut self, node: NodeIndex, millionths: i32) {
        assert!(millionths.abs() < 1_000_000, "clocks go forward");
        let it = &mut self.nodes[node];
        let gained = it.gained(self.now);
        it.clock_ahead += gained;
        it.shown_ahead += gained;
        it.drift = (millionths, self.now);
    }

    /// Makes every operation of a node's disk take so much longer.
    pub fn slow_disk(&mut self, node: NodeIndex, slowness: Micros) {
        self.nodes[node].disk_slowness = slowness;
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
        let life = self.lives[node];
        self.later(0, node, life, Occurrence::Event(Event::Command { request, command }));
        request
    }

    /// Tells a node that its transport lost a peer.
    pub fn hint_down(&mut self, node: NodeIndex, peer: Id) {
        let life = self.lives[node];
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

    /// Whether a node sleeps.
    #[must_use]
    pub fn is_asleep(&self, node: NodeIndex) -> bool {
        self.nodes[node].asleep_until > self.now
    }

    /// Ids of the nodes whose processes run.
    #[must_use]
    pub fn live_ids(&self) -> Vec<Id> {
        self.nodes().filter(|node| self.is_alive(*node)).map(|node| self.id(node)).collect()
    }

    /// A node's id.
    #[must_use]
    pub fn id(&self, node: NodeIndex) -> Id {
        self.directory.at(node).0
    }

    /// The node with this id.
    #[must_use]
    pub fn index(&self, id: Id) -> Option<NodeIndex> {
        self.directory.place(id)
    }

    /// A node's machine, if its process runs.
    #[must_use]
    pub fn machine(&self, node: NodeIndex) -> Option<&M> {
        self.nodes[node].machine.as_ref()
    }

    /// A node's disk.
    #[must_use]
    pub fn store(&self, node: NodeIndex) -> &MemoryStore {
        &self.disks[self.nodes[node].disk].store
    }

    /// A node's disk, to damage it.
    pub fn store_mut(&mut self, node: NodeIndex) -> &mut MemoryStore {
        &mut self.disks[self.nodes[node].disk].store
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

    /// Publications handed to a node's application and not yet taken: group, publisher, bytes.
    pub fn take_published(&mut self, node: NodeIndex) -> Vec<(Id, Id, Bytes)> {
        std::mem::take(&mut self.nodes[node].published)
    }

    /// What a node's application was asked to accept, not yet taken: group, solicitation, bytes.
    pub fn take_solicited(&mut self, node: NodeIndex) -> Vec<(Id, u64, Bytes)> {
        std::mem::take(&mut self.nodes[node].solicited)
    }

    /// The ring document a node has last adopted while running.
    #[must_use]
    pub fn adopted(&self, node: NodeIndex) -> Option<&Arc<Roster>> {
        self.nodes[node].adopted.as_ref()
    }

    /// What all nodes together have counted.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> u64 {
        self.metrics[metric as usize]
    }

    /// Events dealt with so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Entries that wait for their time: messages under way, armed timers, work of the disks.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
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

    fn later(&mut self, delay: Micros, node: NodeIndex, life: u32, what: Occurrence) -> Place {
        self.queue.push(self.now + delay, Entry { node: node as u32, life, what })
    }

    /// Deals with the next entry, if it is due by `end`.
    fn step(&mut self, end: Micros) -> bool {
        let Some((at, place, Entry { node, life, what })) = self.queue.pop(end) else { return false };
        self.now = at;
        if let Occurrence::Fault { number, begins } = what {
            self.fault_turns(number, begins);
            return true;
        }
        let index = node as usize;
        let is_current = self.lives[index] == life;
        let node = &mut self.nodes[index];
        if let Occurrence::Sweep = what {
            if node.machine.is_some() && node.asleep_until <= self.now {
                let clock = node.clock_shown.max(self.now.saturating_add_signed(node.clock_ahead));
                // Of the nodes of one host all must have agreed.
                let disk = &mut self.disks[node.disk];
                let agreed = disk.nodes.iter().map(|node| self.nodes[*node].leases_agreed).min();
                disk.store.sweep(clock / SECOND, self.grace_s, agreed.unwrap_or(0));
            }
            self.later(SWEEP, index, 0, Occurrence::Sweep);
            return true;
        }
        if !is_current || node.machine.is_none() {
            return true;
        }
        if node.asleep_until > self.now {
            self.put_off(index, place, what);
            return true;
        }
        let event = match what {
            Occurrence::Event(event) => event,
            Occurrence::Complete(op, operation) => {
                Event::Storage { op, result: self.disks[node.disk].store.perform(operation) }
            }
            Occurrence::Timer(timer) => {
                node.timers.retain(|(armed, _)| *armed != timer);
                Event::Timer(timer)
            }
            Occurrence::Sweep | Occurrence::Fault { .. } => return true,
        };
        self.events += 1;
        self.trace = mix(self.trace ^ mix(self.now) ^ mix((index as u64) << 8 | u64::from(kind_of(&event))));
        self.happen(index, event);
        true
    }

    /// What was due on a sleeping node happens when it wakes.
    fn put_off(&mut self, node: NodeIndex, place: Place, what: Occurrence) {
        let delay = self.nodes[node].asleep_until - self.now;
        let later = self.later(delay, node, self.lives[node], what);
        if let Some((_, armed)) = self.nodes[node].timers.iter_mut().find(|(_, armed)| *armed == place) {
            *armed = later;
        }
    }

    fn happen(&mut self, node: NodeIndex, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        let it = &mut self.nodes[node];
        let ahead = it.shown_ahead + it.gained(self.now);
        it.clock_shown = it.clock_shown.max(self.now.saturating_add_signed(ahead));
        if let Some(machine) = &mut it.machine {
            machine.handle(it.clock_shown, event, &mut actions);
        }
        let mut adversary = it.adversary.take();
        self.sent.clear();
        for action in actions.drain() {
            match &mut adversary {
                None => self.perform(node, action),
                Some(adversary) => {
                    for action in adversary(action) {
                        self.perform(node, action);
                    }
                }
            }
        }
        self.nodes[node].adversary = adversary;
        self.actions = actions;
    }

    fn perform(&mut self, node: NodeIndex, action: Action) {
        let life = self.lives[node];
        match action {
            Action::Send { to, message } => self.send(node, to, message),
            Action::Arm { timer, at } => {
                let delay = self.nodes[node].lasts(at.saturating_sub(self.nodes[node].clock_shown));
                let place = self.later(delay, node, life, Occurrence::Timer(timer));
                let timers = &mut self.nodes[node].timers;
                match timers.iter_mut().find(|(armed, _)| *armed == timer) {
                    Some((_, armed)) => {
                        self.queue.cancel(std::mem::replace(armed, place));
                    }
                    None => timers.push((timer, place)),
                }
            }
            Action::Storage { op, operation } => {
                let usual = 200 + mix(self.seed ^ mix(op.0) ^ node as u64) % (2 * MILLISECOND);
                let delay = usual + self.nodes[node].disk_slowness;
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
            Action::Compute { op, job: ComputeJob::Work(work) } => {
                // A gigabyte a second, about.
                let delay = 20 + work.bytes() as u64 / 1_000;
                let result = ComputeResult::Worked(work.perform());
                self.later(delay, node, life, Occurrence::Event(Event::Compute { op, result }));
            }
            Action::Reply { request, reply } => {
                let earlier = self.replies.insert((node, request), (self.now, reply));
                assert!(earlier.is_none(), "a command is replied to once");
            }
            Action::Deliver { from, conversation, payload } => {
                self.nodes[node].delivered.push((from, conversation, payload));
            }
            Action::Published { group, publisher, payload } => {
                self.nodes[node].published.push((group, publisher, payload));
            }
            Action::Solicit { group, solicitation, payload, .. } => {
                self.nodes[node].solicited.push((group, solicitation, payload));
            }
            Action::LeasesAgreed { through } => self.nodes[node].leases_agreed = through,
            Action::RingAdopted { roster } => self.nodes[node].adopted = Some(roster),
            Action::Metric { metric, amount } => self.metrics[metric as usize] += amount,
        }
    }

    fn send(&mut self, node: NodeIndex, to: Id, message: Message) {
        let number = message.body.number();
        self.messages[usize::from(number)] += 1;
        let Some(receiver) = self.index(to) else { return };
        let message = if self.uses_codec { through_codec(message) } else { message };
        let (from, life) = (self.id(node), self.lives[receiver]);
        let kind = (receiver as u32, number);
        let nth = self.sent.iter().filter(|sent| **sent == kind).count() as u32;
        self.sent.push(kind);
        let sending = Sending { from: node, to: receiver, number, at: self.now, nth };
        let [first, second] = self.network.carry(sending);
        // The first copy goes first, whichever arrives first.
        if let Some(delay) = first {
            let twin = second.map(|delay| (delay, message.clone()));
            self.later(delay, receiver, life, Occurrence::Event(Event::Message { from, message }));
            if let Some((delay, message)) = twin {
                self.later(delay, receiver, life, Occurrence::Event(Event::Message { from, message }));
            }
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
