//! One node as one machine: what the driver runs, the simulator tests, and nothing else.
//!
//! A node is several protocols over one identity. The driver should not know which: it hands every event to the
//! [`Stack`] and does what comes back. Today there is one protocol machine below, the [`Overlay`] (Pastry, PAST and
//! direct messages), so the dispatch is a single hand-over. Scribe and Glacier will stand beside it here, each
//! with its own share of timer and operation numbers. No decision is taken in this file, ever.
//!
//! What users do (sealing, logs, notifications) is not in here: those are workflows over the object store that the
//! driver offers on top of the stack's commands.

use net::machine::{Actions, Event, Machine, Micros};
use net::overlay::{Overlay, OverlayConfig};

/// One node.
#[derive(Debug)]
pub struct Stack {
    overlay: Overlay,
}

impl Stack {
    /// A node that has not yet been told [`Event::Boot`].
    #[must_use]
    pub fn new(config: OverlayConfig) -> Stack {
        Stack { overlay: Overlay::new(config) }
    }
}

impl Machine for Stack {
    fn handle(&mut self, now: Micros, event: Event, out: &mut Actions) {
        self.overlay.handle(now, event, out);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the stack says exactly what its overlay says. Method: the same events to both, side by side.
    use super::*;
    use crate::entropy::Entropy;
    use crate::identity::organisation::{enrol_node, found};
    use net::machine::{Command, RequestId, TimerId};
    use net::ring::Parameters;

    #[test]
    fn it_says_what_the_overlay_says() {
        let mut entropy = Entropy::new([1; 32]);
        let founded = found("Test", "epost.test", Parameters::DEFAULT, 1_795_000_000, &mut entropy).unwrap();
        let node = enrol_node(&founded.authority, &founded.document, "a:1", 1, 1_795_000_000, &mut entropy).unwrap();
        let authority = founded.authority.public_key();
        let config = OverlayConfig::new(node.node_id, node.document, authority, 7).unwrap();
        let (mut stack, mut overlay) = (Stack::new(config.clone()), Overlay::new(config));
        let status = Event::Command { request: RequestId(1), command: Command::Status };
        let events = [Event::Boot, Event::Timer(TimerId(1)), Event::PeerDown(node.node_id), status];
        for (second, event) in (1..).zip(events) {
            let (mut said, mut expected) = (Actions::default(), Actions::default());
            stack.handle(second * 1_000_000, event.clone(), &mut said);
            overlay.handle(second * 1_000_000, event, &mut expected);
            assert_eq!(format!("{said:?}"), format!("{expected:?}"));
        }
    }
}
