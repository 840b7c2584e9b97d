//! Who is compared. Each opens the segment for direct I/O and does the job on one thread; what other threads and rings it
//! starts is its own affair, and is in its processor time.

mod compio;
mod glommio;
mod pool;
mod raw;
mod tokio_uring;

use crate::work::{Done, Job};
use std::io;

/// One way to the disk.
pub(crate) struct Contender {
    /// For people.
    pub(crate) name: &'static str,
    /// Does a job.
    pub(crate) run: fn(&Job) -> io::Result<Done>,
}

/// All, the one that others are compared with first.
pub(crate) const CONTENDERS: [Contender; 5] = [
    Contender { name: "raw ring", run: raw::run },
    Contender { name: "glommio", run: glommio::run },
    Contender { name: "tokio-uring", run: tokio_uring::run },
    Contender { name: "compio", run: compio::run },
    Contender { name: "tokio thread pool", run: pool::run },
];

/// The crates behind the names, in the versions that this was built from.
pub(crate) fn versions() -> String {
    let crates = ["io-uring", "glommio", "tokio-uring", "compio", "tokio"];
    let said: Vec<String> = crates.iter().map(|name| format!("{name} {}", version(name))).collect();
    said.join(", ")
}

/// The highest locked version of a crate: glommio and tokio-uring have older ones of others below them.
fn version(name: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let heading = format!("name = \"{name}\"");
    let found = lock.split("[[package]]").filter(|package| package.lines().any(|line| line == heading));
    let versions = found.filter_map(|package| package.lines().find_map(|line| line.strip_prefix("version = ")));
    // Cargo.lock has them in order.
    versions.last().map_or("of unknown version", |version| version.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    //! Goal: the versions are those of the lock file. Method: each has one, and begins as Cargo.toml demands.

    use super::*;

    #[test]
    fn every_crate_has_a_version() {
        let demanded = [("io-uring", "0.7."), ("glommio", "0.9."), ("tokio-uring", "0.5."), ("compio", "0.19.")];
        for (name, start) in demanded {
            assert!(version(name).starts_with(start), "{name} {}", version(name));
        }
        assert!(versions().contains("tokio 1."));
    }
}
