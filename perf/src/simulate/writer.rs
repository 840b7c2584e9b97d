//! The process that is killed: opens the store, tells everything that is in it, then changes it until it dies.
//!
//! Lines on standard output, each flushed before anything that could follow from it is submitted:
//!
//! ```text
//! opened                                        the store has recovered
//! held <kind> <number> <version> <expiry> <length> <fingerprint>
//! lost <kind> <number>                          listed by a scan, not given by a get
//! writing                                       all has been told; changes begin
//! answer <number> put|superseded|touched n|removed true|removed false|swept n|failed ...
//! ```
//!
//! Operations are submitted in the order of their numbers, at most [`WINDOW`] unanswered. One that changes a key waits for
//! those before it on the same key; a sweep waits for all before it, and only puts of new objects overtake it.

use super::operations::{Operation, WINDOW, fingerprint};
use crate::load::LoadError;
use engine::{Completion, Config, Engine, Key, Port, Request, Response};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufWriter, Stdout, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Puts that the control acknowledges without having submitted them.
const HELD_BACK: usize = 16;

/// What the killed process is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Orders {
    /// The store's directory.
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// The seed of the operations.
    #[arg(long)]
    pub(super) seed: u64,
    /// The first operation's number.
    #[arg(long)]
    pub(super) from: u64,
    /// Close the store in order instead of changing it.
    #[arg(long)]
    pub(super) last: bool,
    /// The control's defect: puts are acknowledged before they are submitted.
    #[arg(long)]
    pub(super) acknowledge_early: bool,
}

/// A small store: segments of 1 MiB, so that some are cleaned and freed every second.
fn config(dir: PathBuf) -> Config {
    Config {
        capacity_bytes: 128 << 20,
        segment_bytes: 1 << 20,
        tick_s: 1,
        grace_s: super::journal::GRACE_S,
        clock_jump_s: u64::MAX,
        objects_per_shard_max: 100_000,
        pin: false,
        ..Config::new(dir)
    }
}

/// Does as told until killed.
pub(crate) fn write(orders: &Orders) -> Result<(), LoadError> {
    let mut out = BufWriter::new(std::io::stdout());
    let engine = Engine::open(config(orders.dir.clone()))?;
    tell(&mut out, "opened")?;
    tell_everything(&engine, &mut out)?;
    tell(&mut out, "writing")?;
    if orders.last {
        engine.close();
        return Ok(());
    }
    let this = std::thread::current();
    let port = engine.port(WINDOW as usize, Arc::new(move || this.unpark()));
    let mut writer = Writer {
        orders: orders.clone(),
        out,
        port,
        next: orders.from,
        flying: BTreeMap::new(),
        busy: BTreeSet::new(),
        sweeping: false,
        held_back: VecDeque::new(),
    };
    loop {
        writer.listen()?;
        if !writer.submit()? {
            // The wake-up leaves a token, so that one that comes before the park is not lost.
            std::thread::park();
        }
    }
}

fn tell(out: &mut BufWriter<Stdout>, line: &str) -> Result<(), LoadError> {
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Walks the whole ring, and gets every object listed.
fn tell_everything(engine: &Engine, out: &mut BufWriter<Stdout>) -> Result<(), LoadError> {
    let mut client = engine.client();
    let mut after = None;
    loop {
        let page = client.scan([0; 20], [0xff; 20], after, 1_000)?;
        for entry in &page {
            let mut number = [0; 8];
            number.copy_from_slice(&entry.key.name[..8]);
            let (kind, number) = (entry.key.kind, u64::from_be_bytes(number));
            match client.get(entry.key)? {
                Some(object) => {
                    let (version, expiry) = (object.version, object.expiry_s);
                    let (length, print) = (object.value.len(), fingerprint(&object.value));
                    writeln!(out, "held {kind} {number} {version} {expiry} {length} {print}")?;
                }
                None => writeln!(out, "lost {kind} {number}")?,
            }
        }
        out.flush()?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.key);
    }
}

struct Writer {
    orders: Orders,
    out: BufWriter<Stdout>,
    port: Port,
    next: u64,
    /// Unanswered operations with the keys they change.
    flying: BTreeMap<u64, Vec<Key>>,
    busy: BTreeSet<Key>,
    sweeping: bool,
    /// The control's: told as done and not submitted yet.
    held_back: VecDeque<(u64, Request)>,
}

impl Writer {
    /// Tells all answers that have come.
    fn listen(&mut self) -> Result<(), LoadError> {
        while let Some(Completion { tag, result }) = self.port.poll() {
            for key in self.flying.remove(&tag).unwrap_or_default() {
                self.busy.remove(&key);
            }
            let early = self.orders.acknowledge_early && result == Ok(Response::Put);
            match result {
                Ok(Response::Put) if early => {}
                Ok(Response::Put) => writeln!(self.out, "answer {tag} put")?,
                Ok(Response::Superseded { .. }) => writeln!(self.out, "answer {tag} superseded")?,
                Ok(Response::Touched { known }) => writeln!(self.out, "answer {tag} touched {known}")?,
                Ok(Response::Removed(removed)) => writeln!(self.out, "answer {tag} removed {removed}")?,
                Ok(Response::Swept { expired, .. }) => {
                    self.sweeping = false;
                    writeln!(self.out, "answer {tag} swept {expired}")?;
                }
                other => writeln!(self.out, "answer {tag} failed {other:?}")?,
            }
        }
        Ok(self.out.flush()?)
    }

    /// Submits what may be submitted. Returns whether something was.
    fn submit(&mut self) -> Result<bool, LoadError> {
        let mut moved = false;
        while self.flying.first_key_value().is_none_or(|(oldest, _)| self.next - oldest < WINDOW) {
            let operation = Operation::of(self.orders.seed, self.next);
            if !self.may_begin(&operation) {
                return Ok(moved | self.release(0)?);
            }
            let keys = operation.keys();
            self.busy.extend(&keys);
            self.flying.insert(self.next, keys);
            self.sweeping |= matches!(operation, Operation::Sweep { .. });
            let request = operation.request(self.orders.seed);
            if self.orders.acknowledge_early && matches!(operation, Operation::Put { .. }) {
                tell(&mut self.out, &format!("answer {} put", self.next))?;
                self.held_back.push_back((self.next, request));
                self.release(HELD_BACK)?;
            } else {
                self.hand_over(self.next, request)?;
            }
            self.next += 1;
            moved = true;
        }
        Ok(moved | self.release(0)?)
    }

    fn may_begin(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Sweep { .. } => self.flying.is_empty(),
            Operation::Put { version: 0, .. } => true,
            other => !self.sweeping && other.keys().iter().all(|key| !self.busy.contains(key)),
        }
    }

    /// Submits what the control holds back, down to so many.
    fn release(&mut self, keep: usize) -> Result<bool, LoadError> {
        let mut moved = false;
        while self.held_back.len() > keep {
            let Some((number, request)) = self.held_back.pop_front() else { break };
            self.hand_over(number, request)?;
            moved = true;
        }
        Ok(moved)
    }

    fn hand_over(&mut self, number: u64, request: Request) -> Result<(), LoadError> {
        let refused = self.port.submit(number, request).is_err();
        if refused {
            return Err(LoadError::Unexpected { expected: "room in the port", got: format!("{WINDOW} in flight") });
        }
        Ok(())
    }
}
