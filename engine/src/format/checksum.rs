//! Checksums: xxh3, 64 bits, seeded per store.
//!
//! They find accidents, and forgeries by whoever does not know the seed. They are not the content hash, which is the ring's
//! and is checked above the engine.

use xxhash_rust::xxh3::{Xxh3, Xxh3Builder, xxh3_64_with_seed};

/// Checksum of `bytes`.
pub(crate) fn of(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// The link a batch adds to the chain: over its header and its record headers (which hold the checksums of their
/// payloads), seeded with the link before it. A batch that survived from another life of the segment does not fit.
pub(crate) struct Link(Xxh3);

impl Link {
    pub(crate) fn after(chain_before: u64, seed: u64) -> Link {
        Link(Xxh3Builder::new().with_seed(chain_before ^ seed).build())
    }

    pub(crate) fn add(&mut self, header: &[u8]) {
        self.0.update(header);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// The checksum of bytes that come in pieces: the same as of all of them at once.
pub(crate) struct Stream(Xxh3);

impl Stream {
    pub(crate) fn new(seed: u64) -> Stream {
        Stream(Xxh3Builder::new().with_seed(seed).build())
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0.digest()
    }
}
