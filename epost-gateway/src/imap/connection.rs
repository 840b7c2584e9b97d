//! One connection from its greeting to its end: octets to commands, commands to the session, answers back.
//!
//! The order is strict: one command at a time, the next is not looked at before the last is answered, and reading
//! stops while an answer waits for the client. Answers to pipelined commands are gathered and sent together.

use super::command::{Command, Tag};
use super::frame::{FrameBounds, FrameError, Framed, Framer, Step};
use super::parse::{self, ParseError};
use super::response::{Code, Completion, Status};
use super::session::{Next, Privacy, Session};
use super::wire::{Stream, Wire, WireError};
use super::{Counters, Service, limits};
use post::store::ObjectStore;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

/// Why a conversation ends.
#[derive(Debug)]
enum End {
    /// There is nobody left to talk to.
    Wire(WireError),
    /// The server ends it, and says why.
    Bye(&'static str),
    /// The client ended it, and has been told so.
    LoggedOut,
    /// It goes on under TLS.
    StartTls,
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// A connection over one stream, in clear or under TLS.
struct Connection<S: ObjectStore> {
    wire: Wire,
    framer: Framer,
    session: Session<S>,
    service: Service<S>,
    shutdown: watch::Receiver<bool>,
    opened: Instant,
    bad_in_a_row: u32,
    /// Held from the announcement of a message to the end of its APPEND.
    append_room: Option<OwnedSemaphorePermit>,
}

/// Converses over a stream that is in clear, or already private, until the end. With an acceptor, a
/// conversation in clear can go on under TLS.
pub(super) async fn converse<S: ObjectStore>(
    stream: Box<dyn Stream>,
    is_private: bool,
    acceptor: Option<TlsAcceptor>,
    service: Service<S>,
    shutdown: watch::Receiver<bool>,
) {
    let privacy = match (is_private, &acceptor) {
        (true, _) => Privacy::Private,
        (false, Some(_)) => Privacy::StartTls,
        (false, None) => Privacy::Clear,
    };
    let mut clear = Connection::new(stream, privacy, service, shutdown);
    clear.greet();
    let (End::StartTls, Some(acceptor)) = (clear.run().await, acceptor) else { return };
    // Octets that came in clear behind STARTTLS are dropped with the framer: nobody has vouched for them.
    let Connection { wire, service, shutdown, .. } = clear;
    match timeout(limits::HANDSHAKE_WAIT_MAX, acceptor.accept(wire.into_stream())).await {
        Ok(Ok(stream)) => {
            Connection::new(Box::new(stream), Privacy::Private, service, shutdown).run().await;
        }
        Ok(Err(_)) | Err(_) => Counters::count(&service.counters.handshake_failed),
    }
}

impl<S: ObjectStore> Connection<S> {
    fn new(stream: Box<dyn Stream>, privacy: Privacy, service: Service<S>, shutdown: watch::Receiver<bool>) -> Self {
        Self {
            wire: Wire::new(stream),
            framer: Framer::new(),
            session: Session::new(service.accounts.clone(), Arc::clone(&service.counters), privacy),
            service,
            shutdown,
            opened: Instant::now(),
            bad_in_a_row: 0,
            append_room: None,
        }
    }

    fn greet(&mut self) {
        let capabilities = self.session.capabilities();
        self.wire.out().extend_from_slice(format!("* OK [CAPABILITY {capabilities}] ePOST ready\r\n").as_bytes());
    }

    /// Serves commands until the end, and closes unless TLS begins.
    async fn run(&mut self) -> End {
        let end = match self.serve().await {
            Ok(()) => End::LoggedOut,
            Err(end) => end,
        };
        match &end {
            End::StartTls => {
                if let Err(error) = self.wire.flush().await {
                    return End::Wire(error);
                }
                return end;
            }
            End::Bye(why) => self.wire.out().extend_from_slice(format!("* BYE {why}\r\n").as_bytes()),
            End::LoggedOut => {}
            End::Wire(error) => {
                tracing::debug!(%error, "IMAP connection ended");
                return end;
            }
        }
        if self.wire.flush().await.is_ok() {
            self.wire.close().await;
        }
        end
    }

    async fn serve(&mut self) -> Result<(), End> {
        loop {
            match self.framer.step(self.bounds()) {
                Step::NeedMore => self.receive().await?,
                Step::Continue => self.ask(b"+ go on\r\n"),
                Step::Message { octets, waits } => self.admit(octets, waits).await,
                Step::Refused { tag, error } => {
                    self.append_room = None;
                    self.refuse(tag, error)?;
                }
                Step::Command(framed) => {
                    self.command(framed).await?;
                    self.append_room = None;
                }
            }
        }
    }

    fn bounds(&self) -> FrameBounds {
        match self.session.is_logged_in() {
            true => FrameBounds { line: limits::LINE_BYTES_MAX, literal: limits::LITERAL_BYTES_MAX, messages: true },
            false => FrameBounds { line: limits::LOGIN_BYTES_MAX, literal: limits::LOGIN_BYTES_MAX, messages: false },
        }
    }

    fn ask(&mut self, line: &[u8]) {
        self.wire.out().extend_from_slice(line);
    }

    /// Gives the client what has gathered for it, and waits for more from it.
    async fn receive(&mut self) -> Result<(), End> {
        self.wire.flush().await?;
        let now = Instant::now();
        let (until, late) = match (self.session.is_logged_in(), self.framer.is_between_commands()) {
            (false, _) => (self.opened + limits::LOGIN_WAIT_MAX, "too long without a login"),
            (true, true) => (now + limits::IDLE_MAX, "idle for too long"),
            (true, false) => (now + limits::COMMAND_PAUSE_MAX, "too long a pause within a command"),
        };
        self.framer.buffer.reserve(self.framer.wanted());
        tokio::select! {
            received = self.wire.read(&mut self.framer.buffer) => Ok(received?),
            () = asked_to_stop(&mut self.shutdown) => Err(End::Bye("the server is going down")),
            () = sleep_until(until) => Err(End::Bye(late)),
        }
    }

    /// Lets an APPEND bring its message, if it is not too large and there is room for it.
    async fn admit(&mut self, octets: u64, waits: bool) {
        let is_small_enough = self.session.message_bytes_max().is_some_and(|most| octets <= most as u64);
        if !is_small_enough {
            self.framer.refuse_message(FrameError::MessageTooLarge);
            return;
        }
        let permits = u32::try_from(octets).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.service.append_room).acquire_many_owned(permits);
        match timeout(limits::APPEND_WAIT_MAX, room).await {
            Ok(Ok(room)) => {
                self.framer.accept_message();
                if waits {
                    self.ask(b"+ send the message\r\n");
                }
                self.append_room = Some(room);
            }
            Ok(Err(_)) | Err(_) => self.framer.refuse_message(FrameError::NoRoom),
        }
    }

    fn refuse(&mut self, tag: Option<Tag>, error: FrameError) -> Result<(), End> {
        match error {
            FrameError::MessageTooLarge => {
                let refusal = Completion::no_with(Code::TooBig, "the message is larger than this account takes");
                self.complete(tag.as_ref(), &refusal)
            }
            FrameError::NoRoom => {
                let refusal = Completion::no_with(Code::Unavailable, "too many messages at once, try again");
                self.complete(tag.as_ref(), &refusal)
            }
            FrameError::Hopeless => {
                Counters::count(&self.service.counters.bad);
                Err(End::Bye("a literal far too long"))
            }
            malformed => self.complete(tag.as_ref(), &Completion::bad(malformed.to_string())),
        }
    }

    async fn command(&mut self, framed: Framed) -> Result<(), End> {
        Counters::count(&self.service.counters.commands);
        let tag = parse::tag_of(&framed.text);
        let tagged = match parse::command(&framed.text, framed.message) {
            Ok(tagged) => tagged,
            Err(error) => return self.complete(tag.as_ref(), &unparsed(error)),
        };
        // The line may hold a password: it is wiped before anything is waited for.
        drop(framed.text);
        let tag = tagged.tag;
        let changes_capabilities = matches!(tagged.command, Command::Login { .. } | Command::Authenticate { .. });
        let next = self.session.execute(tagged.command, &mut self.wire).await?;
        match next {
            Next::Done(completion) if changes_capabilities => self.complete_login(&tag, completion)?,
            Next::Done(completion) => self.complete(Some(&tag), &completion)?,
            Next::AskPlain => {
                let completion = self.ask_plain().await?;
                self.complete_login(&tag, completion)?;
            }
            Next::Idle => {
                let completion = self.idle().await?;
                self.complete(Some(&tag), &completion)?;
            }
            Next::StartTls => {
                self.complete(Some(&tag), &Completion::ok("begin TLS now"))?;
                return Err(End::StartTls);
            }
            Next::LogOut => {
                self.wire.out().extend_from_slice(b"* BYE goodbye\r\n");
                self.complete(Some(&tag), &Completion::ok("LOGOUT completed"))?;
                return Err(End::LoggedOut);
            }
        }
        if self.session.has_lost_folder() { Err(End::Bye("the selected folder was deleted")) } else { Ok(()) }
    }

    /// Writes the line that ends a command; ends the session if it was one malformed command too many.
    fn complete(&mut self, tag: Option<&Tag>, completion: &Completion) -> Result<(), End> {
        let tag = tag.map_or("*", |tag| tag.0.as_str());
        completion.write(tag, self.wire.out());
        if completion.status != Status::Bad {
            self.bad_in_a_row = 0;
            return Ok(());
        }
        Counters::count(&self.service.counters.bad);
        self.bad_in_a_row += 1;
        if self.bad_in_a_row >= limits::BAD_COMMANDS_MAX { Err(End::Bye("too many bad commands")) } else { Ok(()) }
    }

    /// Ends LOGIN or AUTHENTICATE, with what can be asked from now on, so that clients need not ask for it.
    fn complete_login(&mut self, tag: &Tag, completion: Completion) -> Result<(), End> {
        if completion.status == Status::Ok {
            let capabilities = self.session.capabilities();
            let line = format!("{tag} OK [CAPABILITY {capabilities}] {}\r\n", completion.text);
            self.wire.out().extend_from_slice(line.as_bytes());
            self.bad_in_a_row = 0;
            return Ok(());
        }
        self.complete(Some(tag), &completion)?;
        if self.session.has_failed_too_often() { Err(End::Bye("too many failed logins")) } else { Ok(()) }
    }

    /// AUTHENTICATE PLAIN without an initial response: asks for it. A lone `*` takes the command back.
    async fn ask_plain(&mut self) -> Result<Completion, End> {
        self.ask(b"+ \r\n");
        loop {
            match self.framer.line(limits::LOGIN_BYTES_MAX) {
                Ok(None) => self.receive().await?,
                Ok(Some(line)) if line.as_slice() == b"*" => return Ok(Completion::bad("taken back")),
                Ok(Some(line)) => return Ok(self.session.log_in_plain(&line).await),
                Err(FrameError::LineTooLong) => return Err(End::Bye("line too long")),
                Err(error) => return Ok(Completion::bad(error.to_string())),
            }
        }
    }

    /// Tells of changes as they are committed, until the client says DONE. Nothing is polled: the folder's commits
    /// wake this session.
    async fn idle(&mut self) -> Result<Completion, End> {
        self.ask(b"+ idling\r\n");
        self.session.tell_changes(true, self.wire.out());
        let until = Instant::now() + limits::IDLE_MAX;
        let mut sign_of_life = Instant::now() + limits::IDLE_SIGN_OF_LIFE;
        loop {
            match self.framer.line(limits::LOGIN_BYTES_MAX) {
                Ok(None) => {}
                Ok(Some(line)) if line.eq_ignore_ascii_case(b"DONE") => {
                    self.session.tell_changes(true, self.wire.out());
                    return Ok(Completion::ok("IDLE completed"));
                }
                Ok(Some(_)) => return Ok(Completion::bad("expected DONE")),
                Err(FrameError::LineTooLong) => return Err(End::Bye("line too long")),
                Err(error) => return Ok(Completion::bad(error.to_string())),
            }
            self.wire.flush().await?;
            self.framer.buffer.reserve(limits::READ_BYTES);
            tokio::select! {
                received = self.wire.read(&mut self.framer.buffer) => received?,
                () = self.session.changed() => {
                    if self.session.has_lost_folder() {
                        return Err(End::Bye("the selected folder was deleted"));
                    }
                    self.session.tell_changes(true, self.wire.out());
                }
                () = asked_to_stop(&mut self.shutdown) => return Err(End::Bye("the server is going down")),
                () = sleep_until(until) => return Err(End::Bye("idle for too long")),
                () = sleep_until(sign_of_life) => {
                    self.wire.out().extend_from_slice(b"* OK still here\r\n");
                    sign_of_life = Instant::now() + limits::IDLE_SIGN_OF_LIFE;
                }
            }
        }
    }
}

/// How a command that does not parse is answered.
fn unparsed(error: ParseError) -> Completion {
    match error {
        ParseError::Charset => Completion::no_with(Code::BadCharset, "charset not known"),
        ParseError::FolderName(_) => Completion::no_with(Code::Cannot, error.to_string()),
        ParseError::NoTag | ParseError::UnknownCommand | ParseError::Syntax { .. } | ParseError::TooMany(_) => {
            Completion::bad(error.to_string())
        }
    }
}

/// Ends when the server is asked to stop; never, if nobody is left to ask.
async fn asked_to_stop(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
