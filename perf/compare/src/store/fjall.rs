//! fjall: a log-structured merge tree in Rust. Values from 1 KiB on in blob files, no compression, every commit a batch
//! persisted with `SyncData`; objects and leases in two keyspaces.

use super::{Change, EXPIRY_BATCH, PlainReader, Reader, Reclaimed, See, Setting, Store, bounds};
use crate::data::{key_bytes, key_of};
use crate::fault::Fault;
use ::fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use engine::Key;
use std::path::Path;
use std::time::Duration;

/// Share of dead bytes in a blob file from which on compaction rewrites it: every file with a twentieth dead.
const STALE_SHARE: f32 = 0.05;

/// An open database.
pub(crate) struct FjallStore {
    database: Database,
    objects: Keyspace,
    leases: Keyspace,
}

impl FjallStore {
    pub(crate) fn open(dir: &Path, setting: &Setting) -> Result<FjallStore, Fault> {
        let database = Database::builder(dir)
            .cache_size(setting.cache_bytes as u64)
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .open()?;
        let objects = database.keyspace("objects", || {
            let separation = KvSeparationOptions::default()
                .compression(CompressionType::None)
                .separation_threshold(1024)
                .staleness_threshold(STALE_SHARE)
                .age_cutoff(1.0);
            KeyspaceCreateOptions::default().with_kv_separation(Some(separation))
        })?;
        let leases = database.keyspace("leases", KeyspaceCreateOptions::default)?;
        Ok(FjallStore { database, objects, leases })
    }
}

impl Store for FjallStore {
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for change in changes {
            let (Change::Put { key, expiry_s, .. } | Change::Extend { key, expiry_s }) = &change;
            let bytes = key_bytes(key);
            batch.insert(&self.leases, bytes.as_slice(), expiry_s.to_le_bytes().as_slice());
            if let Change::Put { value, .. } = &change {
                batch.insert(&self.objects, bytes.as_slice(), &**value);
            }
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        let found = self.objects.get(key_bytes(key))?;
        if let Some(value) = &found {
            see(value);
        }
        Ok(found.is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault> {
        Ok(Box::new(PlainReader(self)))
    }

    fn list(&self, from: [u8; 20], to: [u8; 20], see: &mut dyn FnMut(Key, u64)) -> Result<(), Fault> {
        let (first, last) = bounds(from, to);
        for entry in self.leases.range(first..=last) {
            let (key, expiry) = entry.into_inner()?;
            if let (Some(key), Ok(expiry)) = (key_of(&key), <[u8; 8]>::try_from(&*expiry)) {
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
            let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
            for key in keys {
                batch.remove(&self.objects, key.as_slice());
                batch.remove(&self.leases, key.as_slice());
            }
            batch.commit()?;
        }
        Ok(dead.len() as u64)
    }

    fn reclaim(&self) -> Result<Reclaimed, Fault> {
        self.objects.rotate_memtable_and_wait()?;
        self.leases.rotate_memtable_and_wait()?;
        self.objects.major_compact()?;
        self.leases.major_compact()?;
        Ok(Reclaimed::Done)
    }

    fn settle(&self) -> Result<(), Fault> {
        while self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0 {
            crate::stop::check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
