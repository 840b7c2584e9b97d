//! POST: what a user owns in the ring. Her keys and certificate, her sealed objects, her logs and folders, and the
//! short signed notifications by which she learns of a message.
//!
//! The crate is the layer between the overlay (`net`) and the mail gateway. Everything in it is a pure function
//! of bytes, or an `async` workflow over the small [`store::ObjectStore`] trait; time and seeds come in through
//! that trait or as arguments.
//!
//! What it is not: there is no I/O here, no clock, no source of randomness, no thread, and no knowledge of SMTP
//! or IMAP sessions. It never talks to a disk or a socket, and it does not decide when something is retried.
//!
//! Where to start: [`store`] is the contract with the ring; [`seal`] turns bytes into encrypted blocks and a
//! reference; [`identity`] is who a user is and how she is found; [`delivery`] tells her of a message; [`log`] is
//! how all that she owns changes; [`mail`] is messages, folders and the outbox; [`stack`] is one node as one
//! machine; [`entropy`] is where fresh keys come from; [`limits`] holds every bound.
#![forbid(unsafe_code)]
pub mod delivery;
pub mod entropy;
pub mod identity;
pub mod limits;
pub mod log;
pub mod mail;
pub mod seal;
pub mod stack;
pub mod store;

#[cfg(test)]
mod testbed;
