//! What the caller decides when opening a store.

use std::path::PathBuf;

/// Settings of a store. Start from [`Config::new`] and change what you must.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store's directory; made if it does not exist.
    pub dir: PathBuf,
    /// Shard threads. Fixed when the store is made; an existing store keeps its own number.
    pub shards: usize,
    /// Bytes the whole store may use on disk.
    pub capacity_bytes: u64,
    /// Largest segment. Reduced (to no less than 8 MiB) by itself when the capacity is small.
    pub segment_bytes: u32,
    /// Resolution of leases in seconds. Fixed when the store is made.
    pub tick_s: u32,
    /// An object is removed only when its lease ended more than this many seconds ago.
    pub grace_s: u64,
    /// When "now" is further than this from the last sweep, the clock is not believed and nothing is deleted until
    /// [`crate::Request::ConfirmClock`].
    pub clock_jump_s: u64,
    /// Most objects per shard: the bound on the index's memory.
    pub objects_per_shard_max: usize,
    /// Pin each shard's thread to a processor, where the system allows it.
    pub pin: bool,
}

impl Config {
    /// The usual settings for a store in `dir`: two shards, 16 GiB, one-hour ticks and grace.
    pub fn new(dir: impl Into<PathBuf>) -> Config {
        Config {
            dir: dir.into(),
            shards: 2,
            capacity_bytes: 16 << 30,
            segment_bytes: 64 << 20,
            tick_s: 3600,
            grace_s: 3600,
            clock_jump_s: 14 * 24 * 3600,
            objects_per_shard_max: 20_000_000,
            pin: true,
        }
    }
}
