//! An organisation for tests: an authority, a ring document, and the hosts in it, on loopback.

#![allow(dead_code, reason = "each test file uses its part")]

use ed25519_dalek::SigningKey;
use epost_gateway::node::transport::{Credentials, Directory};
use net::machine::Seconds;
use net::ring::{Member, MemberState, Parameters, Revocation, RingDocument};
use net::secure::certificate::parse_node;
use post::identity::authority::{Authority, NodeRequest, Validity, private_key_der};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const RING: [u8; 16] = [0x52; 16];

pub(crate) fn now_s() -> Seconds {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A UDP address that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) struct Organisation {
    pub(crate) authority: Authority,
    pub(crate) ring: RingDocument,
}

impl Organisation {
    /// An authority of its own (told apart by `seed`) over a ring without members.
    pub(crate) fn found(seed: u8) -> Organisation {
        let validity = Validity { not_before: now_s() - 3600, not_after: now_s() + 86_400 };
        let authority = Authority::found("epost.test", &[seed; 32], [seed; 16], validity).unwrap();
        let ring = RingDocument {
            ring: RING,
            epoch: 1,
            parameters: Parameters::DEFAULT,
            members: vec![],
            revocations: vec![],
            domain: "epost.test".into(),
        };
        Organisation { authority, ring }
    }

    /// The same with the hosts 1 to `count` as members, on free ports.
    pub(crate) fn with_members(seed: u8, count: u8) -> Organisation {
        let mut organisation = Organisation::found(seed);
        for host in 1..=count {
            organisation.add_member(host, free_address());
        }
        organisation
    }

    pub(crate) fn add_member(&mut self, host: u8, address: SocketAddr) {
        self.ring.members.push(Member {
            nonce: nonce(host),
            host: address.to_string(),
            organisation: "epost.test".into(),
            weight: 1,
            state: MemberState::Active,
        });
    }

    pub(crate) fn revoke(&mut self, revoked: &Credentials) {
        let certificate = parse_node(&revoked.certificate, &self.authority.public_key()).unwrap();
        self.ring.revocations.push(Revocation { serial: certificate.serial, since: 0 });
    }

    pub(crate) fn address(&self, host: u8) -> SocketAddr {
        self.ring.members.iter().find(|m| m.nonce == nonce(host)).unwrap().host.parse().unwrap()
    }

    pub(crate) fn directory(&self) -> Arc<Directory> {
        Arc::new(Directory::new(Arc::new(self.ring.clone()), self.authority.public_key()))
    }

    /// What a host is enrolled with; `change` may spoil the request.
    pub(crate) fn enrol(&self, host: u8, change: impl FnOnce(&mut NodeRequest)) -> Credentials {
        let key = key(host);
        let mut request = NodeRequest {
            ring: RING,
            nonce: nonce(host),
            weight: 1,
            public_key: key.verifying_key().to_bytes(),
            validity: Validity { not_before: now_s() - 3600, not_after: now_s() + 86_400 },
        };
        change(&mut request);
        let certificate = self.authority.issue_node(&request, [host; 16]).unwrap();
        credentials(&certificate, &key)
    }
}

pub(crate) fn credentials(certificate: &[u8], key: &SigningKey) -> Credentials {
    Credentials {
        certificate: CertificateDer::from(certificate.to_vec()),
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(private_key_der(key).to_vec())),
    }
}

pub(crate) fn nonce(host: u8) -> [u8; 16] {
    [host; 16]
}

pub(crate) fn node_id(host: u8) -> net::id::Id {
    RingDocument::node_id(&RING, &nonce(host), 0)
}

pub(crate) fn key(host: u8) -> SigningKey {
    SigningKey::from_bytes(&[host; 32])
}
