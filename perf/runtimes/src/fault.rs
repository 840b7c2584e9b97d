//! Why a comparison came to nothing, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The person at the keyboard asked us to stop; the scratch folder is removed on the way out.
    #[error("interrupted")]
    Interrupted,
    /// The folder for the segment cannot be made.
    #[error("cannot make a folder in {}: {source}", dir.display())]
    Folder {
        /// Where.
        dir: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The segment cannot be written.
    #[error("cannot write a segment of {mib} MiB in {}: {source}{remedy}", dir.display())]
    Segment {
        /// Where.
        dir: PathBuf,
        /// Its size.
        mib: u64,
        /// The system's word.
        source: io::Error,
        /// What to do, where we know.
        remedy: &'static str,
    },
    /// Less memory may be locked than the contenders register.
    #[error(
        "{kib} KiB of memory may be locked, {needed} are needed: raise `ulimit -l`, or run as root, for whom 512 are enough; \
         with less, runtimes fail, or quietly do without registered buffers"
    )]
    Memlock {
        /// What the limit says.
        kib: u64,
        /// What it must say.
        needed: u64,
    },
    /// A contender does not start here, or failed on the way.
    #[error("{contender} cannot work here: {source}{remedy}")]
    Cannot {
        /// Which.
        contender: &'static str,
        /// Its word.
        source: io::Error,
        /// What to do, where we know.
        remedy: &'static str,
    },
    /// A contender counted a record that is not on the disk: its figure would be of something else.
    #[error("{contender}, {case}: {source}")]
    Lost {
        /// Which.
        contender: &'static str,
        /// In which case.
        case: &'static str,
        /// What the disk has instead.
        source: io::Error,
    },
    /// Not one operation was finished in the time.
    #[error("{contender}, {case}: nothing was finished in the time; ask for more with --case-ms")]
    Nothing {
        /// Which.
        contender: &'static str,
        /// In which case.
        case: &'static str,
    },
    /// The record cannot be written.
    #[error("cannot write the record: {0}")]
    Record(#[from] io::Error),
    /// The report cannot be written as JSON.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Fault {
    /// The segment could not be written.
    pub(crate) fn segment(dir: &Path, bytes: u64, source: io::Error) -> Fault {
        let remedy = match source.raw_os_error() {
            // Opening for direct I/O is what a file system refuses so.
            Some(libc::EINVAL) => "; this file system has no direct I/O: choose another with --dir",
            Some(libc::ENOSPC) => "; choose another disk with --dir, or a smaller segment with --mib",
            _ => "",
        };
        Fault::Segment { dir: dir.to_owned(), mib: bytes >> 20, source, remedy }
    }

    /// A contender failed.
    pub(crate) fn cannot(contender: &'static str, source: io::Error) -> Fault {
        // glommio has no error number for it, but looks at the limit itself.
        let is_memlock = source.raw_os_error() == Some(libc::ENOMEM) || source.to_string().contains("memlock");
        let remedy = match source.raw_os_error() {
            _ if is_memlock => {
                "; too little memory may be locked: `ulimit -l` must say 16384 (KiB) or more, or unlimited"
            }
            Some(libc::ENOSYS | libc::EPERM) => {
                "; io_uring is not to be had: /proc/sys/kernel/io_uring_disabled must be 0, and no container may filter it"
            }
            _ => "",
        };
        Fault::Cannot { contender, source, remedy }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: who cannot measure is told what to do. Method: the kernel's errors, as they come.

    use super::*;

    #[test]
    fn a_known_error_comes_with_its_remedy() {
        let said = |error| Fault::cannot("someone", error).to_string();
        assert!(said(io::Error::from_raw_os_error(libc::ENOMEM)).contains("ulimit -l"));
        assert!(Fault::Memlock { kib: 64, needed: 512 }.to_string().contains("raise `ulimit -l`"));
        assert!(said(io::Error::from_raw_os_error(libc::EPERM)).contains("io_uring_disabled"));
        assert!(!said(io::Error::from_raw_os_error(libc::EIO)).contains("ulimit"));
        let full =
            Fault::segment(Path::new("/there"), 64 << 20, io::Error::from_raw_os_error(libc::ENOSPC)).to_string();
        assert!(full.contains("64 MiB in /there") && full.contains("--mib"), "{full}");
    }
}
