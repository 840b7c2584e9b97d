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

/// The clockwise neighbour is pinged when it has not been heard of for this long; it answers, so both know.
pub const NEIGHBOUR_PING: Micros = 20 * SECOND;
/// The other neighbour should have pinged us by now.
pub const NEIGHBOUR_LATE: Micros = 22 * SECOND;
/// A node answers as a root only while it has heard of both its neighbours within this.
pub const OWNERSHIP_LEASE: Micros = 30 * SECOND;
/// How long a node that became ready waits for its neighbours to confirm it before it tells them again.
pub const ANNOUNCE_PAUSE: Micros = 300 * MILLISECOND;
/// How often it tells them in all.
pub const ANNOUNCE_TRIES: u8 = 30;
/// Every so often a node compares leaf sets with one of its leaf set.
pub const LEAF_SET_EXCHANGE: Micros = 30 * SECOND;
/// A routed message may meet a dead table entry: one in so many.
pub const LOSS_TARGET: u64 = 20;
/// Deaths among our peers from which the rate of failures is estimated.
pub const FAILURES_KEPT: usize = 16;
/// A routing-table entry unheard of for this long is not yet pinged, however often nodes fail.
pub const TABLE_PERIOD_MIN: Micros = 60 * SECOND;
/// A routing-table entry unheard of for this long is pinged, however seldom nodes fail.
pub const TABLE_PERIOD_MAX: Micros = 3_600 * SECOND;
/// A node that has become ready looks at its routing table after this.
pub const TABLE_FIRST: Micros = 20 * SECOND;
/// Time between looks at the routing table, at least and at most; one that fails has it looked at soon.
pub const TABLE_LOOK: [Micros; 2] = [2 * SECOND, 600 * SECOND];
/// Pause after the first comparison of routing-table rows; each later one is longer by a third.
pub const ROWS_PAUSE_MIN: Micros = SECOND;
/// Longest pause between comparisons of routing-table rows.
pub const ROWS_PAUSE_MAX: Micros = 900 * SECOND;
/// Most pings that follow from one comparison of rows.
pub const MEASURES_PER_ROUND: usize = 6;
/// A node that we heard of within this is believed alive when a message could go straight to it.
pub const DIRECT_FRESH: Micros = 600 * SECOND;
/// Nodes of which nothing is known are tried straight, one at a time, while so many in a hundred such tries succeed;
pub const DIRECT_ALONE_MIN: u64 = 97;
/// two at once while so many do.
pub const DIRECT_SUCCESS_MIN: u64 = 60;
/// When fewer do, one message in so many is still tried so.
pub const DIRECT_TRIAL_EVERY: u64 = 16;
/// Most nodes that a message is tried straight at by one node.
pub const DIRECT_TRIES_MAX: usize = 2;
/// Every so often a certified neighbour that is not in the leaf set is probed: heals partitions.
pub const HEAL: Micros = 60 * SECOND;
/// How long each ping of a probe waits for its answer, at least; after the last, the peer is dead.
pub const PROBE_WAITS: [Micros; 6] = [
    200 * MILLISECOND,
    400 * MILLISECOND,
    700 * MILLISECOND,
    900 * MILLISECOND,
    1_200 * MILLISECOND,
    1_600 * MILLISECOND,
];
/// After so many pings without an answer a peer is suspected of being dead.
pub const SUSPECT_PINGS: usize = 2;
/// Shortest wait for an answer, however near a peer has been so far.
pub const WAIT_MIN: Micros = 50 * MILLISECOND;
/// Longest wait for an answer, however far a peer is.
pub const WAIT_MAX: Micros = 10 * SECOND;
/// How long an answer is waited for from a peer whose round trip is not known.
pub const WAIT_UNKNOWN: Micros = 500 * MILLISECOND;
/// What takes longer than this was no round trip: a clock has stepped, or somebody slept.
pub const ROUND_TRIP_MAX: Micros = 10 * SECOND;
/// Relays that each later ping of a probe also goes through; others each time, so that a probe tries four.
pub const RELAYS_PER_PING: usize = 1;
/// Largest frame that is relayed, in bytes.
pub const RELAYED_BYTES_MAX: usize = 4 << 10;
/// Most peers reached by a detour.
pub const DETOURS_MAX: usize = 64;
/// Every so often the straight way is tried again.
pub const DETOUR_RETRY: Micros = 60 * SECOND;
/// A peer found dead is not probed again on hearsay for this long; twice as long each further time.
pub const HEARSAY_REST: Micros = 60 * SECOND;
/// Hearsay about the dead leads to a probe at least after this.
pub const HEARSAY_REST_MAX: Micros = 600 * SECOND;
/// The dead are remembered for this long.
pub const DEPARTED_FORGOTTEN: Micros = 90 * 60 * SECOND;
/// A peer that has said it is not ready is not asked again on hearsay for this long.
pub const READY_REST: Micros = 10 * SECOND;
/// Most next hops tried for one message at one node.
pub const HOP_TRIES_MAX: usize = 10;
/// Longest wait for an acknowledgement of a message that has no other way to go.
pub const HOP_WAIT_MAX: Micros = SECOND;
/// How long the origin of a routed question waits before asking again.
pub const LOCATE_WAIT: Micros = 2_500 * MILLISECOND;
/// How often a routed question is asked in all.
pub const LOCATE_TRIES: u8 = 6;
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
/// So many of them are forgotten when there is no room for another.
pub const PEERS_FORGOTTEN: usize = PEERS_MAX / 8;
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

const _: () = assert!(DEPARTED_TOLD_MAX < IDS_PER_MESSAGE_MAX);
// A death is found out while those who ask still wait, and a lease outlasts the silence after which a neighbour is pinged.
const _: () = assert!(NEIGHBOUR_PING < NEIGHBOUR_LATE && NEIGHBOUR_LATE + probe_waits() < OWNERSHIP_LEASE);
const _: () = assert!(2 * probe_waits() < LOCATE_TRIES as u64 * LOCATE_WAIT);
const _: () = assert!(DIRECT_TRIES_MAX < HOP_TRIES_MAX);
// A leaf set and its dead, the longest of what may be relayed.
const _: () =
    assert!(2 * IDS_PER_MESSAGE_MAX * 22 + 256 <= RELAYED_BYTES_MAX && RELAYED_BYTES_MAX <= PAYLOAD_BYTES_MAX);

const fn probe_waits() -> Micros {
    let (mut sum, mut at) = (0, 0);
    while at < PROBE_WAITS.len() {
        sum += PROBE_WAITS[at];
        at += 1;
    }
    sum
}

const _: () = assert!(WAIT_MIN <= WAIT_UNKNOWN && WAIT_UNKNOWN <= WAIT_MAX && WAIT_MAX <= ROUND_TRIP_MAX);
const _: () = assert!(SUSPECT_PINGS < PROBE_WAITS.len());

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
/// Who has founded a ring with others as new as itself is one of its founders for this long.
pub const FOUNDING: Micros = 900 * SECOND;
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
// Whoever was there when a ring was founded has met the first founder again by then.
const _: () = assert!(FOUNDING > 2 * UPKEEP);
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

// --- Scribe -------------------------------------------------------------------------------------------------

/// Period in which a node and its parent in a tree make sure of each other, less up to a tenth.
pub const HEARTBEAT: Micros = 30 * SECOND;
/// A child not heard of for this long is none any more.
pub const CHILD_SILENCE: Micros = 75 * SECOND;
/// How many heartbeats in a row publications may stand in for.
pub const HEARTBEATS_SPARED_MAX: u8 = 3;
/// Pause before a node that has found no parent looks again; doubled each time after so many in vain, up to a heartbeat.
pub const CLIMB_PAUSE: Micros = SECOND;
/// How many of these pauses are equal before they double.
pub const CLIMB_PAUSES_EQUAL: u32 = 8;
/// Most nodes tried as parents in one go.
pub const CLIMB_TRIES_MAX: usize = 16;
/// Most groups in whose trees a node is.
pub const GROUPS_MAX: usize = 8_192;
/// A node with more children than this, over all groups, sends those of its largest group below each other.
pub const CHILDREN_MAX: usize = 128;
/// Most children a node has over all groups, where none can be sent below another.
pub const CHILDREN_HELD_MAX: usize = 16_384;
/// How many siblings a child that is to go below one is told.
pub const SIBLINGS_TOLD_MAX: usize = 4;
/// Deepest a tree may be.
pub const PATH_MAX: usize = 60;
/// Largest publication or anycast, in bytes.
pub const PUBLICATION_BYTES_MAX: usize = 64 << 10;
/// How many publications to a group a node recognises when they come again.
pub const PUBLICATIONS_SEEN_MAX: usize = 64;
/// Most copies of publications that children have yet to acknowledge.
pub const COPIES_OPEN_MAX: usize = 2_048;
/// Most publications of this node's own that no root has yet.
pub const PUBLISHING_MAX: usize = 1_024;
/// Pause before a publication looks for the root again.
pub const PUBLISH_PAUSE: Micros = 2 * SECOND;
/// No new attempt is made to find a root after this.
pub const PUBLISH_PATIENCE: Micros = 30 * SECOND;
/// Most anycasts of this node's own, and most of others that it sees to.
pub const ANYCASTS_MAX: usize = 1_024;
/// How long this node waits to hear how its anycast ended.
pub const ANYCAST_WAIT: Micros = 45 * SECOND;
/// How long an application may take to say whether it accepts.
pub const SOLICIT_WAIT: Micros = 5 * SECOND;
/// Most nodes one anycast visits; and most it may still have to visit.
pub const ANYCAST_VISITS_MAX: usize = 48;
/// How many anycasts a node recognises when they come again.
pub const ANYCASTS_SEEN_MAX: usize = 1_024;

const _: () = assert!(CHILD_SILENCE >= 2 * HEARTBEAT + 3 * CALL_WAIT);
const _: () = assert!(CHILDREN_MAX <= CHILDREN_HELD_MAX);
// The root of each group has a child at least.
const _: () = assert!(GROUPS_MAX <= CHILDREN_HELD_MAX);
const _: () = assert!(PATH_MAX < IDS_PER_MESSAGE_MAX);
const _: () = assert!(SIBLINGS_TOLD_MAX <= IDS_PER_MESSAGE_MAX);
const _: () = assert!(ANYCAST_VISITS_MAX <= IDS_PER_MESSAGE_MAX);
const _: () = assert!(PUBLICATION_BYTES_MAX <= STREAM_PAYLOAD_BYTES_MAX);
const _: () = assert!(4 * COPIES_OPEN_MAX <= CALLS_MAX);
const _: () = assert!(ANYCAST_WAIT > 4 * SOLICIT_WAIT);
