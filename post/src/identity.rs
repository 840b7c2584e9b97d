//! Who a user is, from her address alone: the organisation's certificate for the address, the account's identity
//! block, and the secret keys behind both.
//!
//! An account is named by a permanent *root key*. The certificate block, at the hash of the address, is the
//! organisation's X.509 certificate: it binds address, root key and the current signing key. The identity block, at the
//! hash of the root key and signed by it, is XML: where the user's node is, which keys to seal mail to, where her
//! public logs are. Anyone who knows an address and the organisation's CA finds and checks the rest:
//!
//! ```text
//! address ──H──► certificate block ──(CA, validity, revocation)──► root key ──H──► identity block ──► KEM key, contact
//! ```
//!
//! What it is not: no file is read or written here (the command line does that, with the bytes made here), and
//! nothing decides when a certificate is renewed.
//!
//! Where to start: [`organisation`] tells how everything comes to be, [`resolve`] how it is found again,
//! [`keyfile`] how secrets are kept.

pub mod address;
pub mod authority;
pub mod block;
pub mod kem;
pub mod keyfile;
pub mod organisation;
pub mod resolve;
pub mod secrets;
mod xml;

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Exactly `N` bytes from lower-case hexadecimal.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
