//! Who may speak to this node: the decision, apart from TLS.
//!
//! A peer is let in when its one certificate was issued by the organisation's CA, is valid in time, not revoked, of
//! this ring, and its nonce is a member's. Its node ids then follow from ring, nonce and index; nothing it says
//! about itself later can change them. Everybody else gets nothing but a counted [`Refusal`].

use super::directory::{Directory, Host, Nonce};
use crate::node::limits::{CERTIFICATE_BYTES_MAX, CERTIFICATE_GRACE_S, CLOCK_SKEW_S};
use crate::node::status::{Counter, REFUSED_PEERS, Registry};
use net::machine::Seconds;
use net::secure::certificate::{CertificateError, NodeCertificate, parse_node};
use std::sync::{Arc, PoisonError, RwLock};

/// Why a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It showed no certificate.
    #[error("no certificate")]
    Uncertified,
    /// Its certificate is not a node's, or comes with others.
    #[error("malformed certificate")]
    Malformed,
    /// Somebody else issued its certificate.
    #[error("certificate of another authority")]
    WrongAuthority,
    /// Its certificate has ended, and the time of grace too.
    #[error("certificate expired")]
    Expired,
    /// Its certificate is not valid yet.
    #[error("certificate not valid yet")]
    NotYetValid,
    /// The ring document revokes its certificate.
    #[error("certificate revoked")]
    Revoked,
    /// Its certificate is for another ring.
    #[error("certificate for another ring")]
    WrongRing,
    /// The ring document does not list it, or lists it as dead.
    #[error("not a member of the ring")]
    NotMember,
    /// It is a member, but not the one that was dialled.
    #[error("not the peer that was dialled")]
    NotTheDialled,
    /// The handshake failed for another reason: no proof of its key, no common protocol, too slow.
    #[error("handshake failed")]
    Handshake,
    /// Its greeting did not come, did not decode, or names another ring.
    #[error("bad greeting")]
    BadGreeting,
    /// The node id in its greeting does not follow from its certificate.
    #[error("node id does not follow from the certificate")]
    WrongNodeId,
    /// It sent too many frames that do not decode, less than a minute ago.
    #[error("banned for malformed frames")]
    Banned,
    /// This node has as many connections or handshakes as it can take.
    #[error("too many connections")]
    TooMany,
}

impl Refusal {
    const ALL: [Refusal; 14] = [
        Refusal::Uncertified,
        Refusal::Malformed,
        Refusal::WrongAuthority,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::Revoked,
        Refusal::WrongRing,
        Refusal::NotMember,
        Refusal::NotTheDialled,
        Refusal::Handshake,
        Refusal::BadGreeting,
        Refusal::WrongNodeId,
        Refusal::Banned,
        Refusal::TooMany,
    ];

    /// The cause it is counted under.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Refusal::Uncertified => "no certificate",
            Refusal::Malformed => "malformed certificate",
            Refusal::WrongAuthority => "another authority",
            Refusal::Expired => "expired",
            Refusal::NotYetValid => "not valid yet",
            Refusal::Revoked => "revoked",
            Refusal::WrongRing => "another ring",
            Refusal::NotMember => "not a member",
            Refusal::NotTheDialled => "not the dialled peer",
            Refusal::Handshake => "handshake",
            Refusal::BadGreeting => "bad greeting",
            Refusal::WrongNodeId => "wrong node id",
            Refusal::Banned => "banned",
            Refusal::TooMany => "too many",
        }
    }
}

/// A peer whose certificate has been found good.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The member it is.
    pub host: Arc<Host>,
    /// How many of the member's ids the certificate stands for.
    pub weight: u16,
}

/// The doorkeeper of one node.
#[derive(Debug)]
pub struct Admission {
    directory: RwLock<Arc<Directory>>,
    refusals: Vec<Counter>,
}

impl Admission {
    /// Admits members in `directory`, counting refusals in `registry`.
    #[must_use]
    pub fn new(directory: Arc<Directory>, registry: &Registry) -> Admission {
        let count = |refusal: &Refusal| registry.counter_by(REFUSED_PEERS, "peers refused, by cause", refusal.cause());
        Admission { directory: RwLock::new(directory), refusals: Refusal::ALL.iter().map(count).collect() }
    }

    /// The hosts it admits.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Admits by a newer ring document from now on. Connections that stand are the transport's to close.
    pub(super) fn adopt(&self, directory: Arc<Directory>) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = directory;
    }

    /// Whose certificate this is, if its holder may speak to us at `now`; whether he holds the key is TLS's part.
    ///
    /// # Errors
    /// [`Refusal`]; not counted yet.
    pub fn admit(&self, certificate: &[u8], now: Seconds) -> Result<Admitted, Refusal> {
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(Refusal::Malformed);
        }
        let directory = self.directory();
        let certificate = parse_node(certificate, &directory.trust().authority).map_err(|error| match error {
            CertificateError::BadSignature => Refusal::WrongAuthority,
            CertificateError::Malformed | CertificateError::WrongFields => Refusal::Malformed,
        })?;
        check_time(&certificate, now)?;
        if directory.trust().has_revoked(&certificate.serial) {
            return Err(Refusal::Revoked);
        }
        if certificate.ring != directory.document().ring {
            return Err(Refusal::WrongRing);
        }
        let host = directory.host(&certificate.nonce).ok_or(Refusal::NotMember)?;
        Ok(Admitted { host: host.clone(), weight: certificate.weight })
    }

    /// As [`Admission::admit`], for a peer we have dialled: it must be the member with this nonce.
    ///
    /// # Errors
    /// [`Refusal`]; not counted yet.
    pub fn admit_dialled(&self, certificate: &[u8], now: Seconds, dialled: &Nonce) -> Result<Admitted, Refusal> {
        let admitted = self.admit(certificate, now)?;
        if admitted.host.nonce == *dialled { Ok(admitted) } else { Err(Refusal::NotTheDialled) }
    }

    /// Counts a refusal.
    pub fn count(&self, refusal: Refusal) {
        let at = Refusal::ALL.iter().position(|r| *r == refusal).expect("ALL lists every refusal");
        self.refusals[at].increment();
        tracing::debug!(cause = refusal.cause(), "peer refused");
    }
}

fn check_time(certificate: &NodeCertificate, now: Seconds) -> Result<(), Refusal> {
    if now.saturating_add(CLOCK_SKEW_S) < certificate.not_before {
        return Err(Refusal::NotYetValid);
    }
    if now > certificate.not_after.saturating_add(CERTIFICATE_GRACE_S) {
        return Err(Refusal::Expired);
    }
    Ok(())
}
