//! A file per object: the store that needs no library, with the file's modification time as its lease.
//!
//! Put: write a file in `tmp/`, `fdatasync`, rename into one of 256 folders by the key's first byte, `fsync` the folder.
//! Extend: set the time, `fsync` the file. The folders give names in no order, so a walk sorts.

use super::{Change, PlainReader, Reader, Reclaimed, See, Store};
use crate::data::{key_bytes, key_of};
use crate::fault::Fault;
use engine::Key;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// Threads that share a list of changes.
const THREADS: usize = 16;

/// A directory of files.
pub(crate) struct Files {
    dir: PathBuf,
    /// Open folders, to be synced without being opened each time.
    folders: Vec<File>,
    next: AtomicU64,
}

impl Files {
    pub(crate) fn open(dir: &Path) -> Result<Files, Fault> {
        fs::create_dir_all(dir.join("tmp"))?;
        let mut folders = Vec::with_capacity(256);
        for first in 0..=255_u8 {
            let folder = dir.join(format!("{first:02x}"));
            fs::create_dir_all(&folder)?;
            folders.push(File::open(folder)?);
        }
        File::open(dir)?.sync_all()?;
        Ok(Files { dir: dir.to_owned(), folders, next: AtomicU64::new(0) })
    }

    fn path(&self, key: &Key) -> PathBuf {
        let name: String = key_bytes(key).iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(&name[..2]).join(&name[2..])
    }

    fn put(&self, key: &Key, expiry_s: u64, value: &[u8]) -> Result<(), Fault> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let draft = self.dir.join("tmp").join(format!("{}-{number}", std::process::id()));
        let mut file = File::create(&draft)?;
        file.write_all(value)?;
        file.set_modified(UNIX_EPOCH + Duration::from_secs(expiry_s))?;
        file.sync_data()?;
        fs::rename(&draft, self.path(key))?;
        self.folders[usize::from(key.placement[0])].sync_all()?;
        Ok(())
    }

    fn change(&self, change: &Change) -> Result<(), Fault> {
        match change {
            Change::Put { key, expiry_s, value } => self.put(key, *expiry_s, value),
            Change::Extend { key, expiry_s } => {
                let file = File::options().write(true).open(self.path(key))?;
                file.set_modified(UNIX_EPOCH + Duration::from_secs(*expiry_s))?;
                Ok(file.sync_all()?)
            }
        }
    }

    /// Files of one folder with their keys and expiries.
    fn folder(&self, first: u8) -> Result<Vec<(Key, u64, PathBuf)>, Fault> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.dir.join(format!("{first:02x}")))? {
            let entry = entry?;
            let Some(key) = named(first, &entry.file_name().to_string_lossy()) else { continue };
            let since = entry.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            found.push((key, since.as_secs(), entry.path()));
        }
        Ok(found)
    }
}

/// The key that a file of the folder `first` is named after.
fn named(first: u8, name: &str) -> Option<Key> {
    let mut bytes = vec![first];
    for start in (0..name.len()).step_by(2) {
        bytes.push(u8::from_str_radix(name.get(start..start + 2)?, 16).ok()?);
    }
    key_of(&bytes)
}

impl Store for Files {
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        // There is no common commit, but the kernel can be given several at once.
        let share = changes.len().div_ceil(THREADS).max(1);
        if changes.len() <= share {
            return changes.iter().try_for_each(|change| self.change(change));
        }
        thread::scope(|scope| {
            let run = |part: &[Change]| part.iter().try_for_each(|change| self.change(change));
            let parts: Vec<_> = changes.chunks(share).map(|part| scope.spawn(move || run(part))).collect();
            let panicked = |_| Fault::Io(std::io::Error::other("a thread with files panicked"));
            parts.into_iter().try_for_each(|part| part.join().map_err(panicked)?)
        })
    }

    fn get(&self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        let mut file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut value = Vec::new();
        file.read_to_end(&mut value)?;
        see(&value);
        Ok(true)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault> {
        Ok(Box::new(PlainReader(self)))
    }

    fn list(&self, from: [u8; 20], to: [u8; 20], see: &mut dyn FnMut(Key, u64)) -> Result<(), Fault> {
        for first in from[0]..=to[0] {
            let mut found = self.folder(first)?;
            found.sort_by_key(|(key, ..)| *key);
            for (key, expiry_s, _) in found {
                if key.placement >= from && key.placement <= to {
                    see(key, expiry_s);
                }
            }
        }
        Ok(())
    }

    fn expire(&self, now_s: u64) -> Result<u64, Fault> {
        let mut gone = 0;
        for first in 0..=255_u8 {
            for (_, expiry_s, path) in self.folder(first)? {
                if expiry_s < now_s {
                    fs::remove_file(path)?;
                    gone += 1;
                }
            }
            self.folders[usize::from(first)].sync_all()?;
        }
        Ok(gone)
    }

    fn reclaim(&self) -> Result<Reclaimed, Fault> {
        Ok(Reclaimed::Done)
    }
}
