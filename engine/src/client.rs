//! A blocking door to the engine, for tools, tests and measurements. Drivers use a [`crate::Port`].

use crate::engine::Engine;
use crate::key::{Class, Key};
use crate::request::{Entry, Error, Object, Request, Response};
use crate::shard::Port;
use bytes::Bytes;
use std::sync::Arc;
use std::thread::{self, Thread};

/// One operation at a time, waiting for each. For one thread; make another client for another thread.
pub struct Client {
    port: Port,
    /// Whom the port wakes: the thread that waits.
    waiter: Arc<std::sync::Mutex<Option<Thread>>>,
}

impl Client {
    pub(crate) fn new(engine: &Engine) -> Client {
        let waiter: Arc<std::sync::Mutex<Option<Thread>>> = Arc::default();
        let wake = waiter.clone();
        let port = engine.port(
            1,
            Arc::new(move || {
                if let Ok(waiter) = wake.lock()
                    && let Some(thread) = waiter.as_ref()
                {
                    thread.unpark();
                }
            }),
        );
        Client { port, waiter }
    }

    /// Performs one request.
    ///
    /// # Errors
    /// As the engine answers; [`Error::Full`] also when the ports of this engine have taken all places.
    pub fn call(&mut self, request: Request) -> Result<Response, Error> {
        if let Ok(mut waiter) = self.waiter.lock() {
            *waiter = Some(thread::current());
        }
        self.port.submit(0, request).map_err(|_| Error::Full)?;
        loop {
            if let Some(completion) = self.port.poll_patiently() {
                return completion.result;
            }
            thread::park();
        }
    }

    /// Stores an immutable object.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>, expiry_s: u64) -> Result<(), Error> {
        let (account, class, value) = (0, Class::Fresh, value.into());
        self.call(Request::Put { key, version: 0, account, class, expiry_s, value }).map(|_| ())
    }

    /// Stores a version of a mutable object; `Some` is the version that stays instead.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn put_version(
        &mut self,
        key: Key,
        version: u64,
        value: impl Into<Bytes>,
        expiry_s: u64,
    ) -> Result<Option<u64>, Error> {
        let (account, class, value) = (0, Class::Mutable, value.into());
        match self.call(Request::Put { key, version, account, class, expiry_s, value })? {
            Response::Superseded { version } => Ok(Some(version)),
            _ => Ok(None),
        }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn get(&mut self, key: Key) -> Result<Option<Object>, Error> {
        match self.call(Request::Get { key })? {
            Response::Got(object) => Ok(object),
            _ => Ok(None),
        }
    }

    /// Extends leases; returns how many of the keys are known.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn touch_many(&mut self, leases: Vec<(Key, u64)>) -> Result<usize, Error> {
        match self.call(Request::TouchMany { leases })? {
            Response::Touched { known } => Ok(known),
            _ => Ok(0),
        }
    }

    /// Lists entries of a range, clockwise.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn scan(
        &mut self,
        from: [u8; 20],
        to: [u8; 20],
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        match self.call(Request::Scan { from, to, after, limit })? {
            Response::Listed(entries) => Ok(entries),
            _ => Ok(Vec::new()),
        }
    }

    /// Removes an object below a version; returns whether it was.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn remove_if_older(&mut self, key: Key, version: u64) -> Result<bool, Error> {
        Ok(self.call(Request::RemoveIfOlder { key, version })? == Response::Removed(true))
    }

    /// Sweeps expired objects; returns how many went and how many bytes came back.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn sweep(&mut self, now_s: u64) -> Result<(u64, u64), Error> {
        match self.call(Request::Sweep { now_s })? {
            Response::Swept { expired, freed_bytes } => Ok((expired, freed_bytes)),
            _ => Ok((0, 0)),
        }
    }

    /// Scrubs about so many bytes; returns what [`Response::Scrubbed`] says.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn scrub(&mut self, budget_bytes: u64) -> Result<Response, Error> {
        self.call(Request::Scrub { budget_bytes })
    }

    /// Confirms the clock after a jump.
    ///
    /// # Errors
    /// As the engine answers.
    pub fn confirm_clock(&mut self, now_s: u64) -> Result<(), Error> {
        self.call(Request::ConfirmClock { now_s }).map(|_| ())
    }
}
