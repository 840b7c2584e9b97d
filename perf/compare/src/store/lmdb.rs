//! LMDB through heed: a memory-mapped B-tree, default flags (every commit synced), objects and leases in two databases.
//!
//! For cold reads it is opened with `MDB_NORDAHEAD`, as its documentation advises for data larger than memory.

use super::{Change, EXPIRY_BATCH, Reader, Reclaimed, See, Setting, Store, bounds};
use crate::data::{key_bytes, key_of};
use crate::fault::Fault;
use engine::Key;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithoutTls};
use std::path::Path;

/// Address space for the map: three times the data, and room for trees.
const MAP_MIN: u64 = 16 << 30;
/// Readers at once: threads of a native run, and some.
const READERS_MAX: u32 = 512;

/// An open environment.
pub(crate) struct Lmdb {
    env: Env<WithoutTls>,
    objects: Database<'static, Bytes, Bytes>,
    leases: Database<'static, Bytes, Bytes>,
}

impl Lmdb {
    pub(crate) fn open(dir: &Path, setting: &Setting) -> Result<Lmdb, Fault> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size((setting.data_bytes * 3).max(MAP_MIN).next_multiple_of(1 << 20) as usize);
        options.max_dbs(2).max_readers(READERS_MAX);
        if setting.cold {
            // SAFETY: this flag changes only the advice given to the kernel about the map; the flags that are unsafe are
            // those that give up syncing or locking.
            unsafe { options.flags(EnvFlags::NO_READ_AHEAD) };
        }
        // SAFETY: the map is unsound if somebody else changes the file. It lies in a scratch folder that this run made
        // for itself, and no two processes of a run open it at once.
        let env = unsafe { options.open(dir)? };
        let transaction = env.write_txn()?;
        let opened = env.create_databases_and_commit(transaction, |opener, transaction| {
            let objects = opener.create_database(transaction, Some("objects"))?;
            let leases = opener.create_database(transaction, Some("leases"))?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((objects, leases)))
        })?;
        let (objects, leases) = opened.unwrap_commit();
        Ok(Lmdb { env, objects, leases })
    }
}

impl Store for Lmdb {
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let mut transaction = self.env.write_txn()?;
        for change in &changes {
            let (Change::Put { key, expiry_s, .. } | Change::Extend { key, expiry_s }) = change;
            let bytes = key_bytes(key);
            self.leases.put(&mut transaction, &bytes, &expiry_s.to_le_bytes())?;
            if let Change::Put { value, .. } = change {
                self.objects.put(&mut transaction, &bytes, value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        let transaction = self.env.read_txn()?;
        let found = self.objects.get(&transaction, &key_bytes(key))?;
        found.inspect(|value| see(value));
        Ok(found.is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault> {
        Ok(Box::new(LmdbReader { store: self, transaction: self.env.read_txn()? }))
    }

    fn list(&self, from: [u8; 20], to: [u8; 20], see: &mut dyn FnMut(Key, u64)) -> Result<(), Fault> {
        let (first, last) = bounds(from, to);
        let transaction = self.env.read_txn()?;
        let range = (std::ops::Bound::Included(first.as_slice()), std::ops::Bound::Included(last.as_slice()));
        for entry in self.leases.range(&transaction, &range)? {
            let (key, expiry) = entry?;
            if let (Some(key), Ok(expiry)) = (key_of(key), <[u8; 8]>::try_from(expiry)) {
                see(key, u64::from_le_bytes(expiry));
            }
        }
        Ok(())
    }

    fn expire(&self, now_s: u64) -> Result<u64, Fault> {
        let mut dead = Vec::new();
        self.list([0; 20], [0xff; 20], &mut |key, expiry_s| {
            if expiry_s < now_s {
                dead.push(key_bytes(&key));
            }
        })?;
        for keys in dead.chunks(EXPIRY_BATCH) {
            let mut transaction = self.env.write_txn()?;
            for key in keys {
                self.objects.delete(&mut transaction, key)?;
                self.leases.delete(&mut transaction, key)?;
            }
            transaction.commit()?;
        }
        Ok(dead.len() as u64)
    }

    fn reclaim(&self) -> Result<Reclaimed, Fault> {
        Ok(Reclaimed::Cannot(
            "its file never shrinks: freed pages are for itself; only a copy, with writers stopped, is smaller",
        ))
    }
}

/// One read transaction, held while the reader lives.
struct LmdbReader<'a> {
    store: &'a Lmdb,
    transaction: RoTxn<'a, WithoutTls>,
}

impl Reader for LmdbReader<'_> {
    fn get(&mut self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        let found = self.store.objects.get(&self.transaction, &key_bytes(key))?;
        found.inspect(|value| see(value));
        Ok(found.is_some())
    }
}
