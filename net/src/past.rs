//! PAST: objects on the k nodes closest to their key, under a lease.
pub mod block;
