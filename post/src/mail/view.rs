//! What a mail client sees of a folder: immutable views, replaced as a whole at every commit.
//!
//! A session holds one [`FolderView`] and compares it with the next; nothing in a view ever changes, so no lock
//! is held while a client reads slowly. Headers and structure are in the entry itself: listing a folder, its
//! envelopes and its MIME trees fetches no message.

use super::message::MessageReference;
use super::structure::Structure;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Flags of one message: the five system flags a client may set, and keywords.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flags {
    /// `\Seen`.
    pub seen: bool,
    /// `\Answered`.
    pub answered: bool,
    /// `\Flagged`.
    pub flagged: bool,
    /// `\Deleted`.
    pub deleted: bool,
    /// `\Draft`.
    pub draft: bool,
    /// Keywords as first written by a client; compared without regard to ASCII case by those who add them.
    pub keywords: BTreeSet<String>,
}

/// One message of a folder.
#[derive(Clone, PartialEq)]
pub struct Entry {
    /// Unique in the folder for ever; ascending.
    pub uid: u32,
    /// The folder's modification sequence when this entry last changed; at least 1.
    pub modseq: u64,
    /// The flags.
    pub flags: Flags,
    /// INTERNALDATE, seconds since the Unix epoch (UTC).
    pub internal_date_s: i64,
    /// RFC822.SIZE: exact octets of the whole message as fetched.
    pub size: u32,
    /// The message's header section with its final empty line, exactly as in the message.
    pub headers: Bytes,
    /// Its MIME tree, with byte ranges into the whole message.
    pub structure: Arc<Structure>,
    /// Where the message's objects are.
    pub message: MessageReference,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The header section is the user's mail: not shown.
        write!(f, "Entry {} (modseq {}, {} bytes, {:?})", self.uid, self.modseq, self.size, self.flags)
    }
}

/// A folder at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderView {
    /// Changes only when a folder is deleted and made again.
    pub uid_validity: u32,
    /// The UID the next message gets, or a lower bound of it.
    pub uid_next: u32,
    /// The highest modification sequence given out; at least 1.
    pub highest_modseq: u64,
    /// The messages, by ascending UID.
    pub entries: Vec<Arc<Entry>>,
}

/// RFC 6154 attributes of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecialUse {
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

/// One folder in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderListing {
    /// Full name, UTF-8, levels separated by `/`. The inbox is exactly `INBOX`.
    pub name: String,
    /// Its special use, if any.
    pub special_use: Option<SpecialUse>,
    /// Whether the user subscribed to it.
    pub subscribed: bool,
    /// False for a name that exists only as the parent of others (`\Noselect`).
    pub selectable: bool,
}
