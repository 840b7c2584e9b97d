//! One open folder: what IMAP sessions change and watch.
//!
//! Every method that changes something returns when the change is replicated at its quorum and the new view is
//! out; views are never waited for. All sessions of the node, and deliveries, share the writer behind it.

use super::keeper::Keeper;
use super::{AccountError, Services};
use bytes::Bytes;
use post::log::journal::Journal;
use post::mail::deliveries::Delivery;
use post::mail::folder::{FlagChange, Folder as FolderState, FolderError, NewMessage};
use post::mail::mailbox::Mailbox;
use post::mail::message::{fetch_message, store_message};
use post::mail::references::Refreshed;
use post::mail::view::{Flags, FolderView};
use post::store::ObjectStore;
use std::sync::Arc;
use tokio::sync::watch;

/// An open folder; cheap to clone.
pub struct Folder<S: ObjectStore> {
    services: Arc<Services<S>>,
    mailbox: Keeper<Mailbox>,
    serial: u32,
    keeper: Keeper<FolderState>,
    views: watch::Receiver<Arc<FolderView>>,
}

impl<S: ObjectStore> Clone for Folder<S> {
    fn clone(&self) -> Self {
        Folder {
            services: self.services.clone(),
            mailbox: self.mailbox.clone(),
            serial: self.serial,
            keeper: self.keeper.clone(),
            views: self.views.clone(),
        }
    }
}

impl<S: ObjectStore> Folder<S> {
    pub(super) fn new(
        services: Arc<Services<S>>,
        mailbox: Keeper<Mailbox>,
        serial: u32,
        journal: Journal<S, FolderState>,
    ) -> Folder<S> {
        let (show, views) = watch::channel(journal.state().view());
        let keeper = Keeper::start(services.clone(), journal, move |state: &FolderState| {
            show.send_replace(state.view());
        });
        Folder { services, mailbox, serial, keeper, views }
    }

    /// Its name now; empty once it is deleted.
    #[must_use]
    pub fn name(&self) -> String {
        let mailbox = self.mailbox.state();
        let mut folders = mailbox.folders();
        folders.find(|(_, record)| record.serial == self.serial).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    /// The folder as it is now.
    #[must_use]
    pub fn view(&self) -> Arc<FolderView> {
        self.views.borrow().clone()
    }

    /// Changes at every commit, whoever made it; closed when the folder is deleted.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<FolderView>> {
        self.views.clone()
    }

    /// Takes in a message as it is, and returns its UID. INTERNALDATE is now unless given.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn append(
        &self,
        message: Bytes,
        flags: Flags,
        internal_date_s: Option<i64>,
    ) -> Result<u32, AccountError> {
        if message.len() > self.services.message_bytes_max {
            return Err(AccountError::TooLarge);
        }
        let services = &self.services;
        let stored = store_message(&*services.store, &services.sealing, &message, services.expiry()).await?;
        let date_s = internal_date_s.unwrap_or_else(|| services.now_s().cast_signed());
        let new = NewMessage::new(&message, stored.reference, flags, date_s)?;
        self.take_in(new).await?.ok_or(AccountError::Damaged)
    }

    /// Takes in a message whose objects are stored. `None` if the notification that brings it has come before.
    pub(super) async fn take_in(&self, new: NewMessage) -> Result<Option<u32>, AccountError> {
        self.keeper
            .change(move |draft| {
                let appends = match draft.state().plan_append(vec![new]) {
                    Err(FolderError::Delivered) => return Ok(None),
                    planned => planned?,
                };
                for effect in appends.effects {
                    draft.record(effect)?;
                }
                Ok(appends.uids.first().copied())
            })
            .await
    }

    /// Whether the notification with this id has brought its message already.
    pub(super) fn has_delivered(&self, delivery: &Delivery) -> bool {
        self.keeper.state().has_delivered(&delivery.id)
    }

    /// Remembers the deliveries of `other`, whose place this folder takes.
    pub(super) async fn remember_deliveries_of(&self, other: &Folder<S>) -> Result<(), AccountError> {
        let other = other.keeper.state();
        self.keeper
            .change(move |draft| {
                for effect in draft.state().plan_remember(&other) {
                    draft.record(effect)?;
                }
                Ok(())
            })
            .await
    }

    /// Changes the flags of many messages in one commit; UIDs that do not exist are left out.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn change_flags(&self, uids: Vec<u32>, change: FlagChange, flags: Flags) -> Result<(), AccountError> {
        self.keeper
            .change(move |draft| {
                for effect in draft.state().plan_flags(&uids, change, &flags)? {
                    draft.record(effect)?;
                }
                Ok(())
            })
            .await
    }

    /// Copies messages; no object is stored again. Returns (UID here, UID there), ascending.
    ///
    /// # Errors
    /// [`AccountError`]; then nothing was copied.
    pub async fn copy_to(&self, uids: Vec<u32>, destination: &Folder<S>) -> Result<Vec<(u32, u32)>, AccountError> {
        self.bring_to(uids, destination, false).await
    }

    /// Moves messages: copies under an id that makes trying again harmless, then removes what was copied.
    ///
    /// # Errors
    /// [`AccountError`]. If the copy stands and the removal does not, moving again finishes it.
    pub async fn move_to(&self, uids: Vec<u32>, destination: &Folder<S>) -> Result<Vec<(u32, u32)>, AccountError> {
        let pairs = self.bring_to(uids, destination, true).await?;
        let moved: Vec<u32> = pairs.iter().map(|(here, _)| *here).collect();
        self.remove(move |_| moved).await?;
        Ok(pairs)
    }

    async fn bring_to(
        &self,
        uids: Vec<u32>,
        destination: &Folder<S>,
        is_move: bool,
    ) -> Result<Vec<(u32, u32)>, AccountError> {
        let source = self.view();
        destination
            .keeper
            .change(move |draft| {
                let copies = draft.state().plan_copy(&source, &uids, is_move)?;
                for effect in copies.effects {
                    draft.record(effect)?;
                }
                Ok(copies.pairs)
            })
            .await
    }

    /// Removes the messages flagged `\Deleted`: all, or those among `uids`. Returns the removed UIDs, ascending.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn expunge(&self, uids: Option<Vec<u32>>) -> Result<Vec<u32>, AccountError> {
        self.remove(move |state| state.deleted(uids.as_deref())).await
    }

    async fn remove(
        &self,
        choose: impl FnOnce(&FolderState) -> Vec<u32> + Send + 'static,
    ) -> Result<Vec<u32>, AccountError> {
        self.keeper
            .change(move |draft| {
                let chosen = choose(draft.state());
                for effect in draft.state().plan_expunge(&chosen) {
                    draft.record(effect)?;
                }
                Ok(chosen)
            })
            .await
    }

    /// The whole message, verified, byte for byte.
    ///
    /// # Errors
    /// [`AccountError::NoSuchMessage`], [`AccountError::Damaged`] or [`AccountError::Unavailable`].
    pub async fn message(&self, uid: u32) -> Result<Bytes, AccountError> {
        let reference = self.keeper.state().entry(uid).ok_or(AccountError::NoSuchMessage)?.message.clone();
        Ok(fetch_message(&*self.services.store, &reference).await?)
    }

    pub(super) async fn refresh(&self, expiry: u64) -> Result<Refreshed, AccountError> {
        self.keeper.refresh(expiry).await
    }

    pub(super) async fn version(&self) -> Option<u64> {
        self.keeper.version().await
    }

    /// Whether its writer is gone: deleted, or failed.
    pub(super) fn has_ended(&self) -> bool {
        self.keeper.has_ended()
    }

    /// Makes its writer fail, as a defect would.
    #[cfg(test)]
    pub(super) async fn fail(&self) {
        let failed = self.keeper.change::<()>(|_| panic!("on purpose")).await;
        assert!(failed.is_err());
        while !self.has_ended() {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn close(&self) {
        self.keeper.close().await;
    }
}
