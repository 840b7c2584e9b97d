//! Checksums: xxh3, 64 bits, seeded per store.
//!
//! They find accidents, and forgeries by whoever does not know the seed. They are not the content hash, which is the ring's
//! and is checked above the engine.

use std::hash::Hasher as _;
use twox_hash::XxHash3_64;

/// Checksum of `bytes`.
pub(crate) fn of(bytes: &[u8], seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// The link a batch adds to the chain: over its header and its record headers (which hold the checksums of their
/// payloads), seeded with the link before it. A batch that survived from another life of the segment does not fit.
pub(crate) struct Link(XxHash3_64);

impl Link {
    pub(crate) fn after(chain_before: u64, seed: u64) -> Link {
        Link(XxHash3_64::with_seed(chain_before ^ seed))
    }

    pub(crate) fn add(&mut self, header: &[u8]) {
        self.0.write(header);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0.finish()
    }
}

/// The checksum of bytes that come in pieces: the same as of all of them at once.
pub(crate) struct Stream(XxHash3_64);

impl Stream {
    pub(crate) fn new(seed: u64) -> Stream {
        Stream(XxHash3_64::with_seed(seed))
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the checksums on disk are XXH3 and stay it, whatever library and whatever instructions compute them. Method: every
    //! length around the algorithm's edges, at once and in pieces, against another implementation.
    use super::*;
    use crate::sim_disk::Chance;
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    #[test]
    fn equal_to_another_implementation_at_once_and_in_pieces() {
        let mut chance = Chance::new(3);
        let bytes: Vec<u8> = (0..70_000).map(|_| chance.below(256) as u8).collect();
        for length in (0..1100).chain([4095, 4096, 4097, 65_535, 65_536, 65_537]) {
            let (seed, bytes) = (chance.below(u64::MAX), &bytes[..length]);
            let expected = xxh3_64_with_seed(bytes, seed);
            assert_eq!(of(bytes, seed), expected, "{length} bytes");
            let (mut stream, mut link) = (Stream::new(seed), Link::after(seed ^ 5, 5));
            let mut rest = bytes;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(1 + chance.below(rest.len() as u64) as usize);
                stream.add(piece);
                link.add(piece);
                rest = behind;
            }
            assert_eq!((stream.finish(), link.finish()), (expected, expected), "{length} bytes in pieces");
        }
    }
}
