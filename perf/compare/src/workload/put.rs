//! W1: durable puts of 4,000 B, 4,096 B, 64 KiB and 1 MiB, with 1, 16 and 256 in flight.
//!
//! Each round makes a fresh store per contender and plays all cases on it, so later cases meet a store with data in it. A put
//! counts when it is acknowledged as durable. After each case the store comes to rest; a second figure counts that time
//! too, for the whole of the round.

use super::{Plan, Stage};
use crate::data::{DAY_S, EPOCH_S};
use crate::device::Traffic;
use crate::fault::Fault;
use crate::pump::{Done, Limit, Way, changes};
use crate::raw::{self, Fio, Lanes};
use crate::report::Case;
use crate::store::{Change, Kind, Store};
use std::path::Path;
use std::time::Instant;

const SIZES: [usize; 4] = [4_000, 4_096, 64 << 10, 1 << 20];
const DEPTHS: [usize; 3] = [1, 16, 256];
/// Bytes that one case writes at most.
const CASE_BYTES: usize = 1 << 30;
/// Bytes that all cases of a round write at most.
const ROUND_BYTES: u64 = (SIZES.len() * DEPTHS.len() * CASE_BYTES) as u64;
/// Cases of a round whose write amplification is told: small values, few and many in flight.
const COUNTED: [(usize, usize); 3] = [(4_000, 1), (4_000, 256), (1 << 20, 16)];

/// Who takes part: every store as it comes, and those that commit alone behind the batcher too.
fn contenders(plan: &Plan) -> Vec<(Kind, Way)> {
    let native = plan.kinds.iter().map(|kind| (*kind, Way::Native));
    let batched = plan.kinds.iter().filter(|kind| kind.takes_batches()).map(|kind| (*kind, Way::Batched));
    native.chain(batched).collect()
}

/// Steps of the progress bar.
pub(crate) fn steps(plan: &Plan) -> usize {
    (contenders(plan).len() + 1) * plan.rounds
}

fn name((kind, way): (Kind, Way)) -> String {
    match way {
        Way::Native => kind.name().to_owned(),
        Way::Batched => format!("{} + batcher", kind.name()),
    }
}

fn size_name(size: usize) -> String {
    match size {
        4_000 => "4,000 B".to_owned(),
        4_096 => "4,096 B".to_owned(),
        _ if size >= 1 << 20 => format!("{} MiB", size >> 20),
        _ => format!("{} KiB", size >> 10),
    }
}

fn cases() -> Vec<(usize, usize, Case)> {
    let mut cases = Vec::new();
    for size in SIZES {
        for depth in DEPTHS {
            let name = format!("put {}, {depth} in flight", size_name(size));
            cases.push((size, depth, Case::rate("W1", name, "puts/s")));
        }
    }
    cases
}

fn tail_case() -> Case {
    Case::cost("W1", "p99.9 of put 4,000 B, 256 in flight", "ms")
}

fn rest_case() -> Case {
    Case::rate("W1", "the whole round, with the time until it rests", "MB/s")
}

fn device_case(size: usize, depth: usize) -> Case {
    let name = format!("device bytes per value byte, put {}, {depth} in flight", size_name(size));
    Case::cost("W1", name, "bytes/byte")
}

/// All rounds.
pub(crate) fn play(stage: &mut Stage) -> Result<(), Fault> {
    for round in 0..stage.plan.rounds {
        for contender in contenders(&stage.plan) {
            stage.now(format!("W1 {}, round {}", name(contender), round + 1))?;
            let dir = stage.scratch.join("put");
            let played = one_store(stage, contender, round, &dir);
            // What a failed store left behind must not be met by the next one.
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
            stage.excuse(&[rest_case()], &name(contender), played)?;
            stage.step();
        }
        stage.now(format!("W1 the device itself, round {}", round + 1))?;
        device_itself(stage)?;
        stage.step();
    }
    Ok(())
}

fn limit(stage: &Stage, size: usize) -> Limit {
    Limit { time: stage.plan.put_time, operations: CASE_BYTES / size }
}

fn one_store(stage: &mut Stage, contender: (Kind, Way), round: usize, dir: &Path) -> Result<(), Fault> {
    let (kind, way) = contender;
    let store = kind.open(dir, &stage.setting(ROUND_BYTES))?;
    let (mut bytes, mut seconds) = (0.0, 0.0);
    for (turn, (size, depth, case)) in cases().into_iter().enumerate() {
        let base = (round * 100 + turn) << 32;
        let limit = limit(stage, size);
        let before = Traffic::of(dir);
        let start = Instant::now();
        let done = puts(stage, &*store, way, (size, depth), limit, base).and_then(|done| {
            store.settle()?;
            Ok(done)
        });
        seconds += start.elapsed().as_secs_f64();
        let Some(mut done) = stage.excuse(std::slice::from_ref(&case), &name(contender), done)? else { continue };
        bytes += (done.count * size) as f64;
        stage.book.sample(&case, &name(contender), done.rate());
        if (size, depth) == (4_000, 256)
            && let Some(tail) = done.latencies.quantile_ms(0.999)
        {
            stage.book.sample(&tail_case(), &name(contender), tail);
        }
        if COUNTED.contains(&(size, depth)) {
            amplification(stage, contender, (size, depth), dir, before, done.count)?;
        }
    }
    stage.book.sample(&rest_case(), &name(contender), bytes / seconds / 1e6);
    Ok(())
}

fn amplification(
    stage: &mut Stage,
    contender: (Kind, Way),
    (size, depth): (usize, usize),
    dir: &Path,
    before: Option<Traffic>,
    count: usize,
) -> Result<(), Fault> {
    crate::device::sync()?;
    let case = device_case(size, depth);
    if let (Some(before), Some(after)) = (before, Traffic::of(dir)) {
        let written = after.since(&before).written_bytes as f64;
        stage.book.sample(&case, &name(contender), written / (count * size) as f64);
    } else {
        stage.book.absent(&case, &name(contender), "the kernel keeps no account of this device");
    }
    Ok(())
}

fn puts(
    stage: &Stage,
    store: &dyn Store,
    way: Way,
    (size, depth): (usize, usize),
    limit: Limit,
    base: usize,
) -> Result<Done, Fault> {
    let objects = &stage.objects;
    changes(store, way, depth, limit, &|number| {
        let number = base + number;
        vec![Change::Put { key: objects.key(number), expiry_s: EPOCH_S + DAY_S, value: objects.value(number, size) }]
    })
}

fn device_itself(stage: &mut Stage) -> Result<(), Fault> {
    let dir = stage.scratch.clone();
    let lanes = Lanes::make(&dir)?;
    for (size, depth, case) in cases() {
        let limit = limit(stage, size);
        let append = raw::append(&dir, size, depth, limit).map(|done| done.rate());
        stage.take(&case, "raw append", append)?;
        let overlapped = lanes.overlapped(size, depth, limit).map(|done| done.rate());
        stage.take(&case, "raw overlapped", overlapped)?;
        if depth == 1 {
            match raw::fio(&dir, Fio::DurableWrites(size), limit) {
                Ok(None) => stage.book.absent(&case, "fio", "not installed"),
                Ok(Some(rate)) => stage.book.sample(&case, "fio", rate),
                Err(fault) => stage.take(&case, "fio", Err(fault))?,
            }
        }
    }
    Ok(())
}
