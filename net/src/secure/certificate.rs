//! The organisation's X.509 certificates, as the overlay reads them.
//!
//! Both kinds are Ed25519 under the organisation's CA key. Reading checks the form and the CA's signature over the
//! exact bytes; it does **not** check the time, which the caller brings, nor revocation, which is in the ring
//! document. A lapsed certificate must stay readable: mail signed while it was good is good.
//!
//! ```text
//! node   SAN URI        epost-node:<ring, 32 hex digits>:<nonce, 32 hex digits>     exactly one
//!        subject O      organisation
//!        1.3.6.1.4.1.58888.1.1   DER INTEGER, number of virtual node ids             absent = 1
//! user   SAN rfc822Name mail address (its lower-case form names the block)          exactly one
//!        public key     the account's current signing key
//!        1.3.6.1.4.1.58888.1.2   DER OCTET STRING, 32 bytes, the account's root public key
//!        1.3.6.1.4.1.58888.1.3   DER INTEGER, account generation
//! ```

use crate::limits::CERTIFICATE_BYTES_MAX;
use ed25519_dalek::{Signature, VerifyingKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::{FromDer, OctetString};
use x509_parser::extensions::{GeneralName, ParsedExtension};

const ED25519: &str = "1.3.101.112";
const WEIGHT: &str = "1.3.6.1.4.1.58888.1.1";
const ROOT_KEY: &str = "1.3.6.1.4.1.58888.1.2";
const GENERATION: &str = "1.3.6.1.4.1.58888.1.3";
const NODE_SCHEME: &str = "epost-node:";
const ADDRESS_BYTES_MAX: usize = 320;

/// Why bytes are not a certificate of this organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not DER, not X.509, over a bound, or followed by other bytes.
    #[error("not an X.509 certificate")]
    Malformed,
    /// The signature is not Ed25519 by the organisation's CA over these bytes.
    #[error("the certificate is not signed by the organisation's CA")]
    BadSignature,
    /// A field that this kind of certificate must have is missing, doubled, or out of range.
    #[error("the certificate lacks a field its kind demands, or has it twice")]
    WrongFields,
}

/// What a node's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The ring it was enrolled in.
    pub ring: [u8; 16],
    /// What its node ids follow from.
    pub nonce: [u8; 16],
    /// How many virtual node ids it has.
    pub weight: u16,
    /// Who runs it.
    pub organisation: String,
    /// Valid from, in seconds since the Unix epoch.
    pub not_before: u64,
    /// Valid to, in seconds since the Unix epoch.
    pub not_after: u64,
    /// The host's Ed25519 key.
    pub public_key: [u8; 32],
    /// Serial number, big-endian, as the certificate has it.
    pub serial: Vec<u8>,
}

/// What a user's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCertificate {
    /// The mail address, as issued.
    pub address: String,
    /// The account's permanent public key.
    pub root_key: [u8; 32],
    /// The account's current signing key.
    pub signing_key: [u8; 32],
    /// Rises when an account is made anew under the same address.
    pub generation: u32,
    /// Valid from, in seconds since the Unix epoch.
    pub not_before: u64,
    /// Valid to, in seconds since the Unix epoch.
    pub not_after: u64,
    /// Serial number, big-endian, as the certificate has it.
    pub serial: Vec<u8>,
}

impl UserCertificate {
    /// The version replicas order certificates of one address by: the account generation, then the day of issue.
    #[must_use]
    pub fn version(&self) -> u64 {
        let day = u32::try_from(self.not_before / 86_400).unwrap_or(u32::MAX);
        u64::from(self.generation) << 32 | u64::from(day)
    }
}

/// Reads a node's certificate issued by the holder of `authority`.
///
/// # Errors
/// [`CertificateError`], telling form, signature and fields apart.
pub fn parse_node(der: &[u8], authority: &[u8; 32]) -> Result<NodeCertificate, CertificateError> {
    let certificate = signed_by(der, authority)?;
    let uri = only(names(&certificate)?.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(NODE_SCHEME),
        _ => None,
    }))?;
    let (ring, nonce) = uri.split_once(':').ok_or(CertificateError::WrongFields)?;
    let weight = match integer_extension(&certificate, WEIGHT)? {
        None => 1,
        Some(weight) => u16::try_from(weight).ok().filter(|w| *w > 0).ok_or(CertificateError::WrongFields)?,
    };
    let organisation = only(certificate.subject().iter_organization().filter_map(|o| o.as_str().ok()))?;
    Ok(NodeCertificate {
        ring: hex16(ring)?,
        nonce: hex16(nonce)?,
        weight,
        organisation: organisation.to_owned(),
        not_before: seconds(certificate.validity().not_before.timestamp()),
        not_after: seconds(certificate.validity().not_after.timestamp()),
        public_key: ed25519_key(&certificate)?,
        serial: certificate.raw_serial().to_vec(),
    })
}

/// Reads a user's certificate issued by the holder of `authority`.
///
/// # Errors
/// [`CertificateError`], telling form, signature and fields apart.
pub fn parse_user(der: &[u8], authority: &[u8; 32]) -> Result<UserCertificate, CertificateError> {
    let certificate = signed_by(der, authority)?;
    let address = only(names(&certificate)?.iter().filter_map(|name| match name {
        GeneralName::RFC822Name(address) => Some(*address),
        _ => None,
    }))?;
    if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
        return Err(CertificateError::WrongFields);
    }
    let root = extension(&certificate, ROOT_KEY)?.ok_or(CertificateError::WrongFields)?;
    let (rest, root) = OctetString::from_der(root).map_err(|_| CertificateError::WrongFields)?;
    let root_key: [u8; 32] = root.as_ref().try_into().map_err(|_| CertificateError::WrongFields)?;
    let generation = integer_extension(&certificate, GENERATION)?.ok_or(CertificateError::WrongFields)?;
    if !rest.is_empty() {
        return Err(CertificateError::WrongFields);
    }
    Ok(UserCertificate {
        address: address.to_owned(),
        root_key,
        signing_key: ed25519_key(&certificate)?,
        generation: u32::try_from(generation).map_err(|_| CertificateError::WrongFields)?,
        not_before: seconds(certificate.validity().not_before.timestamp()),
        not_after: seconds(certificate.validity().not_after.timestamp()),
        serial: certificate.raw_serial().to_vec(),
    })
}

/// Reads the certificate and checks the CA's signature over the exact bytes received.
fn signed_by<'a>(der: &'a [u8], authority: &[u8; 32]) -> Result<X509Certificate<'a>, CertificateError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(CertificateError::Malformed);
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    let is_ed25519 = certificate.signature_algorithm.algorithm.to_id_string() == ED25519;
    // Both copies of the algorithm must agree (RFC 5280, 4.1.1.2); only one of them is under the signature.
    if !is_ed25519 || certificate.tbs_certificate.signature != certificate.signature_algorithm {
        return Err(CertificateError::BadSignature);
    }
    let signature =
        Signature::from_slice(&certificate.signature_value.data).map_err(|_| CertificateError::BadSignature)?;
    let authority = VerifyingKey::from_bytes(authority).map_err(|_| CertificateError::BadSignature)?;
    let signed: &[u8] = certificate.tbs_certificate.as_ref();
    authority.verify_strict(signed, &signature).map_err(|_| CertificateError::BadSignature)?;
    // The signature does not cover its own wrapping, and a parser may be lenient about that. Two spellings of one
    // certificate would be two blocks of one version, on which replicas could not agree: there is one spelling only.
    if wrapped(signed, &signature) == der { Ok(certificate) } else { Err(CertificateError::Malformed) }
}

/// A certificate in DER: what is signed, the algorithm, the signature.
fn wrapped(signed: &[u8], signature: &Signature) -> Vec<u8> {
    const ALGORITHM: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    const BIT_STRING: [u8; 3] = [0x03, 0x41, 0x00];
    let length = signed.len() + ALGORITHM.len() + BIT_STRING.len() + Signature::BYTE_SIZE;
    let digits = length.to_be_bytes();
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let mut der = vec![0x30];
    if length >= 0x80 {
        der.push(0x80 | (digits.len() - zeros) as u8);
    }
    der.extend_from_slice(&digits[zeros..]);
    der.extend_from_slice(signed);
    der.extend_from_slice(&ALGORITHM);
    der.extend_from_slice(&BIT_STRING);
    der.extend_from_slice(&signature.to_bytes());
    der
}

/// The subject alternative names; the extension must be there exactly once.
fn names<'a, 'b>(certificate: &'b X509Certificate<'a>) -> Result<&'b [GeneralName<'a>], CertificateError> {
    only(certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.as_slice()),
        _ => None,
    }))
}

/// The value of the extension with this object identifier, if there is exactly one.
fn extension<'a>(certificate: &X509Certificate<'a>, oid: &str) -> Result<Option<&'a [u8]>, CertificateError> {
    let mut found = certificate.extensions().iter().filter(|e| e.oid.to_id_string() == oid).map(|e| e.value);
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(CertificateError::WrongFields),
    }
}

fn integer_extension(certificate: &X509Certificate<'_>, oid: &str) -> Result<Option<u64>, CertificateError> {
    let Some(value) = extension(certificate, oid)? else { return Ok(None) };
    let (rest, number) = u64::from_der(value).map_err(|_| CertificateError::WrongFields)?;
    if rest.is_empty() { Ok(Some(number)) } else { Err(CertificateError::WrongFields) }
}

fn ed25519_key(certificate: &X509Certificate<'_>) -> Result<[u8; 32], CertificateError> {
    let key = certificate.public_key();
    if key.algorithm.algorithm.to_id_string() != ED25519 {
        return Err(CertificateError::WrongFields);
    }
    key.subject_public_key.data.as_ref().try_into().map_err(|_| CertificateError::WrongFields)
}

/// The one item there must be.
fn only<T>(mut items: impl Iterator<Item = T>) -> Result<T, CertificateError> {
    match (items.next(), items.next()) {
        (Some(item), None) => Ok(item),
        _ => Err(CertificateError::WrongFields),
    }
}

fn hex16(text: &str) -> Result<[u8; 16], CertificateError> {
    if text.len() != 32 || !text.is_ascii() {
        return Err(CertificateError::WrongFields);
    }
    let mut bytes = [0; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(2 * i..2 * i + 2).ok_or(CertificateError::WrongFields)?;
        // `from_str_radix` alone would take a sign.
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(CertificateError::WrongFields);
        }
        *byte = u8::from_str_radix(digits, 16).map_err(|_| CertificateError::WrongFields)?;
    }
    Ok(bytes)
}

/// A time before 1970 counts as 1970.
fn seconds(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}
