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
//! A node that starts with an empty disk has no such document; it needs as many of the other holders of today, or all of them.
//! Those who are *newcomers* like itself do not count: three whose disks were lost together would vouch for each other
//! that nothing had been stored. Only when a ring is founded everybody is new; therefore newcomers do count to one that has
//! met nobody else. Who settles so is a *founder* for [`FOUNDING`], in which the others settle as well; then one like any.
//! (Members that lose their disks in that quarter of an hour still vouch for each other, and so they do if all lose them of whom
//! one can hear. And a newcomer whose process begins anew before it has settled is taken for one that has, if its disk is no longer
//! empty: what was compared is not remembered on disk.)

use super::holders::certified_sides;
use super::{Past, Then, rules};
use crate::id::{Id, Key};
use crate::limits::{FOUNDING, PARTNERS_MAX};
use crate::machine::{Micros, StorageOperation, StorageResult};
use crate::pastry::{Pastry, eligible};
use crate::ring::Parameters;
use crate::roster::Roster;
use crate::site::Turn;
use crate::wire::Newness;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Partners with which a comparison was completed since this node started, and how new they were then.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    met: BTreeMap<Id, Option<Newness>>,
}

impl Meetings {
    /// Whether notes have been compared with this partner.
    pub(super) fn has_met(&self, partner: Id) -> bool {
        self.met.contains_key(&partner)
    }

    /// Whether it was no newcomer then: there is no need to hurry to compare them again.
    pub(super) fn has_met_settled(&self, partner: Id) -> bool {
        self.met.get(&partner).is_some_and(|newness| *newness != Some(Newness::Newcomer))
    }

    /// A comparison with this partner is complete.
    pub(super) fn meet(&mut self, partner: Id, newness: Option<Newness>) {
        self.met.insert(partner, newness);
        while self.met.len() > PARTNERS_MAX {
            self.met.pop_first();
        }
    }

    /// What was compared so far no longer counts.
    pub(super) fn forget(&mut self) {
        self.met.clear();
    }

    /// Whether everybody met so far is new.
    fn is_founding(&self) -> bool {
        self.met.values().all(Option::is_some)
    }

    /// Whether enough of these were met: `needed` whose word counts, or all of them.
    pub(super) fn are_enough(&self, others: &[Id], needed: usize) -> bool {
        let is_founding = self.is_founding();
        let counts = |id: &&Id| self.has_met_settled(**id) || is_founding && self.has_met(**id);
        others.iter().filter(counts).count() >= needed || others.iter().all(|id| self.has_met(*id))
    }
}

/// Since when our word is good.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// The ring document by which we hold what our disk has.
    settled: Option<Arc<Roster>>,
    /// The one we started with, while the disk is being looked at.
    began: Option<Arc<Roster>>,
    has_looked: bool,
    /// Until when we count as a founder.
    founder_until: Micros,
}

impl Promises {
    /// Notes have been compared with everybody under this document.
    pub(super) fn settle(&mut self, roster: &Arc<Roster>) {
        if !self.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, roster)) {
            self.settled = Some(roster.clone());
        }
    }

    /// As [`Promises::settle`], of one that had not settled; if all that it has met are new, it is a founder.
    fn settle_first(&mut self, roster: &Arc<Roster>, is_founding: bool, now: Micros) {
        if self.settled.is_none() && is_founding {
            self.founder_until = now + FOUNDING;
        }
        self.settle(roster);
    }

    /// How new we are.
    pub(super) fn newness(&self, now: Micros) -> Option<Newness> {
        match self.settled {
            None => Some(Newness::Newcomer),
            Some(_) => (now < self.founder_until).then_some(Newness::Founder),
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

    /// Our word is good from now on, if we have compared notes with everybody; of one that has not settled before, if with
    /// enough of the holders of each signed block that may be ours.
    pub(super) fn settle_if_met(&mut self, pastry: &Pastry, turn: &Turn<'_>) {
        let is_first = self.promises.settled.is_none();
        if self.is_synced(pastry, turn.site) || is_first && self.would_know_all(turn) {
            let is_founding = self.upkeep.meetings.is_founding();
            self.promises.settle_first(&turn.site.roster, is_founding, turn.now);
        }
    }

    /// Whether of each signed block that may be ours, with so many of its holders to the left of us, enough of them were met.
    fn would_know_all(&self, turn: &Turn<'_>) -> bool {
        let (roster, me) = (&turn.site.roster, turn.site.me);
        let rules = rules(turn, roster.eligible(me, usize::from(roster.ring().parameters.k_head)).len());
        let k_head = usize::from(rules.k_head);
        let needed = k_head + rules.head_faults() + 1 - rules.head_quorum();
        let [left, right] = certified_sides(roster, me, k_head);
        (0..k_head).all(|before| {
            let others: Vec<Id> =
                left.iter().take(before).chain(right.iter().take(k_head - 1 - before)).copied().collect();
            self.upkeep.meetings.are_enough(&others, needed)
        })
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
        // Those declared dead since need not be met, and cannot.
        let left: Vec<Id> = before.into_iter().filter(|id| turn.site.roster.contains(*id)).collect();
        self.upkeep.meetings.are_enough(&left, (n + rules.head_faults() + 1).saturating_sub(rules.head_quorum()))
    }
}
