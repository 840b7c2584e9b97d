//! A sealed segment, mapped read-only, given out as `Bytes`.
//!
//! Only pages that are in memory are touched (`residency`), so that a shard's thread does not stall in a page fault.
//!
//! A segment is mapped twice. One view is for the shard's thread, which checks records in it; a fault there is contained
//! (`fault`): the page reads as zeros, the check fails, and the mapping is never used again. The other view is
//! for those who are given checked bytes. No check stands behind them, so nothing is put in the place of a page that
//! can no longer be read there: the process ends, as it would without us, rather than let a reader see other bytes than were
//! checked. Both views show the same pages of the page cache; the second costs address space and page tables only.
//!
//! What keeps the bytes right: a sealed segment is never written. Its file is recycled only when
//! [`Mapping::release`] finds it unused, else it is unlinked, and an unlinked file lives for as long as it is mapped. Holes are
//! punched only into what has died before a release that found the file unused, whoever has mapped it since: nobody
//! is given bytes of the dead (`store/punching`).

use super::fault::{PAGE, Watched};
use super::residency::{Residency, Trust};
use crate::disk::Resident;
use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

pub(super) struct Mapping {
    checked: Arc<CheckedView>,
    given: Arc<Mmap>,
    /// The views whole, as bytes to cut from: a cut is a count, not an allocation.
    checked_bytes: Bytes,
    given_bytes: Bytes,
    residency: Residency,
    /// What it gave was found wrong.
    distrusted: bool,
}

/// The view that faults are contained in. Its range is taken out of the table before it is unmapped: fields are dropped in order.
struct CheckedView {
    watched: Watched,
    map: Mmap,
}

/// Cuts of a mapping that outlive it: while somebody holds one, its file's space is not given back.
pub(super) struct Pinned(Weak<Mmap>);

impl Pinned {
    /// Whether somebody still holds a cut. If nobody does, whatever they have read they have read before.
    pub(super) fn is_held(&self) -> bool {
        let is_held = self.0.strong_count() > 0;
        // The count is read without order; each holder let go of it with release order, which this meets.
        fence(Ordering::Acquire);
        is_held
    }
}

impl Mapping {
    pub(super) fn of(file: &File) -> io::Result<Mapping> {
        // SAFETY: the memory behind a file mapping must not change while it is borrowed as `&[u8]`. These files are in a
        // directory that one process holds locked (`Engine::open`); only it writes them, and it maps a segment only after it
        // was sealed, writes it again, or punches what was given out, only when `release` found nobody holding bytes of it (cuts
        // of later mappings are of other records), and never shortens one. Where
        // somebody else shortens it all the same, or the device fails, pages of `checked` become zeros; only
        // the shard's thread reads those, through `Bytes` it drops before it looks again.
        let (checked, given) = unsafe { (MmapOptions::new().map(file)?, MmapOptions::new().map(file)?) };
        let watched = Watched::range(checked.as_ptr() as usize, checked.len());
        let watched = watched.ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let residency = Residency::of(checked.len().div_ceil(PAGE));
        let (checked, given) = (Arc::new(CheckedView { watched, map: checked }), Arc::new(given));
        let checked_bytes = Bytes::from_owner(Checked(checked.clone()));
        let given_bytes = Bytes::from_owner(Given(given.clone()));
        Ok(Mapping { checked, given, checked_bytes, given_bytes, residency, distrusted: false })
    }

    /// A range, if all its pages are in memory and none of the segment's was found unreadable.
    pub(super) fn resident(&mut self, offset: u64, length: usize, now_ms: u32, trust: &mut Trust) -> Option<Resident> {
        let range = self.range(offset, length)?;
        if self.is_quarantined() {
            return None;
        }
        let map = &self.checked.map;
        if !self.residency.is_resident(pages(&range), now_ms, trust, |first| in_memory(map, first)) {
            return None;
        }
        let (checked, given) = (self.checked_bytes.slice(range.clone()), self.given_bytes.slice(range));
        Some(Resident { checked, given })
    }

    /// Whether it is not used any more: a page of it could not be read, or was found wrong.
    pub(super) fn is_quarantined(&self) -> bool {
        self.distrusted || self.checked.watched.has_faulted()
    }

    pub(super) fn quarantine(&mut self) {
        self.distrusted = true;
    }

    /// Notes that a range is read from the device; whether it was before, and would be found here the next time.
    pub(super) fn read_again(&mut self, offset: u64, length: usize) -> bool {
        !self.is_quarantined()
            && self.range(offset, length).is_some_and(|range| self.residency.read_again(pages(&range)))
    }

    /// A range has come into memory.
    pub(super) fn came_in(&mut self, offset: u64, length: usize) {
        if let Some(range) = self.range(offset, length) {
            self.residency.came_in(pages(&range));
        }
    }

    /// Lets go of the mapping. `None` if nobody holds bytes of it. Whatever another thread has read through a slice it has
    /// then read before (a look at the counts alone would not promise that).
    pub(super) fn release(self) -> Option<Pinned> {
        let Mapping { checked, given, checked_bytes, given_bytes, .. } = self;
        drop((checked_bytes, given_bytes));
        let pinned = Pinned(Arc::downgrade(&given));
        // Both, whatever the first says.
        let unused = [Arc::into_inner(checked).is_some(), Arc::into_inner(given).is_some()];
        (unused != [true, true]).then_some(pinned)
    }

    fn range(&self, offset: u64, length: usize) -> Option<Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        (length > 0 && end <= self.checked.map.len()).then_some(start..end)
    }
}

fn pages(range: &Range<usize>) -> Range<usize> {
    range.start / PAGE..range.end.div_ceil(PAGE)
}

/// Which of the 64 pages from `first` on are in memory.
fn in_memory(map: &Mmap, first: usize) -> u64 {
    let start = first * PAGE;
    assert!(start < map.len());
    let length = (map.len() - start).min(64 * PAGE);
    let mut pages = [0u8; 64];
    // SAFETY: `start` is page-aligned, `start + length` lies within the mapping, which the reference keeps mapped; the array
    // has a byte for each page of the range, as mincore writes.
    let result = unsafe { libc::mincore(map.as_ptr().add(start).cast_mut().cast(), length, pages.as_mut_ptr()) };
    if result != 0 {
        return 0;
    }
    pages.iter().enumerate().fold(0, |bits, (page, state)| bits | u64::from(state & 1) << page)
}

/// Keeps the checked view mapped.
struct Checked(Arc<CheckedView>);

impl AsRef<[u8]> for Checked {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

/// Keeps the given view mapped.
struct Given(Arc<Mmap>);

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
