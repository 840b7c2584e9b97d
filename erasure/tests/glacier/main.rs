//! Glacier's functions from outside.
//!
//! `fragments`: any that suffice give the aggregate back, and nothing that was touched is accepted. `aggregates`: what was
//! packed is what is unpacked. `placements`: who holds what. `survival`: what is lost when most hosts fail at
//! once. `rings` makes rings for both.

mod aggregates;
mod fragments;
mod placements;
mod rings;
mod survival;
