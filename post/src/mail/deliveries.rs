//! Which notifications a folder has taken in, so that each is delivered once.
//!
//! An id is remembered for [`NOTIFICATION_MEMORY_S`], longer than a notification can be held, measured by the
//! times in the effects themselves, so that replaying the log forgets the same ids. The memory is split by the ids' first
//! byte and shared between copies of the folder: a delivery copies one part in 256, and forgets what is overdue there.
//! Only a full memory is looked through as a whole; as long as nothing in it is overdue, it takes nothing more.

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

    /// Whether these can be remembered besides what must not be forgotten yet.
    pub(super) fn has_room_for(&self, deliveries: &[Delivery]) -> bool {
        if deliveries.len() <= NOTIFICATIONS_MAX - self.count {
            return true;
        }
        let horizon = self.horizon_with(deliveries);
        let kept = self.iter().filter(|known| known.at_s >= horizon).count();
        deliveries.len() <= NOTIFICATIONS_MAX - kept
    }

    /// Remembers deliveries that there is room for, and forgets what is older than the memory: in the parts they go
    /// to, or everywhere if they would not fit otherwise.
    pub(super) fn remember(&mut self, deliveries: &[Delivery]) {
        let horizon = self.horizon_with(deliveries);
        self.now_s = deliveries.iter().fold(self.now_s, |latest, delivery| latest.max(delivery.at_s));
        if deliveries.len() > NOTIFICATIONS_MAX - self.count {
            (0..self.parts.len()).for_each(|part| self.forget(part, horizon));
        }
        for delivery in deliveries {
            let part = usize::from(delivery.id[0]);
            self.forget(part, horizon);
            let is_new = Arc::make_mut(&mut self.parts[part]).insert(delivery.id, delivery.at_s).is_none();
            self.count += usize::from(is_new);
        }
        assert!(self.count <= NOTIFICATIONS_MAX);
    }

    fn forget(&mut self, part: usize, horizon: Seconds) {
        let part = &mut self.parts[part];
        if part.values().any(|at_s| *at_s < horizon) {
            let before = part.len();
            let part = Arc::make_mut(part);
            part.retain(|_, at_s| *at_s >= horizon);
            self.count -= before - part.len();
        }
    }

    /// The earliest time that is still remembered once these are.
    fn horizon_with(&self, deliveries: &[Delivery]) -> Seconds {
        let latest = deliveries.iter().fold(self.now_s, |latest, delivery| latest.max(delivery.at_s));
        latest.saturating_sub(NOTIFICATION_MEMORY_S)
    }

    /// Those that were written down: exactly these, none forgotten. `None` if there are too many or one is repeated.
    pub(super) fn restored(deliveries: Vec<Delivery>) -> Option<Deliveries> {
        let mut restored = Deliveries::default();
        if deliveries.len() > NOTIFICATIONS_MAX {
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

#[cfg(test)]
mod tests {
    //! Goal: an id is known for as long as a notification could be believed, the memory stays bounded, and a full one
    //! takes deliveries again once old ones are overdue. Method: a year of notifications against a list that forgets
    //! nothing; a memory filled to its bound.
    use super::*;
    use crate::entropy::Entropy;
    use crate::limits::{CLOCK_SKEW_S, NOTIFICATION_HOLD_S};

    #[test]
    fn claim_56_a_year_of_replays_is_known() {
        let (mut deliveries, mut all) = (Deliveries::default(), Vec::<Delivery>::new());
        let mut entropy = Entropy::new([1; 32]);
        for hour in 0..24 * 365 {
            let at_s = 1_795_000_000 + hour * 3600;
            let delivery = Delivery { id: entropy.draw(), at_s };
            deliveries.remember(&[delivery]);
            all.push(delivery);
            let [pick] = entropy.draw::<1>();
            let old = all[all.len() - 1 - (usize::from(pick) * 31).min(all.len() - 1)];
            // Signed at the latest a clock's difference after it was taken in.
            let is_believable = old.at_s + NOTIFICATION_HOLD_S + 2 * CLOCK_SKEW_S >= at_s;
            assert!(deliveries.has(&old.id) || !is_believable, "hour {hour}");
        }
        let restored = Deliveries::restored(deliveries.iter().collect());
        assert_eq!(restored, Some(deliveries));
    }

    #[test]
    fn a_full_memory_takes_deliveries_again_when_old_ones_are_overdue() {
        const FILLED_S: Seconds = 1_000_000_000;
        let delivery = |number: usize, at_s| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            Delivery { id, at_s }
        };
        let all: Vec<Delivery> = (0..NOTIFICATIONS_MAX).map(|number| delivery(number, FILLED_S)).collect();
        let mut deliveries = Deliveries::default();
        assert!(deliveries.has_room_for(&all));
        deliveries.remember(&all);
        let one_more = |at_s| delivery(NOTIFICATIONS_MAX, at_s);
        assert!(!deliveries.has_room_for(&[one_more(FILLED_S + NOTIFICATION_MEMORY_S)]));
        assert!(deliveries.has(&all[0].id), "nothing is forgotten early");
        let late = one_more(FILLED_S + NOTIFICATION_MEMORY_S + 1);
        assert!(deliveries.has_room_for(&[late]));
        deliveries.remember(&[late]);
        assert_eq!((deliveries.count, deliveries.iter().count()), (1, 1));
    }
}
