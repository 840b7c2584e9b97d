//! Goal: over real sockets, TLS begins when asked and nothing said before it counts; connections above the bound and
//! after the end are refused; and the server stops in order. Method: a TCP client with its own rustls.

use super::*;
use crate::imap::test_client::World;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_rustls::TlsConnector;

struct Server {
    world: World,
    address: SocketAddr,
    connector: TlsConnector,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

async fn start(mode: TlsMode) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("certificate.pem"), directory.path().join("key.pem"));
    let acceptor = crate::tls::mail_acceptor(&certificate, &key, "localhost").unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = watch::Sender::new(false);
    let listening = listen(listener, mode, acceptor, world.service(), stop.subscribe());
    Server { address, connector, stop, task: tokio::spawn(listening), _directory: directory, world }
}

impl Server {
    async fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.unwrap())
    }

    async fn secure(&self, stream: TcpStream) -> BufReader<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let name = ServerName::try_from("localhost").unwrap();
        BufReader::new(self.connector.connect(name, stream).await.unwrap())
    }
}

async fn line(stream: &mut BufReader<impl AsyncRead + Unpin>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line
}

#[tokio::test]
async fn starttls_forgets_what_came_in_clear() {
    let server = start(TlsMode::StartTls).await;
    let mut clear = server.connect().await;
    let greeting = line(&mut clear).await;
    assert!(greeting.contains("STARTTLS LOGINDISABLED") && !greeting.contains("AUTH=PLAIN"), "{greeting}");
    // An attacker on the way adds a command behind STARTTLS; it must not be heard as said under TLS.
    clear.get_mut().write_all(b"a STARTTLS\r\nevil NOOP\r\n").await.unwrap();
    assert!(line(&mut clear).await.starts_with("a OK"));
    let mut private = server.secure(clear.into_inner()).await;
    private.write_all(b"b CAPABILITY\r\n").await.unwrap();
    let capabilities = line(&mut private).await;
    assert!(capabilities.contains("AUTH=PLAIN") && !capabilities.contains("STARTTLS"), "{capabilities}");
    assert!(line(&mut private).await.starts_with("b OK"));
    let (user, password) = server.world.credentials();
    private.write_all(format!("c LOGIN {user} \"{password}\"\r\nd STARTTLS\r\n").as_bytes()).await.unwrap();
    assert!(line(&mut private).await.starts_with("c OK"));
    assert!(line(&mut private).await.starts_with("d BAD"));
}

#[tokio::test]
async fn implicit_tls_and_an_end_in_order() {
    let server = start(TlsMode::Implicit).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut private = server.secure(stream).await;
    assert!(line(&mut private).await.contains("AUTH=PLAIN"));
    let mut clear = server.connect().await;
    clear.get_mut().write_all(b"a NOOP\r\n").await.unwrap();
    let mut rest = Vec::new();
    // However TLS calls it, the handshake fails and no greeting is given.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut clear, &mut rest).await;
    assert!(!rest.starts_with(b"* OK"));
    server.stop.send_replace(true);
    assert!(line(&mut private).await.starts_with("* BYE"));
    server.task.await.unwrap();
    assert_eq!(server.world.counted(|counters| &counters.handshake_failed), 1);
}

#[tokio::test]
async fn connections_above_the_bound_are_refused() {
    let server = start(TlsMode::StartTls).await;
    let mut held = Vec::new();
    for _ in 0..limits::SESSIONS_PER_ADDRESS_MAX {
        let mut stream = server.connect().await;
        assert!(line(&mut stream).await.starts_with("* OK"));
        held.push(stream);
    }
    let mut refused = server.connect().await;
    assert!(line(&mut refused).await.starts_with("* BYE"));
    assert_eq!(server.world.counted(|counters| &counters.refused), 1);
    held.pop();
    // One has left: its place is free as soon as its session has noticed.
    loop {
        let mut stream = server.connect().await;
        if line(&mut stream).await.starts_with("* OK") {
            break;
        }
    }
}
