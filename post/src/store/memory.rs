//! A store in memory, for tests: it verifies what it is given as a replica would, counts and records what passes
//! through it, and can be made to fail.
//!
//! It is one honest holder with no quorum, no network and no lease sweep of its own ([`MemoryStore::sweep`] is
//! called by the test). It checks the form and signature of signed blocks by code of its own; certificates as `net`
//! does.
//! Everything written or told is kept for later inspection, so it grows; it is not for a running node.

use super::{ObjectStore, StoreError};
use crate::entropy::Entropy;
use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use net::id::{Id, Key, Kind};
use net::machine::{Micros, Seconds};
use net::past::block::Trust;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// How many operations a store has been asked for, by method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `put`.
    pub put: u64,
    /// Calls of `get`.
    pub get: u64,
    /// Calls of `put_signed`.
    pub put_signed: u64,
    /// Calls of `get_signed`.
    pub get_signed: u64,
    /// Calls of `refresh`.
    pub refresh: u64,
    /// Calls of `tell`.
    pub tell: u64,
}

/// What becomes of a write that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It is not stored.
    Lost,
    /// It is stored, but the writer is told that the quorum did not answer.
    Unacknowledged,
}

/// Answers what is told to a node.
pub type Listener = Box<dyn Fn(Id, Bytes) -> Result<Bytes, StoreError> + Send>;

#[derive(Clone)]
struct Held {
    version: u64,
    expiry: Seconds,
    value: Bytes,
}

struct State {
    now: Micros,
    entropy: Entropy,
    trust: Option<Trust>,
    objects: BTreeMap<Key, Held>,
    lies: BTreeMap<Key, Bytes>,
    counts: Counts,
    written: Vec<(Key, Bytes)>,
    told: Vec<(Id, Bytes)>,
    is_reachable: bool,
    takes_writes: bool,
    writes_left: Option<(u64, Loss)>,
    listener: Option<Listener>,
}

/// A store in memory. Clones share their contents, as two users of one ring do.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

impl MemoryStore {
    /// An empty store whose clock stands at `now`.
    #[must_use]
    pub fn new(now: Micros) -> MemoryStore {
        let state = State {
            now,
            entropy: Entropy::new([0x5e; 32]),
            trust: None,
            objects: BTreeMap::new(),
            lies: BTreeMap::new(),
            counts: Counts::default(),
            written: Vec::new(),
            told: Vec::new(),
            is_reachable: true,
            takes_writes: true,
            writes_left: None,
            listener: None,
        };
        MemoryStore { state: Arc::new(Mutex::new(state)) }
    }

    /// Sets whose certificates are accepted. Without it, certificate blocks are refused.
    pub fn set_trust(&self, trust: Trust) {
        self.state().trust = Some(trust);
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Micros) {
        self.state().now += by;
    }

    /// Whether anything answers at all; when not, every operation is [`StoreError::Unavailable`].
    pub fn set_reachable(&self, is_reachable: bool) {
        self.state().is_reachable = is_reachable;
    }

    /// Whether writes reach their quorum; when not, they are [`StoreError::Unavailable`] and reads go on.
    pub fn set_writable(&self, takes_writes: bool) {
        self.state().takes_writes = takes_writes;
    }

    /// Lets `count` more writes (`put`, `put_signed`) succeed and all later ones fail, until [`heal`](Self::heal).
    /// [`Loss`] tells what becomes of the first that fails; those after it are lost.
    pub fn fail_writes_after(&self, count: u64, loss: Loss) {
        self.state().writes_left = Some((count, loss));
    }

    /// Ends every fault but the lies.
    pub fn heal(&self) {
        let mut state = self.state();
        state.is_reachable = true;
        state.takes_writes = true;
        state.writes_left = None;
    }

    /// From now on reads of `key` return these bytes, unchecked: a lying holder. `None` ends it.
    pub fn lie(&self, key: Key, value: Option<Bytes>) {
        let mut state = self.state();
        match value {
            Some(value) => state.lies.insert(key, value),
            None => state.lies.remove(&key),
        };
    }

    /// Removes an object, as if all its holders had lost it. Returns whether it was there.
    pub fn remove(&self, key: Key) -> bool {
        self.state().objects.remove(&key).is_some()
    }

    /// Removes every object whose lease ended before `now`, and returns how many there were.
    pub fn sweep(&self, now: Seconds) -> usize {
        let mut state = self.state();
        let before = state.objects.len();
        state.objects.retain(|_, held| held.expiry >= now);
        before - state.objects.len()
    }

    /// Sets who answers [`ObjectStore::tell`]; without one nobody is reachable.
    pub fn set_listener(&self, listener: Listener) {
        self.state().listener = Some(listener);
    }

    /// How often each operation was asked for.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Everything ever given to `put` and `put_signed`, whether or not it was taken.
    #[must_use]
    pub fn written(&self) -> Vec<(Key, Bytes)> {
        self.state().written.clone()
    }

    /// Everything ever given to `tell`.
    #[must_use]
    pub fn told(&self) -> Vec<(Id, Bytes)> {
        self.state().told.clone()
    }

    /// Whether `needle` occurs in anything ever written or told: what holders and the wire could see.
    #[must_use]
    pub fn has_seen(&self, needle: &[u8]) -> bool {
        let state = self.state();
        let written = state.written.iter().map(|(_, value)| value);
        let mut seen = written.chain(state.told.iter().map(|(_, payload)| payload));
        seen.any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    }

    /// The objects held now: key, end of lease, and size in bytes.
    #[must_use]
    pub fn objects(&self) -> Vec<(Key, Seconds, usize)> {
        self.state().objects.iter().map(|(key, held)| (*key, held.expiry, held.value.len())).collect()
    }

    /// Bytes held now, keys left out.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.state().objects.values().map(|held| held.value.len()).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation panics while it holds the store")
    }
}

impl State {
    /// What a write may do: `Ok(true)` go on, `Ok(false)` store it and deny it.
    fn admit_write(&mut self) -> Result<bool, StoreError> {
        if !self.is_reachable || !self.takes_writes {
            return Err(StoreError::Unavailable);
        }
        match &mut self.writes_left {
            None => Ok(true),
            Some((0, loss)) => match std::mem::replace(loss, Loss::Lost) {
                Loss::Lost => Err(StoreError::Unavailable),
                Loss::Unacknowledged => Ok(false),
            },
            Some((left, _)) => {
                *left -= 1;
                Ok(true)
            }
        }
    }

    fn store(&mut self, key: Key, version: u64, value: Bytes, expiry: Seconds) -> Result<(), StoreError> {
        let Some(held) = self.objects.get_mut(&key) else {
            self.objects.insert(key, Held { version, expiry, value });
            return Ok(());
        };
        if key.kind.is_mutable() {
            if held.version > version || (held.version == version && held.value != value) {
                return Err(StoreError::Superseded { version: held.version });
            }
            held.version = version;
            held.value = value;
        }
        held.expiry = held.expiry.max(expiry);
        Ok(())
    }

    fn write(&mut self, key: Key, value: Bytes, expiry: Seconds) -> Result<(), StoreError> {
        self.written.push((key, value.clone()));
        let is_acknowledged = self.admit_write()?;
        let version = legal_version(key, &value, self.trust.as_ref()).ok_or(StoreError::Refused)?;
        self.store(key, version, value, expiry)?;
        if is_acknowledged { Ok(()) } else { Err(StoreError::Unavailable) }
    }

    fn read(&self, key: Key) -> Result<Option<Bytes>, StoreError> {
        if !self.is_reachable {
            return Err(StoreError::Unavailable);
        }
        let held = self.lies.get(&key).or_else(|| self.objects.get(&key).map(|held| &held.value));
        Ok(held.cloned())
    }
}

/// The version of a block that is legal for `key`: its name follows from its bytes, or from the public key it is
/// signed with.
fn legal_version(key: Key, value: &Bytes, trust: Option<&Trust>) -> Option<u64> {
    match key.kind {
        Kind::Identity | Kind::Head => signed_version(key, value),
        Kind::Certificate => net::past::block::verify(&key, value, trust?).ok(),
        Kind::Content | Kind::Cluster | Kind::Fragment | Kind::Pending | Kind::Note => {
            (Key::of(key.kind, value) == key).then_some(0)
        }
    }
}

/// `"ePB1" | kind u8 | public key 32 | version u64 LE | body | signature 64` over everything before it.
fn signed_version(key: Key, block: &[u8]) -> Option<u64> {
    let (signed, signature) = block.split_last_chunk::<64>()?;
    let (magic, rest) = signed.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let (public_key, rest) = rest.split_first_chunk::<32>()?;
    let (version, _body) = rest.split_first_chunk::<8>()?;
    let is_in_place = magic == b"ePB1" && *kind == key.kind as u8 && Key::of(key.kind, public_key) == key;
    let verifier = VerifyingKey::from_bytes(public_key).ok().filter(|_| is_in_place)?;
    verifier.verify_strict(signed, &Signature::from_bytes(signature)).ok()?;
    Some(u64::from_le_bytes(*version))
}

impl ObjectStore for MemoryStore {
    async fn put(&self, key: Key, value: Bytes, expiry: Seconds) -> Result<(), StoreError> {
        let mut state = self.state();
        state.counts.put += 1;
        if key.kind.is_mutable() {
            return Err(StoreError::Refused);
        }
        state.write(key, value, expiry)
    }

    async fn get(&self, key: Key) -> Result<Option<Bytes>, StoreError> {
        let mut state = self.state();
        state.counts.get += 1;
        state.read(key)
    }

    async fn put_signed(&self, key: Key, value: Bytes, expiry: Seconds) -> Result<(), StoreError> {
        let mut state = self.state();
        state.counts.put_signed += 1;
        if !key.kind.is_mutable() {
            return Err(StoreError::Refused);
        }
        state.write(key, value, expiry)
    }

    async fn get_signed(&self, key: Key) -> Result<Option<Bytes>, StoreError> {
        let mut state = self.state();
        state.counts.get_signed += 1;
        state.read(key)
    }

    async fn refresh(&self, keys: Vec<Key>, expiry: Seconds) -> Result<usize, StoreError> {
        let mut state = self.state();
        state.counts.refresh += 1;
        if !state.is_reachable {
            return Err(StoreError::Unavailable);
        }
        let mut known = 0;
        for key in keys {
            if let Some(held) = state.objects.get_mut(&key) {
                held.expiry = held.expiry.max(expiry);
                known += 1;
            }
        }
        Ok(known)
    }

    async fn tell(&self, to: Id, payload: Bytes) -> Result<Bytes, StoreError> {
        // The listener may use the store, so the lock is not held while it answers.
        let listener = {
            let mut state = self.state();
            state.counts.tell += 1;
            state.told.push((to, payload.clone()));
            if !state.is_reachable {
                return Err(StoreError::Unavailable);
            }
            state.listener.take().ok_or(StoreError::Unavailable)?
        };
        let answer = listener(to, payload);
        self.state().listener.get_or_insert(listener);
        answer
    }

    fn now(&self) -> Micros {
        self.state().now
    }

    fn entropy(&self) -> [u8; 32] {
        self.state().entropy.draw()
    }
}

/// Drives a future to its end in the caller's thread, polling again at once while it is pending. Enough for
/// workflows over a [`MemoryStore`], which never waits for anything outside.
pub fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the store refuses what a replica refuses, and fails as told. Method: one block of each kind, whole
    //! and damaged, and each fault in turn.
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn signed(signer: &SigningKey, kind: Kind, version: u64, body: &[u8]) -> (Key, Bytes) {
        let public_key = signer.verifying_key().to_bytes();
        let mut block = b"ePB1".to_vec();
        block.push(kind as u8);
        block.extend_from_slice(&public_key);
        block.extend_from_slice(&version.to_le_bytes());
        block.extend_from_slice(body);
        let signature = signer.sign(&block).to_bytes();
        block.extend_from_slice(&signature);
        (Key::of(kind, &public_key), Bytes::from(block))
    }

    #[test]
    fn damaged_blocks_are_refused() {
        let store = MemoryStore::new(0);
        let (key, block) = signed(&SigningKey::from_bytes(&[3; 32]), Kind::Head, 7, b"body");
        for at in 0..block.len() {
            let mut broken = block.to_vec();
            broken[at] ^= 1;
            assert_eq!(run(store.put_signed(key, broken.into(), 9)), Err(StoreError::Refused), "byte {at}");
        }
        assert_eq!(run(store.put_signed(key, block.clone(), 9)), Ok(()));
        assert_eq!(run(store.get_signed(key)), Ok(Some(block)));
        let content = Key::of(Kind::Content, b"x");
        assert_eq!(run(store.put(content, Bytes::from_static(b"y"), 9)), Err(StoreError::Refused));
        assert_eq!(run(store.put(content, Bytes::from_static(b"x"), 9)), Ok(()));
        assert_eq!(run(store.put(key, Bytes::from_static(b"x"), 9)), Err(StoreError::Refused));
    }

    #[test]
    fn versions_only_rise_and_a_retry_is_acknowledged() {
        let store = MemoryStore::new(0);
        let signer = SigningKey::from_bytes(&[3; 32]);
        let (key, second) = signed(&signer, Kind::Head, 2, b"b");
        let other = signed(&signer, Kind::Head, 2, b"c").1;
        let first = signed(&signer, Kind::Head, 1, b"a").1;
        assert_eq!(run(store.put_signed(key, second.clone(), 9)), Ok(()));
        assert_eq!(run(store.put_signed(key, second, 9)), Ok(()));
        assert_eq!(run(store.put_signed(key, other, 9)), Err(StoreError::Superseded { version: 2 }));
        assert_eq!(run(store.put_signed(key, first, 9)), Err(StoreError::Superseded { version: 2 }));
    }

    #[test]
    fn faults_happen_when_asked_for() {
        let store = MemoryStore::new(0);
        let content = |i: u8| (Key::of(Kind::Content, &[i]), Bytes::copy_from_slice(&[i]));
        let put = |i: u8| run(store.put(content(i).0, content(i).1, 5));
        let has = |i: u8| run(store.get(content(i).0)).is_ok_and(|found| found.is_some());
        store.fail_writes_after(1, Loss::Unacknowledged);
        assert_eq!((put(1), put(2), put(3)), (Ok(()), Err(StoreError::Unavailable), Err(StoreError::Unavailable)));
        assert_eq!((has(1), has(2), has(3)), (true, true, false));
        store.heal();
        store.set_writable(false);
        assert_eq!((put(4), has(4)), (Err(StoreError::Unavailable), false));
        store.heal();
        assert_eq!((put(4), run(store.refresh(vec![content(4).0, content(9).0], 8))), (Ok(()), Ok(1)));
        assert_eq!((store.sweep(6), has(1), has(4)), (2, false, true));
        assert_eq!(store.counts().put, 5);
        assert!(store.has_seen(&[3]) && !store.has_seen(&[7]));
        assert_eq!(run(store.tell(Id::default(), Bytes::new())), Err(StoreError::Unavailable));
        store.set_listener(Box::new(|_, payload| Ok(payload)));
        assert_eq!(run(store.tell(Id::default(), Bytes::from_static(b"hi"))), Ok(Bytes::from_static(b"hi")));
    }
}
