//! Modified UTF-7 (RFC 3501 §5.1.3), in which folder names travel.
//!
//! Printable ASCII stands for itself, `&` is written `&-`, everything else is UTF-16 in a base64 of its own
//! (`,` for `/`, no padding) between `&` and `-`. Decoding is strict: each name has one encoding, so two spellings
//! of a name can never look like two folders.

/// Why a name is not modified UTF-7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Utf7Error {
    /// An octet outside printable ASCII.
    #[error("an octet that must be encoded")]
    Octet,
    /// A shift that does not end, or holds something that is no base64 of whole UTF-16.
    #[error("a broken shift sequence")]
    Shift,
    /// Something encoded that had to be written plainly, or two shifts where one would do.
    #[error("not the shortest encoding")]
    NotCanonical,
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

fn is_direct(character: char) -> bool {
    matches!(character, ' '..='~')
}

/// Encodes a name.
#[must_use]
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut shifted: Vec<u16> = Vec::new();
    for character in name.chars() {
        if !is_direct(character) {
            let mut units = [0; 2];
            shifted.extend_from_slice(character.encode_utf16(&mut units));
            continue;
        }
        flush_shifted(&mut shifted, &mut out);
        out.push(character);
        if character == '&' {
            out.push('-');
        }
    }
    flush_shifted(&mut shifted, &mut out);
    out
}

fn flush_shifted(units: &mut Vec<u16>, out: &mut String) {
    if units.is_empty() {
        return;
    }
    out.push('&');
    let mut bits = 0u32;
    let mut count = 0;
    for unit in units.drain(..) {
        bits = (bits << 16) | u32::from(unit);
        count += 16;
        while count >= 6 {
            count -= 6;
            out.push(char::from(ALPHABET[(bits >> count & 63) as usize]));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        out.push(char::from(ALPHABET[(bits << (6 - count) & 63) as usize]));
    }
    out.push('-');
}

/// Decodes a name.
///
/// # Errors
/// [`Utf7Error`] for anything [`encode`] would not have written.
pub fn decode(encoded: &[u8]) -> Result<String, Utf7Error> {
    let mut out = String::with_capacity(encoded.len());
    let mut rest = encoded;
    let mut after_shift = false;
    while let Some((&octet, tail)) = rest.split_first() {
        if octet != b'&' {
            if !is_direct(char::from(octet)) {
                return Err(Utf7Error::Octet);
            }
            out.push(char::from(octet));
            rest = tail;
            after_shift = false;
            continue;
        }
        let end = tail.iter().position(|&octet| octet == b'-').ok_or(Utf7Error::Shift)?;
        let (shifted, tail) = tail.split_at(end);
        rest = tail.get(1..).unwrap_or_default();
        if shifted.is_empty() {
            out.push('&');
            after_shift = false;
            continue;
        }
        if after_shift {
            return Err(Utf7Error::NotCanonical);
        }
        decode_shifted(shifted, &mut out)?;
        after_shift = true;
    }
    Ok(out)
}

fn decode_shifted(shifted: &[u8], out: &mut String) -> Result<(), Utf7Error> {
    let mut units = Vec::with_capacity(shifted.len() * 6 / 16);
    let mut bits = 0u32;
    let mut count = 0;
    for octet in shifted {
        let value = ALPHABET.iter().position(|known| known == octet).ok_or(Utf7Error::Shift)?;
        bits = (bits << 6) | value as u32;
        count += 6;
        if count >= 16 {
            count -= 16;
            units.push((bits >> count) as u16);
            bits &= (1 << count) - 1;
        }
    }
    if count >= 6 || bits != 0 {
        return Err(Utf7Error::Shift);
    }
    for character in char::decode_utf16(units) {
        let character = character.map_err(|_| Utf7Error::Shift)?;
        if is_direct(character) {
            return Err(Utf7Error::NotCanonical);
        }
        out.push(character);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Goal: any name survives the round trip in printable ASCII, and only what `encode` writes is accepted.
    //! Method: the RFC's examples, then random names and random octets.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples_of_the_rfc() {
        assert_eq!(encode("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(decode(b"~peter/mail/&U,BTFw-/&ZeVnLIqe-").unwrap(), "~peter/mail/台北/日本語");
        assert_eq!(encode("Tom & Jerry"), "Tom &- Jerry");
        assert_eq!(encode("Entwürfe"), "Entw&APw-rfe");
        assert_eq!(decode(b"&Jjo!"), Err(Utf7Error::Shift), "a shift without end");
        assert_eq!(decode(b"&U,BTFw-&ZeVnLIqe-"), Err(Utf7Error::NotCanonical), "two shifts in a row");
        assert_eq!(decode(b"&AGE-"), Err(Utf7Error::NotCanonical), "an encoded a");
        assert_eq!(decode("ü".as_bytes()), Err(Utf7Error::Octet));
    }

    proptest! {
        #[test]
        fn names_survive(name in any::<String>()) {
            let encoded = encode(&name);
            prop_assert!(encoded.bytes().all(|octet| matches!(octet, b' '..=b'~')));
            prop_assert_eq!(decode(encoded.as_bytes()).unwrap(), name);
        }

        #[test]
        fn what_is_accepted_is_canonical(octets in prop::collection::vec(prop_oneof![Just(b'&'), Just(b'-'), 0x20u8..0x7f, any::<u8>()], 0..40)) {
            if let Ok(name) = decode(&octets) {
                prop_assert_eq!(encode(&name).into_bytes(), octets);
            }
        }
    }
}
