//! Goal: bytes from strangers never panic a reader of this crate, and never pass one. Method: random bytes, and
//! random edits of valid ones (bytes changed, inserted, removed, cut), into every decoder that sees a peer's, the
//! ring's or a disk's bytes. proptest prints what fails.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests read their files")]

use bytes::Bytes;
use net::past::block::Trust;
use net::ring::RingDocument;
use post::delivery::Packet;
use post::delivery::notification::{check_outer, open, recipient_of};
use post::delivery::receipt::verify_receipt;
use post::identity::authority::{Authority, authority_of};
use post::identity::block::Identity;
use post::identity::keyfile::KeyFile;
use post::seal::Reference;
use proptest::prelude::*;
use std::sync::LazyLock;

const NOW: u64 = 1_795_000_000_000_000;

static GOLDEN: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
});

fn golden(name: &str) -> &'static [u8] {
    &GOLDEN.iter().find(|(file, _)| file == name).unwrap().1
}

#[derive(Clone, Debug)]
enum Edit {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize, usize),
    Cut(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        (any::<usize>(), 1..40usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        any::<usize>().prop_map(Edit::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let length = bytes.len().max(1);
    match *edit {
        Edit::Set(at, byte) => {
            if let Some(place) = bytes.get_mut(at % length) {
                *place = byte;
            }
        }
        Edit::Insert(at, byte) => bytes.insert(at % length.min(bytes.len() + 1), byte),
        Edit::Remove(at, count) => {
            let from = (at % length).min(bytes.len());
            bytes.drain(from..(from + count).min(bytes.len()));
        }
        Edit::Cut(at) => bytes.truncate(at % length),
    }
}

/// Hands the bytes to every reader; whether any but the plain decoders believed them.
fn is_believed_by_any(bytes: &[u8]) -> bool {
    let shared = Bytes::copy_from_slice(bytes);
    let public_key = authority_of(golden("authority.der")).unwrap();
    let ring = RingDocument::decode_verified(golden("ring.document"), &public_key).unwrap();
    let trust = Trust::new(public_key, &ring);
    let key_file = KeyFile::decode(golden("key.file")).unwrap();
    let bob = key_file.open(&key_file.unlock_node(&[9; 32]).unwrap()).unwrap();
    let root_key = bob.root.verifying_key().to_bytes();
    // Decoders: what they take must be safe to use, not true.
    let _ = (recipient_of(bytes), Reference::decode(bytes));
    let is_in_packet = match Packet::decode(&shared) {
        Ok(Packet::Notification(sealed)) => open(&bob, &trust, &sealed, NOW).is_ok(),
        Ok(Packet::Receipt(receipt)) => verify_receipt(&receipt, &trust, [4; 32], &bob.address, NOW).is_ok(),
        _ => false,
    };
    let is_opened = KeyFile::decode(bytes)
        .and_then(|file| file.unlock_node(&[9; 32]).and_then(|master| file.open(&master)))
        .is_ok();
    is_opened
        || is_in_packet
        || open(&bob, &trust, bytes, NOW).is_ok()
        || check_outer(bytes, &trust, NOW).is_ok()
        || verify_receipt(bytes, &trust, [4; 32], &bob.address, NOW).is_ok()
        || Identity::verify(&shared, &root_key).is_ok()
        || authority_of(bytes).is_ok()
        || Authority::open(bytes, golden("authority.der")).is_ok()
}

proptest! {
    #[test]
    fn random_bytes_are_believed_by_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(!is_believed_by_any(&bytes));
    }

    #[test]
    fn edited_bytes_are_believed_by_nobody(which: prop::sample::Index, edits in proptest::collection::vec(edit(), 1..6)) {
        // A key file stands on several slots: damage to one leaves the others good. Its own tests go byte by byte;
        // a private key carries no signature.
        let judged: Vec<_> = GOLDEN.iter().filter(|(name, _)| name != "key.file" && name != "authority.key").collect();
        let (name, valid) = judged[which.index(judged.len())];
        let mut bytes = valid.clone();
        edits.iter().for_each(|edit| apply(&mut bytes, edit));
        if bytes == *valid {
            return Ok(());
        }
        prop_assert!(!is_believed_by_any(&bytes), "{name}");
    }

    #[test]
    fn edited_key_files_never_panic(edits in proptest::collection::vec(edit(), 1..6)) {
        let mut bytes = golden("key.file").to_vec();
        edits.iter().for_each(|edit| apply(&mut bytes, edit));
        is_believed_by_any(&bytes);
    }
}
