//! The codec from outside, on every kernel that this processor has.
//!
//! `matrix`: the bytes are ISA-L's. `recovery`: any r fragments give all others. `kernels`: every kernel gives the oracle's
//! bytes, at every length and alignment. `guard_pages`: no kernel touches a byte outside its buffers. `refusals`: whatever is
//! handed in, there is an answer. What is not here: the field and its tables (beside them, in `src/field`), the cache of plans
//! (`src/code/plans.rs`), and speed.

mod fragments;
#[cfg(unix)]
mod guard_pages;
mod kernels;
mod matrix;
mod recovery;
mod refusals;
