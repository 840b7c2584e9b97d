//! Walks along the ring, and what they are for: scans, edges of digests, expired leases, runs that are written, and records that
//! cannot say whose they are.
//!
//! A walk itself reads nothing (see [`super::arcs::walk`]): here it gets the pages it needs, a bounded number of steps each
//! turn, all walks side by side. The shard never waits for one.

use super::arcs::arc::Digest;
use super::arcs::walk::{Entry, Need, Step, Walk};
use super::pages::Pages;
use super::presence::Candidate;
use super::runs::RunWriting;
use super::{Change, Pending, Store};
use crate::disk::{Disk, DiskError, Outcome};
use crate::key::Key;
use crate::limits;
use crate::request::{self, Error, Response};

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walking {
    pub(super) walk: Walk,
    pub(super) errand: Errand,
    /// Memory for the entries of a step; empty between steps.
    met: Vec<Entry>,
    /// Pages are being read for it.
    is_reading: bool,
    /// A page could not be read: the device failed.
    was_refused: bool,
    pub(super) has_ended: bool,
}

/// What a walk is for.
#[derive(Debug)]
pub(super) enum Errand {
    Scan(Scan),
    Digest {
        tag: u64,
        digest: Digest,
        /// Ranges still to be walked.
        edges: Vec<(Key, Key)>,
    },
    /// Whether an unreadable record is this key's.
    Resolve {
        target: Candidate,
        change: Option<Change>,
        found: Option<Entry>,
    },
    /// Entries whose lease ended before the cutoff, in one arc.
    Expire {
        cutoff: u32,
        found: Vec<Entry>,
    },
    /// Live records of a segment that scrub found something wrong with.
    Recheck {
        segment: u32,
    },
    Run(Box<RunWriting>),
}

#[derive(Debug)]
pub(super) struct Scan {
    tag: u64,
    from: [u8; 20],
    to: [u8; 20],
    after: Option<Key>,
    limit: usize,
    entries: Vec<request::Entry>,
}

impl Walking {
    pub(super) fn new(walk: Walk, errand: Errand) -> Walking {
        Walking { walk, errand, met: Vec::new(), is_reading: false, was_refused: false, has_ended: false }
    }
}

impl<D: Disk> Store<D> {
    pub(super) fn scan(&mut self, tag: u64, from: [u8; 20], to: [u8; 20], after: Option<Key>, limit: usize) {
        let limit = limit.min(limits::SCAN_ENTRIES_MAX);
        let walk = Walk::new(self.identity, from, to, after);
        let scan =
            Scan { tag, from, to, after, limit, entries: Vec::with_capacity(limit.min(limits::WALK_STEPS_PER_TURN)) };
        self.begin_walk(Walking::new(walk, Errand::Scan(scan)));
    }

    /// Whole arcs know their sums; the edges are walked.
    pub(super) fn digest(&mut self, tag: u64, from: [u8; 20], to: [u8; 20]) {
        let (digest, mut edges) = self.index.digest(from, to);
        let Some((low, high)) = edges.pop() else {
            return self.answer_when_settled(tag, Ok(digested(digest)));
        };
        let walk = Walk::between(self.identity, low, high);
        self.begin_walk(Walking::new(walk, Errand::Digest { tag, digest, edges }));
    }

    /// Whose record is at the target: the runs know.
    pub(super) fn resolve(&mut self, key: Key, target: Candidate, change: Option<Change>) {
        let walk = Walk::between(self.identity, key, key);
        self.begin_walk(Walking::new(walk, Errand::Resolve { target, change, found: None }));
    }

    pub(super) fn begin_walk(&mut self, walking: Walking) -> u64 {
        let id = self.walk_next;
        self.walk_next += 1;
        self.walks.insert(id, walking);
        id
    }

    /// Moves every walk on by some steps. Returns whether one moved.
    pub(super) fn advance_walks(&mut self) -> bool {
        let mut moved = false;
        let ready: Vec<u64> = self.walks.iter().filter(|(_, walking)| !walking.is_reading).map(|(id, _)| *id).collect();
        for id in ready {
            let Some(mut walking) = self.walks.remove(&id) else { continue };
            moved |= self.advance_walk(id, &mut walking);
            let is_over = walking.has_ended && !walking.is_reading && !self.is_run_going_on(&walking);
            if !is_over {
                self.walks.insert(id, walking);
            }
        }
        moved
    }

    fn advance_walk(&mut self, id: u64, walking: &mut Walking) -> bool {
        let mut moved = self.advance_run(id, walking);
        let mut left = limits::WALK_STEPS_PER_TURN;
        while left > 0 && !walking.has_ended && !self.is_full(walking) {
            let most = takes_at_once(walking).min(left);
            left -= most;
            moved = true;
            let mut met = std::mem::take(&mut walking.met);
            let step = walking.walk.step(&self.index, most, &mut met);
            met.drain(..).for_each(|entry| self.take_entry(walking, &entry));
            walking.met = met;
            match step {
                Step::More => {}
                Step::Need(need) => {
                    self.need_pages(id, walking, need);
                    return true;
                }
                Step::End => {
                    self.end_walk(walking);
                    return true;
                }
            }
        }
        if matches!(&walking.errand, Errand::Scan(scan) if !walking.has_ended && scan.entries.len() >= scan.limit) {
            self.end_walk(walking);
            moved = true;
        }
        moved
    }

    /// Whether a walk can take no more entries for now, or wants no more at all.
    fn is_full(&self, walking: &Walking) -> bool {
        match &walking.errand {
            Errand::Scan(scan) => scan.entries.len() >= scan.limit,
            Errand::Expire { found, .. } => found.len() >= limits::EXPIRED_PER_RECORD && !self.survivors.is_empty(),
            Errand::Run(writing) => writing.is_full(),
            Errand::Recheck { .. } => self.has_enough_to_recheck(),
            Errand::Digest { .. } | Errand::Resolve { .. } => false,
        }
    }

    fn take_entry(&mut self, walking: &mut Walking, entry: &Entry) {
        match &mut walking.errand {
            Errand::Scan(scan) => scan.entries.push(request::Entry {
                key: entry.key,
                version: entry.version,
                expiry_s: u64::from(entry.tick) * u64::from(self.tick_s),
                len: entry.length,
            }),
            Errand::Digest { digest, .. } => digest.add(self.index.element(&entry.key, entry.version)),
            Errand::Resolve { found, .. } => *found = Some(*entry),
            Errand::Expire { cutoff, found } => {
                if entry.tick < *cutoff {
                    found.push(*entry);
                }
                if found.len() >= limits::EXPIRED_PER_RECORD && self.survivors.is_empty() {
                    let (entries, cutoff) = (std::mem::take(found), *cutoff);
                    self.survivors.push_back(Change::Expired { entries, cutoff });
                }
            }
            Errand::Recheck { segment } => {
                if u32::from(entry.locator.segment()) == *segment {
                    self.recheck_later(entry);
                }
            }
            Errand::Run(writing) => writing.push(entry),
        }
    }

    fn need_pages(&mut self, id: u64, walking: &mut Walking, need: Need) {
        walking.is_reading = true;
        let keep = matches!(walking.errand, Errand::Scan(_) | Errand::Digest { .. });
        self.read_pages(need, keep, Pending::Walk { id, need });
    }

    pub(super) fn walk_pages_read(&mut self, id: u64, need: Need, result: Result<Outcome, DiskError>) {
        let pages = self.pages_of(need, result);
        let Some(walking) = self.walks.get_mut(&id) else { return };
        walking.is_reading = false;
        match pages {
            Pages::Read(bytes) => {
                let taken = walking.walk.supply(need, bytes);
                self.counters.run_damage += self.run_files.note_damage(need.run, u64::from(taken.is_err()));
            }
            Pages::Merged => {}
            Pages::Refused => {
                walking.was_refused = true;
                walking.walk.skip(need);
            }
        }
    }

    fn end_walk(&mut self, walking: &mut Walking) {
        walking.has_ended = true;
        let was_refused = walking.was_refused;
        match &mut walking.errand {
            Errand::Scan(scan) => {
                let listed = Response::Listed(std::mem::take(&mut scan.entries));
                let tag = scan.tag;
                // Part of a listing would look like the whole.
                self.answer_when_settled(tag, if was_refused { Err(Error::Io) } else { Ok(listed) });
            }
            Errand::Digest { tag, digest, edges } => {
                if was_refused {
                    let tag = *tag;
                    return self.answer_when_settled(tag, Err(Error::Io));
                }
                if let Some((low, high)) = edges.pop() {
                    walking.walk = Walk::between(self.identity, low, high);
                    walking.has_ended = false;
                    return;
                }
                let (tag, digest) = (*tag, *digest);
                self.answer_when_settled(tag, Ok(digested(digest)));
            }
            Errand::Resolve { target, change, found, .. } => {
                let (target, change, found) = (*target, change.take(), *found);
                match change {
                    Some(Change::Asked { tag, .. }) if was_refused => self.finish(tag, Err(Error::Io)),
                    change => self.resolved(found, target, change),
                }
            }
            Errand::Expire { cutoff, found } => {
                let (entries, cutoff) = (std::mem::take(found), *cutoff);
                if !entries.is_empty() {
                    self.survivors.push_back(Change::Expired { entries, cutoff });
                }
                self.arc_swept();
            }
            Errand::Recheck { .. } => self.listed_live(),
            // What could not be read must not be left out of a merge.
            Errand::Run(writing) if was_refused => {
                writing.give_up();
                self.run_files.not_before = self.log.durable + 64;
            }
            Errand::Run(writing) => writing.end(),
        }
    }

    /// A batch failed: what was listed may have been undone, so scans begin anew, and runs may have passed over what was
    /// revived, so they are given up.
    pub(super) fn walks_failed(&mut self) {
        let identity = self.identity;
        for walking in self.walks.values_mut() {
            match &mut walking.errand {
                Errand::Scan(scan) => {
                    scan.entries.clear();
                    walking.walk = Walk::new(identity, scan.from, scan.to, scan.after);
                }
                Errand::Expire { found, .. } => {
                    found.clear();
                    walking.has_ended = true;
                }
                Errand::Run(writing) => {
                    writing.give_up();
                    walking.has_ended = true;
                }
                // Its arcs were summed up with what has been undone.
                Errand::Digest { .. } => walking.was_refused = true,
                // What scrub misses by that, it meets on its next pass.
                Errand::Resolve { .. } | Errand::Recheck { .. } => {}
            }
        }
    }
}

/// How many entries a walk that is not full takes at once.
fn takes_at_once(walking: &Walking) -> usize {
    let room = match &walking.errand {
        Errand::Scan(scan) => scan.limit - scan.entries.len(),
        Errand::Expire { found, .. } => limits::EXPIRED_PER_RECORD.saturating_sub(found.len()).max(1),
        // Few of its entries count, and when there are enough it stops.
        Errand::Recheck { .. } => 1,
        Errand::Digest { .. } | Errand::Resolve { .. } | Errand::Run(_) => limits::WALK_ENTRIES_PER_STEP,
    };
    room.min(limits::WALK_ENTRIES_PER_STEP)
}

fn digested(digest: Digest) -> Response {
    Response::Digest { count: digest.count, sum: digest.sum }
}
