//! SEARCH: which messages a key is true of.
//!
//! Most keys are answered from the folder's index. [`Query::judge`] says so, or that the message itself must be
//! read; only those are fetched ([`super::prefetch`]), and judged again with their text.
//!
//! Text is searched as people read it: encoded words, transfer encodings and charsets decoded (`mail-parser`),
//! without regard to case. Binary parts have no text.

use super::command::{Date, DateRelation, FlagName, SearchKey};
use super::envelope;
use super::selected::Numbering;
use super::sequence::Numbers;
use crate::imap::date;
use mail_parser::parsers::MessageStream;
use mail_parser::{HeaderValue, MessageParser, PartType};
use post::mail::header;
use post::mail::view::Entry;

/// A key made ready: sets resolved, strings in lower case.
pub(super) enum Query {
    All,
    And(Vec<Query>),
    Or(Box<Query>, Box<Query>),
    Not(Box<Query>),
    Flag(FlagName),
    Header { name: String, value: String },
    Body(String),
    Text(String),
    Arrived(DateRelation, Date),
    Sent(DateRelation, Date),
    Larger(u32),
    Smaller(u32),
    Numbers(Numbers),
    Uids(Numbers),
}

/// What is known of a key without the message's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    True,
    False,
    /// The text decides.
    Unknown,
}

/// A message's text in lower case.
pub(super) struct Text(String);

impl From<bool> for Verdict {
    fn from(known: bool) -> Self {
        if known { Self::True } else { Self::False }
    }
}

impl Query {
    /// Makes a key ready for the messages a client knows.
    pub(super) fn new(key: SearchKey, numbering: &Numbering) -> Self {
        let sub = |key: SearchKey| Self::new(key, numbering);
        match key {
            SearchKey::All => Self::All,
            SearchKey::And(keys) => Self::And(keys.into_iter().map(sub).collect()),
            SearchKey::Or(one, other) => Self::Or(Box::new(sub(*one)), Box::new(sub(*other))),
            SearchKey::Not(key) => Self::Not(Box::new(sub(*key))),
            SearchKey::Flag(flag) => Self::Flag(flag),
            SearchKey::Header { name, value } => Self::Header { name, value: value.to_lowercase() },
            SearchKey::Body(text) => Self::Body(text.to_lowercase()),
            SearchKey::Text(text) => Self::Text(text.to_lowercase()),
            SearchKey::Arrived(relation, date) => Self::Arrived(relation, date),
            SearchKey::Sent(relation, date) => Self::Sent(relation, date),
            SearchKey::Larger(octets) => Self::Larger(octets),
            SearchKey::Smaller(octets) => Self::Smaller(octets),
            SearchKey::Numbers(set) => Self::Numbers(set.resolve(numbering.count())),
            SearchKey::Uids(set) => Self::Uids(set.resolve(numbering.largest_uid())),
        }
    }

    /// Whether it is true of a message; [`Verdict::Unknown`] only without its text.
    pub(super) fn judge(&self, number: u32, entry: &Entry, text: Option<&Text>) -> Verdict {
        match self {
            Self::All => Verdict::True,
            Self::And(queries) => all(queries.iter().map(|query| query.judge(number, entry, text))),
            Self::Or(one, other) => {
                let either = [one, other].map(|query| negated(query.judge(number, entry, text)));
                negated(all(either.into_iter()))
            }
            Self::Not(query) => negated(query.judge(number, entry, text)),
            Self::Flag(flag) => has_flag(entry, flag).into(),
            Self::Header { name, value } => header_contains(&entry.headers, name, value).into(),
            Self::Body(wanted) => match text {
                Some(text) => text.0.contains(wanted.as_str()).into(),
                None => Verdict::Unknown,
            },
            Self::Text(wanted) => match text {
                _ if any_header_contains(&entry.headers, wanted) => Verdict::True,
                Some(text) => text.0.contains(wanted.as_str()).into(),
                None => Verdict::Unknown,
            },
            Self::Arrived(relation, date) => relates(date::date_at(entry.internal_date_s), *relation, *date).into(),
            Self::Sent(relation, date) => {
                sent_date(&entry.headers).is_some_and(|sent| relates(sent, *relation, *date)).into()
            }
            Self::Larger(octets) => (entry.size > *octets).into(),
            Self::Smaller(octets) => (entry.size < *octets).into(),
            Self::Numbers(numbers) => numbers.contains(number).into(),
            Self::Uids(uids) => uids.contains(entry.uid).into(),
        }
    }
}

fn negated(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::True => Verdict::False,
        Verdict::False => Verdict::True,
        Verdict::Unknown => Verdict::Unknown,
    }
}

fn all(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut outcome = Verdict::True;
    for verdict in verdicts {
        match verdict {
            Verdict::False => return Verdict::False,
            Verdict::Unknown => outcome = Verdict::Unknown,
            Verdict::True => {}
        }
    }
    outcome
}

fn has_flag(entry: &Entry, flag: &FlagName) -> bool {
    let flags = &entry.flags;
    match flag {
        FlagName::Seen => flags.seen,
        FlagName::Answered => flags.answered,
        FlagName::Flagged => flags.flagged,
        FlagName::Deleted => flags.deleted,
        FlagName::Draft => flags.draft,
        FlagName::Keyword(keyword) => flags.keywords.iter().any(|known| known.eq_ignore_ascii_case(keyword)),
    }
}

fn relates(date: Date, relation: DateRelation, to: Date) -> bool {
    match relation {
        DateRelation::Before => date < to,
        DateRelation::On => date == to,
        DateRelation::Since => date >= to,
    }
}

/// The date in the Date field, as written there: RFC 3501 disregards its zone.
fn sent_date(section: &[u8]) -> Option<Date> {
    let field = header::fields(section).find(|field| field.is("Date"))?;
    // The stream wants a line's end.
    let line = [field.value, b"\r\n"].concat();
    let HeaderValue::DateTime(date) = MessageStream::new(&line).parse_date() else { return None };
    Some(Date { year: date.year, month: date.month, day: date.day })
}

fn header_contains(section: &[u8], name: &str, wanted: &str) -> bool {
    header::fields(section).filter(|field| field.is(name)).any(|field| value_contains(field.value, wanted))
}

fn any_header_contains(section: &[u8], wanted: &str) -> bool {
    header::fields(section).any(|field| {
        let name = String::from_utf8_lossy(field.name).to_lowercase();
        name.contains(wanted) || value_contains(field.value, wanted)
    })
}

/// Whether a field's value contains the string, as written or with its encoded words decoded.
fn value_contains(value: &[u8], wanted: &str) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let line = envelope::unfolded(value);
    if String::from_utf8_lossy(&line).to_lowercase().contains(wanted) {
        return true;
    }
    if !line.windows(2).any(|pair| pair == b"=?") {
        return false;
    }
    let line = [line.as_slice(), b"\r\n"].concat();
    match MessageStream::new(&line).parse_unstructured() {
        HeaderValue::Text(text) => text.to_lowercase().contains(wanted),
        _ => false,
    }
}

impl Text {
    /// The text of a message: that of its text parts, and of messages inside it with their headers.
    pub(super) fn of(message: &[u8]) -> Self {
        let mut text = String::new();
        match MessageParser::new().parse(message) {
            Some(parsed) => gather(&parsed, &mut text, 0),
            None => text.push_str(&String::from_utf8_lossy(message).to_lowercase()),
        }
        Self(text)
    }
}

fn gather(message: &mail_parser::Message<'_>, text: &mut String, depth: usize) {
    for part in &message.parts {
        match &part.body {
            PartType::Text(body) | PartType::Html(body) => {
                text.push_str(&body.to_lowercase());
                text.push('\n');
            }
            PartType::Message(inner) if depth < post::mail::limits::DEPTH_MAX => {
                let root = inner.parts.first();
                let header = root.map(|root| root.raw_header_offset() as usize..root.raw_body_offset() as usize);
                let header = header.and_then(|header| inner.raw_message.get(header));
                text.push_str(&String::from_utf8_lossy(header.unwrap_or_default()).to_lowercase());
                gather(inner, text, depth + 1);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
