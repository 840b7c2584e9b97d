//! Goal: issue 2 §3 and §4 on real parts: nodes with stores on disk and QUIC between them form a ring; objects and heads
//! written through one are read through another; applications reach each other; with one of five nodes gone, content
//! is still readable and heads still writable at quorum 4; a node that comes back with its disk takes part again.
//!
//! Method: five whole nodes in this process, each with its own folder and ports, enrolled as `epost org` does it. What
//! is read is compared with what was written; the status page is read over plain TCP.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use epost_gateway::config::{Config, EngineSection, NodeSection};
use epost_gateway::node::{Node, NodeError, RingStore};
use net::id::{Id, Key, Kind};
use net::past::block::encode_signed;
use net::ring::Parameters;
use post::entropy::Entropy;
use post::identity::organisation::{EnrolledNode, Founded, enrol_node, found};
use post::store::{ObjectStore, StoreError};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Far beyond what anything here takes; a hang ends the test instead of stalling it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An organisation and the folders of its nodes.
struct Ring {
    folder: tempfile::TempDir,
    founded: Founded,
    document: Bytes,
    entropy: Entropy,
    configs: Vec<Config>,
    ids: Vec<Id>,
}

impl Ring {
    fn found(nodes: usize) -> Ring {
        Ring::of_weights(&vec![1; nodes])
    }

    fn of_weights(weights: &[u16]) -> Ring {
        let mut entropy = Entropy::new([7; 32]);
        let founded = found("epost.test", "epost.test", Parameters::DEFAULT, now_s(), &mut entropy).unwrap();
        let document = founded.document.clone();
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring { folder, founded, document, entropy, configs: vec![], ids: vec![] };
        for weight in weights {
            ring.enrol(*weight);
        }
        for config in &ring.configs {
            std::fs::write(&config.node.ring, &ring.document).unwrap();
        }
        ring
    }

    /// Enrols one more node, which gets the new ring document; the others have to hear of it.
    fn enrol(&mut self, weight: u16) {
        let listen = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let authority = &self.founded.authority;
        let node =
            enrol_node(authority, &self.document, &listen.to_string(), weight, now_s(), &mut self.entropy).unwrap();
        self.document = node.document.clone();
        let folder = self.folder.path().join(format!("node{}", self.configs.len()));
        self.configs.push(write_node(&folder, listen, &node, authority.certificate()));
        self.ids.push(node.node_id);
    }

    async fn start(&self, node: usize) -> Node {
        let start = Instant::now();
        loop {
            match Node::start(&self.configs[node]).await {
                Ok(node) => return node,
                // The ports and the lock of the node that was here before may take a moment to go.
                Err(NodeError::Socket(_) | NodeError::Store(_) | NodeError::StatusAddress { .. })
                    if start.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("node {node}: {error}"),
            }
        }
    }

    async fn start_all(&self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for i in 0..self.configs.len() {
            nodes.push(self.start(i).await);
        }
        for node in &nodes {
            assert!(tokio::time::timeout(PATIENCE, node.ready()).await.expect("the ring does not form"));
        }
        nodes
    }
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn write_node(folder: &Path, listen: SocketAddr, node: &EnrolledNode, authority: &[u8]) -> Config {
    std::fs::create_dir(folder).unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let section = NodeSection {
        dir: folder.join("store"),
        organisation: "epost.test".into(),
        listen,
        status: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        certificate: write("node.crt", &node.certificate),
        key: write("node.key", &node.private_key),
        authority: write("authority.crt", authority),
        ring: write("ring.epost", &node.document),
        secret: write("node.secret", &*node.node_secret),
    };
    let engine =
        EngineSection { capacity_bytes: 1 << 30, segment_bytes: 8 << 20, tick_s: 1, ..EngineSection::default() };
    let config = Config { node: section, engine, mail: None, account: vec![] };
    let path = write("node.toml", config.to_toml().as_bytes());
    Config::load(&path).unwrap()
}

fn content(bytes: usize, seed: u8) -> (Key, Bytes) {
    let value = Bytes::from((0..bytes).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<u8>>());
    (Key::of(Kind::Content, &value), value)
}

fn head(log: u8, version: u64) -> (Key, Bytes) {
    let signer = SigningKey::from_bytes(&[log; 32]);
    let public = signer.verifying_key().to_bytes();
    let body = format!("head {version} of log {log}");
    let block = encode_signed(Kind::Head, &public, version, body.as_bytes(), |m| signer.sign(m).to_bytes());
    (Key::of(Kind::Head, &public), block)
}

fn lease(store: &RingStore) -> u64 {
    store.now() / 1_000_000 + 3_600
}

/// Tries again while the ring is below quorum: right after a change it may be, and callers are told to.
async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(mut attempt: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error @ (StoreError::Unavailable | StoreError::Busy)) => {
                assert!(start.elapsed() < PATIENCE, "{error} for too long");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_form_a_ring_that_keeps_what_it_was_given() {
    let ring = Ring::found(5);
    let mut nodes = ring.start_all().await;
    let stores: Vec<RingStore> = nodes.iter().map(Node::store).collect();

    // Content of every lane, written through one node and read through each.
    let blocks: Vec<_> = [1, 4_000, 60_000, 300_000, 4 << 20].iter().zip(1..).map(|(n, i)| content(*n, i)).collect();
    for (at, (key, value)) in blocks.iter().enumerate() {
        let store = &stores[at % stores.len()];
        patiently(|| store.put(*key, value.clone(), lease(store))).await;
        patiently(|| store.put(*key, value.clone(), lease(store))).await;
    }
    for store in &stores {
        for (key, value) in &blocks {
            assert_eq!(patiently(|| store.get(*key)).await.as_ref(), Some(value));
        }
        let (never_stored, _) = content(77, 99);
        assert_eq!(patiently(|| store.get(never_stored)).await, None);
    }
    let (key, _) = blocks[0];
    let (_, other) = content(10, 50);
    assert_eq!(stores[0].put(key, other, lease(&stores[0])).await, Err(StoreError::Refused));

    // Heads: the newest is read everywhere, an older one is refused.
    for version in 1..=3 {
        let (key, block) = head(1, version);
        let store = &stores[version as usize % stores.len()];
        patiently(|| store.put_signed(key, block.clone(), lease(store))).await;
    }
    let (key, newest) = head(1, 3);
    for store in &stores {
        assert_eq!(patiently(|| store.get_signed(key)).await.as_ref(), Some(&newest));
    }
    let (_, older) = head(1, 2);
    assert_eq!(stores[0].put_signed(key, older, lease(&stores[0])).await, Err(StoreError::Superseded { version: 3 }));
    let keys: Vec<Key> = blocks.iter().map(|(key, _)| *key).collect();
    assert_eq!(patiently(|| stores[2].refresh(keys.clone(), lease(&stores[2]) + 10)).await, keys.len());

    // Applications talk.
    let mut deliveries = nodes[1].deliveries().unwrap();
    assert!(nodes[1].deliveries().is_none(), "one room takes them");
    let from = ring.ids[0];
    let answering = tokio::spawn(async move {
        let delivery = deliveries.recv().await.unwrap();
        assert_eq!((delivery.from, &delivery.payload[..]), (from, &b"new mail"[..]));
        assert!(delivery.answer.send(Bytes::from_static(b"thank you")));
        deliveries
    });
    let answer = stores[0].tell(ring.ids[1], Bytes::from_static(b"new mail")).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"thank you")));
    answering.await.unwrap();

    status_pages_show_the_ring(&ring, &nodes);

    // One node goes without a word. Everything stays readable, heads stay writable (quorum 4 of 5).
    drop(nodes.remove(4));
    for store in &stores[..4] {
        for (key, value) in &blocks {
            assert_eq!(patiently(|| store.get(*key)).await.as_ref(), Some(value));
        }
    }
    let (key, newest) = head(1, 4);
    patiently(|| stores[0].put_signed(key, newest.clone(), lease(&stores[0]))).await;
    let (new_key, new_value) = content(5_000, 60);
    patiently(|| stores[1].put(new_key, new_value.clone(), lease(&stores[1]))).await;
    for store in &stores[..4] {
        assert_eq!(patiently(|| store.get_signed(key)).await.as_ref(), Some(&newest));
    }

    // A second one goes: heads are below their quorum, which is said, and nothing is lost.
    drop(nodes.remove(3));
    let (key, refused) = head(1, 5);
    assert_eq!(stores[0].put_signed(key, refused, lease(&stores[0])).await, Err(StoreError::Unavailable));

    // Both come back with their disks, and read what they missed.
    nodes.push(ring.start(3).await);
    nodes.push(ring.start(4).await);
    for node in &nodes[3..] {
        assert!(tokio::time::timeout(PATIENCE, node.ready()).await.expect("it does not rejoin"));
        let store = node.store();
        assert_eq!(patiently(|| store.get(new_key)).await, Some(new_value.clone()));
        let version = patiently(|| store.get_signed(key)).await.unwrap();
        assert!(version == newest || version == head(1, 5).1, "neither the acknowledged head nor the attempt after it");
    }
    for node in nodes {
        node.stop().await;
    }
}

fn status_pages_show_the_ring(ring: &Ring, nodes: &[Node]) {
    for (node, id) in nodes.iter().zip(&ring.ids) {
        assert_eq!(node.id(), *id);
        let status: serde_json::Value = serde_json::from_str(&page(node.status_address(), "/status")).unwrap();
        assert_eq!(status["node_id"], id.to_string());
        assert_eq!(status["ready"], true);
        assert_eq!(status["ring"]["members"], 5);
        assert_eq!(status["ring"]["leaf_set"].as_array().unwrap().len(), 4);
        assert!(status["engine"]["objects"].as_u64().unwrap() > 0);
        assert_eq!(status["peers_connected"], 4);
        for (cause, count) in status["refused_peers"].as_object().unwrap() {
            assert_eq!(count, 0, "{cause}");
        }
        let metrics = page(node.status_address(), "/metrics");
        assert!(metrics.contains("epost_frames_in_total ") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(page(node.status_address(), "/").contains(&id.to_string()));
    }
}

/// A host of weight 3 is three nodes in the ring, but one host: with k = 3 over three hosts, each host has one replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_heavy_host_runs_several_nodes_and_holds_one_replica() {
    const BLOCKS: u8 = 20;
    let ring = Ring::of_weights(&[3, 1, 1]);
    let nodes = ring.start_all().await;
    for i in 0..BLOCKS {
        let (key, value) = content(2_000, i);
        let store = nodes[usize::from(i) % 3].store();
        patiently(|| store.put(key, value.clone(), lease(&store))).await;
    }
    for i in 0..BLOCKS {
        let (key, value) = content(2_000, i);
        for node in &nodes {
            let store = node.store();
            assert_eq!(patiently(|| store.get(key)).await.as_ref(), Some(&value));
        }
    }
    let start = Instant::now();
    for node in &nodes {
        // The third copy may still be on its way when a put returns.
        while node.registry().to_json()["engine"]["objects"] != u64::from(BLOCKS) || node.overlay().leaf_set.len() != 4
        {
            assert!(start.elapsed() < PATIENCE, "{:?} {:?}", node.overlay(), node.registry().to_json());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(node.overlay().members, 3);
        assert_eq!(node.registry().to_json()["drops"]["frame for a node id this host has not"], 0);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_enrolled_later_joins_without_a_restart_of_the_others() {
    let mut ring = Ring::found(2);
    let mut nodes = ring.start_all().await;
    let (key, value) = content(1_000, 1);
    let store = nodes[0].store();
    patiently(|| store.put(key, value.clone(), lease(&store))).await;
    let epoch = nodes[0].overlay().epoch;
    ring.enrol(1);
    // Nobody knows the newcomer until one of the others is given the new document.
    std::fs::write(&ring.configs[0].node.ring, &ring.document).unwrap();
    nodes.push(ring.start(2).await);
    let start = Instant::now();
    for node in &nodes {
        while node.overlay().epoch == epoch || node.overlay().members < 3 || node.overlay().leaf_set.len() < 2 {
            assert!(start.elapsed() < PATIENCE, "{:?}", node.overlay());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(tokio::time::timeout(PATIENCE, nodes[2].ready()).await.expect("it does not join"));
    let store = nodes[2].store();
    assert_eq!(patiently(|| store.get(key)).await, Some(value));
    // Each keeps it for its next start.
    for config in &ring.configs {
        while std::fs::read(&config.node.ring).unwrap() != ring.document {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_says_why_in_one_line() {
    let ring = Ring::found(1);
    let node = ring.start(0).await;
    let refusal = async |config: &Config| match Node::start(config).await {
        Ok(_) => panic!("it started"),
        Err(error) => {
            assert_eq!(error.exit_code(), 2);
            let line = error.to_string();
            assert!(!line.contains('\n'), "{line}");
            line
        }
    };
    let config = &ring.configs[0];
    assert!(refusal(config).await.contains("status page"));
    let mut other_page = config.clone();
    other_page.node.status.set_port(0);
    assert!(refusal(&other_page).await.contains("in use by another process"));
    let mut other_store = other_page.clone();
    other_store.node.dir = config.node.dir.with_file_name("another");
    assert!(refusal(&other_store).await.contains("cannot listen on UDP"));
    let mut stranger = other_page.clone();
    stranger.node.certificate = config.node.authority.clone();
    assert!(refusal(&stranger).await.contains("epost org add-node"));
    let stale = Ring::found(2);
    let mut elsewhere = other_page.clone();
    elsewhere.node.ring = stale.configs[0].node.ring.clone();
    // The same seed gives the same authority, but this ring's nonces come after.
    assert!(!refusal(&elsewhere).await.is_empty());
    node.stop().await;
    // Stopped in order, it starts again.
    ring.start(0).await.stop().await;
}
