//! A caller's door to the engine: submit, be woken, poll.

use super::mailbox::{Mailbox, Message};
use crate::key::Key;
use crate::limits;
use crate::request::{Completion, Entry, Error, Request, Response};
use crate::store::walk_order;
use crossbeam::queue::ArrayQueue;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a port and the shards share: the queue of answers, and how to wake the caller.
pub(crate) struct PortShared {
    answers: ArrayQueue<(u64, Result<Response, Error>)>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl PortShared {
    fn answer(&self, operation: u64, result: Result<Response, Error>) {
        // Sized for every part of every operation a port may have in flight.
        assert!(self.answers.push((operation, result)).is_ok(), "a port's answers have a place");
    }

    pub(crate) fn wake(&self) {
        (self.wake)();
    }
}

/// The right and duty to answer one part of an operation. Whatever happens to the shard, it is answered once.
pub(crate) struct Ticket {
    port: Arc<PortShared>,
    operation: u64,
    answered: bool,
}

impl Ticket {
    /// Answers, and returns the port, to be woken once for all answers of a turn.
    pub(crate) fn answer(mut self, result: Result<Response, Error>) -> Arc<PortShared> {
        self.answered = true;
        self.port.answer(self.operation, result);
        self.port.clone()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.port.answer(self.operation, Err(Error::Closed));
            self.port.wake();
        }
    }
}

/// The places in the mailboxes that ports share.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: AtomicUsize,
}

impl Seats {
    /// Takes up to `wanted` places; returns how many it got.
    fn take(&self, wanted: usize) -> usize {
        let mut got = 0;
        let _ = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
            got = wanted.min(limits::MAILBOX - taken);
            Some(taken + got)
        });
        got
    }

    fn give_back(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::SeqCst);
    }
}

/// A bounded, asynchronous door to all shards of an engine, for one owner.
pub struct Port {
    shared: Arc<PortShared>,
    mailboxes: Arc<[Mailbox]>,
    seats: Arc<Seats>,
    capacity: usize,
    operation_next: u64,
    operations: HashMap<u64, Operation>,
}

/// An operation in flight, perhaps at several shards.
struct Operation {
    tag: u64,
    missing: usize,
    merged: Option<Result<Response, Error>>,
    /// For scans: where the walk starts, and how many entries are wanted.
    walk: Option<([u8; 20], usize)>,
}

impl Port {
    pub(crate) fn new(
        mailboxes: Arc<[Mailbox]>,
        seats: Arc<Seats>,
        capacity: usize,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Port {
        let capacity = seats.take(capacity);
        let answers = ArrayQueue::new((capacity * mailboxes.len()).max(1));
        Port {
            shared: Arc::new(PortShared { answers, wake }),
            mailboxes,
            seats,
            capacity,
            operation_next: 0,
            operations: HashMap::new(),
        }
    }

    /// Operations this port may have in flight: what was asked for, or less if other ports have taken the places
    /// ([`limits::MAILBOX`] in all).
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.operations.len()
    }

    /// Starts an operation; its [`Completion`] will carry `tag`.
    ///
    /// # Errors
    /// Gives the request back when [`Port::capacity`] operations are in flight.
    pub fn submit(&mut self, tag: u64, request: Request) -> Result<(), Request> {
        if self.operations.len() >= self.capacity {
            return Err(request);
        }
        let operation = self.operation_next;
        self.operation_next += 1;
        let walk = match &request {
            Request::Scan { from, limit, .. } => Some((*from, (*limit).min(limits::SCAN_ENTRIES_MAX))),
            _ => None,
        };
        let parts = split(request, self.mailboxes.len());
        let entry = Operation { tag, missing: parts.len(), merged: None, walk };
        self.operations.insert(operation, entry);
        for (shard, request) in parts {
            let ticket = Ticket { port: self.shared.clone(), operation, answered: false };
            // A shard that has ended drops the message, and with that the ticket answers.
            self.mailboxes[shard].put(Message::Ask { ticket, request });
        }
        Ok(())
    }

    /// The next finished operation.
    pub fn poll(&mut self) -> Option<Completion> {
        while let Some((number, result)) = self.shared.answers.pop() {
            let operation = self.operations.get_mut(&number).expect("answers belong to operations");
            operation.missing -= 1;
            operation.merged = Some(match operation.merged.take() {
                Some(before) => merge(before, result),
                None => result,
            });
            if operation.missing > 0 {
                continue;
            }
            let operation = self.operations.remove(&number).expect("looked up above");
            let mut result = operation.merged.expect("merged above");
            if let (Ok(Response::Listed(entries)), Some((from, limit))) = (&mut result, operation.walk) {
                entries.sort_by_key(|entry: &Entry| walk_order(from, &entry.key));
                entries.truncate(limit);
            }
            return Some(Completion { tag: operation.tag, result });
        }
        None
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("capacity", &self.capacity).field("in_flight", &self.in_flight()).finish()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Operations still in flight hold their places in mailboxes until the shard takes them; a new port could at worst
        // wait for one of those to be taken.
        self.seats.give_back(self.capacity);
    }
}

/// The shards a request concerns, with each one's part.
fn split(request: Request, shards: usize) -> Vec<(usize, Request)> {
    match request {
        Request::Put { key, .. } | Request::Get { key } | Request::RemoveIfOlder { key, .. } => {
            vec![(key.shard(shards), request)]
        }
        Request::TouchMany { leases } => split_leases(leases, shards),
        Request::Scrub { budget_bytes } => {
            let budget_bytes = budget_bytes.div_ceil(shards as u64);
            (0..shards).map(|shard| (shard, Request::Scrub { budget_bytes })).collect()
        }
        Request::Scan { .. } | Request::Sweep { .. } | Request::ConfirmClock { .. } => {
            (0..shards).map(|shard| (shard, request.clone())).collect()
        }
    }
}

fn split_leases(leases: Vec<(Key, u64)>, shards: usize) -> Vec<(usize, Request)> {
    let mut parts: Vec<Vec<(Key, u64)>> = vec![Vec::new(); shards];
    for lease in leases {
        parts[lease.0.shard(shards)].push(lease);
    }
    let mut requests: Vec<(usize, Request)> = parts
        .into_iter()
        .enumerate()
        .filter(|(_, leases)| !leases.is_empty())
        .map(|(shard, leases)| (shard, Request::TouchMany { leases }))
        .collect();
    if requests.is_empty() {
        requests.push((0, Request::TouchMany { leases: Vec::new() }));
    }
    requests
}

/// Two shards' answers as one. An error of either is the answer.
fn merge(one: Result<Response, Error>, other: Result<Response, Error>) -> Result<Response, Error> {
    Ok(match (one?, other?) {
        (Response::Touched { known }, Response::Touched { known: more }) => Response::Touched { known: known + more },
        (Response::Listed(mut entries), Response::Listed(more)) => {
            entries.extend(more);
            Response::Listed(entries)
        }
        (Response::Swept { expired, freed_bytes }, Response::Swept { expired: more, freed_bytes: more_bytes }) => {
            Response::Swept { expired: expired + more, freed_bytes: freed_bytes + more_bytes }
        }
        (one @ Response::Scrubbed { .. }, other @ Response::Scrubbed { .. }) => merge_scrubbed(&one, &other),
        (one, _) => one,
    })
}

fn merge_scrubbed(one: &Response, other: &Response) -> Response {
    match (one, other) {
        (
            Response::Scrubbed { bytes, records, damaged, wrapped, store_bytes },
            Response::Scrubbed { bytes: b, records: r, damaged: d, wrapped: w, store_bytes: s },
        ) => Response::Scrubbed {
            bytes: bytes + b,
            records: records + r,
            damaged: damaged + d,
            wrapped: *wrapped || *w,
            store_bytes: store_bytes + s,
        },
        _ => unreachable!("both answer a scrub"),
    }
}
