//! Every bound of the engine, in one place, with the relations between them checked when it is compiled.

/// The unit of alignment of everything in a segment: what O_DIRECT asks for.
pub const BLOCK: usize = 4096;
/// The unit a disk writes atomically, by assumption (see `docs/formats.md`).
pub const SECTOR: usize = 512;
/// Largest value: a 4 MiB object with the envelope its block kind puts around it.
pub const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024 + 64 * 1024;
/// A batch closes when it has grown past this; a single larger value makes a batch of its own.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// Batches in flight at once per shard. More would not hide more latency, and would widen the unacknowledged tail.
pub const BATCHES_IN_FLIGHT: usize = 2;
/// Leases in one `TouchMany`.
pub const LEASES_PER_REQUEST: usize = 16_384;
/// Entries in one answer to a `Scan`.
pub const SCAN_ENTRIES_MAX: usize = 16_384;
/// Smallest segment; only tests want them this small.
pub const SEGMENT_BYTES_MIN: u32 = 64 * 1024;
/// Largest segment: offsets inside one are 32 bits, and recovery reads one at a time into memory.
pub const SEGMENT_BYTES_MAX: u32 = 1024 * 1024 * 1024;
/// Down to this a configured segment size is reduced by itself to fit a small capacity; below, the caller must ask.
pub const SEGMENT_BYTES_MODEST: u32 = 8 * 1024 * 1024;
/// Fewest segments a shard's capacity must hold: open, next, the reserve, and some to clean.
pub const SEGMENTS_MIN: u64 = 8;
/// Free segments that puts may not use: leases and removals take the first, sweeps the second, cleaning the last.
pub const SEGMENTS_RESERVED: u64 = 3;
/// Dead segments kept for recycling instead of being unlinked, per shard.
pub const SPARE_SEGMENTS: usize = 1;
/// A segment's file grows in steps of this many bytes, so that an almost empty store stays small.
pub const RESERVE_STEP: u32 = 4 * 1024 * 1024;
/// Bytes of recent batches a shard keeps in memory to serve reads of the open segment.
pub const TAIL_BYTES: usize = 8 * 1024 * 1024;
/// Values up to this size are copied out of a mapping or a batch, so that a slow consumer cannot pin it.
pub const SMALL_VALUE: usize = 1024;
/// Reads in flight at once per shard; more wait in line.
pub const READS_IN_FLIGHT: usize = 256;
/// Records cleaning has in flight at once.
pub const CLEANING_IN_FLIGHT: usize = 32;
/// Survivors are gathered to this many bytes before they are written, so that batches of small ones are not mostly padding.
pub const SURVIVOR_BYTES: usize = 256 * 1024;
/// Segments cleaned after one sweep.
pub const VICTIMS_PER_SWEEP: usize = 4;
/// After a sweep, sealed segments with less than this percentage live are cleaned.
pub const CLEAN_BELOW_PERCENT: u64 = 50;
/// When free segments run short, sealed segments with less than this percentage live are cleaned.
pub const CLEAN_PRESSED_PERCENT: u64 = 90;
/// A checkpoint is due when the log behind it has grown by this (or twice the checkpoint, if that is more).
pub const CHECKPOINT_LOG_BYTES: u64 = 256 * 1024 * 1024;
/// Checkpoints and recovery move bytes in chunks of this size.
pub const CHUNK: usize = 1024 * 1024;
/// An arc of the index with this many objects is split in two; rebuilding one takes a few milliseconds.
pub const ARC_OBJECTS_MAX: usize = 48 * 1024;
/// So many entries appended since the last run are written as a run; each takes about 130 bytes of memory until then.
pub const RECENTS_MAX: usize = 16 * 1024;
/// Runs merged into one of the next level: an entry is rewritten once a level, and there are fewer than this many of each.
pub const RUN_FAN_IN: usize = 8;
/// Largest read of a walk in one run. A walk holds one such buffer for each run.
pub const WALK_CHUNK_BYTES: usize = 256 * 1024;
/// Slots whose leases a sweep looks at in one turn (128 KiB of them).
pub const SWEEP_QUANTUM_SLOTS: usize = 64 * 1024;
/// Shards in one store.
pub const SHARDS_MAX: usize = 64;
/// Operations a shard's mailbox holds; the capacities of all open ports share it.
pub const MAILBOX: usize = 8192;
/// Operations a shard takes from its mailbox before it turns to the disk again.
pub const MAIL_PER_TURN: usize = 512;
/// Submission entries of a shard's ring.
pub const RING_ENTRIES: u32 = 1024;
/// Failures to make data durable that a shard survives; the next one makes it read-only.
pub const WRITE_FAULTS_SURVIVED: u64 = 1;
/// Segment number space: a file name has eight hexadecimal digits.
pub const SEGMENT_NUMBER_MAX: u32 = u32::MAX - 1;

const _: () = assert!(BLOCK.is_multiple_of(SECTOR));
const _: () = assert!((SEGMENT_BYTES_MIN as usize).is_multiple_of(BLOCK));
const _: () = assert!((RESERVE_STEP as usize).is_multiple_of(BLOCK));
const _: () = assert!(SEGMENT_BYTES_MODEST as usize > VALUE_BYTES_MAX + 4 * BLOCK, "the largest value fits a segment");
const _: () = assert!(SEGMENT_BYTES_MAX as usize <= u32::MAX as usize);
const _: () = assert!(SEGMENTS_RESERVED + 3 < SEGMENTS_MIN, "open, next and one to clean besides the reserve");
const _: () = assert!(READS_IN_FLIGHT + CLEANING_IN_FLIGHT + BATCHES_IN_FLIGHT + 64 < RING_ENTRIES as usize);
const _: () = assert!(LEASES_PER_REQUEST * 20 < VALUE_BYTES_MAX, "a lease record is no larger than a value");
const _: () = assert!(MAIL_PER_TURN <= MAILBOX);
const _: () = assert!(WALK_CHUNK_BYTES.is_multiple_of(BLOCK));
const _: () = assert!(ARC_OBJECTS_MAX <= SWEEP_QUANTUM_SLOTS, "a quantum holds an arc, which is never cut");
const _: () = assert!(RUN_FAN_IN >= 2);
/// Largest file recovery reads into memory: a segment, or a checkpoint of the largest index.
pub const FILE_BYTES_MAX: usize = 4 * SEGMENT_BYTES_MAX as usize;
