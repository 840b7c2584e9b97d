//! Criterion benches of single parts, for those who change them: `cargo bench -p benches`.
//!
//! They answer "did this change make it slower?" on one machine, one day. They are not for comparing with others:
//! that is the crate `perf`, which measures whole paths beside a ceiling and names the machine.
//!
//! Start in `benches/wire.rs` (frames between nodes), `benches/sealing.rs` (objects of mail), `benches/engine.rs` (the store)
//! or `benches/erasure.rs` (fragments; the one with `unsafe`, for it loads a rival's library).
#![forbid(unsafe_code)]
