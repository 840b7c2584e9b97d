//! A client for tests, over a pipe to a real session; and the account those sessions are on.
//!
//! [`Client`] reads answers by its own rules, and keeps what a client may believe of its folder from the untagged
//! answers alone: that is what the sessions are checked against.

use super::{Counters, Service, serve};
use crate::account::{self, Account, Accounts, Remembered, Services};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use net::id::Id;
use net::past::block::Trust;
use net::ring::{Parameters, RingDocument};
use post::entropy::Entropy;
use post::identity::keyfile::{KeyFile, PasswordCost};
use post::identity::organisation::{enrol_user, found};
use post::seal::{RingSecret, Sealing};
use post::store::memory::{Counts, MemoryStore};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const NOW_S: u64 = 1_790_000_000;
const USER: &str = "alice@epost.test";
const PASSWORD: &str = "correct horse";
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Cheap: these tests are not about guessing passwords.
const COST: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

const PIPE_BYTES: usize = 16 * 1024;
const WIDE_PIPE_BYTES: usize = 16 * 1024 * 1024;

/// One account, and the service in front of it.
pub(crate) struct World {
    store: MemoryStore,
    service: Service<MemoryStore>,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
}

/// What a client believes of one message: its UID and flags, as far as it was told.
pub(crate) type Belief = (Option<u32>, Option<BTreeSet<String>>);

/// A client.
pub(crate) struct Client {
    stream: DuplexStream,
    received: Vec<u8>,
    commands: u32,
    believed: Vec<Belief>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let mut entropy = Entropy::new([1; 32]);
        let founded = found("epost.test", "epost.test", Parameters::DEFAULT, NOW_S, &mut entropy).unwrap();
        let ring = RingDocument::decode_verified(&founded.document, &founded.authority.public_key()).unwrap();
        let trust = || Trust::new(founded.authority.public_key(), &ring);
        let store = MemoryStore::new(NOW_S * 1_000_000);
        store.set_trust(trust());
        let secrets = enrol_user(&founded.authority, &founded.document, USER, 1, NOW_S, &mut entropy).unwrap();
        let mut key_file = KeyFile::new(&secrets, &mut entropy);
        key_file.add_password(&secrets.master, PASSWORD.as_bytes(), COST, &mut entropy).unwrap();
        let services = Services {
            store: Arc::new(store.clone()),
            sealing: Sealing { ring: ring.ring, shared: Some(RingSecret::new(1, [9; 32])) },
            trust: RwLock::new(Arc::new(trust())),
            lease_s: 28 * 86_400,
            node: Id([7; 20]),
            domain: "epost.test".to_owned(),
            hostname: "node.epost.test".to_owned(),
            message_bytes_max: MESSAGE_BYTES_MAX,
            counters: account::Counters::default(),
        };
        let account =
            Account::start(Arc::new(services), Arc::new(secrets), Arc::new(Remembered::nothing())).await.unwrap();
        let accounts = Accounts::new([key_file], [3; 32]);
        accounts.opened(account);
        let counters = Arc::new(Counters::default());
        let service = Service::new(accounts, Arc::clone(&counters));
        Self { store, service, counters, stop: watch::Sender::new(false) }
    }

    pub(crate) fn credentials(&self) -> (String, String) {
        (USER.to_owned(), PASSWORD.to_owned())
    }

    /// Whether writes to the store reach their quorum.
    pub(crate) fn set_writable(&self, writable: bool) {
        self.store.set_writable(writable);
    }

    /// Whether the store answers at all.
    pub(crate) fn set_reachable(&self, reachable: bool) {
        self.store.set_reachable(reachable);
    }

    /// What has been asked of the store so far.
    pub(crate) fn store_counts(&self) -> Counts {
        self.store.counts()
    }

    pub(crate) fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    /// A response of SASL PLAIN.
    pub(crate) fn plain(user: &str, password: &str) -> String {
        STANDARD.encode(format!("\0{user}\0{password}"))
    }

    pub(crate) fn counted(&self, which: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        which(&self.counters).load(Ordering::Relaxed)
    }

    /// A small pipe makes sessions wait for their client; a large one lets a client send without reading.
    fn open(&self, is_private: bool, pipe_bytes: usize) -> (Client, JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(pipe_bytes);
        let session = tokio::spawn(serve(server, is_private, None, self.service.clone(), self.stop.subscribe()));
        (Client { stream: client, received: Vec::new(), commands: 0, believed: Vec::new() }, session)
    }

    /// A connection as if under TLS.
    pub(crate) fn connect(&self) -> Client {
        self.open(true, PIPE_BYTES).0
    }

    /// As [`Self::connect`], with the task of the session.
    pub(crate) fn connect_watched(&self) -> (Client, JoinHandle<()>) {
        self.open(true, WIDE_PIPE_BYTES)
    }

    pub(crate) fn connect_in_clear(&self) -> Client {
        self.open(false, PIPE_BYTES).0
    }

    /// A connection that has logged in.
    pub(crate) async fn log_in(&self) -> Client {
        let (client, _) = self.open(true, PIPE_BYTES);
        self.log_in_with(client).await
    }

    async fn log_in_with(&self, mut client: Client) -> Client {
        client.read().await;
        let (user, password) = self.credentials();
        let (_, done) = client.ask(&format!("LOGIN {user} \"{password}\"")).await;
        assert!(done.starts_with("OK"), "{done}");
        client
    }

    /// As [`Self::log_in`], with the task of the session.
    pub(crate) async fn log_in_watched(&self) -> (Client, JoinHandle<()>) {
        let (client, session) = self.open(true, WIDE_PIPE_BYTES);
        (self.log_in_with(client).await, session)
    }

    pub(crate) fn service(&self) -> Service<MemoryStore> {
        self.service.clone()
    }
}

impl Client {
    pub(crate) async fn send(&mut self, octets: &[u8]) {
        // A session that has ended does not read; what it said before is still to be read.
        let _ = self.stream.write_all(octets).await;
    }

    /// Ends what is sent, and takes what is still said.
    pub(crate) async fn hang_up(mut self) {
        let _ = self.stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
    }

    /// One answer: a line, with the literals in it and the lines that follow them.
    pub(crate) async fn read(&mut self) -> String {
        let mut end = 0;
        loop {
            let line_end = self.received[end..].windows(2).position(|pair| pair == b"\r\n");
            let Some(line_end) = line_end.map(|at| end + at + 2) else {
                self.receive().await;
                continue;
            };
            let line = &self.received[end..line_end - 2];
            let literal = line.strip_suffix(b"}").and_then(|line| {
                let open = line.iter().rposition(|&octet| octet == b'{')?;
                std::str::from_utf8(&line[open + 1..]).ok()?.parse::<usize>().ok()
            });
            end = line_end;
            match literal {
                None => break,
                Some(length) => {
                    end += length;
                    while self.received.len() < end {
                        self.receive().await;
                    }
                }
            }
        }
        let answer: Vec<u8> = self.received.drain(..end).collect();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        self.believe(&answer);
        answer
    }

    async fn receive(&mut self) {
        let mut piece = [0; 8192];
        let length = self.stream.read(&mut piece).await.unwrap();
        assert!(length > 0, "the server hung up; unread: {:?}", String::from_utf8_lossy(&self.received));
        self.received.extend_from_slice(&piece[..length]);
    }

    /// Whether the server has hung up and said nothing more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.is_ok() && rest.is_empty() && self.received.is_empty()
    }

    /// Sends a command; its untagged answers, and the end of it without the tag.
    pub(crate) async fn ask(&mut self, command: &str) -> (Vec<String>, String) {
        self.commands += 1;
        let tag = format!("t{}", self.commands);
        self.send(format!("{tag} {command}\r\n").as_bytes()).await;
        self.answers(&tag).await
    }

    async fn answers(&mut self, tag: &str) -> (Vec<String>, String) {
        let mut answers = Vec::new();
        loop {
            let answer = self.read().await;
            if let Some(done) = answer.strip_prefix(&format!("{tag} ")) {
                return (answers, done.trim_end().to_owned());
            }
            answers.push(answer);
        }
    }

    /// APPEND with a synchronising literal.
    pub(crate) async fn append(&mut self, folder: &str, arguments: &str, message: &str) -> (Vec<String>, String) {
        self.commands += 1;
        let tag = format!("t{}", self.commands);
        let space = if arguments.is_empty() { "" } else { " " };
        self.send(format!("{tag} APPEND {folder}{space}{arguments} {{{}}}\r\n", message.len()).as_bytes()).await;
        assert!(self.read().await.starts_with('+'));
        self.send(format!("{message}\r\n").as_bytes()).await;
        self.answers(&tag).await
    }

    /// Selects a folder and begins to believe what is said of it.
    pub(crate) async fn select(&mut self, folder: &str) {
        self.believed.clear();
        let (_, done) = self.ask(&format!("SELECT {folder}")).await;
        assert!(done.starts_with("OK"), "{done}");
    }

    pub(crate) fn believed(&self) -> &[Belief] {
        &self.believed
    }

    pub(crate) fn forget_flags(&mut self, number: usize) {
        if let Some(message) = self.believed.get_mut(number - 1) {
            message.1 = None;
        }
    }

    fn believe(&mut self, answer: &str) {
        let words: Vec<&str> = answer.trim_end().splitn(4, ' ').collect();
        let Some(Ok(number)) = words.get(1).map(|word| word.parse::<usize>()) else { return };
        match words.get(2) {
            Some(&"EXISTS") => {
                assert!(number >= self.believed.len() || self.believed.is_empty(), "EXISTS takes nothing away");
                self.believed.resize(number, (None, None));
            }
            Some(&"EXPUNGE") if number <= self.believed.len() => {
                self.believed.remove(number - 1);
            }
            Some(&"FETCH") if number <= self.believed.len() => {
                let answer = words[3];
                let message = &mut self.believed[number - 1];
                if let Some((_, after)) = answer.split_once("UID ") {
                    let uid: String = after.chars().take_while(char::is_ascii_digit).collect();
                    let uid: u32 = uid.parse().unwrap();
                    assert!(message.0.is_none_or(|known| known == uid), "renumbered: {answer}");
                    message.0 = Some(uid);
                }
                if let Some((_, after)) = answer.split_once("FLAGS (") {
                    let (flags, _) = after.split_once(')').unwrap();
                    message.1 = Some(flags.split(' ').filter(|flag| !flag.is_empty()).map(str::to_owned).collect());
                }
            }
            _ => {}
        }
    }
}
