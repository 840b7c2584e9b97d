//! A replica's side: what is checked before a byte is stored, and what is admitted not to be known.
//!
//! A block is verified here, whoever sends it. A signed block is taken only by the members eligible for its key, and
//! only from a writer with the same ring document, since the quorums of two documents need not meet. A replica that
//! does not have an object says *absent* only if it has compared notes, since it started, with enough of the others
//! that it would have it; otherwise *unknown*, which counts in no quorum.

use super::holders::{holders, nearest_live};
use super::{Past, Then, rules, seconds};
use crate::id::{Id, Key};
use crate::limits::{LEASE_PERIODS_MAX, SUBSTITUTES_MAX};
use crate::machine::{Metric, Seconds, StorageOperation, StorageResult, Stored};
use crate::past::block::Verdict;
use crate::pastry::{Pastry, eligible, is_signed};
use crate::site::Turn;
use crate::wire::{Body, Fetch, FetchAnswer, FetchOutcome, Place, Scope, StoreAnswer, StoreOutcome};
use bytes::Bytes;

/// An object that a peer wants stored.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) from: Id,
    pub(super) request: u64,
    pub(super) place: Place,
    pub(super) value: Bytes,
}

impl Past {
    /// A peer asks us to be a replica.
    pub(super) fn store_asked(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, incoming: Incoming) {
        let key = incoming.place.key;
        let refusal = if let Some(epoch) = out_of_scope(pastry, turn, incoming.from, &incoming.place.scope, &key) {
            Some(StoreOutcome::WrongScope(epoch))
        } else if !may_hold(pastry, turn, &key) {
            Some(StoreOutcome::NotMine)
        } else if !is_kept(turn, incoming.place.expiry) {
            // A copy on its way since before the object was deleted, perhaps. It would be deleted again.
            Some(StoreOutcome::Failed)
        } else if self.is_overloaded() {
            turn.count(Metric::Dropped);
            Some(StoreOutcome::Failed)
        } else {
            None
        };
        match refusal {
            Some(outcome) => answer(turn, &incoming, outcome),
            None => {
                let value = incoming.value.clone();
                self.begin_verification(turn, key, value, Then::StoreVerified(incoming));
            }
        }
    }

    pub(super) fn store_verified(&mut self, turn: &mut Turn<'_>, incoming: Incoming, result: Verdict) {
        match result {
            Err(refusal) => answer(turn, &incoming, StoreOutcome::Refused(refusal)),
            Ok(version) => {
                let put = StorageOperation::Put {
                    key: incoming.place.key,
                    version,
                    expiry: bounded_lease(turn, incoming.place.expiry),
                    value: incoming.value.clone(),
                };
                self.begin_storage(turn, put, Then::StorePut(incoming));
            }
        }
    }

    pub(super) fn store_finished(&mut self, turn: &mut Turn<'_>, incoming: &Incoming, result: &StorageResult) {
        let outcome = match result {
            StorageResult::Put => StoreOutcome::Durable,
            StorageResult::Superseded { version } => StoreOutcome::Superseded(*version),
            _ => StoreOutcome::Failed,
        };
        answer(turn, incoming, outcome);
    }

    /// A peer asks for an object.
    pub(super) fn fetch_asked(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        from: Id,
        request: u64,
        fetch: &Fetch,
    ) {
        let key = fetch.key;
        let outcome = if let Some(epoch) = out_of_scope(pastry, turn, from, &fetch.scope, &key) {
            FetchOutcome::WrongScope(epoch)
        } else if self.is_overloaded() {
            turn.count(Metric::Dropped);
            FetchOutcome::Failed
        } else {
            self.begin_storage(turn, StorageOperation::Get { key }, Then::FetchRead { from, request, key });
            return;
        };
        turn.send(from, request, Body::FetchAnswer(FetchAnswer { outcome }, Bytes::new()));
    }

    pub(super) fn fetch_finished(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        from: Id,
        request: u64,
        key: Key,
        result: StorageResult,
    ) {
        let (outcome, value) = match result {
            StorageResult::Got(Some(Stored { version, expiry, value })) => {
                let is_certain = !is_signed(key.kind) || self.would_know(pastry, turn, &key);
                let uncertain = FetchOutcome::Uncertain { version, expiry };
                (if is_certain { FetchOutcome::Found { version, expiry } } else { uncertain }, value)
            }
            StorageResult::Got(None) if self.would_have(pastry, turn, &key) && self.is_at_home(turn, &key) => {
                (FetchOutcome::Absent, Bytes::new())
            }
            StorageResult::Got(None) => (FetchOutcome::Unknown, Bytes::new()),
            _ => (FetchOutcome::Failed, Bytes::new()),
        };
        turn.send(from, request, Body::FetchAnswer(FetchAnswer { outcome }, value));
    }

    /// Whether we would have an object of this key if it existed: since we started we have compared notes with so many
    /// of its other holders that one of them was among those that acknowledged it, and is correct.
    pub(super) fn would_have(&self, pastry: &Pastry, turn: &Turn<'_>, key: &Key) -> bool {
        let holders = holders(pastry, turn, key);
        let rules = rules(turn, holders.len());
        let others: Vec<Id> = holders.into_iter().filter(|id| *id != turn.site.me).collect();
        // Of n holders q acknowledged, f of them perhaps falsely; of the n - 1 others we need one of the rest.
        let (n, q, f) = if is_signed(key.kind) {
            (usize::from(rules.k_head), rules.head_quorum(), rules.head_faults())
        } else {
            (usize::from(rules.k), rules.content_quorum(), 0)
        };
        self.upkeep.meetings.are_enough(&others, n + f + 1 - q)
    }
}

/// Whether an object with a lease that ends then is one to have: the lease and the ring's grace have not both passed. The owner
/// may be late; then the object is kept, compared and copied like any other.
pub(super) fn is_kept(turn: &Turn<'_>, expiry: Seconds) -> bool {
    expiry.saturating_add(turn.site.roster.ring().parameters.grace_s) > seconds(turn)
}

/// No writer may pay for a lease that outlives this by much.
pub(super) fn bounded_lease(turn: &Turn<'_>, expiry: u64) -> u64 {
    let lease = turn.site.roster.ring().parameters.lease_s;
    expiry.min(seconds(turn).saturating_add(lease.saturating_mul(LEASE_PERIODS_MAX)))
}

/// Our epoch, if a message about `key` is for another ring, or about a signed block and for another epoch.
pub(super) fn out_of_scope(
    pastry: &mut Pastry,
    turn: &mut Turn<'_>,
    from: Id,
    scope: &Scope,
    key: &Key,
) -> Option<u64> {
    let ours = turn.site.scope();
    if scope.ring != ours.ring {
        turn.count(Metric::Unexpected);
        return Some(ours.epoch);
    }
    pastry.compare_epochs(turn, from, scope.epoch);
    (is_signed(key.kind) && scope.epoch != ours.epoch).then_some(ours.epoch)
}

/// Whether we may be a holder: eligible for a signed block; for content also a substitute.
fn may_hold(pastry: &Pastry, turn: &Turn<'_>, key: &Key) -> bool {
    let me = turn.site.me;
    if is_signed(key.kind) {
        return eligible(&turn.site.roster, key).contains(&me);
    }
    let roster = &turn.site.roster;
    let count = usize::from(roster.ring().parameters.k) + SUBSTITUTES_MAX;
    let place = key.placement();
    (pastry.is_ready() && pastry.covers(place) && nearest_live(pastry, turn, place, count).contains(&me))
        || roster.eligible(place, count).contains(&me)
}

fn answer(turn: &mut Turn<'_>, incoming: &Incoming, outcome: StoreOutcome) {
    turn.send(incoming.from, incoming.request, Body::StoreAnswer(StoreAnswer { outcome }));
}
