//! How answers are written: strings, flags, response codes, and the line that ends a command.

use super::{limits, utf7};
use post::mail::view::Flags;
use std::borrow::Cow;
use std::fmt::Write as _;

/// What is served before login, and before TLS.
pub(super) const CAPABILITIES: &str = "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE CHILDREN UNSELECT UIDPLUS \
    MOVE SPECIAL-USE";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It was done.
    Ok,
    /// It was understood and not done.
    No,
    /// It was not understood, or not allowed now.
    Bad,
}

/// A machine-readable reason (RFC 3501 §7.1, RFC 5530, RFC 4315).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Code {
    AlreadyExists,
    AppendUid { uid_validity: u32, uid: u32 },
    AuthenticationFailed,
    BadCharset,
    Cannot,
    CopyUid { uid_validity: u32, from: String, to: String },
    Corruption,
    ExpungeIssued,
    Limit,
    NonExistent,
    PrivacyRequired,
    ReadOnly,
    ReadWrite,
    TooBig,
    TryCreate,
    Unavailable,
}

/// The end of a command: what the tagged line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) status: Status,
    pub(super) code: Option<Code>,
    pub(super) text: Cow<'static, str>,
}

impl Completion {
    pub(super) fn ok(text: &'static str) -> Self {
        Self { status: Status::Ok, code: None, text: Cow::Borrowed(text) }
    }

    pub(super) fn ok_with(code: Code, text: &'static str) -> Self {
        Self { status: Status::Ok, code: Some(code), text: Cow::Borrowed(text) }
    }

    pub(super) fn no_with(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::No, code: Some(code), text: text.into() }
    }

    pub(super) fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Bad, code: None, text: text.into() }
    }

    /// Writes the line; `*` as the tag makes it untagged.
    pub(super) fn write(&self, tag: &str, out: &mut Vec<u8>) {
        let status = match self.status {
            Status::Ok => "OK",
            Status::No => "NO",
            Status::Bad => "BAD",
        };
        out.extend_from_slice(format!("{tag} {status} ").as_bytes());
        if let Some(code) = &self.code {
            code.write(out);
        }
        // The text is ours, but may quote a limit's name or a position: never a line end.
        out.extend(self.text.bytes().filter(|octet| matches!(octet, b' '..=b'~')));
        out.extend_from_slice(b"\r\n");
    }
}

impl Code {
    fn write(&self, out: &mut Vec<u8>) {
        let text: Cow<'static, str> = match self {
            Self::AlreadyExists => "ALREADYEXISTS".into(),
            Self::AppendUid { uid_validity, uid } => format!("APPENDUID {uid_validity} {uid}").into(),
            Self::AuthenticationFailed => "AUTHENTICATIONFAILED".into(),
            Self::BadCharset => "BADCHARSET (US-ASCII UTF-8)".into(),
            Self::Cannot => "CANNOT".into(),
            Self::CopyUid { uid_validity, from, to } => format!("COPYUID {uid_validity} {from} {to}").into(),
            Self::Corruption => "CORRUPTION".into(),
            Self::ExpungeIssued => "EXPUNGEISSUED".into(),
            Self::Limit => "LIMIT".into(),
            Self::NonExistent => "NONEXISTENT".into(),
            Self::PrivacyRequired => "PRIVACYREQUIRED".into(),
            Self::ReadOnly => "READ-ONLY".into(),
            Self::ReadWrite => "READ-WRITE".into(),
            Self::TooBig => "TOOBIG".into(),
            Self::TryCreate => "TRYCREATE".into(),
            Self::Unavailable => "UNAVAILABLE".into(),
        };
        out.extend_from_slice(format!("[{text}] ").as_bytes());
    }
}

/// Writes a string: quoted if it can be, else as a literal. A NUL has no place in either and is left out.
pub(super) fn string(octets: &[u8], out: &mut Vec<u8>) {
    let octets: Cow<'_, [u8]> =
        if octets.contains(&0) { octets.iter().copied().filter(|&octet| octet != 0).collect() } else { octets.into() };
    let quotable = octets.len() <= 1024 && octets.iter().all(|octet| matches!(octet, 0x20..=0x7e | b'\t'));
    if !quotable {
        out.extend_from_slice(format!("{{{}}}\r\n", octets.len()).as_bytes());
        out.extend_from_slice(&octets);
        return;
    }
    out.push(b'"');
    for &octet in octets.iter() {
        if matches!(octet, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(octet);
    }
    out.push(b'"');
}

/// Writes a string or NIL.
pub(super) fn nstring(octets: Option<&[u8]>, out: &mut Vec<u8>) {
    match octets {
        Some(octets) => string(octets, out),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// Writes a folder name.
pub(super) fn folder_name(name: &str, out: &mut Vec<u8>) {
    string(utf7::encode(name).as_bytes(), out);
}

/// The flags between parentheses. A keyword that is no atom (it came from elsewhere than IMAP) is left out.
pub(super) fn flags(flags: &Flags) -> String {
    let mut text = String::from("(");
    let system = [
        (flags.answered, "\\Answered"),
        (flags.flagged, "\\Flagged"),
        (flags.deleted, "\\Deleted"),
        (flags.seen, "\\Seen"),
        (flags.draft, "\\Draft"),
    ];
    let set = system.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
    for name in set.chain(flags.keywords.iter().map(String::as_str).filter(|keyword| is_keyword(keyword))) {
        let separator = if text.len() > 1 { " " } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{name}");
    }
    text.push(')');
    text
}

/// Whether a keyword can be written in IMAP.
pub(super) fn is_keyword(keyword: &str) -> bool {
    (1..=limits::KEYWORD_BYTES_MAX).contains(&keyword.len()) && keyword.bytes().all(super::parse::is_atom_octet)
}

#[cfg(test)]
mod tests {
    //! Goal: what is written reads back as what was meant. Method: fixed cases, each by RFC 3501 §4.3.
    use super::*;

    fn written(octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        string(octets, &mut out);
        out
    }

    #[test]
    fn strings() {
        assert_eq!(written(b""), b"\"\"");
        assert_eq!(written(b"a \"b\" \\c"), b"\"a \\\"b\\\" \\\\c\"");
        assert_eq!(written(b"two\r\nlines"), b"{10}\r\ntwo\r\nlines");
        assert_eq!(written("ü".as_bytes()), "{2}\r\nü".as_bytes());
        assert_eq!(written(b"a\0b"), b"\"ab\"");
        assert_eq!(written(&[b'x'; 1025])[..8], *b"{1025}\r\n");
    }

    #[test]
    fn completions_are_one_line() {
        let mut out = Vec::new();
        Completion::no_with(Code::Limit, "a\r\n* BYE b").write("t", &mut out);
        assert_eq!(out, b"t NO [LIMIT] a* BYE b\r\n");
    }

    #[test]
    fn flag_lists() {
        let keywords = ["$Forwarded", "not an atom", "work"].map(str::to_owned).into();
        let all = Flags { seen: true, draft: true, keywords, ..Flags::default() };
        assert_eq!(flags(&all), "(\\Seen \\Draft $Forwarded work)");
        assert_eq!(flags(&Flags::default()), "()");
    }
}
