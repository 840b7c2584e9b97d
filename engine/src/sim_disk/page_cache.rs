//! What the simulated kernel keeps of files in memory, where it differs from the disk.
//!
//! Reads that may be kept bring their pages here, and sometimes pages behind them that nobody asked for. A write that passes by the
//! cache drops the pages it changes, as Linux promises, but for one time in sixteen, when this kernel forgets to: the page is
//! stale from then on. So whoever reads through memory is served pages from before a write, zeros from before a batch came
//! and bytes of an older generation, and must not be misled.

use super::Chance;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Most pages read ahead at once.
const AHEAD: u64 = 8;

/// Pages as they were when they were read, by the number of their file's image and their own.
#[derive(Debug, Default)]
pub(super) struct PageCache {
    pages: BTreeMap<(u64, usize), Box<[u8]>>,
    /// Images that the store has found wrong in memory, and does not want to see there.
    distrusted: BTreeSet<u64>,
}

impl PageCache {
    /// A range of an image as memory has it, of which `current` is what the disk has. It lies in memory from now on.
    pub(super) fn read(&mut self, image: u64, current: &[u8], range: Range<usize>, chance: &mut Chance) -> Vec<u8> {
        let ahead = if chance.below(4) == 0 { chance.below(AHEAD) as usize } else { 0 };
        for page in range.start / PAGE..range.end.div_ceil(PAGE) + ahead {
            let Some(bytes) = current.get(page * PAGE..current.len().min((page + 1) * PAGE)) else { break };
            self.pages.entry((image, page)).or_insert_with(|| bytes.into());
        }
        let page_of = |at: usize| self.pages.get(&(image, at / PAGE)).and_then(|page| page.get(at % PAGE));
        range.map(|at| page_of(at).copied().unwrap_or(current[at])).collect()
    }

    /// A range of an image has been written past the cache.
    pub(super) fn written(&mut self, image: u64, range: Range<usize>, chance: &mut Chance) {
        let changed = (image, range.start / PAGE)..(image, range.end.div_ceil(PAGE));
        let held: Vec<(u64, usize)> = self.pages.range(changed).map(|(page, _)| *page).collect();
        for page in held {
            if chance.below(16) > 0 {
                self.pages.remove(&page);
            }
        }
    }

    /// A bit has flipped on the disk and in memory.
    pub(super) fn rot(&mut self, image: u64, bit: u64) {
        let byte = (bit / 8) as usize;
        let page = self.pages.get_mut(&(image, byte / PAGE));
        if let Some(held) = page.and_then(|page| page.get_mut(byte % PAGE)) {
            *held ^= 1 << (bit % 8);
        }
    }

    pub(super) fn distrust(&mut self, image: u64) {
        self.distrusted.insert(image);
    }

    pub(super) fn is_distrusted(&self, image: u64) -> bool {
        self.distrusted.contains(&image)
    }

    /// The store has let go of a file: it may be looked at in memory again, where its pages still are.
    pub(super) fn release(&mut self, image: u64) {
        self.distrusted.remove(&image);
    }

    /// The process is another one.
    pub(super) fn restart(&mut self) {
        self.distrusted.clear();
    }

    /// The power was gone.
    pub(super) fn clear(&mut self) {
        *self = PageCache::default();
    }
}
