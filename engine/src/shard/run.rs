//! One shard's loop.

use super::desk::Desk;
use super::mailbox::{Message, Slot};
use super::patience::Patience;
use crate::disk::Disk;
use crate::limits;
use crate::request::Error;
use crate::store::Store;

/// Runs a shard until it is closed: takes mail, turns the store, hands out answers, sleeps when there is nothing to do.
pub(crate) fn run<D: Disk>(shard: usize, mut store: Store<D>, slot: &Slot) {
    let mut desk = Desk::new(shard, slot);
    let mut patience = Patience::new();
    let mut closing = false;
    loop {
        let mut moved = false;
        for _ in 0..limits::MAIL_PER_TURN {
            let Ok(message) = slot.take() else { break };
            moved = true;
            match message {
                Message::Mail(port) => desk.told(port),
                // The asker may have given up waiting; then nobody wants the numbers.
                Message::Stats(reply) => drop(reply.try_send(store.stats())),
                Message::Close => {
                    // What was asked before is still done.
                    moved |= desk.read(limits::MAILBOX, |tag, request| store.submit(tag, request));
                    closing = true;
                    store.stop_scrubbing();
                    store.request_checkpoint();
                }
            }
        }
        moved |= read(&mut desk, &mut store, closing);
        moved |= store.turn();
        moved |= deliver(&mut desk, &mut store);
        if closing && store.is_idle() && !desk.has_mail() {
            return;
        }
        // With nothing asked of the device, what comes next comes from a port, and perhaps at once.
        if moved || (store.is_idle() && patience.look(|| !slot.is_empty())) {
            continue;
        }
        slot.sleep_with(|| store.wait());
    }
}

/// Takes requests from the ports.
fn read<D: Disk>(desk: &mut Desk<'_>, store: &mut Store<D>, closing: bool) -> bool {
    if !closing {
        return desk.read(limits::MAIL_PER_TURN, |tag, request| store.submit(tag, request));
    }
    let mut refused = Vec::new();
    let moved = desk.read(limits::MAIL_PER_TURN, |tag, _| refused.push(tag));
    for tag in refused {
        desk.answer(tag, Err(Error::Closed));
    }
    moved
}

/// Hands out finished operations, and wakes each port once.
fn deliver<D: Disk>(desk: &mut Desk<'_>, store: &mut Store<D>) -> bool {
    while let Some((tag, result)) = store.take() {
        desk.answer(tag, result);
    }
    desk.wake()
}
