//! BODY and BODYSTRUCTURE: the MIME tree as RFC 3501 §7.4.2 writes it.
//!
//! The tree was made when the message came in ([`post::mail::structure`]), so nothing is fetched, with one
//! exception: the envelope of a message inside a message is in that message's own header.

use super::{envelope, response};
use post::mail::structure::{Content, Fields, Parameter, Structure};

/// Whether the whole message is needed to write its structure.
pub(super) fn needs_message(structure: &Structure) -> bool {
    structure.entities().iter().any(|entity| embedded(entity).is_some())
}

/// The message inside a `message/rfc822` part. To a client of IMAP4rev1 `message/global` is an opaque body.
fn embedded(entity: &Structure) -> Option<&Structure> {
    match &entity.content {
        Content::Message(inner) if entity.fields.is("message", "rfc822") => Some(inner),
        _ => None,
    }
}

/// Writes the structure, with its extension data or without. `message` is the whole message if
/// [`needs_message`], otherwise it may be empty.
pub(super) fn write(entity: &Structure, message: &[u8], extended: bool, out: &mut Vec<u8>) {
    let fields = &entity.fields;
    out.push(b'(');
    if fields.kind.eq_ignore_ascii_case(b"multipart") {
        write_multipart(entity, message, extended, out);
    } else {
        write_single(entity, message, extended, out);
    }
    out.push(b')');
}

fn write_multipart(entity: &Structure, message: &[u8], extended: bool, out: &mut Vec<u8>) {
    for part in entity.children() {
        write(part, message, extended, out);
    }
    if entity.children().is_empty() {
        // The grammar wants a part; a multipart without any gets an empty text.
        out.extend_from_slice(b"(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 0 0)");
    }
    out.push(b' ');
    response::string(&entity.fields.subtype, out);
    if extended {
        out.push(b' ');
        write_parameters(&entity.fields.parameters, out);
        write_disposition_and_after(&entity.fields, out);
    }
}

fn write_single(entity: &Structure, message: &[u8], extended: bool, out: &mut Vec<u8>) {
    let fields = &entity.fields;
    let inner = embedded(entity);
    // A message/rfc822 that was not looked into must not claim the type whose grammar wants what is inside.
    let is_opaque_message = inner.is_none() && fields.is("message", "rfc822");
    let (kind, subtype): (&[u8], &[u8]) =
        if is_opaque_message { (b"APPLICATION", b"OCTET-STREAM") } else { (&fields.kind, &fields.subtype) };
    response::string(kind, out);
    out.push(b' ');
    response::string(subtype, out);
    out.push(b' ');
    write_parameters(&fields.parameters, out);
    for text in [&fields.id, &fields.description] {
        out.push(b' ');
        response::nstring(text.as_deref(), out);
    }
    out.push(b' ');
    response::string(fields.encoding.as_deref().unwrap_or(b"7BIT"), out);
    out.extend_from_slice(format!(" {}", entity.size()).as_bytes());
    if let Some(inner) = inner {
        out.push(b' ');
        envelope::write(message.get(inner.header()).unwrap_or_default(), out);
        out.push(b' ');
        write(inner, message, extended, out);
        out.extend_from_slice(format!(" {}", entity.lines).as_bytes());
    } else if fields.kind.eq_ignore_ascii_case(b"text") {
        out.extend_from_slice(format!(" {}", entity.lines).as_bytes());
    }
    if extended {
        out.push(b' ');
        response::nstring(fields.md5.as_deref(), out);
        write_disposition_and_after(fields, out);
    }
}

fn write_disposition_and_after(fields: &Fields, out: &mut Vec<u8>) {
    out.push(b' ');
    match &fields.disposition {
        Some(disposition) => {
            out.push(b'(');
            response::string(&disposition.kind, out);
            out.push(b' ');
            write_parameters(&disposition.parameters, out);
            out.push(b')');
        }
        None => out.extend_from_slice(b"NIL"),
    }
    out.push(b' ');
    match fields.languages.as_slice() {
        [] => out.extend_from_slice(b"NIL"),
        [only] => response::string(&only.0, out),
        several => {
            for (index, language) in several.iter().enumerate() {
                out.push(if index == 0 { b'(' } else { b' ' });
                response::string(&language.0, out);
            }
            out.push(b')');
        }
    }
    out.push(b' ');
    response::nstring(fields.location.as_deref(), out);
}

fn write_parameters(parameters: &[Parameter], out: &mut Vec<u8>) {
    if parameters.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    for (index, parameter) in parameters.iter().enumerate() {
        out.push(if index == 0 { b'(' } else { b' ' });
        response::string(&parameter.name, out);
        out.push(b' ');
        response::string(&parameter.value, out);
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    //! Goal: structures a client can read, of good messages and bad. Method: a nested message written out by
    //! hand; then random MIME, read back by a reader written apart, whose parts must be as many as the tree's.
    use super::*;
    use crate::imap::test_reader::{self, Value};
    use post::mail::walk::structure_of;
    use proptest::prelude::*;

    fn written(message: &[u8], extended: bool) -> Vec<u8> {
        let mut out = Vec::new();
        write(&structure_of(message), message, extended, &mut out);
        out
    }

    #[test]
    fn plain_text() {
        let message = b"Subject: x\r\n\r\none\r\ntwo\r\n";
        let text = String::from_utf8(written(message, false)).unwrap();
        assert_eq!(text, "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7BIT\" 10 2)");
    }

    #[test]
    fn a_message_in_a_message() {
        let message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n\
            Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename=\"a \\\"b\\\".eml\"\r\n\r\n\
            Subject: inner\r\nFrom: a@b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Language: de, en\r\n\r\n<p>\r\n\r\n--b--\r\n";
        assert!(needs_message(&structure_of(message)));
        let text = String::from_utf8(written(message, true)).unwrap();
        let address = "((NIL NIL \"a\" \"b\"))";
        let wanted = format!(
            "((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7BIT\" 5 0 NIL NIL NIL NIL)\
             (\"message\" \"rfc822\" NIL NIL NIL \"7BIT\" 100 \
             (NIL \"inner\" {address} {address} {address} NIL NIL NIL NIL NIL) \
             (\"text\" \"html\" (\"charset\" \"utf-8\") NIL NIL \"7BIT\" 5 1 NIL NIL (\"de\" \"en\") NIL) \
             6 NIL (\"attachment\" (\"filename\" \"a \\\"b\\\".eml\")) NIL NIL) \
             \"mixed\" (\"boundary\" \"b\") NIL NIL NIL)"
        );
        assert_eq!(text, wanted);
    }

    /// As many bodies as are in a value that is one body.
    fn bodies(value: &Value) -> usize {
        let values = value.list();
        if matches!(values[0], Value::List(_)) {
            return 1 + values.iter().take_while(|value| matches!(value, Value::List(_))).map(bodies).sum::<usize>();
        }
        let is_message =
            values[0].text().eq_ignore_ascii_case(b"message") && values[1].text().eq_ignore_ascii_case(b"rfc822");
        1 + if is_message { bodies(&values[8]) } else { 0 }
    }

    proptest! {
        #[test]
        fn any_message_gives_a_readable_tree(pieces in prop::collection::vec(prop_oneof![
            Just("Content-Type: multipart/mixed; boundary=b\r\n".to_owned()),
            Just("Content-Type: message/rfc822\r\n".to_owned()), Just("\r\n".to_owned()), Just("--b\r\n".to_owned()),
            Just("--b--\r\n".to_owned()), Just("Content-Disposition: inline; x=\"\\\r\n y\"\r\n".to_owned()),
            Just("Content-Language: a,b\r\n".to_owned()), ".{0,10}",
        ], 0..40)) {
            let message = pieces.concat().into_bytes();
            let structure = structure_of(&message);
            for extended in [false, true] {
                let values = test_reader::read(&written(&message, extended));
                prop_assert_eq!(values.len(), 1);
                let entities = structure.entities();
                let empty_multiparts = entities.iter()
                    .filter(|entity| entity.fields.kind.eq_ignore_ascii_case(b"multipart") && entity.children().is_empty());
                prop_assert_eq!(bodies(&values[0]), entities.len() + empty_multiparts.count());
            }
        }
    }
}
