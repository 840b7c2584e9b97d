//! W7: a child puts objects into the shelf and is killed in the middle of it (SIGKILL); how soon does the store serve again?
//!
//! The child tells each commit that was acknowledged. The clock starts when the store is opened again, in this process;
//! the first get asks for the last object acknowledged, so a store that lost it is caught. Once with the page
//! cache emptied, once as the kill left it.

use super::Stage;
use super::shelf::{SHELF_EXPIRY_S, VALUE_BYTES};
use crate::data::{Objects, checksum};
use crate::device;
use crate::fault::Fault;
use crate::report::Case;
use crate::store::{Change, Kind, Setting};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Objects in one commit of the child.
const COMMIT: usize = 32;
/// How long the child puts before it is killed.
const LIFE: Duration = Duration::from_millis(1_500);
/// Where the numbers of the child's objects begin; each life has its own range.
const FIRST: usize = 1 << 40;
/// Objects of one life at most.
const LIFE_OBJECTS: usize = 1 << 24;

fn cases(objects: usize, cold: bool) -> [Case; 2] {
    let how = if cold { "page cache emptied" } else { "page cache as it was" };
    [
        Case::cost("W7", format!("first get after kill -9 at {objects} objects, {how}"), "ms"),
        Case::cost("W7", format!("first put acknowledged, {how}"), "ms"),
    ]
}

/// W7.
pub(crate) fn play(stage: &mut Stage) -> Result<(), Fault> {
    let mut life = 0;
    for round in 0..stage.plan.long_rounds {
        for kind in stage.shelved() {
            stage.now(format!("W7 {}, round {}", kind.name(), round + 1))?;
            for cold in [true, false] {
                let cases = cases(stage.plan.objects, cold);
                let first = FIRST + life * LIFE_OBJECTS;
                life += 1;
                let measured = kill(stage, kind, first).and_then(|last| reopen(stage, kind, cold, last));
                if let Some(times) = stage.excuse(&cases, kind.name(), measured)? {
                    for (case, time) in cases.iter().zip(times) {
                        stage.book.sample(case, kind.name(), time.as_secs_f64() * 1e3);
                    }
                }
            }
            stage.step();
        }
    }
    Ok(())
}

/// Starts a child, kills it, and returns the number of the last object it said was durable.
fn kill(stage: &Stage, kind: Kind, first: usize) -> Result<usize, Fault> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", "--store", kind.name(), "--task", "put"]);
    command.arg("--dir").arg(stage.shelf(kind)).arg("--first").arg(first.to_string());
    command.arg("--objects").arg(stage.plan.objects.to_string());
    command.arg("--cache-mib").arg((stage.plan.cache_bytes >> 20).to_string());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let said = child.stdout.take();
    let mut lines = said.into_iter().flat_map(|said| BufReader::new(said).lines());
    let mut last = None;
    let mut begin = None;
    for line in lines.by_ref().map_while(Result::ok) {
        last = line.parse().ok().or(last);
        // Its life counts from the first commit: opening may take long.
        if begin.get_or_insert_with(Instant::now).elapsed() > LIFE {
            break;
        }
    }
    child.kill()?;
    // What it said before it died was durable, too.
    for line in lines.map_while(Result::ok) {
        last = line.parse().ok().or(last);
    }
    child.wait()?;
    last.ok_or_else(|| Fault::Child {
        program: format!("the child with {}", kind.name()),
        said: "nothing was put".to_owned(),
    })
}

/// The times from opening to the first get, and to the first put.
fn reopen(stage: &Stage, kind: Kind, cold: bool, last: usize) -> Result<[Duration; 2], Fault> {
    if cold && !device::drop_caches()? {
        return Err(std::io::Error::other("the page cache cannot be emptied here: run as root").into());
    }
    let objects = &stage.objects;
    let due = checksum(&objects.value(last, VALUE_BYTES));
    let begin = Instant::now();
    let store = kind.open(&stage.shelf(kind), &stage.shelf_setting())?;
    let mut sum = None;
    store.get(&objects.key(last), &mut |value| sum = Some(checksum(value)))?;
    let got = begin.elapsed();
    if sum != Some(due) {
        let got = "nothing, or other bytes".to_owned();
        return Err(Fault::Wrong { store: kind.name(), expected: "the last object it acknowledged", got });
    }
    // A number that no life uses: the upper half of this one's range.
    let number = last + LIFE_OBJECTS / 2;
    let (key, value) = (objects.key(number), objects.value(number, VALUE_BYTES));
    store.commit(vec![Change::Put { key, expiry_s: SHELF_EXPIRY_S, value }])?;
    Ok([got, begin.elapsed()])
}

/// What the child does, until it is killed.
pub(crate) fn put_until_killed(kind: Kind, dir: &Path, first: usize, setting: &Setting) -> Result<(), Fault> {
    let objects = Objects::new(1);
    let store = kind.open(dir, setting)?;
    let mut out = std::io::stdout().lock();
    for start in (first..first + LIFE_OBJECTS / 2).step_by(COMMIT) {
        let put = |number| Change::Put {
            key: objects.key(number),
            expiry_s: SHELF_EXPIRY_S,
            value: objects.value(number, VALUE_BYTES),
        };
        store.commit((start..start + COMMIT).map(put).collect())?;
        writeln!(out, "{}", start + COMMIT - 1)?;
        out.flush()?;
    }
    Ok(())
}
