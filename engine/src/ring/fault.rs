//! SIGBUS, contained where nobody is harmed by it.
//!
//! Reading a mapped page that the device cannot deliver, or that lies behind the end of a file cut short by somebody else,
//! raises SIGBUS, which ends the process. For the views that a shard's thread *checks* records in (`mapping`), that is not
//! necessary: a page that cannot be read is a record that does not pass its check. So their ranges are kept in a table, and a
//! handler replaces a faulting page inside one of them by a page of zeros, marks the range, and lets the thread go on into the
//! failing check. Nothing else is contained: bytes that were checked and given out are not read through these views, because
//! no check would stand between the zeros and whoever reads them there. Such a fault, and any other, goes to whoever handled
//! SIGBUS before; as a rule it ends the process, as it should.
//!
//! The handler takes no lock and allocates nothing; all it reads are the atomics below. Invariants:
//! - a range is one word (page number and length), so that it is seen whole or not at all;
//! - a range is entered before its view is read for the first time, and taken out after the last reading and before the
//!   view is unmapped; so a fault inside an entered range is a fault in that view.

use crate::limits::MAPPED_SEGMENTS_MAX;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The unit the kernel maps. Where it is larger, the handler cannot replace a page and passes the fault on.
pub(super) const PAGE: usize = 4096;
/// Bits of a word that hold the length in pages. The rest holds page numbers of 57-bit addresses.
const LENGTH_BITS: u32 = 19;
const _: () = assert!((crate::limits::SEGMENT_BYTES_MAX as usize / PAGE) < (1 << LENGTH_BITS) - 1);

struct Range {
    /// Page number and length in pages; 0 is none.
    pages: AtomicU64,
    /// A fault inside was contained.
    faulted: AtomicBool,
}

static RANGES: [Range; MAPPED_SEGMENTS_MAX] =
    [const { Range { pages: AtomicU64::new(0), faulted: AtomicBool::new(false) } }; MAPPED_SEGMENTS_MAX];
/// Ranges from here on have never been used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Numbers below `USED` that are free. Not touched by the handler.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// What SIGBUS did before. Set before the handler is installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static INSTALLED: OnceLock<bool> = OnceLock::new();

/// A range in the table, until it is dropped.
pub(super) struct Watched {
    number: usize,
}

impl Watched {
    /// Enters a range of whole pages. `None` if the table is full, or SIGBUS cannot be handled.
    pub(super) fn range(start: usize, length: usize) -> Option<Watched> {
        if !*INSTALLED.get_or_init(install) {
            return None;
        }
        let word = pack(start, length)?;
        let number = {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free.pop().or_else(|| {
                let next = USED.load(Ordering::Relaxed);
                (next < RANGES.len()).then(|| {
                    USED.store(next + 1, Ordering::Release);
                    next
                })
            })?
        };
        RANGES[number].faulted.store(false, Ordering::Relaxed);
        RANGES[number].pages.store(word, Ordering::Release);
        Some(Watched { number })
    }

    /// Whether a page of the range could not be read.
    pub(super) fn has_faulted(&self) -> bool {
        RANGES[self.number].faulted.load(Ordering::Relaxed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        RANGES[self.number].pages.store(0, Ordering::Release);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

fn pack(start: usize, length: usize) -> Option<u64> {
    if !start.is_multiple_of(PAGE) || length == 0 {
        return None;
    }
    let pages = u64::try_from(length.div_ceil(PAGE)).ok()?;
    let first = u64::try_from(start / PAGE).ok()?;
    (pages < 1 << LENGTH_BITS && first < 1 << (u64::BITS - LENGTH_BITS)).then_some(first << LENGTH_BITS | pages)
}

fn holds(word: u64, page: u64) -> bool {
    let (first, pages) = (word >> LENGTH_BITS, word & ((1 << LENGTH_BITS) - 1));
    page >= first && page - first < pages
}

/// Puts the handler in place, once for the process. Whether that worked.
fn install() -> bool {
    // SAFETY: a `sigaction` is plain data, for which all zeros is a value; both calls get pointers to such data that live
    // through them. The handler has the signature that SA_SIGINFO asks for, and does only what a handler may (see there).
    // SA_ONSTACK: the previous handler may be the one that reports stack overflows and must run on the alternate stack.
    unsafe {
        let mut previous: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) != 0 || PREVIOUS.set(previous).is_err() {
            return false;
        }
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = on_bus_error as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut ours.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) == 0
    }
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t`, and for SIGBUS raised by a fault (a positive code) it holds the address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code <= 0 || !contain(address) {
        pass_on(signal, info, context, code > 0);
    }
}

/// Replaces the page at `address` by zeros if it lies in a watched range.
fn contain(address: usize) -> bool {
    let page = address / PAGE;
    let used = USED.load(Ordering::Acquire).min(RANGES.len());
    let Some(range) = RANGES[..used].iter().find(|range| holds(range.pages.load(Ordering::Acquire), page as u64))
    else {
        return false;
    };
    // SAFETY: `mmap` is a bare system call here, and errno, which it may set, is put back: the interrupted code sees nothing
    // of it. MAP_FIXED replaces one page that lies in a watched view (the table's invariant): memory that is ours, mapped
    // read-only, and read by nobody but the thread standing in this very fault, which reads it to check it. Zeros are as
    // good a `[u8]` as what the file had.
    unsafe {
        let errno = *libc::__errno_location();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let placed = libc::mmap((page * PAGE) as *mut libc::c_void, PAGE, libc::PROT_READ, flags, -1, 0);
        *libc::__errno_location() = errno;
        if placed == libc::MAP_FAILED {
            return false;
        }
    }
    range.faulted.store(true, Ordering::Relaxed);
    true
}

/// Does what would have been done without us.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, is_fault: bool) {
    let action = PREVIOUS.get();
    let handler = action.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    if handler == libc::SIG_IGN && !is_fault {
        return;
    }
    // SAFETY: `handler` is what `sigaction` reported as the handler installed before: a function of the signature its flag
    // says. Where there was none the default action is restored: a fault happens again on return and ends the process; a
    // signal that was sent is sent again. `sigaction` and `raise` may be called in a handler.
    unsafe {
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            let mut default: libc::sigaction = std::mem::zeroed();
            default.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &raw const default, ptr::null_mut());
            if !is_fault {
                libc::raise(signal);
            }
        } else if action.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0) {
            type Informed = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Informed>(handler)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a word tells exactly the pages of its range. Method: the pages at and around both ends.
    #[test]
    fn a_word_holds_its_pages_and_no_others() {
        let start = 0x7f12_3456_7000;
        let word = pack(start, 3 * PAGE + 1).unwrap();
        let page = (start / PAGE) as u64;
        let inside: Vec<bool> = (page - 1..=page + 4).map(|page| holds(word, page)).collect();
        assert_eq!(inside, [false, true, true, true, true, false]);
        assert!(!holds(0, 0) && !holds(0, page));
        assert!(pack(start + 1, PAGE).is_none() && pack(start, 0).is_none() && pack(start, usize::MAX / 2).is_none());
    }
}
