//! Which blocks an account's logs refer to: what the owner's gateway keeps alive.
//!
//! Leases are refreshed in bounded batches. What nothing refers to any more is simply not refreshed, and goes when
//! its lease ends; an object that two messages share is refreshed for either.

use super::limits::REFRESH_BATCH_MAX;
use super::message::{MessageReference, keys_of};
use super::outbox::Outbox;
use super::view::FolderView;
use crate::log::writer::LogWriter;
use crate::seal::{self, OpenError};
use crate::store::{ObjectStore, StoreError};
use net::id::Key;
use net::machine::Seconds;
use std::collections::BTreeSet;

/// Why leases were not all refreshed. Those of earlier batches were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The store did not answer.
    #[error("the store did not refresh leases: {0}")]
    Store(#[from] StoreError),
    /// The chunk list of a large object could not be read.
    #[error("the chunks of an object are not known: {0}")]
    Open(#[from] OpenError),
}

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

/// The keys of every block that opening a log needs.
///
/// # Errors
/// [`OpenError`], if the chunk list of its snapshot cannot be read.
pub async fn keys_of_log<S: ObjectStore>(store: &S, writer: &LogWriter<S>) -> Result<Vec<Key>, OpenError> {
    let mut keys: Vec<Key> = writer.live_keys().collect();
    for object in writer.snapshot_objects() {
        keys.extend(seal::keys_of(store, object).await?);
    }
    Ok(keys)
}

/// Refreshes the leases of every block of these messages, to `expiry`.
///
/// # Errors
/// [`RefreshError`]; what was refreshed before it stays refreshed.
pub async fn refresh_messages<'m, S: ObjectStore>(
    store: &S,
    messages: impl IntoIterator<Item = &'m MessageReference>,
    expiry: Seconds,
) -> Result<Refreshed, RefreshError> {
    let mut refreshed = Refreshed::default();
    let mut batch = BTreeSet::new();
    for message in messages {
        batch.extend(keys_of(store, message).await?);
        if batch.len() >= REFRESH_BATCH_MAX {
            refresh(store, std::mem::take(&mut batch), expiry, &mut refreshed).await?;
        }
    }
    refresh(store, batch, expiry, &mut refreshed).await?;
    Ok(refreshed)
}

/// Refreshes the leases of every block that opening a log needs, to `expiry`.
///
/// # Errors
/// [`RefreshError`].
pub async fn refresh_log<S: ObjectStore>(
    store: &S,
    writer: &LogWriter<S>,
    expiry: Seconds,
) -> Result<Refreshed, RefreshError> {
    let mut refreshed = Refreshed::default();
    let keys = keys_of_log(store, writer).await?.into_iter().collect();
    refresh(store, keys, expiry, &mut refreshed).await?;
    Ok(refreshed)
}

/// Refreshes `keys`, sorted along the ring, in batches of [`REFRESH_BATCH_MAX`].
async fn refresh<S: ObjectStore>(
    store: &S,
    keys: BTreeSet<Key>,
    expiry: Seconds,
    refreshed: &mut Refreshed,
) -> Result<(), RefreshError> {
    let keys: Vec<Key> = keys.into_iter().collect();
    for batch in keys.chunks(REFRESH_BATCH_MAX) {
        refreshed.asked += batch.len();
        refreshed.known += store.refresh(batch.to_vec(), expiry).await?;
    }
    Ok(())
}
