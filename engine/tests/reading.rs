//! Goal: reads are right and harmless whatever happens to memory: nothing faults where it must not, a page that cannot be read
//! costs one object and not the process, and bytes held by readers never change. Method: the real engine on the machine's
//! own file system; whatever would end a process happens in a child, which is this program with another test's name.

use engine::{Config, Engine, Key, OpenError, Stats};
use memmap2::Mmap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn key(number: u64) -> Key {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut placement = [0; 20];
    placement[..8].copy_from_slice(&spread.to_be_bytes());
    placement[12..].copy_from_slice(&spread.rotate_left(17).to_be_bytes());
    let mut name = [0; 32];
    name[24..].copy_from_slice(&number.to_be_bytes());
    Key { placement, name, kind: 1 }
}

/// Bytes that no other number has, nowhere zero for long.
fn value(number: u64, length: usize) -> Vec<u8> {
    let mut chance = engine::sim_disk::Chance::new(number);
    (0..length.div_ceil(8)).flat_map(|_| chance.below(u64::MAX).to_le_bytes()).take(length).collect()
}

fn small(dir: &Path) -> Config {
    Config {
        shards: 1,
        capacity_bytes: 256 << 20,
        segment_bytes: 1 << 20,
        tick_s: 1,
        grace_s: 0,
        clock_jump_s: u64::MAX,
        ..Config::new(dir)
    }
}

/// A store in `dir` with these values, opened anew, so that nothing of them is in the shard's own memory.
fn filled(dir: &Path, numbers: std::ops::Range<u64>, length: impl Fn(u64) -> usize) -> Engine {
    let engine = Engine::open(small(dir)).unwrap();
    let mut client = engine.client();
    for number in numbers {
        client.put(key(number), value(number, length(number)), 100).unwrap();
    }
    engine.close();
    Engine::open(small(dir)).unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("shard-00")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().contains("segment-")).collect();
    files.sort();
    files
}

/// Drops a file's pages from memory, where nobody maps them.
fn evict(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    // SAFETY: takes a descriptor that `file` keeps open, and numbers.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(result, 0);
}

/// Page faults that waited for the device, of a thread of this process by its name.
fn major_faults(thread: &str) -> u64 {
    let mut found = None;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        if stat.contains(&format!("({thread})")) {
            // After the name: state, and then numbers, of which the ninth is the count.
            let rest = stat.rsplit(") ").next().unwrap();
            found = Some(rest.split(' ').nth(9).unwrap().parse().unwrap());
        }
    }
    found.expect("the thread is there")
}

/// Goal: a shard's thread never waits for the device in a page fault. Method: a cold store is read until it is served from
/// memory; the kernel's count of such faults of that thread does not move. Control: it does move for a thread that touches a
/// cold mapping.
#[test]
fn cold_reads_cause_no_major_fault() {
    let dir = tempfile::tempdir().unwrap();
    let length = |number: u64| 500 + (number as usize * 7_919) % 60_000;
    filled(dir.path(), 0..300, length).close();
    for path in segments(dir.path()) {
        evict(&path);
    }
    let engine = Engine::open(small(dir.path())).unwrap();
    let mut client = engine.client();
    let before = major_faults("shard-00");
    for round in 0..4 {
        for number in 0..300 {
            let object = client.get(key(number)).unwrap().expect("stored");
            assert_eq!(object.value, value(number, length(number)), "round {round}");
        }
    }
    let stats = engine.stats();
    assert!(stats.gets_cold >= 300, "{stats:?}");
    assert!(stats.gets_mapped >= 300, "{stats:?}");
    assert_eq!(major_faults("shard-00") - before, 0);
    engine.close();

    let path = dir.path().join("control");
    fs::write(&path, value(1, 8 << 20)).unwrap();
    evict(&path);
    let faults = std::thread::Builder::new().name("control".into()).spawn(move || {
        // SAFETY: nobody changes the file.
        let map = unsafe { Mmap::map(&File::open(&path).unwrap()).unwrap() };
        assert_ne!(map.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>(), 0);
        major_faults("control")
    });
    assert!(faults.unwrap().join().unwrap() > 0, "the measure does not work");
}

/// Runs a test of this file in a process of its own, with a store's directory.
fn child(test: &str, dir: &Path, variant: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env("EPOST_CHILD_DIR", dir)
        .env("EPOST_CHILD_VARIANT", variant)
        .output()
        .unwrap()
}

/// In a child: its directory and variant.
fn in_child() -> Option<(PathBuf, String)> {
    Some((std::env::var_os("EPOST_CHILD_DIR")?.into(), std::env::var("EPOST_CHILD_VARIANT").ok()?))
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Goal: a segment that can no longer be read through its mapping costs its unreadable objects, and nothing else. Method: the
/// file of a mapped segment is cut short behind the engine's back, which is how SIGBUS is made; see the child.
#[test]
fn a_shortened_segment_costs_its_objects_and_not_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let output = child("child_whose_segments_are_shortened", dir.path(), "");
    assert!(output.status.success(), "{}: {}", output.status, text(&output));
    assert!(text(&output).contains("segments were quarantined"), "{}", text(&output));
}

const LENGTH: usize = 30_000;

#[test]
#[ignore = "run by a_shortened_segment_costs_its_objects_and_not_the_process"]
fn child_whose_segments_are_shortened() {
    let Some((dir, _)) = in_child() else { return };
    let count = 300;
    let engine = filled(&dir, 0..count, |_| LENGTH);
    let mut client = engine.client();
    let mut lost = std::collections::BTreeSet::new();
    // Several, because a pause of a second just before the cut lets the engine notice without a fault.
    for path in segments(&dir).into_iter().take(5) {
        let content = fs::read(&path).unwrap();
        let half = content.len() / 2;
        let ends = |number: &u64| {
            let wanted = value(*number, LENGTH);
            let start = content.windows(16).position(|window| window == &wanted[..16])?;
            Some(start + LENGTH)
        };
        let held: Vec<(u64, usize)> = (0..count).filter_map(|number| Some((number, ends(&number)?))).collect();
        assert!(held.len() > 10);
        for _ in 0..3 {
            for (number, _) in &held {
                assert_eq!(client.get(key(*number)).unwrap().expect("whole").value, value(*number, LENGTH));
            }
        }
        File::options().write(true).open(&path).unwrap().set_len(half as u64).unwrap();
        lost.extend(held.iter().filter(|(_, end)| *end > half).map(|(number, _)| *number));
        for number in 0..count {
            let found = client.get(key(number)).unwrap().map(|object| object.value.to_vec());
            let expected = (!lost.contains(&number)).then(|| value(number, LENGTH));
            assert!(found == expected, "object {number} is wrong, or not as absent as it should be");
        }
    }
    let stats = engine.stats();
    assert_eq!(stats.corrupt, lost.len() as u64);
    assert!(stats.segments_quarantined > 0, "{stats:?}");
    for number in lost {
        client.put(key(number), value(number, LENGTH), 100).unwrap();
        assert_eq!(client.get(key(number)).unwrap().expect("repaired").value, value(number, LENGTH));
    }
    println!("{} segments were quarantined, {} objects lost", stats.segments_quarantined, stats.corrupt);
}

/// Goal: SIGBUS ends the process as before where it is not the engine's to contain: outside its mappings, when it was sent, and
/// where checked bytes given to a reader can no longer be read (zeros there would be wrong bytes).
#[test]
fn other_bus_errors_are_fatal_as_before() {
    for variant in ["outside", "sent", "given"] {
        let dir = tempfile::tempdir().unwrap();
        let output = child("child_that_dies_of_a_bus_error", dir.path(), variant);
        assert!(text(&output).contains("about to"), "{variant}: {}", text(&output));
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{variant}: {}: {}", output.status, text(&output));
    }
}

#[test]
#[ignore = "run by other_bus_errors_are_fatal_as_before"]
fn child_that_dies_of_a_bus_error() {
    let Some((dir, variant)) = in_child() else { return };
    let engine = filled(&dir, 0..100, |_| LENGTH);
    let mut client = engine.client();
    let mut read = || client.get(key(7)).unwrap().expect("stored").value;
    let held = [read(), read(), read(), read()];
    assert!(engine.stats().gets_mapped > 0, "a segment is mapped, and the handler installed");
    println!("about to");
    match &*variant {
        "outside" => {
            let path = dir.join("lock");
            fs::write(&path, [1; 8192]).unwrap();
            // SAFETY: that the file is cut short below is the point of it.
            let map = unsafe { Mmap::map(&File::open(&path).unwrap()).unwrap() };
            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
            println!("read {}", map[5000]);
        }
        "sent" => {
            // The first goes to the standard library's handler, which restores the default action for the fault it expects
            // to happen again.
            for _ in 0..2 {
                // SAFETY: takes a number.
                unsafe { libc::raise(libc::SIGBUS) };
            }
        }
        _ => {
            for path in segments(&dir) {
                File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
            }
            println!("read {}", held[3].iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
    }
    println!("alive");
}

/// Goal: bytes that readers hold never change, while segments are freed and written anew under them. Method: threads hold what
/// they have read for a while and then compare all of it, over several generations of objects, each of which fills the
/// segments of the last.
#[test]
fn held_bytes_outlive_recycling() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config { capacity_bytes: 64 << 20, ..small(dir.path()) }).unwrap();
    let (per_generation, length, generations) = (120u64, 90_000, 8u64);
    let (newest, compared, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..3u64 {
            let (engine, newest, compared, over) = (&engine, &newest, &compared, &over);
            scope.spawn(move || {
                let mut client = engine.client();
                let mut chance = engine::sim_disk::Chance::new(reader);
                let mut held = std::collections::VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    let generation = newest.load(Ordering::Relaxed);
                    let number = generation * per_generation + chance.below(12);
                    let Some(object) = client.get(key(number)).unwrap() else { continue };
                    held.push_back((number, object.value));
                    if held.len() > 40 {
                        let (number, bytes) = held.pop_front().unwrap();
                        assert!(bytes == value(number, length), "reader {reader}: {number} changed while it was held");
                        compared.fetch_add(1, Ordering::Relaxed);
                    }
                }
                for (number, bytes) in held {
                    assert!(bytes == value(number, length), "reader {reader}: {number} changed while it was held");
                }
            });
        }
        let mut client = engine.client();
        let (mut kept, mut pinned) = (Vec::new(), 0);
        for generation in 0..generations {
            for number in generation * per_generation..(generation + 1) * per_generation {
                client.put(key(number), value(number, length), 100 * (generation + 1)).unwrap();
            }
            newest.store(generation, Ordering::Relaxed);
            for _ in 0..4 {
                for number in (generation * per_generation..(generation + 1) * per_generation).step_by(5) {
                    kept.push((number, client.get(key(number)).unwrap().expect("stored").value));
                }
            }
            // The leases of this generation are over; the next one is written over what is freed.
            client.sweep(100 * (generation + 1) + 1).unwrap();
            pinned = pinned.max(engine.stats().segments_pinned);
            for (number, bytes) in &kept {
                assert!(*bytes == value(*number, length), "{number} changed while it was held");
            }
            kept.clear();
        }
        over.store(true, Ordering::Relaxed);
        assert!(pinned > 0, "segments were freed while they were held");
    });
    let stats = engine.stats();
    assert!(stats.gets_mapped > 0 && stats.segments_freed > 0 && stats.corrupt == 0, "{stats:?}");
    assert_eq!(stats.segments_pinned, 0, "nobody holds anything any more");
    println!("{} values compared after they were held, {} segments freed", compared.into_inner(), stats.segments_freed);
}

/// Bytes of the device that files take; none where one is not there any more.
fn taken(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.blocks() * 512).sum()
}

/// Goal: large dead records give their blocks back at the sweep, while what lives beside them stays; but not as long as somebody
/// holds bytes of the segment, which never change; and the accounts are the file system's, over a restart, too. Method: every
/// other object expires; one of them, and one that lives in another segment, are held meanwhile. What the files take is asked of
/// the file system.
#[test]
fn large_dead_records_are_punched_but_not_under_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (count, length) = (64u64, 100_000);
    let engine = Engine::open(small(dir.path())).unwrap();
    let mut client = engine.client();
    for number in 0..count {
        let ends = if number.is_multiple_of(2) { 100 } else { 10_000 };
        client.put(key(number), value(number, length), ends).unwrap();
    }
    engine.close();
    let engine = Engine::open(small(dir.path())).unwrap();
    let mut client = engine.client();
    let held: Vec<(u64, bytes::Bytes)> = [0, 21]
        .map(|number| {
            // Until it comes out of the mapping, and not out of memory of its own.
            let mut bytes = client.get(key(number)).unwrap().expect("stored").value;
            for _ in 0..20 {
                bytes = client.get(key(number)).unwrap().expect("stored").value;
            }
            (number, bytes)
        })
        .into();
    assert!(engine.stats().gets_mapped > 0, "{:?}", engine.stats());
    let sealed = segments(dir.path());
    let before = taken(&sealed);
    let (expired, freed) = client.sweep(1_000).unwrap();
    let stats = engine.stats();
    assert_eq!(expired, count / 2);
    let fell = before - taken(&sealed);
    println!("{before} bytes taken, {fell} given back, {} punched", stats.punched_bytes);
    assert!(stats.punched_bytes > count / 2 * length as u64 / 2, "{stats:?}");
    // A file in many pieces takes the file system a block more to describe.
    assert!(freed >= stats.punched_bytes && fell + (64 << 10) >= stats.punched_bytes, "{freed} {fell} {stats:?}");
    for (number, bytes) in &held {
        assert!(*bytes == value(*number, length), "{number} changed while it was held");
    }
    let punched_while_held = stats.punched_bytes;
    drop(held);
    // What had to wait goes with a later round: here one more object that expires brings one.
    client.put(key(1_000), value(1_000, length), 1_500).unwrap();
    client.sweep(2_000).unwrap();
    assert!(engine.stats().punched_bytes > punched_while_held, "{:?}", engine.stats());
    for number in (1..count).step_by(2) {
        assert!(client.get(key(number)).unwrap().expect("it lives").value == value(number, length), "{number}");
    }
    let counted = engine.stats().total_bytes;
    assert_eq!(engine.stats().corrupt, 0);
    engine.close();
    let engine = Engine::open(small(dir.path())).unwrap();
    let beside: u64 = fs::read_dir(dir.path().join("shard-00"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| !entry.file_name().to_string_lossy().contains("segment-"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    let stats = engine.stats();
    assert!(stats.total_bytes.abs_diff(taken(&segments(dir.path())) + beside) <= 64 << 10, "{stats:?}");
    assert!(counted.abs_diff(stats.total_bytes) <= 2 << 20, "{counted} counted before, {stats:?}");
    let mut client = engine.client();
    for number in (1..count).step_by(2) {
        assert!(client.get(key(number)).unwrap().expect("it lives").value == value(number, length), "{number}");
    }
    let scrubbed = client.scrub(u64::MAX).unwrap();
    println!("{scrubbed:?}");
    assert_eq!(engine.stats().scrub_damaged, 0, "holes are no damage");
}

/// Goal: where too little memory may be locked for a ring, opening says so and names the remedy. Method: a child lowers its
/// limit, gives up its privileges and opens a store. Kernels that do not count a ring's memory open it; then there is
/// nothing to test.
#[test]
fn too_little_lockable_memory_is_said_clearly() {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can lower its limit and still make the store's directory somebody else's");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let output = child("child_with_too_little_lockable_memory", dir.path(), "");
    let text = text(&output);
    assert!(output.status.success(), "{}: {text}", output.status);
    if text.contains("it opened") {
        println!("skipped: this kernel does not count a ring's memory");
    } else {
        assert!(text.contains("ulimit -l 65536") && text.contains("LimitMEMLOCK"), "{text}");
    }
}

const NOBODY: u32 = 65_534;

#[test]
#[ignore = "run by too_little_lockable_memory_is_said_clearly"]
fn child_with_too_little_lockable_memory() {
    let Some((dir, _)) = in_child() else { return };
    let limit = libc::rlimit { rlim_cur: 16 << 10, rlim_max: 16 << 10 };
    // SAFETY: a pointer to a limit that lives through the call; then numbers.
    let results = unsafe {
        [libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit), libc::setgid(NOBODY), libc::setuid(NOBODY)]
    };
    assert_eq!(results, [0, 0, 0]);
    match Engine::open(small(&dir)) {
        Ok(engine) => println!("it opened: {:?}", Stats { total_bytes: 0, ..engine.stats() }),
        Err(error @ OpenError::MemlockTooSmall) => println!("refused: {error}"),
        Err(error) => panic!("another error: {error:?}"),
    }
}

/// Goal: what is durable in a segment that is still being written is served from memory when it is read again, while the
/// segment grows around it, and never a byte of it is wrong. Method: batches into one segment of a young store (its file grows
/// step by step) and, after everything has expired, into recycled ones whose old pages are in memory; in between all
/// objects are read again and again and compared with what was put. Control: the counters say that it was the mapping.
#[test]
fn what_is_durable_in_an_open_segment_is_served_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { capacity_bytes: 1 << 30, segment_bytes: 64 << 20, ..small(dir.path()) };
    let engine = Engine::open(config).unwrap();
    let mut client = engine.client();
    let length = |number: u64| 1 + (number as usize * 7_919) % 60_000;
    let expiry = |round: u64| 1_000 * (round + 1);
    for round in 0..4 {
        let numbers = round * 1_000..round * 1_000 + 800;
        for number in numbers.clone() {
            client.put(key(number), value(number, length(number)), expiry(round)).unwrap();
            // An old one and one that has just left the shard's own memory.
            for read in [numbers.start, (number / 2).max(numbers.start), number.saturating_sub(180).max(numbers.start)]
            {
                let object = client.get(key(read)).unwrap().expect("stored");
                assert!(object.value == value(read, length(read)), "round {round}: {read} after {number}");
            }
        }
        for pass in 0..4 {
            for number in numbers.clone() {
                let object = client.get(key(number)).unwrap().expect("stored");
                assert!(object.value == value(number, length(number)), "round {round}, pass {pass}: {number}");
            }
        }
        // 24 MB of 64: the segment is open to the end of the round.
        let stats = engine.stats();
        assert!(stats.gets_mapped > 1_600 * (round + 1), "round {round}: {stats:?}");
        assert_eq!((stats.segments_quarantined, stats.corrupt), (0, 0), "round {round}: {stats:?}");
        client.confirm_clock(expiry(round) + 10).unwrap();
        client.sweep(expiry(round) + 10).unwrap();
    }
    engine.close();
}
