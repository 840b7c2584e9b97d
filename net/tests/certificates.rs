//! Goal: C23 at the block, and the reading of certificates: only what the CA signed for this address is accepted.
//! Method: certificates issued by another program (rcgen), right and wrong in one thing at a time; every flipped byte.

use bytes::Bytes;
use net::id::{Key, Kind};
use net::past::block::{Refusal, Trust, certificate_key, verify};
use net::ring::{Parameters, Revocation};
use net::secure::certificate::{CertificateError, parse_node, parse_user};
use net::sim::Founding;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519, SanType,
    SerialNumber, date_time_ymd,
};

/// A certificate authority of our own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    public_key: [u8; 32],
}

fn authority() -> Authority {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let public_key = key.public_key_raw().try_into().unwrap();
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority { issuer: Issuer::new(parameters, key), public_key }
}

const OID: [u64; 8] = [1, 3, 6, 1, 4, 1, 58888, 1];

fn extension(last: u64, der: &[u8]) -> CustomExtension {
    let mut oid = OID.to_vec();
    oid.push(last);
    CustomExtension::from_oid_content(&oid, der.to_vec())
}

fn root_extension() -> CustomExtension {
    let mut der = vec![0x04, 32];
    der.extend_from_slice(&[0xab; 32]);
    extension(2, &der)
}

fn user_parameters(address: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, address);
    parameters.subject_alt_names = vec![SanType::Rfc822Name(address.try_into().unwrap())];
    parameters.custom_extensions = vec![root_extension(), extension(3, &[0x02, 0x01, 0x02])];
    parameters.not_before = date_time_ymd(2026, 1, 1);
    parameters.not_after = date_time_ymd(2027, 1, 1);
    parameters.serial_number = Some(SerialNumber::from(vec![0x11, 0x22]));
    parameters
}

/// Issues the certificate; returns its bytes and the public key in it.
fn issue(ca: &Authority, parameters: CertificateParams) -> (Bytes, [u8; 32]) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let certificate = parameters.signed_by(&key, &ca.issuer).unwrap();
    (Bytes::copy_from_slice(certificate.der()), key.public_key_raw().try_into().unwrap())
}

fn trust(ca: &Authority, revoked: &[u8]) -> Trust {
    let mut ring = Founding::new(1, 1, Parameters::DEFAULT).ring;
    ring.revocations = vec![Revocation { serial: revoked.to_vec(), since: 0 }];
    Trust::new(ca.public_key, &ring)
}

#[test]
fn claim_23_a_certificate_block_is_accepted_under_the_ca_key_only() {
    let (ca, stranger) = (authority(), authority());
    let (block, signing_key) = issue(&ca, user_parameters("Alice@epost.test"));
    let user = parse_user(&block, &ca.public_key).unwrap();
    assert_eq!((user.address.as_str(), user.generation), ("Alice@epost.test", 2));
    assert_eq!((user.root_key, user.signing_key), ([0xab; 32], signing_key));
    assert_eq!(user.not_before, 1_767_225_600);
    assert_eq!(user.version(), 2 << 32 | 20_454);

    // Stored at H(name), whatever its case, and nowhere else.
    let key = certificate_key("alice@EPOST.test");
    assert_eq!(key, Key::of(Kind::Certificate, b"alice@epost.test"));
    assert_eq!(verify(&key, &block, &trust(&ca, &[])), Ok(user.version()));
    assert_eq!(verify(&certificate_key("bob@epost.test"), &block, &trust(&ca, &[])), Err(Refusal::WrongName));

    // Another CA, a revoked serial number, and any flipped bit are refused.
    let (forged, _) = issue(&stranger, user_parameters("alice@epost.test"));
    assert_eq!(verify(&key, &forged, &trust(&ca, &[])), Err(Refusal::NotCertified));
    assert_eq!(verify(&key, &block, &trust(&ca, &[0x00, 0x11, 0x22])), Err(Refusal::NotCertified));
    for bit in 0..block.len() * 8 {
        let mut broken = block.to_vec();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&key, &Bytes::from(broken), &trust(&ca, &[])).is_err(), "bit {bit} may be flipped");
    }
    for length in 0..block.len() {
        assert!(parse_user(&block[..length], &ca.public_key).is_err());
    }
}

#[test]
fn a_user_certificate_needs_each_of_its_fields_once() {
    let ca = authority();
    let wrong = |change: &dyn Fn(&mut CertificateParams)| {
        let mut parameters = user_parameters("alice@epost.test");
        change(&mut parameters);
        parse_user(&issue(&ca, parameters).0, &ca.public_key).map(|user| user.address)
    };
    assert_eq!(wrong(&|_| {}), Ok("alice@epost.test".to_owned()));
    let fields = Err(CertificateError::WrongFields);
    assert_eq!(wrong(&|p| p.subject_alt_names.clear()), fields);
    assert_eq!(wrong(&|p| p.subject_alt_names.push(SanType::Rfc822Name("eve@epost.test".try_into().unwrap()))), fields);
    assert_eq!(wrong(&|p| p.custom_extensions = vec![root_extension()]), fields);
    assert_eq!(wrong(&|p| p.custom_extensions = vec![extension(3, &[0x02, 0x01, 0x00])]), fields);
    assert_eq!(wrong(&|p| p.custom_extensions.push(root_extension())), fields);
    // A root key of 31 bytes, and a negative generation.
    let mut short = vec![0x04, 31];
    short.extend_from_slice(&[1; 31]);
    let generation = extension(3, &[0x02, 0x01, 0x00]);
    assert_eq!(wrong(&|p| p.custom_extensions = vec![extension(2, &short), generation.clone()]), fields);
    assert_eq!(wrong(&|p| p.custom_extensions = vec![root_extension(), extension(3, &[0x02, 0x01, 0xff])]), fields);
}

#[test]
fn a_node_certificate_carries_nonce_and_weight() {
    let ca = authority();
    let (ring, nonce) = ("000102030405060708090a0b0c0d0e0f", "f0e0d0c0b0a090807060504030201000");
    let parameters = |uri: String, weight: Option<&[u8]>| {
        let mut parameters = CertificateParams::new(vec![]).unwrap();
        parameters.distinguished_name.push(DnType::OrganizationName, "epost.test");
        parameters.subject_alt_names =
            vec![SanType::DnsName("node.epost".try_into().unwrap()), SanType::URI(uri.as_str().try_into().unwrap())];
        parameters.custom_extensions = weight.map(|der| extension(1, der)).into_iter().collect();
        parameters
    };
    let read = |uri: String, weight: Option<&[u8]>| parse_node(&issue(&ca, parameters(uri, weight)).0, &ca.public_key);
    let node = read(format!("epost-node:{ring}:{nonce}"), Some(&[0x02, 0x02, 0x01, 0x00])).unwrap();
    assert_eq!((node.weight, node.organisation.as_str()), (256, "epost.test"));
    assert_eq!((node.ring[1], node.ring[15], node.nonce[0]), (1, 15, 0xf0));
    assert_eq!(read(format!("epost-node:{ring}:{nonce}"), None).unwrap().weight, 1);

    let fields = Err(CertificateError::WrongFields);
    assert_eq!(read(format!("epost-node:{ring}:{nonce}"), Some(&[0x02, 0x01, 0x00])), fields, "no weight at all");
    assert_eq!(read(format!("epost-node:{ring}"), None), fields);
    assert_eq!(read(format!("epost-node:{ring}:{}", &nonce[1..]), None), fields);
    assert_eq!(read(format!("epost-node:{ring}:+{}", &nonce[1..]), None), fields);
    assert_eq!(read(format!("other:{ring}:{nonce}"), None), fields);
    let (der, _) = issue(&authority(), parameters(format!("epost-node:{ring}:{nonce}"), None));
    assert_eq!(parse_node(&der, &ca.public_key), Err(CertificateError::BadSignature));
    // A user's certificate is no node's, and the other way round.
    let (user, _) = issue(&ca, user_parameters("alice@epost.test"));
    assert_eq!(parse_node(&user, &ca.public_key), fields);
}
