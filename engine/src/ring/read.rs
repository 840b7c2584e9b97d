//! Reads on the ring.
//!
//! What is not in memory is read with O_DIRECT, only the units of the device it lies in, into memory from a pool
//! (`pool`): it passes by the page cache, and costs the shard's thread nothing but the submission. What is read a
//! second time is likely to be read a third: then, if that range is not written any more, the read goes through the
//! page cache, its pages and no others, and from then on the mapping serves it. The kernel copies what it has read on
//! the shard's thread if that is little, and has a worker do it otherwise. So few of these are under way at once that
//! they do not hold up the others. Blocks that are being written, or may yet be, are only ever read with O_DIRECT, also
//! in a segment whose earlier blocks are served from memory: on no block do a cached read and a direct write meet.
//!
//! Reads asked for in one turn are handed to the kernel together, and those that touch or share units are made one.

use super::fault::PAGE;
use super::pool::{ReadBuffer, ReadPool};
use super::residency::Trust;
use super::{Flight, RingDisk, entry_of};
use crate::disk::{DiskError, FileName, Outcome, Token};
use crate::limits;
use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

/// What reads of all files share.
pub(super) struct Reads {
    pool: Arc<ReadPool>,
    /// Asked for, and not yet handed to the kernel.
    lined_up: Vec<Wanted>,
    /// Parts of reads in flight that go through the page cache to stay there.
    warming: usize,
    pub(super) trust: Trust,
    opened: Instant,
    now_ms: u32,
}

/// A read asked for.
struct Wanted {
    token: Token,
    name: FileName,
    file: Arc<File>,
    offset: u64,
    length: usize,
    way: Way,
    /// What it is aligned to when it is handed to the kernel: a unit of the device, or a page of the cache.
    unit: usize,
}

/// How a read passes the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// By it.
    Direct,
    /// Through it.
    Cached,
    /// Through it, so that it may be found there the next time.
    Warming,
}

/// A read in flight: whole units, of which parts were asked for.
pub(super) struct Reading {
    name: FileName,
    file: Arc<File>,
    offset: u64,
    buffer: ReadBuffer,
    filled: usize,
    parts: Vec<Part>,
    way: Way,
    unit: usize,
}

struct Part {
    token: Token,
    /// Where it begins in the buffer.
    skip: usize,
    length: usize,
}

impl Reads {
    pub(super) fn new() -> Reads {
        let (pool, trust) = (ReadPool::new(), Trust::new());
        Reads { pool, lined_up: Vec::new(), warming: 0, trust, opened: Instant::now(), now_ms: 1 }
    }

    /// Milliseconds since the disk was opened, as of the last [`Reads::tick`]; never 0.
    pub(super) fn now_ms(&self) -> u32 {
        self.now_ms
    }

    pub(super) fn tick(&mut self) {
        // Truncated: it comes round after 49 days, when a page may be asked about once more than needed.
        self.now_ms = (self.opened.elapsed().as_millis() as u32).max(1);
    }
}

impl Wanted {
    /// The units it lies in.
    fn units(&self) -> (u64, u64) {
        let unit = self.unit as u64;
        (self.offset - self.offset % unit, (self.offset + self.length as u64).next_multiple_of(unit))
    }
}

impl Reading {
    /// The entry that reads what is still missing; the buffer stays where it is.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let rest = &mut self.buffer.as_mut_slice()[self.filled..];
        let length = u32::try_from(rest.len()).expect("a read is below 4 GiB");
        let entry = opcode::Read::new(types::Fd(self.file.as_raw_fd()), rest.as_mut_ptr(), length)
            .offset(self.offset + self.filled as u64)
            .build();
        // Copying much out of the page cache is not for the shard's thread.
        if self.way == Way::Warming && length as usize > limits::WARMED_BY_SHARD {
            return entry.flags(squeue::Flags::ASYNC);
        }
        entry
    }
}

impl RingDisk {
    /// Lines up a read.
    pub(super) fn read(
        &mut self,
        token: Token,
        name: FileName,
        offset: u64,
        length: usize,
        keep: bool,
    ) -> Result<(), DiskError> {
        let may_warm = self.reads.warming < limits::WARMING_IN_FLIGHT;
        let handle = self.handle(name, false)?;
        let again = keep && handle.mapping.as_mut().is_some_and(|mapping| mapping.read_again(offset, length));
        let (file, way, unit) = match &handle.direct {
            _ if again && may_warm => (handle.cached.clone(), Way::Warming, PAGE),
            Some(direct) => (direct.clone(), Way::Direct, handle.unit),
            None => (handle.cached.clone(), Way::Cached, PAGE),
        };
        self.reads.warming += usize::from(way == Way::Warming);
        self.reads.lined_up.push(Wanted { token, name, file, offset, length, way, unit });
        Ok(())
    }

    /// Hands what is lined up to the kernel.
    pub(super) fn start_reads(&mut self) {
        if self.reads.lined_up.is_empty() {
            return;
        }
        let mut lined_up = std::mem::take(&mut self.reads.lined_up);
        lined_up.sort_by_key(|wanted| (wanted.name, wanted.way, wanted.offset));
        let mut rest = lined_up.as_slice();
        while let Some(first) = rest.first() {
            let (count, end) = joined(rest);
            self.start_read(first.units().0, end, &rest[..count]);
            rest = &rest[count..];
        }
        lined_up.clear();
        self.reads.lined_up = lined_up;
    }

    fn start_read(&mut self, start: u64, end: u64, wanted: &[Wanted]) {
        let part = |wanted: &Wanted| Part {
            token: wanted.token,
            skip: (wanted.offset - start) as usize,
            length: wanted.length,
        };
        let Wanted { name, file, way, unit, .. } = &wanted[0];
        let reading = Reading {
            name: *name,
            file: file.clone(),
            offset: start,
            buffer: self.reads.pool.lend((end - start) as usize),
            filled: 0,
            parts: wanted.iter().map(part).collect(),
            way: *way,
            unit: *unit,
        };
        self.launch(Flight::Read(reading), entry_of);
    }

    pub(super) fn read_failed(&mut self, reading: Reading, error: DiskError) {
        self.landed(&reading);
        for part in reading.parts {
            self.finish(part.token, Err(error));
        }
    }

    pub(super) fn read_more(&mut self, mut reading: Reading, more: usize) {
        reading.filled += more;
        let needed = reading.parts.iter().map(|part| part.skip + part.length).max().unwrap_or(0);
        // A read ends in the middle of a unit only at the end of the file.
        if more > 0 && reading.filled < needed && reading.filled.is_multiple_of(reading.unit) {
            return self.again(Flight::Read(reading));
        }
        self.landed(&reading);
        if reading.way != Way::Direct
            && let Some(mapping) = self.files.get_mut(&reading.name).and_then(|handle| handle.mapping.as_mut())
        {
            mapping.came_in(reading.offset, reading.filled);
        }
        let Reading { buffer, filled, parts, .. } = reading;
        let room = buffer.len();
        let bytes = Bytes::from_owner(buffer);
        for Part { token, skip, length } in parts {
            let end = filled.min(skip + length);
            let part = if end <= skip { Bytes::new() } else { bytes.slice(skip..end) };
            // A small part would keep the whole buffer from the pool for as long as a slow consumer holds it.
            let part = if part.len() * 4 < room { Bytes::copy_from_slice(&part) } else { part };
            self.finish(token, Ok(Outcome::Read(part)));
        }
    }

    fn landed(&mut self, reading: &Reading) {
        if reading.way == Way::Warming {
            self.reads.warming -= reading.parts.len();
        }
    }
}

/// How many of these reads, which are in order, are one read of neighbouring units, and where that ends.
fn joined(reads: &[Wanted]) -> (usize, u64) {
    let first = &reads[0];
    let (start, mut end) = first.units();
    let mut count = 1;
    for wanted in &reads[1..] {
        let (from, to) = wanted.units();
        let joins = wanted.name == first.name && wanted.way == first.way && from <= end;
        if !joins || end.max(to) - start > limits::CHUNK as u64 {
            break;
        }
        end = end.max(to);
        count += 1;
    }
    (count, end)
}

#[cfg(test)]
mod tests {
    use super::super::Bell;
    use super::*;
    use crate::disk::{Disk, Operation};
    use std::collections::BTreeMap;

    /// Goal: reads of one turn bring each exactly its bytes, joined or not, at the end of the file too. Method: overlapping,
    /// touching, distant and overlong reads of a file of numbers, against the file; the second time round through the cache.
    #[test]
    fn joined_reads_bring_what_each_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileName::Segment(1);
        let content: Vec<u8> = (0..300_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(dir.path().join(file.to_string()), &content).unwrap();
        let mut disk = RingDisk::open(dir.path(), Arc::new(Bell::new().unwrap())).unwrap();
        let wanted =
            [(0, 100), (50, 5_000), (4_096, 4_096), (8_192, 1), (100_000, 70_000), (200_000, 64), (299_000, 9_000)];
        for round in 0..4 {
            // Mapped, so that the disk can tell that the same is read again.
            let resident = disk.resident(file, 100_000, 70_000).is_some();
            let mut expected = BTreeMap::new();
            for (number, (offset, length)) in wanted.into_iter().enumerate() {
                let token = Token(number as u64);
                disk.submit(token, Operation::Read { file, offset, length, keep: true });
                let end = content.len().min(offset as usize + length);
                expected.insert(token, content[offset as usize..end].to_vec());
            }
            disk.start_reads();
            assert!(disk.in_flight() < wanted.len(), "neighbours are one read");
            while !expected.is_empty() {
                let Some(done) = disk.poll() else {
                    disk.wait();
                    continue;
                };
                let Ok(Outcome::Read(bytes)) = done.result else { panic!("{done:?}") };
                assert_eq!(Some(bytes.to_vec()), expected.remove(&done.token), "round {round}: {:?}", done.token);
            }
            assert_eq!(disk.reads.warming, 0);
            assert!(resident || round < 2, "what was read twice is in memory");
        }
        let found = disk.resident(file, 100_000, 70_000).unwrap();
        assert_eq!((&found.checked[..], &found.given[..]), (&content[100_000..170_000], &content[100_000..170_000]));
    }
}
