//! W2 and W3: gets, with everything in memory and with nothing there.
//!
//! *Hot*: a part of the shelf is read once, then at random; each value's first byte is touched, or it is copied whole,
//! or its hash is checked. The hash is the harness's own, the same for all; what a store checks by itself comes on top.
//! *Cold*: the page cache is emptied, the store opened, and objects of the whole shelf read at random, 32 in flight.

use super::Stage;
use crate::data::{Dice, checksum};
use crate::device::{self, Traffic};
use crate::fault::Fault;
use crate::pump::{Asking, Limit, Look, Wanted, gets};
use crate::raw::{self, Fio};
use crate::report::Case;
use crate::store::{Kind, Setting, Store};
use std::time::Duration;

use super::shelf::VALUE_BYTES;

/// Objects read hot at most: 400 MB, which every machine this is for keeps in memory.
const HOT_OBJECTS: usize = 100_000;
/// Gets that our store has in flight per caller.
const HOT_DEPTH: usize = 64;
/// Cold gets in flight: of our store at one port, of the others on as many threads.
const COLD_DEPTH: usize = 32;
/// The name under which ours appears when it, too, is asked one thing at a time.
const OURS_IN_TURN: &str = "engine, in turn";

const LOOKS: [(Look, &str); 3] = [(Look::First, "first byte"), (Look::Whole, "whole"), (Look::Verified, "verified")];

fn wanted(stage: &Stage, count: usize) -> Vec<Wanted> {
    let object = |number| (stage.objects.key(number), checksum(&stage.objects.value(number, VALUE_BYTES)));
    (0..count).map(object).collect()
}

/// A long list of which to ask for, the same for every store of a round.
fn picks(count: usize, seed: u64) -> Vec<u32> {
    let mut dice = Dice::new(seed);
    (0..1 << 20).map(|_| dice.below(count) as u32).collect()
}

fn hot_cases(callers: usize) -> Vec<(Look, Case)> {
    let who = if callers == 1 { "1 caller".to_owned() } else { format!("{callers} callers") };
    let case = |what| Case::rate("W2", format!("get 4,000 B, {what}, {who}"), "gets/s");
    LOOKS.iter().map(|(look, what)| (*look, case(what))).collect()
}

/// W2.
pub(crate) fn hot(stage: &mut Stage) -> Result<(), Fault> {
    let wanted = wanted(stage, stage.plan.objects.min(HOT_OBJECTS));
    for round in 0..stage.plan.rounds {
        let picks = picks(wanted.len(), round as u64);
        for kind in stage.shelved() {
            stage.now(format!("W2 {}, round {}", kind.name(), round + 1))?;
            let opened = kind.open(&stage.shelf(kind), &stage.shelf_setting());
            let all: Vec<Case> = hot_cases(1).into_iter().map(|(_, case)| case).collect();
            if let Some(store) = stage.excuse(&all, kind.name(), opened)? {
                hot_store(stage, kind, &*store, &wanted, &picks)?;
            }
            stage.step();
        }
    }
    Ok(())
}

fn hot_store(stage: &mut Stage, kind: Kind, store: &dyn Store, wanted: &[Wanted], picks: &[u32]) -> Result<(), Fault> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let in_order: Vec<u32> = (0..wanted.len() as u32).collect();
    let all = Limit { time: Duration::MAX, operations: wanted.len() };
    let warm = Asking { callers: cores, depth: HOT_DEPTH, look: Look::Verified };
    // What opening set in motion (a log turned into tables, compaction) is not what is measured here.
    let warmed = store.settle().and_then(|()| gets(store, kind.name(), warm, all, wanted, &in_order));
    let cases: Vec<Case> = hot_cases(1).into_iter().map(|(_, case)| case).collect();
    if stage.excuse(&cases, kind.name(), warmed)?.is_none() {
        return Ok(());
    }
    let limit = Limit { time: stage.plan.case_time, operations: usize::MAX };
    for callers in [1, cores.max(2)] {
        for (look, case) in hot_cases(callers) {
            let asking = Asking { callers, depth: HOT_DEPTH, look };
            let rate = gets(store, kind.name(), asking, limit, wanted, picks).map(|done| done.rate());
            stage.take(&case, kind.name(), rate)?;
            if kind == Kind::Engine {
                let asking = Asking { depth: 1, ..asking };
                let rate = gets(store, kind.name(), asking, limit, wanted, picks).map(|done| done.rate());
                stage.take(&case, OURS_IN_TURN, rate)?;
            }
        }
    }
    Ok(())
}

fn cold_cases() -> [Case; 4] {
    let name = format!("get 4,000 B, {COLD_DEPTH} in flight");
    [
        Case::rate("W3", name.clone(), "gets/s"),
        Case::cost("W3", "p99 of the same", "ms"),
        Case::cost("W3", "device reads per get", "reads"),
        Case::cost("W3", "bytes read per get", "bytes"),
    ]
}

/// W3.
pub(crate) fn cold(stage: &mut Stage) -> Result<(), Fault> {
    let bytes = stage.plan.objects * VALUE_BYTES;
    stage.notes.push(format!(
        "W3 reads from {} MB of values after emptying the page cache; compare with the machine's memory: what is read \
         once stays there",
        bytes / 1_000_000
    ));
    let wanted = wanted(stage, stage.plan.objects);
    for round in 0..stage.plan.rounds {
        let picks = picks(wanted.len(), 1_000 + round as u64);
        for kind in stage.shelved() {
            stage.now(format!("W3 {}, round {}", kind.name(), round + 1))?;
            let measured = cold_store(stage, kind, &wanted, &picks);
            if let Some(figures) = stage.excuse(&cold_cases(), kind.name(), measured)? {
                for (case, figure) in cold_cases().iter().zip(figures) {
                    stage.book.sample(case, kind.name(), figure);
                }
            }
            stage.step();
        }
        let limit = Limit { time: stage.plan.case_time, operations: usize::MAX };
        match raw::fio(&stage.scratch, Fio::ColdReads(COLD_DEPTH), limit) {
            Ok(None) => stage.book.absent(&cold_cases()[0], "fio 4,096 B", "not installed"),
            Ok(Some(rate)) => stage.book.sample(&cold_cases()[0], "fio 4,096 B", rate),
            Err(fault) => stage.take(&cold_cases()[0], "fio 4,096 B", Err(fault))?,
        }
    }
    Ok(())
}

fn cold_store(stage: &Stage, kind: Kind, wanted: &[Wanted], picks: &[u32]) -> Result<[f64; 4], Fault> {
    let dir = stage.shelf(kind);
    let refused = || std::io::Error::other("the page cache cannot be emptied here: run as root");
    let store = kind.open(&dir, &Setting { cold: true, ..stage.shelf_setting() })?;
    if !device::drop_caches()? {
        return Err(refused().into());
    }
    let limit = Limit { time: stage.plan.case_time, operations: usize::MAX };
    let callers = if kind == Kind::Engine { 1 } else { COLD_DEPTH };
    let asking = Asking { callers, depth: COLD_DEPTH, look: Look::Verified };
    let before = Traffic::of(&dir);
    let mut done = gets(&*store, kind.name(), asking, limit, wanted, picks)?;
    let after = Traffic::of(&dir);
    let (Some(before), Some(after)) = (before, after) else {
        return Err(std::io::Error::other("the kernel keeps no account of this device").into());
    };
    let (traffic, count) = (after.since(&before), done.count as f64);
    let p99 = done.latencies.quantile_ms(0.99).unwrap_or(0.0);
    Ok([done.rate(), p99, traffic.reads as f64 / count, traffic.read_bytes as f64 / count])
}
