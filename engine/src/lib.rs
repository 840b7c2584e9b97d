//! The storage engine of a dedicated ePOST node: a sharded, durable, leased object store on io_uring.
//!
//! **What it is.** Objects live under a [`Key`] (placement id, kind, full name) until their lease ends. Each shard
//! is one pinned thread with one io_uring and one append-only log of segments; a put is written once and is
//! acknowledged only when it is durable. There is no faster, unsafe setting. Many operations share one device
//! flush (group commit): a batch is whatever arrived while the batches before it were in flight.
//!
//! **What it is not.** It knows nothing of rings, signatures or mail, never talks to the network, and holds no
//! clock for leases: expiry comes with each put and "now" with each sweep. It does not verify that a value belongs to
//! its name (that is `net`'s work); it promises that the bytes handed out are the bytes handed in.
//!
//! **Where to start.** [`Engine::open`], then a [`Port`] (asynchronous, for drivers) or a [`Client`] (blocking, for
//! tools and tests); an [`Inspector`] looks at a store that nobody has open. Inside: [`disk`] is the only door to storage, with two implementations, [`ring`] (io_uring)
//! and [`sim_disk`] (a seeded disk that loses, tears, rots and lies); `format` is every byte on disk (drawn in
//! `docs/formats.md`); [`store`] is one shard as a state machine without threads, so that the code crashed in the simulator
//! (`simulate`, a feature) is the code that ships; `shard` is the thread around it.
//!
//! `unsafe` lives in `ring` alone: submission of buffers to the kernel, and the read-only mapping.

pub mod disk;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod limits;
pub mod ring;
pub mod sim_disk;
#[cfg(any(test, feature = "simulation"))]
pub mod simulate;

pub mod store;

mod client;
mod config;
mod engine;
mod format;
mod inspector;
mod key;
mod open_error;
mod request;
mod shard;
mod stats;

pub use client::Client;
pub use config::Config;
pub use engine::Engine;
pub use inspector::{Inspection, Inspector, Progress, ShardReport};
pub use key::{Class, Key};
pub use open_error::OpenError;
pub use request::{Completion, Entry, Error, Object, Request, Response};
pub use shard::Port;
pub use stats::Stats;
