//! What FETCH asks for: macros, data items, sections.

use super::cursor::Cursor;
use super::{ParseError, Result};
use crate::imap::command::{FetchItem, Partial, Section, SectionText};
use crate::imap::limits;

/// A macro, one item, or a list of items.
pub(super) fn items(cursor: &mut Cursor<'_>) -> Result<Vec<FetchItem>> {
    use FetchItem::{Body, Envelope, Flags, InternalDate, Size};
    if cursor.peek() == Some(b'(') {
        return cursor.parenthesised(limits::FETCH_ITEMS_MAX, "data items", item);
    }
    let fast = vec![Flags, InternalDate, Size];
    if cursor.accept_word("ALL") {
        Ok([fast, vec![Envelope]].concat())
    } else if cursor.accept_word("FAST") {
        Ok(fast)
    } else if cursor.accept_word("FULL") {
        Ok([fast, vec![Envelope, Body]].concat())
    } else {
        Ok(vec![item(cursor)?])
    }
}

fn item(cursor: &mut Cursor<'_>) -> Result<FetchItem> {
    // `BODY[` holds characters no atom has, so names are cut out here and not by the atom rule.
    let name = cursor.take_while(|octet| octet.is_ascii_alphanumeric() || octet == b'.').to_ascii_uppercase();
    match name.as_slice() {
        b"FLAGS" => Ok(FetchItem::Flags),
        b"UID" => Ok(FetchItem::Uid),
        b"INTERNALDATE" => Ok(FetchItem::InternalDate),
        b"RFC822.SIZE" => Ok(FetchItem::Size),
        b"ENVELOPE" => Ok(FetchItem::Envelope),
        b"BODYSTRUCTURE" => Ok(FetchItem::BodyStructure),
        b"RFC822" => Ok(FetchItem::Message),
        b"RFC822.HEADER" => Ok(FetchItem::MessageHeader),
        b"RFC822.TEXT" => Ok(FetchItem::MessageText),
        b"BODY" if cursor.peek() != Some(b'[') => Ok(FetchItem::Body),
        b"BODY" | b"BODY.PEEK" => {
            let peek = name.len() > b"BODY".len();
            Ok(FetchItem::Section { peek, section: section(cursor)?, partial: partial(cursor)? })
        }
        _ => cursor.fail("a data item"),
    }
}

fn section(cursor: &mut Cursor<'_>) -> Result<Section> {
    cursor.expect(b'[', "an opening bracket")?;
    let mut section = Section::default();
    while cursor.peek().is_some_and(|octet| octet.is_ascii_digit()) {
        if section.path.len() == limits::PART_LEVELS_MAX {
            return Err(ParseError::TooMany("levels of parts"));
        }
        section.path.push(cursor.number_from_one()?);
        if cursor.peek() == Some(b']') {
            break;
        }
        cursor.expect(b'.', "a dot between part numbers")?;
        if cursor.peek() == Some(b']') {
            return cursor.fail("a part number or HEADER, TEXT, MIME");
        }
    }
    if cursor.peek() != Some(b']') {
        section.text = Some(section_text(cursor, !section.path.is_empty())?);
    }
    cursor.expect(b']', "a closing bracket")?;
    Ok(section)
}

fn section_text(cursor: &mut Cursor<'_>, of_a_part: bool) -> Result<SectionText> {
    if cursor.accept_word("HEADER.FIELDS") {
        let not = cursor.accept_word(".NOT");
        cursor.space()?;
        let names = cursor.parenthesised(limits::HEADER_NAMES_MAX, "field names", field_name)?;
        Ok(SectionText::HeaderFields { not, names })
    } else if cursor.accept_word("HEADER") {
        Ok(SectionText::Header)
    } else if cursor.accept_word("TEXT") {
        Ok(SectionText::Text)
    } else if of_a_part && cursor.accept_word("MIME") {
        Ok(SectionText::Mime)
    } else {
        cursor.fail("a section")
    }
}

/// A header field's name: printable ASCII without colon or space, since it is echoed in the answer.
pub(super) fn field_name(cursor: &mut Cursor<'_>) -> Result<String> {
    let name = cursor.text()?;
    let legal = !name.is_empty() && name.bytes().all(|octet| matches!(octet, 0x21..=0x7e) && octet != b':');
    if legal { Ok(name) } else { cursor.fail("a header field's name") }
}

fn partial(cursor: &mut Cursor<'_>) -> Result<Option<Partial>> {
    if !cursor.accept(b'<') {
        return Ok(None);
    }
    let first = cursor.number()?;
    cursor.expect(b'.', "a dot in a partial")?;
    let length = cursor.number_from_one()?;
    cursor.expect(b'>', "the end of a partial")?;
    Ok(Some(Partial { first, length }))
}
