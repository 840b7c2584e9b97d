//! One node's Glacier: dispatch among its parts, and what concerns all of them.
//!
//! It is driven as a [`net::machine::Machine`] is, with one difference: what it wants of the overlay on the same node (to put
//! a block back into PAST) it hands out as commands beside the actions, and is told the replies. Of several virtual nodes of
//! a host the first does all of this for the host; the others have none.
//!
//! It tells its own operations, messages and timer from the overlay's: [`Glacier::concerns`].

use super::aggregate::Entry;
use super::aggregation::Aggregation;
use super::handing::Handings;
use super::inspection::Inspections;
use super::keeper::Keeper;
use super::limits::{
    AUDIT_MEMORY, AUDIT_SOON, EMPTIED_AGAIN, FINDING_OUT, HOSTS_LOST_AUDIT, NOTICE_AGAIN, NOTICES, NOTICES_OPEN_MAX,
    ROUND_SOON, TEND,
};
use super::name::AggregateName;
use super::repair::Repairs;
use super::rounds::{Rounds, Sum};
use super::site::{self, Due, Heard, Site, Turn};
use super::steward::Steward;
use super::survival::lost_if_killed;
use super::wire::Said;
use bytes::Bytes;
use net::id::Id;
use net::machine::{
    Action, Actions, Command, ComputeResult, Event, Metric, Micros, OpId, Reply, RequestId, StorageOperation,
    StorageResult, TimerId,
};
use net::roster::{Host, Roster};
use net::wire::Body;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The one timer used; the overlay's is another.
const TIMER: TimerId = TimerId(1);

/// The state of one node's Glacier, for `epost status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlacierStatus {
    /// Bytes of objects stored through this node that are not in fragments yet.
    pub exposed_bytes: u64,
    /// Objects besides that are only noted: a process before this one had not written them, or there was no room for them.
    pub to_recall: u64,
    /// Aggregates written, and bytes of objects in them, since the process started.
    pub aggregates_written: u64,
    /// See [`GlacierStatus::aggregates_written`].
    pub aggregate_bytes: u64,
    /// Objects that found no room to wait for an aggregate: they have their replicas only.
    pub passed_over: u64,
    /// Aggregates this node is steward of.
    pub watched: u64,
    /// Of those, how many have no more fragments than the threshold of repair.
    pub to_repair: u64,
    /// Fragments made anew, and bytes moved for it, since the process started.
    pub repaired: u64,
    /// See [`GlacierStatus::repaired`].
    pub repair_bytes: u64,
    /// Aggregates repaired in an hour, as it went in the last one, or since there was something to repair.
    pub repairs_an_hour: u64,
    /// How long `to_repair` takes at that; none if nothing was repaired in that time.
    pub repair_seconds_to_go: Option<u64>,
    /// Fragments that their holders have received from here since the process started: they had lain here in their absence, or until a
    /// newer ring document.
    pub handed_over: u64,
    /// Aggregates that are yet to be looked through for objects that PAST has lost; and one more while it is being found out
    /// which those are.
    pub to_restore: u64,
    /// Fragments here that are others' to hold and are yet to be brought to them; and one more while it is being found out how
    /// many there are. A host that drains may go when it is 0.
    pub to_hand_over: u64,
    /// Objects put back into PAST since the process started.
    pub restored: u64,
    /// Aggregates looked through in an hour, and how long `to_restore` takes at that, as in repair.
    pub restores_an_hour: u64,
    /// See [`GlacierStatus::restores_an_hour`].
    pub restore_seconds_to_go: Option<u64>,
    /// Fragments that suffice, fragments made, and with how many left they are repaired, as this ring writes today.
    pub needed: u64,
    /// See [`GlacierStatus::needed`].
    pub total: u64,
    /// See [`GlacierStatus::needed`].
    pub repair_at: u64,
    /// Active hosts of the ring.
    pub hosts: u64,
    /// How many of them may be lost at once, whichever they are, without the loss of an object that is about to be repaired.
    pub hosts_that_may_be_lost: u64,
    /// How many of 10⁹ such objects are lost if 60 % of the hosts are, drawn by chance, rounded up.
    pub lost_in_a_billion: u64,
}

impl GlacierStatus {
    /// All figures, by name; those that are not known are not among them.
    #[must_use]
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        let mut figures = vec![
            ("exposed_bytes", self.exposed_bytes),
            ("to_recall", self.to_recall),
            ("aggregates_written", self.aggregates_written),
            ("aggregate_bytes", self.aggregate_bytes),
            ("passed_over", self.passed_over),
            ("watched", self.watched),
            ("to_repair", self.to_repair),
            ("repaired", self.repaired),
            ("repair_bytes", self.repair_bytes),
            ("repairs_an_hour", self.repairs_an_hour),
            ("handed_over", self.handed_over),
            ("to_hand_over", self.to_hand_over),
            ("to_restore", self.to_restore),
            ("restored", self.restored),
            ("restores_an_hour", self.restores_an_hour),
            ("needed", self.needed),
            ("total", self.total),
            ("repair_at", self.repair_at),
            ("hosts", self.hosts),
            ("hosts_that_may_be_lost", self.hosts_that_may_be_lost),
            ("lost_in_a_billion", self.lost_in_a_billion),
        ];
        figures.extend(self.repair_seconds_to_go.map(|seconds| ("repair_seconds_to_go", seconds)));
        figures.extend(self.restore_seconds_to_go.map(|seconds| ("restore_seconds_to_go", seconds)));
        figures
    }
}

/// One node's Glacier.
#[derive(Debug)]
pub struct Glacier {
    site: Site,
    parts: Parts,
    armed: Option<Micros>,
}

/// What a node does for Glacier, one part beside the other.
#[derive(Debug, Default)]
struct Parts {
    keeper: Keeper,
    rounds: Rounds,
    steward: Steward,
    repairs: Repairs,
    inspections: Inspections,
    aggregation: Aggregation,
    handings: Handings,
    /// Our disk is being looked at, whether it is empty.
    first_look: Option<OpId>,
    /// Hosts yet to be told that it was.
    to_notice: VecDeque<Id>,
    noticing: BTreeSet<u64>,
    /// Hosts that have started on empty disks, and when we heard of it.
    emptied: BTreeMap<Host, Emptied>,
}

/// A host that has started on an empty disk.
#[derive(Clone, Copy, Debug)]
struct Emptied {
    /// When we last heard so, and how often within [`EMPTIED_AGAIN`].
    at: Micros,
    times: u8,
}

impl Glacier {
    /// The Glacier of the node `id`, which has not yet been told [`Event::Boot`]; `None` if the id is not the first of its
    /// host, or the ring keeps no fragments.
    #[must_use]
    pub fn new(id: Id, roster: Arc<Roster>, seed: u64) -> Option<Glacier> {
        Some(Glacier { site: Site::new(id, roster, seed)?, parts: Parts::default(), armed: None })
    }

    /// Whether an event of a node is Glacier's alone. The start, and who has come and gone, concern all of a node.
    #[must_use]
    pub fn concerns(event: &Event) -> bool {
        match event {
            Event::Message { message, .. } => matches!(message.body, Body::Glacier(..)),
            Event::Timer(timer) => *timer == TIMER,
            Event::Storage { op, .. } | Event::Compute { op, .. } => site::is_ours(*op),
            Event::Boot | Event::Command { .. } | Event::PeerUp(_) | Event::PeerDown(_) => false,
        }
    }

    /// Whether the reply to this command is for Glacier.
    #[must_use]
    pub fn has_asked(request: RequestId) -> bool {
        site::is_our_command(request)
    }

    /// The state.
    #[must_use]
    pub fn status(&self, now: Micros) -> GlacierStatus {
        let profile = self.site.profile;
        let hosts = self.site.placement.hosts();
        // What is about to be repaired lacks one fragment at least.
        let present = profile.repair_at.min(profile.total.saturating_sub(1)).max(1);
        let lost = lost_if_killed(profile, present, hosts, 0.6);
        let deficit = self.parts.steward.deficit(&self.site, now);
        let to_restore = self.parts.inspections.audits() + usize::from(self.parts.is_finding_out(now));
        let (repair, restore) = (&self.parts.repairs.ledger, &self.parts.inspections.ledger);
        GlacierStatus {
            exposed_bytes: self.parts.aggregation.exposed_bytes() as u64,
            to_recall: self.parts.aggregation.to_recall() as u64,
            aggregates_written: self.parts.aggregation.aggregates,
            aggregate_bytes: self.parts.aggregation.aggregate_bytes,
            passed_over: self.parts.aggregation.passed_over,
            watched: self.parts.steward.watched.len() as u64,
            to_repair: deficit as u64,
            repaired: self.parts.repairs.placed,
            repair_bytes: self.parts.repairs.moved_bytes,
            repairs_an_hour: repair.an_hour(now),
            repair_seconds_to_go: repair.seconds_to_go(now, deficit),
            handed_over: self.parts.handings.handed,
            to_hand_over: self.parts.handings.left(),
            to_restore: to_restore as u64,
            restored: self.parts.inspections.restored,
            restores_an_hour: restore.an_hour(now),
            restore_seconds_to_go: restore.seconds_to_go(now, to_restore),
            needed: profile.needed.into(),
            total: profile.total.into(),
            repair_at: profile.repair_at.into(),
            hosts: hosts as u64,
            hosts_that_may_be_lost: present.saturating_sub(profile.needed).into(),
            lost_in_a_billion: (lost * 1e9).ceil() as u64,
        }
    }

    /// Takes one event at time `now`; appends what is to be done to `out`, and what is wanted of the overlay to `asked`.
    pub fn handle(&mut self, now: Micros, event: Event, out: &mut Actions, asked: &mut Vec<(RequestId, Command)>) {
        let mut turn = Turn { now, site: &mut self.site, out, asked };
        match event {
            Event::Boot => {
                self.armed = None;
                turn.site.boot(now);
                let everything = (Id::default(), Id([0xff; Id::LEN]));
                let look = StorageOperation::Scan { from: everything.0, to: everything.1, after: None, limit: 1 };
                self.parts.first_look = Some(turn.storage(look));
                self.parts.aggregation.boot(&mut turn);
                turn.due_about(ROUND_SOON, Due::Round);
                turn.due_about(TEND, Due::Tend);
            }
            Event::Message { from, message } => {
                if let Body::Glacier(body, payload) = message.body {
                    self.parts.hear(&mut turn, from, message.request, &body, payload);
                }
            }
            Event::Timer(_) => {
                self.armed = None;
                while let Some(due) = turn.site.take_due(now) {
                    self.parts.due(&mut turn, due);
                }
            }
            Event::Storage { op, result } => self.parts.stored(&mut turn, op, &result),
            Event::Compute { op, result: ComputeResult::Worked(made) } => self.parts.worked(&mut turn, op, made),
            Event::PeerDown(peer) => {
                for request in turn.calls_lost(peer) {
                    self.parts.answered(&mut turn, request, &Heard::Silence);
                }
            }
            Event::Compute { .. } | Event::Command { .. } | Event::PeerUp(_) => {}
        }
        self.settle(now, out, asked);
    }

    /// An object was stored in PAST for somebody on this node.
    pub fn add(&mut self, now: Micros, entry: Entry, out: &mut Actions, asked: &mut Vec<(RequestId, Command)>) {
        let mut turn = Turn { now, site: &mut self.site, out, asked };
        self.parts.aggregation.add(&mut turn, entry);
        self.settle(now, out, asked);
    }

    /// The overlay replies to a command of ours.
    pub fn replied(
        &mut self,
        now: Micros,
        request: RequestId,
        reply: &Reply,
        out: &mut Actions,
        asked: &mut Vec<(RequestId, Command)>,
    ) {
        let mut turn = Turn { now, site: &mut self.site, out, asked };
        let is_theirs = self.parts.aggregation.replied(&mut turn, request, reply)
            || self.parts.inspections.replied(&mut turn, &mut self.parts.steward, request, reply);
        if !is_theirs {
            turn.count(Metric::Unexpected);
        }
        self.settle(now, out, asked);
    }

    /// A newer ring document is in force: other holders, other stewards.
    pub fn adopt(
        &mut self,
        now: Micros,
        roster: Arc<Roster>,
        out: &mut Actions,
        asked: &mut Vec<(RequestId, Command)>,
    ) {
        let gone = self.site.adopt(roster);
        self.parts.steward.adopt();
        self.parts.handings.adopt();
        let mut turn = Turn { now, site: &mut self.site, out, asked };
        // Who was declared dead has lost what it had, also to PAST.
        self.parts.emptied.extend(gone.into_iter().map(|host| (host, Emptied { at: now, times: 1 })));
        if self.parts.is_in_the_aftermath(&turn) {
            turn.due_by(AUDIT_SOON, Due::Audit);
        }
        turn.due_by(ROUND_SOON, Due::Round);
        self.settle(now, out, asked);
    }

    /// What we have said to ourselves is heard; what is to leave other aggregates joins what waits; the timer is set.
    fn settle(&mut self, now: Micros, out: &mut Actions, asked: &mut Vec<(RequestId, Command)>) {
        let mut turn = Turn { now, site: &mut self.site, out, asked };
        let me = turn.site.me;
        while let Some((request, said, payload)) = turn.site.loopback.pop_front() {
            self.parts.receive(&mut turn, me, request, said, payload);
        }
        for entry in std::mem::take(&mut self.parts.steward.to_move) {
            self.parts.aggregation.add(&mut turn, entry);
        }
        if let Some(next) = self.site.next_due()
            && self.armed != Some(next)
        {
            self.armed = Some(next);
            out.push(Action::Arm { timer: TIMER, at: next });
        }
    }
}

impl Parts {
    fn hear(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, body: &[u8], payload: Bytes) {
        if !turn.site.roster.contains(from) {
            return turn.count(Metric::Unexpected);
        }
        turn.site.heard_of(from, turn.now);
        match Said::decode(body) {
            Some(said) => self.receive(turn, from, request, said, payload),
            None => turn.count(Metric::Unexpected),
        }
    }

    fn receive(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, said: Said, payload: Bytes) {
        if said.is_answer() {
            if turn.call_answered(from, request) {
                self.answered(turn, request, &Heard::Answer(from, said, payload));
            } else {
                turn.count(Metric::Unexpected); // Answered twice, or too late.
            }
            return;
        }
        // Fragments are a host's; so is what is told of them.
        let host = turn.site.first_of(from);
        match (said, host) {
            (Said::Report { count, sum }, Some(keeper)) => {
                let sum = Sum { count, hashes: u128::from_le_bytes(sum) };
                let wants_listing = self.steward.is_news(keeper, sum);
                turn.send(from, request, &Said::Reported { wants_listing }, Bytes::new());
            }
            (Said::Listing { entries, is_first, is_last }, Some(keeper)) => {
                let new = self.steward.list(turn, keeper, &entries, is_first, is_last);
                if self.is_in_the_aftermath(turn) {
                    // Others remember what we have forgotten, or what its steward has.
                    self.inspections.audit(turn, new);
                }
                turn.due_by(TEND, Due::Tend);
                turn.send(from, request, &Said::Listed, Bytes::new());
            }
            (Said::Emptied, Some(keeper)) => {
                turn.send(from, request, &Said::Noticed, Bytes::new());
                self.is_emptied(turn, keeper);
            }
            (said, _) => self.keeper.receive(turn, from, request, said, payload),
        }
    }

    /// A host has started on an empty disk: it knows nothing of what it is steward of, and lacks what it held.
    fn is_emptied(&mut self, turn: &mut Turn<'_>, keeper: Id) {
        let Some(host) = turn.site.roster.host(keeper) else { return };
        let before = self.emptied.get(&host).filter(|it| turn.now.saturating_sub(it.at) < EMPTIED_AGAIN).copied();
        let times = before.map_or(1, |it| it.times.saturating_add(1));
        self.emptied.insert(host, Emptied { at: turn.now, times });
        if before.is_none() {
            self.steward.is_emptied(turn.site, keeper);
        }
        // Who says so again and again does not have everybody's disk gone through each time.
        turn.due_by(if times > NOTICES { EMPTIED_AGAIN } else { ROUND_SOON }, Due::Round);
        if self.is_in_the_aftermath(turn) {
            turn.due_by(AUDIT_SOON, Due::Audit);
        }
    }

    /// Whether a host has lost its disk so lately that who keeps what is still being told.
    fn is_finding_out(&self, now: Micros) -> bool {
        self.emptied.values().any(|it| now.saturating_sub(it.at) < FINDING_OUT)
    }

    /// Whether several hosts have lost their disks lately: what PAST kept on them alone is lost to it.
    fn is_in_the_aftermath(&mut self, turn: &Turn<'_>) -> bool {
        self.emptied.retain(|_, it| turn.now.saturating_sub(it.at) < AUDIT_MEMORY);
        self.emptied.len() >= HOSTS_LOST_AUDIT
    }

    fn due(&mut self, turn: &mut Turn<'_>, due: Due) {
        match due {
            Due::Call(request) => {
                if turn.call_due(request).is_some() {
                    self.answered(turn, request, &Heard::Silence);
                }
            }
            Due::Round => {
                self.steward.forget_what_is_others(turn.site);
                self.rounds.begin(turn);
                self.handings.begin(turn);
            }
            Due::Notice => self.tell_that_it_is_empty(turn),
            Due::Hand => self.handings.go_on(turn),
            Due::Note => self.aggregation.note(turn),
            Due::Flush => self.aggregation.flush(turn),
            Due::Audit => {
                let all: Vec<AggregateName> = self.steward.watched.keys().copied().collect();
                self.inspections.audit(turn, all);
            }
            Due::Tend => {
                self.steward.count_the_lost(turn);
                self.steward.forget_the_expired(turn);
                self.inspections.begin(turn, &mut self.steward);
                self.repairs.begin(turn, &mut self.steward);
                turn.due_by(TEND, Due::Tend);
            }
        }
    }

    fn stored(&mut self, turn: &mut Turn<'_>, op: OpId, result: &StorageResult) {
        if self.first_look == Some(op) {
            self.first_look = None;
            if matches!(result, StorageResult::Listed(entries) if entries.is_empty()) {
                self.tell_that_it_is_empty(turn);
            }
            return;
        }
        let is_theirs = self.keeper.stored(turn, op, result)
            || self.rounds.stored(turn, op, result)
            || self.handings.stored(turn, op, result)
            || self.aggregation.stored(turn, op, result)
            || self.inspections.stored(turn, &mut self.steward, op, result);
        if !is_theirs {
            turn.count(Metric::Unexpected);
        }
    }

    fn worked(&mut self, turn: &mut Turn<'_>, op: OpId, made: Option<Vec<Bytes>>) {
        let is_theirs = self.keeper.worked(turn, op, made.is_some())
            || self.aggregation.worked(turn, op, made.as_ref())
            || self.inspections.worked(turn, &mut self.steward, op, made.as_ref())
            || self.repairs.worked(turn, &mut self.steward, op, made);
        if !is_theirs {
            turn.count(Metric::Unexpected);
        }
    }

    fn answered(&mut self, turn: &mut Turn<'_>, request: u64, heard: &Heard) {
        if self.noticing.remove(&request) {
            return self.tell_on(turn);
        }
        let is_theirs = self.rounds.answered(turn, request, heard)
            || self.aggregation.answered(turn, request, heard)
            || self.handings.answered(turn, request, heard)
            || self.repairs.answered(turn, &mut self.steward, request, heard)
            || self.inspections.answered(turn, &mut self.steward, request, heard);
        debug_assert!(is_theirs || matches!(heard, Heard::Silence), "every call is somebody's");
    }

    /// Everybody is told that our disk is empty: their reports tell us what we are steward of. A second time a while later, for a
    /// report that is sent soon after we started may go where our predecessor was, and who gets no answer reports to somebody else.
    fn tell_that_it_is_empty(&mut self, turn: &mut Turn<'_>) {
        let times = self.emptied.get(&turn.site.host).map_or(1, |it| it.times.saturating_add(1));
        self.emptied.insert(turn.site.host, Emptied { at: turn.now, times });
        if times < NOTICES {
            turn.due_in(NOTICE_AGAIN, Due::Notice);
        }
        let me = turn.site.me;
        let hosts = (0..turn.site.roster.ring().members.len() as u32).map(Host);
        let others = hosts.filter_map(|host| site::first_id(&turn.site.roster, host));
        self.to_notice = others.filter(|id| *id != me && turn.site.roster.contains(*id)).collect();
        self.tell_on(turn);
    }

    fn tell_on(&mut self, turn: &mut Turn<'_>) {
        while self.noticing.len() < NOTICES_OPEN_MAX {
            let Some(id) = self.to_notice.pop_front() else { return };
            if let Some(call) = turn.call(id, Said::Emptied, Bytes::new()) {
                self.noticing.insert(call);
            }
        }
    }
}
