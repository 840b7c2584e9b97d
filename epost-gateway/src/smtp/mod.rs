//! Submission: how mail leaves a client and becomes ePOST's (RFC 6409, with 5321, 3207, 4954, 2920, 1870, 6152, 2034).
//!
//! A line travels `input` → `command` → `session` (decides, no I/O) → `connection` (does it) → `reply`;
//! a message travels `data` (unstuffing, bounds) → `header` (who is it from; what is missing) → the account
//! layer behind `users`. 250 after the dot means what the account layer's `submit` promises and nothing less.
//!
//! What it is not: a relay, or a server for mail from outside. It takes mail from users of this node only, for
//! addresses of the ring's own domain only, and it keeps no queue: the outbox is a replicated log of the account.

mod command;
mod connection;
mod counters;
mod data;
mod header;
mod input;
pub mod limits;
mod reply;
mod session;
#[cfg(test)]
mod tests;
mod users;

pub use counters::Counters;
pub use limits::Limits;
pub use users::{User, Users};

use crate::node::status::Registry;
use crate::tls::TlsMode;
use connection::{Connection, Ended};
use data::MessageMemory;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// What all connections of one submission server have in common.
pub struct Service<U: Users> {
    users: U,
    domain: String,
    host: String,
    limits: Limits,
    counters: Counters,
    memory: MessageMemory,
    addresses: Mutex<BTreeMap<IpAddr, usize>>,
}

impl<U: Users> Service<U> {
    /// A service for `users`, whose addresses are in `domain`, on a machine that calls itself `host`; it counts in
    /// `registry`.
    pub fn new(users: U, domain: &str, host: &str, limits: Limits, registry: &Registry) -> Arc<Self> {
        let memory = MessageMemory::new(limits.received_bytes_max);
        Arc::new(Service {
            users,
            domain: domain.to_owned(),
            host: host.to_owned(),
            limits,
            counters: Counters::new(registry),
            memory,
            addresses: Mutex::default(),
        })
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A place for one more connection from `address`, or nothing when a bound is reached.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place<U>> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = addresses.values().sum();
        let from_here = addresses.get(&address).copied().unwrap_or(0);
        if total >= self.limits.connections_max || from_here >= self.limits.connections_per_address_max {
            self.counters.connections_refused.increment();
            return None;
        }
        addresses.insert(address, from_here + 1);
        Some(Place { service: self.clone(), address })
    }
}

/// One connection's place among those allowed; given back when dropped.
struct Place<U: Users> {
    service: Arc<Service<U>>,
    address: IpAddr,
}

impl<U: Users> Drop for Place<U> {
    fn drop(&mut self) {
        let mut addresses = self.service.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connections) = addresses.get_mut(&self.address) {
            *connections -= 1;
            if *connections == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// Accepts connections until `shutdown` says `true`, then lets the open ones end (they are told to, and those in the
/// middle of storing a message answer for it first).
pub async fn listen<U: Users>(
    listener: TcpListener,
    mode: TlsMode,
    acceptor: TlsAcceptor,
    service: Arc<Service<U>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let told = shutdown.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some(place) = service.admit(peer.ip()) {
                        connections.spawn(admitted(stream, place, mode, acceptor.clone(), told.clone()));
                    }
                }
                // Out of descriptors, most likely; accepting again at once would only spin.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a submission connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = told_to_stop(&mut shutdown) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Returns when the daemon is to stop, which a dropped sender means as well.
async fn told_to_stop(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|&stop| stop).await;
}

async fn admitted<U: Users>(
    stream: TcpStream,
    place: Place<U>,
    mode: TlsMode,
    acceptor: TlsAcceptor,
    shutdown: watch::Receiver<bool>,
) {
    // Replies are small and answered; waiting to fill a packet would only add delay.
    let _ = stream.set_nodelay(true);
    serve(stream, mode, acceptor, &place.service, shutdown).await;
}

/// Serves one connection over any stream, to its end.
pub async fn serve<T, U>(
    stream: T,
    mode: TlsMode,
    acceptor: TlsAcceptor,
    service: &Service<U>,
    shutdown: watch::Receiver<bool>,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send,
    U: Users,
{
    service.counters.sessions.increment();
    let (stream, greet) = match mode {
        TlsMode::Implicit => (stream, true),
        TlsMode::StartTls => {
            let mut connection = Connection::new(stream, false, service, shutdown.clone());
            match connection.run(true).await {
                Ended::Closed => return,
                Ended::StartTls => (connection.into_stream(), false),
            }
        }
    };
    let Ok(Ok(stream)) = timeout(service.limits.handshake_max, acceptor.accept(stream)).await else {
        service.counters.handshakes_failed.increment();
        return;
    };
    Connection::new(stream, true, service, shutdown).run(greet).await;
}
