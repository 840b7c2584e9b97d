//! The mail side of a node: its accounts, and the listeners through which mail clients reach them.
//!
//! ```text
//! key files ─(node secret)─▶ accounts ─opened once the ring is ready─▶ logins, deliveries, leases
//! listeners: bound first, so that an address in use shows at start; until an account is open, its clients are
//!            told to come back
//! ```
//!
//! What it is not: the accounts' own work is in [`crate::account`], the protocols in
//! [`crate::smtp`] and [`crate::imap`]. A node without a `[mail]` section has no gateway, and answers
//! every notification that nobody lives here.

use crate::account::{Account, AccountError, Accounts, Counters, Remembered, Services};
use crate::config::{AccountSection, Config, ConfigError, MailSection, secret_file};
use crate::node::{Delivery, Enrolment, Node, NodeError, Registry, RingStore, told_to_stop};
use crate::ring_secret::{self, NotARingSecret};
use crate::tls::{TlsError, TlsMode, mail_acceptor};
use crate::{imap, smtp};
use net::past::block::Trust;
use net::roster::Roster;
use post::identity::keyfile::{KeyFile, KeyFileError};
use post::identity::secrets::Secrets;
use post::seal::Sealing;
use post::store::ObjectStore;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Deliveries answered at one time; further ones wait in the node's bounded queue.
const ANSWERS_MAX: usize = 64;
/// Wait before opening an account is tried again.
const OPEN_RETRY: Duration = Duration::from_millis(500);
/// Longest such wait, after errors that time alone does not mend.
const OPEN_RETRY_MAX: Duration = Duration::from_secs(60);
/// How long sessions may take to end when the node stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a node with its mail side cannot start, or had to end. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The node itself.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A file named in the configuration cannot be read, or is exposed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate of the mail listeners cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address for mail clients is taken, or not ours.
    #[error(
        "cannot listen on TCP {address} for mail clients: {source}; stop what uses it, or change the account's addresses"
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A key file is not one, or not for this node.
    #[error("{}: {source}; copy the account's key file here, with a slot for this node", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KeyFileError,
    },
    /// The key file is somebody else's.
    #[error("{}: this key file is not that of {address}", path.display())]
    WrongKeyFile {
        /// Which.
        path: PathBuf,
        /// The account it should be of.
        address: String,
    },
    /// The ring's convergence secret is not one.
    #[error("{}: not the ring's secret; copy it from another gateway of the organisation", path.display())]
    RingSecret {
        /// Which file.
        path: PathBuf,
        /// What was found.
        source: NotARingSecret,
    },
    /// What an account remembers of its last stop cannot be put away.
    #[error("{}: {source}; make the folder writable for the node", path.display())]
    Remembered {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl GatewayError {
    /// The exit code of a process that ends with this: 2 where the operator can do something about it, 1 for a defect.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if let GatewayError::Node(error) = self { error.exit_code() } else { 2 }
    }
}

/// Runs a node with its mail side until it is told to stop: this is `epost node`.
///
/// # Errors
/// [`GatewayError`], when it cannot start or fails.
pub async fn run(config: Config) -> Result<(), GatewayError> {
    let mut node = Node::start(&config).await?;
    tracing::info!(node = %node.id(), listen = %config.node.listen, status = %node.status_address(), "started");
    let gateway = match Gateway::start(&config, &mut node).await {
        Ok(gateway) => gateway,
        Err(error) => {
            node.stop().await;
            return Err(error);
        }
    };
    let outcome = tokio::select! {
        () = told_to_stop() => Ok(()),
        failure = node.failed() => Err(failure.into()),
    };
    gateway.stop().await;
    node.stop().await;
    tracing::info!("stopped");
    outcome
}

/// The mail side of a running node. [`Gateway::stop`] ends it in order.
pub struct Gateway {
    accounts: Accounts<RingStore>,
    shutdown: watch::Sender<bool>,
    listeners: JoinSet<()>,
    /// Opening accounts, answering deliveries.
    tasks: JoinSet<()>,
}

impl Gateway {
    /// Binds the listeners, unlocks the accounts, and begins to open them as soon as the ring is ready.
    ///
    /// # Errors
    /// [`GatewayError`]; the node is expected to end then.
    pub async fn start(config: &Config, node: &mut Node) -> Result<Gateway, GatewayError> {
        let (shutdown, stopping) = watch::channel(false);
        let unlocked = if config.mail.is_some() { unlock(config)? } else { Vec::new() };
        let files = unlocked.iter().map(|unlocked| unlocked.file.clone());
        let accounts = Accounts::new(files, node.store().entropy());
        let mut gateway = Gateway { accounts, shutdown, listeners: JoinSet::new(), tasks: JoinSet::new() };
        if let Some(mail) = &config.mail {
            let services = services(config, mail, node)?;
            let acceptor = mail_acceptor(&mail.tls_certificate, &mail.tls_key, &mail.hostname)?;
            gateway.listen(config, mail, &acceptor, &stopping, node.registry()).await?;
            show(&services, &gateway.accounts, node.registry());
            gateway.tasks.spawn(follow_ring(services.clone(), node.ring()));
            gateway.open_all(unlocked, &services, node);
        }
        if let Some(deliveries) = node.deliveries() {
            gateway.tasks.spawn(answer(gateway.accounts.clone(), deliveries));
        }
        Ok(gateway)
    }

    /// Lets sessions end, then writes down what the accounts have seen. The node must still be running.
    pub async fn stop(mut self) {
        self.shutdown.send_replace(true);
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIME_MAX, ended).await.is_err() {
            tracing::warn!("mail sessions were cut off");
            self.listeners.shutdown().await;
        }
        // Nothing may change any more once the versions are written down.
        self.tasks.shutdown().await;
        for account in self.accounts.all() {
            if let Err(error) = account.stop().await {
                tracing::warn!(%error, "what was seen could not be written down; numbers will be skipped");
            }
        }
    }

    async fn listen(
        &mut self,
        config: &Config,
        mail: &MailSection,
        acceptor: &TlsAcceptor,
        stopping: &watch::Receiver<bool>,
        registry: &Registry,
    ) -> Result<(), GatewayError> {
        let limits = smtp::Limits { message_bytes_max: mail.message_bytes_max, ..smtp::Limits::default() };
        let submission = smtp::Service::new(self.accounts.clone(), &mail.domain, &mail.hostname, limits, registry);
        let imap_counters = Arc::new(imap::Counters::default());
        show_imap(&imap_counters, registry);
        let imap = imap::Service::new(self.accounts.clone(), imap_counters);
        for account in &config.account {
            for (address, mode) in [(account.smtp_starttls, TlsMode::StartTls), (account.smtp_tls, TlsMode::Implicit)] {
                let (listener, acceptor) = (bind(address).await?, acceptor.clone());
                self.listeners.spawn(smtp::listen(listener, mode, acceptor, submission.clone(), stopping.clone()));
            }
            for (address, mode) in [(account.imap_starttls, TlsMode::StartTls), (account.imap_tls, TlsMode::Implicit)] {
                let (listener, acceptor) = (bind(address).await?, acceptor.clone());
                self.listeners.spawn(imap::listen(listener, mode, acceptor, imap.clone(), stopping.clone()));
            }
        }
        Ok(())
    }

    /// Opens every account in the background; the node is not ready before all are open.
    fn open_all(&mut self, unlocked: Vec<Unlocked>, services: &Arc<Services<RingStore>>, node: &Node) {
        for Unlocked { file: _, secrets, remembered } in unlocked {
            let pending = node.readiness().wait_for("an account");
            let (services, accounts, overlay) = (services.clone(), self.accounts.clone(), node.ready());
            self.tasks.spawn(async move {
                if !overlay.await {
                    return;
                }
                let account = open(services, Arc::new(secrets), Arc::new(remembered)).await;
                tracing::info!("an account is open");
                accounts.opened(account);
                drop(pending);
            });
        }
    }
}

/// Believes whom the ring document says, whenever there is a new one.
async fn follow_ring(services: Arc<Services<RingStore>>, mut ring: watch::Receiver<Arc<Roster>>) {
    let authority = services.trust().authority;
    loop {
        let trust = Trust::new(authority, ring.borrow_and_update().ring());
        services.renew_trust(trust);
        if ring.changed().await.is_err() {
            return;
        }
    }
}

/// Opens an account, however often it takes: while the ring comes up, quorums are not there yet.
async fn open(
    services: Arc<Services<RingStore>>,
    secrets: Arc<Secrets>,
    remembered: Arc<Remembered>,
) -> Account<RingStore> {
    let mut wait = OPEN_RETRY;
    loop {
        match Account::start(services.clone(), secrets.clone(), remembered.clone()).await {
            Ok(account) => return account,
            Err(AccountError::Unavailable) => {
                tracing::debug!("an account waits for the ring");
                wait = OPEN_RETRY;
            }
            Err(error) => {
                tracing::error!(%error, "an account cannot be opened; trying again");
                wait = (2 * wait).min(OPEN_RETRY_MAX);
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// Answers deliveries, each in a task of its own, a bounded number at a time.
async fn answer(accounts: Accounts<RingStore>, mut deliveries: mpsc::Receiver<Delivery>) {
    let places = Arc::new(Semaphore::new(ANSWERS_MAX));
    let mut answering = JoinSet::new();
    while let Some(delivery) = deliveries.recv().await {
        while answering.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accounts = accounts.clone();
        answering.spawn(async move {
            let _place = place;
            let answer = accounts.answer(&delivery.payload).await;
            // An answer that cannot be sent is as one that is lost: the sender tells again.
            delivery.answer.send(answer);
        });
    }
}

/// An account whose keys this node holds.
struct Unlocked {
    file: KeyFile,
    secrets: Secrets,
    remembered: Remembered,
}

fn unlock(config: &Config) -> Result<Vec<Unlocked>, GatewayError> {
    let secret = config.node.read_secret()?;
    config.account.iter().map(|account| unlock_one(account, &secret)).collect()
}

fn unlock_one(account: &AccountSection, node_secret: &[u8; 32]) -> Result<Unlocked, GatewayError> {
    let path = &account.key_file;
    let bad = |source| GatewayError::KeyFile { path: path.clone(), source };
    let file = KeyFile::decode(&secret_file(path)?).map_err(bad)?;
    if !file.address().eq_ignore_ascii_case(&account.address) {
        return Err(GatewayError::WrongKeyFile { path: path.clone(), address: account.address.clone() });
    }
    let master = file.unlock_node(node_secret).map_err(bad)?;
    let secrets = file.open(&master).map_err(bad)?;
    let versions = path.with_extension("versions");
    let remembered =
        Remembered::take(&versions).map_err(|source| GatewayError::Remembered { path: versions, source })?;
    Ok(Unlocked { file, secrets, remembered })
}

fn services(config: &Config, mail: &MailSection, node: &Node) -> Result<Arc<Services<RingStore>>, GatewayError> {
    let store = node.store();
    let enrolment = Enrolment::load(config, store.now() / 1_000_000).map_err(NodeError::from)?;
    let ring = enrolment.directory.document();
    let path = &mail.ring_secret;
    let secret = ring_secret::decode(&secret_file(path)?)
        .map_err(|source| GatewayError::RingSecret { path: path.clone(), source })?;
    Ok(Arc::new(Services {
        sealing: Sealing { ring: ring.ring, shared: Some(secret) },
        trust: RwLock::new(Arc::new(Trust::new(enrolment.authority, ring))),
        lease_s: ring.parameters.lease_s,
        node: node.id(),
        domain: mail.domain.clone(),
        hostname: mail.hostname.clone(),
        message_bytes_max: mail.message_bytes_max,
        counters: Counters::default(),
        store: Arc::new(store),
    }))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address).await.map_err(|source| GatewayError::Address { address, source })
}

/// Shows the accounts' counters on the status page.
fn show(services: &Arc<Services<RingStore>>, accounts: &Accounts<RingStore>, registry: &Registry) {
    let read = |name, help, pick: fn(&Counters) -> &AtomicU64| {
        let services = services.clone();
        registry.reading(name, help, move || pick(&services.counters).load(Ordering::Relaxed));
    };
    read("mail_submitted", "mails accepted from their authors", |c| &c.submitted);
    read("mail_delivered", "recipients whose receipt came", |c| &c.delivered);
    read("mail_retried", "attempts at a delivery to be made again", |c| &c.retried);
    read("mail_undelivered", "recipients given up", |c| &c.undelivered);
    read("mail_received", "mails taken into inboxes", |c| &c.received);
    read("mail_repeated", "notifications that had come before", |c| &c.repeated);
    read("mail_refused", "notifications refused", |c| &c.refused);
    read("lease_refreshes", "rounds of lease refreshing", |c| &c.refreshes);
    read("lease_missing", "leased blocks that no replica had", |c| &c.blocks_missing);
    read("logs_taken_over", "logs that another device took over", |c| &c.logs_taken_over);
    read("log_writers_failed", "writers of logs that failed, a defect", |c| &c.writers_failed);
    let counted = accounts.clone();
    registry.reading("login_failed", "logins with a wrong user or password", move || {
        counted.counters().failed.load(Ordering::Relaxed)
    });
    let counted = accounts.clone();
    registry.reading("queue_outbox", "mails waiting to be sent", move || {
        counted.all().iter().map(|account| account.outbox_len() as u64).sum()
    });
}

fn show_imap(counters: &Arc<imap::Counters>, registry: &Registry) {
    let counters = counters.clone();
    registry.readings("imap", "IMAP sessions", move || counters.snapshot());
}
