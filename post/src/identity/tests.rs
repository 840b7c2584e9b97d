//! Goal: what the authority issues is read by others as it was meant, and the organisation's changes are sound.
//! Method: certificates are read by `net`'s own reader and judged by rustls' webpki, which share no code with the
//! writer; ring documents are read back under the authority's key.

use super::authority::*;
use super::organisation::{self, Founded, OrganisationError};
use crate::entropy::Entropy;
use crate::limits::{NODE_VALIDITY_S, USER_VALIDITY_S};
use bytes::Bytes;
use net::past::block::{Trust, certificate_key, verify};
use net::ring::{MemberState, Parameters, RingDocument};
use net::secure::certificate::{CertificateError, parse_node, parse_user};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

const NOW: u64 = 1_795_000_000;

fn founded(entropy: &mut Entropy) -> Founded {
    organisation::found("Example & Söhne", "ePOST.test", Parameters::DEFAULT, NOW, entropy).unwrap()
}

#[test]
fn a_node_is_enrolled_with_certified_ids() {
    let mut entropy = Entropy::new([1; 32]);
    let Founded { authority, document, .. } = founded(&mut entropy);
    let node = organisation::enrol_node(&authority, &document, "127.0.0.1:4001", 3, NOW, &mut entropy).unwrap();
    let ring = RingDocument::decode_verified(&node.document, &authority.public_key()).unwrap();
    let read = parse_node(&node.certificate, &authority.public_key()).unwrap();
    assert_eq!((read.ring, read.nonce, read.weight), (ring.ring, node.nonce, 3));
    assert_eq!(read.organisation, "Example & Söhne");
    assert_eq!((read.not_before, read.not_after), (NOW - 600, NOW + NODE_VALIDITY_S));
    assert_eq!(read.serial.len(), 16);
    assert_eq!(node.node_id, RingDocument::node_id(&ring.ring, &node.nonce, 0));
    assert_eq!((ring.epoch, ring.members.len(), ring.domain.as_str()), (2, 1, "epost.test"));
    assert_eq!((ring.members[0].nonce, ring.members[0].weight), (node.nonce, 3));
    let key = Authority::open(&node.private_key, authority.certificate()).err();
    assert_eq!(key, Some(AuthorityError::WrongCertificate), "a node's key is readable, and not the authority's");

    // As a TLS stack reads it, which is not the library that wrote it.
    let tls_key = rcgen::KeyPair::try_from(&node.private_key[..]).unwrap();
    assert_eq!(tls_key.public_key_raw(), read.public_key);

    let renewed =
        organisation::renew_node(&authority, &node.document, node.nonce, read.public_key, NOW + 9, &mut entropy);
    let renewed = parse_node(&renewed.unwrap(), &authority.public_key()).unwrap();
    assert_eq!((renewed.nonce, renewed.weight, renewed.not_before), (node.nonce, 3, NOW - 591));
    assert_ne!(renewed.serial, read.serial);
}

#[test]
fn webpki_accepts_a_node_as_client_and_server() {
    let mut entropy = Entropy::new([2; 32]);
    let Founded { authority, document, .. } = founded(&mut entropy);
    let node = organisation::enrol_node(&authority, &document, "[::1]:4001", 1, NOW, &mut entropy).unwrap();
    let anchor_der = CertificateDer::from(authority.certificate().to_vec());
    let anchors = [anchor_from_trusted_cert(&anchor_der).unwrap()];
    let node_der = CertificateDer::from(node.certificate.to_vec());
    let certificate = EndEntityCert::try_from(&node_der).unwrap();
    let judge = |time: u64, usage: KeyUsage| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
        let algorithms = [webpki::aws_lc_rs::ED25519];
        certificate.verify_for_usage(&algorithms, &anchors, &[], time, usage, None, None).map(|_| ())
    };
    assert!(judge(NOW, KeyUsage::server_auth()).is_ok());
    assert!(judge(NOW, KeyUsage::client_auth()).is_ok());
    assert!(judge(NOW + NODE_VALIDITY_S + 1, KeyUsage::server_auth()).is_err());
    assert!(judge(NOW - 601, KeyUsage::server_auth()).is_err());
    let name = ServerName::try_from(NODE_DNS_NAME).unwrap();
    assert!(certificate.verify_is_valid_for_subject_name(&name).is_ok());
    let other = founded(&mut Entropy::new([3; 32])).authority;
    let other_der = CertificateDer::from(other.certificate().to_vec());
    let others = [anchor_from_trusted_cert(&other_der).unwrap()];
    let time = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let usage = KeyUsage::server_auth();
    let judged =
        certificate.verify_for_usage(&[webpki::aws_lc_rs::ED25519], &others, &[], time, usage, None, None).map(|_| ());
    assert!(judged.is_err());
}

#[test]
fn a_user_is_certified_for_her_address() {
    let mut entropy = Entropy::new([4; 32]);
    let Founded { authority, document, .. } = founded(&mut entropy);
    let alice = organisation::enrol_user(&authority, &document, "Alice@ePost.Test", 300, NOW, &mut entropy).unwrap();
    assert_eq!(alice.address, "alice@epost.test");
    let read = parse_user(&alice.certificate, &authority.public_key()).unwrap();
    assert_eq!((read.address.as_str(), read.generation), ("alice@epost.test", 300));
    assert_eq!(read.root_key, alice.root.verifying_key().to_bytes());
    assert_eq!(read.signing_key, alice.signing.verifying_key().to_bytes());
    assert_eq!(read.not_after, NOW + USER_VALIDITY_S);
    let ring = RingDocument::decode_verified(&document, &authority.public_key()).unwrap();
    let trust = Trust::new(authority.public_key(), &ring);
    let key = certificate_key("ALICE@epost.test");
    assert_eq!(verify(&key, &alice.certificate, &trust), Ok(read.version()));

    let other = founded(&mut entropy).authority;
    assert_eq!(parse_user(&alice.certificate, &other.public_key()), Err(CertificateError::BadSignature));
    let revoked = organisation::revoke(&authority, &document, &read.serial, NOW).unwrap();
    let ring = RingDocument::decode_verified(&revoked, &authority.public_key()).unwrap();
    assert!(verify(&key, &alice.certificate, &Trust::new(authority.public_key(), &ring)).is_err());

    let enrol = |address: &str| {
        organisation::enrol_user(&authority, &document, address, 1, NOW, &mut Entropy::new([5; 32])).err()
    };
    assert_eq!(enrol("alice@elsewhere.test"), Some(OrganisationError::WrongDomain));
    assert_eq!(enrol("alice@evil@epost.test").map(|e| matches!(e, OrganisationError::Authority(_))), Some(true));
    assert_eq!(enrol("alice@epost.test"), None);
}

#[test]
fn generations_and_weights_of_every_size_are_read_as_written() {
    let mut entropy = Entropy::new([6; 32]);
    let authority = founded(&mut entropy).authority;
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes();
    let validity = Validity { not_before: 0, not_after: 253_402_300_799 };
    for generation in [0, 1, 127, 128, 255, 256, 32_767, 32_768, 65_535, 8_388_608, u32::MAX] {
        let request = UserRequest { address: "a@b", root_key: key, signing_key: key, generation, validity };
        let issued = authority.issue_user(&request, entropy.draw()).unwrap();
        let read = parse_user(&issued, &authority.public_key()).unwrap();
        assert_eq!((read.generation, read.not_before, read.not_after), (generation, 0, 253_402_300_799));
    }
    for weight in [1, 127, 128, 32_768, u16::MAX] {
        let request = NodeRequest { ring: [1; 16], nonce: [2; 16], weight, public_key: key, validity };
        let issued = authority.issue_node(&request, entropy.draw()).unwrap();
        assert_eq!(parse_node(&issued, &authority.public_key()).unwrap().weight, weight);
    }
    let empty = Validity { not_before: 2, not_after: 1 };
    let request = NodeRequest { ring: [1; 16], nonce: [2; 16], weight: 1, public_key: key, validity: empty };
    assert_eq!(authority.issue_node(&request, [0; 16]).unwrap_err(), AuthorityError::BadValidity);
}

#[test]
fn an_authority_is_opened_by_its_own_key_only() {
    let mut entropy = Entropy::new([7; 32]);
    let authority = founded(&mut entropy).authority;
    let again = Authority::open(&authority.private_key(), authority.certificate()).unwrap();
    assert_eq!((again.organisation(), again.public_key()), ("Example & Söhne", authority.public_key()));
    assert_eq!(authority_of(authority.certificate()), Ok(authority.public_key()));
    let other = founded(&mut entropy).authority;
    let mixed = Authority::open(&other.private_key(), authority.certificate());
    assert_eq!(mixed.err(), Some(AuthorityError::WrongCertificate));
    assert_eq!(Authority::open(b"junk", authority.certificate()).err(), Some(AuthorityError::UnreadableKey));
    let mut broken = authority.certificate().to_vec();
    for at in 0..broken.len() {
        broken[at] ^= 1;
        assert!(Authority::open(&authority.private_key(), &broken).is_err(), "byte {at} may be flipped");
        broken[at] ^= 1;
    }
    for name in ["", " ", "a\nb", &"x".repeat(65)] {
        let refused = organisation::found(name, "a.b", Parameters::DEFAULT, NOW, &mut entropy).err();
        assert_eq!(refused, Some(OrganisationError::Authority(AuthorityError::BadName)));
    }
}

#[test]
fn every_change_of_the_ring_is_one_epoch() {
    let mut entropy = Entropy::new([8; 32]);
    let Founded { authority, document, .. } = founded(&mut entropy);
    let mut document = document;
    let mut nonces = Vec::new();
    for port in 4001..4006 {
        let host = format!("127.0.0.1:{port}");
        let node = organisation::enrol_node(&authority, &document, &host, 1, NOW, &mut entropy).unwrap();
        nonces.push(node.nonce);
        document = node.document;
    }
    let read = |document: &Bytes| RingDocument::decode_verified(document, &authority.public_key()).unwrap();
    assert_eq!((read(&document).epoch, read(&document).node_ids().count()), (6, 5));
    let mut enrol = |document: &Bytes, host: &str, weight| {
        organisation::enrol_node(&authority, document, host, weight, NOW, &mut entropy).err()
    };
    assert_eq!(enrol(&document, "127.0.0.1:4003", 1), Some(OrganisationError::HostTaken));
    for host in ["", "127.0.0.1", ":1", "a:0", "a:+1", "a:65536", "a b:1"] {
        assert_eq!(enrol(&document, host, 1), Some(OrganisationError::BadHost), "{host}");
    }
    assert_eq!(enrol(&document, "a:1", 0), Some(OrganisationError::BadWeight));
    let dead = organisation::declare_dead(&authority, &document, nonces[2]).unwrap();
    assert_eq!((read(&dead).epoch, read(&dead).node_ids().count()), (7, 4));
    assert_eq!(read(&dead).members[2].state, MemberState::Dead);
    assert_eq!(enrol(&dead, "127.0.0.1:4003", 1), None, "the address of a dead node is free");
    let moved = organisation::set_host(&authority, &dead, nonces[0], "node.example:9").unwrap();
    assert_eq!(read(&moved).members[0].host, "node.example:9");
    let unknown = organisation::declare_dead(&authority, &document, [0; 16]).unwrap_err();
    assert_eq!(unknown, OrganisationError::NoSuchMember);
    let stranger = founded(&mut Entropy::new([9; 32])).authority;
    assert!(organisation::declare_dead(&stranger, &document, nonces[0]).is_err());
}
