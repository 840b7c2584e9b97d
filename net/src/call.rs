//! Direct requests that await an answer.
//!
//! Every request may be sent twice and answered twice: all of them are idempotent. One that stays unanswered is sent
//! again, and given up after [`CALL_TRIES`]; its owner then hears of the silence. An answer counts only from the
//! peer that was asked.

use crate::id::{Id, Key};
use crate::limits::{CALL_TRIES, CALL_WAIT, CALL_WAIT_PER_64_KIB, CALLS_MAX, FETCH_WAIT, TELL_WAIT};
use crate::machine::{Metric, Micros, RequestId};
use crate::scribe::Waiting;
use crate::site::{Due, Turn};
use crate::wire::Body;
use std::collections::BTreeMap;

/// Who hears the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// An insertion begun here.
    Insertion(u64),
    /// The copying of an object to its holders, by us as its root.
    Copying(u64),
    Lookup(u64),
    SignedWrite(u64),
    SignedRead(u64),
    Refresh(u64),
    /// Upkeep compares a range with a partner.
    Digest {
        from: Id,
        to: Id,
    },
    /// Upkeep fetches an object.
    Pull(Key),
    /// A replica found wanting on read is given the object; nobody waits.
    Mend,
    /// A direct message.
    Tell(RequestId),
    /// Something of a group's.
    Scribe(Waiting),
}

#[derive(Debug)]
struct Call {
    to: Id,
    owner: Owner,
    body: Body,
    wait: Micros,
    due: Micros,
    tries_left: u8,
}

/// The table of open requests.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    open: BTreeMap<u64, Call>,
}

impl Calls {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Turn<'_> {
    /// Asks `to`; the answer, or the silence, goes to `owner`. `None` (counted) if the table is full.
    pub(crate) fn call(&mut self, to: Id, body: Body, owner: Owner) -> Option<u64> {
        if self.site.calls.open.len() >= CALLS_MAX {
            self.count(Metric::Dropped);
            return None;
        }
        let wait = match &body {
            Body::Tell(_) => TELL_WAIT,
            // A root answers when a majority of its own calls were.
            Body::Insert(_, payload) => 2 * transfer_wait(payload.len()),
            other => transfer_wait(other.payload().len()),
        };
        let tries_left = match &body {
            // Of a root that does not answer, another attempt may find another root: its owner tries again, not we.
            Body::Insert(..) => 0,
            // Others have the object too.
            Body::Fetch(_) => 1,
            // There are other ways up, and other members.
            Body::Subscribe(_) | Body::Anycast(..) => 1,
            // Whoever misses its copy has missed it, and so has everybody below.
            Body::Publication(..) => CALL_TRIES,
            _ => CALL_TRIES - 1,
        };
        let request = self.site.number();
        self.send(to, request, body.clone());
        let due = self.due_in(wait, Due::Call(request));
        self.site.calls.open.insert(request, Call { to, owner, body, wait, due, tries_left });
        Some(request)
    }

    /// A request's time is up: it is sent again, or given up and its owner returned.
    pub(crate) fn call_due(&mut self, request: u64) -> Option<(Id, Owner)> {
        let call = self.site.calls.open.get_mut(&request)?;
        if call.tries_left == 0 {
            return self.site.calls.open.remove(&request).map(|call| (call.to, call.owner));
        }
        call.tries_left -= 1;
        if matches!(call.body, Body::Fetch(_)) {
            call.wait = FETCH_WAIT; // It is alive, perhaps, and the object large.
        }
        let (to, body, wait) = (call.to, call.body.clone(), call.wait);
        call.due = self.now + wait;
        self.send(to, request, body);
        self.due_in(wait, Due::Call(request));
        None
    }

    /// Of an answer, who awaits it; `None` if nobody does, or if it comes from somebody else.
    pub(crate) fn call_answered(&mut self, from: Id, request: u64) -> Option<Owner> {
        if self.site.calls.open.get(&request)?.to == from { self.end_call(request) } else { None }
    }

    /// The transport lost the peer: everything asked of it is given up now rather than later.
    pub(crate) fn calls_lost(&mut self, peer: Id) -> Vec<(u64, Owner)> {
        let open = self.site.calls.open.iter();
        let requests: Vec<u64> = open.filter(|(_, call)| call.to == peer).map(|(request, _)| *request).collect();
        requests.into_iter().filter_map(|request| self.end_call(request).map(|owner| (request, owner))).collect()
    }

    fn end_call(&mut self, request: u64) -> Option<Owner> {
        let call = self.site.calls.open.remove(&request)?;
        self.not_due(call.due, Due::Call(request));
        Some(call.owner)
    }
}

fn transfer_wait(payload_bytes: usize) -> Micros {
    CALL_WAIT + payload_bytes.div_ceil(64 << 10) as u64 * CALL_WAIT_PER_64_KIB
}
