//! All arcs as they were at one moment, handed out one by one while the index goes on changing.
//!
//! An arc that is about to change and has not been handed out is encoded first. So nobody waits for a checkpoint to be
//! written, and the price is one copy of an arc, paid by the first change to it.

use super::Index;
use super::arc::Arc;
use super::codec::encode_arc;
use std::collections::VecDeque;

/// A snapshot under way.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Arcs with this stamp are in the snapshot already, or younger than it.
    stamp: u64,
    seed: u64,
    saved: VecDeque<Vec<u8>>,
    saved_bytes: usize,
    /// Every arc that begins before this has the stamp.
    cursor: u64,
}

impl Snapshot {
    /// Encodes an arc that is about to change, unless that was done.
    pub(super) fn save(&mut self, arc: &mut Arc) {
        if arc.snapshot != self.stamp {
            arc.snapshot = self.stamp;
            let bytes = encode_arc(arc, self.seed);
            self.saved_bytes += bytes.len();
            self.saved.push_back(bytes);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.saved_bytes
    }
}

impl Index {
    /// Begins a snapshot of this moment. One that was under way is given up.
    pub(crate) fn begin_snapshot(&mut self) {
        self.snapshots += 1;
        let (stamp, seed) = (self.snapshots, self.settings.seed);
        self.snapshot = Some(Snapshot { stamp, seed, saved: VecDeque::new(), saved_bytes: 0, cursor: 0 });
    }

    /// The next arc's bytes, for [`super::codec::decode_arc`]. `None` when there are no more; then the snapshot has ended.
    pub(crate) fn next_of_snapshot(&mut self) -> Option<Vec<u8>> {
        let snapshot = self.snapshot.as_mut()?;
        if let Some(bytes) = snapshot.saved.pop_front() {
            snapshot.saved_bytes -= bytes.len();
            return Some(bytes);
        }
        let from = self.arcs.partition_point(|arc| arc.low < snapshot.cursor);
        match self.arcs[from..].iter_mut().find(|arc| arc.snapshot != snapshot.stamp) {
            Some(arc) => {
                arc.snapshot = snapshot.stamp;
                snapshot.cursor = arc.low;
                Some(encode_arc(arc, snapshot.seed))
            }
            None => {
                self.snapshot = None;
                None
            }
        }
    }

    /// Gives up a snapshot under way.
    pub(crate) fn abandon_snapshot(&mut self) {
        self.snapshot = None;
    }
}
