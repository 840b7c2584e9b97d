//! Putting a node together. The order is that of what is likeliest to be wrong: enrolment, addresses, store; then the
//! threads, which cannot fail for a reason of the operator's.

use super::clock::Clock;
use super::compute::Workshop;
use super::driver::{self, Counters, Driver};
use super::inbox::{Inbox, Switchboard};
use super::limits::{DELIVERIES_MAX, READY_POLL_TIME, STATUS_POLL_TIME, STORAGE_UNDER_WAY_MAX};
use super::readiness::Pending;
use super::scrubber::Scrubber;
use super::storage::Storage;
use super::sweeper::{self, Agreed, Sweeper};
use super::transport::{Admission, Quic, QuicConfig, Transport};
use super::{AtWork, Delivery, Enrolment, Node, NodeError, Readiness, Registry, RingStore, ring_file};
use crate::config::Config;
use crate::web;
use engine::Engine;
use net::id::Id;
use net::overlay::{OverlayConfig, OverlayStatus};
use net::roster::Roster;
use post::stack::Stack;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

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
        let engine = Arc::new(open_engine(config, &enrolment).await?);
        show_engine(&engine, &registry);

        let ids = enrolment.ids().to_vec();
        let (authority, grace_s) = (enrolment.authority, enrolment.directory.document().parameters.grace_s);
        let roster = Arc::new(Roster::decode(enrolment.document.clone(), &authority)?);
        let admission = Arc::new(Admission::new(enrolment.directory.clone(), &registry));
        let inboxes = Inbox::of_host(ids.len(), overlay_threads(ids.len()), &registry);
        let quic = open_quic(config, enrolment, &admission, &inboxes, &registry)?;
        let (ended, ending) = watch::channel(false);
        let ended = Arc::new(ended);
        let new_ending = || Ending::new(&ended);
        let (workshop, mut threads) = Workshop::open(&admission, new_ending, &registry).map_err(NodeError::Thread)?;
        show_queues(&inboxes, &workshop, &registry);

        let (rings, ring) = watch::channel(roster.clone());
        let (deliver, deliveries) = mpsc::channel(DELIVERIES_MAX);
        let crew = Crew {
            transport: Arc::new(quic.clone()),
            engine: engine.clone(),
            workshop,
            clock: clock.clone(),
            deliver,
            rings: Arc::new(rings),
            counters: Counters::new(&registry),
            registry: registry.clone(),
            roster,
            authority,
            period: Duration::from_secs(config.engine.sweep_s),
            scrub_days: config.engine.scrub_days,
            grace_s,
        };
        threads.extend(crew.start(&ids, &inboxes, &ended)?);

        let busy = registry.drops("commands given up because the overlay was busy");
        let store = RingStore { inbox: inboxes[0].clone(), clock, busy };
        let readiness = Readiness::default();
        let (tell_overlay, overlay) = watch::channel(Arc::new(OverlayStatus::default()));
        let status_address = page.local_addr().unwrap_or(config.node.status);
        let view = web::Page {
            organisation: config.node.organisation.clone(),
            node_id: ids[0],
            overlay: overlay.clone(),
            readiness: readiness.clone(),
            registry: registry.clone(),
        };
        let tasks = vec![
            tokio::spawn(observe(store.clone(), tell_overlay, readiness.wait_for("overlay"))),
            tokio::spawn(ring_file::follow(ring.clone(), quic.clone(), authority, config.node.ring.clone())),
            tokio::spawn(ring_file::watch(store.clone(), config.node.ring.clone())),
            tokio::spawn(web::serve(page, view)),
        ];
        Ok(Node {
            ids,
            store,
            deliveries: Some(deliveries),
            registry,
            readiness,
            overlay,
            ring,
            status_address,
            at_work: AtWork { quic, inboxes, tasks },
            threads,
            engine,
            ending,
        })
    }
}

/// As many as there are processors, and no more than there are machines.
fn overlay_threads(machines: usize) -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(machines)
}

/// Tells that a thread has ended, in whatever way.
pub(super) struct Ending(Arc<watch::Sender<bool>>);

impl Ending {
    pub(super) fn new(ended: &Arc<watch::Sender<bool>>) -> Ending {
        Ending(ended.clone())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// What all overlay threads of a host work with.
struct Crew {
    transport: Arc<dyn Transport>,
    engine: Arc<Engine>,
    workshop: Workshop,
    clock: Arc<Clock>,
    deliver: mpsc::Sender<Delivery>,
    rings: Arc<watch::Sender<Arc<Roster>>>,
    counters: Counters,
    registry: Registry,
    roster: Arc<Roster>,
    authority: [u8; 32],
    period: Duration,
    scrub_days: u32,
    grace_s: u64,
}

impl Crew {
    /// Starts the overlay threads, and deals the machines out to them as their inboxes were.
    fn start(
        self,
        ids: &[Id],
        inboxes: &[Arc<Inbox>],
        ended: &Arc<watch::Sender<bool>>,
    ) -> Result<Vec<JoinHandle<()>>, NodeError> {
        let count = overlay_threads(ids.len());
        let agreed = Arc::new(Agreed::new(ids.len()));
        show_agreed(&agreed, &self.registry);
        let mut crews: Vec<Vec<Driver<Stack>>> = (0..count).map(|_| Vec::new()).collect();
        for (index, inbox) in (0u16..).zip(inboxes) {
            crews[usize::from(index) % count].push(self.driver(index, ids, inbox.clone(), &agreed));
        }
        let mut threads = Vec::with_capacity(count);
        for (number, drivers) in crews.into_iter().enumerate() {
            let ending = Ending::new(ended);
            let thread = std::thread::Builder::new().name(format!("overlay-{number}")).spawn(move || {
                let _ending = ending;
                driver::run(drivers);
            });
            threads.push(thread.map_err(NodeError::Thread)?);
        }
        Ok(threads)
    }

    fn driver(&self, index: u16, ids: &[Id], inbox: Arc<Inbox>, agreed: &Arc<Agreed>) -> Driver<Stack> {
        let machine = Stack::new(OverlayConfig {
            id: ids[usize::from(index)],
            roster: self.roster.clone(),
            authority: self.authority,
            seed: getrandom::u64().expect("the system has a random generator"),
            bootstraps: Vec::new(),
        });
        let wake = inbox.clone();
        let port = self.engine.port(STORAGE_UNDER_WAY_MAX / ids.len(), Arc::new(move || wake.ring()));
        assert!(port.capacity() > 0, "the engine has a place for every port of this node");
        Driver {
            index,
            machine,
            inbox,
            transport: self.transport.clone(),
            storage: Storage::new(port, &self.registry),
            workshop: self.workshop.clone(),
            clock: self.clock.clone(),
            deliveries: self.deliver.clone(),
            rings: self.rings.clone(),
            sweeper: (index == 0).then(|| Sweeper::new(self.period, self.grace_s, self.clock.now())),
            agreed: agreed.clone(),
            scrubber: if index == 0 { Scrubber::new(self.scrub_days, self.clock.now()) } else { None },
            counters: self.counters.clone(),
        }
    }
}

async fn bind_status(address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| NodeError::StatusAddress { address, source })
}

/// Opening recovers, which takes a while and blocks.
async fn open_engine(config: &Config, enrolment: &Enrolment) -> Result<Engine, NodeError> {
    let grace_s = enrolment.directory.document().parameters.grace_s;
    let settings = engine::Config {
        shards: config.engine.shards,
        capacity_bytes: config.engine.capacity_bytes,
        segment_bytes: config.engine.segment_bytes,
        tick_s: config.engine.tick_s,
        grace_s,
        clock_jump_s: sweeper::jump_s(grace_s, config.engine.sweep_s),
        ..engine::Config::new(&config.node.dir)
    };
    let opened = tokio::task::spawn_blocking(move || Engine::open(settings)).await;
    Ok(opened.map_err(|_| NodeError::Failed)??)
}

fn open_quic(
    config: &Config,
    enrolment: Enrolment,
    admission: &Arc<Admission>,
    inboxes: &[Arc<Inbox>],
    registry: &Registry,
) -> Result<Quic, NodeError> {
    let settings = QuicConfig {
        listen: config.node.listen,
        nonce: enrolment.certificate.nonce,
        credentials: enrolment.credentials,
        secret: enrolment.secret,
        admission: admission.clone(),
    };
    let switchboard = Switchboard { inboxes: inboxes.to_vec() };
    Ok(Quic::open(settings, Arc::new(switchboard), registry)?)
}

/// Asks the overlay for its state, often until it is ready and rarely after, for everybody who wants to look.
async fn observe(store: RingStore, tell: watch::Sender<Arc<OverlayStatus>>, pending: Pending) {
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
    let all = Arc::downgrade(engine);
    registry.readings("engine", "every number of the store, by name", move || {
        all.upgrade().map_or_else(Vec::new, |engine| engine.stats().fields())
    });
    let engine = Arc::downgrade(engine);
    registry.reading("queue_engine", "operations waiting or in flight in the engine", move || {
        engine.upgrade().map_or(0, |engine| engine.stats().queue_depth)
    });
}

fn show_agreed(agreed: &Arc<Agreed>, registry: &Registry) {
    let agreed = agreed.clone();
    let help =
        "until when ended leases were compared with other nodes, in seconds since 1970; nothing later is deleted";
    registry.reading("leases_agreed", help, move || agreed.through());
}

fn show_queues(inboxes: &[Arc<Inbox>], workshop: &Workshop, registry: &Registry) {
    let inboxes = inboxes.to_vec();
    registry.reading("queue_overlay", "events waiting for overlay threads", move || {
        inboxes.iter().map(|inbox| inbox.len() as u64).sum()
    });
    registry.reading("queue_compute", "computations waiting for workers", workshop.waiting());
}
