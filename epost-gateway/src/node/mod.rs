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
//! Start with [`Node::start`], then [`driver`], then [`transport`]. [`run`] is `epost node`.

pub mod client;
pub mod clock;
mod compute;
mod driver;
pub mod enrolment;
mod inbox;
pub mod limits;
pub mod readiness;
pub mod status;
mod storage;
mod timers;
pub mod transport;

pub use client::{Answer, Delivery, RingStore};
pub use enrolment::{Enrolment, EnrolmentError};
pub use readiness::Readiness;
pub use status::Registry;

use crate::config::Config;
use crate::web;
use clock::Clock;
use compute::Workshop;
use driver::{Counters, Driver};
use engine::{Engine, OpenError};
use inbox::{Inbox, Switchboard};
use limits::{DELIVERIES_MAX, READY_POLL_TIME, STATUS_POLL_TIME, STORAGE_UNDER_WAY_MAX};
use net::id::Id;
use net::overlay::{Overlay, OverlayConfig, OverlayStatus};
use net::ring::RingError;
use net::roster::Roster;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use storage::Storage;
use tokio::sync::{mpsc, watch};
use transport::{Admission, Directory, Quic, QuicConfig, SocketError, Transport};

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
    /// An overlay thread has ended by itself: a defect of this program. The log has told where.
    #[error("the overlay thread has failed; this is a defect, see the log")]
    Failed,
}

impl NodeError {
    /// The exit code of a process that ends with this: 2 where the operator can do something about it, 1 for a defect.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, NodeError::Failed) { 1 } else { 2 }
    }
}

/// A running node. [`Node::stop`] ends it in order; dropped, it just stops, without a farewell to its callers.
pub struct Node {
    ids: Vec<Id>,
    store: RingStore,
    deliveries: Option<mpsc::Receiver<Delivery>>,
    registry: Registry,
    readiness: Readiness,
    overlay: watch::Receiver<Arc<OverlayStatus>>,
    status_address: SocketAddr,
    at_work: AtWork,
    threads: Vec<JoinHandle<()>>,
    engine: Arc<Engine>,
    /// Closed when an overlay thread ends.
    alive: watch::Receiver<()>,
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
    /// Opens the store, starts the overlay threads, the transport and the status page. The node then joins its ring by
    /// itself; [`Node::ready`] tells when it has.
    ///
    /// # Errors
    /// [`NodeError`]; the process is expected to end then.
    pub async fn start(config: &Config) -> Result<Node, NodeError> {
        let clock = Arc::new(Clock::start());
        let enrolment = Enrolment::load(config, clock.now() / 1_000_000)?;
        let page = bind_status(config.node.status).await?;
        let registry = Registry::default();
        let readiness = Readiness::default();
        let engine = Arc::new(open_engine(config, &enrolment).await?);
        show_engine(&engine, &registry);

        let ids = enrolment.ids().to_vec();
        let inboxes: Vec<Arc<Inbox>> = ids.iter().map(|_| Arc::new(Inbox::new(&registry))).collect();
        let roster = Arc::new(Roster::decode(enrolment.document.clone(), &enrolment.authority)?);
        let (rings, ring) = watch::channel(roster.clone());
        let rings = Arc::new(rings);
        let admission = Arc::new(Admission::new(enrolment.directory.clone(), &registry));
        let switchboard = Arc::new(Switchboard { inboxes: inboxes.clone() });
        let quic = Quic::open(
            QuicConfig {
                listen: config.node.listen,
                nonce: enrolment.certificate.nonce,
                credentials: enrolment.credentials,
                secret: enrolment.secret,
                admission: admission.clone(),
            },
            switchboard,
            &registry,
        )?;
        let (workshop, mut threads) = Workshop::open(admission, &registry).map_err(NodeError::Thread)?;
        let (deliver, deliveries) = mpsc::channel(DELIVERIES_MAX);
        let (living, alive) = watch::channel(());
        let living = Arc::new(living);
        let counters = Counters::new(&registry);
        for (index, id) in ids.iter().enumerate() {
            let inbox = inboxes[index].clone();
            let wake = inbox.clone();
            let port = engine.port(STORAGE_UNDER_WAY_MAX, Arc::new(move || wake.ring()));
            let driver = Driver {
                index: u16::try_from(index).expect("a weight is a u16"),
                machine: overlay(*id, &roster, enrolment.authority),
                inbox,
                transport: Arc::new(quic.clone()) as Arc<dyn Transport>,
                storage: Storage::new(port, &registry),
                workshop: workshop.clone(),
                clock: clock.clone(),
                deliveries: deliver.clone(),
                rings: rings.clone(),
                sweep: (index == 0).then(|| Duration::from_secs(config.engine.sweep_s)),
                counters: counters.clone(),
            };
            let living = living.clone();
            let thread = std::thread::Builder::new().name(format!("overlay-{index}")).spawn(move || {
                // Dropped when the thread ends, in whatever way.
                let _living = living;
                driver.run();
            });
            threads.push(thread.map_err(NodeError::Thread)?);
        }
        drop(living);
        show_queues(&inboxes, &workshop, &registry);

        let busy = registry.drops("commands given up because the overlay was busy");
        let store = RingStore { inbox: inboxes[0].clone(), clock, busy };
        let (tell_overlay, overlay) = watch::channel(Arc::new(OverlayStatus::default()));
        let status_address = page.local_addr().unwrap_or(config.node.status);
        let view = web::Page {
            organisation: config.node.organisation.clone(),
            node_id: ids[0],
            overlay: overlay.clone(),
            readiness: readiness.clone(),
            registry: registry.clone(),
            engine: Arc::downgrade(&engine),
        };
        let tasks = vec![
            tokio::spawn(observe(store.clone(), tell_overlay, readiness.wait_for("overlay"))),
            tokio::spawn(web::serve(page, view)),
            tokio::spawn(keep_ring(ring, quic.clone(), enrolment.authority, config.node.ring.clone())),
        ];
        Ok(Node {
            ids,
            store,
            deliveries: Some(deliveries),
            registry,
            readiness,
            overlay,
            status_address,
            at_work: AtWork { quic, inboxes, tasks },
            threads,
            engine,
            alive,
        })
    }

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

    /// Where the status page is.
    #[must_use]
    pub fn status_address(&self) -> SocketAddr {
        self.status_address
    }

    /// Waits until the overlay has joined its ring. False if the node ends before.
    pub async fn ready(&self) -> bool {
        self.overlay.clone().wait_for(|overlay| overlay.ready).await.is_ok()
    }

    /// Waits for an overlay thread to end by itself, which is a defect.
    pub async fn failed(&self) -> NodeError {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
        NodeError::Failed
    }

    /// Ends the node in order: no more messages, no more decisions, then the store drains and closes.
    pub async fn stop(self) {
        let Node { at_work, threads, engine, .. } = self;
        at_work.quic.stop().await;
        drop(at_work);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the node had failed");
                }
            }
            // The ports are gone with the threads. The last reference closes the store.
            drop(engine);
        });
        if joined.await.is_err() {
            tracing::error!("the store did not close in order");
        }
    }
}

/// Runs a node until it is told to stop: by SIGTERM, Ctrl-C or, with `EPOST_LIFELINE=1`, the end of its standard input.
///
/// # Errors
/// [`NodeError`], when it cannot start or fails.
pub async fn run(config: Config) -> Result<(), NodeError> {
    let node = Node::start(&config).await?;
    tracing::info!(node = %node.id(), listen = %config.node.listen, status = %node.status_address(), "started");
    let outcome = tokio::select! {
        () = told_to_stop() => Ok(()),
        failure = node.failed() => Err(failure),
    };
    node.stop().await;
    tracing::info!("stopped");
    outcome
}

/// Waits for SIGTERM, Ctrl-C or the end of the lifeline.
pub async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            // Without the handler the signal ends the process at once, which the store survives.
            Err(_) => std::future::pending().await,
        }
    };
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = terminate => {}
        () = interrupt => {}
        () = lifeline() => {}
    }
}

/// Ends when the parent has closed our standard input, as it does by dying. Pends for ever without `EPOST_LIFELINE=1`.
async fn lifeline() {
    if std::env::var_os("EPOST_LIFELINE").is_none_or(|value| value != "1") {
        return std::future::pending().await;
    }
    let (cut, was_cut) = tokio::sync::oneshot::channel();
    // A thread of its own, and none of the runtime's: reading standard input cannot be called off.
    let reader = std::thread::Builder::new().name("lifeline".into()).spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = cut.send(());
    });
    match reader {
        Ok(_) => drop(was_cut.await),
        Err(_) => std::future::pending().await,
    }
}

async fn bind_status(address: SocketAddr) -> Result<tokio::net::TcpListener, NodeError> {
    tokio::net::TcpListener::bind(address).await.map_err(|source| NodeError::StatusAddress { address, source })
}

/// Opening recovers, which takes a while and blocks.
async fn open_engine(config: &Config, enrolment: &Enrolment) -> Result<Engine, NodeError> {
    let parameters = enrolment.directory.document().parameters;
    let settings = engine::Config {
        shards: config.engine.shards,
        capacity_bytes: config.engine.capacity_bytes,
        segment_bytes: config.engine.segment_bytes,
        tick_s: config.engine.tick_s,
        grace_s: parameters.grace_s,
        ..engine::Config::new(&config.node.dir)
    };
    let opened = tokio::task::spawn_blocking(move || Engine::open(settings)).await;
    Ok(opened.map_err(|_| NodeError::Failed)??)
}

/// The machine of one node id.
fn overlay(id: Id, roster: &Arc<Roster>, authority: [u8; 32]) -> Overlay {
    let seed = getrandom::u64().expect("the system has a random generator");
    Overlay::new(OverlayConfig { id, roster: roster.clone(), authority, seed, bootstraps: Vec::new() })
}

/// Acts on each newer ring document: the transport goes by it, and the next start begins with it.
async fn keep_ring(mut ring: watch::Receiver<Arc<Roster>>, quic: Quic, authority: [u8; 32], path: PathBuf) {
    while ring.changed().await.is_ok() {
        let roster = ring.borrow_and_update().clone();
        quic.adopt(Arc::new(Directory::new(Arc::new(roster.ring().clone()), authority)));
        let (document, path) = (roster.document().clone(), path.clone());
        let kept = tokio::task::spawn_blocking(move || replace_file(&path, &document)).await;
        match kept {
            Ok(Ok(())) => tracing::info!(epoch = roster.ring().epoch, "a newer ring document is in force"),
            Ok(Err(error)) => tracing::error!(%error, "a newer ring document is in force but could not be kept"),
            Err(_) => return,
        }
    }
}

/// Replaces a file whole or not at all, durably.
fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

/// Asks the overlay for its state, often until it is ready and rarely after, for everybody who wants to look.
async fn observe(store: RingStore, tell: watch::Sender<Arc<OverlayStatus>>, pending: readiness::Pending) {
    let mut pending = Some(pending);
    loop {
        // While the overlay is busy or gone, what was last seen stands.
        if let Ok(status) = store.status().await {
            if status.ready {
                pending = None;
            }
            tell.send_replace(Arc::new(status));
        }
        tokio::time::sleep(if pending.is_some() { READY_POLL_TIME } else { STATUS_POLL_TIME }).await;
    }
}

fn show_engine(engine: &Arc<Engine>, registry: &Registry) {
    let read = |name, help, pick: fn(&engine::Stats) -> u64| {
        let engine = Arc::downgrade(engine);
        registry.reading(name, help, move || engine.upgrade().map_or(0, |engine| pick(&engine.stats())));
    };
    read("engine_objects", "objects stored", |stats| stats.objects);
    read("engine_live_bytes", "bytes of live records", |stats| stats.live_bytes);
    read("engine_total_bytes", "bytes of the store's files", |stats| stats.total_bytes);
    read("engine_corrupt", "damaged records found, never served", |stats| stats.corrupt);
    read("engine_refused", "operations the store refused", |stats| stats.refused);
    read("queue_engine", "operations waiting or in flight in the engine", |stats| stats.queue_depth);
}

fn show_queues(inboxes: &[Arc<Inbox>], workshop: &Workshop, registry: &Registry) {
    let inboxes = inboxes.to_vec();
    registry.reading("queue_overlay", "events waiting for overlay threads", move || {
        inboxes.iter().map(|inbox| inbox.len() as u64).sum()
    });
    registry.reading("queue_compute", "computations waiting for workers", workshop.waiting());
}
