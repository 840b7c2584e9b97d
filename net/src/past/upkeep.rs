//! Replica upkeep: neighbours compare what they hold, range by range, and fetch what they lack.
//!
//! ```text
//! each round   scan our own store over our neighbourhood, a page at a time; for every partner, sum the objects of the
//!              page that by our view belong on both of us; send the sums ─▶ partner sums its own: agreed, or sends a
//!              listing ◀─ we fetch what we lack, adopt later leases, and list what the partner lacks ─▶ it fetches
//! ```
//!
//! Traffic is per range, not per object, as long as nothing differs. Views of who holds what may differ for a while;
//! then ranges are listed in vain, and nothing worse happens. Leases take part: a holder that was away over a refresh
//! adopts the later one, and until it has compared its store deletes nothing ([`super::leases`]). An object takes part as long
//! as it is kept: until its lease and the ring's grace have passed. What then is still on a disk, because its deletion is held
//! up or the sweep has not come by, is neither listed nor fetched, so a slower holder cannot bring it back; if its lease was
//! extended elsewhere it is missing in our sums, and the partner's listing tells.
//!
//! Who the holders are is [`super::holders`]'s to say: they are not those that happen to answer just now, so a reboot moves
//! nothing. Until a node has compared notes with enough partners since it started it does not say that an object is *absent*
//! ([`super::replica`]); those first rounds are hurried. Objects we hold but do not belong to, after others joined or
//! came back, are offered now and then to those they belong to. What is missing is fetched by [`super::pulls`].

use super::holders::{certified_sides, holders, live_sides};
use super::leases::is_ahead_of;
use super::promises::Meetings;
use super::replica::{bounded_lease, is_kept};
use super::{Answer, Past, Then};
use crate::call::Owner;
use crate::id::{Id, Key};
use crate::limits::{
    DIGESTS_OPEN_MAX, KEYS_PER_MESSAGE_MAX, ORPHANS_EVERY, SECOND, UPKEEP, UPKEEP_SYNC, UPKEEP_SYNC_ROUNDS, WALKS_MAX,
};
use crate::machine::{Listed, Metric, Micros, StorageOperation, StorageResult};
use crate::pastry::Pastry;
use crate::roster::Roster;
use crate::site::{Due, Site, Turn};
use crate::wire::{Body, ListingEntry, ListingRole, Newness, RangeDigest, RangeListing};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A part of the ring to be compared, or to be searched for objects that belong elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    from: Id,
    to: Id,
    /// Whom to compare with; empty: search for orphans.
    partners: Vec<Id>,
    is_orphans: bool,
}

/// What is still open of the comparison with a partner.
#[derive(Debug, Default)]
struct Exchange {
    open: usize,
    has_failed: bool,
    /// Of what is open, all that is not the fetching of an object: what may still tell of a later lease.
    comparing: usize,
    have_leases_failed: bool,
    /// How new the partner says it is.
    newness: Option<Newness>,
    /// Whether it was begun by us, over all that we may hold; a listing sent unasked proves nothing of the rest.
    is_ours: bool,
    /// When it was begun, if by us.
    begun: Micros,
}

/// One node's upkeep.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    rounds: u32,
    neighbourhood_changed: bool,
    waiting: VecDeque<Segment>,
    is_scanning: bool,
    /// Sums sent to partners that have yet to answer.
    digests_open: usize,
    exchanges: BTreeMap<Id, Exchange>,
    pub(super) meetings: Meetings,
}

impl Upkeep {
    /// Whether partners have yet to answer sums that were sent to them.
    pub(super) fn awaits_answers(&self) -> bool {
        self.digests_open > 0
    }

    /// Who is near has changed.
    pub(super) fn note_change(&mut self) {
        self.neighbourhood_changed = true;
    }

    /// What was compared so far no longer counts, nor does what is under way.
    fn forget_meetings(&mut self) {
        self.meetings.forget();
        for exchange in self.exchanges.values_mut() {
            exchange.has_failed = true;
            exchange.have_leases_failed = true;
        }
    }
}

impl Past {
    /// The node takes part from now on, or again: the first comparison follows at once.
    pub(crate) fn ready(&mut self, turn: &mut Turn<'_>) {
        turn.site.cancel(&[Due::Upkeep]);
        self.upkeep.rounds = 0;
        self.look_at_disk(turn);
        turn.due_about(SECOND, Due::Upkeep);
    }

    /// This node slept, and has missed what happened meanwhile.
    pub(crate) fn slept(&mut self) {
        self.upkeep.forget_meetings();
    }

    /// By another ring document this node may be a holder of keys that it has never compared with anybody.
    pub(crate) fn roster_changed(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        self.upkeep.forget_meetings();
        if pastry.is_ready() {
            self.ready(turn);
        }
    }

    /// The next round comes after this wait.
    pub(super) fn hurry(&mut self, turn: &mut Turn<'_>, wait: Micros) {
        turn.site.cancel(&[Due::Upkeep]);
        turn.due_in(wait, Due::Upkeep);
    }

    /// Whether this node knows what it should hold.
    pub(crate) fn is_synced(&self, pastry: &Pastry, site: &Site) -> bool {
        partners(pastry, &site.roster, site.me).iter().all(|id| self.upkeep.meetings.has_met(*id))
    }

    /// A round begins.
    pub(super) fn upkeep_round(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>) {
        if !pastry.is_ready() {
            return; // Becoming ready begins the rounds anew.
        }
        let is_hurried = self.upkeep.rounds < UPKEEP_SYNC_ROUNDS && !self.is_synced(pastry, turn.site);
        // Leases are compared at least once in a grace, so that nothing is deleted late for want of it.
        let grace = turn.site.roster.ring().parameters.grace_s.saturating_mul(SECOND);
        let period = if is_hurried { UPKEEP_SYNC } else { UPKEEP.min(grace.max(UPKEEP_SYNC)) };
        turn.due_about(period, Due::Upkeep);
        self.upkeep.rounds += 1;
        self.tell_leases_now(pastry, turn);
        self.spare(pastry, turn);
        self.look_for_missing(pastry, turn);
        self.settle_if_met(pastry, turn);
        self.walk_on(turn); // What was put off because too much was under way.
        let mut partners = partners(pastry, &turn.site.roster, turn.site.me);
        if is_hurried {
            partners.retain(|id| !self.upkeep.meetings.has_met_settled(*id));
        }
        // A comparison that is still under way is not begun again on top, and the dead are left alone.
        partners.retain(|id| self.upkeep.exchanges.get(id).is_none_or(|exchange| exchange.open == 0));
        partners.retain(|id| !pastry.is_departed(*id));
        let (from, to) = neighbourhood(pastry, &turn.site.roster, turn.site.me);
        if !partners.is_empty() {
            self.walk(turn, Segment { from, to, partners, is_orphans: false });
        }
        let is_orphans_turn = self.upkeep.rounds.is_multiple_of(ORPHANS_EVERY) || self.upkeep.neighbourhood_changed;
        if !is_hurried && is_orphans_turn && turn.site.roster.len() > 1 {
            self.upkeep.neighbourhood_changed = false;
            let (from, to) = whole_ring(turn.site.me);
            self.walk(turn, Segment { from, to, partners: Vec::new(), is_orphans: true });
        }
    }

    fn walk(&mut self, turn: &mut Turn<'_>, segment: Segment) {
        for partner in &segment.partners {
            self.begin_comparison(*partner);
            let exchange = self.upkeep.exchanges.entry(*partner).or_default();
            if !exchange.is_ours {
                exchange.is_ours = true;
                exchange.begun = turn.now;
            }
        }
        if self.upkeep.waiting.len() >= WALKS_MAX {
            turn.count(Metric::Dropped);
            for partner in segment.partners {
                self.compared(partner, false);
            }
            return;
        }
        self.upkeep.waiting.push_back(segment);
        self.walk_on(turn);
    }

    fn walk_on(&mut self, turn: &mut Turn<'_>) {
        let is_behind = self.upkeep.digests_open >= DIGESTS_OPEN_MAX; // The next answer goes on.
        if self.upkeep.is_scanning || is_behind || self.is_overloaded() {
            return;
        }
        let Some(segment) = self.upkeep.waiting.pop_front() else { return };
        self.upkeep.is_scanning = true;
        let scan =
            StorageOperation::Scan { from: segment.from, to: segment.to, after: None, limit: KEYS_PER_MESSAGE_MAX };
        self.begin_storage(turn, scan, Then::WalkScan(segment));
    }

    pub(super) fn walk_scanned(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        segment: Segment,
        result: StorageResult,
    ) {
        self.upkeep.is_scanning = false;
        let StorageResult::Listed(entries) = result else {
            for partner in segment.partners {
                self.compared(partner, false);
            }
            return self.walk_on(turn);
        };
        let end = end_of_page(&entries, segment.to);
        if segment.is_orphans {
            offer_orphans(pastry, turn, segment.from, end, &entries);
        } else {
            self.send_digests(pastry, turn, &segment, end, &entries);
        }
        if end != segment.to {
            let rest = Segment { from: end.wrapping_add(one()), ..segment.clone() };
            self.walk(turn, rest);
        }
        for partner in segment.partners {
            self.compared(partner, true);
        }
        self.walk_on(turn);
    }

    fn send_digests(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, segment: &Segment, end: Id, entries: &[Listed]) {
        let mut sums: BTreeMap<Id, Sum> = segment.partners.iter().map(|id| (*id, Sum::default())).collect();
        for entry in entries.iter().filter(|entry| is_ours_to_keep(turn, entry)) {
            let holders = holders(pastry, turn, &entry.key);
            if holders.contains(&turn.site.me) {
                for id in holders {
                    if let Some(sum) = sums.get_mut(&id) {
                        sum.add(entry);
                    }
                }
            }
        }
        for (partner, sum) in sums {
            let newness = self.promises.newness(turn.now).filter(|newness| *newness == Newness::Newcomer);
            let digest = RangeDigest { newness, ..sum.digest(turn, segment.from, end) };
            let owner = Owner::Digest { from: segment.from, to: end };
            if turn.call(partner, Body::RangeDigest(digest), owner).is_some() {
                self.begin_comparison(partner);
                self.upkeep.digests_open += 1;
            } else {
                self.fail(partner);
            }
        }
    }

    /// A partner asks us to compare a range.
    pub(super) fn digest_asked(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, digest: RangeDigest) {
        if digest.scope.ring != turn.site.roster.ring().ring || self.is_overloaded() {
            turn.count(Metric::Dropped);
            return;
        }
        let scan =
            StorageOperation::Scan { from: digest.from, to: digest.to, after: None, limit: KEYS_PER_MESSAGE_MAX };
        self.begin_storage(turn, scan, Then::DigestScan { from, request, digest });
    }

    pub(super) fn digest_scanned(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        from: Id,
        request: u64,
        digest: &RangeDigest,
        result: StorageResult,
    ) {
        pastry.compare_epochs(turn, from, digest.scope.epoch);
        let StorageResult::Listed(entries) = result else { return };
        let end = end_of_page(&entries, digest.to);
        let shared = shared_with(pastry, turn, from, &entries);
        let mut sum = Sum::default();
        shared.iter().for_each(|entry| sum.add(entry));
        // Two ring documents share objects out differently: then equal sums say nothing, and the list is sent.
        let is_same = digest.scope == turn.site.scope() && sum.digest(turn, digest.from, digest.to).is_same(digest);
        // A newcomer is told whose word it has, and an agreement has no room for that.
        let newness = self.promises.newness(turn.now).filter(|_| digest.newness.is_some());
        if end == digest.to && is_same && newness.is_none() {
            turn.send(from, request, Body::RangeAgreed);
        } else {
            let listing = RangeListing { newness, ..listing(turn, digest.from, end, &shared, ListingRole::Difference) };
            turn.send(from, request, Body::RangeListing(listing));
        }
    }

    /// The partner agrees, or lists what it has; or it is silent.
    pub(super) fn digest_answered(&mut self, turn: &mut Turn<'_>, partner: Id, from: Id, to: Id, answer: Answer) {
        self.upkeep.digests_open -= 1;
        match answer {
            Answer::Body(Body::RangeAgreed) => self.compared(partner, true),
            Answer::Body(Body::RangeListing(listing)) if is_part_of(&listing, from, to) => {
                if listing.to != to {
                    let rest = Segment {
                        from: listing.to.wrapping_add(one()),
                        to,
                        partners: vec![partner],
                        is_orphans: false,
                    };
                    self.walk(turn, rest);
                }
                if listing.scope != turn.site.scope() {
                    self.fail(partner);
                }
                self.upkeep.exchanges.entry(partner).or_default().newness = listing.newness;
                self.merge(turn, partner, listing);
            }
            _ => self.compared(partner, false),
        }
        self.walk_on(turn);
    }

    /// A partner lists what we lack, or what it holds for us, of its own accord.
    pub(super) fn listing_received(&mut self, turn: &mut Turn<'_>, from: Id, listing: RangeListing) {
        if listing.role == ListingRole::Difference || listing.scope.ring != turn.site.roster.ring().ring {
            turn.count(Metric::Unexpected);
            return;
        }
        self.begin_comparison(from);
        self.merge(turn, from, listing);
    }

    fn merge(&mut self, turn: &mut Turn<'_>, from: Id, listing: RangeListing) {
        if self.is_overloaded() {
            turn.count(Metric::Dropped);
            self.compared(from, false);
            return;
        }
        // Twice a page: we may hold more of this range than the partner, and must find each of its keys in ours.
        let limit = 2 * KEYS_PER_MESSAGE_MAX;
        let scan = StorageOperation::Scan { from: listing.from, to: listing.to, after: None, limit };
        self.begin_storage(turn, scan, Then::MergeScan { from, listing });
    }

    pub(super) fn merge_scanned(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        from: Id,
        listing: RangeListing,
        result: StorageResult,
    ) {
        let StorageResult::Listed(mine) = result else {
            self.compared(from, false);
            return;
        };
        let end = if mine.len() < 2 * KEYS_PER_MESSAGE_MAX { listing.to } else { end_of_page(&mine, listing.to) };
        let held: BTreeMap<Key, &Listed> = mine.iter().map(|entry| (entry.key, entry)).collect();
        let mut later_leases = Vec::new();
        for theirs in listing.entries.iter().filter(|entry| is_between(entry.key.placement(), listing.from, end)) {
            if is_ahead_of(turn, theirs.expiry) {
                turn.count(Metric::Unexpected);
                self.fail(from);
            }
            match held.get(&theirs.key) {
                // A lease is the key's, whichever version it was given for.
                Some(ours) if ours.version >= theirs.version => {
                    if theirs.expiry > ours.expiry {
                        later_leases.push((theirs.key, bounded_lease(turn, theirs.expiry)));
                    }
                }
                _ => self.want(pastry, turn, from, theirs, &listing),
            }
        }
        if !later_leases.is_empty() {
            self.begin_comparison(from); // It ends when they are durable.
            self.begin_storage(turn, StorageOperation::Touch { leases: later_leases }, Then::Adopted { from });
        }
        if listing.role == ListingRole::Difference {
            let theirs: BTreeMap<Key, &ListingEntry> = listing.entries.iter().map(|e| (e.key, e)).collect();
            let mut lacking = shared_with(pastry, turn, from, &mine);
            lacking.retain(|ours| {
                theirs.get(&ours.key).is_none_or(|t| (t.version, t.expiry) < (ours.version, ours.expiry))
            });
            for chunk in lacking.chunks(KEYS_PER_MESSAGE_MAX) {
                let lacking = self::listing(turn, listing.from, listing.to, chunk, ListingRole::Lacking);
                let request = turn.site.number();
                turn.send(from, request, Body::RangeListing(lacking));
            }
        }
        self.compared(from, end == listing.to);
        self.pull_more(turn);
    }

    /// One thing that was open with a partner is done. When all are, and none failed, we have met.
    pub(super) fn close(&mut self, partner: Id, is_good: bool) {
        let Some(exchange) = self.upkeep.exchanges.get_mut(&partner) else { return };
        exchange.has_failed |= !is_good;
        exchange.open = exchange.open.saturating_sub(1);
        if exchange.open == 0 {
            if exchange.is_ours && !exchange.has_failed {
                self.upkeep.meetings.meet(partner, exchange.newness);
            }
            self.upkeep.exchanges.remove(&partner);
        }
    }

    /// An object is to be fetched before we have met this partner.
    pub(super) fn expect_object(&mut self, partner: Id) {
        self.upkeep.exchanges.entry(partner).or_default().open += 1;
    }

    /// An object that this partner has will not be fetched now.
    pub(super) fn forgo_object(&mut self, partner: Id) {
        if let Some(exchange) = self.upkeep.exchanges.get_mut(&partner) {
            exchange.has_failed = true;
        }
    }

    /// The comparison with a partner will not be complete.
    fn fail(&mut self, partner: Id) {
        if let Some(exchange) = self.upkeep.exchanges.get_mut(&partner) {
            exchange.has_failed = true;
            exchange.have_leases_failed = true;
        }
    }

    /// One more thing is to be compared with a partner.
    fn begin_comparison(&mut self, partner: Id) {
        let exchange = self.upkeep.exchanges.entry(partner).or_default();
        exchange.open += 1;
        exchange.comparing += 1;
    }

    /// One thing is compared, or cannot be. When all are, and the leases found are durable, we agree on leases.
    pub(super) fn compared(&mut self, partner: Id, is_good: bool) {
        let Some(exchange) = self.upkeep.exchanges.get_mut(&partner) else { return };
        exchange.have_leases_failed |= !is_good;
        exchange.comparing = exchange.comparing.saturating_sub(1);
        if exchange.comparing == 0 && exchange.is_ours && !exchange.have_leases_failed {
            self.agreements.compared(partner, exchange.begun);
        }
        self.close(partner, is_good);
    }
}

/// Sums over a range: of hashes, so that no object cancels another out.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u32,
    content: u128,
    leases: u128,
}

impl Sum {
    fn add(&mut self, entry: &Listed) {
        let hash = |what: &str, number: u64| {
            let mut hasher = blake3::Hasher::new_derive_key(what);
            hasher.update(&[entry.key.kind as u8]);
            hasher.update(&entry.key.name.0);
            hasher.update(&number.to_le_bytes());
            let mut sum = [0; 16];
            sum.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            u128::from_le_bytes(sum)
        };
        self.count += 1;
        self.content = self.content.wrapping_add(hash("ePOST 2026 range content", entry.version));
        self.leases = self.leases.wrapping_add(hash("ePOST 2026 range lease", entry.expiry));
    }

    fn digest(&self, turn: &Turn<'_>, from: Id, to: Id) -> RangeDigest {
        RangeDigest {
            scope: turn.site.scope(),
            from,
            to,
            count: self.count,
            content: self.content.to_le_bytes(),
            leases: self.leases.to_le_bytes(),
            newness: None,
        }
    }
}

impl RangeDigest {
    fn is_same(&self, other: &RangeDigest) -> bool {
        (self.count, self.content, self.leases) == (other.count, other.content, other.leases)
    }
}

/// Of a page of our own store, the objects still kept that by our view belong on both of us.
fn shared_with(pastry: &Pastry, turn: &Turn<'_>, partner: Id, entries: &[Listed]) -> Vec<Listed> {
    let is_shared = |entry: &&Listed| {
        let holders = holders(pastry, turn, &entry.key);
        is_ours_to_keep(turn, entry) && holders.contains(&turn.site.me) && holders.contains(&partner)
    };
    entries.iter().filter(is_shared).copied().collect()
}

/// Whether an object of our store is one that PAST keeps copies of, still. Fragments are there too, and are no business of ours.
fn is_ours_to_keep(turn: &Turn<'_>, entry: &Listed) -> bool {
    entry.key.kind.is_replicated() && is_kept(turn, entry.expiry)
}

fn listing(turn: &Turn<'_>, from: Id, to: Id, entries: &[Listed], role: ListingRole) -> RangeListing {
    let entries = entries.iter().map(|e| ListingEntry { key: e.key, version: e.version, expiry: e.expiry });
    RangeListing { scope: turn.site.scope(), from, to, entries: entries.collect(), role, newness: None }
}

/// Offers the objects of a page that do not belong on our host, whose disk all its ids share, to the nearest of those they
/// belong to.
fn offer_orphans(pastry: &Pastry, turn: &mut Turn<'_>, from: Id, to: Id, entries: &[Listed]) {
    let mut offers: BTreeMap<Id, Vec<Listed>> = BTreeMap::new();
    let host = turn.site.roster.host(turn.site.me);
    for entry in entries.iter().filter(|entry| is_ours_to_keep(turn, entry)) {
        let holders = holders(pastry, turn, &entry.key);
        let first = holders.iter().find(|id| !turn.site.absences.contains(**id));
        let is_ours = holders.iter().any(|id| turn.site.roster.host(*id) == host);
        if let Some(first) = first.filter(|_| !is_ours) {
            offers.entry(*first).or_default().push(*entry);
        }
    }
    for (holder, entries) in offers {
        let orphans = listing(turn, from, to, &entries, ListingRole::Orphans);
        let request = turn.site.number();
        turn.send(holder, request, Body::RangeListing(orphans));
    }
}

/// With whom we may share objects: our neighbours by who is alive and by the ring document, on both sides.
fn partners(pastry: &Pastry, roster: &Roster, me: Id) -> Vec<Id> {
    let parameters = &roster.ring().parameters;
    let mut partners: BTreeSet<Id> = BTreeSet::new();
    for side in live_sides(pastry, roster, me, usize::from(parameters.k)) {
        partners.extend(side);
    }
    for side in certified_sides(roster, me, usize::from(parameters.k_head)) {
        partners.extend(side);
    }
    partners.remove(&me);
    partners.into_iter().collect()
}

/// The part of the ring in which the keys lie that we may be a holder of: between the outermost partners.
pub(super) fn neighbourhood(pastry: &Pastry, roster: &Roster, me: Id) -> (Id, Id) {
    let parameters = &roster.ring().parameters;
    let count = usize::from(parameters.k_head.max(parameters.k));
    let [certified_left, certified_right] = certified_sides(roster, me, count);
    let [live_left, live_right] = live_sides(pastry, roster, me, usize::from(parameters.k));
    let is_small = pastry.knows_whole_ring() || roster.len() <= 2 * count + 1;
    let left = certified_left.iter().chain(&live_left).max_by_key(|id| id.clockwise(me));
    let right = certified_right.iter().chain(&live_right).max_by_key(|id| me.clockwise(**id));
    match (left, right) {
        (Some(left), Some(right)) if !is_small && me.clockwise(*right) < me.clockwise(*left) => (*left, *right),
        _ => whole_ring(me),
    }
}

/// The placement id up to which a page of a scan is complete.
fn end_of_page(entries: &[Listed], to: Id) -> Id {
    match entries.last() {
        Some(last) if entries.len() >= KEYS_PER_MESSAGE_MAX => last.key.placement(),
        _ => to,
    }
}

/// Whether a listing is about the beginning of the range asked for.
fn is_part_of(listing: &RangeListing, from: Id, to: Id) -> bool {
    listing.role == ListingRole::Difference && listing.from == from && is_between(listing.to, from, to)
}

/// Whether `id` lies clockwise between `from` and `to`, both included.
fn is_between(id: Id, from: Id, to: Id) -> bool {
    from.clockwise(id) <= from.clockwise(to)
}

/// The range that is the whole ring, beginning at `me`.
pub(super) fn whole_ring(me: Id) -> (Id, Id) {
    (me, me.wrapping_sub(one()))
}

fn one() -> Id {
    let mut bytes = [0; Id::LEN];
    bytes[Id::LEN - 1] = 1;
    Id(bytes)
}
