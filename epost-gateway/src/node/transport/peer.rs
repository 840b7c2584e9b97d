//! One host as this one sees it: its connections, its queues, its record of misbehaviour.
//!
//! Invariants:
//! - `links` holds only connections that have been greeted, at most one per class and dialling side: a newer one of
//!   the same kind replaces the older, whose dialler has lost it.
//! - An [`Outlet`] has a drain running exactly while `draining` is set; it is set before the drain is spawned, and
//!   cleared, under the same lock, when the drain finds the queue empty.

use super::Class;
use super::admission::Refusal;
use super::directory::Host;
use crate::node::limits::{
    BACKOFF_MAX, BACKOFF_MIN, BAN_TIME, PEER_QUEUE_BYTES_MAX, PEER_QUEUE_FRAMES_MAX, QUEUE_BYTES_MAX, STRIKES_MAX,
};
use net::wire::Frame;
use quinn::{Connection, VarInt};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Why a connection is closed, as the peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    Stopping = 0,
    Refused = 1,
    Superseded = 2,
    Cold = 3,
    Misbehaved = 4,
    Stalled = 5,
}

impl Farewell {
    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// A greeted connection.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub class: Class,
    pub dialled: bool,
    pub connection: Connection,
    /// Whether a frame has gone either way since it was last asked.
    pub used: Arc<AtomicBool>,
}

impl Link {
    pub(super) fn new(class: Class, dialled: bool, connection: Connection) -> Link {
        Link { class, dialled, connection, used: Arc::new(AtomicBool::new(true)) }
    }

    pub(super) fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    pub(super) fn close(&self, farewell: Farewell) {
        self.connection.close(farewell.code(), b"");
    }
}

pub(super) struct Peer {
    pub host: Arc<Host>,
    state: Mutex<State>,
    outlets: [Outlet; 2],
    /// Wakes drains that wait for a connection, whoever makes it.
    pub arrival: Notify,
}

#[derive(Default)]
struct State {
    links: Vec<Link>,
    strikes: u32,
    last_strike: Option<Instant>,
    banned_until: Option<Instant>,
    /// The pause after the next dial that fails; doubles with each.
    backoff: Duration,
    dial_not_before: Option<Instant>,
}

impl Peer {
    pub(super) fn new(host: Arc<Host>) -> Peer {
        let outlets = [Outlet::default(), Outlet::default()];
        Peer { host, state: Mutex::default(), outlets, arrival: Notify::new() }
    }

    pub(super) fn outlet(&self, class: Class) -> &Outlet {
        &self.outlets[class as usize]
    }

    /// The newest connection of this class: whoever lost an older one has made it.
    pub(super) fn link(&self, class: Class) -> Option<Link> {
        let stands = |link: &&Link| link.class == class && link.connection.close_reason().is_none();
        self.state().links.iter().rev().find(stands).cloned()
    }

    pub(super) fn links(&self) -> Vec<Link> {
        self.state().links.clone()
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.state().links.is_empty()
    }

    /// Frames waiting in both classes.
    pub(super) fn waiting(&self) -> usize {
        self.outlets.iter().map(Outlet::len).sum()
    }

    /// Takes in a greeted connection. True if it is the only one.
    pub(super) fn add(&self, link: Link) -> Result<bool, Refusal> {
        let mut state = self.state();
        if state.is_banned() {
            return Err(Refusal::Banned);
        }
        state.links.retain(|old| {
            let replaced = (old.class, old.dialled) == (link.class, link.dialled);
            if replaced {
                old.close(Farewell::Superseded);
            }
            !replaced
        });
        let first = state.links.is_empty();
        state.links.push(link);
        state.backoff = Duration::ZERO;
        state.dial_not_before = None;
        drop(state);
        self.arrival.notify_waiters();
        Ok(first)
    }

    /// Forgets a connection. True if it was there and was the last one.
    pub(super) fn remove(&self, connection: &Connection) -> bool {
        let mut state = self.state();
        let before = state.links.len();
        state.links.retain(|link| link.connection.stable_id() != connection.stable_id());
        before > 0 && state.links.is_empty()
    }

    /// Writes down a frame that did not decode. True if that was one too many, and the peer is now disconnected.
    pub(super) fn strike(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        if state.last_strike.is_some_and(|last| now.duration_since(last) > BAN_TIME) {
            state.strikes = 0;
        }
        state.strikes += 1;
        state.last_strike = Some(now);
        if state.strikes < STRIKES_MAX || state.is_banned() {
            return false;
        }
        state.strikes = 0;
        state.banned_until = Some(now + BAN_TIME);
        state.links.iter().for_each(|link| link.close(Farewell::Misbehaved));
        true
    }

    pub(super) fn is_banned(&self) -> bool {
        self.state().is_banned()
    }

    /// Whether the last dial in vain is long enough ago.
    pub(super) fn may_dial(&self) -> bool {
        self.state().dial_not_before.is_none_or(|when| Instant::now() >= when)
    }

    /// A dial was in vain: the next one has to wait, `jitter` of 256 parts of the pause more.
    pub(super) fn dial_failed(&self, jitter: u8) {
        let mut state = self.state();
        state.backoff = (state.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        state.dial_not_before = Some(Instant::now() + state.backoff + state.backoff * u32::from(jitter) / 256);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_banned(&self) -> bool {
        self.banned_until.is_some_and(|until| Instant::now() < until)
    }
}

/// What waits to be sent to one peer in one class.
#[derive(Default)]
pub(super) struct Outlet {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    draining: bool,
}

/// What came of an attempt to queue a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// A drain is at work and will get to it.
    Queued,
    /// The caller must start a drain.
    StartDrain,
    /// The queue is full; the frame is gone.
    Full,
}

impl Outlet {
    /// Queues a frame. `all` counts the bytes that wait for all peers.
    pub(super) fn push(&self, frame: Frame, all: &AtomicUsize) -> Pushed {
        let mut queue = self.queue();
        let bytes = frame_bytes(&frame);
        if queue.frames.len() >= PEER_QUEUE_FRAMES_MAX || queue.bytes + bytes > PEER_QUEUE_BYTES_MAX {
            return Pushed::Full;
        }
        if all.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            all.fetch_sub(bytes, Ordering::Relaxed);
            return Pushed::Full;
        }
        queue.frames.push_back(frame);
        queue.bytes += bytes;
        if std::mem::replace(&mut queue.draining, true) { Pushed::Queued } else { Pushed::StartDrain }
    }

    /// The next frame for the drain, which must stop when there is none.
    pub(super) fn next(&self, all: &AtomicUsize) -> Option<Frame> {
        let mut queue = self.queue();
        assert!(queue.draining, "only a drain takes frames");
        let next = queue.frames.pop_front();
        if let Some(frame) = &next {
            queue.bytes -= frame_bytes(frame);
            all.fetch_sub(frame_bytes(frame), Ordering::Relaxed);
        } else {
            assert_eq!(queue.bytes, 0);
            queue.draining = false;
        }
        next
    }

    /// Throws away what waits; returns how much that was.
    pub(super) fn clear(&self, all: &AtomicUsize) -> usize {
        let mut queue = self.queue();
        all.fetch_sub(std::mem::take(&mut queue.bytes), Ordering::Relaxed);
        let frames = queue.frames.len();
        queue.frames.clear();
        frames
    }

    fn len(&self) -> usize {
        self.queue().frames.len()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn frame_bytes(frame: &Frame) -> usize {
    frame.head.len() + frame.payload.len()
}

#[cfg(test)]
mod tests {
    //! Goal: a peer's queue and its record stay within their bounds. Method: fill each to its edge.
    use super::*;
    use bytes::Bytes;

    fn peer() -> Peer {
        let ids = vec![net::id::Id([1; 20])];
        Peer::new(Arc::new(Host { nonce: [1; 16], address: "127.0.0.1:1".into(), ids, has_place: true }))
    }

    fn frame(bytes: usize) -> Frame {
        Frame { head: Bytes::new(), payload: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn a_queue_is_bounded_in_frames_and_in_bytes() {
        let (outlet, all) = (Outlet::default(), AtomicUsize::new(0));
        assert_eq!(outlet.push(frame(1), &all), Pushed::StartDrain);
        for _ in 1..PEER_QUEUE_FRAMES_MAX {
            assert_eq!(outlet.push(frame(1), &all), Pushed::Queued);
        }
        assert_eq!(outlet.push(frame(1), &all), Pushed::Full);
        assert_eq!(outlet.clear(&all), PEER_QUEUE_FRAMES_MAX);
        assert_eq!(outlet.push(frame(PEER_QUEUE_BYTES_MAX), &all), Pushed::Queued, "the drain is still at work");
        assert_eq!(outlet.push(frame(1), &all), Pushed::Full);
        assert_eq!(outlet.next(&all), Some(frame(PEER_QUEUE_BYTES_MAX)));
        assert_eq!(outlet.next(&all), None);
        assert_eq!(all.load(Ordering::Relaxed), 0);
        assert_eq!(outlet.push(frame(1), &all), Pushed::StartDrain, "the drain has stopped");
        all.store(QUEUE_BYTES_MAX, Ordering::Relaxed);
        assert_eq!(outlet.push(frame(1), &all), Pushed::Full, "the others have taken all there is");
    }

    #[test]
    fn one_strike_too_many_bans() {
        let peer = peer();
        for _ in 1..STRIKES_MAX {
            assert!(!peer.strike());
            assert!(!peer.is_banned());
        }
        assert!(peer.strike());
        assert!(peer.is_banned());
    }

    #[test]
    fn a_dial_in_vain_delays_the_next() {
        let peer = peer();
        assert!(peer.may_dial());
        peer.dial_failed(0);
        assert!(!peer.may_dial());
        for _ in 0..20 {
            peer.dial_failed(255);
        }
        assert_eq!(peer.state().backoff, BACKOFF_MAX);
    }
}
