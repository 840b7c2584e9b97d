//! Sealing: how bytes become encrypted, content-named blocks, and the reference that opens them again.
//!
//! An object X is encrypted under K = BLAKE3-keyed(secret, H(X)) with AES-256-GCM-SIV and stored under the hash
//! of its ciphertext, so that holders can check what they hold and read nothing of it. With a secret shared by
//! the ring's gateways (convergent), the same file of two users becomes the same block, stored once; with a
//! fresh salt, two seals of the same text have nothing in common and guesses cannot be confirmed. The
//! [`Reference`] carries K itself, so opening needs neither secret, across rings and rotations.
//!
//! ```text
//!   X ──H──► H(X) ──keyed by secret──► K              nonce = chunk index (u32 LE) ‖ 0⁸
//!   X ──AES-256-GCM-SIV under K, X's header as associated data──► ciphertext ──H──► handle
//! ```
//!
//! One K never seals two different things: it follows from H(X), and within one object the nonce counts chunks.
//! An object longer than [`CHUNK_BYTES_MAX`] is cut into chunks; the reference then names a sealed list of their
//! handles. Salted objects that fit one block are padded with zeros to a coarse size ([`padded_length`]).
//!
//! What it is not: it does not decide what is convergent ([`Sealing`] is asked by the mail layer), and it
//! does not keep objects alive; [`keys_of`] tells the lease keeper what to refresh.

mod reference;
mod secret;
mod stored;

pub use reference::{Reference, ReferenceError};
pub use secret::{RingSecret, Salt, Sealing, Secret};
pub use stored::{fetch, keys_of, store};

use crate::limits::{CHUNK_BYTES_MAX, OBJECT_BYTES_MAX, PADDED_BYTES_MIN};
use crate::store::StoreError;
use aes_gcm_siv::aead::Buffer;
use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit, Nonce};
use bytes::Bytes;
use net::id::{Key, Kind, Name};
use zeroize::Zeroizing;

/// Nonce index of a chunk list; no chunk has it, because there are never so many.
const LIST_INDEX: u32 = u32::MAX;

/// Why bytes could not be sealed or stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The caller's object is larger than [`OBJECT_BYTES_MAX`].
    #[error("the object is larger than {OBJECT_BYTES_MAX} bytes")]
    TooLarge,
    /// The store did not take a block.
    #[error("a block was not stored: {0}")]
    Store(#[from] StoreError),
}

/// Why an object could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Enough replicas answered, and none has this block: it was never stored, or its lease ran out.
    #[error("a block of the object does not exist")]
    Missing(Key),
    /// A block's bytes do not hash to the handle: the holder is faulty or lying.
    #[error("a block does not match its handle")]
    WrongHandle,
    /// The seal does not open under the reference's key: the reference was altered or its maker was faulty.
    #[error("the seal does not open under the reference's key")]
    WrongKey,
    /// What came out is not what the reference describes (hash, length, padding, or number of chunks).
    #[error("the opened object is not the one the reference describes")]
    WrongPlaintext,
    /// The store could not be asked.
    #[error("the store did not answer: {0}")]
    Store(#[from] StoreError),
}

/// An object ready to be stored.
#[derive(Debug)]
pub struct Sealed {
    /// What opens it.
    pub reference: Reference,
    /// Every block with its key; for a chunked object the sealed list is the last.
    pub blocks: Vec<(Key, Bytes)>,
}

/// Seals `plaintext` for the ring `ring`.
///
/// # Errors
/// [`SealError::TooLarge`] over [`OBJECT_BYTES_MAX`].
pub fn seal(ring: [u8; 16], secret: &Secret, plaintext: &[u8]) -> Result<Sealed, SealError> {
    if plaintext.len() > OBJECT_BYTES_MAX {
        return Err(SealError::TooLarge);
    }
    let plain_hash = hash_of(plaintext);
    let key = Zeroizing::new(*blake3::keyed_hash(secret.bytes(), &plain_hash).as_bytes());
    let length = plaintext.len() as u64;
    let chunks = chunks_of(length);
    let mut reference = Reference { ring, kind: Kind::Content, handle: Name([0; 32]), key, plain_hash, length, chunks };
    let sealer = Sealer::new(&reference);
    let mut blocks = Vec::with_capacity(chunks as usize + 1);
    if chunks == 1 {
        let mut padded = Vec::with_capacity(padded_length(plaintext.len()) + crate::limits::SEAL_TAG_BYTES);
        padded.extend_from_slice(plaintext);
        if secret.is_salted() {
            padded.resize(padded_length(plaintext.len()), 0);
        }
        blocks.push(sealer.seal(0, padded));
    } else {
        let mut handles = Vec::with_capacity(32 * chunks as usize);
        for (index, chunk) in (0..).zip(plaintext.chunks(CHUNK_BYTES_MAX)) {
            let (key, block) = sealer.seal(index, chunk.to_vec());
            handles.extend_from_slice(&key.name.0);
            blocks.push((key, block));
        }
        blocks.push(sealer.seal(LIST_INDEX, handles));
    }
    reference.handle = blocks.last().expect("at least one block was pushed").0.name;
    assert_eq!(blocks.len(), if chunks == 1 { 1 } else { chunks as usize + 1 });
    Ok(Sealed { reference, blocks })
}

/// Opens an object that is one block ([`Reference::is_chunked`] is false).
///
/// # Errors
/// [`OpenError`], telling which check failed.
pub fn open(reference: &Reference, block: &Bytes) -> Result<Bytes, OpenError> {
    if reference.is_chunked() {
        return Err(OpenError::WrongPlaintext);
    }
    let mut plaintext = Sealer::new(reference).open(0, reference.handle, block)?;
    let length = usize::try_from(reference.length).map_err(|_| OpenError::WrongPlaintext)?;
    let is_exact = plaintext.len() == length;
    if !is_exact && plaintext.len() != padded_length(length) {
        return Err(OpenError::WrongPlaintext);
    }
    if plaintext.iter().skip(length).any(|byte| *byte != 0) {
        return Err(OpenError::WrongPlaintext);
    }
    plaintext.truncate(length);
    finish(reference, plaintext)
}

/// Opens the list of a chunked object: the keys of its chunks, in order.
///
/// # Errors
/// [`OpenError`], telling which check failed.
pub fn open_list(reference: &Reference, list: &Bytes) -> Result<Vec<Key>, OpenError> {
    let handles = Sealer::new(reference).open(LIST_INDEX, reference.handle, list)?;
    let (handles, rest) = handles.as_chunks::<32>();
    if !rest.is_empty() || handles.len() != reference.chunks as usize {
        return Err(OpenError::WrongPlaintext);
    }
    Ok(handles.iter().map(|handle| Key { name: Name(*handle), kind: reference.kind }).collect())
}

/// Opens the chunks of an object, given the keys from its list.
///
/// # Errors
/// [`OpenError`], telling which check failed.
pub fn open_chunks(reference: &Reference, keys: &[Key], chunks: &[Bytes]) -> Result<Bytes, OpenError> {
    if keys.len() != chunks.len() || keys.len() != reference.chunks as usize {
        return Err(OpenError::WrongPlaintext);
    }
    let sealer = Sealer::new(reference);
    let mut plaintext = Vec::with_capacity(keys.len() * CHUNK_BYTES_MAX);
    for (index, (key, chunk)) in (0..).zip(keys.iter().zip(chunks)) {
        plaintext.extend_from_slice(&sealer.open(index, key.name, chunk)?);
    }
    finish(reference, plaintext)
}

/// The size a salted object of `length` bytes is padded to: its size with all but the leading few bits rounded
/// up (Padmé), at least [`PADDED_BYTES_MIN`], at most one block. It reveals O(log log length) bits of the length for
/// at most 12 % more bytes above the minimum.
#[must_use]
pub fn padded_length(length: usize) -> usize {
    if length <= PADDED_BYTES_MIN {
        return PADDED_BYTES_MIN;
    }
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1usize << (exponent - kept)) - 1;
    let rounded = (length + mask) & !mask;
    if rounded > CHUNK_BYTES_MAX { length.max(CHUNK_BYTES_MAX) } else { rounded }
}

/// H(X): the hash of a plaintext, separated from every name's hash.
#[must_use]
pub fn hash_of(plaintext: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key("ePOST 2026 plaintext").update(plaintext).finalize().as_bytes()
}

/// How many chunks an object of this length has; an empty one has one.
fn chunks_of(length: u64) -> u32 {
    let chunks = length.div_ceil(CHUNK_BYTES_MAX as u64).max(1);
    u32::try_from(chunks).unwrap_or(u32::MAX)
}

/// Checks the opened bytes against the reference.
fn finish(reference: &Reference, plaintext: Vec<u8>) -> Result<Bytes, OpenError> {
    if plaintext.len() as u64 != reference.length || hash_of(&plaintext) != reference.plain_hash {
        return Err(OpenError::WrongPlaintext);
    }
    Ok(Bytes::from(plaintext))
}

/// The cipher of one object.
struct Sealer {
    cipher: Aes256GcmSiv,
    header: [u8; Reference::HEADER_LEN],
    kind: Kind,
}

impl Sealer {
    fn new(reference: &Reference) -> Sealer {
        Sealer { cipher: Aes256GcmSiv::new(&(*reference.key).into()), header: reference.header(), kind: reference.kind }
    }

    fn seal(&self, index: u32, mut buffer: Vec<u8>) -> (Key, Bytes) {
        self.cipher
            .encrypt_in_place(&nonce(index), &self.header, &mut buffer)
            .expect("a Vec grows, and a block is far below the cipher's bound");
        assert!(buffer.len() <= crate::limits::BLOCK_BYTES_MAX);
        (Key::of(self.kind, &buffer), Bytes::from(buffer))
    }

    fn open(&self, index: u32, handle: Name, block: &Bytes) -> Result<Vec<u8>, OpenError> {
        if Key::of(self.kind, block).name != handle {
            return Err(OpenError::WrongHandle);
        }
        let mut buffer = block.to_vec();
        self.cipher
            .decrypt_in_place(&nonce(index), &self.header, &mut buffer as &mut dyn Buffer)
            .map_err(|_| OpenError::WrongKey)?;
        Ok(buffer)
    }
}

fn nonce(index: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&index.to_le_bytes());
    nonce.into()
}

#[cfg(test)]
mod tests;
