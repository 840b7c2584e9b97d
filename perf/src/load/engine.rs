//! The storage engine beside the raw loop: durable puts, hot gets, durable lease extensions.
//!
//! Each round opens a fresh store with default settings, and measures every case there; the raw loop of the same
//! sizes and batches runs directly after each case. Values are random bytes; keys are random, so that shards fill
//! evenly. A put counts when it is acknowledged as durable.

use super::raw::{self, Way};
use super::{Dice, LoadError, pump};
use crate::report::{Report, Row, Sample, Watch};
use bytes::Bytes;
use engine::{Class, Config, Engine, Key, Request};
use indicatif::ProgressBar;
use std::path::Path;
use std::time::{Duration, Instant};

/// (bytes of a value, operations in flight, operations).
const PUTS: [(usize, usize, usize); 9] = [
    (4 << 10, 1, 4_000),
    (4 << 10, 16, 20_000),
    (4 << 10, 256, 60_000),
    (64 << 10, 1, 1_500),
    (64 << 10, 16, 5_000),
    (64 << 10, 256, 5_000),
    (1 << 20, 1, 200),
    (1 << 20, 16, 400),
    (1 << 20, 256, 400),
];
/// Of these, once more in files that were segments before: all that the fresh store held has expired.
const AGAIN: [(usize, usize, usize); 5] = [PUTS[0], PUTS[1], PUTS[2], PUTS[4], PUTS[7]];
/// (operations in flight, operations) of reads of values that were read before, until they are hot.
const GETS: [(usize, usize); 3] = [(1, 20_000), (16, 100_000), (256, 200_000)];
/// Every value is read so often at most before hot gets are measured: the engine keeps in memory what is read again (decision 0007).
const WARMING_PASSES: usize = 8;
/// Warming ends when less than one in so many reads came from the device.
const WARM_SHARE: u64 = 1_000;
/// (requests in flight, requests) of lease extensions.
const TOUCHES: [(usize, usize); 2] = [(1, 200), (4, 600)];
/// Leases in one request.
const LEASES: usize = 1_000;
/// What a lease extension may cost on disk, for the raw loop beside it.
const LEASE_BYTES: usize = 20;
/// The end of the first leases; the engine has no clock, so any second will do.
const EXPIRY_S: u64 = 4_000_000_000;
/// Longest wait for the space of what has expired.
const FREED_MAX: Duration = Duration::from_secs(20);
/// Bytes that values are slices of.
const POOL_BYTES: usize = 16 << 20;

/// Measures all cases `rounds` times in a scratch folder below `dir`.
pub(crate) fn measure(dir: &Path, rounds: usize) -> Result<Report, LoadError> {
    std::fs::create_dir_all(dir)?;
    let scratch = tempfile::Builder::new().prefix("perf-engine-").tempdir_in(dir)?;
    let cases = 2 * (PUTS.len() + AGAIN.len()) + GETS.len() + TOUCHES.len();
    let progress = ProgressBar::new((rounds * cases) as u64);
    let mut rows = rows();
    let watch = Watch::start();
    for round in 0..rounds {
        let store = scratch.path().join(format!("store{round}"));
        let mut bench = Bench::open(&store, round as u64)?;
        let mut samples = Vec::with_capacity(cases);
        let puts = |bench: &mut Bench, cases: &[(usize, usize, usize)]| {
            let (mut one_by_one, mut overlapped) = (Vec::new(), Vec::new());
            for case in cases {
                let (beside_one, beside_two) = bench.puts(scratch.path(), *case)?;
                one_by_one.push(beside_one);
                overlapped.push(beside_two);
                progress.inc(2);
            }
            one_by_one.extend(overlapped);
            Ok::<_, LoadError>(one_by_one)
        };
        samples.extend(puts(&mut bench, &PUTS)?);
        bench.warm()?;
        for case in GETS {
            samples.push(bench.gets(scratch.path(), case)?);
            progress.inc(1);
        }
        for case in TOUCHES {
            samples.push(bench.touches(scratch.path(), case)?);
            progress.inc(1);
        }
        bench.expire()?;
        samples.extend(puts(&mut bench, &AGAIN)?);
        drop(bench);
        std::fs::remove_dir_all(&store)?;
        for (row, sample) in rows.iter_mut().zip(samples) {
            row.samples.push(sample);
        }
    }
    progress.finish_and_clear();
    let mut report = Report::new("load engine", scratch.path(), &watch);
    report.note(
        "put: random keys and bytes, counted when acknowledged as durable; default settings; fresh store each round",
    );
    report.note(
        "raw: one write and one fdatasync per batch of what is in flight (at most 1 MiB), the faster of appending \
         and overwriting; for gets one pread per value from the page cache; no index, no checksum",
    );
    report.note(
        "get: every value was read before, pass after pass, until less than one in a thousand came from the device \
         (at most eight passes): an object is hot from its third reading on",
    );
    report.note(
        "beside two overlapped: the same puts; raw is a ring of its own with two batches in flight that share what is in \
         flight (at most 1 MiB each), O_DIRECT from registered memory over written ground, the faster of RWF_DSYNC and a \
         linked fdatasync",
    );
    report.note(
        "used files: the same puts once more, after all that the store held has expired and its files are used again",
    );
    report.rows = rows;
    Ok(report)
}

/// One empty row per case, in the order they are measured.
fn rows() -> Vec<Row> {
    let puts = |cases: &[(usize, usize, usize)], ground: &str| {
        let name = |beside: &str, (size, depth): (usize, usize)| {
            Row::new(format!("put {} KiB, {depth} in flight{ground}{beside}", size >> 10), "puts/s")
        };
        let cases = cases.iter().map(|(size, depth, _)| (*size, *depth));
        let beside_one = cases.clone().map(|case| name("", case));
        let beside_two = cases.map(|case| name(", beside two overlapped", case));
        beside_one.chain(beside_two).collect::<Vec<_>>()
    };
    let gets = GETS.iter().map(|(depth, _)| Row::new(format!("get 4 KiB hot, {depth} in flight"), "gets/s"));
    let touches = TOUCHES
        .iter()
        .map(|(depth, _)| Row::new(format!("extend leases, {LEASES} a batch, {depth} batches in flight"), "leases/s"));
    let fresh = puts(&PUTS, "").into_iter();
    fresh.chain(gets).chain(touches).chain(puts(&AGAIN, ", used files")).collect()
}

/// An open store and what has been put into it.
struct Bench {
    engine: Engine,
    dice: Dice,
    pool: Bytes,
    /// Keys of 4 KiB values, for reads and leases.
    small: Vec<Key>,
    expiry_s: u64,
}

impl Bench {
    fn open(store: &Path, round: u64) -> Result<Bench, LoadError> {
        let mut dice = Dice::new(round + 1);
        let mut pool = vec![0; POOL_BYTES];
        dice.fill(&mut pool);
        let engine = Engine::open(Config::new(store))?;
        Ok(Bench { engine, dice, pool: Bytes::from(pool), small: Vec::new(), expiry_s: EXPIRY_S })
    }

    fn key(&mut self) -> Key {
        let mut key = Key { placement: [0; 20], name: [0; 32], kind: 1 };
        self.dice.fill(&mut key.placement);
        self.dice.fill(&mut key.name);
        key
    }

    /// Puts of one size; keys are made and values sliced outside the engine's time only in so far as the loop is ours.
    fn puts(
        &mut self,
        scratch: &Path,
        (size, depth, total): (usize, usize, usize),
    ) -> Result<(Sample, Sample), LoadError> {
        let keys: Vec<Key> = (0..total).map(|_| self.key()).collect();
        let starts: Vec<usize> = (0..total).map(|_| self.dice.roll() as usize % (POOL_BYTES - size)).collect();
        let expiry_s = self.expiry_s;
        let pool = &self.pool;
        let elapsed = pump(&self.engine, depth, total, |turn| Request::Put {
            key: keys[turn],
            version: 0,
            account: 1,
            class: Class::Fresh,
            expiry_s,
            value: pool.slice(starts[turn]..starts[turn] + size),
        })?;
        if size == PUTS[0].0 {
            self.small.extend_from_slice(&keys);
        }
        let append = raw::write(scratch, Way::Append, size, depth, total)?;
        let overwrite = raw::write(scratch, Way::Overwrite, size, depth, total)?;
        let overlapped = raw::overlapped(scratch, size, depth, total)?;
        let beside = |raw| Sample::against(total, elapsed, total, raw);
        Ok((beside(append.min(overwrite)), beside(overlapped)))
    }

    /// Reads every 4 KiB value again and again, until hardly any comes from the device.
    fn warm(&self) -> Result<(), LoadError> {
        for _ in 0..WARMING_PASSES {
            let before = self.engine.stats().gets_cold;
            pump(&self.engine, 256, self.small.len(), |turn| Request::Get { key: self.small[turn] })?;
            let cold = self.engine.stats().gets_cold - before;
            if cold * WARM_SHARE < self.small.len() as u64 {
                break;
            }
        }
        Ok(())
    }

    /// Reads of values that [`Bench::warm`] has made hot.
    fn gets(&mut self, scratch: &Path, (depth, total): (usize, usize)) -> Result<Sample, LoadError> {
        let keys: Vec<Key> = (0..total).map(|_| self.small[self.dice.roll() as usize % self.small.len()]).collect();
        let elapsed = pump(&self.engine, depth, total, |turn| Request::Get { key: keys[turn] })?;
        let raw = raw::read(scratch, PUTS[0].0, total.min(self.small.len()))?;
        Ok(Sample::against(total, elapsed, total.min(self.small.len()), raw))
    }

    /// Extensions of existing leases, further each time: an extension that extends nothing would cost nothing.
    fn touches(&mut self, scratch: &Path, (depth, total): (usize, usize)) -> Result<Sample, LoadError> {
        self.expiry_s += 100 * 24 * 3600;
        let mut batches = Vec::with_capacity(total);
        for turn in 0..total {
            let start = turn * LEASES % (self.small.len() - LEASES);
            let lap = (turn * LEASES / (self.small.len() - LEASES)) as u64;
            let expiry_s = self.expiry_s + lap * 24 * 3600;
            batches.push(self.small[start..start + LEASES].iter().map(|key| (*key, expiry_s)).collect::<Vec<_>>());
        }
        let elapsed =
            pump(&self.engine, depth, total, |turn| Request::TouchMany { leases: std::mem::take(&mut batches[turn]) })?;
        let raw = raw::write(scratch, Way::Overwrite, LEASES * LEASE_BYTES, depth, total)?;
        Ok(Sample::against(total * LEASES, elapsed, total * LEASES, raw))
    }

    /// Lets all expire, and waits until the space is free.
    fn expire(&mut self) -> Result<(), LoadError> {
        self.expiry_s += 1000 * 24 * 3600;
        let now_s = self.expiry_s;
        let mut client = self.engine.client();
        client.call(Request::ConfirmClock { now_s })?;
        client.call(Request::Sweep { now_s })?;
        let start = Instant::now();
        while self.engine.stats().objects > 0 && start.elapsed() < FREED_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = self.engine.stats().objects;
        if left > 0 {
            return Err(LoadError::Unexpected { expected: "an empty store", got: format!("{left} objects") });
        }
        self.small.clear();
        self.expiry_s += 1000 * 24 * 3600;
        Ok(())
    }
}
