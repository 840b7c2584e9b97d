//! The overlay threads: machines, fed with events, their actions carried out.
//!
//! ```text
//!   network ──▶ messages ─┐                              ┌─▶ Transport      (Send)
//!   callers ──▶ orders   ─┤                              ├─▶ engine's port  (Storage)
//!   workers ──▶ computed ─┼─▶ Machine::handle ─▶ Actions ┼─▶ Workshop       (Compute)
//!   engine  ──▶ its port ─┤      one thread              ├─▶ caller's reply (Reply)
//!   clock   ──▶ timers   ─┘                              └─▶ application    (Deliver)
//! ```
//!
//! Messages have a queue for each lane. Each queue has its turn of at most [`TURN`] events, so none starves another; the thread sleeps when all are empty and
//! no timer is due. The machine decides everything; what this thread adds is only that every queue has a bound and
//! every drop is counted.

use super::client::{Answer, Delivery};
use super::clock::{Clock, wall};
use super::compute::Workshop;
use super::inbox::{Inbox, LANES, Order};
use super::limits::{COMMANDS_UNDER_WAY_MAX, DELIVERY_BYTES_MAX, SLEEP_TIME, TURN};
use super::scrubber::Scrubber;
use super::status::{Counter, Gauge, Registry};
use super::storage::Storage;
use super::sweeper::{Agreed, Sweeper};
use super::timers::Timers;
use super::transport::Transport;
use net::machine::{Action, Actions, Command, ComputeResult, Event, Machine, Metric, Micros, OpId, Reply, RequestId};
use net::roster::Roster;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What an overlay thread has for one machine.
pub(super) struct Driver<M> {
    /// Which of the host's node ids the machine has.
    pub index: u16,
    pub machine: M,
    pub inbox: Arc<Inbox>,
    pub transport: Arc<dyn Transport>,
    pub storage: Storage,
    pub workshop: Workshop,
    pub clock: Arc<Clock>,
    pub deliveries: mpsc::Sender<Delivery>,
    /// The ring document in force, for those who act on it.
    pub rings: Arc<watch::Sender<Arc<Roster>>>,
    /// How far the machines of this host have agreed on leases.
    pub agreed: Arc<Agreed>,
    /// Sweeps expired leases; only one driver of an engine does it.
    pub sweeper: Option<Sweeper>,
    /// Scrubs sealed data; only one driver of an engine does it.
    pub scrubber: Option<Scrubber>,
    pub counters: Counters,
}

/// What all overlay threads of a node count.
#[derive(Clone)]
pub(super) struct Counters {
    metrics: BTreeMap<Metric, Counter>,
    events: Counter,
    commands: Counter,
    commands_full: Counter,
    deliveries_full: Counter,
    deliveries_large: Counter,
    publications_unheard: Counter,
    commands_under_way: Gauge,
    storage_waiting: Gauge,
}

impl Counters {
    pub(super) fn new(registry: &Registry) -> Counters {
        let overlay = |cause| registry.counter_by("overlay", "what the overlay has done, by kind", cause);
        let metrics = [
            (Metric::Forwarded, "forwarded"),
            (Metric::Rooted, "rooted"),
            (Metric::Rerouted, "rerouted"),
            (Metric::PeerDied, "peer died"),
            (Metric::BlockRefused, "block refused"),
            (Metric::Replicated, "replicated"),
            (Metric::Repaired, "repaired"),
            (Metric::Dropped, "dropped"),
            (Metric::Unexpected, "unexpected"),
        ];
        Counters {
            metrics: metrics.into_iter().map(|(metric, name)| (metric, overlay(name))).collect(),
            events: registry.counter("events", "events handled by the overlay threads"),
            commands: registry.counter("commands", "commands given to the overlay"),
            commands_full: registry.drops("too many commands under way"),
            deliveries_large: registry.drops("application packet too large"),
            publications_unheard: registry.drops("publication without an application"),
            deliveries_full: registry.drops("application's delivery queue full"),
            commands_under_way: registry.gauge("queue_commands", "commands under way"),
            storage_waiting: registry.gauge("queue_storage", "storage operations that wait for the engine"),
        }
    }
}

/// A driver at work.
struct Running<M> {
    driver: Driver<M>,
    actions: Actions,
    timers: Timers,
    /// Computed by this thread itself while it carried out actions.
    computed: VecDeque<(OpId, ComputeResult)>,
    replies: BTreeMap<RequestId, Option<oneshot::Sender<Reply>>>,
    next_request: u64,
    /// Whether the last look into the queues found something.
    is_busy: bool,
}

/// Runs the machines of one thread until they are told to stop, or the engine has ended by itself, which ends the node.
/// Callers still waiting then see their reply channel closed.
pub(super) fn run<M: Machine>(drivers: Vec<Driver<M>>) {
    assert!(!drivers.is_empty(), "a thread without machines would never be woken");
    let mut machines: Vec<Running<M>> = drivers.into_iter().map(Running::new).collect();
    machines.iter_mut().for_each(|machine| machine.handle(Event::Boot));
    while !machines.iter().any(|machine| machine.driver.inbox.is_stopping()) {
        let mut worked = false;
        for machine in &mut machines {
            worked |= machine.has_work() && machine.turn();
        }
        if !worked {
            let next = machines.iter_mut().map(Running::next_due).min().unwrap_or(Micros::MAX);
            let first = &machines[0].driver;
            let time = Duration::from_micros(next.saturating_sub(first.clock.now()));
            first.inbox.sleep(time.min(SLEEP_TIME));
        }
        if machines.iter().any(|machine| machine.driver.storage.has_ended()) {
            tracing::error!("the store has ended by itself");
            break;
        }
    }
    for machine in &machines {
        // Their callers see the reply channel closed, as those already given to the machine do.
        while machine.driver.inbox.next_order().is_some() {}
    }
}

impl<M: Machine> Running<M> {
    fn new(driver: Driver<M>) -> Running<M> {
        Running {
            driver,
            actions: Actions::default(),
            timers: Timers::default(),
            computed: VecDeque::new(),
            replies: BTreeMap::new(),
            next_request: 0,
            is_busy: true,
        }
    }

    /// Whether it is worth looking into the queues: there was something at the last look, something has come since, a timer
    /// is due, or the store's own chores are this machine's to begin.
    fn has_work(&mut self) -> bool {
        let is_rung = self.driver.inbox.take_rung();
        let has_chores = self.driver.sweeper.is_some() || self.driver.scrubber.is_some();
        is_rung || self.is_busy || has_chores || self.timers.first().is_some_and(|at| at <= self.driver.clock.now())
    }

    /// Gives each queue its turn. False if there was nothing to do.
    fn turn(&mut self) -> bool {
        self.is_busy = self.look();
        self.is_busy
    }

    fn look(&mut self) -> bool {
        let mut worked = self.due_turn();
        for _ in 0..TURN {
            let Some((op, result)) = self.driver.storage.poll() else { break };
            self.handle(Event::Storage { op, result });
            worked = true;
        }
        for _ in 0..TURN {
            let here = self.computed.pop_front();
            let Some((op, result)) = here.or_else(|| self.driver.inbox.next_computed()) else { break };
            self.handle(Event::Compute { op, result });
            worked = true;
        }
        for _ in 0..TURN {
            let Some(event) = self.driver.inbox.next_peer() else { break };
            self.handle(event);
            worked = true;
        }
        for lane in LANES {
            for _ in 0..TURN {
                let Some((from, message)) = self.driver.inbox.next_message(lane) else { break };
                self.handle(Event::Message { from, message });
                worked = true;
            }
        }
        for _ in 0..TURN {
            let Some(order) = self.driver.inbox.next_order() else { break };
            self.take_order(order);
            worked = true;
        }
        worked
    }

    /// Timers that are due, the sweep, and a step of scrubbing.
    fn due_turn(&mut self) -> bool {
        let now = self.driver.clock.now();
        let mut worked = false;
        for _ in 0..TURN {
            let Some(timer) = self.timers.take_due(now) else { break };
            self.handle(Event::Timer(timer));
            worked = true;
        }
        let agreed = self.driver.agreed.through();
        if let Some(due) = self.driver.sweeper.as_mut().and_then(|sweeper| sweeper.due(now, wall(), agreed)) {
            self.driver.storage.sweep(due);
        }
        if let Some(scrubber) = self.driver.scrubber.as_mut() {
            if let Some((bytes, store_bytes)) = self.driver.storage.take_scrubbed() {
                scrubber.done(bytes, store_bytes);
            }
            if !self.driver.storage.is_scrubbing()
                && let Some(budget) = scrubber.due(now)
            {
                self.driver.storage.scrub(budget);
            }
        }
        worked
    }

    /// When the next timer or sweep is due.
    fn next_due(&mut self) -> Micros {
        self.driver.counters.storage_waiting.set(self.driver.storage.waiting() as u64);
        let sweep = self.driver.sweeper.as_ref().map(Sweeper::next);
        self.timers.first().into_iter().chain(sweep).min().unwrap_or(Micros::MAX)
    }

    fn take_order(&mut self, order: Order) {
        if self.replies.len() >= COMMANDS_UNDER_WAY_MAX {
            self.driver.counters.commands_full.increment();
            if let Some(reply) = order.reply {
                // A caller that has gone needs no reply.
                let _ = reply.send(Reply::Busy);
            }
            return;
        }
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.replies.insert(request, order.reply);
        self.driver.counters.commands.increment();
        self.driver.counters.commands_under_way.rise(1);
        self.handle(Event::Command { request, command: order.command });
    }

    fn handle(&mut self, event: Event) {
        self.driver.counters.events.increment();
        let now = self.driver.clock.now();
        self.driver.machine.handle(now, event, &mut self.actions);
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain() {
            self.carry_out(action);
        }
        // Keeps the list's capacity.
        self.actions = actions;
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send { to, message } => self.driver.transport.send(self.driver.index, to, message),
            Action::Arm { timer, at } => self.timers.arm(timer, at),
            Action::Storage { op, operation } => self.driver.storage.submit(op, operation),
            Action::Compute { op, job } => {
                if let Some(result) = self.driver.workshop.submit(op, job, &self.driver.inbox) {
                    self.computed.push_back((op, result));
                }
            }
            Action::Reply { request, reply } => {
                let waiting = self.replies.remove(&request);
                self.driver.counters.commands_under_way.fall(1);
                // Exactly once per command is the machine's promise; a caller that has gone needs no reply.
                let _ = waiting.expect("the machine replies to commands it was given").map(|caller| caller.send(reply));
            }
            Action::Deliver { payload, .. } if payload.len() > DELIVERY_BYTES_MAX => {
                self.driver.counters.deliveries_large.increment();
            }
            Action::Deliver { from, conversation, payload } => {
                let answer = Answer::new(self.driver.inbox.clone(), from, conversation);
                if self.driver.deliveries.try_send(Delivery { from, payload, answer }).is_err() {
                    self.driver.counters.deliveries_full.increment();
                }
            }
            // No application here subscribes to a group yet. One that is asked whether it accepts must have an answer, for the
            // message waits here meanwhile.
            Action::Published { .. } => self.driver.counters.publications_unheard.increment(),
            Action::Solicit { solicitation, .. } => {
                let command = Command::Accept { solicitation, accepts: false };
                // If the inbox is full, the machine goes on by itself after a while.
                let _ = self.driver.inbox.order(Order { command, reply: None });
            }
            Action::LeasesAgreed { through } => self.driver.agreed.tell(self.driver.index, through),
            Action::RingAdopted { roster } => {
                // Machines of one host may adopt it one after the other.
                let epoch = roster.ring().epoch;
                self.driver.rings.send_if_modified(|ring| {
                    let newer = epoch > ring.ring().epoch;
                    if newer {
                        *ring = roster;
                    }
                    newer
                });
            }
            Action::Metric { metric, amount } => {
                let counter = self.driver.counters.metrics.get(&metric);
                counter.expect("every metric has a counter").add(amount);
            }
        }
    }
}

impl<M> Drop for Running<M> {
    fn drop(&mut self) {
        self.driver.counters.commands_under_way.fall(self.replies.len() as u64);
    }
}

/// The machine's answer to a peer, as a command.
pub(super) fn answer_order(to: net::id::Id, conversation: u64, payload: bytes::Bytes) -> Order {
    Order { command: Command::Answer { to, conversation, payload }, reply: None }
}

#[cfg(test)]
mod tests;
