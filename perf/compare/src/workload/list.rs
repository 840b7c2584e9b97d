//! W4: a sixteenth of the ring is listed, key by key with each lease, by one caller, over and over for the time of a case.

use super::Stage;
use crate::fault::Fault;
use crate::report::Case;
use crate::store::{Kind, Store};
use std::hint::black_box;
use std::time::Instant;

/// W4.
pub(crate) fn play(stage: &mut Stage) -> Result<(), Fault> {
    let case = Case::rate("W4", format!("list a sixteenth of {} keys, 1 caller", stage.plan.objects), "keys/s");
    let (mut from, mut to) = ([0; 20], [0xff; 20]);
    (from[0], to[0]) = (0x30, 0x3f);
    let due = (0..stage.plan.objects).filter(|number| stage.objects.key(*number).placement[0] >> 4 == 3).count();
    for round in 0..stage.plan.rounds {
        for kind in stage.shelved() {
            stage.now(format!("W4 {}, round {}", kind.name(), round + 1))?;
            let opened = kind.open(&stage.shelf(kind), &stage.shelf_setting());
            let rate = opened.and_then(|store| walk(stage, kind, &*store, (from, to), due));
            stage.take(&case, kind.name(), rate)?;
            stage.step();
        }
    }
    Ok(())
}

/// Once to warm up and to check, then for the figure.
fn walk(
    stage: &Stage,
    kind: Kind,
    store: &dyn Store,
    (from, to): ([u8; 20], [u8; 20]),
    due: usize,
) -> Result<f64, Fault> {
    store.settle()?;
    let mut seen = 0;
    store.list(from, to, &mut |_, _| seen += 1)?;
    if seen != due {
        let got = format!("{seen} of {due}");
        return Err(Fault::Wrong { store: kind.name(), expected: "every key of the range", got });
    }
    let begin = Instant::now();
    let mut count = 0_usize;
    while begin.elapsed() < stage.plan.case_time {
        crate::stop::check()?;
        store.list(from, to, &mut |key, expiry_s| {
            black_box((key.placement[19], expiry_s));
            count += 1;
        })?;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}
