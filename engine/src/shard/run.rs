//! One shard's loop.

use super::mailbox::{Message, Slot};
use super::port::{PortShared, Ticket};
use crate::disk::Disk;
use crate::limits;
use crate::store::Store;
use std::collections::HashMap;
use std::sync::Arc;

/// Runs a shard until it is closed: takes mail, turns the store, hands out answers, sleeps when there is nothing to do.
pub(crate) fn run<D: Disk>(mut store: Store<D>, mailbox: &Slot) {
    let mut tickets: HashMap<u64, Ticket> = HashMap::new();
    let mut tag_next = 0u64;
    let mut closing = false;
    loop {
        let mut moved = false;
        for _ in 0..limits::MAIL_PER_TURN {
            let Ok(message) = mailbox.take() else { break };
            moved = true;
            match message {
                Message::Ask { ticket, .. } if closing => drop(ticket),
                Message::Ask { ticket, request } => {
                    tickets.insert(tag_next, ticket);
                    store.submit(tag_next, request);
                    tag_next += 1;
                }
                // The asker may have given up waiting; then nobody wants the numbers.
                Message::Stats(reply) => drop(reply.try_send(store.stats())),
                Message::Close => {
                    closing = true;
                    store.stop_scrubbing();
                    store.request_checkpoint();
                }
            }
        }
        moved |= store.turn();
        moved |= deliver(&mut store, &mut tickets);
        if closing && store.is_idle() {
            return;
        }
        if !moved {
            mailbox.sleep_with(|| store.wait());
        }
    }
}

/// Hands out finished operations, and wakes each port once.
fn deliver<D: Disk>(store: &mut Store<D>, tickets: &mut HashMap<u64, Ticket>) -> bool {
    let mut woken: Vec<Arc<PortShared>> = Vec::new();
    while let Some((tag, result)) = store.take() {
        let port = tickets.remove(&tag).expect("each operation is answered once").answer(result);
        if !woken.iter().any(|other| Arc::ptr_eq(other, &port)) {
            woken.push(port);
        }
    }
    for port in &woken {
        port.wake();
    }
    !woken.is_empty()
}
