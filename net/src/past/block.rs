//! The three kinds of block, and how a replica checks them before it stores a byte.
//!
//! A block proves by itself that it belongs under its key; no writer is authenticated, no quorum vouches for it.
//!
//! ```text
//! content, cluster    any bytes                      key = Key::of(kind, bytes)
//! certificate         X.509 DER of a user            key = Key::of(Certificate, lower-case mail address)
//! identity, head      0   "ePB1"            4 bytes  key = Key::of(kind, public key)
//! ("signed block")    4   kind              1 byte
//!                     5   public key       32 bytes  Ed25519
//!                    37   version           8 bytes  little-endian
//!                    45   body
//!                   end   signature        64 bytes  Ed25519, over everything before it
//! ```
//!
//! The kind is under the signature and in the name, so a head can never be shown as an identity block. Versions
//! order the blocks of one key; a replica keeps the highest and refuses the rest (`machine::StorageOperation::Put`).

use crate::id::{Key, Kind};
use crate::limits::{BLOCK_BYTES_MAX, SIGNED_BLOCK_BYTES_MAX};
use crate::ring::RingDocument;
use crate::secure::certificate::{CertificateError, parse_user};
use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};

const MAGIC: &[u8; 4] = b"ePB1";
const KIND_AT: usize = 4;
const PUBLIC_KEY_AT: usize = 5;
const VERSION_AT: usize = 37;
const BODY_AT: usize = 45;
const SIGNATURE_BYTES: usize = 64;

/// Why a block is not legal for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name does not follow from the block.
    #[error("the block's name does not follow from its bytes")]
    WrongName,
    /// The signature does not verify under the key the name stands for.
    #[error("the block's signature does not verify")]
    BadSignature,
    /// The block is not of the form its kind demands, or over a bound.
    #[error("the block is malformed")]
    Malformed,
    /// A certificate that the organisation's CA did not issue for this address, or has revoked.
    #[error("the certificate is not the organisation's")]
    NotCertified,
}

/// What checking a block gave: its version (0 for immutable kinds), or why it is refused.
pub(crate) type Verdict = Result<u64, Refusal>;

/// Whom a replica believes about certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The organisation CA's Ed25519 public key.
    pub authority: [u8; 32],
    /// Serial numbers that are no longer good, sorted.
    revoked: Vec<Vec<u8>>,
}

impl Trust {
    /// Trust in `authority`, less what `ring` revokes.
    #[must_use]
    pub fn new(authority: [u8; 32], ring: &RingDocument) -> Trust {
        let mut revoked: Vec<Vec<u8>> = ring.revocations.iter().map(|r| significant(&r.serial).to_vec()).collect();
        revoked.sort();
        Trust { authority, revoked }
    }

    /// Whether the certificate with this serial number has been revoked.
    #[must_use]
    pub fn has_revoked(&self, serial: &[u8]) -> bool {
        self.revoked.binary_search_by(|r| r.as_slice().cmp(significant(serial))).is_ok()
    }
}

/// A signed block's parts; `body` is a slice of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBlock {
    /// Identity or head.
    pub kind: Kind,
    /// The key it is signed by and named after.
    pub public_key: [u8; 32],
    /// Orders the blocks of one key.
    pub version: u64,
    /// What the owner says.
    pub body: Bytes,
}

/// Lays out and signs a block; `sign` is Ed25519 under the secret half of `public_key`.
///
/// # Panics
/// If `kind` is not one that is signed, or the block would be over its bound: the caller's own mistake.
#[must_use]
pub fn encode_signed(
    kind: Kind,
    public_key: &[u8; 32],
    version: u64,
    body: &[u8],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Bytes {
    assert!(matches!(kind, Kind::Identity | Kind::Head), "only identity and head blocks are signed");
    assert!(BODY_AT + body.len() + SIGNATURE_BYTES <= SIGNED_BLOCK_BYTES_MAX, "signed block over its bound");
    let mut block = Vec::with_capacity(BODY_AT + body.len() + SIGNATURE_BYTES);
    block.extend_from_slice(MAGIC);
    block.push(kind as u8);
    block.extend_from_slice(public_key);
    block.extend_from_slice(&version.to_le_bytes());
    block.extend_from_slice(body);
    let signature = sign(&block);
    block.extend_from_slice(&signature);
    Bytes::from(block)
}

/// Reads a signed block and checks its signature; whether it belongs under a key is [`verify`]'s question.
///
/// # Errors
/// [`Refusal::Malformed`] or [`Refusal::BadSignature`].
pub fn decode_signed(block: &Bytes) -> Result<SignedBlock, Refusal> {
    if block.len() < BODY_AT + SIGNATURE_BYTES || block.len() > SIGNED_BLOCK_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    let signature_at = block.len() - SIGNATURE_BYTES;
    let kind = Kind::from_number(block[KIND_AT]).ok_or(Refusal::Malformed)?;
    if &block[..KIND_AT] != MAGIC || !matches!(kind, Kind::Identity | Kind::Head) {
        return Err(Refusal::Malformed);
    }
    let public_key: [u8; 32] = array(&block[PUBLIC_KEY_AT..VERSION_AT])?;
    let version = u64::from_le_bytes(array(&block[VERSION_AT..BODY_AT])?);
    let signature = Signature::from_bytes(&array(&block[signature_at..])?);
    let signer = VerifyingKey::from_bytes(&public_key).map_err(|_| Refusal::BadSignature)?;
    signer.verify_strict(&block[..signature_at], &signature).map_err(|_| Refusal::BadSignature)?;
    Ok(SignedBlock { kind, public_key, version, body: block.slice(BODY_AT..signature_at) })
}

/// The key a user's certificate block is stored under. Addresses differ by more than ASCII case only.
#[must_use]
pub fn certificate_key(address: &str) -> Key {
    Key::of(Kind::Certificate, address.to_ascii_lowercase().as_bytes())
}

/// Checks that `value` is a legal block for `key`, and returns its version (0 for immutable kinds).
///
/// # Errors
/// [`Refusal`], telling name, signature, form and certification apart.
pub fn verify(key: &Key, value: &Bytes, trust: &Trust) -> Result<u64, Refusal> {
    match key.kind {
        Kind::Content | Kind::Cluster => {
            if value.len() > BLOCK_BYTES_MAX {
                return Err(Refusal::Malformed);
            }
            if Key::of(key.kind, value) == *key { Ok(0) } else { Err(Refusal::WrongName) }
        }
        Kind::Identity | Kind::Head => {
            let block = decode_signed(value)?;
            let named = block.kind == key.kind && Key::of(key.kind, &block.public_key) == *key;
            if named { Ok(block.version) } else { Err(Refusal::WrongName) }
        }
        Kind::Certificate => {
            let certificate = parse_user(value, &trust.authority).map_err(|error| match error {
                CertificateError::Malformed => Refusal::Malformed,
                CertificateError::BadSignature | CertificateError::WrongFields => Refusal::NotCertified,
            })?;
            if certificate_key(&certificate.address) != *key {
                return Err(Refusal::WrongName);
            }
            if trust.has_revoked(&certificate.serial) {
                return Err(Refusal::NotCertified);
            }
            Ok(certificate.version())
        }
        // Not stored by this overlay: fragments and held notifications have stores of their own.
        Kind::Fragment | Kind::Pending | Kind::Note => Err(Refusal::Malformed),
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| Refusal::Malformed)
}

/// A serial number without leading zeros, which encoders may add or leave out.
fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|b| **b == 0).count();
    &serial[zeros..]
}

#[cfg(test)]
mod tests {
    //! Goal: C20 and C21 at the block: no altered byte passes. Method: flip each byte of a small block; blocks of
    //! one kind, key or version shown as another. Certificates are tested in `tests/certificates.rs`.
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn head(version: u64) -> (Key, Bytes) {
        let signer = SigningKey::from_bytes(&[3; 32]);
        let public = signer.verifying_key().to_bytes();
        let block = encode_signed(Kind::Head, &public, version, b"a head", |m| signer.sign(m).to_bytes());
        (Key::of(Kind::Head, &public), block)
    }

    #[test]
    fn a_signed_block_survives_no_flipped_bit() {
        let (key, block) = head(7);
        assert_eq!(verify(&key, &block, &Trust::default()), Ok(7));
        assert_eq!(decode_signed(&block).map(|b| b.body), Ok(Bytes::from_static(b"a head")));
        for bit in 0..block.len() * 8 {
            let mut broken = block.to_vec();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&key, &Bytes::from(broken), &Trust::default()).is_err(), "bit {bit} may be flipped");
        }
        for length in 0..block.len() {
            assert!(verify(&key, &block.slice(..length), &Trust::default()).is_err());
        }
    }

    #[test]
    fn a_signed_block_stands_under_no_other_key() {
        let (_, block) = head(1);
        let public = SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes();
        let as_identity = Key::of(Kind::Identity, &public);
        assert_eq!(verify(&as_identity, &block, &Trust::default()), Err(Refusal::WrongName));
        let of_another = Key::of(Kind::Head, &[4; 32]);
        assert_eq!(verify(&of_another, &block, &Trust::default()), Err(Refusal::WrongName));
    }

    #[test]
    fn claim_20_a_content_block_survives_no_flipped_bit() {
        let value = Bytes::from_static(b"a content block of some length, to be flipped bit by bit");
        for kind in [Kind::Content, Kind::Cluster] {
            let key = Key::of(kind, &value);
            assert_eq!(verify(&key, &value, &Trust::default()), Ok(0));
            for bit in 0..value.len() * 8 {
                let mut broken = value.to_vec();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(verify(&key, &Bytes::from(broken), &Trust::default()), Err(Refusal::WrongName));
            }
        }
        let as_cluster = Key::of(Kind::Cluster, &value);
        let as_content = Key { kind: Kind::Content, ..as_cluster };
        assert_eq!(verify(&as_content, &value, &Trust::default()), Err(Refusal::WrongName));
    }
}
