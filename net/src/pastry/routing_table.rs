//! The routing table: for each length of shared prefix and each next digit, one node that has them.
//!
//! Invariants: the entry at (row, column) shares exactly `row` digits with us and has digit `column` next. An entry is
//! *proven* when the node has spoken to us itself; one known by hearsay or from the ring document is used as well, and
//! gives way to a proven one. A dead entry is found out by its first missing acknowledgement and replaced.

use crate::id::Id;
use crate::machine::Micros;
use crate::roster::Roster;
use std::collections::BTreeMap;

/// Rows beyond this are never filled: with 16 digits shared, a node is in the leaf set.
const ROWS_MAX: usize = 16;
const COLUMNS: u8 = 16;

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: Id,
    /// When it was last heard of by its own word; 0 for hearsay.
    heard: Micros,
}

/// One entry for each row and column that anybody is known for.
#[derive(Debug)]
pub(crate) struct RoutingTable {
    me: Id,
    entries: BTreeMap<(u8, u8), Entry>,
}

impl RoutingTable {
    pub(crate) fn new(me: Id) -> RoutingTable {
        RoutingTable { me, entries: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry one digit nearer to `target` than we are.
    pub(crate) fn towards(&self, target: Id) -> Option<Id> {
        self.entries.get(&self.slot(target)?).map(|entry| entry.id)
    }

    /// Everybody in the table.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.entries.values().map(|entry| entry.id)
    }

    /// One row, in column order.
    pub(crate) fn row(&self, row: u8) -> Vec<Id> {
        self.entries.range((row, 0)..=(row, COLUMNS - 1)).map(|(_, entry)| entry.id).collect()
    }

    /// Rows that have entries.
    pub(crate) fn rows(&self) -> u8 {
        self.entries.last_key_value().map_or(0, |((row, _), _)| row + 1)
    }

    /// `id` has spoken to us at `now`: it takes its slot if that is free or held by hearsay.
    pub(crate) fn prove(&mut self, id: Id, now: Micros) {
        let Some(slot) = self.slot(id) else { return };
        let entry = self.entries.entry(slot).or_insert(Entry { id, heard: now });
        if entry.id == id || entry.heard == 0 {
            *entry = Entry { id, heard: now };
        }
    }

    /// `id` is known by hearsay: it takes its slot if that is free.
    pub(crate) fn suggest(&mut self, id: Id) {
        if let Some(slot) = self.slot(id) {
            self.entries.entry(slot).or_insert(Entry { id, heard: 0 });
        }
    }

    /// Takes a dead entry out and puts another certified node in its place, if `allowed` leaves one.
    pub(crate) fn replace(&mut self, id: Id, roster: &Roster, draw: u64, allowed: impl Fn(Id) -> bool) {
        let Some(slot) = self.slot(id) else { return };
        if self.entries.get(&slot).is_some_and(|entry| entry.id == id) {
            self.entries.remove(&slot);
            self.fill_slot(slot, roster, draw, |other| other != id && allowed(other));
        }
    }

    /// Fills free slots from the ring document, so that a node need not hear of everybody by gossip first.
    pub(crate) fn fill(&mut self, roster: &Roster, mut draw: impl FnMut() -> u64, allowed: impl Fn(Id) -> bool) {
        let me = self.me;
        for row in 0..ROWS_MAX as u8 {
            if roster.between(prefix(me, row, None, 0), prefix(me, row, None, 0xff)).len() <= 1 {
                return; // Nobody else shares this many digits.
            }
            for column in (0..COLUMNS).filter(|column| *column != me.digit(usize::from(row))) {
                if !self.entries.contains_key(&(row, column)) {
                    self.fill_slot((row, column), roster, draw(), &allowed);
                }
            }
        }
    }

    /// The entry unheard of for the longest time, with that time.
    pub(crate) fn stalest(&self) -> Option<(Id, Micros)> {
        self.entries.values().min_by_key(|entry| entry.heard).map(|entry| (entry.id, entry.heard))
    }

    fn slot(&self, id: Id) -> Option<(u8, u8)> {
        let row = self.me.shared_digits(id);
        (row < ROWS_MAX).then(|| (row as u8, id.digit(row)))
    }

    fn fill_slot(&mut self, slot: (u8, u8), roster: &Roster, draw: u64, allowed: impl Fn(Id) -> bool) {
        let (row, column) = slot;
        let low = prefix(self.me, row, Some(column), 0);
        let high = prefix(self.me, row, Some(column), 0xff);
        let candidates = roster.between(low, high);
        let count = candidates.len();
        if count == 0 {
            return;
        }
        // Beginning at a drawn place, the first that is allowed; a few tries will do.
        let start = (draw % count as u64) as usize;
        let chosen =
            roster.between(low, high).skip(start).chain(candidates.take(start)).take(8).find(|id| allowed(*id));
        if let Some(id) = chosen {
            self.entries.insert(slot, Entry { id, heard: 0 });
        }
    }
}

/// The first `row` digits of `me`, then `column` if given, then `fill` in every later bit.
fn prefix(me: Id, row: u8, column: Option<u8>, fill: u8) -> Id {
    let mut bytes = [fill; Id::LEN];
    let mut set = |index: usize, digit: u8| {
        let byte = &mut bytes[index / 2];
        *byte = if index.is_multiple_of(2) { (digit << 4) | (*byte & 0x0f) } else { (*byte & 0xf0) | digit };
    };
    for index in 0..usize::from(row) {
        set(index, me.digit(index));
    }
    if let Some(column) = column {
        set(usize::from(row), column);
    }
    Id(bytes)
}
