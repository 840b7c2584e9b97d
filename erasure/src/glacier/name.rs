//! How an aggregate is named, and how its fragments are.
//!
//! ```text
//!  0  hash of the manifest   29 bytes   BLAKE3, derived under a context of its own
//! 29  needed                  1 byte
//! 30  total                   1 byte
//! 31  0                       1 byte    in a fragment's key: its index
//! ```
//!
//! All keys of an aggregate's fragments stand side by side in the order of keys, whatever the index, and each says how many
//! fragments suffice and how many there are. What 29 bytes leave of a hash, 232 bits, is as strong against collisions as the
//! signatures are (2^116 work).

use net::id::{Id, Key, Kind, Name};
use std::fmt;

const CONTEXT: &str = "ePOST 2026 name aggregate";
const HASHED_BYTES: usize = 29;
const NEEDED_AT: usize = 29;
const TOTAL_AT: usize = 30;
const INDEX_AT: usize = 31;

/// The name of an aggregate.
///
/// Invariants: 1 ≤ needed ≤ total; the last byte is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateName([u8; 32]);

impl AggregateName {
    /// The name of the aggregate with this manifest. None unless 1 ≤ needed ≤ total.
    #[must_use]
    pub fn of_manifest(manifest: &[u8], needed: u8, total: u8) -> Option<AggregateName> {
        let hash = blake3::Hasher::new_derive_key(CONTEXT).update(manifest).finalize();
        let mut bytes = [0; 32];
        bytes[..HASHED_BYTES].copy_from_slice(&hash.as_bytes()[..HASHED_BYTES]);
        bytes[NEEDED_AT] = needed;
        bytes[TOTAL_AT] = total;
        AggregateName::of_bytes(bytes)
    }

    /// The name with these bytes, if they can be one.
    #[must_use]
    pub fn of_bytes(bytes: [u8; 32]) -> Option<AggregateName> {
        let is_name = 1 <= bytes[NEEDED_AT] && bytes[NEEDED_AT] <= bytes[TOTAL_AT] && bytes[INDEX_AT] == 0;
        is_name.then_some(AggregateName(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The aggregate and the index of the fragment that is stored under `key`; none if no fragment can be.
    #[must_use]
    pub fn of_key(key: &Key) -> Option<(AggregateName, u8)> {
        let mut bytes = key.name.0;
        let index = std::mem::replace(&mut bytes[INDEX_AT], 0);
        let name = AggregateName::of_bytes(bytes)?;
        (key.kind == Kind::Fragment && index < name.total()).then_some((name, index))
    }

    /// The key of a fragment, whose index is below [`AggregateName::total`].
    #[must_use]
    pub fn fragment_key(&self, index: u8) -> Key {
        assert!(index < self.total(), "there is no fragment {index} of {}", self.total());
        let mut name = self.0;
        name[INDEX_AT] = index;
        Key { name: Name(name), kind: Kind::Fragment }
    }

    /// Where on the ring its first fragment belongs.
    #[must_use]
    pub fn placement(&self) -> Id {
        let mut id = [0; Id::LEN];
        id.copy_from_slice(&self.0[..Id::LEN]);
        Id(id)
    }

    /// How many of its fragments suffice.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.0[NEEDED_AT]
    }

    /// How many fragments it has.
    #[must_use]
    pub fn total(&self) -> u8 {
        self.0[TOTAL_AT]
    }
}

impl fmt::Debug for AggregateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..6] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, " {}/{}", self.needed(), self.total())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a key is a fragment's exactly if an aggregate gave it out. Method: keys made and read back; keys with one byte
    //! changed, or of chance, against the rule written out.
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_lead_back_to_the_name(manifest: [u8; 40], needed in 1u8..=255, more in 0u8..=254, index: u8) {
            let total = needed.saturating_add(more);
            let name = AggregateName::of_manifest(&manifest, needed, total).expect("a profile");
            let index = index % total;
            let key = name.fragment_key(index);
            prop_assert_eq!(AggregateName::of_key(&key), Some((name, index)));
            prop_assert_eq!(key.placement(), name.placement());
            prop_assert_eq!((name.needed(), name.total()), (needed, total));
            for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Fragment) {
                prop_assert_eq!(AggregateName::of_key(&Key { kind, ..key }), None);
            }
        }

        #[test]
        fn whatever_is_no_fragments_key_is_refused(bytes: [u8; 32], small in 0u8..4, narrow: bool) {
            let mut bytes = bytes;
            if narrow {
                // Chance alone would hardly ever have the three numbers meet.
                for byte in &mut bytes[29..] { *byte %= small + 1; }
            }
            let key = Key { name: Name(bytes), kind: Kind::Fragment };
            let is_one = bytes[29] > 0 && bytes[29] <= bytes[30] && bytes[31] < bytes[30];
            prop_assert_eq!(AggregateName::of_key(&key).is_some(), is_one);
        }
    }

    #[test]
    fn no_profile_no_name() {
        assert_eq!(AggregateName::of_manifest(b"manifest", 0, 5), None);
        assert_eq!(AggregateName::of_manifest(b"manifest", 6, 5), None);
    }
}
