//! A user's mail on this node: what IMAP and SMTP work on, joined from POST's workflows and the ring's store.
//!
//! An [`Account`] is opened at start with the keys from its key file, before anybody logs in, so that notifications
//! are taken in and leases are refreshed while the user is away. It holds the list of folders, the folders and the
//! outbox, each a replicated log behind one writing task (`keeper`). Sessions get immutable views and never wait
//! for each other.
//!
//! ```text
//! SMTP ─ submit ─▶ objects at their quorum ─▶ outbox record at its quorum ─▶ 250
//!                                                  └▶ sender: resolve, seal, tell ─▶ receipt ─▶ outbox record
//! peer ─ notification ─▶ inbox: verify, fetch and lease every object ─▶ INBOX record at its quorum ─▶ receipt
//! IMAP ─ command ─▶ folder: plan effects, group commit at the quorum ─▶ new view to every session
//! ```
//!
//! What it is not: no protocol of mail clients, no sockets, no ring. Generic over the [`ObjectStore`], so that tests
//! run it over a store in memory.

mod folder;
mod inbox;
mod keeper;
mod leases;
mod login;
mod outbox;
mod remembered;
#[cfg(test)]
mod tests;
mod undelivered;

pub use folder::Folder;
pub use login::{Accounts, LoginCounters, LoginError};
pub use post::mail::folder::FlagChange;
pub use remembered::Remembered;

use bytes::Bytes;
use keeper::Keeper;
use net::id::Id;
use net::past::block::Trust;
use net::secure::certificate::parse_user;
use post::identity::block::{ContactAddress, Identity, next_version};
use post::identity::resolve::{self, ResolveError};
use post::identity::secrets::Secrets;
use post::log::journal::{EffectError, Journal, JournalError, JournalState};
use post::log::keys::WriteKeys;
use post::log::{LogError, LogStore};
use post::mail::folder::{Folder as FolderState, FolderError};
use post::mail::mailbox::{Effect as MailboxEffect, FolderRecord, INBOX, Mailbox, MailboxError};
use post::mail::message::MessageError;
use post::mail::outbox::{Outbox, OutboxError};
use post::mail::view::{FolderListing, SpecialUse};
use post::seal::{OpenError, SealError, Sealing};
use post::store::{ObjectStore, StoreError};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Label of the log that lists the folders.
const MAILBOX_LABEL: &str = "mailbox";
/// Label of the log of mail to be sent.
const OUTBOX_LABEL: &str = "outbox";

/// Why something could not be done for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no folder of this name, or it was deleted meanwhile.
    #[error("no such folder")]
    NoSuchFolder,
    /// There is one already.
    #[error("the folder exists already")]
    FolderExists,
    /// The name is not one that a folder may have.
    #[error("not a legal folder name")]
    BadName,
    /// Not with this folder.
    #[error("not allowed on this folder")]
    Forbidden,
    /// No message with this UID.
    #[error("no such message")]
    NoSuchMessage,
    /// The message, or its header section, is larger than this node takes.
    #[error("the message is too large")]
    TooLarge,
    /// A keyword is empty or too long, or there are too many.
    #[error("too many keywords, or one that is too long")]
    BadKeywords,
    /// A bound of the account is reached: folders, messages in a folder, or mail waiting to be sent.
    #[error("a bound of the account is reached: {0}")]
    Limit(&'static str),
    /// Fewer replicas than the quorum answered. Nothing is lost; a retry may succeed.
    #[error("storage is below its quorum")]
    Unavailable,
    /// Another device opened the account's log; this node has to open it again.
    #[error("another device took over")]
    TakenOver,
    /// An object of the message, or a block of a log, is missing or was tampered with.
    #[error("an object is missing or damaged")]
    Damaged,
    /// Nobody in the ring has this address.
    #[error("no such recipient")]
    NoSuchRecipient,
}

/// What an account works with; shared by all accounts of a node.
#[derive(Debug)]
pub struct Services<S> {
    /// The ring's store.
    pub store: Arc<S>,
    /// How objects are sealed.
    pub sealing: Sealing,
    /// Whose certificates are believed; replaced when the ring document changes.
    pub trust: RwLock<Arc<Trust>>,
    /// Length of a lease, in seconds.
    pub lease_s: u64,
    /// This node, where the account's notifications go.
    pub node: Id,
    /// The mail domain of the organisation.
    pub domain: String,
    /// Name of this gateway in trace headers.
    pub hostname: String,
    /// Largest message taken in, in bytes.
    pub message_bytes_max: usize,
    /// What was counted.
    pub counters: Counters,
}

/// What the accounts of a node count.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages accepted from their authors.
    pub submitted: AtomicU64,
    /// Recipients whose receipt came.
    pub delivered: AtomicU64,
    /// Attempts that will be made again.
    pub retried: AtomicU64,
    /// Recipients given up, with a notice to the sender.
    pub undelivered: AtomicU64,
    /// Notifications that brought a message into an inbox.
    pub received: AtomicU64,
    /// Notifications that had come before and were acknowledged again.
    pub repeated: AtomicU64,
    /// Notifications refused: not for us, badly signed, or not what their signature says.
    pub refused: AtomicU64,
    /// Lease refreshes completed.
    pub refreshes: AtomicU64,
    /// Blocks asked for in a lease refresh that no replica had.
    pub blocks_missing: AtomicU64,
    /// Logs that another device took over: this node does not change them any more.
    pub logs_taken_over: AtomicU64,
    /// Writers of logs that failed, which is a defect.
    pub writers_failed: AtomicU64,
}

impl<S> Services<S> {
    /// Whose certificates are believed now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Believes these from now on.
    pub fn renew_trust(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }
}

impl<S: ObjectStore> Services<S> {
    fn log_store(&self) -> LogStore<S> {
        LogStore { store: self.store.clone(), ring: self.sealing.ring, lease_s: self.lease_s }
    }

    fn now_s(&self) -> u64 {
        self.store.now() / 1_000_000
    }

    fn expiry(&self) -> u64 {
        self.now_s() + self.lease_s
    }
}

/// One unlocked account; cheap to clone. Its background tasks end when the last clone is dropped.
pub struct Account<S: ObjectStore> {
    shared: Arc<Shared<S>>,
    /// Sender and lease keeper; they hold only `shared`.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl<S: ObjectStore> Clone for Account<S> {
    fn clone(&self) -> Self {
        Account { shared: self.shared.clone(), tasks: self.tasks.clone() }
    }
}

struct Shared<S: ObjectStore> {
    services: Arc<Services<S>>,
    secrets: Arc<Secrets>,
    remembered: Arc<Remembered>,
    mailbox: Keeper<Mailbox>,
    outbox: Keeper<Outbox>,
    /// Folders by serial. Each has a lock of its own, held while it is opened, so that it is opened once and keeps
    /// nobody waiting who wants another.
    folders: std::sync::Mutex<BTreeMap<u32, Place<S>>>,
    contacts: outbox::Contacts,
    inbox_places: tokio::sync::Semaphore,
}

/// The folder that is open, once it is.
type Place<S> = Arc<Mutex<Option<Folder<S>>>>;

impl<S: ObjectStore> Account<S> {
    /// Opens the account: publishes its certificate and identity if the ring does not have them as they are now,
    /// opens its logs (making them for a new account), and starts sending what waits.
    ///
    /// # Errors
    /// [`AccountError::Unavailable`] while the ring is not ready; the call may be repeated.
    pub async fn start(
        services: Arc<Services<S>>,
        secrets: Arc<Secrets>,
        remembered: Arc<Remembered>,
    ) -> Result<Account<S>, AccountError> {
        publish(&services, &secrets).await?;
        let seen = |label| remembered.version(label);
        let mailbox = open_journal(&services, &secrets, seen(MAILBOX_LABEL), MAILBOX_LABEL, Mailbox::new()).await?;
        let outbox = open_journal(&services, &secrets, seen(OUTBOX_LABEL), OUTBOX_LABEL, Outbox::new()).await?;
        let shared = Arc::new(Shared {
            mailbox: Keeper::start(services.clone(), mailbox, |_| {}),
            outbox: Keeper::start(services.clone(), outbox, |_| {}),
            folders: std::sync::Mutex::default(),
            contacts: outbox::Contacts::default(),
            inbox_places: tokio::sync::Semaphore::new(inbox::DELIVERIES_MAX),
            services,
            secrets,
            remembered,
        });
        // Every delivery needs the inbox, and an unreadable one must show at start.
        shared.folder(INBOX).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(outbox::send(shared.clone()));
        tasks.spawn(leases::keep(shared.clone()));
        Ok(Account { shared, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// The mail address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.secrets.address
    }

    /// Largest message taken in, in bytes.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.shared.services.message_bytes_max
    }

    /// Every folder, sorted by name.
    #[must_use]
    pub fn folders(&self) -> Vec<FolderListing> {
        self.shared.mailbox.state().listing()
    }

    /// Opens a folder. All sessions share it.
    ///
    /// # Errors
    /// [`AccountError::NoSuchFolder`], or the folder's log cannot be opened now.
    pub async fn open(&self, name: &str) -> Result<Folder<S>, AccountError> {
        self.shared.folder(name).await
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn create(&self, name: &str, special_use: Option<SpecialUse>) -> Result<(), AccountError> {
        let name = name.to_owned();
        let change = move |draft: &mut keeper::Draft<Mailbox>| {
            let effect = draft.state().plan_create(&name, special_use)?;
            Ok(draft.record(effect)?)
        };
        self.shared.mailbox.change(change).await
    }

    /// Deletes a folder with its messages; folders below it stay.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn delete(&self, name: &str) -> Result<(), AccountError> {
        let name = name.to_owned();
        let serial = self
            .shared
            .mailbox
            .change(move |draft| {
                let serial = draft.state().folder(&name).map(|folder| folder.serial);
                let effect = draft.state().plan_delete(&name)?;
                draft.record(effect)?;
                Ok(serial)
            })
            .await?;
        let place = serial.and_then(|serial| self.shared.places().remove(&serial));
        if let Some(place) = place
            && let Some(folder) = place.lock().await.take()
        {
            folder.close().await;
        }
        Ok(())
    }

    /// Renames a folder with all below it. Renaming the inbox gives its messages to the new name and leaves an
    /// empty inbox (RFC 3501, 6.3.5).
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), AccountError> {
        // The new inbox must know what was delivered to the old one before it takes its place, or a repeated
        // notification would be delivered twice.
        let planned = self.shared.mailbox.state().plan_rename(from, to)?;
        if let MailboxEffect::RenameInbox { serial, .. } = &planned {
            let old = self.shared.folder(INBOX).await?;
            let new = self.shared.folder_with_serial(*serial).await?;
            new.remember_deliveries_of(&old).await?;
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        let change = move |draft: &mut keeper::Draft<Mailbox>| {
            let effect = draft.state().plan_rename(&from, &to)?;
            if effect != planned {
                // Somebody changed the list meanwhile; the client may simply try again.
                return Err(AccountError::Unavailable);
            }
            Ok(draft.record(effect)?)
        };
        self.shared.mailbox.change(change).await
    }

    /// Subscribes to a folder, or unsubscribes.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn subscribe(&self, name: &str, is_subscribed: bool) -> Result<(), AccountError> {
        let name = name.to_owned();
        let change = move |draft: &mut keeper::Draft<Mailbox>| {
            if let Some(effect) = draft.state().plan_subscribe(&name, is_subscribed)? {
                draft.record(effect)?;
            }
            Ok(())
        };
        self.shared.mailbox.change(change).await
    }

    /// Whether mail to this address can be delivered in the ring. `false` is certain, not a failure.
    ///
    /// # Errors
    /// [`AccountError::Unavailable`] if it cannot be found out now.
    pub async fn is_recipient(&self, address: &str) -> Result<bool, AccountError> {
        match self.shared.contacts.resolve(&self.shared.services, address).await {
            Ok(_) | Err(ResolveError::NotPublished) => Ok(true),
            Err(ResolveError::Store(_)) => Err(AccountError::Unavailable),
            Err(_) => Ok(false),
        }
    }

    /// Takes a message from its author. When it returns, every part is stored at its quorum and one outbox record
    /// naming every recipient is replicated at its quorum; from then on the mail survives this node. Sending it
    /// and trying again go on in the background. `Bcc` is removed here.
    ///
    /// # Errors
    /// [`AccountError`]; then nothing will be sent.
    pub async fn submit(&self, recipients: Vec<String>, message: Bytes) -> Result<(), AccountError> {
        if message.len() > self.message_bytes_max() {
            return Err(AccountError::TooLarge);
        }
        outbox::submit(&self.shared, recipients, message).await
    }

    /// Takes in a sealed notification addressed to this account, and returns the answer for its sender's node.
    async fn take_in(&self, notification: &[u8]) -> post::delivery::Packet {
        inbox::take_in(&self.shared, notification).await
    }

    /// How many mails wait to be sent.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        self.shared.outbox.state().len()
    }

    /// Ends the background tasks, and writes down which versions of its logs the account has seen, so that after a
    /// clean stop no numbers are skipped. To be called when no session changes anything any more.
    ///
    /// # Errors
    /// If the file cannot be written; the next start then skips numbers, which is harmless.
    pub async fn stop(&self) -> std::io::Result<()> {
        self.tasks.lock().await.shutdown().await;
        let mut versions = BTreeMap::new();
        if let Some(version) = self.shared.mailbox.version().await {
            versions.insert(MAILBOX_LABEL.to_owned(), version);
        }
        if let Some(version) = self.shared.outbox.version().await {
            versions.insert(OUTBOX_LABEL.to_owned(), version);
        }
        let places = self.shared.places().clone();
        for (serial, place) in places {
            let folder = place.lock().await.clone();
            if let Some(folder) = folder
                && let Some(version) = folder.version().await
            {
                versions.insert(label_of(serial), version);
            }
        }
        self.shared.remembered.write(&versions)
    }
}

impl<S: ObjectStore> Shared<S> {
    async fn folder(self: &Arc<Self>, name: &str) -> Result<Folder<S>, AccountError> {
        let record = self.mailbox.state().folder(name).ok_or(AccountError::NoSuchFolder)?;
        self.folder_with_serial(record.serial).await
    }

    async fn folder_with_serial(self: &Arc<Self>, serial: u32) -> Result<Folder<S>, AccountError> {
        let place = self.places().entry(serial).or_default().clone();
        let mut open = place.lock().await;
        let label = label_of(serial);
        let remembered = match &*open {
            Some(folder) if !folder.has_ended() => return Ok(folder.clone()),
            // Its writer has failed, and was shown more than what was remembered at the last stop.
            Some(_) => None,
            None => self.remembered.version(&label),
        };
        let state = FolderState::new(serial);
        let journal = open_journal(&self.services, &self.secrets, remembered, &label, state).await?;
        let folder = Folder::new(self.services.clone(), self.mailbox.clone(), serial, journal);
        *open = Some(folder.clone());
        Ok(folder)
    }

    fn places(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Place<S>>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The label of the log of the folder with this serial.
fn label_of(serial: u32) -> String {
    FolderRecord { serial, special_use: None, is_subscribed: false }.log_label()
}

async fn open_journal<S: ObjectStore, T: JournalState>(
    services: &Services<S>,
    secrets: &Secrets,
    remembered: Option<u64>,
    label: &str,
    initial: T,
) -> Result<Journal<S, T>, AccountError> {
    let keys = WriteKeys::private(secrets.log_key(label), *secrets.log_seal_key(label));
    Ok(Journal::open(services.log_store(), keys, remembered, initial).await?)
}

/// Makes the ring hold the account's certificate and identity as they are now.
async fn publish<S: ObjectStore>(services: &Services<S>, secrets: &Secrets) -> Result<(), AccountError> {
    let identity = Identity {
        address: secrets.address.clone(),
        generation: secrets.generation,
        signing_key: secrets.signing.verifying_key().to_bytes(),
        contact: Some(ContactAddress { ring: services.sealing.ring, node: services.node }),
        kem: secrets.kem.iter().map(post::identity::kem::KemSecret::public).collect(),
        logs: Vec::new(),
    };
    let trust = services.trust();
    let own = parse_user(&secrets.certificate, &trust.authority).map_err(|_| AccountError::Damaged)?;
    let last = match resolve::resolve(&*services.store, &trust, &secrets.address).await {
        Ok(contact) => {
            let (published, version) = contact.identity();
            // A certificate that was renewed is published; one older than the ring's is no reason to publish anything.
            if *published == identity && own.version() <= contact.certificate().version() {
                return Ok(());
            }
            Some(version)
        }
        Err(ResolveError::Store(error)) => return Err(error.into()),
        Err(_) => None,
    };
    let version = next_version(last, services.store.now());
    resolve::publish(&*services.store, secrets, &identity, version, services.expiry()).await.map_err(
        |error| match error {
            ResolveError::Store(error) => error.into(),
            _ => AccountError::Damaged,
        },
    )
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> AccountError {
        match error {
            StoreError::Unavailable | StoreError::Busy => AccountError::Unavailable,
            StoreError::Refused => AccountError::Damaged,
            StoreError::Superseded { .. } => AccountError::TakenOver,
        }
    }
}

impl From<LogError> for AccountError {
    fn from(error: LogError) -> AccountError {
        match error {
            LogError::Unavailable | LogError::Unresolved | LogError::SnapshotDue => AccountError::Unavailable,
            LogError::TakenOver { .. } => AccountError::TakenOver,
            LogError::TooLarge => AccountError::TooLarge,
            LogError::Refused
            | LogError::RolledBack { .. }
            | LogError::Missing(_)
            | LogError::BadHead
            | LogError::Tampered(_)
            | LogError::BadSnapshot => AccountError::Damaged,
        }
    }
}

impl From<EffectError> for AccountError {
    fn from(error: EffectError) -> AccountError {
        match error {
            EffectError::Full => AccountError::Limit("the log's state"),
            EffectError::Malformed | EffectError::Illegal => AccountError::Damaged,
        }
    }
}

impl From<JournalError> for AccountError {
    fn from(error: JournalError) -> AccountError {
        match error {
            JournalError::Log(error) => error.into(),
            JournalError::Effect(error) => error.into(),
        }
    }
}

impl From<MailboxError> for AccountError {
    fn from(error: MailboxError) -> AccountError {
        match error {
            MailboxError::NoSuchFolder => AccountError::NoSuchFolder,
            MailboxError::Exists => AccountError::FolderExists,
            MailboxError::BadName => AccountError::BadName,
            MailboxError::Forbidden | MailboxError::UseTaken => AccountError::Forbidden,
            MailboxError::Full => AccountError::Limit("folders"),
        }
    }
}

impl From<FolderError> for AccountError {
    fn from(error: FolderError) -> AccountError {
        match error {
            FolderError::Full | FolderError::NoUidLeft => AccountError::Limit("messages in a folder"),
            FolderError::HeadersTooLong => AccountError::TooLarge,
            FolderError::BadKeywords => AccountError::BadKeywords,
            FolderError::TooManyDeliveries => AccountError::Limit("deliveries remembered"),
            FolderError::Delivered | FolderError::Mismatched => AccountError::Damaged,
        }
    }
}

impl From<OutboxError> for AccountError {
    fn from(error: OutboxError) -> AccountError {
        match error {
            OutboxError::Full => AccountError::Limit("mail waiting to be sent"),
            OutboxError::BadRecipients => AccountError::Limit("recipients of one mail"),
            OutboxError::BadAddress => AccountError::NoSuchRecipient,
            OutboxError::Taken => AccountError::Unavailable,
        }
    }
}

impl From<MessageError> for AccountError {
    fn from(error: MessageError) -> AccountError {
        match error {
            MessageError::TooLarge => AccountError::TooLarge,
            MessageError::Seal(SealError::TooLarge) => AccountError::TooLarge,
            MessageError::Seal(SealError::Store(error)) | MessageError::Open(OpenError::Store(error)) => error.into(),
            MessageError::Open(_) | MessageError::Parts(_) | MessageError::Edit(_) => AccountError::Damaged,
        }
    }
}
