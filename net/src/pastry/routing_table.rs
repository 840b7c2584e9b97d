//! The routing table: for each length of shared prefix and each next digit, one node that has them.
//!
//! Invariants: the entry at (row, column) shares exactly `row` digits with us and has digit `column` next. An entry is
//! *proven* when the node has spoken to us itself; one known by hearsay or from the ring document is used as well, and
//! gives way to a proven one. Of proven nodes the one with the shorter round trip has the slot, by a margin, so that two
//! of like distance do not take turns. A dead entry is found out by its first missing acknowledgement and replaced.

use crate::id::Id;
use crate::machine::Micros;
use crate::roster::Roster;

/// Rows beyond this are never filled: with 16 digits shared, a node is in the leaf set.
const ROWS_MAX: usize = 16;
const COLUMNS: u8 = 16;

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: Id,
    /// Whether it has spoken to us.
    is_proven: bool,
    /// How long it takes to answer, once that is known.
    round_trip: Option<Micros>,
}

impl Entry {
    /// Whether it should have the slot of another: nearer by an eighth, or known to be somewhere at all.
    fn is_nearer(&self, other: &Entry) -> bool {
        match (self.round_trip, other.round_trip) {
            (Some(mine), Some(its)) => mine + mine / 8 < its,
            (mine, None) => mine.is_some(),
            (None, Some(_)) => false,
        }
    }
}

/// One entry for each row and column that anybody is known for.
#[derive(Debug)]
pub(crate) struct RoutingTable {
    me: Id,
    /// For each row, which columns are taken.
    taken: [u16; ROWS_MAX],
    /// One for each that is taken, by row and column.
    entries: Vec<Entry>,
}

impl RoutingTable {
    pub(crate) fn new(me: Id) -> RoutingTable {
        RoutingTable { me, taken: [0; ROWS_MAX], entries: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry one digit nearer to `target` than we are.
    pub(crate) fn towards(&self, target: Id) -> Option<Id> {
        self.find(self.slot(target)?).ok().map(|at| self.entries[at].id)
    }

    /// Whether nobody has the slot of `id`.
    pub(crate) fn has_room(&self, id: Id) -> bool {
        self.slot(id).is_some_and(|slot| self.find(slot).is_err())
    }

    /// Everybody in the table.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.entries.iter().map(|entry| entry.id)
    }

    /// One row, nearest first, with round trips as far as they are known.
    pub(crate) fn row(&self, row: u8) -> Vec<(Id, Option<Micros>)> {
        let Some(taken) = self.taken.get(usize::from(row)) else { return Vec::new() };
        let first = self.before(row);
        let entries = &self.entries[first..first + taken.count_ones() as usize];
        let mut row: Vec<_> = entries.iter().map(|entry| (entry.id, entry.round_trip)).collect();
        row.sort_by_key(|(id, round_trip)| (round_trip.unwrap_or(Micros::MAX), *id));
        row
    }

    /// Everybody in this row and those below it: they share at least so many digits with us.
    pub(crate) fn row_and_below(&self, row: u8) -> impl Iterator<Item = Id> + '_ {
        self.entries[self.before(row.min(ROWS_MAX as u8))..].iter().map(|entry| entry.id)
    }

    /// Those whose round trip is not known.
    pub(crate) fn unmeasured(&self) -> impl Iterator<Item = Id> + '_ {
        self.entries.iter().filter(|entry| entry.round_trip.is_none()).map(|entry| entry.id)
    }

    /// Whether `id` would have a slot if its round trip were `round_trip`.
    pub(crate) fn would_gain(&self, id: Id, round_trip: Micros) -> bool {
        let candidate = Entry { id, is_proven: true, round_trip: Some(round_trip) };
        let holder = self.slot(id).and_then(|slot| self.find(slot).ok()).map(|at| self.entries[at]);
        holder.is_some_and(|holder| holder.id != id && candidate.is_nearer(&holder))
    }

    /// Rows that have entries.
    pub(crate) fn rows(&self) -> u8 {
        self.taken.iter().rposition(|taken| *taken != 0).map_or(0, |row| row as u8 + 1)
    }

    /// `id` has spoken to us: it takes its slot if that is free, or held by hearsay or by somebody farther away.
    pub(crate) fn prove(&mut self, id: Id, round_trip: Option<Micros>) {
        let Some(slot) = self.slot(id) else { return };
        let entry = Entry { id, is_proven: true, round_trip };
        match self.find(slot) {
            Ok(at) => {
                let holder = self.entries[at];
                if holder.id == id || !holder.is_proven || entry.is_nearer(&holder) {
                    self.entries[at] = entry;
                }
            }
            Err(at) => self.insert(slot, at, entry),
        }
    }

    /// `id` is known by hearsay: it takes its slot if that is free.
    pub(crate) fn suggest(&mut self, id: Id) {
        if let Some(slot) = self.slot(id)
            && let Err(at) = self.find(slot)
        {
            self.insert(slot, at, Entry { id, is_proven: false, round_trip: None });
        }
    }

    /// Takes a dead entry out and puts another certified node in its place, if `allowed` leaves one.
    pub(crate) fn replace(&mut self, id: Id, roster: &Roster, draw: u64, allowed: impl Fn(Id) -> bool) {
        let Some(slot) = self.slot(id) else { return };
        if let Ok(at) = self.find(slot)
            && self.entries[at].id == id
        {
            self.entries.remove(at);
            self.taken[usize::from(slot.0)] &= !(1 << slot.1);
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
                if self.find((row, column)).is_err() {
                    self.fill_slot((row, column), roster, draw(), &allowed);
                }
            }
        }
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
        let place = |step: usize| candidates.start + (start + step) % count;
        let chosen = (0..count.min(8)).map(|step| roster.id_at(place(step))).find(|id| allowed(*id));
        if let (Some(id), Err(at)) = (chosen, self.find(slot)) {
            self.insert(slot, at, Entry { id, is_proven: false, round_trip: None });
        }
    }

    /// Entries of the rows above this one.
    fn before(&self, row: u8) -> usize {
        self.taken[..usize::from(row)].iter().map(|taken| taken.count_ones() as usize).sum()
    }

    /// Where the entry of a slot is, or where it would be put.
    fn find(&self, (row, column): (u8, u8)) -> Result<usize, usize> {
        let (taken, bit) = (self.taken[usize::from(row)], 1u16 << column);
        let at = self.before(row) + (taken & (bit - 1)).count_ones() as usize;
        if taken & bit != 0 { Ok(at) } else { Err(at) }
    }

    fn insert(&mut self, (row, column): (u8, u8), at: usize, entry: Entry) {
        self.taken[usize::from(row)] |= 1 << column;
        self.entries.insert(at, entry);
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

#[cfg(test)]
mod tests {
    //! Goal: each slot holds the nearest of what it was given, in order. Method: random ids (many in a slot) proven at random
    //! distances and suggested, beside an ordered map by row and column; proptest prints the seed of a failure.
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn agrees_with_an_ordered_map(ids in prop::collection::vec((0usize..6, any::<u8>(), 0u64..4, any::<bool>()), 0..200)) {
            let me = Id([0x5a; 20]);
            let mut table = RoutingTable::new(me);
            // By slot: who has it, and its distance; 0 for hearsay.
            let mut model: BTreeMap<(u8, u8), (Id, u64)> = BTreeMap::new();
            for (shared, byte, distance, is_removed) in ids {
                let mut id = me;
                id.0[shared] = byte;
                let slot = (me.shared_digits(id) as u8, id.digit(me.shared_digits(id).min(39)));
                if id == me {
                    continue;
                }
                prop_assert_eq!(table.has_room(id), !model.contains_key(&slot));
                if is_removed {
                    let roster = Roster::new(crate::sim::Founding::new(1, 0, crate::ring::Parameters::DEFAULT).ring, bytes::Bytes::new());
                    table.replace(id, &roster, 0, |_| true);
                    if model.get(&slot).is_some_and(|(holder, _)| *holder == id) {
                        model.remove(&slot);
                    }
                } else if distance > 0 {
                    table.prove(id, Some(distance * 1_000));
                    let holder = model.entry(slot).or_insert((id, distance));
                    if holder.0 == id || holder.1 == 0 || distance < holder.1 {
                        *holder = (id, distance);
                    }
                } else {
                    table.suggest(id);
                    model.entry(slot).or_insert((id, 0));
                }
                prop_assert_eq!(table.towards(id), model.get(&slot).map(|(holder, _)| *holder));
            }
            prop_assert_eq!(table.ids().collect::<Vec<_>>(), model.values().map(|(holder, _)| *holder).collect::<Vec<_>>());
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.rows(), model.last_key_value().map_or(0, |((row, _), _)| row + 1));
            for row in 0..20u8 {
                let mut expected: Vec<(u64, Id)> = Vec::new();
                for (_, (id, distance)) in model.iter().filter(|((of, _), _)| *of == row) {
                    expected.push((if *distance == 0 { u64::MAX } else { distance * 1_000 }, *id));
                }
                expected.sort();
                let row: Vec<(u64, Id)> = table.row(row).into_iter().map(|(id, far)| (far.unwrap_or(u64::MAX), id)).collect();
                prop_assert_eq!(row, expected);
            }
        }
    }
}
