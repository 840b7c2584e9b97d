//! The overlay: Pastry, PAST and Scribe, as machines without I/O.
//!
//! What it is: nodes with certified 160-bit ids form a ring (Pastry, in `pastry/`) and keep every object on the k of them that
//! are closest to its key, under a lease ([`past`]); what is published to a group goes down a tree of them (Scribe, in
//! `scribe/`). [`overlay::Overlay`] is one node: hand it events, do what it
//! asks ([`machine`]). [`wire`] is what nodes say to each other in bytes; [`sim`] is a world of such nodes in
//! virtual time, in which the very code that ships is tested.
//!
//! What it is not: there is no socket, no file, no clock, no thread and no random number in this crate, and no map
//! whose order depends on a hash seed. Nothing here knows what a mail is, or how an object is sealed.
//!
//! Where to start: [`id`] and [`machine`], which are short, then [`overlay`].
#![forbid(unsafe_code)]

mod call;
pub mod id;
mod id_table;
pub mod limits;
pub mod machine;
pub mod overlay;
pub mod past;
mod pastry;
pub mod ring;
pub mod roster;
mod scribe;
pub mod secure;
pub mod sim;
mod site;
mod tell;
pub mod wire;
