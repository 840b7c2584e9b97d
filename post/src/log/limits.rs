//! The bounds of logs.

use crate::limits::{BLOCK_BYTES_MAX, OBJECT_BYTES_MAX, SIGNED_BLOCK_BYTES_MAX};
use crate::seal::Reference;

/// Records in a full cluster: M of the POST paper.
pub const CLUSTER_RECORDS: usize = 50;
/// Back references of a record besides its predecessor.
pub const BACK_REFERENCES_MAX: usize = 4;
/// Most bytes of entries in one record.
pub const RECORD_ENTRIES_BYTES_MAX: usize = 3 << 20;
/// Most entries in one record.
pub const RECORD_ENTRIES_MAX: usize = 1 << 16;
/// What a record takes besides its entries, at most: magic, nonce, tag, links, and 5 bytes for each entry's length.
pub const RECORD_OVERHEAD_MAX: usize = 1_024 + 5 * RECORD_ENTRIES_MAX;
/// Largest encoded cluster block.
pub const CLUSTER_BYTES_MAX: usize = 4 << 10;
/// Most high-water marks in a head.
pub const MARKS_MAX: usize = 8;
/// How far ahead of use a high-water mark is replicated.
pub const MARK_STEP: u64 = 1_024;
/// Fewest entries after a snapshot before the next one is due.
pub const SNAPSHOT_ENTRIES_MIN: u64 = 500;
/// Most records after a snapshot: the next append waits for one, so that a log can always be opened again.
pub const RECORDS_SINCE_SNAPSHOT_MAX: u64 = 1 << 20;
/// A snapshot is cut into objects of this many bytes.
pub const SNAPSHOT_OBJECT_BYTES: usize = 32 << 20;
/// Most objects of one snapshot.
pub const SNAPSHOT_OBJECTS_MAX: usize = 32;

const _: () = assert!(RECORD_ENTRIES_BYTES_MAX + RECORD_OVERHEAD_MAX <= BLOCK_BYTES_MAX);
const _: () = assert!(CLUSTER_RECORDS * 34 + 256 <= CLUSTER_BYTES_MAX);
// The head lists a partial cluster, a snapshot and the marks, and stays far below a signed block.
const _: () = assert!(
    CLUSTER_RECORDS * 34 + SNAPSHOT_OBJECTS_MAX * (Reference::LEN + 3) + MARKS_MAX * 9 + 512 < SIGNED_BLOCK_BYTES_MAX
);
const _: () = assert!(BACK_REFERENCES_MAX < CLUSTER_RECORDS);
const _: () = assert!(SNAPSHOT_OBJECT_BYTES <= OBJECT_BYTES_MAX);
