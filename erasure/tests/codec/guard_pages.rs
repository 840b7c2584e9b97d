//! Goal: no kernel reads or writes a byte outside its buffers. Method: each buffer lies against a page that the kernel may not
//! touch, once before it and once behind it; a stray access ends the test by a signal. A control shows that it would.
#![expect(unsafe_code, reason = "pages are mapped and protected by hand")]

use crate::fragments::Chance;
use erasure::{Code, Encoder, Kernel};

/// Which edge of the buffer lies against a forbidden page.
#[derive(Clone, Copy, Debug)]
enum Edge {
    First,
    Last,
}

/// Pages for a buffer between two forbidden ones.
///
/// Invariant: `start` is the start of a mapping of `pages + 2` pages, of which all but the first and the last may be read and
/// written; nobody else has it.
struct Guarded {
    start: *mut u8,
    page: usize,
    pages: usize,
}

impl Guarded {
    fn new(bytes_max: usize) -> Guarded {
        // SAFETY: a question without arguments in memory.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a size");
        let pages = bytes_max.div_ceil(page).max(1);
        // SAFETY: a new anonymous mapping, wherever there is room; it takes the place of nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                (pages + 2) * page,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED, "no mapping");
        let start = start.cast::<u8>();
        // SAFETY: the pages but the first and the last of the mapping made just now.
        let changed =
            unsafe { libc::mprotect(start.add(page).cast(), pages * page, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(changed, 0, "pages cannot be opened");
        Guarded { start, page, pages }
    }

    /// `length` bytes against one of the forbidden pages.
    fn buffer(&mut self, length: usize, edge: Edge) -> &mut [u8] {
        let room = self.pages * self.page;
        assert!(length <= room);
        let offset = self.page + if matches!(edge, Edge::First) { 0 } else { room - length };
        // SAFETY: these bytes lie within the pages that may be read and written, were zero when mapped, and are borrowed
        // through `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody has a reference to any more.
        unsafe { libc::munmap(self.start.cast(), (self.pages + 2) * self.page) };
    }
}

#[test]
fn no_kernel_leaves_its_buffers() {
    let mut chance = Chance(10);
    let block = (1 << 20) / 5 / 384 * 384;
    for kernel in Kernel::available() {
        // Nine rows: every kernel has a whole group and a smaller one; then each smaller group alone.
        for (needed, total, lengths) in [
            (5, 14, (0..=520).chain([block - 1, block, block + 1, block + 31, block + 63]).collect::<Vec<usize>>()),
            (2, 3, (0..=200).collect()),
            (2, 4, (0..=200).collect()),
            (2, 5, (0..=200).collect()),
            (2, 6, (0..=200).collect()),
            (2, 7, (0..=200).collect()),
            (2, 8, (0..=200).collect()),
            (2, 9, (0..=200).collect()),
        ] {
            let encoder = Encoder::new(&Code::with_kernel(needed, total, kernel).expect("a code"));
            let mut buffers: Vec<Guarded> = (0..total).map(|_| Guarded::new(block + 64)).collect();
            for length in lengths {
                for edge in [Edge::First, Edge::Last] {
                    let (data, parity) = buffers.split_at_mut(needed);
                    let data: Vec<&[u8]> = data
                        .iter_mut()
                        .map(|guarded| {
                            let data = guarded.buffer(length, edge);
                            data.fill(chance.below(256) as u8);
                            &*data
                        })
                        .collect();
                    let mut parity: Vec<&mut [u8]> =
                        parity.iter_mut().map(|guarded| guarded.buffer(length, edge)).collect();
                    encoder.encode(&data, &mut parity).expect("sound");
                }
            }
        }
    }
}

#[test]
fn control_a_byte_outside_ends_the_process() {
    let mut guarded = Guarded::new(100);
    let behind = guarded.buffer(100, Edge::Last).as_ptr_range().end;
    let before = guarded.buffer(100, Edge::First).as_ptr().wrapping_sub(1);
    for outside in [behind, before] {
        // SAFETY: the child calls nothing but a read, which is to end it, and `_exit`; neither needs the locks that other
        // threads of the parent may have held.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "no child");
        if child == 0 {
            // SAFETY: not sound on purpose: the address is of the mapping, and its page may not be read. The kernel ends the
            // child here, by the default action of the signal, which is set first.
            unsafe {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                std::hint::black_box(outside.read_volatile());
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: waits for our own child; `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "status {status}");
    }
}
