//! Aligned memory for cold reads.
//!
//! A read brings whole units of the device into a buffer; the answer is a slice of it. When the last slice is dropped, on
//! whatever thread, the memory goes back to its pool, so that a steady load of cold reads allocates and clears nothing. The
//! pool keeps at most [`limits::READ_POOL_BYTES`]; what comes back beyond that is freed. How much is lent out is bounded by
//! the reads in flight and by what the readers hold.

use crate::limits::{self, BLOCK};
use crossbeam::queue::ArrayQueue;
use rkyv::util::AlignedVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sizes: one block, two, four … up to a chunk. Larger buffers are not pooled.
const SIZES: usize = (limits::CHUNK / BLOCK).ilog2() as usize + 1;

/// Memory for reads, by size.
pub(super) struct ReadPool {
    shelves: [ArrayQueue<AlignedVec<BLOCK>>; SIZES],
    /// Bytes on all shelves.
    kept: AtomicUsize,
}

/// Memory of a read: `length` bytes, aligned, of any content until they have been read.
pub(super) struct ReadBuffer {
    bytes: AlignedVec<BLOCK>,
    length: usize,
    pool: Arc<ReadPool>,
}

impl ReadPool {
    pub(super) fn new() -> Arc<ReadPool> {
        let shelves = std::array::from_fn(|_| ArrayQueue::new(limits::READS_IN_FLIGHT));
        Arc::new(ReadPool { shelves, kept: AtomicUsize::new(0) })
    }

    /// A buffer of so many bytes, aligned to a block.
    pub(super) fn lend(self: &Arc<ReadPool>, length: usize) -> ReadBuffer {
        let shelf = shelf_of(length);
        let kept = shelf.and_then(|shelf| self.shelves[shelf].pop()).inspect(|bytes| {
            self.kept.fetch_sub(bytes.len(), Ordering::Relaxed);
        });
        let bytes = kept.unwrap_or_else(|| {
            let mut bytes = AlignedVec::new();
            bytes.resize(shelf.map_or(length.next_multiple_of(BLOCK), |shelf| BLOCK << shelf), 0);
            bytes
        });
        assert!(bytes.len() >= length);
        ReadBuffer { bytes, length, pool: self.clone() }
    }

    fn take_back(&self, bytes: AlignedVec<BLOCK>) {
        let Some(shelf) = shelf_of(bytes.len()) else { return };
        let length = bytes.len();
        // Counted before it lies there, so that nobody takes away what was not yet added.
        if self.kept.fetch_add(length, Ordering::Relaxed) + length > limits::READ_POOL_BYTES
            || self.shelves[shelf].push(bytes).is_err()
        {
            self.kept.fetch_sub(length, Ordering::Relaxed);
        }
    }
}

fn shelf_of(length: usize) -> Option<usize> {
    let shelf = length.div_ceil(BLOCK).next_power_of_two().ilog2() as usize;
    (shelf < SIZES).then_some(shelf)
}

impl ReadBuffer {
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.pool.take_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// Goal: memory comes back with its last reader, on another thread too, and the pool keeps no more than its bound.
    /// Method: addresses compared; more given back than may be kept.
    #[test]
    fn memory_comes_back_and_not_too_much_of_it() {
        let pool = ReadPool::new();
        let mut buffer = pool.lend(3 * BLOCK);
        buffer.as_mut_slice().fill(7);
        assert_eq!((buffer.len(), buffer.bytes.len()), (3 * BLOCK, 4 * BLOCK));
        let address = buffer.bytes.as_ptr() as usize;
        assert!(address.is_multiple_of(BLOCK));
        let slice = Bytes::from_owner(buffer).slice(10..20);
        assert_ne!(pool.lend(4 * BLOCK).bytes.as_ptr() as usize, address, "a reader holds it");
        std::thread::spawn(move || assert_eq!(*slice, [7; 10])).join().unwrap();
        let lent = [pool.lend(4 * BLOCK), pool.lend(4 * BLOCK)];
        assert!(lent.iter().any(|buffer| buffer.bytes.as_ptr() as usize == address), "it came back");
        let many: Vec<_> = (0..limits::READ_POOL_BYTES / limits::CHUNK + 3).map(|_| pool.lend(limits::CHUNK)).collect();
        drop((many, lent));
        assert!(pool.kept.load(Ordering::Relaxed) <= limits::READ_POOL_BYTES);
        let kept: usize = pool.shelves.iter().enumerate().map(|(shelf, queue)| queue.len() * (BLOCK << shelf)).sum();
        assert_eq!(pool.kept.load(Ordering::Relaxed), kept);
        drop(pool.lend(64 * limits::CHUNK));
        assert_eq!(pool.kept.load(Ordering::Relaxed), kept, "what is larger than any shelf is not kept");
    }
}
