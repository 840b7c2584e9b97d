//! Goal: a figure counts only what was done. Method: each contender does each case for a moment on a small segment, which is
//! then read by other means and held against a count kept in the simplest way; and broken segments, to see the checks fail.

use crate::contender::{CONTENDERS, Contender};
use crate::order;
use crate::pages::PAGE;
use crate::segment::Segment;
use crate::work::{CASES, Case, Job, Places};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Small enough to be written round and round in a moment.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Who opens the file with `O_DSYNC` where a write is to be durable by itself; the others say so with each write.
const OPEN_DSYNC: [&str; 3] = ["glommio", "tokio-uring", "compio"];
const MOMENT: Duration = Duration::from_millis(100);

/// A folder on a file system with direct I/O, which /tmp may not have, and a segment in it.
fn segment() -> (tempfile::TempDir, Segment) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    fs::create_dir_all(&dir).expect("a folder");
    let scratch = tempfile::tempdir_in(dir).expect("a folder");
    let segment = Segment::write_beforehand(&scratch.path().join("segment"), SEGMENT_BYTES).expect("a segment");
    (scratch, segment)
}

fn job(case: Case, segment: &Segment, number: u64) -> Job {
    Job { case, segment: segment.clone(), time: MOMENT, number, seed: 1 }
}

fn appending() -> impl Iterator<Item = (&'static Contender, Case)> {
    let cases = CASES.into_iter().filter(Case::is_append);
    cases.flat_map(|case| CONTENDERS.iter().map(move |contender| (contender, case)))
}

/// Place, job and record of every page, by a plain read of the whole file.
fn stamps(segment: &Segment) -> Vec<[u64; 3]> {
    let bytes = fs::read(&segment.path).expect("a file");
    assert_eq!(bytes.len() as u64, SEGMENT_BYTES);
    let word = |page: &[u8], at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
    bytes.chunks(PAGE).map(|page| [word(page, 0), word(page, 8), word(page, 16)]).collect()
}

#[test]
fn every_record_that_is_counted_lies_in_the_file() {
    let (_scratch, segment) = segment();
    let slots = (SEGMENT_BYTES / PAGE as u64) as usize;
    for (number, (contender, case)) in (1..).zip(appending()) {
        let mut expected = stamps(&segment);
        let done = (contender.run)(&job(case, &segment, number)).expect("runs");
        assert!(done.operations > 0, "{}: {}", contender.name, case.name);
        for record in 0..done.operations {
            let slot = (record % slots as u64) as usize;
            expected[slot] = [(slot * PAGE) as u64, number, record + 1];
        }
        assert_eq!(stamps(&segment), expected, "{}: {}", contender.name, case.name);
        segment.check(number, done.operations).expect("the comparison's own check agrees");
    }
}

#[test]
fn a_record_too_many_and_a_rotten_byte_are_noticed() {
    let (_scratch, segment) = segment();
    let done = (CONTENDERS[0].run)(&job(CASES[2], &segment, 1)).expect("runs");
    segment.check(1, done.operations).expect("all there");
    let error = segment.check(1, done.operations + 1).expect_err("one too many");
    assert!(error.to_string().contains(&format!("record {}", done.operations + 1)), "{error}");
    segment.check(2, done.operations).expect_err("another job's");
    let file = OpenOptions::new().write(true).open(&segment.path).expect("a file");
    file.write_all_at(b"rot", PAGE as u64 - 3).expect("written");
    segment.check(1, done.operations).expect_err("rot");
}

#[test]
fn a_read_that_brings_another_page_is_noticed_by_all() {
    let (_scratch, segment) = segment();
    let reading = || CASES.into_iter().filter(|case| !case.is_append());
    for case in reading() {
        for contender in &CONTENDERS {
            let done = (contender.run)(&job(case, &segment, 1)).expect("runs");
            assert!(done.operations > 0, "{}: {}", contender.name, case.name);
        }
    }
    // The first page that will be asked for becomes a copy of its neighbour.
    let first = Places::new(&job(CASES[6], &segment, 1)).next();
    let bytes = fs::read(&segment.path).expect("a file");
    let file = OpenOptions::new().write(true).open(&segment.path).expect("a file");
    let neighbour = (first as usize + PAGE) % bytes.len();
    file.write_all_at(&bytes[neighbour..neighbour + PAGE], first).expect("written");
    file.sync_all().expect("synced");
    for case in reading() {
        for contender in &CONTENDERS {
            let error = (contender.run)(&job(case, &segment, 1)).expect_err(contender.name);
            assert!(error.to_string().contains(&format!("at {first} ")), "{}: {error}", contender.name);
        }
    }
}

/// Goal: all write past the kernel's memory, and those that cannot say it with a write ask for durability when they open.
/// Method: the kernel's own account of the open files, looked at from outside while the job runs; the last look counts, because
/// glommio opens first and turns direct I/O on afterwards.
#[test]
fn files_are_open_as_it_is_said() {
    for (number, (contender, case)) in (1..).zip(appending()) {
        let (_scratch, segment) = segment();
        let job = job(case, &segment, number);
        let flags = std::thread::scope(|scope| {
            let running = scope.spawn(|| (contender.run)(&job));
            let mut seen = None;
            while !running.is_finished() {
                seen = flags_of_open_file(&segment.path).or(seen);
            }
            running.join().expect("no panic").expect("runs");
            seen
        });
        let name = format!("{}: {}", contender.name, case.name);
        let flags = flags.expect("seen open");
        assert_ne!(flags & libc::O_DIRECT, 0, "{name}");
        assert_eq!(flags & libc::O_DSYNC != 0, case.is_dsync() && OPEN_DSYNC.contains(&contender.name), "{name}");
    }
}

/// With which flags this process has a file open, if it has.
fn flags_of_open_file(path: &Path) -> Option<i32> {
    let path = path.canonicalize().ok()?;
    let descriptors = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let ours = descriptors.into_iter().find(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == path))?;
    let account = fs::read_to_string(Path::new("/proc/self/fdinfo").join(ours.file_name())).ok()?;
    let flags = account.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(flags.trim(), 8).ok()
}

#[test]
fn rounds_begin_with_another_contender_each_and_leave_none_out() {
    let count = CONTENDERS.len();
    let mut beginners = HashSet::new();
    for round in 0..2 * count {
        let turns: Vec<usize> = (0..count).map(|turn| order(round, turn)).collect();
        assert_eq!(turns.iter().collect::<HashSet<_>>().len(), count, "{turns:?}");
        beginners.insert(turns[0]);
    }
    assert_eq!(beginners.len(), count);
}
