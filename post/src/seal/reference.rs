//! The reference: everything that opens one sealed object, in 128 fixed bytes.
//!
//! ```text
//!   0  version  u8 = 1        2  kind  u8 (of the blocks)      4  ring  16 bytes
//!   1  suite    u8 = 1        3  zero  u8                     20  length of X  u64 LE
//!  28  chunks   u32 LE       ← bytes 0..32 are the associated data of every block
//!  32  handle   32 bytes      H(ciphertext), or of the sealed chunk list
//!  64  key K    32 bytes      SECRET: whoever has the reference can read the object
//!  96  H(X)     32 bytes
//! ```
//!
//! Suite 1 is AES-256-GCM-SIV with BLAKE3, chunks of 4 MiB less the tag. In CBOR a reference is a byte string.

use crate::limits::OBJECT_BYTES_MAX;
use net::id::{Key, Kind, Name};
use std::fmt;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const SUITE: u8 = 1;

/// Why bytes are not a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not 128 bytes, a reserved byte is set, or kind, length and chunks contradict each other.
    #[error("not a reference")]
    Malformed,
    /// Made by a newer program.
    #[error("a reference of version {version}, suite {suite} is not known here")]
    Unknown {
        /// The version it names.
        version: u8,
        /// The cipher suite it names.
        suite: u8,
    },
}

/// What opens one sealed object. Whoever holds it can read the object: it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference {
    pub(crate) ring: [u8; 16],
    pub(crate) kind: Kind,
    pub(crate) handle: Name,
    pub(crate) key: Zeroizing<[u8; 32]>,
    pub(crate) plain_hash: [u8; 32],
    pub(crate) length: u64,
    pub(crate) chunks: u32,
}

impl Reference {
    /// Bytes in an encoded reference.
    pub const LEN: usize = 128;
    /// Bytes of it that every block's seal authenticates.
    pub(crate) const HEADER_LEN: usize = 32;

    /// The key of the object's block, or of its chunk list.
    #[must_use]
    pub fn block_key(&self) -> Key {
        Key { name: self.handle, kind: self.kind }
    }

    /// Length of the plaintext in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// H(X), the hash of the plaintext.
    #[must_use]
    pub fn plain_hash(&self) -> [u8; 32] {
        self.plain_hash
    }

    /// The ring that holds the object.
    #[must_use]
    pub fn ring(&self) -> [u8; 16] {
        self.ring
    }

    /// How many chunks the object has.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Whether the object is more than one block, so that [`block_key`](Reference::block_key) names a list.
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.chunks > 1
    }

    /// The reference as bytes, key included.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<[u8; Reference::LEN]> {
        let mut bytes = Zeroizing::new([0; Reference::LEN]);
        bytes[..32].copy_from_slice(&self.header());
        bytes[32..64].copy_from_slice(&self.handle.0);
        bytes[64..96].copy_from_slice(&*self.key);
        bytes[96..].copy_from_slice(&self.plain_hash);
        bytes
    }

    /// Reads a reference from exactly 128 bytes.
    ///
    /// # Errors
    /// [`ReferenceError`] for anything that [`encode`](Reference::encode) does not write.
    pub fn decode(bytes: &[u8]) -> Result<Reference, ReferenceError> {
        let bytes: &[u8; Reference::LEN] = bytes.try_into().map_err(|_| ReferenceError::Malformed)?;
        let (version, suite) = (bytes[0], bytes[1]);
        if version != VERSION || suite != SUITE {
            return Err(ReferenceError::Unknown { version, suite });
        }
        let kind = Kind::from_number(bytes[2]).filter(|kind| *kind == Kind::Content);
        let kind = kind.filter(|_| bytes[3] == 0).ok_or(ReferenceError::Malformed)?;
        let length = u64::from_le_bytes(array(bytes, 20));
        let chunks = u32::from_le_bytes(array(bytes, 28));
        if length > OBJECT_BYTES_MAX as u64 || chunks != super::chunks_of(length) {
            return Err(ReferenceError::Malformed);
        }
        Ok(Reference {
            ring: array(bytes, 4),
            kind,
            handle: Name(array(bytes, 32)),
            key: Zeroizing::new(array(bytes, 64)),
            plain_hash: array(bytes, 96),
            length,
            chunks,
        })
    }

    /// The part of a reference that says what the object is, not which: associated data of its seals.
    pub(crate) fn header(&self) -> [u8; Reference::HEADER_LEN] {
        let mut header = [0; Reference::HEADER_LEN];
        header[..3].copy_from_slice(&[VERSION, SUITE, self.kind as u8]);
        header[4..20].copy_from_slice(&self.ring);
        header[20..28].copy_from_slice(&self.length.to_le_bytes());
        header[28..].copy_from_slice(&self.chunks.to_le_bytes());
        header
    }
}

/// The `N` bytes of a whole reference from `at`; both are constants of the layout above.
fn array<const N: usize>(bytes: &[u8; Reference::LEN], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference")
            .field("handle", &self.handle)
            .field("length", &self.length)
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

impl<C> minicbor::Encode<C> for Reference {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&*Reference::encode(self))?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Reference {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Reference, minicbor::decode::Error> {
        Reference::decode(decoder.bytes()?).map_err(|_| minicbor::decode::Error::message("not a reference"))
    }
}
