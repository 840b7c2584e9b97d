//! The work: what a shard of the engine asks of its disk, the same for all.
//!
//! A runtime shows how it opens a file for direct I/O and how it reads, writes and syncs ([`AsyncFile`]); the loops over that
//! are one source for the four of them, with no more than futures in one task on one thread. The raw ring has loops of its
//! own (`contender/raw.rs`), because that is the point of it; they ask for the same things in the same order.

use crate::meter::Meter;
use crate::pages::PAGE;
use crate::segment::{Appends, Segment};
use futures_util::future::try_join_all;
use serde::Serialize;
use std::cell::RefCell;
use std::io;
use std::time::Duration;

/// How records become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Durable {
    /// The writes, and when all of them are back, one fdatasync.
    BySync,
    /// Each write by itself.
    ByWrite,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Writes of so many records, so many in flight.
    Append { records: usize, in_flight: usize, durable: Durable },
    /// Reads of random pages, so many in flight.
    Read { in_flight: usize },
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    /// For people.
    pub(crate) name: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// What is done.
    pub(crate) work: Work,
}

const fn append(name: &'static str, records: usize, in_flight: usize, durable: Durable) -> Case {
    Case { name, unit: "records/s", work: Work::Append { records, in_flight, durable } }
}

/// Commits of one record, of a full group, of many large writes; reads one by one and many at once.
pub(crate) const CASES: [Case; 8] = [
    append("1 record a write, then fdatasync", 1, 1, Durable::BySync),
    append("1 record a write, DSYNC", 1, 1, Durable::ByWrite),
    append("64 records a write, then fdatasync", 64, 1, Durable::BySync),
    append("64 records a write, DSYNC", 64, 1, Durable::ByWrite),
    append("64 records a write, 16 in flight, then fdatasync", 64, 16, Durable::BySync),
    append("64 records a write, 16 in flight, DSYNC", 64, 16, Durable::ByWrite),
    Case { name: "random reads of 4 KiB, 1 in flight", unit: "reads/s", work: Work::Read { in_flight: 1 } },
    Case { name: "random reads of 4 KiB, 32 in flight", unit: "reads/s", work: Work::Read { in_flight: 32 } },
];

impl Case {
    /// Whether it leaves something on the disk.
    pub(crate) fn is_append(&self) -> bool {
        matches!(self.work, Work::Append { .. })
    }

    /// Whether writes are durable by themselves.
    pub(crate) fn is_dsync(&self) -> bool {
        matches!(self.work, Work::Append { durable: Durable::ByWrite, .. })
    }

    /// Buffers, and bytes of each: one for each operation in flight.
    pub(crate) fn buffers(&self) -> (usize, usize) {
        match self.work {
            Work::Append { records, in_flight, .. } => (in_flight, records * PAGE),
            Work::Read { in_flight } => (in_flight, PAGE),
        }
    }
}

/// One measurement to make.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Of what.
    pub(crate) case: Case,
    /// On which file.
    pub(crate) segment: Segment,
    /// For how long.
    pub(crate) time: Duration,
    /// Which one it is: on every record it writes.
    pub(crate) number: u64,
    /// Where its random places begin.
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// Records made durable, or pages read.
    pub(crate) operations: u64,
    /// Syncs, or writes that are durable by themselves.
    pub(crate) commits: u64,
    /// Wall time.
    pub(crate) elapsed: Duration,
    /// Processor time of the whole process meanwhile.
    pub(crate) processor: Duration,
    /// Flushes of the device meanwhile, where the kernel tells.
    pub(crate) flushes: Option<u64>,
}

/// Random pages, in the order in which they are asked for the same for all contenders of a round (SplitMix64).
pub(crate) struct Places {
    slots: u64,
    state: u64,
}

impl Places {
    /// From the beginning.
    pub(crate) fn new(job: &Job) -> Places {
        Places { slots: job.segment.slots, state: job.seed }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % self.slots * PAGE as u64
    }
}

/// A file for direct I/O as one runtime has it. Buffers go in and come back.
#[allow(async_fn_in_trait, reason = "all of it stays on one thread")]
pub(crate) trait AsyncFile {
    /// Memory that the kernel reads from and writes to.
    type Buffer;

    /// A buffer of the size that the case needs; asked for as often as the case says, before the clock runs.
    fn buffer(&self, length: usize) -> io::Result<Self::Buffer>;
    /// What is in a buffer.
    fn bytes_of(buffer: &mut Self::Buffer) -> &mut [u8];
    /// Writes all of the buffer.
    async fn write(&self, buffer: Self::Buffer, at: u64) -> io::Result<Self::Buffer>;
    /// Reads the page at this place, and looks whether it is that one ([`crate::segment::arrived`]).
    async fn read(&self, buffer: Self::Buffer, at: u64) -> io::Result<Self::Buffer>;
    /// Makes durable what was written.
    async fn sync(&self) -> io::Result<()>;
}

/// Does the job over a file.
pub(crate) async fn perform<F: AsyncFile>(file: &F, job: &Job) -> io::Result<Done> {
    let (count, length) = job.case.buffers();
    let buffers = (0..count).map(|_| file.buffer(length)).collect::<io::Result<Vec<F::Buffer>>>()?;
    match job.case.work {
        Work::Append { durable, .. } => appends(file, job, durable, buffers).await,
        Work::Read { .. } => reads(file, job, buffers).await,
    }
}

async fn appends<F: AsyncFile>(file: &F, job: &Job, durable: Durable, mut buffers: Vec<F::Buffer>) -> io::Result<Done> {
    let (mut appends, mut commits) = (Appends::new(&job.segment, job.number), 0);
    let meter = Meter::start(job);
    while !meter.is_over() {
        let writes = buffers.drain(..).map(|mut buffer| {
            let at = appends.fill(F::bytes_of(&mut buffer));
            file.write(buffer, at)
        });
        buffers = try_join_all(writes).await?;
        commits += match durable {
            Durable::BySync => {
                file.sync().await?;
                1
            }
            Durable::ByWrite => buffers.len() as u64,
        };
    }
    Ok(meter.stop(appends.written(), commits))
}

async fn reads<F: AsyncFile>(file: &F, job: &Job, buffers: Vec<F::Buffer>) -> io::Result<Done> {
    let places = RefCell::new(Places::new(job));
    let meter = Meter::start(job);
    let (places, meter) = (&places, &meter);
    let one = |mut buffer: F::Buffer| async move {
        let mut count = 0;
        while !meter.is_over() {
            let at = places.borrow_mut().next();
            buffer = file.read(buffer, at).await?;
            count += 1;
        }
        io::Result::Ok(count)
    };
    let counts: Vec<u64> = try_join_all(buffers.into_iter().map(one)).await?;
    Ok(meter.stop(counts.iter().sum(), 0))
}
