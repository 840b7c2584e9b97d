//! TLS 1.3 for the ring: both sides show one certificate, and [`Admission`] decides about it.
//!
//! What is switched off matters as much: no tickets, no resumption, no early data (each would let a peer in without
//! its certificate being judged again), no SNI on the wire. The name dialled is made of the member's nonce, so that one
//! client configuration serves every dial and the verifier still knows whom it expects.

use super::admission::{Admission, Admitted, Refusal};
use super::directory::Nonce;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::Arc;

/// Protocol names, by what a connection is for.
pub(super) const ALPN: [&[u8]; 2] = [b"epost/1", b"epost-bulk/1"];

/// The node's own certificate and key.
pub struct Credentials {
    /// X.509, DER.
    pub certificate: CertificateDer<'static>,
    /// PKCS#8, DER.
    pub key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Why TLS could not be set up: the node's own certificate and key are at fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key is not the certificate's, or of a kind TLS cannot use.
    #[error("the node's certificate and key do not go together: {0}")]
    Credentials(#[from] rustls::Error),
    /// The provider lacks the cipher QUIC starts with.
    #[error("no cipher suite for QUIC: {0}")]
    Cipher(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// The server's side.
pub(super) fn server_config(admission: &Arc<Admission>, own: &Credentials) -> Result<QuicServerConfig, TlsError> {
    let verifier = Arc::new(Verifier { admission: admission.clone(), provider: provider() });
    let mut config = rustls::ServerConfig::builder_with_provider(verifier.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(QuicServerConfig::try_from(config)?)
}

/// The dialler's side, for connections of one purpose.
pub(super) fn client_config(
    admission: &Arc<Admission>,
    own: &Credentials,
    alpn: &[u8],
) -> Result<QuicClientConfig, TlsError> {
    let verifier = Arc::new(Verifier { admission: admission.clone(), provider: provider() });
    let mut config = rustls::ClientConfig::builder_with_provider(verifier.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(QuicClientConfig::try_from(config)?)
}

/// The name to dial a member by; never sent.
#[must_use]
pub fn dial_name(nonce: &Nonce) -> String {
    let digits: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("n{digits}.epost.invalid")
}

fn dialled_nonce(name: &ServerName<'_>) -> Option<Nonce> {
    let ServerName::DnsName(name) = name else { return None };
    let digits = name.as_ref().strip_prefix('n')?.strip_suffix(".epost.invalid")?;
    let value = u128::from_str_radix(digits, 16).ok()?;
    (digits.len() == 32).then(|| value.to_be_bytes())
}

/// Ring traffic between organisations outlives today's key exchanges: the hybrid one comes first.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}

/// Puts [`Admission`]'s decision in TLS's words, and counts its refusals.
#[derive(Debug)]
struct Verifier {
    admission: Arc<Admission>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn judge(
        &self,
        intermediates: &[CertificateDer<'_>],
        admit: impl FnOnce(&Admission) -> Result<Admitted, Refusal>,
    ) -> Result<(), rustls::Error> {
        let verdict = if intermediates.is_empty() { admit(&self.admission) } else { Err(Refusal::Malformed) };
        verdict.map(|_| ()).map_err(|refusal| {
            self.admission.count(refusal);
            rustls::Error::InvalidCertificate(match refusal {
                Refusal::Expired => CertificateError::Expired,
                Refusal::NotYetValid => CertificateError::NotValidYet,
                Refusal::Revoked => CertificateError::Revoked,
                Refusal::WrongAuthority => CertificateError::UnknownIssuer,
                Refusal::Malformed => CertificateError::BadEncoding,
                _ => CertificateError::ApplicationVerificationFailure,
            })
        })
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

/// TLS alerts (RFC 8446, 6.2) that [`Verifier::judge`] makes rustls send: those refusals are counted already.
pub(super) const JUDGED_ALERTS: [u8; 5] = [42, 44, 45, 48, 49];
/// The alert for a client that shows no certificate.
pub(super) const CERTIFICATE_REQUIRED_ALERT: u8 = 116;

fn tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(intermediates, |admission| {
            let dialled = dialled_nonce(server_name).ok_or(Refusal::NotTheDialled)?;
            admission.admit_dialled(end_entity, now.as_secs(), &dialled)
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(intermediates, |admission| admission.admit(end_entity, now.as_secs()))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the name dialled tells the verifier whom it expects. Method: there and back; other names give nothing.
    use super::*;

    #[test]
    fn a_dialled_name_leads_back_to_its_nonce() {
        for byte in [0, 7, 0x80, 0xff] {
            let nonce = [byte; 16];
            let name = ServerName::try_from(dial_name(&nonce)).unwrap();
            assert_eq!(dialled_nonce(&name), Some(nonce));
        }
        for other in ["epost.invalid", "n+0000000000000000000000000000000.epost.invalid", "127.0.0.1"] {
            if let Ok(name) = ServerName::try_from(other) {
                assert_eq!(dialled_nonce(&name), None, "{other}");
            }
        }
    }
}
