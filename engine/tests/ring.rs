//! Goal: the engine on the real io_uring keeps what it acknowledged, over reopening and over a kill, and refuses clearly.
//! Method: a store in a temporary directory on the machine's own file system; every answer is compared with a plain map.

use engine::{Config, Engine, Error, Key, OpenError};
use std::collections::BTreeMap;

fn key(number: u64) -> Key {
    // Spread over the ring, so that all shards are used.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut placement = [0; 20];
    placement[..8].copy_from_slice(&spread.to_be_bytes());
    placement[12..].copy_from_slice(&spread.rotate_left(17).to_be_bytes());
    let mut name = [0; 32];
    name[..20].copy_from_slice(&placement);
    name[24..].copy_from_slice(&number.to_be_bytes());
    Key { placement, name, kind: 1 }
}

fn value(number: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number.wrapping_mul(31).wrapping_add(at as u64 * 7) >> 3) as u8).collect()
}

fn small(dir: &std::path::Path) -> Config {
    Config {
        capacity_bytes: 256 << 20,
        segment_bytes: 1 << 20,
        tick_s: 1,
        grace_s: 0,
        clock_jump_s: u64::MAX,
        ..Config::new(dir)
    }
}

#[test]
fn what_was_put_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = BTreeMap::new();
    for round in 0..3u64 {
        let engine = Engine::open(small(dir.path())).unwrap();
        let mut client = engine.client();
        for number in round * 100..round * 100 + 100 {
            let bytes = value(number, (number as usize * 977) % 60_000);
            client.put(key(number), bytes.clone(), 1000 + number).unwrap();
            model.insert(number, (bytes, 1000 + number));
        }
        for (number, (bytes, expiry_s)) in &model {
            let object = client.get(key(*number)).unwrap().expect("acknowledged");
            assert_eq!(object.value, bytes);
            assert_eq!(object.expiry_s, *expiry_s);
        }
        assert_eq!(client.get(key(999_999)).unwrap(), None);
        let stats = engine.stats();
        assert_eq!(stats.objects, model.len() as u64);
        assert_eq!(stats.corrupt, 0);
        engine.close();
        assert_eq!(client.get(key(1)), Err(Error::Closed));
    }
}

#[test]
fn an_open_store_and_foreign_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(small(dir.path())).unwrap();
    assert!(matches!(Engine::open(small(dir.path())), Err(OpenError::AlreadyOpen { .. })));
    drop(engine);
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("thesis.tex"), "x").unwrap();
    assert!(matches!(Engine::open(small(foreign.path())), Err(OpenError::NotOurs { .. })));
    assert_eq!(std::fs::read_dir(foreign.path()).unwrap().count(), 1, "nothing was written there");
}
