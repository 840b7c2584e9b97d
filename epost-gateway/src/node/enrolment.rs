//! What makes this host a member: its certificate and key, the authority's certificate, the ring document.
//!
//! All of it is checked before anything is opened, so that a node that nobody would admit says so at its start, in one
//! line, and not by silence later.

use super::limits::{CERTIFICATE_GRACE_S, WEIGHT_MAX};
use super::transport::{Credentials, Directory};
use crate::config::{Config, ConfigError, NODE_SECRET_BYTES, public_file, secret_file};
use bytes::Bytes;
use net::id::Id;
use net::machine::Seconds;
use net::ring::{RingDocument, RingError};
use net::secure::certificate::{CertificateError, NodeCertificate, parse_node};
use post::identity::authority::authority_of;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Why this host is no member of its ring. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// A file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The authority's certificate is not one.
    #[error("{path} is not a certificate authority's certificate (Ed25519, self-signed)")]
    Authority {
        /// The file.
        path: PathBuf,
    },
    /// The node's certificate is not one, or another authority's.
    #[error("{path}: {reason}; enrol this node with `epost org add-node`")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: CertificateError,
    },
    /// The certificate has ended, and the time of grace too.
    #[error("{path} has expired: have it renewed by the organisation")]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// The private key is not PKCS#8.
    #[error("{path} is not a PKCS#8 private key")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The ring document is damaged or another authority's.
    #[error("{path}: {reason}; copy the current one from the organisation")]
    Ring {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: RingError,
    },
    /// The certificate was issued for another ring, or the ring document does not list this host.
    #[error(
        "{path} does not list this node (or lists it as dead): copy the current ring document from the organisation"
    )]
    NotMember {
        /// The ring document.
        path: PathBuf,
    },
    /// The ring document lists this host as a client.
    #[error("{path} lists this node as a client, which has no place on the ring: enrol a node, and use its folder")]
    Client {
        /// The ring document.
        path: PathBuf,
    },
    /// The certificate stands for fewer node ids than the ring document gives this host: peers would refuse the others.
    #[error(
        "{path} stands for {certified} node ids, the ring document lists {listed}: have it renewed by the organisation"
    )]
    Underweight {
        /// The certificate.
        path: PathBuf,
        /// Ids the certificate stands for.
        certified: u16,
        /// Ids the ring document lists.
        listed: usize,
    },
    /// The ring document gives this host more node ids than this version runs.
    #[error(
        "this node's weight is {weight}, this version runs at most {WEIGHT_MAX} node ids a host: enrol it with less"
    )]
    TooHeavy {
        /// The member's weight.
        weight: usize,
    },
}

/// A host that has proved to be a member.
#[derive(Debug)]
pub struct Enrolment {
    /// Certificate and key for the transport.
    pub credentials: Credentials,
    /// What the certificate says.
    pub certificate: NodeCertificate,
    /// The authority's public key.
    pub authority: [u8; 32],
    /// The signed ring document, as read.
    pub document: Bytes,
    /// The same, for the transport.
    pub directory: Arc<Directory>,
    /// The node's secret.
    pub secret: Zeroizing<[u8; NODE_SECRET_BYTES]>,
}

impl Enrolment {
    /// Reads and checks what `config` names, at the time `now`.
    ///
    /// # Errors
    /// [`EnrolmentError`], telling which file is at fault.
    pub fn load(config: &Config, now: Seconds) -> Result<Enrolment, EnrolmentError> {
        let node = &config.node;
        let authority = certificate_file(&node.authority)?
            .and_then(|certificate| authority_of(&certificate).ok())
            .ok_or_else(|| EnrolmentError::Authority { path: node.authority.clone() })?;
        let (der, certificate) = own_certificate(&node.certificate, &authority)?;
        if now > certificate.not_after.saturating_add(CERTIFICATE_GRACE_S) {
            return Err(EnrolmentError::Expired { path: node.certificate.clone() });
        }
        let key = private_key(&node.key)?;
        let document = Bytes::from(public_file(&node.ring)?);
        let ring = RingDocument::decode_verified(&document, &authority)
            .map_err(|reason| EnrolmentError::Ring { path: node.ring.clone(), reason })?;
        let directory = Arc::new(Directory::new(Arc::new(ring), authority));
        let member = directory.host(&certificate.nonce).filter(|_| certificate.ring == directory.document().ring);
        let member = member.ok_or_else(|| EnrolmentError::NotMember { path: node.ring.clone() })?;
        if !member.has_place {
            return Err(EnrolmentError::Client { path: node.ring.clone() });
        }
        let weight = member.ids.len();
        if weight > usize::from(certificate.weight) {
            let (path, certified) = (node.certificate.clone(), certificate.weight);
            return Err(EnrolmentError::Underweight { path, certified, listed: weight });
        }
        if weight > WEIGHT_MAX {
            return Err(EnrolmentError::TooHeavy { weight });
        }
        let credentials = Credentials { certificate: der, key };
        let secret = node.read_secret()?;
        Ok(Enrolment { credentials, certificate, authority, document, directory, secret })
    }

    /// This host's node ids, by index.
    #[must_use]
    pub fn ids(&self) -> &[Id] {
        &self.directory.host(&self.certificate.nonce).expect("checked when it was loaded").ids
    }
}

fn own_certificate(
    path: &Path,
    authority: &[u8; 32],
) -> Result<(CertificateDer<'static>, NodeCertificate), EnrolmentError> {
    let wrong = |reason| EnrolmentError::Certificate { path: path.to_owned(), reason };
    let der = certificate_file(path)?.ok_or_else(|| wrong(CertificateError::Malformed))?;
    let certificate = parse_node(&der, authority).map_err(wrong)?;
    Ok((der, certificate))
}

/// A certificate file, DER or PEM; `None` if it announces PEM and is none.
fn certificate_file(path: &Path) -> Result<Option<CertificateDer<'static>>, ConfigError> {
    let bytes = public_file(path)?;
    if is_pem(&bytes) {
        return Ok(CertificateDer::from_pem_slice(&bytes).ok());
    }
    Ok(Some(CertificateDer::from(bytes)))
}

/// A private key file, DER or PEM.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, EnrolmentError> {
    let bytes = secret_file(path)?;
    if is_pem(&bytes) {
        return PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| EnrolmentError::Key { path: path.to_owned() });
    }
    Ok(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(bytes.to_vec())))
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"-----BEGIN ")
}
