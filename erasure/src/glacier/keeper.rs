//! The keeper: fragments on this node's disk, and what others may ask of them.
//!
//! A fragment is verified before it is stored, whoever sends it, and again by whoever reads it; in between the store's own
//! checksums watch. It is kept under its lease like any object, in the store's class for fragments, and goes when that and
//! the ring's grace have passed: it is never deleted by message. Any member may have fragments kept here; what a member
//! may fill the disk with is bounded by the disk alone, as in PAST.
//!
//! [`super::wire::Said::Look`] tells what is here under a few keys, without reading it: fragments, and PAST's objects too, so that stewards see
//! what of an aggregate lives, and until when.

use super::limits::{DAY, KEYS_PER_MESSAGE_MAX, OPERATIONS_MAX, SECOND};
use super::name::AggregateName;
use super::site::Turn;
use super::wire::{Lease, Outcome, Said};
use super::work::Verify;
use bytes::Bytes;
use net::id::{Id, Key};
use net::limits::LEASE_PERIODS_MAX;
use net::machine::{Metric, OpId, Seconds, StorageOperation, StorageResult};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request of a peer that waits for the disk, or for a computation.
#[derive(Debug)]
struct Asked {
    from: Id,
    request: u64,
    waits: Waits,
}

#[derive(Debug)]
enum Waits {
    Verified {
        key: Key,
        expiry: Seconds,
        value: Bytes,
    },
    Kept,
    Read,
    Extended,
    /// The last key of `keys` is being looked for; those before it are answered in `found`, from the end.
    Looked {
        keys: Vec<Key>,
        found: Vec<Option<Lease>>,
    },
}

/// What this node keeps for others.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    asked: BTreeMap<OpId, Asked>,
}

impl Keeper {
    /// A request of a peer.
    pub(super) fn receive(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, said: Said, payload: Bytes) {
        if self.asked.len() >= OPERATIONS_MAX {
            turn.count(Metric::Dropped);
            if let Said::Keep { .. } = said {
                turn.send(from, request, &Said::Kept { outcome: Outcome::Failed }, Bytes::new());
            }
            return;
        }
        match said {
            Said::Keep { key, expiry } => {
                if AggregateName::of_key(&key).is_none() || !is_kept(turn, expiry) {
                    turn.count(Metric::BlockRefused);
                    turn.send(from, request, &Said::Kept { outcome: Outcome::Refused }, Bytes::new());
                    return;
                }
                let op = turn.work(Arc::new(Verify { key, value: payload.clone() }));
                let expiry = bounded(turn, expiry);
                self.wait(op, from, request, Waits::Verified { key, expiry, value: payload });
            }
            Said::Fetch { key } if AggregateName::of_key(&key).is_some() => {
                let op = turn.storage(StorageOperation::Get { key });
                self.wait(op, from, request, Waits::Read);
            }
            Said::Extend { leases } => {
                // Leases of other kinds are PAST's.
                let fragments = leases.into_iter().filter(|(key, _)| AggregateName::of_key(key).is_some());
                let leases = fragments.map(|(key, expiry)| (key, bounded(turn, expiry))).collect();
                let op = turn.storage(StorageOperation::Touch { leases });
                self.wait(op, from, request, Waits::Extended);
            }
            Said::Look { keys } => {
                let found = Vec::with_capacity(keys.len());
                self.look(turn, from, request, keys, found);
            }
            _ => turn.count(Metric::Unexpected),
        }
    }

    /// Looks for the last of the keys, or answers if none is left.
    fn look(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, keys: Vec<Key>, mut found: Vec<Option<Lease>>) {
        let Some(key) = keys.last() else {
            found.reverse();
            turn.send(from, request, &Said::Seen { found }, Bytes::new());
            return;
        };
        let place = key.placement();
        let scan = StorageOperation::Scan { from: place, to: place, after: None, limit: KEYS_PER_MESSAGE_MAX };
        let op = turn.storage(scan);
        self.wait(op, from, request, Waits::Looked { keys, found });
    }

    fn wait(&mut self, op: OpId, from: Id, request: u64, waits: Waits) {
        self.asked.insert(op, Asked { from, request, waits });
    }

    /// A fragment was verified, or refused. False if the computation was not the keeper's.
    pub(super) fn worked(&mut self, turn: &mut Turn<'_>, op: OpId, is_good: bool) -> bool {
        let Some(Asked { from, request, waits }) = self.asked.remove(&op) else { return false };
        let Waits::Verified { key, expiry, value } = waits else { return true };
        if is_good {
            let op = turn.storage(StorageOperation::Put { key, version: 0, expiry, value });
            self.wait(op, from, request, Waits::Kept);
        } else {
            turn.count(Metric::BlockRefused);
            turn.send(from, request, &Said::Kept { outcome: Outcome::Refused }, Bytes::new());
        }
        true
    }

    /// The disk has answered. False if the operation was not the keeper's.
    pub(super) fn stored(&mut self, turn: &mut Turn<'_>, op: OpId, result: &StorageResult) -> bool {
        let Some(Asked { from, request, waits }) = self.asked.remove(&op) else { return false };
        match waits {
            Waits::Kept => {
                let is_durable = matches!(result, StorageResult::Put);
                let outcome = if is_durable { Outcome::Durable } else { Outcome::Failed };
                turn.send(from, request, &Said::Kept { outcome }, Bytes::new());
            }
            Waits::Read => {
                let (expiry, value) = match result {
                    StorageResult::Got(Some(stored)) => (Some(stored.expiry), stored.value.clone()),
                    _ => (None, Bytes::new()),
                };
                turn.send(from, request, &Said::Fetched { expiry }, value);
            }
            Waits::Extended => turn.send(from, request, &Said::Extended, Bytes::new()),
            Waits::Looked { mut keys, mut found } => {
                let key = keys.pop();
                let StorageResult::Listed(entries) = result else {
                    return true; // Nothing is known; whoever asks will take our silence for that.
                };
                let listed = entries.iter().find(|entry| Some(entry.key) == key);
                found.push(listed.map(|entry| Lease { version: entry.version, expiry: entry.expiry }));
                self.look(turn, from, request, keys, found);
            }
            Waits::Verified { .. } => {}
        }
        true
    }
}

/// Whether a fragment with such a lease is one to have: the lease and the ring's grace have not both passed.
fn is_kept(turn: &Turn<'_>, expiry: Seconds) -> bool {
    expiry.saturating_add(turn.site.roster.ring().parameters.grace_s) > turn.seconds()
}

/// No writer may pay for a lease that outlives this by much.
pub(super) fn bounded(turn: &Turn<'_>, expiry: Seconds) -> Seconds {
    let lease = turn.site.roster.ring().parameters.lease_s.max(DAY / SECOND);
    expiry.min(turn.seconds().saturating_add(lease.saturating_mul(LEASE_PERIODS_MAX)))
}
