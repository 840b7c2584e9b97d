//! What all parts of one node's Glacier share: who it is, what is due when, and what awaits an answer.
//!
//! A [`Turn`] is one event's time, the site, and the list of actions. Calls are asked up to [`CALL_TRIES`] times and then
//! given up, as in `net`; here whoever asked is told of either with the number that the call was given. Numbers of
//! operations have their highest bit but one set, so that they are told from those of the overlay in the same node.

use super::limits::{CALL_TRIES, CALL_WAIT, CALL_WAIT_PER_64_KIB, CALLS_MAX, SECOND};
use super::placement::Placement;
use super::profile::Profile;
use super::wire::Said;
use bytes::Bytes;
use net::id::Id;
use net::machine::{
    Action, Actions, Command, ComputeJob, Metric, Micros, OpId, RequestId, Seconds, StorageOperation, Work,
};
use net::roster::{Host, Roster};
use net::wire::{Body, Message};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Set in every number of an operation, and in none of the overlay's.
const OPERATIONS: u64 = 1 << 62;
/// Set in every number of a command to the overlay, and in none of the driver's.
const COMMANDS: u64 = 1 << 63;

/// Something to be looked at when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A call's time is up.
    Call(u64),
    /// What we keep is to be reported to its stewards.
    Round,
    /// The list of what needs repair or inspection is to be gone on with.
    Tend,
    /// What waits to be written is to be written.
    Flush,
    /// All aggregates are to be inspected, for hosts have lost what they had.
    Audit,
    /// Others are to be told again that our disk was empty.
    Notice,
    /// Fragments that are another's to hold are to be brought to him.
    Hand,
    /// What waits is to be noted, and what is noted to be fetched.
    Note,
}

#[derive(Debug)]
struct Call {
    to: Id,
    said: Said,
    payload: Bytes,
    due: Micros,
    tries_left: u8,
}

/// The answer to a call.
#[derive(Debug)]
pub(super) enum Heard {
    Answer(Id, Said, Bytes),
    Silence,
}

/// What all parts share.
#[derive(Debug)]
pub(super) struct Site {
    /// The first node id of this host, under which all of Glacier is done for it.
    pub(super) me: Id,
    pub(super) host: Host,
    pub(super) roster: Arc<Roster>,
    pub(super) placement: Placement,
    /// Of aggregates written today.
    pub(super) profile: Profile,
    /// When the process started.
    pub(super) booted: Micros,
    /// When each host was last heard of; one that never was, at the start.
    heard: BTreeMap<Host, Micros>,
    /// Hosts that did not answer when they were last asked, and since when.
    silent: BTreeMap<Host, Micros>,
    calls: BTreeMap<u64, Call>,
    agenda: BTreeSet<(Micros, Due)>,
    /// What we say to ourselves; heard within the same turn.
    pub(super) loopback: VecDeque<(u64, Said, Bytes)>,
    random: u64,
    last_number: u64,
}

impl Site {
    /// `None` if this id is nobody's first, or no member's, or the ring keeps no fragments.
    pub(super) fn new(me: Id, roster: Arc<Roster>, seed: u64) -> Option<Site> {
        let (host, index) = roster.host_and_index(me)?;
        let placement = Placement::new(roster.clone());
        let profile = Profile::from_parameters(&roster.ring().parameters)?.for_hosts(placement.hosts());
        (index == 0).then(|| Site {
            me,
            host,
            placement,
            profile,
            roster,
            booted: 0,
            heard: BTreeMap::new(),
            silent: BTreeMap::new(),
            calls: BTreeMap::new(),
            agenda: BTreeSet::new(),
            loopback: VecDeque::new(),
            random: seed,
            last_number: 0,
        })
    }

    pub(super) fn boot(&mut self, now: Micros) {
        self.booted = now;
        self.last_number = now;
        self.agenda.clear();
        self.calls.clear();
        self.heard.clear();
        self.silent.clear();
    }

    /// A newer ring document is in force. Hosts have other numbers in it, so what is known of them is taken over by their ids.
    /// Returns those, in the new document, that are no longer active.
    pub(super) fn adopt(&mut self, roster: Arc<Roster>) -> Vec<Host> {
        let was_active = |id: Id| self.roster.is_active(id);
        let hosts = (0..roster.ring().members.len() as u32).map(Host);
        let firsts = hosts.filter_map(|host| Some((host, first_id(&roster, host)?)));
        let gone: Vec<Host> =
            firsts.filter(|(_, id)| was_active(*id) && !roster.is_active(*id)).map(|(host, _)| host).collect();
        let of_new = |hosts: &BTreeMap<Host, Micros>| -> BTreeMap<Host, Micros> {
            let moved = hosts.iter().filter_map(|(host, at)| {
                let first = first_id(&self.roster, *host)?;
                Some((roster.host(first)?, *at))
            });
            moved.collect()
        };
        (self.heard, self.silent) = (of_new(&self.heard), of_new(&self.silent));
        if let Some(host) = roster.host(self.me) {
            self.host = host;
        }
        self.placement = Placement::new(roster.clone());
        if let Some(profile) = Profile::from_parameters(&roster.ring().parameters) {
            self.profile = profile.for_hosts(self.placement.hosts());
        }
        self.roster = roster;
        gone
    }

    /// The first id of the host that has this one: under which it does Glacier's work.
    pub(super) fn first_of(&self, id: Id) -> Option<Id> {
        first_id(&self.roster, self.roster.host(id)?)
    }

    /// Somebody of this host has spoken.
    pub(super) fn heard_of(&mut self, id: Id, now: Micros) {
        if let Some(host) = self.roster.host(id) {
            self.heard.insert(host, now);
            self.silent.remove(&host);
        }
    }

    /// How long nothing was heard of a host.
    pub(super) fn unheard_for(&self, host: Host, now: Micros) -> Micros {
        if host == self.host {
            return 0;
        }
        now.saturating_sub(self.heard.get(&host).copied().unwrap_or(self.booted))
    }

    /// Since when a host has not answered, if it did not when it was last asked.
    pub(super) fn is_silent(&self, host: Host) -> bool {
        self.silent.contains_key(&host)
    }

    pub(super) fn next_due(&self) -> Option<Micros> {
        self.agenda.first().map(|(at, _)| *at)
    }

    pub(super) fn take_due(&mut self, now: Micros) -> Option<Due> {
        if self.next_due()? > now { None } else { self.agenda.pop_first().map(|(_, due)| due) }
    }

    /// The next number of a seeded sequence (splitmix64).
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// Whether an operation is one of Glacier's.
pub(super) fn is_ours(op: OpId) -> bool {
    op.0 & OPERATIONS != 0
}

/// Whether a command to the overlay is one of Glacier's.
pub(super) fn is_our_command(request: RequestId) -> bool {
    request.0 & COMMANDS != 0
}

pub(super) fn first_id(roster: &Roster, host: Host) -> Option<Id> {
    roster.id_of(host, 0)
}

/// One event.
pub(super) struct Turn<'a> {
    pub(super) now: Micros,
    pub(super) site: &'a mut Site,
    pub(super) out: &'a mut Actions,
    /// Commands to the overlay of this node.
    pub(super) asked: &'a mut Vec<(RequestId, Command)>,
}

impl Turn<'_> {
    pub(super) fn seconds(&self) -> Seconds {
        self.now / SECOND
    }

    pub(super) fn send(&mut self, to: Id, request: u64, said: &Said, payload: Bytes) {
        if to == self.site.me {
            self.site.loopback.push_back((request, said.clone(), payload));
            return;
        }
        let body = Body::Glacier(Bytes::from(said.encode()), payload);
        self.out.push(Action::Send { to, message: Message { request, body } });
    }

    /// Asks `to`, which may be ourselves. `None` (counted) if too much is open.
    pub(super) fn call(&mut self, to: Id, said: Said, payload: Bytes) -> Option<u64> {
        if self.site.calls.len() >= CALLS_MAX {
            self.count(Metric::Dropped);
            return None;
        }
        let request = self.site.number();
        self.send(to, request, &said, payload.clone());
        let due = self.due_in(wait(&said, &payload), Due::Call(request));
        self.site.calls.insert(request, Call { to, said, payload, due, tries_left: CALL_TRIES - 1 });
        Some(request)
    }

    /// A call's time is up. Returns its number and whom it asked if it is given up.
    pub(super) fn call_due(&mut self, request: u64) -> Option<Id> {
        let call = self.site.calls.get_mut(&request)?;
        if call.tries_left == 0 {
            let call = self.site.calls.remove(&request)?;
            if let Some(host) = self.site.roster.host(call.to) {
                self.site.silent.entry(host).or_insert(self.now);
            }
            return Some(call.to);
        }
        call.tries_left -= 1;
        let (to, said, payload) = (call.to, call.said.clone(), call.payload.clone());
        let due = self.now + wait(&said, &payload);
        if let Some(call) = self.site.calls.get_mut(&request) {
            call.due = due;
        }
        self.site.agenda.insert((due, Due::Call(request)));
        self.send(to, request, &said, payload);
        None
    }

    /// Whether this is the answer to an open call, which is closed then.
    pub(super) fn call_answered(&mut self, from: Id, request: u64) -> bool {
        if self.site.calls.get(&request).is_none_or(|call| call.to != from) {
            return false;
        }
        if let Some(call) = self.site.calls.remove(&request) {
            self.site.agenda.remove(&(call.due, Due::Call(request)));
        }
        true
    }

    /// The transport lost the peer: what was asked of it is given up.
    pub(super) fn calls_lost(&mut self, peer: Id) -> Vec<u64> {
        let lost: Vec<u64> =
            self.site.calls.iter().filter(|(_, call)| call.to == peer).map(|(request, _)| *request).collect();
        for request in &lost {
            if let Some(call) = self.site.calls.remove(request) {
                self.site.agenda.remove(&(call.due, Due::Call(*request)));
            }
        }
        if let (Some(host), false) = (self.site.roster.host(peer), lost.is_empty()) {
            self.site.silent.entry(host).or_insert(self.now);
        }
        lost
    }

    pub(super) fn due_in(&mut self, wait: Micros, due: Due) -> Micros {
        let at = self.now + wait;
        self.site.agenda.insert((at, due));
        at
    }

    /// As [`Turn::due_in`], less up to a tenth, so that nodes do not march in step.
    pub(super) fn due_about(&mut self, wait: Micros, due: Due) {
        let less = self.site.random() % (wait / 10 + 1);
        self.due_in(wait - less, due);
    }

    /// Puts it on the agenda for then, or leaves it there for earlier.
    pub(super) fn due_by(&mut self, wait: Micros, due: Due) {
        let at = self.now + wait;
        let earlier = self.site.agenda.iter().find(|(_, other)| *other == due).copied();
        match earlier {
            Some((planned, _)) if planned <= at => {}
            Some(planned) => {
                self.site.agenda.remove(&planned);
                self.site.agenda.insert((at, due));
            }
            None => {
                self.site.agenda.insert((at, due));
            }
        }
    }

    pub(super) fn storage(&mut self, operation: StorageOperation) -> OpId {
        let op = OpId(OPERATIONS | self.site.number());
        self.out.push(Action::Storage { op, operation });
        op
    }

    pub(super) fn work(&mut self, work: Arc<dyn Work>) -> OpId {
        let op = OpId(OPERATIONS | self.site.number());
        self.out.push(Action::Compute { op, job: ComputeJob::Work(work) });
        op
    }

    pub(super) fn command(&mut self, command: Command) -> RequestId {
        let request = RequestId(COMMANDS | self.site.number());
        self.asked.push((request, command));
        request
    }

    pub(super) fn count(&mut self, metric: Metric) {
        self.out.push(Action::Metric { metric, amount: 1 });
    }
}

fn wait(said: &Said, payload: &Bytes) -> Micros {
    // A fragment that is fetched is as large as one that is kept; which is not known, so there is time for a large one.
    let bytes = if matches!(said, Said::Fetch { .. }) { super::limits::FRAGMENT_BYTES_MAX } else { payload.len() };
    CALL_WAIT + bytes.div_ceil(64 << 10) as u64 * CALL_WAIT_PER_64_KIB
}
