//! The tree of hashes over an aggregate's fragments: its root vouches for all of them, a path for one.
//!
//! Leaves and inner nodes are hashed under contexts of their own, so that neither can be shown as the other; a leaf's hash
//! has the fragment's index in it, so that none can be shown at another's place. Levels are halved until one hash is left;
//! where a level is odd, zeros stand for the missing neighbour, so that all paths of a tree are equally long.
//!
//! ```text
//! root          ┌───────── n ─────────┐
//!          ┌─── n ───┐           ┌─── n ───┐
//! leaves   0         1           2         0…0        total = 3: two hashes a path
//! ```

use super::limits::{HASH_BYTES, PATH_HASHES_MAX};
use crate::limits::FRAGMENTS_MAX;
use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use std::sync::LazyLock;

/// One hash of the tree.
pub(super) type Hash = [u8; HASH_BYTES];

// The contexts' hashes, which `derive_key` would compute anew each time.
static LEAF: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("ePOST 2026 fragment leaf"));
static INNER: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("ePOST 2026 fragment inner"));
/// Stands where a level has no neighbour. Nobody knows a preimage of it.
const NOBODY: Hash = [0; HASH_BYTES];

/// Hashes in a path of a tree of `total` leaves.
pub(super) fn path_hashes(total: u8) -> usize {
    usize::from(total).next_power_of_two().trailing_zeros() as usize
}

/// Bytes that BLAKE3 hashes at once where vectors are widest: sixteen of its chunks.
const AT_ONCE: usize = 16 << 10;

/// The hash of the fragment `index` with this data.
pub(super) fn leaf(index: u8, data: &[u8]) -> Hash {
    // The index alone would put all that follows a byte beside the bounds of chunks, and the first sixteen of them would
    // be hashed in five steps.
    let mut first = [index; AT_ONCE];
    let (head, rest) = data.split_at(data.len().min(AT_ONCE - 1));
    first[1..=head.len()].copy_from_slice(head);
    *leaf_hasher().update(&first[..=head.len()]).update(rest).finalize().as_bytes()
}

/// What hashes a leaf: first its index, then its data.
pub(super) fn leaf_hasher() -> Hasher {
    Hasher::new_from_context_key(&LEAF)
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    *Hasher::new_from_context_key(&INNER).update(left).update(right).finalize().as_bytes()
}

/// The root above a leaf, by its path from the bottom up.
pub(super) fn climb(index: u8, leaf: Hash, path: &[Hash]) -> Hash {
    let mut at = usize::from(index);
    path.iter().fold(leaf, |hash, neighbour| {
        let is_left = at.is_multiple_of(2);
        at /= 2;
        if is_left { inner(&hash, neighbour) } else { inner(neighbour, &hash) }
    })
}

/// A whole tree, its leaves first and its root last.
pub(super) struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over these leaves, of which there are 1 to 256.
    pub(super) fn new(leaves: Vec<Hash>) -> Tree {
        assert!((1..=FRAGMENTS_MAX).contains(&leaves.len()));
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks(2).map(|pair| inner(&pair[0], pair.get(1).unwrap_or(&NOBODY))).collect();
            levels.push(above);
        }
        assert!(levels.len() <= 1 + PATH_HASHES_MAX);
        Tree { levels }
    }

    /// The hash that vouches for all leaves.
    pub(super) fn root(&self) -> Hash {
        self.levels[self.levels.len() - 1][0]
    }

    /// The neighbours of a leaf and of the nodes above it, from the bottom up.
    pub(super) fn path(&self, index: u8) -> impl Iterator<Item = &Hash> + '_ {
        let below_root = &self.levels[..self.levels.len() - 1];
        below_root.iter().enumerate().map(move |(height, level)| {
            let neighbour = (usize::from(index) >> height) ^ 1;
            level.get(neighbour).unwrap_or(&NOBODY)
        })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every leaf's path leads to the root, and nothing else does. Method: all tree sizes, against a root computed by
    //! recursion; then a wrong index, a wrong leaf, a flipped hash.
    use super::*;

    /// The root over leaves `first..first + 2^height`, by the definition.
    fn recursively(leaves: &[Hash], first: usize, height: usize) -> Hash {
        if first >= leaves.len() {
            return NOBODY;
        }
        if height == 0 {
            return leaves[first];
        }
        let half = 1 << (height - 1);
        inner(&recursively(leaves, first, height - 1), &recursively(leaves, first + half, height - 1))
    }

    #[test]
    fn every_path_leads_to_the_root_and_no_other_does() {
        for total in 1..=255u8 {
            let leaves: Vec<Hash> = (0..total).map(|index| leaf(index, b"data")).collect();
            let tree = Tree::new(leaves.clone());
            assert_eq!(tree.root(), recursively(&leaves, 0, path_hashes(total)), "{total}");
            for index in 0..total {
                let path: Vec<Hash> = tree.path(index).copied().collect();
                assert_eq!(path.len(), path_hashes(total));
                assert_eq!(climb(index, leaves[usize::from(index)], &path), tree.root(), "{index} of {total}");
                if total > 1 {
                    let other = (index + 1) % total;
                    assert_ne!(climb(index, leaves[usize::from(other)], &path), tree.root());
                    let mut broken = path;
                    broken[usize::from(index) % path_hashes(total)][31] ^= 1;
                    assert_ne!(climb(index, leaves[usize::from(index)], &broken), tree.root());
                }
            }
        }
    }

    #[test]
    fn leaves_and_inner_nodes_are_told_apart() {
        let (left, right) = (leaf(0, b"left"), leaf(1, b"right"));
        let both = [left, right].concat();
        assert_ne!(leaf(both[0], &both[1..]), inner(&left, &right));
        assert_ne!(leaf(0, b"data"), leaf(1, b"data"));
    }
}
