//! The key an object is stored under, and the class that says where it is written.

/// The key of an object: where on the ring it lives, its full name, and what it is.
///
/// Ordered by placement, then name, then kind, so that a scan in key order is a walk along the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Placement id on the 160-bit ring, big-endian.
    pub placement: [u8; 20],
    /// The full 256-bit name.
    pub name: [u8; 32],
    /// What the object is; the engine only keeps the number.
    pub kind: u8,
}

impl Key {
    /// The smallest and the largest key at or after / before a placement id.
    pub(crate) fn lowest(placement: [u8; 20]) -> Key {
        Key { placement, name: [0; 32], kind: 0 }
    }

    pub(crate) fn highest(placement: [u8; 20]) -> Key {
        Key { placement, name: [0xff; 32], kind: 0xff }
    }

    /// The first eight bytes of the placement id: with a locator, enough to find the entry of a lease record.
    pub(crate) fn prefix(&self) -> [u8; 8] {
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&self.placement[..8]);
        prefix
    }

    /// The shard that holds this key: by the *low* bits, because a node's ids cluster in its arc of the ring and the high
    /// bits would send them all to one shard.
    pub(crate) fn shard(&self, shards: usize) -> usize {
        assert!(shards > 0);
        let mut low = [0; 8];
        low.copy_from_slice(&self.placement[12..]);
        (u64::from_be_bytes(low) % shards as u64) as usize
    }
}

/// How an object is expected to live, which decides what it is written beside. Not what it is: that is the kind.
///
/// Each class has an open segment of its own while there is room for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Class {
    /// A new immutable object.
    #[default]
    Fresh = 0,
    /// A block whose versions replace each other.
    Mutable = 1,
    /// An erasure-coded fragment.
    Fragment = 2,
    /// An object that has outlived its first segment.
    Survivor = 3,
}

impl Class {
    /// All of them; `class as usize` is the place in a table of classes.
    pub(crate) const ALL: [Class; 4] = [Class::Fresh, Class::Mutable, Class::Fragment, Class::Survivor];

    pub(crate) fn from_number(number: u8) -> Option<Class> {
        Class::ALL.into_iter().find(|class| *class as u8 == number)
    }
}
