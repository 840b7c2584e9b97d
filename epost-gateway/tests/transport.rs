//! Goal: issue 2 §4. A member with a good certificate gets through, in every lane, under its proven id; everybody
//! else gets nothing but a refusal counted under its cause; garbage is counted and ends the connection; queues are
//! bounded and drops counted.
//!
//! Method: real endpoints on loopback. Strangers are the same transport with a spoilt enrolment, or, where the transport
//! itself would not misbehave so, a QUIC client built here from rustls and quinn alone.

mod organisation;

use bytes::Bytes;
use epost_gateway::node::status::Registry;
use epost_gateway::node::transport::{
    Admission, Credentials, Credit, Directory, Quic, QuicConfig, Receiver, Transport,
};
use net::id::Id;
use net::wire::{Body, Ends, Hello, Lane, Message, Presence, encode};
use organisation::{Organisation, RING, credentials, free_address, key, node_id, nonce, now_s};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// Far beyond what anything here takes; a hang ends the test instead of stalling it.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Debug)]
enum Seen {
    Message(Id, Message),
    Up,
    Down(Id),
}

struct Listener(mpsc::UnboundedSender<Seen>);

impl Receiver for Listener {
    fn message(&self, to: u16, from: Id, message: Message, _: Credit) {
        assert_eq!(to, 0);
        let _ = self.0.send(Seen::Message(from, message));
    }

    fn up(&self, peers: &[Id]) {
        peers.iter().for_each(|_| drop(self.0.send(Seen::Up)));
    }

    fn down(&self, peers: &[Id]) {
        peers.iter().for_each(|peer| drop(self.0.send(Seen::Down(*peer))));
    }
}

/// A transport under test with what it has brought and counted.
struct Station {
    quic: Quic,
    registry: Registry,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Station {
    fn open(host: u8, listen: SocketAddr, own: Credentials, directory: Arc<Directory>) -> Station {
        Station::open_with([host; 32], host, listen, own, directory)
    }

    fn open_with(
        secret: [u8; 32],
        host: u8,
        listen: SocketAddr,
        own: Credentials,
        directory: Arc<Directory>,
    ) -> Station {
        let (sender, seen) = mpsc::unbounded_channel();
        let registry = Registry::default();
        let secret = Zeroizing::new(secret);
        let admission = Arc::new(Admission::new(directory, &registry));
        let config = QuicConfig { listen, nonce: nonce(host), credentials: own, secret, admission };
        let quic = Quic::open(config, Arc::new(Listener(sender)), &registry).unwrap();
        Station { quic, registry, seen }
    }

    fn member(organisation: &Organisation, host: u8) -> Station {
        let own = organisation.enrol(host, |_| {});
        Station::open(host, organisation.address(host), own, organisation.directory())
    }

    async fn next(&mut self) -> Seen {
        tokio::time::timeout(PATIENCE, self.seen.recv()).await.expect("nothing came").expect("the transport is gone")
    }

    async fn next_message(&mut self) -> (Id, Message) {
        loop {
            if let Seen::Message(from, message) = self.next().await {
                return (from, message);
            }
        }
    }

    fn count(&self, family: &str, cause: &str) -> u64 {
        self.registry.to_json()[family][cause].as_u64().unwrap_or(0)
    }

    fn plain(&self, name: &str) -> u64 {
        self.registry.to_json()[name].as_u64().unwrap()
    }

    fn refusals(&self) -> u64 {
        self.registry.to_json()["refused_peers"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum()
    }

    /// Waits until the counter has reached `least`.
    async fn counted(&self, family: &str, cause: &str, least: u64) {
        let start = Instant::now();
        while self.count(family, cause) < least {
            assert!(start.elapsed() < PATIENCE, "{family}/{cause} stays below {least}: {:?}", self.registry.to_json());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn ping() -> Message {
    Message { request: 7, body: Body::Ping(Presence { ready: true, epoch: 1, booted: 3 }) }
}

fn tell(bytes: usize, request: u64) -> Message {
    let payload: Vec<u8> = (0..bytes).map(|i| (i as u64 * 31 + request) as u8).collect();
    Message { request, body: Body::Tell(Bytes::from(payload)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_reach_each_other_in_every_lane() {
    let organisation = Organisation::with_members(1, 2);
    let (mut one, mut two) = (Station::member(&organisation, 1), Station::member(&organisation, 2));
    let messages = [ping(), tell(100, 1), tell(60_000, 2), tell(1 << 20, 3), tell((4 << 20) + 100, 4)];
    let lanes: Vec<Lane> = messages.iter().map(Message::lane).collect();
    assert_eq!(lanes, [Lane::Datagram, Lane::Stream, Lane::Stream, Lane::Bulk, Lane::Bulk]);
    for message in &messages {
        one.quic.send(0, node_id(2), message.clone());
        assert_eq!(two.next_message().await, (node_id(1), message.clone()));
        two.quic.send(0, node_id(1), message.clone());
        assert_eq!(one.next_message().await, (node_id(2), message.clone()));
    }
    assert_eq!((one.refusals(), two.refusals()), (0, 0));
    assert_eq!(one.plain("dials") + two.plain("dials"), 2, "one control and one bulk connection serve both ways");
    assert_eq!(one.plain("peers_connected"), 1);
    one.quic.stop().await;
    while !matches!(two.next().await, Seen::Down(id) if id == node_id(1)) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_dials_lose_nothing() {
    let organisation = Organisation::with_members(1, 2);
    let (mut one, mut two) = (Station::member(&organisation, 1), Station::member(&organisation, 2));
    for request in 0..50 {
        one.quic.send(0, node_id(2), tell(10, request));
        two.quic.send(0, node_id(1), tell(10, request));
    }
    let mut heard = [Vec::new(), Vec::new()];
    for (station, heard) in [&mut one, &mut two].into_iter().zip(&mut heard) {
        for _ in 0..50 {
            heard.push(station.next_message().await.1.request);
        }
        heard.sort_unstable();
        assert_eq!(*heard, (0..50).collect::<Vec<u64>>());
    }
    assert_eq!((one.refusals(), two.refusals()), (0, 0));
}

/// A stranger (host 9) dials the member 1, which must refuse it under `cause` and see nothing of it.
async fn refused(cause: &str, prepare: impl FnOnce(&mut Organisation) -> (Credentials, Arc<Directory>)) {
    let mut organisation = Organisation::with_members(1, 1);
    let (own, directory) = prepare(&mut organisation);
    let mut member = Station::member(&organisation, 1);
    let stranger = Station::open(9, free_address(), own, directory);
    stranger.quic.send(0, node_id(1), tell(100, 1));
    member.counted("refused_peers", cause, 1).await;
    stranger.counted("drops", "connection lost", 1).await;
    assert!(member.seen.try_recv().is_err(), "{cause}: the stranger got through");
    assert_eq!(member.refusals(), 1, "{cause}: counted once: {:?}", member.registry.to_json()["refused_peers"]);
    assert_eq!(member.plain("frames_in"), 0);
}

/// The stranger's own view of the ring: he counts himself in, and trusts the member's authority.
fn delusion(organisation: &Organisation) -> Arc<Directory> {
    let mut ring = organisation.ring.clone();
    let mut own = ring.members[0].clone();
    own.nonce = nonce(9);
    own.host = free_address().to_string();
    ring.members.push(own);
    Arc::new(Directory::new(Arc::new(ring), organisation.authority.public_key()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_certificate_of_no_member_is_refused() {
    refused("not a member", |organisation| (organisation.enrol(9, |_| {}), delusion(organisation))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authoritys_certificate_is_refused() {
    refused("another authority", |organisation| {
        organisation.add_member(9, free_address());
        (Organisation::found(2).enrol(9, |_| {}), organisation.directory())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_rings_certificate_is_refused() {
    refused("another ring", |organisation| {
        organisation.add_member(9, free_address());
        (organisation.enrol(9, |request| request.ring = [0x53; 16]), organisation.directory())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_refused() {
    refused("not a member", |organisation| {
        let own = organisation.enrol(9, |_| {});
        let directory = delusion(organisation);
        organisation.add_member(9, free_address());
        organisation.ring.members[1].state = net::ring::MemberState::Dead;
        (own, directory)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused() {
    refused("revoked", |organisation| {
        organisation.add_member(9, free_address());
        let directory = organisation.directory();
        let own = organisation.enrol(9, |_| {});
        organisation.revoke(&own);
        (own, directory)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_out_of_time_is_refused_and_one_in_grace_is_not() {
    const DAY: u64 = 86_400;
    refused("expired", |organisation| {
        organisation.add_member(9, free_address());
        let own = organisation.enrol(9, |request| {
            request.validity.not_before = now_s() - 30 * DAY;
            request.validity.not_after = now_s() - 8 * DAY;
        });
        (own, organisation.directory())
    })
    .await;
    refused("not valid yet", |organisation| {
        organisation.add_member(9, free_address());
        let own = organisation.enrol(9, |request| request.validity.not_before = now_s() + 3600);
        (own, organisation.directory())
    })
    .await;
    let organisation = Organisation::with_members(1, 2);
    let mut one = Station::member(&organisation, 1);
    let late = organisation.enrol(2, |request| {
        request.validity.not_before = now_s() - 30 * DAY;
        request.validity.not_after = now_s() - 6 * DAY;
    });
    let two = Station::open(2, organisation.address(2), late, organisation.directory());
    two.quic.send(0, node_id(1), tell(1, 1));
    assert_eq!(one.next_message().await, (node_id(2), tell(1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_ring_document_ends_what_it_no_longer_admits() {
    let mut organisation = Organisation::with_members(1, 3);
    let (mut one, mut two) = (Station::member(&organisation, 1), Station::member(&organisation, 2));
    let mut three = Station::member(&organisation, 3);
    for station in [&two, &three] {
        station.quic.send(0, node_id(1), tell(1, 1));
        one.next_message().await;
    }
    let revoked = organisation.enrol(2, |_| {});
    organisation.revoke(&revoked);
    organisation.ring.epoch += 1;
    one.quic.adopt(organisation.directory());
    while !matches!(one.next().await, Seen::Down(id) if id == node_id(2)) {}
    // What is sent before the other end has noticed goes down with the old connection.
    while !matches!(two.next().await, Seen::Down(id) if id == node_id(1)) {}
    two.quic.send(0, node_id(1), tell(1, 2));
    // Once for the connection that stood, once for the new attempt.
    one.counted("refused_peers", "revoked", 2).await;
    one.quic.send(0, node_id(3), tell(1, 3));
    assert_eq!(three.next_message().await.1.request, 3, "who is still admitted stays connected");
    assert_eq!(one.plain("dials") + three.plain("dials"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_at_another_members_address_is_refused_by_the_dialler() {
    // Host 3 listens where the ring document says host 2 is.
    let organisation = Organisation::with_members(1, 3);
    let one = Station::member(&organisation, 1);
    let own = organisation.enrol(3, |_| {});
    let mut three = Station::open(3, organisation.address(2), own, organisation.directory());
    one.quic.send(0, node_id(2), tell(100, 1));
    one.counted("refused_peers", "not the dialled peer", 1).await;
    one.counted("drops", "connection lost", 1).await;
    assert!(three.seen.try_recv().is_err());
}

/// Accepts any server: what a stranger would do.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }
}

/// Shows one certificate whatever key it has.
#[derive(Debug)]
struct Shows(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A QUIC connection of a client that is not ours; `shown` is its certificate, if any.
async fn stranger(to: SocketAddr, shown: Option<Credentials>, alpn: &[u8]) -> Result<quinn::Connection, String> {
    stranger_with(aws_lc_rs::default_provider(), to, shown, alpn).await
}

async fn stranger_with(
    provider: rustls::crypto::CryptoProvider,
    to: SocketAddr,
    shown: Option<Credentials>,
    alpn: &[u8],
) -> Result<quinn::Connection, String> {
    let provider = Arc::new(provider);
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = provider.key_provider.load_private_key(own.key).unwrap();
            let certified = rustls::sign::CertifiedKey { cert: vec![own.certificate], key, ocsp: None };
            builder.with_client_cert_resolver(Arc::new(Shows(Arc::new(certified))))
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.connect_with(config, to, "anyone").unwrap().await.map_err(|error| error.to_string())
}

fn hello(node: Id, ring: [u8; 16]) -> Bytes {
    let hello = Hello { ring, epoch: 1, node, version: net::wire::WIRE_VERSION };
    encode(&Message { request: 0, body: Body::Hello(hello) }, Ends::default()).joined()
}

/// Greets as a peer would; the hello that comes back, if any.
async fn greet(connection: &quinn::Connection, hello: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(hello).await.ok()?;
    send.finish().ok()?;
    receive.read_to_end(1024).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_is_refused() {
    let organisation = Organisation::with_members(1, 1);
    let member = Station::member(&organisation, 1);
    if let Ok(connection) = stranger(organisation.address(1), None, b"epost/1").await {
        // The client is done before the server has judged it; the loss comes after.
        assert!(greet(&connection, &hello(node_id(9), RING)).await.is_none());
    }
    member.counted("refused_peers", "no certificate", 1).await;
    assert_eq!(member.refusals(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_members_certificate_without_its_key_is_refused() {
    let organisation = Organisation::with_members(1, 2);
    let member = Station::member(&organisation, 1);
    let stolen = organisation.enrol(2, |_| {}).certificate;
    let shown = credentials(&stolen, &key(77));
    if let Ok(connection) = stranger(organisation.address(1), Some(shown), b"epost/1").await {
        assert!(greet(&connection, &hello(node_id(2), RING)).await.is_none());
    }
    member.counted("refused_peers", "handshake", 1).await;
    assert_eq!(member.refusals(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused() {
    let organisation = Organisation::with_members(1, 2);
    let member = Station::member(&organisation, 1);
    let own = organisation.enrol(2, |_| {});
    assert!(stranger(organisation.address(1), Some(own), b"h3").await.is_err());
    member.counted("refused_peers", "handshake", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_that_does_not_follow_from_the_certificate_is_refused() {
    let organisation = Organisation::with_members(1, 3);
    let mut member = Station::member(&organisation, 1);
    let greetings = [
        ("wrong node id", hello(node_id(3), RING).to_vec()),
        ("another ring", hello(node_id(2), [0x53; 16]).to_vec()),
        ("bad greeting", b"HELO epost.test, this is no frame of ours at all".to_vec()),
        ("bad greeting", encode(&ping(), Ends::default()).joined().to_vec()),
    ];
    for (at, (cause, greeting)) in greetings.into_iter().enumerate() {
        let own = organisation.enrol(2, |_| {});
        let connection = stranger(organisation.address(1), Some(own), b"epost/1").await.unwrap();
        let answer = greet(&connection, &greeting).await;
        assert!(answer.is_none_or(|answer| answer.is_empty()), "{cause}: greeted back");
        member.counted("refused_peers", cause, 1).await;
        let start = Instant::now();
        while member.refusals() < at as u64 + 1 {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        connection.closed().await;
    }
    assert!(member.seen.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_frames_that_do_not_decode_end_the_connection_and_the_peer_is_refused() {
    let organisation = Organisation::with_members(1, 2);
    let mut member = Station::member(&organisation, 1);
    let connect = || async {
        let own = organisation.enrol(2, |_| {});
        stranger(organisation.address(1), Some(own), b"epost/1").await.unwrap()
    };
    let connection = connect().await;
    assert!(greet(&connection, &hello(node_id(2), RING)).await.is_some_and(|answer| !answer.is_empty()));
    let good = encode(&tell(10, 1), Ends::default()).joined();
    let mut claims_too_much = good.to_vec();
    claims_too_much[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    let another_id = encode(&tell(10, 1), Ends { from: 1, to: 0 }).joined().to_vec();
    let bad: [Vec<u8>; 8] = [
        vec![0; 200],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        claims_too_much,
        another_id,
        hello(node_id(2), RING).to_vec(),
        vec![0xff; 24],
    ];
    let count = bad.len() as u64;
    for (at, frame) in bad.into_iter().enumerate() {
        assert!(connection.close_reason().is_none(), "disconnected after {at}");
        let mut stream = connection.open_uni().await.unwrap();
        let _ = stream.write_all(&frame).await;
        let _ = stream.finish();
        let start = Instant::now();
        while member.plain("frames_malformed") < at as u64 + 1 {
            assert!(start.elapsed() < PATIENCE, "bad frame {at} was not counted");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(member.plain("frames_malformed"), count);
    assert!(matches!(connection.closed().await, quinn::ConnectionError::ApplicationClosed(close)
        if u64::from(close.error_code) == 4));
    assert_eq!(member.plain("peers_banned"), 1);
    assert_eq!(member.plain("frames_in"), 0);
    let again = connect().await;
    assert!(greet(&again, &hello(node_id(2), RING)).await.is_none());
    member.counted("refused_peers", "banned", 1).await;
    while let Ok(seen) = member.seen.try_recv() {
        assert!(!matches!(seen, Seen::Message(..)), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_queue_of_an_absent_peer_is_dropped_and_counted() {
    let organisation = Organisation::with_members(1, 2);
    let mut one = Station::member(&organisation, 1);
    // Holds the port, and never answers.
    let _silent = std::net::UdpSocket::bind(organisation.address(2)).unwrap();
    for request in 0..3_000 {
        one.quic.send(0, node_id(2), tell(10, request));
    }
    one.quic.send(0, Id([0xee; 20]), ping());
    let full = one.count("drops", "peer queue full");
    assert!((1_900..2_000).contains(&full), "{full} of 3,000 did not fit");
    assert_eq!(one.count("drops", "message to a node id not in the ring"), 1);
    while !matches!(one.next().await, Seen::Down(id) if id == node_id(2)) {}
    one.counted("drops", "connection lost", 1).await;
    let lost = one.count("drops", "peer unreachable") + one.count("drops", "connection lost");
    assert_eq!(full + lost, 3_000, "{:?}", one.registry.to_json());
    assert_eq!(one.plain("queue_peers"), 0);
}

/// Passes packets between one client and whoever is the backend now; the former backend is cut off at once.
async fn relay(public: SocketAddr, backend: tokio::sync::watch::Receiver<SocketAddr>) {
    let front = tokio::net::UdpSocket::bind(public).await.unwrap();
    let back = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut client, mut out, mut home) = (None, vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok((length, from)) = front.recv_from(&mut out) => {
                client = Some(from);
                let to = *backend.borrow();
                let _ = back.send_to(&out[..length], to).await;
            }
            Ok((length, from)) = back.recv_from(&mut home) => {
                if let Some(client) = client && from == *backend.borrow() {
                    let _ = front.send_to(&home[..length], client).await;
                }
            }
        }
    }
}

/// A peer dies without a farewell, and another process takes its place with the secret `secret`. Whether it is found
/// within 30 seconds, of which the idle time is 45.
async fn found_again(secret: u8) -> bool {
    let organisation = Organisation::with_members(1, 2);
    let (killed_at, back_at) = (free_address(), free_address());
    let (backend, receiver) = tokio::sync::watch::channel(killed_at);
    tokio::spawn(relay(organisation.address(2), receiver));
    let start = |address, secret| {
        Station::open_with([secret; 32], 2, address, organisation.enrol(2, |_| {}), organisation.directory())
    };
    let mut one = Station::member(&organisation, 1);
    let mut two = start(killed_at, 2);
    one.quic.send(0, node_id(2), tell(10, 1));
    assert_eq!(two.next_message().await.1.request, 1);
    let mut back = start(back_at, secret);
    backend.send(back_at).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    for request in 2.. {
        if Instant::now() >= deadline {
            return false;
        }
        one.quic.send(0, node_id(2), tell(10, request));
        if tokio::time::timeout(Duration::from_millis(500), back.next_message()).await.is_ok() {
            break;
        }
    }
    while !matches!(one.next().await, Seen::Down(id) if id == node_id(2)) {}
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_killed_and_came_back_is_found_again() {
    assert!(found_again(2).await);
}

/// The control: a process without the secret cannot tell that the old connection is gone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: waits 30 s for nothing to happen"]
async fn without_its_secret_a_peer_that_came_back_is_not_found() {
    assert!(!found_again(3).await);
}

/// Another program may offer one key exchange only; the post-quantum hybrid must be among those taken, and elliptic
/// curves of old must not.
#[tokio::test(flavor = "multi_thread")]
async fn the_hybrid_key_exchange_is_taken() {
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    let organisation = Organisation::with_members(1, 2);
    let _member = Station::member(&organisation, 1);
    for (group, taken) in [(X25519MLKEM768, true), (X25519, true), (SECP256R1, false)] {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![group];
        let own = organisation.enrol(2, |_| {});
        let connected = stranger_with(provider, organisation.address(1), Some(own), b"epost/1").await;
        assert_eq!(connected.is_ok(), taken, "{group:?}");
    }
}
