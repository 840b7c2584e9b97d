//! Simulation: the engine is killed, cut off and lied to until it breaks or enough has been covered; the overlay lives hours
//! of virtual time in minutes.
//!
//! [`disk`] runs the engine's crash campaigns (`engine::simulate`) on a simulated disk: power cuts at any moment, failing
//! and lying disks. [`kill`] kills a real process on a real file system, again and again, while another process keeps the
//! journal of what was acknowledged. Both print what they covered, and on a violation the line that repeats it.
//! [`overlay`] runs a ring of shipped machines in virtual time and says what it costs and whether its lookups are right; a small
//! one with the packets of QUIC between them, if asked to.

pub(crate) mod disk;
pub(crate) mod kill;
pub(crate) mod overlay;

mod journal;
mod operations;
mod writer;

use crate::load::LoadError;
use crate::report::Findings;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use writer::{Orders, write};

/// How a simulation ended.
pub(crate) struct Ending {
    /// What was covered.
    pub(crate) findings: Findings,
    /// What went wrong, with the line that repeats it.
    pub(crate) violation: Option<String>,
}

/// Calls `look` ten times a second until it says that all is done, and raises `stop` at the first interrupt (Ctrl-C).
fn attend(stop: &AtomicBool, mut look: impl FnMut() -> bool) -> Result<bool, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupted = false;
        while !look() {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {
                    interrupted = true;
                    stop.store(true, Ordering::Relaxed);
                }
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        Ok(interrupted)
    })
}
