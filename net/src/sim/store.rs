//! A node's store in memory, with the rules that [`crate::machine::StorageOperation`] sets for a real one.

use crate::id::{Id, Key, Kind, Name};
use crate::machine::{Listed, Seconds, StorageOperation, StorageResult, Stored};
use std::collections::BTreeMap;

/// Objects by key, in ring order.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: BTreeMap<Key, Stored>,
    /// Refuses every put while set.
    pub is_full: bool,
    /// Refuses what would make it hold more bytes than this, if set.
    pub capacity_bytes: Option<u64>,
    used_bytes: u64,
}

impl MemoryStore {
    /// Performs one operation.
    pub fn perform(&mut self, operation: StorageOperation) -> StorageResult {
        match operation {
            StorageOperation::Get { key } => StorageResult::Got(self.objects.get(&key).cloned()),
            StorageOperation::Put { key, version, expiry, value } => self.put(key, Stored { version, expiry, value }),
            StorageOperation::Touch { leases } => {
                let mut known = 0;
                for (key, expiry) in leases {
                    if let Some(object) = self.objects.get_mut(&key) {
                        object.expiry = object.expiry.max(expiry);
                        known += 1;
                    }
                }
                StorageResult::Touched { known }
            }
            StorageOperation::Remove { key } => StorageResult::Removed(!key.kind.is_mutable() && self.lose(&key)),
            StorageOperation::Scan { from, to, after, limit } => {
                StorageResult::Listed(self.scan(from, to, after, limit))
            }
        }
    }

    /// Deletes what expired more than `grace_s` ago, and before `agreed`; returns how many.
    pub fn sweep(&mut self, now_s: Seconds, grace_s: Seconds, agreed: Seconds) -> usize {
        let before = self.objects.len();
        let end = now_s.saturating_sub(grace_s).min(agreed);
        self.objects.retain(|_, object| object.expiry >= end);
        self.used_bytes = self.objects.values().map(|object| object.value.len() as u64).sum();
        before - self.objects.len()
    }

    /// The object under this key, for a checker.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Stored> {
        self.objects.get(key)
    }

    /// Bytes of all objects.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Every object, for a checker.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Stored)> {
        self.objects.iter()
    }

    /// Loses an object, as a damaged disk does; returns whether it was there.
    pub fn lose(&mut self, key: &Key) -> bool {
        let lost = self.objects.remove(key);
        self.used_bytes -= lost.as_ref().map_or(0, |object| object.value.len() as u64);
        lost.is_some()
    }

    /// Puts any bytes under a key, as a lying disk or owner does.
    pub fn tamper(&mut self, key: Key, object: Stored) {
        self.used_bytes += object.value.len() as u64;
        let before = self.objects.insert(key, object);
        self.used_bytes -= before.map_or(0, |object| object.value.len() as u64);
    }

    fn put(&mut self, key: Key, offered: Stored) -> StorageResult {
        let held_bytes = self.objects.get(&key).map_or(0, |held| held.value.len() as u64);
        let bytes = self.used_bytes - held_bytes + offered.value.len() as u64;
        if self.is_full || self.capacity_bytes.is_some_and(|capacity| bytes > capacity) {
            return StorageResult::Failed;
        }
        let Some(held) = self.objects.get_mut(&key) else {
            self.objects.insert(key, offered);
            self.used_bytes = bytes;
            return StorageResult::Put;
        };
        let expiry = held.expiry.max(offered.expiry);
        if !key.kind.is_mutable() || (held.version == offered.version && held.value == offered.value) {
            held.expiry = expiry;
        } else if held.version < offered.version {
            *held = Stored { expiry, ..offered };
            self.used_bytes = bytes;
        } else {
            return StorageResult::Superseded { version: held.version };
        }
        StorageResult::Put
    }

    fn scan(&self, from: Id, to: Id, after: Option<Key>, limit: usize) -> Vec<Listed> {
        let (first, last) = (least(from), greatest(to));
        let wraps = from > to;
        let upper = self.objects.range(first..=if wraps { greatest(Id([0xff; 20])) } else { last });
        let lower = self.objects.range(least(Id::default())..=if wraps { last } else { least(Id::default()) });
        let lower = lower.take(if wraps { usize::MAX } else { 0 });
        // In scan order a key comes after another if it is further clockwise from `from`.
        let place = |key: &Key| (from.clockwise(key.placement()), *key);
        let is_later = |key: &Key| after.is_none_or(|after| place(key) > place(&after));
        let listed =
            |(key, object): (&Key, &Stored)| Listed { key: *key, version: object.version, expiry: object.expiry };
        upper.chain(lower).filter(|(key, _)| is_later(key)).take(limit).map(listed).collect()
    }
}

fn least(id: Id) -> Key {
    let mut name = [0; 32];
    name[..Id::LEN].copy_from_slice(&id.0);
    Key { name: Name(name), kind: Kind::Content }
}

fn greatest(id: Id) -> Key {
    let mut name = [0xff; 32];
    name[..Id::LEN].copy_from_slice(&id.0);
    Key { name: Name(name), kind: Kind::Note }
}
