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
/// The longest message it may send.
const LITERAL_BYTES_MAX: usize = 256 << 20;

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

    /// Sends one message, one command at a time; returns when the server has taken responsibility for it. The message
    /// ends with a line's end, and none of its lines begins with a dot.
    pub fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> Result<(), ClientError> {
        assert!(message.ends_with(b"\r\n"));
        self.command(&format!("MAIL FROM:<{from}>\r\n"), "250")?;
        for recipient in to {
            self.command(&format!("RCPT TO:<{recipient}>\r\n"), "250")?;
        }
        self.command("DATA\r\n", "354")?;
        say(&mut self.0, message)?;
        self.command(".\r\n", "250")
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

/// A logged-in IMAP session.
pub struct Imap {
    stream: Stream,
    commands: u32,
    /// Messages in the selected folder, as far as the server has told.
    pub exists: u64,
}

/// One answer of a server: its text without its literals, and those.
struct Answer {
    text: String,
    literals: Vec<Vec<u8>>,
}

impl Imap {
    /// Connects and logs in.
    pub fn login(host: &str, port: u16, address: &str, password: &str) -> Result<Imap, ClientError> {
        let mut imap = Imap { stream: connect(host, port)?, commands: 0, exists: 0 };
        line(&mut imap.stream)?;
        imap.command(&format!("AUTHENTICATE PLAIN {}", plain(address, password)))?;
        Ok(imap)
    }

    /// Selects a folder; returns its UIDVALIDITY.
    pub fn select(&mut self, folder: &str) -> Result<u32, ClientError> {
        let answers = self.command(&format!("SELECT {}", quoted(folder)))?;
        let told = answers.iter().find_map(|answer| number_after(&answer.text, "[UIDVALIDITY "));
        told.ok_or(ClientError::Unexpected { expected: "UIDVALIDITY", got: "none".to_owned() })
    }

    /// The names of all folders that can be selected, as the protocol writes them.
    pub fn folders(&mut self) -> Result<Vec<String>, ClientError> {
        let answers = self.command("LIST \"\" \"*\"")?;
        let lists = answers.iter().filter(|answer| answer.text.starts_with("* LIST ("));
        lists.filter(|answer| !answer.text.contains("\\Noselect")).map(folder_name).collect()
    }

    /// UID and flags of every message in the selected folder, the flags in order.
    pub fn listing(&mut self) -> Result<Vec<(u32, Vec<String>)>, ClientError> {
        let answers = self.command("UID FETCH 1:* (UID FLAGS)")?;
        let told = |answer: &Answer| Some((number_after(&answer.text, "UID ")?, flags(&answer.text)?));
        Ok(answers.iter().filter_map(told).collect())
    }

    /// The octets of one message of the selected folder, which stays unseen.
    pub fn message(&mut self, uid: u32) -> Result<Vec<u8>, ClientError> {
        let answers = self.command(&format!("UID FETCH {uid} (UID BODY.PEEK[])"))?;
        let told = answers.into_iter().find(|answer| number_after(&answer.text, "UID ") == Some(uid));
        let octets = told.and_then(|mut answer| answer.literals.pop());
        octets.ok_or(ClientError::Unexpected { expected: "the message", got: "nothing".to_owned() })
    }

    /// Makes a folder.
    pub fn create(&mut self, folder: &str) -> Result<(), ClientError> {
        self.command(&format!("CREATE {}", quoted(folder))).map(drop)
    }

    /// Moves a message of the selected folder to another.
    pub fn move_to(&mut self, uid: u32, folder: &str) -> Result<(), ClientError> {
        self.command(&format!("UID MOVE {uid} {}", quoted(folder))).map(drop)
    }

    /// Copies a message of the selected folder to another.
    pub fn copy_to(&mut self, uid: u32, folder: &str) -> Result<(), ClientError> {
        self.command(&format!("UID COPY {uid} {}", quoted(folder))).map(drop)
    }

    /// Gives a message of the selected folder a flag.
    pub fn add_flag(&mut self, uid: u32, flag: &str) -> Result<(), ClientError> {
        self.command(&format!("UID STORE {uid} +FLAGS.SILENT ({flag})")).map(drop)
    }

    /// Puts a message into a folder, with a flag.
    pub fn append(&mut self, folder: &str, flag: &str, message: &[u8]) -> Result<(), ClientError> {
        let tag = self.next_tag();
        say(
            &mut self.stream,
            format!("{tag} APPEND {} ({flag}) {{{}}}\r\n", quoted(folder), message.len()).as_bytes(),
        )?;
        let got = self.hear()?;
        if !got.starts_with('+') {
            return Err(ClientError::Unexpected { expected: "+", got });
        }
        say(&mut self.stream, message)?;
        say(&mut self.stream, b"\r\n")?;
        self.answers(&tag).map(drop)
    }

    fn command(&mut self, text: &str) -> Result<Vec<Answer>, ClientError> {
        let tag = self.next_tag();
        say(&mut self.stream, format!("{tag} {text}\r\n").as_bytes())?;
        self.answers(&tag)
    }

    fn next_tag(&mut self) -> String {
        self.commands += 1;
        format!("c{}", self.commands)
    }

    /// What is said until a command is done.
    fn answers(&mut self, tag: &str) -> Result<Vec<Answer>, ClientError> {
        let mut answers = Vec::new();
        loop {
            let answer = self.answer()?;
            match answer.text.strip_prefix(tag) {
                Some(end) if end.starts_with(" OK") => return Ok(answers),
                Some(_) => return Err(ClientError::Unexpected { expected: "OK", got: answer.text }),
                None => answers.push(answer),
            }
        }
    }

    /// One line, with the literals in it and the lines that go on behind them.
    fn answer(&mut self) -> Result<Answer, ClientError> {
        let mut answer = Answer { text: self.hear()?, literals: Vec::new() };
        while let Some(length) = literal_length(&answer.text) {
            if length > LITERAL_BYTES_MAX {
                return Err(ClientError::Unexpected { expected: "a shorter literal", got: answer.text });
            }
            let mut literal = vec![0; length];
            self.stream.read_exact(&mut literal)?;
            answer.literals.push(literal);
            let open = answer.text.rfind('{').unwrap_or_default();
            answer.text.truncate(open);
            answer.text += &line(&mut self.stream)?;
        }
        Ok(answer)
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

    /// Idles until the selected folder holds `count` messages: the server pushes, nobody asks.
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

/// A string that holds neither quotes nor backslashes, as all names of folders here.
fn quoted(text: &str) -> String {
    assert!(!text.contains(['"', '\\', '\r', '\n']), "not a name this client writes");
    format!("\"{text}\"")
}

/// The length at the end of a line that a literal follows.
fn literal_length(text: &str) -> Option<usize> {
    text.strip_suffix('}')?.rsplit_once('{')?.1.parse().ok()
}

/// The number behind the first `mark`.
fn number_after(text: &str, mark: &str) -> Option<u32> {
    let (_, after) = text.split_once(mark)?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..end].parse().ok()
}

/// The flags in a FETCH answer, in order.
fn flags(text: &str) -> Option<Vec<String>> {
    let (listed, _) = text.split_once("FLAGS (")?.1.split_once(')')?;
    let mut flags: Vec<String> = listed.split_ascii_whitespace().map(str::to_owned).collect();
    flags.sort();
    Some(flags)
}

/// The name in a LIST answer: the last of its parts.
fn folder_name(answer: &Answer) -> Result<String, ClientError> {
    if let Some(name) = answer.literals.last() {
        return Ok(String::from_utf8_lossy(name).into_owned());
    }
    let name = answer.text.split_once(" \"/\" ").map(|(_, name)| name.trim_matches('"'));
    let name = name.filter(|name| !name.contains(['"', '\\']));
    name.map(str::to_owned).ok_or(ClientError::Unexpected { expected: "a folder's name", got: answer.text.clone() })
}

#[cfg(test)]
mod tests {
    //! Goal: what a server says is read as what it is. Method: answers by hand; the sessions themselves are read in the
    //! tests of `epost drill`, with real servers.
    use super::*;

    #[test]
    fn parts_of_answers() {
        let fetch = "* 3 FETCH (UID 17 FLAGS (\\Seen \\Flagged) BODY[] {12}";
        assert_eq!((literal_length(fetch), number_after(fetch, "UID ")), (Some(12), Some(17)));
        assert_eq!(flags(fetch).unwrap(), ["\\Flagged", "\\Seen"]);
        assert_eq!(flags("* 3 FETCH (UID 17 FLAGS ())").unwrap(), [""; 0]);
        assert_eq!(number_after("* OK [UIDVALIDITY 4294967295] good", "[UIDVALIDITY "), Some(u32::MAX));
        for text in ["* 2 EXISTS", "* OK {x}", "}", "{", ""] {
            assert_eq!((literal_length(text), flags(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn names_of_folders() {
        let name = |text: &str, literals: &[&[u8]]| {
            let literals = literals.iter().map(|literal| literal.to_vec()).collect();
            folder_name(&Answer { text: text.to_owned(), literals }).ok()
        };
        assert_eq!(name("* LIST (\\HasNoChildren) \"/\" INBOX", &[]).as_deref(), Some("INBOX"));
        assert_eq!(name("* LIST () \"/\" \"Papers of 2026/&APw-\"", &[]).as_deref(), Some("Papers of 2026/&APw-"));
        assert_eq!(name("* LIST () \"/\" ", &[b"a\"b"]).as_deref(), Some("a\"b"));
        assert_eq!(name("* LIST () NIL x", &[]), None);
    }
}
