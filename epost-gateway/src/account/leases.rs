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

/// One round: every lease now ends one whole lease from now. A folder that cannot be opened, or a block that cannot
/// be refreshed, keeps none of the others from it.
pub(super) async fn refresh<S: ObjectStore>(shared: &Arc<Shared<S>>) -> Result<Refreshed, AccountError> {
    let services = &shared.services;
    let expiry = services.expiry();
    let mut round = Round::default();
    let account =
        vec![certificate_key(&shared.secrets.address), identity_key(&shared.secrets.root.verifying_key().to_bytes())];
    let asked = account.len();
    let known = services.store.refresh(account, expiry).await;
    round.add(known.map(|known| Refreshed { asked, known }).map_err(AccountError::from));
    round.add(shared.mailbox.refresh(expiry).await);
    round.add(shared.outbox.refresh(expiry).await);
    let outbox = shared.outbox.state();
    round.add(messages(shared, of_outbox(&outbox), expiry).await);
    let serials: Vec<u32> = shared.mailbox.state().folders().map(|(_, record)| record.serial).collect();
    for serial in serials {
        match shared.folder_with_serial(serial).await {
            Ok(folder) => {
                round.add(folder.refresh(expiry).await);
                round.add(messages(shared, of_folder(&folder.view()), expiry).await);
            }
            Err(error) => round.add(Err(error)),
        }
    }
    round.end()
}

async fn messages<'m, S: ObjectStore>(
    shared: &Shared<S>,
    messages: impl IntoIterator<Item = &'m post::mail::message::MessageReference>,
    expiry: u64,
) -> Result<Refreshed, AccountError> {
    refresh_messages(&*shared.services.store, messages, expiry).await.map_err(|_| AccountError::Unavailable)
}

/// What a round has come to.
#[derive(Default)]
struct Round {
    total: Refreshed,
    failure: Option<AccountError>,
}

impl Round {
    fn add(&mut self, refreshed: Result<Refreshed, AccountError>) {
        match refreshed {
            Ok(more) => {
                self.total.asked += more.asked;
                self.total.known += more.known;
            }
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
    }

    fn end(self) -> Result<Refreshed, AccountError> {
        match self.failure {
            None => Ok(self.total),
            Some(error) => Err(error),
        }
    }
}
