//! What the nodes' disks and the wire hold: one copy of the same attachment, nothing in clear, nothing rotten served.
//!
//! Goal: the storage promises of the README, seen from outside the processes. Method: the numbers of `epost status`,
//! a scan of every file below the ring's folder, a capture of the loopback, and bits flipped in a stopped node's
//! files. The tests share a ring, one after the other, for they count what it stores.

mod ring;

use ring::{Ring, shared, until};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of stored objects in a node's status.
const LIVE_BYTES: &str = "/status/engine/live_bytes";
/// Damaged records found in a node's status.
const CORRUPT: &str = "/status/engine/corrupt";
/// Bytes of the attachment that clients/attachment.py sends.
const ATTACHMENT_BYTES: u64 = 600 * 1024;
/// Copies of content in the ring that `up` makes.
const COPIES: u64 = 3;

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stored bytes of all nodes, once they have stopped changing: replication may go on after delivery.
fn settled_bytes(ring: &Ring) -> u64 {
    let mut last = Vec::new();
    until("the stores to settle", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_secs(1));
        last.push(ring.total(LIVE_BYTES));
        let recent = last.iter().rev().take(3).collect::<BTreeSet<_>>();
        (last.len() >= 3 && recent.len() == 1).then_some(())
    });
    last[last.len() - 1]
}

/// C66: the same attachment, wrapped differently by two clients, is one object. Control: the first time it is stored
/// on every one of its holders.
#[test]
fn claim_66_same_attachment_in_other_lines_is_stored_once() {
    let _turn = alone();
    let Some(ring) = shared() else { return };
    let start = settled_bytes(ring);
    ring.client("attachment.py", &["76", "1"]);
    let once = settled_bytes(ring) - start;
    ring.client("attachment.py", &["60", "2"]);
    let twice = settled_bytes(ring) - start;
    eprintln!("stored bytes: {once} after one mail, {twice} after the same file in other lines");
    assert!(once >= COPIES * ATTACHMENT_BYTES, "the attachment was not stored {COPIES} times: {once} bytes");
    assert!(twice - once < ATTACHMENT_BYTES / 10, "the same file again cost {} bytes", twice - once);
}

/// C48, C74: no subject, body, attachment or password in clear on the wire between and to the nodes, nor on any disk.
/// Controls: the capture finds a word sent in clear, and the scan finds one written in clear.
#[test]
fn claim_74_nothing_is_in_clear_on_wire_or_disk() {
    let _turn = alone();
    let Some(ring) = shared() else { return };
    let place = ring.place("capture");
    let list = place.join("words");
    if ring.client("capture.py", &[&list.to_string_lossy()]).is_empty() {
        return;
    }
    let words = fs::read_to_string(&list).expect("the words");
    let words: Vec<&str> = words.lines().collect();
    assert!(words.len() >= 5, "the capture named only {} words", words.len());

    let planted = ring.dir().join("planted");
    fs::write(&planted, words[0]).expect("a planted word");
    assert_eq!(files_with(&ring.dir(), &words).len(), 1, "the scan does not find a planted word");
    fs::remove_file(&planted).expect("the planted file");

    let found = files_with(&ring.dir(), &words);
    assert!(found.is_empty(), "in clear on disk: {found:?}");
}

/// Every file below `dir` that holds one of the words, and which. Apart from them are the two files where the passwords
/// of `up`'s users are meant to be, to be told again by the next run; nobody but their owner may read those.
fn files_with(dir: &Path, words: &[&str]) -> Vec<(PathBuf, usize)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    for file in files(dir) {
        if ["up.json", "users.toml"].iter().any(|name| file == dir.join(name)) {
            let mode = fs::metadata(&file).expect("a file").permissions().mode();
            assert_eq!(mode & 0o077, 0, "others may read {}", file.display());
            continue;
        }
        let Ok(bytes) = fs::read(&file) else { continue };
        for (number, word) in words.iter().enumerate() {
            if contains(&bytes, word.as_bytes()) {
                found.push((file.clone(), number));
            }
        }
    }
    found
}

/// Whether the needle is in the hay; a plain search that skips on the first byte.
fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return true };
    let mut rest = hay;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// Every regular file below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Length of the byte patterns by which replicas of one object are recognised on several disks.
const WINDOW: usize = 48;
/// One window is taken every so many bytes of a file.
const STRIDE: usize = 4096;

/// Where a window lies: node (counted from 1), file, offset.
type Place = (usize, PathBuf, usize);

/// Windows of node `from`'s files, and every place in any node's files where the same bytes are. Sealed objects are
/// as good as random, so equal windows are replicas of one object.
fn replicas(ring: &Ring, from: usize) -> BTreeMap<Vec<u8>, Vec<Place>> {
    let mut windows: BTreeMap<Vec<u8>, Vec<Place>> = BTreeMap::new();
    for file in store_files(ring, from) {
        let bytes = fs::read(&file).unwrap_or_default();
        for start in (STRIDE / 2..bytes.len().saturating_sub(WINDOW)).step_by(STRIDE) {
            let window = &bytes[start..start + WINDOW];
            if window.iter().collect::<BTreeSet<_>>().len() > WINDOW / 2 {
                windows.insert(window.to_vec(), Vec::new());
            }
        }
    }
    find(ring, windows)
}

/// Fills in where each window is now, on all nodes.
fn find(ring: &Ring, mut windows: BTreeMap<Vec<u8>, Vec<Place>>) -> BTreeMap<Vec<u8>, Vec<Place>> {
    let heads: std::collections::HashSet<[u8; 8]> =
        windows.keys().filter_map(|window| window.first_chunk().copied()).collect();
    for node in 1..=ring::NODES {
        for file in store_files(ring, node) {
            let bytes = fs::read(&file).unwrap_or_default();
            for at in 0..bytes.len().saturating_sub(WINDOW) {
                let Some(head) = bytes[at..].first_chunk::<8>() else { continue };
                if heads.contains(head)
                    && let Some(places) = windows.get_mut(&bytes[at..at + WINDOW])
                {
                    places.push((node, file.clone(), at));
                }
            }
        }
    }
    windows
}

/// The files of a node's store.
fn store_files(ring: &Ring, node: usize) -> Vec<PathBuf> {
    let large = |file: &PathBuf| fs::metadata(file).is_ok_and(|metadata| metadata.len() >= 64 * 1024);
    let not_log = |file: &PathBuf| file.extension().is_none_or(|extension| extension != "log");
    files(&ring.dir().join(format!("node{node}"))).into_iter().filter(not_log).filter(large).collect()
}

/// A storage node whose sealed objects each have a flipped bit serves none of them, says so in its counters, and
/// gets them again from the others.
#[test]
fn flipped_bits_are_detected_never_served_and_repaired() {
    const DAMAGED: usize = 4;
    let _turn = alone();
    let Some(ring) = shared() else { return };
    // Attachments are objects of their own; the larger number makes it certain that some have their root there.
    let list = ring.place("lists").join("flipped");
    let list = list.to_string_lossy();
    ring.follow("burst.py", &["240", &list]).finish();
    ring.client("census.py", &[&list]);
    settled_bytes(ring);
    let before = ring.total(CORRUPT);
    assert_eq!(ring.interrupt(), "0", "Ctrl-C of `up`");

    // Only objects that other nodes hold as well: what is flipped must be repairable.
    let replicated: BTreeMap<_, _> = replicas(ring, DAMAGED)
        .into_iter()
        .filter(|(_, places)| places.iter().map(|place| place.0).collect::<BTreeSet<_>>().len() as u64 >= COPIES)
        .collect();
    let mut flipped = 0;
    for (node, file, at) in replicated.values().flatten() {
        if *node == DAMAGED {
            flip(file, at + WINDOW / 2);
            flipped += 1;
        }
    }
    eprintln!("flipped {flipped} bits on node {DAMAGED}");
    assert!(flipped >= 20, "only {flipped} places were found to damage");

    ring.up();
    ring.client("census.py", &[&list]);
    until("damage to be counted", Duration::from_secs(60), || (ring.total(CORRUPT) > before).then_some(()));
    let mut healed = 0;
    until("a damaged object to be replaced on its node", Duration::from_secs(120), || {
        std::thread::sleep(Duration::from_secs(2));
        let empty = replicated.keys().map(|window| (window.clone(), Vec::new())).collect();
        let now = find(ring, empty);
        healed = now.values().filter(|places| places.iter().any(|place| place.0 == DAMAGED)).count();
        (healed > 0).then_some(())
    });
    eprintln!("{healed} of {flipped} damaged places are whole again on node {DAMAGED}");
    ring.client("census.py", &[&list]);
}

/// Flips one bit of a file.
fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("a store's file");
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("a store's file");
}
