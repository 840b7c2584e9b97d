//! Goal: looking at a store finds exactly the damage that is there, changes nothing, and refuses clearly what is no whole store.
//! Method: a store on the machine's own file system, damaged by hand; what is to be found is known from what was put. The
//! directory's bytes are compared before and after.

use engine::{Class, Config, Engine, Inspection, Inspector, Key, OpenError, Progress, Request, Response, ShardReport};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const OBJECTS: u64 = 600;

fn key(number: u64) -> Key {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut placement = [0; 20];
    placement[..8].copy_from_slice(&spread.to_be_bytes());
    placement[12..].copy_from_slice(&spread.rotate_left(17).to_be_bytes());
    Key { placement, name: [number as u8; 32], kind: 1 }
}

/// Bytes that occur nowhere else.
fn value(number: u64) -> Vec<u8> {
    let length = 40 + (number as usize * 397) % 9000;
    let mut bytes = format!("object {number:06} ").into_bytes();
    bytes.extend((bytes.len()..length).map(|at| (number.wrapping_mul(0x9e37_79b9) >> (at % 24)) as u8 ^ at as u8));
    bytes
}

fn config(dir: &Path) -> Config {
    let (capacity_bytes, segment_bytes) = (256 << 20, 1 << 20);
    Config { capacity_bytes, segment_bytes, tick_s: 1, pin: false, ..Config::new(dir) }
}

/// A store of two shards with [`OBJECTS`] in it.
fn filled(dir: &Path) {
    let engine = Engine::open(config(dir)).unwrap();
    let mut client = engine.client();
    for number in 0..OBJECTS {
        client.put(key(number), value(number), 1_000_000).unwrap();
    }
    engine.close();
}

/// So many that each of two shards writes a run.
const RUN_OBJECTS: u64 = 40_000;

/// A store of two shards of small objects, whose index has runs.
fn filled_with_runs(dir: &Path) {
    let engine = Engine::open(config(dir)).unwrap();
    let mut port = engine.port(512, Arc::new(|| ()));
    let mut requests = (0..RUN_OBJECTS).map(|number| {
        let value = number.to_le_bytes().to_vec().into();
        let (key, class, expiry_s) = (key(number), Class::Fresh, 1_000_000);
        (number, Request::Put { key, version: 0, account: 0, class, expiry_s, value })
    });
    let mut put = 0;
    while put < RUN_OBJECTS {
        port.submit_many(&mut requests);
        while let Some(done) = port.poll_patiently() {
            assert_eq!(done.result, Ok(Response::Put));
            put += 1;
        }
    }
    drop(port);
    engine.close();
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Flips a bit in the stored bytes of an object; returns whether its only copy was found.
fn damage(dir: &Path, number: u64) -> bool {
    let needle = value(number);
    let needle = &needle[..40];
    for (path, mut bytes) in contents(dir) {
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at + 20] ^= 4;
            fs::write(&path, bytes).unwrap();
            return true;
        }
    }
    false
}

fn inspect(dir: &Path, inspection: Inspection) -> Vec<ShardReport> {
    Inspector::open(dir).unwrap().run(inspection, &Progress::default()).unwrap()
}

fn sum(reports: &[ShardReport], of: impl Fn(&ShardReport) -> u64) -> u64 {
    reports.iter().map(of).sum()
}

#[test]
fn a_sound_store_is_sound_and_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let before = contents(dir.path());
    let counted = inspect(dir.path(), Inspection::Count);
    assert_eq!(sum(&counted, |report| report.stats.objects), OBJECTS);
    let verified = inspect(dir.path(), Inspection::Verify);
    assert_eq!(verified.len(), 2);
    assert!(verified.iter().all(|report| report.is_complete && report.is_sound() && report.sound > 0), "{verified:?}");
    assert_eq!(sum(&verified, |report| report.sound), OBJECTS);
    assert_eq!(
        sum(&verified, |report| report.bytes),
        (0..OBJECTS).map(|number| value(number).len() as u64).sum::<u64>()
    );
    let scrubbed = inspect(dir.path(), Inspection::Scrub { bytes_per_s: None });
    assert!(scrubbed.iter().all(|report| report.is_complete && report.is_sound()), "{scrubbed:?}");
    assert!(sum(&scrubbed, |report| report.sound) >= OBJECTS, "{scrubbed:?}");
    assert!(before == contents(dir.path()), "looking at a store changed it");
}

/// Control for the test above: the same store, with bits flipped in some objects. Verify names exactly those; scrub counts as
/// many; nothing is changed; and a node that opens the store afterwards serves none of them.
#[test]
fn damage_is_found_named_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let flipped: Vec<u64> = (0..OBJECTS).step_by(97).collect();
    assert!(flipped.iter().all(|number| damage(dir.path(), *number)), "an object was not found on the disk");
    let before = contents(dir.path());
    let verified = inspect(dir.path(), Inspection::Verify);
    let mut named: Vec<[u8; 20]> = verified.iter().flat_map(|report| report.damaged_ids.clone()).collect();
    let mut expected: Vec<[u8; 20]> = flipped.iter().map(|number| key(*number).placement).collect();
    named.sort_unstable();
    expected.sort_unstable();
    assert_eq!(named, expected);
    assert!(verified.iter().any(|report| !report.is_sound()));
    let scrubbed = inspect(dir.path(), Inspection::Scrub { bytes_per_s: None });
    assert_eq!(sum(&scrubbed, |report| report.damaged), flipped.len() as u64);
    assert!(before == contents(dir.path()), "looking at a store changed it");
    let engine = Engine::open(config(dir.path())).unwrap();
    let mut client = engine.client();
    for number in 0..OBJECTS {
        let object = client.get(key(number)).unwrap();
        assert_eq!(object.map(|object| object.value.to_vec()), (!flipped.contains(&number)).then(|| value(number)));
    }
}

/// Rot in the index: every inspection that reads it names the run's file, and nothing but the listing misses what it named.
#[test]
fn a_damaged_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled_with_runs(dir.path());
    let scrub = Inspection::Scrub { bytes_per_s: None };
    for inspection in [Inspection::Verify, scrub] {
        let reports = inspect(dir.path(), inspection);
        assert!(reports.iter().all(|report| report.is_complete && report.is_sound()), "{reports:?}");
    }
    let is_run = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("run-");
    let (run, mut bytes) = contents(dir.path()).into_iter().find(|(path, _)| is_run(&path)).expect("a run");
    // In the first page of entries, behind the header page.
    bytes[4096 + 1000] ^= 8;
    fs::write(&run, bytes).unwrap();
    let before = contents(dir.path());
    for inspection in [Inspection::Verify, scrub] {
        let reports = inspect(dir.path(), inspection);
        let named: Vec<PathBuf> = reports.iter().flat_map(|report| report.damaged_runs.clone()).collect();
        assert_eq!(named, [run.strip_prefix(dir.path()).unwrap()], "{inspection:?}");
        assert_eq!(reports.iter().filter(|report| report.is_sound()).count(), 1, "{reports:?}");
        assert_eq!(sum(&reports, |report| report.stats.corrupt + report.unreadable), 0);
    }
    assert!(before == contents(dir.path()), "looking at a store changed it");
    let engine = Engine::open(config(dir.path())).unwrap();
    let mut client = engine.client();
    for number in (0..RUN_OBJECTS).step_by(101) {
        assert!(client.get(key(number)).unwrap().is_some_and(|object| object.value == number.to_le_bytes()[..]));
    }
}

/// The running scrub, over shards: damage leaves the index before anybody asks for it.
#[test]
fn a_running_scrub_goes_round_and_finds_damage() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let flipped: Vec<u64> = (5..OBJECTS).step_by(101).collect();
    assert!(flipped.iter().all(|number| damage(dir.path(), *number)), "an object was not found on the disk");
    let engine = Engine::open(config(dir.path())).unwrap();
    let mut client = engine.client();
    let mut steps = 0;
    while engine.stats().scrub_passes < 4 {
        client.scrub(64 * 1024).unwrap();
        steps += 1;
        assert!(steps < 10_000, "scrub does not go round");
    }
    let stats = engine.stats();
    assert_eq!(stats.corrupt, flipped.len() as u64);
    assert_eq!(stats.objects, OBJECTS - flipped.len() as u64);
    assert!(steps > 20, "small budgets make small steps: {steps}");
    for number in 0..OBJECTS {
        assert_eq!(client.get(key(number)).unwrap().is_some(), !flipped.contains(&number));
    }
    assert_eq!(engine.stats().corrupt, flipped.len() as u64, "readers found what scrub had not");
}

/// A stop is a stop: the report says that it is not complete.
#[test]
fn an_inspection_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    for inspection in [Inspection::Verify, Inspection::Scrub { bytes_per_s: Some(1) }] {
        let progress = Progress::default();
        progress.stop.store(true, Ordering::Relaxed);
        let reports = Inspector::open(dir.path()).unwrap().run(inspection, &progress).unwrap();
        assert!(reports.iter().all(|report| !report.is_complete && report.sound == 0), "{reports:?}");
    }
}

#[test]
fn what_is_no_whole_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |dir: &Path| Inspector::open(dir).map(drop).unwrap_err();
    assert!(matches!(refused(&dir.path().join("nowhere")), OpenError::NoStore { .. }));
    assert!(matches!(refused(dir.path()), OpenError::NoStore { .. }));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was written into a directory that is no store");
    filled(dir.path());
    let engine = Engine::open(config(dir.path())).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::AlreadyOpen { .. }));
    engine.close();
    let held = Inspector::open(dir.path()).unwrap();
    assert!(matches!(Engine::open(config(dir.path())), Err(OpenError::AlreadyOpen { .. })));
    drop(held);

    let (shard, aside) = (dir.path().join("shard-01"), tempfile::tempdir().unwrap());
    let away = aside.path().join("shard-01");
    fs::rename(&shard, &away).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::ShardMissing { .. }));
    assert!(matches!(Engine::open(config(dir.path())), Err(OpenError::ShardMissing { .. })));
    // Another shard's files in its place.
    copy(&dir.path().join("shard-00"), &shard);
    let other = Inspector::open(dir.path()).unwrap().run(Inspection::Count, &Progress::default());
    assert!(matches!(other, Err(OpenError::OtherStore { .. })), "{other:?}");
    fs::remove_dir_all(&shard).unwrap();
    copy(&away, &shard);
    fs::write(shard.join("superblock"), vec![0; 8192]).unwrap();
    let lost = Inspector::open(dir.path()).unwrap().run(Inspection::Count, &Progress::default());
    assert!(matches!(lost, Err(OpenError::SuperblockLost { .. })), "{lost:?}");
}

/// A superblock with another version, sound in all else (docs/formats.md: the checksum is over what follows it, its seed is
/// fixed, the version is at 40).
fn set_version(superblock: &Path, version: u32) {
    const SUPERBLOCK_SEED: u64 = 0x6550_4f53_5420_0001;
    let mut file = fs::read(superblock).unwrap();
    for copy in file.chunks_exact_mut(4096) {
        copy[40..44].copy_from_slice(&version.to_le_bytes());
        let check = xxhash_rust::xxh3::xxh3_64_with_seed(&copy[8..64], SUPERBLOCK_SEED);
        copy[..8].copy_from_slice(&check.to_le_bytes());
    }
    fs::write(superblock, file).unwrap();
}

/// Of another format version, by node and inspector alike, with the version named.
#[test]
fn other_versions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let superblock = dir.path().join("shard-00/superblock");
    set_version(&superblock, 99);
    let both = || [Inspector::open(dir.path()).map(drop), Engine::open(config(dir.path())).map(drop)];
    for refused in both() {
        assert!(matches!(refused, Err(OpenError::NewerVersion { found: 99, .. })), "{refused:?}");
    }
    set_version(&superblock, 1);
    for refused in both() {
        assert!(matches!(refused, Err(OpenError::OlderVersion { found: 1, .. })), "{refused:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
