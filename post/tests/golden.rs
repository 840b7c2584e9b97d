//! Goal: what was written by an earlier program is read by this one, and written again byte for byte. Method: every
//! format of identity, sealing and delivery, made from fixed seeds through the public API, is compared with the
//! file in `tests/golden` and read back from it. A change of format is a new version with new files, never an edit of
//! these.
//!
//! `cargo test -p post --test golden -- --ignored` writes files that are missing, and touches none that exists.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests read their files")]

use post::delivery::Packet;
use post::delivery::notification::{self, Letter};
use post::delivery::receipt::{sign_receipt, verify_receipt};
use post::entropy::Entropy;
use post::identity::authority::{Authority, authority_of};
use post::identity::block::{ContactAddress, Identity, PublicLog};
use post::identity::keyfile::{KeyFile, PasswordCost};
use post::identity::organisation::{enrol_node, enrol_user, found};
use post::identity::resolve::{publish, resolve};
use post::identity::secrets::Secrets;
use post::seal::{Reference, RingSecret, Secret, open, seal};
use post::store::memory::{MemoryStore, run};

use bytes::Bytes;
use net::id::{Id, Name};
use net::past::block::Trust;
use net::ring::{Parameters, RingDocument};
use net::secure::certificate::{parse_node, parse_user};
use std::collections::BTreeMap;
use std::path::PathBuf;
use zeroize::Zeroizing;

const NOW_S: u64 = 1_795_000_000;
const NOW: u64 = NOW_S * 1_000_000;
const BOB: &str = "bob@epost.test";

type Vectors = BTreeMap<&'static str, Vec<u8>>;

fn identity_of(secrets: &Secrets) -> Identity {
    Identity {
        address: secrets.address.clone(),
        generation: secrets.generation,
        signing_key: secrets.signing.verifying_key().to_bytes(),
        contact: Some(ContactAddress { ring: [1; 16], node: Id([2; 20]) }),
        kem: secrets.kem.iter().map(|key| key.public()).collect(),
        logs: vec![PublicLog { name: "calendar".into(), handle: Name([3; 32]) }],
    }
}

/// Every vector of version 1, made anew.
fn made() -> Vectors {
    let mut entropy = Entropy::new([1; 32]);
    let founded = found("Example", "epost.test", Parameters::DEFAULT, NOW_S, &mut entropy).unwrap();
    let node = enrol_node(&founded.authority, &founded.document, "node.example:4001", 2, NOW_S, &mut entropy).unwrap();
    let alice = enrol_user(&founded.authority, &node.document, "alice@epost.test", 1, NOW_S, &mut entropy).unwrap();
    let bob = enrol_user(&founded.authority, &node.document, BOB, 1, NOW_S, &mut entropy).unwrap();
    let ring = RingDocument::decode_verified(&node.document, &founded.authority.public_key()).unwrap();
    let trust = Trust::new(founded.authority.public_key(), &ring);

    let mut key_file = KeyFile::new(&bob, &mut entropy);
    let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
    key_file.add_password(&bob.master, b"golden", cost, &mut entropy).unwrap();
    key_file.add_node(&bob.master, &[9; 32], &mut entropy).unwrap();

    let store = MemoryStore::new(NOW);
    store.set_trust(trust.clone());
    run(publish(&store, &bob, &identity_of(&bob), 7, NOW_S)).unwrap();
    let to_bob = run(resolve(&store, &trust, BOB)).unwrap();
    let letter = Letter { id: [4; 32], root: [5; 32], message: Zeroizing::new(b"a reference".to_vec()) };
    let notification = notification::seal(&alice, &to_bob, &letter, NOW, &mut entropy).unwrap();

    let salted = seal([1; 16], &Secret::salted([6; 32]), b"a short text").unwrap();
    let file = vec![0x5a; 70_000];
    let shared = seal([1; 16], &Secret::Convergent(RingSecret::new(1, [7; 32])), &file).unwrap();
    let (_, identity_block) = identity_of(&bob).sign(&bob.root, 7).unwrap();
    Vectors::from([
        ("authority.der", founded.authority.certificate().to_vec()),
        ("authority.key", founded.authority.private_key().to_vec()),
        ("node.der", node.certificate.to_vec()),
        ("user.der", bob.certificate.to_vec()),
        ("ring.document", node.document.to_vec()),
        ("key.file", key_file.encode()),
        ("identity.block", identity_block.to_vec()),
        ("notification.packet", Packet::Notification(notification).encode().to_vec()),
        ("receipt", sign_receipt(&bob, [4; 32], NOW).to_vec()),
        ("salted.reference", salted.reference.encode().to_vec()),
        ("salted.block", salted.blocks[0].1.to_vec()),
        ("shared.reference", shared.reference.encode().to_vec()),
    ])
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn kept(name: &str) -> Bytes {
    Bytes::from(std::fs::read(path_of(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}

#[test]
fn every_format_is_written_as_it_was() {
    for (name, bytes) in made() {
        assert!(kept(name) == bytes, "{name} is no longer written as it was");
    }
}

#[test]
fn every_format_is_read_as_it_was() {
    let authority = Authority::open(&kept("authority.key"), &kept("authority.der")).unwrap();
    let public_key = authority_of(&kept("authority.der")).unwrap();
    assert_eq!((authority.organisation(), authority.public_key()), ("Example", public_key));
    let ring = RingDocument::decode_verified(&kept("ring.document"), &public_key).unwrap();
    assert_eq!(parse_node(&kept("node.der"), &public_key).unwrap().nonce, ring.members[0].nonce);
    let user = parse_user(&kept("user.der"), &public_key).unwrap();
    assert_eq!((user.address.as_str(), user.generation), (BOB, 1));

    let key_file = KeyFile::decode(&kept("key.file")).unwrap();
    let bob = key_file.open(&key_file.unlock_password(b"golden").unwrap()).unwrap();
    assert_eq!(key_file.unlock_node(&[9; 32]).and_then(|master| key_file.open(&master)).unwrap().address, bob.address);
    assert_eq!((bob.root.verifying_key().to_bytes(), &bob.certificate), (user.root_key, &kept("user.der")));
    assert_eq!(Identity::verify(&kept("identity.block"), &user.root_key), Ok((identity_of(&bob), 7)));

    let trust = Trust::new(public_key, &ring);
    let Ok(Packet::Notification(sealed)) = Packet::decode(&kept("notification.packet")) else { panic!("no packet") };
    let opened = notification::open(&bob, &trust, &sealed, NOW).unwrap();
    assert_eq!((opened.sender.as_str(), &opened.letter.message[..]), ("alice@epost.test", &b"a reference"[..]));
    assert!(verify_receipt(&kept("receipt"), &trust, [4; 32], BOB, NOW).is_ok());
    let salted = Reference::decode(&kept("salted.reference")).unwrap();
    assert_eq!(open(&salted, &kept("salted.block")).unwrap(), &b"a short text"[..]);
    assert_eq!(Reference::decode(&kept("shared.reference")).unwrap().length(), 70_000);
}

#[test]
#[ignore = "writes missing vectors"]
fn write_missing_vectors() {
    for (name, bytes) in made() {
        if !path_of(name).exists() {
            std::fs::write(path_of(name), bytes).unwrap();
        }
    }
}
