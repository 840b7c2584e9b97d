//! PAST: objects on the k nodes closest to their key, under a lease.
//!
//! Two families of blocks live differently ([`block`] has their bytes):
//!
//! - **content** is named by its hash: any verified copy is right. It is inserted through the root of its key, which
//!   copies it to the k closest live nodes on distinct hosts (`insert`); a reader asks the root, then everybody who
//!   might have it (`lookup`). Substitutes stand in for holders that fail.
//! - **signed blocks** (head, identity, certificate) have versions: the newest is right, so quorums must meet. They
//!   live on the k_head *eligible* members of the ring document and nowhere else, whether those answer or not
//!   (`signed`).
//!
//! `holders` says who has what: a member that is away for a moment keeps what is its own, and nothing is moved for it.
//! `replica` is the other side of all of these: what a node checks before it stores, answers, or admits that it
//! does not know. `upkeep` keeps the copies of neighbours equal, range by range; `refresh` extends leases, a batch
//! a holder. Objects are deleted by the store when their lease and the ring's grace have passed, never by message, and only
//! once other holders were asked for a later lease (`leases`); signed blocks about which too few can be asked stay (`sparing`).
//! What a node lacks it fetches within bounds (`pulls`).
//!
//! An object travels directly between the two who care, never through the hops of a route: those only find the root.

pub mod block;
pub(crate) mod holders;
mod insert;
mod leases;
mod lookup;
mod promises;
mod pulls;
mod refresh;
mod replica;
mod signed;
mod sparing;
mod upkeep;

use crate::call::Owner;
use crate::id::{Id, Key};
use crate::limits::{OPERATIONS_MAX, TASKS_MAX};
use crate::machine::{Command, Metric, OpId, Reply, RequestId, Seconds, StorageOperation, StorageResult};
use crate::pastry::Pastry;
use crate::ring::Parameters;
use crate::site::{Due, Turn};
use crate::wire::{Body, Place, StoreOutcome};
use block::Verdict;
use bytes::Bytes;
use insert::{Copying, Insertion};
use leases::Agreements;
use lookup::Lookup;
use promises::Promises;
use pulls::Pulls;
use refresh::{Extending, Refreshing};
use replica::Incoming;
use signed::{Sent, SignedRead, SignedWrite};
use sparing::Sparing;
use std::collections::BTreeMap;
use upkeep::{Segment, Upkeep};

/// What follows when a storage operation or computation has finished.
#[derive(Debug)]
enum Then {
    StoreVerified(Incoming),
    StorePut(Incoming),
    FetchRead {
        from: Id,
        request: u64,
        key: Key,
    },
    Touched {
        extending: u64,
        group: usize,
    },
    InsertionVerified(u64),
    CopyingVerified(u64),
    LookupVerified {
        task: u64,
        from: Id,
        value: Bytes,
        version: u64,
        expiry: Seconds,
    },
    WriteVerified(u64),
    ReadVerified {
        task: u64,
        from: Id,
        sent: Sent,
    },
    /// Whether the disk has anything at all.
    FirstLook,
    WalkScan(Segment),
    DigestScan {
        from: Id,
        request: u64,
        digest: crate::wire::RangeDigest,
    },
    MergeScan {
        from: Id,
        listing: crate::wire::RangeListing,
    },
    PullVerified {
        key: Key,
        value: Bytes,
        expiry: Seconds,
    },
    PullPut {
        key: Key,
    },
    /// Our own signed blocks, for those that are to be kept by hand.
    SparingScan(Sparing),
    /// Those of a page are kept; whether it was the last.
    Spared(Sparing, bool),
    /// Later leases that this partner knew of.
    Adopted {
        from: Id,
    },
}

/// What arrived for an open request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An answering message.
    Body(Body),
    /// None, for as long as it makes sense to wait.
    Silence,
}

/// One node's PAST.
#[derive(Debug, Default)]
pub(crate) struct Past {
    insertions: BTreeMap<u64, Insertion>,
    copyings: BTreeMap<u64, Copying>,
    lookups: BTreeMap<u64, Lookup>,
    writes: BTreeMap<u64, SignedWrite>,
    reads: BTreeMap<u64, SignedRead>,
    refreshes: BTreeMap<u64, Refreshing>,
    extendings: BTreeMap<u64, Extending>,
    operations: BTreeMap<OpId, Then>,
    upkeep: Upkeep,
    pulls: Pulls,
    agreements: Agreements,
    promises: Promises,
}

impl Past {
    /// Tasks under way.
    pub(crate) fn open(&self) -> usize {
        self.insertions.len()
            + self.copyings.len()
            + self.lookups.len()
            + self.writes.len()
            + self.reads.len()
            + self.refreshes.len()
    }

    /// A command that concerns storage.
    pub(crate) fn command(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, request: RequestId, command: Command) {
        if self.open() >= TASKS_MAX || self.operations.len() >= OPERATIONS_MAX / 2 {
            turn.count(Metric::Dropped);
            turn.reply(request, Reply::Busy);
            return;
        }
        match command {
            Command::Insert { key, value, expiry } => self.begin_insertion(turn, request, key, value, expiry),
            Command::Lookup { key } => self.begin_lookup(pastry, turn, request, key),
            Command::PutSigned { key, value, expiry } => self.begin_write(turn, request, key, value, expiry),
            Command::GetSigned { key } => self.begin_read(pastry, turn, request, key),
            Command::Refresh { keys, expiry } => self.begin_refresh(pastry, turn, request, &keys, expiry),
            _ => unreachable!("not a matter of PAST"),
        }
    }

    /// A request of a peer; it is certified.
    pub(crate) fn receive(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, from: Id, request: u64, body: Body) {
        match body {
            Body::Insert(place, value) => self.insert_asked(pastry, turn, Incoming { from, request, place, value }),
            Body::Store(place, value) => self.store_asked(pastry, turn, Incoming { from, request, place, value }),
            Body::Fetch(fetch) => self.fetch_asked(pastry, turn, from, request, &fetch),
            Body::Extend(extend) => self.extend_asked(turn, from, request, extend),
            Body::RangeDigest(digest) => self.digest_asked(turn, from, request, digest),
            Body::RangeListing(listing) => self.listing_received(turn, from, listing),
            _ => turn.count(Metric::Unexpected),
        }
    }

    /// The answer to a request of ours, or its silence.
    pub(crate) fn answered(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        owner: Owner,
        from: Id,
        request: u64,
        answer: Answer,
    ) {
        match owner {
            Owner::Insertion(task) => self.insertion_answered(turn, task, from, answer),
            Owner::Copying(task) => self.copying_answered(pastry, turn, task, from, answer),
            Owner::Lookup(task) => self.lookup_answered(pastry, turn, task, from, answer),
            Owner::SignedWrite(task) => self.write_answered(pastry, turn, task, from, answer),
            Owner::SignedRead(task) => self.read_answered(pastry, turn, task, from, answer),
            Owner::Refresh(task) => self.refresh_answered(turn, task, request, answer),
            Owner::Digest { from: first, to } => self.digest_answered(turn, from, first, to, answer),
            Owner::Pull(key) => self.pull_answered(turn, key, answer),
            Owner::Mend => {
                if matches!(&answer, Answer::Body(Body::StoreAnswer(a)) if a.outcome == StoreOutcome::Durable) {
                    turn.count(Metric::Repaired);
                }
            }
            Owner::Tell(_) | Owner::Scribe(_) => unreachable!("not a matter of PAST"),
        }
        self.tell_leases(pastry, turn);
    }

    /// A storage operation of ours has finished.
    pub(crate) fn stored(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, op: OpId, result: StorageResult) {
        let Some(then) = self.operations.remove(&op) else { return };
        match then {
            Then::StorePut(incoming) => self.store_finished(turn, &incoming, &result),
            Then::FetchRead { from, request, key } => self.fetch_finished(pastry, turn, from, request, key, result),
            Then::Touched { extending, group } => self.extend_finished(turn, extending, group, &result),
            Then::FirstLook => self.promises.disk_looked_at(&result),
            Then::WalkScan(segment) => self.walk_scanned(pastry, turn, segment, result),
            Then::DigestScan { from, request, digest } => {
                self.digest_scanned(pastry, turn, from, request, &digest, result);
            }
            Then::MergeScan { from, listing } => self.merge_scanned(pastry, turn, from, listing, result),
            Then::PullPut { key } => self.pull_stored(turn, key, &result),
            Then::SparingScan(sparing) => self.sparing_scanned(turn, sparing, result),
            Then::Spared(next, is_last) => self.spared(turn, next, is_last, &result),
            Then::Adopted { from } => self.compared(from, matches!(result, StorageResult::Touched { .. })),
            _ => {}
        }
        self.tell_leases(pastry, turn);
    }

    /// A computation of ours has finished.
    pub(crate) fn computed(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, op: OpId, result: Verdict) {
        let Some(then) = self.operations.remove(&op) else { return };
        if result.is_err() {
            turn.count(Metric::BlockRefused);
        }
        match then {
            Then::StoreVerified(incoming) => self.store_verified(turn, incoming, result),
            Then::InsertionVerified(task) => self.insertion_verified(pastry, turn, task, result),
            Then::CopyingVerified(task) => self.copying_verified(pastry, turn, task, result),
            Then::LookupVerified { task, from, value, version, expiry } => {
                let found = lookup::Found { value, version, expiry };
                self.lookup_verified(pastry, turn, task, from, found, result);
            }
            Then::WriteVerified(task) => self.write_verified(pastry, turn, task, result),
            Then::ReadVerified { task, from, sent } => self.read_verified(turn, task, from, sent, result),
            Then::PullVerified { key, value, expiry } => self.pull_verified(turn, key, value, expiry, result),
            _ => {}
        }
    }

    /// A task's timer.
    pub(crate) fn task_due(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, task: u64) {
        if self.insertions.contains_key(&task) {
            self.find_root(pastry, turn, task);
        } else if self.lookups.contains_key(&task) {
            self.broaden_if_empty_handed(pastry, turn, task);
        } else if self.writes.contains_key(&task) {
            self.offer(pastry, turn, task);
        } else if self.reads.contains_key(&task) {
            self.read_due(pastry, turn, task);
        }
    }

    /// The store's timer for upkeep.
    pub(crate) fn due(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, due: Due) {
        match due {
            Due::Upkeep => self.upkeep_round(pastry, turn),
            Due::Pulls => self.pull_more(turn),
            Due::Absence => self.absence_over(pastry, turn),
            _ => unreachable!("not a matter of PAST"),
        }
    }

    fn begin_storage(&mut self, turn: &mut Turn<'_>, operation: StorageOperation, then: Then) {
        let op = turn.storage(operation);
        self.operations.insert(op, then);
    }

    fn begin_verification(&mut self, turn: &mut Turn<'_>, key: Key, value: Bytes, then: Then) {
        let op = turn.verify(key, value);
        self.operations.insert(op, then);
    }

    fn is_overloaded(&self) -> bool {
        self.operations.len() >= OPERATIONS_MAX
    }

    /// Gives an object to replicas that were found without it.
    fn mend(turn: &mut Turn<'_>, key: Key, value: &Bytes, expiry: Seconds, replicas: &[Id]) {
        if !replica::is_kept(turn, expiry) {
            return;
        }
        let place = Place { scope: turn.site.scope(), key, expiry };
        for id in replicas {
            turn.call(*id, Body::Store(place, value.clone()), Owner::Mend);
        }
    }
}

/// Now, in the unit of leases.
fn seconds(turn: &Turn<'_>) -> Seconds {
    turn.now / crate::limits::SECOND
}

/// The rules of the ring, with k and k_head no larger than the number of eligible hosts there are at all: what a ring
/// of few members can keep. It shrinks by the CA's hand only, never because somebody does not answer.
fn rules(turn: &Turn<'_>, eligible: usize) -> Parameters {
    let parameters = turn.site.roster.ring().parameters;
    let eligible = u8::try_from(eligible).unwrap_or(u8::MAX).max(1);
    Parameters { k: parameters.k.min(eligible), k_head: parameters.k_head.min(eligible), ..parameters }
}
