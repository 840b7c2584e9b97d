//! Keys and values: the same for every store, in the same order, out of one seed.
//!
//! Object number `i` has a random placement and name and a value cut out of a pool of random bytes, so nothing
//! compresses and no store can know one object from another. Everything about an object follows from its number: a
//! process that was killed can be asked for what it had written, without a list.

use bytes::Bytes;
use engine::Key;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a key in the stores that know only byte strings: placement, name, kind. Sorts like [`Key`].
pub(crate) const KEY_BYTES: usize = 53;
/// Bytes that values are cut out of.
const POOL_BYTES: usize = 16 << 20;
/// The first expiry of all, in Unix seconds. No store has a clock: "now" is handed to expiry, so any second will do.
pub(crate) const EPOCH_S: u64 = 2_000_000_000;
/// A day in seconds.
pub(crate) const DAY_S: u64 = 86_400;

/// Numbers without pattern from a seed (splitmix64).
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// Fills a buffer.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.roll().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// An endless numbered list of objects.
#[derive(Clone)]
pub(crate) struct Objects {
    seed: u64,
    pool: Bytes,
}

impl Objects {
    /// The list that belongs to a seed. All lists cut their values out of the same pool.
    pub(crate) fn new(seed: u64) -> Objects {
        let mut pool = vec![0; POOL_BYTES];
        Dice::new(0x0b1e_c75f).fill(&mut pool);
        Objects { seed, pool: Bytes::from(pool) }
    }

    fn dice(&self, number: usize) -> Dice {
        Dice::new(self.seed ^ (number as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The key of object `number`.
    pub(crate) fn key(&self, number: usize) -> Key {
        let mut dice = self.dice(number);
        let mut key = Key { placement: [0; 20], name: [0; 32], kind: 1 };
        dice.fill(&mut key.placement);
        dice.fill(&mut key.name);
        key
    }

    /// The value of object `number`, of `bytes` bytes.
    pub(crate) fn value(&self, number: usize, bytes: usize) -> Bytes {
        assert!(bytes < POOL_BYTES);
        let start = self.dice(!number).below(POOL_BYTES - bytes);
        self.pool.slice(start..start + bytes)
    }
}

/// A key as one byte string.
pub(crate) fn key_bytes(key: &Key) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..20].copy_from_slice(&key.placement);
    bytes[20..52].copy_from_slice(&key.name);
    bytes[52] = key.kind;
    bytes
}

/// The key in a byte string; `None` when the length is another.
pub(crate) fn key_of(bytes: &[u8]) -> Option<Key> {
    let placement: [u8; 20] = bytes.get(..20)?.try_into().ok()?;
    let name: [u8; 32] = bytes.get(20..52)?.try_into().ok()?;
    (bytes.len() == KEY_BYTES).then(|| Key { placement, name, kind: bytes[52] })
}

/// The hash used wherever the harness itself verifies a value, the same for all stores.
pub(crate) fn checksum(value: &[u8]) -> u64 {
    xxh3_64(value)
}

#[cfg(test)]
mod tests {
    //! Goal: keys survive being byte strings and keep their order. Method: random keys there and back, sorted both ways.

    use super::*;

    #[test]
    fn byte_strings_sort_like_keys() {
        let objects = Objects::new(7);
        let mut keys: Vec<Key> = (0..500).map(|number| objects.key(number)).collect();
        let mut strings: Vec<_> = keys.iter().map(key_bytes).collect();
        keys.sort();
        strings.sort();
        let back: Vec<Key> = strings.iter().filter_map(|bytes| key_of(bytes)).collect();
        assert_eq!(keys, back);
        assert_eq!(key_of(&[0; KEY_BYTES - 1]), None);
    }

    #[test]
    fn an_object_is_the_same_whenever_it_is_asked_for() {
        let (here, there) = (Objects::new(3), Objects::new(3));
        assert_eq!(here.key(17), there.key(17));
        assert_eq!(here.value(17, 4000), there.value(17, 4000));
        assert_ne!(here.key(17), here.key(18));
    }
}
