//! Sealed objects in a store: put all their blocks, fetch and open them, list them for their leases.

use super::{OpenError, Reference, SealError, Secret};
use crate::store::concurrent::try_all;
use crate::store::{ObjectStore, StoreError};
use bytes::Bytes;
use net::id::Key;
use net::machine::Seconds;

/// Seals `plaintext` and stores every block of it. When it returns, all are durable at their quorum.
///
/// # Errors
/// [`SealError`]: the object is too large, or the store did not take a block. Blocks stored before the failure
/// stay until their lease ends; trying again is harmless.
pub async fn store<S: ObjectStore>(
    store: &S,
    ring: [u8; 16],
    secret: &Secret,
    plaintext: &[u8],
    expiry: Seconds,
) -> Result<Reference, SealError> {
    let sealed = super::seal(ring, secret, plaintext)?;
    let puts = sealed.blocks.into_iter().map(|(key, block)| store.put(key, block, expiry));
    try_all(puts.collect::<Vec<_>>()).await?;
    Ok(sealed.reference)
}

/// Fetches and opens an object. What is returned has the reference's hash and length.
///
/// # Errors
/// [`OpenError`]: a block is missing or false, or the store could not be asked.
pub async fn fetch<S: ObjectStore>(store: &S, reference: &Reference) -> Result<Bytes, OpenError> {
    let block = fetch_block(store, reference.block_key()).await?;
    if !reference.is_chunked() {
        return super::open(reference, &block);
    }
    let keys = super::open_list(reference, &block)?;
    let chunks = try_all(keys.iter().map(|key| fetch_block(store, *key)).collect::<Vec<_>>()).await?;
    super::open_chunks(reference, &keys, &chunks)
}

/// The keys of every block of an object, for lease refresh. Fetches the chunk list when there is one.
///
/// # Errors
/// [`OpenError`], if the chunk list cannot be read.
pub async fn keys_of<S: ObjectStore>(store: &S, reference: &Reference) -> Result<Vec<Key>, OpenError> {
    let first = reference.block_key();
    if !reference.is_chunked() {
        return Ok(vec![first]);
    }
    let mut keys = super::open_list(reference, &fetch_block(store, first).await?)?;
    keys.push(first);
    Ok(keys)
}

async fn fetch_block<S: ObjectStore>(store: &S, key: Key) -> Result<Bytes, OpenError> {
    let found: Result<Option<Bytes>, StoreError> = store.get(key).await;
    found?.ok_or(OpenError::Missing(key))
}
