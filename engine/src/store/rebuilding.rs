//! Rebuilding the tables of arcs that have become too small or too large, one arc at a time: gathering goes on by a bounded number
//! of steps each turn, and the pages of runs it needs are read meanwhile (see [`super::arcs::rebuild`]).

use super::arcs::gathering::Progress;
use super::arcs::rebuild::Rebuild;
use super::arcs::walk::Need;
use super::pages::Pages;
use super::{Pending, Store};
use crate::disk::{Disk, DiskError, Outcome};
use crate::key::Key;
use crate::limits;

/// The rebuild under way, and when the next may begin.
#[derive(Debug, Default)]
pub(super) struct Rebuilding {
    under_way: Option<UnderWay>,
    /// After a failure: not before this batch again.
    not_before: u64,
    /// The last one failed, so that puts do not wait for the next.
    has_stalled: bool,
}

#[derive(Debug)]
struct UnderWay {
    rebuild: Rebuild,
    /// Pages are being read for it.
    is_reading: bool,
    /// A page could not be read: the device failed.
    was_refused: bool,
}

impl Rebuilding {
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}

impl<D: Disk> Store<D> {
    /// Moves the rebuild on, or begins the next. Returns whether something moved.
    pub(super) fn advance_rebuild(&mut self) -> bool {
        if self.rebuilding.under_way.is_none() {
            self.rebuilding.under_way = self.begin_rebuild();
        }
        let Some(under_way) = self.rebuilding.under_way.as_mut().filter(|under_way| !under_way.is_reading) else {
            return false;
        };
        match under_way.rebuild.gather(&self.index, limits::WALK_STEPS_PER_TURN) {
            Progress::More => {}
            Progress::Need(need) => {
                under_way.is_reading = true;
                self.read_pages(need, false, Pending::Rebuild { need });
            }
            Progress::End => self.end_rebuild(),
        }
        true
    }

    fn begin_rebuild(&mut self) -> Option<UnderWay> {
        if self.log.durable < self.rebuilding.not_before {
            return None;
        }
        let rebuild = self.index.begin_rebuild(self.identity)?;
        self.rebuilding.has_stalled = false;
        Some(UnderWay { rebuild, is_reading: false, was_refused: false })
    }

    pub(super) fn rebuild_pages_read(&mut self, need: Need, result: Result<Outcome, DiskError>) {
        let pages = self.pages_of(need, result);
        let under_way = self.rebuilding.under_way.as_mut().expect("a rebuild ends when nothing is read for it");
        under_way.is_reading = false;
        match pages {
            Pages::Read(bytes) => {
                let taken = under_way.rebuild.supply(need, bytes);
                self.counters.run_damage += self.run_files.note_damage(need.run, u64::from(taken.is_err()));
            }
            Pages::Merged => {}
            Pages::Refused => {
                under_way.was_refused = true;
                under_way.rebuild.skip(need);
            }
        }
    }

    fn end_rebuild(&mut self) {
        let Some(UnderWay { rebuild, was_refused, .. }) = self.rebuilding.under_way.take() else { return };
        let arcs = self.index.arcs().len();
        match self.index.finish_rebuild(rebuild) {
            Ok(given_up) => {
                for locator in given_up {
                    self.segments.discharge(u32::from(locator.segment()), locator.bytes());
                }
                self.counters.rebuilds += 1;
                self.counters.splits += (self.index.arcs().len() - arcs) as u64;
            }
            // Pages of runs are damaged, and what they named is known to nobody. The table stays as it is, and takes what
            // comes into its stash.
            Err(lacking) => {
                self.counters.run_damage += if was_refused { 0 } else { lacking.records.len() as u64 };
                self.index.abandon_rebuild(&lacking.rebuild);
                self.rebuilding.has_stalled = true;
                self.rebuilding.not_before = self.log.durable + 256;
            }
        }
    }

    /// Whether a new object at the key's position may be added now.
    pub(super) fn has_index_room(&self, key: &Key) -> bool {
        self.index.has_room(key) || self.rebuilding.has_stalled || !self.index.is_rebuild_due()
    }
}
