//! Every bound of the overlay, in one place, with the relations between them checked when this compiles.
//!
//! A table at its bound drops, counts the drop ([`crate::machine::Metric::Dropped`]) or answers
//! [`crate::machine::Reply::Busy`]; nothing grows with what strangers send.

use crate::machine::Micros;

/// One second of machine time.
pub const SECOND: Micros = 1_000_000;
/// One millisecond of machine time.
pub const MILLISECOND: Micros = 1_000;

// --- wire ---------------------------------------------------------------------------------------------------

/// Largest CBOR body of a frame, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Largest object a block may be, in bytes.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Largest raw payload of a frame, in bytes: an object and room for what encloses it.
pub const PAYLOAD_BYTES_MAX: usize = BLOCK_BYTES_MAX + (64 << 10);
/// Largest datagram body: it must fit the smallest path a QUIC datagram may meet.
pub const DATAGRAM_BODY_BYTES_MAX: usize = 1_100;
/// A payload above this travels in the bulk lane.
pub const STREAM_PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Most ids in one message.
pub const IDS_PER_MESSAGE_MAX: usize = 64;
/// Most keys in one message: of a refresh, or of a listing.
pub const KEYS_PER_MESSAGE_MAX: usize = 1_000;
/// Most replica sets told apart in one refresh message.
pub const GROUPS_PER_MESSAGE_MAX: usize = 64;
/// Most hops a routed message may take.
pub const HOPS_MAX: u8 = 40;

// Each key of a listing takes at most 35 (key) + 9 (version) + 9 (expiry) + 1 (array) bytes of CBOR.
const _: () = assert!(KEYS_PER_MESSAGE_MAX * 54 + 1_024 <= BODY_BYTES_MAX);
const _: () = assert!(KEYS_PER_MESSAGE_MAX * 35 + GROUPS_PER_MESSAGE_MAX * 9 + 1_024 <= BODY_BYTES_MAX);
const _: () = assert!(IDS_PER_MESSAGE_MAX * 22 + 256 <= BODY_BYTES_MAX);
const _: () = assert!(crate::ring::DOCUMENT_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!(HOPS_MAX as usize >= crate::id::Id::DIGITS);

// --- blocks -------------------------------------------------------------------------------------------------

/// Largest signed block (identity, head), in bytes: a full head carries a partial cluster.
pub const SIGNED_BLOCK_BYTES_MAX: usize = 512 << 10;
/// Largest X.509 certificate read, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 << 10;

const _: () = assert!(SIGNED_BLOCK_BYTES_MAX <= BLOCK_BYTES_MAX);
const _: () = assert!(CERTIFICATE_BYTES_MAX <= SIGNED_BLOCK_BYTES_MAX);

// --- Pastry -------------------------------------------------------------------------------------------------

/// A neighbour that has not been heard of for this long is pinged.
pub const NEIGHBOUR_PING: Micros = 20 * SECOND;
/// Every so often a node compares leaf sets with one of its leaf set.
pub const LEAF_SET_EXCHANGE: Micros = 30 * SECOND;
/// Every so often the routing-table entry longest unheard of is pinged.
pub const TABLE_PING: Micros = 20 * SECOND;
/// Every so often a row of the routing table is compared with a peer's.
pub const TABLE_EXCHANGE_EVERY: u64 = 15;
/// Every so often a certified neighbour that is not in the leaf set is probed: heals partitions.
pub const HEAL: Micros = 30 * SECOND;
/// How long each ping of a probe waits for its answer; after the last, the peer is dead.
pub const PROBE_WAITS: [Micros; 4] = [500 * MILLISECOND, SECOND, 1_500 * MILLISECOND, 2 * SECOND];
/// A peer found dead is not probed again on hearsay for this long.
pub const HEARSAY_REST: Micros = 60 * SECOND;
/// A hop that has not acknowledged within this is passed over.
pub const HOP_WAIT: Micros = 500 * MILLISECOND;
/// Most next hops tried for one message at one node.
pub const HOP_TRIES_MAX: usize = 8;
/// How long the origin of a routed question waits before asking again.
pub const LOCATE_WAIT: Micros = 4 * SECOND;
/// How often a routed question is asked in all.
pub const LOCATE_TRIES: u8 = 3;
/// How long a joining node waits for the root of its id.
pub const JOIN_WAIT: Micros = 3 * SECOND;
/// How long a joining node looks for a second opinion before it joins through the first ready contact.
pub const CONTACT_WAIT: Micros = 1_500 * MILLISECOND;
/// After so many fruitless attempts a joining node goes on with those that answered; the healer finds the rest.
pub const JOIN_TRIES: u8 = 6;
/// A timer later than this means that this node slept: it joins anew.
pub const SLEPT: Micros = 15 * SECOND;
/// Most peers whose liveness is followed.
pub const PEERS_MAX: usize = 1_024;
/// Most dead peers remembered.
pub const DEPARTED_MAX: usize = 256;
/// Most dead peers told to others at once.
pub const DEPARTED_TOLD_MAX: usize = 16;
/// Most routed messages whose next hop has yet to acknowledge.
pub const HOPS_OPEN_MAX: usize = 4_096;
/// Most routed questions under way from here.
pub const LOCATES_MAX: usize = 4_096;
/// How many routed questions a root remembers, so as to answer each once.
pub const ROOTED_MAX: usize = 1_024;

const _: () = assert!(DEPARTED_TOLD_MAX <= IDS_PER_MESSAGE_MAX);
const _: () = assert!(HOP_TRIES_MAX as u64 * HOP_WAIT <= LOCATE_WAIT);

// --- calls and PAST -----------------------------------------------------------------------------------------

/// Most direct requests that await an answer.
pub const CALLS_MAX: usize = 8_192;
/// How long a request waits for its answer, at least.
pub const CALL_WAIT: Micros = 2 * SECOND;
/// A request or answer with a payload may take longer: this much for each 64 KiB.
pub const CALL_WAIT_PER_64_KIB: Micros = 60 * MILLISECOND;
/// A fetch may be answered with a whole object.
pub const FETCH_WAIT: Micros = CALL_WAIT + 64 * CALL_WAIT_PER_64_KIB;
/// How often a request is sent in all.
pub const CALL_TRIES: u8 = 3;
/// Most commands of one type under way.
pub const TASKS_MAX: usize = 2_048;
/// Most storage operations and computations under way.
pub const OPERATIONS_MAX: usize = 8_192;
/// How often an insertion looks for a root in all.
pub const INSERT_TRIES: u8 = 4;
/// Pause before a task tries again.
pub const RETRY_PAUSE: Micros = 700 * MILLISECOND;
/// How many nodes beyond k are tried as substitutes for holders that fail.
pub const SUBSTITUTES_MAX: usize = 8;
/// A lookup that has no answer from the root within this asks all replicas.
pub const LOOKUP_HEDGE: Micros = SECOND;
/// How many nodes beyond k are asked when the root of an object does not have it: as far as its copies may have been diverted.
pub const LOOKUP_BREADTH: usize = SUBSTITUTES_MAX;
/// How long a read waits for the remaining replicas once it has what it needs.
pub const STRAGGLER_WAIT: Micros = 50 * MILLISECOND;
/// How often a signed block is offered to, or asked of, the replicas that have not settled.
pub const SIGNED_TRIES: u8 = 6;
/// No new attempt is made at a signed block after this. Those who wait (a mail client, for its answer) are better told soon
/// that the quorum cannot be had; they may try again.
pub const SIGNED_PATIENCE: Micros = 4 * SECOND;
/// No lease may end later than this many lease periods from now.
pub const LEASE_PERIODS_MAX: u64 = 4;
/// A partner that keeps an object for so many seconds longer than our clock would have it deleted has a clock that contradicts
/// ours: then leases are not agreed on. No lease ends earlier than this by a clock that is ahead.
pub const CLOCKS_APART_MAX_S: u64 = 600;
/// Period of replica upkeep, less up to a tenth.
pub const UPKEEP: Micros = 300 * SECOND;
/// Period of replica upkeep while this node does not yet know what it should hold.
pub const UPKEEP_SYNC: Micros = 5 * SECOND;
/// After so many hurried rounds a node that cannot reach enough others goes on at the usual pace.
pub const UPKEEP_SYNC_ROUNDS: u32 = 24;
/// Every so many rounds the objects that belong elsewhere are offered to their holders.
pub const ORPHANS_EVERY: u32 = 12;
/// Most sums of ranges that partners have yet to answer, before the next range is summed: upkeep must leave most of the
/// open requests to those who wait for theirs.
pub const DIGESTS_OPEN_MAX: usize = 64;
/// Most ranges waiting to be compared.
pub const WALKS_MAX: usize = 1_024;
/// Most objects waiting to be fetched for upkeep.
pub const PULLS_MAX: usize = 16_384;
/// Most objects being fetched for upkeep at once.
pub const PULLS_OPEN_MAX: usize = 16;
/// For so long a member that does not answer keeps its place among the holders of content, and nothing is copied for it.
pub const ABSENCE: Micros = 600 * SECOND;
/// Its neighbours notice that the time is over up to this much later, not all at once.
pub const ABSENCE_SPREAD: Micros = 30 * SECOND;
/// Bytes a second that upkeep may fetch.
pub const UPKEEP_BYTES_PER_SECOND: u64 = 16 << 20;
/// For so long after its own store has refused an object a node fetches none.
pub const FULL_REST: Micros = 1_800 * SECOND;
/// Most sources remembered of an object waiting to be fetched.
pub const PULL_SOURCES_MAX: usize = 4;
/// Most partners whose exchange is remembered.
pub const PARTNERS_MAX: usize = 512;

const _: () = assert!(LOOKUP_HEDGE < FETCH_WAIT);
// After a death k copies are there again within fifteen minutes.
const _: () = assert!(ABSENCE + ABSENCE_SPREAD + 120 * SECOND <= 900 * SECOND);
const _: () = assert!(8 * (DIGESTS_OPEN_MAX + PULLS_OPEN_MAX) <= CALLS_MAX);
const _: () = assert!(UPKEEP_BYTES_PER_SECOND as usize >= BLOCK_BYTES_MAX);

// --- direct messages ----------------------------------------------------------------------------------------

/// Most conversations an application has yet to answer.
pub const CONVERSATIONS_MAX: usize = 1_024;
/// How long an application may take to answer.
pub const CONVERSATION_WAIT: Micros = 30 * SECOND;
/// Answers kept, to be repeated to a peer that asks the same again.
pub const ANSWERS_KEPT_MAX: usize = 256;
/// Largest answer kept, in bytes.
pub const ANSWER_KEPT_BYTES_MAX: usize = 16 << 10;
/// How long the asking side waits for the application's answer, per attempt.
pub const TELL_WAIT: Micros = 6 * SECOND;
