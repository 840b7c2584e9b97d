//! The owner's side of leases: everything his folders refer to is kept, by him, as long as it is referred to.
//!
//! The overview: "Your ePOST proxy periodically extends the lifetime of all the objects that are still referenced
//! from users' folders." Several times in a lease the task walks every folder, the outbox and the logs themselves
//! and extends what they need, in batches of a thousand keys, so that a few failed rounds expire nothing. What was
//! expunged is simply not asked for any more.

use super::{AccountError, Shared};
use net::past::block::certificate_key;
use post::identity::block::identity_key;
use post::mail::references::{Refreshed, of_folder, of_outbox, refresh_messages};
use post::store::ObjectStore;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Rounds in one lease.
const ROUNDS_PER_LEASE: u64 = 8;
/// Longest wait between rounds: once a day, as in the deployed system.
const ROUND_S_MAX: u64 = 86_400;
/// Wait after a round that failed.
const RETRY: Duration = Duration::from_secs(60);

/// Extends leases for as long as the account is open.
pub(super) async fn keep<S: ObjectStore>(shared: Arc<Shared<S>>) {
    let between = Duration::from_secs((shared.services.lease_s / ROUNDS_PER_LEASE).clamp(1, ROUND_S_MAX));
    loop {
        let wait = match refresh(&shared).await {
            Ok(refreshed) => {
                let counters = &shared.services.counters;
                counters.refreshes.fetch_add(1, Ordering::Relaxed);
                let missing = refreshed.asked.saturating_sub(refreshed.known) as u64;
                counters.blocks_missing.fetch_add(missing, Ordering::Relaxed);
                between
            }
            Err(error) => {
                tracing::warn!(%error, "leases were not all refreshed; trying again");
                RETRY.min(between)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// One round: every lease now ends one whole lease from now.
pub(super) async fn refresh<S: ObjectStore>(shared: &Arc<Shared<S>>) -> Result<Refreshed, AccountError> {
    let services = &shared.services;
    let expiry = services.expiry();
    let mut total = Refreshed::default();
    let account =
        vec![certificate_key(&shared.secrets.address), identity_key(&shared.secrets.root.verifying_key().to_bytes())];
    add(&mut total, Refreshed { asked: account.len(), known: services.store.refresh(account, expiry).await? });
    add(&mut total, shared.mailbox.refresh(expiry).await?);
    add(&mut total, shared.outbox.refresh(expiry).await?);
    let outbox = shared.outbox.state();
    add(&mut total, messages(shared, of_outbox(&outbox), expiry).await?);
    let serials: Vec<u32> = shared.mailbox.state().folders().map(|(_, record)| record.serial).collect();
    for serial in serials {
        let folder = shared.folder_with_serial(serial).await?;
        add(&mut total, folder.refresh(expiry).await?);
        let view = folder.view();
        add(&mut total, messages(shared, of_folder(&view), expiry).await?);
    }
    Ok(total)
}

async fn messages<'m, S: ObjectStore>(
    shared: &Shared<S>,
    messages: impl IntoIterator<Item = &'m post::mail::message::MessageReference>,
    expiry: u64,
) -> Result<Refreshed, AccountError> {
    refresh_messages(&*shared.services.store, messages, expiry).await.map_err(|_| AccountError::Unavailable)
}

fn add(total: &mut Refreshed, more: Refreshed) {
    total.asked += more.asked;
    total.known += more.known;
}
