//! The checker's journal: what every key must hold, from the acknowledgements alone.
//!
//! Kept in the process that is not killed. For each key it knows the states that are possible: one when all changes to it
//! were acknowledged, more when some were unanswered as the writer died. What a writer tells after the next opening must be
//! among them, and is from then on certain.
//!
//! A touch extends whatever shares its key's tag in the index, so a lease may last longer than the journal knows, a touch may
//! know a key that is not there, and a sweep may remove less than the journal expects; nothing may go early.

use super::operations::{Operation, WINDOW, fingerprint, key, value};
use engine::Key;
use std::collections::{BTreeMap, BTreeSet};

/// Seconds after its end that a lease still protects, in the stores of this simulation.
pub(super) const GRACE_S: u64 = 5;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) version: u64,
    pub(super) expiry_s: u64,
}

type States = Vec<Option<Held>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    seed: u64,
    states: BTreeMap<Key, States>,
    /// Below this, every operation was answered or is accounted for as possible.
    begun: u64,
    answered: BTreeSet<u64>,
    /// Keys told since the store was opened.
    told: BTreeSet<Key>,
    pub(super) acknowledged: u64,
    pub(super) expired: u64,
    pub(super) objects_checked: u64,
}

impl Journal {
    pub(super) fn new(seed: u64) -> Journal {
        Journal {
            seed,
            states: BTreeMap::new(),
            begun: 0,
            answered: BTreeSet::new(),
            told: BTreeSet::new(),
            acknowledged: 0,
            expired: 0,
            objects_checked: 0,
        }
    }

    /// The number of the next writer's first operation.
    pub(super) fn next(&self) -> u64 {
        self.begun
    }

    /// What the newly opened store holds under a key.
    pub(super) fn told(&mut self, kind: u8, number: u64, held: Held, bytes: (u64, u64)) -> Result<(), String> {
        let key = key(kind, number);
        let states = self.states.get(&key).ok_or_else(|| format!("{kind} {number} was never put, and is there"))?;
        let fits = |state: &Option<Held>| {
            state.is_some_and(|state| state.version == held.version && state.expiry_s <= held.expiry_s)
        };
        if !states.iter().any(fits) {
            return Err(format!("{kind} {number} holds {held:?}, possible are {states:?}"));
        }
        let wanted = value(self.seed, &key, held.version);
        if bytes != (wanted.len() as u64, fingerprint(&wanted)) {
            return Err(format!("{kind} {number}, version {}: wrong bytes", held.version));
        }
        if !self.told.insert(key) {
            return Err(format!("{kind} {number} was listed twice"));
        }
        self.objects_checked += 1;
        self.states.insert(key, vec![Some(held)]);
        Ok(())
    }

    /// All was told: what was not is absent, and must be allowed to.
    pub(super) fn told_all(&mut self) -> Result<(), String> {
        let told = std::mem::take(&mut self.told);
        let absent = self.states.iter().filter(|(key, _)| !told.contains(key));
        if let Some((key, states)) = absent.clone().find(|(_, states)| !states.contains(&None)) {
            let number = key.name.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
            return Err(format!("{} {number} is absent, possible are {states:?}", key.kind));
        }
        self.states.retain(|key, _| told.contains(key));
        Ok(())
    }

    /// The writer died while it told: what it told was right, the rest is not known yet.
    pub(super) fn cut_short(&mut self) {
        self.told.clear();
    }

    /// An operation was answered.
    pub(super) fn answer(&mut self, number: u64, answer: &str) -> Result<(), String> {
        if number < self.begun || !self.answered.insert(number) {
            return Err(format!("operation {number} was answered twice, or before it was asked"));
        }
        let operation = Operation::of(self.seed, number);
        self.judge(&operation, answer).map_err(|why| format!("{operation:?} was answered {answer:?}: {why}"))?;
        self.acknowledged += 1;
        Ok(())
    }

    /// Compares an answer with what the states allow, and applies what it says.
    fn judge(&mut self, operation: &Operation, answer: &str) -> Result<(), String> {
        let number = |prefix: &str| answer.strip_prefix(prefix).and_then(|count| count.parse::<usize>().ok());
        match operation {
            Operation::Put { .. } if answer == "put" => self.change(operation, false),
            Operation::Touch { leases } => {
                let is_there = |key: &Key| self.states.get(key).is_some_and(|states| !states.contains(&None));
                let least = leases.iter().filter(|(key, _)| is_there(key)).count();
                if !number("touched ").is_some_and(|known| (least..=leases.len()).contains(&known)) {
                    return Err(format!("at least {least} are there"));
                }
                self.change(operation, false);
            }
            Operation::Remove { key, version } if answer == "removed true" || answer == "removed false" => {
                let removes = |state: &Option<Held>| state.is_some_and(|held| held.version < *version);
                let mut states = self.states.get(key).cloned().unwrap_or_else(|| vec![None]);
                states.retain(|state| removes(state) == (answer == "removed true"));
                if states.is_empty() {
                    return Err(format!("possible were {:?}", self.states.get(key)));
                }
                self.set(key, states);
                self.change(operation, false);
            }
            Operation::Sweep { now_s } => {
                let ended = |states: &&States| states.iter().flatten().any(|held| is_expired(held, *now_s));
                let most = self.states.values().filter(ended).count();
                let count = number("swept ").filter(|count| *count <= most);
                let count = count.ok_or_else(|| format!("at most {most} have expired"))?;
                self.expired += count as u64;
                self.change(operation, count < most);
            }
            _ => return Err("that is no answer to it".to_owned()),
        }
        Ok(())
    }

    /// The writer is dead: what it may have submitted and did not tell as answered is possible.
    pub(super) fn died(&mut self) {
        let oldest = (self.begun..).find(|number| !self.answered.contains(number)).unwrap_or(self.begun);
        let end = oldest + WINDOW;
        for number in oldest..end {
            if !self.answered.contains(&number) {
                self.change(&Operation::of(self.seed, number), true);
            }
        }
        self.begun = end;
        self.answered.clear();
    }

    /// Whether the oldest unanswered operation is a sweep.
    pub(super) fn is_sweeping(&self) -> bool {
        let oldest = (self.begun..).find(|number| !self.answered.contains(number));
        oldest.is_some_and(|number| matches!(Operation::of(self.seed, number), Operation::Sweep { .. }))
    }

    /// Applies a change to all states of its keys; one that only may have happened leaves the old ones possible, too.
    fn change(&mut self, operation: &Operation, perhaps: bool) {
        match operation {
            Operation::Put { key, version, expiry_s } => self.on(key, perhaps, |held| {
                let expiry_s = held.map_or(*expiry_s, |held| held.expiry_s.max(*expiry_s));
                Some(Held { version: *version, expiry_s })
            }),
            Operation::Touch { leases } => {
                for (key, expiry_s) in leases {
                    self.on(key, perhaps, |held| {
                        held.map(|held| Held { expiry_s: held.expiry_s.max(*expiry_s), ..held })
                    });
                }
            }
            Operation::Remove { key, version } => {
                self.on(key, perhaps, |held| held.filter(|held| held.version >= *version));
            }
            Operation::Sweep { now_s } => {
                let keys: Vec<Key> = self.states.keys().copied().collect();
                for key in &keys {
                    self.on(key, perhaps, |held| held.filter(|held| !is_expired(held, *now_s)));
                }
            }
        }
    }

    fn on(&mut self, key: &Key, perhaps: bool, change: impl Fn(Option<Held>) -> Option<Held>) {
        let before = self.states.get(key).cloned().unwrap_or_else(|| vec![None]);
        let mut after = if perhaps { before.clone() } else { Vec::new() };
        for state in before {
            let changed = change(state);
            if !after.contains(&changed) {
                after.push(changed);
            }
        }
        self.set(key, after);
    }

    fn set(&mut self, key: &Key, states: States) {
        if states == [None] {
            self.states.remove(key);
        } else {
            self.states.insert(*key, states);
        }
    }
}

fn is_expired(held: &Held, now_s: u64) -> bool {
    held.expiry_s + GRACE_S < now_s
}

#[cfg(test)]
mod tests {
    //! Goal: the journal convicts what is wrong and only that. Method: a short run told truly, then with one lie each.

    use super::super::operations::FRESH;
    use super::*;

    /// A journal after the first operation that puts a new object, with its number and what it holds.
    fn with_one_put(acknowledged: bool) -> (Journal, u64, Held) {
        let mut journal = Journal::new(3);
        let (number, expiry_s) = (0..)
            .find_map(|number| match Operation::of(3, number) {
                Operation::Put { version: 0, expiry_s, .. } => Some((number, expiry_s)),
                _ => None,
            })
            .expect("most are puts");
        if acknowledged {
            journal.answer(number, "put").unwrap();
        }
        journal.died();
        (journal, number, Held { version: 0, expiry_s })
    }

    fn bytes(number: u64) -> (u64, u64) {
        let bytes = value(3, &key(FRESH, number), 0);
        (bytes.len() as u64, fingerprint(&bytes))
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_was_not_may_be() {
        let (mut journal, number, held) = with_one_put(true);
        journal.told(FRESH, number, held, bytes(number)).unwrap();
        let (mut journal, number, held) = with_one_put(false);
        journal.told(FRESH, number, held, bytes(number)).unwrap();
        with_one_put(false).0.told_all().unwrap();
        assert!(with_one_put(true).0.told_all().is_err(), "an acknowledged object may not be absent");
    }

    #[test]
    fn wrong_bytes_leases_and_answers_are_violations() {
        let (mut journal, number, held) = with_one_put(true);
        assert!(journal.told(FRESH, number, held, (0, 0)).is_err());
        let early = Held { expiry_s: held.expiry_s - 1, ..held };
        assert!(journal.told(FRESH, number, early, bytes(number)).is_err());
        assert!(journal.told(FRESH, number + 1_000_000, held, bytes(number)).is_err(), "never put");
        assert!(Journal::new(3).answer(number, "removed true").is_err());
    }
}
