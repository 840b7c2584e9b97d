//! The ring itself, as the engine has it: one thread, registered buffers, no futures.

use crate::meter::Meter;
use crate::pages::{PAGE, Pages};
use crate::segment::{Appends, arrived, whole};
use crate::work::{Done, Durable, Job, Places, Work};
use io_uring::{IoUring, opcode, squeue::Entry, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Entries of the ring: more than are ever in flight.
const ENTRIES: u32 = 64;

/// The ring, then what it works on.
///
/// * Number n in flight is the only user of buffer n, and the kernel has at most one of each number.
/// * The buffers are registered in order and none is added or taken away, so n is also the index of its registration.
/// * Fields are dropped in this order, after `Drop` has waited: nothing is in flight when the buffers go.
struct Loop {
    ring: IoUring,
    file: File,
    buffers: Vec<Pages>,
    /// Operations the kernel has.
    in_flight: usize,
}

pub(super) fn run(job: &Job) -> io::Result<Done> {
    let (count, length) = job.case.buffers();
    let mut here = Loop::new(job, count, length)?;
    match job.case.work {
        Work::Append { durable, .. } => here.appends(job, durable),
        Work::Read { .. } => here.reads(job),
    }
}

impl Loop {
    fn new(job: &Job, count: usize, length: usize) -> io::Result<Loop> {
        let preferred = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(ENTRIES);
        let ring = match preferred {
            // Older kernels do not know the flags, which only save some interrupts.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(ENTRIES),
            other => other,
        }?;
        let mut here = Loop {
            ring,
            file: job.segment.open(0)?,
            buffers: (0..count).map(|_| Pages::new(length)).collect(),
            in_flight: 0,
        };
        let vector = |pages: &mut Pages| {
            let bytes = pages.bytes_mut();
            libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
        };
        let vectors: Vec<libc::iovec> = here.buffers.iter_mut().map(vector).collect();
        // SAFETY: each vector is all of one of `buffers`. The memory of `Pages` does not move, and is freed only after the ring
        // has let go of it (the struct's third invariant).
        unsafe { here.ring.submitter().register_buffers(&vectors) }?;
        Ok(here)
    }

    /// One write a buffer, all in flight, and a sync if they are not durable by themselves; over and over.
    fn appends(&mut self, job: &Job, durable: Durable) -> io::Result<Done> {
        let (mut appends, mut commits) = (Appends::new(&job.segment, job.number), 0);
        let meter = Meter::start(job);
        while !meter.is_over() {
            for number in 0..self.buffers.len() {
                let at = appends.fill(self.buffers[number].bytes_mut());
                self.write(number, at, durable)?;
            }
            while self.in_flight > 0 {
                let (number, moved) = self.wait()?;
                whole(moved, self.buffers[number].bytes().len())?;
            }
            commits += match durable {
                Durable::BySync => {
                    let sync = opcode::Fsync::new(self.descriptor()).flags(types::FsyncFlags::DATASYNC);
                    self.push(&sync.build())?;
                    self.wait()?;
                    1
                }
                Durable::ByWrite => self.buffers.len() as u64,
            };
        }
        Ok(meter.stop(appends.written(), commits))
    }

    fn reads(&mut self, job: &Job) -> io::Result<Done> {
        let mut places = Places::new(job);
        let mut asked = vec![0; self.buffers.len()];
        let meter = Meter::start(job);
        let mut operations = 0;
        for (number, at) in asked.iter_mut().enumerate() {
            if !meter.is_over() {
                *at = places.next();
                self.read(number, *at)?;
            }
        }
        while self.in_flight > 0 {
            let (number, moved) = self.wait()?;
            arrived(&self.buffers[number].bytes()[..moved], asked[number])?;
            operations += 1;
            if !meter.is_over() {
                asked[number] = places.next();
                self.read(number, asked[number])?;
            }
        }
        Ok(meter.stop(operations, 0))
    }

    fn write(&mut self, number: usize, at: u64, durable: Durable) -> io::Result<()> {
        let flags = if durable == Durable::ByWrite { libc::RWF_DSYNC } else { 0 };
        let bytes = self.buffers[number].bytes();
        let write = opcode::WriteFixed::new(self.descriptor(), bytes.as_ptr(), bytes.len() as u32, number as u16);
        self.push(&write.offset(at).rw_flags(flags).build().user_data(number as u64))
    }

    fn read(&mut self, number: usize, at: u64) -> io::Result<()> {
        let buffer = self.buffers[number].bytes_mut().as_mut_ptr();
        let read = opcode::ReadFixed::new(self.descriptor(), buffer, PAGE as u32, number as u16);
        self.push(&read.offset(at).build().user_data(number as u64))
    }

    fn descriptor(&self) -> types::Fd {
        types::Fd(self.file.as_raw_fd())
    }

    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: the entry's pointer, if it has one, is all of one of `buffers`, whose memory stays where it is and which no
        // other operation in flight uses (the struct's first invariant). The descriptor is that of `file`, which is closed after
        // the ring. `Drop` waits for what is in flight (the third).
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)?;
        self.in_flight += 1;
        Ok(())
    }

    /// The next completion: its number and the bytes it moved.
    fn wait(&mut self) -> io::Result<(usize, usize)> {
        loop {
            if let Some(completion) = self.ring.completion().next() {
                self.in_flight -= 1;
                let moved = completion.result();
                let moved = usize::try_from(moved).map_err(|_| io::Error::from_raw_os_error(-moved))?;
                return Ok((completion.user_data() as usize, moved));
            }
            self.enter()?;
        }
    }

    /// Gives the kernel what is pushed and waits for a completion.
    fn enter(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            // A signal, as Ctrl-C is one: the job ends by its meter.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map(drop),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // After an error some may still be under way.
        while self.in_flight > 0 && self.enter().is_ok() {
            self.in_flight -= self.ring.completion().count();
        }
        // By itself the kernel gives the pages back some time after the ring is closed, and the next ring may need them.
        let _ = self.ring.submitter().unregister_buffers();
        if self.in_flight > 0 {
            // The kernel may still write to the buffers: better lost than freed.
            std::mem::forget(std::mem::take(&mut self.buffers));
        }
    }
}
