//! Handing over: fragments that lie here and are another's to hold are brought to him.
//!
//! A fragment comes to lie with a substitute when its holder was away, and a newer ring document gives fragments other holders: a
//! host that joins has its share, one that drains has none any more. Therefore, with each round, a node goes through its disk,
//! a small page at a time:
//!
//! ```text
//! page     fragments whose holder by the ring document is another, who is not silent
//!    ▼
//! ask      the holder: which of these do you have?
//!    ▼
//! bring    those he lacks: read here, verified and stored there
//!    ▼
//! remove   ours, upon the receipt: the holder himself has said that the fragment is durable with him
//! ```
//!
//! Without a receipt ours stays, and is tried again an hour later. Who has no room is not asked a second time in the same pass. What
//! he has already, under a lease as long as ours, was made anew in our absence: then ours is only removed. Fragments leave no faster than
//! [`HANDING_BYTES_PER_SECOND`].

use super::limits::{HANDING_AGAIN, HANDING_BYTES_PER_SECOND, HANDING_PAGE, HANDING_PAUSE, HANDINGS_OPEN_MAX, SECOND};
use super::name::AggregateName;
use super::site::{Due, Heard, Turn};
use super::steward::holder;
use super::wire::{Outcome, Said};
use bytes::Bytes;
use net::id::{Id, Key};
use net::machine::{Listed, Metric, Micros, OpId, Seconds, StorageOperation, StorageResult};
use net::roster::Host;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One fragment on its way.
#[derive(Debug)]
enum Step {
    Reading(OpId),
    /// Sent, so many bytes.
    Bringing(u64, usize),
    Removing(OpId),
}

#[derive(Debug)]
struct Handing {
    key: Key,
    to: Id,
    step: Step,
}

/// The fragments of one page.
#[derive(Debug, Default)]
struct Page {
    /// Holders that were asked what they have.
    asked: BTreeMap<u64, Vec<(Key, Seconds)>>,
    waiting: VecDeque<(Key, Id)>,
    open: Vec<Handing>,
    /// The page after it begins behind this key, if there is one.
    after: Option<Key>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// A page is awaited from the disk.
    Reading(OpId),
    Bringing(Page),
    /// The next page begins behind this key, when its time has come.
    Resting(Key),
}

/// What one node hands over.
#[derive(Debug, Default)]
pub(super) struct Handings {
    stage: Stage,
    /// Hosts that took none in this pass.
    unwilling: BTreeSet<Host>,
    /// Nothing is sent before.
    rests_until: Micros,
    /// Fragments that holders have received, since the process started.
    pub(super) handed: u64,
    /// Of those seen in this pass, or the last one, so many are others' to hold and are still here.
    left: u64,
    /// There may be more: a pass is under way, or to come because holders have changed.
    is_open: bool,
}

impl Handings {
    /// Fragments that are others' to hold; and one more while it is being found out how many there are.
    pub(super) fn left(&self) -> u64 {
        self.left + u64::from(self.is_open)
    }

    /// A newer ring document is in force.
    pub(super) fn adopt(&mut self) {
        self.is_open = true;
    }

    /// Goes through the disk from its beginning, unless that is being done.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.stage, Stage::Idle) {
            (self.left, self.is_open) = (0, true);
            self.unwilling.clear();
            self.scan(turn, None);
        }
    }

    /// The time to go on has come.
    pub(super) fn go_on(&mut self, turn: &mut Turn<'_>) {
        match self.stage {
            Stage::Resting(after) => self.scan(turn, Some(after)),
            Stage::Bringing(_) => self.bring(turn),
            Stage::Idle => self.begin(turn),
            Stage::Reading(_) => {}
        }
    }

    fn scan(&mut self, turn: &mut Turn<'_>, after: Option<Key>) {
        let (from, to) = (Id::default(), Id([0xff; Id::LEN]));
        self.stage = Stage::Reading(turn.storage(StorageOperation::Scan { from, to, after, limit: HANDING_PAGE }));
    }

    /// The disk has answered. False if the operation was not one of these.
    pub(super) fn stored(&mut self, turn: &mut Turn<'_>, op: OpId, result: &StorageResult) -> bool {
        match &mut self.stage {
            Stage::Reading(ours) if *ours == op => {
                match result {
                    StorageResult::Listed(entries) => self.ask(turn, entries),
                    _ => self.stage = Stage::Idle, // The next round will see; until then it is not known what is left.
                }
                true
            }
            Stage::Bringing(page) => {
                let is_its = |it: &Handing| matches!(it.step, Step::Reading(ours) | Step::Removing(ours) if ours == op);
                let Some(at) = page.open.iter().position(is_its) else { return false };
                let mut it = page.open.swap_remove(at);
                if let (Step::Reading(_), StorageResult::Got(Some(stored))) = (&it.step, result) {
                    let said = Said::Keep { key: it.key, expiry: stored.expiry };
                    if let Some(call) = turn.call(it.to, said, stored.value.clone()) {
                        it.step = Step::Bringing(call, stored.value.len());
                        page.open.push(it);
                    }
                }
                self.bring(turn);
                true
            }
            _ => false,
        }
    }

    /// Asks the holders of what is theirs on this page.
    fn ask(&mut self, turn: &mut Turn<'_>, entries: &[Listed]) {
        let grace = turn.site.roster.ring().parameters.grace_s;
        let mut of_holder: BTreeMap<Id, Vec<(Key, Seconds)>> = BTreeMap::new();
        for entry in entries {
            let Some((name, index)) = AggregateName::of_key(&entry.key) else { continue };
            if entry.expiry.saturating_add(grace) <= turn.seconds() {
                continue; // Nobody would take it any more.
            }
            let Some(id) = holder(turn.site, &name, index).filter(|id| *id != turn.site.me) else { continue };
            let Some(host) = turn.site.roster.host(id) else { continue };
            self.left += 1;
            if !turn.site.is_silent(host) && !self.unwilling.contains(&host) {
                of_holder.entry(id).or_default().push((entry.key, entry.expiry));
            }
        }
        let after = (entries.len() >= HANDING_PAGE).then(|| entries.last().map(|entry| entry.key)).flatten();
        let mut page = Page { after, ..Page::default() };
        for (id, fragments) in of_holder {
            let keys = fragments.iter().map(|(key, _)| *key).collect();
            if let Some(call) = turn.call(id, Said::Look { keys }, Bytes::new()) {
                page.asked.insert(call, fragments);
            }
        }
        self.stage = Stage::Bringing(page);
        self.bring(turn);
    }

    /// An answer, or silence. False if the call was not one of these.
    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, request: u64, heard: &Heard) -> bool {
        let Stage::Bringing(page) = &mut self.stage else { return false };
        if let Some(fragments) = page.asked.remove(&request) {
            if let Heard::Answer(from, Said::Seen { found }, _) = heard
                && found.len() == fragments.len()
            {
                for ((key, expiry), found) in fragments.into_iter().zip(found) {
                    if found.is_some_and(|lease| lease.expiry >= expiry) {
                        self.left -= 1;
                        page.remove(turn, key, *from);
                    } else {
                        page.waiting.push_back((key, *from));
                    }
                }
            }
            self.bring(turn);
            return true;
        }
        let is_its = |it: &Handing| matches!(it.step, Step::Bringing(call, _) if call == request);
        let Some(at) = page.open.iter().position(is_its) else { return false };
        let it = page.open.swap_remove(at);
        match (heard, it.step) {
            (Heard::Answer(_, Said::Kept { outcome: Outcome::Durable }, _), Step::Bringing(_, bytes)) => {
                self.handed += 1;
                self.left -= 1;
                turn.count(Metric::Repaired);
                let pause = (bytes as u64).saturating_mul(SECOND) / HANDING_BYTES_PER_SECOND;
                self.rests_until = self.rests_until.max(turn.now) + pause;
                page.remove(turn, it.key, it.to);
            }
            // It has no room, or does not answer any more: not in this pass.
            _ => {
                let host = turn.site.roster.host(it.to);
                self.unwilling.extend(host);
                page.waiting.retain(|(_, to)| turn.site.roster.host(*to) != host);
            }
        }
        self.bring(turn);
        true
    }

    /// Sends what may be sent now; goes to the next page when all of this one has gone.
    fn bring(&mut self, turn: &mut Turn<'_>) {
        let Stage::Bringing(page) = &mut self.stage else { return };
        while page.open.len() < HANDINGS_OPEN_MAX && turn.now >= self.rests_until {
            let Some((key, to)) = page.waiting.pop_front() else { break };
            let step = Step::Reading(turn.storage(StorageOperation::Get { key }));
            page.open.push(Handing { key, to, step });
        }
        if !page.waiting.is_empty() && self.rests_until > turn.now {
            turn.due_by(self.rests_until - turn.now, Due::Hand);
        }
        if page.waiting.is_empty() && page.open.is_empty() && page.asked.is_empty() {
            self.stage = match page.after {
                Some(after) => {
                    turn.due_by(HANDING_PAUSE, Due::Hand);
                    Stage::Resting(after)
                }
                None => {
                    self.is_open = false;
                    if self.left > 0 {
                        turn.due_by(HANDING_AGAIN, Due::Hand);
                    }
                    Stage::Idle
                }
            };
        }
    }
}

impl Page {
    fn remove(&mut self, turn: &mut Turn<'_>, key: Key, to: Id) {
        let step = Step::Removing(turn.storage(StorageOperation::Remove { key }));
        self.open.push(Handing { key, to, step });
    }
}
