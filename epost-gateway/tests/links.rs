//! Goal: a ring of real processes goes on while links between them are cut, parts in two, and becomes one ring again: nothing
//! acknowledged is lost, and nothing waits for ever. What was dropped is printed.
//!
//! Method: sixteen node processes and one node in this process, which asks; each link is a pair of UDP ports that the test
//! can cut ([`fleet`]). What is read is compared with what was written; what the nodes think of each other is read from
//! their status pages.

mod fleet;

use bytes::Bytes;
use epost_gateway::node::{Node, RingStore};
use fleet::Fleet;
use net::id::{Key, Kind};
use net::sim::Dice;
use post::store::{ObjectStore, StoreError};
use std::time::Duration;

/// Node processes; the node in this process comes on top.
const PROCESSES: usize = 16;
/// For what takes a few seconds on a machine of its own.
const PATIENCE: Duration = Duration::from_secs(180);

struct Ring {
    fleet: Fleet,
    store: RingStore,
    written: Vec<(Key, Bytes)>,
    dice: Dice,
}

impl Ring {
    /// Waits until each of these nodes is ready and has so many others in its leaf set.
    async fn settled(&self, what: &str, nodes: impl Iterator<Item = usize>, others: usize) {
        for node in nodes {
            let is_settled = || {
                let status = self.fleet.status(node)?;
                let size = status["ring"]["leaf_set"].as_array().map(Vec::len);
                (status["ready"] == true && size == Some(others)).then_some(())
            };
            let explain = || format!("{what}: node {node}: {:?}\n{}", self.fleet.status(node), self.fleet.log(node));
            fleet::until(PATIENCE, is_settled, explain).await;
        }
    }

    /// Stores so many blocks, with a few more tries than a mail client would be kept waiting for.
    async fn write(&mut self, count: usize) {
        for _ in 0..count {
            let length = 1 + self.dice.below(20_000);
            let value = self.dice.bytes(length);
            let key = Key::of(Kind::Content, &value);
            let expiry = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 86_400;
            patiently(|| self.store.put(key, value.clone(), expiry)).await.expect("a majority answers");
            self.written.push((key, value));
        }
    }

    /// Reads everything back.
    async fn read_all(&self, when: &str) {
        for (key, value) in &self.written {
            let found = patiently(|| self.store.get(*key)).await;
            assert!(
                matches!(&found, Ok(Some(found)) if found == value),
                "{when}: {key:?}: {:?}",
                found.map(|f| f.is_some())
            );
        }
    }
}

async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let mut outcome = attempt().await;
    for _ in 0..20 {
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        outcome = attempt().await;
    }
    outcome
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: minutes, for partitions are noticed by silence"]
async fn sixteen_processes_whose_links_are_cut_and_healed() {
    let mut fleet = Fleet::enrol(PROCESSES + 1);
    (0..PROCESSES).for_each(|node| fleet.start(node));
    let here = Node::start(fleet.config(PROCESSES)).await.expect("a node in this process");
    let mut ring = Ring { store: here.store(), fleet, written: Vec::new(), dice: Dice::new(4) };
    let all = || 0..PROCESSES;
    ring.settled("founding", all(), PROCESSES).await;
    ring.write(60).await;
    ring.read_all("founded").await;

    // One link in ten.
    let pairs: Vec<(usize, usize)> = (0..=PROCESSES).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
    let cut: Vec<(usize, usize)> = pairs.into_iter().filter(|_| ring.dice.below(10) == 0).collect();
    cut.iter().for_each(|(a, b)| ring.fleet.fabric.set_cut(*a, *b, true));
    tokio::time::sleep(Duration::from_secs(20)).await;
    ring.read_all("a tenth of the links cut").await;
    ring.write(20).await;
    cut.iter().for_each(|(a, b)| ring.fleet.fabric.set_cut(*a, *b, false));
    ring.settled("links mended", all(), PROCESSES).await;

    // Eleven with the one who asks, six without.
    let is_here = |node: usize| node >= 6;
    ring.fleet.fabric.part(is_here);
    ring.settled("parted, here", (0..PROCESSES).filter(|node| is_here(*node)), PROCESSES - 6).await;
    ring.settled("parted, there", 0..6, 5).await;
    ring.write(20).await;
    ring.fleet.fabric.part(|_| true);
    ring.settled("healed", all(), PROCESSES).await;
    ring.read_all("healed").await;

    // Two die at once and come back with their disks.
    for node in [2, 9] {
        ring.fleet.kill(node);
    }
    ring.read_all("two are dead").await;
    for node in [2, 9] {
        ring.fleet.start(node);
    }
    ring.settled("all are back", all(), PROCESSES).await;
    ring.read_all("all are back").await;
    for node in all() {
        let status = ring.fleet.status(node).expect("a status page");
        println!("node {node}: drops {}", status["drops"]);
    }
    here.stop().await;
}
