//! RocksDB with BlobDB: values from 1 KiB on in blob files, no compression, `sync` on every write, bloom filters of ten
//! bits, blob files collected by compaction with a force threshold; leases in a column family of their own.

use super::{Change, EXPIRY_BATCH, PlainReader, Reader, Reclaimed, See, Setting, Store, bounds};
use crate::data::{key_bytes, key_of};
use crate::fault::Fault;
use engine::Key;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, Direction, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::path::Path;
use std::time::Duration;

const OBJECTS: &str = "objects";
const LEASES: &str = "leases";
/// Share of dead bytes in the oldest blob files from which on their collection is forced.
const FORCE_SHARE: f64 = 0.05;
/// What must be nought for the store to be at rest.
const UNDER_WAY: [&str; 4] = [
    "rocksdb.num-running-flushes",
    "rocksdb.num-running-compactions",
    "rocksdb.mem-table-flush-pending",
    "rocksdb.compaction-pending",
];

/// An open database.
pub(crate) struct Rocks {
    database: DB,
    durable: WriteOptions,
}

impl Rocks {
    pub(crate) fn open(dir: &Path, setting: &Setting) -> Result<Rocks, Fault> {
        let cache = Cache::new_lru_cache(setting.cache_bytes);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.increase_parallelism(std::thread::available_parallelism().map_or(2, usize::from) as i32);
        let mut objects = family(&cache);
        objects.set_enable_blob_files(true);
        objects.set_min_blob_size(1024);
        objects.set_blob_compression_type(DBCompressionType::None);
        objects.set_enable_blob_gc(true);
        objects.set_blob_gc_age_cutoff(1.0);
        objects.set_blob_gc_force_threshold(FORCE_SHARE);
        let families =
            [ColumnFamilyDescriptor::new(OBJECTS, objects), ColumnFamilyDescriptor::new(LEASES, family(&cache))];
        let database = DB::open_cf_descriptors(&options, dir, families)?;
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Ok(Rocks { database, durable })
    }

    fn family(&self, name: &'static str) -> Result<&ColumnFamily, Fault> {
        let missing = || Fault::Wrong { store: "rocksdb", expected: "its column family", got: format!("no {name}") };
        self.database.cf_handle(name).ok_or_else(missing)
    }
}

/// What both families share.
fn family(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::None);
    options.set_block_based_table_factory(&table);
    options
}

impl Store for Rocks {
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let (objects, leases) = (self.family(OBJECTS)?, self.family(LEASES)?);
        let mut batch = WriteBatch::default();
        for change in &changes {
            let (Change::Put { key, expiry_s, .. } | Change::Extend { key, expiry_s }) = change;
            let bytes = key_bytes(key);
            batch.put_cf(leases, bytes, expiry_s.to_le_bytes());
            if let Change::Put { value, .. } = change {
                batch.put_cf(objects, bytes, value);
            }
        }
        Ok(self.database.write_opt(batch, &self.durable)?)
    }

    fn get(&self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        let found = self.database.get_pinned_cf(self.family(OBJECTS)?, key_bytes(key))?;
        if let Some(value) = &found {
            see(value);
        }
        Ok(found.is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault> {
        Ok(Box::new(PlainReader(self)))
    }

    fn list(&self, from: [u8; 20], to: [u8; 20], see: &mut dyn FnMut(Key, u64)) -> Result<(), Fault> {
        let (first, mut last) = bounds(from, to);
        // The upper bound is exclusive.
        last.push(0);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(last);
        let mode = IteratorMode::From(&first, Direction::Forward);
        for entry in self.database.iterator_cf_opt(self.family(LEASES)?, options, mode) {
            let (key, expiry) = entry?;
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
        let (objects, leases) = (self.family(OBJECTS)?, self.family(LEASES)?);
        for keys in dead.chunks(EXPIRY_BATCH) {
            let mut batch = WriteBatch::default();
            for key in keys {
                batch.delete_cf(objects, key);
                batch.delete_cf(leases, key);
            }
            self.database.write_opt(batch, &self.durable)?;
        }
        Ok(dead.len() as u64)
    }

    fn reclaim(&self) -> Result<Reclaimed, Fault> {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for name in [OBJECTS, LEASES] {
            let family = self.family(name)?;
            self.database.flush_cf(family)?;
            self.database.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        }
        Ok(Reclaimed::Done)
    }

    fn settle(&self) -> Result<(), Fault> {
        loop {
            let mut busy = 0;
            for name in [OBJECTS, LEASES] {
                for property in UNDER_WAY {
                    busy += self.database.property_int_value_cf(self.family(name)?, property)?.unwrap_or(0);
                }
            }
            if busy == 0 {
                return Ok(());
            }
            crate::stop::check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
