//! Repair: fragments that are no more, made of others that are.
//!
//! ```text
//! census   ask every holder what it has of its own index; strays are asked for, too
//!    │ enough are left: nothing is to be done
//!    ▼
//! fetch    just as many fragments as are needed, from holders drawn at random; another for each that does not come
//!    ▼
//! rebuild  all missing ones at once: r fragments in, the missing ones out
//!    ▼
//! place    each with its holder, or with the next in its place where that one is away
//! ```
//!
//! A holder that answers without its fragment has lost it. One that does not answer is believed to have it, for
//! [`super::limits::ABSENCE`]: a reboot or a week in a drawer rebuilds nothing. Only if so few can be had now that another
//! failure might be the last ([`DANGER`] times what is needed) the absent count as lost; should they come back, there is a
//! fragment too many. Nothing is begun before what was moved before has been paid for by time: [`REPAIR_BYTES_PER_SECOND`].

use super::gathering::{Gathering, Progress};
use super::ledger::Ledger;
use super::limits::{ABSENCE, DANGER, REPAIR_BYTES_PER_SECOND, REPAIRS_OPEN_MAX, ROUND, SECOND, TEND};
use super::name::AggregateName;
use super::site::{Heard, Turn};
use super::steward::{Steward, threshold};
use super::wire::{Outcome, Said};
use super::work::Rebuild;
use bytes::Bytes;
use net::id::Id;
use net::machine::{Metric, Micros, OpId, Seconds};
use net::roster::Host;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a holder has said of its fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Here(Id),
    Missing,
    /// No answer, but not away for too long.
    Absent,
}

#[derive(Debug)]
enum Stage {
    Census { open: BTreeMap<u64, Vec<u8>> },
    Fetching(Gathering),
    Rebuilding(OpId),
    Placing { open: BTreeMap<u64, u8> },
}

#[derive(Debug)]
struct Repair {
    name: AggregateName,
    expiry: Seconds,
    states: Vec<State>,
    stage: Stage,
    moved_bytes: u64,
}

/// What a node repairs.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    open: BTreeMap<u64, Repair>,
    /// No repair begins before.
    rests_until: Micros,
    /// Fragments made and placed, and bytes moved, since the process started.
    pub(super) placed: u64,
    pub(super) moved_bytes: u64,
    /// Aggregates that are endangered no more.
    pub(super) ledger: Ledger,
}

impl Repairs {
    /// Begins with the most endangered, as many as there is room for.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>, steward: &mut Steward) {
        self.ledger.is_open(turn.now, steward.deficit(turn.site, turn.now));
        if turn.now < self.rests_until || self.open.len() >= REPAIRS_OPEN_MAX {
            return;
        }
        for name in steward.endangered(turn.site, turn.now, REPAIRS_OPEN_MAX - self.open.len()) {
            let Some(watched) = steward.watched.get_mut(&name) else { continue };
            watched.rests_until = turn.now + ROUND;
            let mut repair = Repair {
                name,
                expiry: watched.expiry,
                states: vec![State::Asked; usize::from(name.total())],
                stage: Stage::Census { open: BTreeMap::new() },
                moved_bytes: 0,
            };
            repair.take_census(turn, steward);
            let task = turn.site.number();
            self.open.insert(task, repair);
            self.settle(turn, steward, task);
        }
    }

    /// An answer, or silence. False if the call was not of a repair.
    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, steward: &mut Steward, request: u64, heard: &Heard) -> bool {
        let is_asked = |repair: &Repair| match &repair.stage {
            Stage::Census { open } => open.contains_key(&request),
            Stage::Fetching(gathering) => gathering.is_open(request),
            Stage::Placing { open } => open.contains_key(&request),
            Stage::Rebuilding(_) => false,
        };
        let Some(task) = self.open.iter().find(|(_, repair)| is_asked(repair)).map(|(task, _)| *task) else {
            return false;
        };
        let Some(repair) = self.open.get_mut(&task) else { return false };
        match &mut repair.stage {
            Stage::Census { open } => {
                let indices = open.remove(&request).unwrap_or_default();
                repair.census_answered(turn, &indices, heard);
            }
            Stage::Fetching(gathering) => gathering.answered(turn, request, heard),
            Stage::Placing { open } => {
                let index = open.remove(&request);
                if let (Some(index), Heard::Answer(_, Said::Kept { outcome: Outcome::Durable }, _)) = (index, heard) {
                    self.placed += 1;
                    turn.count(Metric::Repaired);
                    if let Some(watched) = steward.watched.get_mut(&repair.name) {
                        watched.present.insert(index);
                    }
                }
            }
            Stage::Rebuilding(_) => {}
        }
        self.settle(turn, steward, task);
        true
    }

    /// The missing fragments are made. False if the computation was not of a repair.
    pub(super) fn worked(
        &mut self,
        turn: &mut Turn<'_>,
        steward: &mut Steward,
        op: OpId,
        made: Option<Vec<Bytes>>,
    ) -> bool {
        let is_its = |repair: &Repair| matches!(repair.stage, Stage::Rebuilding(ours) if ours == op);
        let Some(task) = self.open.iter().find(|(_, repair)| is_its(repair)).map(|(task, _)| *task) else {
            return false;
        };
        let Some(made) = made else {
            turn.count(Metric::BlockRefused);
            self.open.remove(&task);
            return true;
        };
        if let Some(repair) = self.open.get_mut(&task) {
            repair.place(turn, made);
        }
        self.settle(turn, steward, task);
        true
    }

    /// Goes on to the next stage when one is complete.
    fn settle(&mut self, turn: &mut Turn<'_>, steward: &mut Steward, task: u64) {
        let Some(repair) = self.open.get_mut(&task) else { return };
        let is_over = match &mut repair.stage {
            Stage::Census { open } if open.is_empty() => !repair.judge(turn, steward),
            Stage::Fetching(gathering) => match gathering.progress() {
                Progress::Waiting => false,
                Progress::Failed => true,
                Progress::Complete(values) => {
                    repair.moved_bytes += values.iter().map(|value| value.len() as u64).sum::<u64>();
                    let work = Rebuild { name: repair.name, values, missing: repair.missing() };
                    repair.stage = Stage::Rebuilding(turn.work(Arc::new(work)));
                    false
                }
            },
            Stage::Placing { open } => open.is_empty(),
            _ => false,
        };
        if is_over && let Some(repair) = self.open.remove(&task) {
            let pause = repair.moved_bytes.saturating_mul(SECOND) / REPAIR_BYTES_PER_SECOND;
            self.rests_until = self.rests_until.max(turn.now) + pause;
            self.moved_bytes += repair.moved_bytes;
            if !steward.is_endangered(turn.site, turn.now, &repair.name) {
                self.ledger.settle(turn.now, 1);
            }
            turn.due_by(pause.min(TEND), super::site::Due::Tend);
        }
    }
}

impl Repair {
    /// Asks all holders, and who is known to have strays.
    fn take_census(&mut self, turn: &mut Turn<'_>, steward: &Steward) {
        let holders = turn.site.placement.holders(&self.name, &|_| false);
        let mut of_host: BTreeMap<Id, Vec<u8>> = BTreeMap::new();
        for (index, id) in (0..self.name.total()).zip(holders) {
            let keeper = turn.site.first_of(id);
            let stray = steward.strays.get(&self.name.fragment_key(index)).copied();
            for id in keeper.into_iter().chain(stray) {
                of_host.entry(id).or_default().push(index);
            }
        }
        let Stage::Census { open } = &mut self.stage else { return };
        for (id, indices) in of_host {
            let keys = indices.iter().map(|index| self.name.fragment_key(*index)).collect();
            if let Some(call) = turn.call(id, Said::Look { keys }, Bytes::new()) {
                open.insert(call, indices);
            }
        }
    }

    fn census_answered(&mut self, turn: &Turn<'_>, indices: &[u8], heard: &Heard) {
        match heard {
            Heard::Answer(from, Said::Seen { found }, _) if found.len() == indices.len() => {
                for (index, lease) in indices.iter().zip(found) {
                    let state = &mut self.states[usize::from(*index)];
                    match lease {
                        Some(lease) => {
                            *state = State::Here(*from);
                            self.expiry = self.expiry.max(lease.expiry);
                        }
                        None if *state == State::Asked => *state = State::Missing,
                        None => {}
                    }
                }
            }
            _ => {
                let holders = turn.site.placement.holders(&self.name, &|_| false);
                for index in indices {
                    let host = holders.get(usize::from(*index)).and_then(|id| turn.site.roster.host(*id));
                    let is_lost = host.is_none_or(|host| turn.site.unheard_for(host, turn.now) > ABSENCE);
                    let state = &mut self.states[usize::from(*index)];
                    if !matches!(state, State::Here(_)) {
                        *state = if is_lost { State::Missing } else { State::Absent };
                    }
                }
            }
        }
    }

    /// All have answered, or will not: is there something to be done, and can it be? Begins to fetch, if so.
    fn judge(&mut self, turn: &mut Turn<'_>, steward: &mut Steward) -> bool {
        let here = self.states.iter().filter(|state| matches!(state, State::Here(_))).count();
        let needed = usize::from(self.name.needed());
        let limit = usize::from(threshold(turn.site, &self.name)).min(self.states.len() - 1);
        if here <= (DANGER * needed).min(limit) {
            self.states.iter_mut().filter(|state| **state == State::Absent).for_each(|state| *state = State::Missing);
        }
        // Those not asked, for want of room, are not known to be missing.
        let missing = self.missing();
        if let Some(watched) = steward.watched.get_mut(&self.name) {
            for index in 0..self.name.total() {
                if missing.contains(&index) { watched.present.remove(index) } else { watched.present.insert(index) }
            }
        }
        if missing.len() == self.states.len() {
            // There is no such aggregate, or no longer.
            steward.watched.remove(&self.name);
        }
        if missing.is_empty() || self.states.len() - missing.len() > limit || here < needed {
            return false;
        }
        let sources = self.states.iter().zip(0..).filter_map(|(state, index)| match state {
            State::Here(keeper) => Some((index, *keeper)),
            _ => None,
        });
        self.stage = Stage::Fetching(Gathering::new(turn, self.name, sources.collect()));
        true
    }

    fn missing(&self) -> Vec<u8> {
        (0..self.name.total()).filter(|index| self.states[usize::from(*index)] == State::Missing).collect()
    }

    /// Hands the fragments to those who are to have them; where the holder is away, to the next.
    fn place(&mut self, turn: &mut Turn<'_>, made: Vec<Bytes>) {
        let is_away = |host: Host| turn.site.is_silent(host) || turn.site.unheard_for(host, turn.now) > ABSENCE;
        let holders = turn.site.placement.holders(&self.name, &is_away);
        let mut open = BTreeMap::new();
        for (index, value) in self.missing().into_iter().zip(made) {
            let Some(keeper) = holders.get(usize::from(index)).and_then(|id| turn.site.first_of(*id)) else { continue };
            let said = Said::Keep { key: self.name.fragment_key(index), expiry: self.expiry };
            self.moved_bytes += value.len() as u64;
            if let Some(call) = turn.call(keeper, said, value) {
                open.insert(call, index);
            }
        }
        self.stage = Stage::Placing { open };
    }
}
