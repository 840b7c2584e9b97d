//! ENVELOPE: the fields of a header as RFC 3501 §7.4.2 lists them.
//!
//! Addresses come from strangers, so what does not parse is shown as well as it can be and never dropped with its
//! neighbours. Encoded words (RFC 2047) stay as they are: decoding is the client's matter. Comments serve as a
//! display name only where there is no other.

use super::{limits, response};
use post::mail::header;

/// One mailbox, or the beginning or end of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Address {
    name: Option<Vec<u8>>,
    route: Option<Vec<u8>>,
    mailbox: Option<Vec<u8>>,
    host: Option<Vec<u8>>,
}

/// Writes the envelope of a header section.
pub(super) fn write(section: &[u8], out: &mut Vec<u8>) {
    let mut fields = EnvelopeFields::default();
    for field in header::fields(section) {
        fields.take(&field);
    }
    let from = addresses(&fields.from);
    let or_from = |value: &[u8]| {
        let own = addresses(value);
        if own.is_empty() { from.clone() } else { own }
    };
    out.push(b'(');
    response::nstring(fields.date.as_deref(), out);
    out.push(b' ');
    response::nstring(fields.subject.as_deref(), out);
    let lists = [
        from.clone(),
        or_from(&fields.sender),
        or_from(&fields.reply_to),
        addresses(&fields.to),
        addresses(&fields.cc),
        addresses(&fields.bcc),
    ];
    for list in lists {
        out.push(b' ');
        write_addresses(&list, out);
    }
    out.push(b' ');
    response::nstring(fields.in_reply_to.as_deref(), out);
    out.push(b' ');
    response::nstring(fields.message_id.as_deref(), out);
    out.push(b')');
}

#[derive(Default)]
struct EnvelopeFields {
    date: Option<Vec<u8>>,
    subject: Option<Vec<u8>>,
    in_reply_to: Option<Vec<u8>>,
    message_id: Option<Vec<u8>>,
    from: Vec<u8>,
    sender: Vec<u8>,
    reply_to: Vec<u8>,
    to: Vec<u8>,
    cc: Vec<u8>,
    bcc: Vec<u8>,
}

impl EnvelopeFields {
    /// The first of a field that may occur once; all of the address fields, joined, as if it were one list.
    fn take(&mut self, field: &header::Field<'_>) {
        let once = [
            ("Date", &mut self.date),
            ("Subject", &mut self.subject),
            ("In-Reply-To", &mut self.in_reply_to),
            ("Message-ID", &mut self.message_id),
        ];
        for (name, slot) in once {
            if field.is(name) {
                slot.get_or_insert_with(|| unfolded(field.value));
                return;
            }
        }
        let lists = [
            ("From", &mut self.from),
            ("Sender", &mut self.sender),
            ("Reply-To", &mut self.reply_to),
            ("To", &mut self.to),
            ("Cc", &mut self.cc),
            ("Bcc", &mut self.bcc),
        ];
        for (name, list) in lists {
            if field.is(name) && list.len() + field.value.len() <= limits::ENVELOPE_FIELD_BYTES_MAX {
                if !list.is_empty() {
                    list.push(b',');
                }
                list.extend_from_slice(&unfolded(field.value));
            }
        }
    }
}

/// A field's value on one line, without white space around it. Line ends and NULs inside it are left out.
pub(super) fn unfolded(value: &[u8]) -> Vec<u8> {
    let one_line = value.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n' | 0));
    let one_line: Vec<u8> = one_line.take(limits::ENVELOPE_FIELD_BYTES_MAX).collect();
    one_line.trim_ascii().to_vec()
}

fn write_addresses(list: &[Address], out: &mut Vec<u8>) {
    if list.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for address in list {
        let parts = [&address.name, &address.route, &address.mailbox, &address.host];
        for (index, part) in parts.into_iter().enumerate() {
            out.push(if index == 0 { b'(' } else { b' ' });
            response::nstring(part.as_deref(), out);
        }
        out.push(b')');
    }
    out.push(b')');
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// An atom with its dots, a domain literal, or the text of a quoted string.
    Word(Vec<u8>),
    /// One of `, : ; < > @`.
    Mark(u8),
    Comment(Vec<u8>),
}

/// Cuts a value into tokens, in one pass; anything unclosed ends with the value.
fn tokens(value: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = value;
    while let Some((&octet, tail)) = rest.split_first() {
        rest = match octet {
            b' ' | b'\t' => tail,
            b',' | b':' | b';' | b'<' | b'>' | b'@' => {
                tokens.push(Token::Mark(octet));
                tail
            }
            b'"' => {
                let (text, tail) = until_unescaped(tail, b'"');
                tokens.push(Token::Word(text));
                tail
            }
            b'(' => {
                let (text, tail) = comment(tail);
                tokens.push(Token::Comment(text));
                tail
            }
            b'[' => {
                let end = tail.iter().position(|&octet| octet == b']').map_or(tail.len(), |at| at + 1);
                let (inside, after) = tail.split_at(end);
                tokens.push(Token::Word([b"[", inside].concat()));
                after
            }
            _ => {
                let is_end = |octet: &u8| matches!(octet, b' ' | b'\t' | b'"' | b'(') || b",:;<>@".contains(octet);
                let end = rest.iter().position(is_end).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                tokens.push(Token::Word(word.to_vec()));
                after
            }
        };
    }
    tokens
}

fn until_unescaped(rest: &[u8], closing: u8) -> (Vec<u8>, &[u8]) {
    let mut text = Vec::new();
    let mut octets = rest.iter().enumerate();
    while let Some((at, &octet)) = octets.next() {
        if octet == closing {
            return (text, rest.get(at + 1..).unwrap_or_default());
        }
        let octet = if octet == b'\\' { octets.next().map_or(octet, |(_, &escaped)| escaped) } else { octet };
        text.push(octet);
    }
    (text, &[])
}

fn comment(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut text = Vec::new();
    let mut depth = 1;
    let mut octets = rest.iter().enumerate();
    while let Some((at, &octet)) = octets.next() {
        match octet {
            b'(' if depth <= limits::COMMENT_DEPTH_MAX => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (text.trim_ascii().to_vec(), rest.get(at + 1..).unwrap_or_default());
        }
        let octet = if octet == b'\\' { octets.next().map_or(octet, |(_, &escaped)| escaped) } else { octet };
        text.push(octet);
    }
    (text.trim_ascii().to_vec(), &[])
}

/// The mailboxes and groups of an address list.
fn addresses(value: &[u8]) -> Vec<Address> {
    let mut reader = AddressReader::default();
    for token in tokens(value) {
        if reader.list.len() >= limits::ENVELOPE_ADDRESSES_MAX {
            break;
        }
        reader.take(token);
    }
    reader.end_address();
    reader.end_group();
    reader.list
}

#[derive(Default)]
struct AddressReader {
    list: Vec<Address>,
    /// Words not yet known to be a name, a local part or a group's name.
    words: Vec<Vec<u8>>,
    comment: Option<Vec<u8>>,
    /// After `@`: the domain's words.
    host: Option<Vec<u8>>,
    angle: Option<Angle>,
    in_group: bool,
}

/// After `<`.
struct Angle {
    /// The words before it.
    name: Vec<Vec<u8>>,
    route: Option<Vec<u8>>,
}

impl AddressReader {
    fn take(&mut self, token: Token) {
        match token {
            Token::Comment(text) if !text.is_empty() => self.comment = Some(text),
            Token::Comment(_) => {}
            Token::Word(word) => match &mut self.host {
                Some(host) if self.angle.is_some() || host.is_empty() || joins(host, &word) => host.extend(word),
                // A second word after an address without brackets: noise, but it may be a name.
                Some(_) => self.comment = self.comment.take().or(Some(word)),
                None => self.words.push(word),
            },
            Token::Mark(b'@') => self.host = Some(self.host.take().unwrap_or_default()),
            Token::Mark(b'<') => {
                let name = std::mem::take(&mut self.words);
                self.angle = Some(Angle { name, route: None });
                self.host = None;
            }
            Token::Mark(b':') if self.angle.is_some() => self.end_route(),
            Token::Mark(b':') if !self.in_group => self.begin_group(),
            Token::Mark(b',') if self.is_in_route() => {
                self.host.get_or_insert_default().extend_from_slice(b",@");
            }
            Token::Mark(b';') => {
                self.end_address();
                self.end_group();
            }
            Token::Mark(b',') => self.end_address(),
            // A closing bracket changes nothing: what follows it is a comment at most. Other marks are noise.
            Token::Mark(_) => {}
        }
    }

    /// Between `<@a,` and `:`, where a comma separates hosts and not addresses.
    fn is_in_route(&self) -> bool {
        matches!(&self.angle, Some(Angle { route: None, .. })) && self.words.is_empty() && self.host.is_some()
    }

    fn end_route(&mut self) {
        let route = self.host.take().map(|hosts| [b"@", trimmed_route(&hosts)].concat());
        if let Some(angle) = &mut self.angle {
            angle.route = route;
        }
    }

    fn begin_group(&mut self) {
        let name = std::mem::take(&mut self.words).join(&b' ');
        self.list.push(Address { mailbox: Some(name), ..Address::default() });
        self.in_group = true;
        self.comment = None;
        self.host = None;
    }

    fn end_group(&mut self) {
        if std::mem::take(&mut self.in_group) {
            self.list.push(Address::default());
        }
    }

    fn end_address(&mut self) {
        let words = std::mem::take(&mut self.words);
        let comment = self.comment.take();
        let host = self.host.take();
        let angle = self.angle.take();
        if words.is_empty() && host.is_none() && angle.is_none() {
            return;
        }
        let (name, route, local) = match angle {
            Some(Angle { name, route }) => (name, route, words.concat()),
            None => {
                let (name, local) = split_local(words);
                (name, None, local)
            }
        };
        let name = if name.is_empty() { comment } else { Some(name.join(&b' ')) };
        // No host would mean a group, so an address without one gets an empty host.
        let host = Some(host.unwrap_or_default());
        self.list.push(Address { name, route, mailbox: Some(local), host });
    }
}

fn trimmed_route(hosts: &[u8]) -> &[u8] {
    hosts.strip_suffix(b",@").unwrap_or(hosts)
}

/// Whether two words are one dot-atom with white space in it.
fn joins(before: &[u8], after: &[u8]) -> bool {
    before.ends_with(b".") || after.starts_with(b".")
}

/// Of the words before an `@`: the local part is the last, with those joined to it by dots; the rest is a name.
fn split_local(mut words: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<u8>) {
    let Some(mut local) = words.pop() else { return (words, Vec::new()) };
    while let Some(before) = words.pop() {
        if !joins(&before, &local) {
            words.push(before);
            break;
        }
        local = [before, local].concat();
    }
    (words, local)
}

#[cfg(test)]
mod tests {
    //! Goal: envelopes as clients expect them, from good headers and bad. Method: the example of RFC 3501 §8 and
    //! the address forms of RFC 5322 appendix A; then random octets, whose answer must keep its parentheses even.
    use super::*;
    use proptest::prelude::*;

    fn envelope(section: &[u8]) -> String {
        let mut out = Vec::new();
        write(section, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn list(value: &str) -> String {
        let mut out = Vec::new();
        write_addresses(&addresses(value.as_bytes()), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn example_of_the_rfc() {
        let header = b"Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\nFrom: Terry Gray <gray@cac.washington.edu>\r\n\
            Subject: IMAP4rev1 WG mtg summary and minutes\r\nTo: imap@cac.washington.edu\r\n\
            cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n\
            Message-Id: <B27397-0100000@cac.washington.edu>\r\nMIME-Version: 1.0\r\n\r\n";
        assert_eq!(
            envelope(header),
            "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev1 WG mtg summary and minutes\" \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((NIL NIL \"imap\" \"cac.washington.edu\")) \
             ((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")(\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) \
             NIL NIL \"<B27397-0100000@cac.washington.edu>\")"
        );
        assert_eq!(envelope(b"\r\n"), "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
    }

    #[test]
    fn forms_of_addresses() {
        let cases = [
            (
                "\"Joe Q. Public\" <john.q.public@example.com>",
                "((\"Joe Q. Public\" NIL \"john.q.public\" \"example.com\"))",
            ),
            (
                "Mary Smith <mary@x.test>, jdoe@example.org",
                "((\"Mary Smith\" NIL \"mary\" \"x.test\")(NIL NIL \"jdoe\" \"example.org\"))",
            ),
            (
                "A Group:Ed Jones <joe@where.test>,joe@x;",
                "((NIL NIL \"A Group\" NIL)(\"Ed Jones\" NIL \"joe\" \"where.test\")(NIL NIL \"joe\" \"x\")(NIL NIL NIL NIL))",
            ),
            ("Undisclosed recipients:;", "((NIL NIL \"Undisclosed recipients\" NIL)(NIL NIL NIL NIL))"),
            ("pete(his account)@silly.test(his host)", "((\"his host\" NIL \"pete\" \"silly.test\"))"),
            ("joe@x.test (Joe (the) \\) Bloggs)", "((\"Joe (the) ) Bloggs\" NIL \"joe\" \"x.test\"))"),
            ("Mary <@node.test,@b:mary@example.net>", "((\"Mary\" \"@node.test,@b\" \"mary\" \"example.net\"))"),
            ("john . doe @ x . test", "((NIL NIL \"john.doe\" \"x.test\"))"),
            ("=?utf-8?q?J=C3=B6rg?= <j@x>", "((\"=?utf-8?q?J=C3=B6rg?=\" NIL \"j\" \"x\"))"),
            ("\"a \\\"b\\\"\" <\"quoted @ local\"@x>", "((\"a \\\"b\\\"\" NIL \"quoted @ local\" \"x\"))"),
            ("user@[127.0.0.1]", "((NIL NIL \"user\" \"[127.0.0.1]\"))"),
            ("postmaster", "((NIL NIL \"postmaster\" \"\"))"),
            ("<>", "((NIL NIL \"\" \"\"))"),
            ("a@b,,c@d,", "((NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\"))"),
            ("John Doe john@x", "((\"John Doe\" NIL \"john\" \"x\"))"),
            ("", "NIL"),
            (" (only a comment) ", "NIL"),
        ];
        for (value, wanted) in cases {
            assert_eq!(list(value), wanted, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_header_gives_ten_parts(section in prop::collection::vec(prop_oneof![
            Just(b"From: ".to_vec()), Just(b"To:".to_vec()), Just(b"\r\n".to_vec()), Just(b"<".to_vec()),
            Just(b"\"".to_vec()), Just(b"(".to_vec()), Just(b"@".to_vec()), Just(b":".to_vec()), Just(b";".to_vec()),
            prop::collection::vec(any::<u8>(), 0..12),
        ], 0..40)) {
            let mut out = Vec::new();
            write(&section.concat(), &mut out);
            let parts = crate::imap::test_reader::read(&out);
            prop_assert_eq!(parts.len(), 1);
            prop_assert_eq!(parts[0].list().len(), 10);
        }
    }
}
