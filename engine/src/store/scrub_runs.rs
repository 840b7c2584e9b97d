//! The second part of a pass of scrub: the runs' files, page by page, by the same steps and budget as the segments before.
//!
//! A get never looks into a run, so rot there would be noticed only by the scan or the sweep that passes over it. A page is
//! sound if its checksum is, and it says that it is this page of this run; the header must say what is known of the run, too.
//!
//! Damage is counted, a page once in a pass, and the run is remembered as damaged until its file is gone. That is all: which
//! objects a page named is known to nobody. They are read as before, but walks pass over them until cleaning has moved their
//! records, which names them anew.
//!
//! Invariants:
//! - one stretch in flight at a time, of at most [`limits::SCRUB_CHUNK`] bytes;
//! - a run is held by nobody for being read: one that is merged meanwhile is left, and the stretch not judged;
//! - the cursor only goes up, by number and page, and runs written since the pass came to the runs are for the next: it ends.

use super::{Pending, Store};
use crate::disk::{Disk, DiskError, FileName, Operation, Outcome};
use crate::format::run::PAGE;
use crate::limits;

/// Where scrubbing is among the runs. Runs of lower numbers are done with.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunCursor {
    run: u32,
    /// The next page of its file.
    page: u32,
    /// Runs from this number on are not of this pass.
    until: u32,
}

impl<D: Disk> Store<D> {
    /// Where the runs' part of a pass begins.
    pub(super) fn first_run_page(&self) -> RunCursor {
        RunCursor { run: 0, page: 0, until: self.run_files.number_next }
    }

    /// The next page to be read, and how many pages its run has from there on.
    fn run_page_ahead(&self, cursor: RunCursor) -> Option<(RunCursor, u32)> {
        let runs = self.index.runs().iter().filter(|run| run.number < cursor.until);
        let pages = runs.filter_map(|run| {
            let page = if run.number == cursor.run { cursor.page } else { 0 };
            let left = run.file_pages().checked_sub(page).filter(|left| *left > 0)?;
            (run.number >= cursor.run).then_some((RunCursor { run: run.number, page, ..cursor }, left))
        });
        pages.min_by_key(|(ahead, _)| ahead.run)
    }

    /// Nothing is in flight: reads on among the runs, or ends the step, or the pass.
    pub(super) fn move_run_cursor(&mut self, cursor: RunCursor) {
        let (spent, budget) = (self.step().bytes, self.step().budget);
        let Some((ahead, pages)) = self.run_page_ahead(cursor) else { return self.end_pass() };
        self.scrub.runs = Some(ahead);
        if spent > 0 && spent >= budget {
            return self.end_step(false);
        }
        let left = usize::try_from(budget.saturating_sub(spent)).unwrap_or(usize::MAX);
        let length = left.clamp(PAGE, limits::SCRUB_CHUNK).next_multiple_of(PAGE).min(pages as usize * PAGE);
        self.step().reading = Some(length);
        self.counters.run_reads += 1;
        let (file, offset) = (FileName::Run(ahead.run), u64::from(ahead.page) * PAGE as u64);
        self.start(Operation::Read { file, offset, length, keep: false }, Pending::ScrubRun);
    }

    /// Pages of a run were read: judges each of them.
    pub(super) fn run_stretch_read(&mut self, result: Result<Outcome, DiskError>) {
        let wanted = self.step().reading.take().expect("one stretch at a time");
        let cursor = self.scrub.runs.as_mut().expect("the cursor stays while a read is in flight");
        let RunCursor { run: number, page: first, .. } = *cursor;
        let pages = u32::try_from(wanted / PAGE).expect("a stretch has few pages");
        cursor.page += pages;
        self.step().bytes += wanted as u64;
        // One that was merged meanwhile is written anew elsewhere.
        let Some(run) = self.index.runs().iter().find(|run| run.number == number) else { return };
        let bytes = match result {
            Ok(Outcome::Read(bytes)) => bytes,
            Ok(_) => unreachable!("a read brings bytes"),
            // The device does not give this stretch: counted as its error, it says nothing of the pages.
            Err(_) => return,
        };
        let is_damaged = |page: &u32| {
            let at = *page as usize * PAGE;
            let Some(page_bytes) = bytes.get(at..at + PAGE) else { return true };
            run.check_file_page(page_bytes, &self.identity, first + page).is_err()
        };
        let damaged = (0..pages).filter(is_damaged).count() as u64;
        #[cfg(test)]
        let damaged = if self.settings.flaw == super::Flaw::ScrubLooksAway { 0 } else { damaged };
        self.counters.scrubbed_bytes += bytes.len() as u64;
        self.counters.run_damage += self.run_files.note_damage(number, damaged);
        self.step().damaged_pages += damaged;
    }
}
