//! What travels between two hosts, beside the same done with quinn alone, in the same process and over loopback.
//!
//! *Ours* is the transport that ships: certificates judged, frames laid out and read with their checks, bounded queues,
//! counters. *Raw* is a quinn endpoint with the same provider and windows that moves the same bytes without any of that.
//! An RPC of ours is a frame on a stream of its own each way, raw a bidirectional stream; bulk is objects of 1 MiB, each on a
//! stream of its own, counted when they have arrived whole. Both sides of both share the processors. Latencies are of single
//! RPCs, from handing over the question to hearing the answer.

use super::LoadError;
use crate::report::{Report, Row, Sample, Watch};
use bytes::Bytes;
use epost_gateway::node::Registry;
use epost_gateway::node::transport::{
    Admission, Credentials, Credit, Directory, Quic, QuicConfig, Receiver, Transport,
};
use indicatif::ProgressBar;
use net::id::Id;
use net::ring::{Parameters, RingDocument};
use net::wire::{Body, Message};
use post::entropy::Entropy;
use post::identity::organisation::{EnrolledNode, enrol_node, found};
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

/// Bytes of a question and of its answer.
const SMALL_BYTES: usize = 64;
/// (RPCs in flight, RPCs).
const RPCS: [(usize, usize); 2] = [(1, 5_000), (64, 60_000)];
/// Bytes of an object of bulk.
const LARGE_BYTES: usize = 1 << 20;
/// Objects in flight, and objects.
const BULK: (usize, usize) = (8, 500);
/// The windows of the transport (`node::limits`), for the raw side.
const STREAM_WINDOW: u32 = 1_250_000;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Its socket buffers.
const SOCKET_BYTES: usize = 4 << 20;
/// Longest wait for any answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one run of RPCs took.
struct Run {
    elapsed: Duration,
    /// Of each, sorted.
    latencies: Vec<Duration>,
}

impl Run {
    fn new(start: Instant, mut latencies: Vec<Duration>) -> Run {
        latencies.sort_unstable();
        Run { elapsed: start.elapsed(), latencies }
    }

    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds below which so many of a thousand were.
    fn at(&self, of_thousand: usize) -> f64 {
        self.latencies[(self.latencies.len() * of_thousand / 1_000).min(self.latencies.len() - 1)].as_secs_f64() * 1e6
    }
}

/// Measures all cases `rounds` times.
pub(crate) fn measure(rounds: usize) -> Result<Report, LoadError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let watch = Watch::start();
    let progress = ProgressBar::new((rounds * (RPCS.len() + 1)) as u64);
    let mut rows: Vec<Row> = RPCS
        .iter()
        .flat_map(|(depth, _)| {
            let row = move |what: &str, unit| Row::new(format!("RPC {SMALL_BYTES} B, {depth} in flight{what}"), unit);
            [row("", "RPCs/s"), row(", p50", "µs"), row(", p99", "µs")]
        })
        .collect();
    rows.push(Row::new(format!("bulk, objects of 1 MiB, {} in flight", BULK.0), "GB/s"));
    rows.push(Row::new("bulk, UDP packets sent by one call of the system", "packets"));
    for _ in 0..rounds {
        // In a task, as both sides' other ends are: a thread of its own would add its waking to one of them.
        let samples = runtime.block_on(async { tokio::spawn(round(progress.clone())).await.map_err(setup)? })?;
        rows.iter_mut().zip(samples).for_each(|(row, sample)| row.samples.push(sample));
    }
    progress.finish_and_clear();
    let mut report = Report::new("load net", Path::new("."), &watch);
    report.note(
        "both hosts in one process, over loopback; raw: quinn alone, same windows and buffers, no client certificate",
    );
    report.note("of latencies, a ratio below 1 is the better one");
    report.rows = rows;
    Ok(report)
}

/// Measures each row once, with fresh connections.
async fn round(progress: ProgressBar) -> Result<Vec<Sample>, LoadError> {
    let (mut ours, raw) = (Ours::open()?, Raw::open().await?);
    let beside = |value, raw| Sample { value, raw: Some(raw) };
    let mut samples = Vec::new();
    for (depth, count) in RPCS {
        let (mine, other) = (ours.rpcs(depth, count).await?, raw.rpcs(depth, count).await?);
        samples.push(beside(mine.rate(), other.rate()));
        samples.extend([500, 990].map(|at| beside(mine.at(at), other.at(at))));
        progress.inc(1);
    }
    let before = (ours.sent(), raw.sent());
    let (mine, other) = (ours.bulk().await?, raw.bulk().await?);
    let rate = |elapsed: Duration| (BULK.1 * LARGE_BYTES) as f64 / elapsed.as_secs_f64() / 1e9;
    samples.push(beside(rate(mine), rate(other)));
    samples.push(beside(ours.sent().a_call_since(before.0), raw.sent().a_call_since(before.1)));
    progress.inc(1);
    Ok(samples)
}

/// What has left a host.
#[derive(Clone, Copy)]
struct Sent {
    packets: u64,
    calls: u64,
}

impl Sent {
    fn a_call_since(self, before: Sent) -> f64 {
        (self.packets - before.packets) as f64 / (self.calls - before.calls).max(1) as f64
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn setup(error: impl std::fmt::Display) -> LoadError {
    LoadError::Unexpected { expected: "two hosts of one ring", got: error.to_string() }
}

fn silence<E>(_: E) -> LoadError {
    LoadError::Unexpected { expected: "an answer", got: "none in 20 s".to_owned() }
}

/// Two hosts of one ring.
struct Ours {
    asks: Quic,
    /// What `asks` counts.
    registry: Registry,
    answered: mpsc::UnboundedReceiver<u64>,
    to: Id,
    _answers: Quic,
}

/// Answers each question with as many bytes as a small one has, however many it had.
struct Echo(Arc<OnceLock<Quic>>);

impl Receiver for Echo {
    fn message(&self, to: u16, from: Id, message: Message, _: Credit) {
        if let (Body::Tell(payload), Some(quic)) = (&message.body, self.0.get()) {
            let body = Body::Told(payload.slice(..payload.len().min(SMALL_BYTES)));
            quic.send(to, from, Message { request: message.request, body });
        }
    }

    fn up(&self, _: &[Id]) {}
    fn down(&self, _: &[Id]) {}
}

/// Notes the numbers of the answers.
struct Ear(mpsc::UnboundedSender<u64>);

impl Receiver for Ear {
    fn message(&self, _: u16, _: Id, message: Message, _: Credit) {
        // The round may be over.
        let _ = self.0.send(message.request);
    }

    fn up(&self, _: &[Id]) {}
    fn down(&self, _: &[Id]) {}
}

impl Ours {
    /// Within a runtime.
    fn open() -> Result<Ours, LoadError> {
        let mut entropy = Entropy::new([9; 32]);
        let founded = found("epost.test", "epost.test", Parameters::DEFAULT, now_s(), &mut entropy).map_err(setup)?;
        let (authority, mut document) = (&founded.authority, founded.document.clone());
        let mut hosts = Vec::new();
        for _ in 0..2 {
            let listen = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
            let host =
                enrol_node(authority, &document, &listen.to_string(), 1, now_s(), &mut entropy).map_err(setup)?;
            document = host.document.clone();
            hosts.push((listen, host));
        }
        let ring = RingDocument::decode_verified(&document, &authority.public_key()).map_err(setup)?;
        let directory = Arc::new(Directory::new(Arc::new(ring), authority.public_key()));
        let open = |(listen, host): &(SocketAddr, EnrolledNode), receiver: Arc<dyn Receiver>, registry: &Registry| {
            let credentials = Credentials {
                certificate: CertificateDer::from(host.certificate.to_vec()),
                key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(host.private_key.to_vec())),
            };
            let admission = Arc::new(Admission::new(directory.clone(), registry));
            let secret = Zeroizing::new([7; 32]);
            let config = QuicConfig { listen: *listen, nonce: host.nonce, credentials, secret, admission };
            Quic::open(config, receiver, registry).map_err(setup)
        };
        let own = Arc::new(OnceLock::new());
        let answers = open(&hosts[1], Arc::new(Echo(own.clone())), &Registry::default())?;
        own.get_or_init(|| answers.clone());
        let (tell, answered) = mpsc::unbounded_channel();
        let registry = Registry::default();
        let asks = open(&hosts[0], Arc::new(Ear(tell)), &registry)?;
        Ok(Ours { asks, registry, answered, to: hosts[1].1.node_id, _answers: answers })
    }

    /// Keeps `depth` questions of these bytes in flight until `count` are answered.
    async fn ask(&mut self, depth: usize, count: usize, payload: Bytes) -> Result<Run, LoadError> {
        // The connections are made by the first.
        self.ask_one(u64::MAX, payload.clone());
        tokio::time::timeout(PATIENCE, self.answered.recv()).await.map_err(silence)?;
        let start = Instant::now();
        let mut begun = vec![start; count];
        let mut latencies = Vec::with_capacity(count);
        let mut next = 0;
        while latencies.len() < count {
            while next < count && next - latencies.len() < depth {
                begun[next] = Instant::now();
                self.ask_one(next as u64, payload.clone());
                next += 1;
            }
            let answer = tokio::time::timeout(PATIENCE, self.answered.recv()).await.map_err(silence)?;
            let request = answer.and_then(|request| usize::try_from(request).ok());
            latencies.push(begun[request.ok_or_else(|| silence(()))?].elapsed());
        }
        Ok(Run::new(start, latencies))
    }

    fn ask_one(&self, request: u64, payload: Bytes) {
        self.asks.send(0, self.to, Message { request, body: Body::Tell(payload) });
    }

    async fn rpcs(&mut self, depth: usize, count: usize) -> Result<Run, LoadError> {
        self.ask(depth, count, Bytes::from_static(&[0x5a; SMALL_BYTES])).await
    }

    async fn bulk(&mut self) -> Result<Duration, LoadError> {
        let (depth, count) = BULK;
        Ok(self.ask(depth, count, Bytes::from(vec![0x5a; LARGE_BYTES])).await?.elapsed)
    }

    fn sent(&self) -> Sent {
        let json = self.registry.to_json();
        let of = |what: &str| json["udp"][what].as_u64().unwrap_or(0);
        Sent { packets: of("packets sent"), calls: of("calls to send") }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.asks.close();
        self._answers.close();
    }
}

/// quinn alone.
struct Raw {
    connection: Connection,
    _endpoints: [Endpoint; 2],
}

impl Raw {
    async fn open() -> Result<Raw, LoadError> {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(setup)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let certificate = CertificateDer::from(certified.cert);
        let mut server = quinn::ServerConfig::with_single_cert(vec![certificate.clone()], key).map_err(setup)?;
        server.transport_config(Arc::new(transport()));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate)?;
        let mut client = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).map_err(setup)?;
        client.transport_config(Arc::new(transport()));
        let (here, there) = (endpoint(None)?, endpoint(Some(server))?);
        tokio::spawn(answer(there.clone()));
        let connecting = here.connect_with(client, there.local_addr()?, "localhost").map_err(setup)?;
        Ok(Raw { connection: connecting.await.map_err(setup)?, _endpoints: [here, there] })
    }

    async fn ask(&self, depth: usize, count: usize, payload: Bytes) -> Result<Run, LoadError> {
        let start = Instant::now();
        let mut askers = JoinSet::new();
        for asker in 0..depth {
            let (connection, payload) = (self.connection.clone(), payload.clone());
            let share = count / depth + usize::from(asker < count % depth);
            askers.spawn(async move {
                let mut latencies = Vec::with_capacity(share);
                for _ in 0..share {
                    let begun = Instant::now();
                    let (mut send, mut receive) = connection.open_bi().await.ok()?;
                    send.write_chunk(payload.clone()).await.ok()?;
                    send.finish().ok()?;
                    while receive.read_chunk(LARGE_BYTES, true).await.ok()?.is_some() {}
                    latencies.push(begun.elapsed());
                }
                Some(latencies)
            });
        }
        let mut latencies = Vec::with_capacity(count);
        while let Some(share) = askers.join_next().await {
            latencies.extend(share.ok().flatten().ok_or_else(|| silence(()))?);
        }
        Ok(Run::new(start, latencies))
    }

    async fn rpcs(&self, depth: usize, count: usize) -> Result<Run, LoadError> {
        self.ask(depth, count, Bytes::from_static(&[0x5a; SMALL_BYTES])).await
    }

    async fn bulk(&self) -> Result<Duration, LoadError> {
        Ok(self.ask(BULK.0, BULK.1, Bytes::from(vec![0x5a; LARGE_BYTES])).await?.elapsed)
    }

    fn sent(&self) -> Sent {
        let sent = self.connection.stats().udp_tx;
        Sent { packets: sent.datagrams, calls: sent.ios }
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .initial_rtt(Duration::from_millis(100));
    config
}

fn endpoint(server: Option<quinn::ServerConfig>) -> Result<Endpoint, LoadError> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BYTES)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    Ok(Endpoint::new(quinn::EndpointConfig::default(), server, socket.into(), Arc::new(quinn::TokioRuntime))?)
}

/// Answers each stream with as many bytes as a small question has.
async fn answer(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        tokio::spawn(async move {
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    while let Ok(Some(_)) = receive.read_chunk(LARGE_BYTES, true).await {}
                    // The asker may have gone.
                    let _ = send.write_chunk(Bytes::from_static(&[0x5a; SMALL_BYTES])).await;
                    let _ = send.finish();
                });
            }
        });
    }
}
