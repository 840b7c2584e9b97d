//! Which pages of a mapped segment are in memory, so far as is known.
//!
//! Asking the kernel (`mincore`) costs a system call. It is asked about a window of 64 pages at once, and its answer is
//! believed for a while, so that a page that is read again and again costs no call. It is believed only of pages that
//! have been asked for: the others may lie where the segment is still being written, and go from memory with that. A
//! page may be evicted while the old answer is still believed: then the shard's thread takes a page fault with a read
//! of the device in it, which costs time (about a tenth of a millisecond, more on a busy disk), not correctness. How
//! long answers are believed adapts: when a new answer shows that a page has gone, memory is short, and answers are
//! believed for [`TRUST_MS_MIN`] only; while nothing goes, that doubles step by step up to [`TRUST_MS_MAX`].
//!
//! It is also noted which pages were read from the device. The second time it reads through the page cache, so that the third
//! finds the page in memory: what is read once and never again does not push out what is read often.

use std::ops::Range;

/// Pages in a window: bits of a word.
const WINDOW: usize = 64;
/// Answers are believed for at most so long. With a hot set of 4 GiB that is 16,000 calls a second.
const TRUST_MS_MAX: u32 = 1_000;
/// And for so long while pages are being evicted.
const TRUST_MS_MIN: u32 = 4;

/// How long the kernel's answers are believed: one per shard.
#[derive(Debug)]
pub(super) struct Trust {
    ms: u32,
    /// When it was last changed.
    since_ms: u32,
}

impl Trust {
    pub(super) fn new() -> Trust {
        Trust { ms: TRUST_MS_MAX, since_ms: 0 }
    }

    fn believes(&self, answered_ms: u32, now_ms: u32) -> bool {
        answered_ms != 0 && now_ms.wrapping_sub(answered_ms) < self.ms
    }

    /// A new answer: whether it shows that a page has gone.
    fn learn(&mut self, gone: bool, now_ms: u32) {
        if gone {
            (self.ms, self.since_ms) = (TRUST_MS_MIN, now_ms);
        } else if now_ms.wrapping_sub(self.since_ms) >= 4 * self.ms {
            (self.ms, self.since_ms) = ((2 * self.ms).min(TRUST_MS_MAX), now_ms);
        }
    }
}

/// 64 pages.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Pages that have been asked for: they are not written any more.
    asked: u64,
    /// Those of them that were in memory.
    resident: u64,
    /// Pages that have been read from the device.
    read: u64,
    /// When the kernel was asked; 0 is never.
    answered_ms: u32,
}

/// The pages of one mapping.
#[derive(Debug)]
pub(super) struct Residency {
    windows: Vec<Window>,
}

impl Residency {
    pub(super) fn of(pages: usize) -> Residency {
        Residency { windows: vec![Window::default(); pages.div_ceil(WINDOW)] }
    }

    /// The mapping has become longer.
    pub(super) fn grow(&mut self, pages: usize) {
        assert!(pages.div_ceil(WINDOW) >= self.windows.len(), "files only grow");
        self.windows.resize(pages.div_ceil(WINDOW), Window::default());
    }

    /// Whether all these pages are in memory. `ask` is given the first page of a window and returns a bit for each of its
    /// pages; it is called for windows whose last answer is too old, and for pages asked for the first time.
    pub(super) fn is_resident(
        &mut self,
        pages: Range<usize>,
        now_ms: u32,
        trust: &mut Trust,
        ask: impl Fn(usize) -> u64,
    ) -> bool {
        parts(pages).all(|(number, mask)| {
            let window = &mut self.windows[number];
            if !trust.believes(window.answered_ms, now_ms) || window.asked & mask != mask {
                window.asked |= mask;
                let resident = ask(number * WINDOW) & window.asked;
                trust.learn(window.resident & !resident != 0, now_ms);
                (window.resident, window.answered_ms) = (resident, now_ms);
            }
            window.resident & mask == mask
        })
    }

    /// Notes that these pages are read from the device; whether all of them were before.
    pub(super) fn read_again(&mut self, pages: Range<usize>) -> bool {
        parts(pages).fold(true, |again, (number, mask)| {
            let read = &mut self.windows[number].read;
            let before = *read;
            *read |= mask;
            again && before & mask == mask
        })
    }

    /// These pages have just been read through the page cache.
    pub(super) fn came_in(&mut self, pages: Range<usize>) {
        for (number, mask) in parts(pages) {
            self.windows[number].asked |= mask;
            self.windows[number].resident |= mask;
        }
    }
}

/// A range of pages by windows: the number of each, and the bits in it.
fn parts(pages: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (pages.start / WINDOW..pages.end.div_ceil(WINDOW)).map(move |number| {
        let first = pages.start.saturating_sub(number * WINDOW);
        let end = (pages.end - number * WINDOW).min(WINDOW);
        (number, (u64::MAX >> (WINDOW - (end - first))) << first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Goal: a range is cut into windows exactly. Method: against single pages, for ranges around window borders.
    #[test]
    fn a_range_is_its_pages() {
        for start in [0, 1, 62, 63, 64, 65, 127, 128, 190] {
            for length in [1, 2, 3, 63, 64, 65, 128, 200] {
                let mut pages = Vec::new();
                for (number, mask) in parts(start..start + length) {
                    pages.extend((0..WINDOW).filter(|bit| mask >> bit & 1 == 1).map(|bit| number * WINDOW + bit));
                }
                assert_eq!(pages, (start..start + length).collect::<Vec<_>>());
            }
        }
    }

    /// Goal: the kernel is asked about a page once while its answer is believed, and never believed of a page not asked
    /// about; a page seen gone shortens belief, quiet restores it. Method: a memory of our own with a count of
    /// questions, and a clock of our own.
    #[test]
    fn answers_are_believed_for_a_while() {
        let (memory, asked) = (Cell::new(u64::MAX), Cell::new(0));
        let ask = |_| {
            asked.set(asked.get() + 1);
            memory.get()
        };
        let (mut residency, mut trust) = (Residency::of(200), Trust::new());
        for page in 0..WINDOW - 1 {
            assert!(residency.is_resident(page..page + 1, 1, &mut trust, ask));
            assert!(residency.is_resident(0..page + 1, 1, &mut trust, ask));
        }
        assert_eq!(asked.get(), WINDOW - 1);
        // The last page was in memory at each answer, and is not any more.
        memory.set(u64::MAX >> 1);
        assert!(!residency.is_resident(WINDOW - 1..WINDOW, 1, &mut trust, ask));
        assert_eq!(trust.ms, TRUST_MS_MAX, "nothing has gone that was believed in");
        asked.set(1);
        memory.set(!1);
        assert!(residency.is_resident(0..1, TRUST_MS_MAX, &mut trust, ask), "outdated, and believed: the known race");
        assert!(!residency.is_resident(0..1, TRUST_MS_MAX + 1, &mut trust, ask));
        assert!(residency.is_resident(1..2, TRUST_MS_MAX + 1, &mut trust, ask));
        assert_eq!((asked.get(), trust.ms), (2, TRUST_MS_MIN));
        let mut now = TRUST_MS_MAX + 1;
        for _ in 0..20 {
            now += 4 * TRUST_MS_MAX;
            assert!(residency.is_resident(1..2, now, &mut trust, ask));
        }
        assert_eq!(trust.ms, TRUST_MS_MAX);
        assert!(residency.is_resident(63..65, now, &mut trust, |_| 1), "two windows");
        assert!(!residency.is_resident(64..66, now, &mut trust, |_| 1));
        assert!(!residency.is_resident(64..66, now, &mut trust, |_| unreachable!("believed")));
        residency.came_in(65..66);
        assert!(residency.is_resident(64..66, now, &mut trust, |_| unreachable!("believed")));
    }

    /// Goal: a page is read again from its second reading on.
    #[test]
    fn a_second_reading_is_noticed() {
        let mut residency = Residency::of(200);
        assert!(!residency.read_again(60..70));
        assert!(!residency.read_again(65..71));
        assert!(residency.read_again(60..71));
    }
}
