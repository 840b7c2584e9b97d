//! What submission asks of the accounts behind it.
//!
//! The server is written against these two traits so that its dialogues are tested without a ring; in the daemon
//! they are the account layer, and nothing else.

use crate::account::{Account, AccountError, Accounts, LoginError};
use bytes::Bytes;
use post::store::ObjectStore;
use std::future::Future;

/// Those who may log in.
pub trait Users: Clone + Send + Sync + 'static {
    /// One who has.
    type User: User;

    /// Checks a name and password; the same answer for an unknown name and a wrong password.
    fn login(&self, name: &str, password: &str) -> impl Future<Output = Result<Self::User, LoginError>> + Send;
}

/// A user who has logged in.
pub trait User: Clone + Send + Sync + 'static {
    /// The user's own address.
    fn address(&self) -> &str;

    /// The largest message the account takes.
    fn message_bytes_max(&self) -> usize;

    /// Whether mail to `address` can be delivered.
    fn is_recipient(&self, address: &str) -> impl Future<Output = Result<bool, AccountError>> + Send;

    /// Returns when the message is safe in the sense of 250: every part and the outbox record at their quorums.
    fn submit(&self, recipients: Vec<String>, message: Bytes) -> impl Future<Output = Result<(), AccountError>> + Send;
}

impl<S: ObjectStore> Users for Accounts<S> {
    type User = Account<S>;

    async fn login(&self, name: &str, password: &str) -> Result<Account<S>, LoginError> {
        Accounts::login(self, name, password).await
    }
}

impl<S: ObjectStore> User for Account<S> {
    fn address(&self) -> &str {
        Account::address(self)
    }

    fn message_bytes_max(&self) -> usize {
        Account::message_bytes_max(self)
    }

    async fn is_recipient(&self, address: &str) -> Result<bool, AccountError> {
        Account::is_recipient(self, address).await
    }

    async fn submit(&self, recipients: Vec<String>, message: Bytes) -> Result<(), AccountError> {
        Account::submit(self, recipients, message).await
    }
}
