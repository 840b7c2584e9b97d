//! Pastry and PAST as one machine.
use crate::id::Id;

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
