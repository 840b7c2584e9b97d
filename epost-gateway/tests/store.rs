//! `epost store`, as an operator meets it. Method: the real binary on stores made by the engine; damage by hand, at places
//! known from what was put; exit codes, and what is said.

use engine::{Config, Engine, Key};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const EPOST: &str = env!("CARGO_BIN_EXE_epost");
const OBJECTS: u8 = 200;

fn config(dir: &Path) -> Config {
    Config { capacity_bytes: 256 << 20, segment_bytes: 1 << 20, pin: false, ..Config::new(dir) }
}

fn placement(number: u8) -> [u8; 20] {
    [number; 20]
}

/// Bytes that occur nowhere else.
fn value(number: u8) -> Vec<u8> {
    let byte = |at: u64| {
        let mixed = (u64::from(number) << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
    };
    (0..20_000).map(byte).collect()
}

fn filled(dir: &Path) {
    let engine = Engine::open(config(dir)).expect("a new store");
    let mut client = engine.client();
    for number in 0..OBJECTS {
        client
            .put(Key { placement: placement(number), name: [number; 32], kind: 1 }, value(number), 1 << 40)
            .expect("room");
    }
    engine.close();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let shards = fs::read_dir(dir).expect("the store").flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let files = shards.flat_map(|shard| fs::read_dir(shard).expect("a shard").flatten());
    files.map(|file| file.path()).filter(|file| file.to_string_lossy().contains("segment-")).collect()
}

/// Flips a bit of the object.
fn damage(dir: &Path, number: u8) {
    let needle = &value(number)[100..164];
    for file in segments(dir) {
        let mut bytes = fs::read(&file).expect("a segment");
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            return fs::write(&file, bytes).expect("a segment");
        }
    }
    panic!("object {number} is not on the disk");
}

fn store(action: &str, dir: &Path, more: &[&str]) -> Output {
    let dir = dir.to_string_lossy();
    Command::new(EPOST).args(["store", action, &dir]).args(more).stdin(Stdio::null()).output().expect("epost starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn sound_stores_end_with_0_and_damaged_ones_with_1_and_ids() {
    let dir = tempfile::tempdir().expect("a folder");
    filled(dir.path());
    for action in ["verify", "stats", "scrub"] {
        let output = store(action, dir.path(), &[]);
        assert_eq!(output.status.code(), Some(0), "{action}: {}", said(&output));
    }
    let stats = said(&store("stats", dir.path(), &[]));
    let objects = stats.lines().find(|line| line.trim_start().starts_with("objects ")).expect("a line of objects");
    assert!(objects.ends_with("200"), "{stats}");

    damage(dir.path(), 7);
    damage(dir.path(), 171);
    let output = store("verify", dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&"07".repeat(20)) && said(&output).contains(&"ab".repeat(20)), "{}", said(&output));
    let json = store("verify", dir.path(), &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["is_sound"], false);
    assert_eq!(json["damaged_ids"].as_array().map(Vec::len), Some(2), "{json}");
    let scrub = store("scrub", dir.path(), &[]);
    assert_eq!(scrub.status.code(), Some(1), "{}", said(&scrub));
    assert_eq!(store("stats", dir.path(), &[]).status.code(), Some(0), "counting looks at no value");
}

/// One clear line with the remedy, code 2, and nothing on standard output.
#[test]
fn what_cannot_be_looked_at_is_one_line_and_code_2() {
    let dir = tempfile::tempdir().expect("a folder");
    let refusal = |dir: &Path| {
        let output = store("verify", dir, &[]);
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
        assert!(output.stdout.is_empty());
        line
    };
    assert!(refusal(&dir.path().join("nowhere")).contains("no ePOST store"));
    assert!(refusal(dir.path()).contains("shard-00"), "says which directory is meant");
    filled(dir.path());
    let engine = Engine::open(config(dir.path())).expect("the store");
    assert!(refusal(dir.path()).contains("epost status"));
    engine.close();
    fs::rename(dir.path().join("shard-01"), dir.path().join("shard-05")).expect("a shard");
    assert!(refusal(dir.path()).contains("shard-01 is missing"));
}

fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect()
}

/// Ctrl-C ends it soon, with what it has, and leaves the store free.
#[test]
fn an_interrupt_ends_it_cleanly() {
    let dir = tempfile::tempdir().expect("a folder");
    filled(dir.path());
    let path = dir.path().to_string_lossy();
    let mut child = Command::new(EPOST)
        .args(["store", "scrub", &path, "--mib-per-s", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("epost starts");
    // Its threads bear the shards' names once it is at work.
    let begun = Instant::now();
    while !threads(child.id()).iter().any(|name| name.starts_with("shard-")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(interrupted.success());
    let status = child.wait().expect("it ends");
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("Stopped before the end"), "{text}");
    Engine::open(config(dir.path())).expect("nobody holds it any more");
}
