//! Goal: an opening reads the log behind the checkpoint, not the segment it lies in, and misses nothing of it. Method: a large segment,
//! a checkpoint far inside it, a few more objects, of which some lie beside dead ones; after a kill the disk's own count of
//! operations, and every object.

use super::super::{Settings, Store, create, open};
use crate::disk::FileName;
use crate::key::{Class, Key};
use crate::limits;
use crate::request::{Request, Response};
use crate::sim_disk::SimDisk;
use bytes::Bytes;

const LARGE: usize = 30;

fn key(number: usize) -> Key {
    Key { placement: [number as u8; 20], name: [1; 32], kind: 1 }
}

fn value(number: usize) -> Bytes {
    Bytes::from(vec![number as u8; if number < LARGE { limits::CHUNK } else { 5_000 }])
}

fn call(store: &mut Store<SimDisk>, request: Request) -> Response {
    store.submit(0, request);
    loop {
        if let Some((_, answer)) = store.take() {
            return answer.unwrap();
        }
        if !store.turn() {
            store.wait();
        }
    }
}

fn put(store: &mut Store<SimDisk>, number: usize) {
    let (key, value) = (key(number), value(number));
    call(store, Request::Put { key, version: 0, account: 0, class: Class::Fresh, expiry_s: 1_000_000, value });
}

#[test]
fn an_opening_reads_from_the_checkpoint_on() {
    for dead_at_the_end in [0, 3] {
        let disk = SimDisk::new(dead_at_the_end as u64, u64::MAX);
        create(&mut disk.clone(), [1; 16], 99, 0, 1, 1).unwrap();
        let settings = Settings {
            segment_bytes: 48 << 20,
            capacity_bytes: 48 << 26,
            step_bytes: limits::STEP_BYTES,
            checkpoint_log_bytes: u64::MAX,
            ..crate::simulate::settings()
        };
        let mut store = open(disk.clone(), settings).unwrap();
        (0..LARGE).for_each(|number| put(&mut store, number));
        for number in LARGE - dead_at_the_end..LARGE {
            call(&mut store, Request::RemoveIfOlder { key: key(number), version: 1 });
        }
        store.request_checkpoint();
        while !store.is_idle() {
            if !store.turn() {
                store.wait();
            }
        }
        (LARGE..LARGE + 20).for_each(|number| put(&mut store, number));
        drop(store);
        disk.kill();
        let before = disk.tally().operations;
        let mut store = open(disk.clone(), settings).unwrap();
        let operations = disk.tally().operations - before;
        let chunk = limits::CHUNK as u64;
        let segments = disk.files().into_iter().filter(|(file, _)| matches!(file, FileName::Segment(_)));
        let chunks: u64 = segments.map(|(_, length)| length.div_ceil(chunk)).sum();
        let spared = (LARGE - dead_at_the_end - 1) as u64;
        println!("{operations} operations, {chunks} chunks of which {spared} are in the checkpoint");
        // Besides chunks: the superblock, the directory, the checkpoint, heads and syncs.
        assert!(operations <= chunks - spared + 16, "{operations} with {dead_at_the_end} dead");
        assert!(store.stats().replayed_batches >= 20);
        for number in 0..LARGE + 20 {
            let Response::Got(found) = call(&mut store, Request::Get { key: key(number) }) else { panic!("a get") };
            let is_dead = (LARGE - dead_at_the_end..LARGE).contains(&number);
            assert_eq!(found.map(|object| object.value), (!is_dead).then(|| value(number)), "object {number}");
        }
    }
}
