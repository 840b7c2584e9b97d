//! One node of the overlay: Pastry, PAST and direct messages as one [`Machine`].

use crate::id::Id;
use crate::machine::{Action, Actions, Command, Event, Machine, Micros, Reply};
use crate::ring::RingError;
use crate::roster::Roster;
use bytes::Bytes;
use std::sync::Arc;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    /// This node's id; in the ring document.
    pub id: Id,
    /// The ring document, arranged; virtual nodes of one host share it.
    pub roster: Arc<Roster>,
    /// The organisation CA's public key, which signs newer ring documents.
    pub authority: [u8; 32],
    /// Seeds every choice that is made at random; need not be secret.
    pub seed: u64,
    /// Whom to join through. Empty: the members of the ring document.
    pub bootstraps: Vec<Id>,
}

impl OverlayConfig {
    /// A node of the ring described by this signed document, joining through any of its members.
    ///
    /// # Errors
    /// [`RingError`] if the document is not the authority's.
    pub fn new(id: Id, document: Bytes, authority: [u8; 32], seed: u64) -> Result<OverlayConfig, RingError> {
        let roster = Arc::new(Roster::decode(document, &authority)?);
        Ok(OverlayConfig { id, roster, authority, seed, bootstraps: Vec::new() })
    }
}

/// The overlay's state, for `epost status`.
#[derive(Clone, Debug, Default)]
pub struct OverlayStatus {
    /// This node's id.
    pub id: Id,
    /// Whether the leaf set has answered and routed messages are accepted.
    pub ready: bool,
    /// The leaf set, nearest counter-clockwise first.
    pub leaf_set: Vec<Id>,
    /// Filled routing-table slots.
    pub routing_entries: usize,
    /// Members in the ring document.
    pub members: usize,
    /// Epoch of the ring document.
    pub epoch: u64,
    /// Requests under way.
    pub in_flight: usize,
}

/// One node of the overlay.
#[derive(Debug)]
pub struct Overlay {
    config: OverlayConfig,
}

impl Overlay {
    /// A node that has not yet been told [`Event::Boot`].
    #[must_use]
    pub fn new(config: OverlayConfig) -> Overlay {
        Overlay { config }
    }

    fn status(&self) -> OverlayStatus {
        let ring = self.config.roster.ring();
        OverlayStatus { id: self.config.id, members: ring.members.len(), epoch: ring.epoch, ..OverlayStatus::default() }
    }
}

impl Machine for Overlay {
    fn handle(&mut self, _now: Micros, event: Event, out: &mut Actions) {
        if let Event::Command { request, command } = event {
            let reply = match command {
                Command::Status => Reply::Status(Box::new(self.status())),
                _ => Reply::Unavailable,
            };
            out.push(Action::Reply { request, reply });
        }
    }
}
