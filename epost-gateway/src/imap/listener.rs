//! Accepting connections, within bounds.
//!
//! One task accepts and counts; each session is a task of its own. A connection above the bound, in all or from
//! one address, is told so (in clear) or closed (where TLS is expected from the first octet), and counted.

use super::socket::Socket;
use super::wire::Stream;
use super::{Counters, Service, connection, limits};
use crate::tls::TlsMode;
use post::store::ObjectStore;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How long to wait when the system has no more descriptors to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one connection to its end. `is_private` says that the stream is under TLS already; otherwise the
/// acceptor, if there is one, serves STARTTLS, and nobody can log in before it.
pub async fn serve<S: ObjectStore>(
    stream: impl Stream + 'static,
    is_private: bool,
    acceptor: Option<TlsAcceptor>,
    service: Service<S>,
    shutdown: watch::Receiver<bool>,
) {
    Counters::count(&service.counters.sessions);
    connection::converse(Box::new(stream), is_private, acceptor, service, shutdown).await;
}

/// Accepts connections until `shutdown` says true (or its sender is gone), then lets sessions say goodbye.
pub async fn listen<S: ObjectStore>(
    listener: TcpListener,
    mode: TlsMode,
    acceptor: TlsAcceptor,
    service: Service<S>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut sessions = Sessions::default();
    let stopping = shutdown.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if sessions.has_room_for(peer.ip()) => {
                    let session = begin(stream, mode, acceptor.clone(), service.clone(), stopping.clone());
                    sessions.begin(peer.ip(), session);
                }
                Ok((stream, _)) => refuse(&stream, mode, &service),
                Err(error) => {
                    tracing::warn!(%error, "IMAP accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = sessions.tasks.join_next_with_id(), if !sessions.tasks.is_empty() => sessions.end(ended),
            () = asked_to_stop(&mut shutdown) => break,
        }
    }
    drop(listener);
    let all_ended = async { while sessions.tasks.join_next().await.is_some() {} };
    if timeout(limits::SHUTDOWN_WAIT_MAX, all_ended).await.is_err() {
        tracing::debug!("IMAP sessions were cut off");
    }
}

/// The sessions running, by the address they come from.
#[derive(Default)]
struct Sessions {
    tasks: JoinSet<()>,
    addresses: BTreeMap<Id, IpAddr>,
    from: BTreeMap<IpAddr, usize>,
}

impl Sessions {
    fn has_room_for(&self, address: IpAddr) -> bool {
        let from_there = self.from.get(&address).copied().unwrap_or(0);
        self.tasks.len() < limits::SESSIONS_MAX && from_there < limits::SESSIONS_PER_ADDRESS_MAX
    }

    fn begin(&mut self, address: IpAddr, session: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(session);
        self.addresses.insert(task.id(), address);
        *self.from.entry(address).or_default() += 1;
    }

    fn end(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                // One session's defect is not the others' end.
                tracing::error!(%error, "an IMAP session failed");
                error.id()
            }
        };
        let Some(address) = self.addresses.remove(&id) else { return };
        if let Some(count) = self.from.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.from.remove(&address);
            }
        }
    }
}

async fn begin<S: ObjectStore>(
    stream: TcpStream,
    mode: TlsMode,
    acceptor: TlsAcceptor,
    service: Service<S>,
    shutdown: watch::Receiver<bool>,
) {
    let stream = Socket::new(stream);
    match mode {
        TlsMode::StartTls => serve(stream, false, Some(acceptor), service, shutdown).await,
        TlsMode::Implicit => match timeout(limits::HANDSHAKE_WAIT_MAX, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, true, None, service, shutdown).await,
            Ok(Err(_)) | Err(_) => Counters::count(&service.counters.handshake_failed),
        },
    }
}

/// Ends when the server is asked to stop, or nobody is left to ask.
async fn asked_to_stop(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Says no to a connection, without waiting for it: an answer this short fits into any socket's buffer.
fn refuse<S: ObjectStore>(stream: &TcpStream, mode: TlsMode, service: &Service<S>) {
    Counters::count(&service.counters.refused);
    if mode == TlsMode::StartTls {
        // Whether the client hears it is its own matter.
        let _ = stream.try_write(b"* BYE [UNAVAILABLE] too many connections\r\n");
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
