//! The steward: what is known of the aggregates whose fragment 0 is this node's to hold, or whose steward does not answer.
//!
//! Of each aggregate it knows which fragments exist, by what their keepers have reported: 32 bytes of bits. A host that is away for less than
//! [`ABSENCE`] is believed to have what it had; one that was away for longer, that has started on an empty disk, or that no
//! longer lists a fragment, is not. What falls to the profile's threshold goes to `repair`, the most endangered first; that
//! asks every holder before anything is built, so that a steward who does not know all can waste a few small messages
//! and no more.
//!
//! Fragments that lie with others than their holders (strays: put there while the holder was away) are remembered apart.

use super::aggregate::Entry;
use super::keeper::bounded;
use super::limits::{ABSENCE, INCOMING_MAX, SECOND, SMALL_LEASE_S, STRAYS_MAX, WATCHED_MAX};
use super::name::AggregateName;
use super::rounds::{Sum, steward};
use super::site::{Site, Turn};
use net::id::{Id, Key};
use net::machine::{Metric, Micros, Seconds};
use net::roster::Host;
use std::collections::{BTreeMap, BTreeSet};

/// Which of up to 256 fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragments([u128; 2]);

impl Fragments {
    pub(super) fn insert(&mut self, index: u8) {
        self.0[usize::from(index >> 7)] |= 1 << (index & 127);
    }

    pub(super) fn remove(&mut self, index: u8) {
        self.0[usize::from(index >> 7)] &= !(1 << (index & 127));
    }

    pub(super) fn len(&self) -> usize {
        (self.0[0].count_ones() + self.0[1].count_ones()) as usize
    }
}

/// What is known of one aggregate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    /// Fragments that exist, as far as we know.
    pub(super) present: Fragments,
    /// The latest end of a fragment's lease.
    pub(super) expiry: Seconds,
    /// What lives of it was moved to another: it is left to expire.
    pub(super) is_moved: bool,
    /// Whether it began with the short lease of a small one.
    pub(super) is_small: bool,
    /// When it may be repaired again.
    pub(super) rests_until: Micros,
    /// When its leases were last inspected.
    pub(super) looked_at: Micros,
}

/// One steward's knowledge.
#[derive(Debug, Default)]
pub(super) struct Steward {
    pub(super) watched: BTreeMap<AggregateName, Watched>,
    /// Of each keeper, the sum that was last listed in full.
    listed: BTreeMap<Id, Sum>,
    /// Lists that are coming in.
    incoming: BTreeMap<Id, BTreeSet<Key>>,
    /// Fragments with others than their holders.
    pub(super) strays: BTreeMap<Key, Id>,
    /// Objects of aggregates of which little lives, to be written into others.
    pub(super) to_move: Vec<Entry>,
    /// Hosts away for so long that they count as lost.
    lost: BTreeSet<Host>,
}

impl Steward {
    /// A keeper tells its sum. Whether it is to list its fragments.
    pub(super) fn is_news(&self, from: Id, sum: Sum) -> bool {
        self.listed.get(&from).copied().unwrap_or_default() != sum
    }

    /// A page of a keeper's list. Returns the aggregates that were not known before.
    pub(super) fn list(
        &mut self,
        turn: &mut Turn<'_>,
        from: Id,
        entries: &[(Key, Seconds)],
        is_first: bool,
        is_last: bool,
    ) -> Vec<AggregateName> {
        let mut new = Vec::new();
        let now = turn.seconds();
        let mut keys = self.incoming.remove(&from).unwrap_or_default();
        if is_first {
            keys.clear();
        }
        let mut of_last: Option<(AggregateName, Vec<Id>)> = None;
        for (key, expiry) in entries {
            let Some((name, index)) = AggregateName::of_key(key) else { continue };
            let incoming = self.incoming.values().map(BTreeSet::len).sum::<usize>() + keys.len();
            let is_full = self.watched.len() >= WATCHED_MAX && !self.watched.contains_key(&name);
            if is_full || incoming >= INCOMING_MAX {
                turn.count(Metric::Dropped);
                continue;
            }
            keys.insert(*key);
            let watched = self.watched.entry(name).or_insert_with(|| {
                new.push(name);
                Watched {
                    present: Fragments::default(),
                    expiry: 0,
                    is_moved: false,
                    is_small: expiry.saturating_sub(now) <= SMALL_LEASE_S,
                    rests_until: 0,
                    looked_at: 0,
                }
            });
            watched.expiry = watched.expiry.max(bounded(turn, *expiry));
            watched.present.insert(index);
            // Pages are in the order of keys: the fragments of an aggregate come together.
            if of_last.as_ref().is_none_or(|(last, _)| *last != name) {
                of_last = Some((name, turn.site.placement.holders(&name, &|_| false)));
            }
            let holder = of_last.as_ref().and_then(|(_, holders)| holders.get(usize::from(index)));
            let is_stray = holder.and_then(|id| turn.site.first_of(*id)) != Some(from);
            if is_stray && self.strays.len() < STRAYS_MAX {
                self.strays.insert(*key, from);
            }
        }
        if !is_last {
            self.incoming.insert(from, keys);
            return new;
        }
        self.strays.retain(|key, keeper| *keeper != from || keys.contains(key));
        self.forget(turn.site, from, &keys);
        let mut sum = Sum::default();
        keys.iter().for_each(|key| sum.add(key));
        self.listed.insert(from, sum);
        new
    }

    /// This keeper's disk was lost.
    pub(super) fn is_emptied(&mut self, site: &Site, keeper: Id) {
        self.incoming.remove(&keeper);
        self.listed.remove(&keeper);
        self.strays.retain(|_, stray| *stray != keeper);
        self.forget(site, keeper, &BTreeSet::new());
    }

    /// Of the fragments that this keeper is the holder of, those not among `kept` are gone.
    fn forget(&mut self, site: &Site, keeper: Id, kept: &BTreeSet<Key>) {
        for (name, watched) in &mut self.watched {
            for (index, id) in (0..=u8::MAX).zip(site.placement.holders(name, &|_| false)) {
                let key = name.fragment_key(index);
                if site.first_of(id) == Some(keeper) && !kept.contains(&key) && !self.strays.contains_key(&key) {
                    watched.present.remove(index);
                }
            }
        }
    }

    /// Hosts that were away for too long have lost what they had, until they are heard of again.
    pub(super) fn count_the_lost(&mut self, turn: &Turn<'_>) {
        let hosts = (0..turn.site.roster.ring().members.len() as u32).map(Host);
        let lost: BTreeSet<Host> = hosts.filter(|host| turn.site.unheard_for(*host, turn.now) > ABSENCE).collect();
        let newly = |host: &&Host| !self.lost.contains(*host);
        let ids: Vec<Id> =
            lost.iter().filter(newly).filter_map(|host| super::site::first_id(&turn.site.roster, *host)).collect();
        for id in ids {
            self.is_emptied(turn.site, id);
        }
        self.lost = lost;
    }

    /// A newer ring document is in force: what was listed is attributed anew with the next lists.
    pub(super) fn adopt(&mut self) {
        self.listed.clear();
        self.incoming.clear();
        self.lost.clear();
    }

    /// What has another steward again is left to that one.
    pub(super) fn forget_what_is_others(&mut self, site: &Site) {
        let before = self.watched.len();
        self.watched.retain(|name, _| steward(site, name) == Some(site.me));
        if self.watched.len() < before {
            self.listed.clear(); // What is listed again is taken in again.
        }
    }

    /// What expired long ago is no longer watched.
    pub(super) fn forget_the_expired(&mut self, turn: &Turn<'_>) {
        let grace = turn.site.roster.ring().parameters.grace_s;
        let now = turn.seconds();
        let is_kept = |expiry: Seconds| expiry.saturating_add(grace) > now;
        self.watched.retain(|_, watched| is_kept(watched.expiry));
        let watched = &self.watched;
        self.strays.retain(|key, _| AggregateName::of_key(key).is_some_and(|(name, _)| watched.contains_key(&name)));
    }

    /// Aggregates with no more fragments than their threshold, the most endangered first.
    pub(super) fn endangered(&self, site: &Site, now: Micros, count: usize) -> Vec<AggregateName> {
        let mut found: Vec<(usize, AggregateName)> = self
            .watched
            .iter()
            .filter(|(name, watched)| watched.rests_until <= now && is_endangered(site, now, name, watched))
            .map(|(name, watched)| (watched.present.len().saturating_sub(usize::from(name.needed())), *name))
            .collect();
        found.sort();
        found.truncate(count);
        found.into_iter().map(|(_, name)| name).collect()
    }

    /// Whether this aggregate has no more fragments than its threshold.
    pub(super) fn is_endangered(&self, site: &Site, now: Micros, name: &AggregateName) -> bool {
        self.watched.get(name).is_some_and(|watched| is_endangered(site, now, name, watched))
    }

    /// How many aggregates are endangered.
    pub(super) fn deficit(&self, site: &Site, now: Micros) -> usize {
        self.watched.iter().filter(|(name, watched)| is_endangered(site, now, name, watched)).count()
    }
}

fn is_endangered(site: &Site, now: Micros, name: &AggregateName, watched: &Watched) -> bool {
    let is_leased = watched.expiry > now / SECOND;
    is_leased && watched.present.len() <= usize::from(threshold(site, name)).min(usize::from(name.total()) - 1)
}

/// The host that is to hold this fragment, by the ring document, as its first id.
pub(super) fn holder(site: &Site, name: &AggregateName, index: u8) -> Option<Id> {
    let holders = site.placement.holders(name, &|_| false);
    holders.get(usize::from(index)).and_then(|id| site.first_of(*id))
}

/// With how many fragments left an aggregate is repaired: the ring's threshold, in proportion where the aggregate was written
/// under another profile.
pub(super) fn threshold(site: &Site, name: &AggregateName) -> u8 {
    let profile = site.profile;
    if profile.total == name.total() {
        return profile.repair_at;
    }
    let scaled =
        (usize::from(name.total()) * usize::from(profile.repair_at)).div_ceil(usize::from(profile.total.max(1)));
    u8::try_from(scaled).unwrap_or(u8::MAX).clamp(name.needed(), name.total())
}
