//! Frames coming in on one connection, from its greeting to its end.
//!
//! Memory is asked for before it is used: a frame's length is read from its header, checked against the caps of
//! `net::wire`, and paid for from the [`Room`] there is; until it can be, nothing more is read of its stream. What it has
//! paid, the message carries on to its machine. A frame has to be whole within [`FRAME_TIME`].

use super::Receiver;
use super::credit::{Account, Credit, Room};
use super::peer::{Farewell, Link, Peer};
use crate::node::limits::{COLD_TIME, FRAME_TIME};
use crate::node::status::{Counter, Registry};
use bytes::{BufMut, Bytes, BytesMut};
use net::id::Id;
use net::wire::{Body, Ends, HEADER_BYTES, Message, decode, frame_length};
use quinn::{ConnectionError, RecvStream, VarInt};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use tokio::time::{MissedTickBehavior, interval_at, timeout};

/// What all connections of the node share on their way in.
pub(super) struct Intake {
    receiver: Arc<dyn Receiver>,
    /// How many node ids this host has.
    own_ids: u16,
    room: Room,
    frames_in: Counter,
    bytes_in: Counter,
    malformed: Counter,
    banned: Counter,
    misaddressed: Counter,
    late: Counter,
}

/// Why no frame came out of a stream.
enum Unread {
    /// The peer sent something else.
    Malformed,
    /// The stream or the connection ended early: nobody's fault.
    Lost,
    /// There was no room for it; counted.
    Unpaid,
}

impl Intake {
    pub(super) fn new(receiver: Arc<dyn Receiver>, own_ids: u16, registry: &Registry) -> Intake {
        Intake {
            receiver,
            own_ids,
            room: Room::new(own_ids, registry),
            frames_in: registry.counter("frames_in", "frames received"),
            bytes_in: registry.counter("frame_bytes_in", "bytes of frames received"),
            malformed: registry.counter("frames_malformed", "frames that did not decode"),
            banned: registry.counter("peers_banned", "peers disconnected for malformed frames"),
            misaddressed: registry.drops("frame for a node id this host has not"),
            late: registry.drops("frame not whole in time"),
        }
    }

    pub(super) fn receiver(&self) -> &dyn Receiver {
        &*self.receiver
    }

    /// Reads frames until the connection ends; returns whether it ended for having been cold. `weight`: how many ids the
    /// peer's certificate stands for.
    pub(super) async fn serve(self: Arc<Self>, peer: Arc<Peer>, link: Link, weight: u16) -> bool {
        let account = Arc::new(Account::new());
        let mut cold = interval_at(tokio::time::Instant::now() + COLD_TIME, COLD_TIME);
        cold.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closed_cold = false;
        let error = loop {
            tokio::select! {
                stream = link.connection.accept_uni() => match stream {
                    Ok(stream) => self.begin_stream(&peer, &link, weight, stream, &account).await,
                    Err(error) => break error,
                },
                datagram = link.connection.read_datagram() => match datagram {
                    Ok(datagram) => self.take_datagram(&peer, &link, weight, &datagram, &account),
                    Err(error) => break error,
                },
                _ = cold.tick() => {
                    if !link.used.swap(false, Ordering::Relaxed) && link.dialled {
                        link.close(Farewell::Cold);
                        closed_cold = true;
                    }
                }
            }
        };
        let told_cold = |close: &quinn::ApplicationClose| close.error_code == Farewell::Cold.code();
        closed_cold || matches!(&error, ConnectionError::ApplicationClosed(close) if told_cold(close))
    }

    /// Takes a stream in, as far as it goes at once; the rest in a task of its own. What is small has mostly come whole with its
    /// first packet.
    async fn begin_stream(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        link: &Link,
        weight: u16,
        stream: RecvStream,
        account: &Arc<Account>,
    ) {
        let taking = self.clone().take_stream(peer.clone(), link.clone(), weight, stream, account.clone());
        let mut taking = Box::pin(taking);
        if poll_fn(|context| Poll::Ready(taking.as_mut().poll(context))).await.is_pending() {
            // At most STREAMS_MAX of these tasks, and what they hold is paid for: the peer may open no more streams.
            tokio::spawn(taking);
        }
    }

    async fn take_stream(
        self: Arc<Self>,
        peer: Arc<Peer>,
        link: Link,
        weight: u16,
        mut stream: RecvStream,
        account: Arc<Account>,
    ) {
        let read = timeout(FRAME_TIME, self.read_frame(&mut stream, &link, &account)).await;
        // No harm if the stream has ended; otherwise the rest need not be sent.
        let _ = stream.stop(VarInt::from_u32(0));
        drop(stream);
        match read {
            Ok(Ok((frame, mut credit))) => {
                let Some((ends, from, message)) = self.open(&peer, &link, weight, &frame) else { return };
                if self.room.seat(&mut credit, ends.to).await {
                    self.deliver(ends.to, from, message, frame.len(), credit);
                }
            }
            Ok(Err(Unread::Malformed)) => self.strike(&peer),
            Ok(Err(Unread::Lost | Unread::Unpaid)) => {}
            Err(_) => self.late.increment(),
        }
    }

    async fn read_frame(
        &self,
        stream: &mut RecvStream,
        link: &Link,
        account: &Account,
    ) -> Result<(Bytes, Credit), Unread> {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await.map_err(|error| match error {
            quinn::ReadExactError::FinishedEarly(_) => Unread::Malformed,
            quinn::ReadExactError::ReadError(_) => Unread::Lost,
        })?;
        let length = frame_length(&header).map_err(|_| Unread::Malformed)?;
        let credit = self.room.admit(account, link.class, length).await.ok_or(Unread::Unpaid)?;
        let mut frame = BytesMut::with_capacity(length);
        frame.put_slice(&header);
        // One byte more than there should be, to see that there is not.
        while let Some(chunk) = stream.read_chunk(length + 1 - frame.len(), true).await.map_err(|_| Unread::Lost)? {
            if frame.len() + chunk.bytes.len() > length {
                return Err(Unread::Malformed);
            }
            frame.put_slice(&chunk.bytes);
        }
        if frame.len() == length { Ok((frame.freeze(), credit)) } else { Err(Unread::Malformed) }
    }

    fn take_datagram(&self, peer: &Peer, link: &Link, weight: u16, frame: &Bytes, account: &Account) {
        let Some((ends, from, message)) = self.open(peer, link, weight, frame) else { return };
        if let Some(credit) = self.room.admit_datagram(account) {
            self.deliver(ends.to, from, message, frame.len(), credit);
        }
    }

    /// What a frame says and who says it, if it is one and for somebody here.
    fn open(&self, peer: &Peer, link: &Link, weight: u16, frame: &Bytes) -> Option<(Ends, Id, Message)> {
        link.mark_used();
        let Ok((ends, message)) = decode(frame) else {
            self.strike(peer);
            return None;
        };
        let from = peer.host.ids.get(usize::from(ends.from)).filter(|_| ends.from < weight);
        // Greetings come first and once, and a sender has only the ids its certificate stands for.
        let (Some(from), false) = (from, matches!(message.body, Body::Hello(_))) else {
            self.strike(peer);
            return None;
        };
        if ends.to >= self.own_ids {
            self.misaddressed.increment();
            return None;
        }
        Some((ends, *from, message))
    }

    fn deliver(&self, to: u16, from: Id, message: Message, bytes: usize, credit: Credit) {
        self.frames_in.increment();
        self.bytes_in.add(bytes as u64);
        self.receiver.message(to, from, message, credit);
    }

    fn strike(&self, peer: &Peer) {
        self.malformed.increment();
        if peer.strike() {
            self.banned.increment();
            tracing::warn!(host = %peer.host.address, "peer disconnected for malformed frames");
        }
    }
}
