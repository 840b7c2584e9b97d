//! Goal: no bytes of a peer make a decoder of Glacier's panic, and what one accepts it says again and reads the same. Method: the
//! fuzzers' doors (`erasure/fuzz`) with their corpus, each input whole, cut short, longer, and with seeded bytes changed. The corpus is
//! sound (each example is accepted by its decoder), and has every message.

#[path = "../fuzz/doors.rs"]
mod doors;

use bytes::Bytes;
use doors::{DOORS, knock};
use erasure::glacier::aggregate::{Entry, pack};
use erasure::glacier::wire::{Lease, Outcome, Said};
use erasure::glacier::{Coder, Profile};
use net::id::{Key, Kind};
use net::sim::Dice;
use std::path::PathBuf;

fn corpus(door: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door)
}

/// The inputs of a door, in the order of their names.
#[expect(clippy::disallowed_methods, reason = "the corpus is on disk; the crate itself does not read it")]
fn inputs(door: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<(String, Vec<u8>)> = std::fs::read_dir(corpus(door))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

/// How often each input is changed: `EPOST_MUTATIONS` makes it a longer search.
fn mutations() -> usize {
    std::env::var("EPOST_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

#[test]
fn no_bytes_make_a_decoder_panic_and_what_is_accepted_is_said_again() {
    for door in DOORS {
        let inputs = inputs(door);
        assert!(!inputs.is_empty(), "{door} has a corpus");
        let mut accepted = 0;
        for (number, (name, input)) in inputs.iter().enumerate() {
            println!("{door}/{name}");
            assert!(knock(door, input), "it is sound");
            for length in 0..input.len().min(300) {
                knock(door, &input[..length]);
            }
            knock(door, &[input, &[0][..]].concat());
            let mut dice = Dice::new(number as u64);
            for _ in 0..mutations() {
                let mut changed = input.clone();
                for _ in 0..=dice.below(3) {
                    let at = dice.below(changed.len().max(1));
                    changed.get_mut(at).into_iter().for_each(|byte| *byte = dice.roll() as u8);
                }
                match dice.below(8) {
                    0 => changed.truncate(dice.below(changed.len() + 1)),
                    1 => changed.resize(changed.len() + 1 + dice.below(64), 0),
                    _ => {}
                }
                accepted += usize::from(knock(door, &changed));
            }
        }
        assert!(accepted > 0, "some of what is changed is accepted at {door}, or nothing behind it is seen");
    }
}

/// One of each message, by its number.
fn messages() -> [(&'static str, Said); 14] {
    let key = Key::of(Kind::Content, b"an object");
    let (name, _) = Coder::new().split(b"an aggregate", Profile::DEFAULT).expect("sound");
    let fragment = name.fragment_key(55);
    [
        ("keep", Said::Keep { key: fragment, expiry: 1_800_000_000 }),
        ("kept", Said::Kept { outcome: Outcome::Refused }),
        ("fetch", Said::Fetch { key: fragment }),
        ("fetched", Said::Fetched { expiry: Some(1_800_000_000) }),
        ("look", Said::Look { keys: vec![key, fragment] }),
        ("seen", Said::Seen { found: vec![None, Some(Lease { version: 7, expiry: 1_800_000_000 })] }),
        ("report", Said::Report { count: 70_000, sum: [9; 16] }),
        ("reported", Said::Reported { wants_listing: true }),
        ("listing", Said::Listing { entries: vec![(fragment, 1_800_000_000)], is_first: true, is_last: false }),
        ("listed", Said::Listed),
        ("extend", Said::Extend { leases: vec![(fragment, 1_800_000_000)] }),
        ("extended", Said::Extended),
        ("emptied", Said::Emptied),
        ("noticed", Said::Noticed),
    ]
}

#[test]
fn the_corpus_has_every_message() {
    let inputs = inputs("said");
    for (number, (name, said)) in messages().into_iter().enumerate() {
        let body = said.encode();
        assert_eq!(body.get(1).map(|byte| usize::from(*byte)), Some(number), "messages come in order, none left out");
        assert!(inputs.contains(&(name.to_owned(), body)), "{name} is in the corpus");
    }
}

#[test]
#[ignore = "writes erasure/fuzz/corpus; only when a format changes"]
#[expect(clippy::disallowed_methods, reason = "the corpus is on disk; the crate itself does not write it")]
fn write_the_corpus() {
    let write = |door: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(corpus(door)).unwrap();
        std::fs::write(corpus(door).join(name), bytes).unwrap();
    };
    messages().into_iter().for_each(|(name, said)| write("said", name, &said.encode()));
    let entry = |kind, value: &'static [u8]| Entry {
        key: Key::of(kind, value),
        version: u64::from(kind == Kind::Head),
        expiry: 1_800_000_000,
        value: Bytes::from_static(value),
    };
    let one = pack(&[entry(Kind::Content, b"a mail")]).unwrap();
    let some = [entry(Kind::Head, b"a head"), entry(Kind::Identity, b""), entry(Kind::Cluster, &[5; 200])];
    let some = pack(&some).unwrap();
    write("aggregate", "one", &one);
    write("aggregate", "three", &some);
    for (needed, total, index) in [(1, 1, 0), (1, 3, 2), (5, 56, 0), (5, 56, 55), (20, 116, 77)] {
        let profile = Profile { needed, total, repair_at: total };
        let (name, values) = Coder::new().split(&some, profile).unwrap();
        write("fragment", &format!("{index}-of-{needed}-{total}"), &values[usize::from(index)]);
        let key = name.fragment_key(index);
        write("key", &format!("{index}-of-{needed}-{total}"), &[&key.name.0[..], &[key.kind as u8]].concat());
    }
}
