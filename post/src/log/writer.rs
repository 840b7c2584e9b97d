//! Writing a log: the one task that may.
//!
//! An append is one record and then one head, each at its quorum. What can go wrong, and what then holds:
//!
//! - the record (or the cluster that is due) is not stored: nothing has happened ([`LogError::Unavailable`]);
//! - the head is sent and its quorum does not answer: it may stand or not ([`LogError::Unresolved`]). The writer keeps the
//!   block and refuses everything else until [`LogWriter::resolve`] has sent *the same version with the same bytes* again, which
//!   replicas acknowledge if they have it. So a log never has two heads of one version by one writer;
//! - another writer opened the log: replicas refuse ours, and this writer is finished ([`LogError::TakenOver`]).
//!
//! Opening writes a head too, with the next writer epoch: it shuts out every earlier writer, and makes certain at
//! a quorum what may have been read from fewer replicas.

use super::head::{Head, Snapshot, hash_of};
use super::keys::WriteKeys;
use super::limits::{
    BACK_REFERENCES_MAX, CLUSTER_RECORDS, MARKS_MAX, RECORDS_SINCE_SNAPSHOT_MAX, SNAPSHOT_OBJECT_BYTES,
    SNAPSHOT_OBJECTS_MAX,
};
use super::reader::{LogReader, Tail};
use super::record::{Cluster, Record, cluster_key, record_key};
use super::{LogError, LogStore};
use crate::seal::{self, Reference, SealError, Secret};
use crate::store::{ObjectStore, StoreError};
use bytes::Bytes;
use net::id::{Key, Name};
use std::collections::VecDeque;

/// The single writer of one log.
#[derive(Debug)]
pub struct LogWriter<S> {
    log: LogStore<S>,
    keys: WriteKeys,
    head: Head,
    head_hash: [u8; 32],
    /// The latest records' handles, newest first: what back references are made of.
    recent: VecDeque<Name>,
    /// Blocks that opening the log needs, each with the number of its last record.
    live: VecDeque<(u64, Key)>,
    state: WriterState,
}

#[derive(Debug)]
enum WriterState {
    Ready,
    /// This head was sent and not acknowledged.
    Unresolved(Box<Sent>),
    /// Somebody wrote this version.
    TakenOver(u64),
}

/// A head on its way.
#[derive(Debug)]
struct Sent {
    head: Head,
    block: Bytes,
    /// Blocks that become needed with it.
    live: Vec<(u64, Key)>,
}

/// A log that has been opened for writing.
#[derive(Debug)]
pub struct Opened<S> {
    /// Its writer.
    pub writer: LogWriter<S>,
    /// The state in its snapshot, if it has one.
    pub snapshot: Option<Bytes>,
    /// The records after the snapshot, oldest first.
    pub records: Vec<Record>,
    /// Whether nothing after these records can have been acknowledged to anybody: the log is new, or its head is at least
    /// as new as the one remembered. Otherwise numbers below the marks may have been given out.
    pub is_tail_certain: bool,
}

impl<S: ObjectStore> LogWriter<S> {
    /// Opens the log for writing, making it (with `marks`) if it does not exist. `remembered` is the highest version
    /// this device has seen, if it knows.
    ///
    /// # Errors
    /// Any [`LogError`]; nothing is held that would have to be resolved.
    pub async fn open(
        log: LogStore<S>,
        keys: WriteKeys,
        remembered: Option<u64>,
        marks: Vec<u64>,
    ) -> Result<Opened<S>, LogError> {
        assert!(marks.len() <= MARKS_MAX);
        let reader = LogReader::new(log.clone(), keys.read().clone());
        let found = reader.head(remembered).await?;
        let (tail, snapshot) = match &found {
            Some((head, _)) => {
                let after = head.snapshot.as_ref().map_or(0, |snapshot| snapshot.sequence);
                (reader.since(head, after).await?, reader.snapshot(head).await?)
            }
            None => (Tail::default(), None),
        };
        let head = match &found {
            Some((head, block)) => Head { epoch: head.epoch + 1, ..head.next(hash_of(block)) },
            None => Head::first(marks),
        };
        let is_tail_certain = found.is_none() || remembered.is_some();
        let block = head.seal(&keys, &log.store.entropy());
        log.store.put_signed(keys.read().head_key(), block.clone(), log.expiry()).await?;
        let head_hash = hash_of(&block);
        let recent = head.partial.iter().rev().take(1 + BACK_REFERENCES_MAX).copied().collect();
        let live = live_of(&tail);
        let writer = LogWriter { log, keys, head, head_hash, recent, live, state: WriterState::Ready };
        let records = tail.records.into_iter().map(|(_, record)| record).collect();
        Ok(Opened { writer, snapshot, records, is_tail_certain })
    }

    /// The head as last written for certain.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whether a head is on its way whose fate is unknown.
    #[must_use]
    pub fn is_unresolved(&self) -> bool {
        matches!(self.state, WriterState::Unresolved(_))
    }

    /// Appends `entries` as one record, and sets the high-water marks, which only rise. When it returns, both are durable
    /// at their quorum. All or nothing.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: nothing happened. [`LogError::Unresolved`]: call [`resolve`](Self::resolve).
    /// [`LogError::TakenOver`]: this writer is finished. [`LogError::TooLarge`]: the caller's mistake.
    /// [`LogError::SnapshotDue`]: nothing happened; write a snapshot first.
    ///
    /// # Panics
    /// If there are not as many marks as the log has.
    pub async fn append(&mut self, entries: Vec<Bytes>, marks: &[u64]) -> Result<(), LogError> {
        self.check_ready()?;
        let mut head = self.next_head(marks);
        if head.sequence - head.snapshot.as_ref().map_or(0, |s| s.sequence) >= RECORDS_SINCE_SNAPSHOT_MAX {
            return Err(LogError::SnapshotDue);
        }
        let mut live = Vec::new();
        let record = Record {
            sequence: head.sequence + 1,
            epoch: head.epoch,
            previous: self.recent.front().copied(),
            back: self.recent.iter().skip(1).take(BACK_REFERENCES_MAX).copied().collect(),
            entries,
        };
        let (record_block_key, record_block) = record.seal(self.keys.read(), &self.log.store.entropy())?;
        if head.partial.len() == CLUSTER_RECORDS {
            let cluster = self.put_cluster(&head).await?;
            live.push((head.sequence, cluster_key(cluster)));
            head.cluster = Some(cluster);
            head.partial.clear();
        }
        self.log.store.put(record_block_key, record_block, self.log.expiry()).await?;
        head.sequence = record.sequence;
        head.entries += record.entries.len() as u64;
        head.partial.push(record_block_key.name);
        live.push((head.sequence, record_block_key));
        self.send(head, live).await
    }

    /// Raises the high-water marks without appending.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn reserve(&mut self, marks: &[u64]) -> Result<(), LogError> {
        self.check_ready()?;
        let head = self.next_head(marks);
        self.send(head, Vec::new()).await
    }

    /// Stores `state` as the state after the latest record, so that opening the log reads nothing older.
    ///
    /// # Errors
    /// As [`append`](Self::append); the log's content is the same in every case.
    pub async fn snapshot(&mut self, state: &[u8]) -> Result<(), LogError> {
        self.check_ready()?;
        if state.len() > SNAPSHOT_OBJECT_BYTES * SNAPSHOT_OBJECTS_MAX {
            return Err(LogError::TooLarge);
        }
        let mut objects = Vec::new();
        let mut rest = state;
        while objects.is_empty() || !rest.is_empty() {
            let (object, after) = rest.split_at(rest.len().min(SNAPSHOT_OBJECT_BYTES));
            objects.push(self.put_object(object).await?);
            rest = after;
        }
        let mut head = self.head.next(self.head_hash);
        head.snapshot = Some(Snapshot { objects, sequence: head.sequence, entries: head.entries });
        self.send(head, Vec::new()).await
    }

    /// Sends an unacknowledged head again, the same bytes. Once it returns, what was unresolved is durable. Does nothing
    /// if nothing is unresolved.
    ///
    /// # Errors
    /// [`LogError::Unresolved`]: still unknown. [`LogError::TakenOver`]: open the log anew to see what it holds.
    pub async fn resolve(&mut self) -> Result<(), LogError> {
        match std::mem::replace(&mut self.state, WriterState::Ready) {
            WriterState::Ready => Ok(()),
            WriterState::Unresolved(sent) => self.deliver(*sent).await,
            WriterState::TakenOver(version) => {
                self.state = WriterState::TakenOver(version);
                Err(LogError::TakenOver { version })
            }
        }
    }

    /// The keys of every block that opening the log needs, for its leases: head, records and clusters after the snapshot.
    /// The snapshot itself is objects: see [`snapshot_objects`](Self::snapshot_objects).
    pub fn live_keys(&self) -> impl Iterator<Item = Key> {
        std::iter::once(self.keys.read().head_key()).chain(self.live.iter().map(|(_, key)| *key))
    }

    /// The references of the latest snapshot.
    #[must_use]
    pub fn snapshot_objects(&self) -> &[Reference] {
        self.head.snapshot.as_ref().map_or(&[], |snapshot| &snapshot.objects)
    }

    fn check_ready(&self) -> Result<(), LogError> {
        match &self.state {
            WriterState::Ready => Ok(()),
            WriterState::Unresolved(_) => Err(LogError::Unresolved),
            WriterState::TakenOver(version) => Err(LogError::TakenOver { version: *version }),
        }
    }

    fn next_head(&self, marks: &[u64]) -> Head {
        assert_eq!(marks.len(), self.head.marks.len());
        let mut head = self.head.next(self.head_hash);
        for (mark, wanted) in head.marks.iter_mut().zip(marks) {
            *mark = (*mark).max(*wanted);
        }
        head
    }

    async fn put_object(&self, object: &[u8]) -> Result<Reference, LogError> {
        let salt = Secret::salted(self.log.store.entropy());
        let stored = seal::store(&*self.log.store, self.log.ring, &salt, object, self.log.expiry()).await;
        stored.map_err(|error| match error {
            SealError::TooLarge => LogError::TooLarge,
            SealError::Store(error) => error.into(),
        })
    }

    async fn put_cluster(&self, head: &Head) -> Result<Name, LogError> {
        let first = head.sequence + 1 - CLUSTER_RECORDS as u64;
        let cluster = Cluster { first, previous: head.cluster, records: head.partial.clone() };
        let (key, block) = cluster.seal(self.keys.read(), &self.log.store.entropy());
        self.log.store.put(key, block, self.log.expiry()).await?;
        Ok(key.name)
    }

    async fn send(&mut self, head: Head, live: Vec<(u64, Key)>) -> Result<(), LogError> {
        assert_eq!(head.version, self.head.version + 1);
        let block = head.seal(&self.keys, &self.log.store.entropy());
        self.deliver(Sent { head, block, live }).await
    }

    /// Puts a head and takes it over once it is acknowledged. While it is on its way the writer is unresolved, so that a
    /// caller who drops this future half-way is held to resolving it.
    async fn deliver(&mut self, sent: Sent) -> Result<(), LogError> {
        let block = sent.block.clone();
        self.state = WriterState::Unresolved(Box::new(sent));
        let put = self.log.store.put_signed(self.keys.read().head_key(), block, self.log.expiry()).await;
        match put {
            Ok(()) => {
                self.settle();
                Ok(())
            }
            Err(StoreError::Superseded { version }) => {
                self.state = WriterState::TakenOver(version);
                Err(LogError::TakenOver { version })
            }
            Err(StoreError::Unavailable | StoreError::Busy) => Err(LogError::Unresolved),
            Err(StoreError::Refused) => Err(LogError::Refused),
        }
    }

    fn settle(&mut self) {
        let WriterState::Unresolved(sent) = std::mem::replace(&mut self.state, WriterState::Ready) else {
            unreachable!("only a head on its way is settled");
        };
        let Sent { head, block, live } = *sent;
        if let Some(latest) = head.latest().filter(|_| head.sequence > self.head.sequence) {
            self.recent.push_front(latest);
            self.recent.truncate(1 + BACK_REFERENCES_MAX);
        }
        self.live.extend(live);
        let covered = head.snapshot.as_ref().map_or(0, |snapshot| snapshot.sequence);
        while self.live.front().is_some_and(|(sequence, _)| *sequence <= covered) {
            self.live.pop_front();
        }
        self.head_hash = hash_of(&block);
        self.head = head;
    }
}

/// The blocks that were read to open a log, by the number of their last record.
fn live_of(tail: &Tail) -> VecDeque<(u64, Key)> {
    let clusters = tail.clusters.iter().map(|(handle, last)| (*last, cluster_key(*handle)));
    let records = tail.records.iter().map(|(handle, record)| (record.sequence, record_key(*handle)));
    let mut live: Vec<(u64, Key)> = clusters.chain(records).collect();
    live.sort_unstable();
    live.into()
}
