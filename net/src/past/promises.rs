//! What a replica's own disk stands for.
//!
//! A replica that acknowledged a head is counted on to have it: any two quorums share such a one. That holds from one ring
//! document to the next only if whoever becomes a holder, or has lost its disk, does not count before it has read what a
//! quorum of the holders *before* it had. What it has until then may be a copy from the one holder that was behind; three
//! such newcomers in a row would be a quorum that never heard of what was acknowledged. So a node remembers the last ring
//! document under which it had compared notes with everybody, or with which it started on a disk that was in use. For the
//! keys that were its own by that document its word is good. For others it needs a completed comparison with n + f + 1 − q of
//! the holders by that document (n of them, quorum q, f faulty), or with all of those that have not been declared dead.
//! Until then it hands out what it has as *uncertain*.
//!
//! A node that starts with an empty disk has no such document; it needs as many of the other holders of today. If several of
//! those are as new as it is, they vouch for each other: members with empty disks are to be admitted one at a time.

use super::{Past, Then};
use crate::id::Key;
use crate::machine::{StorageOperation, StorageResult};
use crate::pastry::{Pastry, eligible};
use crate::ring::Parameters;
use crate::roster::Roster;
use crate::site::Turn;
use std::sync::Arc;

/// Since when our word is good.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// The ring document by which we hold what our disk has.
    settled: Option<Arc<Roster>>,
    /// The one we started with, while the disk is being looked at.
    began: Option<Arc<Roster>>,
    has_looked: bool,
}

impl Promises {
    /// Notes have been compared with everybody under this document.
    pub(super) fn settle(&mut self, roster: &Arc<Roster>) {
        if !self.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, roster)) {
            self.settled = Some(roster.clone());
        }
    }

    /// What the disk had when we started.
    pub(super) fn disk_looked_at(&mut self, result: &StorageResult) {
        let began = self.began.take();
        if self.settled.is_none() && matches!(result, StorageResult::Listed(entries) if !entries.is_empty()) {
            self.settled = began;
        }
    }
}

impl Past {
    /// Looks whether the disk was in use before, once.
    pub(super) fn look_at_disk(&mut self, turn: &mut Turn<'_>) {
        if std::mem::replace(&mut self.promises.has_looked, true) {
            return;
        }
        self.promises.began = Some(turn.site.roster.clone());
        let (from, to) = super::upkeep::whole_ring(turn.site.me);
        self.begin_storage(turn, StorageOperation::Scan { from, to, after: None, limit: 1 }, Then::FirstLook);
    }

    /// Whether what we have of a signed block counts: we would know of a newer one that was acknowledged.
    pub(super) fn would_know(&self, pastry: &Pastry, turn: &Turn<'_>, key: &Key) -> bool {
        if self.promises.settled.is_some() { self.is_at_home(turn, key) } else { self.would_have(pastry, turn, key) }
    }

    /// Whether we hold this key by the document under which we settled, or have read from enough of those who did.
    pub(super) fn is_at_home(&self, turn: &Turn<'_>, key: &Key) -> bool {
        let Some(settled) = &self.promises.settled else { return true };
        let before = eligible(settled, key);
        if before.contains(&turn.site.me) {
            return true;
        }
        let n = before.len();
        let parameters = settled.ring().parameters;
        let rules = Parameters { k_head: parameters.k_head.min(n.max(1) as u8), ..parameters };
        let left = before.iter().filter(|id| turn.site.roster.contains(**id)).count();
        let met = before.iter().filter(|id| self.upkeep.has_met(**id)).count();
        met >= (n + rules.head_faults() + 1).saturating_sub(rules.head_quorum()).min(left)
    }
}
