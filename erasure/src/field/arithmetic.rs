//! GF(2⁸): bytes that can be added, multiplied and divided.
//!
//! A byte is a polynomial over bits. Adding is exclusive or; multiplying is done modulo x⁸ + x⁴ + x³ + x² + 1 (0x11d), as in
//! ISA-L and RAID-6. 2 generates the whole field, so that every byte but 0 is a power of 2: products are sums of logarithms
//! modulo 255. All tables are made by the compiler.

/// x⁸ + x⁴ + x³ + x² + 1.
const POLYNOMIAL: u16 = 0x11d;

/// Elements but zero, which is the order of the generator: exponents count modulo this.
const ORDER: usize = 255;

/// 2 to each exponent, twice over, so that the sum of two logarithms needs no modulo.
static POWERS: [u8; 2 * ORDER] = tables().0;

/// The exponent of 2 that gives each byte. 0 has none; its entry is never read.
static LOGARITHMS: [u8; 256] = tables().1;

const fn tables() -> ([u8; 2 * ORDER], [u8; 256]) {
    let mut powers = [0; 2 * ORDER];
    let mut logarithms = [0; 256];
    let mut exponent = 0;
    let mut element: u16 = 1;
    while exponent < ORDER {
        powers[exponent] = element as u8;
        powers[exponent + ORDER] = element as u8;
        logarithms[element as usize] = exponent as u8;
        element <<= 1;
        if element > 0xff {
            element ^= POLYNOMIAL;
        }
        exponent += 1;
    }
    (powers, logarithms)
}

/// The product of two bytes.
pub(crate) fn multiply(left: u8, right: u8) -> u8 {
    if left == 0 || right == 0 {
        return 0;
    }
    POWERS[usize::from(LOGARITHMS[usize::from(left)]) + usize::from(LOGARITHMS[usize::from(right)])]
}

/// A product that is still a sum of logarithms, so that factors cost an addition each.
///
/// Invariant: far below overflow: whoever multiplies more factors than a code has fragments reduces in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exponent(u32);

impl Exponent {
    /// The empty product.
    pub(crate) const ONE: Exponent = Exponent(0);

    /// The logarithm of a byte, which must not be zero.
    pub(crate) fn of(element: u8) -> Exponent {
        assert!(element != 0, "zero is no power of two");
        Exponent(u32::from(LOGARITHMS[usize::from(element)]))
    }

    /// The product of both.
    pub(crate) fn times(self, factor: Exponent) -> Exponent {
        Exponent(self.0 + factor.0)
    }

    /// The same element with the least exponent.
    pub(crate) fn reduced(self) -> Exponent {
        Exponent(self.0 % ORDER as u32)
    }

    /// This divided by the other.
    pub(crate) fn over(self, divisor: Exponent) -> Exponent {
        Exponent(self.0 + ORDER as u32 - divisor.reduced().0)
    }

    /// The byte.
    pub(crate) fn element(self) -> u8 {
        POWERS[self.reduced().0 as usize]
    }
}

/// The inverse of a byte that is not zero.
pub(crate) fn invert(element: u8) -> u8 {
    Exponent::ONE.over(Exponent::of(element)).element()
}

/// The product by the rule itself: shift, add, reduce, bit by bit. Makes tables in the compiler; too slow for anything else.
pub(super) const fn multiply_bitwise(left: u8, right: u8) -> u8 {
    let mut product = 0;
    let mut bit = 0;
    let mut shifted = left as u16;
    while bit < 8 {
        if right >> bit & 1 == 1 {
            product ^= shifted;
        }
        shifted <<= 1;
        if shifted > 0xff {
            shifted ^= POLYNOMIAL;
        }
        bit += 1;
    }
    product as u8
}

#[cfg(test)]
mod tests {
    //! Goal: the tables are the field. Method: all 65,536 products against long multiplication and long division of
    //! polynomials, which share nothing with the tables; inverses and quotients against products.
    use super::*;

    /// Multiplies without reducing, then divides by the polynomial from the top bit down.
    fn product_by_long_division(left: u8, right: u8) -> u8 {
        let mut product =
            (0..8).filter(|bit| right >> bit & 1 == 1).fold(0u32, |sum, bit| sum ^ u32::from(left) << bit);
        for bit in (8..=14).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0b1_0001_1101 << (bit - 8);
            }
        }
        u8::try_from(product).expect("reduced")
    }

    #[test]
    fn every_product_is_that_of_polynomials() {
        for left in 0..=255 {
            for right in 0..=255 {
                let expected = product_by_long_division(left, right);
                assert_eq!(multiply(left, right), expected, "{left} · {right}");
                assert_eq!(multiply_bitwise(left, right), expected, "{left} · {right}, bit by bit");
            }
        }
    }

    #[test]
    fn every_quotient_times_its_divisor_is_the_dividend() {
        for divisor in 1..=255 {
            assert_eq!(product_by_long_division(divisor, invert(divisor)), 1);
            for dividend in 1..=255 {
                let quotient = Exponent::of(dividend).over(Exponent::of(divisor)).element();
                assert_eq!(product_by_long_division(quotient, divisor), dividend, "{dividend} / {divisor}");
                let product = Exponent::of(dividend).times(Exponent::of(divisor)).element();
                assert_eq!(product, product_by_long_division(dividend, divisor));
            }
        }
    }
}
