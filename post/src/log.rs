//! Single-writer logs: how everything a user owns changes, and is found again from a single key.
pub mod limits;
