//! Operations of a recovery: one that is waited for, or a row of them with some on their way ahead of whoever takes what they
//! bring.
//!
//! A device is idle while we look at what it brought, and we are while it reads, unless the next read is under way by
//! then. So a log is read some chunks ahead. What is read comes in order, whatever order the device answers in.
//!
//! Invariant: nothing is in flight when a function here returns, so tokens never meet those of another.

use crate::disk::{Disk, DiskError, FileName, Operation, Outcome, Token};
use crate::limits;
use bytes::Bytes;
use rkyv::util::AlignedVec;
use std::collections::VecDeque;
use std::ops::Range;

/// Performs one operation and waits for it.
pub(super) fn run<D: Disk>(disk: &mut D, operation: Operation) -> Result<Outcome, DiskError> {
    let mut outcome = Ok(Outcome::Done);
    in_order(disk, 1, [operation], |result| {
        outcome = result;
        Ok(())
    })?;
    outcome
}

/// Performs operations, so many at once, and hands over how each ended, in the order they were given in. At the first failure of
/// `take` no further one is begun, and nothing more is handed over.
pub(super) fn in_order<D: Disk, E>(
    disk: &mut D,
    ahead: usize,
    operations: impl IntoIterator<Item = Operation>,
    mut take: impl FnMut(Result<Outcome, DiskError>) -> Result<(), E>,
) -> Result<(), E> {
    let mut operations = operations.into_iter();
    // From the oldest on that was not handed over, which has the number `taken`.
    let mut results: VecDeque<Option<Result<Outcome, DiskError>>> = VecDeque::with_capacity(ahead);
    let (mut taken, mut failed) = (0, Ok(()));
    loop {
        while failed.is_ok() && results.len() < ahead {
            let Some(operation) = operations.next() else { break };
            disk.submit(Token(taken + results.len() as u64), operation);
            results.push_back(None);
        }
        if results.is_empty() {
            return failed;
        }
        // Until no more has ended: only then has the device been told what was just submitted.
        while results.iter().any(Option::is_none)
            && let Some(done) = disk.poll()
        {
            let place = usize::try_from(done.token.0 - taken).ok().and_then(|place| results.get_mut(place));
            let before = place.expect("only what was submitted here ends").replace(done.result);
            assert!(before.is_none(), "an operation ends once");
        }
        let Some(result) = results.front_mut().and_then(Option::take) else {
            disk.wait();
            continue;
        };
        results.pop_front();
        taken += 1;
        if failed.is_ok() {
            failed = take(result);
        }
    }
}

/// The reads that bring these bytes of a file, one chunk each.
pub(super) fn chunks(file: FileName, bytes: Range<u64>) -> impl Iterator<Item = Operation> {
    let chunk = limits::CHUNK as u64;
    let length = bytes.end.saturating_sub(bytes.start);
    (0..length.div_ceil(chunk)).map(move |number| {
        let before = number * chunk;
        let length = chunk.min(length - before) as usize;
        Operation::Read { file, offset: bytes.start + before, length, keep: false }
    })
}

/// What a read has brought.
pub(super) fn bytes_of(outcome: Outcome) -> Bytes {
    match outcome {
        Outcome::Read(bytes) => bytes,
        Outcome::Done | Outcome::Listed(_) => unreachable!("a read brings bytes"),
    }
}

pub(super) fn list<D: Disk>(disk: &mut D) -> Result<Vec<(FileName, u64)>, DiskError> {
    match run(disk, Operation::List)? {
        Outcome::Listed(files) => Ok(files),
        Outcome::Done | Outcome::Read(_) => unreachable!("a list brings a list"),
    }
}

pub(super) fn read<D: Disk>(disk: &mut D, file: FileName, offset: u64, length: usize) -> Result<Bytes, DiskError> {
    run(disk, Operation::Read { file, offset, length, keep: false }).map(bytes_of)
}

/// Reads a file of at most `length` bytes. A device error is an error: to take a sector that cannot be read *now* for the
/// log's end would throw away what was acknowledged.
pub(super) fn read_whole<D: Disk>(disk: &mut D, file: FileName, length: u64) -> Result<AlignedVec, DiskError> {
    let length = length.min(limits::FILE_BYTES_MAX as u64);
    let mut whole = AlignedVec::with_capacity(length as usize);
    let mut offset = 0;
    in_order(disk, limits::CHUNKS_AHEAD, chunks(file, 0..length), |result| {
        // What came short was the file's end.
        if whole.len() == offset {
            whole.extend_from_slice(&bytes_of(result?));
        }
        offset += limits::CHUNK;
        Ok(())
    })?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    //! Goal: what a row of operations brings comes in their order, a failure among them ends it there, and nothing stays in
    //! flight. Method: a simulated disk that answers in any order, over many seeds; files of numbers.
    use super::*;
    use crate::sim_disk::{Faults, SimDisk};

    const FILE: FileName = FileName::Segment(3);

    fn disk(seed: u64, length: usize) -> (SimDisk, Vec<u8>) {
        let content: Vec<u8> = (0..length).map(|at| (at / 4096) as u8 ^ at as u8).collect();
        let mut disk = SimDisk::new(seed, 1 << 30);
        run(&mut disk, Operation::Create { file: FILE }).unwrap();
        let bytes = Bytes::from(content.clone());
        run(&mut disk, Operation::Write { file: FILE, offset: 0, bytes, durable: true }).unwrap();
        (disk, content)
    }

    #[test]
    fn a_file_is_read_in_order() {
        for (seed, length) in (0..).zip([0, 1, limits::CHUNK - 1, limits::CHUNK, 7 * limits::CHUNK + 5]) {
            let (mut disk, content) = disk(seed, length);
            assert!(read_whole(&mut disk, FILE, length as u64).unwrap()[..] == content, "seed {seed}");
            let longer = read_whole(&mut disk, FILE, length as u64 + 3 * limits::CHUNK as u64).unwrap();
            assert!(longer[..] == content, "seed {seed}: it ends where the file ends");
        }
    }

    #[test]
    fn a_failure_ends_the_row_and_leaves_nothing_in_flight() {
        for seed in 0..200 {
            let (mut disk, content) = disk(seed, 64 * 1024);
            disk.set_faults(Faults { read_error: 100, ..Faults::default() });
            let reads =
                (0..16).map(|number| Operation::Read { file: FILE, offset: number * 4096, length: 4096, keep: false });
            let mut taken = Vec::new();
            let ended = in_order(&mut disk, 5, reads, |result| {
                taken.extend_from_slice(&bytes_of(result?));
                Ok::<(), DiskError>(())
            });
            assert!(content.starts_with(&taken), "seed {seed}");
            assert_eq!(ended.is_ok(), taken.len() == content.len(), "seed {seed}");
            disk.set_faults(Faults::default());
            assert_eq!(read(&mut disk, FILE, 5, 10).unwrap(), content[5..15], "seed {seed}: its own answer");
        }
    }
}
