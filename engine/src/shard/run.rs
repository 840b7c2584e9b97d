//! One shard's loop.

use super::mailbox::{Message, Slot};
use super::port::PortShared;
use crate::disk::Disk;
use crate::limits;
use crate::request::Error;
use crate::store::Store;
use std::collections::HashMap;
use std::sync::Arc;

/// Whose answer it is.
struct Origin {
    port: Arc<PortShared>,
    operation: u64,
}

/// Runs a shard until it is closed: takes mail, turns the store, hands out answers, sleeps when there is nothing to do.
pub(crate) fn run<D: Disk>(mut store: Store<D>, mailbox: &Slot) {
    let mut origins: HashMap<u64, Origin> = HashMap::new();
    let mut tag_next = 0u64;
    let mut closing = false;
    loop {
        let mut moved = false;
        for _ in 0..limits::MAIL_PER_TURN {
            let Ok(message) = mailbox.take() else { break };
            moved = true;
            match message {
                Message::Ask { port, operation, .. } if closing => {
                    port.answer(operation, Err(Error::Closed));
                    port.wake();
                }
                Message::Ask { port, operation, request } => {
                    origins.insert(tag_next, Origin { port, operation });
                    store.submit(tag_next, request);
                    tag_next += 1;
                }
                // The asker may have given up waiting; then nobody wants the numbers.
                Message::Stats(reply) => drop(reply.try_send(store.stats())),
                Message::Close => {
                    closing = true;
                    store.request_checkpoint();
                }
            }
        }
        moved |= store.turn();
        moved |= deliver(&mut store, &mut origins);
        if closing && store.is_idle() {
            return;
        }
        if !moved {
            mailbox.sleep_with(|| store.wait());
        }
    }
}

/// Hands out finished operations, and wakes each port once.
fn deliver<D: Disk>(store: &mut Store<D>, origins: &mut HashMap<u64, Origin>) -> bool {
    let mut woken: Vec<Arc<PortShared>> = Vec::new();
    while let Some((tag, result)) = store.take() {
        let origin = origins.remove(&tag).expect("each operation is answered once");
        origin.port.answer(origin.operation, result);
        if !woken.iter().any(|port| Arc::ptr_eq(port, &origin.port)) {
            woken.push(origin.port);
        }
    }
    for port in &woken {
        port.wake();
    }
    !woken.is_empty()
}
