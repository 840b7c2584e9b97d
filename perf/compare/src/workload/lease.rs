//! W5: durable lease extensions, one at a time and a thousand in a request, and what a lease costs on the device.
//!
//! All keys of the shelf have their turn in an order without pattern, then all again, each time an hour further: an
//! extension that extends nothing would cost nothing.

use super::Stage;
use super::shelf::SHELF_EXPIRY_S;
use crate::device::{self, Traffic};
use crate::fault::Fault;
use crate::pump::{Done, Limit, Way, changes};
use crate::report::Case;
use crate::store::{Change, Kind, Store};
use engine::Key;
use std::path::Path;

/// (leases in a request, requests in flight).
const SHAPES: [(usize, usize); 3] = [(1, 1), (1_000, 1), (1_000, 4)];

/// How often a case may come round to the same key: bounds how far leases get in a run, to some ten months.
const LAPS_MAX: usize = 500;
/// Seconds between two extensions of a lease: the engine's usual tick, the least that is an extension.
const HOUR_S: u64 = 3_600;

fn case((leases, depth): (usize, usize)) -> Case {
    let what = if leases == 1 { "1 lease".to_owned() } else { format!("{leases} leases") };
    Case::rate("W5", format!("extend {what} a request, {depth} in flight"), "leases/s")
}

fn bytes_case((leases, depth): (usize, usize)) -> Case {
    let name = format!("device bytes per lease, {leases} a request, {depth} in flight");
    Case::cost("W5", name, "bytes")
}

/// W5.
pub(crate) fn play(stage: &mut Stage) -> Result<(), Fault> {
    let keys: Vec<Key> = (0..stage.plan.objects).map(|number| stage.objects.key(number)).collect();
    for round in 0..stage.plan.rounds {
        for kind in stage.shelved() {
            stage.now(format!("W5 {}, round {}", kind.name(), round + 1))?;
            let dir = stage.shelf(kind);
            let opened = kind.open(&dir, &stage.shelf_setting());
            if let Some(store) = stage.excuse(&SHAPES.map(case), kind.name(), opened)? {
                for (turn, shape) in SHAPES.into_iter().enumerate() {
                    let base = round * SHAPES.len() + turn;
                    let measured = extend(stage, &*store, &dir, &keys, shape, base);
                    let both = [case(shape), bytes_case(shape)];
                    if let Some((done, written)) = stage.excuse(&both, kind.name(), measured)? {
                        note(stage, kind, shape, &done, written);
                    }
                }
            }
            stage.step();
        }
    }
    Ok(())
}

fn note(stage: &mut Stage, kind: Kind, shape: (usize, usize), done: &Done, written: Option<u64>) {
    let leases = (done.count * shape.0) as f64;
    stage.book.sample(&case(shape), kind.name(), leases / done.elapsed.as_secs_f64());
    match written {
        Some(written) => stage.book.sample(&bytes_case(shape), kind.name(), written as f64 / leases),
        None => stage.book.absent(&bytes_case(shape), kind.name(), "the kernel keeps no account of this device"),
    }
}

fn extend(
    stage: &Stage,
    store: &dyn Store,
    dir: &Path,
    keys: &[Key],
    (leases, depth): (usize, usize),
    base: usize,
) -> Result<(Done, Option<u64>), Fault> {
    let limit = Limit { time: stage.plan.case_time, operations: LAPS_MAX * keys.len() / leases };
    let stride = stride(keys.len());
    store.settle()?;
    device::sync()?;
    let before = Traffic::of(dir);
    let done = changes(store, Way::Native, depth, limit, &|number| {
        let extend = |place: usize| {
            let lap = (base * LAPS_MAX + place / keys.len()) as u64;
            let key = keys[(place % keys.len()) * stride % keys.len()];
            Change::Extend { key, expiry_s: SHELF_EXPIRY_S + (lap + 1) * HOUR_S }
        };
        (number * leases..(number + 1) * leases).map(extend).collect()
    })?;
    store.settle()?;
    device::sync()?;
    let written = before.zip(Traffic::of(dir)).map(|(before, after)| after.since(&before).written_bytes);
    Ok((done, written))
}

/// A step through `count` places that visits all of them in an order unlike that in which they were put.
fn stride(count: usize) -> usize {
    fn common(left: usize, right: usize) -> usize {
        if right == 0 { left } else { common(right, left % right) }
    }
    let golden = (count as f64 * 0.618_034) as usize;
    (golden.max(1)..).find(|step| common(*step, count) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    //! Goal: every key has its turn. Method: a lap of some lengths, counted.

    use super::stride;
    use std::collections::BTreeSet;

    #[test]
    fn a_lap_visits_every_place() {
        for count in [1, 2, 10, 999, 1_000, 4_096] {
            let step = stride(count);
            let places: BTreeSet<usize> = (0..count).map(|place| place * step % count).collect();
            assert_eq!(places.len(), count);
        }
    }
}
