//! W9: what the device writes while lease periods pass: in each, nine tenths of the leases are extended, a tenth of the objects
//! expires, and as many new ones are put.
//!
//! Nothing is forced: what a store does by itself, until it rests and the kernel has written everything out, counts.
//! What it saves by leaving dead bytes where they are shows in the last case, the space it takes.

use super::Stage;
use super::shelf::{VALUE_BYTES, load};
use crate::data::{DAY_S, EPOCH_S};
use crate::device::{self, Traffic};
use crate::fault::Fault;
use crate::report::Case;
use crate::store::{Change, Kind, Store};
use std::path::Path;

/// Lease periods.
const PERIODS: usize = 3;
/// Leases in one request.
const LEASES: usize = 1_000;

fn cases(count: usize) -> [Case; 3] {
    [
        Case::cost("W9", format!("device bytes per value byte, load of {count} objects"), "bytes/byte"),
        Case::cost("W9", "device bytes per new value byte, three lease periods", "bytes/byte"),
        Case::cost("W9", "space taken per live value byte, afterwards", "bytes/byte"),
    ]
}

/// W9.
pub(crate) fn play(stage: &mut Stage) -> Result<(), Fault> {
    let cases = cases(stage.plan.expiring);
    for round in 0..stage.plan.long_rounds {
        for kind in stage.plan.kinds.clone() {
            stage.now(format!("W9 {}, round {}", kind.name(), round + 1))?;
            let dir = stage.scratch.join("periods");
            let measured = one_store(stage, kind, &dir);
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
            if let Some(figures) = stage.excuse(&cases, kind.name(), measured)? {
                for (case, figure) in cases.iter().zip(figures) {
                    stage.book.sample(case, kind.name(), figure);
                }
            }
            stage.step();
        }
    }
    Ok(())
}

/// When the leases of period `period` end: half a day before the next begins.
fn end_s(period: usize) -> u64 {
    EPOCH_S + (period as u64 + 1) * DAY_S - DAY_S / 2
}

fn written(dir: &Path, store: &dyn Store) -> Result<Traffic, Fault> {
    store.settle()?;
    device::sync()?;
    let unknown = || std::io::Error::other("the kernel keeps no account of this device");
    Traffic::of(dir).ok_or_else(|| unknown().into())
}

fn one_store(stage: &Stage, kind: Kind, dir: &Path) -> Result<[f64; 3], Fault> {
    let count = stage.plan.expiring;
    let store = kind.open(dir, &stage.setting((count * VALUE_BYTES * 2) as u64))?;
    let empty = written(dir, &*store)?;
    load(&*store, kind, &stage.objects, 0..count, &|_| end_s(0))?;
    let loaded = written(dir, &*store)?;
    let mut first = 0;
    let mut live: Vec<usize> = (0..count).collect();
    for period in 1..=PERIODS {
        // Every tenth of those that live, another tenth each time, is not extended.
        let (dying, staying): (Vec<usize>, Vec<usize>) = live.iter().partition(|number| **number % 10 == period);
        extend(stage, &*store, &staying, end_s(period))?;
        let gone = store.expire(EPOCH_S + period as u64 * DAY_S)?;
        // A lease extended in the engine also extends whatever shares the key's tag and place in the table, and some objects in
        // a thousand go a period later for it. Everybody else is exact.
        let spared = if kind == Kind::Engine { dying.len() as u64 / 100 } else { 0 };
        if gone.abs_diff(dying.len() as u64) > spared {
            let got = format!("{gone} of {}", dying.len());
            return Err(Fault::Wrong { store: kind.name(), expected: "every expired object gone", got });
        }
        first = if period == 1 { count } else { first };
        load(&*store, kind, &stage.objects, first..first + dying.len(), &|_| end_s(period))?;
        live = staying;
        live.extend(first..first + dying.len());
        first += dying.len();
    }
    let done = written(dir, &*store)?;
    let fresh = ((first - count) * VALUE_BYTES) as f64;
    Ok([
        loaded.since(&empty).written_bytes as f64 / (count * VALUE_BYTES) as f64,
        done.since(&loaded).written_bytes as f64 / fresh,
        device::space(dir) as f64 / (live.len() * VALUE_BYTES) as f64,
    ])
}

fn extend(stage: &Stage, store: &dyn Store, numbers: &[usize], expiry_s: u64) -> Result<(), Fault> {
    for numbers in numbers.chunks(LEASES) {
        crate::stop::check()?;
        let change = |number: &usize| Change::Extend { key: stage.objects.key(*number), expiry_s };
        store.commit(numbers.iter().map(change).collect())?;
    }
    Ok(())
}
