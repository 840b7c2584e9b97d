//! Memory as direct I/O wants it: whole pages.

/// Bytes of a page, of a record, and the alignment of everything.
pub(crate) const PAGE: usize = 4096;

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);
const _: () = assert!(size_of::<Page>() == PAGE);

/// Some pages in a row. Its memory does not move when it does, and is initialised as long as it lives.
pub(crate) struct Pages(Box<[Page]>);

impl Pages {
    /// At least one page, `length` a multiple of it.
    pub(crate) fn new(length: usize) -> Pages {
        assert!(length > 0);
        assert!(length.is_multiple_of(PAGE));
        Pages(vec![Page([0; PAGE]); length / PAGE].into_boxed_slice())
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: a `Page` is `PAGE` bytes without padding (asserted above), the pages of a slice lie in a row, all are
        // initialised by `new`, and the bytes are borrowed as the pages are.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * PAGE) }
    }

    /// All of it, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the borrow is exclusive; any byte is a value of `Page`.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * PAGE) }
    }
}

// SAFETY: the pointer leads into the box, which stays where it is when the `Pages` moves, and all of it is initialised.
unsafe impl tokio_uring::buf::IoBuf for Pages {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes().len()
    }

    fn bytes_total(&self) -> usize {
        self.bytes().len()
    }
}

// SAFETY: as for `IoBuf`; what is initialised stays so, so that there is nothing to note in `set_init`.
unsafe impl tokio_uring::buf::IoBufMut for Pages {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.bytes_mut().as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

impl compio::buf::IoBuf for Pages {
    fn as_init(&self) -> &[u8] {
        self.bytes()
    }
}

impl compio::buf::SetLen for Pages {
    // Asks nothing of its caller: the length is always the whole.
    unsafe fn set_len(&mut self, _: usize) {}
}

impl compio::buf::IoBufMut for Pages {
    fn as_uninit(&mut self) -> &mut [std::mem::MaybeUninit<u8>] {
        let bytes = self.bytes_mut();
        // SAFETY: a `MaybeUninit<u8>` has the layout of a byte, and the borrow is the exclusive one of `bytes`. The caller may
        // not make bytes uninitialised (the trait's rule); compio only has the kernel write into them.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }
}
