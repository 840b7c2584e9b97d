//! The ePOST node: what joins decisions to I/O.
//!
//! The protocol cores (`net`, `post`) decide and never do; this crate does what they decide. It is the only crate
//! that opens a socket, reads the clock or draws a random number. It decides nothing itself about routing,
//! replication or what a mail is.
//!
//! Start with [`config`] (what a node is told) and [`node`] (one running node: overlay thread, QUIC, engine);
//! [`account`] is a user's mail on it, which [`smtp`] and [`imap`] give to mail clients; [`gateway`] puts these
//! three on a node; [`cli`] is the command `epost`.
#![forbid(unsafe_code)]

pub mod account;
mod author;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod imap;
pub mod node;
pub mod ring_secret;
pub mod smtp;
pub mod tls;
pub mod web;
