//! The organisation's certificate authority: one Ed25519 key that certifies nodes and users, and signs the ring
//! document.
//!
//! Certificates are ordinary X.509, so an organisation's own PKI could issue them, and any TLS stack can join. What
//! is in them is drawn in `net::secure::certificate`, which reads them. Everything here follows from the arguments:
//! the same key, request and serial number give the same bytes.
//!
//! The authority's key is the root of the organisation. It is needed to enrol and to revoke, never to run: keep it
//! offline. Whoever has it can name any key as anybody's.

use super::address;
use crate::limits::ORGANISATION_NAME_BYTES_MAX;
use bytes::Bytes;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use net::machine::Seconds;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, string::Ia5String,
};
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// DNS name in every node's certificate: what a TLS client asks for. Which node answered is in the SAN URI.
pub const NODE_DNS_NAME: &str = "node.epost";

/// Last second that a certificate's validity can name (9999-12-31T23:59:59Z).
const LATEST: Seconds = 253_402_300_799;
/// What stands in DER between the signed part of an Ed25519 certificate and the 64 bytes of its signature.
const ED25519_FRAME: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];
const WEIGHT: &[u64] = &[1, 3, 6, 1, 4, 1, 58888, 1, 1];
const ROOT_KEY: &[u64] = &[1, 3, 6, 1, 4, 1, 58888, 1, 2];
const GENERATION: &[u64] = &[1, 3, 6, 1, 4, 1, 58888, 1, 3];

/// Why a certificate was not issued, or an authority not opened. The caller's input is at fault in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The organisation's name is empty, too long, or has control characters.
    #[error("not a usable name for an organisation")]
    BadName,
    /// The user's address cannot name an account.
    #[error("not an address an account can have: {0}")]
    BadAddress(#[from] address::AddressError),
    /// The validity is empty or beyond what a certificate can express.
    #[error("the validity is empty or out of range")]
    BadValidity,
    /// The key to be certified is not an Ed25519 public key.
    #[error("not an Ed25519 public key")]
    BadKey,
    /// The authority's private key file is damaged, or is not an Ed25519 key.
    #[error("the authority's key cannot be read")]
    UnreadableKey,
    /// The authority's certificate is damaged, or is another key's.
    #[error("the authority's certificate does not belong to its key")]
    WrongCertificate,
}

/// From when to when a certificate is good, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: Seconds,
    /// Last second.
    pub not_after: Seconds,
}

/// What a node's certificate shall say.
#[derive(Clone, Copy, Debug)]
pub struct NodeRequest {
    /// The ring it is enrolled in.
    pub ring: [u8; 16],
    /// Drawn at enrolment, kept over every renewal: its node ids follow from it.
    pub nonce: [u8; 16],
    /// How many virtual node ids it has.
    pub weight: u16,
    /// The node's TLS key.
    pub public_key: [u8; 32],
    /// When it is good.
    pub validity: Validity,
}

/// What a user's certificate shall say.
#[derive(Clone, Copy, Debug)]
pub struct UserRequest<'a> {
    /// The mail address.
    pub address: &'a str,
    /// The account's permanent key.
    pub root_key: [u8; 32],
    /// The account's current signing key.
    pub signing_key: [u8; 32],
    /// Higher than that of any earlier account of this address.
    pub generation: u32,
    /// When it is good.
    pub validity: Validity,
}

/// The organisation's certificate authority.
pub struct Authority {
    organisation: String,
    key: SigningKey,
    certificate: Bytes,
}

impl Authority {
    /// Founds an authority over a secret 32-byte seed and signs its own certificate.
    ///
    /// # Errors
    /// [`AuthorityError::BadName`] or [`AuthorityError::BadValidity`].
    pub fn found(
        organisation: &str,
        seed: &[u8; 32],
        serial: [u8; 16],
        validity: Validity,
    ) -> Result<Authority, AuthorityError> {
        let is_usable = !organisation.trim().is_empty()
            && organisation.len() <= ORGANISATION_NAME_BYTES_MAX
            && !organisation.chars().any(char::is_control);
        if !is_usable {
            return Err(AuthorityError::BadName);
        }
        let key = SigningKey::from_bytes(seed);
        let mut parameters = parameters_of_issuer(organisation);
        set_validity(&mut parameters, validity)?;
        parameters.serial_number = Some(serial_number(serial));
        let certificate = parameters.self_signed(&Ed25519Signer::new(&key)).map_err(|_| AuthorityError::BadName)?;
        let certificate = Bytes::copy_from_slice(certificate.der());
        Ok(Authority { organisation: organisation.to_owned(), key, certificate })
    }

    /// Opens an authority from its private key (PKCS#8 DER) and its certificate.
    ///
    /// # Errors
    /// [`AuthorityError::UnreadableKey`] or [`AuthorityError::WrongCertificate`].
    pub fn open(private_key: &[u8], certificate: &[u8]) -> Result<Authority, AuthorityError> {
        let key = SigningKey::from_pkcs8_der(private_key).map_err(|_| AuthorityError::UnreadableKey)?;
        let (organisation, public_key) = read_certificate(certificate)?;
        if public_key != key.verifying_key().to_bytes() {
            return Err(AuthorityError::WrongCertificate);
        }
        Ok(Authority { organisation, key, certificate: Bytes::copy_from_slice(certificate) })
    }

    /// The private key as PKCS#8 DER, unencrypted: for a file that only its owner can read, kept offline.
    #[must_use]
    pub fn private_key(&self) -> Zeroizing<Vec<u8>> {
        private_key_der(&self.key)
    }

    /// The authority's own certificate (DER): the trust anchor of every node.
    #[must_use]
    pub fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    /// The authority's public key: what `net` calls the authority.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The organisation's name.
    #[must_use]
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    /// Signs a ring document's bytes.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }

    /// Issues a node's certificate (DER). `serial` is fresh.
    ///
    /// # Errors
    /// [`AuthorityError`], when the request cannot be put into a certificate.
    pub fn issue_node(&self, request: &NodeRequest, serial: [u8; 16]) -> Result<Bytes, AuthorityError> {
        let uri = format!("epost-node:{}:{}", super::hex(&request.ring), super::hex(&request.nonce));
        let mut parameters = CertificateParams::default();
        set_validity(&mut parameters, request.validity)?;
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, self.organisation.as_str());
        parameters.distinguished_name.push(DnType::CommonName, NODE_DNS_NAME);
        parameters.subject_alt_names = vec![SanType::URI(ia5(&uri)), SanType::DnsName(ia5(NODE_DNS_NAME))];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let weight = der_integer(u32::from(request.weight));
        parameters.custom_extensions = vec![CustomExtension::from_oid_content(WEIGHT, weight)];
        self.issue(parameters, request.public_key, serial)
    }

    /// Issues a user's certificate (DER). `serial` is fresh.
    ///
    /// # Errors
    /// [`AuthorityError`], when the request cannot be put into a certificate.
    pub fn issue_user(&self, request: &UserRequest<'_>, serial: [u8; 16]) -> Result<Bytes, AuthorityError> {
        let address = address::canonical(request.address)?;
        VerifyingKey::from_bytes(&request.root_key).map_err(|_| AuthorityError::BadKey)?;
        let mut parameters = CertificateParams::default();
        set_validity(&mut parameters, request.validity)?;
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, self.organisation.as_str());
        parameters.distinguished_name.push(DnType::CommonName, address.as_str());
        parameters.subject_alt_names = vec![SanType::Rfc822Name(ia5(&address))];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        let mut root_key = vec![0x04, 32];
        root_key.extend_from_slice(&request.root_key);
        parameters.custom_extensions = vec![
            CustomExtension::from_oid_content(ROOT_KEY, root_key),
            CustomExtension::from_oid_content(GENERATION, der_integer(request.generation)),
        ];
        self.issue(parameters, request.signing_key, serial)
    }

    fn issue(
        &self,
        mut parameters: CertificateParams,
        public_key: [u8; 32],
        serial: [u8; 16],
    ) -> Result<Bytes, AuthorityError> {
        VerifyingKey::from_bytes(&public_key).map_err(|_| AuthorityError::BadKey)?;
        parameters.serial_number = Some(serial_number(serial));
        parameters.use_authority_key_identifier_extension = true;
        let issuer = parameters_of_issuer(&self.organisation);
        let issuer = Issuer::from_params(&issuer, Ed25519Signer::new(&self.key));
        let certificate =
            parameters.signed_by(&CertifiedKey(public_key), &issuer).map_err(|_| AuthorityError::BadName)?;
        Ok(Bytes::copy_from_slice(certificate.der()))
    }
}

/// An Ed25519 private key as unencrypted PKCS#8 DER. The first version of that form, without the public key: the
/// second is not read by every TLS stack.
#[must_use]
pub fn private_key_der(key: &SigningKey) -> Zeroizing<Vec<u8>> {
    let keypair = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let document = keypair.to_pkcs8_der().expect("an Ed25519 key always has a DER form");
    Zeroizing::new(document.as_bytes().to_vec())
}

/// The parts of the authority's own certificate that every certificate it issues refers to.
fn parameters_of_issuer(organisation: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, organisation);
    parameters.distinguished_name.push(DnType::CommonName, format!("{organisation} ePOST CA"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn set_validity(parameters: &mut CertificateParams, validity: Validity) -> Result<(), AuthorityError> {
    if validity.not_before > validity.not_after || validity.not_after > LATEST {
        return Err(AuthorityError::BadValidity);
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_before = epoch + Duration::from_secs(validity.not_before);
    parameters.not_after = epoch + Duration::from_secs(validity.not_after);
    Ok(())
}

/// Positive, and of one length however it is encoded: the top byte is neither zero nor over 127.
fn serial_number(mut serial: [u8; 16]) -> SerialNumber {
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&serial)
}

/// A DER INTEGER without superfluous zeros.
fn der_integer(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let mut digits = &bytes[..];
    while digits.len() > 1 && digits[0] == 0 {
        digits = &digits[1..];
    }
    let needs_sign_byte = digits[0] > 0x7f;
    let mut integer = vec![0x02, digits.len() as u8 + u8::from(needs_sign_byte)];
    integer.extend(needs_sign_byte.then_some(0));
    integer.extend_from_slice(digits);
    integer
}

fn ia5(text: &str) -> Ia5String {
    Ia5String::try_from(text).expect("addresses and node URIs were checked to be ASCII")
}

/// The organisation's name and the public key in an authority's certificate, whose own signature is checked.
fn read_certificate(certificate: &[u8]) -> Result<(String, [u8; 32]), AuthorityError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| AuthorityError::WrongCertificate)?;
    let signed = parsed.tbs_certificate.as_ref();
    let key: [u8; 32] = parsed
        .public_key()
        .subject_public_key
        .data
        .as_ref()
        .try_into()
        .map_err(|_| AuthorityError::WrongCertificate)?;
    let verifier = VerifyingKey::from_bytes(&key).map_err(|_| AuthorityError::WrongCertificate)?;
    let (unsigned, signature) = certificate.split_last_chunk::<64>().ok_or(AuthorityError::WrongCertificate)?;
    let is_signed = verifier.verify_strict(signed, &Signature::from_bytes(signature)).is_ok();
    // Readers forgive odd encodings of the few bytes around the signed part; only the usual one is accepted.
    let frame = signed.len() + ED25519_FRAME.len() + signature.len();
    let header = u16::try_from(frame).map(|frame| [[0x30, 0x82], frame.to_be_bytes()].concat());
    let is_usual = header.is_ok_and(|header| unsigned == [&header[..], signed, ED25519_FRAME].concat());
    let organisation = parsed.subject().iter_organization().next().and_then(|name| name.as_str().ok());
    match organisation {
        Some(organisation) if is_signed && is_usual => Ok((organisation.to_owned(), key)),
        _ => Err(AuthorityError::WrongCertificate),
    }
}

/// The public key that an authority's certificate (DER) names: what every node trusts.
///
/// # Errors
/// [`AuthorityError::WrongCertificate`], if it is not a self-signed Ed25519 certificate.
pub fn authority_of(certificate: &[u8]) -> Result<[u8; 32], AuthorityError> {
    read_certificate(certificate).map(|(_, public_key)| public_key)
}

/// The authority's key, as the certificate writer wants it.
struct Ed25519Signer<'a> {
    key: &'a SigningKey,
    public_key: [u8; 32],
}

impl<'a> Ed25519Signer<'a> {
    fn new(key: &'a SigningKey) -> Ed25519Signer<'a> {
        Ed25519Signer { key, public_key: key.verifying_key().to_bytes() }
    }
}

impl PublicKeyData for Ed25519Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for Ed25519Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }
}

/// A public key to be certified.
struct CertifiedKey([u8; 32]);

impl PublicKeyData for CertifiedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}
