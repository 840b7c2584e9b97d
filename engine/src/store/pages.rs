//! Pages of runs, read from the disk for walks and rebuilds.

use super::arcs::walk::Need;
use super::{Pending, Store};
use crate::disk::{Disk, DiskError, FileName, Operation, Outcome};
use bytes::Bytes;

/// What has come of reading pages of a run.
pub(super) enum Pages {
    Read(Bytes),
    /// The run was merged meanwhile: its place in the new one will be asked for.
    Merged,
    /// The device failed.
    Refused,
}

impl<D: Disk> Store<D> {
    /// `keep` if they are likely to be read again.
    pub(super) fn read_pages(&mut self, need: Need, keep: bool, pending: Pending) {
        let Need { run, offset, length } = need;
        self.counters.run_reads += 1;
        self.start(Operation::Read { file: FileName::Run(run), offset, length, keep }, pending);
    }

    pub(super) fn pages_of(&self, need: Need, result: Result<Outcome, DiskError>) -> Pages {
        match result {
            Ok(Outcome::Read(bytes)) => Pages::Read(bytes),
            Ok(_) => unreachable!("a read brings bytes"),
            Err(_) if self.index.runs().iter().any(|run| run.number == need.run) => Pages::Refused,
            Err(_) => Pages::Merged,
        }
    }
}
