//! Node processes of a ring of any size, made and started by the commands that the README names, and the links between
//! them, which can be cut.
//!
//! Every process listens on a port of its own and is known to the others by another, where [`Fabric`] forwards each packet
//! unless the link between its two ends is cut: no privileges are needed, and QUIC, processes and disks are real. A node
//! lives as long as this process holds the other end of its standard input, however this process ends.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use epost_gateway::config::Config;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The binary under test.
const EPOST: &str = env!("CARGO_BIN_EXE_epost");

/// An organisation's node processes.
pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    nodes: Vec<Member>,
    pub(crate) fabric: Fabric,
}

struct Member {
    folder: PathBuf,
    config: Config,
    process: Option<Child>,
}

impl Fleet {
    /// Enrols `count` nodes, none of them started, whose links go through a fabric. Within a tokio runtime.
    pub(crate) fn enrol(count: usize) -> Fleet {
        let folder = tempfile::Builder::new().prefix("epost-fleet-").tempdir().expect("a folder");
        let organisation = folder.path().join("org");
        epost(&["org", "init", text(&organisation), "--domain", "epost.test"]);
        let sockets: Vec<UdpSocket> = (0..count).map(|_| loopback()).collect();
        // Held until all are drawn, so that no two are the same.
        let drawn: Vec<(UdpSocket, TcpListener)> =
            (0..count).map(|_| (loopback(), TcpListener::bind("127.0.0.1:0").expect("a port"))).collect();
        let own: Vec<SocketAddr> = drawn.iter().map(|(socket, _)| socket.local_addr().expect("bound")).collect();
        let mut nodes = Vec::new();
        for (number, (listen, page)) in drawn.iter().enumerate() {
            let node = folder.path().join(format!("node{number}"));
            let listen = listen.local_addr().expect("bound").to_string();
            let host = sockets[number].local_addr().expect("bound").to_string();
            let page = page.local_addr().expect("bound").to_string();
            let arguments = ["org", "add-node", text(&organisation), "--node", text(&node), "--listen", &listen];
            epost(&[&arguments[..], &["--host", &host, "--status", &page]].concat());
            let mut config = Config::load(&node.join("node.toml")).expect("add-node writes what node reads");
            config.engine.capacity_bytes = 1 << 30;
            config.engine.segment_bytes = 8 << 20;
            std::fs::write(node.join("node.toml"), config.to_toml()).expect("node.toml can be written");
            nodes.push(Member { folder: node, config, process: None });
        }
        let fleet = Fleet { folder, nodes, fabric: Fabric::open(sockets, &own) };
        fleet.hand_out_ring();
        fleet
    }

    /// Enrols a client; the nodes have to be handed the new ring document.
    pub(crate) fn enrol_client(&self) -> PathBuf {
        let client = self.folder.path().join("client");
        epost(&["org", "add-client", text(&self.organisation()), "--client", text(&client)]);
        client
    }

    /// Copies the organisation's ring document to every node, as an operator would.
    pub(crate) fn hand_out_ring(&self) {
        let document = std::fs::read(self.organisation().join("ring.epost")).expect("the ring document");
        for node in &self.nodes {
            let new = node.folder.join("ring.epost.new");
            std::fs::write(&new, &document).expect("the document can be copied");
            std::fs::rename(&new, node.folder.join("ring.epost")).expect("the document can be put in place");
        }
    }

    fn organisation(&self) -> PathBuf {
        self.folder.path().join("org")
    }

    /// A node's configuration, for one that runs in this process.
    pub(crate) fn config(&self, node: usize) -> &Config {
        &self.nodes[node].config
    }

    /// Starts a node's process.
    pub(crate) fn start(&mut self, node: usize) {
        let member = &mut self.nodes[node];
        let log = std::fs::File::options().create(true).append(true).open(member.folder.join("log")).expect("a log");
        let process = Command::new(EPOST)
            .args(["node", "--config", text(&member.folder.join("node.toml"))])
            .env("EPOST_LIFELINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        member.process = Some(process.expect("the binary starts"));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill().expect("our child can be killed");
            process.wait().expect("our child can be waited for");
        }
    }

    /// What the node's status page says, if it answers.
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        let page = fetch(self.nodes[node].config.node.status, "/status")?;
        serde_json::from_str(&page).ok()
    }

    /// The node's log, for the message of a failure.
    pub(crate) fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.nodes[node].folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.kill(node));
    }
}

/// A request to a status page, by hand.
fn fetch(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// Runs the command to its end, which must be a good one.
fn epost(arguments: &[&str]) {
    let output = Command::new(EPOST).args(arguments).output().expect("the binary runs");
    assert!(output.status.success(), "epost {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

fn loopback() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a port")
}

/// Waits until `probe` returns something; fails with what `explain` says when that takes too long.
pub(crate) async fn until<T>(
    patience: Duration,
    mut probe: impl FnMut() -> Option<T>,
    explain: impl FnOnce() -> String,
) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        if Instant::now() >= end {
            panic!("waited {} s in vain: {}", patience.as_secs(), explain());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The links between all pairs of nodes.
///
/// What a node sends to another's known address is passed on from a socket of that pair's own, so that the answers to it
/// find their way back.
#[derive(Clone)]
pub(crate) struct Fabric {
    is_cut: Arc<Vec<Vec<AtomicBool>>>,
}

/// The known address of one node, and who has sent to it.
struct Front {
    node: usize,
    socket: Arc<tokio::net::UdpSocket>,
    own: Arc<Vec<SocketAddr>>,
    fabric: Fabric,
    ways: Mutex<BTreeMap<SocketAddr, Arc<tokio::net::UdpSocket>>>,
}

impl Fabric {
    /// Forwards from `known` addresses to each node's `own`, until the runtime ends.
    fn open(known: Vec<UdpSocket>, own: &[SocketAddr]) -> Fabric {
        let row = || (0..own.len()).map(|_| AtomicBool::new(false)).collect();
        let fabric = Fabric { is_cut: Arc::new((0..own.len()).map(|_| row()).collect()) };
        let own = Arc::new(own.to_vec());
        for (node, socket) in known.into_iter().enumerate() {
            socket.set_nonblocking(true).expect("a socket can be set so");
            let socket = Arc::new(tokio::net::UdpSocket::from_std(socket).expect("within a runtime"));
            let (own, fabric, ways) = (own.clone(), fabric.clone(), Mutex::default());
            tokio::spawn(Arc::new(Front { node, socket, own, fabric, ways }).forward());
        }
        fabric
    }

    /// Cuts the link between two nodes, or mends it.
    pub(crate) fn set_cut(&self, a: usize, b: usize, is_cut: bool) {
        self.is_cut[a][b].store(is_cut, Ordering::Relaxed);
        self.is_cut[b][a].store(is_cut, Ordering::Relaxed);
    }

    /// Parts the nodes into two sides, or mends all links.
    pub(crate) fn part(&self, is_on_this_side: impl Fn(usize) -> bool) {
        for a in 0..self.is_cut.len() {
            for b in 0..a {
                self.set_cut(a, b, is_on_this_side(a) != is_on_this_side(b));
            }
        }
    }

    fn passes(&self, from: usize, to: usize) -> bool {
        !self.is_cut[from][to].load(Ordering::Relaxed)
    }
}

impl Front {
    async fn forward(self: Arc<Self>) {
        let mut packet = vec![0; 65_536];
        // An error is that of a packet sent before, to a node that is not there.
        loop {
            let Ok((length, from)) = self.socket.recv_from(&mut packet).await else { continue };
            if self.passes(from, true) {
                let way = self.way(from);
                let _ = way.send_to(&packet[..length], self.own[self.node]).await;
            }
        }
    }

    /// Whether the link between this node and whoever has this address is whole. Who is no node, but a client, has no links
    /// to cut.
    fn passes(&self, other: SocketAddr, is_inwards: bool) -> bool {
        self.own.iter().position(|own| *own == other).is_none_or(|other| {
            if is_inwards { self.fabric.passes(other, self.node) } else { self.fabric.passes(self.node, other) }
        })
    }

    /// The socket for what a peer sends to this node.
    fn way(self: &Arc<Self>, sender: SocketAddr) -> Arc<tokio::net::UdpSocket> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let way = ways.entry(sender).or_insert_with(|| {
            let socket = loopback();
            socket.set_nonblocking(true).expect("a socket can be set so");
            let way = Arc::new(tokio::net::UdpSocket::from_std(socket).expect("within a runtime"));
            tokio::spawn(self.clone().answer(sender, way.clone()));
            way
        });
        way.clone()
    }

    async fn answer(self: Arc<Self>, sender: SocketAddr, way: Arc<tokio::net::UdpSocket>) {
        let mut packet = vec![0; 65_536];
        loop {
            let Ok((length, _)) = way.recv_from(&mut packet).await else { continue };
            if self.passes(sender, false) {
                let _ = self.socket.send_to(&packet[..length], sender).await;
            }
        }
    }
}
