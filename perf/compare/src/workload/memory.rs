//! W8: memory per object: a child process opens the shelf, reads a third of the objects, and says what it holds.
//!
//! Anonymous memory is the store's own (index, caches, buffers); mapped is what it has mapped of its files and the kernel
//! could take back. Both less what the process had before it opened the store, and each store with the same cache.

use super::shelf::VALUE_BYTES;
use super::{Plan, Stage};
use crate::data::{Dice, Objects};
use crate::device::memory;
use crate::fault::Fault;
use crate::report::Case;
use crate::store::{Kind, Setting};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::{Command, Stdio};

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    anonymous: u64,
    mapped: u64,
}

fn cases(plan: &Plan) -> [Case; 2] {
    let name =
        |what| format!("{what} memory per object, {} objects, {} MiB cache", plan.objects, plan.cache_bytes >> 20);
    [Case::cost("W8", name("anonymous"), "bytes"), Case::cost("W8", name("mapped"), "bytes")]
}

/// W8.
pub(crate) fn play(stage: &mut Stage) -> Result<(), Fault> {
    let cases = cases(&stage.plan);
    for round in 0..stage.plan.rounds {
        for kind in stage.shelved() {
            stage.now(format!("W8 {}, round {}", kind.name(), round + 1))?;
            let held = ask_child(stage, kind);
            if let Some(held) = stage.excuse(&cases, kind.name(), held)? {
                let count = stage.plan.objects as f64;
                stage.book.sample(&cases[0], kind.name(), held.anonymous as f64 / count);
                stage.book.sample(&cases[1], kind.name(), held.mapped as f64 / count);
            }
            stage.step();
        }
    }
    Ok(())
}

fn ask_child(stage: &Stage, kind: Kind) -> Result<Held, Fault> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", "--store", kind.name(), "--task", "memory"]);
    command.arg("--dir").arg(stage.shelf(kind));
    command.arg("--objects").arg(stage.plan.objects.to_string());
    command.arg("--cache-mib").arg((stage.plan.cache_bytes >> 20).to_string());
    let output = command.stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout)?);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Fault::Child { program: format!("the child with {}", kind.name()), said })
}

/// What the child does.
pub(crate) fn measure(kind: Kind, dir: &Path, objects: usize, setting: &Setting) -> Result<Held, Fault> {
    let list = Objects::new(1);
    let (mut dice, mut bytes) = (Dice::new(8), 0);
    // Touched before the count begins: the pool of values is ours, not the store's.
    bytes += list.value(0, VALUE_BYTES).len();
    let before = memory();
    let store = kind.open(dir, setting)?;
    for _ in 0..objects / 3 {
        store.get(&list.key(dice.below(objects)), &mut |value| bytes += value.len())?;
    }
    if bytes < VALUE_BYTES * (objects / 3) {
        return Err(Fault::Wrong { store: kind.name(), expected: "every object", got: format!("{bytes} bytes") });
    }
    let after = memory();
    Ok(Held {
        anonymous: after.anonymous.saturating_sub(before.anonymous),
        mapped: after.mapped.saturating_sub(before.mapped),
    })
}
