//! What a session knows and does: the three states of RFC 3501 §3, and every command in them.
//!
//! A session holds the account once somebody has logged in, and the folder once one is selected. It reads nothing
//! from the network; it is given commands, writes untagged answers to the [`Wire`], and says how the command
//! ended. What needs a dialogue (STARTTLS, AUTHENTICATE, IDLE) it hands back to the connection as a [`Next`].
//!
//! `folders` has the commands about folders, `messages` those about the messages of the selected one.

mod folders;
mod messages;
#[cfg(test)]
mod tests;

use super::command::{Command, Secret};
use super::response::{CAPABILITIES, Code, Completion};
use super::selected::{Expected, Numbering};
use super::wire::{Wire, WireError};
use super::{Counters, limits};
use crate::account::{Account, AccountError, Accounts, Folder, LoginError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use post::mail::view::FolderView;
use post::store::ObjectStore;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// What the connection does after a command.
pub(super) enum Next {
    /// Says how the command ended.
    Done(Completion),
    /// Says OK and begins TLS.
    StartTls,
    /// Asks for the PLAIN response and calls [`Session::log_in_plain`].
    AskPlain,
    /// Pushes changes until the client says DONE.
    Idle,
    /// Says goodbye.
    LogOut,
}

/// Whether octets pass in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privacy {
    /// Under TLS.
    Private,
    /// In clear, and TLS is to be had.
    StartTls,
    /// In clear for ever: nobody can log in.
    Clear,
}

/// One session.
pub(super) struct Session<S: ObjectStore> {
    accounts: Accounts<S>,
    counters: Arc<Counters>,
    privacy: Privacy,
    account: Option<Account<S>>,
    selected: Option<Selected<S>>,
    login_failures: u32,
}

/// The selected folder.
struct Selected<S: ObjectStore> {
    folder: Folder<S>,
    changes: watch::Receiver<Arc<FolderView>>,
    numbering: Numbering,
    read_only: bool,
    /// The messages fetched last, newest at the back.
    cached: VecDeque<(u32, Bytes)>,
}

type Outcome = Result<Completion, WireError>;

impl<S: ObjectStore> Session<S> {
    pub(super) fn new(accounts: Accounts<S>, counters: Arc<Counters>, privacy: Privacy) -> Self {
        Self { accounts, counters, privacy, account: None, selected: None, login_failures: 0 }
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.account.is_some()
    }

    /// Octets an APPENDed message may have; none before login.
    pub(super) fn message_bytes_max(&self) -> Option<usize> {
        self.account.as_ref().map(Account::message_bytes_max)
    }

    /// Whether somebody has tried too often.
    pub(super) fn has_failed_too_often(&self) -> bool {
        self.login_failures >= limits::LOGIN_FAILURES_MAX
    }

    /// Whether the selected folder is no more: nothing can be said about it that would be true.
    pub(super) fn has_lost_folder(&self) -> bool {
        self.selected.as_ref().is_some_and(|selected| selected.changes.has_changed().is_err())
    }

    /// What may be asked for now.
    pub(super) fn capabilities(&self) -> String {
        let now = match self.privacy {
            _ if self.is_logged_in() => "",
            Privacy::Private => " AUTH=PLAIN",
            Privacy::StartTls => " STARTTLS LOGINDISABLED",
            Privacy::Clear => " LOGINDISABLED",
        };
        format!("{CAPABILITIES}{now}")
    }

    /// Does one command, and tells what else has changed where the command allows it.
    pub(super) async fn execute(&mut self, command: Command, wire: &mut Wire) -> Result<Next, WireError> {
        // Sequence numbers must hold still under the feet of those who use them (RFC 3501 §7.4.1).
        let uses_numbers = matches!(
            command,
            Command::Fetch { uid: false, .. } | Command::Store { uid: false, .. } | Command::Search { uid: false, .. }
        );
        // New messages and flags may always be told, and a command should see what is there.
        self.tell_changes(false, wire.out());
        let next = self.dispatch(command, wire).await?;
        self.tell_changes(!uses_numbers, wire.out());
        wire.relieve().await?;
        Ok(next)
    }

    async fn dispatch(&mut self, command: Command, wire: &mut Wire) -> Result<Next, WireError> {
        match command {
            Command::Capability => {
                let capabilities = self.capabilities();
                wire.out().extend_from_slice(format!("* CAPABILITY {capabilities}\r\n").as_bytes());
                Ok(Next::Done(Completion::ok("CAPABILITY completed")))
            }
            Command::Noop => Ok(Next::Done(Completion::ok("NOOP completed"))),
            Command::Logout => Ok(Next::LogOut),
            Command::Id => {
                let version = env!("CARGO_PKG_VERSION");
                wire.out()
                    .extend_from_slice(format!("* ID (\"name\" \"ePOST\" \"version\" \"{version}\")\r\n").as_bytes());
                Ok(Next::Done(Completion::ok("ID completed")))
            }
            Command::StartTls => Ok(self.start_tls()),
            Command::Login { user, password } => {
                let password = String::from_utf8(password.0.to_vec()).map(Zeroizing::new);
                Ok(Next::Done(match (self.may_log_in(), password) {
                    (Err(refusal), _) => refusal,
                    (Ok(()), Ok(password)) => self.log_in(&user, &password).await,
                    (Ok(()), Err(error)) => {
                        drop(Zeroizing::new(error.into_bytes()));
                        self.wrong_credentials()
                    }
                }))
            }
            Command::Authenticate { mechanism, initial } => Ok(self.authenticate(&mechanism, initial).await),
            other => Ok(match self.account.clone() {
                None => Next::Done(Completion::bad("log in first")),
                Some(_) if matches!(other, Command::Idle) => {
                    // A session may idle for hours: nothing is kept for its next FETCH.
                    if let Some(selected) = &mut self.selected {
                        selected.cached.clear();
                    }
                    Next::Idle
                }
                Some(account) => Next::Done(self.dispatch_logged_in(account, other, wire).await?),
            }),
        }
    }

    async fn dispatch_logged_in(&mut self, account: Account<S>, command: Command, wire: &mut Wire) -> Outcome {
        match command {
            Command::Enable => {
                wire.out().extend_from_slice(b"* ENABLED\r\n");
                Ok(Completion::ok("ENABLE completed"))
            }
            Command::Namespace => {
                wire.out().extend_from_slice(b"* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
                Ok(Completion::ok("NAMESPACE completed"))
            }
            Command::Select { folder, read_only } => Ok(self.select(&account, &folder, read_only, wire).await),
            Command::Create(folder) => Ok(folders::create(&account, &folder).await),
            Command::Delete(folder) => Ok(self.delete(&account, &folder).await),
            Command::Rename { from, to } => Ok(folders::rename(&account, &from, &to).await),
            Command::Subscribe { folder, subscribed } => Ok(folders::subscribe(&account, &folder, subscribed).await),
            Command::List { reference, pattern, subscribed } => {
                folders::list(&account, &reference, &pattern, subscribed, wire).await
            }
            Command::Status { folder, items } => Ok(folders::status(&account, &folder, &items, wire).await),
            Command::Append { folder, flags, internal_date_s, message } => {
                Ok(folders::append(&account, &folder, message, flags, internal_date_s).await)
            }
            selected => match self.selected.as_mut() {
                None => Ok(Completion::bad("select a folder first")),
                Some(_) if matches!(selected, Command::Close | Command::Unselect) => Ok(self.leave(selected).await),
                Some(folder) => folder.dispatch(&account, selected, wire).await,
            },
        }
    }

    /// Writes what has changed in the selected folder since the client was last told.
    pub(super) fn tell_changes(&mut self, may_expunge: bool, out: &mut Vec<u8>) {
        if let Some(selected) = &mut self.selected {
            selected.tell_changes(may_expunge, &Expected::default(), out);
        }
    }

    /// Waits until the selected folder changes, or for ever. An end without a change is a folder deleted.
    pub(super) async fn changed(&mut self) {
        match &mut self.selected {
            // Closed or changed: the caller looks.
            Some(selected) => drop(selected.changes.changed().await),
            None => std::future::pending().await,
        }
    }

    fn start_tls(&self) -> Next {
        match self.privacy {
            Privacy::StartTls if !self.is_logged_in() => Next::StartTls,
            Privacy::StartTls | Privacy::Private => Next::Done(Completion::bad("TLS is already there")),
            Privacy::Clear => Next::Done(Completion::bad("TLS is not to be had here")),
        }
    }

    fn may_log_in(&self) -> Result<(), Completion> {
        if self.is_logged_in() {
            return Err(Completion::bad("already logged in"));
        }
        if self.privacy != Privacy::Private {
            return Err(Completion::no_with(Code::PrivacyRequired, "no passwords in clear: use STARTTLS"));
        }
        Ok(())
    }

    async fn authenticate(&mut self, mechanism: &str, initial: Option<Secret>) -> Next {
        if let Err(refusal) = self.may_log_in() {
            return Next::Done(refusal);
        }
        if mechanism != "PLAIN" {
            return Next::Done(Completion::no_with(Code::Cannot, "only PLAIN is served"));
        }
        match initial {
            None => Next::AskPlain,
            Some(initial) => Next::Done(self.log_in_plain(&initial.0).await),
        }
    }

    /// Judges a response of SASL PLAIN (RFC 4616): base64 of authorisation id, NUL, user, NUL, password.
    pub(super) async fn log_in_plain(&mut self, response: &[u8]) -> Completion {
        // By SASL-IR a single `=` is an empty response.
        let response = if response == b"=" { &[] } else { response };
        let Ok(message) = STANDARD.decode(response).map(Zeroizing::new) else {
            return Completion::bad("not base64");
        };
        let mut fields = message.splitn(3, |&octet| octet == 0).map(std::str::from_utf8);
        let (Some(Ok(acting_as)), Some(Ok(user)), Some(Ok(password))) = (fields.next(), fields.next(), fields.next())
        else {
            return Completion::bad("not a PLAIN response");
        };
        if !acting_as.is_empty() && acting_as != user {
            return self.wrong_credentials();
        }
        self.log_in(user, password).await
    }

    async fn log_in(&mut self, user: &str, password: &str) -> Completion {
        match self.accounts.login(user, password).await {
            Ok(account) => {
                self.account = Some(account);
                self.login_failures = 0;
                Completion::ok("logged in")
            }
            Err(LoginError::WrongCredentials) => self.wrong_credentials(),
            Err(LoginError::Busy) => Completion::no_with(Code::Unavailable, "too many logins at once, try again"),
            Err(LoginError::Unavailable) => {
                Completion::no_with(Code::Unavailable, "the account is not open yet, try again")
            }
        }
    }

    fn wrong_credentials(&mut self) -> Completion {
        self.login_failures += 1;
        Counters::count(&self.counters.login_failed);
        Completion::no_with(Code::AuthenticationFailed, "wrong user or password")
    }
}

impl<S: ObjectStore> Selected<S> {
    fn tell_changes(&mut self, may_expunge: bool, expected: &Expected, out: &mut Vec<u8>) {
        let view = Arc::clone(&self.changes.borrow_and_update());
        self.numbering.update(&view, may_expunge, expected, self.read_only, out);
    }
}

/// What an account's error means to an IMAP client.
fn refused(error: &AccountError) -> Completion {
    let code = match error {
        AccountError::NoSuchFolder => Code::NonExistent,
        AccountError::FolderExists => Code::AlreadyExists,
        AccountError::Forbidden | AccountError::BadName | AccountError::NoSuchRecipient => Code::Cannot,
        AccountError::NoSuchMessage => Code::ExpungeIssued,
        AccountError::TooLarge => Code::TooBig,
        AccountError::Limit(_) | AccountError::BadKeywords => Code::Limit,
        AccountError::Unavailable | AccountError::TakenOver => Code::Unavailable,
        AccountError::Damaged => Code::Corruption,
    };
    Completion::no_with(code, error.to_string())
}

/// As [`refused`], where a folder that is not there could be made.
fn refused_at(error: &AccountError) -> Completion {
    match error {
        AccountError::NoSuchFolder => Completion::no_with(Code::TryCreate, "no such folder"),
        error => refused(error),
    }
}
