//! Commands, as far as submission knows them.
//!
//! The grammar is `smtp-proto`'s; this file narrows its answer to what we advertise, so that no parameter is taken
//! and then ignored: a client that asks for DSN and gets none would wait for it for ever.

use smtp_proto::{AUTH_PLAIN, Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MailFrom, RcptTo, Request};
use std::borrow::Cow;
use zeroize::Zeroizing;

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Ehlo,
    Helo,
    /// With the initial response as sent: base64, `=` for an empty one, or nothing.
    AuthPlain(Zeroizing<String>),
    /// A mechanism we do not offer.
    AuthOther,
    /// The reverse path and the size the client announced (0 for none).
    Mail {
        from: String,
        size: usize,
    },
    Rcpt {
        to: String,
    },
    Data,
    StartTls,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    /// Known to SMTP, not offered here.
    NotOffered(&'static str),
}

/// Why a line is not a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    /// No such verb.
    Unknown,
    /// A known verb, wrong arguments; what it should look like.
    Syntax(&'static str),
    /// MAIL's path is not an address.
    Sender,
    /// RCPT's path is not an address.
    Recipient,
    /// An address outside ASCII, which needs SMTPUTF8, which we do not offer.
    NotAscii,
    /// A parameter of an extension that was not offered, or a value it does not have.
    Parameter,
}

/// Reads one line (without its CRLF).
pub(super) fn parse(line: &[u8]) -> Result<Command, CommandError> {
    let mut terminated = Zeroizing::new(Vec::with_capacity(line.len() + 2));
    terminated.extend_from_slice(line);
    terminated.extend_from_slice(b"\r\n");
    let request = Request::parse(&mut terminated.iter()).map_err(|error| match error {
        Error::UnknownCommand => CommandError::Unknown,
        Error::InvalidSenderAddress => CommandError::Sender,
        Error::InvalidRecipientAddress => CommandError::Recipient,
        Error::SyntaxError { syntax } => CommandError::Syntax(syntax),
        Error::InvalidParameter { .. } | Error::UnsupportedParameter { .. } => CommandError::Parameter,
        Error::NeedsMoreData { .. } | Error::ResponseTooLong | Error::InvalidResponse { .. } => {
            CommandError::Syntax("one command on one line")
        }
    })?;
    narrow(request, line)
}

fn narrow(request: Request<Cow<'_, str>>, line: &[u8]) -> Result<Command, CommandError> {
    Ok(match request {
        Request::Ehlo { .. } => Command::Ehlo,
        Request::Helo { .. } => Command::Helo,
        Request::Auth { mechanism, initial_response } if mechanism == AUTH_PLAIN => {
            Command::AuthPlain(Zeroizing::new(initial_response.into_owned()))
        }
        Request::Auth { .. } => Command::AuthOther,
        Request::Mail { from } => mail(from)?,
        Request::Rcpt { to } => recipient(to)?,
        Request::Data => alone(line, Command::Data, "DATA")?,
        Request::StartTls => alone(line, Command::StartTls, "STARTTLS")?,
        Request::Rset => alone(line, Command::Rset, "RSET")?,
        Request::Quit => alone(line, Command::Quit, "QUIT")?,
        Request::Noop { .. } => Command::Noop,
        Request::Vrfy { .. } => Command::Vrfy,
        Request::Help { .. } => Command::Help,
        other => Command::NotOffered(other.name()),
    })
}

/// RFC 5321 §4.1.1: these take no argument.
fn alone(line: &[u8], command: Command, name: &'static str) -> Result<Command, CommandError> {
    if line.trim_ascii().len() == name.len() { Ok(command) } else { Err(CommandError::Syntax(name)) }
}

/// Only `SIZE`, `BODY=7BIT|8BITMIME` and `AUTH=` (which RFC 4954 §5 makes us parse, and lets us ignore).
fn mail(from: MailFrom<Cow<'_, str>>) -> Result<Command, CommandError> {
    let understood = MailFrom {
        address: from.address.clone(),
        size: from.size,
        auth: from.auth.clone(),
        flags: from.flags & (MAIL_BODY_7BIT | MAIL_BODY_8BITMIME),
        ..MailFrom::default()
    };
    if from != understood {
        return Err(CommandError::Parameter);
    }
    ascii(&from.address)?;
    Ok(Command::Mail { from: from.address.into_owned(), size: from.size })
}

fn recipient(to: RcptTo<Cow<'_, str>>) -> Result<Command, CommandError> {
    let understood = RcptTo { address: to.address.clone(), ..RcptTo::default() };
    if to != understood {
        return Err(CommandError::Parameter);
    }
    ascii(&to.address)?;
    Ok(Command::Rcpt { to: to.address.into_owned() })
}

fn ascii(address: &str) -> Result<(), CommandError> {
    if !address.is_ascii() {
        return Err(CommandError::NotAscii);
    }
    if address.bytes().any(|byte| byte.is_ascii_control()) { Err(CommandError::Recipient) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    //! Goal: what we offer is understood, what we do not offer is refused, nothing panics.
    //! Method: tables by hand; random lines.
    use super::*;
    use proptest::prelude::*;

    fn mail_from(from: &str, size: usize) -> Result<Command, CommandError> {
        Ok(Command::Mail { from: from.into(), size })
    }

    #[test]
    fn offered_commands() {
        assert_eq!(parse(b"ehlo client.example"), Ok(Command::Ehlo));
        assert_eq!(parse(b"HELO x"), Ok(Command::Helo));
        assert_eq!(parse(b"MAIL FROM:<alice@epost.test>"), mail_from("alice@epost.test", 0));
        assert_eq!(parse(b"mail from:<> size=77 body=8bitmime auth=<>"), mail_from("", 77));
        assert_eq!(parse(b"MAIL FROM:<\"a b\"@x.example> BODY=7BIT"), mail_from("a b@x.example", 0));
        assert_eq!(
            parse(b"RCPT TO:<@relay.example:bob@epost.test>"),
            Ok(Command::Rcpt { to: "bob@epost.test".into() })
        );
        assert_eq!(parse(b"AUTH PLAIN"), Ok(Command::AuthPlain(String::new().into())));
        assert_eq!(parse(b"AUTH PLAIN AGEAYg=="), Ok(Command::AuthPlain(String::from("AGEAYg==").into())));
        assert_eq!(parse(b"AUTH CRAM-MD5"), Ok(Command::AuthOther));
        assert_eq!(parse(b"data "), Ok(Command::Data));
        assert_eq!(parse(b"NOOP whatever"), Ok(Command::Noop));
        assert_eq!(parse(b"BDAT 100 LAST"), Ok(Command::NotOffered("BDAT")));
        assert_eq!(parse(b"EXPN staff"), Ok(Command::NotOffered("EXPN")));
    }

    #[test]
    fn everything_else() {
        assert_eq!(parse(b"XYZZY"), Err(CommandError::Unknown));
        assert_eq!(parse(b""), Err(CommandError::Unknown));
        assert_eq!(parse(b"QUIT now"), Err(CommandError::Syntax("QUIT")));
        assert_eq!(parse(b"STARTTLS x"), Err(CommandError::Syntax("STARTTLS")));
        assert!(matches!(parse(b"MAIL alice@epost.test"), Err(CommandError::Syntax(_))));
        assert_eq!(parse(b"RCPT TO:<bob>"), Err(CommandError::Recipient));
        assert_eq!(parse("RCPT TO:<böb@epost.test>".as_bytes()), Err(CommandError::NotAscii));
        for parameter in
            ["SMTPUTF8", "RET=FULL", "ENVID=x", "BODY=BINARYMIME", "REQUIRETLS", "HOLDFOR=3", "BY=9;R", "WHAT=1"]
        {
            let line = format!("MAIL FROM:<alice@epost.test> {parameter}");
            assert_eq!(parse(line.as_bytes()), Err(CommandError::Parameter), "{parameter}");
        }
        assert_eq!(parse(b"RCPT TO:<bob@epost.test> NOTIFY=NEVER"), Err(CommandError::Parameter));
    }

    proptest! {
        #[test]
        fn any_line_is_answered(line in proptest::collection::vec(any::<u8>().prop_filter("no newline", |b| !b"\r\n".contains(b)), 0..600)) {
            let _ = parse(&line);
        }

        #[test]
        fn any_tail_of_a_verb_is_answered(verb in "(MAIL FROM:<|RCPT TO:<|AUTH |EHLO |BDAT |AUTH PLAIN )", tail in "[ -~]{0,80}") {
            let _ = parse(format!("{verb}{tail}").as_bytes());
        }
    }
}
