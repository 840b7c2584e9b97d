//! Writes on the ring.
//!
//! A batch, which is aligned, is written with O_DIRECT and RWF_DSYNC: one operation makes it durable without passing the
//! page cache. What is not aligned goes through the cache.

use super::{Flight, RingDisk};
use crate::disk::{DiskError, Outcome, Token};
use crate::limits::BLOCK;
use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// A write in flight.
pub(super) struct Writing {
    pub(super) token: Token,
    pub(super) cached: Arc<File>,
    pub(super) direct: Option<Arc<File>>,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    pub(super) durable: bool,
}

impl Writing {
    /// The entry that writes all of it.
    pub(super) fn entry(&self) -> squeue::Entry {
        let aligned = (self.bytes.as_ptr() as usize).is_multiple_of(BLOCK)
            && self.bytes.len().is_multiple_of(BLOCK)
            && self.offset.is_multiple_of(BLOCK as u64);
        let file = self.direct.as_ref().filter(|_| aligned).unwrap_or(&self.cached);
        let length = u32::try_from(self.bytes.len()).expect("a write is below 4 GiB");
        opcode::Write::new(types::Fd(file.as_raw_fd()), self.bytes.as_ptr(), length)
            .offset(self.offset)
            .rw_flags(if self.durable { libc::RWF_DSYNC } else { 0 })
            .build()
    }
}

impl RingDisk {
    /// So much of it was written: done, or the rest is written too.
    pub(super) fn written(&mut self, writing: Writing, written: usize) {
        if written == writing.bytes.len() {
            self.finish(writing.token, Ok(Outcome::Done));
        } else if written == 0 {
            // Nothing written and no error is not something to repeat for ever.
            self.finish(writing.token, Err(DiskError::Failed { errno: libc::EIO }));
        } else {
            let bytes = writing.bytes.slice(written..);
            self.again(Flight::Write(Writing { offset: writing.offset + written as u64, bytes, ..writing }));
        }
    }
}
