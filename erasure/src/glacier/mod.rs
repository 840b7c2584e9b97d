//! Glacier: what survives when most of the network fails at once.
//!
//! Objects are packed into aggregates (`aggregate`), an aggregate is coded into fragments (`coder`) of which few suffice
//! (`profile`), and each fragment proves what it is (`fragment`, `merkle`, `name`) and lies on a host of its own
//! (`placement`). `survival` computes what that is worth.

pub mod aggregate;
pub mod coder;
pub mod fragment;
pub mod limits;
mod merkle;
pub mod name;
pub mod placement;
pub mod profile;
pub mod survival;

pub use aggregate::{AggregateError, Entry, Listed};
pub use coder::Coder;
pub use fragment::{Fragment, FragmentError};
pub use name::AggregateName;
pub use placement::Placement;
pub use profile::Profile;
