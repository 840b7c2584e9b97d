//! Goal: C45 and C46, and that nothing altered is ever opened. Method: seal sizes around every boundary into a
//! store that verifies and records; flip every byte of references and blocks; compare with the plaintext.

use super::*;
use crate::entropy::Entropy;
use crate::limits::CONVERGENT_BYTES_MIN;
use crate::store::memory::{MemoryStore, run};
use proptest::prelude::*;

const RING: [u8; 16] = [7; 16];

fn shared() -> Sealing {
    Sealing { ring: RING, shared: Some(RingSecret::new(1, [9; 32])) }
}

fn bytes_of(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Entropy::new([seed; 32]).fill(&mut bytes);
    bytes
}

#[test]
fn claim_45_the_same_file_of_two_users_is_stored_once() {
    let store = MemoryStore::new(0);
    let file = bytes_of(300_000, 1);
    let alice = run(super::store(&store, RING, &shared().for_attachment(file.len(), [1; 32]), &file, 10)).unwrap();
    let held = store.bytes_held();
    let bob = run(super::store(&store, RING, &shared().for_attachment(file.len(), [2; 32]), &file, 20)).unwrap();
    assert_eq!(alice, bob);
    assert_eq!((store.objects().len(), store.bytes_held()), (1, held));
    assert_eq!(store.objects()[0].1, 20, "the later lease stays");

    // Control: salted, or under the secret of another ring or epoch, nothing coincides.
    let salted = Sealing { ring: RING, shared: None }.for_attachment(file.len(), [3; 32]);
    let other_epoch = Secret::Convergent(RingSecret::new(2, [10; 32]));
    for secret in [salted, other_epoch] {
        let other = seal(RING, &secret, &file).unwrap().reference;
        assert_ne!(other.block_key(), alice.block_key());
    }
    let small = shared().for_attachment(CONVERGENT_BYTES_MIN - 1, [4; 32]);
    assert!(small.is_salted());
}

#[test]
fn claim_45_a_chunked_file_is_stored_once_too() {
    let store = MemoryStore::new(0);
    let file = bytes_of(CHUNK_BYTES_MAX + 1000, 2);
    let secret = shared().for_attachment(file.len(), [1; 32]);
    let alice = run(super::store(&store, RING, &secret, &file, 10)).unwrap();
    let bob = run(super::store(&store, RING, &secret, &file, 10)).unwrap();
    assert_eq!(alice, bob);
    assert_eq!(store.objects().len(), 3, "two chunks and their list");
    assert_eq!(run(fetch(&store, &alice)).unwrap(), file);
}

#[test]
fn claim_46_holders_see_no_plaintext_and_a_wrong_key_fails() {
    let store = MemoryStore::new(0);
    let body = b"Meet me at the usual place, and burn this letter. ".repeat(40);
    for secret in [Secret::salted([5; 32]), Secret::Convergent(RingSecret::new(1, [6; 32]))] {
        let reference = run(super::store(&store, RING, &secret, &body, 10)).unwrap();
        assert_eq!(run(fetch(&store, &reference)).unwrap(), body);
        for at in 0..body.len() - 8 {
            assert!(!store.has_seen(&body[at..at + 8]));
        }
        assert!(!store.has_seen(&*reference.key) && !store.has_seen(&reference.plain_hash));
        let mut wrong = reference.clone();
        wrong.key[0] ^= 1;
        assert_eq!(run(fetch(&store, &wrong)), Err(OpenError::WrongKey));
        // Knowing the handle and H(X) but not the secret gives no key.
        wrong.key = zeroize::Zeroizing::new(*blake3::keyed_hash(&[0; 32], &reference.plain_hash).as_bytes());
        assert_eq!(run(fetch(&store, &wrong)), Err(OpenError::WrongKey));
    }
}

#[test]
fn sizes_around_every_boundary_come_back() {
    let store = MemoryStore::new(0);
    let edges = [0, 1, 255, 256, 257, CONVERGENT_BYTES_MIN, CHUNK_BYTES_MAX - 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1];
    for (length, seed) in edges.into_iter().chain([2 * CHUNK_BYTES_MAX, 2 * CHUNK_BYTES_MAX + 1]).zip(0..) {
        let object = bytes_of(length, seed);
        for secret in [Secret::salted([seed; 32]), Secret::Convergent(RingSecret::new(1, [9; 32]))] {
            let reference = run(super::store(&store, RING, &secret, &object, 10)).unwrap();
            assert_eq!(run(fetch(&store, &reference)).unwrap(), object, "length {length}");
            let keys = run(keys_of(&store, &reference)).unwrap();
            assert_eq!(keys.len(), if length <= CHUNK_BYTES_MAX { 1 } else { reference.chunks() as usize + 1 });
            assert_eq!(run(crate::store::ObjectStore::refresh(&store, keys.clone(), 11)), Ok(keys.len()));
        }
    }
    assert!(store.objects().iter().all(|(_, _, bytes)| *bytes <= crate::limits::BLOCK_BYTES_MAX));
    let too_large = vec![0; OBJECT_BYTES_MAX + 1];
    assert_eq!(seal(RING, &Secret::salted([1; 32]), &too_large).unwrap_err(), SealError::TooLarge);
}

#[test]
fn every_flipped_byte_of_reference_or_block_is_noticed() {
    let sealed = seal(RING, &Secret::salted([1; 32]), b"short").unwrap();
    let block = &sealed.blocks[0].1;
    let encoded = sealed.reference.encode();
    assert_eq!(open(&sealed.reference, block).unwrap(), &b"short"[..]);
    for at in 0..Reference::LEN {
        let mut broken = *encoded;
        broken[at] ^= 0x10;
        let opened = Reference::decode(&broken).map(|reference| open(&reference, block));
        assert!(!matches!(opened, Ok(Ok(_))), "byte {at} of the reference may be flipped");
    }
    for at in 0..block.len() {
        let mut broken = block.to_vec();
        broken[at] ^= 0x10;
        assert_eq!(open(&sealed.reference, &broken.into()), Err(OpenError::WrongHandle));
    }
}

#[test]
fn missing_false_and_swapped_blocks_are_told_apart() {
    let store = MemoryStore::new(0);
    let object = bytes_of(2 * CHUNK_BYTES_MAX, 3);
    let reference = run(super::store(&store, RING, &Secret::salted([1; 32]), &object, 10)).unwrap();
    let keys = run(keys_of(&store, &reference)).unwrap();
    let first = run(crate::store::ObjectStore::get(&store, keys[0])).unwrap();
    store.lie(keys[1], first);
    assert_eq!(run(fetch(&store, &reference)), Err(OpenError::WrongHandle));
    store.lie(keys[1], None);
    assert!(store.remove(keys[1]));
    assert_eq!(run(fetch(&store, &reference)), Err(OpenError::Missing(keys[1])));
    store.set_reachable(false);
    assert_eq!(run(fetch(&store, &reference)), Err(OpenError::Store(StoreError::Unavailable)));
}

#[test]
fn references_show_no_key_and_are_one_cbor_byte_string() {
    let reference = seal(RING, &Secret::salted([1; 32]), b"short").unwrap().reference;
    let cbor = minicbor::to_vec(&reference).unwrap();
    assert_eq!(&cbor[..2], &[0x58, 128]);
    assert_eq!(minicbor::decode::<Reference>(&cbor).unwrap(), reference);
    let shown = format!("{reference:?}");
    let key: String = reference.key.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!shown.contains(&key[..8]) && shown.contains("length: 5"));
    let mut newer = *reference.encode();
    newer[0] = 2;
    assert_eq!(Reference::decode(&newer), Err(ReferenceError::Unknown { version: 2, suite: 1 }));
}

proptest! {
    #[test]
    fn references_decode_only_what_is_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(reference) = Reference::decode(&bytes) {
            prop_assert_eq!(&reference.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn padding_is_coarse_and_cheap(length in 0..CHUNK_BYTES_MAX) {
        let padded = padded_length(length);
        prop_assert!(padded >= length && padded <= CHUNK_BYTES_MAX);
        prop_assert!(padded <= PADDED_BYTES_MIN || padded * 100 <= length * 112);
        prop_assert_eq!(padded_length(padded), padded);
    }
}
