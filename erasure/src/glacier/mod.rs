//! Glacier: what survives when most of the network fails at once.
//!
//! PAST's three copies carry a ring through everyday failures. When 60 % of its hosts lose their disks at one blow, a fifth of all
//! objects would be gone with them. Therefore every object is also written into fragments that lie all over the ring, of
//! which a few suffice (Haeberlen, Mislove, Druschel: Glacier, NSDI 2005).
//!
//! ```text
//!  stored in PAST ─▶ aggregation ─▶ coder ─▶ fragments ─▶ keepers           (the node through which it was stored)
//!                        ▲                                   │ rounds: sums, and lists where they are news
//!                        │ what lives of old ones            ▼
//!                    inspection ◀──────────────────────── steward ─▶ repair (the holder of fragment 0)
//!                        │ leases follow those in PAST; what PAST lost is put back
//!                        ▼
//!                      PAST
//! ```
//!
//! Objects are packed into aggregates (`aggregate`, `aggregation`), an aggregate is coded into fragments (`coder`, over memory that is
//! used again, `slab`) of which few suffice (`profile`), and each fragment proves what it is (`fragment`, `merkle`, `name`). Where they lie follows from the
//! name and the ring document (`placement`); how likely they survive is counted in `survival`. A `keeper` has them on its disk and reports in `rounds` to the
//! `steward`, who has what is missing made anew (`repair`, over `gathering`) and looks what of an aggregate lives in PAST
//! (`inspection`); it brings fragments that are another's to hold to him (`handing`). `notes` are of what waits to be
//! written, `ledger` says how fast it goes. `node` is all of that for one node, `site` what its parts share, `wire` what nodes say to
//! each other, `work` what takes longer than a message may.
//!
//! No object is looked up through an index of aggregates, and aggregates do not link to each other: a steward finds
//! everything through those who keep it, also one that has forgotten all (decision 0014).

pub mod aggregate;
mod aggregation;
pub mod coder;
pub mod fragment;
mod gathering;
mod handing;
mod inspection;
mod keeper;
mod ledger;
pub mod limits;
mod merkle;
pub mod name;
mod node;
mod notes;
pub mod placement;
pub mod profile;
mod repair;
mod rounds;
mod site;
mod slab;
mod steward;
pub mod survival;
pub mod wire;
mod work;

pub use aggregate::{AggregateError, Entry, Listed};
pub use coder::Coder;
pub use fragment::{Fragment, FragmentError};
pub use name::AggregateName;
pub use node::{Glacier, GlacierStatus};
pub use placement::Placement;
pub use profile::Profile;
