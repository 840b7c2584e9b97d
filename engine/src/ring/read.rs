//! Reads on the ring.
//!
//! A sealed segment is read through the page cache, so that the next read finds its pages resident; one being written is
//! read with O_DIRECT in whole blocks, so that cached and direct access never meet on a file.

use super::{Flight, RingDisk, entry_of};
use crate::disk::{DiskError, FileName, Outcome, Token};
use crate::limits::BLOCK;
use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use rkyv::util::AlignedVec;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// A read in flight.
pub(super) struct Reading {
    pub(super) token: Token,
    file: Arc<File>,
    offset: u64,
    buffer: AlignedVec<BLOCK>,
    filled: usize,
    wanted: Wanted,
}

/// The part of an aligned read that was asked for.
#[derive(Clone, Copy)]
struct Wanted {
    skip: usize,
    length: usize,
}

impl Reading {
    /// The entry that reads what is still missing; the buffer stays where it is.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let rest = &mut self.buffer[self.filled..];
        let length = u32::try_from(rest.len()).expect("a read is below 4 GiB");
        opcode::Read::new(types::Fd(self.file.as_raw_fd()), rest.as_mut_ptr(), length)
            .offset(self.offset + self.filled as u64)
            .build()
    }
}

impl RingDisk {
    pub(super) fn read(
        &mut self,
        token: Token,
        file: FileName,
        offset: u64,
        length: usize,
        keep: bool,
    ) -> Result<(), DiskError> {
        let handle = self.handle(file, false)?;
        let (file, start) = match &handle.direct {
            Some(direct) if !keep => (direct.clone(), offset - offset % BLOCK as u64),
            _ => (handle.cached.clone(), offset),
        };
        let skip = (offset - start) as usize;
        let mut buffer = AlignedVec::new();
        buffer.resize((skip + length).next_multiple_of(BLOCK), 0);
        let wanted = Wanted { skip, length };
        self.launch(Flight::Read(Reading { token, file, offset: start, buffer, filled: 0, wanted }), entry_of);
        Ok(())
    }

    pub(super) fn read_more(&mut self, mut reading: Reading, more: usize) {
        reading.filled += more;
        let Wanted { skip, length } = reading.wanted;
        // A direct read ends in the middle of a block only at the end of the file.
        if more > 0 && reading.filled < skip + length && reading.filled.is_multiple_of(BLOCK) {
            return self.again(Flight::Read(reading));
        }
        let end = reading.filled.min(skip + length);
        let bytes = Bytes::from_owner(reading.buffer);
        let bytes = if end <= skip { Bytes::new() } else { bytes.slice(skip..end) };
        self.finish(reading.token, Ok(Outcome::Read(bytes)));
    }
}
