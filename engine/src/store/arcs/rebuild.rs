//! Rebuilding an arc: a larger or smaller table, or two arcs instead of one.
//!
//! A table does not know the whole hashes of its entries, so they are gathered from the recents and the runs
//! ([`super::gathering`]). The arc serves and changes meanwhile; only what is *added* to it is noted. When all is gathered, the table
//! as it then is says which of the entries are alive and until when: what was removed is no longer in it, leases are read there,
//! and what was added is in the notes. So nothing is replayed and nothing can be missed, and the exchange is one step.
//!
//! If an entry of the table was neither gathered nor noted (its page of a run is damaged), the rebuild says which
//! records it lacks. They hold their keys themselves: the caller reads them and adds them, or gives up those it cannot read.

use super::arc::{Arc, Digest, Known};
use super::gathering::{Gathering, Progress};
use super::hash::{BUCKET, Hasher};
use super::locator::Locator;
use super::table::{Claims, Table};
use super::walk::Need;
use super::{Index, Settings};
use crate::format::{Damage, Identity};
#[cfg(test)]
use crate::key::Key;
use bytes::Bytes;
use std::collections::BTreeSet;

/// A table this full (in per mille of its slots) is rebuilt: beyond, entries begin to find no place.
const FULL: usize = 950;
/// A table is made so large that its entries fill it to this: it grows by a good quarter, and so twice between two splits of its
/// arc, and its slots come to less than twelve bytes an object, averaged over its growth.
const FRESH: usize = 750;
/// A table emptier than this is rebuilt smaller.
const EMPTY: usize = 400;
/// Small arcs grow by at least this share of the largest, and keep a stash of at least half of that.
const STEP_SHARE: usize = 32;

/// Slots of a new table for so many entries.
pub(super) fn slots_for(entries: usize, settings: &Settings) -> usize {
    let step = settings.arc_objects_max / STEP_SHARE;
    let slots = (entries * 1000).div_ceil(FRESH).max(entries + step);
    // No larger than the arc may ever need, unless it could not be split and has to grow beyond.
    let most = (settings.arc_objects_max * 1000).div_ceil(FULL);
    let slots = if entries < settings.arc_objects_max { slots.min(most) } else { slots };
    slots.max(1).next_multiple_of(BUCKET)
}

/// Whether an arc should be rebuilt.
pub(super) fn is_misfit(arc: &Arc, settings: &Settings) -> bool {
    let (entries, slots) = (arc.table.len(), arc.table.slots());
    arc.is_stale
        || entries * 1000 >= slots * FULL
        || (entries * 1000 < slots * EMPTY && slots_for(entries, settings) * 2 <= slots)
}

/// Whether a table takes another entry: its stash is bounded, since it costs four times as much as slots.
pub(super) fn has_room(table: &Table, settings: &Settings) -> bool {
    table.stash.len() < (table.slots() / STEP_SHARE).max(settings.arc_objects_max / STEP_SHARE / 2).max(1)
}

/// A rebuild under way.
#[derive(Debug)]
pub(crate) struct Rebuild {
    /// The arc's positions.
    low: u64,
    high: u64,
    hasher: Hasher,
    gathering: Gathering,
    known: Vec<Known>,
    /// Records that cannot be read.
    lost: BTreeSet<Locator>,
}

impl Rebuild {
    /// Gathers on, about so many entries. When that has come to its end, the rebuild is to be finished before the index changes.
    pub(crate) fn gather(&mut self, index: &Index, steps: usize) -> Progress {
        let (hasher, known) = (self.hasher, &mut self.known);
        let table = &index.arc(self.low).table;
        self.gathering.go_on(index, steps, |entry| {
            if index.is_in_use(entry) && table.tick_of(hasher.hash(&entry.key), entry.locator).is_some() {
                known.push(hasher.known(&entry.key, entry.version, entry.locator));
            }
        })
    }

    /// Hands over bytes that were needed. The first damage is returned to be counted. Bytes that are no longer needed are ignored.
    pub(crate) fn supply(&mut self, need: Need, bytes: Bytes) -> Result<(), Damage> {
        self.gathering.supply(need, bytes)
    }

    /// Passes over bytes that were needed and cannot be had.
    pub(crate) fn skip(&mut self, need: Need) {
        // Nothing is what was read, so all of its pages count as damaged; there is nothing else to report.
        let _ = self.supply(need, Bytes::new());
    }

    #[cfg(test)]
    /// Adds what a record says of itself: one that [`Index::finish_rebuild`] lacked.
    pub(crate) fn add_record(&mut self, key: &Key, version: u64, locator: Locator) {
        self.known.push(self.hasher.known(key, version, locator));
    }

    #[cfg(test)]
    pub(super) fn gathering(&self) -> &Gathering {
        &self.gathering
    }

    #[cfg(test)]
    /// A record that [`Index::finish_rebuild`] lacked cannot be read: its entry goes.
    pub(crate) fn give_up(&mut self, locator: Locator) {
        self.lost.insert(locator);
    }
}

/// Why a rebuild could not be finished: entries of the table that nothing was known of.
#[derive(Debug)]
pub(crate) struct Lacking {
    pub(crate) rebuild: Box<Rebuild>,
    pub(crate) records: Vec<Locator>,
}

impl Index {
    /// Begins the rebuild that is most urgent, if there is one that has not begun.
    pub(crate) fn begin_rebuild(&mut self, identity: Identity) -> Option<Rebuild> {
        let at = self.misfits.iter().map(|low| self.arc_at(*low)).find(|at| self.arcs[*at].noted.is_none())?;
        let arc = &mut self.arcs[at];
        arc.noted = Some(Vec::new());
        let (low, high, known) = (arc.low, arc.high, Vec::with_capacity(arc.table.len()));
        let gathering = Gathering::new(identity, low, high, self);
        Some(Rebuild { low, high, hasher: self.hasher, gathering, known, lost: BTreeSet::new() })
    }

    /// Gives up a rebuild; the arc stays as it is, and is due again.
    pub(crate) fn abandon_rebuild(&mut self, rebuild: &Rebuild) {
        let at = self.arc_at(rebuild.low);
        self.arcs[at].noted = None;
    }

    /// Puts the new table or the two new arcs in the place of the arc. Returns what was given up and is no longer
    /// in the index.
    pub(crate) fn finish_rebuild(&mut self, mut rebuild: Rebuild) -> Result<Vec<Locator>, Lacking> {
        assert!(rebuild.gathering.is_whole(self), "all that there is has been gathered");
        let at = self.arc_at(rebuild.low);
        let arc = &mut self.arcs[at];
        assert_eq!((arc.low, arc.high), (rebuild.low, rebuild.high));
        let noted = arc.noted.as_mut().expect("a rebuild that began and has not ended");
        rebuild.known.append(noted);
        let (alive, unknown) = alive(arc, &rebuild.known);
        let records: Vec<Locator> = unknown.iter().filter(|locator| !rebuild.lost.contains(locator)).copied().collect();
        if !records.is_empty() {
            return Err(Lacking { rebuild: Box::new(rebuild), records });
        }
        let fresh = build(arc, alive, &self.settings);
        let mut digest = Digest::default();
        fresh.iter().for_each(|arc| digest.join(arc.digest));
        assert!(arc.is_stale || !unknown.is_empty() || digest == arc.digest, "an arc's digest is that of its entries");
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.save(arc);
        }
        self.misfits.remove(&rebuild.low);
        let stamp = arc.snapshot;
        let lows: Vec<u64> = fresh.iter().map(|arc| arc.low).collect();
        self.arcs.splice(at..=at, fresh.into_iter().map(|arc| Arc { snapshot: stamp, ..arc }));
        self.objects -= unknown.len();
        lows.into_iter().for_each(|low| self.measure(low));
        Ok(unknown)
    }
}

/// Those of the entries that the arc's table still holds, with their leases, and the records of which nothing is known. The
/// notes come last in `known`, and first here: where a locator was used twice in the meantime, the later record lies there.
fn alive(arc: &Arc, known: &[Known]) -> (Vec<(Known, u32)>, Vec<Locator>) {
    let mut claims = Claims::new(&arc.table);
    let mut alive = Vec::with_capacity(arc.table.len());
    for known in known.iter().rev() {
        alive.extend(claims.claim(known.hash, known.locator).map(|tick| (*known, tick)));
    }
    let unknown = if alive.len() < arc.table.len() { claims.unclaimed() } else { Vec::new() };
    (alive, unknown)
}

/// One or two arcs for the entries of `arc`.
fn build(arc: &Arc, mut alive: Vec<(Known, u32)>, settings: &Settings) -> Vec<Arc> {
    match split_at(&mut alive, settings) {
        Some(middle) => {
            let (lower, upper): (Vec<_>, Vec<_>) = alive.into_iter().partition(|(known, _)| known.position < middle);
            vec![fill(arc.low, middle - 1, &lower, settings), fill(middle, arc.high, &upper, settings)]
        }
        None => vec![fill(arc.low, arc.high, &alive, settings)],
    }
}

/// Where the upper half begins, if there are enough entries for two arcs and they do not all share one position. Changes their
/// order.
fn split_at(alive: &mut [(Known, u32)], settings: &Settings) -> Option<u64> {
    if alive.len() < settings.arc_objects_max {
        return None;
    }
    let half = alive.len() / 2;
    let (lower, (middle, _), upper) = alive.select_nth_unstable_by_key(half, |(known, _)| known.position);
    let middle = middle.position;
    if lower.iter().any(|(known, _)| known.position < middle) {
        return Some(middle);
    }
    upper.iter().map(|(known, _)| known.position).filter(|position| *position > middle).min()
}

fn fill(low: u64, high: u64, alive: &[(Known, u32)], settings: &Settings) -> Arc {
    let (soonest, latest) =
        alive.iter().fold((u32::MAX, 0), |(soonest, latest), (_, tick)| (soonest.min(*tick), latest.max(*tick)));
    let around = if alive.is_empty() { 0 } else { soonest + (latest - soonest) / 2 };
    let mut arc = Arc::new(low, high, Table::new(slots_for(alive.len(), settings), around));
    for (known, tick) in alive {
        arc.table.insert(known.hash, known.locator, *tick);
        arc.digest.add(known.element);
    }
    arc
}

#[cfg(test)]
mod tests {
    //! Goal: what the bounds promise of an arc that grows. Method: the sizes of one arc's tables, from one split to the next.
    use super::*;
    use crate::limits;

    #[test]
    fn a_growing_arc_is_rebuilt_twice_between_splits_and_takes_less_than_twelve_bytes_an_object() {
        let settings = Settings {
            seed: 0,
            digest_seed: 0,
            arc_objects_max: limits::ARC_OBJECTS_MAX,
            recents_max: limits::RECENTS_MAX,
            fan_in: limits::RUN_FAN_IN,
            tag_bits: 16,
        };
        let half = limits::ARC_OBJECTS_MAX / 2;
        let (mut slots, mut rebuilds, mut bytes) = (slots_for(half, &settings), 0, 0.0);
        for entries in half..limits::ARC_OBJECTS_MAX {
            if entries * 1000 >= slots * FULL {
                slots = slots_for(entries, &settings);
                rebuilds += 1;
            }
            // The sizes of arcs are spread evenly over their logarithm.
            bytes += (slots * Table::SLOT_BYTES) as f64 / entries as f64 / entries as f64;
        }
        assert_eq!(rebuilds, 2);
        let average = bytes / std::f64::consts::LN_2;
        assert!((11.0..12.0).contains(&average), "{average}");
    }
}
