//! What a change means, given the index: a record to write, an answer without one, or a comparison to make first.
//!
//! Decisions are made in the order of the log, when a batch is built, so that replaying the log gives the same index.

use super::{Change, Compared, Store};
use crate::disk::Disk;
use crate::format::batch::batch_bytes;
use crate::format::record::{Action, LeaseEntry, record_bytes};
use crate::key::{Class, Key};
use crate::limits;
use crate::request::{Error, Request, Response};
use crate::store::index::Slot;
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
    pub(super) effect: Effect,
    pub(super) importance: Importance,
    pub(super) answer: Option<(u64, Response)>,
}

/// What a record does to the index.
#[derive(Debug)]
pub(super) enum Effect {
    /// The key's slot becomes this record.
    Place,
    /// These keys' leases end at these ticks.
    Extend(Vec<(Key, u32)>),
    /// These keys go.
    Remove(Vec<Key>),
    /// Nothing but the believed time changes.
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

#[derive(Debug)]
pub(super) enum Decision {
    Write(Write),
    /// Nothing to write.
    Answer(u64, Result<Response, Error>),
    /// The stored record must be read and compared with this put first.
    Compare {
        tag: u64,
        request: Request,
        key: Key,
        slot: Slot,
    },
    /// A sweep while upkeep is busy with another.
    Defer {
        tag: u64,
        now_s: u64,
    },
    /// A survivor whose record is no longer the key's.
    Drop,
}

impl<D: Disk> Store<D> {
    pub(super) fn decide(&self, change: &Change) -> Decision {
        match change {
            Change::Survivor { key, slot, account, class, lease_set, value } => {
                self.decide_survivor(*key, *slot, (*account, *class, *lease_set), value)
            }
            Change::Asked { tag, request, compared } => self.decide_request(*tag, request, *compared),
        }
    }

    fn decide_request(&self, tag: u64, request: &Request, compared: Option<Compared>) -> Decision {
        if self.read_only {
            return Decision::Answer(tag, Err(Error::ReadOnly));
        }
        match request {
            Request::Put { .. } => self.decide_put(tag, request, compared),
            Request::TouchMany { leases } => self.decide_touch(tag, leases),
            Request::RemoveIfOlder { key, version } => self.decide_remove(tag, *key, *version),
            Request::Sweep { now_s } => self.decide_sweep(tag, *now_s),
            Request::ConfirmClock { now_s } => {
                let answer = Some((tag, Response::Confirmed));
                Decision::Write(clock(Action::Confirmed, *now_s, 0, Effect::Nothing, answer))
            }
            Request::Get { .. } | Request::Scan { .. } | Request::Scrub { .. } => {
                unreachable!("reads never line up with changes")
            }
        }
    }

    fn decide_put(&self, tag: u64, request: &Request, compared: Option<Compared>) -> Decision {
        let Request::Put { key, version, account, class, expiry_s, value } = request else {
            unreachable!("called for puts only");
        };
        if !self.fits(value.len()) {
            return Decision::Answer(tag, Err(Error::TooLarge));
        }
        let expiry = self.tick(*expiry_s);
        let held = self.index.get(key);
        let newer = match held {
            None if self.index.len() >= self.settings.objects_max => {
                return Decision::Answer(tag, Err(Error::Full));
            }
            None => true,
            Some(slot) => *version > slot.version,
        };
        if newer {
            return Decision::Write(Write {
                action: Action::Put,
                key: *key,
                version: *version,
                account: *account,
                lease_set: 0,
                class: *class as u8,
                // Leases only ever grow, over versions too.
                expiry: expiry.max(held.map_or(0, |slot| slot.expiry)),
                payload: value.clone(),
                effect: Effect::Place,
                importance: Importance::Put,
                answer: Some((tag, Response::Put)),
            });
        }
        let slot = held.expect("an absent key was dealt with");
        let superseded = Decision::Answer(tag, Ok(Response::Superseded { version: slot.version }));
        if *version < slot.version || (*version > 0 && slot.length as usize != value.len()) {
            return superseded;
        }
        if *version > 0 {
            match compared {
                Some(compared) if compared.slot.is_same_record(&slot) => {
                    if !compared.same {
                        return superseded;
                    }
                }
                _ => return Decision::Compare { tag, request: request.clone(), key: *key, slot },
            }
        }
        if expiry <= slot.expiry {
            return Decision::Answer(tag, Ok(Response::Put));
        }
        Decision::Write(self.lease_record(vec![(*key, expiry)], (tag, Response::Put)))
    }

    /// Whether a value is within the limits and a segment can hold it.
    fn fits(&self, length: usize) -> bool {
        let needed = limits::BLOCK + batch_bytes(record_bytes(length));
        length <= limits::VALUE_BYTES_MAX && needed <= self.settings.segment_bytes as usize
    }

    fn decide_touch(&self, tag: u64, leases: &[(Key, u64)]) -> Decision {
        if leases.len() > limits::LEASES_PER_REQUEST || !self.fits(leases.len() * LeaseEntry::SIZE) {
            return Decision::Answer(tag, Err(Error::TooLarge));
        }
        let mut known = 0;
        let mut extended = Vec::new();
        for (key, expiry_s) in leases {
            let Some(slot) = self.index.get(key) else { continue };
            known += 1;
            let expiry = self.tick(*expiry_s);
            if expiry > slot.expiry {
                extended.push((*key, expiry));
            }
        }
        let answer = Response::Touched { known };
        if extended.is_empty() {
            return Decision::Answer(tag, Ok(answer));
        }
        Decision::Write(self.lease_record(extended, (tag, answer)))
    }

    fn lease_record(&self, extended: Vec<(Key, u32)>, answer: (u64, Response)) -> Write {
        let mut payload = Vec::with_capacity(extended.len() * LeaseEntry::SIZE);
        for (key, expiry) in &extended {
            let slot = self.index.get(key).expect("only known keys are extended");
            let lease =
                LeaseEntry { segment: slot.segment, offset: slot.offset, expiry: *expiry, prefix: key.prefix() };
            payload.extend_from_slice(&lease.encode());
        }
        #[cfg(test)]
        if self.settings.flaw == super::Flaw::ForgetLeases {
            payload.clear();
        }
        Write {
            action: Action::Lease,
            key: NO_KEY,
            version: 0,
            account: 0,
            lease_set: 0,
            class: Class::Fresh as u8,
            expiry: 0,
            payload: Bytes::from(payload),
            effect: Effect::Extend(extended),
            importance: Importance::Keep,
            answer: Some(answer),
        }
    }

    fn decide_remove(&self, tag: u64, key: Key, version: u64) -> Decision {
        match self.index.get(&key) {
            Some(slot) if slot.version < version => Decision::Write(Write {
                action: Action::Remove,
                key,
                version: slot.version,
                account: 0,
                lease_set: 0,
                class: Class::Fresh as u8,
                expiry: 0,
                payload: Bytes::new(),
                effect: Effect::Remove(vec![key]),
                importance: Importance::Keep,
                answer: Some((tag, Response::Removed(true))),
            }),
            _ => Decision::Answer(tag, Ok(Response::Removed(false))),
        }
    }

    /// Nothing expires early: an object goes when the end of its tick, plus grace, is past, and only if the clock is believed.
    fn decide_sweep(&self, tag: u64, now_s: u64) -> Decision {
        if !self.upkeep.is_resting() {
            return Decision::Defer { tag, now_s };
        }
        if self.clock_jumped(now_s) {
            return Decision::Answer(tag, Ok(Response::Swept { expired: 0, freed_bytes: 0 }));
        }
        let ended_s = now_s.saturating_sub(self.settings.grace_s);
        let cutoff = u32::try_from(ended_s.div_ceil(u64::from(self.tick_s))).unwrap_or(u32::MAX);
        // tick < ceil(ended / tick_s) exactly when tick * tick_s < ended: a tick that ends at `ended_s` stays.
        let keys = self.index.expired(cutoff);
        Decision::Write(clock(Action::Swept, now_s, cutoff, Effect::Remove(keys), None))
    }

    /// Whether `now_s` is further from the last sweep than the clock may move. The first sweep of a store has nothing to
    /// be compared with and is believed.
    pub(super) fn clock_jumped(&self, now_s: u64) -> bool {
        self.swept_s.is_some_and(|swept_s| now_s.saturating_sub(swept_s) > self.settings.clock_jump_s)
    }

    fn decide_survivor(&self, key: Key, slot: Slot, kept: (u64, u8, u64), value: &Bytes) -> Decision {
        let Some(held) = self.index.get(&key) else { return Decision::Drop };
        if !held.is_same_record(&slot) {
            return Decision::Drop;
        }
        let (account, class, lease_set) = kept;
        let class = match Class::from_number(class) {
            Some(Class::Fresh) => Class::Survivor as u8,
            _ => class,
        };
        Decision::Write(Write {
            action: Action::Put,
            key,
            version: held.version,
            account,
            lease_set,
            class,
            expiry: held.expiry,
            payload: value.clone(),
            effect: Effect::Place,
            importance: Importance::Clean,
            answer: None,
        })
    }
}

const NO_KEY: Key = Key { placement: [0; 20], name: [0; 32], kind: 0 };

fn clock(action: Action, now_s: u64, cutoff: u32, effect: Effect, answer: Option<(u64, Response)>) -> Write {
    Write {
        action,
        key: NO_KEY,
        version: now_s,
        account: 0,
        lease_set: 0,
        class: Class::Fresh as u8,
        expiry: cutoff,
        payload: Bytes::new(),
        effect,
        importance: Importance::Sweep,
        answer,
    }
}
