//! The table of one arc: ten bytes a slot for tag, lease and locator, and nothing else.
//!
//! Three parallel arrays over buckets of sixteen slots, so that a look-up touches two lines of tags and a sweep reads leases
//! only. A key has two buckets. An entry goes into the emptier one; when both are full, one of their entries is moved to
//! *its* other bucket (which its tag alone tells, see [`super::hash`]); when that fails too, it goes to the stash. That
//! fills the slots to 95 % with next to nothing in the stash, and to the brim with some.
//!
//! A table does not know keys, only 16 bits of their hash. It can say "this key may lie there", never "this key is there";
//! and it cannot grow by itself: growing is [`super::rebuild`]'s work.
//!
//! Leases are ticks since the table's base. An end that does not fit moves the base if all the others allow that, and otherwise
//! is kept exactly in the far map. No end is ever stored shorter than it was given, or longer.
//!
//! Invariants
//! - A slot is empty iff its tag is 0; an empty slot's lease is [`FAR`] and its locator is zeros.
//! - A slot with a tag lies in one of its hash's two buckets. Its lease is below `FAR`, or `FAR` and in the far map.
//! - `occupied` counts the slots with tags. The far map has no other keys than slots with lease `FAR`.

use super::hash::{BUCKET, KeyHash, other_bucket};
use super::locator::Locator;
use std::collections::{BTreeMap, BTreeSet};

/// The lease of a slot whose end is in the far map, or that is empty. No sweep's bound exceeds it.
pub(super) const FAR: u16 = u16::MAX;
/// With no more than one slot in so many left, moving entries would seldom find a free one, and look for it long.
const BRIM_SHARE: usize = 256;
/// Ends below this many ticks past the base fit a slot.
const SPAN: u32 = FAR as u32;

/// A table of tags, leases and locators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(super) base: u32,
    pub(super) occupied: u32,
    pub(super) tags: Vec<[u16; BUCKET]>,
    pub(super) leases: Vec<[u16; BUCKET]>,
    pub(super) locators: Vec<[[u8; Locator::SIZE]; BUCKET]>,
    /// What found no place, by its whole hash: its end in ticks.
    pub(super) stash: BTreeMap<(KeyHash, Locator), u32>,
    /// Ends that do not fit a slot, by slot.
    pub(super) far: BTreeMap<u32, u32>,
}

/// A slot: bucket, then place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    bucket: usize,
    place: usize,
}

/// The slots with a hash's tag: its two buckets, and a bit for each slot of theirs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    first: u32,
    second: u32,
    masks: u32,
}

impl Places {
    fn slots(self) -> impl Iterator<Item = At> {
        let Places { first, second, mut masks } = self;
        std::iter::from_fn(move || {
            let bit = (masks != 0).then(|| masks.trailing_zeros() as usize)?;
            masks &= masks - 1;
            let bucket = if bit < BUCKET { first } else { second };
            Some(At { bucket: bucket as usize, place: bit % BUCKET })
        })
    }
}

impl At {
    fn slot(self) -> u32 {
        u32::try_from(self.bucket * BUCKET + self.place).expect("a table has fewer than 2^32 slots")
    }
}

impl Table {
    /// Bytes of a slot.
    pub(crate) const SLOT_BYTES: usize = 2 + 2 + Locator::SIZE;

    /// An empty table with at least so many slots, for leases around `tick`.
    pub(crate) fn new(slots: usize, tick: u32) -> Table {
        let buckets = slots.div_ceil(BUCKET).max(1);
        assert!(u32::try_from(buckets * BUCKET).is_ok());
        Table {
            base: tick.saturating_sub(SPAN / 2),
            occupied: 0,
            tags: vec![[0; BUCKET]; buckets],
            leases: vec![[FAR; BUCKET]; buckets],
            locators: vec![[[0; Locator::SIZE]; BUCKET]; buckets],
            stash: BTreeMap::new(),
            far: BTreeMap::new(),
        }
    }

    /// Entries, in slots and in the stash.
    pub(crate) fn len(&self) -> usize {
        self.occupied as usize + self.stash.len()
    }

    pub(crate) fn slots(&self) -> usize {
        self.tags.len() * BUCKET
    }

    /// Bytes held: exact for the arrays, with the usual slack of tree nodes for the maps.
    pub(crate) fn bytes(&self) -> usize {
        let arrays = (self.tags.capacity() + self.leases.capacity()) * size_of::<[u16; BUCKET]>()
            + self.locators.capacity() * size_of::<[[u8; Locator::SIZE]; BUCKET]>();
        let stash = self.stash.len() * (size_of::<(KeyHash, Locator)>() + size_of::<u32>()) * 3 / 2;
        arrays + stash + self.far.len() * 2 * size_of::<u32>() * 3 / 2
    }

    /// Every entry that may be the key's: where its record lies, and when its lease ends.
    pub(crate) fn candidates(&self, hash: KeyHash) -> impl Iterator<Item = (Locator, u32)> + '_ {
        let slots = self.places(hash).slots().map(|at| (self.locator(at), self.tick(at)));
        slots.chain(self.stashed(hash).map(|(locator, tick)| (*locator, *tick)))
    }

    /// The end of the lease of the entry of this hash with exactly this locator.
    pub(crate) fn tick_of(&self, hash: KeyHash, locator: Locator) -> Option<u32> {
        match self.find(hash, locator) {
            Some(at) => Some(self.tick(at)),
            None if self.stash.is_empty() => None,
            None => self.stash.get(&(hash, locator)).copied(),
        }
    }

    /// Adds an entry. The caller sees to it that there is none with this hash and locator.
    pub(crate) fn insert(&mut self, hash: KeyHash, locator: Locator, tick: u32) {
        debug_assert!(self.tick_of(hash, locator).is_none(), "an entry is added once");
        let (first, second) = self.buckets(hash);
        let free = self.emptier(first, second);
        let is_hopeless = free.is_none() && self.slots() - self.occupied as usize <= self.slots() / BRIM_SHARE;
        let target =
            if is_hopeless { None } else { free.or_else(|| self.make_room(first)).or_else(|| self.make_room(second)) };
        match target {
            Some(at) => self.fill(at, hash.tag(), locator, tick),
            None => {
                self.stash.insert((hash, locator), tick);
            }
        }
    }

    #[cfg(test)]
    /// Points an entry at another record. Its lease stays, unless the new one's ends later.
    pub(crate) fn relocate(&mut self, hash: KeyHash, old: Locator, new: Locator, tick: u32) -> Option<u32> {
        let Some(at) = self.find(hash, old) else {
            let before = self.stash.remove(&(hash, old))?;
            self.stash.insert((hash, new), before.max(tick));
            return Some(before);
        };
        let before = self.tick(at);
        self.locators[at.bucket][at.place] = new.to_bytes();
        self.extend_at(at, tick);
        Some(before)
    }

    /// Takes an entry out and returns the end of its lease.
    pub(crate) fn remove(&mut self, hash: KeyHash, locator: Locator) -> Option<u32> {
        let Some(at) = self.find(hash, locator) else { return self.stash.remove(&(hash, locator)) };
        let tick = self.tick(at);
        self.clear(at);
        Some(tick)
    }

    /// Sets the end of an entry's lease back to what it was. For undoing; everything else extends.
    pub(super) fn set_tick(&mut self, hash: KeyHash, locator: Locator, tick: u32) {
        if let Some(at) = self.find(hash, locator) {
            self.far.remove(&at.slot());
            self.lease_at(at, tick);
        } else if let Some(end) = self.stash.get_mut(&(hash, locator)) {
            *end = tick;
        }
    }

    /// Extends the lease of everything that may be the key's. Returns how many that were, and says of which the end has changed,
    /// and what it was.
    pub(crate) fn extend(&mut self, hash: KeyHash, tick: u32, mut changed: impl FnMut(Locator, u32)) -> usize {
        let (first, second) = self.buckets(hash);
        let mut matched = 0;
        for bucket in [Some(first), (second != first).then_some(second)].into_iter().flatten() {
            let mut mask = matching(&self.tags[bucket], hash.tag());
            while mask != 0 {
                let at = At { bucket, place: mask.trailing_zeros() as usize };
                if let Some(before) = self.extend_at(at, tick) {
                    changed(self.locator(at), before);
                }
                mask &= mask - 1;
                matched += 1;
            }
        }
        if self.stash.is_empty() {
            return matched;
        }
        for ((_, locator), end) in self.stash.range_mut((hash, Locator::LOWEST)..=(hash, Locator::HIGHEST)) {
            if *end < tick {
                changed(*locator, *end);
                *end = tick;
            }
            matched += 1;
        }
        matched
    }

    /// Whether some lease ends before `cutoff`: one pass over the column of leases.
    pub(crate) fn has_expired(&self, cutoff: u32) -> bool {
        let bound = u16::try_from(cutoff.saturating_sub(self.base)).unwrap_or(FAR);
        has_below(&self.leases, bound)
            || self.far.values().any(|tick| *tick < cutoff)
            || self.stash.values().any(|tick| *tick < cutoff)
    }

    /// Takes out all entries but these. Returns how many that were.
    pub(super) fn retain(&mut self, keep: impl Fn(Locator) -> bool) -> usize {
        let before = self.len();
        for bucket in 0..self.tags.len() {
            for place in 0..BUCKET {
                let at = At { bucket, place };
                if self.tags[bucket][place] != 0 && !keep(self.locator(at)) {
                    self.clear(at);
                }
            }
        }
        self.stash.retain(|(_, locator), _| keep(*locator));
        before - self.len()
    }

    /// Where the records of all entries lie.
    pub(crate) fn locators(&self) -> impl Iterator<Item = Locator> + '_ {
        let slots = self.tags.as_flattened().iter().zip(self.locators.as_flattened());
        let filled = slots.filter(|(tag, _)| **tag != 0).map(|(_, locator)| Locator::from_bytes(*locator));
        filled.chain(self.stash.keys().map(|(_, locator)| *locator))
    }

    #[cfg(any(test, feature = "simulation"))]
    /// All entries: locators and the ends of their leases.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Locator, u32)> + '_ {
        let slots = (0..self.tags.len()).flat_map(|bucket| (0..BUCKET).map(move |place| At { bucket, place }));
        let filled = slots.filter(|at| self.tags[at.bucket][at.place] != 0);
        filled
            .map(|at| (self.locator(at), self.tick(at)))
            .chain(self.stash.iter().map(|((_, locator), tick)| (*locator, *tick)))
    }

    #[cfg(any(test, feature = "simulation", feature = "fuzzing"))]
    /// Panics unless the invariants hold that can be seen without keys.
    pub(crate) fn check(&self) {
        assert_eq!(self.flaw(), None);
    }

    /// Which of the invariants that can be seen without keys does not hold.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let buckets = self.tags.len();
        if buckets == 0 || self.leases.len() != buckets || self.locators.len() != buckets {
            return Some("the three arrays are equally long, and not empty");
        }
        let (mut occupied, mut far, mut latest) = (0, 0, 0);
        let columns = self.tags.as_flattened().iter().zip(self.leases.as_flattened());
        for ((tag, lease), locator) in columns.zip(self.locators.as_flattened()) {
            if *tag == 0 {
                if *lease != FAR || *locator != [0; Locator::SIZE] {
                    return Some("an empty slot is clean");
                }
                continue;
            }
            occupied += 1;
            far += usize::from(*lease == FAR);
            latest = latest.max(if *lease == FAR { 0 } else { *lease });
        }
        let is_far = |slot: &u32| {
            let (tags, leases) = (self.tags.as_flattened(), self.leases.as_flattened());
            tags.get(*slot as usize).is_some_and(|tag| *tag != 0) && leases.get(*slot as usize) == Some(&FAR)
        };
        if occupied != self.occupied {
            return Some("slots with tags are counted");
        }
        if far != self.far.len() || !self.far.keys().all(is_far) {
            return Some("the far map has the slots with a far lease");
        }
        self.base.checked_add(u32::from(latest)).is_none().then_some("every lease ends within 32 bits of ticks")
    }

    fn buckets(&self, hash: KeyHash) -> (usize, usize) {
        let buckets = self.tags.len() as u32;
        let first = hash.bucket(buckets);
        (first as usize, other_bucket(first, hash.tag(), buckets) as usize)
    }

    /// The slots with the hash's tag in its buckets.
    pub(super) fn places(&self, hash: KeyHash) -> Places {
        let (first, second) = self.buckets(hash);
        let first_mask = matching(&self.tags[first], hash.tag());
        let second_mask = if second == first { 0 } else { matching(&self.tags[second], hash.tag()) };
        Places { first: first as u32, second: second as u32, masks: first_mask | second_mask << BUCKET }
    }

    /// [`Table::tick_of`], for one who has found the places of the hash already.
    pub(super) fn tick_among(&self, places: Places, hash: KeyHash, locator: Locator) -> Option<u32> {
        match places.slots().find(|at| self.locator(*at) == locator) {
            Some(at) => Some(self.tick(at)),
            None if self.stash.is_empty() => None,
            None => self.stash.get(&(hash, locator)).copied(),
        }
    }

    fn stashed(&self, hash: KeyHash) -> impl Iterator<Item = (&Locator, &u32)> {
        let range = (hash, Locator::LOWEST)..=(hash, Locator::HIGHEST);
        let entries = (!self.stash.is_empty()).then(|| self.stash.range(range));
        entries.into_iter().flatten().map(|((_, locator), tick)| (locator, tick))
    }

    fn find(&self, hash: KeyHash, locator: Locator) -> Option<At> {
        let (first, second) = self.buckets(hash);
        self.find_in(first, hash.tag(), locator).or_else(|| self.find_in(second, hash.tag(), locator))
    }

    fn find_in(&self, bucket: usize, tag: u16, locator: Locator) -> Option<At> {
        let mut mask = matching(&self.tags[bucket], tag);
        while mask != 0 {
            let at = At { bucket, place: mask.trailing_zeros() as usize };
            if self.locator(at) == locator {
                return Some(at);
            }
            mask &= mask - 1;
        }
        None
    }

    /// A free slot in the emptier of two buckets.
    fn emptier(&self, first: usize, second: usize) -> Option<At> {
        let (free, free_too) = (matching(&self.tags[first], 0), matching(&self.tags[second], 0));
        let (bucket, mask) =
            if free.count_ones() >= free_too.count_ones() { (first, free) } else { (second, free_too) };
        (mask != 0).then(|| At { bucket, place: mask.trailing_zeros() as usize })
    }

    /// Moves one entry of a full bucket to its other bucket, if one has room there, and returns the slot it left.
    fn make_room(&mut self, bucket: usize) -> Option<At> {
        for place in 0..BUCKET {
            let from = At { bucket, place };
            let tag = self.tags[bucket][place];
            let other = other_bucket(bucket as u32, tag, self.tags.len() as u32) as usize;
            let free = matching(&self.tags[other], 0);
            if free != 0 {
                let (locator, tick) = (self.locator(from), self.tick(from));
                self.clear(from);
                self.fill(At { bucket: other, place: free.trailing_zeros() as usize }, tag, locator, tick);
                return Some(from);
            }
        }
        None
    }

    fn fill(&mut self, at: At, tag: u16, locator: Locator, tick: u32) {
        assert_eq!(self.tags[at.bucket][at.place], 0);
        assert_ne!(tag, 0);
        self.tags[at.bucket][at.place] = tag;
        self.locators[at.bucket][at.place] = locator.to_bytes();
        self.occupied += 1;
        self.lease_at(at, tick);
    }

    fn clear(&mut self, at: At) {
        assert_ne!(self.tags[at.bucket][at.place], 0);
        self.tags[at.bucket][at.place] = 0;
        self.locators[at.bucket][at.place] = [0; Locator::SIZE];
        self.far.remove(&at.slot());
        self.leases[at.bucket][at.place] = FAR;
        self.occupied -= 1;
    }

    fn locator(&self, at: At) -> Locator {
        Locator::from_bytes(self.locators[at.bucket][at.place])
    }

    fn tick(&self, at: At) -> u32 {
        match self.leases[at.bucket][at.place] {
            FAR => *self.far.get(&at.slot()).expect("a far lease has its end in the far map"),
            lease => self.base + u32::from(lease),
        }
    }

    /// Returns the end before, if it has changed.
    fn extend_at(&mut self, at: At, tick: u32) -> Option<u32> {
        let before = self.tick(at);
        if tick <= before {
            return None;
        }
        if self.leases[at.bucket][at.place] != FAR && self.fits(tick) {
            self.leases[at.bucket][at.place] = (tick - self.base) as u16;
        } else {
            self.far.remove(&at.slot());
            self.lease_at(at, tick);
        }
        Some(before)
    }

    /// Sets the lease of a slot that is not in the far map.
    fn lease_at(&mut self, at: At, tick: u32) {
        // Until it is known where the new end goes, the slot must not hold back the base.
        self.leases[at.bucket][at.place] = FAR;
        if !self.fits(tick) && self.is_worth_rebasing() {
            self.rebase(tick);
        }
        if self.fits(tick) {
            self.leases[at.bucket][at.place] = (tick - self.base) as u16;
        } else {
            self.far.insert(at.slot(), tick);
        }
    }

    fn fits(&self, tick: u32) -> bool {
        tick >= self.base && tick - self.base < SPAN
    }

    /// A pass over the column is made when the far map begins and each time it has doubled.
    fn is_worth_rebasing(&self) -> bool {
        self.far.is_empty() || self.far.len().is_power_of_two()
    }

    /// Moves the base so that this end and all in the column fit, if one base can do that, with equal room on both sides.
    fn rebase(&mut self, tick: u32) {
        let (mut low, mut high) = (tick, tick);
        for lease in self.leases.as_flattened().iter().filter(|lease| **lease != FAR) {
            low = low.min(self.base + u32::from(*lease));
            high = high.max(self.base + u32::from(*lease));
        }
        if high - low >= SPAN {
            return;
        }
        let base = low.saturating_sub((SPAN - 1 - (high - low)) / 2);
        for lease in self.leases.as_flattened_mut().iter_mut().filter(|lease| **lease != FAR) {
            *lease = u16::try_from(self.base + u32::from(*lease) - base).expect("every end fits the new base");
        }
        self.base = base;
        let (leases, fits) = (self.leases.as_flattened_mut(), |tick: u32| tick >= base && tick - base < SPAN);
        self.far.retain(|slot, tick| {
            if fits(*tick) {
                leases[*slot as usize] = (*tick - base) as u16;
            }
            !fits(*tick)
        });
    }
}

/// Entries of a table that somebody has claimed by hash and locator: each is given out once.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    table: &'a Table,
    /// A bit for each slot.
    slots: Vec<u16>,
    stash: BTreeSet<(KeyHash, Locator)>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(table: &'a Table) -> Claims<'a> {
        Claims { table, slots: vec![0; table.tags.len()], stash: BTreeSet::new() }
    }

    /// The end of the lease of the entry with this hash and locator, the first time.
    pub(super) fn claim(&mut self, hash: KeyHash, locator: Locator) -> Option<u32> {
        let Some(at) = self.table.find(hash, locator) else {
            let tick = *self.table.stash.get(&(hash, locator))?;
            return self.stash.insert((hash, locator)).then_some(tick);
        };
        let bit = 1 << at.place;
        if self.slots[at.bucket] & bit != 0 {
            return None;
        }
        self.slots[at.bucket] |= bit;
        Some(self.table.tick(at))
    }

    /// The entries that nobody has claimed.
    pub(super) fn unclaimed(&self) -> Vec<Locator> {
        let all = (0..self.table.tags.len()).flat_map(|bucket| (0..BUCKET).map(move |place| At { bucket, place }));
        let slots = all
            .filter(|at| self.table.tags[at.bucket][at.place] != 0 && self.slots[at.bucket] & (1 << at.place) == 0)
            .map(|at| self.table.locator(at));
        let stash = self.table.stash.keys().filter(|entry| !self.stash.contains(entry)).map(|(_, locator)| *locator);
        slots.chain(stash).collect()
    }
}

const _: () = assert!(BUCKET <= u16::BITS as usize);

/// Bit `n` is set iff slot `n` has this tag. Sixteen compares side by side.
fn matching(tags: &[u16; BUCKET], tag: u16) -> u32 {
    let mut mask = 0;
    for (place, held) in tags.iter().enumerate() {
        mask |= u32::from(*held == tag) << place;
    }
    mask
}

/// Whether some lease is below `bound`. The subtraction saturates at 0, so what is left over is not 0 iff one is; there is
/// no branch inside a chunk, and the compiler makes vector instructions of it, unrolled: for any x86-64 `psubusw` and `por`, eight
/// leases each; built for a processor with AVX2 `vpsubusw` on sixteen. More width would gain nothing: at 2 bytes a lease
/// the column comes from memory, not from the cache, so there is no choice of code at run time.
fn has_below(leases: &[[u16; BUCKET]], bound: u16) -> bool {
    const CHUNK: usize = 64;
    leases.chunks(CHUNK).any(|chunk| {
        let mut left = [0; BUCKET];
        for leases in chunk {
            for (left, lease) in left.iter_mut().zip(leases) {
                *left |= bound.saturating_sub(*lease);
            }
        }
        left != [0; BUCKET]
    })
}
