//! Goal: whole dialogues go as the RFCs say, good and bad, and what is submitted is what the client meant.
//! Method: a client that is a script over a duplex stream (in clear where TLS does not matter, and through real TLS
//! where it does), before a small directory of users that records what it is given. Replies are compared by code.

use super::connection::Connection;
use super::*;
use crate::account::{AccountError, LoginError};
use crate::tls::mail_acceptor;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use rustls_pki_types::pem::PemObject;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

type Submission = (Vec<String>, Bytes);

/// Alice, who may log in, with bob and postmaster to write to, and what she submitted.
#[derive(Clone, Default)]
struct Directory {
    submitted: Arc<Mutex<Vec<Submission>>>,
    /// The next answers to `submit`, before it succeeds.
    failures: Arc<Mutex<Vec<AccountError>>>,
    look_ups: Arc<AtomicU64>,
    registry: Registry,
}

impl Users for Directory {
    type User = Directory;

    async fn login(&self, name: &str, password: &str) -> Result<Directory, LoginError> {
        match (name, password) {
            ("alice@epost.test", "secret") => Ok(self.clone()),
            ("late@epost.test", _) => Err(LoginError::Unavailable),
            _ => Err(LoginError::WrongCredentials),
        }
    }
}

impl User for Directory {
    fn address(&self) -> &str {
        "alice@epost.test"
    }

    fn message_bytes_max(&self) -> usize {
        1 << 20
    }

    async fn is_recipient(&self, address: &str) -> Result<bool, AccountError> {
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        match address.to_ascii_lowercase().as_str() {
            "broken@epost.test" => Err(AccountError::Unavailable),
            address => Ok(address.starts_with("bob") || address.starts_with("postmaster@")),
        }
    }

    async fn submit(&self, recipients: Vec<String>, message: Bytes) -> Result<(), AccountError> {
        if let Some(failure) = self.failures.lock().unwrap().pop() {
            return Err(failure);
        }
        self.submitted.lock().unwrap().push((recipients, message));
        Ok(())
    }
}

fn limits() -> Limits {
    Limits {
        message_bytes_max: 100_000 + limits::ADDED_HEADER_BYTES_MAX,
        login_failure_delay: Duration::ZERO,
        ..Limits::default()
    }
}

fn service(limits: Limits) -> (Arc<Service<Directory>>, Directory) {
    let users = Directory::default();
    (Service::new(users.clone(), "epost.test", "gateway.epost.test", limits, &users.registry), users)
}

fn counted(service: &Service<Directory>, name: &str) -> u64 {
    service.users.registry.to_json()[&format!("smtp_{name}")].as_u64().unwrap()
}

/// The client's side of a dialogue.
struct Client<T> {
    stream: T,
    read: Vec<u8>,
    /// Held, so that the server does not think it is to stop.
    stop: watch::Sender<bool>,
}

impl Client<DuplexStream> {
    /// A connection, as if TLS were on already, greeted.
    async fn secure(service: &Arc<Service<Directory>>) -> Self {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (stop, told) = watch::channel(false);
        let service = service.clone();
        tokio::spawn(async move {
            Connection::new(theirs, true, &service, told).run(true).await;
        });
        let mut client = Client { stream: ours, read: Vec::new(), stop };
        assert_eq!(client.reply().await.0, 220);
        client
    }

    /// The same, logged in.
    async fn alice(service: &Arc<Service<Directory>>) -> Self {
        let mut client = Self::secure(service).await;
        client.expect("EHLO client.example", 250).await;
        client.expect(&format!("AUTH PLAIN {}", plain("", "alice@epost.test", "secret")), 235).await;
        client
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// One whole reply: its code and its text. Code 0 at the end of the stream.
    async fn reply(&mut self) -> (u16, String) {
        let mut text = String::new();
        loop {
            let Some(end) = self.read.windows(2).position(|window| window == b"\r\n") else {
                let mut chunk = [0; 1024];
                let count = self.stream.read(&mut chunk).await.unwrap_or(0);
                if count == 0 {
                    return (0, text);
                }
                self.read.extend_from_slice(&chunk[..count]);
                continue;
            };
            let line: Vec<u8> = self.read.drain(..end + 2).collect();
            let line = String::from_utf8(line).unwrap();
            text += &line;
            if line.as_bytes()[3] == b' ' {
                return (line[..3].parse().unwrap(), text);
            }
        }
    }

    /// Sends a line, and returns the reply's text, which must have this code.
    async fn expect(&mut self, line: &str, code: u16) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        let (got, text) = self.reply().await;
        assert_eq!(got, code, "to {line:?} came {text:?}");
        text
    }

    /// Sends a text to bob after the envelope; its reply's code.
    async fn mail(&mut self, wire: &[u8]) -> u16 {
        self.expect("MAIL FROM:<alice@epost.test>", 250).await;
        self.expect("RCPT TO:<bob@epost.test>", 250).await;
        self.expect("DATA", 354).await;
        self.send(wire).await;
        self.reply().await.0
    }
}

fn plain(authorisation: &str, name: &str, password: &str) -> String {
    STANDARD.encode(format!("{authorisation}\0{name}\0{password}"))
}

/// A message with nothing missing.
const HEADERS: &str =
    "From: Alice <alice@epost.test>\r\nDate: Tue, 15 Nov 1994 08:12:31 +0000\r\nMessage-ID: <1@x>\r\n";

/// The one submission, without the trace header in front.
fn only_submission(users: &Directory) -> (Vec<String>, Vec<u8>) {
    let submitted = users.submitted.lock().unwrap();
    assert_eq!(submitted.len(), 1);
    let (recipients, message) = &submitted[0];
    assert!(message.starts_with(b"Received: by gateway.epost.test with ESMTPSA id "));
    let ends: Vec<usize> = message.windows(2).enumerate().filter(|(_, w)| w == b"\r\n").map(|(at, _)| at + 2).collect();
    (recipients.clone(), message[ends[1]..].to_vec())
}

#[tokio::test]
async fn the_dialogue_of_rfc_5321_appendix_d_1() {
    let (service, users) = service(limits());
    let mut client = Client::alice(&service).await;
    client.expect("MAIL FROM:<alice@epost.test> BODY=8BITMIME SIZE=200", 250).await;
    client.expect("RCPT TO:<bob@epost.test>", 250).await;
    let refused = client.expect("RCPT TO:<Green@epost.test>", 550).await;
    assert!(refused.starts_with("550 5.1.1 "));
    client.expect("RCPT TO:<Bob.Brown@EPOST.test>", 250).await;
    client.expect("DATA", 354).await;
    client.send(format!("{HEADERS}\r\nBlah blah blah...\r\n..etc.\r\n").as_bytes()).await;
    let done = client.expect(".", 250).await;
    assert!(done.starts_with("250 2.0.0 "));
    client.expect("QUIT", 221).await;
    assert_eq!(client.reply().await.0, 0, "closed");
    let (recipients, message) = only_submission(&users);
    assert_eq!(recipients, ["bob@epost.test", "Bob.Brown@EPOST.test"]);
    assert_eq!(String::from_utf8(message).unwrap(), format!("{HEADERS}\r\nBlah blah blah...\r\n.etc.\r\n"));
    assert_eq!(counted(&service, "messages_accepted"), 1);
    assert_eq!(counted(&service, "recipients_refused"), 1);
}

#[tokio::test]
async fn ehlo_tells_what_is_offered_and_no_more() {
    let (service, _) = service(limits());
    let mut client = Client::secure(&service).await;
    let expected = "250-gateway.epost.test\r\n250-PIPELINING\r\n250-SIZE 100000\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN\r\n";
    assert_eq!(client.expect("EHLO [127.0.0.1]", 250).await, expected);
    assert_eq!(client.expect("HELO x", 250).await, "250 gateway.epost.test\r\n");
}

#[tokio::test]
async fn commands_out_of_order() {
    let (service, users) = service(limits());
    let mut client = Client::secure(&service).await;
    client.expect("MAIL FROM:<alice@epost.test>", 503).await;
    client.expect("AUTH PLAIN", 503).await;
    client.expect("EHLO x", 250).await;
    client.expect("MAIL FROM:<alice@epost.test>", 530).await;
    client.expect("RCPT TO:<bob@epost.test>", 530).await;
    client.expect("DATA", 530).await;
    client.expect("STARTTLS", 503).await;
    client.expect("AUTH GSSAPI", 504).await;
    client.expect(&format!("AUTH PLAIN {}", plain("", "alice@epost.test", "secret")), 235).await;
    client.expect("AUTH PLAIN", 503).await;
    client.expect("RCPT TO:<bob@epost.test>", 503).await;
    client.expect("DATA", 503).await;
    client.expect("MAIL FROM:<alice@epost.test>", 250).await;
    client.expect("MAIL FROM:<alice@epost.test>", 503).await;
    client.expect("DATA", 503).await;
    client.expect("RCPT TO:<nobody@epost.test>", 550).await;
    client.expect("DATA", 554).await;
    client.expect("RSET", 250).await;
    client.expect("RCPT TO:<bob@epost.test>", 503).await;
    for (line, code) in [
        ("NOOP", 250),
        ("HELP", 214),
        ("VRFY bob", 252),
        ("EXPN staff", 502),
        ("BDAT 3", 502),
        ("XYZZY", 500),
        ("", 500),
        ("DATA now", 501),
        ("MAIL FROM alice", 501),
        ("MAIL FROM:<alice@epost.test> RET=HDRS", 555),
        ("MAIL FROM:<älice@epost.test>", 553),
    ] {
        client.expect(line, code).await;
    }
    assert!(users.submitted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn who_may_send_what_to_whom() {
    let (service, users) = service(limits());
    let mut client = Client::alice(&service).await;
    client.expect("MAIL FROM:<bob@epost.test>", 553).await;
    client.expect("MAIL FROM:<ALICE@epost.test>", 250).await;
    assert!(client.expect("RCPT TO:<someone@example.org>", 550).await.starts_with("550 5.7.1 "));
    client.expect("RCPT TO:<bob@epost.test.example.org>", 550).await;
    assert_eq!(users.look_ups.load(Ordering::Relaxed), 0, "strangers' domains are not looked up");
    assert!(client.expect("RCPT TO:<broken@epost.test>", 451).await.starts_with("451 4.3.0 "));
    client.expect("RCPT TO:<postmaster>", 250).await;
    client.expect("RCPT TO:<bob@epost.test>", 250).await;
    client.expect("RCPT TO:<BOB@epost.test>", 250).await;
    client.expect("DATA", 354).await;
    client.send(b"From: bob@epost.test\r\n\r\nhi\r\n.\r\n").await;
    assert!(client.reply().await.1.starts_with("553 5.7.1 "));
    assert_eq!(client.mail(b"From: alice@epost.test\r\nFrom: bob@epost.test\r\n\r\n.\r\n").await, 554);
    assert!(users.submitted.lock().unwrap().is_empty());
    client.expect("MAIL FROM:<>", 250).await;
    client.expect("RCPT TO:<bob@epost.test>", 250).await;
    client.expect("RCPT TO:<Bob@epost.test>", 250).await;
    client.expect("DATA", 354).await;
    client.expect(&format!("{HEADERS}\r\nread\r\n."), 250).await;
    assert_eq!(only_submission(&users).0, ["bob@epost.test"], "twice the same is once");
}

#[tokio::test]
async fn passwords() {
    let (service, _) = service(limits());
    let mut client = Client::secure(&service).await;
    client.expect("EHLO x", 250).await;
    assert!(client.expect("AUTH PLAIN", 334).await.starts_with("334 "));
    client.expect("*", 501).await;
    client.expect("AUTH PLAIN", 334).await;
    client.expect("NOOP", 501).await;
    client.expect("AUTH PLAIN =", 501).await;
    client.expect(&format!("AUTH PLAIN {}", plain("", "late@epost.test", "secret")), 454).await;
    client.expect(&format!("AUTH PLAIN {}", plain("", "alice@epost.test", "wrong")), 535).await;
    client.expect(&format!("AUTH PLAIN {}", plain("bob@epost.test", "alice@epost.test", "secret")), 535).await;
    client.expect(&format!("AUTH PLAIN {}", plain("", "nobody@epost.test", "x")), 421).await;
    assert_eq!(client.reply().await.0, 0, "closed after the third");

    let mut client = Client::secure(&service).await;
    client.expect("EHLO x", 250).await;
    client.expect("AUTH PLAIN", 334).await;
    client.expect(&plain("alice@epost.test", "alice@epost.test", "secret"), 235).await;
    assert_eq!(counted(&service, "logins"), 1);
    assert_eq!(counted(&service, "logins_failed"), 2);
}

#[tokio::test]
async fn what_250_waits_for() {
    let (service, users) = service(limits());
    let text = format!("{HEADERS}\r\nhi\r\n.\r\n");
    let mut client = Client::alice(&service).await;
    for (failure, code) in [
        (AccountError::Unavailable, 451),
        (AccountError::TakenOver, 451),
        (AccountError::Limit("outbox"), 452),
        (AccountError::TooLarge, 552),
        (AccountError::NoSuchRecipient, 550),
    ] {
        users.failures.lock().unwrap().push(failure);
        assert_eq!(client.mail(text.as_bytes()).await, code);
    }
    assert_eq!(counted(&service, "messages_unavailable"), 2);
    assert_eq!(client.mail(text.as_bytes()).await, 250, "the session went on");
    assert_eq!(users.submitted.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn pipelining() {
    let (service, users) = service(limits());
    let mut client = Client::alice(&service).await;
    let group = "MAIL FROM:<alice@epost.test>\r\nRCPT TO:<x@epost.test>\r\nRCPT TO:<bob@epost.test>\r\nDATA\r\n";
    client.send(format!("{group}{HEADERS}\r\none\r\n.\r\n{group}{HEADERS}\r\ntwo\r\n.\r\nQUIT\r\n").as_bytes()).await;
    for code in [250, 550, 250, 354, 250, 250, 550, 250, 354, 250, 221, 0] {
        assert_eq!(client.reply().await.0, code);
    }
    assert_eq!(users.submitted.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn smuggled_commands_are_neither_commands_nor_mail() {
    let (service, users) = service(limits());
    let mut client = Client::alice(&service).await;
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r"] {
        let text = format!("{HEADERS}\r\nhi{end}MAIL FROM:<alice@epost.test>\r\nRCPT TO:<bob@epost.test>\r\n.\r\n");
        assert_eq!(client.mail(text.as_bytes()).await, 554, "{end:?}");
        client.expect("NOOP", 250).await;
    }
    assert_eq!(counted(&service, "texts_refused"), 5);
    client.send(b"NOOP\nRSET\r\n").await;
    assert_eq!(client.reply().await.0, 500);
    assert_eq!(client.reply().await.0, 250);
    client.send(b"NO\rOP\r\n").await;
    assert_eq!(client.reply().await.0, 500);
    assert!(users.submitted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bounds() {
    let (service, users) = service(limits());
    let mut client = Client::alice(&service).await;
    client.expect("MAIL FROM:<alice@epost.test> SIZE=100001", 552).await;
    let mut big = HEADERS.as_bytes().to_vec();
    big.extend(b"\r\n");
    (0..110).for_each(|_| big.extend([[b'x'; 998].as_slice(), b"\r\n"].concat()));
    big.extend(b".\r\n");
    assert_eq!(client.mail(&big).await, 552);
    assert_eq!(counted(&service, "messages_too_large"), 1);
    let long = format!("{HEADERS}\r\n{}\r\n.\r\n", "x".repeat(limits::TEXT_LINE_BYTES_MAX + 1));
    assert_eq!(client.mail(long.as_bytes()).await, 500);
    client.expect(&format!("NOOP {}", "x".repeat(20_000)), 500).await;
    client.expect("MAIL FROM:<alice@epost.test>", 250).await;
    for number in 0..100 {
        client.expect(&format!("RCPT TO:<bob{number}@epost.test>"), 250).await;
    }
    client.expect("RCPT TO:<bob@epost.test>", 452).await;
    client.expect("DATA", 354).await;
    client.expect(&format!("{HEADERS}\r\nall\r\n."), 250).await;
    assert_eq!(only_submission(&users).0.len(), 100);
}

#[tokio::test]
async fn memory_is_common_to_all() {
    let (service, users) = service(Limits { received_bytes_max: 64 * 1024, ..limits() });
    let mut slow = Client::alice(&service).await;
    slow.expect("MAIL FROM:<alice@epost.test>", 250).await;
    slow.expect("RCPT TO:<bob@epost.test>", 250).await;
    slow.expect("DATA", 354).await;
    slow.send(format!("{HEADERS}\r\nslow\r\n").as_bytes()).await;
    let text = format!("{HEADERS}\r\nhi\r\n.\r\n");
    let mut quick = Client::alice(&service).await;
    // The slow one's first line may still be on its way; what is certain is that not both have room.
    let refused = async { while quick.mail(text.as_bytes()).await == 250 {} };
    refused.await;
    slow.expect(".", 250).await;
    assert_eq!(quick.mail(text.as_bytes()).await, 250);
    assert!(counted(&service, "messages_no_memory") >= 1);
    assert!(users.submitted.lock().unwrap().len() >= 2);
}

#[tokio::test]
async fn garbage_ends_the_session_in_time() {
    let (service, _) = service(limits());
    let mut client = Client::alice(&service).await;
    for _ in 0..limits::BAD_COMMANDS_MAX {
        client.expect("\u{1}\u{fffd} what", 500).await;
    }
    client.expect("again", 421).await;
    assert_eq!(client.reply().await.0, 0);

    let mut client = Client::secure(&service).await;
    for _ in 0..limits::COMMANDS_BEFORE_LOGIN_MAX {
        client.expect("NOOP", 250).await;
    }
    client.expect("NOOP", 421).await;
    assert_eq!(counted(&service, "sessions_cut"), 2);
}

#[tokio::test]
async fn silence_and_stopping() {
    let (service, users) = service(Limits { silence_before_login_max: Duration::from_millis(50), ..limits() });
    let mut silent = Client::secure(&service).await;
    assert!(silent.reply().await.1.starts_with("421 4.4.2 "));
    let mut stopped = Client::alice(&service).await;
    stopped.expect("MAIL FROM:<alice@epost.test>", 250).await;
    stopped.stop.send(true).unwrap();
    assert!(stopped.reply().await.1.starts_with("421 4.3.2 "));
    assert!(users.submitted.lock().unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_legal_text_is_submitted_as_meant(lines in proptest::collection::vec("(\\.{0,3})[\\x01-\\x09\\x0b\\x0c\\x0e-\\x7fäß€]{0,70}", 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (service, users) = service(limits());
            let body: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let stuffed: String = lines.iter().map(|line| format!("{}{line}\r\n", if line.starts_with('.') { "." } else { "" })).collect();
            let mut client = Client::alice(&service).await;
            assert_eq!(client.mail(format!("{HEADERS}\r\n{stuffed}.\r\n").as_bytes()).await, 250);
            assert_eq!(String::from_utf8(only_submission(&users).1).unwrap(), format!("{HEADERS}\r\n{body}"));
        });
    }

    #[test]
    fn any_bytes_end_well(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'<'), any::<u8>()], 0..2000), verbs in "((MAIL FROM:<alice@epost.test>|RCPT TO:<bob@epost.test>|DATA|RSET|EHLO x|AUTH PLAIN)\r\n){0,6}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (service, _) = service(limits());
            let mut client = Client::alice(&service).await;
            client.send(verbs.as_bytes()).await;
            let _ = client.stream.write_all(&bytes).await;
            let _ = client.stream.shutdown().await;
            while client.reply().await.0 != 0 {}
        });
    }
}

/// A TLS client that trusts exactly the certificate in this folder.
fn connector(folder: &std::path::Path) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(folder.join("mail.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn starttls_throws_away_what_was_sent_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let acceptor =
        mail_acceptor(&folder.path().join("mail.crt"), &folder.path().join("mail.key"), "localhost").unwrap();
    let (service, users) = service(limits());
    let (ours, theirs) = tokio::io::duplex(4096);
    let (stop, told) = watch::channel(false);
    let server = service.clone();
    let serving = tokio::spawn(async move { serve(theirs, TlsMode::StartTls, acceptor, &server, told).await });
    let mut client = Client { stream: ours, read: Vec::new(), stop };
    assert_eq!(client.reply().await.0, 220);
    assert!(client.expect("EHLO x", 250).await.ends_with("250 STARTTLS\r\n"), "no AUTH in clear");
    client.expect(&format!("AUTH PLAIN {}", plain("", "alice@epost.test", "secret")), 538).await;
    client.expect("MAIL FROM:<alice@epost.test>", 530).await;
    let injected = b"RSET\r\nMAIL FROM:<alice@epost.test>\r\n";
    client.send(&[b"STARTTLS\r\n", &injected[..]].concat()).await;
    assert_eq!(client.reply().await.0, 220);

    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let stream = connector(folder.path()).connect(name, client.stream).await.unwrap();
    let mut client = Client { stream, read: Vec::new(), stop: client.stop };
    client.expect("MAIL FROM:<alice@epost.test>", 503).await;
    assert_eq!(counted(&service, "injected_bytes"), injected.len() as u64);
    assert!(client.expect("EHLO x", 250).await.ends_with("250 AUTH PLAIN\r\n"));
    client.expect(&format!("AUTH PLAIN {}", plain("", "alice@epost.test", "secret")), 235).await;
    assert_eq!(client.mail(format!("{HEADERS}\r\nhi\r\n.\r\n").as_bytes()).await, 250);
    client.expect("QUIT", 221).await;
    serving.await.unwrap();
    assert_eq!(only_submission(&users).1, format!("{HEADERS}\r\nhi\r\n").into_bytes());
}

#[tokio::test]
async fn listening_with_implicit_tls_and_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let acceptor =
        mail_acceptor(&folder.path().join("mail.crt"), &folder.path().join("mail.key"), "localhost").unwrap();
    let (service, _) = service(Limits { connections_per_address_max: 1, ..limits() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, told) = watch::channel(false);
    let serving = tokio::spawn(listen(listener, TlsMode::Implicit, acceptor, service.clone(), told));

    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = connector(folder.path()).connect(name, TcpStream::connect(address).await.unwrap()).await.unwrap();
    let mut client = Client { stream, read: Vec::new(), stop };
    assert_eq!(client.reply().await.0, 220);
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(second.read(&mut [0; 10]).await.unwrap_or(0), 0, "the second from one address is let go");
    assert_eq!(counted(&service, "connections_refused"), 1);
    client.stop.send(true).unwrap();
    assert_eq!(client.reply().await.0, 421);
    drop(client);
    serving.await.unwrap();
}
