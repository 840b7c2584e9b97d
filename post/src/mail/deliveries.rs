//! Which notifications a folder has taken in, so that each is delivered once.
//!
//! An id is remembered for [`NOTIFICATION_MEMORY_S`], longer than a notification can be held, measured by the
//! times in the effects themselves, so that replaying the log forgets the same ids. The memory is split by the ids' first
//! byte and shared between copies of the folder: a delivery copies one part in 256.

use super::limits::{NOTIFICATION_MEMORY_S, NOTIFICATIONS_MAX};
use minicbor::{Decode, Encode};
use net::machine::Seconds;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A notification that brought a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Delivery {
    /// The notification's id, drawn by its sender.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: [u8; 32],
    /// When it was taken in.
    #[n(1)]
    pub at_s: Seconds,
}

/// The deliveries that are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deliveries {
    parts: Vec<Arc<BTreeMap<[u8; 32], Seconds>>>,
    /// The latest time seen: never goes backwards.
    now_s: Seconds,
    count: usize,
}

impl Default for Deliveries {
    fn default() -> Deliveries {
        Deliveries { parts: vec![Arc::default(); 256], now_s: 0, count: 0 }
    }
}

impl Deliveries {
    pub(super) fn has(&self, id: &[u8; 32]) -> bool {
        self.parts[usize::from(id[0])].contains_key(id)
    }

    /// Whether `more` deliveries can be remembered.
    pub(super) fn has_room(&self, more: usize) -> bool {
        more <= NOTIFICATIONS_MAX - self.count
    }

    /// Remembers a delivery, and forgets those of its part that are older than the memory.
    pub(super) fn remember(&mut self, delivery: Delivery) {
        self.now_s = self.now_s.max(delivery.at_s);
        let horizon = self.now_s.saturating_sub(NOTIFICATION_MEMORY_S);
        let part = Arc::make_mut(&mut self.parts[usize::from(delivery.id[0])]);
        let before = part.len();
        part.retain(|_, at_s| *at_s >= horizon);
        part.insert(delivery.id, delivery.at_s);
        self.count = self.count - before + part.len();
    }

    /// Those that were written down: exactly these, none forgotten. `None` if there are too many or one is repeated.
    pub(super) fn restored(deliveries: Vec<Delivery>) -> Option<Deliveries> {
        let mut restored = Deliveries::default();
        if !restored.has_room(deliveries.len()) {
            return None;
        }
        for Delivery { id, at_s } in deliveries {
            let part = Arc::make_mut(&mut restored.parts[usize::from(id[0])]);
            if part.insert(id, at_s).is_some() {
                return None;
            }
            restored.count += 1;
            // The latest is never forgotten, so it tells how late it was.
            restored.now_s = restored.now_s.max(at_s);
        }
        Some(restored)
    }

    /// All that are remembered, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = Delivery> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(id, at_s)| Delivery { id: *id, at_s: *at_s })
    }
}
