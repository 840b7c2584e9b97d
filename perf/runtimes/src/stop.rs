//! Ctrl-C: the first one ends the running case and lets the scratch folder be removed; the second one ends the process.

use crate::fault::Fault;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A signal that comes twice within this time was meant once: some send it to a process and again to its group.
const ONCE: Duration = Duration::from_millis(500);

/// When somebody asked to stop.
static ASKED: OnceLock<Instant> = OnceLock::new();

/// Begins to listen for Ctrl-C and SIGTERM.
pub(crate) fn listen() {
    let listening = ctrlc::set_handler(|| {
        if ASKED.set(Instant::now()).is_ok() {
            eprintln!("\nstopping and removing the segment; once more to stop at once");
        } else if ASKED.get().is_some_and(|first| first.elapsed() > ONCE) {
            std::process::exit(130);
        }
    });
    if let Err(error) = listening {
        eprintln!("runtimes: Ctrl-C will not be clean: {error}");
    }
}

/// Whether somebody asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.get().is_some()
}

/// Fails when somebody asked to stop.
pub(crate) fn check() -> Result<(), Fault> {
    if asked() { Err(Fault::Interrupted) } else { Ok(()) }
}
