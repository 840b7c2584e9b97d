//! One node of the overlay: Pastry, PAST, Scribe and direct messages as one [`Machine`].
//!
//! Dispatch only. Each event goes to the layer it concerns; what a layer has to tell the others, and messages a node
//! sends to itself, are dealt with before the turn ends. Of the driver's timers one is used, armed for whatever is due
//! next, and moved when that has settled. If it fires much too late this node slept, and joins anew.

use crate::call::Owner;
use crate::id::Id;
use crate::limits::{PAYLOAD_BYTES_MAX, SLEPT};
use crate::machine::{
    Action, Actions, Command, ComputeResult, Event, Machine, Metric, Micros, Reply, RequestId, TimerId,
};
use crate::past::block::Refusal;
use crate::past::{Answer, Past};
use crate::pastry::Pastry;
use crate::ring::RingError;
use crate::roster::Roster;
use crate::scribe::Scribe;
use crate::site::{Asker, Due, Notice, Site, Turn};
use crate::tell::Conversations;
use crate::wire::{Body, ListingRole, Message, RangeListing};
use bytes::Bytes;
use std::sync::Arc;

/// The one timer used.
const TIMER: TimerId = TimerId(0);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    /// This node's id; in the ring document.
    pub id: Id,
    /// The ring document, arranged; virtual nodes of one host share it.
    pub roster: Arc<Roster>,
    /// The organisation CA's public key, which signs newer ring documents.
    pub authority: [u8; 32],
    /// Seeds every choice that is made at random; need not be secret.
    pub seed: u64,
    /// Whom to join through. Empty: our neighbours in the ring document.
    pub bootstraps: Vec<Id>,
}

impl OverlayConfig {
    /// A node of the ring described by this signed document, joining through any of its members.
    ///
    /// # Errors
    /// [`RingError`] if the document is not the authority's.
    pub fn new(id: Id, document: Bytes, authority: [u8; 32], seed: u64) -> Result<OverlayConfig, RingError> {
        let roster = Arc::new(Roster::decode(document, &authority)?);
        Ok(OverlayConfig { id, roster, authority, seed, bootstraps: Vec::new() })
    }
}

/// The overlay's state, for `epost status`.
#[derive(Clone, Debug, Default)]
pub struct OverlayStatus {
    /// This node's id.
    pub id: Id,
    /// Whether the leaf set has answered, the neighbours know of us, and routed messages are answered.
    pub ready: bool,
    /// Whether this node has compared notes with all its partners since it started, so that it knows what it lacks.
    pub synced: bool,
    /// The leaf set, nearest counter-clockwise first.
    pub leaf_set: Vec<Id>,
    /// Filled routing-table slots.
    pub routing_entries: usize,
    /// Members in the ring document.
    pub members: usize,
    /// Epoch of the ring document.
    pub epoch: u64,
    /// Requests under way.
    pub in_flight: usize,
    /// Groups in whose trees this node is, as a subscriber or on the way of others.
    pub groups: usize,
    /// Children over all those trees.
    pub group_children: usize,
    /// Peers that are reached through others, because the straight way is broken.
    pub detours: usize,
    /// Figures of a layer above, by name; empty here.
    pub above: Vec<(&'static str, u64)>,
}

/// One node of the overlay.
#[derive(Debug)]
pub struct Overlay {
    site: Site,
    pastry: Pastry,
    past: Past,
    scribe: Scribe,
    conversations: Conversations,
    authority: [u8; 32],
    /// When the driver's timer will fire.
    armed: Option<Micros>,
}

impl Overlay {
    /// A node that has not yet been told [`Event::Boot`].
    #[must_use]
    pub fn new(config: OverlayConfig) -> Overlay {
        let leaf_set = usize::from(config.roster.ring().parameters.leaf_set);
        Overlay {
            pastry: Pastry::new(config.id, leaf_set, config.bootstraps),
            site: Site::new(config.id, config.roster, config.seed),
            past: Past::default(),
            scribe: Scribe::default(),
            conversations: Conversations::default(),
            authority: config.authority,
            armed: None,
        }
    }

    /// The same node, but its messages go by the routing table alone, never straight to whom the ring document names: to
    /// measure what the table is worth.
    #[must_use]
    pub fn by_table_alone(mut self) -> Overlay {
        self.pastry.use_table_alone();
        self
    }

    /// The state, for the driver and for tests that look inside; the same as [`Command::Status`] gives.
    #[must_use]
    pub fn status(&self) -> OverlayStatus {
        let ring = self.site.roster.ring();
        OverlayStatus {
            id: self.site.me,
            ready: self.pastry.is_confirmed(),
            synced: self.pastry.is_ready() && self.past.is_synced(&self.pastry, &self.site),
            leaf_set: self.pastry.leaf_set(),
            routing_entries: self.pastry.routing_entries(),
            members: ring.members.len(),
            epoch: ring.epoch,
            in_flight: self.site.calls.len()
                + self.past.open()
                + self.pastry.open_questions()
                + self.scribe.open()
                + self.conversations.len(),
            groups: self.scribe.groups(),
            group_children: self.scribe.children(),
            detours: self.site.detours.len(),
            above: Vec::new(),
        }
    }

    /// This node's place in the tree of a group, if it is in it: its parent, unless it is the root, and its children. For
    /// tests that look inside.
    #[must_use]
    pub fn place_in_tree(&self, group: Id) -> Option<(Option<Id>, Vec<Id>)> {
        self.scribe.place(group)
    }

    /// From how many children over all groups on this node sends some of them below others; by default
    /// [`crate::limits::CHILDREN_MAX`].
    pub fn set_children_max(&mut self, count: usize) {
        self.scribe.set_children_max(count);
    }

    fn dispatch(&mut self, now: Micros, event: Event, out: &mut Actions) {
        let status = matches!(&event, Event::Command { command: Command::Status, .. }).then(|| self.status());
        let mut turn = Turn { now, site: &mut self.site, out };
        match event {
            Event::Boot => {
                turn.site.boot(now);
                self.armed = None;
                self.pastry.begin_join(&mut turn);
            }
            Event::Message { from, message } => self.receive(now, from, message, out),
            Event::Timer(_) => self.run_due(now, out),
            Event::Storage { op, result } => self.past.stored(&mut self.pastry, &mut turn, op, result),
            Event::Compute { op, result } => {
                let verdict = match result {
                    ComputeResult::Verified { version } => Ok(version),
                    ComputeResult::Refused(refusal) => Err(refusal),
                    ComputeResult::Worked(_) => return, // Not asked for by this machine.
                };
                self.past.computed(&mut self.pastry, &mut turn, op, verdict);
            }
            Event::Command { request, command: Command::Status } => {
                turn.reply(request, Reply::Status(Box::new(status.unwrap_or_default())));
            }
            Event::Command { request, command } => self.command(now, request, command, out),
            Event::PeerUp(_) => {}
            Event::PeerDown(peer) => {
                // A hint: what was asked of the peer is given up, so that others are asked now.
                self.pastry.probe(&mut turn, peer);
                for (request, owner) in turn.calls_lost(peer) {
                    self.answered(now, owner, peer, request, Answer::Silence, out);
                }
            }
        }
    }

    fn receive(&mut self, now: Micros, from: Id, message: Message, out: &mut Actions) {
        let mut turn = Turn { now, site: &mut self.site, out };
        if from == turn.site.me {
            // What we say to ourselves is heard even if a newer ring document has left us out.
        } else if turn.site.roster.contains(from) {
            self.pastry.heard(&mut turn, from, &message.body);
        } else if !turn.site.roster.is_client(from) {
            return self.stranger_speaks(now, from, message, out);
        } else if let Body::Ping(_) = message.body {
            let presence = self.pastry.presence(&turn);
            return turn.send(from, message.request, Body::Pong(presence));
        } else if !is_for_clients(&message.body) {
            return turn.count(Metric::Unexpected);
        }
        let Message { request, body } = message;
        match body {
            Body::Inserted(_)
            | Body::StoreAnswer(_)
            | Body::FetchAnswer(..)
            | Body::Extended(_)
            | Body::RangeAgreed
            | Body::RangeListing(RangeListing { role: ListingRole::Difference, .. })
            | Body::Told(_)
            | Body::Subscribed(_)
            | Body::Taken(_) => match turn.call_answered(from, request) {
                Some(owner) => self.answered(now, owner, from, request, Answer::Body(body), out),
                None => turn.count(Metric::Unexpected), // Answered twice, or too late.
            },
            Body::Insert(..)
            | Body::Store(..)
            | Body::Fetch(_)
            | Body::Extend(_)
            | Body::RangeDigest(_)
            | Body::RangeListing(_) => self.past.receive(&mut self.pastry, &mut turn, from, request, body),
            Body::Subscribe(_)
            | Body::Leave(_)
            | Body::Publication(..)
            | Body::Anycast(..)
            | Body::AnycastAnswer(_) => self.scribe.receive(&self.pastry, &mut turn, from, request, body),
            Body::Tell(payload) => self.conversations.told(&mut turn, from, request, payload),
            Body::RingRequest(wanted) => {
                let roster = turn.site.roster.clone();
                if roster.ring().epoch > wanted.epoch && !roster.document().is_empty() {
                    turn.send(from, request, Body::RingDocument(roster.document().clone()));
                }
            }
            Body::RingDocument(document) => {
                if self.adopt(now, document, out).is_err() {
                    out.push(Action::Metric { metric: Metric::Unexpected, amount: 1 });
                }
            }
            // The driver's business; it says so in its own counters.
            Body::Hello(_) => {}
            _ => self.pastry.received(&mut turn, from, request, body),
        }
    }

    /// Somebody who is not in our ring document speaks. He may be in a newer one, which is then asked for; he is not
    /// listened to otherwise.
    fn stranger_speaks(&mut self, now: Micros, from: Id, message: Message, out: &mut Actions) {
        let mut turn = Turn { now, site: &mut self.site, out };
        turn.count(Metric::Unexpected);
        match message.body {
            Body::Ping(presence) => self.pastry.compare_epochs(&mut turn, from, presence.epoch),
            Body::RingDocument(document) if self.pastry.awaits_ring(now) => {
                // A stranger's document counts like any other: it is the CA's, or nothing.
                let _ = self.adopt(now, document, out);
            }
            _ => {}
        }
    }

    fn answered(&mut self, now: Micros, owner: Owner, from: Id, request: u64, answer: Answer, out: &mut Actions) {
        let mut turn = Turn { now, site: &mut self.site, out };
        match (owner, answer) {
            (Owner::Tell(command), Answer::Body(Body::Told(payload))) => {
                turn.reply(command, Reply::Answered { payload });
            }
            (Owner::Tell(command), _) => turn.reply(command, Reply::Unavailable),
            (Owner::Scribe(waiting), answer) => {
                self.scribe.answered(&self.pastry, &mut turn, waiting, from, request, answer);
            }
            (owner, answer) => self.past.answered(&mut self.pastry, &mut turn, owner, from, request, answer),
        }
    }

    fn run_due(&mut self, now: Micros, out: &mut Actions) {
        self.armed = None;
        let slept = self.site.next_due().is_some_and(|at| now.saturating_sub(at) > SLEPT);
        if slept && self.pastry.is_ready() {
            self.past.slept();
            self.pastry.begin_join(&mut Turn { now, site: &mut self.site, out });
        }
        while let Some((_, due)) = self.site.take_due(now) {
            let mut turn = Turn { now, site: &mut self.site, out };
            match due {
                Due::Call(request) => {
                    if let Some((to, owner)) = turn.call_due(request) {
                        self.pastry.probe(&mut turn, to);
                        self.answered(now, owner, to, request, Answer::Silence, out);
                    }
                }
                Due::Task(task) => self.past.task_due(&mut self.pastry, &mut turn, task),
                Due::Upkeep | Due::Pulls | Due::Absence => self.past.due(&mut self.pastry, &mut turn, due),
                Due::Group(_) | Due::Publishing(_) | Due::Anycast(_) | Due::Solicitation(_) => {
                    self.scribe.due(&mut self.pastry, &mut turn, due);
                }
                Due::Conversation(conversation) => self.conversations.expire(&mut turn, conversation),
                _ => self.pastry.due(&mut turn, due),
            }
        }
    }

    fn command(&mut self, now: Micros, request: RequestId, command: Command, out: &mut Actions) {
        let mut turn = Turn { now, site: &mut self.site, out };
        match command {
            Command::Locate { target } => self.pastry.locate(&mut turn, target, Asker::Command(request)),
            Command::Subscribe { .. }
            | Command::Unsubscribe { .. }
            | Command::Publish { .. }
            | Command::Anycast { .. }
            | Command::Accept { .. } => self.scribe.command(&mut self.pastry, &mut turn, request, command),
            Command::Tell { payload, .. } | Command::Answer { payload, .. } if payload.len() > PAYLOAD_BYTES_MAX => {
                turn.reply(request, Reply::Refused(Refusal::Malformed));
            }
            Command::Tell { to, payload } => {
                let is_known = turn.site.roster.contains(to);
                let call = if is_known { turn.call(to, Body::Tell(payload), Owner::Tell(request)) } else { None };
                if call.is_none() {
                    turn.reply(request, if is_known { Reply::Busy } else { Reply::Unavailable });
                }
            }
            Command::Answer { to, conversation, payload } => {
                self.conversations.answer(&mut turn, to, conversation, payload);
                turn.reply(request, Reply::Done);
            }
            Command::AdoptRing { document } => {
                let reply = self.adopt(now, document, out).map_or_else(Reply::BadRing, |()| Reply::Done);
                out.push(Action::Reply { request, reply });
            }
            command => self.past.command(&mut self.pastry, &mut turn, request, command),
        }
    }

    /// Takes a ring document, if it is of this ring, the CA's, and newer than ours.
    fn adopt(&mut self, now: Micros, document: Bytes, out: &mut Actions) -> Result<(), RingError> {
        let roster = Roster::decode(document, &self.authority)?;
        if roster.ring().ring != self.site.roster.ring().ring {
            return Err(RingError::Malformed);
        }
        if roster.ring().epoch <= self.site.roster.ring().epoch {
            return Ok(());
        }
        self.site.roster = Arc::new(roster);
        out.push(Action::RingAdopted { roster: self.site.roster.clone() });
        let mut turn = Turn { now, site: &mut self.site, out };
        self.pastry.roster_changed(&mut turn);
        self.past.roster_changed(&self.pastry, &mut turn);
        self.scribe.roster_changed(&self.pastry, &mut turn);
        Ok(())
    }

    /// Deals with what this turn has left to be dealt with here.
    fn settle(&mut self, now: Micros, out: &mut Actions) {
        loop {
            if let Some(message) = self.site.loopback.pop_front() {
                let me = self.site.me;
                self.receive(now, me, message, out);
            } else if let Some(notice) = self.site.notices.pop_front() {
                self.notice(now, notice, out);
            } else {
                break;
            }
        }
        if let Some(next) = self.site.next_due()
            && self.armed != Some(next)
        {
            self.armed = Some(next);
            out.push(Action::Arm { timer: TIMER, at: next });
        }
    }

    fn notice(&mut self, now: Micros, notice: Notice, out: &mut Actions) {
        let mut turn = Turn { now, site: &mut self.site, out };
        match notice {
            Notice::Ready => {
                self.past.ready(&mut turn);
                self.scribe.ready(&mut turn);
            }
            Notice::Neighbourhood => {
                self.past.neighbourhood_changed(&self.pastry, &mut turn);
                self.scribe.neighbourhood_changed(&self.pastry, &mut turn);
            }
            Notice::Departed(peer) => self.scribe.departed(&self.pastry, &mut turn, peer),
            Notice::Located { asker, root } => match asker {
                Asker::Command(request) => {
                    let located = root.map(|(root, hops)| Reply::Located { root, hops });
                    turn.reply(request, located.unwrap_or(Reply::Unavailable));
                }
                Asker::Publication(number) => self.scribe.root_located(&mut turn, number, root.map(|r| r.0)),
                Asker::Insertion(task) => self.past.insertion_located(&mut turn, task, root.map(|r| r.0)),
                Asker::Lookup(task) => self.past.lookup_located(&self.pastry, &mut turn, task, root.map(|r| r.0)),
            },
        }
    }
}

/// What a client may ask of a node, besides how it is. All else is said among those with a place on the ring.
fn is_for_clients(body: &Body) -> bool {
    matches!(
        body,
        Body::Insert(..) | Body::Store(..) | Body::Fetch(_) | Body::Extend(_) | Body::RingRequest(_) | Body::Tell(_)
    )
}

impl Machine for Overlay {
    fn handle(&mut self, now: Micros, event: Event, out: &mut Actions) {
        self.dispatch(now, event, out);
        self.settle(now, out);
    }
}
