//! Objects that upkeep found missing here, fetched within bounds: few at once, so many bytes a second.
//!
//! What the fewest partners have offered comes first: of that the fewest copies are left.

use super::holders::holders;
use super::replica::{bounded_lease, is_kept, out_of_scope};
use super::{Answer, Past, Then};
use crate::call::Owner;
use crate::id::{Id, Key};
use crate::limits::{FULL_REST, PULL_SOURCES_MAX, PULLS_MAX, PULLS_OPEN_MAX, SECOND, UPKEEP_BYTES_PER_SECOND};
use crate::machine::{Metric, Micros, Seconds, StorageOperation, StorageResult};
use crate::past::block::Verdict;
use crate::pastry::Pastry;
use crate::site::{Due, Turn};
use crate::wire::{Body, Fetch, FetchAnswer, FetchOutcome, ListingEntry, RangeListing};
use bytes::Bytes;
use std::collections::BTreeMap;

/// An object to be fetched.
#[derive(Debug)]
struct Pull {
    version: u64,
    expiry: Seconds,
    sources: Vec<Id>,
    /// Partners whose comparison is complete only when this has been fetched.
    partners: Vec<Id>,
    is_open: bool,
}

/// What one node has yet to fetch.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    wanted: BTreeMap<Key, Pull>,
    open: usize,
    /// Bytes that may still be fetched, as of `budget_at`.
    budget: i64,
    budget_at: Micros,
    /// Our own store refused an object; nothing is fetched before.
    rests_until: Micros,
}

impl Past {
    /// Notes an object that we lack, if we belong to its holders.
    pub(super) fn want(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        from: Id,
        entry: &ListingEntry,
        listing: &RangeListing,
    ) {
        let belongs = holders(pastry, turn, &entry.key).contains(&turn.site.me);
        let in_scope = out_of_scope(pastry, turn, from, &listing.scope, &entry.key).is_none();
        if !belongs || !in_scope || !entry.key.kind.is_replicated() || !is_kept(turn, entry.expiry) {
            return;
        }
        if turn.now < self.pulls.rests_until {
            self.forgo_object(from);
            return;
        }
        if self.pulls.wanted.len() >= PULLS_MAX && !self.pulls.wanted.contains_key(&entry.key) {
            turn.count(Metric::Dropped);
            self.forgo_object(from);
            return;
        }
        let pull = self.pulls.wanted.entry(entry.key).or_insert(Pull {
            version: entry.version,
            expiry: entry.expiry,
            sources: Vec::new(),
            partners: Vec::new(),
            is_open: false,
        });
        pull.expiry = pull.expiry.max(entry.expiry);
        if entry.version > pull.version {
            pull.version = entry.version;
            pull.sources.clear();
        }
        if entry.version == pull.version && pull.sources.len() < PULL_SOURCES_MAX && !pull.sources.contains(&from) {
            pull.sources.push(from);
        }
        if !pull.partners.contains(&from) {
            pull.partners.push(from);
            self.expect_object(from);
        }
    }

    /// Fetches what is wanted, as far as number and bytes allow; what the fewest have offered first.
    pub(super) fn pull_more(&mut self, turn: &mut Turn<'_>) {
        self.refill_budget(turn.now);
        if self.pulls.budget <= 0 {
            if self.pulls.open == 0 && !self.pulls.wanted.is_empty() {
                turn.due_in(SECOND / 4, Due::Pulls);
            }
            return;
        }
        let room = PULLS_OPEN_MAX.saturating_sub(self.pulls.open);
        if room == 0 {
            return;
        }
        let mut waiting: Vec<(usize, Key)> =
            self.pulls.wanted.iter().filter(|(_, pull)| !pull.is_open).map(|(k, p)| (p.sources.len(), *k)).collect();
        waiting.sort();
        for (_, key) in waiting.into_iter().take(room) {
            self.pull(turn, key);
        }
    }

    fn pull(&mut self, turn: &mut Turn<'_>, key: Key) {
        let source = self.pulls.wanted.get_mut(&key).and_then(|pull| pull.sources.pop());
        let fetch = Fetch { scope: turn.site.scope(), key };
        match source.and_then(|source| turn.call(source, Body::Fetch(fetch), Owner::Pull(key))) {
            Some(_) => {
                if let Some(pull) = self.pulls.wanted.get_mut(&key) {
                    pull.is_open = true;
                    self.pulls.open += 1;
                }
            }
            // Nobody is left to ask: the next round will tell.
            None => self.end_pull(key, false),
        }
    }

    pub(super) fn pull_answered(&mut self, turn: &mut Turn<'_>, key: Key, answer: Answer) {
        let Some(pull) = self.pulls.wanted.get(&key) else { return };
        match answer {
            Answer::Body(Body::FetchAnswer(
                FetchAnswer { outcome: FetchOutcome::Found { expiry, .. } | FetchOutcome::Uncertain { expiry, .. } },
                value,
            )) => {
                self.pulls.budget -= value.len() as i64;
                let then = Then::PullVerified { key, value: value.clone(), expiry: expiry.max(pull.expiry) };
                self.begin_verification(turn, key, value, then);
            }
            _ => self.pull_again(turn, key),
        }
    }

    pub(super) fn pull_verified(
        &mut self,
        turn: &mut Turn<'_>,
        key: Key,
        value: Bytes,
        expiry: Seconds,
        result: Verdict,
    ) {
        match result {
            // Its time is over while it was fetched.
            Ok(_) if !is_kept(turn, expiry) => {
                self.pulls.open = self.pulls.open.saturating_sub(1);
                self.end_pull(key, true);
                self.pull_more(turn);
            }
            Ok(version) => {
                let expiry = bounded_lease(turn, expiry);
                let put = StorageOperation::Put { key, version, expiry, value };
                self.begin_storage(turn, put, Then::PullPut { key });
            }
            Err(_) => self.pull_again(turn, key),
        }
    }

    pub(super) fn pull_stored(&mut self, turn: &mut Turn<'_>, key: Key, result: &StorageResult) {
        let is_good = matches!(result, StorageResult::Put | StorageResult::Superseded { .. });
        match result {
            StorageResult::Put => turn.count(Metric::Replicated),
            StorageResult::Superseded { .. } => {}
            // Full, most likely: to fetch the same each round only to throw it away would help nobody.
            _ => self.pulls.rests_until = turn.now + FULL_REST,
        }
        self.pulls.open = self.pulls.open.saturating_sub(1);
        self.end_pull(key, is_good);
        self.pull_more(turn);
    }

    /// This source would not do: the next one.
    fn pull_again(&mut self, turn: &mut Turn<'_>, key: Key) {
        self.pulls.open = self.pulls.open.saturating_sub(1);
        if let Some(pull) = self.pulls.wanted.get_mut(&key) {
            pull.is_open = false;
        }
        self.pull(turn, key);
        self.pull_more(turn);
    }

    fn end_pull(&mut self, key: Key, is_good: bool) {
        if let Some(pull) = self.pulls.wanted.remove(&key) {
            for partner in pull.partners {
                self.close(partner, is_good);
            }
        }
    }

    fn refill_budget(&mut self, now: Micros) {
        let pulls = &mut self.pulls;
        let elapsed = now.saturating_sub(pulls.budget_at).min(SECOND);
        pulls.budget_at = now;
        let refill = UPKEEP_BYTES_PER_SECOND * elapsed / SECOND;
        pulls.budget = (pulls.budget + refill as i64).min(UPKEEP_BYTES_PER_SECOND as i64);
    }
}
