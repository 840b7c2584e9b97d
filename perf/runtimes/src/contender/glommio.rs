//! glommio. Its direct files have buffers of their own, registered with its rings: a write takes one and keeps it, a read
//! brings one. They have no way to say `RWF_DSYNC`, so for durable writes the file is opened with `O_DSYNC`.

use crate::segment::{arrived, whole};
use crate::work::{AsyncFile, Done, Job, perform};
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use glommio::{LocalExecutorBuilder, Placement};
use std::io;

struct Direct(DmaFile);

impl AsyncFile for Direct {
    type Buffer = DmaBuffer;

    fn buffer(&self, length: usize) -> io::Result<DmaBuffer> {
        Ok(self.0.alloc_dma_buffer(length))
    }

    fn bytes_of(buffer: &mut DmaBuffer) -> &mut [u8] {
        buffer.as_bytes_mut()
    }

    async fn write(&self, buffer: DmaBuffer, at: u64) -> io::Result<DmaBuffer> {
        let wanted = buffer.len();
        whole(self.0.write_at(buffer, at).await?, wanted)?;
        Ok(self.0.alloc_dma_buffer(wanted))
    }

    /// The buffer only says how much.
    async fn read(&self, buffer: DmaBuffer, at: u64) -> io::Result<DmaBuffer> {
        let page = self.0.read_at_aligned(at, buffer.len()).await?;
        arrived(&page, at)?;
        Ok(buffer)
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(self.0.fdatasync().await?)
    }
}

pub(super) fn run(job: &Job) -> io::Result<Done> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make()?;
    executor.run(async {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if job.case.is_dsync() {
            options.custom_flags(libc::O_DSYNC);
        }
        let file = Direct(options.dma_open(&job.segment.path).await?);
        let done = perform(&file, job).await;
        file.0.close().await?;
        done
    })
}
