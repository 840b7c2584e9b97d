//! Reading a log: its newest head, the records after a point, and its exact history backwards.
//!
//! Every block is checked against the handle that names it and against its place in the chain, so what is
//! returned is what the writer wrote, in the writer's order, or an error.

use super::head::Head;
use super::keys::ReadKeys;
use super::limits::{CLUSTER_RECORDS, RECORDS_SINCE_SNAPSHOT_MAX, SNAPSHOT_OBJECT_BYTES};
use super::record::{Cluster, Record, cluster_key, record_key};
use super::{LogError, LogStore};
use crate::seal;
use crate::store::ObjectStore;
use crate::store::concurrent::try_all;
use bytes::Bytes;
use net::id::{Key, Name};
use std::collections::VecDeque;

/// Reads one log.
#[derive(Debug)]
pub struct LogReader<S> {
    log: LogStore<S>,
    keys: ReadKeys,
}

/// The records of a log after some point, in order, and where they were.
#[derive(Debug, Default)]
pub struct Tail {
    /// The records with their handles.
    pub records: Vec<(Name, Record)>,
    /// The clusters that were read to find them, each with the number of its last record.
    pub clusters: Vec<(Name, u64)>,
}

/// A walk backwards through a log; see [`LogReader::history`].
#[derive(Debug)]
pub struct History<'r, S> {
    reader: &'r LogReader<S>,
    /// Handles of the records to come, newest first, as far as they are known.
    trail: VecDeque<Name>,
    /// The number of the first of them; 0 at the end.
    sequence: u64,
}

impl<S: ObjectStore> LogReader<S> {
    /// A reader of the log that `keys` read.
    #[must_use]
    pub fn new(log: LogStore<S>, keys: ReadKeys) -> LogReader<S> {
        LogReader { log, keys }
    }

    /// The newest head at the quorum, as read and as a block; `None` if the log does not exist. `remembered` is the highest
    /// version this device has seen.
    ///
    /// # Errors
    /// [`LogError::RolledBack`] if all that is found is older than that; [`LogError::BadHead`]; [`LogError::Unavailable`].
    pub async fn head(&self, remembered: Option<u64>) -> Result<Option<(Head, Bytes)>, LogError> {
        let found = self.log.store.get_signed(self.keys.head_key()).await?;
        let head = match found {
            Some(block) => Some((Head::open(&self.keys, &block)?, block)),
            None => None,
        };
        let seen = head.as_ref().map_or(0, |(head, _)| head.version);
        match remembered {
            Some(remembered) if seen < remembered => Err(LogError::RolledBack { seen, remembered }),
            _ => Ok(head),
        }
    }

    /// Every record after number `after`, oldest first.
    ///
    /// # Errors
    /// [`LogError::Missing`] or [`LogError::Tampered`] for a block; [`LogError::TooLarge`] if there are more than a log
    /// may have after its snapshot.
    pub async fn since(&self, head: &Head, after: u64) -> Result<Tail, LogError> {
        let wanted = head.sequence.saturating_sub(after);
        if wanted > RECORDS_SINCE_SNAPSHOT_MAX {
            return Err(LogError::TooLarge);
        }
        let mut tail = Tail::default();
        let mut handles: VecDeque<Name> = head.partial.iter().copied().collect();
        let mut cluster = head.cluster;
        while (handles.len() as u64) < wanted {
            let handle = cluster.ok_or(LogError::BadHead)?;
            let last = head.sequence - handles.len() as u64;
            let block = self.block(cluster_key(handle)).await?;
            let read = Cluster::open(&self.keys, handle, last + 1 - CLUSTER_RECORDS as u64, &block)?;
            tail.clusters.push((handle, last));
            read.records.iter().rev().for_each(|record| handles.push_front(*record));
            cluster = read.previous;
        }
        let skipped = handles.len() - wanted as usize;
        let gets = handles.iter().skip(skipped).zip(after + 1..).map(|(handle, number)| self.record(*handle, number));
        tail.records = try_all(gets.collect::<Vec<_>>()).await?;
        for pair in tail.records.windows(2) {
            if pair[1].1.previous != Some(pair[0].0) {
                return Err(LogError::Tampered(record_key(pair[1].0)));
            }
        }
        Ok(tail)
    }

    /// The state that the head's snapshot holds, if there is one.
    ///
    /// # Errors
    /// [`LogError::Missing`] or [`LogError::BadSnapshot`].
    pub async fn snapshot(&self, head: &Head) -> Result<Option<Bytes>, LogError> {
        let Some(snapshot) = &head.snapshot else { return Ok(None) };
        if snapshot.objects.iter().any(|object| object.length() > SNAPSHOT_OBJECT_BYTES as u64) {
            return Err(LogError::BadSnapshot);
        }
        let gets = snapshot.objects.iter().map(|object| seal::fetch(&*self.log.store, object));
        let mut objects = try_all(gets.collect::<Vec<_>>()).await?;
        match &mut objects[..] {
            [only] => Ok(Some(std::mem::take(only))),
            _ => Ok(Some(Bytes::from(objects.concat()))),
        }
    }

    /// Walks the log backwards, record by record, from the latest.
    #[must_use]
    pub fn history(&self, head: &Head) -> History<'_, S> {
        History { reader: self, trail: head.partial.iter().rev().copied().collect(), sequence: head.sequence }
    }

    async fn record(&self, handle: Name, sequence: u64) -> Result<(Name, Record), LogError> {
        let block = self.block(record_key(handle)).await?;
        Ok((handle, Record::open(&self.keys, handle, sequence, &block)?))
    }

    async fn block(&self, key: Key) -> Result<Bytes, LogError> {
        self.log.store.get(key).await?.ok_or(LogError::Missing(key))
    }
}

impl<S: ObjectStore> History<'_, S> {
    /// The next older record; `None` after the first. After an error about one record, the next call goes on
    /// behind it through the back references, as long as there are any.
    ///
    /// # Errors
    /// [`LogError::Missing`] or [`LogError::Tampered`] for the record; a store that does not answer leaves the walk
    /// where it is.
    pub async fn older(&mut self) -> Result<Option<Record>, LogError> {
        let Some(handle) = self.trail.front().copied() else { return Ok(None) };
        let read = self.reader.record(handle, self.sequence).await;
        if matches!(read, Err(LogError::Unavailable)) {
            return Err(LogError::Unavailable);
        }
        self.trail.pop_front();
        self.sequence -= 1;
        let (_, record) = read?;
        let links: VecDeque<Name> = record.previous.iter().chain(&record.back).copied().collect();
        if self.trail.iter().zip(&links).any(|(known, link)| known != link) {
            return Err(LogError::Tampered(record_key(handle)));
        }
        // The longer of the two is kept: the head knows up to fifty, a record up to five.
        if links.len() > self.trail.len() {
            self.trail = links;
        }
        Ok(Some(record))
    }
}
