//! tokio's pool of blocking threads: plain system calls, with a hop to another thread and back for each.

use crate::pages::Pages;
use crate::segment::{arrived, whole};
use crate::work::{AsyncFile, Done, Job, perform};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::task::spawn_blocking;

struct Direct {
    file: Arc<File>,
    flags: i32,
}

impl AsyncFile for Direct {
    type Buffer = Pages;

    fn buffer(&self, length: usize) -> io::Result<Pages> {
        Ok(Pages::new(length))
    }

    fn bytes_of(buffer: &mut Pages) -> &mut [u8] {
        buffer.bytes_mut()
    }

    async fn write(&self, buffer: Pages, at: u64) -> io::Result<Pages> {
        let (file, flags) = (self.file.clone(), self.flags);
        spawn_blocking(move || {
            let bytes = buffer.bytes();
            let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            // SAFETY: the vector is one stretch of initialised bytes that outlives the call, which only reads it; the
            // descriptor is of a file that `file` keeps open.
            let moved = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const vector, 1, at as libc::off_t, flags) };
            whole(usize::try_from(moved).map_err(|_| io::Error::last_os_error())?, bytes.len())?;
            Ok(buffer)
        })
        .await?
    }

    async fn read(&self, mut buffer: Pages, at: u64) -> io::Result<Pages> {
        let file = self.file.clone();
        let buffer = spawn_blocking(move || file.read_exact_at(buffer.bytes_mut(), at).map(|()| buffer)).await??;
        arrived(buffer.bytes(), at)?;
        Ok(buffer)
    }

    async fn sync(&self) -> io::Result<()> {
        let file = self.file.clone();
        spawn_blocking(move || file.sync_data()).await?
    }
}

pub(super) fn run(job: &Job) -> io::Result<Done> {
    let file = Arc::new(job.segment.open(0)?);
    let flags = if job.case.is_dsync() { libc::RWF_DSYNC } else { 0 };
    tokio::runtime::Builder::new_current_thread().build()?.block_on(perform(&Direct { file, flags }, job))
}
