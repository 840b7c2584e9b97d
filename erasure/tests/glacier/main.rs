//! Glacier's functions from outside.
//!
//! `fragments`: any that suffice give the aggregate back, and nothing that was touched is accepted. `aggregates`: what was
//! packed is what is unpacked. `placements`: who holds what. `rings` makes rings for it.

mod aggregates;
mod fragments;
mod placements;
mod rings;
