//! A sealed segment, mapped read-only, given out as `Bytes`.
//!
//! Only resident pages are touched: residency is asked of the kernel first (`mincore`), so that a shard's thread does not
//! stall in a page fault. The answer can be outdated by eviction in the moment before the page is read; then the thread
//! faults, which costs time, not correctness. (An input/output error in that fault would end the process with SIGBUS: not
//! contained yet.)
//!
//! What keeps the bytes right: a sealed segment is never written. Its file is recycled only when
//! [`Mapping::into_unused`], else it is unlinked, and an unlinked file lives for as long as it is mapped.

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

const PAGE: usize = 4096;

pub(super) struct Mapping {
    map: Arc<Mmap>,
}

impl Mapping {
    pub(super) fn of(file: &File) -> io::Result<Mapping> {
        // SAFETY: the memory behind a file mapping must not change while it is borrowed as `&[u8]`. These files are in a
        // directory that one process holds locked (`Engine::open`); only it writes them, and it maps a segment only after it
        // was sealed, writes it again only when `into_unused`, and never shortens one.
        let map = unsafe { MmapOptions::new().map(file)? };
        Ok(Mapping { map: Arc::new(map) })
    }

    /// A slice, if all its pages are in memory.
    pub(super) fn resident(&self, offset: u64, length: usize) -> Option<Bytes> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        if end > self.map.len() || length == 0 || !self.is_resident(start..end) {
            return None;
        }
        Some(Bytes::from_owner(Slice { map: self.map.clone(), range: start..end }))
    }

    /// Lets go of the mapping; whether no slice of it is held by anybody. Whatever another thread has read through a slice
    /// it has then read before (a look at the count alone would not promise that).
    pub(super) fn into_unused(self) -> bool {
        Arc::into_inner(self.map).is_some()
    }

    fn is_resident(&self, range: Range<usize>) -> bool {
        let first = range.start - range.start % PAGE;
        let length = range.end - first;
        let mut pages = vec![0u8; length.div_ceil(PAGE)];
        // SAFETY: `first` is page-aligned and `first + length` lies within the mapping (checked by the caller), which
        // `self.map` keeps mapped; the vector has a byte for each page of the range, as mincore writes.
        let result =
            unsafe { libc::mincore(self.map.as_ptr().add(first).cast_mut().cast(), length, pages.as_mut_ptr()) };
        result == 0 && pages.iter().all(|page| page & 1 == 1)
    }
}

/// Part of a mapping, which it keeps mapped.
struct Slice {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}
