//! An arc: a contiguous stretch of ring positions with the table of the objects that lie there.
//!
//! Arcs are what keeps everything about the index small and steady: tables are rebuilt, written to checkpoints, swept and
//! summed up one arc at a time, and an arc is split before it is large enough to make that take long.
//!
//! Invariant: unless it is stale, the digest sums up exactly the entries of the table. It becomes stale when a record that
//! cannot be read is dropped, because nobody can say which version that was; a rebuild sums up anew.

use super::hash::KeyHash;
use super::locator::Locator;
use super::table::Table;

/// What two stores compare to learn whether they hold the same objects of a range: how many, and the sum of their elements.
/// Leases are not in it: they differ between stores that are in perfect agreement about objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Digest {
    pub(crate) count: u64,
    pub(crate) sum: u128,
}

impl Digest {
    pub(crate) fn add(&mut self, element: u128) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(element);
    }

    pub(crate) fn subtract(&mut self, element: u128) {
        assert!(self.count > 0, "what is taken out was put in");
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(element);
    }

    /// The digest of two ranges without common objects.
    pub(crate) fn join(&mut self, other: Digest) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// An entry with everything a table does not keep, as a rebuild needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) position: u64,
    pub(crate) hash: KeyHash,
    pub(crate) locator: Locator,
    pub(crate) element: u128,
}

/// Positions `low..=high` and what is there.
#[derive(Clone, Debug)]
pub(crate) struct Arc {
    pub(crate) low: u64,
    pub(crate) high: u64,
    pub(crate) table: Table,
    pub(crate) digest: Digest,
    /// Whether the digest counts something that is gone.
    pub(crate) is_stale: bool,
    /// While a rebuild is under way: what was added since it began.
    pub(super) noted: Option<Vec<Known>>,
    /// The last snapshot that has this arc.
    pub(super) snapshot: u64,
}

impl Arc {
    pub(crate) fn new(low: u64, high: u64, table: Table) -> Arc {
        assert!(low <= high);
        Arc { low, high, table, digest: Digest::default(), is_stale: false, noted: None, snapshot: 0 }
    }

    pub(super) fn count_in(&mut self, element: u128) {
        if !self.is_stale {
            self.digest.add(element);
        }
    }

    pub(super) fn count_out(&mut self, element: u128) {
        if !self.is_stale {
            self.digest.subtract(element);
        }
    }

    pub(super) fn note(&mut self, known: Known) {
        if let Some(noted) = &mut self.noted {
            noted.push(known);
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let noted = self.noted.as_ref().map_or(0, |noted| noted.capacity() * size_of::<Known>());
        size_of::<Arc>() + self.table.bytes() + noted
    }

    #[cfg(any(test, feature = "simulation", feature = "fuzzing"))]
    /// Panics unless the invariants hold that can be seen without keys.
    pub(crate) fn check(&self) {
        self.table.check();
        assert!(self.low <= self.high);
        assert!(self.is_stale || self.digest.count == self.table.len() as u64);
    }
}
