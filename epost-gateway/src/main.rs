//! The command `epost`; all of it is in the library, where it can be tested.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    epost_gateway::cli::main()
}
