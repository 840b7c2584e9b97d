//! The commands of IMAP4rev1 and its extensions served here, as types.
//!
//! What the parser has let through is already bounded and well formed; what remains to be judged (does the folder
//! exist, is the state right) is the session's matter.

use super::sequence::SequenceSet;
use bytes::Bytes;
use post::mail::view::Flags;
use std::fmt;
use zeroize::Zeroizing;

/// The client's name for a command: printable ASCII, repeated in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub(super) String);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Octets nobody may see in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A command and its tag.
#[derive(Clone, Debug, PartialEq)]
pub struct Tagged {
    /// The tag.
    pub tag: Tag,
    /// The command.
    pub command: Command,
}

/// A folder name as the client meant it: UTF-8, `INBOX` in capitals.
pub type FolderName = String;

/// What STATUS can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusItem {
    /// `MESSAGES`
    Messages,
    /// `RECENT`
    Recent,
    /// `UIDNEXT`
    UidNext,
    /// `UIDVALIDITY`
    UidValidity,
    /// `UNSEEN`
    Unseen,
}

/// How STORE changes flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// `FLAGS`
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// What of a part `BODY[...]` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionText {
    /// `HEADER`
    Header,
    /// `HEADER.FIELDS (...)`, or `.NOT`
    HeaderFields {
        /// Whether all but these are wanted.
        not: bool,
        /// The names, as written.
        names: Vec<String>,
    },
    /// `TEXT`
    Text,
    /// `MIME`
    Mime,
}

/// A section of a message: `1.2.HEADER`. Empty means the whole message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// The part numbers, each at least 1.
    pub path: Vec<u32>,
    /// What of that part; the part's body when absent.
    pub text: Option<SectionText>,
}

/// `<first.length>`, length at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The first octet wanted.
    pub first: u32,
    /// At most so many octets.
    pub length: u32,
}

/// One data item of FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchItem {
    /// `FLAGS`
    Flags,
    /// `UID`
    Uid,
    /// `INTERNALDATE`
    InternalDate,
    /// `RFC822.SIZE`
    Size,
    /// `ENVELOPE`
    Envelope,
    /// `BODY` without a section: the structure without extension data
    Body,
    /// `BODYSTRUCTURE`
    BodyStructure,
    /// `RFC822`
    Message,
    /// `RFC822.HEADER`
    MessageHeader,
    /// `RFC822.TEXT`
    MessageText,
    /// `BODY[...]` or `BODY.PEEK[...]`
    Section {
        /// Whether `\Seen` stays as it is.
        peek: bool,
        /// Which octets.
        section: Section,
        /// Which of them.
        partial: Option<Partial>,
    },
}

impl FetchItem {
    /// Whether fetching it sets `\Seen`.
    #[must_use]
    pub fn marks_seen(&self) -> bool {
        matches!(self, Self::Message | Self::MessageText | Self::Section { peek: false, .. })
    }
}

/// A calendar date, as in `1-Feb-1994`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// The year, 0 to 9999.
    pub year: u16,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the month, 1 to 31.
    pub day: u8,
}

/// A flag of a message, one at a time, as SEARCH asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagName {
    /// `\Seen`
    Seen,
    /// `\Answered`
    Answered,
    /// `\Flagged`
    Flagged,
    /// `\Deleted`
    Deleted,
    /// `\Draft`
    Draft,
    /// A keyword.
    Keyword(String),
}

/// Where a date comes from and how it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateRelation {
    /// Strictly before.
    Before,
    /// That day.
    On,
    /// That day or after.
    Since,
}

/// A search key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchKey {
    /// `ALL`, and `OLD`, which is the same where nothing is recent.
    All,
    /// All of these.
    And(Vec<SearchKey>),
    /// Either.
    Or(Box<SearchKey>, Box<SearchKey>),
    /// Not this.
    Not(Box<SearchKey>),
    /// The flag is set.
    Flag(FlagName),
    /// A string occurs in a header field; an empty string asks whether the field is there.
    Header {
        /// The field's name.
        name: String,
        /// The string.
        value: String,
    },
    /// A string occurs in the body.
    Body(String),
    /// A string occurs in the header or the body.
    Text(String),
    /// Compares INTERNALDATE.
    Arrived(DateRelation, Date),
    /// Compares the Date field.
    Sent(DateRelation, Date),
    /// Larger than so many octets.
    Larger(u32),
    /// Smaller than so many octets.
    Smaller(u32),
    /// Sequence numbers.
    Numbers(SequenceSet),
    /// UIDs.
    Uids(SequenceSet),
}

/// Everything a client may ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `CAPABILITY`
    Capability,
    /// `NOOP`
    Noop,
    /// `LOGOUT`
    Logout,
    /// `STARTTLS`
    StartTls,
    /// `AUTHENTICATE`
    Authenticate {
        /// The mechanism, in capitals.
        mechanism: String,
        /// The initial response, still in base64; `=` is an empty one.
        initial: Option<Secret>,
    },
    /// `LOGIN`
    Login {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// `ENABLE`: nothing served here needs enabling, so the names matter not.
    Enable,
    /// `ID`: we ask for no client's name and keep none.
    Id,
    /// `NAMESPACE`
    Namespace,
    /// `SELECT`, or `EXAMINE`
    Select {
        /// The folder.
        folder: FolderName,
        /// Whether it was EXAMINE.
        read_only: bool,
    },
    /// `CREATE`
    Create(FolderName),
    /// `DELETE`
    Delete(FolderName),
    /// `RENAME`
    Rename {
        /// The present name.
        from: FolderName,
        /// The name to be.
        to: FolderName,
    },
    /// `SUBSCRIBE`, or `UNSUBSCRIBE`
    Subscribe {
        /// The folder.
        folder: FolderName,
        /// Which of them.
        subscribed: bool,
    },
    /// `LIST`, or `LSUB`
    List {
        /// Put before the pattern.
        reference: String,
        /// With `*` and `%`.
        pattern: String,
        /// Whether it was LSUB.
        subscribed: bool,
    },
    /// `STATUS`
    Status {
        /// The folder.
        folder: FolderName,
        /// What is asked.
        items: Vec<StatusItem>,
    },
    /// `APPEND`
    Append {
        /// The folder.
        folder: FolderName,
        /// The flags it gets.
        flags: Flags,
        /// Its INTERNALDATE, seconds since the Unix epoch.
        internal_date_s: Option<i64>,
        /// The message.
        message: Bytes,
    },
    /// `IDLE`
    Idle,
    /// `CHECK`
    Check,
    /// `CLOSE`
    Close,
    /// `UNSELECT`
    Unselect,
    /// `EXPUNGE`, or `UID EXPUNGE`
    Expunge {
        /// Only among these, if given.
        uids: Option<SequenceSet>,
    },
    /// `SEARCH`
    Search {
        /// Whether UIDs are wanted.
        uid: bool,
        /// The key.
        key: SearchKey,
    },
    /// `FETCH`
    Fetch {
        /// Whether the set is of UIDs.
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// What of them.
        items: Vec<FetchItem>,
    },
    /// `STORE`
    Store {
        /// Whether the set is of UIDs.
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// How.
        mode: StoreMode,
        /// Whether the new values need not be told.
        silent: bool,
        /// The flags.
        flags: Flags,
    },
    /// `COPY`, or `MOVE`
    Copy {
        /// Whether the set is of UIDs.
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// Where to.
        folder: FolderName,
        /// Whether they leave this folder.
        moving: bool,
    },
}
