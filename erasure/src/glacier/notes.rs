//! Notes: what waits for an aggregate, written down on this node's own disk, so that it is not forgotten with the process.
//!
//! ```text
//! waits ─▶ fresh ─▶ note on disk (a quarter of a second's keys, no bytes) ─▶ written in fragments ─▶ note removed
//!                        │ the process ends
//!                        ▼
//!          next start: notes are read, the objects fetched from PAST, where they are whole, and wait again
//! ```
//!
//! A note lists keys with versions and leases. It is an object in the node's own store, of the kind [`Kind::Note`], which no message can name:
//! its name is the node's id and a number. A note goes when all that it lists is in fragments, and with its lease if that never
//! comes. What found no room to wait in memory is noted, too, and fetched when there is.

use super::aggregate::Entry;
use super::limits::{
    KEYS_PER_MESSAGE_MAX, NOTE_AGAIN, NOTE_ENTRIES_MAX, NOTE_PAUSE, NOTED_MAX, RECALL_TRIES, RECALLS_OPEN_MAX,
};
use super::site::{Due, Turn};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use net::id::{Id, Key, Kind, Name};
use net::machine::{Command, Micros, OpId, Reply, RequestId, Seconds, StorageOperation, StorageResult};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An object that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Noted {
    #[n(0)]
    key: Key,
    #[n(1)]
    version: u64,
    #[n(2)]
    expiry: Seconds,
}

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Note {
    #[n(0)]
    noted: Vec<Noted>,
}

/// Where an object that waits is noted.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    version: u64,
}

/// A note on its way to the disk.
#[derive(Debug)]
struct Writing {
    op: OpId,
    number: u64,
    noted: BTreeMap<Key, Noted>,
}

/// What was noted and is not at hand.
#[derive(Clone, Copy, Debug)]
struct Recalled {
    noted: Noted,
    tries: u8,
    not_before: Micros,
}

/// What came of a command.
#[derive(Debug)]
pub(super) enum Recall {
    /// The object, which waits again.
    Found(Entry),
    /// Not now, or never again.
    Absent,
    /// It was no recall.
    NotOurs,
}

/// The notes of one node.
///
/// Invariant: `places` has exactly the keys in `open`, each with the number under which it is there; no set in `open` is empty.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// What is yet to be noted.
    fresh: BTreeMap<Key, Noted>,
    writing: Option<Writing>,
    /// Of each note on the disk, what of it is not in fragments yet.
    open: BTreeMap<u64, BTreeSet<Key>>,
    places: BTreeMap<Key, Place>,
    /// The number of the next note; none is written before those of an earlier process are known.
    next_number: Option<u64>,
    /// The highest number of an earlier process's that is known.
    highest: u64,
    /// Our notes are being listed, or read.
    listing: Option<OpId>,
    reading: BTreeMap<OpId, u64>,
    removing: BTreeSet<OpId>,
    to_recall: VecDeque<Recalled>,
    recalls: BTreeMap<RequestId, Recalled>,
}

impl Notes {
    /// Looks for notes of an earlier process.
    pub(super) fn boot(&mut self, turn: &mut Turn<'_>) {
        self.list(turn, None);
    }

    fn list(&mut self, turn: &mut Turn<'_>, after: Option<Key>) {
        let me = turn.site.me;
        let scan = StorageOperation::Scan { from: me, to: me, after, limit: KEYS_PER_MESSAGE_MAX };
        self.listing = Some(turn.storage(scan));
    }

    /// Objects that are to be fetched before they can be written.
    pub(super) fn to_recall(&self) -> usize {
        self.to_recall.len() + self.recalls.len()
    }

    /// This object finds no room in memory: it is noted, and fetched when there is. False if there is no room for that either.
    pub(super) fn put_off(&mut self, turn: &mut Turn<'_>, entry: &Entry) -> bool {
        if self.to_recall() >= NOTED_MAX {
            return false;
        }
        self.waits(turn, entry);
        self.to_recall.push_back(Recalled { noted: noted(entry), tries: 0, not_before: turn.now + NOTE_AGAIN });
        true
    }

    /// This object waits, and is noted unless it is already.
    pub(super) fn waits(&mut self, turn: &mut Turn<'_>, entry: &Entry) {
        let noted = noted(entry);
        let is_there = self.places.get(&noted.key).is_some_and(|place| place.version >= noted.version)
            || self.writing.iter().any(|it| it.noted.get(&noted.key).is_some_and(|it| it.version >= noted.version));
        if !is_there && self.fresh.len() < NOTED_MAX {
            self.fresh.insert(noted.key, noted);
            turn.due_by(NOTE_PAUSE, Due::Note);
        }
    }

    /// This object is in fragments, in this version.
    pub(super) fn is_written(&mut self, turn: &mut Turn<'_>, key: &Key, version: u64) {
        let is_old = |noted: &Noted| noted.version <= version;
        if self.fresh.get(key).is_some_and(is_old) {
            self.fresh.remove(key);
        }
        if let Some(writing) = &mut self.writing
            && writing.noted.get(key).is_some_and(is_old)
        {
            writing.noted.remove(key);
        }
        if self.places.get(key).is_some_and(|place| place.version <= version) {
            self.strike(turn, key);
        }
    }

    /// This key need not be noted where it is; a note of which nothing is left is removed.
    fn strike(&mut self, turn: &mut Turn<'_>, key: &Key) {
        let Some(Place { number, .. }) = self.places.remove(key) else { return };
        let Some(keys) = self.open.get_mut(&number) else { return };
        keys.remove(key);
        if keys.is_empty() {
            self.open.remove(&number);
            self.remove(turn, number);
        }
    }

    fn remove(&mut self, turn: &mut Turn<'_>, number: u64) {
        let key = name(turn.site.me, number);
        self.removing.insert(turn.storage(StorageOperation::Remove { key }));
    }

    /// The time to write what is fresh, and to fetch what is not at hand. `has_room` says whether more may wait.
    pub(super) fn go_on(&mut self, turn: &mut Turn<'_>, has_room: bool) {
        if self.next_number.is_none() && self.listing.is_none() {
            self.list(turn, None);
        }
        self.write(turn);
        self.recall(turn, has_room);
        if !self.to_recall.is_empty() {
            turn.due_by(NOTE_AGAIN, Due::Note);
        }
    }

    fn write(&mut self, turn: &mut Turn<'_>) {
        let Some(number) = self.next_number else { return };
        if self.writing.is_some() || self.fresh.is_empty() {
            return;
        }
        let mut noted = BTreeMap::new();
        while noted.len() < NOTE_ENTRIES_MAX
            && let Some((key, one)) = self.fresh.pop_first()
        {
            noted.insert(key, one);
        }
        let expiry = noted.values().map(|one| one.expiry).max().unwrap_or(0);
        let note = Note { noted: noted.values().copied().collect() };
        // Writing to memory cannot fail.
        let value = Bytes::from(minicbor::to_vec(note).unwrap_or_default());
        let key = name(turn.site.me, number);
        let op = turn.storage(StorageOperation::Put { key, version: 0, expiry, value });
        self.next_number = Some(number + 1);
        self.writing = Some(Writing { op, number, noted });
    }

    fn recall(&mut self, turn: &mut Turn<'_>, has_room: bool) {
        while has_room && self.recalls.len() < RECALLS_OPEN_MAX {
            let is_due = |recalled: &mut Recalled| recalled.not_before <= turn.now;
            let Some(recalled) = self.to_recall.pop_front_if(is_due) else { return };
            let key = recalled.noted.key;
            let command = if key.kind.is_mutable() { Command::GetSigned { key } } else { Command::Lookup { key } };
            self.recalls.insert(turn.command(command), recalled);
        }
    }

    /// PAST's answer to a recall.
    pub(super) fn replied(&mut self, turn: &mut Turn<'_>, request: RequestId, reply: &Reply) -> Recall {
        let Some(recalled) = self.recalls.remove(&request) else { return Recall::NotOurs };
        let Recalled { noted: Noted { key, expiry, .. }, tries, .. } = recalled;
        turn.due_by(if matches!(reply, Reply::Found { .. }) { 0 } else { NOTE_AGAIN }, Due::Note);
        if let Reply::Found { value, version } = reply {
            return Recall::Found(Entry { key, version: *version, expiry, value: value.clone() });
        }
        // A node that has just started may find nobody yet; what nobody has after a while is lost, or was given up.
        let is_lost = tries >= RECALL_TRIES && matches!(reply, Reply::Absent);
        if is_lost || expiry <= turn.seconds() {
            self.strike(turn, &key);
        } else {
            let (tries, not_before) = (tries.saturating_add(1), turn.now + NOTE_AGAIN);
            self.to_recall.push_back(Recalled { tries, not_before, ..recalled });
        }
        Recall::Absent
    }

    /// The disk has answered. False if the operation was not a note's.
    pub(super) fn stored(&mut self, turn: &mut Turn<'_>, op: OpId, result: &StorageResult) -> bool {
        if self.removing.remove(&op) {
            return true;
        }
        if self.listing == Some(op) {
            self.listing = None;
            self.listed(turn, result);
            return true;
        }
        if let Some(number) = self.reading.remove(&op) {
            if let StorageResult::Got(Some(stored)) = result {
                self.read(turn, number, &stored.value);
            }
            return true;
        }
        let Some(writing) = self.writing.take_if(|writing| writing.op == op) else { return false };
        if !matches!(result, StorageResult::Put) {
            // No room, perhaps: what has not been noted again meanwhile is tried again later.
            for (key, noted) in writing.noted {
                self.fresh.entry(key).or_insert(noted);
            }
            turn.due_by(NOTE_AGAIN, Due::Note);
            return true;
        }
        let keys: BTreeSet<Key> = writing.noted.keys().copied().collect();
        if keys.is_empty() {
            self.remove(turn, writing.number);
        } else {
            self.open.insert(writing.number, keys);
        }
        for (key, noted) in writing.noted {
            // A newer version was noted here, or an older one elsewhere.
            self.move_to(turn, key, Place { number: writing.number, version: noted.version });
        }
        if !self.fresh.is_empty() {
            turn.due_by(NOTE_PAUSE, Due::Note);
        }
        true
    }

    /// A key is noted in one place only: the one that has just been written.
    fn move_to(&mut self, turn: &mut Turn<'_>, key: Key, place: Place) {
        if self.places.contains_key(&key) {
            self.strike(turn, &key);
        }
        self.places.insert(key, place);
    }

    /// What lies at our place on the ring: notes of an earlier process among it.
    fn listed(&mut self, turn: &mut Turn<'_>, result: &StorageResult) {
        let StorageResult::Listed(entries) = result else {
            return turn.due_by(NOTE_AGAIN, Due::Note);
        };
        let me = turn.site.me;
        for number in entries.iter().filter_map(|entry| number(me, &entry.key)) {
            self.highest = self.highest.max(number);
            let key = name(turn.site.me, number);
            self.reading.insert(turn.storage(StorageOperation::Get { key }), number);
        }
        match entries.last() {
            Some(last) if entries.len() >= KEYS_PER_MESSAGE_MAX => self.list(turn, Some(last.key)),
            _ => {
                // By the time, and after all others also where the clock was set back.
                self.next_number = Some(turn.now.max(self.highest.saturating_add(1)));
                turn.due_by(NOTE_PAUSE, Due::Note);
            }
        }
    }

    /// A note of an earlier process.
    fn read(&mut self, turn: &mut Turn<'_>, number: u64, value: &[u8]) {
        let Ok(note) = minicbor::decode::<Note>(value) else {
            return; // Not ours, or damaged: it goes with its lease.
        };
        if note.noted.len() > NOTE_ENTRIES_MAX || self.to_recall() + note.noted.len() > NOTED_MAX {
            return; // Left to the next start.
        }
        let mut keys = BTreeSet::new();
        for noted in note.noted {
            if self.places.get(&noted.key).is_none_or(|place| place.version < noted.version) {
                self.move_to(turn, noted.key, Place { number, version: noted.version });
                keys.insert(noted.key);
                self.to_recall.push_back(Recalled { noted, tries: 0, not_before: turn.now });
            }
        }
        if keys.is_empty() {
            self.remove(turn, number);
        } else {
            self.open.insert(number, keys);
        }
        turn.due_by(NOTE_PAUSE, Due::Note);
    }
}

fn noted(entry: &Entry) -> Noted {
    Noted { key: entry.key, version: entry.version, expiry: entry.expiry }
}

/// The name of a note: where its node is on the ring, and its number.
fn name(me: Id, number: u64) -> Key {
    let mut bytes = [0; 32];
    bytes[..Id::LEN].copy_from_slice(&me.0);
    bytes[Id::LEN..Id::LEN + 8].copy_from_slice(&number.to_be_bytes());
    Key { name: Name(bytes), kind: Kind::Note }
}

/// The number of the note with this key, if it is one of this node's.
fn number(me: Id, key: &Key) -> Option<u64> {
    let number = key.name.0[Id::LEN..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes))?;
    (*key == name(me, number)).then_some(number)
}
