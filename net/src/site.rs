//! What all layers of one node share: who it is, what is due when, and the requests that await an answer.
//!
//! A [`Turn`] is one call of [`crate::machine::Machine::handle`]: the time, the site, and the list of actions.

use crate::call::Calls;
use crate::id::{Id, Key};
use crate::machine::{Action, Actions, ComputeJob, Metric, Micros, OpId, Reply, RequestId, StorageOperation};
use crate::past::holders::Absences;
use crate::pastry::detour::Detours;
use crate::roster::Roster;
use crate::wire::{Body, Message, Scope};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Something to be looked at when its time has come. What has settled meanwhile is simply passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Neighbours,
    LeafSet,
    Table,
    Rows,
    Announce,
    Detours,
    Heal,
    Join,
    Probe(Id),
    Hop(u64),
    Locate(u64),
    Call(u64),
    Task(u64),
    Conversation(u64),
    Upkeep,
    Pulls,
    Group(Id),
    Publishing(u64),
    Anycast(u64),
    Solicitation(u64),
    Absence,
}

/// What one layer has to tell the others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// This node takes routed messages from now on.
    Ready,
    /// The leaf set has changed.
    Neighbourhood,
    /// A peer was found dead.
    Departed(Id),
    /// A routed question was answered by `root`, or by nobody.
    Located { asker: Asker, root: Option<(Id, u8)> },
}

/// Who asked a routed question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Command(RequestId),
    Insertion(u64),
    Lookup(u64),
    Publication(u64),
}

/// What all layers share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) me: Id,
    pub(crate) roster: Arc<Roster>,
    pub(crate) booted: Micros,
    pub(crate) calls: Calls,
    /// Peers that are not reached straight.
    pub(crate) detours: Detours,
    pub(crate) notices: VecDeque<Notice>,
    /// Messages to ourselves; handled within the same turn.
    pub(crate) loopback: VecDeque<Message>,
    /// Who is missing near us; kept by PAST.
    pub(crate) absences: Absences,
    agenda: BTreeSet<(Micros, Due)>,
    random: u64,
    last_number: u64,
}

impl Site {
    pub(crate) fn new(me: Id, roster: Arc<Roster>, seed: u64) -> Site {
        Site {
            me,
            roster,
            booted: 0,
            calls: Calls::default(),
            detours: Detours::default(),
            notices: VecDeque::new(),
            loopback: VecDeque::new(),
            absences: Absences::default(),
            agenda: BTreeSet::new(),
            random: seed,
            last_number: 0,
        }
    }

    /// Request numbers start at the boot time, so that those of an earlier life are not met again.
    pub(crate) fn boot(&mut self, now: Micros) {
        self.booted = now;
        self.last_number = now;
        self.agenda.clear();
    }

    /// The earliest time at which something is due.
    pub(crate) fn next_due(&self) -> Option<Micros> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// Takes the earliest entry that is due.
    pub(crate) fn take_due(&mut self, now: Micros) -> Option<(Micros, Due)> {
        if self.next_due()? > now { None } else { self.agenda.pop_first() }
    }

    /// Takes these off the agenda, whenever they are due.
    pub(crate) fn cancel(&mut self, dues: &[Due]) {
        self.agenda.retain(|(_, due)| !dues.contains(due));
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope { ring: self.roster.ring().ring, epoch: self.roster.ring().epoch }
    }

    /// The next number of a seeded sequence (splitmix64).
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number for a request, task or operation, unique in the life of this node.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// One call of the machine.
pub(crate) struct Turn<'a> {
    pub(crate) now: Micros,
    pub(crate) site: &'a mut Site,
    pub(crate) out: &'a mut Actions,
}

impl Turn<'_> {
    /// Sends to a peer, by a detour if there must be one, or to ourselves within this turn.
    pub(crate) fn send(&mut self, to: Id, request: u64, body: Body) {
        let message = Message { request, body };
        if let Some(relay) = self.site.detours.relay_for(to, &message.body) {
            self.send_through(relay, to, &message);
        } else {
            self.send_straight(to, message);
        }
    }

    /// Sends to a peer without a detour, or to ourselves within this turn.
    pub(crate) fn send_straight(&mut self, to: Id, message: Message) {
        if to == self.site.me {
            self.site.loopback.push_back(message);
        } else {
            self.out.push(Action::Send { to, message });
        }
    }

    /// Puts something on the agenda; returns when it is due, by which it can be taken off again.
    pub(crate) fn due_in(&mut self, wait: Micros, due: Due) -> Micros {
        let at = self.now + wait;
        self.site.agenda.insert((at, due));
        at
    }

    /// Takes something off the agenda that has settled.
    pub(crate) fn not_due(&mut self, at: Micros, due: Due) {
        self.site.agenda.remove(&(at, due));
    }

    /// As [`Turn::due_in`], less up to a tenth, so that nodes do not march in step.
    pub(crate) fn due_about(&mut self, wait: Micros, due: Due) {
        let less = self.site.random() % (wait / 10 + 1);
        self.due_in(wait - less, due);
    }

    /// As [`Turn::due_in`], plus up to an eighth: for an answer that many may be waiting for at once.
    pub(crate) fn due_after(&mut self, wait: Micros, due: Due) -> Micros {
        let more = self.site.random() % (wait / 8 + 1);
        self.due_in(wait + more, due)
    }

    pub(crate) fn count(&mut self, metric: Metric) {
        self.out.push(Action::Metric { metric, amount: 1 });
    }

    pub(crate) fn reply(&mut self, request: RequestId, reply: Reply) {
        self.out.push(Action::Reply { request, reply });
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.site.notices.push_back(notice);
    }

    pub(crate) fn storage(&mut self, operation: StorageOperation) -> OpId {
        let op = OpId(self.site.number());
        self.out.push(Action::Storage { op, operation });
        op
    }

    pub(crate) fn verify(&mut self, key: Key, value: bytes::Bytes) -> OpId {
        let op = OpId(self.site.number());
        self.out.push(Action::Compute { op, job: ComputeJob::Verify { key, value } });
        op
    }
}
