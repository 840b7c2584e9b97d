//! Mail through a running ring: how many messages a second are accepted, and how soon they are visible.
//!
//! The ring is the one that `epost up` makes: five node processes, content on three of them, heads on five with a
//! quorum of four, all on this machine and its one disk. Alice's gateway takes the messages over SMTP with implicit TLS,
//! on several connections, one message after the other on each; bob's gateway pushes them to an idling IMAP session.

use super::{Dice, LoadError};
use crate::report::{Report, Row, Sample, Watch};
use base64::Engine as _;
use epost_gateway::cli::mail_client::{Imap, Smtp};
use indicatif::ProgressBar;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Until the ring is ready.
const READY_MAX: Duration = Duration::from_secs(120);
/// Messages sent one at a time for the latencies of a round.
const SINGLES: usize = 40;
/// Ports that `up --port-base` may use.
const PORTS: u16 = 32;

/// What is to be measured.
pub(crate) struct Plan {
    /// Where the ring's folder is put.
    pub(crate) dir: PathBuf,
    /// Messages per round.
    pub(crate) messages: usize,
    /// SMTP connections.
    pub(crate) connections: usize,
    /// Bytes of a body.
    pub(crate) bytes: usize,
    /// Rounds.
    pub(crate) rounds: usize,
    /// The binary; built when `None`.
    pub(crate) epost: Option<PathBuf>,
}

/// Starts a ring, measures, stops it.
pub(crate) fn measure(plan: &Plan) -> Result<Report, LoadError> {
    std::fs::create_dir_all(&plan.dir)?;
    let scratch = tempfile::Builder::new().prefix("perf-mail-").tempdir_in(&plan.dir)?;
    let epost = plan.epost.clone().map_or_else(build, Ok)?;
    let watch = Watch::start();
    let ring = Ring::start(&epost, scratch.path())?;
    let mut rows = [
        Row::new("accepted", "messages/s"),
        Row::new("accepted and visible", "messages/s"),
        Row::new("one at a time: DATA to 250, median of the round", "ms"),
        Row::new("one at a time: 250 to EXISTS, median of the round", "ms"),
    ];
    let progress = ProgressBar::new((plan.rounds * 2) as u64);
    for round in 0..plan.rounds {
        let (accepted, visible) = flood(plan, &ring, round)?;
        progress.inc(1);
        let (taken, pushed) = singles(plan, &ring, round)?;
        progress.inc(1);
        for (row, value) in rows.iter_mut().zip([accepted, visible, taken, pushed]) {
            row.samples.push(Sample::alone(value));
        }
    }
    progress.finish_and_clear();
    // Stopped and awaited, so that its processor time counts as ours.
    drop(ring);
    let mut report = Report::new("load mail", scratch.path(), &watch);
    report.note(format!(
        "{} messages of {} bytes a round over {} connections, then {SINGLES} one at a time; TLS on every connection",
        plan.messages, plan.bytes, plan.connections
    ));
    report.note(
        "five node processes, clients and one disk share this machine; a message is accepted when its parts are durable at \
         their quorum of 3 copies and its outbox record at 4 of 5; visible when the recipient's idling session is told",
    );
    report.rows = rows.to_vec();
    Ok(report)
}

/// Sends all messages of a round at once; returns messages per second accepted, and accepted and visible.
fn flood(plan: &Plan, ring: &Ring, round: usize) -> Result<(f64, f64), LoadError> {
    let mut inbox = ring.inbox()?;
    let wanted = inbox.exists + plan.messages as u64;
    let mut sessions = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        sessions.push(ring.smtp()?);
    }
    let start = Instant::now();
    let (accepted, visible) = std::thread::scope(|scope| {
        let watcher = scope.spawn(move || Ok(inbox.idle_until(wanted).map(|()| start.elapsed())?));
        let senders: Vec<_> = sessions
            .into_iter()
            .enumerate()
            .map(|(number, session)| scope.spawn(move || send_share(plan, ring, session, round, number)))
            .collect();
        let sent: Result<(), LoadError> = senders.into_iter().try_for_each(joined);
        let accepted = start.elapsed();
        (sent.map(|()| accepted), joined(watcher))
    });
    let count = plan.messages as f64;
    Ok((count / accepted?.as_secs_f64(), count / visible?.as_secs_f64()))
}

/// A thread's result; a panic in it goes on here.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, LoadError>>) -> Result<T, LoadError> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// One connection's share of a round.
fn send_share(plan: &Plan, ring: &Ring, mut session: Smtp, round: usize, number: usize) -> Result<(), LoadError> {
    for turn in (number..plan.messages).step_by(plan.connections) {
        let name = format!("{round}-{turn}-{}", std::process::id());
        session.send(&ring.alice.address, &[&ring.bob.address], &message(ring, &name, plan.bytes))?;
    }
    Ok(())
}

/// Sends messages one at a time; returns the median milliseconds to the 250 and from there to the push.
fn singles(plan: &Plan, ring: &Ring, round: usize) -> Result<(f64, f64), LoadError> {
    let mut inbox = ring.inbox()?;
    let mut session = ring.smtp()?;
    let (mut taken, mut pushed) = (Vec::new(), Vec::new());
    for turn in 0..SINGLES {
        let name = format!("single-{round}-{turn}-{}", std::process::id());
        let text = message(ring, &name, plan.bytes);
        let wanted = inbox.exists + 1;
        let (taken_ms, pushed_ms) = std::thread::scope(|scope| {
            let watched = &mut inbox;
            let watcher = scope.spawn(move || Ok(watched.idle_until(wanted).map(|()| Instant::now())?));
            let start = Instant::now();
            let sent = session.send(&ring.alice.address, &[&ring.bob.address], &text);
            let accepted = Instant::now();
            (
                sent.map(|()| accepted - start).map_err(LoadError::from),
                joined(watcher).map(|seen| seen.saturating_duration_since(accepted)),
            )
        });
        taken.push(taken_ms?.as_secs_f64() * 1e3);
        pushed.push(pushed_ms?.as_secs_f64() * 1e3);
    }
    Ok((middle(taken), middle(pushed)))
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

/// A message whose body is different every time.
fn message(ring: &Ring, name: &str, bytes: usize) -> Vec<u8> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut random = vec![0; bytes * 3 / 4];
    Dice::new(seed).fill(&mut random);
    let text = base64::engine::general_purpose::STANDARD.encode(random);
    let mut message = format!(
        "From: {}\r\nTo: {}\r\nSubject: load {name}\r\nDate: Sat, 21 Nov 2026 18:00:00 +0000\r\n\
         Message-ID: <{name}@perf.example>\r\n\r\n",
        ring.alice.address, ring.bob.address
    )
    .into_bytes();
    for line in text.as_bytes().chunks(76) {
        message.extend_from_slice(line);
        message.extend_from_slice(b"\r\n");
    }
    message
}

/// How to reach a user's gateway.
struct User {
    address: String,
    password: String,
    host: String,
    smtp: u16,
    imap: u16,
}

impl User {
    fn read(up: &serde_json::Value, number: usize) -> Result<User, LoadError> {
        let user = &up["users"][number];
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let port = |service: &str| user[service]["tls"].as_u64().and_then(|port| u16::try_from(port).ok());
        let read = || {
            Some(User {
                address: text(&user["address"])?,
                password: text(&user["password"])?,
                host: text(&user["smtp"]["host"])?,
                smtp: port("smtp")?,
                imap: port("imap")?,
            })
        };
        read().ok_or_else(|| LoadError::Ring(format!("up.json does not describe user {number}")))
    }
}

/// A running `epost up`, stopped when dropped.
struct Ring {
    process: Child,
    alice: User,
    bob: User,
}

impl Ring {
    /// Starts the ring in `scratch` and waits until it is ready.
    fn start(epost: &Path, scratch: &Path) -> Result<Ring, LoadError> {
        let dir = scratch.join("ring");
        let said = std::fs::File::create(scratch.join("up.out"))?;
        let mut process = Command::new(epost)
            .args(["up", "--port-base", &free_ports()?.to_string(), "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(said)
            .spawn()?;
        let end = Instant::now() + READY_MAX;
        loop {
            if let Ok(text) = std::fs::read_to_string(dir.join("up.json")) {
                let up: serde_json::Value = serde_json::from_str(&text)?;
                return Ok(Ring { process, alice: User::read(&up, 0)?, bob: User::read(&up, 1)? });
            }
            if let Some(status) = process.try_wait()? {
                return Err(LoadError::Ring(format!("`epost up` ended with {status}")));
            }
            if Instant::now() > end {
                stop(&mut process);
                return Err(LoadError::Ring("not ready in time".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn inbox(&self) -> Result<Imap, LoadError> {
        let mut inbox = Imap::login(&self.bob.host, self.bob.imap, &self.bob.address, &self.bob.password)?;
        inbox.select("INBOX")?;
        Ok(inbox)
    }

    fn smtp(&self) -> Result<Smtp, LoadError> {
        Ok(Smtp::login(&self.alice.host, self.alice.smtp, &self.alice.address, &self.alice.password)?)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        stop(&mut self.process);
    }
}

/// Ctrl-C, as a person would; `up` stops its nodes.
fn stop(process: &mut Child) {
    let _ = Command::new("sh").arg("-c").arg(format!("kill -INT {}", process.id())).status();
    let _ = process.wait();
}

/// First port of a range that is free on loopback.
fn free_ports() -> Result<u16, LoadError> {
    let free = |base: &u16| {
        (*base..*base + PORTS)
            .all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok())
    };
    (41_000..60_000).step_by(100).find(free).ok_or_else(|| LoadError::Ring("no free range of ports".to_owned()))
}

/// Builds the binary with cargo, in release, and returns its path: it lies beside this one.
fn build() -> Result<PathBuf, LoadError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--release", "-p", "epost-gateway", "--bin", "epost"]).status()?;
    let beside = std::env::current_exe()?.with_file_name("epost");
    if status.success() && beside.is_file() {
        return Ok(beside);
    }
    Err(LoadError::Ring(format!("no binary at {}: build it, or name one with --epost", beside.display())))
}
