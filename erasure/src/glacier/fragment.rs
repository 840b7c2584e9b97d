//! What a fragment is: a piece of an aggregate that proves by itself that it belongs under its key.
//!
//! ```text
//!  0  "ePF1"                        4 bytes
//!  4  needed                        1
//!  5  total                         1
//!  6  index                         1
//!  7  0                             1
//!  8  length of the aggregate       4        little-endian, 1 to AGGREGATE_BYTES_MAX
//! 12  root over all fragments      32
//! 44  path from this one up        32 each   ⌈log₂ total⌉ hashes (`merkle`)
//!     data                                   ⌈length / needed⌉ bytes, rounded up to 64; the same for all fragments
//! ```
//!
//! The *manifest* is the header with 0 for the index, and it names the aggregate ([`AggregateName`]): the key fixes the
//! manifest, the manifest the root, and the root every byte of every fragment. A holder, or a reader, needs nothing but key
//! and value to tell a sound fragment from any other, and no signature: what is signed lies within the aggregate.
//! [`super::coder`] makes fragments; why a path instead of all hashes is in docs/decisions/0013.

use super::limits::{AGGREGATE_BYTES_MAX, FRAGMENT_STEP_BYTES, HASH_BYTES, HEADER_BYTES};
use super::merkle::{self, Hash, Tree};
use super::name::AggregateName;
use bytes::Bytes;
use net::id::Key;

const MAGIC: &[u8; 4] = b"ePF1";
const INDEX_AT: usize = 6;
const LENGTH_AT: usize = 8;
const ROOT_AT: usize = 12;

/// Why fragments cannot be made, accepted, or joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// The key is no fragment's. The fault of whoever named it.
    #[error("the key is not that of a fragment")]
    NotAFragment,
    /// The value is not of a fragment's form, or over a bound. The sender's fault.
    #[error("the fragment is malformed")]
    Malformed,
    /// The value is a fragment of another aggregate, or another fragment of this one. The sender's fault.
    #[error("the fragment belongs under another key")]
    WrongName,
    /// Data or path are not those that the root stands for: damaged, by a disk or on purpose.
    #[error("the fragment's data is not what its name stands for")]
    Damaged,
    /// Fewer sound and distinct fragments than suffice. Nobody's fault; more must be fetched.
    #[error("{sound} sound fragments are too few, {needed} are needed")]
    TooFew {
        /// Sound and distinct fragments that were handed in.
        sound: usize,
        /// Fragments that suffice.
        needed: usize,
    },
    /// The fragments are each what the writer committed to, and yet not fragments of one object: the writer's fault. Whichever
    /// of them are used, this is the answer.
    #[error("the writer's fragments are not those of one object")]
    Inconsistent,
    /// There is no such fragment of this aggregate: the caller's fault.
    #[error("there is no fragment {index}")]
    NoSuchFragment {
        /// The index that was asked for.
        index: u8,
    },
    /// An aggregate is 1 to [`AGGREGATE_BYTES_MAX`] bytes: the caller's fault.
    #[error("an aggregate of {bytes} bytes is none")]
    Length {
        /// The length that was handed in.
        bytes: usize,
    },
    /// There is no such code: the profile's fault.
    #[error(transparent)]
    Code(#[from] crate::Error),
}

/// A fragment that was found to be what its key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which of the aggregate's fragments it is.
    pub index: u8,
    /// Bytes of the whole aggregate.
    pub length: usize,
    /// Its share of the coded bytes; a slice of the value.
    pub data: Bytes,
}

/// Checks a value against the key it is stored, sent or read under.
///
/// # Errors
/// [`FragmentError`], telling what is wrong with it.
pub fn verify(key: &Key, value: &Bytes) -> Result<Fragment, FragmentError> {
    let (name, index) = AggregateName::of_key(key).ok_or(FragmentError::NotAFragment)?;
    verify_as(name, index, value)
}

/// The index that a value says it has, which is nothing but a hint before [`verify`].
#[must_use]
pub fn claimed_index(value: &[u8]) -> Option<u8> {
    value.get(INDEX_AT).copied()
}

/// As [`verify`], where the key has been taken apart.
pub(super) fn verify_as(name: AggregateName, index: u8, value: &Bytes) -> Result<Fragment, FragmentError> {
    let manifest = Manifest::read(value)?;
    if manifest.name() != Some(name) || claimed_index(value) != Some(index) {
        return Err(FragmentError::WrongName);
    }
    let data_at = data_at(manifest.total);
    if value.len() != data_at + data_bytes(manifest.length, manifest.needed) {
        return Err(FragmentError::Malformed);
    }
    let data = value.slice(data_at..);
    let (path, _) = value[HEADER_BYTES..data_at].as_chunks::<HASH_BYTES>();
    if merkle::climb(index, merkle::leaf(index, &data), path) != manifest.root {
        return Err(FragmentError::Damaged);
    }
    Ok(Fragment { index, length: manifest.length, data })
}

/// What all fragments of an aggregate have in common.
///
/// Invariants: 1 ≤ needed ≤ total; 1 ≤ length ≤ [`AGGREGATE_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) needed: u8,
    pub(super) total: u8,
    pub(super) length: usize,
    pub(super) root: Hash,
}

impl Manifest {
    /// The manifest in the header of a value.
    fn read(value: &[u8]) -> Result<Manifest, FragmentError> {
        let header: &[u8; HEADER_BYTES] = value.first_chunk().ok_or(FragmentError::Malformed)?;
        let [m0, m1, m2, m3, needed, total, index, reserved, l0, l1, l2, l3, ref root @ ..] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let is_sound = [m0, m1, m2, m3] == *MAGIC
            && 1 <= needed
            && needed <= total
            && index < total
            && reserved == 0
            && (1..=AGGREGATE_BYTES_MAX).contains(&length);
        if is_sound { Ok(Manifest { needed, total, length, root: *root }) } else { Err(FragmentError::Malformed) }
    }

    /// The header of the fragment `index`.
    fn header(&self, index: u8) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[4] = self.needed;
        header[5] = self.total;
        header[INDEX_AT] = index;
        let length = u32::try_from(self.length).expect("an aggregate is far shorter");
        header[LENGTH_AT..ROOT_AT].copy_from_slice(&length.to_le_bytes());
        header[ROOT_AT..].copy_from_slice(&self.root);
        header
    }

    /// The name of the aggregate.
    pub(super) fn name(&self) -> Option<AggregateName> {
        AggregateName::of_manifest(&self.header(0), self.needed, self.total)
    }
}

/// Where data begins in the fragments of an aggregate that has `total` of them.
pub(super) fn data_at(total: u8) -> usize {
    HEADER_BYTES + HASH_BYTES * merkle::path_hashes(total)
}

/// Bytes of data in each fragment of an aggregate of `length` bytes.
pub(super) fn data_bytes(length: usize, needed: u8) -> usize {
    length.div_ceil(usize::from(needed)).next_multiple_of(FRAGMENT_STEP_BYTES)
}

/// Bytes of one whole fragment of an aggregate of `length` bytes, as it is sent and stored.
#[must_use]
pub fn value_bytes(length: usize, needed: u8, total: u8) -> usize {
    data_at(total) + data_bytes(length, needed)
}

/// Names the aggregate whose fragments have these leaves, and writes headers and paths into `values`, each with its index, in
/// front of data that is there already.
pub(super) fn seal<'a>(
    needed: u8,
    total: u8,
    length: usize,
    leaves: Vec<Hash>,
    values: impl Iterator<Item = (u8, &'a mut [u8])>,
) -> AggregateName {
    assert!(leaves.len() == usize::from(total));
    let data_at = data_at(total);
    let tree = Tree::new(leaves);
    let manifest = Manifest { needed, total, length, root: tree.root() };
    for (index, value) in values {
        value[..HEADER_BYTES].copy_from_slice(&manifest.header(index));
        let (path, _) = value[HEADER_BYTES..data_at].as_chunks_mut::<HASH_BYTES>();
        for (place, hash) in path.iter_mut().zip(tree.path(index)) {
            *place = *hash;
        }
    }
    manifest.name().expect("a code has 1 ≤ needed ≤ total")
}
