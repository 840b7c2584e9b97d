//! One connection: reads lines, does what the [`Session`] asks, writes replies.
//!
//! Replies to pipelined commands leave together (RFC 2920): the output is flushed only before reading more.
//! Between two reads nothing is interrupted, so a message whose text has been received is always answered for,
//! even when the daemon is asked to stop meanwhile.

use super::data::{MemoryShare, Progress, Text, TextFault};
use super::header::{HeaderFault, Stamp, complete};
use super::input::Input;
use super::limits::{ADDED_HEADER_BYTES_MAX, INPUT_BYTES};
use super::reply::Reply;
use super::session::{Session, Step};
use super::users::{User, Users};
use super::{Service, told_to_stop};
use crate::account::{AccountError, LoginError};
use bytes::Bytes;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

/// How a connection, or its part in clear, came to its end.
pub(super) enum Ended {
    /// Said goodbye.
    Closed,
    /// Goes on under TLS.
    StartTls,
}

/// Why a connection is cut before its end.
#[derive(Debug)]
pub(super) enum Cut {
    /// The client went away.
    Gone,
    /// The client was silent for too long.
    Silent,
    /// The client does not read its replies.
    NotReading,
    /// The client goes on sending a message that is refused.
    Flooding,
    /// The daemon is stopping.
    Stopping,
}

impl From<io::Error> for Cut {
    fn from(_: io::Error) -> Self {
        Cut::Gone
    }
}

/// A client's connection over any stream.
pub(super) struct Connection<'a, T, U: Users> {
    stream: T,
    service: &'a Service<U>,
    shutdown: watch::Receiver<bool>,
    input: Input,
    output: Vec<u8>,
    session: Session,
    user: Option<U::User>,
}

impl<'a, T: AsyncRead + AsyncWrite + Unpin, U: Users> Connection<'a, T, U> {
    pub(super) fn new(stream: T, secure: bool, service: &'a Service<U>, shutdown: watch::Receiver<bool>) -> Self {
        let bytes_max = service.limits.message_bytes_max.saturating_sub(ADDED_HEADER_BYTES_MAX);
        let session = Session::new(&service.host, &service.domain, bytes_max, secure);
        Connection { stream, service, shutdown, input: Input::new(), output: Vec::new(), session, user: None }
    }

    /// The stream, when its part in clear is over.
    pub(super) fn into_stream(self) -> T {
        assert!(self.output.is_empty());
        self.stream
    }

    /// Speaks until the end; `greet` says whether we begin.
    pub(super) async fn run(&mut self, greet: bool) -> Ended {
        match self.converse(greet).await {
            Ok(ended) => ended,
            Err(cut) => {
                self.say_why(cut).await;
                Ended::Closed
            }
        }
    }

    async fn converse(&mut self, greet: bool) -> Result<Ended, Cut> {
        if greet {
            let greeting = self.session.greeting();
            self.say(&greeting);
        }
        loop {
            let Some(line) = self.input.line() else {
                self.fill().await?;
                continue;
            };
            self.service.counters.commands.increment();
            let step = self.session.line(line);
            match self.perform(step).await? {
                Step::Reply(reply) => self.say(&reply),
                Step::Close(reply) => {
                    if reply.code() == 421 {
                        self.service.counters.sessions_cut.increment();
                    }
                    self.say(&reply);
                    self.flush().await?;
                    let _ = timeout(self.service.limits.write_max, self.stream.shutdown()).await;
                    return Ok(Ended::Closed);
                }
                Step::StartTls(reply) => {
                    let injected = self.input.discard();
                    self.service.counters.injected_bytes.add(injected as u64);
                    self.say(&reply);
                    self.flush().await?;
                    return Ok(Ended::StartTls);
                }
                Step::Login { .. } | Step::LookUp(_) | Step::ReceiveText(_) => unreachable!("performed above"),
            }
            if self.output.len() > INPUT_BYTES {
                self.flush().await?;
            }
        }
    }

    /// Does what needs waiting for, and returns what to say.
    async fn perform(&mut self, step: Step) -> Result<Step, Cut> {
        Ok(match step {
            Step::Login { name, password } => self.login(&name, &password).await,
            Step::LookUp(address) => Step::Reply(self.look_up(address).await),
            Step::ReceiveText(reply) => {
                self.say(&reply);
                let reply = self.receive().await?;
                self.count_message(&reply);
                Step::Reply(reply)
            }
            said @ (Step::Reply(_) | Step::Close(_) | Step::StartTls(_)) => said,
        })
    }

    async fn login(&mut self, name: &str, password: &Zeroizing<String>) -> Step {
        let outcome = self.service.users.login(name, password).await;
        let step = match &outcome {
            Ok(user) => {
                self.service.counters.logins.increment();
                let bytes_max = user.message_bytes_max().saturating_sub(ADDED_HEADER_BYTES_MAX);
                self.session.logged_in(Ok((user.address(), bytes_max)))
            }
            Err(LoginError::WrongCredentials) => {
                self.service.counters.logins_failed.increment();
                self.session.logged_in(Err(LoginError::WrongCredentials))
            }
            Err(LoginError::Busy) => self.session.logged_in(Err(LoginError::Busy)),
            Err(LoginError::Unavailable) => self.session.logged_in(Err(LoginError::Unavailable)),
        };
        if matches!(outcome, Err(LoginError::WrongCredentials)) {
            sleep(self.service.limits.login_failure_delay * self.session.login_failures()).await;
        }
        self.user = outcome.ok();
        step
    }

    async fn look_up(&mut self, address: String) -> Reply {
        let Some(user) = &self.user else { unreachable!("the session asks only for a user") };
        let outcome = user.is_recipient(&address).await;
        self.session.looked_up(address, outcome)
    }

    /// Receives a text and submits it; the answer to the dot.
    async fn receive(&mut self) -> Result<Reply, Cut> {
        let mut id = [0; 16];
        if getrandom::fill(&mut id).is_err() {
            self.session.take_recipients();
            return Ok(Reply::new(451, "4.3.0", "No randomness, try again"));
        }
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let service = self.service;
        let stamp = Stamp { host: &service.host, domain: &service.domain, time_s, id };
        let trace = stamp.trace();
        let start = trace.len();
        let mut text = Text::new(trace, self.session.bytes_max(), self.service.memory.share());
        loop {
            if self.input.pending().is_empty() {
                self.fill().await?;
            }
            let waiting = self.input.pending().len();
            match text.feed(self.input.pending()) {
                Progress::More => self.input.consume(waiting),
                Progress::Ended(used) => {
                    self.input.consume(used);
                    break;
                }
                Progress::Abandoned => return Err(Cut::Flooding),
            }
        }
        let recipients = self.session.take_recipients();
        Ok(match text.finish() {
            Ok((message, share)) => self.submit(recipients, message, start, &stamp, share).await,
            Err(fault) => text_refused(fault),
        })
    }

    async fn submit(
        &mut self,
        recipients: Vec<String>,
        mut message: Vec<u8>,
        start: usize,
        stamp: &Stamp<'_>,
        share: MemoryShare,
    ) -> Reply {
        let Some(user) = &self.user else { unreachable!("the session receives only from a user") };
        assert!(!recipients.is_empty());
        match complete(&mut message, start, self.session.user().unwrap_or_default(), stamp) {
            Ok(()) => {}
            Err(HeaderFault::NotTheUser) => return Reply::new(553, "5.7.1", "From is not you"),
            Err(HeaderFault::ManyFrom) => return Reply::new(554, "5.6.0", "More than one From"),
        }
        let outcome = user.submit(recipients, Bytes::from(message)).await;
        drop(share);
        match outcome {
            Ok(()) => Reply::new(250, "2.0.0", "Stored and on its way"),
            Err(error) => not_submitted(&error),
        }
    }

    fn say(&mut self, reply: &Reply) {
        let counters = &self.service.counters;
        match reply.code() {
            500..=504 | 555 => counters.bad_commands.increment(),
            550 => counters.recipients_refused.increment(),
            553 => counters.senders_refused.increment(),
            _ => {}
        }
        reply.render(&mut self.output);
    }

    fn count_message(&self, reply: &Reply) {
        let counters = &self.service.counters;
        match reply.code() {
            250 => counters.messages_accepted.increment(),
            451 => counters.messages_unavailable.increment(),
            452 => counters.messages_no_memory.increment(),
            500 | 554 => counters.texts_refused.increment(),
            552 => counters.messages_too_large.increment(),
            _ => {}
        }
    }

    async fn flush(&mut self) -> Result<(), Cut> {
        let output = std::mem::take(&mut self.output);
        let write = async {
            self.stream.write_all(&output).await?;
            self.stream.flush().await
        };
        Ok(timeout(self.service.limits.write_max, write).await.map_err(|_| Cut::NotReading)??)
    }

    /// Sends what is to be said, then waits for more to read.
    async fn fill(&mut self) -> Result<(), Cut> {
        if !self.output.is_empty() {
            self.flush().await?;
        }
        let limits = &self.service.limits;
        let silence = if self.user.is_some() { limits.silence_max } else { limits.silence_before_login_max };
        tokio::select! {
            read = timeout(silence, self.input.fill(&mut self.stream)) => {
                if read.map_err(|_| Cut::Silent)?? { Ok(()) } else { Err(Cut::Gone) }
            }
            () = told_to_stop(&mut self.shutdown) => Err(Cut::Stopping),
        }
    }

    async fn say_why(&mut self, cut: Cut) {
        let reply = match cut {
            Cut::Gone => return,
            Cut::NotReading => {
                self.service.counters.sessions_cut.increment();
                return;
            }
            Cut::Silent => Reply::new(421, "4.4.2", "Silent for too long"),
            Cut::Flooding => Reply::new(421, "4.7.0", "That message is refused, and does not end"),
            Cut::Stopping => Reply::new(421, "4.3.2", "Stopping; come back later"),
        };
        if !matches!(cut, Cut::Stopping) {
            self.service.counters.sessions_cut.increment();
        }
        self.say(&reply);
        if self.flush().await.is_ok() {
            let _ = timeout(self.service.limits.write_max, self.stream.shutdown()).await;
        }
    }
}

fn text_refused(fault: TextFault) -> Reply {
    match fault {
        TextFault::BareNewline => Reply::new(554, "5.5.2", "A bare CR or LF in the message"),
        TextFault::Nul => Reply::new(554, "5.6.0", "A NUL in the message"),
        TextFault::LineTooLong => Reply::new(500, "5.5.2", "A line of the message is too long"),
        TextFault::TooLarge => Reply::new(552, "5.3.4", "Message too large"),
        TextFault::NoMemory => Reply::new(452, "4.3.1", "Too much mail at once, try again"),
    }
}

fn not_submitted(error: &AccountError) -> Reply {
    match error {
        AccountError::TooLarge => Reply::new(552, "5.3.4", "Message too large"),
        AccountError::NoSuchRecipient => Reply::new(550, "5.1.1", "A recipient is not known here any more"),
        AccountError::Limit(_) => Reply::new(452, "4.3.1", "A bound of your account is reached, try again later"),
        AccountError::Forbidden => Reply::new(550, "5.7.1", "Not allowed"),
        AccountError::Unavailable
        | AccountError::TakenOver
        | AccountError::Damaged
        | AccountError::NoSuchFolder
        | AccountError::FolderExists
        | AccountError::NoSuchMessage
        | AccountError::BadName
        | AccountError::BadKeywords => Reply::new(451, "4.3.0", "Not stored safely; keep the mail and try again"),
    }
}
