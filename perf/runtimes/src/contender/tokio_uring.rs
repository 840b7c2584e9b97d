//! tokio-uring, with registered buffers. It has no way to say `RWF_DSYNC`, so for durable writes the file is opened with
//! `O_DSYNC`.

use crate::pages::Pages;
use crate::segment::{arrived, whole};
use crate::work::{AsyncFile, Done, Job, perform};
use std::cell::Cell;
use std::io;
use tokio_uring::buf::fixed::{FixedBuf, FixedBufRegistry};
use tokio_uring::fs::File;

struct Direct {
    file: File,
    registry: FixedBufRegistry<Pages>,
    given_out: Cell<usize>,
}

impl AsyncFile for Direct {
    type Buffer = FixedBuf;

    fn buffer(&self, _: usize) -> io::Result<FixedBuf> {
        let next = self.given_out.get();
        self.given_out.set(next + 1);
        self.registry.check_out(next).ok_or_else(|| io::Error::other("no such registered buffer"))
    }

    fn bytes_of(buffer: &mut FixedBuf) -> &mut [u8] {
        buffer
    }

    async fn write(&self, buffer: FixedBuf, at: u64) -> io::Result<FixedBuf> {
        let wanted = buffer.len();
        let (moved, buffer) = self.file.write_fixed_at(buffer, at).await;
        whole(moved?, wanted)?;
        Ok(buffer)
    }

    async fn read(&self, buffer: FixedBuf, at: u64) -> io::Result<FixedBuf> {
        let (moved, buffer) = self.file.read_fixed_at(buffer, at).await;
        arrived(&buffer[..moved?], at)?;
        Ok(buffer)
    }

    async fn sync(&self) -> io::Result<()> {
        self.file.sync_data().await
    }
}

pub(super) fn run(job: &Job) -> io::Result<Done> {
    let file = job.segment.open(if job.case.is_dsync() { libc::O_DSYNC } else { 0 })?;
    let (count, length) = job.case.buffers();
    tokio_uring::Runtime::new(&tokio_uring::builder())?.block_on(async {
        let registry = FixedBufRegistry::new((0..count).map(|_| Pages::new(length)));
        registry.register()?;
        let file = Direct { file: File::from_std(file), registry, given_out: Cell::new(0) };
        let done = perform(&file, job).await;
        file.registry.unregister()?;
        file.file.close().await?;
        done
    })
}
