//! Just enough of a mail client for a ring on this machine: SMTP submission and IMAP over implicit TLS, blocking.
//!
//! It takes whatever certificate the server presents, because it only ever talks to a ring on loopback that it
//! started itself; any other address is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A server that says nothing for so long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The longest line a server may send here.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why a server was not asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The TLS library refused its configuration or the server's name.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The server answered something else than what the protocol asks for here.
    #[error("expected {expected}, got {got:?}")]
    Unexpected {
        /// What was due.
        expected: &'static str,
        /// What came.
        got: String,
    },
}

type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// Accepts the certificate that is presented; the signatures of the handshake are still checked.
#[derive(Debug)]
struct Presented(Arc<CryptoProvider>);

impl ServerCertVerifier for Presented {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Connects over TLS to a port on loopback.
fn connect(host: &str, port: u16) -> Result<Stream, ClientError> {
    let address: IpAddr = host
        .parse()
        .ok()
        .filter(IpAddr::is_loopback)
        .ok_or_else(|| ClientError::Unexpected { expected: "an address on loopback", got: host.to_owned() })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Presented(provider)))
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::from(address))?;
    let socket = TcpStream::connect(SocketAddr::new(address, port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    Ok(BufReader::new(StreamOwned::new(connection, socket)))
}

/// One line without its end.
fn line(stream: &mut Stream) -> Result<String, ClientError> {
    let mut bytes = Vec::new();
    stream.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Err(ClientError::Unexpected { expected: "a line", got: "the end of the connection".to_owned() });
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn say(stream: &mut Stream, bytes: &[u8]) -> Result<(), ClientError> {
    let out = stream.get_mut();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

fn plain(address: &str, password: &str) -> String {
    STANDARD.encode(format!("\0{address}\0{password}"))
}

/// A logged-in SMTP session.
pub struct Smtp(Stream);

impl Smtp {
    /// Connects, greets and logs in.
    pub fn login(host: &str, port: u16, address: &str, password: &str) -> Result<Smtp, ClientError> {
        let mut smtp = Smtp(connect(host, port)?);
        smtp.reply("220")?;
        smtp.command("EHLO perf.localhost\r\n", "250")?;
        smtp.command(&format!("AUTH PLAIN {}\r\n", plain(address, password)), "235")?;
        Ok(smtp)
    }

    /// Sends one message, one command at a time; returns when the server has taken responsibility for it.
    pub fn send(&mut self, from: &str, to: &str, message: &[u8]) -> Result<(), ClientError> {
        self.command(&format!("MAIL FROM:<{from}>\r\n"), "250")?;
        self.command(&format!("RCPT TO:<{to}>\r\n"), "250")?;
        self.command("DATA\r\n", "354")?;
        say(&mut self.0, message)?;
        self.command("\r\n.\r\n", "250")
    }

    fn command(&mut self, text: &str, code: &'static str) -> Result<(), ClientError> {
        say(&mut self.0, text.as_bytes())?;
        self.reply(code)
    }

    fn reply(&mut self, code: &'static str) -> Result<(), ClientError> {
        loop {
            let got = line(&mut self.0)?;
            if !got.starts_with(code) {
                return Err(ClientError::Unexpected { expected: code, got });
            }
            if got.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}

/// A logged-in IMAP session with its inbox selected.
pub struct Imap {
    stream: Stream,
    /// Messages in the inbox, as far as the server has told.
    pub exists: u64,
}

impl Imap {
    /// Connects, logs in and selects the inbox.
    pub fn inbox(host: &str, port: u16, address: &str, password: &str) -> Result<Imap, ClientError> {
        let mut imap = Imap { stream: connect(host, port)?, exists: 0 };
        line(&mut imap.stream)?;
        imap.command("a", &format!("AUTHENTICATE PLAIN {}", plain(address, password)))?;
        imap.command("b", "SELECT INBOX")?;
        Ok(imap)
    }

    fn command(&mut self, tag: &str, text: &str) -> Result<(), ClientError> {
        say(&mut self.stream, format!("{tag} {text}\r\n").as_bytes())?;
        loop {
            let got = self.hear()?;
            match got.strip_prefix(tag) {
                Some(end) if end.starts_with(" OK") => return Ok(()),
                Some(_) => return Err(ClientError::Unexpected { expected: "OK", got }),
                None => {}
            }
        }
    }

    /// One line, noted if it tells how many messages there are.
    fn hear(&mut self) -> Result<String, ClientError> {
        let got = line(&mut self.stream)?;
        let count = got.strip_prefix("* ").and_then(|rest| rest.strip_suffix(" EXISTS"));
        if let Some(count) = count.and_then(|digits| digits.parse().ok()) {
            self.exists = count;
        }
        Ok(got)
    }

    /// Idles until the inbox holds `count` messages: the server pushes, nobody asks.
    pub fn idle_until(&mut self, count: u64) -> Result<(), ClientError> {
        say(&mut self.stream, b"i IDLE\r\n")?;
        while !self.hear()?.starts_with('+') {}
        while self.exists < count {
            self.hear()?;
        }
        say(&mut self.stream, b"DONE\r\n")?;
        while !self.hear()?.starts_with("i OK") {}
        Ok(())
    }
}
