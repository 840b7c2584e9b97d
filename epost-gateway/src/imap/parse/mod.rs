//! From a framed command to a [`Command`], or to what is wrong with it.
//!
//! Hand written, one function per rule of RFC 3501 §9 and its extensions, never backtracking over more than a
//! word. Strict where leniency would hide two readings of one line (bare LF, NUL, unknown system flags), lenient
//! where clients in use differ from the grammar and nothing is lost (eight-bit quoted strings).
//!
//! `cursor` has the words, `fetch` and `search` the two commands with a language of their own.

mod cursor;
mod fetch;
mod search;
#[cfg(test)]
mod tests;

use super::command::{Command, Secret, StatusItem, StoreMode, Tag, Tagged};
use super::{date, limits, utf7};
use bytes::Bytes;
use cursor::Cursor;
pub(super) use cursor::is_atom_octet;
use zeroize::Zeroizing;

/// What is wrong with a command. All but [`ParseError::Charset`] and [`ParseError::FolderName`] are answered BAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The line does not begin with a tag and a space.
    #[error("no tag")]
    NoTag,
    /// No such command here.
    #[error("unknown command")]
    UnknownCommand,
    /// The grammar wants something else.
    #[error("expected {expected} at octet {at}")]
    Syntax {
        /// What the grammar wants.
        expected: &'static str,
        /// Where, counted in the command without its APPEND message.
        at: usize,
    },
    /// A bound is passed.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A folder name that is not modified UTF-7.
    #[error("folder name: {0}")]
    FolderName(utf7::Utf7Error),
    /// A SEARCH charset other than UTF-8 and US-ASCII.
    #[error("charset not known")]
    Charset,
}

type Result<T> = std::result::Result<T, ParseError>;

/// The tag at the beginning of a line, if there is one: an error must name it.
#[must_use]
pub fn tag_of(line: &[u8]) -> Option<Tag> {
    let length = line.iter().position(|&octet| octet == b' ').unwrap_or(line.len());
    let tag = line.get(..length)?;
    let legal = (1..=limits::TAG_BYTES_MAX).contains(&tag.len())
        && tag.iter().all(|&octet| cursor::is_astring_octet(octet) && octet != b'+');
    if !legal {
        return None;
    }
    Some(Tag(String::from_utf8(tag.to_vec()).ok()?))
}

/// Parses one framed command: its text without the final line end, short literals in place, and the message of
/// an APPEND apart from it.
///
/// # Errors
/// [`ParseError`]; nothing of the input is lost by it, the framer has already found the command's end.
pub fn command(text: &[u8], message: Option<Bytes>) -> Result<Tagged> {
    let tag = tag_of(text).ok_or(ParseError::NoTag)?;
    let mut cursor = Cursor::new(text.get(tag.0.len()..).unwrap_or_default());
    cursor.space()?;
    let name = cursor.keyword()?;
    let command = match (name.as_str(), message) {
        ("APPEND", message) => append(&mut cursor, message)?,
        (_, Some(_)) => return cursor.fail("no message with this command"),
        ("UID", None) => uid_command(&mut cursor)?,
        (name, None) => named_command(&mut cursor, name)?,
    };
    cursor.end()?;
    Ok(Tagged { tag, command })
}

fn named_command(cursor: &mut Cursor<'_>, name: &str) -> Result<Command> {
    match name {
        "CAPABILITY" => Ok(Command::Capability),
        "NOOP" => Ok(Command::Noop),
        "LOGOUT" => Ok(Command::Logout),
        "STARTTLS" => Ok(Command::StartTls),
        "NAMESPACE" => Ok(Command::Namespace),
        "IDLE" => Ok(Command::Idle),
        "CHECK" => Ok(Command::Check),
        "CLOSE" => Ok(Command::Close),
        "UNSELECT" => Ok(Command::Unselect),
        "EXPUNGE" => Ok(Command::Expunge { uids: None }),
        "SEARCH" | "FETCH" | "STORE" | "COPY" | "MOVE" => message_command(cursor, name, false),
        "LOGIN" | "AUTHENTICATE" | "ENABLE" | "ID" => {
            cursor.space()?;
            session_command(cursor, name)
        }
        "SELECT" | "EXAMINE" | "CREATE" | "DELETE" | "RENAME" | "SUBSCRIBE" | "UNSUBSCRIBE" | "LIST" | "LSUB"
        | "STATUS" => {
            cursor.space()?;
            folder_command(cursor, name)
        }
        _ => Err(ParseError::UnknownCommand),
    }
}

fn session_command(cursor: &mut Cursor<'_>, name: &str) -> Result<Command> {
    match name {
        "LOGIN" => {
            let user = cursor.text()?;
            cursor.space()?;
            let password = Secret(Zeroizing::new(cursor.astring()?.into_owned()));
            Ok(Command::Login { user, password })
        }
        "AUTHENTICATE" => {
            let mechanism = cursor.keyword()?;
            let initial = if cursor.accept(b' ') {
                let is_base64 = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/' | b'=');
                Some(Secret(Zeroizing::new(cursor.take_while(is_base64).to_vec())))
            } else {
                None
            };
            Ok(Command::Authenticate { mechanism, initial })
        }
        "ENABLE" => {
            cursor.atom()?;
            for _ in 0..limits::ENABLE_NAMES_MAX {
                if !cursor.accept(b' ') {
                    return Ok(Command::Enable);
                }
                cursor.atom()?;
            }
            Err(ParseError::TooMany("capabilities"))
        }
        _ => {
            if !cursor.accept_word("NIL") && !cursor.accept_word("()") {
                let strings = cursor.parenthesised(limits::ID_STRINGS_MAX, "parameters", Cursor::nstring)?;
                if strings.len() % 2 != 0 {
                    return cursor.fail("parameters in pairs");
                }
            }
            Ok(Command::Id)
        }
    }
}

fn folder_command(cursor: &mut Cursor<'_>, name: &str) -> Result<Command> {
    if matches!(name, "LIST" | "LSUB") {
        // The reference is a folder name by the grammar, and a pattern without wildcards in practice.
        let reference = cursor.pattern()?;
        cursor.space()?;
        let pattern = cursor.pattern()?;
        return Ok(Command::List { reference, pattern, subscribed: name == "LSUB" });
    }
    let folder = cursor.folder()?;
    match name {
        "SELECT" => Ok(Command::Select { folder, read_only: false }),
        "EXAMINE" => Ok(Command::Select { folder, read_only: true }),
        "CREATE" => Ok(Command::Create(folder)),
        "DELETE" => Ok(Command::Delete(folder)),
        "SUBSCRIBE" => Ok(Command::Subscribe { folder, subscribed: true }),
        "UNSUBSCRIBE" => Ok(Command::Subscribe { folder, subscribed: false }),
        "RENAME" => {
            cursor.space()?;
            Ok(Command::Rename { from: folder, to: cursor.folder()? })
        }
        _ => {
            cursor.space()?;
            Ok(Command::Status { folder, items: cursor.parenthesised(16, "status items", status_item)? })
        }
    }
}

fn status_item(cursor: &mut Cursor<'_>) -> Result<StatusItem> {
    match cursor.keyword()?.as_str() {
        "MESSAGES" => Ok(StatusItem::Messages),
        "RECENT" => Ok(StatusItem::Recent),
        "UIDNEXT" => Ok(StatusItem::UidNext),
        "UIDVALIDITY" => Ok(StatusItem::UidValidity),
        "UNSEEN" => Ok(StatusItem::Unseen),
        _ => cursor.fail("a status item"),
    }
}

fn append(cursor: &mut Cursor<'_>, message: Option<Bytes>) -> Result<Command> {
    cursor.space()?;
    let folder = cursor.folder()?;
    cursor.space()?;
    let mut flags = post::mail::view::Flags::default();
    if cursor.peek() == Some(b'(') {
        flags = cursor.flag_list()?;
        cursor.space()?;
    }
    let mut internal_date_s = None;
    if cursor.peek() == Some(b'"') {
        let text = cursor.text()?;
        let Some(seconds) = date::parse_date_time(&text) else { return cursor.fail("a date and time") };
        internal_date_s = Some(seconds);
        cursor.space()?;
    }
    let length = cursor.literal_length()?;
    match message {
        Some(message) if message.len() == length => Ok(Command::Append { folder, flags, internal_date_s, message }),
        _ => cursor.fail("a message as a literal"),
    }
}

fn uid_command(cursor: &mut Cursor<'_>) -> Result<Command> {
    cursor.space()?;
    match cursor.keyword()?.as_str() {
        "EXPUNGE" => {
            cursor.space()?;
            Ok(Command::Expunge { uids: Some(cursor.sequence_set()?) })
        }
        name @ ("SEARCH" | "FETCH" | "STORE" | "COPY" | "MOVE") => message_command(cursor, name, true),
        _ => Err(ParseError::UnknownCommand),
    }
}

fn message_command(cursor: &mut Cursor<'_>, name: &str, uid: bool) -> Result<Command> {
    cursor.space()?;
    if name == "SEARCH" {
        return Ok(Command::Search { uid, key: search::arguments(cursor)? });
    }
    let set = cursor.sequence_set()?;
    cursor.space()?;
    match name {
        "FETCH" => Ok(Command::Fetch { uid, set, items: fetch::items(cursor)? }),
        "STORE" => store(cursor, uid, set),
        _ => Ok(Command::Copy { uid, set, folder: cursor.folder()?, moving: name == "MOVE" }),
    }
}

fn store(cursor: &mut Cursor<'_>, uid: bool, set: super::sequence::SequenceSet) -> Result<Command> {
    let mode = if cursor.accept(b'+') {
        StoreMode::Add
    } else if cursor.accept(b'-') {
        StoreMode::Remove
    } else {
        StoreMode::Replace
    };
    if !cursor.accept_word("FLAGS") {
        return cursor.fail("FLAGS");
    }
    let silent = cursor.accept_word(".SILENT");
    cursor.space()?;
    let flags = if cursor.peek() == Some(b'(') { cursor.flag_list()? } else { cursor.bare_flags()? };
    Ok(Command::Store { uid, set, mode, silent, flags })
}
