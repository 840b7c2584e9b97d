//! Glacier's functions from outside.
//!
//! `fragments`: any that suffice give the aggregate back, and nothing that was touched is accepted.

mod fragments;
