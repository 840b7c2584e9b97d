//! From an address to somebody mail can be sent to: certificate block, root key, identity block.
//!
//! Each step is checked by what the step before proved, down from the organisation's CA; no answer of the store is
//! believed for itself. The caller keeps the [`Contact`] and so saves the look-up next time; [`Contact::renew`]
//! reads only the identity block again, for a new contact address.

use super::address;
use super::block::{ContactAddress, Identity, IdentityError, identity_key};
use super::kem::KemPublic;
use super::secrets::Secrets;
use crate::limits::{CERTIFICATE_GRACE_S, CLOCK_SKEW_S};
use crate::store::{ObjectStore, StoreError};
use net::id::Id;
use net::machine::Seconds;
use net::past::block::{Trust, certificate_key};
use net::secure::certificate::{CertificateError, UserCertificate, parse_user};

/// Why a certificate is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    /// Not a certificate of the organisation.
    #[error("not a certificate of the organisation: {0}")]
    NotCertified(#[from] CertificateError),
    /// It is for another address.
    #[error("the certificate is for another address")]
    WrongAddress,
    /// The organisation has revoked it.
    #[error("the certificate has been revoked")]
    Revoked,
    /// It was not valid at the time in question.
    #[error("the certificate was not valid at the time")]
    NotValid,
}

/// Why an address could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no account of this address in the ring. Sure, not a failure: SMTP says 550.
    #[error("no such account")]
    NotFound,
    /// The account's certificate is not good.
    #[error(transparent)]
    Certificate(#[from] CertificateRefusal),
    /// The certificate is there and the identity block is not, or no longer: the account has not come up yet.
    #[error("the account has published no identity block")]
    NotPublished,
    /// The identity block is not good, or not this account's.
    #[error("the account's identity block is not good: {0}")]
    Identity(#[from] IdentityError),
    /// The store could not be asked. A later try may succeed.
    #[error("the store did not answer: {0}")]
    Store(#[from] StoreError),
}

/// Somebody mail can be sent to, as proved by the organisation's CA and her own root key.
#[derive(Clone, Debug)]
pub struct Contact {
    certificate: UserCertificate,
    identity: Identity,
    version: u64,
}

impl Contact {
    /// The mail address, in its canonical spelling.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.identity.address
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &UserCertificate {
        &self.certificate
    }

    /// The identity block, and its version.
    #[must_use]
    pub fn identity(&self) -> (&Identity, u64) {
        (&self.identity, self.version)
    }

    /// Where to notify; `None` while she has no node.
    #[must_use]
    pub fn node(&self) -> Option<ContactAddress> {
        self.identity.contact
    }

    /// The key to seal to.
    ///
    /// # Panics
    /// Never: an identity without a key is not read.
    #[must_use]
    pub fn kem(&self) -> &KemPublic {
        self.identity.current_kem().expect("an identity block has at least one KEM key")
    }

    /// The account's notification group, at the hash of the root key.
    #[must_use]
    pub fn group(&self) -> Id {
        identity_key(&self.certificate.root_key).placement()
    }

    /// Reads the identity block again, for a new contact address or KEM key. An older block than the one known is
    /// passed over: the store is rolling back, or behind. The certificate is checked again for today.
    ///
    /// # Errors
    /// [`ResolveError`]; the contact stays as it was.
    pub async fn renew<S: ObjectStore>(&mut self, store: &S, trust: &Trust) -> Result<(), ResolveError> {
        check(&self.certificate, trust, store.now() / 1_000_000)?;
        let (identity, version) = fetch_identity(store, &self.certificate).await?;
        if version >= self.version {
            self.identity = identity;
            self.version = version;
        }
        Ok(())
    }
}

/// Finds the account of `address`: two reads.
///
/// # Errors
/// [`ResolveError`]. An address that no account can have is [`NotFound`](ResolveError::NotFound).
pub async fn resolve<S: ObjectStore>(store: &S, trust: &Trust, address: &str) -> Result<Contact, ResolveError> {
    let address = address::canonical(address).map_err(|_| ResolveError::NotFound)?;
    let der = store.get_signed(certificate_key(&address)).await?.ok_or(ResolveError::NotFound)?;
    let certificate = read_certificate(&der, trust, &address)?;
    check(&certificate, trust, store.now() / 1_000_000)?;
    let (identity, version) = fetch_identity(store, &certificate).await?;
    Ok(Contact { certificate, identity, version })
}

/// Publishes an account's certificate block and its identity block; `version` as of
/// [`next_version`](super::block::next_version). The identity block is put even when the certificate is not taken
/// (another one of the same day is there already): her contact address must not depend on it.
///
/// # Errors
/// [`ResolveError::Identity`] if the identity is not fit to be signed, else [`ResolveError::Store`].
pub async fn publish<S: ObjectStore>(
    store: &S,
    secrets: &Secrets,
    identity: &Identity,
    version: u64,
    expiry: Seconds,
) -> Result<(), ResolveError> {
    let (key, block) = identity.sign(&secrets.root, version)?;
    let certified = store.put_signed(certificate_key(&secrets.address), secrets.certificate.clone(), expiry).await;
    store.put_signed(key, block, expiry).await?;
    Ok(certified?)
}

/// Reads a user's certificate that somebody handed us, and checks that it is for `address`; not the time, not
/// revocation ([`check`]).
///
/// # Errors
/// [`CertificateRefusal`].
pub(crate) fn read_certificate(
    der: &[u8],
    trust: &Trust,
    address: &str,
) -> Result<UserCertificate, CertificateRefusal> {
    let certificate = parse_user(der, &trust.authority)?;
    let is_hers = address::canonical(&certificate.address).as_deref() == Ok(address);
    if is_hers { Ok(certificate) } else { Err(CertificateRefusal::WrongAddress) }
}

/// Checks that a certificate is not revoked, and counted as valid at `time`.
///
/// # Errors
/// [`CertificateRefusal::Revoked`] or [`CertificateRefusal::NotValid`].
pub fn check(certificate: &UserCertificate, trust: &Trust, time: Seconds) -> Result<(), CertificateRefusal> {
    if trust.has_revoked(&certificate.serial) {
        return Err(CertificateRefusal::Revoked);
    }
    let from = certificate.not_before.saturating_sub(CLOCK_SKEW_S);
    let to = certificate.not_after.saturating_add(CERTIFICATE_GRACE_S);
    if (from..=to).contains(&time) { Ok(()) } else { Err(CertificateRefusal::NotValid) }
}

async fn fetch_identity<S: ObjectStore>(
    store: &S,
    certificate: &UserCertificate,
) -> Result<(Identity, u64), ResolveError> {
    let block = store.get_signed(identity_key(&certificate.root_key)).await?.ok_or(ResolveError::NotPublished)?;
    let (identity, version) = Identity::verify(&block, &certificate.root_key)?;
    // One root key, one account: a block for another address or account under it is a mistake or a trick.
    let is_hers = address::canonical(&certificate.address).as_ref() == Ok(&identity.address);
    if is_hers && identity.generation == certificate.generation {
        Ok((identity, version))
    } else {
        Err(ResolveError::Identity(IdentityError::Malformed))
    }
}

#[cfg(test)]
mod tests;
