//! Ctrl-C: the first one lets the running step end and scratch files be removed; the second one ends the process.

use crate::fault::Fault;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Begins to listen for Ctrl-C.
pub(crate) fn listen() {
    let listening = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step and removing scratch files; once more to stop at once");
    });
    if let Err(error) = listening {
        eprintln!("compare: Ctrl-C will not be clean: {error}");
    }
}

/// Fails when somebody asked to stop.
pub(crate) fn check() -> Result<(), Fault> {
    if ASKED.load(Ordering::Relaxed) { Err(Fault::Interrupted) } else { Ok(()) }
}
