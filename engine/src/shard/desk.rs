//! The shard's side of all ports: whose requests are being worked on, and where each answer goes.
//!
//! Invariants:
//! - a port with a request taken and not answered, or with word of mail not yet followed, has a seat;
//! - each request taken has one ticket, which is used up by its answer;
//! - whatever becomes of the shard, `Drop` answers what is open, and what is in the queues, as closed.

use super::mailbox::{Message, Slot};
use super::port::PortShared;
use super::slab::Slab;
use crate::limits;
use crate::request::{Error, Request, Response};
use std::collections::VecDeque;
use std::sync::Arc;

/// Where the answer to one request goes.
struct Ticket {
    seat: u32,
    operation: u32,
}

struct Seat {
    port: Arc<PortShared>,
    /// Tickets of this port.
    open: usize,
    /// It is in `unread`.
    has_mail: bool,
    /// It is in `answered`.
    has_answers: bool,
}

pub(super) struct Desk<'a> {
    shard: usize,
    slot: &'a Slot,
    seats: Slab<Seat>,
    tickets: Slab<Ticket>,
    /// Seats whose queue has not been seen empty, in turn.
    unread: VecDeque<u32>,
    /// Seats with answers in this turn.
    answered: Vec<u32>,
}

impl Desk<'_> {
    pub(super) fn new(shard: usize, slot: &Slot) -> Desk<'_> {
        Desk { shard, slot, seats: Slab::new(), tickets: Slab::new(), unread: VecDeque::new(), answered: Vec::new() }
    }

    /// There is mail in this port.
    pub(super) fn told(&mut self, port: Arc<PortShared>) {
        let remembered = port.asks(self.shard).seat();
        let known = self.seats.get(remembered).is_some_and(|seat| Arc::ptr_eq(&seat.port, &port));
        let number = if known {
            remembered
        } else {
            let number = self.seats.insert(Seat { port, open: 0, has_mail: false, has_answers: false });
            self.seat(number).port.asks(self.shard).set_seat(number);
            number
        };
        let seat = self.seats.get_mut(number).expect("found or made above");
        if !seat.has_mail {
            seat.has_mail = true;
            self.unread.push_back(number);
        }
    }

    /// Gives up to so many requests with their tags to `submit`; whether there were any.
    pub(super) fn read(&mut self, most: usize, mut submit: impl FnMut(u64, Request)) -> bool {
        let mut left = most;
        while left > 0
            && let Some(number) = self.unread.pop_front()
        {
            left -= self.read_seat(number, left.min(limits::MAIL_PER_SEAT), &mut submit);
        }
        left < most
    }

    /// Takes up to `most` requests of one port. A queue seen empty is left until there is word of it again.
    fn read_seat(&mut self, number: u32, most: usize, submit: &mut impl FnMut(u64, Request)) -> usize {
        let shard = self.shard;
        for taken in 0..most {
            let seat = self.seats.get_mut(number).expect("unread seats are taken");
            let Some((operation, request)) = seat.port.asks(shard).take() else {
                seat.has_mail = false;
                self.free_if_done(number);
                return taken;
            };
            seat.open += 1;
            submit(u64::from(self.tickets.insert(Ticket { seat: number, operation })), request);
        }
        self.unread.push_back(number);
        most
    }

    /// Whether requests are known to wait.
    pub(super) fn has_mail(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(super) fn answer(&mut self, tag: u64, result: Result<Response, Error>) {
        let ticket = u32::try_from(tag).ok().and_then(|number| self.tickets.remove(number));
        let Ticket { seat: number, operation } = ticket.expect("each operation is answered once");
        let seat = self.seats.get_mut(number).expect("a ticket's seat is taken");
        assert!(seat.open > 0, "a seat counts its tickets");
        seat.open -= 1;
        seat.port.answer(operation, result);
        if !seat.has_answers {
            seat.has_answers = true;
            self.answered.push(number);
        }
    }

    /// Wakes each port that has answers; whether there was one.
    pub(super) fn wake(&mut self) -> bool {
        let mut some = false;
        while let Some(number) = self.answered.pop() {
            some = true;
            let seat = self.seats.get_mut(number).expect("a seat with answers is taken");
            seat.has_answers = false;
            seat.port.wake();
            self.free_if_done(number);
        }
        some
    }

    fn seat(&self, number: u32) -> &Seat {
        self.seats.get(number).expect("taken")
    }

    fn free_if_done(&mut self, number: u32) {
        let seat = self.seat(number);
        if seat.open == 0 && !seat.has_mail && !seat.has_answers {
            self.seats.remove(number);
        }
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        self.slot.end();
        for ticket in self.tickets.drain() {
            if let Some(seat) = self.seats.get(ticket.seat) {
                seat.port.answer(ticket.operation, Err(Error::Closed));
            }
        }
        for seat in self.seats.drain() {
            seat.port.close(self.shard);
        }
        while let Ok(message) = self.slot.take() {
            if let Message::Mail(port) = message {
                port.close(self.shard);
            }
        }
    }
}
