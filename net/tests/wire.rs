//! Goal: every message survives the wire, its bytes are those written down, and no bytes make the decoder panic.
//! Method: golden frames, one for each type (`golden/v1.txt`; a change there is a new wire version); random messages
//! there and back; random and mutated bytes. Proptest prints the seed of a failure.

use bytes::Bytes;
use net::id::{Id, Key, Kind, Name};
use net::limits::{BODY_BYTES_MAX, KEYS_PER_MESSAGE_MAX, PAYLOAD_BYTES_MAX};
use net::past::block::Refusal;
use net::sim::Dice;
use net::wire::*;
use proptest::prelude::*;

/// A message of the type that `which` stands for, filled by the dice.
fn message(which: usize, dice: &mut Dice) -> (&'static str, Message) {
    let request = dice.roll();
    let (name, body) = match which {
        0 => {
            let hello = Hello { ring: array(dice), epoch: dice.roll(), node: dice.id(), version: 1 };
            ("hello", Body::Hello(hello))
        }
        1 => ("ping", Body::Ping(presence(dice))),
        2 => ("pong", Body::Pong(presence(dice))),
        3 => {
            let (presence, members, departed) = (presence(dice), ids(dice, 25), ids(dice, 17));
            let gossip = LeafSetGossip { presence, members, departed, wants_answer: dice.below(2) == 0 };
            ("leaf-set", Body::LeafSet(gossip))
        }
        4 => ("row-request", Body::RowRequest(RowRequest { row: dice.roll() as u8 })),
        5 => {
            let (row, entries) = (dice.roll() as u8, ids(dice, 16));
            let round_trips = Some(entries.iter().map(|_| dice.roll() as u32).collect());
            ("row", Body::Row(Row { row, entries, round_trips }))
        }
        6 => {
            let purpose = [Purpose::Locate, Purpose::Join][dice.below(2)];
            let (target, origin) = (dice.id(), dice.id());
            let route = Route { target, origin, question: dice.roll(), hops: dice.below(40) as u8, purpose };
            ("route", Body::Route(route))
        }
        7 => ("hop-ack", Body::HopAck),
        8 => ("located", Body::Located(Located { target: dice.id(), hops: dice.roll() as u8 })),
        9 => ("ring-request", Body::RingRequest(RingRequest { epoch: dice.roll() })),
        10 => ("ring-document", Body::RingDocument(payload(dice))),
        11 => ("insert", Body::Insert(place(dice), payload(dice))),
        12 => {
            let inserted = Inserted { outcome: store_outcome(dice), copies: dice.roll() as u8 };
            ("inserted", Body::Inserted(inserted))
        }
        13 => ("store", Body::Store(place(dice), payload(dice))),
        14 => ("store-answer", Body::StoreAnswer(StoreAnswer { outcome: store_outcome(dice) })),
        15 => ("fetch", Body::Fetch(Fetch { scope: scope(dice), key: key(dice) })),
        16 => {
            let outcome = match dice.below(5) {
                0 => FetchOutcome::Found { version: dice.roll(), expiry: dice.roll() },
                1 => FetchOutcome::Absent,
                2 => FetchOutcome::Unknown,
                3 => FetchOutcome::Failed,
                4 => FetchOutcome::WrongScope(dice.roll()),
                _ => FetchOutcome::Uncertain { version: dice.roll(), expiry: dice.roll() },
            };
            ("fetch-answer", Body::FetchAnswer(FetchAnswer { outcome }, payload(dice)))
        }
        17 => {
            let groups = (0..dice.below(4)).map(|_| (0..dice.below(5)).map(|_| key(dice)).collect()).collect();
            ("extend", Body::Extend(Extend { scope: scope(dice), expiry: dice.roll(), groups }))
        }
        18 => {
            let known = (0..dice.below(5)).map(|_| dice.roll() as u32).collect();
            ("extended", Body::Extended(Extended { known }))
        }
        19 => {
            let (from, to, count) = (dice.id(), dice.id(), dice.roll() as u32);
            let (content, leases) = (array(dice), array(dice));
            let newness = newness(to);
            let digest = RangeDigest { scope: scope(dice), from, to, count, content, leases, newness };
            ("range-digest", Body::RangeDigest(digest))
        }
        20 => ("range-agreed", Body::RangeAgreed),
        21 => {
            let role = [ListingRole::Difference, ListingRole::Lacking, ListingRole::Orphans][dice.below(3)];
            let (from, to) = (dice.id(), dice.id());
            let entries = (0..dice.below(6)).map(|_| entry(dice)).collect();
            (
                "range-listing",
                Body::RangeListing(RangeListing { scope: scope(dice), from, to, entries, role, newness: newness(to) }),
            )
        }
        22 => ("tell", Body::Tell(payload(dice))),
        23 => ("told", Body::Told(payload(dice))),
        24 => ("subscribe", Body::Subscribe(Subscribe { group: dice.id() })),
        25 => {
            let outcomes = [SubscribeOutcome::Accepted, SubscribeOutcome::Below, SubscribeOutcome::Refused];
            ("subscribed", Body::Subscribed(Subscribed { outcome: outcomes[dice.below(3)], ids: ids(dice, 9) }))
        }
        26 => ("leave", Body::Leave(Leave { group: dice.id() })),
        27 => {
            let (group, publisher, number) = (dice.id(), dice.id(), dice.roll());
            let publication = Publication { group, publisher, number, way: [Way::Up, Way::Down][dice.below(2)] };
            ("publication", Body::Publication(publication, payload(dice)))
        }
        28 => {
            let outcomes = [TakenOutcome::Taken, TakenOutcome::Astray, TakenOutcome::NotRoot, TakenOutcome::Busy];
            ("taken", Body::Taken(Taken { outcome: outcomes[dice.below(4)] }))
        }
        29 => {
            let (group, asker, question) = (dice.id(), dice.id(), dice.roll());
            let anycast = Anycast { group, asker, question, visited: ids(dice, 9), pending: ids(dice, 9) };
            ("anycast", Body::Anycast(anycast, payload(dice)))
        }
        30 => {
            let answer = AnycastAnswer { question: dice.roll(), accepted: dice.below(2) == 0 };
            ("anycast-answer", Body::AnycastAnswer(answer))
        }
        31 => {
            let relay = Relay { from: dice.id(), to: dice.id(), hops: dice.below(2) as u8 };
            ("relay", Body::Relay(relay, payload(dice)))
        }
        _ => {
            // A map with one field; what it says is the upper layer's.
            let body = minicbor::to_vec(FetchAnswer { outcome: FetchOutcome::Absent }).expect("into a Vec");
            ("glacier", Body::Glacier(Bytes::from(body), payload(dice)))
        }
    };
    (name, Message { request, body })
}

const TYPES: usize = 33;

fn array(dice: &mut Dice) -> [u8; 16] {
    std::array::from_fn(|_| dice.roll() as u8)
}

fn presence(dice: &mut Dice) -> Presence {
    Presence { ready: dice.below(2) == 0, epoch: dice.roll(), booted: dice.roll() }
}

fn ids(dice: &mut Dice, end: usize) -> Vec<Id> {
    (0..dice.below(end)).map(|_| dice.id()).collect()
}

fn payload(dice: &mut Dice) -> Bytes {
    let count = dice.below(40);
    dice.bytes(count)
}

fn scope(dice: &mut Dice) -> Scope {
    Scope { ring: array(dice), epoch: dice.roll() }
}

fn key(dice: &mut Dice) -> Key {
    let name = Name(std::array::from_fn(|_| dice.roll() as u8));
    Key { name, kind: Kind::ALL[dice.below(7)] }
}

fn place(dice: &mut Dice) -> Place {
    Place { scope: scope(dice), key: key(dice), expiry: dice.roll() }
}

/// One of the three, by the last byte of an id.
fn newness(by: Id) -> Option<Newness> {
    [Some(Newness::Newcomer), Some(Newness::Founder), None][usize::from(by.0[Id::LEN - 1]) % 3]
}

fn entry(dice: &mut Dice) -> ListingEntry {
    ListingEntry { key: key(dice), version: dice.roll(), expiry: dice.roll() }
}

fn store_outcome(dice: &mut Dice) -> StoreOutcome {
    let refusals = [Refusal::WrongName, Refusal::BadSignature, Refusal::Malformed, Refusal::NotCertified];
    match dice.below(6) {
        0 => StoreOutcome::Durable,
        1 => StoreOutcome::Superseded(dice.roll()),
        2 => StoreOutcome::Refused(refusals[dice.below(4)]),
        3 => StoreOutcome::Failed,
        4 => StoreOutcome::NotMine,
        _ => StoreOutcome::WrongScope(dice.roll()),
    }
}

fn golden() -> impl Iterator<Item = (&'static str, Bytes)> {
    include_str!("golden/v1.txt").lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, hex) = line.split_once(' ').expect("a name and hexadecimal digits");
        let bytes = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal"));
        (name, bytes.collect::<Vec<u8>>().into())
    })
}

/// The messages written down: each type once, the same for ever.
fn specimens() -> impl Iterator<Item = (&'static str, Message)> {
    (0..TYPES).map(|which| message(which, &mut Dice::new(1_000 + which as u64)))
}

const ENDS: Ends = Ends { from: 3, to: 0x0102 };

#[test]
#[ignore = "prints golden/v1.txt; only for a new wire version"]
fn print_golden() {
    for (name, message) in specimens() {
        let hex: String = encode(&message, ENDS).joined().iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{name} {hex}");
    }
}

#[test]
fn frames_are_those_written_down() {
    let golden: Vec<_> = golden().collect();
    assert_eq!(golden.len(), TYPES);
    for ((name, message), (golden_name, frame)) in specimens().zip(golden) {
        assert_eq!(name, golden_name);
        assert_eq!(encode(&message, ENDS).joined(), frame, "{name} is laid out otherwise than written down");
        assert_eq!(decode(&frame), Ok((ENDS, message)), "{name}");
    }
}

#[test]
fn a_payload_is_a_slice_of_the_frame() {
    let message = Message { request: 1, body: Body::Tell(Bytes::from(vec![7; 1_000])) };
    let frame = encode(&message, ENDS).joined();
    let (_, read) = decode(&frame).unwrap();
    let payload = read.body.payload();
    let inside = frame.as_ptr_range();
    assert!(inside.contains(&payload.as_ptr()), "the payload was copied");
}

#[test]
fn lengths_are_checked_before_anything_else() {
    let header = |number: u8, body: u32, payload: u32| {
        let mut header = [0; HEADER_BYTES];
        (header[0], header[1]) = (WIRE_VERSION, number);
        header[16..20].copy_from_slice(&body.to_le_bytes());
        header[20..24].copy_from_slice(&payload.to_le_bytes());
        frame_length(&header)
    };
    assert_eq!(header(18, 10, 20), Ok(HEADER_BYTES + 30));
    assert_eq!(header(18, BODY_BYTES_MAX as u32 + 1, 0), Err(WireError::TooLarge));
    assert_eq!(header(18, 0, PAYLOAD_BYTES_MAX as u32 + 1), Err(WireError::TooLarge));
    assert_eq!(header(2, 10, 1), Err(WireError::TooLarge), "a ping has no payload");
    assert_eq!(header(99, 0, 0), Err(WireError::Type(99)));
    let mut other = [0; HEADER_BYTES];
    other[0] = 2;
    assert_eq!(frame_length(&other), Err(WireError::Version(2)));
}

#[test]
fn unknown_fields_are_skipped_and_long_lists_refused() {
    // {0: 7 (row), 99: [1, [2]]}: a field of a later version.
    let body = [0xa2, 0x00, 0x07, 0x18, 0x63, 0x82, 0x01, 0x81, 0x02];
    let mut frame = vec![0; HEADER_BYTES];
    (frame[0], frame[1], frame[16]) = (WIRE_VERSION, 5, body.len() as u8);
    frame.extend_from_slice(&body);
    assert_eq!(decode(&Bytes::from(frame)).map(|(_, m)| m.body), Ok(Body::RowRequest(RowRequest { row: 7 })));

    let mut dice = Dice::new(9);
    let entries: Vec<ListingEntry> = (0..=KEYS_PER_MESSAGE_MAX).map(|_| entry(&mut dice)).collect();
    let listing = |entries: &[ListingEntry]| {
        let role = ListingRole::Orphans;
        let (from, to, entries) = (Id::default(), Id::default(), entries.to_vec());
        let scope = Scope { ring: [1; 16], epoch: u64::MAX };
        Message { request: 1, body: Body::RangeListing(RangeListing { scope, from, to, entries, role, newness: None }) }
    };
    let over = encode(&listing(&entries), ENDS).joined();
    assert_eq!(decode(&over), Err(WireError::TooMany));
    let within = encode(&listing(&entries[1..]), ENDS).joined();
    assert!(decode(&within).is_ok(), "a full listing fits");
}

#[test]
fn lanes_follow_size_and_kind() {
    let tell = |bytes: usize| Message { request: 1, body: Body::Tell(Bytes::from(vec![0; bytes])) }.lane();
    assert_eq!((tell(0), tell(64 << 10), tell((64 << 10) + 1)), (Lane::Stream, Lane::Stream, Lane::Bulk));
    let presence = Presence { ready: true, epoch: u64::MAX, booted: u64::MAX };
    assert_eq!(Message { request: 1, body: Body::Ping(presence) }.lane(), Lane::Datagram);
    for count in 0..=40 {
        let gossip =
            LeafSetGossip { presence, members: vec![Id([9; 20]); count], departed: vec![], wants_answer: true };
        let message = Message { request: u64::MAX, body: Body::LeafSet(gossip) };
        let length = encode(&message, ENDS).head.len() - HEADER_BYTES;
        assert!(message.lane() == Lane::Stream || length <= 1_100, "{count} ids make {length} bytes");
    }
}

proptest! {
    #[test]
    fn every_message_survives(which in 0..TYPES, seed: u64, from: u16, to: u16) {
        let (_, message) = message(which, &mut Dice::new(seed));
        let ends = Ends { from, to };
        let frame = encode(&message, ends).joined();
        let header: &[u8; HEADER_BYTES] = frame.first_chunk().unwrap();
        prop_assert_eq!(frame_length(header), Ok(frame.len()));
        prop_assert_eq!(decode(&frame), Ok((ends, message)));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), number in 0u8..50) {
        let _ = decode(&Bytes::from(bytes.clone()));
        // With a header that fits, so that the body is read as well.
        let mut frame = vec![0; HEADER_BYTES];
        (frame[0], frame[1]) = (WIRE_VERSION, number);
        frame[16..20].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        frame.extend_from_slice(&bytes);
        let _ = decode(&Bytes::from(frame));
    }

    #[test]
    fn no_mutated_frame_panics(
        which in 0..TYPES,
        seed: u64,
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = encode(&message(which, &mut Dice::new(seed)).1, ENDS).joined().to_vec();
        let at = at.index(frame.len());
        frame[at] = byte;
        let _ = decode(&Bytes::from(frame.clone()));
        frame.truncate(cut.index(frame.len()));
        prop_assert!(decode(&Bytes::from(frame)).is_err(), "a frame cut short is not a frame");
    }
}

/// What a node has noted for itself can be neither asked for nor sent.
#[test]
fn no_message_names_a_note() {
    let mut dice = Dice::new(8);
    for kind in Kind::ALL {
        let key = Key { kind, ..key(&mut dice) };
        let fetch = Message { request: 1, body: Body::Fetch(Fetch { scope: scope(&mut dice), key }) };
        let frame = encode(&fetch, ENDS).joined();
        assert_eq!(decode(&frame).is_ok(), kind != Kind::Note, "{kind:?}");
    }
}
