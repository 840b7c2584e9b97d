//! SQLite: WAL with `synchronous=FULL`, one writing connection, a reading connection per thread that wants one.

use super::{Change, EXPIRY_BATCH, Reader, Reclaimed, See, Setting, Store, bounds};
use crate::data::{key_bytes, key_of};
use crate::fault::Fault;
use engine::Key;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS object (key BLOB PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS lease (key BLOB PRIMARY KEY, expiry_s INTEGER NOT NULL) WITHOUT ROWID;";
const GET: &str = "SELECT value FROM object WHERE key = ?1";

/// An open database.
pub(crate) struct Sqlite {
    path: PathBuf,
    cache_bytes: usize,
    writer: Mutex<Connection>,
    /// Connections between two short reads.
    idle: Mutex<Vec<Connection>>,
}

impl Sqlite {
    pub(crate) fn open(dir: &Path, setting: &Setting) -> Result<Sqlite, Fault> {
        let path = dir.join("data.sqlite");
        let writer = connect(&path, setting.cache_bytes)?;
        writer.execute_batch(TABLES)?;
        Ok(Sqlite { path, cache_bytes: setting.cache_bytes, writer: Mutex::new(writer), idle: Mutex::default() })
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_reader<T>(&self, act: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, self.cache_bytes)?,
        };
        let done = act(&connection);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        done
    }
}

fn connect(path: &Path, cache_bytes: usize) -> Result<Connection, Fault> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Negative: KiB rather than pages.
    connection.pragma_update(None, "cache_size", -((cache_bytes / 1024) as i64))?;
    Ok(connection)
}

fn show(connection: &Connection, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
    let mut statement = connection.prepare_cached(GET)?;
    let bytes = key_bytes(key);
    let found = statement.query_row(params![bytes.as_slice()], |row| {
        see(row.get_ref(0)?.as_blob()?);
        Ok(())
    });
    Ok(found.optional()?.is_some())
}

impl Store for Sqlite {
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let mut writer = self.writer();
        let transaction = writer.transaction()?;
        {
            let mut object = transaction.prepare_cached("INSERT OR REPLACE INTO object VALUES (?1, ?2)")?;
            let mut lease = transaction.prepare_cached("INSERT OR REPLACE INTO lease VALUES (?1, ?2)")?;
            for change in &changes {
                let (Change::Put { key, expiry_s, .. } | Change::Extend { key, expiry_s }) = change;
                let bytes = key_bytes(key);
                lease.execute(params![bytes.as_slice(), *expiry_s as i64])?;
                if let Change::Put { value, .. } = change {
                    object.execute(params![bytes.as_slice(), &**value])?;
                }
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        self.with_reader(|connection| show(connection, key, see))
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault> {
        Ok(Box::new(SqliteReader { connection: connect(&self.path, self.cache_bytes)? }))
    }

    fn list(&self, from: [u8; 20], to: [u8; 20], see: &mut dyn FnMut(Key, u64)) -> Result<(), Fault> {
        let (first, last) = bounds(from, to);
        self.with_reader(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT key, expiry_s FROM lease WHERE key BETWEEN ?1 AND ?2 ORDER BY key")?;
            let mut rows = statement.query(params![first, last])?;
            while let Some(row) = rows.next()? {
                let expiry_s: i64 = row.get(1)?;
                if let Some(key) = key_of(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?) {
                    see(key, expiry_s as u64);
                }
            }
            Ok(())
        })
    }

    fn expire(&self, now_s: u64) -> Result<u64, Fault> {
        let mut dead = Vec::new();
        self.list([0; 20], [0xff; 20], &mut |key, expiry_s| {
            if expiry_s < now_s {
                dead.push(key_bytes(&key));
            }
        })?;
        for keys in dead.chunks(EXPIRY_BATCH) {
            let mut writer = self.writer();
            let transaction = writer.transaction()?;
            {
                let mut object = transaction.prepare_cached("DELETE FROM object WHERE key = ?1")?;
                let mut lease = transaction.prepare_cached("DELETE FROM lease WHERE key = ?1")?;
                for key in keys {
                    object.execute(params![key.as_slice()])?;
                    lease.execute(params![key.as_slice()])?;
                }
            }
            transaction.commit()?;
        }
        Ok(dead.len() as u64)
    }

    fn reclaim(&self) -> Result<Reclaimed, Fault> {
        let writer = self.writer();
        writer.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
        Ok(Reclaimed::Done)
    }

    fn settle(&self) -> Result<(), Fault> {
        // What is in the log is written a second time sooner or later; here it counts.
        Ok(self.writer().execute_batch("PRAGMA wal_checkpoint(PASSIVE);")?)
    }
}

/// A connection with its statement prepared, for one thread.
struct SqliteReader {
    connection: Connection,
}

impl Reader for SqliteReader {
    fn get(&mut self, key: &Key, see: &mut See<'_>) -> Result<bool, Fault> {
        show(&self.connection, key, see)
    }
}
