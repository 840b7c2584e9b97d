//! What the mail listeners present to mail clients: a self-signed ECDSA P-256 certificate, made once and kept.
//!
//! Mail clients refuse Ed25519, so this is not the node's certificate; and since a user confirms it once by hand,
//! it must not change: it is made on the first start and never again while its files are there. An operator who has
//! a certificate from elsewhere puts his own two files in their place.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// How a mail listener comes to speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// In clear first, and TLS when the client asks for it; no password before.
    StartTls,
    /// From the first byte.
    Implicit,
}

/// Why there is no TLS for the mail listeners.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Only one of certificate and key is there.
    #[error("{} is missing while its counterpart is there; restore it, or move both away to have new ones made", path.display())]
    Incomplete {
        /// The missing one.
        path: PathBuf,
    },
    /// Others may read the key.
    #[error("{} can be read by others; run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The key's file.
        path: PathBuf,
    },
    /// A file is not PEM of what it should be.
    #[error("{}: not a PEM file with what it should hold", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
    },
    /// The key does not belong to the certificate, or rustls cannot use it.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(rustls::Error),
    /// A certificate could not be made for this host name.
    #[error("cannot make a certificate: {0}")]
    Issue(rcgen::Error),
}

/// Loads certificate and key, making both first when neither is there; TLS 1.2 and 1.3.
pub fn mail_acceptor(certificate: &Path, key: &Path, host: &str) -> Result<TlsAcceptor, TlsError> {
    match (certificate.exists(), key.exists()) {
        (true, true) => {}
        (false, false) => make(certificate, key, host)?,
        (false, true) => return Err(TlsError::Incomplete { path: certificate.to_owned() }),
        (true, false) => return Err(TlsError::Incomplete { path: key.to_owned() }),
    }
    load(certificate, key)
}

fn make(certificate: &Path, key: &Path, host: &str) -> Result<(), TlsError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TlsError::Issue)?;
    let mut parameters = CertificateParams::new(names).map_err(TlsError::Issue)?;
    parameters.distinguished_name.push(DnType::CommonName, host);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let year = i32::from(mail_parser::DateTime::from_timestamp(now_s()).year);
    parameters.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year + 10, 1, 1);
    let signed = parameters.self_signed(&pair).map_err(TlsError::Issue)?;
    // The certificate last: without it the pair is incomplete, and says so, rather than half of two pairs.
    write_new(key, Zeroizing::new(pair.serialize_pem()).as_bytes(), 0o600)?;
    write_new(certificate, signed.pem().as_bytes(), 0o644)
}

fn now_s() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Never over an existing file.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), TlsError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn load(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let mode = fs::metadata(key).map_err(file(key))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: key.to_owned() });
    }
    let certificate_pem = fs::read(certificate).map_err(file(certificate))?;
    let key_pem = Zeroizing::new(fs::read(key).map_err(file(key))?);
    let chain = CertificateDer::pem_slice_iter(&certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::NotPem { path: certificate.to_owned() })?;
    let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| TlsError::NotPem { path: key.to_owned() })?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(TlsError::Unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    //! Goal: the pair is made once, private, P-256, and kept; a spoiled pair is named, never replaced.
    //! Method: a folder, an independent X.509 parser, and damage by hand.
    use super::*;

    #[test]
    fn made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("mail.crt"), folder.path().join("mail.key"));
        mail_acceptor(&certificate, &key, "mail.epost.test").unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read(&certificate).unwrap();
        mail_acceptor(&certificate, &key, "other.epost.test").unwrap();
        assert_eq!(fs::read(&certificate).unwrap(), first);

        let (_, pem) = x509_parser::pem::parse_x509_pem(&first).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert_eq!(parsed.public_key().algorithm.algorithm.to_id_string(), "1.2.840.10045.2.1");
        let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value.general_names);
        for name in ["localhost", "mail.epost.test", "[127, 0, 0, 1]"] {
            assert!(names.contains(name), "{name} in {names}");
        }
    }

    #[test]
    fn a_spoiled_pair_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("mail.crt"), folder.path().join("mail.key"));
        mail_acceptor(&certificate, &key, "localhost").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(mail_acceptor(&certificate, &key, "x"), Err(TlsError::Exposed { .. })));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, "rubbish").unwrap();
        assert!(matches!(mail_acceptor(&certificate, &key, "x"), Err(TlsError::NotPem { .. })));
        fs::remove_file(&key).unwrap();
        assert!(matches!(mail_acceptor(&certificate, &key, "x"), Err(TlsError::Incomplete { .. })));
    }
}
