//! What is computed from a key: its hash, its position on the ring, and what it adds to a range digest.
//!
//! Keys are chosen by strangers. The hash is therefore seeded with the store's secret seed: nobody outside can aim keys at one
//! bucket. A digest is compared between stores, so its element is seeded with a number that the whole ring shares, and it is
//! summed, never XORed: a sum of 128 bits over distinct elements does not cancel in pairs.

use super::arc::Known;
use super::locator::Locator;
use crate::key::Key;
use twox_hash::{XxHash3_64, XxHash3_128};

/// Bytes of a key: placement, name, kind, in this order; comparing them compares keys.
pub(crate) const KEY_BYTES: usize = 53;

/// Slots in a bucket of a table.
pub(super) const BUCKET: usize = 16;

/// XXH3-64 of a key, seeded with the store's seed. Its low 16 bits are the tag, its high 24 the first bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    /// The tag in the table; never 0, which means an empty slot.
    pub(super) fn tag(self) -> u16 {
        (self.0 as u16).max(1)
    }

    /// The first of the two buckets, of so many.
    pub(super) fn bucket(self, buckets: u32) -> u32 {
        scale((self.0 >> 40) as u32, buckets)
    }
}

/// The other bucket of an entry with this tag that lies in `bucket`. It is its own inverse, so an entry can be moved between its
/// two buckets by one who does not know its key.
pub(super) fn other_bucket(bucket: u32, tag: u16, buckets: u32) -> u32 {
    let pivot = scale(u32::from(tag).wrapping_mul(0x9e37_79b1) >> 8, buckets);
    if pivot >= bucket { pivot - bucket } else { pivot + buckets - bucket }
}

/// A number of 24 bits scaled to below `buckets`, whatever that is.
fn scale(bits: u32, buckets: u32) -> u32 {
    ((u64::from(bits) * u64::from(buckets)) >> 24) as u32
}

/// The hash function of one store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    seed: u64,
    /// Seed of digest elements, the same in every store of a ring.
    digest_seed: u64,
    /// Bits of the hash that count; the tests narrow the tags so that false matches are common.
    mask: u64,
}

impl Hasher {
    pub(crate) fn new(seed: u64, digest_seed: u64, tag_bits: u32) -> Hasher {
        assert!((1..=16).contains(&tag_bits));
        Hasher { seed, digest_seed, mask: !0xffff | ((1 << tag_bits) - 1) }
    }

    pub(crate) fn hash(&self, key: &Key) -> KeyHash {
        KeyHash(XxHash3_64::oneshot_with_seed(self.seed, &key_bytes(key)) & self.mask)
    }

    /// What an object adds to the digest of its range.
    pub(crate) fn element(&self, key: &Key, version: u64) -> u128 {
        let mut bytes = [0; KEY_BYTES + 8];
        bytes[..KEY_BYTES].copy_from_slice(&key_bytes(key));
        bytes[KEY_BYTES..].copy_from_slice(&version.to_le_bytes());
        XxHash3_128::oneshot_with_seed(self.digest_seed, &bytes)
    }

    /// All of that, of one record.
    pub(super) fn known(&self, key: &Key, version: u64, locator: Locator) -> Known {
        Known { position: position(key), hash: self.hash(key), locator, element: self.element(key, version) }
    }
}

/// The first eight bytes of the placement id as a number: where on the ring, as finely as arcs are cut.
pub(crate) fn position(key: &Key) -> u64 {
    u64::from_be_bytes(key.prefix())
}

/// The smallest and the largest key at these positions.
pub(crate) fn keys_at(low: u64, high: u64) -> (Key, Key) {
    let (mut lowest, mut highest) = ([0; 20], [0xff; 20]);
    lowest[..8].copy_from_slice(&low.to_be_bytes());
    highest[..8].copy_from_slice(&high.to_be_bytes());
    (Key::lowest(lowest), Key::highest(highest))
}

/// The key as bytes that sort as keys do.
pub(crate) fn key_bytes(key: &Key) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..20].copy_from_slice(&key.placement);
    bytes[20..52].copy_from_slice(&key.name);
    bytes[52] = key.kind;
    bytes
}

/// The key of these bytes.
pub(crate) fn key_of(bytes: &[u8; KEY_BYTES]) -> Key {
    let mut key = Key { placement: [0; 20], name: [0; 32], kind: bytes[52] };
    key.placement.copy_from_slice(&bytes[..20]);
    key.name.copy_from_slice(&bytes[20..52]);
    key
}

#[cfg(test)]
mod tests {
    //! Goal: both buckets are in range and find each other; bytes sort as keys. Method: properties over random values.
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn keys() -> impl Strategy<Value = Key> {
        (any::<[u8; 20]>(), any::<[u8; 32]>(), any::<u8>()).prop_map(|(placement, name, kind)| Key {
            placement,
            name,
            kind,
        })
    }

    proptest! {
        #[test]
        fn the_other_bucket_of_the_other_bucket_is_the_bucket(hash: u64, buckets in 1u32..100_000) {
            let hash = KeyHash(hash);
            let first = hash.bucket(buckets);
            let second = other_bucket(first, hash.tag(), buckets);
            prop_assert!(first < buckets);
            prop_assert!(second < buckets);
            prop_assert_eq!(other_bucket(second, hash.tag(), buckets), first);
        }

        #[test]
        fn bytes_are_the_key_and_sort_like_it(a in keys(), b in keys()) {
            prop_assert_eq!(key_of(&key_bytes(&a)), a);
            prop_assert_eq!(key_bytes(&a).cmp(&key_bytes(&b)), a.cmp(&b));
        }
    }
}
