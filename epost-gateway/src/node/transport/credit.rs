//! Credit: the room that a message from a peer holds on this host, from its frame's header until its machine has taken it.
//!
//! A stream is read on only as far as there is room, so a peer that sends faster than the machine takes is not dropped from but
//! stopped: its streams fill, then QUIC's windows and its right to open streams, then its own bounded queue, which is where its
//! own machines' messages are dropped and counted. What a frame holds, in the order in which it waits for it:
//!
//! 1. one of its connection's [`CONNECTION_FRAMES_MAX`] frames, and as many of its [`CONNECTION_FRAME_BYTES_MAX`] bytes as the
//!    frame has. This is all that a peer without end can make us hold, beside QUIC's windows;
//! 2. as many of the host's bytes, of which control and bulk have a purse each: objects never take the room of what is small;
//! 3. once it has been read, one of its machine's places for its class. A peer that begins frames and does not end them
//!    keeps nobody from a machine.
//!
//! *Fair.* All lines are served first come, first served, and no connection has more than [`CONNECTION_FRAMES_MAX`] frames in
//! them: those that always have something to say get equal shares, and one that has a single thing to say waits behind a
//! bounded number.
//!
//! *Nothing urgent waits.* Pings, pongs, acknowledgements and gossip are datagrams. They wait for no room: each connection may
//! have [`CONNECTION_DATAGRAMS_MAX`] of them here, they have a queue of their own at the machine, and one too many is
//! dropped, counted.
//!
//! *No deadlock.* Frames wait for machines. A machine waits for nobody: what it sends goes into a bounded queue or is dropped.
//! So of two hosts that flood each other, each goes on taking whatever the other does. And no wait is longer than
//! [`HOLD_TIME`]: then the frame is dropped, counted, its stream stopped; the sender, which waits longer than that for us to
//! take something in ([`SEND_TIME`](crate::node::limits::SEND_TIME)), never takes a slow host for one that is gone.

use super::Class;
use crate::node::limits::{
    CONNECTION_DATAGRAMS_MAX, CONNECTION_FRAME_BYTES_MAX, CONNECTION_FRAMES_MAX, CONTROL_FRAME_BYTES_MAX,
    FRAME_BYTES_MAX, HOLD_TIME, places,
};
use crate::node::status::{Counter, Gauge, Registry};
use net::wire::Lane;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What one message holds of this host's room. Dropping it gives the room back.
#[derive(Debug)]
pub struct Credit {
    lane: Lane,
    held: Vec<OwnedSemaphorePermit>,
}

impl Credit {
    /// Of a message that has waited for nothing and holds nothing: one between two node ids of one host.
    #[must_use]
    pub fn none() -> Credit {
        Credit { lane: Lane::Datagram, held: Vec::new() }
    }

    /// One that holds this, for tests of those who keep credits.
    #[cfg(test)]
    pub(in crate::node) fn holding(lane: Lane, room: OwnedSemaphorePermit) -> Credit {
        Credit { lane, held: vec![room] }
    }

    /// How its message came: by stream or in bulk, then a place is kept for it; as a datagram, then none is.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane
    }
}

/// One connection's part.
pub(super) struct Account {
    frames: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    datagrams: Arc<Semaphore>,
}

impl Account {
    pub(super) fn new() -> Account {
        Account {
            frames: Arc::new(Semaphore::new(CONNECTION_FRAMES_MAX)),
            bytes: Arc::new(Semaphore::new(CONNECTION_FRAME_BYTES_MAX)),
            datagrams: Arc::new(Semaphore::new(CONNECTION_DATAGRAMS_MAX)),
        }
    }
}

/// All the room of a host.
pub(super) struct Room {
    /// By class.
    bytes: [Arc<Semaphore>; 2],
    /// By class, then by index of the node id.
    places: [Vec<Arc<Semaphore>>; 2],
    waiting: Gauge,
    overdue: Counter,
    datagrams_many: Counter,
}

impl Room {
    /// For a host of so many node ids.
    pub(super) fn new(own_ids: u16, registry: &Registry) -> Room {
        let of = |lane| (0..own_ids).map(|_| Arc::new(Semaphore::new(places(lane, own_ids.into())))).collect();
        let room = Room {
            bytes: FRAME_BYTES_MAX.map(|bytes| Arc::new(Semaphore::new(bytes))),
            places: [of(Lane::Stream), of(Lane::Bulk)],
            waiting: registry.gauge("queue_frames", "frames from peers that are held back until there is room"),
            overdue: registry.drops("no room for a frame in time"),
            datagrams_many: registry.drops("peer's datagrams not taken in time"),
        };
        let bytes = room.bytes.clone();
        registry.reading(
            "frame_bytes_held",
            "bytes of frames from peers that machines have not yet taken",
            move || {
                FRAME_BYTES_MAX.iter().zip(&bytes).map(|(most, left)| (most - left.available_permits()) as u64).sum()
            },
        );
        room
    }

    /// Waits for room for a frame of so many bytes; none if there is none in time.
    pub(super) async fn admit(&self, account: &Account, class: Class, bytes: usize) -> Option<Credit> {
        // Whoever sends bulk on the connection for control takes no room of control's.
        let class = if bytes > CONTROL_FRAME_BYTES_MAX { Class::Bulk } else { class };
        let lane = if class == Class::Bulk { Lane::Bulk } else { Lane::Stream };
        let many = u32::try_from(bytes).ok()?;
        let held = async {
            let frame = account.frames.clone().acquire_owned().await.ok()?;
            let own = account.bytes.clone().acquire_many_owned(many).await.ok()?;
            let all = self.bytes[class as usize].clone().acquire_many_owned(many).await.ok()?;
            Some(vec![frame, own, all])
        };
        Some(Credit { lane, held: self.in_time(held).await? })
    }

    /// Waits for a place at this host's `to`-th machine, which must exist; false if there is none in time.
    pub(super) async fn seat(&self, credit: &mut Credit, to: u16) -> bool {
        let places = self.places[Class::of(credit.lane) as usize][usize::from(to)].clone();
        let place = self.in_time(async { places.acquire_owned().await.ok() }).await;
        let seated = place.is_some();
        credit.held.extend(place);
        seated
    }

    /// For a datagram, if its connection has not too many here.
    pub(super) fn admit_datagram(&self, account: &Account) -> Option<Credit> {
        let Ok(held) = account.datagrams.clone().try_acquire_owned() else {
            self.datagrams_many.increment();
            return None;
        };
        Some(Credit { lane: Lane::Datagram, held: vec![held] })
    }

    async fn in_time<T>(&self, room: impl Future<Output = Option<T>>) -> Option<T> {
        let _line = Line::join(&self.waiting);
        let room = timeout(HOLD_TIME, room).await;
        if room.is_err() {
            self.overdue.increment();
        }
        room.ok().flatten()
    }
}

/// A frame that waits, counted as long as it does: also if whoever waits for it gives up first.
struct Line<'a>(&'a Gauge);

impl Line<'_> {
    fn join(waiting: &Gauge) -> Line<'_> {
        waiting.rise(1);
        Line(waiting)
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.fall(1);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what waits is counted while it waits, however the wait ends. Method: a wait that is given up from outside, and one
    //! that ends by itself.

    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_wait_that_is_given_up_is_no_longer_counted() {
        let registry = Registry::default();
        let room = Room::new(1, &registry);
        let waiting = || registry.to_json()["queue_frames"].as_i64().unwrap();
        let mut given_up = Box::pin(room.in_time(std::future::pending::<Option<()>>()));
        assert!(timeout(Duration::from_millis(20), &mut given_up).await.is_err());
        assert_eq!(waiting(), 1);
        drop(given_up);
        assert_eq!(waiting(), 0);
        assert_eq!(room.in_time(std::future::ready(Some(7))).await, Some(7));
        assert_eq!(waiting(), 0);
    }
}
