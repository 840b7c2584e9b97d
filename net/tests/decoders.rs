//! Goal: no bytes of a peer make a decoder panic, and what one accepts it says again and reads the same. Method: the fuzzers' doors
//! (`net/fuzz`) with their corpus, each input whole, cut short, and with seeded bytes changed. The corpus is sound (each example is
//! accepted by its decoder), and has a frame of every type that is written down.

#[path = "../fuzz/doors.rs"]
mod doors;

use doors::{DOORS, knock};
use net::ring::Parameters;
use net::sim::{Dice, Founding};
use rcgen::{CertificateParams, CustomExtension, DnType, Issuer, KeyPair, PKCS_ED25519, SanType};
use std::path::PathBuf;
use x509_parser::der_parser::asn1_rs::FromDer;

fn corpus(door: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door)
}

/// The inputs of a door, in the order of their names.
#[expect(clippy::disallowed_methods, reason = "the corpus is on disk; net itself does not read it")]
fn inputs(door: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<(String, Vec<u8>)> = std::fs::read_dir(corpus(door))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

fn golden() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    include_str!("golden/v1.txt").lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, hex) = line.split_once(' ').expect("a name and hexadecimal digits");
        let byte = |i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal");
        (name, (0..hex.len() / 2).map(byte).collect())
    })
}

#[test]
fn no_bytes_make_a_decoder_panic_and_what_is_accepted_is_said_again() {
    for door in DOORS {
        let inputs = inputs(door);
        assert!(!inputs.is_empty(), "{door} has a corpus");
        for (number, (name, input)) in inputs.iter().enumerate() {
            println!("{door}/{name}");
            assert!(knock(door, input), "it is sound");
            for length in 0..input.len().min(120) {
                knock(door, &input[..length]);
            }
            let mut dice = Dice::new(number as u64);
            for _ in 0..200 {
                let mut changed = input.clone();
                for _ in 0..=dice.below(3) {
                    let at = dice.below(changed.len().max(1));
                    changed.get_mut(at).into_iter().for_each(|byte| *byte = dice.roll() as u8);
                }
                knock(door, &changed);
            }
        }
    }
}

#[test]
fn the_corpus_has_every_frame() {
    let inputs = inputs("frame");
    for (name, frame) in golden() {
        assert!(inputs.contains(&(name.to_owned(), frame)), "{name} is in the corpus");
    }
    let numbers: Vec<u8> = inputs.iter().filter_map(|(_, frame)| frame.get(1).copied()).collect();
    for number in (1..=12).chain(16..=26).chain(32..=33).chain(40..=46).chain(48..=48) {
        assert!(numbers.contains(&number), "a frame of type {number}");
    }
}

/// A certificate's part that is signed.
fn signed_part(parameters: &CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let issuer = Issuer::new(CertificateParams::new(vec![]).unwrap(), KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    let (_, read) = x509_parser::certificate::X509Certificate::from_der(certificate.der()).unwrap();
    read.tbs_certificate.as_ref().to_vec()
}

#[test]
#[ignore = "writes net/fuzz/corpus; only when a format changes"]
#[expect(clippy::disallowed_methods, reason = "the corpus is on disk; net itself does not write it")]
fn write_the_corpus() {
    let write = |door: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(corpus(door)).unwrap();
        std::fs::write(corpus(door).join(name), bytes).unwrap();
    };
    golden().for_each(|(name, frame)| write("frame", name, &frame));
    let founding = Founding::weighted(1, &[1, 3, 64], Parameters::DEFAULT);
    let body = founding.document().slice(72..);
    write("ring_document", "three-members", &body);
    let mut block = vec![1];
    block.extend_from_slice(&5u64.to_le_bytes());
    block.extend_from_slice(b"a head");
    write("signed_block", "head", &block);

    let oid = |last: u64| [1, 3, 6, 1, 4, 1, 58888, 1, last];
    let mut user = CertificateParams::new(vec![]).unwrap();
    user.subject_alt_names = vec![SanType::Rfc822Name("alice@epost.test".try_into().unwrap())];
    let mut root = vec![0x04, 32];
    root.extend_from_slice(&[0xab; 32]);
    user.custom_extensions = vec![
        CustomExtension::from_oid_content(&oid(2), root),
        CustomExtension::from_oid_content(&oid(3), vec![0x02, 0x01, 0x02]),
    ];
    write("certificate", "user", &signed_part(&user));
    let mut node = CertificateParams::new(vec![]).unwrap();
    node.distinguished_name.push(DnType::OrganizationName, "epost.test");
    let uri = format!("epost-node:{}:{}", "0a".repeat(16), "1b".repeat(16));
    node.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
    node.custom_extensions = vec![CustomExtension::from_oid_content(&oid(1), vec![0x02, 0x01, 0x40])];
    write("certificate", "node", &signed_part(&node));
}
