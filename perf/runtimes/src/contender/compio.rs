//! compio. Its files have no way to say `RWF_DSYNC`, so for durable writes the file is opened with `O_DSYNC`; nor do their
//! writes know registered buffers.

use crate::pages::Pages;
use crate::segment::{arrived, whole};
use crate::work::{AsyncFile, Done, Job, perform};
use compio::buf::BufResult;
use compio::fs::{File, OpenOptions};
use compio::io::{AsyncReadAt, AsyncWriteAt};
use std::io;

struct Direct(File);

impl AsyncFile for Direct {
    type Buffer = Pages;

    fn buffer(&self, length: usize) -> io::Result<Pages> {
        Ok(Pages::new(length))
    }

    fn bytes_of(buffer: &mut Pages) -> &mut [u8] {
        buffer.bytes_mut()
    }

    async fn write(&self, buffer: Pages, at: u64) -> io::Result<Pages> {
        let BufResult(moved, buffer) = (&self.0).write_at(buffer, at).await;
        whole(moved?, buffer.bytes().len())?;
        Ok(buffer)
    }

    async fn read(&self, buffer: Pages, at: u64) -> io::Result<Pages> {
        let BufResult(moved, buffer) = self.0.read_at(buffer, at).await;
        arrived(&buffer.bytes()[..moved?], at)?;
        Ok(buffer)
    }

    async fn sync(&self) -> io::Result<()> {
        self.0.sync_data().await
    }
}

pub(super) fn run(job: &Job) -> io::Result<Done> {
    let flags = libc::O_DIRECT | if job.case.is_dsync() { libc::O_DSYNC } else { 0 };
    compio::runtime::Runtime::new()?.block_on(async {
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&job.segment.path).await?;
        perform(&Direct(file), job).await
    })
}
