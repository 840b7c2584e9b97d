//! Bytes of the index on disk: an arc and the recents in a checkpoint, and the rows of an expiry record.
//!
//! `docs/formats.md` draws them. All numbers are little-endian. An arc is its arrays as they lie in memory, so that opening a
//! store is copying; they are believed only when the checksum fits *and* every invariant of the table holds, so that no bytes
//! whatever make later code panic.

use super::arc::{Arc, Digest};
use super::hash::{BUCKET, KeyHash};
use super::locator::Locator;
use super::table::Table;
use crate::format::run::RunEntry;
use crate::format::{Damage, checksum};
use std::collections::BTreeMap;

/// Bytes of an arc before its arrays.
const ARC_HEADER: usize = 72;
/// Bytes of one bucket in the three arrays.
const BUCKET_BYTES: usize = BUCKET * Table::SLOT_BYTES;
const STASHED: usize = 8 + Locator::SIZE + 2 + 4;
const FAR_ENTRY: usize = 8;
/// Bytes before the entries of the recents.
const RECENTS_HEADER: usize = 16;

/// The bytes of an arc.
pub(crate) fn encode_arc(arc: &Arc, seed: u64) -> Vec<u8> {
    let table = &arc.table;
    let count = |length: usize| u32::try_from(length).expect("a table has fewer than 2^32 slots");
    let parts = table.tags.len() * BUCKET_BYTES + table.stash.len() * STASHED + table.far.len() * FAR_ENTRY;
    let mut bytes = Vec::with_capacity(ARC_HEADER + parts);
    bytes.extend_from_slice(&[0; 8]);
    for word in [arc.low, arc.high, arc.digest.count] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&arc.digest.sum.to_le_bytes());
    let counts = [count(table.tags.len()), table.occupied, count(table.stash.len()), count(table.far.len())];
    for word in [table.base].into_iter().chain(counts).chain([u32::from(arc.is_stale)]) {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    assert_eq!(bytes.len(), ARC_HEADER);
    put_column(&mut bytes, table.tags.as_flattened());
    put_column(&mut bytes, table.leases.as_flattened());
    bytes.extend_from_slice(table.locators.as_flattened().as_flattened());
    for ((hash, locator), tick) in &table.stash {
        bytes.extend_from_slice(&hash.0.to_le_bytes());
        bytes.extend_from_slice(&locator.to_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&tick.to_le_bytes());
    }
    for (slot, tick) in &table.far {
        bytes.extend_from_slice(&slot.to_le_bytes());
        bytes.extend_from_slice(&tick.to_le_bytes());
    }
    seal(&mut bytes, seed);
    bytes
}

/// The arc at the start of `bytes`, and how many of them it takes.
pub(crate) fn decode_arc(bytes: &[u8], seed: u64) -> Result<(Arc, usize), Damage> {
    let mut fields = Fields(bytes);
    let check = fields.u64()?;
    let (low, high) = (fields.u64()?, fields.u64()?);
    let digest = Digest { count: fields.u64()?, sum: u128::from_le_bytes(*fields.take()?) };
    let [base, buckets, occupied, stash, far, stale] = [(); 6].map(|()| fields.u32());
    let (buckets, stash, far) = (buckets? as usize, stash? as usize, far? as usize);
    let length = arc_bytes(buckets, stash, far).ok_or(Damage::Short)?;
    let sealed = bytes.get(8..length).ok_or(Damage::Short)?;
    if checksum::of(sealed, seed) != check {
        return Err(Damage::Checksum);
    }
    let table = Table {
        base: base?,
        occupied: occupied?,
        tags: column(fields.slice(buckets * 2 * BUCKET)?),
        leases: column(fields.slice(buckets * 2 * BUCKET)?),
        locators: locators(fields.slice(buckets * Locator::SIZE * BUCKET)?),
        stash: ascending((0..stash).map(|_| stashed(&mut fields)))?,
        far: ascending((0..far).map(|_| Ok((fields.u32()?, fields.u32()?))))?,
    };
    let stale = stale?;
    let is_whole = table.stash.len() == stash && table.far.len() == far;
    let is_counted = stale == 1 || (stale == 0 && digest.count == table.len() as u64);
    if low > high || !is_whole || !is_counted || table.flaw().is_some() {
        return Err(Damage::Checksum);
    }
    let mut arc = Arc::new(low, high, table);
    (arc.digest, arc.is_stale) = (digest, stale == 1);
    Ok((arc, length))
}

/// How many bytes the arc at the start of `bytes` takes by its own account.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn arc_length(bytes: &[u8]) -> Option<usize> {
    let counts = bytes.get(52..68)?.as_chunks::<4>().0;
    let [buckets, _, stash, far] = [0, 1, 2, 3].map(|at| u32::from_le_bytes(counts[at]) as usize);
    arc_bytes(buckets, stash, far)
}

/// How many bytes the recents at the start of `bytes` take by their own account.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn recents_length(bytes: &[u8]) -> Option<usize> {
    let count = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    usize::try_from(count).ok()?.checked_mul(RunEntry::SIZE)?.checked_add(RECENTS_HEADER)
}

/// The recents as bytes.
pub(crate) fn encode_recents(entries: impl Iterator<Item = RunEntry>, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; RECENTS_HEADER];
    let mut count: u64 = 0;
    for entry in entries {
        bytes.extend_from_slice(&entry.encode());
        count += 1;
    }
    bytes[8..RECENTS_HEADER].copy_from_slice(&count.to_le_bytes());
    seal(&mut bytes, seed);
    bytes
}

/// The recents at the start of `bytes`, and how many of them they take.
pub(crate) fn decode_recents(bytes: &[u8], seed: u64) -> Result<(Vec<RunEntry>, usize), Damage> {
    let mut fields = Fields(bytes);
    let check = fields.u64()?;
    let count = usize::try_from(fields.u64()?).map_err(|_| Damage::Short)?;
    let rows = fields.slice(count.checked_mul(RunEntry::SIZE).ok_or(Damage::Short)?)?;
    let length = RECENTS_HEADER + rows.len();
    if checksum::of(&bytes[8..length], seed) != check {
        return Err(Damage::Checksum);
    }
    let (rows, _) = rows.as_chunks::<{ RunEntry::SIZE }>();
    Ok((rows.iter().map(RunEntry::decode).collect(), length))
}

/// One removal by expiry, as it is logged: what replay needs to remove exactly this entry, and to keep its arc's digest true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpiryRow {
    /// The first eight bytes of the placement id, as a number.
    pub(crate) position: u64,
    pub(crate) hash: KeyHash,
    pub(crate) locator: Locator,
    /// What the entry added to its arc's digest.
    pub(crate) element: u128,
}

impl ExpiryRow {
    /// Bytes on disk.
    pub(crate) const SIZE: usize = 40;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.hash.0.to_le_bytes());
        bytes[16..22].copy_from_slice(&self.locator.to_bytes());
        bytes[24..].copy_from_slice(&self.element.to_le_bytes());
        bytes
    }

    /// All rows of a payload; a remainder that is no row is left out.
    pub(crate) fn all(payload: &[u8]) -> impl Iterator<Item = ExpiryRow> + '_ {
        payload.as_chunks::<{ Self::SIZE }>().0.iter().map(|row| {
            let mut fields = Fields(row);
            let whole = "a row has all its fields";
            ExpiryRow {
                position: u64::from_be_bytes(*fields.take().expect(whole)),
                hash: KeyHash(fields.u64().expect(whole)),
                locator: Locator::from_bytes(*fields.take().expect(whole)),
                element: u128::from_le_bytes(*fields.pass(2).take().expect(whole)),
            }
        })
    }
}

/// A map from rows that must ascend, each key once, as they were written.
fn ascending<K: Ord, V>(rows: impl Iterator<Item = Result<(K, V), Damage>>) -> Result<BTreeMap<K, V>, Damage> {
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    if rows.is_sorted_by(|(before, _), (behind, _)| before < behind) {
        Ok(rows.into_iter().collect())
    } else {
        Err(Damage::Checksum)
    }
}

fn arc_bytes(buckets: usize, stash: usize, far: usize) -> Option<usize> {
    let parts = [buckets.checked_mul(BUCKET_BYTES)?, stash.checked_mul(STASHED)?, far.checked_mul(FAR_ENTRY)?];
    parts.into_iter().try_fold(ARC_HEADER, usize::checked_add)
}

/// Puts the checksum of everything behind the first eight bytes there.
fn seal(bytes: &mut [u8], seed: u64) {
    let check = checksum::of(&bytes[8..], seed);
    bytes[..8].copy_from_slice(&check.to_le_bytes());
}

fn put_column(bytes: &mut Vec<u8>, column: &[u16]) {
    let start = bytes.len();
    bytes.resize(start + column.len() * 2, 0);
    for (pair, word) in bytes[start..].as_chunks_mut().0.iter_mut().zip(column) {
        *pair = word.to_le_bytes();
    }
}

fn column(bytes: &[u8]) -> Vec<[u16; BUCKET]> {
    let buckets = bytes.as_chunks::<{ 2 * BUCKET }>().0.iter();
    let bucket = |bytes: &[u8; 2 * BUCKET]| {
        let mut words = [0; BUCKET];
        for (word, pair) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u16::from_le_bytes(*pair);
        }
        words
    };
    buckets.map(bucket).collect()
}

fn locators(bytes: &[u8]) -> Vec<[[u8; Locator::SIZE]; BUCKET]> {
    bytes.as_chunks().0.as_chunks().0.to_vec()
}

fn stashed(fields: &mut Fields<'_>) -> Result<((KeyHash, Locator), u32), Damage> {
    let hash = KeyHash(fields.u64()?);
    let locator = Locator::from_bytes(*fields.take()?);
    let padding: [u8; 2] = *fields.take()?;
    if padding != [0; 2] {
        return Err(Damage::Checksum);
    }
    Ok(((hash, locator), fields.u32()?))
}

/// Bytes of which fields are taken from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], Damage> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Passes over padding.
    fn pass(&mut self, length: usize) -> &mut Self {
        self.0 = self.0.get(length..).unwrap_or_default();
        self
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.take().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.take().map(|bytes| u32::from_le_bytes(*bytes))
    }
}
