//! A file of the directory, opened: through the page cache, and, if it is a segment, past it as well.
//!
//! Through the cache a segment is read a record at a time. What lies beside a record is no reason to read it: the kernel is told
//! not to read ahead, which otherwise brings in up to a megabyte for a few thousand bytes as soon as some of a file is cached.
//!
//! Past the cache, a read begins and ends where the device allows: its logical block, often 512 bytes, as the kernel says
//! (`STATX_DIOALIGN`, Linux 6.1), else our own [`BLOCK`].

use super::failure;
use super::mapping::Mapping;
use crate::disk::{DiskError, FileName};
use crate::limits::{BLOCK, SECTOR};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

pub(super) struct Handle {
    pub(super) cached: Arc<File>,
    /// Opened with O_DIRECT, where the file system has it.
    pub(super) direct: Option<Arc<File>>,
    /// What direct reads are aligned to: a power of two, at most a block.
    pub(super) unit: usize,
    pub(super) mapping: Option<Mapping>,
    /// Mapping it has failed; it is read instead.
    pub(super) unmappable: bool,
}

impl Handle {
    pub(super) fn open(dir: &Path, file: FileName, create: bool) -> Result<Handle, DiskError> {
        let path = dir.join(file.to_string());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false);
        let cached = options.open(&path).map_err(|error| failure(&error))?;
        let mut direct = None;
        if matches!(file, FileName::Segment(_)) {
            read_at_random(&cached);
            direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).ok();
        }
        let unit = direct.as_ref().and_then(alignment).unwrap_or(BLOCK);
        let (cached, direct) = (Arc::new(cached), direct.map(Arc::new));
        Ok(Handle { cached, direct, unit, mapping: None, unmappable: false })
    }
}

/// Tells the kernel not to read ahead. It may ignore that.
fn read_at_random(file: &File) {
    // SAFETY: takes a descriptor that `file` keeps open, and numbers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
}

/// What direct reads of a file must be aligned to, in the file and in memory, if the kernel tells and it is no more than a block.
fn alignment(file: &File) -> Option<usize> {
    // SAFETY: `statx` is made of integers, for which all zeros is a value.
    let mut told: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is kept open by `file`; the path is an empty string that ends with a zero, which with AT_EMPTY_PATH
    // means the descriptor itself; `told` is a `statx` of the size the kernel writes and lives through the call.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &raw mut told)
    };
    if result != 0 || told.stx_mask & libc::STATX_DIOALIGN == 0 {
        return None;
    }
    let unit = told.stx_dio_offset_align.max(told.stx_dio_mem_align) as usize;
    (unit.is_power_of_two() && unit <= BLOCK).then_some(unit.max(SECTOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// Goal: what the kernel says of alignment is true of this file system. Method: direct reads at each multiple of the unit within
    /// two blocks.
    #[test]
    fn a_direct_read_may_begin_at_any_unit() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..4 * BLOCK).map(|at| (at / 7) as u8).collect();
        let file = FileName::Segment(1);
        std::fs::write(dir.path().join(file.to_string()), &content).unwrap();
        let handle = Handle::open(dir.path(), file, false).unwrap();
        let Some(direct) = &handle.direct else { return println!("this file system has no direct reads") };
        println!("direct reads are aligned to {} bytes", handle.unit);
        let mut memory = rkyv::util::AlignedVec::<BLOCK>::new();
        memory.resize(2 * BLOCK, 0);
        for offset in (0..2 * BLOCK).step_by(handle.unit) {
            let length = handle.unit + offset;
            assert_eq!(direct.read_at(&mut memory[..length], offset as u64).unwrap(), length);
            assert_eq!(memory[..length], content[offset..offset + length]);
        }
    }
}
