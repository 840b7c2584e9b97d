//! PAST.
pub mod block;
