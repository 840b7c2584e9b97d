//! A machine's storage operations on the engine: the only place where both vocabularies meet.
//!
//! The machine is promised an answer to every operation. What the engine's port does not take at once waits here, up to
//! a bound; what is beyond the bound fails at once, counted, as it would on a full disk.

use super::limits::{STORAGE_BYTES_MAX, STORAGE_WAITING_MAX};
use super::status::{Counter, Registry};
use super::sweeper::Due;
use engine::{Class, Completion, Port, Request, Response};
use net::id::{Key, Kind, Name};
use net::machine::{Listed, OpId, StorageOperation, StorageResult, Stored};
use std::collections::{BTreeMap, VecDeque};

/// Tag of the driver's own sweeps; machines count their operations from zero.
const SWEEP_TAG: u64 = u64::MAX;
/// Tag of a confirmation that the clock is right.
const CONFIRM_TAG: u64 = u64::MAX - 1;

/// Tag of a step of scrubbing.
const SCRUB_TAG: u64 = u64::MAX - 2;

/// One machine's way to the engine.
pub(super) struct Storage {
    port: Port,
    /// Not yet taken by the port, in order.
    waiting: VecDeque<(u64, Request)>,
    /// Answered without having been tried.
    answered: VecDeque<(OpId, StorageResult)>,
    /// Sizes of the objects in our puts, waiting or in the engine's hands; their sum is `put_bytes`.
    puts: BTreeMap<u64, usize>,
    put_bytes: usize,
    /// Whether a sweep is under way.
    sweeping: bool,
    /// Whether a step of scrubbing is under way.
    scrubbing: bool,
    /// What the last one read, and what a whole pass reads; until somebody asks.
    scrubbed: Option<(u64, u64)>,
    /// A shard of the engine has ended although nobody closed it.
    has_ended: bool,
    full: Counter,
    failed: Counter,
    sweep_failures: Counter,
    swept: Counter,
}

impl Storage {
    pub(super) fn new(port: Port, registry: &Registry) -> Storage {
        Storage {
            port,
            waiting: VecDeque::new(),
            answered: VecDeque::new(),
            puts: BTreeMap::new(),
            put_bytes: 0,
            sweeping: false,
            scrubbing: false,
            scrubbed: None,
            has_ended: false,
            full: registry.drops("storage queue full"),
            failed: registry.counter("storage_failures", "storage operations the engine refused or failed"),
            sweep_failures: registry.counter("sweep_failures", "sweeps the engine failed"),
            swept: registry.counter("swept_objects", "objects removed after their lease and grace had ended"),
        }
    }

    /// Starts an operation of the machine.
    pub(super) fn submit(&mut self, op: OpId, operation: StorageOperation) {
        assert!(op.0 < SCRUB_TAG, "the last numbers are the driver's own");
        if let StorageOperation::Put { key, version: 0, .. } = &operation
            && key.kind.is_mutable()
        {
            // To the engine, version 0 is an immutable object, whose bytes it would not compare.
            return self.answered.push_back((op, StorageResult::Superseded { version: 0 }));
        }
        let put_bytes = if let StorageOperation::Put { value, .. } = &operation { value.len() } else { 0 };
        if self.waiting.len() >= STORAGE_WAITING_MAX || self.put_bytes + put_bytes > STORAGE_BYTES_MAX {
            self.full.increment();
            return self.answered.push_back((op, StorageResult::Failed));
        }
        if put_bytes > 0 {
            self.puts.insert(op.0, put_bytes);
            self.put_bytes += put_bytes;
        }
        self.waiting.push_back((op.0, request(operation)));
        self.flush();
    }

    /// Removes what has expired.
    pub(super) fn sweep(&mut self, due: Due) {
        if due.confirm {
            self.waiting.push_back((CONFIRM_TAG, Request::ConfirmClock { now_s: due.now_s }));
        }
        // One at a time: the next one will find what this one would have.
        if !std::mem::replace(&mut self.sweeping, true) {
            self.waiting.push_back((SWEEP_TAG, Request::Sweep { now_s: due.now_s }));
        }
        self.flush();
    }

    /// Reads about so many bytes of sealed data again.
    pub(super) fn scrub(&mut self, budget_bytes: u64) {
        assert!(!std::mem::replace(&mut self.scrubbing, true), "one step at a time");
        self.waiting.push_back((SCRUB_TAG, Request::Scrub { budget_bytes }));
        self.flush();
    }

    /// Whether a step of scrubbing is under way.
    pub(super) fn is_scrubbing(&self) -> bool {
        self.scrubbing
    }

    /// What the last step of scrubbing read, and what a whole pass reads, once.
    pub(super) fn take_scrubbed(&mut self) -> Option<(u64, u64)> {
        self.scrubbed.take()
    }

    /// The next operation of the machine that has ended.
    pub(super) fn poll(&mut self) -> Option<(OpId, StorageResult)> {
        if let Some(answered) = self.answered.pop_front() {
            return Some(answered);
        }
        loop {
            let Completion { tag, result } = self.port.poll()?;
            self.flush();
            self.sweeping &= tag != SWEEP_TAG;
            self.scrubbing &= tag != SCRUB_TAG;
            self.put_bytes -= self.puts.remove(&tag).unwrap_or(0);
            self.has_ended |= matches!(result, Err(engine::Error::Closed));
            match (tag, result) {
                (SWEEP_TAG, Ok(Response::Swept { expired, .. })) => self.swept.add(expired),
                (SCRUB_TAG, Ok(Response::Scrubbed { bytes, damaged, damaged_pages, store_bytes, .. })) => {
                    self.scrubbed = Some((bytes, store_bytes));
                    if damaged > 0 {
                        tracing::warn!(damaged, "scrub found damaged records; replicas repair what is live of them");
                    }
                    if damaged_pages > 0 {
                        tracing::warn!(
                            damaged_pages,
                            "scrub found damaged pages of the index; what they named is not listed"
                        );
                    }
                }
                (SWEEP_TAG | CONFIRM_TAG | SCRUB_TAG, Ok(_)) => {}
                // The engine scrubs unless it is closed, which is dealt with elsewhere.
                (SCRUB_TAG, Err(_)) => {}
                (SWEEP_TAG | CONFIRM_TAG, Err(error)) => {
                    self.sweep_failures.increment();
                    tracing::warn!(%error, "sweep failed");
                }
                (op, Ok(response)) => return Some((OpId(op), outcome(response))),
                (op, Err(error)) => {
                    self.failed.increment();
                    tracing::debug!(%error, "storage operation failed");
                    return Some((OpId(op), StorageResult::Failed));
                }
            }
        }
    }

    /// Whether the engine has ended, wholly or in part: a node that has lost its store must not seem to be at work.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Operations that wait for the port.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn flush(&mut self) {
        while let Some((tag, request)) = self.waiting.pop_front() {
            if let Err(back) = self.port.submit(tag, request) {
                self.waiting.push_front((tag, back));
                return;
            }
        }
    }
}

fn request(operation: StorageOperation) -> Request {
    match operation {
        StorageOperation::Get { key } => Request::Get { key: engine_key(&key) },
        StorageOperation::Put { key, version, expiry, value } => Request::Put {
            key: engine_key(&key),
            version,
            // Charging accounts comes with quotas.
            account: 0,
            class: class(key.kind),
            expiry_s: expiry,
            value,
        },
        StorageOperation::Touch { leases } => {
            Request::TouchMany { leases: leases.iter().map(|(key, expiry)| (engine_key(key), *expiry)).collect() }
        }
        // Immutable objects have version 0, mutable ones never.
        StorageOperation::Remove { key } => Request::RemoveIfOlder { key: engine_key(&key), version: 1 },
        StorageOperation::Scan { from, to, after, limit } => {
            Request::Scan { from: from.0, to: to.0, after: after.as_ref().map(engine_key), limit }
        }
    }
}

fn outcome(response: Response) -> StorageResult {
    match response {
        Response::Put => StorageResult::Put,
        Response::Superseded { version } => StorageResult::Superseded { version },
        Response::Got(object) => StorageResult::Got(object.map(|object| Stored {
            version: object.version,
            expiry: object.expiry_s,
            value: object.value,
        })),
        Response::Touched { known } => StorageResult::Touched { known },
        // A kind we do not know: the store was written by a newer program. Half a listing would look like a whole one.
        Response::Listed(entries) => {
            entries.iter().map(listed).collect::<Option<Vec<_>>>().map_or(StorageResult::Failed, StorageResult::Listed)
        }
        Response::Removed(was_here) => StorageResult::Removed(was_here),
        // Answers to requests that machines do not make.
        Response::Swept { .. } | Response::Confirmed | Response::Digest { .. } | Response::Scrubbed { .. } => {
            StorageResult::Failed
        }
    }
}

fn listed(entry: &engine::Entry) -> Option<Listed> {
    let key = Key { name: Name(entry.key.name), kind: Kind::from_number(entry.key.kind)? };
    Some(Listed { key, version: entry.version, expiry: entry.expiry_s })
}

/// The engine orders keys along the ring by themselves, so the placement id is spelt out for it.
fn engine_key(key: &Key) -> engine::Key {
    engine::Key { placement: key.placement().0, kind: key.kind as u8, name: key.name.0 }
}

fn class(kind: Kind) -> Class {
    match kind {
        Kind::Content | Kind::Cluster | Kind::Pending | Kind::Note => Class::Fresh,
        Kind::Certificate | Kind::Identity | Kind::Head => Class::Mutable,
        Kind::Fragment => Class::Fragment,
    }
}
