//! What the disk gives when nothing but durable batches is asked of it: the ceiling that the write path is measured against.
//!
//! Batches of one size are written one behind the other into one file, with O_DIRECT from registered buffers, so many of
//! them in flight at once. No index, no checksum, no acknowledgement. It lies here and not with the measurements because
//! it needs what only this room may do: hand buffers to the kernel.

use super::setup::open_ring;
use crate::disk::Buffer;
use crate::limits::{BLOCK, CHUNK};
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// What lies on the disk where the batches go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Allocated and never written: the file system notes at each write that it now is.
    Unwritten,
    /// Written with zeros beforehand, or a file used before: the write is all there is to do.
    Written,
}

/// How a batch is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// By the write itself (RWF_DSYNC).
    WithWrite,
    /// By an fdatasync linked behind the write.
    AfterWrite,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    /// What the file is like before.
    pub ground: Ground,
    /// How batches become durable.
    pub sync: Sync,
    /// Bytes of a batch, a multiple of 4096.
    pub batch_bytes: usize,
    /// Batches in flight at once.
    pub in_flight: usize,
    /// Batches written.
    pub batches: usize,
}

impl Ceiling {
    /// Writes the batches into a file in `dir`, which is removed again; returns the time from the first to the last.
    ///
    /// # Errors
    /// If the file system fails or has no O_DIRECT, or there is no ring.
    pub fn measure(&self, dir: &Path) -> io::Result<Duration> {
        assert!(self.batch_bytes > 0 && self.batch_bytes.is_multiple_of(BLOCK));
        assert!(self.in_flight > 0 && self.in_flight <= u16::MAX as usize);
        let path = dir.join("ceiling");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)?;
        let measured = self.lay_ground(&file).and_then(|()| self.run(&file));
        std::fs::remove_file(&path)?;
        measured
    }

    fn lay_ground(&self, file: &File) -> io::Result<()> {
        let length = (self.batch_bytes * self.batches) as u64;
        // SAFETY: fallocate takes integers and a descriptor that `file` keeps open.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if self.ground == Ground::Written {
            let mut zeros = Buffer::with_capacity(CHUNK);
            zeros.pad(CHUNK);
            let mut at = 0;
            while at < length {
                let now = (length - at).min(CHUNK as u64);
                file.write_all_at(&zeros[..now as usize], at)?;
                at += now;
            }
        }
        file.sync_all()
    }

    fn run(&self, file: &File) -> io::Result<Duration> {
        let mut ring = open_ring(64.max(2 * self.in_flight as u32)).map_err(io::Error::other)?;
        let mut buffers = Vec::new();
        for number in 0..self.in_flight {
            let mut buffer = Buffer::with_capacity(self.batch_bytes);
            buffer.pad(self.batch_bytes);
            buffer.fill(number as u8 + 1);
            buffers.push(buffer);
        }
        let vectors: Vec<libc::iovec> = buffers
            .iter()
            .map(|buffer| libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() })
            .collect();
        // SAFETY: the vectors describe whole, live allocations that are neither moved nor freed before `ring`: both are
        // locals of this function, and `ring` is dropped below, first.
        unsafe { ring.submitter().register_buffers(&vectors) }?;
        let result = self.pump(&mut ring, file, &vectors);
        drop(ring);
        drop(buffers);
        result
    }

    /// Keeps `in_flight` batches on their way. On an error those in flight are waited for before it is returned.
    fn pump(&self, ring: &mut IoUring, file: &File, vectors: &[libc::iovec]) -> io::Result<Duration> {
        let per_batch = match self.sync {
            Sync::WithWrite => 1,
            Sync::AfterWrite => 2,
        };
        let start = Instant::now();
        let (mut submitted, mut completions, mut failed) = (0, 0, None);
        let mut free: Vec<usize> = (0..self.in_flight).collect();
        let mut entries_left = vec![0; self.in_flight];
        loop {
            while failed.is_none() && submitted < self.batches {
                let Some(number) = free.pop() else { break };
                self.push(ring, file, vectors, number, submitted);
                entries_left[number] = per_batch;
                submitted += 1;
            }
            if completions == submitted * per_batch {
                return failed.map_or_else(|| Ok(start.elapsed()), Err);
            }
            match ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for completion in ring.completion() {
                completions += 1;
                let number = completion.user_data() as usize / 2;
                let is_write = completion.user_data().is_multiple_of(2);
                entries_left[number] -= 1;
                if entries_left[number] == 0 {
                    free.push(number);
                }
                let wanted = if is_write { self.batch_bytes as i32 } else { 0 };
                if completion.result() != wanted && failed.is_none() {
                    let errno = if completion.result() < 0 { -completion.result() } else { libc::EIO };
                    failed = Some(io::Error::from_raw_os_error(errno));
                }
            }
        }
    }

    fn push(&self, ring: &mut IoUring, file: &File, vectors: &[libc::iovec], number: usize, turn: usize) {
        let fd = types::Fd(file.as_raw_fd());
        let base = vectors[number].iov_base.cast_const().cast();
        let length = u32::try_from(self.batch_bytes).expect("a batch is below 4 GiB");
        let write = opcode::WriteFixed::new(fd, base, length, number as u16)
            .offset((turn * self.batch_bytes) as u64)
            .rw_flags(if self.sync == Sync::WithWrite { libc::RWF_DSYNC } else { 0 })
            .build()
            .user_data(2 * number as u64);
        let mut entries = vec![write];
        if self.sync == Sync::AfterWrite {
            let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            entries = vec![entries.remove(0).flags(Flags::IO_LINK), sync.user_data(2 * number as u64 + 1)];
        }
        // SAFETY: the write reads a registered buffer that `run` keeps until the ring is gone, and writes to a file that the
        // caller keeps open; the sync has no pointers. The ring has room for two entries a batch.
        unsafe { ring.submission().push_multiple(&entries) }.expect("the ring has room for all batches in flight");
    }
}
