//! What the killed writer does: operation number n of a seed, the same for whoever asks.
//!
//! Writer and checker share nothing else: the writer says which numbers were acknowledged, the checker works out what they
//! were. Time is the operation's number, a second each, so that leases end while the run goes on.

use crate::load::Dice;
use bytes::Bytes;
use engine::{Class, Key, Request};
use std::hash::{DefaultHasher, Hasher};

/// Operations that may be unanswered at once: what is more than this many beyond the acknowledged was never submitted.
pub(super) const WINDOW: u64 = 64;
/// Keys whose versions replace each other.
const MUTABLE_KEYS: u64 = 200;
/// A lease lasts at most this many operations.
const LEASE: u64 = 3_000;
/// A sweep comes once in so many operations.
const SWEEP_EVERY: u64 = 500;

/// Kinds of keys.
pub(super) const FRESH: u8 = 1;
pub(super) const MUTABLE: u8 = 4;

/// The time at which an operation happens.
pub(super) fn now(number: u64) -> u64 {
    1_000_000 + number
}

/// A change to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Version 0: an object of its own, named by the operation's number. Above: a new version of a mutable one.
    Put { key: Key, version: u64, expiry_s: u64 },
    /// Leases of some objects, present or not.
    Touch { leases: Vec<(Key, u64)> },
    /// Removal below a version.
    Remove { key: Key, version: u64 },
    /// Removal of what has expired.
    Sweep { now_s: u64 },
}

impl Operation {
    /// Operation `number` of this seed.
    pub(super) fn of(seed: u64, number: u64) -> Operation {
        if number % SWEEP_EVERY == SWEEP_EVERY - 1 {
            return Operation::Sweep { now_s: now(number) };
        }
        let mut dice = Dice::new(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let expiry_s = now(number) + 1 + dice.roll() % LEASE;
        match dice.roll() % 100 {
            0..60 => Operation::Put { key: key(FRESH, number), version: 0, expiry_s },
            60..80 => Operation::Put { key: key(MUTABLE, dice.roll() % MUTABLE_KEYS), version: number + 1, expiry_s },
            80..92 => Operation::Touch { leases: leases(number, &mut dice) },
            _ => {
                let key = some_key(number, &mut dice);
                Operation::Remove { key, version: number + 1 }
            }
        }
    }

    /// What it asks of the engine.
    pub(super) fn request(&self, seed: u64) -> Request {
        match self {
            Operation::Put { key, version, expiry_s } => Request::Put {
                key: *key,
                version: *version,
                account: 1,
                class: if key.kind == MUTABLE { Class::Mutable } else { Class::Fresh },
                expiry_s: *expiry_s,
                value: value(seed, key, *version),
            },
            Operation::Touch { leases } => Request::TouchMany { leases: leases.clone() },
            Operation::Remove { key, version } => Request::RemoveIfOlder { key: *key, version: *version },
            Operation::Sweep { now_s } => Request::Sweep { now_s: *now_s },
        }
    }

    /// The keys it changes, but for a sweep, which may change any.
    pub(super) fn keys(&self) -> Vec<Key> {
        match self {
            Operation::Put { key, .. } | Operation::Remove { key, .. } => vec![*key],
            Operation::Touch { leases } => leases.iter().map(|(key, _)| *key).collect(),
            Operation::Sweep { .. } => Vec::new(),
        }
    }
}

/// Distinct keys, each once.
fn leases(number: u64, dice: &mut Dice) -> Vec<(Key, u64)> {
    let mut leases: Vec<(Key, u64)> = (0..dice.roll() % 8 + 1)
        .map(|_| (some_key(number, dice), now(number) + 1 + dice.roll() % (2 * LEASE)))
        .collect();
    leases.sort_unstable();
    leases.dedup_by_key(|(key, _)| *key);
    leases
}

/// A mutable key, or one that may have been put lately.
fn some_key(number: u64, dice: &mut Dice) -> Key {
    if dice.roll().is_multiple_of(3) {
        return key(MUTABLE, dice.roll() % MUTABLE_KEYS);
    }
    key(FRESH, number.saturating_sub(1 + dice.roll() % LEASE))
}

/// A key from its number; the number is in its name.
pub(super) fn key(kind: u8, number: u64) -> Key {
    let mut dice = Dice::new(number ^ u64::from(kind) << 56);
    let mut placement = [0; 20];
    dice.fill(&mut placement);
    let mut name = [kind; 32];
    name[..8].copy_from_slice(&number.to_be_bytes());
    Key { placement, name, kind }
}

/// The bytes put under a key and version: up to 40 KiB, mostly small.
pub(super) fn value(seed: u64, key: &Key, version: u64) -> Bytes {
    let mut number = [0; 8];
    number.copy_from_slice(&key.name[..8]);
    let mut dice =
        Dice::new(seed.wrapping_add(u64::from_be_bytes(number)) ^ version.rotate_left(32) ^ u64::from(key.kind));
    let most = [300, 3_000, 9_000, 40_000][(dice.roll() % 4) as usize];
    let mut bytes = vec![0; (dice.roll() % most) as usize];
    dice.fill(&mut bytes);
    Bytes::from(bytes)
}

/// What writer and checker compare instead of the bytes.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    //! Goal: the checker's reasoning holds. Method: look at many operations.

    use super::*;

    #[test]
    fn leases_given_after_a_sweep_began_outlast_it_and_every_kind_occurs() {
        let mut kinds = [0; 4];
        for number in 0..2_000 {
            match Operation::of(7, number) {
                Operation::Put { expiry_s, .. } => {
                    assert!(expiry_s > now(number));
                    kinds[0] += 1;
                }
                Operation::Touch { leases } => {
                    assert!(leases.windows(2).all(|pair| pair[0].0 < pair[1].0), "a key twice");
                    assert!(leases.iter().all(|(_, expiry_s)| *expiry_s > now(number)));
                    kinds[1] += 1;
                }
                Operation::Remove { .. } => kinds[2] += 1,
                Operation::Sweep { now_s } => {
                    assert_eq!(now_s, now(number));
                    kinds[3] += 1;
                }
            }
        }
        assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
        assert_eq!(Operation::of(7, 123), Operation::of(7, 123));
        assert_ne!(key(FRESH, 5), key(MUTABLE, 5));
    }
}
