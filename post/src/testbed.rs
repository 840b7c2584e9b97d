//! A small organisation over a [`MemoryStore`], for the tests of identity and delivery.

use crate::entropy::Entropy;
use crate::identity::authority::Authority;
use crate::identity::block::{ContactAddress, Identity, PublicLog};
use crate::identity::organisation;
use crate::identity::resolve::publish;
use crate::identity::secrets::Secrets;
use crate::store::ObjectStore;
use crate::store::memory::{MemoryStore, run};
use bytes::Bytes;
use net::id::{Id, Name};
use net::past::block::{Trust, certificate_key};
use net::ring::{Parameters, RingDocument};
use net::secure::certificate::{UserCertificate, parse_user};
use std::sync::Mutex;

/// When the tests begin, in seconds.
pub(crate) const START_S: u64 = 1_795_000_000;

pub(crate) struct Testbed {
    pub(crate) store: MemoryStore,
    pub(crate) trust: Trust,
    pub(crate) authority: Authority,
    document: Bytes,
    entropy: Mutex<Entropy>,
}

impl Testbed {
    pub(crate) fn new() -> Testbed {
        Testbed::with_seed(1)
    }

    pub(crate) fn with_seed(seed: u8) -> Testbed {
        let mut entropy = Entropy::new([seed; 32]);
        let founded = organisation::found("Test", "epost.test", Parameters::DEFAULT, START_S, &mut entropy).unwrap();
        let store = MemoryStore::new(START_S * 1_000_000);
        let mut bed = Testbed {
            store,
            trust: Trust::default(),
            authority: founded.authority,
            document: founded.document,
            entropy: Mutex::new(entropy),
        };
        bed.trust_anew();
        bed
    }

    /// Runs a workflow to its end.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        run(future)
    }

    pub(crate) fn entropy(&self) -> Entropy {
        Entropy::new(self.entropy.lock().unwrap().draw())
    }

    /// The node that the testbed makes a user's contact.
    pub(crate) fn node_of(address: &str) -> Id {
        let mut id = [0; 20];
        id.copy_from_slice(&blake3::hash(address.as_bytes()).as_bytes()[..20]);
        Id(id)
    }

    /// Makes and publishes an account.
    pub(crate) fn enrol(&self, address: &str) -> Secrets {
        let now = self.store.now() / 1_000_000;
        let secrets =
            organisation::enrol_user(&self.authority, &self.document, address, 1, now, &mut self.entropy()).unwrap();
        let identity = self.identity_of(&secrets);
        run(publish(&self.store, &secrets, &identity, self.store.now(), now + 1000)).unwrap();
        secrets
    }

    pub(crate) fn identity_of(&self, secrets: &Secrets) -> Identity {
        let ring = RingDocument::decode_verified(&self.document, &self.authority.public_key()).unwrap().ring;
        Identity {
            address: secrets.address.clone(),
            generation: secrets.generation,
            signing_key: secrets.signing.verifying_key().to_bytes(),
            contact: Some(ContactAddress { ring, node: Testbed::node_of(&secrets.address) }),
            kem: secrets.kem.iter().map(|key| key.public()).collect(),
            logs: vec![PublicLog { name: "calendar".into(), handle: Name([1; 32]) }],
        }
    }

    /// Issues another certificate for the account, as of now.
    pub(crate) fn issue_certificate(&self, secrets: &Secrets) -> Bytes {
        let now = self.store.now() / 1_000_000;
        organisation::renew_user(&self.authority, secrets, now, &mut self.entropy()).unwrap()
    }

    /// Issues and publishes another certificate for the account, as of now.
    pub(crate) fn renew_certificate(&self, secrets: &Secrets) -> UserCertificate {
        let now = self.store.now() / 1_000_000;
        let der = self.issue_certificate(secrets);
        run(self.store.put_signed(certificate_key(&secrets.address), der.clone(), now + 1000)).unwrap();
        parse_user(&der, &self.authority.public_key()).unwrap()
    }

    /// Revokes a certificate.
    pub(crate) fn revoke(&mut self, serial: &[u8]) {
        self.document = organisation::revoke(&self.authority, &self.document, serial, START_S).unwrap();
        self.trust_anew();
    }

    fn trust_anew(&mut self) {
        let ring = RingDocument::decode_verified(&self.document, &self.authority.public_key()).unwrap();
        self.trust = Trust::new(self.authority.public_key(), &ring);
        self.store.set_trust(self.trust.clone());
    }
}
