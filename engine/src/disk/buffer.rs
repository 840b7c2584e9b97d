//! The memory a batch is built and written in.
//!
//! A [`Buffer`] is aligned for O_DIRECT and written as it stands: payload is copied into it once and nowhere else. Its
//! memory may belong to a [`Pool`], which the ring has registered with the kernel; then it goes back there when the last
//! reader of the batch lets go, and no memory is allocated, faulted in or zeroed for a batch. A pool is bounded: when all of
//! it is lent out, or a batch outgrows its buffer, memory of its own takes its place.
//!
//! Invariant: memory of a pool is never freed or moved while the pool lives. [`Buffer`] alone holds it outside, never lets it
//! grow, and returns it when dropped.

use crate::limits::BLOCK;
use crossbeam::queue::ArrayQueue;
use rkyv::util::AlignedVec;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Aligned memory with what has been written into it.
pub struct Buffer {
    bytes: AlignedVec<BLOCK>,
    /// Where the memory goes in the end.
    home: Option<Arc<ArrayQueue<AlignedVec<BLOCK>>>>,
}

impl Buffer {
    /// Memory of its own.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Buffer {
        Buffer { bytes: AlignedVec::with_capacity(capacity), home: None }
    }

    /// Appends a copy.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends zeros, up to this length.
    pub fn pad(&mut self, length: usize) {
        assert!(length >= self.bytes.len(), "padding only lengthens");
        self.make_room(length - self.bytes.len());
        self.bytes.resize(length, 0);
    }

    /// Bytes it keeps in memory, used or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// A buffer that is full moves to memory of its own, of at least twice the size; a pool's goes home.
    fn make_room(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return;
        }
        let mut larger = Buffer::with_capacity(needed.max(2 * self.bytes.capacity()).next_multiple_of(BLOCK));
        larger.bytes.extend_from_slice(&self.bytes);
        *self = larger;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        // The queue has a place for every buffer of the pool.
        assert!(home.push(bytes).is_ok(), "a buffer comes home once");
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Buffers of a few sizes, smallest first, all made at once.
pub struct Pool {
    shelves: Vec<Shelf>,
}

struct Shelf {
    capacity: usize,
    buffers: Arc<ArrayQueue<AlignedVec<BLOCK>>>,
}

impl Pool {
    /// A pool of so many buffers of such a capacity, for each pair; capacities ascend.
    #[must_use]
    pub fn new(sizes: &[(usize, usize)]) -> Pool {
        assert!(sizes.is_sorted_by_key(|(_, capacity)| capacity));
        let shelf = |(count, capacity): &(usize, usize)| {
            let buffers = Arc::new(ArrayQueue::new(*count));
            for _ in 0..*count {
                assert!(buffers.push(AlignedVec::with_capacity(*capacity)).is_ok(), "the queue has a place for each");
            }
            Shelf { capacity: *capacity, buffers }
        };
        Pool { shelves: sizes.iter().map(shelf).collect() }
    }

    /// A buffer for so many bytes, if one that is large enough is at home.
    #[must_use]
    pub fn take(&self, capacity: usize) -> Option<Buffer> {
        let fitting = self.shelves.iter().filter(|shelf| shelf.capacity >= capacity);
        fitting.into_iter().find_map(|shelf| {
            let bytes = shelf.buffers.pop()?;
            assert!(bytes.is_empty());
            assert!(bytes.capacity() >= shelf.capacity, "memory of a pool keeps its size");
            Some(Buffer { bytes, home: Some(shelf.buffers.clone()) })
        })
    }

    /// Every buffer that is at home: all of them, when nothing has been lent yet.
    #[must_use]
    pub fn at_home(&self) -> Vec<Buffer> {
        self.shelves.iter().flat_map(|shelf| std::iter::from_fn(|| Pool::lend(shelf))).collect()
    }

    fn lend(shelf: &Shelf) -> Option<Buffer> {
        let bytes = shelf.buffers.pop()?;
        Some(Buffer { bytes, home: Some(shelf.buffers.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// Goal: memory comes home when its last reader lets go, and only then; a pool lent out lends nothing. Method: lend all,
    /// hold slices, compare addresses.
    #[test]
    fn buffers_come_home_with_their_last_reader() {
        let pool = Pool::new(&[(1, 2 * BLOCK), (1, 8 * BLOCK)]);
        let mut small = pool.take(BLOCK).unwrap();
        let address = small.as_ptr();
        let large = pool.take(BLOCK).expect("a larger one serves as well");
        assert!(large.capacity() >= 8 * BLOCK);
        assert!(pool.take(BLOCK).is_none());
        small.extend(&[7; 100]);
        let slice = Bytes::from_owner(small).slice(10..20);
        assert!(pool.take(BLOCK).is_none(), "a reader holds it");
        drop(slice);
        let again = pool.take(BLOCK).expect("home");
        assert_eq!(again.as_ptr(), address);
        assert!(again.is_empty());
    }

    /// Goal: a batch that outgrows its buffer keeps its bytes, and the pool its memory.
    #[test]
    fn an_outgrown_buffer_goes_home() {
        let pool = Pool::new(&[(1, BLOCK)]);
        let mut buffer = pool.take(BLOCK).unwrap();
        buffer.extend(&[1; 4000]);
        buffer.extend(&[2; 4000]);
        assert!(buffer[..4000].iter().all(|byte| *byte == 1) && buffer[4000..].iter().all(|byte| *byte == 2));
        assert!((buffer.as_ptr() as usize).is_multiple_of(BLOCK));
        assert!(pool.take(BLOCK).is_some());
    }
}
