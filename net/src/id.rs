//! Names on the ring: 160-bit [`Id`]s, 256-bit [`Name`]s, and the [`Key`] an object is stored under.
//!
//! The ring is the integers modulo 2^160 (overview, "Routing Infrastructure"). An object's *name* is a full
//! 256-bit BLAKE3 hash, separated by [`Kind`] so that the bytes of one kind of block can never occupy the
//! place of another; its *placement id* is the name's first 20 bytes. Routing uses the placement id only;
//! stores and references carry and check all 256 bits, because 2^80 work is too cheap for an adversarial writer.

use std::cmp::Ordering;
use std::fmt;

/// A point on the 160-bit ring, big-endian: the id of a node, or the placement id of an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Id(pub [u8; Id::LEN]);

impl Id {
    /// Bytes in an id.
    pub const LEN: usize = 20;
    /// Hexadecimal digits in an id; Pastry's b is 4, so one digit is one routing-table row.
    pub const DIGITS: usize = 40;

    /// `self + other` modulo 2^160.
    #[must_use]
    pub fn wrapping_add(self, other: Id) -> Id {
        let ((high, low), (other_high, other_low)) = (self.halves(), other.halves());
        let (low, carry) = low.overflowing_add(other_low);
        Id::of_halves(high.wrapping_add(other_high).wrapping_add(u128::from(carry)), low)
    }

    /// `self - other` modulo 2^160: the clockwise distance from `other` to `self`.
    #[must_use]
    pub fn wrapping_sub(self, other: Id) -> Id {
        let ((high, low), (other_high, other_low)) = (self.halves(), other.halves());
        let (low, borrow) = low.overflowing_sub(other_low);
        Id::of_halves(high.wrapping_sub(other_high).wrapping_sub(u128::from(borrow)), low)
    }

    /// The upper 128 bits and the lower 32: two machine operations instead of twenty.
    fn halves(self) -> (u128, u32) {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, l0, l1, l2, l3] = self.0;
        let high = [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15];
        (u128::from_be_bytes(high), u32::from_be_bytes([l0, l1, l2, l3]))
    }

    fn of_halves(high: u128, low: u32) -> Id {
        let mut bytes = [0; Id::LEN];
        bytes[..16].copy_from_slice(&high.to_be_bytes());
        bytes[16..].copy_from_slice(&low.to_be_bytes());
        Id(bytes)
    }

    /// Clockwise (increasing) distance from `self` to `to`.
    #[must_use]
    pub fn clockwise(self, to: Id) -> Id {
        to.wrapping_sub(self)
    }

    /// Ring distance: the shorter way round, at most 2^159. Symmetric.
    #[must_use]
    pub fn distance(self, other: Id) -> Id {
        let there = self.wrapping_sub(other);
        let back = other.wrapping_sub(self);
        there.min(back)
    }

    /// The `index`-th hexadecimal digit, most significant first.
    ///
    /// # Panics
    /// If `index >= Id::DIGITS`.
    #[must_use]
    pub fn digit(self, index: usize) -> u8 {
        let byte = self.0[index / 2];
        if index.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f }
    }

    /// How many leading hexadecimal digits `self` and `other` share (0 to [`Id::DIGITS`]).
    #[must_use]
    pub fn shared_digits(self, other: Id) -> usize {
        for i in 0..Id::LEN {
            let differing = self.0[i] ^ other.0[i];
            if differing != 0 {
                return 2 * i + usize::from(differing & 0xf0 == 0);
            }
        }
        Id::DIGITS
    }

    /// Whether `self` is nearer to `key` than `other` is. Of two nodes at the same distance, on either side of
    /// the key, the one with the smaller id is nearer, so that every node picks the same root.
    #[must_use]
    pub fn is_nearer(self, key: Id, other: Id) -> bool {
        (self.distance(key), self) < (other.distance(key), other)
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Id) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As the bytes are ordered, but by two numbers: ids are compared more often than anything else is done here.
impl Ord for Id {
    fn cmp(&self, other: &Id) -> Ordering {
        self.halves().cmp(&other.halves())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits tell nodes and objects apart in a log; the whole id is in `Display`.
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// What a stored object is. The number is part of every name's hash and of every stored key: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An immutable block named by the hash of its bytes.
    Content = 1,
    /// A user's X.509 certificate, named by the hash of the mail address.
    Certificate = 2,
    /// A user's signed identity block, named by the hash of the root public key.
    Identity = 3,
    /// The signed head of a single-writer log, named by the hash of the log's public key.
    Head = 4,
    /// A full cluster of log records (content-hash named).
    Cluster = 5,
    /// An erasure-coded fragment.
    Fragment = 6,
    /// A notification held for somebody who is away.
    Pending = 7,
    /// What a node has yet to do, for itself: it lies in its own store, named by the node's id and a number, and no message can name it.
    Note = 8,
}

impl Kind {
    /// Every kind, in numeric order.
    pub const ALL: [Kind; 8] = [
        Kind::Content,
        Kind::Certificate,
        Kind::Identity,
        Kind::Head,
        Kind::Cluster,
        Kind::Fragment,
        Kind::Pending,
        Kind::Note,
    ];

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether a newer version may replace an older one under the same key.
    #[must_use]
    pub fn is_mutable(self) -> bool {
        matches!(self, Kind::Certificate | Kind::Identity | Kind::Head)
    }

    /// Whether PAST keeps whole copies of such objects, and looks after them. Fragments, what is held for somebody who is away, and
    /// notes lie in the same stores and have keepers of their own.
    #[must_use]
    pub fn is_replicated(self) -> bool {
        !matches!(self, Kind::Fragment | Kind::Pending | Kind::Note)
    }

    /// Whether nodes speak of such objects to each other.
    #[must_use]
    pub fn is_spoken_of(self) -> bool {
        self != Kind::Note
    }

    /// BLAKE3 key-derivation context that separates this kind's names from every other kind's.
    fn context(self) -> &'static str {
        match self {
            Kind::Content => "ePOST 2026 name content",
            Kind::Certificate => "ePOST 2026 name certificate",
            Kind::Identity => "ePOST 2026 name identity",
            Kind::Head => "ePOST 2026 name head",
            Kind::Cluster => "ePOST 2026 name cluster",
            Kind::Fragment => "ePOST 2026 name fragment",
            Kind::Pending => "ePOST 2026 name pending",
            Kind::Note => "ePOST 2026 name note",
        }
    }
}

/// A full 256-bit name: BLAKE3 over the content, the public key or the address, derived under the kind's context.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub [u8; 32]);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..6] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The key an object is stored under: its kind and its full name. The placement id is the name's first 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// The full name. First in the order, so that sorted keys are sorted along the ring.
    pub name: Name,
    /// What the object is.
    pub kind: Kind,
}

impl Key {
    /// The key of whatever of this `kind` is named by `bytes` (content, a public key, or an address).
    #[must_use]
    pub fn of(kind: Kind, bytes: &[u8]) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key(kind.context());
        hasher.update(bytes);
        Key { name: Name(*hasher.finalize().as_bytes()), kind }
    }

    /// Where on the ring the object lives.
    #[must_use]
    pub fn placement(&self) -> Id {
        let mut id = [0u8; Id::LEN];
        id.copy_from_slice(&self.name.0[..Id::LEN]);
        Id(id)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: C01. Method: arithmetic checked against schoolbook subtraction, digit by digit.
    use super::*;
    use proptest::prelude::*;

    fn half() -> Id {
        let mut bytes = [0; Id::LEN];
        bytes[0] = 0x80;
        Id(bytes)
    }

    proptest! {
        #[test]
        fn claim_01_distance_wraps_and_is_symmetric(a: [u8; 20], b: [u8; 20]) {
            let (a, b) = (Id(a), Id(b));
            prop_assert!(a.distance(b) <= half());
            prop_assert_eq!(a.distance(b), b.distance(a));
            prop_assert_eq!(a.wrapping_sub(b).wrapping_add(b), a);
            prop_assert_eq!(a.distance(a), Id::default());
            prop_assert_eq!(a.0.len(), 20);
        }

        #[test]
        fn subtraction_agrees_with_the_schoolbook(a: [u8; 20], b: [u8; 20], near: bool) {
            // Half of the time the two differ in their last digits only, where the borrow is.
            let b = if near { let mut c = a; c[14..].copy_from_slice(&b[14..]); c } else { b };
            let mut difference = [0u8; Id::LEN];
            let mut borrow = 0i16;
            for i in (0..Id::LEN).rev() {
                let digit = i16::from(a[i]) - i16::from(b[i]) - borrow;
                difference[i] = digit.rem_euclid(256) as u8;
                borrow = i16::from(digit < 0);
            }
            prop_assert_eq!(Id(a).wrapping_sub(Id(b)), Id(difference));
        }

        #[test]
        fn ids_are_ordered_as_their_bytes(a: [u8; 20], b: [u8; 20], shared in 0usize..=20) {
            let mut c = b;
            c[..shared].copy_from_slice(&a[..shared]);
            prop_assert_eq!(Id(a).cmp(&Id(c)), a.cmp(&c));
            prop_assert_eq!(Id(a) == Id(c), a == c);
        }

        #[test]
        fn shared_digits_agree_with_the_digits(a: [u8; 20], b: [u8; 20]) {
            let (a, b) = (Id(a), Id(b));
            let naive = (0..Id::DIGITS).take_while(|i| a.digit(*i) == b.digit(*i)).count();
            prop_assert_eq!(a.shared_digits(b), naive);
        }
    }

    #[test]
    fn kinds_separate_names() {
        let keys: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|k| Key::of(*k, b"alice@epost.test").name).collect();
        assert_eq!(keys.len(), Kind::ALL.len());
    }
}
