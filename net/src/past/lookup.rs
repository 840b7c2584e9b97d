//! Looking up a content block: from its root, and failing that from everybody who might have it.
//!
//! One good copy is enough, and it is checked here, so nobody has to be trusted. The root is asked first. If it does
//! not have the block, sends a wrong one, or takes too long, all eligible and all live holders are asked at once, with
//! those beyond them to whom a full holder's copy may have been diverted. A holder found without the block, or with a damaged one, is given it again.

use super::holders::{holders, nearest_live};
use super::{Answer, Past, Then, rules};
use crate::call::Owner;
use crate::id::{Id, Key};
use crate::limits::{LOOKUP_BREADTH, LOOKUP_HEDGE};
use crate::machine::{Reply, RequestId, Seconds};
use crate::past::block::Verdict;
use crate::pastry::{Pastry, eligible};
use crate::site::{Asker, Due, Turn};
use crate::wire::{Body, Fetch, FetchAnswer, FetchOutcome};
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Awaited,
    Good,
    Absent,
    /// Another block under this key, or a damaged one.
    Wrong,
    /// Silent, or does not know.
    Nothing,
}

/// A block as a replica sent it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) value: Bytes,
    pub(super) version: u64,
    pub(super) expiry: Seconds,
}

/// A lookup begun here.
#[derive(Debug)]
pub(super) struct Lookup {
    request: RequestId,
    key: Key,
    asked: BTreeMap<Id, Seen>,
    is_broad: bool,
    found: Option<Found>,
}

impl Past {
    pub(super) fn begin_lookup(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, request: RequestId, key: Key) {
        let task = turn.site.number();
        self.lookups.insert(task, Lookup { request, key, asked: BTreeMap::new(), is_broad: false, found: None });
        turn.due_in(LOOKUP_HEDGE, Due::Task(task));
        match pastry.known_root(key.placement()) {
            Some(root) => self.ask_replica(pastry, turn, task, root),
            None => pastry.locate(turn, key.placement(), Asker::Lookup(task)),
        }
    }

    pub(crate) fn lookup_located(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64, root: Option<Id>) {
        match root {
            Some(root) => self.ask_replica(pastry, turn, task, root),
            None => self.broaden(pastry, turn, task),
        }
        self.settle_lookup(pastry, turn, task);
    }

    fn ask_replica(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64, id: Id) {
        let Some(lookup) = self.lookups.get_mut(&task) else { return };
        if lookup.asked.contains_key(&id) || lookup.found.is_some() {
            return;
        }
        let fetch = Fetch { scope: turn.site.scope(), key: lookup.key };
        let is_open = turn.call(id, Body::Fetch(fetch), Owner::Lookup(task)).is_some();
        // Somebody found dead is asked as well, but not waited for.
        let is_awaited = is_open && !pastry.is_departed(id);
        lookup.asked.insert(id, if is_awaited { Seen::Awaited } else { Seen::Nothing });
    }

    pub(super) fn lookup_answered(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        task: u64,
        from: Id,
        answer: Answer,
    ) {
        let Some(lookup) = self.lookups.get_mut(&task) else { return };
        let seen = match answer {
            Answer::Body(Body::FetchAnswer(
                FetchAnswer { outcome: FetchOutcome::Found { version, expiry } },
                value,
            )) => {
                let key = lookup.key;
                let then = Then::LookupVerified { task, from, value: value.clone(), version, expiry };
                self.begin_verification(turn, key, value, then);
                return; // Still awaited: its verification is.
            }
            Answer::Body(Body::FetchAnswer(FetchAnswer { outcome: FetchOutcome::Absent }, _)) => Seen::Absent,
            _ => Seen::Nothing,
        };
        lookup.asked.insert(from, seen);
        self.settle_lookup(pastry, turn, task);
    }

    pub(super) fn lookup_verified(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        task: u64,
        from: Id,
        found: Found,
        result: Verdict,
    ) {
        let Some(lookup) = self.lookups.get_mut(&task) else { return };
        let is_good = result.is_ok();
        lookup.asked.insert(from, if is_good { Seen::Good } else { Seen::Wrong });
        if is_good && lookup.found.is_none() {
            let reply = Reply::Found { value: found.value.clone(), version: found.version };
            lookup.found = Some(found);
            turn.reply(lookup.request, reply);
        }
        self.settle_lookup(pastry, turn, task);
    }

    /// The root has had its time.
    pub(super) fn broaden_if_empty_handed(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64) {
        if self.lookups.get(&task).is_some_and(|lookup| lookup.found.is_none()) {
            self.broaden(pastry, turn, task);
        }
        self.settle_lookup(pastry, turn, task);
    }

    fn broaden(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64) {
        let Some(lookup) = self.lookups.get_mut(&task) else { return };
        if lookup.is_broad {
            return;
        }
        lookup.is_broad = true;
        let place = lookup.key.placement();
        let roster = turn.site.roster.clone();
        let count = usize::from(roster.ring().parameters.k) + LOOKUP_BREADTH;
        let mut asked = roster.eligible(place, count);
        if pastry.covers(place) {
            asked.extend(nearest_live(pastry, turn, place, count));
        }
        for id in asked {
            self.ask_replica(pastry, turn, task, id);
        }
    }

    /// Ends the lookup when nobody is awaited any more.
    fn settle_lookup(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64) {
        let Some(lookup) = self.lookups.get(&task) else { return };
        if lookup.asked.is_empty() || lookup.asked.values().any(|seen| *seen == Seen::Awaited) {
            return;
        }
        if lookup.found.is_none() && !lookup.is_broad {
            self.broaden(pastry, turn, task);
            return self.settle_lookup(pastry, turn, task);
        }
        let Some(lookup) = self.lookups.remove(&task) else { return };
        let mut responsible = holders(pastry, turn, &lookup.key);
        responsible.extend(eligible(&turn.site.roster, &lookup.key));
        responsible.sort();
        responsible.dedup();
        if let Some(found) = &lookup.found {
            responsible.retain(|id| matches!(lookup.asked.get(id), Some(Seen::Absent | Seen::Wrong)));
            Past::mend(turn, lookup.key, &found.value, found.expiry, &responsible);
            return;
        }
        let absent = responsible.iter().filter(|id| lookup.asked.get(id) == Some(&Seen::Absent)).count();
        let others = responsible.len() - absent;
        // Were it stored, a quorum would have it: those that gave no definite answer must be fewer.
        let quorum = rules(turn, eligible(&turn.site.roster, &lookup.key).len()).content_quorum();
        let is_absent = absent >= quorum && others < quorum;
        turn.reply(lookup.request, if is_absent { Reply::Absent } else { Reply::Unavailable });
    }
}
