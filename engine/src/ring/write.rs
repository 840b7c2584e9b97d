//! Writes on the ring.
//!
//! A batch, which is aligned, is written with O_DIRECT, without passing the page cache, and made durable in the way that
//! has been faster lately (`habit`): by the write itself (RWF_DSYNC), or by an fdatasync linked behind it. Both fail alike: if
//! either operation fails, the batch has failed, and the sync is not repeated. Batches are built in memory that is
//! registered with the kernel, which then neither looks up nor pins its pages at each write. What is not aligned goes
//! through the cache.

use super::ceiling::Sync;
use super::{Flight, RingDisk, errno};
use crate::disk::{Buffer, DiskError, Outcome, Pool, Token};
use crate::limits::{BATCH_BUFFERS, BLOCK};
use bytes::Bytes;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

/// A write in flight.
pub(super) struct Writing {
    pub(super) token: Token,
    pub(super) cached: Arc<File>,
    pub(super) direct: Option<Arc<File>>,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    pub(super) durable: bool,
    /// The flight of the fdatasync that is linked behind it.
    pub(super) linked: Option<usize>,
    /// When it was asked for.
    pub(super) since: Instant,
}

impl Writing {
    fn is_aligned(&self) -> bool {
        (self.bytes.as_ptr() as usize).is_multiple_of(BLOCK)
            && self.bytes.len().is_multiple_of(BLOCK)
            && self.offset.is_multiple_of(BLOCK as u64)
    }

    fn file(&self) -> &Arc<File> {
        self.direct.as_ref().filter(|_| self.is_aligned()).unwrap_or(&self.cached)
    }

    /// The entry that writes all of it, out of this registered buffer if it lies in one.
    fn entry(&self, registered: Option<u16>) -> Entry {
        let fd = types::Fd(self.file().as_raw_fd());
        let length = u32::try_from(self.bytes.len()).expect("a write is below 4 GiB");
        let flags = if self.durable && self.linked.is_none() { libc::RWF_DSYNC } else { 0 };
        match registered {
            Some(index) => opcode::WriteFixed::new(fd, self.bytes.as_ptr(), length, index)
                .offset(self.offset)
                .rw_flags(flags)
                .build(),
            None => opcode::Write::new(fd, self.bytes.as_ptr(), length).offset(self.offset).rw_flags(flags).build(),
        }
    }
}

/// Memory for batches: a pool, and where its buffers lie if the kernel knows them.
pub(super) struct Memory {
    pool: Pool,
    /// Start and length of each registered buffer with its index, by address.
    registered: Vec<(usize, usize, u16)>,
}

impl Memory {
    /// Makes the pool and registers it. If too little memory may be locked, the pool serves unregistered: each write then
    /// costs a little more, and `registered_bytes` in the numbers says 0.
    pub(super) fn of(ring: &IoUring) -> Memory {
        let pool = Pool::new(&BATCH_BUFFERS);
        let buffers = pool.at_home();
        let vector =
            |buffer: &Buffer| libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.capacity() };
        let vectors: Vec<libc::iovec> = buffers.iter().map(vector).collect();
        // SAFETY: each vector is a whole allocation that belongs to `pool`: `Buffer` never moves or frees memory of a pool
        // and returns it when dropped, and the pool lives in the same `RingDisk` as the ring, behind it, so that the ring
        // is closed first. The kernel only reads these pages, and only for writes whose `Bytes` the flight holds.
        let registered = unsafe { ring.submitter().register_buffers(&vectors) }.is_ok();
        let places = buffers.iter().enumerate();
        let mut places: Vec<(usize, usize, u16)> =
            places.map(|(index, buffer)| (buffer.as_ptr() as usize, buffer.capacity(), index as u16)).collect();
        places.sort_unstable();
        Memory { pool, registered: if registered { places } else { Vec::new() } }
    }

    pub(super) fn take(&self, bytes: usize) -> Option<Buffer> {
        self.pool.take(bytes)
    }

    pub(super) fn registered_bytes(&self) -> u64 {
        self.registered.iter().map(|(_, length, _)| *length as u64).sum()
    }

    /// The registered buffer that holds all of these bytes.
    fn index_of(&self, bytes: &[u8]) -> Option<u16> {
        let start = bytes.as_ptr() as usize;
        let behind = self.registered.partition_point(|(from, _, _)| *from <= start);
        let (from, length, index) = *self.registered.get(behind.checked_sub(1)?)?;
        (start + bytes.len() <= from + length).then_some(index)
    }
}

impl RingDisk {
    pub(super) fn start_write(&mut self, mut writing: Writing) {
        let registered = self.memory.as_ref().and_then(|memory| memory.index_of(&writing.bytes));
        if !writing.durable || self.habits.choose(writing.bytes.len()) == Sync::WithWrite {
            writing.linked = None;
            return self.launch(Flight::Write(writing), |flight| match flight {
                Flight::Write(writing) => writing.entry(registered),
                _ => unreachable!("it was put there for this call"),
            });
        }
        let (write, sync) = (self.flight_number(), self.flight_number());
        writing.linked = Some(sync);
        let fd = types::Fd(writing.file().as_raw_fd());
        let first = writing.entry(registered).flags(Flags::IO_LINK).user_data(write as u64);
        let second = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build().user_data(sync as u64);
        // The bytes are on the heap or in the pool: moving `Writing` leaves the pointer good.
        self.flights[write] = Some(Flight::Write(writing));
        self.flights[sync] = Some(Flight::Linked(None));
        self.push(&[first, second]);
    }

    /// A linked write has ended, one way or another: its sync's completion follows.
    pub(super) fn linked_written(&mut self, sync: usize, writing: Writing, result: i32) {
        let linked = self.flights[sync].as_mut().expect("a linked sync ends behind its write");
        assert!(matches!(linked, Flight::Linked(None)), "one write, one sync");
        *linked = Flight::Linked(Some((writing, result)));
    }

    /// The sync behind a write has ended, or was cancelled because the write did not do all it should.
    pub(super) fn linked_synced(&mut self, writing: Writing, written: i32, synced: i32) {
        if matches!(-written, libc::EINTR | libc::EAGAIN) {
            self.start_write(writing);
        } else if written < 0 {
            self.finish(writing.token, Err(errno(-written)));
        } else if written as usize != writing.bytes.len() {
            self.written(writing, written as usize);
        } else if synced < 0 {
            self.finish(writing.token, Err(errno(-synced)));
        } else {
            self.done_writing(&writing);
        }
    }

    /// So much of it was written: done, or the rest is written too.
    pub(super) fn written(&mut self, writing: Writing, written: usize) {
        if written == writing.bytes.len() {
            self.done_writing(&writing);
        } else if written == 0 {
            // Nothing written and no error is not something to repeat for ever.
            self.finish(writing.token, Err(DiskError::Failed { errno: libc::EIO }));
        } else {
            let bytes = writing.bytes.slice(written..);
            self.start_write(Writing { offset: writing.offset + written as u64, bytes, ..writing });
        }
    }
}

impl RingDisk {
    /// All of it is written, and durable if it was to be.
    fn done_writing(&mut self, writing: &Writing) {
        if writing.durable {
            let way = if writing.linked.is_some() { Sync::AfterWrite } else { Sync::WithWrite };
            self.habits.learn(writing.bytes.len(), way, writing.since.elapsed());
        }
        self.finish(writing.token, Ok(Outcome::Done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, FileName, Operation};
    use crate::ring::Bell;
    use crate::ring::habit::Habits;

    fn run(disk: &mut RingDisk, operation: Operation) -> Result<Outcome, DiskError> {
        disk.submit(Token(7), operation);
        loop {
            if let Some(done) = disk.poll() {
                return done.result;
            }
            disk.wait();
        }
    }

    /// Goal: both ways of making a batch durable write the same bytes, out of registered memory or not, and fail alike.
    /// Method: pooled, plain and unaligned bytes written each way and read back; a write beyond what a file can hold fails.
    #[test]
    fn both_ways_write_and_fail_alike() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileName::Segment(1);
        for way in [Sync::WithWrite, Sync::AfterWrite] {
            let mut disk = RingDisk::open(dir.path(), Arc::new(Bell::new().unwrap())).unwrap();
            disk.habits = Habits::settled(way);
            run(&mut disk, Operation::Create { file }).unwrap();
            let mut pooled = disk.buffer(BLOCK);
            pooled.extend(&[1; 2 * BLOCK]);
            let mut plain = Buffer::with_capacity(BLOCK);
            plain.extend(&[2; BLOCK]);
            let pooled = Bytes::from_owner(pooled);
            if disk.registered_bytes() > 0 {
                let memory = disk.memory.as_ref().unwrap();
                assert!(memory.index_of(&pooled).is_some());
                assert!(memory.index_of(&plain).is_none());
            }
            let batches = [(0, pooled), (2, Bytes::from_owner(plain)), (3, Bytes::from(vec![3; 100]))];
            for (block, bytes) in batches {
                let offset = block * BLOCK as u64;
                run(&mut disk, Operation::Write { file, offset, bytes, durable: true }).unwrap();
            }
            let read = run(&mut disk, Operation::Read { file, offset: 0, length: 4 * BLOCK, keep: true });
            let Ok(Outcome::Read(read)) = read else { panic!("read: {read:?}") };
            let expected = [vec![1; 2 * BLOCK], vec![2; BLOCK], vec![3; 100]].concat();
            assert_eq!(read, expected, "{way:?}");
            let bytes = Bytes::from_static(&[0; 512]);
            let beyond = Operation::Write { file, offset: i64::MAX as u64 - 511, bytes, durable: true };
            assert!(run(&mut disk, beyond).is_err(), "{way:?}");
            assert!(run(&mut disk, Operation::Sync { file }).is_ok(), "{way:?}: the ring goes on");
        }
    }
}
