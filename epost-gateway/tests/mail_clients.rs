//! Mail through a ring of five real processes, driven by clients nobody here wrote: smtplib, imaplib and mbsync.
//!
//! Goal: what the README promises a mail user. Method: every test is a script of its own (clients/), run against one
//! ring that they share; scripts keep to folders and Message-IDs of their own, so that they can run at the same time.

mod ring;

use ring::{have, shared};
use std::path::PathBuf;
use std::process::Command;

/// The messages that the package mail-parser ships, found through cargo.
fn corpus() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let parser = packages
        .iter()
        .find(|package| {
            package["name"] == "mail-parser" && package["version"].as_str().is_some_and(|v| v.starts_with("0.11."))
        })
        .expect("mail-parser 0.11 is a dependency");
    let manifest = PathBuf::from(parser["manifest_path"].as_str().expect("a path"));
    manifest.parent().expect("a folder").join("resources")
}

/// C65: smtplib and imaplib send, list, fetch, search, flag, copy, move and delete; messages stay byte-identical.
#[test]
fn claim_65_conventional_clients_send_and_read() {
    let Some(ring) = shared() else { return };
    ring.client("session.py", &[]);
    ring.client("send.py", &[]);
}

/// Every legal message of the corpus, over IMAP and over SMTP.
#[test]
fn corpus_comes_back_byte_for_byte() {
    let Some(ring) = shared() else { return };
    let folder = corpus();
    ring.client("corpus.py", &[&folder.to_string_lossy()]);
}

/// What one client does is pushed to another that idles, and so is arriving mail.
#[test]
fn idle_is_told_what_others_do() {
    let Some(ring) = shared() else { return };
    ring.client("idle.py", &[]);
}

/// mbsync keeps a Maildir and a folder the same, both ways.
#[test]
fn mbsync_pulls_and_pushes() {
    if !have("mbsync") {
        return;
    }
    let Some(ring) = shared() else { return };
    let place = ring.place("mbsync");
    ring.client("mbsync.py", &[&place.to_string_lossy()]);
}

/// Wrong passwords, wrong senders and recipients, oversized and malformed input: the protocol's error, and no mail;
/// and every sort of refusal is counted for the operator to see.
#[test]
fn bad_input_is_refused_and_counted() {
    const COUNTED: [&str; 6] = [
        "login_failed",
        "smtp_senders_refused",
        "smtp_recipients_refused",
        "smtp_texts_refused",
        "smtp_messages_too_large",
        "smtp_bad_commands",
    ];
    let Some(ring) = shared() else { return };
    // Alice's gateway is node 1.
    let count = |name: &str| {
        let status = ring.status();
        let counter = &status["nodes"][0]["status"]["counters"][name];
        counter.as_u64().unwrap_or_else(|| panic!("{name} is {counter}"))
    };
    let before = COUNTED.map(count);
    ring.client("refusals.py", &[]);
    for (name, before) in COUNTED.iter().zip(before) {
        assert!(count(name) > before, "{name} did not rise from {before}");
    }
}
