//! Goal: single promises of a shard, each shown alone. Method: one store on a sound simulated disk, one request at a time.

use super::{Settings, Store, create, open};
use crate::disk::{Disk, FileName, Operation, Token};
use crate::key::{Class, Key};
use crate::request::{Error, Request, Response};
use crate::sim_disk::{Chance, Faults, SimDisk};
use crate::simulate::{bytes_of, settings};
use bytes::Bytes;

fn key(number: u8) -> Key {
    Key { placement: [number; 20], name: [number; 32], kind: 1 }
}

fn new_disk(tick_s: u32) -> SimDisk {
    let disk = SimDisk::new(5, u64::MAX);
    create(&mut disk.clone(), [1; 16], 99, 0, 1, tick_s).unwrap();
    disk
}

fn opened(disk: &SimDisk, settings: Settings) -> Store<SimDisk> {
    open(disk.clone(), settings).unwrap()
}

fn call(store: &mut Store<SimDisk>, request: Request) -> Result<Response, Error> {
    store.submit(0, request);
    loop {
        if let Some((_, answer)) = store.take() {
            return answer;
        }
        if !store.turn() {
            store.wait();
        }
    }
}

fn put(store: &mut Store<SimDisk>, number: u8, expiry_s: u64, value: Bytes) -> Result<Response, Error> {
    call(store, Request::Put { key: key(number), version: 0, account: 0, class: Class::Fresh, expiry_s, value })
}

fn get(store: &mut Store<SimDisk>, number: u8) -> Option<Bytes> {
    match call(store, Request::Get { key: key(number) }) {
        Ok(Response::Got(object)) => object.map(|object| object.value),
        other => panic!("get answered {other:?}"),
    }
}

fn checkpointed(store: &mut Store<SimDisk>) {
    store.request_checkpoint();
    while !store.is_idle() {
        if !store.turn() {
            store.wait();
        }
    }
}

fn swept(store: &mut Store<SimDisk>, now_s: u64) -> u64 {
    match call(store, Request::Sweep { now_s }) {
        Ok(Response::Swept { expired, .. }) => expired,
        other => panic!("sweep answered {other:?}"),
    }
}

/// Goal: who refers to an object leaves nothing behind in the store. Method: one referrer, and a hundred; each puts the same
/// object and extends its lease. Afterwards what is live, the index and its checkpoint are equally large.
#[test]
fn claim_27_who_refers_to_an_object_leaves_nothing_behind() {
    let [alone, crowd] = [1u64, 100].map(|referrers| {
        let disk = new_disk(1);
        // The log of all that fits one segment: segments are accounted for, too.
        let mut store = opened(&disk, Settings { segment_bytes: 4 << 20, capacity_bytes: 80 << 20, ..settings() });
        for account in 0..referrers {
            let (key, value, expiry_s) = (key(1), Bytes::from_static(b"an attachment"), 1_000);
            let class = Class::Fresh;
            let put = Request::Put { key, version: 0, account, class, expiry_s, value };
            assert_eq!(call(&mut store, put), Ok(Response::Put));
            let leases = vec![(key, expiry_s + 500)];
            assert_eq!(call(&mut store, Request::TouchMany { leases }), Ok(Response::Touched { known: 1 }));
        }
        checkpointed(&mut store);
        let stats = store.stats();
        (stats.objects, stats.live_bytes, stats.index_bytes, store.upkeep.newest_bytes())
    });
    assert_eq!(alone, crowd);
    assert_eq!(alone.0, 1);
}

/// Goal: a flipped bit anywhere in a segment is noticed, never served, and a put repairs it. Method: thousands of single
/// flips, with and without a checkpoint; after each, every object is what was put, or absent and counted.
#[test]
fn a_flipped_bit_is_detected_never_served_and_repaired_by_a_put() {
    for with_checkpoint in [false, true] {
        let disk = new_disk(1);
        let mut store = opened(&disk, settings());
        for number in 0..12 {
            put(&mut store, number, 1000, bytes_of(u64::from(number))).unwrap();
        }
        if with_checkpoint {
            checkpointed(&mut store);
        }
        let used = u64::from(store.log.open[Class::Fresh as usize].unwrap().at);
        drop(store);
        disk.kill();
        let file = FileName::Segment(0);
        let mut chance = Chance::new(u64::from(with_checkpoint));
        let (mut absent, mut counted) = (0, 0);
        for _ in 0..1500 {
            let bit = chance.below(used * 8);
            disk.rot(file, bit);
            let mut store = opened(&disk, settings());
            for number in 0..12 {
                match get(&mut store, number) {
                    Some(value) => assert_eq!(value, bytes_of(u64::from(number)), "wrong bytes after bit {bit}"),
                    None => {
                        absent += 1;
                        put(&mut store, number, 1000, bytes_of(u64::from(number))).unwrap();
                        assert_eq!(get(&mut store, number), Some(bytes_of(u64::from(number))), "not repaired");
                    }
                }
            }
            counted += u64::from(store.stats().corrupt > 0);
            drop(store);
            // Back to before the flip and the repair.
            disk.kill();
            for (extra, _) in disk.files() {
                if matches!(extra, FileName::Segment(number) if number > 0) {
                    done(&disk, Operation::Unlink { file: extra });
                }
            }
            disk.kill();
            disk.rot(file, bit);
        }
        println!("checkpoint {with_checkpoint}: {absent} objects absent, {counted} stores counted damage");
        assert!(absent > 100 && counted > 100);
    }
}

/// Goal: nothing expires early, in ticks coarser than a second and with grace. Method: the closed form, at every second
/// around the end.
#[test]
fn objects_go_when_tick_and_grace_are_past_and_not_a_second_before() {
    for (tick_s, grace_s, expiry_s) in [(1, 0, 50), (10, 3, 41), (10, 0, 40), (3600, 60, 3601)] {
        let end_s = u64::next_multiple_of(expiry_s, u64::from(tick_s)) + grace_s;
        let disk = new_disk(tick_s);
        let mut store = opened(&disk, Settings { grace_s, ..settings() });
        put(&mut store, 1, expiry_s, Bytes::from_static(b"x")).unwrap();
        for now_s in end_s.saturating_sub(5)..=end_s {
            assert_eq!(swept(&mut store, now_s), 0, "tick {tick_s}, grace {grace_s}: gone at {now_s}, ends {end_s}");
        }
        assert_eq!(swept(&mut store, end_s + 1), 1);
        assert_eq!(get(&mut store, 1), None);
    }
}

/// Goal: no lease is cut short by a touch. Method: one key named twice.
#[test]
fn of_two_ends_for_one_key_in_a_touch_the_later_counts() {
    let mut store = opened(&new_disk(1), settings());
    put(&mut store, 1, 10, Bytes::from_static(b"x")).unwrap();
    let leases = vec![(key(1), 100), (key(1), 50)];
    assert_eq!(call(&mut store, Request::TouchMany { leases }), Ok(Response::Touched { known: 2 }));
    match call(&mut store, Request::Get { key: key(1) }) {
        Ok(Response::Got(Some(object))) => assert_eq!(object.expiry_s, 100),
        other => panic!("get answered {other:?}"),
    }
}

/// Goal: a clock that jumps deletes nothing until it is confirmed, over a restart too. Method: jump, reopen, jump, confirm.
#[test]
fn a_clock_jump_suspends_deletion_until_confirmed() {
    let disk = new_disk(1);
    let careful = Settings { clock_jump_s: 100, ..settings() };
    let mut store = opened(&disk, careful);
    put(&mut store, 1, 1_050, Bytes::from_static(b"x")).unwrap();
    assert_eq!(swept(&mut store, 1_000), 0);
    assert_eq!(swept(&mut store, 9_000), 0);
    assert_eq!(store.stats().deletion_suspended, 1);
    drop(store);
    disk.kill();
    let mut store = opened(&disk, careful);
    assert_eq!(swept(&mut store, 9_001), 0, "the last believed time outlives the process");
    assert!(get(&mut store, 1).is_some());
    assert_eq!(call(&mut store, Request::ConfirmClock { now_s: 9_001 }), Ok(Response::Confirmed));
    assert_eq!(swept(&mut store, 9_002), 1);
    assert_eq!(store.stats().deletion_suspended, 0);
    assert_eq!(get(&mut store, 1), None);
}

/// Goal: a full store refuses puts, still reads, takes lease extensions, and recovers by itself when leases lapse.
#[test]
fn a_full_store_refuses_reads_and_recovers() {
    let disk = new_disk(1);
    let mut store = opened(&disk, settings());
    let value = Bytes::from(vec![7; 15_000]);
    let mut held = 0;
    loop {
        match put(&mut store, held, 1_000, value.clone()) {
            Ok(_) => held += 1,
            Err(error) => {
                assert_eq!(error, Error::Full);
                break;
            }
        }
    }
    assert!(held > 40, "most of the capacity is usable: {held} objects");
    for number in 0..held {
        assert_eq!(get(&mut store, number), Some(value.clone()));
    }
    assert_eq!(
        call(&mut store, Request::TouchMany { leases: vec![(key(0), 3_000)] }),
        Ok(Response::Touched { known: 1 })
    );
    assert_eq!(swept(&mut store, 2_000), u64::from(held) - 1);
    assert_eq!(put(&mut store, 200, 3_000, value.clone()), Ok(Response::Put));
    assert_eq!(get(&mut store, 0), Some(value));
    assert!(store.stats().refused > 0);
}

/// Goal: after one failed durable write the store goes on elsewhere; after another it is read-only and still reads.
#[test]
fn failed_writes_are_errors_and_a_second_one_makes_the_store_read_only() {
    let disk = new_disk(1);
    let mut store = opened(&disk, settings());
    put(&mut store, 1, 1_000, bytes_of(1)).unwrap();
    let broken = Faults { write_error: 1000, ..Faults::default() };
    disk.set_faults(broken);
    assert_eq!(put(&mut store, 2, 1_000, bytes_of(2)), Err(Error::Io));
    disk.set_faults(Faults::default());
    assert_eq!(get(&mut store, 2), None, "what failed is undone");
    assert_eq!(put(&mut store, 3, 1_000, bytes_of(3)), Ok(Response::Put));
    disk.set_faults(broken);
    assert_eq!(put(&mut store, 4, 1_000, bytes_of(4)), Err(Error::Io));
    disk.set_faults(Faults::default());
    assert_eq!(put(&mut store, 5, 1_000, bytes_of(5)), Err(Error::ReadOnly));
    assert_eq!(get(&mut store, 1), Some(bytes_of(1)));
    assert_eq!(get(&mut store, 3), Some(bytes_of(3)));
    drop(store);
    disk.power_cut();
    let mut store = opened(&disk, settings());
    assert_eq!(get(&mut store, 1), Some(bytes_of(1)));
    assert_eq!(get(&mut store, 3), Some(bytes_of(3)));
}

/// Goal: restarts do not use up segments. Method: a hundred lives of one put each in a store of twenty segments.
#[test]
fn many_restarts_do_not_fill_the_store() {
    let disk = new_disk(1);
    for number in 0..100 {
        let mut store = opened(&disk, settings());
        assert_eq!(put(&mut store, number, 1_000, bytes_of(u64::from(number))), Ok(Response::Put), "life {number}");
        drop(store);
        disk.power_cut();
    }
    let mut store = opened(&disk, settings());
    for number in 0..100 {
        assert_eq!(get(&mut store, number), Some(bytes_of(u64::from(number))));
    }
}

/// Goal: a value too large for a segment, or for the limits, is refused as such.
#[test]
fn values_too_large_are_refused() {
    let disk = new_disk(1);
    let mut store = opened(&disk, settings());
    assert_eq!(put(&mut store, 1, 1_000, Bytes::from(vec![0; 64 * 1024])), Err(Error::TooLarge));
    assert_eq!(put(&mut store, 1, 1_000, Bytes::from(vec![0; 50 * 1024])), Ok(Response::Put));
}

/// Has the disk do one thing while no store is open on it.
fn done(disk: &SimDisk, operation: Operation) {
    let mut disk = disk.clone();
    disk.submit(Token(0), operation);
    loop {
        match disk.poll() {
            Some(done) => return drop(done.result.unwrap()),
            None => disk.wait(),
        }
    }
}

/// Goal: what dies behind the end of a file that a lossy disk has left too short is not punched, and costs nothing but itself.
/// Method: an object in a checkpoint, its file cut off within the payload, the object removed, and a checkpoint again. As a
/// control, the same with the file whole: then there is a hole.
#[test]
fn nothing_is_punched_behind_the_end_of_a_file() {
    for is_cut in [false, true] {
        let disk = new_disk(1);
        let mut store = opened(&disk, settings());
        put(&mut store, 1, 1_000, Bytes::from(vec![7; 40_000])).unwrap();
        put(&mut store, 2, 1_000, bytes_of(2)).unwrap();
        checkpointed(&mut store);
        drop(store);
        disk.kill();
        let file = FileName::Segment(0);
        let whole = disk.contents(file).unwrap();
        if is_cut {
            let bytes = Bytes::copy_from_slice(&whole[..16 * 1024]);
            done(&disk, Operation::Unlink { file });
            done(&disk, Operation::Create { file });
            done(&disk, Operation::Write { file, offset: 0, bytes, durable: true });
        }
        let mut store = opened(&disk, settings());
        assert_eq!(call(&mut store, Request::RemoveIfOlder { key: key(1), version: 1 }), Ok(Response::Removed(true)));
        // Sealed at the opening. At the end of a round somebody may still hold bytes of the file, by the disk's chance.
        (0..8).for_each(|_| checkpointed(&mut store));
        assert_eq!(get(&mut store, 1), None);
        assert_eq!(store.stats().punched_bytes > 0, !is_cut, "cut: {is_cut}");
        assert_eq!(get(&mut store, 2).is_some(), !is_cut);
    }
}
