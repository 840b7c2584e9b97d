//! Sections of a message: `BODY[1.2.HEADER.FIELDS (Subject)]<0.100>` as octets.
//!
//! A section is a slice of the message, found by the byte ranges of its MIME tree; only a selection of header
//! fields is put together anew. The header of the message itself comes from the folder's index, so reading it
//! fetches nothing.

use super::command::{Partial, Section, SectionText};
use bytes::Bytes;
use post::mail::header;
use post::mail::structure::{Content, Structure};
use post::mail::view::Entry;

/// The message does not hold what the folder's index says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not match its index")]
pub(super) struct Mismatch;

/// Whether the whole message is needed for this section of it.
pub(super) fn needs_message(entry: &Entry, section: &Section) -> bool {
    let is_own_header = matches!(section.text, Some(SectionText::Header | SectionText::HeaderFields { .. }));
    if section.path.is_empty() {
        return !(is_own_header && has_whole_header(entry));
    }
    entry.structure.part(&section.path).is_some()
}

/// A very long header may not be kept whole in the index.
fn has_whole_header(entry: &Entry) -> bool {
    entry.headers.len() == entry.structure.header().len()
}

/// The octets of a section; `None` if there is no such part. `message` may be left out if
/// [`needs_message`] says so.
pub(super) fn octets(entry: &Entry, message: Option<&Bytes>, section: &Section) -> Result<Option<Bytes>, Mismatch> {
    let root = entry.structure.as_ref();
    if section.path.is_empty() {
        let own_header =
            || if has_whole_header(entry) { Ok(entry.headers.clone()) } else { slice(message, root.header()) };
        return match &section.text {
            None => message.cloned().ok_or(Mismatch).map(Some),
            Some(SectionText::Text) => slice(message, root.body()).map(Some),
            Some(SectionText::Header) => own_header().map(Some),
            Some(SectionText::HeaderFields { not, names }) => Ok(Some(select_fields(&own_header()?, *not, names))),
            // The grammar wants a part number before MIME; the parser has seen to it.
            Some(SectionText::Mime) => Ok(None),
        };
    }
    let Some(part) = root.part(&section.path) else { return Ok(None) };
    match (&section.text, embedded(part)) {
        (None, _) => slice(message, part.body()).map(Some),
        (Some(SectionText::Mime), _) => slice(message, part.header()).map(Some),
        (Some(SectionText::Header), Some(inner)) => slice(message, inner.header()).map(Some),
        (Some(SectionText::Text), Some(inner)) => slice(message, inner.body()).map(Some),
        (Some(SectionText::HeaderFields { not, names }), Some(inner)) => {
            Ok(Some(select_fields(&slice(message, inner.header())?, *not, names)))
        }
        // HEADER and TEXT are of messages only.
        (Some(_), None) => Ok(None),
    }
}

fn embedded(part: &Structure) -> Option<&Structure> {
    if let Content::Message(inner) = &part.content { Some(inner) } else { None }
}

fn slice(message: Option<&Bytes>, range: std::ops::Range<usize>) -> Result<Bytes, Mismatch> {
    let message = message.ok_or(Mismatch)?;
    if range.start > range.end || range.end > message.len() {
        return Err(Mismatch);
    }
    Ok(message.slice(range))
}

/// The fields of these names, or all others, in order and as they stand, with the empty line that ends them.
fn select_fields(section: &[u8], not: bool, names: &[String]) -> Bytes {
    let mut selected = Vec::new();
    for field in header::fields(section) {
        let named = names.iter().any(|name| field.is(name));
        if named != not {
            selected.extend_from_slice(section.get(field.range).unwrap_or_default());
        }
    }
    if !selected.is_empty() && !selected.ends_with(b"\n") {
        // The message ended in the middle of its header.
        selected.extend_from_slice(b"\r\n");
    }
    selected.extend_from_slice(b"\r\n");
    Bytes::from(selected)
}

/// The part of the octets that is wanted; nothing if they end before it.
pub(super) fn cut(octets: &Bytes, partial: Option<Partial>) -> Bytes {
    let Some(Partial { first, length }) = partial else { return octets.clone() };
    let first = (first as usize).min(octets.len());
    let end = first.saturating_add(length as usize).min(octets.len());
    octets.slice(first..end)
}

/// Writes what was asked for, as the answer must name it: without `.PEEK`, with the origin of a partial.
pub(super) fn write_name(section: &Section, partial: Option<Partial>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"BODY[");
    let mut separator = "";
    for number in &section.path {
        out.extend_from_slice(format!("{separator}{number}").as_bytes());
        separator = ".";
    }
    if let Some(text) = &section.text {
        out.extend_from_slice(separator.as_bytes());
        write_text_name(text, out);
    }
    out.push(b']');
    if let Some(Partial { first, .. }) = partial {
        out.extend_from_slice(format!("<{first}>").as_bytes());
    }
}

fn write_text_name(text: &SectionText, out: &mut Vec<u8>) {
    match text {
        SectionText::Header => out.extend_from_slice(b"HEADER"),
        SectionText::Text => out.extend_from_slice(b"TEXT"),
        SectionText::Mime => out.extend_from_slice(b"MIME"),
        SectionText::HeaderFields { not, names } => {
            out.extend_from_slice(if *not { b"HEADER.FIELDS.NOT (" } else { b"HEADER.FIELDS (" });
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                let is_atom = name.bytes().all(super::parse::is_atom_octet);
                if is_atom {
                    out.extend_from_slice(name.as_bytes());
                } else {
                    super::response::string(name.as_bytes(), out);
                }
            }
            out.push(b')');
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each section is the octets RFC 3501 §6.4.5 says. Method: the RFC's own example of a nested message,
    //! its sections cut out by hand with string searches; partials against plain slicing; random messages, where
    //! header and text together must be the message.
    use super::*;
    use crate::imap::selected::tests::entry_of;
    use proptest::prelude::*;

    const MESSAGE: &str = "Subject: outer\r\nTo: x\r\nsubject: again\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n\
        preamble\r\n--B\r\n\r\npart one\r\n--B\r\nContent-Type: application/octet-stream\r\n\r\npart two\r\n--B\r\n\
        Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nX: y\r\nContent-Type: multipart/alternative; boundary=C\r\n\r\n\
        --C\r\nContent-Type: text/plain\r\n\r\nin text\r\n--C\r\nContent-Type: text/html\r\n\r\nin html\r\n--C--\r\n\r\n--B--\r\nepilogue\r\n";

    fn fetch(section: &str) -> Option<String> {
        let entry = entry_of(1, MESSAGE.as_bytes());
        let command = format!("a FETCH 1 BODY[{section}]");
        let tagged = crate::imap::parse::command(command.as_bytes(), None).unwrap();
        let crate::imap::command::Command::Fetch { items, .. } = tagged.command else { panic!("a fetch") };
        let crate::imap::command::FetchItem::Section { section, partial, .. } = &items[0] else { panic!("a section") };
        let message = needs_message(&entry, section).then(|| Bytes::from_static(MESSAGE.as_bytes()));
        let octets = octets(&entry, message.as_ref(), section).unwrap();
        octets.map(|octets| String::from_utf8(cut(&octets, *partial).to_vec()).unwrap())
    }

    fn between(from: &str, to: &str) -> Option<String> {
        let start = MESSAGE.find(from).unwrap();
        let end = start + MESSAGE[start..].find(to).unwrap();
        Some(MESSAGE[start..end].to_owned())
    }

    #[test]
    fn sections_of_a_nested_message() {
        assert_eq!(fetch("").unwrap(), MESSAGE);
        assert_eq!(fetch("HEADER"), between("Subject: outer", "preamble"));
        assert_eq!(fetch("TEXT").unwrap(), MESSAGE[MESSAGE.find("preamble").unwrap()..]);
        assert_eq!(fetch("HEADER.FIELDS (SUBJECT)").unwrap(), "Subject: outer\r\nsubject: again\r\n\r\n");
        assert_eq!(fetch("HEADER.FIELDS.NOT (subject content-type)").unwrap(), "To: x\r\n\r\n");
        assert_eq!(fetch("HEADER.FIELDS (Nothing)").unwrap(), "\r\n");
        assert_eq!(fetch("1").unwrap(), "part one");
        assert_eq!(fetch("2").unwrap(), "part two");
        assert_eq!(fetch("2.MIME").unwrap(), "Content-Type: application/octet-stream\r\n\r\n");
        assert_eq!(fetch("3"), between("Subject: inner", "\r\n--B--"));
        assert_eq!(fetch("3.HEADER"), between("Subject: inner", "--C"));
        assert_eq!(fetch("3.HEADER.FIELDS (x)").unwrap(), "X: y\r\n\r\n");
        assert_eq!(fetch("3.TEXT"), between("--C", "\r\n--B--"));
        assert_eq!(fetch("3.1").unwrap(), "in text");
        assert_eq!(fetch("3.2.MIME").unwrap(), "Content-Type: text/html\r\n\r\n");
        for absent in ["4", "1.1", "3.3", "2.HEADER", "1.TEXT", "3.1.1", "4.HEADER"] {
            assert_eq!(fetch(absent), None, "{absent}");
        }
    }

    #[test]
    fn names_are_echoed_without_peek() {
        for (asked, echoed) in [
            ("BODY.PEEK[]", "BODY[]"),
            ("BODY[1.2.3.MIME]<5.10>", "BODY[1.2.3.MIME]<5>"),
            ("BODY.PEEK[HEADER.FIELDS.NOT (A \"b\")]", "BODY[HEADER.FIELDS.NOT (A b)]"),
            ("BODY.PEEK[4.TEXT]<0.1>", "BODY[4.TEXT]<0>"),
        ] {
            let tagged = crate::imap::parse::command(format!("a FETCH 1 {asked}").as_bytes(), None).unwrap();
            let crate::imap::command::Command::Fetch { items, .. } = tagged.command else { panic!("a fetch") };
            let crate::imap::command::FetchItem::Section { section, partial, .. } = &items[0] else { panic!("one") };
            let mut out = Vec::new();
            write_name(section, *partial, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), echoed);
        }
    }

    proptest! {
        #[test]
        fn partials_are_slices(octets: Vec<u8>, first in 0u32..80, length in 1u32..80) {
            let wanted: Vec<u8> = octets.iter().skip(first as usize).take(length as usize).copied().collect();
            prop_assert_eq!(cut(&Bytes::from(octets), Some(Partial { first, length })).to_vec(), wanted);
        }

        #[test]
        fn header_and_text_are_the_message(message in prop_oneof![".{0,60}", "(A: b\r\n){0,3}\r?\n?.{0,30}"]) {
            let entry = entry_of(1, message.as_bytes());
            let whole = Bytes::from(message.clone());
            let part = |text| Section { path: Vec::new(), text: Some(text) };
            let header = octets(&entry, Some(&whole), &part(SectionText::Header)).unwrap().unwrap();
            let text = octets(&entry, Some(&whole), &part(SectionText::Text)).unwrap().unwrap();
            prop_assert_eq!([header, text].concat(), message.into_bytes());
        }
    }
}
