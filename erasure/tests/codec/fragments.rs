//! Fragments to test with: pseudo-random bytes from a seed, and all fragments of them.

use erasure::{Code, Encoder};

/// A small generator of pseudo-random numbers (SplitMix64): the same seed, the same numbers.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.number() >> 56) as u8).collect()
    }

    /// All indexes below `total`, in a random order.
    pub(crate) fn shuffled(&mut self, total: usize) -> Vec<u8> {
        let mut all: Vec<u8> = (0..total).map(|index| index as u8).collect();
        for at in (1..total).rev() {
            all.swap(at, self.below(at + 1));
        }
        all
    }
}

/// The buffers as the codec wants them to read.
pub(crate) fn read<Buffer: AsRef<[u8]>>(buffers: &[Buffer]) -> Vec<&[u8]> {
    buffers.iter().map(AsRef::as_ref).collect()
}

/// The buffers as the codec wants them to write.
pub(crate) fn write<Buffer: AsMut<[u8]>>(buffers: &mut [Buffer]) -> Vec<&mut [u8]> {
    buffers.iter_mut().map(AsMut::as_mut).collect()
}

/// All n fragments of random data.
pub(crate) fn encoded(code: &Code, length: usize, chance: &mut Chance) -> Vec<Vec<u8>> {
    let data: Vec<Vec<u8>> = (0..code.needed()).map(|_| chance.bytes(length)).collect();
    let mut parity = vec![vec![0xa5; length]; code.parity()];
    Encoder::new(code).encode(&read(&data), &mut write(&mut parity)).expect("sound");
    data.into_iter().chain(parity).collect()
}
