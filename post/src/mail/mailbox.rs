//! The mailbox: the account's list of folders, itself a log of effects.
//!
//! Each folder has a serial number, which is its UIDVALIDITY and the label of its log: it comes from one counter of
//! the account that never falls, so a folder that is deleted and made again under its old name is another folder.
//! Renaming moves no message and changes no serial.
//!
//! Names are UTF-8, levels separated by `/`. `INBOX` exists always and is found in any case of letters; below the
//! first level case matters. A name that exists only as the parent of others is listed as not selectable.
//!
//! Invariants: names are legal ([`legal_name`]); serials are unique and below `next_serial`; `INBOX` is there.

use super::limits::{FOLDER_LEVELS_MAX, FOLDER_NAME_BYTES_MAX, FOLDERS_MAX};
use super::view::{FolderListing, SpecialUse};
use crate::log::journal::{EffectError, JournalState};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};

/// Format of a written mailbox.
const VERSION: u8 = 1;

/// The name of the folder that always exists.
pub const INBOX: &str = "INBOX";

/// The folders that every account has from the start.
pub const FIRST_FOLDERS: [(&str, Option<SpecialUse>); 6] = [
    (INBOX, None),
    ("Sent", Some(SpecialUse::Sent)),
    ("Drafts", Some(SpecialUse::Drafts)),
    ("Trash", Some(SpecialUse::Trash)),
    ("Junk", Some(SpecialUse::Junk)),
    ("Archive", Some(SpecialUse::Archive)),
];

/// One folder of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderRecord {
    /// Its UIDVALIDITY and the label of its log.
    pub serial: u32,
    /// Its special use.
    pub special_use: Option<SpecialUse>,
    /// Whether the user subscribed to it.
    pub is_subscribed: bool,
}

impl FolderRecord {
    /// The label from which the keys of the folder's log are derived.
    #[must_use]
    pub fn log_label(&self) -> String {
        format!("folder/{}", self.serial)
    }
}

/// One change of the list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Effect {
    /// A folder is made.
    #[n(0)]
    Create {
        /// Its name.
        #[n(0)]
        name: String,
        /// Its serial.
        #[n(1)]
        serial: u32,
        /// Its special use: 0 none, 1 Archive, 2 Drafts, 3 Junk, 4 Sent, 5 Trash.
        #[n(2)]
        special_use: u8,
    },
    /// A folder is deleted.
    #[n(1)]
    Delete {
        /// Its name.
        #[n(0)]
        name: String,
    },
    /// A folder gets another name, and all below it with it.
    #[n(2)]
    Rename {
        /// Its name.
        #[n(0)]
        from: String,
        /// Its new name.
        #[n(1)]
        to: String,
    },
    /// The inbox's messages become the folder `to`, and a new, empty inbox takes its place.
    #[n(3)]
    RenameInbox {
        /// The name of the folder that has the messages now.
        #[n(0)]
        to: String,
        /// The serial of the new inbox.
        #[n(1)]
        serial: u32,
    },
    /// A folder is subscribed to, or not any more.
    #[n(4)]
    Subscribe {
        /// Its name.
        #[n(0)]
        name: String,
        /// Whether it is.
        #[n(1)]
        is_subscribed: bool,
    },
    /// Serials below this are not given out any more.
    #[n(5)]
    Skip {
        /// The next serial is at least this.
        #[n(0)]
        next_serial: u32,
    },
}

/// Why something cannot be planned. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// There is no such folder.
    #[error("no such folder")]
    NoSuchFolder,
    /// There is one of this name.
    #[error("the folder exists")]
    Exists,
    /// The name is empty, too long or too deep, has an empty level, or a character that names must not have.
    #[error("not a legal folder name")]
    BadName,
    /// Not with this folder: the inbox cannot be deleted, nothing can be moved below itself.
    #[error("not allowed on this folder")]
    Forbidden,
    /// Another folder has this special use.
    #[error("another folder has this special use")]
    UseTaken,
    /// The account has as many folders as it may.
    #[error("too many folders")]
    Full,
}

/// The list of folders at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    folders: BTreeMap<String, FolderRecord>,
    next_serial: u32,
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox::new()
    }
}

/// The name as it is kept: without a trailing separator, the inbox in capitals.
///
/// # Errors
/// [`MailboxError::BadName`].
pub fn legal_name(name: &str) -> Result<String, MailboxError> {
    let name = name.strip_suffix('/').unwrap_or(name);
    let levels: Vec<&str> = name.split('/').collect();
    let has_bad_character = name.chars().any(|c| c.is_control() || matches!(c, '*' | '%' | '\u{2028}' | '\u{2029}'));
    let is_bounded = name.len() <= FOLDER_NAME_BYTES_MAX && levels.len() <= FOLDER_LEVELS_MAX;
    if has_bad_character || !is_bounded || levels.iter().any(|level| level.is_empty()) {
        return Err(MailboxError::BadName);
    }
    match name.get(..INBOX.len()) {
        Some(first) if levels[0].eq_ignore_ascii_case(INBOX) => Ok(name.replacen(first, INBOX, 1)),
        _ => Ok(name.to_owned()),
    }
}

impl Mailbox {
    /// The list with the folders that exist from the start, subscribed.
    #[must_use]
    pub fn new() -> Mailbox {
        let folders = FIRST_FOLDERS.into_iter().zip(1..).map(|((name, special_use), serial)| {
            (name.to_owned(), FolderRecord { serial, special_use, is_subscribed: true })
        });
        Mailbox { folders: folders.collect(), next_serial: FIRST_FOLDERS.len() as u32 + 1 }
    }

    /// The folder of this name; the inbox in any case of letters.
    #[must_use]
    pub fn folder(&self, name: &str) -> Option<FolderRecord> {
        legal_name(name).ok().and_then(|name| self.folders.get(&name).copied())
    }

    /// Every folder with its name, sorted by name.
    pub fn folders(&self) -> impl Iterator<Item = (&str, FolderRecord)> {
        self.folders.iter().map(|(name, record)| (name.as_str(), *record))
    }

    /// What a client sees: every folder, and every name that exists only as a parent; sorted by name.
    #[must_use]
    pub fn listing(&self) -> Vec<FolderListing> {
        let mut listing: BTreeMap<&str, FolderListing> = BTreeMap::new();
        for (name, record) in &self.folders {
            for parent in parents(name) {
                listing.entry(parent).or_insert_with(|| listed(parent, None));
            }
            listing.insert(name, listed(name, Some(record)));
        }
        listing.into_values().collect()
    }

    /// Plans to make a folder.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn plan_create(&self, name: &str, special_use: Option<SpecialUse>) -> Result<Effect, MailboxError> {
        let name = legal_name(name)?;
        self.check_free(&name)?;
        let is_taken = |record: &FolderRecord| special_use.is_some() && record.special_use == special_use;
        if self.folders.values().any(is_taken) {
            return Err(MailboxError::UseTaken);
        }
        Ok(Effect::Create { name, serial: self.serial()?, special_use: number_of(special_use) })
    }

    /// Plans to delete a folder; those below it stay.
    ///
    /// # Errors
    /// [`MailboxError::Forbidden`] for the inbox and for a name that is only a parent.
    pub fn plan_delete(&self, name: &str) -> Result<Effect, MailboxError> {
        let name = legal_name(name)?;
        if name == INBOX || (!self.folders.contains_key(&name) && self.is_parent(&name)) {
            return Err(MailboxError::Forbidden);
        }
        if !self.folders.contains_key(&name) {
            return Err(MailboxError::NoSuchFolder);
        }
        Ok(Effect::Delete { name })
    }

    /// Plans to rename a folder with all below it. Renaming the inbox (RFC 3501, 6.3.5) gives its messages to a
    /// new folder and leaves an empty inbox; what is below it stays.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn plan_rename(&self, from: &str, to: &str) -> Result<Effect, MailboxError> {
        let (from, to) = (legal_name(from)?, legal_name(to)?);
        if !self.folders.contains_key(&from) && !self.is_parent(&from) {
            return Err(MailboxError::NoSuchFolder);
        }
        self.check_free(&to)?;
        if from == INBOX {
            return Ok(Effect::RenameInbox { to, serial: self.serial()? });
        }
        if is_below(&to, &from) {
            return Err(MailboxError::Forbidden);
        }
        let effect = Effect::Rename { from, to };
        // What is below it may get names that are too long or taken.
        let mut after = self.clone();
        after.apply(&effect).map_err(|_| MailboxError::BadName)?;
        Ok(effect)
    }

    /// Plans to subscribe or unsubscribe; no effect if nothing changes.
    ///
    /// # Errors
    /// [`MailboxError::NoSuchFolder`].
    pub fn plan_subscribe(&self, name: &str, is_subscribed: bool) -> Result<Option<Effect>, MailboxError> {
        let name = legal_name(name)?;
        let record = self.folders.get(&name).ok_or(MailboxError::NoSuchFolder)?;
        Ok((record.is_subscribed != is_subscribed).then_some(Effect::Subscribe { name, is_subscribed }))
    }

    fn check_free(&self, name: &str) -> Result<(), MailboxError> {
        if self.folders.contains_key(name) {
            return Err(MailboxError::Exists);
        }
        if self.folders.len() >= FOLDERS_MAX { Err(MailboxError::Full) } else { Ok(()) }
    }

    fn serial(&self) -> Result<u32, MailboxError> {
        if self.next_serial == u32::MAX { Err(MailboxError::Full) } else { Ok(self.next_serial) }
    }

    fn is_parent(&self, name: &str) -> bool {
        self.folders.keys().any(|other| is_below(other, name))
    }

    fn insert(&mut self, name: &str, record: FolderRecord) -> Result<(), EffectError> {
        let is_legal = legal_name(name).as_deref() == Ok(name);
        let is_next = record.serial >= self.next_serial && record.serial < u32::MAX;
        if !is_legal || !is_next || self.folders.contains_key(name) {
            return Err(EffectError::Illegal);
        }
        if self.folders.len() >= FOLDERS_MAX {
            return Err(EffectError::Full);
        }
        self.folders.insert(name.to_owned(), record);
        self.next_serial = record.serial + 1;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), EffectError> {
        if from == INBOX || from == to || is_below(to, from) {
            return Err(EffectError::Illegal);
        }
        let moved: Vec<String> =
            self.folders.keys().filter(|name| *name == from || is_below(name, from)).cloned().collect();
        let mut folders = self.folders.clone();
        let mut arrivals = Vec::new();
        for name in &moved {
            let renamed = format!("{to}{}", &name[from.len()..]);
            let record = folders.remove(name).ok_or(EffectError::Illegal)?;
            arrivals.push((renamed, record));
        }
        for (name, record) in arrivals {
            let is_legal = legal_name(&name).as_deref() == Ok(&*name);
            if !is_legal || folders.insert(name, record).is_some() {
                return Err(EffectError::Illegal);
            }
        }
        if moved.is_empty() {
            return Err(EffectError::Illegal);
        }
        self.folders = folders;
        Ok(())
    }

    fn rename_inbox(&mut self, to: &str, serial: u32) -> Result<(), EffectError> {
        let mut after = self.clone();
        let old = after.folders.remove(INBOX).ok_or(EffectError::Illegal)?;
        let new = FolderRecord { serial, special_use: None, is_subscribed: old.is_subscribed };
        after.insert(INBOX, new)?;
        let is_legal = legal_name(to).as_deref() == Ok(to);
        if !is_legal || after.folders.insert(to.to_owned(), old).is_some() {
            return Err(EffectError::Illegal);
        }
        *self = after;
        Ok(())
    }
}

fn is_below(name: &str, parent: &str) -> bool {
    name.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

fn listed(name: &str, record: Option<&FolderRecord>) -> FolderListing {
    FolderListing {
        name: name.to_owned(),
        special_use: record.and_then(|record| record.special_use),
        subscribed: record.is_some_and(|record| record.is_subscribed),
        selectable: record.is_some(),
    }
}

const USES: [SpecialUse; 5] =
    [SpecialUse::Archive, SpecialUse::Drafts, SpecialUse::Junk, SpecialUse::Sent, SpecialUse::Trash];

fn number_of(special_use: Option<SpecialUse>) -> u8 {
    let known = special_use.and_then(|special_use| USES.iter().position(|known| *known == special_use));
    known.map_or(0, |index| index as u8 + 1)
}

fn use_of(number: u8) -> Result<Option<SpecialUse>, EffectError> {
    match usize::from(number).checked_sub(1) {
        None => Ok(None),
        Some(index) => USES.get(index).copied().map(Some).ok_or(EffectError::Malformed),
    }
}

/// The list as it is written in a snapshot.
#[derive(Encode, Decode)]
struct Written {
    #[n(0)]
    version: u8,
    #[n(1)]
    next_serial: u32,
    #[n(2)]
    folders: Vec<WrittenFolder>,
}

#[derive(Encode, Decode)]
struct WrittenFolder {
    #[n(0)]
    name: String,
    #[n(1)]
    serial: u32,
    #[n(2)]
    special_use: u8,
    #[n(3)]
    is_subscribed: bool,
}

impl JournalState for Mailbox {
    type Effect = Effect;

    fn apply(&mut self, effect: &Effect) -> Result<(), EffectError> {
        match effect {
            Effect::Create { name, serial, special_use } => {
                let special_use = use_of(*special_use)?;
                self.insert(name, FolderRecord { serial: *serial, special_use, is_subscribed: false })
            }
            Effect::Delete { name } if name == INBOX => Err(EffectError::Illegal),
            Effect::Delete { name } => self.folders.remove(name).map(|_| ()).ok_or(EffectError::Illegal),
            Effect::Rename { from, to } => self.rename(from, to),
            Effect::RenameInbox { to, serial } => self.rename_inbox(to, *serial),
            Effect::Subscribe { name, is_subscribed } => {
                let record = self.folders.get_mut(name).ok_or(EffectError::Illegal)?;
                record.is_subscribed = *is_subscribed;
                Ok(())
            }
            Effect::Skip { next_serial } if *next_serial >= self.next_serial => {
                self.next_serial = *next_serial;
                Ok(())
            }
            Effect::Skip { .. } => Err(EffectError::Illegal),
        }
    }

    fn encode_effect(effect: &Effect) -> Vec<u8> {
        minicbor::to_vec(effect).expect("encoding into a Vec does not fail")
    }

    fn decode_effect(bytes: &Bytes) -> Result<Effect, EffectError> {
        minicbor::decode(bytes).map_err(|_| EffectError::Malformed)
    }

    fn encode(&self) -> Vec<u8> {
        let folders = self.folders.iter().map(|(name, record)| WrittenFolder {
            name: name.clone(),
            serial: record.serial,
            special_use: number_of(record.special_use),
            is_subscribed: record.is_subscribed,
        });
        let written = Written { version: VERSION, next_serial: self.next_serial, folders: folders.collect() };
        minicbor::to_vec(&written).expect("encoding into a Vec does not fail")
    }

    fn decode(bytes: &Bytes) -> Result<Mailbox, EffectError> {
        let written: Written = minicbor::decode(bytes).map_err(|_| EffectError::Malformed)?;
        if written.version != VERSION || written.folders.len() > FOLDERS_MAX {
            return Err(EffectError::Malformed);
        }
        let mut mailbox = Mailbox { folders: BTreeMap::new(), next_serial: written.next_serial };
        let mut serials = BTreeSet::new();
        for folder in written.folders {
            let special_use = use_of(folder.special_use)?;
            let record = FolderRecord { serial: folder.serial, special_use, is_subscribed: folder.is_subscribed };
            let is_legal = legal_name(&folder.name).as_deref() == Ok(&*folder.name);
            let is_numbered = (1..written.next_serial).contains(&folder.serial) && serials.insert(folder.serial);
            if !is_legal || !is_numbered || mailbox.folders.insert(folder.name, record).is_some() {
                return Err(EffectError::Malformed);
            }
        }
        if mailbox.folders.contains_key(INBOX) { Ok(mailbox) } else { Err(EffectError::Malformed) }
    }

    fn next_numbers(&self) -> Vec<u64> {
        vec![u64::from(self.next_serial)]
    }

    fn skip_past(&self, marks: &[u64]) -> Vec<Effect> {
        let [mark] = marks else { return Vec::new() };
        vec![Effect::Skip { next_serial: u32::try_from(*mark).unwrap_or(u32::MAX).max(self.next_serial) }]
    }

    fn weight(&self) -> u64 {
        self.folders.len() as u64
    }
}
