//! Every bound of the node's driver and transport, in one place, with what must hold between them.

use std::time::Duration;

// Connections.

/// Established connections, in and out, at one time.
pub const CONNECTIONS_MAX: usize = 2048;
/// Handshakes of strangers under way at one time; beyond it newcomers are turned away.
pub const HANDSHAKES_MAX: usize = 64;
/// Handshakes under way from which on a stranger must first prove its address by a retry.
pub const HANDSHAKES_UNPROVEN_MAX: usize = 16;
/// Time for the handshake and for the greeting after it, each.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// A connection without a packet for so long is lost.
pub const IDLE_TIME: Duration = Duration::from_secs(45);
/// The dialler sends something at least this often.
pub const KEEP_ALIVE_TIME: Duration = Duration::from_secs(15);
/// A connection without a frame for so long is closed by its dialler.
pub const COLD_TIME: Duration = Duration::from_secs(180);
/// Shortest and longest wait between two dials of a peer that cannot be reached, before jitter.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// See [`BACKOFF_MIN`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Dials under way at one time; more wait for their turn.
pub const DIALS_MAX: usize = 64;
/// Time for a peer to take one frame in; beyond it the connection is given up as stuck.
pub const SEND_TIME: Duration = Duration::from_secs(10);
/// Time for peers to acknowledge our farewell when we stop.
pub const STOP_TIME: Duration = Duration::from_secs(2);

// Frames.

/// Streams a peer may have open towards us on one connection.
pub const STREAMS_MAX: u32 = 128;
/// Bytes of one stream a peer may send before we have read them.
pub const STREAM_WINDOW_BYTES: u32 = 1_250_000;
/// Bytes of one connection a peer may send before we have read them.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest frame of control: what is larger is bulk, whichever way it comes.
pub const CONTROL_FRAME_BYTES_MAX: usize =
    net::wire::HEADER_BYTES + net::limits::BODY_BYTES_MAX + net::limits::STREAM_PAYLOAD_BYTES_MAX;
/// Frames of one connection, from their header on until their machine has taken them.
pub const CONNECTION_FRAMES_MAX: usize = STREAMS_MAX as usize;
/// Bytes of these.
pub const CONNECTION_FRAME_BYTES_MAX: usize = 32 << 20;
/// Bytes of such frames of all connections together, of control and of bulk.
pub const FRAME_BYTES_MAX: [usize; 2] = [128 << 20, 256 << 20];
/// Datagrams of one connection that their machines have not yet taken.
pub const CONNECTION_DATAGRAMS_MAX: usize = 128;
/// How long a frame from a peer waits for room before it is dropped: once for bytes, once for a place at its machine.
pub const HOLD_TIME: Duration = Duration::from_secs(4);
/// Time for a peer to send one whole frame after its stream has begun.
pub const FRAME_TIME: Duration = Duration::from_secs(30);
/// Kernel buffer of the UDP socket, each way. The default (208 KiB) loses packets of bulk transfers.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Buffers for datagrams of one connection, each way.
pub const DATAGRAM_BUFFER_BYTES: usize = 256 << 10;

// Queues to one peer.

/// Bytes waiting for all peers together.
pub const QUEUE_BYTES_MAX: usize = 512 << 20;
/// Frames waiting for one peer in one class.
pub const PEER_QUEUE_FRAMES_MAX: usize = 1024;
/// Bytes waiting for one peer in one class.
pub const PEER_QUEUE_BYTES_MAX: usize = 32 << 20;

// Misbehaviour.

/// Frames that do not decode after which a peer is disconnected.
pub const STRIKES_MAX: u32 = 8;
/// How long a disconnected peer is refused.
pub const BAN_TIME: Duration = Duration::from_secs(60);

// Certificates.

/// A certificate is still accepted so long after its end, so that a late CA stops nothing.
pub const CERTIFICATE_GRACE_S: u64 = 7 * 86_400;
/// Clocks may differ by so much when a certificate has just begun to be valid.
pub const CLOCK_SKEW_S: u64 = 600;
/// Largest certificate accepted.
pub const CERTIFICATE_BYTES_MAX: usize = 8 << 10;

// The overlay thread.

/// Node ids one host may have: each is a machine, and as many threads as there are processors share them.
pub const WEIGHT_MAX: usize = 64;
/// Messages that wait for all machines of a host, of each lane but bulk; each machine has an equal share.
pub const EVENTS_MAX: usize = 8192;
/// The least such share, also of what follows.
pub const EVENTS_MIN: usize = 512;
/// Messages of bulk that wait for one machine; their bytes are bounded before.
pub const BULK_EVENTS_MAX: usize = 512;
/// Connections made and lost that wait for machines to hear of them.
pub const PEER_EVENTS_MAX: usize = 8192;
/// Bytes of messages that wait for all machines and hold no room of `transport::Credit`'s: between machines of one host.
pub const EVENT_BYTES_MAX: usize = 128 << 20;
/// Commands of this process that wait for one machine.
pub const COMMANDS_MAX: usize = 1024;
/// Bytes of objects in commands that wait for all machines.
pub const COMMAND_BYTES_MAX: usize = 256 << 20;
/// Commands the machine has accepted and not yet replied to.
pub const COMMANDS_UNDER_WAY_MAX: usize = 4096;
/// Events handled from one queue before the next queue has its turn.
pub const TURN: usize = 64;
/// Storage operations of all machines that the engine has in hand.
pub const STORAGE_UNDER_WAY_MAX: usize = 4096;
/// Storage operations waiting for the engine; beyond it they fail at once.
pub const STORAGE_WAITING_MAX: usize = 16_384;
/// Bytes of objects that one machine has in the engine's hands or waiting for it; puts beyond it fail at once.
pub const STORAGE_BYTES_MAX: usize = 256 << 20;
/// Computations waiting for a worker; beyond it the overlay thread computes itself.
pub const COMPUTE_WAITING_MAX: usize = 1024;
/// Computations of one machine that wait, are worked on, or whose results wait for the overlay thread; beyond it the
/// overlay thread computes itself.
pub const COMPUTE_UNDER_WAY_MAX: usize = 2048;
/// Bytes of objects waiting for a worker; beyond it the overlay thread computes itself.
pub const COMPUTE_BYTES_MAX: usize = 256 << 20;
/// Content blocks up to this size are checked by the overlay thread itself: hashing them takes less than the hop.
pub const COMPUTE_INLINE_BYTES_MAX: usize = 16 << 10;
/// Worker threads for computations.
pub const COMPUTE_WORKERS: usize = 2;
/// Timers one machine may have armed.
pub const TIMERS_MAX: usize = 1 << 16;
/// Packets of peers' applications waiting for the application of this node.
pub const DELIVERIES_MAX: usize = 256;
/// A gap of at least so long between two sweeps (or more, by the ring's grace) counts as a jump of the clock.
pub const CLOCK_JUMP_MIN_S: u64 = 3600;
/// How long after its start a node believes its clock even if the store's last sweep is suspiciously long ago: by then
/// replicas have told each other of leases extended meanwhile. Until then the engine deletes nothing after such a jump.
pub const CLOCK_TRUST_TIME: Duration = Duration::from_secs(3600);
/// Time between two steps of scrubbing, at least.
pub const SCRUB_PERIOD: Duration = Duration::from_secs(5);
/// Bytes worth a step of scrubbing: about one batch of the engine.
pub const SCRUB_STEP_MIN: u64 = 1 << 20;
/// Bytes scrubbed at once, at most, however long it was that nothing was.
pub const SCRUB_CREDIT_MAX: i64 = 64 << 20;
/// Largest packet from a peer's application; larger ones are dropped.
pub const DELIVERY_BYTES_MAX: usize = 1 << 20;
/// Longest sleep of the overlay thread when nothing is due.
pub const SLEEP_TIME: Duration = Duration::from_millis(500);

// The status page.

/// Body of a request to the status page, which has no use for one.
pub const REQUEST_BYTES_MAX: usize = 1024;
/// How often the overlay is asked for its state before it is ready, and after.
pub const READY_POLL_TIME: Duration = Duration::from_millis(100);
/// See [`READY_POLL_TIME`].
pub const STATUS_POLL_TIME: Duration = Duration::from_secs(1);

// Clients of the overlay.

/// How long a caller waits for the reply to a command. The machine's own time limits are shorter; this one guards
/// against a driver that has stopped.
pub const REPLY_TIME: Duration = Duration::from_secs(60);
/// Keys in one command to extend leases; longer lists are cut up.
pub const KEYS_PER_REFRESH_MAX: usize = 4096;
/// How often the ring document's file is looked at for a newer one.
pub const RING_FILE_TIME: Duration = Duration::from_secs(5);
/// How often a command answered with "busy" is tried again, with a growing pause.
pub const BUSY_RETRIES: u32 = 4;
/// First pause before a busy command is tried again.
pub const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How many messages of this lane may wait for each of a host's `ids` machines.
#[must_use]
pub const fn places(lane: net::wire::Lane, ids: usize) -> usize {
    match lane {
        net::wire::Lane::Bulk => BULK_EVENTS_MAX,
        _ if EVENTS_MAX / ids > EVENTS_MIN => EVENTS_MAX / ids,
        _ => EVENTS_MIN,
    }
}

const _: () = {
    assert!(KEEP_ALIVE_TIME.as_secs() * 2 < IDLE_TIME.as_secs(), "one lost keep-alive must not lose the connection");
    assert!(IDLE_TIME.as_secs() < COLD_TIME.as_secs());
    assert!(HANDSHAKES_UNPROVEN_MAX < HANDSHAKES_MAX);
    assert!(HANDSHAKES_MAX < CONNECTIONS_MAX);
    assert!(BACKOFF_MIN.as_millis() < BACKOFF_MAX.as_millis());
    assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
    assert!(
        CONNECTION_FRAME_BYTES_MAX * 4 <= FRAME_BYTES_MAX[0] && CONNECTION_FRAME_BYTES_MAX * 4 <= FRAME_BYTES_MAX[1]
    );
    assert!(
        CONNECTION_FRAMES_MAX * 4 <= EVENTS_MIN && CONNECTION_FRAMES_MAX * 4 <= BULK_EVENTS_MAX,
        "no peer fills a queue"
    );
    assert!(CONNECTION_DATAGRAMS_MAX * 4 <= EVENTS_MIN, "nor with datagrams");
    assert!(HOLD_TIME.as_secs() * 2 < SEND_TIME.as_secs(), "a slow host is not one that is gone");
    assert!(HOLD_TIME.as_secs() < FRAME_TIME.as_secs());
    assert!(net::limits::PAYLOAD_BYTES_MAX * 2 <= CONNECTION_FRAME_BYTES_MAX, "the largest frame fits every budget");
    assert!(net::limits::PAYLOAD_BYTES_MAX * 2 <= PEER_QUEUE_BYTES_MAX && PEER_QUEUE_BYTES_MAX < QUEUE_BYTES_MAX);
    assert!(net::limits::PAYLOAD_BYTES_MAX * 2 <= EVENT_BYTES_MAX);
    assert!(net::limits::PAYLOAD_BYTES_MAX * 2 <= COMMAND_BYTES_MAX);
    assert!(net::limits::PAYLOAD_BYTES_MAX * 2 <= STORAGE_BYTES_MAX);
    assert!(DELIVERY_BYTES_MAX <= net::limits::PAYLOAD_BYTES_MAX);
    assert!(EVENTS_MIN <= EVENTS_MAX && EVENTS_MIN <= PEER_EVENTS_MAX);
    assert!(TURN < EVENTS_MIN && TURN < COMMANDS_MAX);
    assert!(COMMANDS_MAX <= COMMANDS_UNDER_WAY_MAX);
    assert!(STORAGE_UNDER_WAY_MAX <= STORAGE_WAITING_MAX);
    assert!(STORAGE_UNDER_WAY_MAX <= engine::limits::MAILBOX, "the engine gives each port what it asks for");
    assert!(WEIGHT_MAX <= STORAGE_UNDER_WAY_MAX / 64, "each machine has a fair share");
    assert!(COMPUTE_WAITING_MAX + COMPUTE_WORKERS <= COMPUTE_UNDER_WAY_MAX);
    assert!(CLOCK_TRUST_TIME.as_secs() >= CLOCK_JUMP_MIN_S);
};
