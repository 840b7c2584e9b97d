//! Signed blocks whose end cannot be agreed on, kept by themselves, so that they hold nothing else up.
//!
//! A store deletes what ended before one moment, whatever its kind. For content that moment is soon found: substitutes stand
//! in for holders that are gone. For signed blocks nobody does, so while too many of their eligible members are away (with
//! a k_head of three, one) they may not go, and by that moment nothing else would. Therefore, while the agreement on signed
//! blocks lags behind that on content, a node looks through those it holds, and sets the lease of each that ended longer
//! ago than the grace to where the grace begins. Then content may go up to there. Each round looks again; the moment
//! rises, and the blocks stay, until enough members are back, or the others have been declared dead.
//!
//! A lease that is set so is no later lease to anybody: what ended longer ago than the grace is not compared. What arrives after
//! the look has begun is younger than the grace, or would not be taken.

use super::upkeep::neighbourhood;
use super::{Past, Then};
use crate::id::{Id, Key};
use crate::limits::{KEYS_PER_MESSAGE_MAX, SECOND};
use crate::machine::{Seconds, StorageOperation, StorageResult};
use crate::pastry::{Pastry, is_signed};
use crate::site::Turn;

/// A look through our own store, page by page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sparing {
    /// What ended before this is kept by hand; content that did may go.
    end: Seconds,
    from: Id,
    to: Id,
    /// The last key of the page before, unless this is the first.
    after: Option<Key>,
}

impl Past {
    /// Looks for signed blocks to be kept, if those hold content up.
    pub(super) fn spare(&mut self, pastry: &Pastry, turn: &mut Turn<'_>) {
        if self.agreements.is_sparing || !self.agreements.is_content_held_up {
            return;
        }
        self.agreements.is_sparing = true;
        let (from, to) = neighbourhood(pastry, &turn.site.roster, turn.site.me);
        let grace = turn.site.roster.ring().parameters.grace_s;
        let end = (turn.now / SECOND).saturating_sub(grace);
        self.look_for_spared(turn, Sparing { end, from, to, after: None });
    }

    fn look_for_spared(&mut self, turn: &mut Turn<'_>, sparing: Sparing) {
        let Sparing { from, to, after, .. } = sparing;
        let scan = StorageOperation::Scan { from, to, after, limit: KEYS_PER_MESSAGE_MAX };
        self.begin_storage(turn, scan, Then::SparingScan(sparing));
    }

    /// A page of our store.
    pub(super) fn sparing_scanned(&mut self, turn: &mut Turn<'_>, sparing: Sparing, result: StorageResult) {
        let StorageResult::Listed(entries) = result else {
            self.agreements.is_sparing = false; // The next round tries again.
            return;
        };
        let is_last = entries.len() < KEYS_PER_MESSAGE_MAX;
        let next = Sparing { after: entries.last().map(|entry| entry.key), ..sparing };
        let ended = entries.iter().filter(|entry| is_signed(entry.key.kind) && entry.expiry < sparing.end);
        let leases: Vec<(Key, Seconds)> = ended.map(|entry| (entry.key, sparing.end)).collect();
        if leases.is_empty() {
            self.page_is_spared(turn, next, is_last);
        } else {
            self.begin_storage(turn, StorageOperation::Touch { leases }, Then::Spared(next, is_last));
        }
    }

    pub(super) fn spared(&mut self, turn: &mut Turn<'_>, next: Sparing, is_last: bool, result: &StorageResult) {
        if matches!(result, StorageResult::Touched { .. }) {
            self.page_is_spared(turn, next, is_last);
        } else {
            self.agreements.is_sparing = false;
        }
    }

    fn page_is_spared(&mut self, turn: &mut Turn<'_>, next: Sparing, is_last: bool) {
        if is_last {
            self.agreements.are_spared(next.end);
        } else {
            self.look_for_spared(turn, next);
        }
    }
}
