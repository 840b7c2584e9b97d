//! Who holds a key, as seen from here.
//!
//! A signed block is held by the eligible members of the ring document, whether they answer or not. Content is held by the k
//! nearest hosts that are alive; but to be *away* is not to be gone. Most that stop answering are back in minutes, with all
//! that they held, and were their keys handed on at once, each reboot would copy a node's whole share out and in again. So a
//! member that is missing keeps its claim to be a holder for [`ABSENCE`], as each of its neighbours counts it for himself from
//! when he first missed it (a neighbour that has just started counts from then). No substitute is a holder meanwhile, unless
//! fewer than two holders of a key are there: then the next that are alive are holders as well, at once.
//!
//! What is inserted while a holder is away goes to k live nodes all the same ([`super::insert`]); on its return it fetches
//! that, and nothing else.

use super::Past;
use crate::id::{Id, Key};
use crate::limits::{ABSENCE, ABSENCE_SPREAD, SECOND};
use crate::machine::Micros;
use crate::pastry::{Pastry, eligible, is_signed};
use crate::roster::{Host, Roster};
use crate::site::{Due, Turn};
use std::collections::{BTreeMap, BTreeSet};

/// So many live holders are enough to wait for those that are away.
const ENOUGH_ALIVE: usize = 2;

/// Active members near us that are missing from our leaf set, and since when.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    since: BTreeMap<Id, Micros>,
}

impl Absences {
    /// Those that are away for no longer than [`ABSENCE`].
    fn claiming(&self, now: Micros) -> impl Iterator<Item = Id> + '_ {
        self.since.iter().filter(move |(_, since)| now < **since + ABSENCE).map(|(id, _)| *id)
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
        let missing = missing(pastry, &turn.site.roster, turn.site.me);
        if !turn.site.absences.set(&missing, turn.now) {
            return;
        }
        let spread = turn.site.random() % ABSENCE_SPREAD;
        turn.due_in(ABSENCE + spread, Due::Absence);
        let k = usize::from(turn.site.roster.ring().parameters.k);
        if turn.site.absences.claiming(turn.now).count() + ENOUGH_ALIVE > k {
            // Of some keys too few holders may be left to wait.
            self.hurry(turn, 2 * SECOND);
        }
    }

    /// Somebody has been away for so long that others take its place.
    pub(super) fn absence_over(&mut self, turn: &mut Turn<'_>) {
        self.hurry(turn, SECOND);
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
    let live = pastry.closest(roster, place, k);
    let mut all: Vec<Id> = turn.site.absences.claiming(turn.now).collect();
    if all.is_empty() {
        return live;
    }
    all.extend(&live);
    all.sort_by_key(|id| (id.distance(place), *id));
    let mut chosen = distinct_hosts(roster, &all, k);
    let mut alive = chosen.iter().filter(|id| live.contains(id)).count();
    for id in live {
        if alive < ENOUGH_ALIVE && !chosen.contains(&id) {
            chosen.push(id);
            alive += 1;
        }
    }
    chosen
}

/// The nearest `count` hosts on either side that hold content: alive, or not long away.
pub(super) fn claiming_sides(pastry: &Pastry, turn: &Turn<'_>, count: usize) -> [Vec<Id>; 2] {
    let (roster, me) = (&turn.site.roster, turn.site.me);
    let [mut left, mut right] = pastry.sides(roster, count);
    left.extend(turn.site.absences.claiming(turn.now));
    left.sort_by_key(|id| id.clockwise(me));
    right.extend(turn.site.absences.claiming(turn.now));
    right.sort_by_key(|id| me.clockwise(*id));
    [distinct_hosts(roster, &left, count), distinct_hosts(roster, &right, count)]
}

/// The active members that ought to be in our leaf set and are not: as many on each side as it has room for, within its reach.
fn missing(pastry: &Pastry, roster: &Roster, me: Id) -> BTreeSet<Id> {
    let leaf_set: BTreeSet<Id> = pastry.leaf_set().into_iter().collect();
    let reach = usize::from(roster.ring().parameters.leaf_set);
    let near = roster.clockwise_from(me).take(reach).chain(roster.counter_clockwise_from(me).take(reach));
    near.filter(|id| !leaf_set.contains(id) && roster.is_active(*id) && pastry.covers(*id)).collect()
}

/// The first `count` of `ids` that are on distinct hosts.
fn distinct_hosts(roster: &Roster, ids: &[Id], count: usize) -> Vec<Id> {
    let mut hosts: Vec<Host> = Vec::with_capacity(count);
    let mut chosen = Vec::with_capacity(count);
    for id in ids {
        if chosen.len() == count {
            break;
        }
        let Some(host) = roster.host(*id) else { continue };
        if !hosts.contains(&host) {
            hosts.push(host);
            chosen.push(*id);
        }
    }
    chosen
}
