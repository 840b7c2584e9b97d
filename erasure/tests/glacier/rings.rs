//! Rings to test with: documents of so many hosts, and names of aggregates.

use bytes::Bytes;
use erasure::glacier::{AggregateName, Placement};
use net::ring::{Member, MemberState, Parameters, RingDocument};
use net::roster::{Host, Roster};
use std::sync::Arc;

/// A ring of hosts with these weights, all active; `seed` draws their ids.
pub(crate) fn ring(seed: u8, weights: impl IntoIterator<Item = u16>) -> RingDocument {
    let members = weights.into_iter().zip(0u128..).map(|(weight, nth)| Member {
        nonce: nth.to_le_bytes(),
        host: String::new(),
        organisation: String::new(),
        weight,
        state: MemberState::Active,
    });
    RingDocument {
        ring: [seed; 16],
        epoch: 1,
        parameters: Parameters::DEFAULT,
        members: members.collect(),
        revocations: vec![],
        domain: "epost.test".into(),
    }
}

/// The placement in a ring, and its roster.
pub(crate) fn placement(ring: RingDocument) -> (Placement, Arc<Roster>) {
    let roster = Arc::new(Roster::new(ring, Bytes::new()));
    (Placement::new(Arc::clone(&roster)), roster)
}

/// The `nth` of many names.
pub(crate) fn name(nth: u64, needed: u8, total: u8) -> AggregateName {
    AggregateName::of_manifest(&nth.to_le_bytes(), needed, total).expect("a profile")
}

/// The hosts of an aggregate's fragments.
pub(crate) fn hosts(
    placement: &Placement,
    roster: &Roster,
    name: &AggregateName,
    is_gone: &dyn Fn(Host) -> bool,
) -> Vec<Host> {
    let holders = placement.holders(name, is_gone);
    holders.into_iter().map(|id| roster.host(id).expect("every holder is in the roster")).collect()
}
