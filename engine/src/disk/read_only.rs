//! A disk to be looked at: nothing is changed, and everything read comes from the device.

use super::{Disk, DiskError, Done, FileName, Operation, Outcome, Resident, Token};
use std::collections::VecDeque;

/// Another disk, protected. What recovery does to tidy up (sync what it has read, unlink what it has no use for) is
/// reported done and not done; a write is refused. Reads never come from memory, so that what is verified is what is stored.
#[derive(Debug)]
pub(crate) struct ReadOnly<D> {
    disk: D,
    done: VecDeque<Done>,
}

impl<D: Disk> ReadOnly<D> {
    pub(crate) fn new(disk: D) -> ReadOnly<D> {
        ReadOnly { disk, done: VecDeque::new() }
    }
}

impl<D: Disk> Disk for ReadOnly<D> {
    fn submit(&mut self, token: Token, operation: Operation) {
        let result = match operation {
            Operation::Read { file, offset, length, .. } => {
                return self.disk.submit(token, Operation::Read { file, offset, length, keep: false });
            }
            Operation::List => return self.disk.submit(token, Operation::List),
            Operation::Sync { .. } | Operation::SyncDirectory | Operation::Unlink { .. } => Ok(Outcome::Done),
            Operation::Create { .. }
            | Operation::Reserve { .. }
            | Operation::Write { .. }
            | Operation::Punch { .. } => Err(DiskError::Failed { errno: libc::EROFS }),
        };
        self.done.push_back(Done { token, result });
    }

    fn poll(&mut self) -> Option<Done> {
        self.done.pop_front().or_else(|| self.disk.poll())
    }

    fn wait(&mut self) {
        if self.done.is_empty() {
            self.disk.wait();
        }
    }

    fn resident(&mut self, _file: FileName, _offset: u64, _length: usize) -> Option<Resident> {
        None
    }

    fn taken(&mut self, file: FileName, length: u64) -> u64 {
        self.disk.taken(file, length)
    }

    /// The files are another's to recycle.
    fn release(&mut self, _file: FileName) -> bool {
        false
    }
}
