//! A folder: the pure state that its log of effects makes.
//!
//! The writer plans effects ([`Folder::plan_append`], [`Folder::plan_flags`], [`Folder::plan_expunge`]), commits them
//! ([`crate::log::journal`]) and applies them. An effect is a *result*: UIDs and modification sequences are in it, never
//! derived from an order, so replaying it gives the same folder on any device.
//!
//! ```text
//! effect    [0, [Append]]   Append = uid, modseq, flags, date, headers, structure, message, delivery?, moved?
//!           [1, [uids, flags, modseq]]     SetFlags: the flags that result
//!           [2, [uids, modseq]]            Expunge
//!           [3, [uid_next, modseq]]        Skip: after a lost tail, nothing below is given out again
//!           [4, [delivery…]]               Remember: deliveries taken over from a renamed inbox
//! ```
//!
//! Invariants:
//! - entries ascend by UID, and every UID is below `uid_next`, which never falls;
//! - every effect that changes an entry has a modification sequence above all before it; an empty folder's is 1;
//! - an entry's headers, structure and size are those of its message;
//! - a notification that brought a message brings no second one, even when the first has been moved or expunged;
//! - a message moved here twice by the same move (a retry after a crash) is here once, while it stays here.

use super::deliveries::{Deliveries, Delivery};
use super::limits::{FOLDER_ENTRIES_MAX, HEADER_BYTES_MAX, KEYWORD_BYTES_MAX, KEYWORDS_MAX, MOVES_MAX};
use super::message::MessageReference;
use super::structure::Structure;
use super::view::{Entry, Flags, FolderView};
use super::{cbor, walk};
use crate::log::journal::{EffectError, JournalState};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Format of a written folder.
const VERSION: u8 = 1;

/// Names one move of one message: the same whenever it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct MoveId(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

/// One change of a folder.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Effect {
    /// A message comes in.
    #[n(0)]
    Append(#[n(0)] Box<Append>),
    /// Messages get these flags.
    #[n(1)]
    SetFlags {
        /// Which, ascending.
        #[cbor(n(0), with = "cbor::uids")]
        uids: Vec<u32>,
        /// The flags that result.
        #[cbor(n(1), with = "cbor::flags")]
        flags: Flags,
        /// The modification sequence of the change.
        #[n(2)]
        modseq: u64,
    },
    /// Messages go.
    #[n(2)]
    Expunge {
        /// Which, ascending.
        #[cbor(n(0), with = "cbor::uids")]
        uids: Vec<u32>,
        /// The modification sequence of the change.
        #[n(1)]
        modseq: u64,
    },
    /// Numbers below these are not given out any more.
    #[n(3)]
    Skip {
        /// The next UID is at least this.
        #[n(0)]
        uid_next: u32,
        /// The modification sequence of the change.
        #[n(1)]
        modseq: u64,
    },
    /// These deliveries have been taken in elsewhere.
    #[n(4)]
    Remember {
        /// Which.
        #[n(0)]
        deliveries: Vec<Delivery>,
    },
}

/// A message that comes into a folder.
#[derive(Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Append {
    /// Its UID.
    #[n(0)]
    pub uid: u32,
    /// The modification sequence of the change.
    #[n(1)]
    pub modseq: u64,
    /// What it is.
    #[n(2)]
    pub message: NewMessage,
}

/// A message on its way into a folder, before it has a UID there.
#[derive(Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct NewMessage {
    /// Its flags.
    #[cbor(n(0), with = "cbor::flags")]
    pub flags: Flags,
    /// INTERNALDATE, seconds since the Unix epoch.
    #[n(1)]
    pub internal_date_s: i64,
    /// Its header section, as fetched.
    #[cbor(n(2), with = "cbor::headers")]
    pub headers: Bytes,
    /// Its MIME tree, as fetched.
    #[cbor(n(3), with = "cbor::structure")]
    pub structure: Arc<Structure>,
    /// Where its objects are. Size and trace are in it.
    #[cbor(n(4), with = "cbor::message")]
    pub message: MessageReference,
    /// The notification that brought it, if one did.
    #[n(5)]
    pub delivery: Option<Delivery>,
    /// The move that brings it, if one does.
    #[n(6)]
    pub moved: Option<MoveId>,
}

/// Why something cannot be planned. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// The folder holds as many messages as a folder may.
    #[error("the folder is full")]
    Full,
    /// The message's header section is longer than [`HEADER_BYTES_MAX`].
    #[error("the message's header is longer than {HEADER_BYTES_MAX} bytes")]
    HeadersTooLong,
    /// Too many keywords on one message, or one that is too long or empty.
    #[error("the keywords are over their bounds")]
    BadKeywords,
    /// The folder has no UIDs left: it must be made anew.
    #[error("the folder has given out its last UID")]
    NoUidLeft,
    /// This notification has been delivered already: what it brings is, or was, here.
    #[error("the notification has been delivered already")]
    Delivered,
    /// Too many deliveries are remembered; it may be delivered when old ones are forgotten.
    #[error("too many deliveries are remembered")]
    TooManyDeliveries,
    /// Header, structure and reference do not belong to the same message: the caller's mistake.
    #[error("header, structure and reference are of different messages")]
    Mismatched,
}

/// How flags change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagChange {
    /// They become the given ones.
    Replace,
    /// The given ones are added.
    Add,
    /// The given ones are taken away.
    Remove,
}

/// Planned appends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Appends {
    /// The UID of each message, in order; that of the message already here for a repeated move.
    pub uids: Vec<u32>,
    /// What to commit.
    pub effects: Vec<Effect>,
}

/// Planned copies from another folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Copies {
    /// UID in the source and UID here, ascending.
    pub pairs: Vec<(u32, u32)>,
    /// What to commit.
    pub effects: Vec<Effect>,
}

/// A folder at one moment. Cloning is cheap; copies share what they do not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    view: Arc<FolderView>,
    deliveries: Deliveries,
    /// Moves that brought a message which is still here.
    moves: Arc<BTreeMap<MoveId, u32>>,
}

impl MoveId {
    /// The move of message `uid` out of the folder with this UIDVALIDITY, which no other folder of the account has.
    #[must_use]
    pub fn of(uid_validity: u32, uid: u32) -> MoveId {
        let mut hasher = blake3::Hasher::new_derive_key("ePOST 2026 move");
        hasher.update(&uid_validity.to_le_bytes()).update(&uid.to_le_bytes());
        MoveId(*hasher.finalize().as_bytes())
    }
}

impl NewMessage {
    /// The message `whole` (as it will be fetched through `message`).
    ///
    /// # Errors
    /// [`FolderError::HeadersTooLong`]; [`FolderError::Mismatched`] if the reference is of another size.
    pub fn new(
        whole: &Bytes,
        message: MessageReference,
        flags: Flags,
        internal_date_s: i64,
    ) -> Result<NewMessage, FolderError> {
        if whole.len() != message.size() {
            return Err(FolderError::Mismatched);
        }
        let structure = Arc::new(walk::structure_of(whole));
        // Copied, so that the folder does not keep the whole message in memory.
        let headers = Bytes::copy_from_slice(&whole[structure.header()]);
        let new = NewMessage { flags, internal_date_s, headers, structure, message, delivery: None, moved: None };
        new.check()?;
        Ok(new)
    }

    fn check(&self) -> Result<(), FolderError> {
        if self.headers.len() > HEADER_BYTES_MAX {
            return Err(FolderError::HeadersTooLong);
        }
        check_keywords(&self.flags)?;
        let is_whole = self.structure.header_start == 0 && self.structure.end as usize == self.message.size();
        if is_whole && self.structure.header().len() == self.headers.len() {
            Ok(())
        } else {
            Err(FolderError::Mismatched)
        }
    }
}

fn check_keywords(flags: &Flags) -> Result<(), FolderError> {
    let is_legal = |keyword: &String| (1..=KEYWORD_BYTES_MAX).contains(&keyword.len());
    let is_bounded = flags.keywords.len() <= KEYWORDS_MAX && flags.keywords.iter().all(is_legal);
    if is_bounded { Ok(()) } else { Err(FolderError::BadKeywords) }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Append {} (modseq {}, {:?})", self.uid, self.modseq, self.message)
    }
}

impl fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The header section is the user's mail: not shown.
        write!(f, "NewMessage {{ {} bytes, {:?} }}", self.message.size(), self.flags)
    }
}

impl Folder {
    /// A new, empty folder. `uid_validity` is unique in the account and at least 1.
    #[must_use]
    pub fn new(uid_validity: u32) -> Folder {
        assert!(uid_validity >= 1);
        let view = FolderView { uid_validity, uid_next: 1, highest_modseq: 1, entries: Vec::new() };
        Folder { view: Arc::new(view), deliveries: Deliveries::default(), moves: Arc::default() }
    }

    /// What a client sees.
    #[must_use]
    pub fn view(&self) -> Arc<FolderView> {
        Arc::clone(&self.view)
    }

    /// The entry with this UID.
    #[must_use]
    pub fn entry(&self, uid: u32) -> Option<&Arc<Entry>> {
        position(&self.view.entries, uid).ok().map(|index| &self.view.entries[index])
    }

    /// Whether the notification with this id has been delivered here.
    #[must_use]
    pub fn has_delivered(&self, id: &[u8; 32]) -> bool {
        self.deliveries.has(id)
    }

    /// Plans to take in messages, in order.
    ///
    /// # Errors
    /// [`FolderError`]; then none of them is planned.
    pub fn plan_append(&self, messages: Vec<NewMessage>) -> Result<Appends, FolderError> {
        let mut planned = Appends::default();
        let (mut uid, mut modseq) = (self.view.uid_next, self.view.highest_modseq);
        let mut delivered = BTreeSet::new();
        for message in messages {
            message.check()?;
            if let Some(here) = message.moved.and_then(|moved| self.moves.get(&moved)) {
                planned.uids.push(*here);
                continue;
            }
            if let Some(delivery) = message.delivery {
                self.check_delivery(&delivery)?;
                if !delivered.insert(delivery.id) {
                    return Err(FolderError::Delivered);
                }
            }
            if self.view.entries.len() + planned.effects.len() >= FOLDER_ENTRIES_MAX {
                return Err(FolderError::Full);
            }
            if uid == u32::MAX {
                return Err(FolderError::NoUidLeft);
            }
            modseq += 1;
            planned.uids.push(uid);
            planned.effects.push(Effect::Append(Box::new(Append { uid, modseq, message })));
            uid += 1;
        }
        Ok(planned)
    }

    /// Plans to take in copies of messages of `source`; UIDs that do not exist there are left out. With `is_move`, trying
    /// again after a crash finds what came through instead of making a second copy.
    ///
    /// # Errors
    /// [`FolderError`]; then nothing is planned.
    pub fn plan_copy(&self, source: &FolderView, uids: &[u32], is_move: bool) -> Result<Copies, FolderError> {
        let found: Vec<&Arc<Entry>> = existing(source, uids).collect();
        let messages = found.iter().map(|entry| NewMessage {
            flags: entry.flags.clone(),
            internal_date_s: entry.internal_date_s,
            headers: entry.headers.clone(),
            structure: Arc::clone(&entry.structure),
            message: entry.message.clone(),
            delivery: None,
            moved: is_move.then(|| MoveId::of(source.uid_validity, entry.uid)),
        });
        let planned = self.plan_append(messages.collect())?;
        assert_eq!(planned.uids.len(), found.len());
        let pairs = found.iter().map(|entry| entry.uid).zip(planned.uids).collect();
        Ok(Copies { pairs, effects: planned.effects })
    }

    /// Plans a change of flags; UIDs that do not exist, and messages that would not change, are left out. One effect
    /// for each set of flags that results.
    ///
    /// # Errors
    /// [`FolderError::BadKeywords`].
    pub fn plan_flags(&self, uids: &[u32], change: FlagChange, flags: &Flags) -> Result<Vec<Effect>, FolderError> {
        check_keywords(flags)?;
        let mut results: BTreeMap<Flags, Vec<u32>> = BTreeMap::new();
        for entry in existing(&self.view, uids) {
            let resulting = changed(&entry.flags, change, flags);
            check_keywords(&resulting)?;
            if resulting != entry.flags {
                results.entry(resulting).or_default().push(entry.uid);
            }
        }
        let effect = |((flags, uids), modseq)| Effect::SetFlags { uids, flags, modseq };
        Ok(results.into_iter().zip(self.view.highest_modseq + 1..).map(effect).collect())
    }

    /// Plans to remove messages, whatever their flags; UIDs that do not exist are left out. No effect if none does.
    #[must_use]
    pub fn plan_expunge(&self, uids: &[u32]) -> Vec<Effect> {
        let uids: Vec<u32> = existing(&self.view, uids).map(|entry| entry.uid).collect();
        if uids.is_empty() {
            return Vec::new();
        }
        vec![Effect::Expunge { uids, modseq: self.view.highest_modseq + 1 }]
    }

    /// The UIDs of the messages flagged `\Deleted`: all of them, or those among `uids`. Ascending.
    #[must_use]
    pub fn deleted(&self, uids: Option<&[u32]>) -> Vec<u32> {
        let is_deleted = |entry: &&Arc<Entry>| entry.flags.deleted;
        match uids {
            Some(uids) => existing(&self.view, uids).filter(is_deleted).map(|entry| entry.uid).collect(),
            None => self.view.entries.iter().filter(is_deleted).map(|entry| entry.uid).collect(),
        }
    }

    /// Plans to remember the deliveries of another folder, whose place this one takes.
    #[must_use]
    pub fn plan_remember(&self, other: &Folder) -> Vec<Effect> {
        let deliveries: Vec<Delivery> =
            other.deliveries.iter().filter(|known| !self.has_delivered(&known.id)).collect();
        deliveries.chunks(1 << 14).map(|some| Effect::Remember { deliveries: some.to_vec() }).collect()
    }

    fn check_delivery(&self, delivery: &Delivery) -> Result<(), FolderError> {
        if self.deliveries.has(&delivery.id) {
            return Err(FolderError::Delivered);
        }
        if self.deliveries.has_room_for(&[*delivery]) { Ok(()) } else { Err(FolderError::TooManyDeliveries) }
    }

    fn append(&mut self, append: &Append) -> Result<(), EffectError> {
        let Append { uid, modseq, message } = append;
        let is_new = *uid >= self.view.uid_next && *modseq > self.view.highest_modseq && *uid < u32::MAX;
        let is_repeated = message.moved.is_some_and(|moved| self.moves.contains_key(&moved))
            || message.delivery.is_some_and(|delivery| self.deliveries.has(&delivery.id));
        if !is_new || is_repeated || message.check().is_err() {
            return Err(EffectError::Illegal);
        }
        let has_room = self.deliveries.has_room_for(message.delivery.as_slice());
        if self.view.entries.len() >= FOLDER_ENTRIES_MAX || !has_room {
            return Err(EffectError::Full);
        }
        self.deliveries.remember(message.delivery.as_slice());
        if let Some(moved) = message.moved {
            self.remember_move(moved, *uid);
        }
        let view = Arc::make_mut(&mut self.view);
        view.entries.push(Arc::new(entry_of(append)));
        (view.uid_next, view.highest_modseq) = (uid + 1, *modseq);
        Ok(())
    }

    fn remember_move(&mut self, moved: MoveId, uid: u32) {
        let moves = Arc::make_mut(&mut self.moves);
        if moves.len() >= MOVES_MAX
            && let Some(oldest) = moves.iter().min_by_key(|(_, uid)| **uid).map(|(moved, _)| *moved)
        {
            moves.remove(&oldest);
        }
        moves.insert(moved, uid);
    }

    /// Takes the next modification sequence for a change of the entries at these UIDs, all of which must exist.
    fn positions(&self, uids: &[u32], modseq: u64) -> Result<Vec<usize>, EffectError> {
        let is_ascending = uids.windows(2).all(|pair| pair[0] < pair[1]);
        if modseq <= self.view.highest_modseq || uids.is_empty() || !is_ascending {
            return Err(EffectError::Illegal);
        }
        uids.iter().map(|uid| position(&self.view.entries, *uid).map_err(|_| EffectError::Illegal)).collect()
    }

    fn set_flags(&mut self, uids: &[u32], flags: &Flags, modseq: u64) -> Result<(), EffectError> {
        let positions = self.positions(uids, modseq)?;
        check_keywords(flags).map_err(|_| EffectError::Illegal)?;
        let view = Arc::make_mut(&mut self.view);
        for index in positions {
            let entry = Arc::make_mut(&mut view.entries[index]);
            entry.flags.clone_from(flags);
            entry.modseq = modseq;
        }
        view.highest_modseq = modseq;
        Ok(())
    }

    fn expunge(&mut self, uids: &[u32], modseq: u64) -> Result<(), EffectError> {
        let positions = self.positions(uids, modseq)?;
        let view = Arc::make_mut(&mut self.view);
        let before = view.entries.len();
        view.entries.retain(|entry| uids.binary_search(&entry.uid).is_err());
        assert_eq!(view.entries.len() + positions.len(), before);
        view.highest_modseq = modseq;
        if self.moves.values().any(|uid| uids.binary_search(uid).is_ok()) {
            Arc::make_mut(&mut self.moves).retain(|_, uid| uids.binary_search(uid).is_err());
        }
        Ok(())
    }
}

fn position(entries: &[Arc<Entry>], uid: u32) -> Result<usize, usize> {
    entries.binary_search_by_key(&uid, |entry| entry.uid)
}

/// The entries with these UIDs, ascending, each once.
fn existing<'f>(view: &'f FolderView, uids: &[u32]) -> impl Iterator<Item = &'f Arc<Entry>> {
    let wanted: BTreeSet<u32> = uids.iter().copied().collect();
    wanted.into_iter().filter_map(|uid| position(&view.entries, uid).ok().map(|index| &view.entries[index]))
}

fn changed(flags: &Flags, change: FlagChange, given: &Flags) -> Flags {
    let set = |is: bool, given: bool| match change {
        FlagChange::Replace => given,
        FlagChange::Add => is || given,
        FlagChange::Remove => is && !given,
    };
    let has = |keywords: &BTreeSet<String>, keyword: &String| keywords.iter().any(|k| k.eq_ignore_ascii_case(keyword));
    let mut keywords: BTreeSet<String> = match change {
        FlagChange::Replace => BTreeSet::new(),
        FlagChange::Add => flags.keywords.clone(),
        FlagChange::Remove => flags.keywords.iter().filter(|k| !has(&given.keywords, k)).cloned().collect(),
    };
    if change != FlagChange::Remove {
        for keyword in &given.keywords {
            if !has(&keywords, keyword) {
                keywords.insert(keyword.clone());
            }
        }
    }
    Flags {
        seen: set(flags.seen, given.seen),
        answered: set(flags.answered, given.answered),
        flagged: set(flags.flagged, given.flagged),
        deleted: set(flags.deleted, given.deleted),
        draft: set(flags.draft, given.draft),
        keywords,
    }
}

fn entry_of(append: &Append) -> Entry {
    let message = &append.message;
    Entry {
        uid: append.uid,
        modseq: append.modseq,
        flags: message.flags.clone(),
        internal_date_s: message.internal_date_s,
        size: u32::try_from(message.message.size()).unwrap_or(u32::MAX),
        headers: message.headers.clone(),
        structure: Arc::clone(&message.structure),
        message: message.message.clone(),
    }
}

fn append_of(entry: &Entry) -> Append {
    let message = NewMessage {
        flags: entry.flags.clone(),
        internal_date_s: entry.internal_date_s,
        headers: entry.headers.clone(),
        structure: Arc::clone(&entry.structure),
        message: entry.message.clone(),
        delivery: None,
        moved: None,
    };
    Append { uid: entry.uid, modseq: entry.modseq, message }
}

/// A folder as it is written in a snapshot.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Written {
    #[n(0)]
    version: u8,
    #[n(1)]
    uid_validity: u32,
    #[n(2)]
    uid_next: u32,
    #[n(3)]
    highest_modseq: u64,
    #[n(4)]
    entries: Vec<Append>,
    #[n(5)]
    deliveries: Vec<Delivery>,
    #[n(6)]
    moves: Vec<(MoveId, u32)>,
}

impl Written {
    fn into_folder(self) -> Option<Folder> {
        let entries = &self.entries;
        let is_ascending = entries.windows(2).all(|pair| pair[0].uid < pair[1].uid);
        let is_below = entries.iter().all(|entry| entry.uid < self.uid_next && entry.modseq <= self.highest_modseq);
        let is_bounded = entries.len() <= FOLDER_ENTRIES_MAX && self.moves.len() <= MOVES_MAX;
        let is_numbered = self.uid_validity >= 1 && self.uid_next >= 1 && self.highest_modseq >= 1;
        let is_whole = entries.iter().all(|entry| entry.message.check().is_ok());
        if !(self.version == VERSION && is_ascending && is_below && is_bounded && is_numbered && is_whole) {
            return None;
        }
        let view = FolderView {
            uid_validity: self.uid_validity,
            uid_next: self.uid_next,
            highest_modseq: self.highest_modseq,
            entries: entries.iter().map(|append| Arc::new(entry_of(append))).collect(),
        };
        let deliveries = Deliveries::restored(self.deliveries)?;
        Some(Folder { view: Arc::new(view), deliveries, moves: Arc::new(self.moves.into_iter().collect()) })
    }
}

impl JournalState for Folder {
    type Effect = Effect;

    fn apply(&mut self, effect: &Effect) -> Result<(), EffectError> {
        match effect {
            Effect::Append(append) => self.append(append),
            Effect::SetFlags { uids, flags, modseq } => self.set_flags(uids, flags, *modseq),
            Effect::Expunge { uids, modseq } => self.expunge(uids, *modseq),
            Effect::Skip { uid_next, modseq } => {
                if *uid_next < self.view.uid_next || *modseq <= self.view.highest_modseq {
                    return Err(EffectError::Illegal);
                }
                let view = Arc::make_mut(&mut self.view);
                (view.uid_next, view.highest_modseq) = (*uid_next, *modseq);
                Ok(())
            }
            Effect::Remember { deliveries } => {
                if !self.deliveries.has_room_for(deliveries) {
                    return Err(EffectError::Full);
                }
                self.deliveries.remember(deliveries);
                Ok(())
            }
        }
    }

    fn encode_effect(effect: &Effect) -> Vec<u8> {
        minicbor::to_vec(effect).expect("encoding into a Vec does not fail")
    }

    fn decode_effect(bytes: &Bytes) -> Result<Effect, EffectError> {
        minicbor::decode(bytes).map_err(|_| EffectError::Malformed)
    }

    fn encode(&self) -> Vec<u8> {
        let written = Written {
            version: VERSION,
            uid_validity: self.view.uid_validity,
            uid_next: self.view.uid_next,
            highest_modseq: self.view.highest_modseq,
            entries: self.view.entries.iter().map(|entry| append_of(entry)).collect(),
            deliveries: self.deliveries.iter().collect(),
            moves: self.moves.iter().map(|(moved, uid)| (*moved, *uid)).collect(),
        };
        minicbor::to_vec(&written).expect("encoding into a Vec does not fail")
    }

    fn decode(bytes: &Bytes) -> Result<Folder, EffectError> {
        let written: Written = minicbor::decode(bytes).map_err(|_| EffectError::Malformed)?;
        written.into_folder().ok_or(EffectError::Malformed)
    }

    fn next_numbers(&self) -> Vec<u64> {
        vec![u64::from(self.view.uid_next), self.view.highest_modseq + 1]
    }

    fn skip_past(&self, marks: &[u64]) -> Vec<Effect> {
        let [uid_mark, modseq_mark] = marks else { return Vec::new() };
        let uid_next = u32::try_from(*uid_mark).unwrap_or(u32::MAX).max(self.view.uid_next);
        let modseq = (*modseq_mark).max(self.view.highest_modseq + 1);
        vec![Effect::Skip { uid_next, modseq }]
    }

    fn weight(&self) -> u64 {
        self.view.entries.len() as u64
    }
}
