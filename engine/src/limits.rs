//! Every bound of the engine, in one place, with the relations between them checked when it is compiled.

use std::time::Duration;

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
/// A batch that overlaps another is at least one part in so many as large.
pub const OVERLAP_SHARE: u64 = 2;
/// Leases in one `TouchMany`.
pub const LEASES_PER_REQUEST: usize = 16_384;
/// Entries in one answer to a `Scan`.
pub const SCAN_ENTRIES_MAX: usize = 16_384;
/// Smallest segment; only tests want them this small.
pub const SEGMENT_BYTES_MIN: u32 = 64 * 1024;
/// Largest segment: a locator has 22 bits for an offset in units of 64 bytes.
pub const SEGMENT_BYTES_MAX: u32 = 256 * 1024 * 1024;
/// Down to this a configured segment size is reduced by itself to fit a small capacity; below, the caller must ask.
pub const SEGMENT_BYTES_MODEST: u32 = 8 * 1024 * 1024;
/// Fewest segments a shard's capacity must hold: open, next, the reserve, and some to clean.
pub const SEGMENTS_MIN: u64 = 8;
/// Free segments that puts may not use: leases and removals take the first, sweeps the second, cleaning the last.
pub const SEGMENTS_RESERVED: u64 = 3;
/// Most dead segments kept for recycling instead of being unlinked, per shard.
pub const SPARE_SEGMENTS_MAX: usize = 16;
/// Of a shard's segments, one in so many may be a spare.
pub const SPARE_SHARE: u64 = 8;
/// A new segment's file begins with this many bytes and grows as it fills, so that an almost empty store stays small.
pub const STEP_BYTES: u32 = 1024 * 1024;
/// A file at most doubles in one step, and grows by at most so many times [`STEP_BYTES`].
pub const STEPS_AT_ONCE: u32 = 8;
/// Zeros are written ahead of need in chunks of this size, one at a time.
pub const ZEROS: usize = 64 * 1024;
/// No zeros are written while batches of more than one part in so many of such a chunk are in flight: written ground saves a
/// small batch more than its zeros cost, and a large one less.
pub const ZEROS_SHARE: u64 = 4;
/// In a store of fewer segments all classes share one open segment.
pub const SEGMENTS_FOR_CLASSES: u64 = 2 * SEGMENTS_MIN;
/// A class opens a segment of its own only while more segments than this are free; else it shares one.
pub const SEGMENTS_FREE_FOR_CLASSES: u64 = SEGMENTS_RESERVED + 2;
/// Requests set aside while a batch of another class is filled.
pub const SET_ASIDE: usize = 1024;
/// Dead records with so many bytes of whole blocks within their payload are punched: below, copying is worth more than a hole.
pub const PUNCH_BYTES_MIN: u32 = 32 * 1024;
/// Dead records that a shard remembers until a checkpoint lets it punch them; 24 bytes each. More are forgotten, counted.
pub const HOLES_NOTED_MAX: usize = 64 * 1024;
/// Punches in flight at once per shard: each takes the file system's journal, which batches need, too.
pub const PUNCHES_IN_FLIGHT: usize = 4;
/// Bytes of memory for recent batches that a shard keeps to serve reads of the open segments.
pub const TAIL_BYTES: usize = 4 * 1024 * 1024;
/// Memory for batches, per shard, registered with the kernel: how many buffers of how many bytes.
pub const BATCH_BUFFERS: [(usize, usize); 4] =
    [(64, 16 * 1024), (16, 64 * 1024), (8, 256 * 1024), (6, BATCH_BYTES + 64 * 1024)];
/// Values up to this size are copied out of a mapping, so that a slow consumer cannot pin it. The copy costs no more than the
/// counting of a reader on another processor.
pub const SMALL_VALUE: usize = 8 * 1024;
/// Segments mapped at once by the whole process; others are read. A segment is mapped twice, and the kernel allows 65,530
/// mappings unless told otherwise.
pub const MAPPED_SEGMENTS_MAX: usize = 16_384;
/// Memory a shard keeps for cold reads to come.
pub const READ_POOL_BYTES: usize = 8 * 1024 * 1024;
/// Reads in flight per shard that bring pages into memory to stay.
pub const WARMING_IN_FLIGHT: usize = 32;
/// Of these, so many bytes at most are copied out of the page cache on the shard's thread; more are for a worker of the kernel.
pub const WARMED_BY_SHARD: usize = 64 * 1024;
/// Reads in flight at once per shard; more wait in line.
pub const READS_IN_FLIGHT: usize = 256;
/// Seed of the elements of range digests: the same everywhere, since digests are compared between stores.
pub const DIGEST_SEED: u64 = 0x6550_4f53_5420_0002;
/// Entries that one walk, or the rebuild under way, takes in one turn of its shard.
pub const WALK_STEPS_PER_TURN: usize = 4096;
/// Entries that a walk takes at once, to look them up side by side.
pub const WALK_ENTRIES_PER_STEP: usize = 256;
/// Objects that one expiry record removes: the smallest segment holds it.
pub const EXPIRED_PER_RECORD: usize = 1024;
/// Pages of a run are gathered to this many bytes before they are written.
pub const RUN_WRITE_BYTES: usize = 256 * 1024;
/// A checkpoint is due when so many runs have been merged into others since the last: their files go with it.
pub const RETIRED_RUNS: usize = 16;
/// Writes of a checkpoint in flight at once.
pub const CHECKPOINT_WRITES_IN_FLIGHT: usize = 4;
/// Scrub reads stretches of this size, one at a time (a larger batch is read to its end).
pub const SCRUB_CHUNK: usize = CHUNK;
/// Records of a damaged segment that scrub reads at once.
pub const SCRUB_RECHECKS_IN_FLIGHT: usize = 8;
/// Of those records, so many are known ahead of reading.
pub const SCRUB_RECHECKS_LISTED: usize = 1024;
/// Bytes of a segment that cleaning looks at in one turn of its shard.
pub const CLEANING_PER_TURN: usize = 256 * 1024;
/// While clients write, cleaning reads one byte for so many of theirs.
pub const CLEANING_SHARE: usize = 2;
/// Survivors are gathered to this many bytes before they are written, so that batches of small ones are not mostly padding.
pub const SURVIVOR_BYTES: usize = 256 * 1024;
/// Segments cleaned after one sweep.
pub const VICTIMS_PER_SWEEP: usize = 4;
/// After a sweep, sealed segments with less than this percentage live are cleaned.
pub const CLEAN_BELOW_PERCENT: u64 = 50;
/// When free segments run short, sealed segments with less than this percentage live are cleaned; in small segments less,
/// see [`dense_percent`].
pub const CLEAN_PRESSED_PERCENT: u64 = 97;
/// Room that is kept for the index of each object: its entry in runs, of which as many may be dead as live, and once more while
/// they are merged (3 × 79 bytes), and its share of two checkpoints.
pub const INDEX_ROOM: u64 = 272;
/// A checkpoint is due when the runs merged into others since the last take more than so many times its bytes (or
/// of [`CHUNK`], if that is more).
pub const RETIRED_SHARE: u64 = 2;
/// A checkpoint is due when the log behind it has grown by this (or twice the checkpoint, if that is more).
pub const CHECKPOINT_LOG_BYTES: u64 = 256 * 1024 * 1024;
/// Checkpoints and recovery move bytes in chunks of this size.
pub const CHUNK: usize = 1024 * 1024;
/// Chunks that recovery has on their way to it, or before it, at once.
pub const CHUNKS_AHEAD: usize = 4;
/// Positions of about so many objects of a log say how an empty index is cut into arcs before it is replayed.
pub const POSITIONS_SAMPLED: usize = 4096;
/// Heads of segments that recovery reads at once.
pub const HEADS_AHEAD: usize = 64;
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
/// Damaged objects that an inspection names, per shard.
pub const DAMAGED_LISTED: usize = 1000;
/// Attempts to lock a store's directory before it counts as open elsewhere, and the pause behind each.
pub const LOCK_ATTEMPTS: u32 = 20;
/// See [`LOCK_ATTEMPTS`].
pub const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Shards in one store.
pub const SHARDS_MAX: usize = 64;
/// Operations a shard's mailbox holds; the capacities of all open ports share it.
pub const MAILBOX: usize = 8192;
/// Operations a shard takes from its mailbox before it turns to the disk again.
pub const MAIL_PER_TURN: usize = 512;
/// Of these, so many of one port before the next port's.
pub const MAIL_PER_SEAT: usize = 128;
/// How long a thread that has run out of work looks on before it sleeps.
pub const PATIENCE: Duration = Duration::from_micros(10);
/// Looking on in vain so many times ends it …
pub const PATIENCE_CREDIT: u32 = 8;
/// … until it has slept so many times.
pub const PATIENCE_RETRY: u32 = 64;
/// Submission entries of a shard's ring.
pub const RING_ENTRIES: u32 = 1024;
/// Failures to make data durable that a shard survives; the next one makes it read-only.
pub const WRITE_FAULTS_SURVIVED: u64 = 1;
/// Segment number space: a locator and a record name a segment by 16 bits.
pub const SEGMENT_NUMBER_MAX: u32 = u16::MAX as u32 - 1;

/// A segment of this size that survivors were packed into is live to more than so many percent: lost are its header, a block
/// for each batch's header and padding, and as much at the end as no record fitted into, taken for two blocks. To clean a
/// segment that is as dense would gain nothing.
#[must_use]
pub const fn dense_percent(segment_bytes: u32) -> u64 {
    let segment = segment_bytes as u64;
    let lost = BLOCK as u64 * (1 + segment.div_ceil(SURVIVOR_BYTES as u64) + 2);
    let percent = segment.saturating_sub(lost) * 100 / segment;
    let below = percent.saturating_sub(1);
    if below < CLEAN_PRESSED_PERCENT { below } else { CLEAN_PRESSED_PERCENT }
}

const _: () = assert!(dense_percent(SEGMENT_BYTES_MIN) > 70 && dense_percent(SEGMENT_BYTES_MODEST) == 97);
const _: () = assert!(CLEAN_BELOW_PERCENT < dense_percent(SEGMENT_BYTES_MIN));
const _: () = assert!(BLOCK.is_multiple_of(SECTOR));
const _: () = assert!((SEGMENT_BYTES_MIN as usize).is_multiple_of(BLOCK));
const _: () = assert!((STEP_BYTES as usize).is_multiple_of(BLOCK) && ZEROS.is_multiple_of(BLOCK));
const _: () = assert!(SEGMENT_BYTES_MAX as u64 <= 64 << 22, "a locator reaches every record");
const _: () = assert!(BATCH_BUFFERS[3].1 >= BATCH_BYTES + 3 * BLOCK, "a full batch with a segment's header fits");
const _: () = assert!(TAIL_BYTES + BATCHES_IN_FLIGHT * BATCH_BUFFERS[3].1 <= BATCH_BUFFERS[3].0 * BATCH_BUFFERS[3].1);
const _: () = assert!(SEGMENT_BYTES_MODEST as usize > VALUE_BYTES_MAX + 4 * BLOCK, "the largest value fits a segment");
const _: () = assert!(SEGMENT_BYTES_MAX as usize <= u32::MAX as usize);
const _: () = assert!(SEGMENTS_RESERVED + 3 < SEGMENTS_MIN, "open, next and one to clean besides the reserve");
const _: () = assert!(SCRUB_RECHECKS_IN_FLIGHT < READS_IN_FLIGHT && SCRUB_CHUNK.is_multiple_of(BLOCK));
const _: () = assert!(READS_IN_FLIGHT + BATCHES_IN_FLIGHT + 64 < RING_ENTRIES as usize);
const _: () = assert!(LEASES_PER_REQUEST * 20 < VALUE_BYTES_MAX, "a lease record is no larger than a value");
const _: () = assert!(2 * MAPPED_SEGMENTS_MAX < 65_530);
const _: () = assert!(WARMING_IN_FLIGHT < READS_IN_FLIGHT, "reads that bring pages in leave room for others");
const _: () = assert!(CHUNK.is_multiple_of(BLOCK) && (CHUNK / BLOCK).is_power_of_two());
const _: () = assert!(CHUNKS_AHEAD * CHUNK <= READ_POOL_BYTES);
const _: () = assert!(HEADS_AHEAD <= READS_IN_FLIGHT && CHUNKS_AHEAD <= HEADS_AHEAD);
const _: () = assert!(WARMED_BY_SHARD < CHUNK && SMALL_VALUE <= WARMED_BY_SHARD);
const _: () = assert!(MAIL_PER_TURN <= MAILBOX);
const _: () = assert!(MAIL_PER_SEAT <= MAIL_PER_TURN);
const _: () = assert!(SHARDS_MAX <= u64::BITS as usize, "a port notes shards as bits");
const _: () = assert!(WALK_ENTRIES_PER_STEP <= WALK_STEPS_PER_TURN && WALK_ENTRIES_PER_STEP < SCAN_ENTRIES_MAX);
const _: () = assert!(WALK_CHUNK_BYTES.is_multiple_of(BLOCK));
const _: () = assert!(ARC_OBJECTS_MAX <= SWEEP_QUANTUM_SLOTS, "a quantum holds an arc, which is never cut");
const _: () = assert!(RUN_FAN_IN >= 2);
const _: () = assert!((PUNCH_BYTES_MIN as usize).is_multiple_of(BLOCK) && PUNCH_BYTES_MIN > 0);
const _: () = assert!((PUNCH_BYTES_MIN as usize) < VALUE_BYTES_MAX);
/// Largest file recovery reads into memory: a segment, or a checkpoint of the largest index.
pub const FILE_BYTES_MAX: usize = 16 * SEGMENT_BYTES_MAX as usize;
