//! What a change means, given the index: a record to write, an answer without one, or a record to be read first.
//!
//! Decisions are made in the order of the log, when a batch is built, so that replaying the log gives the same index. One
//! that needs to know more than the index does is put off until the record in question has been read, and then made anew
//! (see [`super::presence`]); what has happened meanwhile is taken into account by that.

use super::apply::locator_at;
use super::arcs::locator::{Locator, SizeClass};
use super::arcs::walk::Entry;
use super::presence::{Fact, Presence, Says};
use super::{Change, Store};
use crate::disk::Disk;
use crate::format::batch::batch_bytes;
use crate::format::record::{Action, LeaseRow, Place, RecordHeader, record_bytes};
use crate::key::{Class, Key};
use crate::limits;
use crate::request::{Error, Request, Response};
use bytes::Bytes;

/// A record to be written, and what it does.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) action: Action,
    pub(super) key: Key,
    pub(super) version: u64,
    pub(super) account: u64,
    pub(super) lease_set: u64,
    pub(super) class: u8,
    pub(super) expiry: u32,
    pub(super) payload: Bytes,
    /// The record of the same key that goes with this one.
    pub(super) replaced: Option<Entry>,
    pub(super) does: Does,
    pub(super) importance: Importance,
    pub(super) answer: Option<(u64, Response)>,
}

/// What a record does to the index, as far as that is known before it has a place.
#[derive(Debug)]
pub(super) enum Does {
    /// The key's object becomes this record.
    Place,
    /// The key's object goes.
    Remove,
    /// These go.
    Expire(Vec<Entry>),
    /// Whatever matches these rows is extended.
    Extend(Vec<LeaseRow>),
    /// Nothing but the believed time changes.
    Nothing,
}

/// What a record does to the index.
#[derive(Debug)]
pub(super) enum Effect {
    Place { new: Entry, replaced: Option<Entry> },
    Remove(Vec<Entry>),
    Extend(Vec<LeaseRow>),
    Nothing,
}

/// How deep into the reserve of free segments a write may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Importance {
    /// New data: leaves the whole reserve.
    Put,
    /// Leases and removals: leave room for sweeps.
    Keep,
    /// Sweeps: leave the last free segment to cleaning.
    Sweep,
    /// Cleaning: may take the last.
    Clean,
}

#[expect(clippy::large_enum_variant, reason = "made and taken apart within one call, most often a write")]
#[derive(Debug)]
pub(super) enum Decision {
    Write(Write),
    /// Nothing to write.
    Answer(u64, Result<Response, Error>),
    /// The record there must be read before this change of `key` can be decided: its header, or all of it.
    Confirm {
        key: Key,
        locator: Locator,
        whole: bool,
    },
    /// The key's arc has no room for another object until its table has been rebuilt.
    Crowded,
    /// A sweep while upkeep is busy with another.
    Defer {
        tag: u64,
        now_s: u64,
    },
    /// A chore that has become superfluous.
    Drop,
}

impl Write {
    /// A record without key and payload.
    fn bare(action: Action, importance: Importance) -> Write {
        Write {
            action,
            key: NO_KEY,
            version: 0,
            account: 0,
            lease_set: 0,
            class: Class::Fresh as u8,
            expiry: 0,
            payload: Bytes::new(),
            replaced: None,
            does: Does::Nothing,
            importance,
            answer: None,
        }
    }

    /// The header of this record at the place it was given.
    pub(super) fn header(&self, place: Place) -> RecordHeader {
        let length = u32::try_from(self.payload.len()).expect("bounded by the largest value");
        let mut header = RecordHeader::new(self.action, &self.key, place, length);
        header.version = self.version;
        header.account = self.account;
        header.lease_set = self.lease_set;
        header.class = self.class;
        header.expiry = self.expiry;
        if let Some(replaced) = &self.replaced {
            header.replaces = 1;
            header.replaced = replaced.locator.to_bytes();
            header.replaced_version = replaced.version;
        }
        header
    }

    /// What it does to the index from this place.
    pub(super) fn effect(self, place: Place) -> Effect {
        match self.does {
            Does::Place => {
                let length = u32::try_from(self.payload.len()).expect("bounded by the largest value");
                let locator = locator_at(place, record_bytes(self.payload.len()));
                let (key, version, generation, tick) = (self.key, self.version, place.generation, self.expiry);
                let new = Entry { key, version, locator, length, generation, tick };
                Effect::Place { new, replaced: self.replaced }
            }
            Does::Remove => Effect::Remove(self.replaced.into_iter().collect()),
            Does::Expire(entries) => Effect::Remove(entries),
            Does::Extend(rows) => Effect::Extend(rows),
            Does::Nothing => Effect::Nothing,
        }
    }
}

impl<D: Disk> Store<D> {
    pub(super) fn decide(&self, change: &Change) -> Decision {
        match change {
            Change::Asked { tag, request, facts } => self.decide_request(*tag, request, facts),
            Change::Survivor { entry, account, class, lease_set, value } => {
                self.decide_survivor(entry, (*account, *class, *lease_set), value)
            }
            Change::Expired { entries, cutoff } => self.decide_expired(entries, *cutoff),
            Change::Lost { entry } => self.decide_lost(entry),
        }
    }

    fn decide_request(&self, tag: u64, request: &Request, facts: &[Fact]) -> Decision {
        if self.read_only {
            return Decision::Answer(tag, Err(Error::ReadOnly));
        }
        match request {
            Request::Put { .. } => self.decide_put(tag, request, facts),
            Request::TouchMany { leases } => self.decide_touch(tag, leases),
            Request::RemoveIfOlder { key, version } => self.decide_remove(tag, *key, *version, facts),
            Request::Sweep { now_s } => self.decide_sweep(tag, *now_s),
            Request::ConfirmClock { now_s } => {
                let answer = Some((tag, Response::Confirmed));
                let bare = Write::bare(Action::Confirmed, Importance::Sweep);
                Decision::Write(Write { version: *now_s, answer, ..bare })
            }
            Request::Get { .. } | Request::Scan { .. } | Request::Digest { .. } | Request::Scrub { .. } => {
                unreachable!("reads never line up with changes")
            }
        }
    }

    fn decide_put(&self, tag: u64, request: &Request, facts: &[Fact]) -> Decision {
        let Request::Put { key, version, account, class, expiry_s, value } = request else {
            unreachable!("called for puts only");
        };
        if !self.fits(value.len()) {
            return Decision::Answer(tag, Err(Error::TooLarge));
        }
        let expiry = self.tick(*expiry_s);
        let held = match self.presence(key, facts) {
            Presence::Unclear(locator) => return Decision::Confirm { key: *key, locator, whole: false },
            Presence::Absent => None,
            Presence::Held(entry) => Some(entry),
        };
        if let Some(entry) = held
            && *version <= entry.version
        {
            return self.decide_known(tag, request, &entry, facts);
        }
        let is_one_too_many = held.is_none() && self.index.len() >= self.settings.objects_max;
        if is_one_too_many || self.is_overfilled_by(value.len(), held.as_ref()) {
            return Decision::Answer(tag, Err(Error::Full));
        }
        if held.is_none() && !self.has_index_room(key) {
            return Decision::Crowded;
        }
        Decision::Write(Write {
            key: *key,
            version: *version,
            account: *account,
            class: *class as u8,
            // Leases only ever grow, over versions too.
            expiry: expiry.max(held.map_or(0, |entry| entry.tick)),
            payload: value.clone(),
            replaced: held,
            does: Does::Place,
            answer: Some((tag, Response::Put)),
            ..Write::bare(Action::Put, Importance::Put)
        })
    }

    /// A put of a version that is not newer than what is here.
    fn decide_known(&self, tag: u64, request: &Request, held: &Entry, facts: &[Fact]) -> Decision {
        let Request::Put { key, version, expiry_s, value, .. } = request else {
            unreachable!("called for puts only");
        };
        let superseded = Decision::Answer(tag, Ok(Response::Superseded { version: held.version }));
        if *version < held.version || (*version > 0 && held.length as usize != value.len()) {
            return superseded;
        }
        if *version > 0 {
            let compared = facts.iter().find_map(|fact| match fact.says {
                Says::Ours { same, .. } if (fact.locator, fact.generation) == (held.locator, held.generation) => same,
                Says::Ours { .. } | Says::Stranger => None,
            });
            match compared {
                Some(true) => {}
                Some(false) => return superseded,
                None => return Decision::Confirm { key: *key, locator: held.locator, whole: true },
            }
        }
        // Logged even if the lease seems to last that long: what lasts by a false match alone may not, after a restart.
        let expiry = self.tick(*expiry_s);
        let row = LeaseRow { address: self.index.address(key), tick: expiry };
        Decision::Write(self.lease_record(vec![row], (tag, Response::Put)))
    }

    /// Whether more would be live than cleaning can keep moving. What takes no more room than what it replaces always fits.
    fn is_overfilled_by(&self, length: usize, replaced: Option<&Entry>) -> bool {
        let record = u32::try_from(record_bytes(length)).expect("within the limits");
        let before = replaced.map_or(0, |entry| entry.locator.bytes());
        let after = SizeClass::of(record).bytes();
        after > before && self.segments.live_bytes() + (after - before) > self.live_bytes_max()
    }

    /// Whether a value is within the limits and a segment can hold it.
    fn fits(&self, length: usize) -> bool {
        let needed = limits::BLOCK + batch_bytes(record_bytes(length));
        length <= limits::VALUE_BYTES_MAX && needed <= self.settings.segment_bytes as usize
    }

    /// Reads nothing: whatever may be the key's is extended, and counts as known.
    fn decide_touch(&self, tag: u64, leases: &[(Key, u64)]) -> Decision {
        if leases.len() > limits::LEASES_PER_REQUEST || !self.fits(leases.len() * LeaseRow::SIZE) {
            return Decision::Answer(tag, Err(Error::TooLarge));
        }
        let mut known = 0;
        let mut rows = Vec::new();
        for (key, expiry_s) in leases {
            let address = self.index.address(key);
            if self.index.ends_at(address).next().is_none() {
                continue;
            }
            known += 1;
            // Logged even if the lease seems to last that long: what lasts by a false match alone may not, after a restart.
            rows.push(LeaseRow { address, tick: self.tick(*expiry_s) });
        }
        let answer = Response::Touched { known };
        if rows.is_empty() {
            return Decision::Answer(tag, Ok(answer));
        }
        Decision::Write(self.lease_record(rows, (tag, answer)))
    }

    fn lease_record(&self, rows: Vec<LeaseRow>, answer: (u64, Response)) -> Write {
        let mut payload = Vec::with_capacity(rows.len() * LeaseRow::SIZE);
        rows.iter().for_each(|row| payload.extend_from_slice(&row.encode()));
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::ForgetLeases {
            payload.clear();
        }
        Write {
            payload: Bytes::from(payload),
            does: Does::Extend(rows),
            answer: Some(answer),
            ..Write::bare(Action::Lease, Importance::Keep)
        }
    }

    fn decide_remove(&self, tag: u64, key: Key, version: u64, facts: &[Fact]) -> Decision {
        match self.presence(&key, facts) {
            Presence::Unclear(locator) => Decision::Confirm { key, locator, whole: false },
            Presence::Held(entry) if entry.version < version => {
                let answer = Some((tag, Response::Removed(true)));
                Decision::Write(Write { answer, ..removal(&entry) })
            }
            Presence::Held(_) | Presence::Absent => Decision::Answer(tag, Ok(Response::Removed(false))),
        }
    }

    /// A record that turned out to be damaged: its object is gone, and the log says so, because what follows rests on it.
    fn decide_lost(&self, entry: &Entry) -> Decision {
        if self.read_only || !self.is_live(entry) {
            return Decision::Drop;
        }
        Decision::Write(removal(entry))
    }

    /// The believed time goes to the log first; what has expired is found and removed from then on (see [`super::sweeping`]).
    fn decide_sweep(&self, tag: u64, now_s: u64) -> Decision {
        if !self.upkeep.is_resting() {
            return Decision::Defer { tag, now_s };
        }
        if self.clock_jumped(now_s) {
            return Decision::Answer(tag, Ok(Response::Swept { expired: 0, freed_bytes: 0 }));
        }
        let bare = Write::bare(Action::Swept, Importance::Sweep);
        Decision::Write(Write { version: now_s, expiry: self.cutoff(now_s), ..bare })
    }

    /// Nothing expires early: an object goes when the end of its tick, plus grace, is past. What ends at a tick below this
    /// one has ended: tick < ceil(ended / tick_s) exactly when tick * tick_s < ended.
    pub(super) fn cutoff(&self, now_s: u64) -> u32 {
        let ended_s = now_s.saturating_sub(self.settings.grace_s);
        u32::try_from(ended_s.div_ceil(u64::from(self.tick_s))).unwrap_or(u32::MAX)
    }

    /// Whether `now_s` is further from the last sweep than the clock may move. The first sweep of a store has nothing to
    /// be compared with and is believed.
    pub(super) fn clock_jumped(&self, now_s: u64) -> bool {
        self.swept_s.is_some_and(|swept_s| now_s.saturating_sub(swept_s) > self.settings.clock_jump_s)
    }

    /// What a sweep found expired some time ago: what is still there, and still expired, goes.
    fn decide_expired(&self, entries: &[Entry], cutoff: u32) -> Decision {
        if self.read_only {
            return Decision::Drop;
        }
        let has_expired = |entry: &&Entry| {
            let tick = self.index.tick_of(&entry.key, entry.locator);
            tick.is_some_and(|tick| tick < cutoff) && self.is_live(entry)
        };
        let now_tick = |entry: &Entry| self.index.tick_of(&entry.key, entry.locator).unwrap_or(entry.tick);
        let expired: Vec<Entry> =
            entries.iter().filter(has_expired).map(|entry| Entry { tick: now_tick(entry), ..*entry }).collect();
        if expired.is_empty() {
            return Decision::Drop;
        }
        let mut payload = Vec::new();
        expired.iter().for_each(|entry| payload.extend_from_slice(&self.index.expiry_row(entry).encode()));
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::ForgetExpiries {
            payload.clear();
        }
        Decision::Write(Write {
            payload: Bytes::from(payload),
            does: Does::Expire(expired),
            // What it frees is worth the last segment.
            ..Write::bare(Action::Expired, Importance::Clean)
        })
    }

    fn decide_survivor(&self, entry: &Entry, kept: (u64, u8, u64), value: &Bytes) -> Decision {
        if self.read_only || !self.is_live(entry) {
            return Decision::Drop;
        }
        let Some(tick) = self.index.tick_of(&entry.key, entry.locator) else { return Decision::Drop };
        let (account, class, lease_set) = kept;
        let class = match Class::from_number(class) {
            Some(Class::Fresh) => Class::Survivor as u8,
            _ => class,
        };
        Decision::Write(Write {
            key: entry.key,
            version: entry.version,
            account,
            lease_set,
            class,
            expiry: tick,
            payload: value.clone(),
            replaced: Some(Entry { tick, ..*entry }),
            does: Does::Place,
            ..Write::bare(Action::Put, Importance::Clean)
        })
    }
}

const NO_KEY: Key = Key { placement: [0; 20], name: [0; 32], kind: 0 };

fn removal(entry: &Entry) -> Write {
    Write {
        key: entry.key,
        version: entry.version,
        replaced: Some(*entry),
        does: Does::Remove,
        ..Write::bare(Action::Remove, Importance::Keep)
    }
}
