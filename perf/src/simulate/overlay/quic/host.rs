//! One host of the second level: an overlay machine and QUIC's own state machine (`quinn-proto`), with the node's certificates,
//! configuration, greeting, lanes and classes between them, and no socket, thread or clock.
//!
//! What is put into it (packets, the passing of time, messages of the machine) leaves [`Effects`]: packets to carry, messages and
//! lost peers for the machine. What the node's driver adds to QUIC is followed: a queue for each peer and class with one frame in
//! hand, a stream a frame, datagrams where they fit, limits of time on handshakes and frames, a pause after a dial in vain, a
//! second try for a frame whose connection was lost. Not followed: connections that go cold, strikes and bans, and credit,
//! which machines that take everything at once never use up.

use bytes::{Bytes, BytesMut};
use epost_gateway::node::Registry;
use epost_gateway::node::limits::{
    BACKOFF_MAX, BACKOFF_MIN, HANDSHAKE_TIME, PEER_QUEUE_BYTES_MAX, PEER_QUEUE_FRAMES_MAX, SEND_TIME,
};
use epost_gateway::node::transport::admission::Admitted;
use epost_gateway::node::transport::{
    Admission, Class, Credentials, Directory, dial_config, dial_name, greeting, server_config, tls::TlsError,
};
use net::id::Id;
use net::machine::Micros;
use net::sim::Dice;
use net::wire::{Ends, Frame, Lane, Message, decode, encode};
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ReadError,
    StreamEvent, StreamId, VarInt,
};
use rustls_pki_types::CertificateDer;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets that QUIC may hand over at once, as many as the node's sockets take.
const BATCH: usize = 10;

/// What a step of a host leaves to be done.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) packets: Vec<(SocketAddr, Bytes)>,
    pub(super) messages: Vec<(Id, Message)>,
    /// Peers whose last connection is lost, or that could not be dialled.
    pub(super) downs: Vec<Id>,
}

/// What a host has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) dials: u64,
    pub(super) connections_lost: u64,
    pub(super) frames: u64,
    pub(super) datagrams: u64,
    pub(super) dropped: u64,
    pub(super) malformed: u64,
}

/// Virtual time as QUIC wants it: its moments are only ever compared.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    base: Instant,
    genesis: Micros,
}

impl Clock {
    pub(super) fn new(genesis: Micros) -> Clock {
        Clock { base: Instant::now(), genesis }
    }

    fn instant(self, now: Micros) -> Instant {
        self.base + Duration::from_micros(now - self.genesis)
    }

    fn micros(self, at: Instant) -> Micros {
        let passed = at.saturating_duration_since(self.base).as_nanos().div_ceil(1_000);
        self.genesis + passed as Micros
    }
}

struct Link {
    connection: Connection,
    peer: SocketAddr,
    class: Class,
    dialled: bool,
    admitted: Option<Admitted>,
    greeted: bool,
    /// The greeting's stream.
    greeting: Option<StreamId>,
    reading: BTreeMap<StreamId, BytesMut>,
    writing: Option<Writing>,
    /// When it has to be greeted by.
    greeted_by: Micros,
}

/// A frame on its way into a stream.
struct Writing {
    stream: StreamId,
    left: Vec<Bytes>,
    whole: Queued,
    by: Micros,
}

struct Queued {
    frame: Frame,
    tries: u8,
}

#[derive(Default)]
struct Outlet {
    frames: VecDeque<Queued>,
    bytes: usize,
    backoff: Duration,
    dial_not_before: Micros,
}

pub(super) struct Host {
    pub(super) id: Id,
    pub(super) counts: Counts,
    clock: Clock,
    endpoint: Endpoint,
    dial_configs: [ClientConfig; 2],
    admission: Arc<Admission>,
    links: BTreeMap<usize, Link>,
    outlets: BTreeMap<(SocketAddr, usize), Outlet>,
}

impl Host {
    pub(super) fn new(
        seed: u64,
        id: Id,
        clock: Clock,
        own: &Credentials,
        directory: Arc<Directory>,
    ) -> Result<Host, TlsError> {
        let admission = Arc::new(Admission::new(directory, &Registry::default()));
        let mut config = EndpointConfig::default();
        config.rng_seed(Dice::new(seed).bytes(32).first_chunk().copied());
        let server = Arc::new(server_config(&admission, own)?);
        let dial_configs = [dial_config(&admission, own, Class::Control)?, dial_config(&admission, own, Class::Bulk)?];
        Ok(Host {
            id,
            counts: Counts::default(),
            clock,
            endpoint: Endpoint::new(Arc::new(config), Some(server), true, None),
            dial_configs,
            admission,
            links: BTreeMap::new(),
            outlets: BTreeMap::new(),
        })
    }

    /// Sends a message, as the node's transport does.
    pub(super) fn send(&mut self, now: Micros, to: Id, message: &Message, effects: &mut Effects) {
        let directory = self.admission.directory();
        let Some(seat) = directory.seat(&to) else { return self.counts.dropped += 1 };
        let Ok(peer) = seat.host.address.parse::<SocketAddr>() else { return self.counts.dropped += 1 };
        let frame = encode(message, Ends { from: 0, to: seat.index });
        let (lane, bytes) = (message.lane(), frame.head.len() + frame.payload.len());
        if lane == Lane::Datagram
            && let Some(handle) = self.link(peer, Class::Control)
            && let Some(link) = self.links.get_mut(&handle)
            && link.connection.datagrams().max_size().is_some_and(|size| bytes <= size)
        {
            match link.connection.datagrams().send(frame.joined(), false) {
                Ok(()) => self.counts.datagrams += 1,
                Err(_) => self.counts.dropped += 1,
            }
            return self.serve(now, handle, effects);
        }
        let class = Class::of(lane);
        let outlet = self.outlets.entry((peer, class as usize)).or_default();
        if outlet.frames.len() >= PEER_QUEUE_FRAMES_MAX || outlet.bytes + bytes > PEER_QUEUE_BYTES_MAX {
            self.counts.dropped += 1;
            return;
        }
        outlet.bytes += bytes;
        outlet.frames.push_back(Queued { frame, tries: 2 });
        self.drain(now, peer, class, effects);
    }

    /// Takes a packet in.
    pub(super) fn take(&mut self, now: Micros, from: SocketAddr, packet: &[u8], effects: &mut Effects) {
        let (instant, mut buffer) = (self.clock.instant(now), Vec::new());
        match self.endpoint.handle(instant, from, None, None, BytesMut::from(packet), &mut buffer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(link) = self.links.get_mut(&handle.0) {
                    link.connection.handle_event(event);
                    self.serve(now, handle.0, effects);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                match self.endpoint.accept(incoming, instant, &mut buffer, None) {
                    // Its class is known when its handshake is done.
                    Ok((handle, connection)) => {
                        self.register(now, handle, connection, from, Class::Control, false);
                        self.serve(now, handle.0, effects);
                    }
                    Err(error) => {
                        if let Some(transmit) = error.response {
                            effects
                                .packets
                                .push((transmit.destination, Bytes::copy_from_slice(&buffer[..transmit.size])));
                        }
                    }
                }
            }
            Some(DatagramEvent::Response(transmit)) => {
                effects.packets.push((transmit.destination, Bytes::copy_from_slice(&buffer[..transmit.size])));
            }
            None => {}
        }
    }

    /// When time has to pass here next.
    pub(super) fn next_due(&mut self) -> Option<Micros> {
        let clock = self.clock;
        let of_link = |link: &mut Link| {
            let quic = link.connection.poll_timeout().map(|at| clock.micros(at));
            let greeting = (!link.greeted).then_some(link.greeted_by);
            quic.into_iter().chain(greeting).chain(link.writing.as_ref().map(|writing| writing.by)).min()
        };
        self.links.values_mut().filter_map(of_link).min()
    }

    /// Does what is due by now.
    pub(super) fn wake(&mut self, now: Micros, effects: &mut Effects) {
        for handle in self.links.keys().copied().collect::<Vec<usize>>() {
            let Some(link) = self.links.get_mut(&handle) else { continue };
            let is_due = link.connection.poll_timeout().is_some_and(|at| self.clock.micros(at) <= now);
            if is_due {
                link.connection.handle_timeout(self.clock.instant(now));
            }
            let is_late = !link.greeted && link.greeted_by <= now && !link.connection.is_closed();
            let is_stuck = link.writing.as_ref().is_some_and(|writing| writing.by <= now);
            if is_late || is_stuck {
                link.connection.close(self.clock.instant(now), VarInt::from_u32(5), Bytes::new());
                self.lose(now, handle, effects);
            }
            if is_due || is_late || is_stuck {
                self.serve(now, handle, effects);
            }
        }
    }

    fn register(
        &mut self,
        now: Micros,
        handle: ConnectionHandle,
        connection: Connection,
        peer: SocketAddr,
        class: Class,
        dialled: bool,
    ) {
        let link = Link {
            connection,
            peer,
            class,
            dialled,
            admitted: None,
            greeted: false,
            greeting: None,
            reading: BTreeMap::new(),
            writing: None,
            greeted_by: now + 2 * HANDSHAKE_TIME.as_micros() as Micros,
        };
        self.links.insert(handle.0, link);
    }

    /// The newest connection of this class that is greeted.
    fn link(&self, peer: SocketAddr, class: Class) -> Option<usize> {
        let stands =
            |link: &Link| link.peer == peer && link.class == class && link.greeted && !link.connection.is_closed();
        self.links.iter().rev().find(|(_, link)| stands(link)).map(|(handle, _)| *handle)
    }

    /// Sends what waits for a peer, over the connection there is, or dials.
    fn drain(&mut self, now: Micros, peer: SocketAddr, class: Class, effects: &mut Effects) {
        if let Some(handle) = self.link(peer, class) {
            return self.serve(now, handle, effects);
        }
        let is_dialling = |link: &Link| {
            link.peer == peer && link.class == class && link.dialled && !link.greeted && !link.connection.is_closed()
        };
        if self.links.values().any(is_dialling) {
            return;
        }
        let outlet = self.outlets.entry((peer, class as usize)).or_default();
        if outlet.dial_not_before > now {
            return self.clear(peer, class);
        }
        let directory = self.admission.directory();
        let Some(host) = directory.hosts().find(|host| host.address == peer.to_string()) else { return };
        let (config, name) = (self.dial_configs[class as usize].clone(), dial_name(&host.nonce));
        self.counts.dials += 1;
        if let Ok((handle, connection)) = self.endpoint.connect(self.clock.instant(now), config, peer, &name) {
            self.register(now, handle, connection, peer, class, true);
            self.serve(now, handle.0, effects);
        }
    }

    fn clear(&mut self, peer: SocketAddr, class: Class) {
        if let Some(outlet) = self.outlets.get_mut(&(peer, class as usize)) {
            self.counts.dropped += outlet.frames.len() as u64;
            outlet.frames.clear();
            outlet.bytes = 0;
        }
    }

    /// Lets a connection do all that it can do now.
    fn serve(&mut self, now: Micros, handle: usize, effects: &mut Effects) {
        let (instant, mut buffer) = (self.clock.instant(now), Vec::new());
        loop {
            let Some(link) = self.links.get_mut(&handle) else { return };
            let mut worked = false;
            while let Some(event) = link.connection.poll_endpoint_events() {
                let is_drained = event.is_drained();
                if let Some(back) = self.endpoint.handle_event(ConnectionHandle(handle), event) {
                    link.connection.handle_event(back);
                }
                if is_drained {
                    // One that has been silent for too long is drained at once, before it has said that it is lost.
                    self.lose(now, handle, effects);
                    self.links.remove(&handle);
                    return;
                }
            }
            while let Some(event) = self.links.get_mut(&handle).and_then(|link| link.connection.poll()) {
                worked = true;
                self.happen(now, handle, event, effects);
            }
            worked |= self.write(now, handle);
            let Some(link) = self.links.get_mut(&handle) else { return };
            while let Some(transmit) = link.connection.poll_transmit(instant, BATCH, &mut buffer) {
                let packets = buffer[..transmit.size].chunks(transmit.segment_size.unwrap_or(transmit.size));
                effects.packets.extend(packets.map(|packet| (transmit.destination, Bytes::copy_from_slice(packet))));
                buffer.clear();
                worked = true;
            }
            if !worked {
                return;
            }
        }
    }

    fn happen(&mut self, now: Micros, handle: usize, event: Event, effects: &mut Effects) {
        match event {
            Event::Connected => self.connected(now, handle, effects),
            Event::ConnectionLost { .. } => self.lose(now, handle, effects),
            Event::Stream(StreamEvent::Opened { dir }) => {
                let accept = |link: &mut Link| link.connection.streams().accept(dir);
                while let Some(stream) = self.links.get_mut(&handle).and_then(accept) {
                    self.read(now, handle, stream, effects);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(now, handle, id, effects),
            Event::DatagramReceived => {
                let receive = |link: &mut Link| link.connection.datagrams().recv();
                while let Some(frame) = self.links.get_mut(&handle).and_then(receive) {
                    self.open(handle, &frame, effects);
                }
            }
            // What it may write now, it writes after each event.
            Event::HandshakeDataReady | Event::Stream(_) | Event::DatagramsUnblocked => {}
        }
    }

    /// Finds out who is there, and greets first if it was this host that dialled.
    fn connected(&mut self, now: Micros, handle: usize, effects: &mut Effects) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let session = link.connection.crypto_session();
        let chain = session.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let data = session.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let class = data.and_then(|data| data.protocol).and_then(|protocol| Class::named(&protocol));
        let certificate = chain.as_ref().and_then(|chain| chain.first());
        let admitted = certificate.and_then(|certificate| self.admission.admit(certificate, super::now_s()).ok());
        let (Some(class), Some(admitted)) = (class, admitted) else {
            link.connection.close(self.clock.instant(now), VarInt::from_u32(1), Bytes::new());
            return self.lose(now, handle, effects);
        };
        (link.class, link.admitted) = (class, Some(admitted));
        if link.dialled {
            link.greeting = link.connection.streams().open(Dir::Bi);
            self.greet(handle);
        }
    }

    fn greet(&mut self, handle: usize) {
        let hello = greeting::hello(&self.admission, self.id).joined();
        let Some(link) = self.links.get_mut(&handle) else { return };
        if let Some(stream) = link.greeting {
            let mut stream = link.connection.send_stream(stream);
            // The first few bytes of a connection fit its windows.
            let _ = stream.write(&hello);
            let _ = stream.finish();
        }
    }

    fn read(&mut self, now: Micros, handle: usize, stream: StreamId, effects: &mut Effects) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let buffer = link.reading.entry(stream).or_default();
        let mut received = link.connection.recv_stream(stream);
        let Ok(mut chunks) = received.read(true) else {
            link.reading.remove(&stream);
            return;
        };
        let ended = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => break Some(true),
                Err(ReadError::Blocked) => break None,
                Err(ReadError::Reset(_)) => break Some(false),
            }
        };
        // Whether there is something to send is looked at after each event anyway.
        let _ = chunks.finalize();
        let Some(is_whole) = ended else { return };
        let frame = link.reading.remove(&stream).unwrap_or_default().freeze();
        match (is_whole, stream.dir()) {
            (false, _) => {}
            (true, Dir::Uni) => self.open(handle, &frame, effects),
            (true, Dir::Bi) => self.greeted(now, handle, stream, &frame, effects),
        }
    }

    /// A hello has come: the connection is used from now on.
    fn greeted(&mut self, now: Micros, handle: usize, stream: StreamId, frame: &Bytes, effects: &mut Effects) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let Some(admitted) = &link.admitted else { return };
        if greeting::judge(frame, &self.admission, admitted).is_err() {
            link.connection.close(self.clock.instant(now), VarInt::from_u32(1), Bytes::new());
            return self.lose(now, handle, effects);
        }
        link.greeted = true;
        let (peer, class) = (link.peer, link.class);
        if !link.dialled {
            link.greeting = Some(stream);
            self.greet(handle);
        }
        if let Some(outlet) = self.outlets.get_mut(&(peer, class as usize)) {
            (outlet.backoff, outlet.dial_not_before) = (Duration::ZERO, 0);
        }
    }

    /// Hands a frame's message on, under its sender's proven id.
    fn open(&mut self, handle: usize, frame: &Bytes, effects: &mut Effects) {
        let admitted = self.links.get(&handle).and_then(|link| link.admitted.as_ref());
        let read = decode(frame).ok().and_then(|(ends, message)| {
            let from = admitted?.host.ids.get(usize::from(ends.from))?;
            Some((*from, message))
        });
        match read {
            Some(read) => effects.messages.push(read),
            None => self.counts.malformed += 1,
        }
    }

    /// Writes what waits, one frame at a time, each to a stream of its own. True if something was written.
    fn write(&mut self, now: Micros, handle: usize) -> bool {
        let Some(link) = self.links.get_mut(&handle).filter(|link| link.greeted && !link.connection.is_closed()) else {
            return false;
        };
        let Some(outlet) = self.outlets.get_mut(&(link.peer, link.class as usize)) else { return false };
        let mut worked = false;
        loop {
            if link.writing.is_none() {
                if outlet.frames.is_empty() {
                    return worked;
                }
                let Some(stream) = link.connection.streams().open(Dir::Uni) else { return worked };
                let Some(whole) = outlet.frames.pop_front() else { return worked };
                outlet.bytes -= whole.frame.head.len() + whole.frame.payload.len();
                let parts = [whole.frame.head.clone(), whole.frame.payload.clone()];
                let left = parts.into_iter().filter(|part| !part.is_empty()).collect();
                link.writing = Some(Writing { stream, left, whole, by: now + SEND_TIME.as_micros() as Micros });
            }
            let Some(writing) = &mut link.writing else { return worked };
            let mut stream = link.connection.send_stream(writing.stream);
            match stream.write_chunks(&mut writing.left) {
                Ok(written) => {
                    worked = true;
                    writing.left.drain(..written.chunks);
                    if !writing.left.is_empty() {
                        continue;
                    }
                    // Fails only if the peer wants no more of it.
                    let _ = stream.finish();
                    self.counts.frames += 1;
                }
                Err(quinn_proto::WriteError::Blocked) => return worked,
                Err(_) => self.counts.dropped += 1,
            }
            link.writing = None;
        }
    }

    /// A connection is gone: its frame in hand is tried once more, and the machine hears of a peer that has no other.
    fn lose(&mut self, now: Micros, handle: usize, effects: &mut Effects) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        if link.greeted_by == Micros::MAX {
            return;
        }
        let (peer, class, was_dialling) = (link.peer, link.class, link.dialled && !link.greeted);
        let outlet = self.outlets.entry((peer, class as usize)).or_default();
        if let Some(writing) = link.writing.take() {
            let Queued { frame, tries } = writing.whole;
            if tries > 1 {
                outlet.bytes += frame.head.len() + frame.payload.len();
                outlet.frames.push_front(Queued { frame, tries: tries - 1 });
            } else {
                self.counts.dropped += 1;
            }
        }
        // Once for each connection.
        link.greeted = false;
        link.greeted_by = Micros::MAX;
        self.counts.connections_lost += 1;
        if was_dialling {
            outlet.backoff = (outlet.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
            outlet.dial_not_before = now + outlet.backoff.as_micros() as Micros;
            self.clear(peer, class);
        }
        let others = [Class::Control, Class::Bulk].iter().any(|class| self.link(peer, *class).is_some());
        if !others {
            let directory = self.admission.directory();
            effects
                .downs
                .extend(directory.hosts().find(|host| host.address == peer.to_string()).map(|host| host.first()));
        }
        let waits = self.outlets.get(&(peer, class as usize)).is_some_and(|outlet| !outlet.frames.is_empty());
        if waits {
            self.drain(now, peer, class, effects);
        }
    }
}
