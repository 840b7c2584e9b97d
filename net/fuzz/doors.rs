//! The doors through which bytes of a peer come in. No bytes may make one panic; what one accepts it must say again, and read
//! the same. What stands behind a signature is signed here, so that a fuzzer sees what lies behind it.
//!
//! The fuzz targets knock at them, and so does `tests/decoders.rs`, on the stable compiler, with the corpus.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use net::id::{Key, Kind};
use net::past::block::{Trust, decode_signed, encode_signed, verify};
use net::ring::RingDocument;
use net::secure::certificate::{parse_node, parse_user};
use net::wire::{HEADER_BYTES, decode, encode, frame_length};

/// Every door.
#[allow(dead_code)] // A fuzz target names its own.
pub(crate) const DOORS: [&str; 4] = ["frame", "ring_document", "signed_block", "certificate"];

/// Hands these bytes in at the door of this name; returns whether they were accepted, as they are or behind a signature.
pub(crate) fn knock(door: &str, bytes: &[u8]) -> bool {
    match door {
        "frame" => frame(bytes),
        "ring_document" => ring_document(bytes),
        "signed_block" => signed_block(bytes),
        "certificate" => certificate(bytes),
        other => panic!("there is no door {other}"),
    }
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A frame; as it is, and with the lengths in its header mended.
fn frame(bytes: &[u8]) -> bool {
    let is_accepted = read_frame(bytes);
    if let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        // The first byte of what follows says how much of it is payload.
        let payload = rest.first().map_or(0, |byte| usize::from(*byte) % (rest.len() + 1));
        for payload in [0, payload] {
            let mut mended = header.to_vec();
            mended[16..20].copy_from_slice(&((rest.len() - payload) as u32).to_le_bytes());
            mended[20..24].copy_from_slice(&(payload as u32).to_le_bytes());
            mended.extend_from_slice(rest);
            read_frame(&mended);
        }
    }
    is_accepted
}

fn read_frame(bytes: &[u8]) -> bool {
    let frame = Bytes::copy_from_slice(bytes);
    let announced = bytes.first_chunk().map(frame_length);
    let Ok((ends, message)) = decode(&frame) else { return false };
    assert_eq!(announced, Some(Ok(frame.len())), "its header said so");
    let _ = (message.lane(), message.body.payload());
    let again = encode(&message, ends).joined();
    assert_eq!(decode(&again), Ok((ends, message)), "said again, it is the same");
    true
}

/// What an authority has signed as a ring document; and the bytes as they are.
fn ring_document(bytes: &[u8]) -> bool {
    let authority = signer().verifying_key().to_bytes();
    let _ = RingDocument::decode_verified(bytes, &authority);
    let mut document = b"ePOSTrng".to_vec();
    document.extend_from_slice(&signer().sign(bytes).to_bytes());
    document.extend_from_slice(bytes);
    let Ok(ring) = RingDocument::decode_verified(&document, &authority) else { return false };
    let again = ring.encode_signed(|body| signer().sign(body).to_bytes());
    assert_eq!(RingDocument::decode_verified(&again, &authority), Ok(ring));
    true
}

/// A signed block as it is; and one with this kind, version and body.
fn signed_block(bytes: &[u8]) -> bool {
    let _ = decode_signed(&Bytes::copy_from_slice(bytes));
    let Some((kind, rest)) = bytes.split_first() else { return false };
    let Some((version, body)) = rest.split_first_chunk::<8>() else { return false };
    let public_key = signer().verifying_key().to_bytes();
    let (version, kind) = (u64::from_le_bytes(*version), [Kind::Identity, Kind::Head][usize::from(kind % 2)]);
    let block = encode_signed(kind, &public_key, version, body, |said| signer().sign(said).to_bytes());
    let read = decode_signed(&block).expect("it is signed");
    assert_eq!((read.kind, read.version, &read.body[..]), (kind, version, body));
    assert_eq!(verify(&Key::of(kind, &public_key), &block, &Trust::default()), Ok(version));
    true
}

/// A certificate as it is; and one of which an authority has signed this part.
fn certificate(bytes: &[u8]) -> bool {
    let authority = signer().verifying_key().to_bytes();
    let read = |der: &[u8]| (parse_node(der, &authority), parse_user(der, &authority));
    let _ = read(bytes);
    const REST: usize = 7 + 3 + 64;
    let Ok(length) = u16::try_from(bytes.len() + REST) else { return false };
    let mut der = vec![0x30, 0x82];
    der.extend_from_slice(&length.to_be_bytes());
    der.extend_from_slice(bytes);
    der.extend_from_slice(&[0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x41, 0]);
    der.extend_from_slice(&signer().sign(bytes).to_bytes());
    let (node, user) = read(&der);
    assert!(node.as_ref().is_err() || node.as_ref().is_ok_and(|node| node.weight > 0));
    assert!(user.as_ref().is_err() || user.as_ref().is_ok_and(|user| !user.address.is_empty()));
    node.is_ok() || user.is_ok()
}
