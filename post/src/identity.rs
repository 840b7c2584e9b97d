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
//! Where to start: [`organisation`] tells how everything comes to be, [`keyfile`] how secrets are kept.

pub mod address;
pub mod authority;
pub mod kem;
pub mod keyfile;
pub mod organisation;
pub mod secrets;

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests;
