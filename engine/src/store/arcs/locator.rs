//! Where a record lies, in 48 bits: segment 16, offset in units of 64 bytes 22, size class 10.
//!
//! The size class is what a segment's live bytes are charged with. It is computed once, when the record is written, and read
//! back from the locator when the record dies: what was added is exactly what is taken away, so a segment's live bytes are
//! zero if and only if no slot points into it. It is never smaller than the record, and at most 1/64 larger.

use crate::format::record::record_bytes;

/// The unit of offsets and sizes: records begin at multiples of it.
pub(crate) const UNIT: u32 = 64;
/// Largest offset a locator can hold: the last unit of a segment of 256 MiB.
pub(crate) const OFFSET_MAX: u32 = ((1 << OFFSET_BITS) - 1) * UNIT;
/// Largest segment number.
pub(crate) const SEGMENT_MAX: u16 = u16::MAX - 1;

const OFFSET_BITS: u32 = 22;
const CLASS_BITS: u32 = 10;
/// Bits of a class below its exponent.
const MANTISSA_BITS: u32 = 6;

/// A record's size, rounded up to one of 1,024 classes: a floating-point number of units with six bits of mantissa.
///
/// Exact up to 127 units; above, class = 64·e + ⌈units / 2^e⌉ with e = ⌊log₂ units⌋ − 6. Both pieces meet where e changes, so
/// the classes are monotone in the size without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SizeClass(u16);

impl SizeClass {
    /// Largest size that has a class.
    pub(crate) const BYTES_MAX: u64 = (127 << 14) * UNIT as u64;

    /// The smallest class that holds this many bytes.
    pub(crate) fn of(bytes: u32) -> SizeClass {
        assert!(u64::from(bytes) <= Self::BYTES_MAX, "no record is that large");
        let units = bytes.div_ceil(UNIT);
        let exponent = units.checked_ilog2().unwrap_or(0).saturating_sub(MANTISSA_BITS);
        let class = (exponent << MANTISSA_BITS) + units.div_ceil(1 << exponent);
        SizeClass(u16::try_from(class).expect("classes have ten bits"))
    }

    /// The class of a record with so many bytes of payload, if there can be one.
    pub(crate) fn of_record(payload_bytes: u32) -> Option<SizeClass> {
        let bytes = u32::try_from(record_bytes(payload_bytes as usize)).ok()?;
        (u64::from(bytes) <= Self::BYTES_MAX).then(|| SizeClass::of(bytes))
    }

    /// The class's size in bytes.
    pub(crate) fn bytes(self) -> u64 {
        u64::from(SIZES[usize::from(self.0 & (CLASSES - 1))])
    }
}

/// How many classes there are.
const CLASSES: u16 = 1 << CLASS_BITS;

/// Their sizes, by class: looked up for every entry there is when a store is opened.
static SIZES: [u32; CLASSES as usize] = {
    let mut sizes = [0; CLASSES as usize];
    let mut class = 0;
    while class < CLASSES as u32 {
        let exponent = (class >> MANTISSA_BITS).saturating_sub(1);
        sizes[class as usize] = ((class - (exponent << MANTISSA_BITS)) << exponent) * UNIT;
        class += 1;
    }
    sizes
};

/// Where a record lies and what its segment is charged for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Locator(u64);

impl Locator {
    /// Bytes of a locator in tables, runs and log rows.
    pub(crate) const SIZE: usize = 6;
    pub(super) const LOWEST: Locator = Locator(0);
    pub(super) const HIGHEST: Locator = Locator(u64::MAX >> 16);

    /// A record of `record_bytes` (header, payload and padding) at `offset` of `segment`.
    pub(crate) fn new(segment: u16, offset: u32, record_bytes: u32) -> Locator {
        assert!(segment <= SEGMENT_MAX);
        assert!(offset.is_multiple_of(UNIT), "records begin at multiples of 64");
        assert!(offset <= OFFSET_MAX);
        let class = u64::from(SizeClass::of(record_bytes).0);
        Locator(u64::from(segment) << (OFFSET_BITS + CLASS_BITS) | u64::from(offset / UNIT) << CLASS_BITS | class)
    }

    /// The segment's number.
    pub(crate) fn segment(self) -> u16 {
        (self.0 >> (OFFSET_BITS + CLASS_BITS)) as u16
    }

    /// The record's offset in bytes.
    pub(crate) fn offset(self) -> u32 {
        ((self.0 >> CLASS_BITS) as u32 & ((1 << OFFSET_BITS) - 1)) * UNIT
    }

    /// What the segment's live bytes are charged with.
    pub(crate) fn bytes(self) -> u64 {
        self.class().bytes()
    }

    /// The record's size, rounded up.
    pub(crate) fn class(self) -> SizeClass {
        SizeClass((self.0 & ((1 << CLASS_BITS) - 1)) as u16)
    }

    /// The 48 bits, little-endian.
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Any 48 bits are a locator; whether a record lies there is for the record to say.
    pub(crate) fn from_bytes([a, b, c, d, e, f]: [u8; Self::SIZE]) -> Locator {
        Locator(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: classes are monotone and tight, locators lose nothing. Method: every size up to 5 MiB in units against the
    //! closed form's two promises; random fields there and back.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn size_classes_are_monotone_tight_and_exact_when_small() {
        let mut before = SizeClass(0);
        for units in 1..=(5 << 20) / UNIT {
            let bytes = units * UNIT;
            let class = SizeClass::of(bytes);
            assert!(class >= before);
            assert!(class.bytes() >= u64::from(bytes));
            assert!(class.bytes() - u64::from(bytes) <= u64::from(bytes) / 64);
            assert!(units >= 128 || class.bytes() == u64::from(bytes));
            assert_eq!(SizeClass::of(bytes - UNIT + 1), class, "sizes are rounded up to units");
            before = class;
        }
        assert_eq!(SizeClass::of(SizeClass::BYTES_MAX as u32).0, (1 << CLASS_BITS) - 1);
        assert_eq!(SizeClass::of(0).bytes(), 0);
    }

    #[test]
    fn every_class_is_the_class_of_its_own_size() {
        for class in 0..1 << CLASS_BITS {
            assert_eq!(SizeClass::of(SizeClass(class).bytes() as u32), SizeClass(class));
        }
    }

    proptest! {
        #[test]
        fn locators_hold_their_fields(segment in 0..=SEGMENT_MAX, unit in 0u32..1 << OFFSET_BITS, bytes in 0u32..5 << 20) {
            let locator = Locator::new(segment, unit * UNIT, bytes);
            prop_assert_eq!(locator.segment(), segment);
            prop_assert_eq!(locator.offset(), unit * UNIT);
            prop_assert_eq!(locator.bytes(), SizeClass::of(bytes).bytes());
            prop_assert_eq!(Locator::from_bytes(locator.to_bytes()), locator);
        }
    }
}
