//! Goal: with plans at hand, coding takes no memory. Method: an allocator that counts what each thread asks for.
#![expect(unsafe_code, reason = "an allocator is unsafe by contract")]

use erasure::{Code, Encoder, Kernel, Plan, Plans};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
struct Counting;

thread_local! {
    /// Allocations of this thread. It is there without being allocated, and has nothing to drop.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations during `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn coding_allocates_nothing() {
    for kernel in Kernel::available() {
        let code = Code::with_kernel(3, 12, kernel).expect("a code");
        let encoder = Encoder::new(&code);
        let plan = Plan::new(&code, &[11, 1, 5], &[0, 7]).expect("sound");
        let mut plans = Plans::new(&code, 1 << 20);
        let data = [[1; 20_001], [2; 20_001], [3; 20_001]];
        let data = [&data[0][..], &data[1], &data[2]];
        let mut parity = vec![vec![0; 20_001]; 9];
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|parity| &mut parity[..]).collect();
        assert_eq!(allocations(|| encoder.encode(&data, &mut parity).expect("sound")), 0, "encode");
        assert_eq!(allocations(|| plan.apply(&data, &mut parity[..2]).expect("sound")), 0, "apply");
        let mut recover = || plans.recover(&[11, 1, 5], &data, &[0, 7], &mut parity[..2]).expect("sound");
        assert_ne!(allocations(&mut recover), 0, "control: a new plan takes memory");
        assert_eq!(allocations(&mut recover), 0, "recover");
    }
}
