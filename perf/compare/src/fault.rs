//! Why a comparison, or one row of it, came to nothing.

use std::io;

/// What went wrong, and in whose house.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The person at the keyboard asked us to stop; scratch files are removed on the way out.
    #[error("interrupted")]
    Interrupted,
    /// A file, a thread or a process failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The engine could not be opened.
    #[error("engine: {0}")]
    Open(#[from] engine::OpenError),
    /// The engine refused an operation.
    #[error("engine: {0}")]
    Engine(#[from] engine::Error),
    /// RocksDB.
    #[cfg(feature = "rocksdb")]
    #[error("rocksdb: {0}")]
    Rocks(#[from] rocksdb::Error),
    /// fjall.
    #[error("fjall: {0}")]
    Fjall(#[from] fjall::Error),
    /// redb.
    #[error("redb: {0}")]
    Redb(Box<redb::Error>),
    /// LMDB.
    #[error("lmdb: {0}")]
    Lmdb(#[from] heed::Error),
    /// SQLite.
    #[error("sqlite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A report could not be written as JSON, or fio's could not be read.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A child process, or fio, ended badly.
    #[error("{program} failed: {said}")]
    Child {
        /// Which.
        program: String,
        /// Its last words.
        said: String,
    },
    /// The committing thread behind a batcher has ended.
    #[error("the batcher has ended")]
    BatcherEnded,
    /// A batch failed as a whole; the text is that of the store's own error.
    #[error("a batch was not committed: {0}")]
    Batch(String),
    /// A store gave another answer than it must: the figure would be of something else.
    #[error("{store}: expected {expected}, got {got}")]
    Wrong {
        /// Which store.
        store: &'static str,
        /// What was due.
        expected: &'static str,
        /// What came.
        got: String,
    },
}

/// redb has an error per kind of operation; all of them fit into its general one.
pub(crate) fn redb_fault(error: impl Into<redb::Error>) -> Fault {
    Fault::Redb(Box::new(error.into()))
}
