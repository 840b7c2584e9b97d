//! Memory that may be locked: rings and registered buffers count against a limit unless the process is privileged.
//!
//! Looked at before anything starts: when glommio cannot register its buffers it only says so in a log, and what is measured
//! would not be what the table says.

use crate::fault::Fault;
use std::fs;

/// KiB that must be allowed: glommio registers 10 MiB with each of its three rings, the others at most 4 MiB, and a closed
/// ring gives back its part only after a while.
const LOCKED_KIB_MIN: u64 = 131_072;
/// What glommio wants the limit to say, privileged or not.
const LOCKED_KIB_MIN_OF_ROOT: u64 = 512;
/// The bit of `CAP_IPC_LOCK`, which frees from the limit.
const IPC_LOCK: u32 = 14;

/// Fails when too little memory may be locked.
pub(crate) fn check() -> Result<(), Fault> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    // What cannot be read is left to the runtimes, which will say so themselves.
    let Some(kib) = locked_kib(&limits) else { return Ok(()) };
    let needed = if is_privileged(&status) { LOCKED_KIB_MIN_OF_ROOT } else { LOCKED_KIB_MIN };
    if kib < needed { Err(Fault::Memlock { kib, needed }) } else { Ok(()) }
}

/// The limit in force; `None` if there is none.
fn locked_kib(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

fn is_privileged(status: &str) -> bool {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> IPC_LOCK & 1 == 1)
}

#[cfg(test)]
mod tests {
    //! Goal: limit and privilege are read rightly. Method: lines as the kernel prints them.

    use super::*;

    #[test]
    fn the_limit_in_force_is_the_first_of_two() {
        let line = |limit| {
            format!("Max processes  95969  95969  processes\nMax locked memory         {limit}  99999999  bytes\n")
        };
        assert_eq!(locked_kib(&line("8388608")), Some(8192));
        assert_eq!(locked_kib(&line("unlimited")), None);
    }

    #[test]
    fn who_may_lock_is_in_bit_fourteen() {
        assert!(is_privileged("CapPrm:\t0000000000000000\nCapEff:\t0000000000004000\n"));
        assert!(!is_privileged("CapPrm:\t0000000000004000\nCapEff:\t000001ffffffbfff\n"));
    }
}
