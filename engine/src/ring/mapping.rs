//! A segment, mapped read-only, given out as `Bytes`.
//!
//! Only pages that are in memory are touched (`residency`), so that a shard's thread does not stall in a page fault.
//!
//! A segment is mapped twice. One view is for the shard's thread, which checks records in it; a fault there is contained
//! (`fault`): the page reads as zeros, the check fails, and the mapping is never used again. The other view is
//! for those who are given checked bytes. No check stands behind them, so nothing is put in the place of a page that
//! can no longer be read there: the process ends, as it would without us, rather than let a reader see other bytes than were
//! checked. Both views show the same pages of the page cache; the second costs address space and page tables only.
//!
//! What keeps the bytes right: a range is given out only when it is not written any more ([`crate::disk::Disk::resident`]). The
//! rest of the file may be written and may grow, past the page cache; the kernel drops from the cache what a direct write
//! has changed, and is told not to read ahead of what is touched, so that it seldom has to. When a file has grown, new views
//! take the place of the old ones, which live for as long as somebody holds bytes of them. A file is recycled only when
//! [`Mapping::release`] finds it unused, else it is unlinked, and an unlinked file lives for as long as it is mapped. Holes are
//! punched only into what has died before a release that found the file unused, whoever has mapped it since: nobody
//! is given bytes of the dead (`store/punching`).

use super::fault::{PAGE, Watched};
use super::residency::{Residency, Trust};
use crate::disk::Resident;
use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

pub(super) struct Mapping {
    views: Views,
    /// Views from before the file grew, of which somebody held bytes then.
    older: Vec<Arc<Mmap>>,
    residency: Residency,
    /// What it gave was found wrong, or could not be read.
    distrusted: bool,
}

/// A file as long as it was at one moment, mapped twice.
struct Views {
    checked: Arc<CheckedView>,
    given: Arc<Mmap>,
    /// The views whole, as bytes to cut from: a cut is a count, not an allocation.
    checked_bytes: Bytes,
    given_bytes: Bytes,
}

/// The view that faults are contained in. Its range is taken out of the table before it is unmapped: fields are dropped in order.
struct CheckedView {
    watched: Watched,
    map: Mmap,
}

/// Cuts of a mapping that outlive it: while somebody holds one, its file's space is not given back.
pub(super) struct Pinned(Vec<Weak<Mmap>>);

impl Pinned {
    /// Whether somebody still holds a cut. If nobody does, whatever they have read they have read before.
    pub(super) fn is_held(&self) -> bool {
        let is_held = self.0.iter().any(|view| view.strong_count() > 0);
        // The counts are read without order; each holder let go of its view with release order, which this meets.
        fence(Ordering::Acquire);
        is_held
    }
}

impl Views {
    /// Maps a file of a directory that one process holds locked (`Engine::open`): only that process writes it.
    ///
    /// What it cuts from the views it does not write any more; it writes that again, or punches it, only when `release` has found
    /// nobody holding bytes of the file (cuts of later views are of other records), and it never shortens a file. Where
    /// somebody else does, or the device fails, pages of `checked` become zeros: only the shard's thread reads those,
    /// through `Bytes` it drops before it looks again.
    fn of(file: &File) -> io::Result<Views> {
        // SAFETY: memory behind a mapping must not change while it is borrowed as `&[u8]`. Only cuts are ever read, and what is
        // cut changes while it is held only where the text above says so. The whole views are never read: `Bytes` keeps
        // their address and length.
        let (checked, given) = unsafe { (MmapOptions::new().map(file)?, MmapOptions::new().map(file)?) };
        for view in [&checked, &given] {
            // Only advice: where the kernel does not take it, it reads more than is needed.
            let _ = view.advise(Advice::Random);
        }
        let watched = Watched::range(checked.as_ptr() as usize, checked.len());
        let watched = watched.ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let (checked, given) = (Arc::new(CheckedView { watched, map: checked }), Arc::new(given));
        let checked_bytes = Bytes::from_owner(Checked(checked.clone()));
        let given_bytes = Bytes::from_owner(Given(given.clone()));
        Ok(Views { checked, given, checked_bytes, given_bytes })
    }
}

impl Mapping {
    pub(super) fn of(file: &File) -> io::Result<Mapping> {
        let views = Views::of(file)?;
        let residency = Residency::of(views.given.len().div_ceil(PAGE));
        Ok(Mapping { views, older: Vec::new(), residency, distrusted: false })
    }

    /// Maps what has been added to the file since, if the range lies there. What is held stays as it is.
    pub(super) fn follow(&mut self, file: &File, offset: u64, length: usize) -> io::Result<()> {
        let mapped = self.views.given.len() as u64;
        if offset.saturating_add(length as u64) <= mapped || file.metadata()?.len() <= mapped {
            return Ok(());
        }
        let Views { checked, given, checked_bytes, given_bytes } = std::mem::replace(&mut self.views, Views::of(file)?);
        drop((checked_bytes, given_bytes));
        self.distrusted |= checked.watched.has_faulted();
        self.residency.grow(self.views.given.len().div_ceil(PAGE));
        self.older.push(given);
        // Those that nobody holds are unmapped. A view that is not cut from any more gets no new holders.
        self.older.retain(|view| Arc::strong_count(view) > 1);
        Ok(())
    }

    /// A range, if all its pages are in memory and none of the segment's was found unreadable.
    pub(super) fn resident(&mut self, offset: u64, length: usize, now_ms: u32, trust: &mut Trust) -> Option<Resident> {
        let range = self.range(offset, length)?;
        if self.is_quarantined() {
            return None;
        }
        let map = &self.views.checked.map;
        if !self.residency.is_resident(pages(&range), now_ms, trust, |first| in_memory(map, first)) {
            return None;
        }
        let checked = self.views.checked_bytes.slice(range.clone());
        let given = self.views.given_bytes.slice(range);
        Some(Resident { checked, given })
    }

    /// Whether it is not used any more: a page of it could not be read, or was found wrong.
    pub(super) fn is_quarantined(&self) -> bool {
        self.distrusted || self.views.checked.watched.has_faulted()
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
        let Mapping { views: Views { checked, given, checked_bytes, given_bytes }, older, .. } = self;
        drop((checked_bytes, given_bytes));
        let views: Vec<Arc<Mmap>> = older.into_iter().chain([given]).collect();
        let pinned = Pinned(views.iter().map(Arc::downgrade).collect());
        // All of them, whatever the first says.
        let held = views.into_iter().filter_map(|view| Arc::into_inner(view).is_none().then_some(())).count();
        let unused = Arc::into_inner(checked).is_some() && held == 0;
        (!unused).then_some(pinned)
    }

    fn range(&self, offset: u64, length: usize) -> Option<Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        (length > 0 && end <= self.views.checked.map.len()).then_some(start..end)
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
