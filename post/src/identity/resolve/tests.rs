//! Goal: C42, and that no step of the way from an address to a key can be faked. Method: two accounts in a store
//! that verifies; then a lying holder at each step, a revoked, a late and a replaced certificate.

use super::*;
use crate::identity::block::next_version;
use crate::testbed::Testbed;

#[test]
fn claim_42_an_account_is_found_from_its_name_alone() {
    let bed = Testbed::new();
    let alice = bed.enrol("alice@epost.test");
    let found = bed.run(resolve(&bed.store, &bed.trust, "Alice@EPOST.test")).unwrap();
    assert_eq!(found.address(), "alice@epost.test");
    assert_eq!(found.certificate().root_key, alice.root.verifying_key().to_bytes());
    assert_eq!(found.certificate().signing_key, alice.signing.verifying_key().to_bytes());
    assert_eq!(found.kem(), &alice.kem[0].public());
    assert_eq!(found.node().map(|contact| contact.node), Some(Testbed::node_of("alice@epost.test")));
    assert_eq!(found.identity().0.logs[0].name, "calendar");
    // The group is H(root public key), under the name of identities.
    let root =
        blake3::Hasher::new_derive_key("ePOST 2026 name identity").update(&found.certificate().root_key).finalize();
    assert_eq!(found.group().0, root.as_bytes()[..20]);
    // The block that is stored is XML, and says so.
    let block = bed.run(bed.store.get_signed(identity_key(&found.certificate().root_key))).unwrap().unwrap();
    let text = String::from_utf8_lossy(&block);
    assert!(text.contains("<?xml version=\"1.0\"") && text.contains("<identity ") && text.contains("<contact "));
    assert_eq!(bed.store.counts().get_signed, 3);
}

#[test]
fn absent_and_unreachable_are_told_apart() {
    let bed = Testbed::new();
    let resolve_address = |address: &str| bed.run(resolve(&bed.store, &bed.trust, address)).map(|_| ());
    assert_eq!(resolve_address("nobody@epost.test"), Err(ResolveError::NotFound));
    assert_eq!(resolve_address("not an address"), Err(ResolveError::NotFound));
    let alice = bed.enrol("alice@epost.test");
    bed.store.set_reachable(false);
    assert_eq!(resolve_address("alice@epost.test"), Err(ResolveError::Store(StoreError::Unavailable)));
    assert_eq!(resolve_address("nobody@epost.test"), Err(ResolveError::Store(StoreError::Unavailable)));
    bed.store.heal();
    assert_eq!(resolve_address("alice@epost.test"), Ok(()));
    bed.store.remove(identity_key(&alice.root.verifying_key().to_bytes()));
    assert_eq!(resolve_address("alice@epost.test"), Err(ResolveError::NotPublished));
}

#[test]
fn lying_holders_deceive_nobody() {
    let bed = Testbed::new();
    let (alice, mallory) = (bed.enrol("alice@epost.test"), bed.enrol("mallory@epost.test"));
    let alice_key = certificate_key("alice@epost.test");
    let alice_identity = identity_key(&alice.root.verifying_key().to_bytes());
    let resolve_alice = || bed.run(resolve(&bed.store, &bed.trust, "alice@epost.test")).map(|_| ());

    bed.store.lie(alice_key, Some(mallory.certificate.clone()));
    assert_eq!(resolve_alice(), Err(CertificateRefusal::WrongAddress.into()));
    let stranger = Testbed::with_seed(9).enrol("alice@epost.test");
    bed.store.lie(alice_key, Some(stranger.certificate.clone()));
    let refused = CertificateRefusal::NotCertified(CertificateError::BadSignature);
    assert_eq!(resolve_alice(), Err(refused.into()));
    bed.store.lie(alice_key, None);

    let mallorys = bed.identity_of(&mallory);
    bed.store.lie(alice_identity, Some(mallorys.sign(&mallory.root, 9).unwrap().1));
    assert_eq!(resolve_alice(), Err(IdentityError::NotSigned.into()));
    // Even alice's own key does not make a block for another address, or another generation, hers.
    bed.store.lie(alice_identity, Some(mallorys.sign(&alice.root, 9).unwrap().1));
    assert_eq!(resolve_alice(), Err(IdentityError::Malformed.into()));
    let older = Identity { generation: 0, ..bed.identity_of(&alice) };
    bed.store.lie(alice_identity, Some(older.sign(&alice.root, 9).unwrap().1));
    assert_eq!(resolve_alice(), Err(IdentityError::Malformed.into()));
    bed.store.lie(alice_identity, None);
    assert_eq!(resolve_alice(), Ok(()));
}

#[test]
fn time_and_revocation_are_checked() {
    let mut bed = Testbed::new();
    let alice = bed.enrol("alice@epost.test");
    let resolve_alice = |bed: &Testbed| bed.run(resolve(&bed.store, &bed.trust, "alice@epost.test"));
    let mut contact = resolve_alice(&bed).unwrap();
    let (not_after, serial) = (contact.certificate().not_after, contact.certificate().serial.clone());
    let late = |seconds: u64| (not_after + seconds) * 1_000_000 - bed.store.now();
    bed.store.advance(late(CERTIFICATE_GRACE_S));
    assert!(resolve_alice(&bed).is_ok(), "a late renewal stops nobody");
    bed.store.advance(1_000_000);
    assert_eq!(resolve_alice(&bed).unwrap_err(), CertificateRefusal::NotValid.into());
    let renewed = bed.run(contact.renew(&bed.store, &bed.trust));
    assert_eq!(renewed, Err(CertificateRefusal::NotValid.into()));

    let renewed = bed.renew_certificate(&alice);
    assert!(resolve_alice(&bed).is_ok());
    bed.revoke(&serial);
    assert!(resolve_alice(&bed).is_ok(), "the old certificate is revoked, not the new one");
    bed.revoke(&renewed.serial);
    assert_eq!(resolve_alice(&bed).unwrap_err(), CertificateRefusal::Revoked.into());
}

#[test]
fn a_contact_is_renewed_forwards_only() {
    let bed = Testbed::new();
    let alice = bed.enrol("alice@epost.test");
    let mut contact = bed.run(resolve(&bed.store, &bed.trust, "alice@epost.test")).unwrap();
    let (first, version) = (contact.identity().0.clone(), contact.identity().1);
    let moved = Identity { contact: None, ..first.clone() };
    let next = next_version(Some(version), bed.store.now());
    assert_eq!(bed.run(publish(&bed.store, &alice, &moved, next, 1)), Ok(()));
    let before = bed.store.counts().get_signed;
    assert_eq!(bed.run(contact.renew(&bed.store, &bed.trust)), Ok(()));
    assert_eq!((contact.node(), bed.store.counts().get_signed - before), (None, 1));
    bed.store.lie(identity_key(&contact.certificate().root_key), Some(first.sign(&alice.root, version).unwrap().1));
    assert_eq!(bed.run(contact.renew(&bed.store, &bed.trust)), Ok(()));
    assert_eq!(contact.node(), None, "a rolled back block is passed over");
}

#[test]
fn a_certificate_that_is_not_taken_does_not_hide_the_account() {
    let bed = Testbed::new();
    let mut alice = bed.enrol("alice@epost.test");
    let before = bed.run(bed.store.get_signed(certificate_key("alice@epost.test"))).unwrap().unwrap();
    alice.certificate = bed.issue_certificate(&alice);
    let moved = Identity { contact: None, ..bed.identity_of(&alice) };
    let refused = bed.run(publish(&bed.store, &alice, &moved, bed.store.now() + 1, 1));
    assert!(matches!(refused, Err(ResolveError::Store(StoreError::Superseded { .. }))), "the same day, other bytes");
    let contact = bed.run(resolve(&bed.store, &bed.trust, "alice@epost.test")).unwrap();
    assert_eq!(contact.node(), None);
    assert_eq!(bed.run(bed.store.get_signed(certificate_key("alice@epost.test"))), Ok(Some(before)));
}
