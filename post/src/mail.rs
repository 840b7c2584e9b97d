//! Mail as objects in the ring: messages and their parts, folders, the list of folders, and the outbox.
//!
//! A message is taken apart ([`parts`]) into objects that are sealed and stored once ([`message`]); what clients
//! ask of its MIME tree is computed at ingest ([`structure`], made by [`walk`]). A folder, the mailbox (the list of
//! folders) and the outbox are each a log of effects ([`crate::log`]) and a pure state that the effects make.
//!
//! What it is not: it knows no IMAP and no SMTP. It plans effects and applies them; when to commit, whom to tell
//! and what to answer a client is the gateway's.
//!
//! Where to start: [`view`] is what a client sees of a folder; [`limits`] holds every bound.

mod cbor;
pub mod deliveries;
pub mod folder;
pub mod header;
pub mod limits;
pub mod mailbox;
pub mod message;
pub mod outbox;
pub mod parts;
pub mod references;
pub mod structure;
pub mod view;
pub mod walk;
