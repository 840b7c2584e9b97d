//! Goal: docs/protocol.md and docs/transport.md are enough to write another program that works with a ring.
//!
//! Method: a client in Python (net/tests/client), with a QUIC of another make and everything else written from those pages
//! alone, stores blocks on a ring of three real processes and reads them back; small ones and ones that travel on the bulk
//! connection; through the nodes that are left when one is killed; and asks for the ring document. It also decodes and
//! encodes the golden frames.

mod fleet;

use fleet::Fleet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/tests/client/light_client.py")
}

fn run(python: &Path, arguments: &[&str]) -> Output {
    Command::new(python).arg("-B").arg(client()).args(arguments).output().expect("python starts")
}

/// A Python that has the client's two packages: that of `EPOST_PYTHON`, which must have them, or the system's. `None` if the
/// system's has not.
fn python() -> Option<PathBuf> {
    let given = std::env::var_os("EPOST_PYTHON");
    let python = PathBuf::from(given.clone().unwrap_or_else(|| "python3".into()));
    let probe = Command::new(&python).args(["-c", "import aioquic, blake3"]).output();
    let has_packages = probe.is_ok_and(|output| output.status.success());
    assert!(has_packages || given.is_none(), "EPOST_PYTHON lacks the packages of net/tests/client/requirements.txt");
    if !has_packages {
        eprintln!("skipped: python3 lacks the packages of net/tests/client/requirements.txt");
    }
    has_packages.then_some(python)
}

#[test]
fn another_program_reads_and_writes_the_golden_frames() {
    let Some(python) = python() else { return };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/tests/golden/v1.txt");
    let output = run(&python, &["--check", golden.to_str().expect("ASCII")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_stores_and_finds() {
    let Some(python) = python() else { return };
    let mut fleet = Fleet::enrol(3);
    let folder = fleet.enrol_client();
    fleet.hand_out_ring();
    (0..3).for_each(|node| fleet.start(node));
    for node in 0..3 {
        let is_ready = || (fleet.status(node)?["ready"] == true).then_some(());
        fleet::until(Duration::from_secs(60), is_ready, || fleet.log(node)).await;
    }
    let folder = folder.to_str().expect("ASCII").to_owned();
    let ask = |arguments: &[&str]| run(&python, &[&[folder.as_str()], arguments].concat());
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let blocks = [vec![1u8; 1], vec![2; 60_000], (0..300_000u32).map(|i| (i * 7) as u8).collect::<Vec<u8>>()];
    let mut keys = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        let file = Path::new(&folder).join(format!("block{number}"));
        std::fs::write(&file, block).expect("a file");
        let output = ask(&["put", file.to_str().expect("ASCII")]);
        assert!(output.status.success(), "{}", said(&output));
        keys.push(String::from_utf8(output.stdout).expect("a key").trim().to_owned());
    }
    let read_all = |when: &str| {
        for (key, block) in keys.iter().zip(&blocks) {
            let output = ask(&["get", key]);
            assert!(output.status.success(), "{when}: {}", said(&output));
            assert!(output.stdout == *block, "{when}: other bytes");
        }
    };
    read_all("all there");
    let output = ask(&["ring"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "5", "{}", said(&output));

    let absent = "01".to_owned() + &"ab".repeat(32);
    assert_eq!(ask(&["get", &absent]).status.code(), Some(1), "what nobody stored is not found");
    fleet.kill(1);
    read_all("one is gone");
}
