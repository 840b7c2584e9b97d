//! The short way: the ring document tells which certified node is nearest to a target, and mostly that one is the root.
//!
//! If it is alive it *is* the root, for nobody certified is nearer; a message sent straight there takes one hop where the table
//! takes log16 N, and no longer than the straight line. If it is not, an acknowledgement is waited for in vain, for longer than
//! all the rest takes. So a node that we have lately heard of ourselves is always tried, one found dead never, and one of which
//! nothing is known alone only where hardly anybody is away; otherwise the next nearest gets a copy at the same time, who is the
//! root if the first is away, or knows it. Where most tries fail, one message in some still goes so (to see whether they do
//! again). After [`DIRECT_TRIES_MAX`] the message goes by the table. docs/decisions/0010 has the arithmetic.

use super::round_trip::RoundTrip;
use super::{Pastry, join};
use crate::id::Id;
use crate::limits::{
    DIRECT_ALONE_MIN, DIRECT_FRESH, DIRECT_SUCCESS_MIN, DIRECT_TRIAL_EVERY, DIRECT_TRIES_MAX, READY_REST, WAIT_UNKNOWN,
};
use crate::machine::Micros;
use crate::site::Turn;

/// All of them, as [`Direct::success`] counts.
const ALWAYS: u32 = 1 << 16;
/// How many of the nearest certified nodes are looked at for one that may be alive.
const CANDIDATES: usize = 4;

/// How tries of nodes of which nothing was known have gone lately.
#[derive(Debug)]
pub(super) struct Direct {
    is_used: bool,
    /// The share that succeeded, of [`ALWAYS`], the last 32 or so weighing most.
    success: u32,
    /// How long the acknowledgements took.
    round_trip: RoundTrip,
}

impl Default for Direct {
    fn default() -> Direct {
        Direct { is_used: true, success: ALWAYS, round_trip: RoundTrip::default() }
    }
}

impl Direct {
    /// A node that uses its table alone.
    pub(super) fn unused() -> Direct {
        Direct { is_used: false, ..Direct::default() }
    }

    pub(super) fn succeeded(&mut self, sent: Micros, now: Micros) {
        self.success += (ALWAYS - self.success) / 32;
        self.round_trip.sample(sent, now);
    }

    pub(super) fn failed(&mut self) {
        self.success -= self.success / 32;
    }

    fn is_worthwhile(&self, draw: u64) -> bool {
        u64::from(self.success) * 100 >= DIRECT_SUCCESS_MIN * u64::from(ALWAYS)
            || draw.is_multiple_of(DIRECT_TRIAL_EVERY)
    }
}

impl Pastry {
    /// The node nearest to `target` by the ring document, if it is worth a try. One of which nothing is known is tried by the
    /// message's origin alone: who gets it from there by the table would repeat what was tried in vain.
    pub(super) fn direct_hop(&self, turn: &mut Turn<'_>, target: Id, is_origin: bool, tried: &[Id]) -> Option<Id> {
        if !self.direct.is_used || tried.len() >= DIRECT_TRIES_MAX {
            return None;
        }
        let (me, roster) = (turn.site.me, turn.site.roster.clone());
        let itself = roster.contains(target).then_some(target);
        let mut nearest = itself.into_iter().chain(roster.neighbours(target)).take(CANDIDATES);
        let may_be_root = |id: &Id| !tried.contains(id) && !self.is_out_of_service(*id, turn.now);
        let id = nearest.find(may_be_root).filter(|id| id.is_nearer(target, me))?;
        let is_tried = self.is_in_service(id, turn.now) || is_origin && self.direct.is_worthwhile(turn.site.random());
        is_tried.then_some(id)
    }

    /// Whom a copy of a message should go to at once that goes straight to `first`, of whom nothing is known: the next nearest,
    /// who is the root if `first` is away, and otherwise knows it.
    pub(super) fn direct_second(&self, turn: &Turn<'_>, target: Id, first: Id, tried: &[Id]) -> Option<Id> {
        if !self.may_be_away(turn) {
            return None;
        }
        let may_be_next = |id: &Id| *id != first && !tried.contains(id) && !self.is_out_of_service(*id, turn.now);
        let next = turn.site.roster.neighbours(target).take(CANDIDATES).find(may_be_next);
        next.filter(|id| *id != turn.site.me)
    }

    /// Whether a node of which nothing is known may well be away: our tries fail, or so many of our own certified neighbours are
    /// away, of which the leaf set knows before anything was tried.
    fn may_be_away(&self, turn: &Turn<'_>) -> bool {
        let neighbours = join::certified_neighbours(turn);
        let away = neighbours.iter().filter(|id| !self.leaf_set.contains(**id)).count() as u64;
        let tries_fail = u64::from(ALWAYS - self.direct.success) * 100 > (100 - DIRECT_ALONE_MIN) * u64::from(ALWAYS);
        tries_fail || away * 100 > (100 - DIRECT_ALONE_MIN) * neighbours.len() as u64
    }

    /// How long a try waits for its acknowledgement: as long as that node's round trips demand, or those of earlier tries, or
    /// those of the leaf set, which are as near or far as anybody.
    pub(super) fn direct_wait(&self, id: Id) -> Micros {
        if self.liveness.round_trip(id).is_some() {
            return self.liveness.wait(id);
        }
        let mut of_strangers = self.direct.round_trip;
        if of_strangers.smoothed().is_none() {
            let known = self.leaf_set.members().into_iter().filter_map(|id| self.liveness.round_trip(id));
            known.for_each(|taken| of_strangers.sample(0, taken));
        }
        of_strangers.wait(WAIT_UNKNOWN)
    }

    /// Whether we have lately heard of it ourselves, and it takes routed messages.
    pub(super) fn is_in_service(&self, id: Id, now: Micros) -> bool {
        self.liveness.is_ready(id)
            && !self.liveness.is_suspect(id)
            && !self.liveness.is_unresponsive(id, now)
            && now.saturating_sub(self.liveness.last_heard(id)) <= DIRECT_FRESH
    }

    /// Whether it was found dead, does not answer, or has just said that it takes no routed messages.
    fn is_out_of_service(&self, id: Id, now: Micros) -> bool {
        let heard = self.liveness.last_heard(id);
        let is_joining = heard > 0 && !self.liveness.is_ready(id) && now.saturating_sub(heard) <= READY_REST;
        let is_silent = self.liveness.is_suspect(id) || self.liveness.is_unresponsive(id, now);
        self.liveness.is_departed(id) || is_silent || is_joining
    }
}
