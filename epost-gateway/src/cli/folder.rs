//! The data folder of a local organisation: told from other folders by a marker, and used by one process at a time.

use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that says a folder is ours.
const MARKER: &str = "epost.toml";

/// What is locked while `epost up` runs. The lock goes with the process, however it ends.
const LOCK: &str = "lock";

/// The layout this version writes and reads.
const FORMAT: u32 = 1;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It has something in it, and not our marker.
    #[error("{} is not empty and was not made by epost; choose another folder with --dir", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// It is something other than a folder.
    #[error("{} is not a folder; choose another place with --dir", path.display())]
    NotAFolder {
        /// What it is called.
        path: PathBuf,
    },
    /// Another `epost up` runs on it.
    #[error("another `epost up` is running on {}; stop it first, or choose another folder with --dir", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A later version of this program made it.
    #[error("{} was made by a later version of epost (format {format}); use that version", path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The marker cannot be understood.
    #[error("{} is damaged; restore it from a backup, or choose another folder with --dir", path.display())]
    Damaged {
        /// The marker.
        path: PathBuf,
    },
    /// There is no such folder, or it was never completed.
    #[error("there is no ePOST organisation in {}; run `epost up` first, or say where it is with --dir", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The file is there already and holds a secret that must not be lost.
    #[error("{} exists already; it is never overwritten, move it away first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: {source}; check who owns it and whether the disk is full", path.display())]
    System {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The marker's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    format: u32,
    /// Whether the first run came to the end of making the organisation.
    complete: bool,
}

/// A data folder that is ours alone while this value lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    marker: Marker,
    _lock: File,
}

impl DataFolder {
    /// Opens a folder of ours, or makes one where there is nothing.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        make_folder(path)?;
        let path = path.canonicalize().map_err(system(path))?;
        let marker = match read_marker(&path)? {
            Some(marker) => marker,
            None if is_empty(&path)? => {
                let marker = Marker { format: FORMAT, complete: false };
                write_marker(&path, &marker)?;
                marker
            }
            None => return Err(FolderError::NotOurs { path }),
        };
        let lock = lock(&path)?;
        Ok(DataFolder { path, marker, _lock: lock })
    }

    /// Whether an earlier run made the organisation in it.
    pub fn is_complete(&self) -> bool {
        self.marker.complete
    }

    /// Where it is, absolutely.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what a first run left that did not come to its end. No node has ever run on it.
    pub fn clear(&self) -> Result<(), FolderError> {
        assert!(!self.marker.complete);
        for entry in fs::read_dir(&self.path).map_err(system(&self.path))? {
            let entry = entry.map_err(system(&self.path))?.path();
            if entry.ends_with(MARKER) || entry.ends_with(LOCK) {
                continue;
            }
            let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
            removed.map_err(system(&entry))?;
        }
        Ok(())
    }

    /// Notes that the organisation is made.
    pub fn complete(&mut self) -> Result<(), FolderError> {
        self.marker.complete = true;
        write_marker(&self.path, &self.marker)
    }
}

/// The nodes' folders in a data folder, in order; for those who only look.
pub fn node_folders(path: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let is_there = path.is_dir() && read_marker(path)?.is_some_and(|marker| marker.complete);
    if !is_there {
        return Err(FolderError::Missing { path: path.to_owned() });
    }
    let numbered = (1..).map(|number| node_folder(path, number));
    Ok(numbered.take_while(|folder| folder.join("node.toml").exists()).collect())
}

/// The folder of node `number`, counted from 1.
pub fn node_folder(path: &Path, number: usize) -> PathBuf {
    path.join(format!("node{number}"))
}

/// Makes a folder only its owner may enter, with what leads to it; an existing one is left as it is.
pub fn make_folder(path: &Path) -> Result<(), FolderError> {
    if path.is_dir() {
        return Ok(());
    }
    if path.exists() {
        return Err(FolderError::NotAFolder { path: path.to_owned() });
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(system(path))
}

/// Writes a file that must not be there yet.
pub fn write_new(path: &Path, content: &[u8], is_secret: bool) -> Result<(), FolderError> {
    let mode = if is_secret { 0o600 } else { 0o644 };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|source| {
            match source.kind() {
                io::ErrorKind::AlreadyExists => FolderError::Exists { path: path.to_owned() },
                _ => FolderError::System { path: path.to_owned(), source },
            }
        })?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(system(path))
}

/// Writes a file whole or not at all, readable by its owner only, over what may be there.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FolderError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    if let Err(source) = fs::remove_file(&fresh)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(FolderError::System { path: fresh, source });
    }
    write_new(&fresh, content, true)?;
    fs::rename(&fresh, path).map_err(system(path))?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(system(folder))
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    fs::read(path).map_err(system(path))
}

fn system(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::System { path, source }
}

fn is_empty(path: &Path) -> Result<bool, FolderError> {
    Ok(fs::read_dir(path).map_err(system(path))?.next().is_none())
}

fn lock(path: &Path) -> Result<File, FolderError> {
    let name = path.join(LOCK);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name).map_err(system(&name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FolderError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(FolderError::System { path: name, source }),
    }
}

fn read_marker(path: &Path) -> Result<Option<Marker>, FolderError> {
    let name = path.join(MARKER);
    let text = match fs::read_to_string(&name) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FolderError::System { path: name, source }),
    };
    let format = toml::from_str::<toml::Table>(&text).ok().and_then(|table| table.get("format")?.as_integer());
    match format.map(u32::try_from) {
        Some(Ok(format)) if format > FORMAT => Err(FolderError::Newer { path: path.to_owned(), format }),
        _ => toml::from_str(&text).map(Some).map_err(|_| FolderError::Damaged { path: name }),
    }
}

fn write_marker(path: &Path, marker: &Marker) -> Result<(), FolderError> {
    let Ok(text) = toml::to_string(marker) else { unreachable!("two plain values") };
    let text = format!("# This folder belongs to epost, which puts its files here and removes them.\n{text}");
    replace(&path.join(MARKER), text.as_bytes())
}

#[cfg(test)]
mod tests {
    //! Goal: no file of a stranger is touched, two never work on one folder, secrets are private, files whole.
    //! Method: real folders.
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_found_again_and_locked() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        assert!(matches!(node_folders(&path), Err(FolderError::Missing { .. })));
        let mut first = DataFolder::open(&path).unwrap();
        assert!(!first.is_complete());
        assert!(matches!(DataFolder::open(&path), Err(FolderError::InUse { .. })));
        fs::create_dir(path.join("node1")).unwrap();
        fs::write(path.join("half"), "x").unwrap();
        first.clear().unwrap();
        assert!(!path.join("node1").exists() && !path.join("half").exists());
        first.complete().unwrap();
        drop(first);
        assert!(DataFolder::open(&path).unwrap().is_complete());
        assert_eq!(node_folders(&path).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn strangers_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("thesis.doc"), "x").unwrap();
        assert!(matches!(DataFolder::open(place.path()), Err(FolderError::NotOurs { .. })));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(matches!(DataFolder::open(&place.path().join("thesis.doc")), Err(FolderError::NotAFolder { .. })));
        fs::write(place.path().join(MARKER), "format = 2\nsomething = 1").unwrap();
        assert!(matches!(DataFolder::open(place.path()), Err(FolderError::Newer { format: 2, .. })));
        fs::write(place.path().join(MARKER), "format = 1").unwrap();
        assert!(matches!(DataFolder::open(place.path()), Err(FolderError::Damaged { .. })));
    }

    #[test]
    fn files_are_private_and_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("up.json");
        fs::write(place.path().join("up.json.new"), "left by a crash").unwrap();
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(matches!(write_new(&path, b"three", true), Err(FolderError::Exists { .. })));
    }
}
