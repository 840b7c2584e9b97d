//! FETCH: what is answered of one message.
//!
//! Flags, dates, sizes, envelopes and structures come from the folder's index. Only what has octets of a body in it
//! needs the message; [`needs_message`] tells beforehand, so that it can be fetched ahead, and nothing is written
//! of a message before everything asked of it is at hand: a failure leaves no half answer behind.

use super::command::{FetchItem, Section, SectionText};
use super::section::{self, Mismatch};
use super::wire::{Wire, WireError};
use super::{date, envelope, response, structure};
use bytes::Bytes;
use post::mail::view::Entry;

/// Whether any of the items needs the whole message.
pub(super) fn needs_message(entry: &Entry, items: &[FetchItem]) -> bool {
    items.iter().any(|item| match item {
        FetchItem::Flags | FetchItem::Uid | FetchItem::InternalDate | FetchItem::Size => false,
        FetchItem::Envelope => section::needs_message(entry, &part(SectionText::Header)),
        FetchItem::Body | FetchItem::BodyStructure => structure::needs_message(&entry.structure),
        FetchItem::Message => true,
        FetchItem::MessageHeader => section::needs_message(entry, &part(SectionText::Header)),
        FetchItem::MessageText => true,
        FetchItem::Section { section, .. } => section::needs_message(entry, section),
    })
}

fn part(text: SectionText) -> Section {
    Section { path: Vec::new(), text: Some(text) }
}

/// A piece of an answer: short text, or octets that go out as a literal without being copied.
enum Piece {
    Text(Vec<u8>),
    Literal(Bytes),
}

/// The answer for one message, complete and ready to be written.
pub(super) struct Answer(Vec<Piece>);

/// Octets up to here are quoted or copied rather than sent from where they lie.
const SHORT_BYTES_MAX: usize = 512;

impl Answer {
    /// Puts the answer together. `message` is there if [`needs_message`].
    pub(super) fn new(
        number: u32,
        entry: &Entry,
        items: &[FetchItem],
        message: Option<&Bytes>,
    ) -> Result<Self, Mismatch> {
        let mut pieces = Vec::new();
        let mut text = format!("* {number} FETCH (").into_bytes();
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                text.push(b' ');
            }
            if let Some(octets) = write_item(entry, item, message, &mut text)? {
                text.extend_from_slice(format!("{{{}}}\r\n", octets.len()).as_bytes());
                if octets.len() <= SHORT_BYTES_MAX {
                    text.extend_from_slice(&octets);
                } else {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                    pieces.push(Piece::Literal(octets));
                }
            }
        }
        text.extend_from_slice(b")\r\n");
        pieces.push(Piece::Text(text));
        Ok(Self(pieces))
    }

    /// Writes it, waiting for the client as needed.
    pub(super) async fn write(self, wire: &mut Wire) -> Result<(), WireError> {
        for piece in self.0 {
            match piece {
                Piece::Text(text) => {
                    wire.out().extend_from_slice(&text);
                    wire.relieve().await?;
                }
                Piece::Literal(octets) => wire.write(&octets).await?,
            }
        }
        Ok(())
    }
}

/// Writes one item; octets are returned, to follow as a literal. They are sent as they are, even with a NUL in
/// them, which the grammar's literals exclude: a message must come out as it went in.
fn write_item(
    entry: &Entry,
    item: &FetchItem,
    message: Option<&Bytes>,
    out: &mut Vec<u8>,
) -> Result<Option<Bytes>, Mismatch> {
    let whole = |name: &[u8], section: &Section, out: &mut Vec<u8>| {
        out.extend_from_slice(name);
        section::octets(entry, message, section)
    };
    match item {
        FetchItem::Flags => out.extend_from_slice(format!("FLAGS {}", response::flags(&entry.flags)).as_bytes()),
        FetchItem::Uid => out.extend_from_slice(format!("UID {}", entry.uid).as_bytes()),
        FetchItem::InternalDate => {
            let date = date::render_date_time(entry.internal_date_s);
            out.extend_from_slice(format!("INTERNALDATE \"{date}\"").as_bytes());
        }
        FetchItem::Size => out.extend_from_slice(format!("RFC822.SIZE {}", entry.size).as_bytes()),
        FetchItem::Envelope => {
            let header = section::octets(entry, message, &part(SectionText::Header))?.ok_or(Mismatch)?;
            out.extend_from_slice(b"ENVELOPE ");
            envelope::write(&header, out);
        }
        FetchItem::Body | FetchItem::BodyStructure => {
            let extended = *item == FetchItem::BodyStructure;
            out.extend_from_slice(if extended { b"BODYSTRUCTURE " } else { b"BODY " });
            let octets = message.map(|message| &message[..]).unwrap_or_default();
            structure::write(&entry.structure, octets, extended, out);
        }
        FetchItem::Message => return whole(b"RFC822 ", &Section::default(), out),
        FetchItem::MessageHeader => return whole(b"RFC822.HEADER ", &part(SectionText::Header), out),
        FetchItem::MessageText => return whole(b"RFC822.TEXT ", &part(SectionText::Text), out),
        FetchItem::Section { section, partial, .. } => {
            section::write_name(section, *partial, out);
            out.push(b' ');
            match section::octets(entry, message, section)? {
                Some(octets) => return Ok(Some(section::cut(&octets, *partial))),
                None => out.extend_from_slice(b"NIL"),
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    //! Goal: every data item is answered under its name and reads back as what it is. Method: one FETCH of all of
    //! them, read by a reader written apart; and that a message is asked for only when it must be.
    use super::*;
    use crate::imap::command::Command;
    use crate::imap::selected::tests::entry_of;
    use crate::imap::test_reader::{self, Value};

    fn items(text: &str) -> Vec<FetchItem> {
        let command = crate::imap::parse::command(format!("a FETCH 1 {text}").as_bytes(), None).unwrap().command;
        let Command::Fetch { items, .. } = command else { panic!("a fetch") };
        items
    }

    fn answered(message: &[u8], asked: &str) -> Vec<Value> {
        let mut entry = entry_of(9, message);
        entry.flags.seen = true;
        entry.internal_date_s = 837_596_665;
        let items = items(asked);
        let whole = needs_message(&entry, &items).then(|| Bytes::copy_from_slice(message));
        let answer = Answer::new(3, &entry, &items, whole.as_ref()).unwrap();
        let octets: Vec<u8> = answer
            .0
            .into_iter()
            .flat_map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Literal(octets) => octets.to_vec(),
            })
            .collect();
        let octets = octets.strip_prefix(b"* 3 FETCH ").unwrap().strip_suffix(b"\r\n").unwrap();
        test_reader::read(octets)[0].list().to_vec()
    }

    #[test]
    fn all_items_by_name() {
        let body = "x".repeat(2_000);
        let message = format!("Subject: s\r\nFrom: a@b\r\n\r\n{body}");
        let values = answered(
            message.as_bytes(),
            "(FLAGS UID INTERNALDATE RFC822.SIZE RFC822 RFC822.HEADER RFC822.TEXT BODY[]<5.3> BODY.PEEK[7] BODY ENVELOPE BODYSTRUCTURE)",
        );
        let names: Vec<&str> = values.iter().step_by(2).map(Value::word).collect();
        assert_eq!(
            names,
            [
                "FLAGS",
                "UID",
                "INTERNALDATE",
                "RFC822.SIZE",
                "RFC822",
                "RFC822.HEADER",
                "RFC822.TEXT",
                "BODY[]<5>",
                "BODY[7]",
                "BODY",
                "ENVELOPE",
                "BODYSTRUCTURE"
            ]
        );
        assert_eq!(values[1].list()[0].word(), "\\Seen");
        assert_eq!(values[3].word(), "9");
        assert_eq!(values[5].text(), b"17-Jul-1996 09:44:25 +0000");
        assert_eq!(values[7].word(), message.len().to_string());
        assert_eq!(values[9].text(), message.as_bytes());
        assert_eq!(values[11].text(), b"Subject: s\r\nFrom: a@b\r\n\r\n");
        assert_eq!(values[13].text(), body.as_bytes());
        assert_eq!(values[15].text(), b"ct:");
        assert_eq!(values[17].word(), "NIL");
        assert_eq!(values[21].list()[1].text(), b"s");
    }

    #[test]
    fn a_listing_fetches_no_message() {
        let entry = entry_of(1, b"Subject: s\r\nContent-Type: text/plain\r\n\r\nbody");
        let listing = "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY RFC822.HEADER \
            BODY.PEEK[HEADER] BODY.PEEK[HEADER.FIELDS (Subject)] BODY[9])";
        assert!(!needs_message(&entry, &items(listing)));
        for body in ["RFC822", "RFC822.TEXT", "BODY[]", "BODY[TEXT]", "BODY[1]", "BODY[1.MIME]"] {
            assert!(needs_message(&entry, &items(body)), "{body}");
        }
        let nested = entry_of(1, b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n");
        assert!(needs_message(&nested, &items("BODYSTRUCTURE")), "the inner envelope is in the body");
    }

    #[test]
    fn a_message_shorter_than_its_index_is_no_panic() {
        let entry = entry_of(1, b"A: b\r\n\r\nlong enough");
        let short = Bytes::from_static(b"A");
        assert_eq!(Answer::new(1, &entry, &items("BODY[1]"), Some(&short)).err(), Some(Mismatch));
        assert_eq!(Answer::new(1, &entry, &items("BODY[]"), None).err(), Some(Mismatch));
    }
}
