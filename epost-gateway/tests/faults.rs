//! Nodes die by `kill -9`, or hang, while mail is sent: every mail that got a 250 is there exactly once.
//!
//! Goal: a 250 means what DESIGN section 7 says. Method: a client sends 200 mails and notes each 250; in the middle
//! nodes are killed; `up` starts them again; then a census compares bob's inbox with the notes, byte for byte. One
//! ring serves all tests, one after the other, so that each starts from what the last one left behind.

mod ring;

use ring::{Ring, shared, until};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Mails per fault.
const MAILS: &str = "200";
/// The blow falls when so many were accepted.
const STRIKE: &str = "accepted 60";
/// Alice's gateway is node 1 and bob's is node 2.
const RECIPIENTS_NODE: usize = 2;
/// A node that is nobody's gateway.
const STORAGE_NODE: usize = 4;

/// One fault at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends, strikes in the middle, waits for recovery, counts.
fn strike(ring: &Ring, name: &str, numbers: &[usize]) {
    let list = ring.place("lists").join(name);
    let list = list.to_string_lossy();
    let before = ring.pids();
    let mut burst = ring.follow("burst.py", &[MAILS, &list]);
    burst.wait_for(STRIKE);
    ring.kill_nodes(numbers);
    burst.finish();
    ring.wait_restarted(&before, numbers);
    ring.client("census.py", &[&list]);
}

/// A node that is nobody's gateway dies.
#[test]
fn kill_of_a_storage_node_loses_nothing() {
    let _turn = alone();
    let Some(ring) = shared() else { return };
    strike(ring, "storage-node", &[STORAGE_NODE]);
}

/// The node of the recipient dies: what was accepted waits for it.
#[test]
fn kill_of_the_recipients_node_loses_nothing() {
    let _turn = alone();
    let Some(ring) = shared() else { return };
    strike(ring, "recipients-node", &[RECIPIENTS_NODE]);
}

/// Every node dies at once, the sender's among them.
#[test]
fn kill_of_all_five_loses_nothing() {
    let _turn = alone();
    let Some(ring) = shared() else { return };
    strike(ring, "all-five", &[1, 2, 3, 4, 5]);
}

/// A node that hangs without dying holds up nobody for longer than it takes to notice.
#[test]
fn a_frozen_storage_node_holds_up_nobody() {
    let _turn = alone();
    let Some(ring) = shared() else { return };
    for number in [3, 4, 5] {
        let doomed = [number];
        let _frozen = ring.freeze_nodes(&doomed);
        ring.client("single.py", &["accepted"]);
    }
    ring.wait_ready();
}

/// With two of five nodes frozen no head reaches its quorum of four: 451, and the client keeps its mail. When they are
/// back, mail goes on.
#[test]
fn storage_below_quorum_is_451() {
    let _turn = alone();
    let Some(ring) = shared() else { return };
    {
        let _frozen = ring.freeze_nodes(&[3, STORAGE_NODE]);
        ring.client("single.py", &["deferred"]);
    }
    ring.wait_ready();
    ring.client("single.py", &["accepted"]);
}

/// `up` itself dies: its nodes do not stay behind, and a second `up` goes on with the same data and passwords.
#[test]
fn kill_of_up_leaves_no_orphans_and_loses_nothing() {
    let _turn = alone();
    let Some(ring) = shared() else { return };
    let list = ring.place("lists").join("up");
    let list = list.to_string_lossy();
    ring.follow("burst.py", &["20", &list]).finish();
    let (users, pids) = (ring.described()["users"].clone(), ring.pids());
    ring.kill_up();
    until("orphaned nodes to end", Duration::from_secs(60), || {
        pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    ring.up();
    assert_eq!(ring.described()["users"], users, "a second run gave out other settings");
    ring.client("census.py", &[&list]);
}
