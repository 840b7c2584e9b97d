//! Goal: a store that is nearly full of live objects goes on: what replaces something finds room by cleaning, leases are
//! extended, what does not fit is refused and counted, nothing acknowledged is lost; and it recovers when leases lapse,
//! even if the record of what lapsed is many times the reserve.
//!
//! Method: a store on the simulated disk beside a map. It is filled until so much of the room for segments is live; then objects
//! are removed and others put in their place, many times over, a few dozen operations in flight. At the end, and after a
//! power cut, objects are compared with the map. Another store is filled to the brim with small objects, of which every
//! second one ends, so that no segment dies whole; then others must find the room of half of them.

use super::arcs::codec::ExpiryRow;
use super::{Settings, Store, create, open};
use crate::key::{Class, Key};
use crate::limits;
use crate::request::{Error, Request, Response};
use crate::sim_disk::{Chance, SimDisk};
use bytes::Bytes;
use std::collections::BTreeMap;

const SEGMENT: u64 = 1024 * 1024;
const SEGMENTS: u64 = 400;

fn settings() -> Settings {
    Settings {
        segment_bytes: SEGMENT as u32,
        capacity_bytes: SEGMENTS * SEGMENT,
        objects_max: 1_000_000,
        checkpoint_log_bytes: 8 << 20,
        arc_objects_max: 512,
        recents_max: 256,
        run_fan_in: 4,
        ..crate::simulate::settings()
    }
}

fn key(number: u64) -> Key {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut placement = [0; 20];
    placement[..8].copy_from_slice(&spread.to_be_bytes());
    let mut name = [3; 32];
    name[..8].copy_from_slice(&number.to_be_bytes());
    Key { placement, name, kind: 1 }
}

/// 2 to 8 KiB that differ from number to number.
fn value(number: u64) -> Bytes {
    let mut chance = Chance::new(number);
    let length = 2048 + chance.below(6144) as usize;
    Bytes::from(vec![(number % 251) as u8; length])
}

fn put(number: u64) -> Request {
    put_of(number, 10_000, value(number))
}

fn put_of(number: u64, expiry_s: u64, value: Bytes) -> Request {
    let class = if number.is_multiple_of(5) { Class::Mutable } else { Class::Fresh };
    Request::Put { key: key(number), version: 0, account: 0, class, expiry_s, value }
}

/// Submits all and waits for all answers, in the order of the requests.
fn all(store: &mut Store<SimDisk>, requests: Vec<Request>) -> Vec<Result<Response, Error>> {
    let count = requests.len();
    for (tag, request) in requests.into_iter().enumerate() {
        store.submit(tag as u64, request);
    }
    let mut answers = BTreeMap::new();
    let mut turns = 0u64;
    while answers.len() < count {
        if !store.turn() {
            store.wait();
        }
        while let Some((tag, answer)) = store.take() {
            assert!(answers.insert(tag, answer).is_none(), "answered once");
        }
        turns += 1;
        assert!(turns < 5_000_000, "operations are not answered");
    }
    answers.into_values().collect()
}

fn live_percent(store: &Store<SimDisk>) -> u64 {
    store.stats().live_bytes * 100 / (store.segments_max() * SEGMENT)
}

fn check(store: &mut Store<SimDisk>, held: &BTreeMap<u64, ()>) {
    // Every one would take most of the test's time.
    for number in held.keys().step_by(10) {
        match all(store, vec![Request::Get { key: key(*number) }]).remove(0) {
            Ok(Response::Got(Some(object))) => assert_eq!(object.value, value(*number), "object {number}"),
            other => panic!("object {number} was acknowledged, get answered {other:?}"),
        }
    }
}

#[test]
fn a_nearly_full_store_goes_on_under_churn_and_recovers_when_leases_lapse() {
    const SEED: u64 = 7;
    const FULL_PERCENT: u64 = 95;
    println!("seed {SEED}");
    let disk = SimDisk::new(SEED, u64::MAX);
    create(&mut disk.clone(), [1; 16], 99, 0, 1, 1).unwrap();
    let mut store = open(disk.clone(), settings()).unwrap();
    let mut chance = Chance::new(SEED);
    let mut held: BTreeMap<u64, ()> = BTreeMap::new();
    let mut next = 0;
    while live_percent(&store) < FULL_PERCENT {
        let numbers: Vec<u64> = (next..next + 32).collect();
        next += 32;
        for (number, answer) in numbers.iter().zip(all(&mut store, numbers.iter().map(|n| put(*n)).collect())) {
            assert_eq!(answer, Ok(Response::Put), "at {} % live", live_percent(&store));
            held.insert(*number, ());
        }
    }
    let (mut replaced, mut refused) = (0u64, 0u64);
    for _ in 0..60 {
        let numbers: Vec<u64> = held.keys().copied().collect();
        let gone: Vec<u64> = (0..24).map(|_| numbers[chance.below(numbers.len() as u64) as usize]).collect();
        for number in &gone {
            held.remove(number);
        }
        let removals = gone.iter().map(|number| Request::RemoveIfOlder { key: key(*number), version: 1 });
        all(&mut store, removals.collect());
        let some = numbers.iter().filter(|number| held.contains_key(number)).take(50);
        let leases: Vec<(Key, u64)> = some.map(|number| (key(*number), 10_000 + replaced)).collect();
        let known = leases.len();
        assert_eq!(all(&mut store, vec![Request::TouchMany { leases }]), vec![Ok(Response::Touched { known })]);
        while live_percent(&store) < FULL_PERCENT {
            let number = next;
            next += 1;
            match all(&mut store, vec![put(number)]).remove(0) {
                Ok(_) => {
                    held.insert(number, ());
                    replaced += 1;
                }
                Err(error) => {
                    assert_eq!(error, Error::Full);
                    refused += 1;
                    break;
                }
            }
        }
    }
    let stats = store.stats();
    println!("{replaced} replaced, {refused} refused, {} cleaned, {} % live", stats.cleaned, live_percent(&store));
    assert!(replaced > 1_000, "{replaced}");
    assert!(refused * 50 < replaced, "{refused} of {replaced}");
    assert_eq!(stats.refused, refused);
    assert!(stats.cleaned > 1_000 && stats.corrupt == 0);
    check(&mut store, &held);
    drop(store);
    disk.power_cut();
    let mut store = open(disk.clone(), settings()).unwrap();
    check(&mut store, &held);
    // Beyond the brim: refused, and recovered when leases lapse.
    let answers = all(&mut store, (0..2_000).map(|nth| put(1_000_000 + nth)).collect());
    assert!(answers.iter().any(|answer| *answer == Err(Error::Full)));
    let swept = all(&mut store, vec![Request::Sweep { now_s: 1_000_000 }]).remove(0);
    assert!(matches!(swept, Ok(Response::Swept { expired, .. }) if expired > held.len() as u64), "{swept:?}");
    let answers = all(&mut store, (0..2_000).map(|nth| put(2_000_000 + nth)).collect());
    assert!(answers.iter().all(|answer| *answer == Ok(Response::Put)));
}

/// Puts the objects of these numbers, as long as one of 64 finds room. Returns those that did.
fn fill(store: &mut Store<SimDisk>, numbers: std::ops::Range<u64>, put: impl Fn(u64) -> Request) -> Vec<u64> {
    let mut held = Vec::new();
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let some: Vec<u64> = numbers.by_ref().take(64).collect();
        let answers = all(store, some.iter().map(|number| put(*number)).collect());
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Response::Put) | Err(Error::Full))));
        let before = held.len();
        held.extend(some.iter().zip(answers).filter(|(_, answer)| answer.is_ok()).map(|(number, _)| *number));
        if held.len() == before {
            break;
        }
    }
    held
}

#[test]
fn what_lapses_in_a_full_store_makes_room_however_it_is_spread() {
    const SEGMENT: u32 = 256 * 1024;
    let disk = SimDisk::new(3, u64::MAX);
    create(&mut disk.clone(), [1; 16], 99, 0, 1, 1).unwrap();
    let small = Settings { segment_bytes: SEGMENT, capacity_bytes: 240 * u64::from(SEGMENT), ..settings() };
    let mut store = open(disk, small).unwrap();
    let lapses = |number: u64| number.is_multiple_of(2);
    let put = |number| put_of(number, if lapses(number) { 1_000 } else { 1_000_000 }, Bytes::from(vec![5; 500]));
    let mut held = fill(&mut store, 0..1_000_000, put);
    // What takes the place of some lies elsewhere: no segment is left to sweeps but the reserve, and none is dead.
    let (gone, mut left): (Vec<u64>, Vec<u64>) = held.drain(..).partition(|number| number.is_multiple_of(9));
    all(&mut store, gone.iter().map(|number| Request::RemoveIfOlder { key: key(*number), version: 1 }).collect());
    left.extend(fill(&mut store, 1_000_000..2_000_000, put));
    let lapsed = left.iter().filter(|number| lapses(**number)).count() as u64;
    let rows = lapsed * ExpiryRow::SIZE as u64 / u64::from(SEGMENT);
    println!("{} objects; rows fill {rows} segments, {} are free", left.len(), store.segments_free());
    assert!(store.segments_free() <= limits::SEGMENTS_RESERVED + 1 && rows > limits::SEGMENTS_RESERVED);
    let swept = all(&mut store, vec![Request::Sweep { now_s: 10_000 }]).remove(0);
    assert!(matches!(swept, Ok(Response::Swept { expired, .. }) if expired == lapsed), "{swept:?}");
    for number in left.iter().step_by(97) {
        let answer = all(&mut store, vec![Request::Get { key: key(*number) }]).remove(0);
        assert_eq!(matches!(answer, Ok(Response::Got(Some(_)))), !lapses(*number), "object {number}");
    }
    let answers = all(&mut store, (0..lapsed / 2).map(|nth| put(2_000_000 + nth)).collect());
    let refused = answers.iter().filter(|answer| **answer != Ok(Response::Put)).count();
    println!("first {:?} {refused} of {} {:?}", answers.iter().position(|a| a.is_err()), answers.len(), store.stats());
    println!(
        "live {} max {} segments_max {} free {}",
        store.segments.live_bytes(),
        store.live_bytes_max(),
        store.segments_max(),
        store.segments_free()
    );
    assert!(answers.iter().all(|answer| *answer == Ok(Response::Put)));
}
