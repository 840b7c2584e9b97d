//! Memory for the fragments of one aggregate: one piece of it, used again.
//!
//! Fresh memory is the dearest part of coding: the system hands it out page by page, and each page is made of zeros first. So a
//! slab goes back to where it came from when the last [`Bytes`] of it is dropped, whoever does that, and serves the next
//! aggregate as it is: whoever takes a slab overwrites what it gives away. What is kept is bounded for the whole process, and is only
//! for what is of about its size, lest a small fragment hold on to a large piece of memory.

use super::limits::{SLAB_BYTES_MIN, SLABS_KEPT_BYTES_MAX};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex};

/// The pool of all coders of the process.
static SHARED: LazyLock<Pool> = LazyLock::new(|| Pool(Arc::default()));

/// Slabs that wait to be used again.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Mutex<Kept>>);

/// The slabs of a pool, the latest at the end.
///
/// Invariants: each has [`SLAB_BYTES_MIN`] bytes at least; `bytes` is what all have together, at most
/// [`SLABS_KEPT_BYTES_MAX`].
#[derive(Debug, Default)]
struct Kept {
    slabs: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Memory with anything in it.
#[derive(Debug)]
pub(super) struct Slab {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Default for Pool {
    fn default() -> Pool {
        SHARED.clone()
    }
}

impl Pool {
    /// A slab of so many bytes, or up to twice as many.
    pub(super) fn take(&self, bytes: usize) -> Slab {
        // Poisoned, it keeps nothing from then on.
        let kept = self.0.lock().ok().and_then(|mut kept| kept.take(bytes));
        Slab { bytes: kept.unwrap_or_else(|| vec![0; bytes]), pool: self.clone() }
    }
}

impl Kept {
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let at = self.slabs.iter().rposition(|slab| (bytes..=2 * bytes).contains(&slab.len()))?;
        let slab = self.slabs.remove(at)?;
        self.bytes -= slab.len();
        Some(slab)
    }

    /// Keeps a slab, if it is worth it, instead of those that have not been used for longest.
    fn give_back(&mut self, slab: Vec<u8>) {
        if !(SLAB_BYTES_MIN..=SLABS_KEPT_BYTES_MAX).contains(&slab.len()) {
            return;
        }
        self.bytes += slab.len();
        self.slabs.push_back(slab);
        while self.bytes > SLABS_KEPT_BYTES_MAX
            && let Some(oldest) = self.slabs.pop_front()
        {
            self.bytes -= oldest.len();
        }
        assert!(self.bytes <= SLABS_KEPT_BYTES_MAX);
    }
}

impl Slab {
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Ok(mut kept) = self.pool.0.lock() {
            kept.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

impl From<Slab> for Bytes {
    fn from(slab: Slab) -> Bytes {
        Bytes::from_owner(slab)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a slab is used again when nobody has bytes of it, not before, and not for much less; what is kept is bounded. Method:
    //! addresses, and the pool looked into.
    use super::*;

    fn pool() -> Pool {
        Pool(Arc::default())
    }

    #[test]
    fn a_slab_is_used_again_once_all_its_bytes_are_dropped() {
        let pool = pool();
        let slab = pool.take(SLAB_BYTES_MIN);
        let address = slab.as_ref().as_ptr().addr();
        let bytes = Bytes::from(slab);
        let part = bytes.slice(5..7);
        drop(bytes);
        assert!(pool.0.lock().unwrap().slabs.is_empty(), "part of it is held");
        drop(part);
        assert_eq!(pool.take(SLAB_BYTES_MIN).as_ref().as_ptr().addr(), address);
        assert!(pool.take(SLAB_BYTES_MIN / 2 - 1).as_ref().len() < SLAB_BYTES_MIN, "not for what is much smaller");
        assert!(pool.take(SLAB_BYTES_MIN + 1).as_ref().len() > SLAB_BYTES_MIN, "nor for what is larger");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pool = pool();
        for bytes in [0, SLAB_BYTES_MIN - 1, SLABS_KEPT_BYTES_MAX + 1] {
            drop(pool.take(bytes));
            assert_eq!(pool.0.lock().unwrap().bytes, 0);
        }
        for step in 0..200 {
            let sizes = (0..5).map(|slab| SLAB_BYTES_MIN << ((step * 7 + slab * 3) % 8));
            let slabs: Vec<Slab> = sizes.map(|bytes| pool.take(bytes)).collect();
            drop(slabs);
            let kept = pool.0.lock().unwrap();
            assert_eq!(kept.bytes, kept.slabs.iter().map(Vec::len).sum::<usize>());
            assert!(kept.bytes <= SLABS_KEPT_BYTES_MAX && kept.bytes > 0);
        }
    }
}
