//! Which versions of its logs an account had seen when this node last stopped in order.
//!
//! A log's head tells its version. Whoever remembers the last one notices when he is shown an older log (a
//! rollback), and knows that nothing after it was acknowledged to anybody, so that no UID has to be skipped. The
//! file is written at a clean stop and taken away when it is read: after a crash there is none, and numbers are
//! skipped up to the replicated high-water marks, which is always safe.
//!
//! ```text
//! one line per log:  <version, decimal> <label>
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Largest file read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The versions read at start, and where to write them at a stop.
#[derive(Debug, Default)]
pub struct Remembered {
    path: Option<PathBuf>,
    versions: BTreeMap<String, u64>,
}

impl Remembered {
    /// Nothing is remembered, and nothing will be.
    #[must_use]
    pub fn nothing() -> Remembered {
        Remembered::default()
    }

    /// Reads and removes the file at `path`. A missing or damaged one is as good as none.
    ///
    /// # Errors
    /// If a file that was read cannot be removed: it must not be believed twice.
    pub fn take(path: &Path) -> io::Result<Remembered> {
        let mut text = String::new();
        let versions = match File::open(path) {
            Ok(file) => {
                let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
                fs::remove_file(path)?;
                sync_folder(path)?;
                if read.is_ok() { parse(&text) } else { BTreeMap::new() }
            }
            Err(_) => BTreeMap::new(),
        };
        Ok(Remembered { path: Some(path.to_owned()), versions })
    }

    /// The version of the log with this label at the last clean stop.
    pub(super) fn version(&self, label: &str) -> Option<u64> {
        self.versions.get(label).copied()
    }

    /// Writes the versions down for the next start, whole or not at all.
    pub(super) fn write(&self, versions: &BTreeMap<String, u64>) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let text: String = versions.iter().map(|(label, version)| format!("{version} {label}\n")).collect();
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_folder(path)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The lines that are whole; a line that is not is left out, which means "not remembered".
fn parse(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (version, label) = line.split_once(' ')?;
        Some((label.to_owned(), version.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: what is remembered is believed exactly once. Method: write, take, take again.
    use super::*;

    #[test]
    fn versions_are_believed_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alice.versions");
        let none = Remembered::take(&path).expect("no file is no error");
        assert_eq!(none.version("mailbox"), None);
        none.write(&BTreeMap::from([("mailbox".into(), 7), ("folder/12".into(), u64::MAX)])).expect("written");
        let some = Remembered::take(&path).expect("read");
        assert_eq!((some.version("mailbox"), some.version("folder/12")), (Some(7), Some(u64::MAX)));
        assert_eq!(Remembered::take(&path).expect("gone").version("mailbox"), None);
    }

    #[test]
    fn damaged_lines_are_not_believed() {
        assert_eq!(parse("x mailbox\n12\n-3 a\n5 b"), BTreeMap::from([("b".into(), 5)]));
    }
}
