//! One running node: machines on overlay threads, and the I/O around them.
//!
//! ```text
//!  tokio: QUIC, HTTP ─(inbox)─▶ overlay threads: Machine ─(port)─▶ engine shards
//!        ▲    callers ─(inbox)─▶        │     │
//!        └──────────(transport)─────────┘     └─(queue)─▶ compute workers
//! ```
//!
//! Every arrow is a bounded queue. What a node does not do: it decides nothing about routing, replication or leases
//! (`net`), knows no mail (`post` and the rooms beside this one), and never waits for a peer on an overlay thread.
//!
//! Start with [`Node`] and `start`, which puts it together; then `driver` (the overlay thread) and [`transport`].

pub mod client;
pub mod clock;
mod compute;
mod driver;
pub mod enrolment;
mod inbox;
pub mod limits;
pub mod readiness;
mod ring_file;
mod scrubber;
mod start;
pub mod status;
mod storage;
mod sweeper;
mod timers;
pub mod transport;
mod until;

pub use client::{Answer, Delivery, RingStore};
pub use enrolment::{Enrolment, EnrolmentError};
pub use readiness::Readiness;
pub use status::Registry;
pub use until::told_to_stop;

use engine::{Engine, OpenError};
use inbox::Inbox;
use net::id::Id;
use net::overlay::OverlayStatus;
use net::ring::RingError;
use net::roster::Roster;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, watch};
use transport::{Quic, SocketError};

/// Why a node could not start, or had to end. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// This host is no member of its ring.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The QUIC endpoint could not be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The status page's address is taken, or not ours.
    #[error("cannot listen on TCP {address} for the status page: {source}; stop what uses it, or change node.status")]
    StatusAddress {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The overlay does not accept the ring document, although the enrolment did.
    #[error("the ring document cannot be used: {0}")]
    Ring(#[from] RingError),
    /// The system gives no more threads.
    #[error("cannot start a thread: {0}; raise the limit on processes (ulimit -u)")]
    Thread(#[source] std::io::Error),
    /// A thread of the node has ended by itself: a defect of this program. The log has told where.
    #[error("a thread of the node has failed; this is a defect, see the log")]
    Failed,
}

impl NodeError {
    /// The exit code of a process that ends with this: 2 where the operator can do something about it, 1 for a defect.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, NodeError::Failed) { 1 } else { 2 }
    }
}

/// A running node. [`Node::stop`] ends it in order; dropped, it stops without waiting for anybody.
pub struct Node {
    ids: Vec<Id>,
    store: RingStore,
    deliveries: Option<mpsc::Receiver<Delivery>>,
    registry: Registry,
    readiness: Readiness,
    overlay: watch::Receiver<Arc<OverlayStatus>>,
    ring: watch::Receiver<Arc<Roster>>,
    status_address: SocketAddr,
    at_work: AtWork,
    threads: Vec<JoinHandle<()>>,
    engine: Arc<Engine>,
    /// True once any of the threads has ended.
    ending: watch::Receiver<bool>,
}

/// What has to be told to stop.
struct AtWork {
    quic: Quic,
    inboxes: Vec<Arc<Inbox>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.quic.close();
        self.inboxes.iter().for_each(|inbox| inbox.stop());
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Node {
    /// This host's first node id.
    #[must_use]
    pub fn id(&self) -> Id {
        self.ids[0]
    }

    /// The ring as an object store.
    #[must_use]
    pub fn store(&self) -> RingStore {
        self.store.clone()
    }

    /// Packets from other users' nodes, for the one room that handles them; `None` when it has been taken.
    pub fn deliveries(&mut self) -> Option<mpsc::Receiver<Delivery>> {
        self.deliveries.take()
    }

    /// Counters and gauges, for other rooms to add theirs.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What holds the node back from being ready, for other rooms to add theirs.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The overlay's state, a moment ago.
    #[must_use]
    pub fn overlay(&self) -> Arc<OverlayStatus> {
        self.overlay.borrow().clone()
    }

    /// The ring document, and every newer one that the node adopts.
    #[must_use]
    pub fn ring(&self) -> watch::Receiver<Arc<Roster>> {
        self.ring.clone()
    }

    /// Where the status page is.
    #[must_use]
    pub fn status_address(&self) -> SocketAddr {
        self.status_address
    }

    /// Waits until the overlay has joined its ring. False if the node ends before.
    pub fn ready(&self) -> impl Future<Output = bool> + Send + 'static {
        let mut overlay = self.overlay.clone();
        async move { overlay.wait_for(|overlay| overlay.ready).await.is_ok() }
    }

    /// Waits for a thread of the node to end by itself, which is a defect.
    pub async fn failed(&self) -> NodeError {
        // An error means that all of them have ended.
        let _ = self.ending.clone().wait_for(|ended| *ended).await;
        NodeError::Failed
    }

    /// Ends the node in order: no more messages, no more decisions, then the store drains and closes.
    pub async fn stop(self) {
        let Node { at_work, threads, engine, .. } = self;
        at_work.quic.stop().await;
        drop(at_work);
        let closed = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the node had failed");
                }
            }
            // The ports are gone with the threads. The last reference closes the store.
            drop(engine);
        });
        if closed.await.is_err() {
            tracing::error!("the store did not close in order");
        }
    }
}
