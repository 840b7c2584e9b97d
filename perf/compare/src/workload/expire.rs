//! W6 and W10: a tenth of the objects expires; how long until they are gone and their space is back, and what do others feel?
//!
//! Twice on the same store: first the oldest tenth, which was put together and goes together; then a random tenth, spread
//! over everything. All the while a foreground puts and gets at fixed times, a few hundred a second, and its latency counts
//! from when an operation was due, not from when it could start. Before that the same foreground runs on the quiet store, as
//! long.

use super::Stage;
use super::shelf::{VALUE_BYTES, load};
use crate::batcher::{Batcher, with_batcher};
use crate::data::{DAY_S, Dice, EPOCH_S};
use crate::device;
use crate::fault::Fault;
use crate::latency::Latencies;
use crate::report::Case;
use crate::store::{Change, Kind, Reclaimed, Store};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two puts of the foreground.
const PUT_EVERY: Duration = Duration::from_micros(4_000);
/// Between two gets of the foreground.
const GET_EVERY: Duration = Duration::from_micros(1_500);
/// Between two looks at the space taken, and between two sweeps.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Share of the expired bytes that must be back.
const BACK_SHARE: f64 = 0.9;
/// Where the numbers of the foreground's objects begin.
const FOREGROUND_FIRST: usize = 1 << 44;
/// Everything that does not expire ends then.
const FAR_S: u64 = EPOCH_S + 1_000 * DAY_S;

/// The two tenths, with the day after which they have expired.
const TENTHS: [(&str, u64); 2] = [("the oldest tenth", 2), ("a random tenth", 4)];

/// The end of an object's lease.
fn expiry_s(number: usize, count: usize) -> u64 {
    match number {
        _ if number < count / 10 => EPOCH_S + DAY_S,
        _ if number.is_multiple_of(9) => EPOCH_S + 3 * DAY_S,
        _ => FAR_S,
    }
}

fn gone_case(tenth: &str, count: usize) -> Case {
    Case::cost("W6", format!("{tenth} of {count} objects removed, durably"), "s")
}

fn space_case(tenth: &str, count: usize) -> Case {
    Case::cost("W6", format!("{tenth} of {count} objects: 90 % of its space back"), "s")
}

fn tail_cases(when: &str) -> [Case; 2] {
    [
        Case::cost("W10", format!("p99.9 of puts, {when}"), "ms"),
        Case::cost("W10", format!("p99.9 of gets, {when}"), "ms"),
    ]
}

fn all_cases(count: usize) -> Vec<Case> {
    let mut cases = tail_cases("quiet").to_vec();
    for (tenth, _) in TENTHS {
        cases.extend([gone_case(tenth, count), space_case(tenth, count)]);
        cases.extend(tail_cases(&format!("while {tenth} goes")));
    }
    cases
}

/// W6 and W10.
pub(crate) fn play(stage: &mut Stage) -> Result<(), Fault> {
    stage.notes.push(format!(
        "W6, W10: foreground of {:.0} puts/s and {:.0} gets/s of 4,000 B; space is what the files take, looked at every {} ms, \
         for {} s at most",
        1.0 / PUT_EVERY.as_secs_f64(),
        1.0 / GET_EVERY.as_secs_f64(),
        LOOK_EVERY.as_millis(),
        stage.plan.patience.as_secs()
    ));
    for round in 0..stage.plan.long_rounds {
        for kind in stage.plan.kinds.clone() {
            stage.now(format!("W6, W10 {}, round {}", kind.name(), round + 1))?;
            let dir = stage.scratch.join("expire");
            let played = one_store(stage, kind, &dir);
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
            let cases = all_cases(stage.plan.expiring);
            stage.excuse(&cases, kind.name(), played)?;
            stage.step();
        }
    }
    Ok(())
}

fn one_store(stage: &mut Stage, kind: Kind, dir: &Path) -> Result<(), Fault> {
    let count = stage.plan.expiring;
    let store = kind.open(dir, &stage.setting((count * VALUE_BYTES * 2) as u64))?;
    load(&*store, kind, &stage.objects, 0..count, &|number| expiry_s(number, count))?;
    store.settle()?;
    device::sync()?;
    let next = AtomicUsize::new(FOREGROUND_FIRST);
    let patience = stage.plan.patience;
    let quiet = beside(stage, kind, &*store, &next, || {
        thread::sleep(patience);
        Ok(())
    })?;
    tails(stage, kind, "quiet", quiet.1);
    for (tenth, day) in TENTHS {
        let before = device::space(dir);
        let first = next.load(Ordering::Relaxed);
        let added = || (next.load(Ordering::Relaxed) - first) * VALUE_BYTES;
        let expired_bytes = (count / 10 * VALUE_BYTES) as f64;
        let is_back =
            || (device::space(dir) as f64) < before as f64 + added() as f64 * 1.1 - expired_bytes * BACK_SHARE;
        let begin = Instant::now();
        let (went, tail) = beside(stage, kind, &*store, &next, || {
            let went = let_go(kind, &*store, EPOCH_S + day * DAY_S, patience, &is_back);
            thread::sleep(patience.saturating_sub(begin.elapsed()));
            went
        })?;
        stage.book.sample(&gone_case(tenth, count), kind.name(), went.gone.as_secs_f64());
        match went.back {
            Ok(time) => stage.book.sample(&space_case(tenth, count), kind.name(), time.as_secs_f64()),
            Err(reason) => stage.book.absent(&space_case(tenth, count), kind.name(), reason),
        }
        tails(stage, kind, &format!("while {tenth} goes"), tail);
    }
    Ok(())
}

fn tails(stage: &mut Stage, kind: Kind, when: &str, (mut puts, mut gets): (Latencies, Latencies)) {
    for (case, latencies) in tail_cases(when).iter().zip([&mut puts, &mut gets]) {
        if let Some(tail) = latencies.quantile_ms(0.999) {
            stage.book.sample(case, kind.name(), tail);
        }
    }
}

/// How the expired went.
struct Went {
    /// Time until all were removed durably.
    gone: Duration,
    /// Time until their space was back, or why it did not come back.
    back: Result<Duration, String>,
}

fn let_go(
    kind: Kind,
    store: &dyn Store,
    now_s: u64,
    patience: Duration,
    is_back: &dyn Fn() -> bool,
) -> Result<Went, Fault> {
    let begin = Instant::now();
    store.expire(now_s)?;
    let gone = begin.elapsed();
    if let Reclaimed::Cannot(reason) = store.reclaim()? {
        return Ok(Went { gone, back: Err(reason.to_owned()) });
    }
    while !is_back() {
        crate::stop::check()?;
        if begin.elapsed() > patience {
            return Ok(Went { gone, back: Err(format!("not within {} s", patience.as_secs())) });
        }
        thread::sleep(LOOK_EVERY);
        if kind == Kind::Engine {
            // Its owner sweeps regularly; a sweep with nothing to expire goes on cleaning.
            store.expire(now_s)?;
        }
    }
    Ok(Went { gone, back: Ok(begin.elapsed()) })
}

/// Runs the foreground while `act` does; returns what it returns and the latencies of puts and gets.
fn beside<T>(
    stage: &Stage,
    kind: Kind,
    store: &dyn Store,
    next: &AtomicUsize,
    act: impl FnOnce() -> Result<T, Fault>,
) -> Result<(T, (Latencies, Latencies)), Fault> {
    if !kind.takes_batches() {
        return with_foreground(stage, store, &|changes| store.commit(changes), next, act);
    }
    with_batcher(store, |batcher: &Batcher| {
        let door = std::sync::Mutex::new(batcher.door());
        let commit = |changes: Vec<Change>| {
            let door = door.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            door.submit(0, changes)?;
            door.wait()?.1
        };
        with_foreground(stage, store, &commit, next, act)
    })
}

type Commit<'a> = dyn Fn(Vec<Change>) -> Result<(), Fault> + Sync + 'a;

fn with_foreground<T>(
    stage: &Stage,
    store: &dyn Store,
    commit: &Commit<'_>,
    next: &AtomicUsize,
    act: impl FnOnce() -> Result<T, Fault>,
) -> Result<(T, (Latencies, Latencies)), Fault> {
    let (objects, count) = (&stage.objects, stage.plan.expiring);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let putter = scope.spawn(|| {
            on_time(PUT_EVERY, &over, || {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let (key, value) = (objects.key(number), objects.value(number, VALUE_BYTES));
                commit(vec![Change::Put { key, expiry_s: FAR_S, value }])
            })
        });
        let getter = scope.spawn(|| {
            let mut dice = Dice::new(10);
            on_time(GET_EVERY, &over, || {
                // One behind a multiple of nine, and not of the oldest: those never expire, so each get finds something.
                let number = (count / 10 + dice.below(count * 9 / 10 - 10)).next_multiple_of(9) + 1;
                store.get(&objects.key(number), &mut |_| ()).map(|_| ())
            })
        });
        let acted = act();
        over.store(true, Ordering::Relaxed);
        let ended = |_| Fault::Io(std::io::Error::other("a foreground thread panicked"));
        let puts = putter.join().map_err(ended)?;
        let gets = getter.join().map_err(ended)?;
        Ok((acted?, (puts?, gets?)))
    })
}

/// Does something at fixed times until it is over; each latency counts from when the thing was due.
fn on_time(every: Duration, over: &AtomicBool, mut act: impl FnMut() -> Result<(), Fault>) -> Result<Latencies, Fault> {
    let mut latencies = Latencies::default();
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        act()?;
        latencies.note(due.elapsed());
        due += every;
    }
    // What was due and never began had waited at least until now.
    while due < Instant::now() {
        latencies.note(due.elapsed());
        due += every;
    }
    Ok(latencies)
}
