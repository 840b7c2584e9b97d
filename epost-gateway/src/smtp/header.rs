//! What submission reads and adds in a message's header section (RFC 6409 §6, §8).
//!
//! Read: who it says it is from; every address must be the user's. Added, always in front, never in between: a
//! trace header (without the client's network address: where a user sits is nobody's business), and Date,
//! Message-ID and From where the client left them out. Nothing the client sent is changed.

use crate::author::is_only;
use mail_parser::DateTime;

/// Why a header section is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// An address in From is not the user's, or there is none in it.
    NotTheUser,
    /// More than one From: programs differ in which one they show.
    ManyFrom,
}

/// What our own headers are made of.
pub(super) struct Stamp<'a> {
    /// Who we say we are.
    pub(super) host: &'a str,
    /// The mail domain, in which a Message-ID we make is unique.
    pub(super) domain: &'a str,
    /// Seconds since the Unix epoch.
    pub(super) time_s: i64,
    /// Unguessable and unique.
    pub(super) id: [u8; 16],
}

impl Stamp<'_> {
    /// The trace header, which stands before everything.
    pub(super) fn trace(&self) -> Vec<u8> {
        format!("Received: by {} with ESMTPSA id {};\r\n\t{}\r\n", self.host, self.id_text(), self.date()).into_bytes()
    }

    fn date(&self) -> String {
        DateTime::from_timestamp(self.time_s).to_rfc822()
    }

    fn id_text(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Checks the message that starts at `start` of `message`, and inserts there what is missing.
pub(super) fn complete(message: &mut Vec<u8>, start: usize, user: &str, stamp: &Stamp<'_>) -> Result<(), HeaderFault> {
    assert!(start <= message.len());
    let fields = Fields::read(&message[start..]);
    if fields.from_count > 1 {
        return Err(HeaderFault::ManyFrom);
    }
    if fields.from_count == 1 && !is_only(&fields.from, user) {
        return Err(HeaderFault::NotTheUser);
    }
    let mut added = String::new();
    if fields.from_count == 0 {
        added += &format!("From: {user}\r\n");
    }
    if !fields.has_date {
        added += &format!("Date: {}\r\n", stamp.date());
    }
    if !fields.has_message_id {
        added += &format!("Message-ID: <{}@{}>\r\n", stamp.id_text(), stamp.domain);
    }
    if !fields.any {
        added += "\r\n";
    }
    message.splice(start..start, added.into_bytes());
    Ok(())
}

/// The fields that matter here.
#[derive(Default)]
struct Fields {
    /// Whether there is a header section at all. A text without one is all body.
    any: bool,
    has_date: bool,
    has_message_id: bool,
    from_count: usize,
    /// The value of the last From, unfolded.
    from: Vec<u8>,
}

impl Fields {
    /// Reads up to the first empty line. A line that is neither a field nor its continuation is passed over: what
    /// comes after it is still looked at, since some readers would.
    fn read(text: &[u8]) -> Self {
        let mut fields = Fields::default();
        let mut in_from = false;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r\n").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            if matches!(line[0], b' ' | b'\t') {
                if in_from {
                    fields.from.extend_from_slice(line);
                }
                continue;
            }
            let Some((name, value)) = field(line) else {
                in_from = false;
                continue;
            };
            fields.any = true;
            fields.has_date |= name.eq_ignore_ascii_case(b"date");
            fields.has_message_id |= name.eq_ignore_ascii_case(b"message-id");
            in_from = name.eq_ignore_ascii_case(b"from");
            if in_from {
                fields.from_count += 1;
                fields.from = value.to_vec();
            }
        }
        fields
    }
}

/// Splits `Name: value`; white space before the colon is old and allowed (RFC 5322 §4.5.3).
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    let legal = !name.is_empty() && name.iter().all(|byte| matches!(byte, 33..=126));
    legal.then_some((name, &line[colon + 1..]))
}

#[cfg(test)]
mod tests {
    //! Goal: nobody sends as somebody else, however the header is written; what is missing is added in front, and
    //! the client's own bytes stay. Method: tables of honest and forged headers; random headers.
    use super::*;
    use proptest::prelude::*;

    const STAMP: Stamp<'static> =
        Stamp { host: "gateway.epost.test", domain: "epost.test", time_s: 784_887_151, id: [0xab; 16] };
    const USER: &str = "alice@epost.test";

    fn completed(text: &str) -> Result<String, HeaderFault> {
        let mut message = b"TRACE".to_vec();
        message.extend_from_slice(text.as_bytes());
        complete(&mut message, 5, USER, &STAMP)?;
        Ok(String::from_utf8(message).unwrap())
    }

    fn from(value: &str) -> Result<String, HeaderFault> {
        completed(&format!("From:{value}\r\nDate: d\r\nMessage-ID: <m>\r\n\r\nbody\r\n"))
    }

    #[test]
    fn honest_senders() {
        for value in [
            " alice@epost.test",
            " Alice@EPOST.test",
            " <alice@epost.test>",
            " Alice of Epost <alice@epost.test>",
            " \"Alice, <x@y.z>\" <alice@epost.test>",
            " =?utf-8?q?Al=C3=AFce?= <alice@epost.test>",
            " Älice <alice@epost.test> (at home, mallory@evil.test)",
            "\r\n\tAlice\r\n <alice@epost.test>",
            " alice@epost.test, Alice <alice@epost.test>",
            " alice@epost.test <alice@epost.test>",
        ] {
            let text = format!("From:{value}\r\nDate: d\r\nMessage-ID: <m>\r\n\r\nbody\r\n");
            assert_eq!(completed(&text), Ok(format!("TRACE{text}")), "{value}");
        }
    }

    #[test]
    fn forged_senders() {
        for value in [
            "",
            " ",
            " alice",
            " bob@epost.test",
            " alice@epost.test, bob@epost.test",
            " bob@epost.test, alice@epost.test",
            " <alice@epost.test>, <bob@epost.test>",
            " friends: alice@epost.test, bob@epost.test;",
            " undisclosed:;",
            " \"alice@epost.test\" <bob@epost.test>",
            " (alice@epost.test) bob@epost.test",
            " bob@epost.test <alice@epost.test>",
            " <alice@epost.test> bob@epost.test",
            " alice@epost.test\r\n\t, bob@epost.test",
            " \"x\"@evil.test, alice@epost.test",
            " alice@epost.test@evil.test",
            " <@evil.test:alice@epost.test.evil>",
            " malice@epost.test",
            " \"unclosed <alice@epost.test>",
        ] {
            assert_eq!(from(value), Err(HeaderFault::NotTheUser), "{value}");
        }
        let twice = "From: alice@epost.test\r\nFROM : alice@epost.test\r\n\r\n";
        assert_eq!(completed(twice), Err(HeaderFault::ManyFrom));
        let after_rubbish = "From: alice@epost.test\r\nno field here\r\nFrom: bob@epost.test\r\n\r\n";
        assert_eq!(completed(after_rubbish), Err(HeaderFault::ManyFrom));
        let in_body = "From: alice@epost.test\r\nDate: d\r\nMessage-ID: <m>\r\n\r\nFrom: bob@epost.test\r\n";
        assert!(completed(in_body).is_ok());
    }

    #[test]
    fn missing_headers_go_in_front() {
        let date = "Date: Tue, 15 Nov 1994 08:12:31 +0000\r\n";
        let id = format!("Message-ID: <{}@epost.test>\r\n", "ab".repeat(16));
        assert_eq!(
            completed("Subject: x\r\n\r\nhi\r\n").unwrap(),
            format!("TRACEFrom: {USER}\r\n{date}{id}Subject: x\r\n\r\nhi\r\n")
        );
        let text = "from: alice@epost.test\r\ndAte: d\r\n\r\nDate: not a header\r\n";
        assert_eq!(completed(text).unwrap(), format!("TRACE{id}{text}"));
        assert_eq!(completed("just text\r\n").unwrap(), format!("TRACEFrom: {USER}\r\n{date}{id}\r\njust text\r\n"));
        assert_eq!(completed("").unwrap(), format!("TRACEFrom: {USER}\r\n{date}{id}\r\n"));
        assert_eq!(completed("\r\nbody\r\n").unwrap(), format!("TRACEFrom: {USER}\r\n{date}{id}\r\n\r\nbody\r\n"));
    }

    #[test]
    fn trace_has_no_client_in_it() {
        let trace = String::from_utf8(STAMP.trace()).unwrap();
        let expected = format!(
            "Received: by gateway.epost.test with ESMTPSA id {};\r\n\tTue, 15 Nov 1994 08:12:31 +0000\r\n",
            "ab".repeat(16)
        );
        assert_eq!(trace, expected);
        assert!(trace.len() < super::super::limits::ADDED_HEADER_BYTES_MAX / 4);
    }

    proptest! {
        #[test]
        fn any_from_is_judged_and_another_address_is_never_taken(before in "[ -~]{0,30}", between in "[ <>,;:()\"\\\\a@]{0,6}", after in "[ -~]{0,10}") {
            let _ = from(&format!("{before}{between}{after}"));
            let plain = format!(" {USER}, mallory@evil.test");
            prop_assert_eq!(from(&plain), Err(HeaderFault::NotTheUser));
        }

        #[test]
        fn the_clients_bytes_stay(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = text.clone();
            if complete(&mut message, 0, USER, &STAMP).is_ok() {
                prop_assert!(message.ends_with(&text));
            }
        }
    }
}
