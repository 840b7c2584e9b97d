//! What the machine says: bytes that reached the device, space a folder takes, memory of a process, an empty page cache.

use crate::fault::Fault;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Bytes of a sector in the kernel's accounts, whatever the device's own are.
const SECTOR_BYTES: u64 = 512;
/// Bytes of a block in a file's metadata.
const STAT_BLOCK_BYTES: u64 = 512;

/// What a device had done at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Reads finished.
    pub(crate) reads: u64,
    /// Bytes read.
    pub(crate) read_bytes: u64,
    /// Bytes written.
    pub(crate) written_bytes: u64,
}

impl Traffic {
    /// What the device that holds `dir` has done so far; `None` where the kernel does not tell (a file system without a device).
    pub(crate) fn of(dir: &Path) -> Option<Traffic> {
        let number = fs::metadata(dir).ok()?.dev();
        let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
        let text = fs::read_to_string("/proc/diskstats").ok()?;
        parse(&text, major, minor)
    }

    /// What was done since `before`.
    pub(crate) fn since(&self, before: &Traffic) -> Traffic {
        Traffic {
            reads: self.reads - before.reads,
            read_bytes: self.read_bytes - before.read_bytes,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

fn parse(diskstats: &str, major: u64, minor: u64) -> Option<Traffic> {
    for line in diskstats.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        if number(0) == Some(major) && number(1) == Some(minor) {
            let (reads, read, written) = (number(3)?, number(5)?, number(9)?);
            return Some(Traffic { reads, read_bytes: read * SECTOR_BYTES, written_bytes: written * SECTOR_BYTES });
        }
    }
    None
}

/// Has the kernel write out everything it still holds.
pub(crate) fn sync() -> Result<(), Fault> {
    let status = Command::new("sync").status()?;
    let said = status.to_string();
    if status.success() { Ok(()) } else { Err(Fault::Child { program: "sync".to_owned(), said }) }
}

/// Empties the page cache; `false` where we may not.
pub(crate) fn drop_caches() -> Result<bool, Fault> {
    sync()?;
    Ok(fs::write("/proc/sys/vm/drop_caches", "3").is_ok())
}

/// Bytes that a folder's files take on the disk.
pub(crate) fn space(dir: &Path) -> u64 {
    // A file may go while we look: it takes no space then.
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let mut bytes = 0;
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { space(&entry.path()) } else { metadata.blocks() * STAT_BLOCK_BYTES };
    }
    bytes
}

/// Memory of this process: its own, and mapped from files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Bytes that are nobody else's and in no file.
    pub(crate) anonymous: u64,
    /// Bytes of mapped files that are resident.
    pub(crate) mapped: u64,
}

/// Memory of this process now.
pub(crate) fn memory() -> Memory {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Memory { anonymous: field("RssAnon:").unwrap_or(0) * 1024, mapped: field("RssFile:").unwrap_or(0) * 1024 }
}

#[cfg(test)]
mod tests {
    //! Goal: the kernel's table is read rightly. Method: a line in its documented form.

    use super::*;

    #[test]
    fn a_line_of_diskstats_is_understood() {
        let text = " 254 0 vda 10 0 80 5 7 0 160 9 0 0 0 0\n 254 1 vda1 1 0 8 0 2 0 16 0 0 0 0 0\n";
        let traffic = parse(text, 254, 0).expect("there");
        assert_eq!((traffic.reads, traffic.read_bytes, traffic.written_bytes), (10, 80 * 512, 160 * 512));
        assert!(parse(text, 8, 0).is_none());
    }
}
