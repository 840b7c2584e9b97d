//! What SEARCH asks for.
//!
//! A tree of keys, bounded in depth and number. Strings are UTF-8 whatever the CHARSET said, since US-ASCII is
//! part of it; any other charset is refused by name.

use super::cursor::Cursor;
use super::{ParseError, Result, fetch};
use crate::imap::command::{DateRelation, FlagName, SearchKey};
use crate::imap::{date, limits};

/// `[CHARSET name] key ...`; several keys mean all of them.
pub(super) fn arguments(cursor: &mut Cursor<'_>) -> Result<SearchKey> {
    if cursor.accept_word("CHARSET ") {
        let charset = cursor.text()?;
        if !charset.eq_ignore_ascii_case("UTF-8") && !charset.eq_ignore_ascii_case("US-ASCII") {
            return Err(ParseError::Charset);
        }
        cursor.space()?;
    }
    let mut keys_left = limits::SEARCH_KEYS_MAX;
    let mut keys = vec![key(cursor, 0, &mut keys_left)?];
    while cursor.accept(b' ') {
        keys.push(key(cursor, 0, &mut keys_left)?);
    }
    Ok(all_of(keys))
}

fn all_of(mut keys: Vec<SearchKey>) -> SearchKey {
    match (keys.len(), keys.pop()) {
        (1, Some(only)) => only,
        (_, Some(last)) => {
            keys.push(last);
            SearchKey::And(keys)
        }
        (_, None) => SearchKey::All,
    }
}

fn key(cursor: &mut Cursor<'_>, depth: usize, keys_left: &mut usize) -> Result<SearchKey> {
    if depth > limits::SEARCH_DEPTH_MAX {
        return Err(ParseError::TooMany("levels of search keys"));
    }
    *keys_left = keys_left.checked_sub(1).ok_or(ParseError::TooMany("search keys"))?;
    match cursor.peek() {
        Some(b'(') => {
            let keys = cursor
                .parenthesised(limits::SEARCH_KEYS_MAX, "search keys", |cursor| key(cursor, depth + 1, keys_left))?;
            Ok(all_of(keys))
        }
        Some(b'*' | b'0'..=b'9') => Ok(SearchKey::Numbers(cursor.sequence_set()?)),
        _ => {
            let name = cursor.keyword()?;
            named_key(cursor, &name, depth, keys_left)
        }
    }
}

fn named_key(cursor: &mut Cursor<'_>, name: &str, depth: usize, keys_left: &mut usize) -> Result<SearchKey> {
    if let Some(key) = flag_key(cursor, name)? {
        return Ok(key);
    }
    match name {
        "ALL" | "OLD" => Ok(SearchKey::All),
        // Nothing is ever \Recent: that flag is a race between sessions, and later IMAP dropped it.
        "NEW" | "RECENT" => Ok(not(SearchKey::All)),
        "BODY" => Ok(SearchKey::Body(argument(cursor, Cursor::text)?)),
        "TEXT" => Ok(SearchKey::Text(argument(cursor, Cursor::text)?)),
        "BCC" | "CC" | "FROM" | "SUBJECT" | "TO" => {
            Ok(SearchKey::Header { name: name.to_owned(), value: argument(cursor, Cursor::text)? })
        }
        "HEADER" => {
            let name = argument(cursor, fetch::field_name)?;
            Ok(SearchKey::Header { name, value: argument(cursor, Cursor::text)? })
        }
        "BEFORE" => arrived(cursor, DateRelation::Before),
        "ON" => arrived(cursor, DateRelation::On),
        "SINCE" => arrived(cursor, DateRelation::Since),
        "SENTBEFORE" => sent(cursor, DateRelation::Before),
        "SENTON" => sent(cursor, DateRelation::On),
        "SENTSINCE" => sent(cursor, DateRelation::Since),
        "LARGER" => Ok(SearchKey::Larger(argument(cursor, Cursor::number)?)),
        "SMALLER" => Ok(SearchKey::Smaller(argument(cursor, Cursor::number)?)),
        "UID" => Ok(SearchKey::Uids(argument(cursor, Cursor::sequence_set)?)),
        "NOT" => Ok(not(argument(cursor, |cursor| key(cursor, depth + 1, keys_left))?)),
        "OR" => {
            let first = argument(cursor, |cursor| key(cursor, depth + 1, keys_left))?;
            let second = argument(cursor, |cursor| key(cursor, depth + 1, keys_left))?;
            Ok(SearchKey::Or(Box::new(first), Box::new(second)))
        }
        _ => cursor.fail("a search key"),
    }
}

fn flag_key(cursor: &mut Cursor<'_>, name: &str) -> Result<Option<SearchKey>> {
    let (flag, set) = match name {
        "SEEN" => (FlagName::Seen, true),
        "UNSEEN" => (FlagName::Seen, false),
        "ANSWERED" => (FlagName::Answered, true),
        "UNANSWERED" => (FlagName::Answered, false),
        "FLAGGED" => (FlagName::Flagged, true),
        "UNFLAGGED" => (FlagName::Flagged, false),
        "DELETED" => (FlagName::Deleted, true),
        "UNDELETED" => (FlagName::Deleted, false),
        "DRAFT" => (FlagName::Draft, true),
        "UNDRAFT" => (FlagName::Draft, false),
        "KEYWORD" | "UNKEYWORD" => {
            let keyword = argument(cursor, Cursor::atom)?.to_owned();
            (FlagName::Keyword(keyword), name == "KEYWORD")
        }
        _ => return Ok(None),
    };
    let key = SearchKey::Flag(flag);
    Ok(Some(if set { key } else { not(key) }))
}

fn not(key: SearchKey) -> SearchKey {
    SearchKey::Not(Box::new(key))
}

fn argument<'a, T>(cursor: &mut Cursor<'a>, read: impl FnOnce(&mut Cursor<'a>) -> Result<T>) -> Result<T> {
    cursor.space()?;
    read(cursor)
}

fn arrived(cursor: &mut Cursor<'_>, relation: DateRelation) -> Result<SearchKey> {
    Ok(SearchKey::Arrived(relation, argument(cursor, date_argument)?))
}

fn sent(cursor: &mut Cursor<'_>, relation: DateRelation) -> Result<SearchKey> {
    Ok(SearchKey::Sent(relation, argument(cursor, date_argument)?))
}

fn date_argument(cursor: &mut Cursor<'_>) -> Result<crate::imap::command::Date> {
    let text = cursor.text()?;
    match date::parse_date(&text) {
        Some(date) => Ok(date),
        None => cursor.fail("a date such as 1-Feb-1994"),
    }
}
