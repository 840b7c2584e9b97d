//! redb: a copy-on-write B-tree. Durability Immediate, one commit per transaction; objects and leases in two tables.

use super::{Change, EXPIRY_BATCH, Reader, Reclaimed, See, Setting, Store, bounds};
use crate::data::{key_bytes, key_of};
use crate::fault::{Fault, redb_fault};
use ::redb::{Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};
use engine::Key;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const LEASES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("leases");

/// An open database. The lock is for compaction alone, which wants the database to itself.
pub(crate) struct RedbStore {
    database: RwLock<Database>,
}

impl RedbStore {
    pub(crate) fn open(dir: &Path, setting: &Setting) -> Result<RedbStore, Fault> {
        let mut builder = Builder::new();
        builder.set_cache_size(setting.cache_bytes);
        let store = RedbStore { database: RwLock::new(builder.create(dir.join("data.redb")).map_err(redb_fault)?) };
        // Tables exist from the first transaction that opened them.
        store.commit(Vec::new())?;
        Ok(store)
    }

    fn database(&self) -> RwLockReadGuard<'_, Database> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, Fault> {
        let view = self.database().begin_read().map_err(redb_fault)?;
        view.open_table(OBJECTS).map_err(redb_fault)
    }

    fn leases(&self) -> Result<ReadOnlyTable<&'static [u8], u64>, Fault> {
        let view = self.database().begin_read().map_err(redb_fault)?;
        view.open_table(LEASES).map_err(redb_fault)
    }

    fn remove(&self, keys: &[Vec<u8>]) -> Result<(), Fault> {
        let database = self.database();
        let mut transaction = database.begin_write().map_err(redb_fault)?;
        transaction.set_durability(Durability::Immediate).map_err(redb_fault)?;
        {
            let mut objects = transaction.open_table(OBJECTS).map_err(redb_fault)?;
            let mut leases = transaction.open_table(LEASES).map_err(redb_fault)?;
            for key in keys {
                objects.remove(key.as_slice()).map_err(redb_fault)?;
                leases.remove(key.as_slice()).map_err(redb_fault)?;
            }
        }
        transaction.commit().map_err(redb_fault)
    }
}

impl Store for RedbStore {
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let database = self.database();
        let mut transaction = database.begin_write().map_err(redb_fault)?;
        transaction.set_durability(Durability::Immediate).map_err(redb_fault)?;
        {
            let mut objects = transaction.open_table(OBJECTS).map_err(redb_fault)?;
            let mut leases = transaction.open_table(LEASES).map_err(redb_fault)?;
            for change in &changes {
                let (Change::Put { key, expiry_s, .. } | Change::Extend { key, expiry_s }) = change;
                let bytes = key_bytes(key);
                leases.insert(bytes.as_slice(), *expiry_s).map_err(redb_fault)?;
                if let Change::Put { value, .. } = change {
                    objects.insert(bytes.as_slice(), &**value).map_err(redb_fault)?;
                }
            }
        }
        transaction.commit().map_err(redb_fault)
    }

    fn get(&self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        RedbReader { objects: self.objects()? }.get(key, see)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault> {
        Ok(Box::new(RedbReader { objects: self.objects()? }))
    }

    fn list(&self, from: [u8; 20], to: [u8; 20], see: &mut dyn FnMut(Key, u64)) -> Result<(), Fault> {
        let (first, last) = bounds(from, to);
        let leases = self.leases()?;
        for entry in leases.range(first.as_slice()..=last.as_slice()).map_err(redb_fault)? {
            let (key, expiry_s) = entry.map_err(redb_fault)?;
            if let Some(key) = key_of(key.value()) {
                see(key, expiry_s.value());
            }
        }
        Ok(())
    }

    fn expire(&self, now_s: u64) -> Result<u64, Fault> {
        let mut dead = Vec::new();
        self.list([0; 20], [0xff; 20], &mut |key, expiry_s| {
            if expiry_s < now_s {
                dead.push(key_bytes(&key).to_vec());
            }
        })?;
        for keys in dead.chunks(EXPIRY_BATCH) {
            self.remove(keys)?;
        }
        Ok(dead.len() as u64)
    }

    fn reclaim(&self) -> Result<Reclaimed, Fault> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        while database.compact().map_err(redb_fault)? {}
        Ok(Reclaimed::Done)
    }
}

/// One read transaction, held while the reader lives.
struct RedbReader {
    objects: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Reader for RedbReader {
    fn get(&mut self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        let found = self.objects.get(key_bytes(key).as_slice()).map_err(redb_fault)?;
        if let Some(value) = &found {
            see(value.value());
        }
        Ok(found.is_some())
    }
}
