//! A caller's door to the engine: submit, be woken, poll.
//!
//! A port has a queue of requests for each shard and one of answers. Their sizes follow from the port's capacity: an operation
//! has at most one part per shard, and each part one answer, so whatever a port accepts has its places from the start.

use super::attention::Attention;
use super::listing::Listing;
use super::mailbox::{Mailbox, Message};
use super::patience::Patience;
use super::slab::Slab;
use crate::key::Key;
use crate::limits;
use crate::request::{Completion, Error, Request, Response};
use crossbeam::queue::ArrayQueue;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

type Answer = (u32, Result<Response, Error>);

/// What a port and the shards share: the queues, and how to wake the owner.
pub(crate) struct PortShared {
    asks: Box<[Asks]>,
    answers: ArrayQueue<Answer>,
    /// The owner's: wanted when he has seen all answers.
    owner: Attention,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// A port's requests for one shard.
pub(super) struct Asks {
    queue: ArrayQueue<(u32, Request)>,
    /// The shard's: wanted when it has seen the queue empty.
    reader: Attention,
    /// Where the shard keeps this port, if it still does. The shard's own note.
    seat: AtomicU32,
}

impl Asks {
    fn new(capacity: usize) -> Asks {
        let seat = AtomicU32::new(u32::MAX);
        Asks { queue: ArrayQueue::new(capacity.max(1)), reader: Attention::wanted(), seat }
    }

    /// For the shard: the next request. After `None` there will be word of the next one.
    pub(super) fn take(&self) -> Option<(u32, Request)> {
        if let Some(ask) = self.queue.pop() {
            return Some(ask);
        }
        self.reader.want();
        let ask = self.queue.pop()?;
        self.reader.give();
        Some(ask)
    }

    pub(super) fn seat(&self) -> u32 {
        self.seat.load(Ordering::Relaxed)
    }

    pub(super) fn set_seat(&self, seat: u32) {
        self.seat.store(seat, Ordering::Relaxed);
    }
}

impl PortShared {
    pub(super) fn asks(&self, shard: usize) -> &Asks {
        &self.asks[shard]
    }

    pub(super) fn answer(&self, operation: u32, result: Result<Response, Error>) {
        // Sized for every part of every operation a port may have in flight.
        assert!(self.answers.push((operation, result)).is_ok(), "a port's answers have a place");
    }

    /// Wakes the owner, unless he is still taking answers.
    pub(super) fn wake(&self) {
        if self.owner.must_call() {
            (self.wake)();
        }
    }

    /// A shard has ended: answers what it has not taken. Whoever takes a request answers it, so that this may be done by the
    /// shard and by the owner.
    pub(super) fn close(&self, shard: usize) {
        while let Some((operation, _)) = self.asks[shard].queue.pop() {
            self.answer(operation, Err(Error::Closed));
        }
        self.wake();
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
    operations: Slab<Operation>,
    patience: Patience,
}

/// An operation in flight, perhaps at several shards.
struct Operation {
    tag: u64,
    missing: usize,
    merged: Option<Result<Response, Error>>,
    /// For scans: what has come together of it.
    listing: Option<Box<Listing>>,
}

impl Port {
    pub(crate) fn new(
        mailboxes: Arc<[Mailbox]>,
        seats: Arc<Seats>,
        capacity: usize,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Port {
        let capacity = seats.take(capacity);
        let shared = PortShared {
            asks: mailboxes.iter().map(|_| Asks::new(capacity)).collect(),
            answers: ArrayQueue::new((capacity * mailboxes.len()).max(1)),
            owner: Attention::wanted(),
            wake,
        };
        let (shared, operations, patience) = (Arc::new(shared), Slab::new(), Patience::new());
        Port { shared, mailboxes, seats, capacity, operations, patience }
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

    /// Starts an operation; its [`Completion`] will carry `tag`. For several at once see [`Port::submit_many`].
    ///
    /// # Errors
    /// Gives the request back when [`Port::capacity`] operations are in flight.
    pub fn submit(&mut self, tag: u64, request: Request) -> Result<(), Request> {
        if self.in_flight() >= self.capacity {
            return Err(request);
        }
        let shards = self.place(tag, request);
        self.tell(shards);
        Ok(())
    }

    /// Starts operations, each with its tag, until there are no more or the port is full, and takes none that it does not
    /// start; returns how many. Shards hear of all of them at once: a sleeping one is woken for the whole batch.
    pub fn submit_many(&mut self, requests: &mut impl Iterator<Item = (u64, Request)>) -> usize {
        let (mut started, mut shards) = (0, 0);
        while self.in_flight() < self.capacity
            && let Some((tag, request)) = requests.next()
        {
            shards |= self.place(tag, request);
            started += 1;
        }
        self.tell(shards);
        started
    }

    /// The next finished operation. Once this has been `None`, the port wakes its owner when there is another; until then it
    /// need not, so an owner polls until `None` before it sleeps.
    pub fn poll(&mut self) -> Option<Completion> {
        while !self.is_idle() {
            let (number, result) = self.next_answer()?;
            if let Some(completion) = self.gather(number, result) {
                return Some(completion);
            }
        }
        None
    }

    /// As [`Port::poll`], but looks on for some microseconds before it says `None`, where that has paid before: for an owner
    /// who would sleep otherwise, and have to be woken.
    pub fn poll_patiently(&mut self) -> Option<Completion> {
        if !self.is_idle() && self.shared.answers.is_empty() {
            let answers = &self.shared.answers;
            self.patience.look(|| !answers.is_empty());
        }
        self.poll()
    }

    fn is_idle(&self) -> bool {
        self.operations.len() == 0
    }

    /// Puts the parts of a request into the shards' queues; returns the shards, one bit each.
    fn place(&mut self, tag: u64, request: Request) -> u64 {
        self.shared.owner.want_next();
        let shards = self.mailboxes.len();
        if let Some(listing) = Listing::of(&request, shards) {
            return self.place_listing(tag, listing);
        }
        if let Some(shard) = only_shard(&request, shards) {
            let operation = self.operations.insert(Operation { tag, missing: 1, merged: None, listing: None });
            return self.put(shard, operation, request);
        }
        let parts = split(request, shards);
        let operation = self.operations.insert(Operation { tag, missing: parts.len(), merged: None, listing: None });
        parts.into_iter().fold(0, |bits, (shard, request)| bits | self.put(shard, operation, request))
    }

    /// Asks every shard for its share of a listing.
    fn place_listing(&mut self, tag: u64, listing: Box<Listing>) -> u64 {
        let (shards, request) = (self.mailboxes.len(), listing.request());
        let operation = Operation { tag, missing: shards, merged: None, listing: Some(listing) };
        let operation = self.operations.insert(operation);
        (0..shards).fold(0, |bits, shard| bits | self.put(shard, operation, request.clone()))
    }

    fn put(&self, shard: usize, operation: u32, request: Request) -> u64 {
        let placed = self.shared.asks[shard].queue.push((operation, request));
        assert!(placed.is_ok(), "an operation has at most one part per shard, and they have places");
        1 << shard
    }

    /// Sees to it that these shards know of what was put into their queues.
    fn tell(&self, mut shards: u64) {
        while shards != 0 {
            let shard = shards.trailing_zeros() as usize;
            shards &= shards - 1;
            let told = !self.shared.asks[shard].reader.must_call()
                || self.mailboxes[shard].put(Message::Mail(self.shared.clone()));
            if !told || self.mailboxes[shard].has_ended() {
                self.shared.close(shard);
            }
        }
    }

    fn next_answer(&self) -> Option<Answer> {
        self.shared.answers.pop().or_else(|| {
            self.shared.owner.want();
            self.shared.answers.pop()
        })
    }

    /// Adds a part's answer to its operation; the completion, if it was the last.
    fn gather(&mut self, number: u32, mut result: Result<Response, Error>) -> Option<Completion> {
        let operation = self.operations.get_mut(number).expect("answers belong to operations");
        assert!(operation.missing > 0, "each part is answered once");
        operation.missing -= 1;
        if let (Ok(Response::Listed(part)), Some(listing)) = (&mut result, &mut operation.listing) {
            listing.take(std::mem::take(part));
        }
        result = match operation.merged.take() {
            Some(before) => merge(before, result),
            None => result,
        };
        if operation.missing > 0 {
            operation.merged = Some(result);
            return None;
        }
        let operation = self.operations.remove(number).expect("looked up above");
        if let (Ok(Response::Listed(entries)), Some(listing)) = (&mut result, operation.listing) {
            match listing.end() {
                Ok(whole) => *entries = whole,
                Err(again) => {
                    self.shared.owner.want_next();
                    let shards = self.place_listing(operation.tag, again);
                    self.tell(shards);
                    return None;
                }
            }
        }
        Some(Completion { tag: operation.tag, result })
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("capacity", &self.capacity).field("in_flight", &self.in_flight()).finish()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Operations still in flight lie in this port's own queues, which the shards keep until they have seen to them.
        self.seats.give_back(self.capacity);
    }
}

/// The shard of a request that concerns one key.
fn only_shard(request: &Request, shards: usize) -> Option<usize> {
    match request {
        Request::Put { key, .. } | Request::Get { key } | Request::RemoveIfOlder { key, .. } => Some(key.shard(shards)),
        _ => None,
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
        Request::Scan { .. } => unreachable!("a listing asks for itself"),
        Request::Digest { .. } | Request::Sweep { .. } | Request::ConfirmClock { .. } => {
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
        (Response::Swept { expired, freed_bytes }, Response::Swept { expired: more, freed_bytes: more_bytes }) => {
            Response::Swept { expired: expired + more, freed_bytes: freed_bytes + more_bytes }
        }
        (Response::Digest { count, sum }, Response::Digest { count: more, sum: more_sum }) => {
            Response::Digest { count: count + more, sum: sum.wrapping_add(more_sum) }
        }
        (one @ Response::Scrubbed { .. }, other @ Response::Scrubbed { .. }) => merge_scrubbed(&one, &other),
        (one, _) => one,
    })
}

fn merge_scrubbed(one: &Response, other: &Response) -> Response {
    match (one, other) {
        (
            Response::Scrubbed { bytes, records, damaged, damaged_pages, wrapped, store_bytes },
            Response::Scrubbed { bytes: b, records: r, damaged: d, damaged_pages: p, wrapped: w, store_bytes: s },
        ) => Response::Scrubbed {
            bytes: bytes + b,
            records: records + r,
            damaged: damaged + d,
            damaged_pages: damaged_pages + p,
            wrapped: *wrapped || *w,
            store_bytes: store_bytes + s,
        },
        _ => unreachable!("both answer a scrub"),
    }
}
