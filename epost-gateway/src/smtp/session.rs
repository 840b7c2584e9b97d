//! One client's conversation, decided without I/O: a line in, a [`Step`] out.
//!
//! Order is everything here: TLS before a password, a password before mail, MAIL before RCPT before DATA. The
//! connection does what a step asks (look up, log in, receive) and comes back with the result.

use super::command::{Command, CommandError, parse};
use super::input::Line;
use super::limits::{
    BAD_COMMANDS_MAX, COMMANDS_BEFORE_LOGIN_MAX, LOGIN_FAILURES_MAX, RECIPIENTS_MAX, RECIPIENTS_REFUSED_MAX,
};
use super::reply::Reply;
use crate::account::{AccountError, LoginError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// What the connection does next.
#[derive(Debug)]
pub(super) enum Step {
    /// Answer, and read on.
    Reply(Reply),
    /// Answer, and end the connection.
    Close(Reply),
    /// Answer, forget what was read ahead, and speak TLS.
    StartTls(Reply),
    /// Check these, then [`Session::logged_in`].
    Login { name: String, password: Zeroizing<String> },
    /// Look this address up, then [`Session::looked_up`].
    LookUp(String),
    /// Answer, receive the text, then [`Session::take_recipients`].
    ReceiveText(Reply),
}

/// A transaction: after MAIL, until DATA or RSET.
#[derive(Debug, Default)]
struct Envelope {
    recipients: Vec<String>,
    refused: usize,
}

/// The state. Invariants: `user` is set only under TLS; `envelope` only when `user` is.
pub(super) struct Session {
    host: String,
    domain: String,
    bytes_max: usize,
    secure: bool,
    greeted: bool,
    extended: bool,
    /// The next line is the client's answer to an AUTH challenge.
    challenged: bool,
    user: Option<String>,
    envelope: Option<Envelope>,
    bad_commands: u32,
    login_failures: u32,
    commands_before_login: u32,
}

impl Session {
    /// A session as it begins, in clear or (after STARTTLS, or implicitly) under TLS.
    pub(super) fn new(host: &str, domain: &str, bytes_max: usize, secure: bool) -> Self {
        Session {
            host: host.to_owned(),
            domain: domain.to_owned(),
            bytes_max,
            secure,
            greeted: false,
            extended: false,
            challenged: false,
            user: None,
            envelope: None,
            bad_commands: 0,
            login_failures: 0,
            commands_before_login: 0,
        }
    }

    /// What is said first.
    pub(super) fn greeting(&self) -> Reply {
        Reply::new(220, "", format!("{} ESMTP ePOST submission", self.host))
    }

    /// The address of the user who has logged in.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The largest message this session takes now.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Takes one line.
    pub(super) fn line(&mut self, line: Line) -> Step {
        if self.user.is_none() {
            self.commands_before_login += 1;
            if self.commands_before_login > COMMANDS_BEFORE_LOGIN_MAX {
                return Step::Close(Reply::new(421, "4.7.0", "Too many commands without logging in"));
            }
        }
        let step = match line {
            Line::Command(text) if std::mem::take(&mut self.challenged) => self.response(&text),
            Line::Command(text) => match parse(&text) {
                Ok(command) => self.command(command),
                Err(error) => Step::Reply(syntax_error(&error)),
            },
            Line::BareNewline => {
                Step::Reply(Reply::new(500, "5.5.2", "Lines end with CRLF, and hold no other CR or LF"))
            }
            Line::TooLong => Step::Reply(Reply::new(500, "5.5.2", "Line too long")),
            Line::Endless => Step::Close(Reply::new(421, "4.7.0", "Line without end")),
        };
        self.count_bad(step)
    }

    /// Takes the outcome of [`Step::Login`]; `Ok` with the user's own address and the size its account takes.
    pub(super) fn logged_in(&mut self, outcome: Result<(&str, usize), LoginError>) -> Step {
        assert!(self.secure);
        match outcome {
            Ok((address, bytes_max)) => {
                self.user = Some(address.to_owned());
                self.bytes_max = self.bytes_max.min(bytes_max);
                Step::Reply(Reply::new(235, "2.7.0", "Welcome"))
            }
            Err(LoginError::WrongCredentials) => {
                self.login_failures += 1;
                if self.login_failures >= LOGIN_FAILURES_MAX {
                    return Step::Close(Reply::new(421, "4.7.0", "Wrong name or password, too often"));
                }
                Step::Reply(Reply::new(535, "5.7.8", "Wrong name or password"))
            }
            Err(LoginError::Busy) => Step::Reply(Reply::new(454, "4.7.0", "Busy with other logins, try again")),
            Err(LoginError::Unavailable) => {
                Step::Reply(Reply::new(454, "4.7.0", "Your account is not open yet, try again"))
            }
        }
    }

    /// Wrong passwords so far.
    pub(super) fn login_failures(&self) -> u32 {
        self.login_failures
    }

    /// Takes the outcome of [`Step::LookUp`].
    pub(super) fn looked_up(&mut self, address: String, outcome: Result<bool, AccountError>) -> Reply {
        let Some(envelope) = &mut self.envelope else { return out_of_order("MAIL") };
        match outcome {
            Ok(true) => {
                if !envelope.recipients.iter().any(|known| known.eq_ignore_ascii_case(&address)) {
                    envelope.recipients.push(address);
                }
                assert!(envelope.recipients.len() <= RECIPIENTS_MAX);
                Reply::new(250, "2.1.5", "Recipient ok")
            }
            Ok(false) | Err(AccountError::NoSuchRecipient) => {
                envelope.refused += 1;
                Reply::new(550, "5.1.1", "No such user here")
            }
            Err(_) => {
                envelope.refused += 1;
                Reply::new(451, "4.3.0", "The recipient cannot be looked up now, try again")
            }
        }
    }

    /// Ends the transaction and hands out its recipients.
    pub(super) fn take_recipients(&mut self) -> Vec<String> {
        self.envelope.take().map(|envelope| envelope.recipients).unwrap_or_default()
    }

    fn command(&mut self, command: Command) -> Step {
        match command {
            Command::Ehlo | Command::Helo => {
                self.greeted = true;
                self.extended = command == Command::Ehlo;
                self.envelope = None;
                Step::Reply(if self.extended { self.capabilities() } else { Reply::new(250, "", self.host.clone()) })
            }
            Command::StartTls => self.start_tls(),
            Command::AuthPlain(initial) => self.auth_plain(&initial),
            Command::AuthOther => Step::Reply(Reply::new(504, "5.5.4", "Only AUTH PLAIN is offered")),
            Command::Mail { from, size } => Step::Reply(self.mail(&from, size)),
            Command::Rcpt { to } => self.rcpt(to),
            Command::Data => self.data(),
            Command::Rset => {
                self.envelope = None;
                Step::Reply(Reply::new(250, "2.0.0", "Forgotten"))
            }
            Command::Noop => Step::Reply(Reply::new(250, "2.0.0", "Ok")),
            Command::Vrfy => Step::Reply(Reply::new(252, "2.0.0", "Not told; send the mail and see")),
            Command::Help => {
                Step::Reply(Reply::new(214, "2.0.0", "RFC 6409 submission: STARTTLS, AUTH PLAIN, MAIL, RCPT, DATA"))
            }
            Command::Quit => Step::Close(Reply::new(221, "2.0.0", "Goodbye")),
            Command::NotOffered(_) => Step::Reply(Reply::new(502, "5.5.1", "Not offered here")),
        }
    }

    fn capabilities(&self) -> Reply {
        let reply = Reply::new(250, "", self.host.clone())
            .and("PIPELINING")
            .and(format!("SIZE {}", self.bytes_max))
            .and("8BITMIME")
            .and("ENHANCEDSTATUSCODES");
        if self.secure { reply.and("AUTH PLAIN") } else { reply.and("STARTTLS") }
    }

    fn start_tls(&mut self) -> Step {
        if self.secure {
            return Step::Reply(Reply::new(503, "5.5.1", "TLS is on already"));
        }
        assert!(self.user.is_none());
        Step::StartTls(Reply::new(220, "2.0.0", "Go ahead"))
    }

    fn auth_plain(&mut self, initial: &str) -> Step {
        let refusal = if !self.secure {
            Some(Reply::new(538, "5.7.11", "STARTTLS first: no password in clear"))
        } else if !self.extended {
            Some(out_of_order("EHLO"))
        } else if self.user.is_some() {
            Some(Reply::new(503, "5.5.1", "Logged in already"))
        } else {
            None
        };
        match (refusal, initial) {
            (Some(reply), _) => Step::Reply(reply),
            (None, "") => {
                self.challenged = true;
                Step::Reply(Reply::new(334, "", ""))
            }
            (None, "=") => self.response(b""),
            (None, initial) => self.response(initial.as_bytes()),
        }
    }

    /// RFC 4616: base64 of authorisation identity NUL name NUL password.
    fn response(&mut self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Reply(Reply::new(501, "5.7.0", "Login given up"));
        }
        let Ok(decoded) = STANDARD.decode(line).map(Zeroizing::new) else {
            return Step::Reply(Reply::new(501, "5.5.2", "Not base64"));
        };
        let mut parts = decoded.split(|&byte| byte == 0).map(std::str::from_utf8);
        let (Some(Ok(authorisation)), Some(Ok(name)), Some(Ok(password)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Step::Reply(Reply::new(501, "5.5.2", "Not what RFC 4616 asks for"));
        };
        if name.is_empty() || !(authorisation.is_empty() || authorisation.eq_ignore_ascii_case(name)) {
            return self.logged_in(Err(LoginError::WrongCredentials));
        }
        Step::Login { name: name.to_owned(), password: Zeroizing::new(password.to_owned()) }
    }

    fn mail(&mut self, from: &str, size: usize) -> Reply {
        if !self.greeted {
            return out_of_order("EHLO");
        }
        let Some(user) = &self.user else { return self.login_first() };
        if self.envelope.is_some() {
            return Reply::new(503, "5.5.1", "One MAIL at a time");
        }
        // An empty path is for mail that must not be answered, such as a receipt (RFC 8098 §3); From still tells who.
        if !from.is_empty() && !from.eq_ignore_ascii_case(user) {
            return Reply::new(553, "5.7.1", "That sender is not you");
        }
        if size > self.bytes_max {
            return Reply::new(552, "5.3.4", format!("Larger than {} bytes", self.bytes_max));
        }
        self.envelope = Some(Envelope::default());
        Reply::new(250, "2.1.0", "Sender ok")
    }

    fn rcpt(&mut self, to: String) -> Step {
        if self.user.is_none() {
            return Step::Reply(self.login_first());
        }
        let Some(envelope) = &mut self.envelope else { return Step::Reply(out_of_order("MAIL")) };
        if envelope.recipients.len() >= RECIPIENTS_MAX || envelope.refused >= RECIPIENTS_REFUSED_MAX {
            return Step::Reply(Reply::new(452, "4.5.3", "Too many recipients"));
        }
        let to = if to.is_empty() { format!("postmaster@{}", self.domain) } else { to };
        let is_ours = to.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(&self.domain));
        if !is_ours {
            envelope.refused += 1;
            return Step::Reply(Reply::new(550, "5.7.1", format!("Relay not available: only {}", self.domain)));
        }
        Step::LookUp(to)
    }

    fn data(&mut self) -> Step {
        if self.user.is_none() {
            return Step::Reply(self.login_first());
        }
        match &self.envelope {
            None => Step::Reply(out_of_order("MAIL")),
            Some(envelope) if envelope.recipients.is_empty() && envelope.refused > 0 => {
                Step::Reply(Reply::new(554, "5.5.1", "No recipient was taken"))
            }
            Some(envelope) if envelope.recipients.is_empty() => Step::Reply(out_of_order("RCPT")),
            Some(_) => Step::ReceiveText(Reply::new(354, "", "End with a line that is a dot")),
        }
    }

    fn login_first(&self) -> Reply {
        let text = if self.secure { "Authentication required" } else { "STARTTLS and authentication required" };
        Reply::new(530, "5.7.0", text)
    }

    /// After too many errors the answer to the last one is the last.
    fn count_bad(&mut self, step: Step) -> Step {
        let Step::Reply(reply) = &step else { return step };
        if reply.is_protocol_error() {
            self.bad_commands += 1;
        }
        if self.bad_commands > BAD_COMMANDS_MAX {
            return Step::Close(Reply::new(421, "4.7.0", "Too many errors"));
        }
        step
    }
}

fn out_of_order(first: &'static str) -> Reply {
    Reply::new(503, "5.5.1", format!("{first} first"))
}

fn syntax_error(error: &CommandError) -> Reply {
    match error {
        CommandError::Unknown => Reply::new(500, "5.5.1", "No such command"),
        CommandError::Syntax(form) => Reply::new(501, "5.5.4", format!("Write: {form}")),
        CommandError::Sender => Reply::new(501, "5.1.7", "Not an address"),
        CommandError::Recipient => Reply::new(501, "5.1.3", "Not an address"),
        CommandError::NotAscii => Reply::new(553, "5.6.7", "Addresses outside ASCII are not offered here"),
        CommandError::Parameter => Reply::new(555, "5.5.4", "That parameter is not offered here"),
    }
}
