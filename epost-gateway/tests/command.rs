//! The command line, as an operator meets it: what `up` refuses, and what it says and writes when all is well.
//!
//! Method: the real binary, its exit code and its standard error; where a ring must run, one that all tests share.

mod ring;

use ring::{EPOST, NODES, free_ports, scratch, shared};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `epost` to its end.
fn epost(arguments: &[&str]) -> Output {
    Command::new(EPOST).args(arguments).stdin(Stdio::null()).output().expect("epost starts")
}

/// The one line on standard error that goes with exit code 2.
fn refusal(arguments: &[&str]) -> String {
    let output = epost(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} said: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "more than one clear line: {said}");
    said
}

fn remove(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
}

/// A port that somebody listens on.
#[test]
fn port_in_use_is_one_line_and_code_2() {
    let dir = scratch("command");
    let base = free_ports();
    let _taken = TcpListener::bind(("127.0.0.1", base + 2)).expect("a free port");
    let data = dir.join("data");
    let said = refusal(&["up", "--port-base", &base.to_string(), "--dir", &data.to_string_lossy()]);
    assert!(said.contains(&(base + 2).to_string()), "does not name the port: {said}");
    // The folder is marked as ours, so that the next run may go on in it; no key has been made.
    let left = fs::read_dir(&data).into_iter().flatten().flatten().map(|entry| entry.file_name());
    assert!(left.into_iter().all(|name| name == "epost.toml" || name == "lock"), "an organisation was begun");
    remove(&dir);
}

/// A folder that holds somebody else's files is not touched.
#[test]
fn foreign_folder_is_one_line_and_code_2() {
    let dir = scratch("command");
    fs::write(dir.join("thesis.txt"), "years of work").expect("a file");
    let base = free_ports();
    let said = refusal(&["up", "--port-base", &base.to_string(), "--dir", &dir.to_string_lossy()]);
    assert!(said.contains(&*dir.to_string_lossy()), "does not name the folder: {said}");
    let left: Vec<_> = fs::read_dir(&dir).expect("the folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["thesis.txt"], "something was written into a folder that is not ours");
    remove(&dir);
}

/// A second `up` on a folder whose ring is running.
#[test]
fn running_twice_is_one_line_and_code_2() {
    let Some(ring) = shared() else { return };
    let other = free_ports();
    refusal(&["up", "--port-base", &other.to_string(), "--dir", &ring.dir().to_string_lossy()]);
}

/// Usage errors and versions.
#[test]
fn usage_is_code_2_and_version_is_told() {
    assert_eq!(epost(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(epost(&["node", "--config", "/nonexistent/node.toml"]).status.code(), Some(2));
    let version = epost(&["--version"]);
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

/// up.json has the shape the issue fixes, names ports from the base upwards, and is for the owner's eyes only.
#[test]
fn up_json_has_its_shape() {
    use std::os::unix::fs::PermissionsExt;
    let Some(ring) = shared() else { return };
    let up = ring.described();
    assert_eq!(up["domain"], "epost.test");
    let users = up["users"].as_array().expect("users");
    assert_eq!(users.len(), 2);
    for (user, name) in users.iter().zip(["alice", "bob"]) {
        assert_eq!(user["address"], format!("{name}@epost.test"));
        assert!(user["password"].as_str().is_some_and(|password| password.len() >= 8), "a weak password");
        for service in ["smtp", "imap"] {
            assert!(user[service]["host"].is_string(), "{user}");
            for port in ["starttls", "tls"] {
                let port = user[service][port].as_u64().expect("a port");
                assert!((u64::from(ring.base())..u64::from(ring.base()) + 32).contains(&port), "port {port}");
            }
        }
    }
    let nodes = up["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), NODES);
    for node in nodes {
        let pid = node["pid"].as_u64().expect("a pid");
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "no process {pid}");
        assert_eq!(node["node_id"].as_str().map(str::len), Some(40), "{node}");
        assert!(Path::new(node["dir"].as_str().expect("a folder")).is_dir());
        assert!(node["status_url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{node}");
    }
    let mode = fs::metadata(ring.dir().join("up.json")).expect("up.json").permissions().mode();
    assert_eq!(mode & 0o077, 0, "up.json, which holds passwords, may be read by others");
}

/// `epost status` speaks of every node; `--json` names ring, objects, bytes, leases, queues and drops.
#[test]
fn status_tells_of_every_node() {
    let Some(ring) = shared() else { return };
    ring.wait_ready();
    let status = ring.status();
    let nodes = status["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), NODES);
    let table = epost(&["status", "--dir", &ring.dir().to_string_lossy()]);
    assert!(table.status.success());
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    for word in ["objects", "bytes", "leases", "queue", "drop"] {
        assert!(table.to_lowercase().contains(word), "the table does not tell of {word}:\n{table}");
    }
}

/// No ring there: said, and not with code 0.
#[test]
fn status_without_a_ring_says_so() {
    let dir = scratch("command");
    let output = epost(&["status", "--dir", &dir.to_string_lossy()]);
    assert!(!output.status.success());
    assert!(!output.stderr.is_empty());
    remove(&dir);
}
