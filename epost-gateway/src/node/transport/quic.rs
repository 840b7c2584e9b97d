//! [`Transport`] over QUIC: accepting, dialling, and draining the queues.

use super::admission::{Admission, Admitted, Refusal};
use super::directory::{Directory, Host, Nonce};
use super::inlet::Intake;
use super::peer::{Farewell, Link, Peer, Pushed};
use super::socket::{self, SocketError};
use super::tls::{CERTIFICATE_REQUIRED_ALERT, Credentials, JUDGED_ALERTS, dial_name};
use super::{Class, Credit, Receiver, Transport, greeting};
use crate::node::limits::{
    CONNECTIONS_MAX, DIALS_MAX, HANDSHAKE_TIME, HANDSHAKES_MAX, HANDSHAKES_UNPROVEN_MAX, SEND_TIME, STOP_TIME,
};
use crate::node::status::{Counter, Registry};
use net::id::Id;
use net::wire::{Ends, Frame, Lane, Message, encode};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What the transport of one host needs to know.
#[derive(Debug)]
pub struct QuicConfig {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// This host's nonce; must be in the directory.
    pub nonce: Nonce,
    /// This host's certificate and key.
    pub credentials: Credentials,
    /// The node's secret; the key of stateless resets is derived from it.
    pub secret: zeroize::Zeroizing<[u8; 32]>,
    /// Who is let in, and where the hosts of the ring are.
    pub admission: Arc<Admission>,
}

/// The QUIC transport of one host. Clones are the same transport.
#[derive(Clone)]
pub struct Quic {
    shared: Arc<Shared>,
}

struct Shared {
    own: Arc<Host>,
    endpoint: quinn::Endpoint,
    dial_configs: [quinn::ClientConfig; 2],
    admission: Arc<Admission>,
    /// Only members of the directory are ever in here, so it is bounded by the ring document's bound.
    peers: Mutex<BTreeMap<Nonce, Arc<Peer>>>,
    /// Of frames waiting for all peers.
    queued_bytes: AtomicUsize,
    intake: Arc<Intake>,
    runtime: Handle,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    dials: Semaphore,
    counters: Counters,
}

struct Counters {
    frames_out: Counter,
    bytes_out: Counter,
    dialled: Counter,
    dial_failures: Counter,
    unknown: Counter,
    queue_full: Counter,
    datagrams_full: Counter,
    unreachable: Counter,
    connection_lost: Counter,
}

/// Why there is no new connection to a peer.
enum DialError {
    /// It is too early to try again, or the peer is banned.
    NotNow,
    /// It was tried in vain.
    Failed,
}

impl Quic {
    /// Opens the socket and starts accepting. Must be called within a tokio runtime, whose threads do the work.
    ///
    /// # Errors
    /// [`SocketError`], when the address is taken or the credentials cannot be used.
    ///
    /// # Panics
    /// If the directory does not hold this host: the caller checks that.
    pub fn open(config: QuicConfig, receiver: Arc<dyn Receiver>, registry: &Registry) -> Result<Quic, SocketError> {
        let admission = config.admission;
        let own = admission.directory().host(&config.nonce).expect("this host is in the directory").clone();
        let own_ids = u16::try_from(own.ids.len()).expect("a member's weight is a u16");
        let dial = |class| socket::dial_config(&admission, &config.credentials, class);
        let dial_configs = [dial(Class::Control)?, dial(Class::Bulk)?];
        let shared = Arc::new(Shared {
            own,
            endpoint: socket::open(config.listen, &admission, &config.credentials, &config.secret)?,
            dial_configs,
            admission,
            peers: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            intake: Arc::new(Intake::new(receiver, own_ids, registry)),
            runtime: Handle::current(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            dials: Semaphore::new(DIALS_MAX),
            counters: Counters::new(registry),
        });
        show_gauges(&shared, registry);
        tokio::spawn(accept(shared.clone()));
        Ok(Quic { shared })
    }

    /// Goes by a newer ring document from now on: connections with hosts that are no longer admitted are closed, hosts that
    /// have moved are dialled anew. This host's own ids stay what they were at its start.
    pub fn adopt(&self, directory: Arc<Directory>) {
        let shared = &self.shared;
        shared.admission.adopt(directory.clone());
        let mut peers = shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|nonce, peer| {
            let stays = directory.host(nonce).is_some_and(|host| **host == *peer.host);
            for link in peer.links() {
                let judged = shared.identify(&link.connection);
                if let Err(refusal) = judged {
                    shared.admission.count(refusal);
                }
                if judged.is_err() || !stays {
                    link.close(Farewell::Refused);
                }
            }
            stays
        });
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Closes all connections and accepts no more; what is queued is dropped.
    pub fn close(&self) {
        self.shared.endpoint.close(Farewell::Stopping.code(), b"");
    }

    /// As [`Quic::close`], and waits until the peers have been told.
    pub async fn stop(&self) {
        self.close();
        // Peers that do not answer will find out by themselves.
        let _ = timeout(STOP_TIME, self.shared.endpoint.wait_idle()).await;
    }
}

impl Transport for Quic {
    fn send(&self, from: u16, to: Id, message: Message) {
        let shared = &self.shared;
        let directory = shared.admission.directory();
        let Some(seat) = directory.seat(&to) else { return shared.counters.unknown.increment() };
        if seat.host.nonce == shared.own.nonce {
            // A newer ring document may give this host ids that it has only from its next start.
            if usize::from(seat.index) >= shared.own.ids.len() {
                return shared.counters.unknown.increment();
            }
            let sender = shared.own.ids[usize::from(from)];
            return shared.intake.receiver().message(seat.index, sender, message, Credit::none());
        }
        let lane = message.lane();
        let frame = encode(&message, Ends { from, to: seat.index });
        let peer = shared.peer(&seat.host);
        if lane == Lane::Datagram && shared.send_datagram(&peer, &frame) {
            return;
        }
        let class = Class::of(lane);
        match peer.outlet(class).push(frame, &shared.queued_bytes) {
            Pushed::Queued => {}
            Pushed::Full => shared.counters.queue_full.increment(),
            Pushed::StartDrain => {
                let _runtime = shared.runtime.enter();
                let mut draining = Box::pin(drain(shared.clone(), peer, class));
                // Mostly there is a connection with room, and the frame goes at once, without waking a thread for it.
                if draining.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    shared.runtime.spawn(draining);
                }
            }
        }
    }
}

impl Shared {
    fn peer(&self, host: &Arc<Host>) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.entry(host.nonce).or_insert_with(|| Arc::new(Peer::new(host.clone()))).clone()
    }

    fn count(&self, measure: impl Fn(&Peer) -> usize) -> usize {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.values().map(|peer| measure(peer)).sum()
    }

    /// Packets, and the calls of the system that carried them: fewer, where it takes many at once (GSO, GRO).
    fn udp(&self) -> [(&'static str, u64); 4] {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = peers.values().flat_map(|peer| peer.links()).map(|link| link.connection.stats());
        let add = |sum: [u64; 4], of: quinn::ConnectionStats| {
            let (sent, received) = (of.udp_tx, of.udp_rx);
            let of = [sent.datagrams, sent.ios, received.datagrams, received.ios];
            std::array::from_fn(|at| sum[at] + of[at])
        };
        let [sent, sends, received, receives] = stats.fold([0; 4], add);
        [
            ("packets sent", sent),
            ("calls to send", sends),
            ("packets received", received),
            ("calls to receive", receives),
        ]
    }

    /// Sends at once what fits a datagram, past the queue: a ping must not wait behind what it asks about. False if
    /// there is no connection, or the path takes no datagram of this size.
    fn send_datagram(&self, peer: &Peer, frame: &Frame) -> bool {
        let Some(link) = peer.link(Class::Control) else { return false };
        let bytes = frame.head.len() + frame.payload.len();
        if link.connection.max_datagram_size().is_none_or(|size| bytes > size) {
            return false;
        }
        if link.connection.datagram_send_buffer_space() < bytes {
            self.counters.datagrams_full.increment();
            return true;
        }
        let sent = link.connection.send_datagram(frame.joined()).is_ok();
        if sent {
            link.mark_used();
            self.counters.sent(frame);
        }
        sent
    }

    /// Counts the connection in and starts reading it.
    fn register(self: &Arc<Self>, link: Link, admitted: &Admitted) -> Result<(), Refusal> {
        let permit = self.connections.clone().try_acquire_owned().map_err(|_| Refusal::TooMany)?;
        let peer = self.peer(&admitted.host);
        if peer.add(link.clone())? {
            self.intake.receiver().up(&peer.host.ids);
        }
        self.runtime.spawn(serve(self.clone(), peer, link, admitted.weight, permit));
        Ok(())
    }

    /// The member at the other end; TLS has judged its certificate and proved its key.
    fn identify(&self, connection: &Connection) -> Result<Admitted, Refusal> {
        let identity = connection.peer_identity().ok_or(Refusal::Uncertified)?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| Refusal::Uncertified)?;
        self.admission.admit(chain.first().ok_or(Refusal::Uncertified)?, now_s())
    }

    async fn dial(self: &Arc<Self>, peer: &Arc<Peer>, class: Class) -> Result<(), DialError> {
        if !peer.host.has_place || peer.is_banned() || !peer.may_dial() {
            return Err(DialError::NotNow);
        }
        let _permit = self.dials.acquire().await.map_err(|_| DialError::NotNow)?;
        self.counters.dialled.increment();
        match timeout(HANDSHAKE_TIME, self.connect(peer, class)).await {
            Ok(Some(())) => Ok(()),
            Ok(None) | Err(_) => {
                self.counters.dial_failures.increment();
                peer.dial_failed(getrandom::u32().map_or(0, |random| random as u8));
                Err(DialError::Failed)
            }
        }
    }

    async fn connect(self: &Arc<Self>, peer: &Arc<Peer>, class: Class) -> Option<()> {
        let address = tokio::net::lookup_host(&peer.host.address).await.ok()?.next()?;
        let config = self.dial_configs[class as usize].clone();
        let connecting = self.endpoint.connect_with(config, address, &dial_name(&peer.host.nonce)).ok()?;
        let connection = connecting.await.ok()?;
        let greeted = async {
            let admitted = self.identify(&connection)?;
            greeting::dial(&connection, &self.admission, self.own.first(), &admitted).await?;
            self.register(Link::new(class, true, connection.clone()), &admitted)
        };
        if let Err(refusal) = greeted.await {
            // The server's refusal shows as a lost stream; only what we found wrong ourselves is our refusal.
            if connection.close_reason().is_none() {
                self.admission.count(refusal);
            }
            connection.close(Farewell::Refused.code(), b"");
            return None;
        }
        Some(())
    }
}

/// Accepts until the endpoint is closed.
async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            shared.admission.count(Refusal::TooMany);
            incoming.refuse();
            continue;
        };
        let under_way = HANDSHAKES_MAX - shared.handshakes.available_permits();
        if under_way > HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() && incoming.may_retry() {
            // Cannot fail: it may retry.
            let _ = incoming.retry();
            continue;
        }
        tokio::spawn(welcome(shared.clone(), incoming, permit));
    }
}

/// Takes a newcomer through handshake and greeting, or refuses it.
async fn welcome(shared: Arc<Shared>, incoming: Incoming, _permit: OwnedSemaphorePermit) {
    let connection = match timeout(HANDSHAKE_TIME, async { incoming.accept()?.await }).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            if let Some(refusal) = handshake_refusal(&error) {
                shared.admission.count(refusal);
            }
            return;
        }
        Err(_) => return shared.admission.count(Refusal::Handshake),
    };
    let greeted = async {
        let class = class_of(&connection)?;
        let admitted = shared.identify(&connection)?;
        if shared.peer(&admitted.host).is_banned() {
            return Err(Refusal::Banned);
        }
        greeting::accept(&connection, &shared.admission, shared.own.first(), &admitted).await?;
        shared.register(Link::new(class, false, connection.clone()), &admitted)
    };
    if let Err(refusal) = timeout(HANDSHAKE_TIME, greeted).await.unwrap_or(Err(Refusal::BadGreeting)) {
        shared.admission.count(refusal);
        connection.close(Farewell::Refused.code(), b"");
    }
}

/// What to count for a handshake that failed; nothing where the verifier has counted.
fn handshake_refusal(error: &ConnectionError) -> Option<Refusal> {
    let ConnectionError::TransportError(error) = error else { return Some(Refusal::Handshake) };
    // TLS alerts are QUIC's errors 0x100 to 0x1ff (RFC 9001, 4.8).
    match u64::from(error.code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok()) {
        Some(CERTIFICATE_REQUIRED_ALERT) => Some(Refusal::Uncertified),
        Some(alert) if JUDGED_ALERTS.contains(&alert) => None,
        _ => Some(Refusal::Handshake),
    }
}

/// What the dialler wants the connection for.
fn class_of(connection: &Connection) -> Result<Class, Refusal> {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = data.and_then(|data| data.protocol).ok_or(Refusal::Handshake)?;
    Class::named(&protocol).ok_or(Refusal::Handshake)
}

/// Reads a registered connection to its end.
async fn serve(shared: Arc<Shared>, peer: Arc<Peer>, link: Link, weight: u16, _permit: OwnedSemaphorePermit) {
    let was_cold = shared.intake.clone().serve(peer.clone(), link.clone(), weight).await;
    // That nobody had anything to say is no sign of trouble; told of it, the overlay would dial at once to ask.
    if peer.remove(&link.connection) && !was_cold {
        shared.intake.receiver().down(&peer.host.ids);
    }
}

/// Sends what is queued for a peer until the queue is empty.
async fn drain(shared: Arc<Shared>, peer: Arc<Peer>, class: Class) {
    let mut frames = 0;
    while let Some(frame) = peer.outlet(class).next(&shared.queued_bytes) {
        frames += 1;
        if frames == 2 {
            // Whoever began this has sent his own frame. What others have queued meanwhile is a task's work.
            tokio::task::yield_now().await;
        }
        let mut sent = false;
        // A second try, because a connection often shows only by the first that its peer has been restarted.
        for _ in 0..2 {
            let Some(link) = linked(&shared, &peer, class).await else {
                let waiting = peer.outlet(class).clear(&shared.queued_bytes) as u64;
                shared.counters.unreachable.add(waiting);
                break;
            };
            sent = transmit(&link, &frame).await;
            if sent {
                shared.counters.sent(&frame);
                break;
            }
        }
        if !sent {
            shared.counters.connection_lost.increment();
        }
    }
}

/// A connection of this class: the one there is, the one we dial, or the one the peer makes meanwhile.
async fn linked(shared: &Arc<Shared>, peer: &Arc<Peer>, class: Class) -> Option<Link> {
    if let Some(link) = peer.link(class) {
        return Some(link);
    }
    let mut dial = {
        let (shared, peer) = (shared.clone(), peer.clone());
        Box::pin(async move { tokio::spawn(async move { shared.dial(&peer, class).await }).await })
    };
    loop {
        // Before looking, so that no arrival falls between the look and the wait.
        let arrival = peer.arrival.notified();
        if let Some(link) = peer.link(class) {
            return Some(link);
        }
        tokio::select! {
            biased;
            () = arrival => {}
            outcome = &mut dial => {
                if matches!(outcome, Ok(Err(DialError::Failed))) && peer.link(Class::Control).is_none() {
                    shared.intake.receiver().down(&peer.host.ids);
                }
                return peer.link(class);
            }
        }
    }
}

/// Writes one frame to a stream of its own. False if the connection is lost or stuck.
async fn transmit(link: &Link, frame: &Frame) -> bool {
    let write = async {
        let mut stream = link.connection.open_uni().await.ok()?;
        stream.write_all_chunks(&mut [frame.head.clone(), frame.payload.clone()]).await.ok()?;
        stream.finish().ok()
    };
    let outcome = timeout(SEND_TIME, write).await;
    if let Ok(Some(())) = outcome {
        link.mark_used();
        return true;
    }
    link.close(Farewell::Stalled);
    false
}

impl Counters {
    fn new(registry: &Registry) -> Counters {
        Counters {
            frames_out: registry.counter("frames_out", "frames sent"),
            bytes_out: registry.counter("frame_bytes_out", "bytes of frames sent"),
            dialled: registry.counter("dials", "connections dialled"),
            dial_failures: registry.counter("dial_failures", "connections dialled in vain"),
            unknown: registry.drops("message to a node id not in the ring"),
            queue_full: registry.drops("peer queue full"),
            datagrams_full: registry.drops("datagram buffer full"),
            unreachable: registry.drops("peer unreachable"),
            connection_lost: registry.drops("connection lost"),
        }
    }

    fn sent(&self, frame: &Frame) {
        self.frames_out.increment();
        self.bytes_out.add((frame.head.len() + frame.payload.len()) as u64);
    }
}

/// Gauges hold the transport weakly: the registry outlives it.
fn show_gauges(shared: &Arc<Shared>, registry: &Registry) {
    let show = |name, help, measure: fn(&Shared) -> usize| {
        let shared = Arc::downgrade(shared);
        registry.reading(name, help, move || shared.upgrade().map_or(0, |shared| measure(&shared) as u64));
    };
    show("connections", "connections that stand", |s| CONNECTIONS_MAX - s.connections.available_permits());
    show("peers_connected", "hosts with a connection that stands", |s| {
        s.count(|peer| usize::from(peer.is_connected()))
    });
    show("queue_peers", "frames waiting for peers", |s| s.count(Peer::waiting));
    let shared = Arc::downgrade(shared);
    registry.readings(
        "udp",
        "what connections that stand have sent and received, and in how many system calls",
        move || shared.upgrade().map_or_else(Vec::new, |shared| shared.udp().to_vec()),
    );
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
