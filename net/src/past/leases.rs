//! When a lease that has ended here may be acted upon: once those who may know a later one were asked.
//!
//! A lease is extended on whoever is there. A holder that was away does not know of it, and by its own disk the object has
//! expired. So nobody's store deletes by the clock alone: it deletes what ended longer than the grace ago *and* before a
//! moment through which its node has compared leases with enough others. That moment only rises. It starts at nothing with
//! the process, and stands still while too many are away: after a long sleep, behind a partition, under a ring document that
//! makes others the holders, nothing goes before the comparison with them is complete and the later leases found are durable.
//!
//! *Enough* is the rule by which a replica trusts itself to say absent ([`super::replica`]): of the n holders of a key q have
//! an acknowledged block, f of them perhaps falsely, so that among any n + f + 1 − q of the others is one that has it and is
//! correct. For content n is k by the ring document, however few are alive: of the default three, both others. Substitutes of
//! those that are gone count in their place, since upkeep has given them what they stand in for; so members that never come
//! back hold nothing up while k hosts are alive; those that are away for a moment ([`super::holders`]) do for that moment. For signed blocks the eligible members alone count: if fewer than enough
//! of them are ever there again, those blocks stay until the CA declares the others dead. They alone: content is deleted
//! meanwhile ([`super::sparing`]).
//!
//! The last thing a clock that is far ahead must not do is to end leases: then a partner lists objects as kept that by our
//! clock are long gone, under the same lease as ours. That is no agreement ([`is_ahead_of`]).

use super::holders::{certified_sides, claiming_sides};
use super::{Past, rules};
use crate::id::Id;
use crate::limits::{CLOCKS_APART_MAX_S, PARTNERS_MAX, SECOND, UPKEEP};
use crate::machine::{Action, Micros, Seconds};
use crate::pastry::Pastry;
use crate::site::Turn;
use std::collections::{BTreeMap, BTreeSet};

/// With whom leases were compared, and as of when.
#[derive(Debug, Default)]
pub(super) struct Agreements {
    /// Of each partner, when the latest comparison that was completed had begun.
    as_of: BTreeMap<Id, Micros>,
    /// Whether one was completed since the store was last told.
    is_news: bool,
    /// What the store was last told.
    told: Seconds,
    /// Whether the agreement on signed blocks lags behind that on content, by more than a round or two in which somebody did not
    /// answer.
    pub(super) is_content_held_up: bool,
    /// Signed blocks that ended before this are kept by hand ([`super::sparing`]).
    spared: Seconds,
    /// Whether they are being looked for.
    pub(super) is_sparing: bool,
}

impl Agreements {
    /// The comparison with this partner that was begun then is complete, and what came of it durable.
    pub(super) fn compared(&mut self, partner: Id, begun: Micros) {
        let as_of = self.as_of.entry(partner).or_default();
        *as_of = begun.max(*as_of);
        self.is_news = true;
        if self.as_of.len() > PARTNERS_MAX
            && let Some(oldest) = self.as_of.iter().min_by_key(|(id, as_of)| (**as_of, **id)).map(|(id, _)| *id)
        {
            self.as_of.remove(&oldest);
        }
    }

    /// All signed blocks that ended before this have been given a lease to here.
    pub(super) fn are_spared(&mut self, end: Seconds) {
        self.is_sparing = false;
        self.is_news = true;
        self.spared = end.max(self.spared);
    }

    /// Since when all of any `needed` of these have agreed with us, whichever of the rest are silent.
    fn through(&self, others: &BTreeSet<Id>, needed: usize, now: Micros) -> Micros {
        let mut as_of: Vec<Micros> = others.iter().filter_map(|id| self.as_of.get(id).copied()).collect();
        as_of.sort_by(|a, b| b.cmp(a));
        if needed == 0 { now } else { as_of.get(needed - 1).copied().unwrap_or(0) }
    }
}

impl Past {
    /// Tells the store how far leases are agreed on, if that may have changed: once for the comparisons of a round, unless
    /// they last into the next.
    pub(super) fn tell_leases(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        if self.agreements.is_news && pastry.is_ready() && !self.upkeep.awaits_answers() {
            self.tell_leases_now(pastry, turn);
        }
    }

    /// As [`Past::tell_leases`], whether or not a comparison was completed: a whole ring agrees with itself, and who is near
    /// may have changed.
    pub(super) fn tell_leases_now(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        self.agreements.is_news = false;
        let [content, signed] = self.agreed_through(pastry, turn);
        self.agreements.is_content_held_up = signed + 2 * UPKEEP < content;
        let through = (content / SECOND).min((signed / SECOND).max(self.agreements.spared));
        if through > self.agreements.told {
            self.agreements.told = through;
            turn.out.push(Action::LeasesAgreed { through });
        }
    }

    /// The latest moments as of which every key of content, and of a signed block, that we may hold was compared with enough of
    /// its other holders. The holders of a key are neighbours on the ring, we among them: so many to the left of us, the rest
    /// to the right.
    fn agreed_through(&self, pastry: &Pastry, turn: &Turn<'_>) -> [Micros; 2] {
        let (roster, me) = (&turn.site.roster, turn.site.me);
        let parameters = roster.ring().parameters;
        let rules = rules(turn, roster.eligible(me, usize::from(parameters.k.max(parameters.k_head))).len());
        let (k, k_head) = (usize::from(rules.k), usize::from(rules.k_head));
        let content = (k, k + 1 - rules.content_quorum(), claiming_sides(pastry, turn, k));
        let needed = k_head + rules.head_faults() + 1 - rules.head_quorum();
        let signed = (k_head, needed, certified_sides(roster, me, k_head));
        [content, signed].map(|(count, needed, [left, right])| {
            let through = (0..count).map(|before| {
                let mut others: BTreeSet<Id> = left.iter().take(before).copied().collect();
                others.extend(right.iter().take(count - 1 - before));
                self.agreements.through(&others, needed.min(count - 1), turn.now)
            });
            through.min().unwrap_or(turn.now)
        })
    }
}

/// Whether our clock is ahead of that of a partner who lists an object with a lease that ends then as one that it keeps.
pub(super) fn is_ahead_of(turn: &Turn<'_>, expiry: Seconds) -> bool {
    !super::replica::is_kept(turn, expiry.saturating_add(CLOCKS_APART_MAX_S))
}
