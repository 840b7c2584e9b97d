//! The engine, through its public doors, with default settings but for the capacity and the number of shards (one per
//! processor, at most four).

use super::{Change, PlainReader, Reader, Reclaimed, See, Setting, Store};
use crate::fault::Fault;
use engine::limits::SCAN_ENTRIES_MAX;
use engine::{Class, Client, Config, Engine, Key, Port, Request, Response};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Shards at most: more than the processors of the machines this is run on would only take turns.
const SHARDS_MAX: usize = 4;
/// Room that a store wants besides its values, at least.
const CAPACITY_MIN: u64 = 4 << 30;

/// An open engine, with blocking clients that callers take turns with.
pub(crate) struct Ours {
    engine: Engine,
    clients: Mutex<Vec<Client>>,
}

impl Ours {
    pub(crate) fn open(dir: &Path, setting: &Setting) -> Result<Ours, Fault> {
        let mut config = Config::new(dir);
        config.shards = std::thread::available_parallelism().map_or(2, usize::from).min(SHARDS_MAX);
        config.capacity_bytes = (setting.data_bytes * 3).max(CAPACITY_MIN);
        // Lease periods pass in seconds here: a jump of the clock is no reason for doubt.
        config.clock_jump_s = u64::MAX / 4;
        Ok(Ours { engine: Engine::open(config)?, clients: Mutex::default() })
    }

    /// Lends a client to `act`.
    fn with_client<T>(&self, act: impl FnOnce(&mut Client) -> Result<T, Fault>) -> Result<T, Fault> {
        let lent = self.clients.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut client = lent.unwrap_or_else(|| self.engine.client());
        let done = act(&mut client);
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        done
    }
}

fn put(key: Key, expiry_s: u64, value: bytes::Bytes) -> Request {
    Request::Put { key, version: 0, account: 1, class: Class::Fresh, expiry_s, value }
}

impl Store for Ours {
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let mut leases = Vec::new();
        let mut requests = Vec::new();
        for change in changes {
            match change {
                Change::Put { key, expiry_s, value } => requests.push(put(key, expiry_s, value)),
                Change::Extend { key, expiry_s } => leases.push((key, expiry_s)),
            }
        }
        if !leases.is_empty() {
            requests.push(Request::TouchMany { leases });
        }
        if requests.len() == 1 {
            let Some(request) = requests.pop() else { return Ok(()) };
            return self.with_client(|client| Ok(client.call(request).map(|_| ())?));
        }
        let count = requests.len();
        let mut port = OursPort::new(&self.engine, count);
        for (tag, request) in requests.into_iter().enumerate() {
            port.submit(tag, request)?;
        }
        for _ in 0..count {
            port.wait()?.1?;
        }
        Ok(())
    }

    fn get(&self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        let object = self.with_client(|client| Ok(client.get(*key)?))?;
        if let Some(object) = &object {
            see(&object.value);
        }
        Ok(object.is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault> {
        Ok(Box::new(PlainReader(self)))
    }

    fn list(&self, from: [u8; 20], to: [u8; 20], see: &mut dyn FnMut(Key, u64)) -> Result<(), Fault> {
        self.with_client(|client| {
            let mut after = None;
            loop {
                let entries = client.scan(from, to, after, SCAN_ENTRIES_MAX)?;
                for entry in &entries {
                    see(entry.key, entry.expiry_s);
                }
                after = entries.last().map(|entry| entry.key);
                if entries.len() < SCAN_ENTRIES_MAX {
                    return Ok(());
                }
            }
        })
    }

    fn expire(&self, now_s: u64) -> Result<u64, Fault> {
        // The store keeps an object through its grace; the others have none.
        let now_s = now_s + 2 * 3600;
        self.with_client(|client| {
            client.confirm_clock(now_s)?;
            Ok(client.sweep(now_s)?.0)
        })
    }

    fn reclaim(&self) -> Result<Reclaimed, Fault> {
        // Sweeping cleans segments by itself, a few per sweep and at its own pace.
        Ok(Reclaimed::Done)
    }

    fn port(&self, depth: usize) -> Option<OursPort> {
        Some(OursPort::new(&self.engine, depth))
    }
}

/// The engine's asynchronous door, for the thread that made it.
pub(crate) struct OursPort {
    port: Port,
}

impl OursPort {
    fn new(engine: &Engine, depth: usize) -> OursPort {
        let this = std::thread::current();
        OursPort { port: engine.port(depth, Arc::new(move || this.unpark())) }
    }

    pub(crate) fn submit(&mut self, tag: usize, request: Request) -> Result<(), Fault> {
        self.port.submit(tag as u64, request).map_err(|_| Fault::Engine(engine::Error::Full))
    }

    /// Starts a change.
    pub(crate) fn change(&mut self, tag: usize, changes: Vec<Change>) -> Result<(), Fault> {
        let mut leases = Vec::new();
        for change in changes {
            match change {
                Change::Put { key, expiry_s, value } => return self.submit(tag, put(key, expiry_s, value)),
                Change::Extend { key, expiry_s } => leases.push((key, expiry_s)),
            }
        }
        self.submit(tag, Request::TouchMany { leases })
    }

    /// The next finished operation, if there is one.
    pub(crate) fn poll(&mut self) -> Option<(usize, Result<Response, Fault>)> {
        self.port.poll().map(|done| (done.tag as usize, done.result.map_err(Fault::Engine)))
    }

    /// Waits for the next finished operation.
    pub(crate) fn wait(&mut self) -> Result<(usize, Result<Response, Fault>), Fault> {
        loop {
            if let Some(done) = self.poll() {
                return Ok(done);
            }
            // The wake-up leaves a token, so one that comes before the park is not lost.
            std::thread::park();
        }
    }
}
