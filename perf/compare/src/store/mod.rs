//! What every store must be able to do here, and the stores.
//!
//! A store holds objects (key, value) and their leases (key, second of expiry). [`Store::commit`] makes a list of
//! changes durable before it returns; that is the one promise all of them are held to. Where a store has no leases
//! of its own they are a second table: the narrowest change that an extension can be. Rivals are given an easier
//! task wherever there was a choice: an extension overwrites blindly (ours looks the key up, and never shortens), and a listing is of
//! key and expiry (ours adds version and length).

pub(crate) mod files;
mod fjall;
mod lmdb;
mod ours;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocks;
mod sqlite;

#[cfg(test)]
mod tests;

use crate::fault::Fault;
use bytes::Bytes;
use clap::ValueEnum;
use engine::Key;
use serde::Serialize;
use std::path::Path;

pub(crate) use ours::{Ours, OursPort};

/// One change to a store.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Store an object with a lease.
    Put {
        /// Where.
        key: Key,
        /// End of the lease, in Unix seconds.
        expiry_s: u64,
        /// The bytes.
        value: Bytes,
    },
    /// Extend the lease of an object that is there.
    Extend {
        /// Of which one.
        key: Key,
        /// To when, in Unix seconds.
        expiry_s: u64,
    },
}

impl Change {
    /// Bytes of the value it carries: what a batch is measured by.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Change::Put { value, .. } => value.len(),
            Change::Extend { .. } => 0,
        }
    }
}

/// Looks at a value where the store has it, without a copy where it can.
pub(crate) type See<'a> = dyn FnMut(&[u8]) + 'a;

/// What came of asking for expired objects' space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reclaimed {
    /// The store has done what it does; whether the space is back, the file system tells.
    Done,
    /// It cannot give space back while it serves, and why.
    Cannot(&'static str),
}

/// A store under measurement.
pub(crate) trait Store: Send + Sync {
    /// Makes all changes durable in one commit, then returns.
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault>;

    /// Shows the value of a key; `false` when it is not there.
    fn get(&self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault>;

    /// A view for many reads by one thread: a long transaction or a prepared statement, where the store has such.
    fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault>;

    /// Walks keys and expiries from placement `from` to `to`, both included, in order; `from` is not above `to`.
    fn list(&self, from: [u8; 20], to: [u8; 20], see: &mut dyn FnMut(Key, u64)) -> Result<(), Fault>;

    /// Removes what expired before `now_s`, durably; returns how many objects went.
    fn expire(&self, now_s: u64) -> Result<u64, Fault>;

    /// Gives the space of removed objects back to the file system, as far as the store can.
    fn reclaim(&self) -> Result<Reclaimed, Fault>;

    /// Waits until nothing is under way behind the scenes.
    fn settle(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// A door for many operations in flight from one thread, where the store has its own.
    fn port(&self, _depth: usize) -> Option<OursPort> {
        None
    }
}

/// Many reads by one thread.
pub(crate) trait Reader {
    /// As [`Store::get`].
    fn get(&mut self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault>;
}

/// A reader for stores where one read has nothing to share with the next.
pub(crate) struct PlainReader<'a>(pub(crate) &'a dyn Store);

impl Reader for PlainReader<'_> {
    fn get(&mut self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        self.0.get(key, see)
    }
}

/// What a store is told when it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Memory for its own cache, where it has one.
    pub(crate) cache_bytes: usize,
    /// Bytes of values it will hold at most: a bound where it wants one beforehand.
    pub(crate) data_bytes: u64,
    /// Whether it will be read cold and in no order, so that reading ahead is waste.
    pub(crate) cold: bool,
}

/// The stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// This project's.
    Engine,
    /// RocksDB with its values in blob files.
    Rocksdb,
    /// fjall with its values separated.
    Fjall,
    /// redb.
    Redb,
    /// LMDB.
    Lmdb,
    /// SQLite.
    Sqlite,
    /// A file per object.
    Files,
}

impl Kind {
    /// All that this binary was built with.
    pub(crate) fn all() -> Vec<Kind> {
        let all = [Kind::Engine, Kind::Rocksdb, Kind::Fjall, Kind::Redb, Kind::Lmdb, Kind::Sqlite, Kind::Files];
        all.into_iter().filter(|kind| kind.is_built()).collect()
    }

    /// Whether this binary was built with it.
    pub(crate) fn is_built(self) -> bool {
        self != Kind::Rocksdb || cfg!(feature = "rocksdb")
    }

    /// Its name in tables and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Engine => "engine",
            Kind::Rocksdb => "rocksdb",
            Kind::Fjall => "fjall",
            Kind::Redb => "redb",
            Kind::Lmdb => "lmdb",
            Kind::Sqlite => "sqlite",
            Kind::Files => "files",
        }
    }

    /// Whether a batcher in front of it makes one commit out of many: ours has its own, files have no common commit.
    pub(crate) fn takes_batches(self) -> bool {
        !matches!(self, Kind::Engine | Kind::Files)
    }

    /// Opens or makes a store in `dir`.
    pub(crate) fn open(self, dir: &Path, setting: &Setting) -> Result<Box<dyn Store>, Fault> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Kind::Engine => Box::new(Ours::open(dir, setting)?),
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => Box::new(rocks::Rocks::open(dir, setting)?),
            #[cfg(not(feature = "rocksdb"))]
            Kind::Rocksdb => {
                let (expected, got) = ("a binary built with RocksDB", "one without".to_owned());
                return Err(Fault::Wrong { store: "rocksdb", expected, got });
            }
            Kind::Fjall => Box::new(fjall::FjallStore::open(dir, setting)?),
            Kind::Redb => Box::new(redb::RedbStore::open(dir, setting)?),
            Kind::Lmdb => Box::new(lmdb::Lmdb::open(dir, setting)?),
            Kind::Sqlite => Box::new(sqlite::Sqlite::open(dir, setting)?),
            Kind::Files => Box::new(files::Files::open(dir)?),
        })
    }
}

/// Changes in one commit when expired objects are removed.
pub(crate) const EXPIRY_BATCH: usize = 1_000;

/// The bounds of a walk as byte strings: everything from `from` on, up to and including `to`.
pub(crate) fn bounds(from: [u8; 20], to: [u8; 20]) -> (Vec<u8>, Vec<u8>) {
    let mut last = to.to_vec();
    last.resize(crate::data::KEY_BYTES, 0xff);
    (from.to_vec(), last)
}
