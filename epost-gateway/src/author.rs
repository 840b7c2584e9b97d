//! Who a message says it is from: the one judgement that submission and delivery share.
//!
//! Mail programs differ in what they make of odd From fields: which of two they show, where an address ends, what a
//! quoted name hides. A user is the author only if every way of reading leads to him, and to nobody else.

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;
use post::mail::header::{fields, section_length};

/// Whether the message has one From field, and that names `address` and nobody else.
pub(crate) fn is_sole_author(message: &[u8], address: &str) -> bool {
    let mut found = fields(&message[..section_length(message)]).filter(|field| field.is("From"));
    let (Some(from), None) = (found.next(), found.next()) else { return false };
    let unfolded: Vec<u8> = from.value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    is_only(&unfolded, address)
}

/// Whether an address list names `user`, and nobody else: by two readings, the parser's and the plain one below.
/// A list on which they differ is refused.
pub(crate) fn is_only(value: &[u8], user: &str) -> bool {
    let mut terminated = value.to_vec();
    terminated.extend_from_slice(b"\r\n\r\n");
    let HeaderValue::Address(parsed) = MessageStream::new(&terminated).parse_address() else { return false };
    let is_user = |address: &str| address.eq_ignore_ascii_case(user);
    let mut count = 0;
    for address in parsed.iter() {
        count += 1;
        if !address.address().is_some_and(is_user) {
            return false;
        }
    }
    let bare = without_quotes_and_comments(value);
    let mut tokens = bare.split(|byte| b" \t<>,;:".contains(byte)).filter(|token| token.contains(&b'@')).peekable();
    count > 0 && tokens.peek().is_some() && tokens.all(|token| std::str::from_utf8(token).is_ok_and(is_user))
}

/// Drops quoted strings and comments. What follows a quoted string stays joined to nothing, so that `"a"@b` leaves
/// `@b`, which is nobody's address.
fn without_quotes_and_comments(value: &[u8]) -> Vec<u8> {
    let (mut out, mut quoted, mut depth, mut escaped) = (Vec::with_capacity(value.len()), false, 0usize, false);
    for &byte in value {
        if escaped {
            escaped = false;
        } else if byte == b'\\' && (quoted || depth > 0) {
            escaped = true;
        } else if quoted {
            quoted = byte != b'"';
        } else if byte == b'(' {
            depth += 1;
        } else if byte == b')' && depth > 0 {
            depth -= 1;
            out.push(b' ');
        } else if depth == 0 && byte == b'"' {
            quoted = true;
            out.push(b' ');
        } else if depth == 0 {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    //! Goal: a message is shown as its signer's only if no reader could show another author. Method: a table; the
    //! judgement of one field is tested where submission uses it.
    use super::*;

    const ALICE: &str = "alice@epost.test";

    #[test]
    fn claim_87_one_from_and_only_its_signer() {
        for honest in [
            "From: alice@epost.test\r\n\r\n",
            "To: x@y\r\nfrom : Alice <Alice@EPOST.test>\r\n\r\nFrom: bob@epost.test",
            "From: Alice\r\n <alice@epost.test>\r\nSubject: s\r\n\r\n",
            "From: alice@epost.test\n\nbody",
        ] {
            assert!(is_sole_author(honest.as_bytes(), ALICE), "{honest:?}");
        }
        for forged in [
            "",
            "Subject: nobody's\r\n\r\n",
            "From: bob@epost.test\r\n\r\n",
            "From: bob@epost.test\r\nFrom: alice@epost.test\r\n\r\n",
            "From: alice@epost.test\r\nfrom : bob@epost.test\r\n\r\n",
            "From: alice@epost.test, bob@epost.test\r\n\r\n",
            "From: bob@epost.test\r\n <alice@epost.test>\r\n\r\n",
            "From: alice@epost.test\rFrom: bob@epost.test\r\n\r\n",
        ] {
            assert!(!is_sole_author(forged.as_bytes(), ALICE), "{forged:?}");
        }
    }
}
