//! The shelf: one loaded store of each kind, for the workloads that only read, list, extend or restart.

use super::Stage;
use crate::data::{DAY_S, EPOCH_S, Objects};
use crate::device;
use crate::fault::Fault;
use crate::pump::{Limit, Way, changes};
use crate::report::Case;
use crate::store::{Change, Kind, Setting, Store};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Bytes of a value on the shelf: 4,000 rather than 4,096, because two stores need a second page for what fits one elsewhere.
pub(crate) const VALUE_BYTES: usize = 4_000;
/// Objects in one commit of a load.
const LOAD_BATCH: usize = 250;
/// Files written at once in a load.
const LOAD_THREADS: usize = 64;
/// Operations our own store has in flight in a load.
const LOAD_DEPTH: usize = 256;

/// Lease ends of the objects on the shelf: far away, nothing expires there.
pub(crate) const SHELF_EXPIRY_S: u64 = EPOCH_S + 1_000 * DAY_S;

impl Stage {
    /// Where the shelf of a kind is.
    pub(crate) fn shelf(&self, kind: Kind) -> PathBuf {
        self.scratch.join(format!("shelf-{}", kind.name()))
    }

    /// Kinds whose shelf is loaded.
    pub(crate) fn shelved(&self) -> Vec<Kind> {
        self.shelved.clone()
    }

    /// How a shelf is opened.
    pub(crate) fn shelf_setting(&self) -> Setting {
        self.setting((self.plan.objects * VALUE_BYTES) as u64)
    }
}

/// Loads all shelves.
pub(crate) fn fill(stage: &mut Stage) -> Result<(), Fault> {
    let case = Case::rate("W1", format!("load of {} objects of 4,000 B, in batches", stage.plan.objects), "puts/s");
    for kind in stage.plan.kinds.clone() {
        stage.now(format!("loading {}", kind.name()))?;
        let start = Instant::now();
        let loaded = load_shelf(stage, kind);
        let count = stage.plan.objects as f64;
        let rate = loaded.map(|()| count / start.elapsed().as_secs_f64());
        if rate.is_ok() {
            stage.shelved.push(kind);
        }
        stage.take(&case, kind.name(), rate)?;
        stage.step();
    }
    Ok(())
}

fn load_shelf(stage: &Stage, kind: Kind) -> Result<(), Fault> {
    let store = kind.open(&stage.shelf(kind), &stage.shelf_setting())?;
    load(&*store, kind, &stage.objects, 0..stage.plan.objects, &|_| SHELF_EXPIRY_S)?;
    store.settle()?;
    drop(store);
    device::sync()
}

/// Removes all shelves.
pub(crate) fn clear(stage: &mut Stage) -> Result<(), Fault> {
    for kind in std::mem::take(&mut stage.shelved) {
        std::fs::remove_dir_all(stage.shelf(kind))?;
    }
    Ok(())
}

/// Puts a range of objects durably, the fast way of each kind.
pub(crate) fn load(
    store: &dyn Store,
    kind: Kind,
    objects: &Objects,
    range: Range<usize>,
    expiry_s: &(dyn Fn(usize) -> u64 + Sync),
) -> Result<(), Fault> {
    let put = |number: usize| Change::Put {
        key: objects.key(number),
        expiry_s: expiry_s(number),
        value: objects.value(number, VALUE_BYTES),
    };
    if kind.takes_batches() {
        for start in range.clone().step_by(LOAD_BATCH) {
            crate::stop::check()?;
            store.commit((start..range.end.min(start + LOAD_BATCH)).map(put).collect())?;
        }
        return Ok(());
    }
    let limit = Limit { time: Duration::MAX, operations: range.len() };
    let depth = if kind == Kind::Files { LOAD_THREADS } else { LOAD_DEPTH };
    changes(store, Way::Native, depth, limit, &|number| vec![put(range.start + number)]).map(|_| ())
}
