//! Goal: ports are bounded, answer every operation exactly once, and share flushes. Method: several threads with deep ports
//! over one engine, each checking its own objects; the counters show that batches were shared.

use engine::{Class, Config, Engine, Error, Key, Request, Response};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn key(number: u64) -> Key {
    let mut placement = [0; 20];
    placement[..8].copy_from_slice(&number.rotate_left(40).to_be_bytes());
    placement[12..].copy_from_slice(&number.to_be_bytes());
    let mut name = [0; 32];
    name[..8].copy_from_slice(&number.to_be_bytes());
    Key { placement, name, kind: 1 }
}

fn put(number: u64) -> Request {
    let value = vec![number as u8; (number % 5_000) as usize].into();
    Request::Put { key: key(number), version: 0, account: 0, class: Class::Fresh, expiry_s: 9_000, value }
}

fn config(dir: &std::path::Path) -> Config {
    Config { capacity_bytes: 512 << 20, segment_bytes: 4 << 20, tick_s: 1, ..Config::new(dir) }
}

/// Submits everything through one port of this depth, and returns the answers by tag.
fn run(engine: &Engine, depth: usize, requests: Vec<(u64, Request)>) -> BTreeMap<u64, Result<Response, Error>> {
    let owner = std::thread::current();
    let mut port = engine.port(depth, Arc::new(move || owner.unpark()));
    assert_eq!(port.capacity(), depth);
    let mut answers = BTreeMap::new();
    let mut waiting = requests.into_iter();
    let mut given_back = None;
    loop {
        while let Some(completion) = port.poll() {
            assert!(answers.insert(completion.tag, completion.result).is_none(), "answered twice");
        }
        let Some((tag, request)) = given_back.take().or_else(|| waiting.next()) else {
            if port.in_flight() == 0 {
                return answers;
            }
            std::thread::park();
            continue;
        };
        if let Err(request) = port.submit(tag, request) {
            assert_eq!(port.in_flight(), depth, "refused below its capacity");
            given_back = Some((tag, request));
            std::thread::park();
        }
    }
}

#[test]
fn many_ports_share_flushes_and_lose_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(Engine::open(config(dir.path())).unwrap());
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let engine = engine.clone();
            std::thread::spawn(move || {
                let numbers = || thread * 10_000..thread * 10_000 + 1_500;
                let answers = run(&engine, 64, numbers().map(|number| (number, put(number))).collect());
                assert!(answers.len() == 1_500 && answers.values().all(|answer| *answer == Ok(Response::Put)));
                let gets = numbers().map(|number| (number, Request::Get { key: key(number) })).collect();
                for (number, answer) in run(&engine, 64, gets) {
                    let Ok(Response::Got(Some(object))) = answer else { panic!("{number}: {answer:?}") };
                    assert_eq!(object.value, vec![number as u8; (number % 5_000) as usize]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let stats = engine.stats();
    assert_eq!((stats.objects, stats.puts, stats.gets), (6_000, 6_000, 6_000));
    assert!(stats.batches * 4 < stats.puts, "256 puts in flight share flushes: {} batches", stats.batches);
    println!("{} puts in {} batches of {} bytes", stats.puts, stats.batches, stats.batch_bytes);
    // A walk over all shards is one walk.
    let scan = Request::Scan { from: [0x20; 20], to: [0x1f; 20], after: None, limit: 10_000 };
    let answers = run(&engine, 1, vec![(0, scan)]);
    let Some(Ok(Response::Listed(entries))) = answers.get(&0) else { panic!("scan: {answers:?}") };
    assert_eq!(entries.len(), 6_000);
    let order: Vec<_> = entries.iter().map(|entry| (entry.key.placement < [0x20; 20], entry.key)).collect();
    assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "in ring order from the start, each once");
}

#[test]
fn ports_share_a_bounded_number_of_places() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    let all = engine.port(engine::limits::MAILBOX, Arc::new(|| ()));
    assert_eq!(all.capacity(), engine::limits::MAILBOX);
    let mut none = engine.port(1, Arc::new(|| ()));
    assert_eq!(none.capacity(), 0);
    assert_eq!(none.submit(0, put(1)), Err(put(1)), "the request comes back");
    drop(all);
    assert_eq!(engine.port(5, Arc::new(|| ())).capacity(), 5);
}

#[test]
fn a_closed_engine_answers_and_wakes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    let woken = Arc::new(AtomicU64::new(0));
    let count = woken.clone();
    let mut port = engine.port(
        4,
        Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }),
    );
    port.submit(1, put(1)).unwrap();
    engine.close();
    assert_eq!(port.poll().map(|completion| completion.result), Some(Ok(Response::Put)), "closing drains");
    let before = woken.load(Ordering::SeqCst);
    port.submit(2, Request::TouchMany { leases: vec![(key(1), 5), (key(2), 5)] }).unwrap();
    assert_eq!(port.poll().map(|completion| (completion.tag, completion.result)), Some((2, Err(Error::Closed))));
    assert!(woken.load(Ordering::SeqCst) > before);
    assert!(port.poll().is_none());
}
