//! Every bound of Glacier, in one place, with the relations between them checked when this compiles.

use crate::limits::FRAGMENTS_MAX;
use net::limits::{BLOCK_BYTES_MAX, BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use net::machine::{Micros, Seconds};

/// Most objects in one aggregate.
pub const OBJECTS_PER_AGGREGATE_MAX: usize = 4_096;
/// Largest aggregate, in bytes: the largest object, and room for a directory around it.
pub const AGGREGATE_BYTES_MAX: usize = BLOCK_BYTES_MAX + (4 << 10);
/// A fragment's data is a multiple of this many bytes, the widest vector of any kernel.
pub const FRAGMENT_STEP_BYTES: usize = 64;
/// Bytes of a fragment's header.
pub const HEADER_BYTES: usize = 44;
/// Bytes of a hash in a fragment.
pub const HASH_BYTES: usize = 32;
/// Most hashes on the way from a fragment up to the root: its index is a byte.
pub const PATH_HASHES_MAX: usize = 8;
/// Bytes at the start of an aggregate, before its directory.
pub const PREFACE_BYTES: usize = 8;
/// Bytes of one object's entry in the directory of an aggregate.
pub const ENTRY_BYTES: usize = 53;
/// Most codes (pairs of fragments needed and made) that a coder keeps prepared.
pub const CODES_KEPT_MAX: usize = 4;
/// Bytes of decoding plans kept for each of them.
pub const PLAN_BYTES_MAX: usize = 256 << 10;
/// Fragments whose data is made at a time: what the widest kernel makes at once.
pub const CODE_ROWS: usize = 8;
/// Bytes of each of them that are made, and hashed, before the next ones: all of them stay in a second-level cache, and are a
/// multiple of what is hashed at once.
pub const CODE_BLOCK_BYTES: usize = 32 << 10;
/// Smallest piece of memory for fragments that is kept to be used again.
pub const SLAB_BYTES_MIN: usize = 256 << 10;
/// Most bytes of them in the process: the fragments of the largest aggregate, with 5 of 56 that suffice, are 45 MiB.
pub const SLABS_KEPT_BYTES_MAX: usize = 48 << 20;
/// Most coders kept between computations: as many as there are workers, as a rule.
pub const CODERS_KEPT_MAX: usize = 2;

/// Largest value a fragment can be: all of the largest aggregate, of which one fragment suffices.
pub const FRAGMENT_BYTES_MAX: usize =
    HEADER_BYTES + PATH_HASHES_MAX * HASH_BYTES + AGGREGATE_BYTES_MAX.next_multiple_of(FRAGMENT_STEP_BYTES);

// The largest object fits alone, and a fragment of it travels and is stored as objects are.
const _: () = assert!(PREFACE_BYTES + ENTRY_BYTES + BLOCK_BYTES_MAX <= AGGREGATE_BYTES_MAX);
const _: () = assert!(FRAGMENT_BYTES_MAX <= PAYLOAD_BYTES_MAX);
// The fullest directory leaves most of an aggregate to what it lists.
const _: () = assert!(PREFACE_BYTES + OBJECTS_PER_AGGREGATE_MAX * ENTRY_BYTES <= AGGREGATE_BYTES_MAX / 16);
// The memory for any aggregate of the customary profile is used again.
const _: () = assert!(56 * (AGGREGATE_BYTES_MAX / 5 + (1 << 10)) <= SLABS_KEPT_BYTES_MAX);
const _: () = assert!(CODE_BLOCK_BYTES.is_multiple_of(FRAGMENT_STEP_BYTES));
// Lengths are written in four bytes, indexes in one, and a path is as long as the tree is deep.
const _: () = assert!(AGGREGATE_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(1 << PATH_HASHES_MAX == FRAGMENTS_MAX);

// --- what one node's Glacier holds, waits for, and does at once -----------------------------------------------------

/// One second of machine time.
pub const SECOND: Micros = net::limits::SECOND;
/// One day of machine time.
pub const DAY: Micros = 86_400 * SECOND;

/// Most keys in one message.
pub const KEYS_PER_MESSAGE_MAX: usize = 1_000;
/// Requests that await an answer.
pub const CALLS_MAX: usize = 8_192;
/// How often a request is sent before its receiver counts as silent.
pub const CALL_TRIES: u8 = 3;
/// How long one try waits, and how much longer for what it carries.
pub const CALL_WAIT: Micros = 2 * SECOND;
/// See [`CALL_WAIT`].
pub const CALL_WAIT_PER_64_KIB: Micros = SECOND / 4;
/// Storage operations and computations under way.
pub const OPERATIONS_MAX: usize = 1_024;

/// Period in which what a node keeps is reported to its stewards, less up to a tenth. A report goes to about two hosts an
/// index, and is answered: with 56 fragments some 220 messages, 0.6 a minute.
pub const ROUND: Micros = 6 * 3_600 * SECOND;
/// When there is news that stewards should hear.
pub const ROUND_SOON: Micros = 10 * SECOND;
/// A host whose disk is empty again within this is listened to, and not hurried for.
pub const EMPTIED_AGAIN: Micros = 300 * SECOND;
/// Reports, or pages of listings, that await an answer.
pub const REPORTS_OPEN_MAX: usize = 32;
/// How often an empty disk is told of, and how long after the first time the second: when the transport has noticed that who was
/// there before is gone.
pub const NOTICES: u8 = 2;
/// See [`NOTICES`].
pub const NOTICE_AGAIN: Micros = 40 * SECOND;
/// Notices of an empty disk that await an answer.
pub const NOTICES_OPEN_MAX: usize = 32;

/// Most aggregates a node is steward of.
pub const WATCHED_MAX: usize = 1 << 20;
/// Most keys of lists that are still coming in, over all keepers.
pub const INCOMING_MAX: usize = 1 << 22;
/// Most fragments known to lie with others than their holders: there are many only while a newer ring document's places are being
/// taken.
pub const STRAYS_MAX: usize = 1 << 20;
/// A host that was not heard of for so long has lost what it had: before, nothing is built anew for it.
pub const ABSENCE: Micros = 14 * DAY;
/// Below so many times the fragments needed that can be had now, the memory of absent hosts does not count.
pub const DANGER: usize = 3;
/// How often the list of what is endangered is looked at.
pub const TEND: Micros = 60 * SECOND;
/// Aggregates repaired at once.
pub const REPAIRS_OPEN_MAX: usize = 4;
/// Bytes a second that repair may move, on the average.
pub const REPAIR_BYTES_PER_SECOND: u64 = 8 << 20;

/// Fragments of a node's disk that are looked through at once for those that are another's to hold.
pub const HANDING_PAGE: usize = 64;
/// And how long it does something else then.
pub const HANDING_PAUSE: Micros = SECOND / 20;
/// How long after a pass that could not hand over all the next one begins.
pub const HANDING_AGAIN: Micros = 3_600 * SECOND;
/// Fragments handed over at once.
pub const HANDINGS_OPEN_MAX: usize = 4;
/// Bytes a second that are handed over, on the average.
pub const HANDING_BYTES_PER_SECOND: u64 = 8 << 20;

/// Aggregates inspected at once.
pub const INSPECTIONS_OPEN_MAX: usize = 4;
/// Objects put back into PAST at once, of one aggregate.
pub const RESTORES_OPEN_MAX: usize = 8;
/// After so many hosts have lost their disks within [`AUDIT_MEMORY`], stewards look whether objects were lost with them. PAST
/// itself mends what one host lost.
pub const HOSTS_LOST_AUDIT: usize = 2;
/// See [`HOSTS_LOST_AUDIT`].
pub const AUDIT_MEMORY: Micros = DAY;
/// How long after the last such news.
pub const AUDIT_SOON: Micros = 20 * SECOND;
/// For so long after such news keepers are still telling stewards what there is.
pub const FINDING_OUT: Micros = 60 * SECOND;
/// An inspection that could not be completed is begun again after this, and then after twice as long each time.
pub const INSPECTION_AGAIN: Micros = 30 * SECOND;
/// So often at most.
pub const INSPECTION_DOUBLINGS_MAX: u8 = 6;
/// An object whose lease had ended when it was put back has at least so long to be claimed.
pub const RESTORED_LEASE_S: Seconds = 7 * 86_400;

/// Bytes of objects that make a good aggregate.
pub const AGGREGATE_BYTES_GOOD: usize = 1 << 20;
/// Aggregates below this are moved into larger ones when their lease is half over, and get a short lease to begin with.
pub const AGGREGATE_BYTES_SMALL: usize = 256 << 10;
/// The lease of a small aggregate.
pub const SMALL_LEASE_S: Seconds = 8 * 86_400;
/// An aggregate of which less than this share is live, in percent, is moved when it is inspected.
pub const LIVE_SHARE_MIN: usize = 50;
/// A log's head is in an aggregate so long after it was stored, with everything that waits: with what coding and sending take
/// within a minute.
pub const FLUSH_HEADS: Micros = 20 * SECOND;
/// Other objects wait so long for more of them.
pub const FLUSH: Micros = 600 * SECOND;
/// How long after an aggregate could not be written the next attempt is made.
pub const FLUSH_AGAIN: Micros = 20 * SECOND;
/// Most bytes of objects that wait.
pub const PENDING_BYTES_MAX: usize = 64 << 20;
/// What waits is noted on the disk so long after it began to.
pub const NOTE_PAUSE: Micros = SECOND / 4;
/// How long after a note could not be written, or an object not be fetched, it is tried again.
pub const NOTE_AGAIN: Micros = 20 * SECOND;
/// Most objects in a note.
pub const NOTE_ENTRIES_MAX: usize = 1_000;
/// Most objects that are noted and not at hand.
pub const NOTED_MAX: usize = 1 << 18;
/// Noted objects that are fetched at once.
pub const RECALLS_OPEN_MAX: usize = 8;
/// An object that is nowhere after so many tries is given up.
pub const RECALL_TRIES: u8 = 30;
/// Most keys remembered of objects that were written.
pub const WRITTEN_MAX: usize = 1 << 16;

const _: () = assert!(KEYS_PER_MESSAGE_MAX * 46 + 256 <= BODY_BYTES_MAX);
const _: () = assert!(2 * 256 * (REPAIRS_OPEN_MAX + INSPECTIONS_OPEN_MAX + 1) <= CALLS_MAX);
const _: () = assert!(ABSENCE > 4 * ROUND);
const _: () = assert!(AGGREGATE_BYTES_GOOD <= AGGREGATE_BYTES_MAX);
// A round begins, and lists, before it is over.
const _: () = assert!(FINDING_OUT > AUDIT_SOON + ROUND_SOON);
// Until the second notice it is not said that nothing is to be restored.
const _: () = assert!(FINDING_OUT > NOTICE_AGAIN + ROUND_SOON && NOTICE_AGAIN < EMPTIED_AGAIN);
const _: () = assert!(FLUSH_HEADS + FLUSH_AGAIN < 60 * SECOND);
// A key in CBOR takes 35 bytes, a number at most 9.
const _: () = assert!(NOTE_ENTRIES_MAX * (35 + 9 + 9 + 1) + 8 <= BLOCK_BYTES_MAX);
