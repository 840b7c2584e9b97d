//! Who holds a key, as seen from here.
//!
//! A signed block is held by the eligible members of the ring document, whether they answer or not. Content is held by the k
//! nearest hosts that are alive; but to be *away* is not to be gone. Most that stop answering are back in minutes, with all
//! that they held, and were their keys handed on at once, each reboot would copy a node's whole share out and in again. So a
//! member that is missing keeps its claim to be a holder for [`ABSENCE`], as each of its neighbours counts it for himself from
//! when he first missed it (a neighbour that has just started counts from then). No substitute is a holder meanwhile, unless
//! fewer than two holders of a key are there: then the next that are alive are holders as well, at once.
//!
//! A host may have many ids ([`crate::ring::Member::weight`]), and holds a key by one of them at most: by its nearest. Holders
//! are therefore counted in hosts, outward from the key along the ring document, however many ids that takes; the leaf set
//! says who of them is alive as far as it reaches. Beside a host with more ids than a leaf set has room for it reaches few
//! others, and those beyond are taken for alive until found dead.
//!
//! What is inserted while a holder is away goes to k live nodes all the same ([`super::insert`]); on its return it fetches
//! that, and nothing else.

use super::Past;
use crate::id::{Id, Key};
use crate::limits::{ABSENCE, ABSENCE_SPREAD, SECOND};
use crate::machine::Micros;
use crate::pastry::{Pastry, eligible, is_signed};
use crate::roster::{Roster, Seat, first_hosts};
use crate::site::{Due, Turn};
use std::collections::{BTreeMap, BTreeSet};

/// Most ids on either side that are looked through for members that are missing.
const NEAR_IDS_MAX: usize = 256;

/// So many live holders are enough to wait for those that are away.
const ENOUGH_ALIVE: usize = 2;

/// Active members near us that are missing from our leaf set, and since when.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    since: BTreeMap<Id, Micros>,
}

impl Absences {
    /// Whether this member is away, and for no longer than [`ABSENCE`].
    fn has_claim(&self, id: Id, now: Micros) -> bool {
        self.since.get(&id).is_some_and(|since| now < *since + ABSENCE)
    }

    /// Those whose claim has ended since it was last time to look.
    fn lately_lapsed(&self, now: Micros) -> impl Iterator<Item = Id> + '_ {
        let lately = now.saturating_sub(ABSENCE + 2 * ABSENCE_SPREAD)..=now.saturating_sub(ABSENCE);
        self.since.iter().filter(move |(_, since)| lately.contains(since)).map(|(id, _)| *id)
    }

    /// Whether this member is missing.
    pub(super) fn contains(&self, id: Id) -> bool {
        self.since.contains_key(&id)
    }

    /// Counts these as missing, from now if they were not, and nobody else. Returns whether any is newly missing.
    fn set(&mut self, missing: &BTreeSet<Id>, now: Micros) -> bool {
        self.since.retain(|id, _| missing.contains(id));
        let before = self.since.len();
        for id in missing {
            self.since.entry(*id).or_insert(now);
        }
        self.since.len() > before
    }
}

impl Past {
    /// The leaf set has changed, or the ring document.
    pub(crate) fn neighbourhood_changed(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        self.upkeep.note_change();
        if pastry.is_ready() {
            self.look_for_missing(pastry, turn); // Before, the first round of upkeep is soon enough.
        }
    }

    /// Notes who is missing near us, and who is back.
    pub(super) fn look_for_missing(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        let missing = missing(pastry, &turn.site.roster, turn.site.me);
        if !turn.site.absences.set(&missing, turn.now) {
            return;
        }
        let spread = turn.site.random() % ABSENCE_SPREAD;
        turn.due_in(ABSENCE + spread, Due::Absence);
        if is_any_key_endangered(turn) {
            self.hurry(turn, 2 * SECOND);
        }
    }

    /// Somebody has been away for so long that others take its place. That concerns those within k hosts of it: the holders of
    /// its keys, and whoever becomes one.
    pub(super) fn absence_over(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        let (me, now, absences) = (turn.site.me, turn.now, &turn.site.absences);
        let k = usize::from(turn.site.roster.ring().parameters.k);
        let is_near = |lapsed: Id| {
            let counts = |id| id == lapsed || is_alive(pastry, me, id) || absences.has_claim(id, now);
            sides(&turn.site.roster, me, k, counts).iter().flatten().any(|id| *id == lapsed)
        };
        if absences.lately_lapsed(now).any(is_near) {
            self.hurry(turn, SECOND);
        }
    }
}

/// The members that ought to hold `key`: by the ring document if it is signed, else by who is alive, or not long away.
pub(super) fn holders(pastry: &Pastry, turn: &Turn<'_>, key: &Key) -> Vec<Id> {
    if !is_signed(key.kind) && pastry.is_ready() && pastry.covers(key.placement()) {
        content_holders(pastry, turn, key.placement())
    } else {
        eligible(&turn.site.roster, key)
    }
}

fn content_holders(pastry: &Pastry, turn: &Turn<'_>, place: Id) -> Vec<Id> {
    let roster = &turn.site.roster;
    let k = usize::from(roster.ring().parameters.k);
    let (mut chosen, mut hosts, mut here) = (Vec::with_capacity(k), Vec::with_capacity(k), 0);
    for (id, host) in roster.nearest_active(place) {
        let has_k = chosen.len() >= k;
        if has_k && here >= ENOUGH_ALIVE.min(k) {
            break;
        }
        let is_here = is_alive(pastry, turn.site.me, id);
        if !hosts.contains(&host) && (is_here || !has_k && turn.site.absences.has_claim(id, turn.now)) {
            hosts.push(host);
            chosen.push(id);
            here += usize::from(is_here);
        }
    }
    chosen
}

/// The `count` hosts nearest to `place` that are alive, by one id each, nearest first.
pub(super) fn nearest_live(pastry: &Pastry, turn: &Turn<'_>, place: Id, count: usize) -> Vec<Id> {
    let me = turn.site.me;
    first_hosts(turn.site.roster.nearest_active(place).filter(|(id, _)| is_alive(pastry, me, *id)), count)
}

/// The nearest `count` other hosts on either side of us that are alive.
pub(super) fn live_sides(pastry: &Pastry, roster: &Roster, me: Id, count: usize) -> [Vec<Id>; 2] {
    sides(roster, me, count, |id| is_alive(pastry, me, id))
}

/// The nearest `count` other hosts on either side of us that hold content: alive, or not long away.
pub(super) fn claiming_sides(pastry: &Pastry, turn: &Turn<'_>, count: usize) -> [Vec<Id>; 2] {
    let (me, absences) = (turn.site.me, &turn.site.absences);
    sides(&turn.site.roster, me, count, |id| is_alive(pastry, me, id) || absences.has_claim(id, turn.now))
}

/// The nearest `count` other hosts on either side of us by the ring document.
pub(super) fn certified_sides(roster: &Roster, me: Id, count: usize) -> [Vec<Id>; 2] {
    sides(roster, me, count, |_| true)
}

/// Counter-clockwise and clockwise, nearest first. Our own host is not among them: of its ids one at most is a holder.
fn sides(roster: &Roster, me: Id, count: usize, admits: impl Fn(Id) -> bool) -> [Vec<Id>; 2] {
    let own = roster.host(me);
    let near = |seats: &mut dyn Iterator<Item = &Seat>| {
        let others = seats.filter(|seat| seat.active && own != Some(seat.host) && admits(seat.id));
        first_hosts(others.map(|seat| (seat.id, seat.host)), count)
    };
    [near(&mut roster.seats_counter_clockwise_from(me)), near(&mut roster.seats_clockwise_from(me))]
}

/// Whether a member is taken for alive. Of those within our leaf set's reach we know; a host with many ids may fill it, and
/// what lies beyond is taken for alive until it has not answered.
fn is_alive(pastry: &Pastry, me: Id, id: Id) -> bool {
    id == me || pastry.is_believed_alive(id)
}

/// The active members near us that ought to answer and do not: within a leaf set's number of ids, and the hosts of some keys.
fn missing(pastry: &Pastry, roster: &Roster, me: Id) -> BTreeSet<Id> {
    let parameters = roster.ring().parameters;
    let (ids_min, hosts_min) = (usize::from(parameters.leaf_set), 2 * usize::from(parameters.k.max(parameters.k_head)));
    let [left, right] = certified_sides(roster, me, hosts_min);
    let mut missing = BTreeSet::new();
    let mut look = |seats: &mut dyn Iterator<Item = &Seat>, last: Option<&Id>| {
        let mut has_hosts = last.is_none();
        for (nth, seat) in seats.take(NEAR_IDS_MAX).enumerate() {
            if seat.active && !pastry.is_believed_alive(seat.id) {
                missing.insert(seat.id);
            }
            has_hosts |= last == Some(&seat.id);
            if has_hosts && nth + 1 >= ids_min {
                break;
            }
        }
    };
    look(&mut roster.seats_clockwise_from(me), right.last());
    look(&mut roster.seats_counter_clockwise_from(me), left.last());
    missing
}

/// Whether of some key near us too few holders are left to wait for the others. Its holders are k hosts next to each other, of
/// those that are there or have a claim, so some such k are looked for among which enough are away.
fn is_any_key_endangered(turn: &Turn<'_>) -> bool {
    let (roster, absences, me) = (&turn.site.roster, &turn.site.absences, turn.site.me);
    let reach = usize::from(roster.ring().parameters.leaf_set);
    let k = usize::from(roster.ring().parameters.k);
    let mut around: Vec<&Seat> = roster.seats_counter_clockwise_from(me).take(reach).collect();
    around.reverse();
    around.extend(roster.seat(me));
    around.extend(roster.seats_clockwise_from(me).take(reach));
    around.retain(|seat| seat.active && (!absences.contains(seat.id) || absences.has_claim(seat.id, turn.now)));
    (0..around.len()).any(|first| {
        let with_hosts = around[first..].iter().map(|seat| (seat.id, seat.host));
        let away = first_hosts(with_hosts, k).into_iter().filter(|id| absences.contains(*id)).count();
        away + ENOUGH_ALIVE > k
    })
}
