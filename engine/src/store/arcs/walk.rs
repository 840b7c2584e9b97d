//! A walk along the ring: the live entries of a range, in order, merged from memory and from the runs.
//!
//! It does no I/O. [`Walk::step`] yields the next entries or says which bytes of which run it needs; whoever reads them hands
//! them to [`Walk::supply`], or says [`Walk::skip`] if they cannot be had. In between the index may change as it likes, arcs
//! may be split and runs merged: an entry that is alive the whole time is met exactly once, because at every moment each live
//! entry is in memory or in some run, and a walk whose sources changed finds its place in the new ones by its last key.
//! What is added or removed meanwhile is met or not.
//!
//! Damaged pages are passed over and reported. Their entries are missing from the walk, not from the index.
//!
//! Entries are taken from the sources some hundred at a time, and then asked for in the tables together: one by one, each would
//! wait for memory alone. Nothing is kept of them between two steps, in which the index may change.
//!
//! A walk over chosen sources only is what writes runs: the frozen entries, or the runs of a merge.

use super::hash::{KEY_BYTES, key_bytes, key_of, keys_at, position};
use super::locator::Locator;
use super::recents::Which;
use super::{Index, Look};
use crate::format::run::{PAGE, Run, RunEntry, check_page, entry_bytes};
use crate::format::{Damage, Identity};
use crate::key::Key;
use crate::limits;
use bytes::Bytes;
use std::ops::Bound;

/// Pages of the largest read.
const CHUNK_PAGES_MAX: u32 = (limits::WALK_CHUNK_BYTES / PAGE) as u32;
/// Pages of the first read in a run; each following one is as large as all before, so that a short walk reads little.
const CHUNK_PAGES_MIN: u32 = 16;
const _: () = assert!(CHUNK_PAGES_MIN <= CHUNK_PAGES_MAX);

/// A live entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) version: u64,
    pub(crate) locator: Locator,
    /// Bytes of payload.
    pub(crate) length: u32,
    /// Of the locator's segment.
    pub(crate) generation: u32,
    /// End of the lease.
    pub(crate) tick: u32,
}

/// Bytes of a run that a walk cannot go on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) run: u32,
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

/// What a walk has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more.
    More,
    /// No more without these bytes.
    Need(Need),
    /// There is no more.
    End,
}

/// What a walk reads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Frozen,
    Runs(Vec<u32>),
}

/// A key as bytes: they sort like keys, and are what lies in a run.
type KeyBytes = [u8; KEY_BYTES];

/// A walk under way.
#[derive(Debug)]
pub(crate) struct Walk {
    identity: Identity,
    scope: Scope,
    /// Ranges to be walked, the present one last.
    ranges: Vec<(Key, Key)>,
    /// Nothing before this key is still to be met, and not this key itself if `is_met`.
    from: KeyBytes,
    is_met: bool,
    /// The end of the present range.
    to: KeyBytes,
    /// The next entries in memory: open and frozen.
    recents: [Option<RunEntry>; 2],
    heads: Vec<Head>,
    /// The state of the index's sources that `recents` and `heads` belong to.
    seen: Option<u64>,
    /// Positions of the next entries of all sources, `recents` first; `u64::MAX` of those that have none.
    fronts: Vec<u64>,
    /// Whether some head needs bytes.
    is_hungry: bool,
    /// The head that is followed while its positions are below `bound`, the smallest position of all other sources.
    leader: Option<usize>,
    bound: u64,
    damaged_pages: u64,
    taken: Taken,
}

/// Memory for the entries of one step; empty between steps.
#[derive(Debug, Default)]
struct Taken {
    entries: Vec<RunEntry>,
    looks: Vec<Look>,
    ticks: Vec<Option<u32>>,
}

/// A place in a run.
///
/// Invariant: while `page` is one of the buffer's pages, `entry` is one of its entries.
#[derive(Debug)]
pub(super) struct Head {
    run: u32,
    /// The page of entries to be read next, and the one behind the range.
    page_next: u32,
    page_end: u32,
    /// Pages asked for so far.
    read: u32,
    buffer: Bytes,
    /// How many entries the pages of the buffer hold; 0 for damaged ones.
    counts: Vec<u8>,
    page: usize,
    entry: usize,
}

impl Walk {
    /// All live entries clockwise from `from` to `to`, strictly after `after` if given.
    pub(crate) fn new(identity: Identity, from: [u8; 20], to: [u8; 20], after: Option<Key>) -> Walk {
        let (lowest, highest) = (Key::lowest(from), Key::highest(to));
        let mut ranges = if from <= to {
            vec![(lowest, highest)]
        } else {
            vec![(Key::lowest([0; 20]), highest), (lowest, Key::highest([0xff; 20]))]
        };
        let Some(after) = after else { return Walk::over(identity, Scope::All, ranges, None) };
        // A cursor above a range's end has passed it, unless the walk came to it from above: the second part of one that wraps.
        let in_second = from > to && after < lowest;
        if in_second || after > ranges[ranges.len() - 1].1 {
            ranges.pop();
        }
        if in_second && after > highest {
            ranges.clear();
        }
        Walk::over(identity, Scope::All, ranges, Some(after))
    }

    /// All live entries from one key to another, both included.
    pub(crate) fn between(identity: Identity, low: Key, high: Key) -> Walk {
        Walk::over(identity, Scope::All, vec![(low, high)], None)
    }

    /// What of the frozen entries is alive: a run to be written.
    pub(crate) fn of_frozen(identity: Identity) -> Walk {
        Walk::over(identity, Scope::Frozen, vec![keys_at(0, u64::MAX)], None)
    }

    /// What of some runs is alive: a merge. The runs stay in the index until it ends.
    pub(crate) fn of_runs(identity: Identity, runs: Vec<u32>) -> Walk {
        Walk::over(identity, Scope::Runs(runs), vec![keys_at(0, u64::MAX)], None)
    }

    fn over(identity: Identity, scope: Scope, ranges: Vec<(Key, Key)>, after: Option<Key>) -> Walk {
        let mut walk = Walk {
            identity,
            scope,
            ranges,
            from: [0; KEY_BYTES],
            is_met: false,
            to: [0; KEY_BYTES],
            recents: [None, None],
            heads: Vec::new(),
            seen: None,
            fronts: Vec::new(),
            is_hungry: false,
            leader: None,
            bound: 0,
            damaged_pages: 0,
            taken: Taken::default(),
        };
        walk.begin_range(after);
        walk
    }

    #[cfg(test)]
    /// Pages passed over because they were damaged or could not be read.
    pub(crate) fn damaged_pages(&self) -> u64 {
        self.damaged_pages
    }

    /// Adds the next live entries to `met`, at most so many, and says how it goes on.
    pub(crate) fn step(&mut self, index: &Index, most: usize, met: &mut Vec<Entry>) -> Step {
        assert!(most > 0);
        while !self.ranges.is_empty() {
            if self.seen != Some(index.sources_state()) {
                self.find_sources(index);
            }
            let mut taken = std::mem::take(&mut self.taken);
            let step = self.take(index, most, &mut taken.entries);
            let has_taken = !taken.entries.is_empty();
            self.meet(index, &mut taken, met);
            self.taken = taken;
            if let Some(step) = step {
                return step;
            }
            self.ranges.pop();
            self.begin_range(None);
            if has_taken {
                return Step::More;
            }
        }
        Step::End
    }

    /// All that is needed next, for one who can read several things at once. [`Walk::step`] names the first of them.
    pub(crate) fn needs(&self) -> impl Iterator<Item = Need> + '_ {
        self.heads.iter().filter_map(Head::need)
    }

    /// Hands over bytes that were needed. Damaged pages are passed over, and the first damage is returned to be counted.
    /// Bytes that are no longer needed are ignored.
    pub(crate) fn supply(&mut self, need: Need, bytes: Bytes) -> Result<(), Damage> {
        let is_same = |asked: Need| (asked.run, asked.offset) == (need.run, need.offset);
        let asked = |head: &&mut Head| head.need().is_some_and(is_same);
        let Some(head) = self.heads.iter_mut().find(asked) else { return Ok(()) };
        let damage = head.take_in(bytes, &self.identity, &mut self.damaged_pages);
        head.pass_below(&self.from);
        self.look_at_fronts();
        damage.map_or(Ok(()), Err)
    }

    /// Passes over bytes that were needed and cannot be had.
    pub(crate) fn skip(&mut self, need: Need) {
        // Nothing is what was read, so all of its pages count as damaged; there is nothing else to report.
        let _ = self.supply(need, Bytes::new());
    }

    fn begin_range(&mut self, after: Option<Key>) {
        let Some((low, high)) = self.ranges.last() else { return };
        let met = after.filter(|after| after >= low);
        self.from = key_bytes(&met.unwrap_or(*low));
        self.is_met = met.is_some();
        self.to = key_bytes(high);
        self.heads.clear();
        self.seen = None;
    }

    /// Finds the walk's place in every source there is now; a place in a run that is still there is kept.
    fn find_sources(&mut self, index: &Index) {
        self.seen = Some(index.sources_state());
        self.leader = None;
        let (reads_open, reads_frozen) = match self.scope {
            Scope::All => (true, true),
            Scope::Frozen => (false, true),
            Scope::Runs(_) => (false, false),
        };
        let from = if self.is_met { Bound::Excluded(key_of(&self.from)) } else { Bound::Included(key_of(&self.from)) };
        self.recents = [(reads_open, Which::Open), (reads_frozen, Which::Frozen)]
            .map(|(reads, which)| reads.then(|| index.recents.first(which, from)).flatten());
        let mut heads = std::mem::take(&mut self.heads);
        heads.retain(|head| index.runs.get(head.run).is_some());
        if let Scope::Runs(numbers) = &self.scope {
            let there = numbers.iter().all(|number| index.runs.get(*number).is_some());
            assert!(there, "runs stay until their merge has ended");
        }
        for run in index.runs.as_slice() {
            let is_read = match &self.scope {
                Scope::All => true,
                Scope::Frozen => false,
                Scope::Runs(numbers) => numbers.contains(&run.number),
            };
            if is_read && heads.iter().all(|head| head.run != run.number) {
                heads.push(Head::new(run, &self.from, &self.to));
            }
        }
        self.heads = heads;
        self.look_at_fronts();
    }

    fn look_at_fronts(&mut self) {
        self.leader = None;
        self.is_hungry = self.heads.iter().any(|head| head.need().is_some());
        let recents = self.recents.iter().map(|entry| entry.as_ref().map_or(u64::MAX, |entry| position(&entry.key)));
        self.fronts = recents.chain(self.heads.iter().map(Head::front)).collect();
    }

    /// Takes the next entries of the present range from their sources, alive or not. `None` at the range's end.
    fn take(&mut self, index: &Index, most: usize, taken: &mut Vec<RunEntry>) -> Option<Step> {
        while taken.len() < most {
            let entry = match self.follow() {
                Some(entry) => entry,
                None => {
                    if self.is_hungry
                        && let Some(need) = self.needs().next()
                    {
                        return Some(Step::Need(need));
                    }
                    self.choose(index)?
                }
            };
            taken.push(entry);
        }
        Some(Step::More)
    }

    /// Meets those of the taken entries that are alive.
    fn meet(&mut self, index: &Index, taken: &mut Taken, met: &mut Vec<Entry>) {
        index.live_ticks(&taken.entries, &mut taken.looks, &mut taken.ticks);
        for (entry, tick) in taken.entries.drain(..).zip(taken.ticks.drain(..)) {
            let Some(tick) = tick else { continue };
            let bytes = key_bytes(&entry.key);
            // A live entry that two sources hold is met in the first of them.
            // (That eight bytes differ is seen at once, and is the rule.)
            if self.is_met && bytes[..8] == self.from[..8] && bytes == self.from {
                continue;
            }
            self.from = bytes;
            self.is_met = true;
            let RunEntry { key, version, locator, length, generation } = entry;
            met.push(Entry { key, version, locator, length, generation, tick });
        }
    }

    /// The leader's next entry, while it is the next of all.
    fn follow(&mut self) -> Option<RunEntry> {
        let leader = self.leader?;
        if self.fronts[self.recents.len() + leader] >= self.bound {
            return None;
        }
        self.take_of_run(leader)
    }

    /// Takes the smallest entry of all sources. If a run has it, the run leads from now on. `None` if the range has ended.
    fn choose(&mut self, index: &Index) -> Option<RunEntry> {
        let (mut source, mut least, mut second) = (0, u64::MAX, u64::MAX);
        for (at, front) in self.fronts.iter().enumerate() {
            if *front < least {
                (source, least, second) = (at, *front, least);
            } else if *front < second {
                second = *front;
            }
        }
        if least == second {
            source = self.smallest_key()?;
        }
        // Entries at the range's last position are chosen one by one, so that none behind its last key is taken.
        let last = u64::from_be_bytes(*self.to.first_chunk().expect("a key is longer"));
        if least >= last && self.key_of_source(source)? > self.to {
            return None;
        }
        self.bound = second.min(last);
        match source.checked_sub(self.recents.len()) {
            Some(head) => {
                self.leader = Some(head);
                self.take_of_run(head)
            }
            None => {
                self.leader = None;
                self.take_recent(source, index)
            }
        }
    }

    /// The source with the smallest key, for when positions do not tell.
    fn smallest_key(&self) -> Option<usize> {
        let keys = (0..self.fronts.len()).filter_map(|source| self.key_of_source(source).map(|key| (key, source)));
        keys.min().map(|(_, source)| source)
    }

    /// The next key of a source.
    fn key_of_source(&self, source: usize) -> Option<KeyBytes> {
        match source.checked_sub(self.recents.len()) {
            Some(head) => self.heads[head].bytes().and_then(|bytes| bytes.first_chunk()).copied(),
            None => self.recents[source].as_ref().map(|entry| key_bytes(&entry.key)),
        }
    }

    fn take_of_run(&mut self, at: usize) -> Option<RunEntry> {
        let head = &mut self.heads[at];
        let entry = head.bytes().map(RunEntry::decode)?;
        head.advance();
        self.is_hungry |= head.need().is_some();
        self.fronts[self.recents.len() + at] = head.front();
        Some(entry)
    }

    fn take_recent(&mut self, source: usize, index: &Index) -> Option<RunEntry> {
        let taken = self.recents[source]?;
        let which = [Which::Open, Which::Frozen][source];
        self.recents[source] = index.recents.first(which, Bound::Excluded(taken.key));
        self.fronts[source] = self.recents[source].as_ref().map_or(u64::MAX, |entry| position(&entry.key));
        Some(taken)
    }
}

impl Head {
    pub(super) fn new(run: &Run, from: &KeyBytes, to: &KeyBytes) -> Head {
        Head {
            run: run.number,
            page_next: run.page_before(position(&key_of(from))),
            page_end: run.page_behind(position(&key_of(to))),
            read: 0,
            buffer: Bytes::new(),
            counts: Vec::new(),
            page: 0,
            entry: 0,
        }
    }

    pub(super) fn run(&self) -> u32 {
        self.run
    }

    /// Whether the present entry is in memory.
    pub(super) fn has_entry(&self) -> bool {
        self.page < self.counts.len()
    }

    /// What must be read before the head has an entry again; nothing if it has one, or has come to its end.
    pub(super) fn need(&self) -> Option<Need> {
        let is_used_up = self.page >= self.counts.len();
        (is_used_up && self.page_next < self.page_end).then(|| Need {
            run: self.run,
            offset: (1 + u64::from(self.page_next)) * PAGE as u64,
            length: self.asked() as usize * PAGE,
        })
    }

    fn asked(&self) -> u32 {
        self.read.clamp(CHUNK_PAGES_MIN, CHUNK_PAGES_MAX).min(self.page_end - self.page_next)
    }

    /// The bytes of the present entry.
    pub(super) fn bytes(&self) -> Option<&[u8; RunEntry::SIZE]> {
        (self.page < self.counts.len()).then(|| entry_bytes(&self.buffer[self.page * PAGE..], self.entry))
    }

    /// The position of the present entry; `u64::MAX` if there is none.
    pub(super) fn front(&self) -> u64 {
        let position = self.bytes().and_then(|bytes| bytes.first_chunk());
        position.map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
    }

    pub(super) fn advance(&mut self) {
        self.entry += 1;
        if self.entry >= usize::from(self.counts[self.page]) {
            self.next_page();
        }
    }

    fn next_page(&mut self) {
        self.entry = 0;
        self.page += 1;
        while self.counts.get(self.page) == Some(&0) {
            self.page += 1;
        }
    }

    /// Takes in what was asked for. Pages that are missing or damaged count as empty.
    pub(super) fn take_in(&mut self, bytes: Bytes, identity: &Identity, damaged_pages: &mut u64) -> Option<Damage> {
        let mut first_damage = None;
        let asked = self.asked();
        self.counts.clear();
        for page in 0..asked {
            let at = page as usize * PAGE;
            let page_bytes = bytes.get(at..at + PAGE).ok_or(Damage::Short);
            let count = page_bytes.and_then(|bytes| check_page(bytes, identity, self.run, self.page_next + page));
            self.counts.push(count.as_ref().map_or(0, |count| *count as u8));
            if let Err(damage) = count {
                *damaged_pages += 1;
                first_damage.get_or_insert(damage);
            }
        }
        self.buffer = bytes;
        self.page_next += asked;
        self.read = self.read.saturating_add(asked);
        (self.page, self.entry) = (0, 0);
        if self.counts.first() == Some(&0) {
            self.next_page();
        }
        first_damage
    }

    /// Passes over entries before `from`.
    fn pass_below(&mut self, from: &KeyBytes) {
        while self.bytes().is_some_and(|bytes| bytes[..KEY_BYTES] < from[..]) {
            let last = usize::from(self.counts[self.page]) - 1;
            let page = &self.buffer[self.page * PAGE..];
            if entry_bytes(page, last)[..KEY_BYTES] < from[..] {
                self.next_page();
            } else {
                self.advance();
            }
        }
    }
}
