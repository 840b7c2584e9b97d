//! Which blocks an account's logs refer to: what the owner's gateway keeps alive.
//!
//! Leases are refreshed in bounded batches. What nothing refers to any more is simply not refreshed, and goes when
//! its lease ends; an object that two messages share is refreshed for either.

use super::limits::REFRESH_BATCH_MAX;
use super::message::MessageReference;
use super::outbox::Outbox;
use super::view::FolderView;
use crate::log::writer::LogWriter;
use crate::seal::{self, OpenError, Reference};
use crate::store::{ObjectStore, StoreError};
use net::id::Key;
use net::machine::Seconds;
use std::collections::BTreeSet;

/// What a refresh found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Keys that were asked for.
    pub asked: usize,
    /// Keys that a replica knew; fewer than asked means that blocks are lost.
    pub known: usize,
}

/// The messages of a folder.
pub fn of_folder(view: &FolderView) -> impl Iterator<Item = &MessageReference> {
    view.entries.iter().map(|entry| &entry.message)
}

/// The messages of an outbox.
pub fn of_outbox(outbox: &Outbox) -> impl Iterator<Item = &MessageReference> {
    outbox.pending().map(|submission| &submission.message)
}

/// Refreshes the leases of every block of these messages, to `expiry`. A block that cannot be refreshed keeps none of
/// the others from it.
///
/// # Errors
/// [`StoreError`], the first there was; everything else was refreshed all the same.
pub async fn refresh_messages<'m, S: ObjectStore>(
    store: &S,
    messages: impl IntoIterator<Item = &'m MessageReference>,
    expiry: Seconds,
) -> Result<Refreshed, StoreError> {
    let mut round = Round::new(store, expiry);
    for message in messages {
        for object in message.references() {
            round.object(object).await;
        }
    }
    round.end().await
}

/// Refreshes the leases of every block that opening a log needs, to `expiry`.
///
/// # Errors
/// As [`refresh_messages`].
pub async fn refresh_log<S: ObjectStore>(
    store: &S,
    writer: &LogWriter<S>,
    expiry: Seconds,
) -> Result<Refreshed, StoreError> {
    let mut round = Round::new(store, expiry);
    round.batch.extend(writer.live_keys());
    for object in writer.snapshot_objects() {
        round.object(object).await;
    }
    round.end().await
}

/// One round of refreshing: keys are gathered, sorted along the ring, and asked for in bounded batches.
struct Round<'s, S> {
    store: &'s S,
    expiry: Seconds,
    batch: BTreeSet<Key>,
    refreshed: Refreshed,
    failure: Option<StoreError>,
}

impl<'s, S: ObjectStore> Round<'s, S> {
    fn new(store: &'s S, expiry: Seconds) -> Self {
        Round { store, expiry, batch: BTreeSet::new(), refreshed: Refreshed::default(), failure: None }
    }

    async fn object(&mut self, object: &Reference) {
        match seal::keys_of(self.store, object).await {
            Ok(keys) => self.batch.extend(keys),
            Err(OpenError::Store(error)) => {
                self.failure.get_or_insert(error);
            }
            // Its chunks are not known any more: the object is lost, and the others are not to be lost with it.
            Err(_) => self.refreshed.asked += 1,
        }
        if self.batch.len() >= REFRESH_BATCH_MAX {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let keys: Vec<Key> = std::mem::take(&mut self.batch).into_iter().collect();
        for batch in keys.chunks(REFRESH_BATCH_MAX) {
            self.refreshed.asked += batch.len();
            match self.store.refresh(batch.to_vec(), self.expiry).await {
                Ok(known) => self.refreshed.known += known,
                Err(error) => {
                    self.failure.get_or_insert(error);
                }
            }
        }
    }

    async fn end(mut self) -> Result<Refreshed, StoreError> {
        self.flush().await;
        match self.failure {
            None => Ok(self.refreshed),
            Some(error) => Err(error),
        }
    }
}
