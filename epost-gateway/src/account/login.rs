//! Who may log in on this node, and at what price.
//!
//! A login proves the password against the account's key file: one Argon2id run, off the reactor, a bounded
//! number at a time. A password that was right is remembered for a few minutes as a hash under a key that dies
//! with the process, because a mail client opens five connections at once. A wrong one is answered late, always
//! after the same time, and counted; an unknown user costs the same Argon2id run and gets the same answer.

use super::Account;
use bytes::Bytes;
use post::delivery::notification::recipient_of;
use post::delivery::{Packet, Reason};
use post::identity::keyfile::KeyFile;
use post::store::ObjectStore;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Argon2id runs at one time; each takes tens of megabytes.
const PROOFS_MAX: usize = 2;
/// Logins waiting for one of those.
const WAITING_MAX: usize = 64;
/// How long a right password is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// A wrong password is answered no sooner than this after it came.
const REFUSAL_DELAY: Duration = Duration::from_millis(1500);
/// Longest password tried.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Why a login did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// No such user here, or not his password.
    #[error("wrong user or password")]
    WrongCredentials,
    /// Too many logins at once. Try again later.
    #[error("too many logins at once")]
    Busy,
    /// The account is known here, but not opened yet: the ring is not ready. Try again later.
    #[error("the account is not ready yet")]
    Unavailable,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct LoginCounters {
    /// Logins that succeeded.
    pub succeeded: AtomicU64,
    /// Wrong users or passwords.
    pub failed: AtomicU64,
    /// Argon2id runs.
    pub proofs: AtomicU64,
}

/// The accounts of this node; cheap to clone.
pub struct Accounts<S: ObjectStore> {
    inner: Arc<Inner<S>>,
}

impl<S: ObjectStore> Clone for Accounts<S> {
    fn clone(&self) -> Self {
        Accounts { inner: self.inner.clone() }
    }
}

struct Inner<S: ObjectStore> {
    known: BTreeMap<String, Known<S>>,
    proofs: Semaphore,
    waiting: Semaphore,
    counters: LoginCounters,
    memory_key: Zeroizing<[u8; 32]>,
    remembered: Mutex<BTreeMap<String, Remembered>>,
}

struct Known<S: ObjectStore> {
    key_file: Arc<KeyFile>,
    account: RwLock<Option<Account<S>>>,
}

struct Remembered {
    password: blake3::Hash,
    until: Instant,
}

impl<S: ObjectStore> Accounts<S> {
    /// The accounts with these key files; none is open yet. `memory_key` comes from a cryptographic generator.
    #[must_use]
    pub fn new(key_files: impl IntoIterator<Item = KeyFile>, memory_key: [u8; 32]) -> Accounts<S> {
        let known = key_files
            .into_iter()
            .map(|file| (file.address().to_ascii_lowercase(), file))
            .map(|(address, file)| (address, Known { key_file: Arc::new(file), account: RwLock::new(None) }))
            .collect();
        Accounts {
            inner: Arc::new(Inner {
                known,
                proofs: Semaphore::new(PROOFS_MAX),
                waiting: Semaphore::new(WAITING_MAX),
                counters: LoginCounters::default(),
                memory_key: Zeroizing::new(memory_key),
                remembered: Mutex::new(BTreeMap::new()),
            }),
        }
    }

    /// Makes an account available for logins and deliveries.
    ///
    /// # Panics
    /// If its key file was not among those given to [`Accounts::new`].
    pub fn opened(&self, account: Account<S>) {
        let known = self.inner.known.get(account.address()).expect("an account whose key file is known");
        *known.account.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(account);
    }

    /// The open account with this address, without proof: for deliveries to it.
    #[must_use]
    pub fn get(&self, address: &str) -> Option<Account<S>> {
        self.inner.known.get(&address.to_ascii_lowercase()).and_then(Known::account)
    }

    /// Every open account.
    #[must_use]
    pub fn all(&self) -> Vec<Account<S>> {
        self.inner.known.values().filter_map(Known::account).collect()
    }

    /// Answers what a peer's application says to this node: a notification for one of its accounts.
    pub async fn answer(&self, payload: &Bytes) -> Bytes {
        let packet = match Packet::decode(payload) {
            Ok(Packet::Notification(notification)) => match recipient_of(&notification) {
                Ok(recipient) => match self.inner.known.get(&recipient.to_ascii_lowercase()) {
                    Some(known) => match known.account() {
                        Some(account) => account.take_in(&notification).await,
                        None => Packet::Busy,
                    },
                    None => Packet::Refused(Reason::UnknownRecipient),
                },
                Err(error) => Packet::Refused(error.reason()),
            },
            Ok(_) | Err(_) => Packet::Refused(Reason::Malformed),
        };
        packet.encode()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &LoginCounters {
        &self.inner.counters
    }

    /// Proves the password and returns the account.
    ///
    /// # Errors
    /// [`LoginError`]. A wrong password and an unknown user are told apart neither by the answer nor by its time.
    pub async fn login(&self, user: &str, password: &str) -> Result<Account<S>, LoginError> {
        let came = Instant::now();
        let user = user.to_ascii_lowercase();
        let proven = self.prove(&user, password).await?;
        if !proven {
            self.inner.counters.failed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep_until((came + REFUSAL_DELAY).into()).await;
            return Err(LoginError::WrongCredentials);
        }
        let account = self.inner.known.get(&user).and_then(Known::account).ok_or(LoginError::Unavailable)?;
        self.inner.counters.succeeded.fetch_add(1, Ordering::Relaxed);
        Ok(account)
    }

    async fn prove(&self, user: &str, password: &str) -> Result<bool, LoginError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let fingerprint = self.fingerprint(user, password);
        if self.is_remembered(user, &fingerprint) {
            return Ok(true);
        }
        let _waiting = self.inner.waiting.try_acquire().map_err(|_| LoginError::Busy)?;
        let _proof = self.inner.proofs.acquire().await.map_err(|_| LoginError::Busy)?;
        // One of five parallel logins may have been proven while this one waited.
        if self.is_remembered(user, &fingerprint) {
            return Ok(true);
        }
        // An unknown user is checked against somebody else's file, so that he costs as much as a known one.
        let is_known = self.inner.known.contains_key(user);
        let Some(known) = self.inner.known.get(user).or_else(|| self.inner.known.values().next()) else {
            return Ok(false);
        };
        let key_file = known.key_file.clone();
        let password = Zeroizing::new(password.to_owned());
        self.inner.counters.proofs.fetch_add(1, Ordering::Relaxed);
        let opens = tokio::task::spawn_blocking(move || key_file.unlock_password(password.as_bytes()).is_ok())
            .await
            .map_err(|_| LoginError::Busy)?;
        if !(opens && is_known) {
            return Ok(false);
        }
        self.remember(user, fingerprint);
        Ok(true)
    }

    fn fingerprint(&self, user: &str, password: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.inner.memory_key);
        hasher.update(&(user.len() as u64).to_le_bytes());
        hasher.update(user.as_bytes());
        hasher.update(password.as_bytes());
        hasher.finalize()
    }

    fn is_remembered(&self, user: &str, fingerprint: &blake3::Hash) -> bool {
        let remembered = self.inner.remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // `blake3::Hash` compares in constant time.
        remembered.get(user).is_some_and(|entry| entry.until > Instant::now() && entry.password == *fingerprint)
    }

    fn remember(&self, user: &str, password: blake3::Hash) {
        let mut remembered = self.inner.remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Bounded by the accounts of this node: only proven users are remembered, one password each.
        remembered.insert(user.to_owned(), Remembered { password, until: Instant::now() + REMEMBERED });
    }
}

impl<S: ObjectStore> Known<S> {
    fn account(&self) -> Option<Account<S>> {
        self.account.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
