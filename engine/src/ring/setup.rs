//! Making a ring, the bell that wakes its thread, and pinning that thread.

use crate::open_error::OpenError;
use io_uring::IoUring;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An eventfd: other threads ring it, a shard's ring reads it.
#[derive(Debug)]
pub struct Bell {
    file: File,
}

impl Bell {
    /// A new bell.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> io::Result<Bell> {
        // SAFETY: eventfd takes two integers and touches no memory of ours; a negative result is dealt with below.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just returned this descriptor, so it is open and nobody else owns it.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Bell { file: File::from(owned) })
    }

    /// Wakes whoever reads the bell, now or next.
    pub fn ring(&self) {
        // An eventfd refuses only when its 64-bit count is about to overflow: then it is already ringing.
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A ring for this thread.
pub(crate) fn open_ring(entries: u32) -> Result<IoUring, OpenError> {
    let preferred = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(entries);
    let ring = match preferred {
        // Older kernels do not know the flags, which only save some interrupts.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().build(entries),
        other => other,
    };
    ring.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOMEM) => OpenError::MemlockTooSmall,
        _ => OpenError::RingUnavailable { source },
    })
}

/// Pins this thread to the `nth` processor it is allowed on, going round. Returns whether the system let us.
pub(crate) fn pin_to_processor(nth: usize) -> bool {
    // SAFETY: a `cpu_set_t` is plain bits, for which all zeros is a value (the empty set); both calls get its true size
    // and a pointer to it that lives through the call, and thread 0 means the calling one.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &raw mut allowed) != 0 {
            return false;
        }
        let processors: Vec<usize> =
            (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &allowed)).collect();
        let Some(chosen) = processors.get(nth % processors.len().max(1)) else { return false };
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(*chosen, &mut one);
        libc::sched_setaffinity(0, size, &raw const one) == 0
    }
}
