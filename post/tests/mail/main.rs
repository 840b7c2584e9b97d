//! Logs and mail over a store in memory that verifies every block as a replica would.

mod corpus;
mod folder;
mod log;
mod mailbox;
mod parts;
mod structure;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use post::log::LogStore;
use post::log::journal::Journal;
use post::log::keys::WriteKeys;
use post::mail::folder::Folder;
use post::mail::mailbox::Mailbox;
use post::mail::message::{MessageReference, fetch_message, store_message};
use post::mail::references::{of_folder, refresh_log, refresh_messages};
use post::seal::Sealing;
use post::store::ObjectStore;
use post::store::memory::MemoryStore;
use std::sync::Arc;

/// Where tests' clocks begin, in microseconds.
const NOW: u64 = 1_790_000_000_000_000;
/// The ring of the tests.
const RING: [u8; 16] = [0x52; 16];

fn log_store(store: &MemoryStore) -> LogStore<MemoryStore> {
    LogStore { store: Arc::new(store.clone()), ring: RING, lease_s: 28 * 86_400 }
}

fn private_keys(number: u8) -> WriteKeys {
    WriteKeys::private(SigningKey::from_bytes(&[number; 32]), [number ^ 0xff; 32])
}

/// Goal: a gateway can run every workflow in a task of its own, over any store. Method: the compiler.
#[expect(dead_code, reason = "it is compiled, which is the test")]
fn workflows_can_be_spawned<S: ObjectStore>(
    log: LogStore<S>,
    mut folder: Journal<S, Folder>,
    mut mailbox: Journal<S, Mailbox>,
    reference: &MessageReference,
    sealing: &Sealing,
) {
    fn spawned<T: Send>(_: T) {}
    let store = Arc::clone(&log.store);
    spawned(store_message(&*store, sealing, &Bytes::new(), 0));
    spawned(fetch_message(&*store, reference));
    spawned(refresh_messages(&*store, [reference], 0));
    spawned(refresh_messages(&*store, of_folder(&folder.state().view()), 0));
    spawned(refresh_log(&*store, folder.writer(), 0));
    spawned(folder.commit(&[]));
    spawned(folder.resolve());
    spawned(mailbox.maintain());
    spawned(Journal::open(log, private_keys(1), None, Folder::new(1)));
}

/// A small generator of numbers, so that a failing run is repeated by its seed.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Bytes {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
