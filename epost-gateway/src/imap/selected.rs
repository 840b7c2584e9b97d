//! What one client believes about the folder it has selected.
//!
//! A folder changes whenever any session, or a delivery, commits; a client may learn of it only at certain
//! moments, and its sequence numbers mean what *it* was told last. [`Numbering`] is that belief: the messages the
//! client knows, in order. [`Numbering::update`] compares it with a newer view and writes what is new.
//!
//! Invariants:
//! - position n holds the message the client calls n + 1; positions change only by EXPUNGE that was written;
//! - UIDs ascend strictly;
//! - a message expunged from the folder, but not yet for the client, stays at its place with what was last known of
//!   it, and is counted in `missing`.

use super::command::StoreMode;
use super::{limits, response};
use post::mail::view::{Entry, Flags, FolderView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The messages a client knows, in the order it numbers them.
pub(super) struct Numbering {
    entries: Vec<Arc<Entry>>,
    /// How many of them are no longer in the folder.
    missing: usize,
    /// Keywords the client has been told of, as first seen.
    keywords: BTreeSet<String>,
    /// The view compared with last: nothing to do if it comes again.
    compared: Arc<FolderView>,
}

/// What the client must not be told of, because it asked for it itself: `STORE` with `.SILENT`.
#[derive(Default)]
pub(super) struct Expected(BTreeMap<u32, Flags>);

impl Expected {
    /// The outcome of a change on these entries, if nobody else changes them meanwhile.
    pub(super) fn of<'a>(entries: impl Iterator<Item = &'a Entry>, mode: StoreMode, flags: &Flags) -> Self {
        Self(entries.map(|entry| (entry.uid, changed(&entry.flags, mode, flags))).collect())
    }
}

/// Flags after a change.
fn changed(before: &Flags, mode: StoreMode, by: &Flags) -> Flags {
    let combine = |before: bool, by: bool| match mode {
        StoreMode::Replace => by,
        StoreMode::Add => before || by,
        StoreMode::Remove => before && !by,
    };
    let named =
        |keywords: &BTreeSet<String>, keyword: &str| keywords.iter().any(|known| known.eq_ignore_ascii_case(keyword));
    let mut keywords: BTreeSet<String> = match mode {
        StoreMode::Replace => BTreeSet::new(),
        StoreMode::Add => before.keywords.clone(),
        StoreMode::Remove => before.keywords.iter().filter(|keyword| !named(&by.keywords, keyword)).cloned().collect(),
    };
    if mode != StoreMode::Remove {
        for keyword in &by.keywords {
            if !named(&keywords, keyword) {
                keywords.insert(keyword.clone());
            }
        }
    }
    Flags {
        seen: combine(before.seen, by.seen),
        answered: combine(before.answered, by.answered),
        flagged: combine(before.flagged, by.flagged),
        deleted: combine(before.deleted, by.deleted),
        draft: combine(before.draft, by.draft),
        keywords,
    }
}

/// Whether two sets of flags are the same to a client: keywords differ not by case.
fn same_flags(one: &Flags, other: &Flags) -> bool {
    let lower =
        |flags: &Flags| flags.keywords.iter().map(|keyword| keyword.to_ascii_lowercase()).collect::<BTreeSet<_>>();
    let system = |flags: &Flags| (flags.seen, flags.answered, flags.flagged, flags.deleted, flags.draft);
    system(one) == system(other) && (one.keywords == other.keywords || lower(one) == lower(other))
}

impl Numbering {
    /// What a client knows after SELECT has told it of this view.
    pub(super) fn new(view: &Arc<FolderView>) -> Self {
        let mut numbering =
            Self { entries: view.entries.clone(), missing: 0, keywords: BTreeSet::new(), compared: Arc::clone(view) };
        numbering.learn_keywords(&[], 0);
        numbering
    }

    /// The messages, by sequence number from 1.
    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// How many messages the client knows of: the largest sequence number.
    pub(super) fn count(&self) -> u32 {
        // A folder holds at most FOLDER_ENTRIES_MAX messages, and those missing are dropped before they double.
        self.entries.len() as u32
    }

    /// The largest UID the client knows of, or 0.
    pub(super) fn largest_uid(&self) -> u32 {
        self.entries.last().map_or(0, |entry| entry.uid)
    }

    /// The sequence number of a message.
    pub(super) fn number_of(&self, uid: u32) -> Option<u32> {
        self.entries.binary_search_by_key(&uid, |entry| entry.uid).ok().map(|at| at as u32 + 1)
    }

    /// Whether the message is still in the folder as last compared.
    pub(super) fn is_present(&self, uid: u32) -> bool {
        self.missing == 0 || self.compared.entries.binary_search_by_key(&uid, |entry| entry.uid).is_ok()
    }

    /// Flags with the keywords in the spellings that the folder and these messages have for them: keywords differ not by
    /// case to a client, but a folder keeps them as they were first written.
    pub(super) fn spelled<'a>(&self, flags: Flags, messages: impl Iterator<Item = &'a Entry>) -> Flags {
        if flags.keywords.is_empty() {
            return flags;
        }
        let spellings = self.keywords.iter().chain(messages.flat_map(|entry| &entry.flags.keywords));
        let mut keywords: BTreeSet<String> = BTreeSet::new();
        for spelling in spellings {
            if flags.keywords.iter().any(|keyword| keyword.eq_ignore_ascii_case(spelling)) {
                keywords.insert(spelling.clone());
            }
        }
        for keyword in &flags.keywords {
            if !keywords.iter().any(|known| known.eq_ignore_ascii_case(keyword)) {
                keywords.insert(keyword.clone());
            }
        }
        Flags { keywords, ..flags }
    }

    /// Writes the flags and keywords the client may use, as SELECT and new keywords want it.
    pub(super) fn write_flags(&self, read_only: bool, out: &mut Vec<u8>) {
        let keywords = self.keywords.iter().filter(|keyword| response::is_keyword(keyword));
        let known: String = keywords.map(|keyword| format!(" {keyword}")).collect();
        let system = "\\Answered \\Flagged \\Deleted \\Seen \\Draft";
        out.extend_from_slice(format!("* FLAGS ({system}{known})\r\n").as_bytes());
        let permanent = if read_only { "()".to_owned() } else { format!("({system}{known} \\*)") };
        out.extend_from_slice(format!("* OK [PERMANENTFLAGS {permanent}] Flags kept\r\n").as_bytes());
    }

    /// Writes what has changed since, and believes it. Without `may_expunge`, messages gone keep their numbers.
    /// Changes of flags that come out as `expected` are believed in silence.
    pub(super) fn update(
        &mut self,
        view: &Arc<FolderView>,
        may_expunge: bool,
        expected: &Expected,
        read_only: bool,
        out: &mut Vec<u8>,
    ) {
        if Arc::ptr_eq(view, &self.compared) && !(may_expunge && self.missing > 0) {
            return;
        }
        let largest = self.largest_uid();
        let Comparison { gone, changed } = self.compare(view);
        self.compared = Arc::clone(view);
        if may_expunge {
            self.expunge(&gone, out);
        } else {
            self.missing = gone.len();
        }
        let told = self.entries.len();
        // UIDs are given out in ascending order, so what is new to the client comes after all it has known.
        let first_new = view.entries.partition_point(|entry| entry.uid <= largest);
        self.entries.extend(view.entries.iter().skip(first_new).cloned());
        if self.entries.len() > told {
            out.extend_from_slice(format!("* {} EXISTS\r\n", self.entries.len()).as_bytes());
        }
        if self.learn_keywords(&changed, told) {
            self.write_flags(read_only, out);
        }
        for uid in changed {
            let Some(number) = self.number_of(uid) else { continue };
            let Some(entry) = self.entries.get(number as usize - 1) else { continue };
            if !expected.0.get(&uid).is_some_and(|flags| same_flags(flags, &entry.flags)) {
                write_flags_of(number, entry, out);
            }
        }
    }

    /// Takes over the newer entries of known messages; tells which are gone (positions) and which have other
    /// flags (UIDs).
    fn compare(&mut self, view: &FolderView) -> Comparison {
        let mut found = Comparison::default();
        let mut theirs = view.entries.iter().peekable();
        for (position, known) in self.entries.iter_mut().enumerate() {
            if theirs.next_if(|entry| Arc::ptr_eq(entry, known)).is_some() {
                continue;
            }
            while theirs.next_if(|entry| entry.uid < known.uid).is_some() {}
            match theirs.next_if(|entry| entry.uid == known.uid) {
                Some(newer) => {
                    if !same_flags(&newer.flags, &known.flags) {
                        found.changed.push(known.uid);
                    }
                    *known = Arc::clone(newer);
                }
                None => found.gone.push(position),
            }
        }
        found
    }

    /// Removes positions (ascending) and tells of each, with the numbers the client has at that moment.
    fn expunge(&mut self, gone: &[usize], out: &mut Vec<u8>) {
        for (already, position) in gone.iter().enumerate() {
            out.extend_from_slice(format!("* {} EXPUNGE\r\n", position + 1 - already).as_bytes());
        }
        let mut gone = gone.iter().peekable();
        let mut position = 0;
        self.entries.retain(|_| {
            let is_gone = gone.next_if_eq(&&position).is_some();
            position += 1;
            !is_gone
        });
        self.missing = 0;
    }

    /// Learns the keywords of changed and new messages. Whether there was one the client does not know.
    fn learn_keywords(&mut self, changed: &[u32], first_new: usize) -> bool {
        let before = self.keywords.len();
        let positions = changed.iter().filter_map(|&uid| self.number_of(uid)).map(|number| number as usize - 1);
        let positions: Vec<usize> = positions.chain(first_new..self.entries.len()).collect();
        for entry in positions.into_iter().filter_map(|position| self.entries.get(position)) {
            for keyword in &entry.flags.keywords {
                let is_known = self.keywords.iter().any(|known| known.eq_ignore_ascii_case(keyword));
                if !is_known && self.keywords.len() < limits::KEYWORDS_TOLD_MAX {
                    self.keywords.insert(keyword.clone());
                }
            }
        }
        self.keywords.len() > before
    }
}

/// How a view differs from what a client knows.
#[derive(Default)]
struct Comparison {
    gone: Vec<usize>,
    changed: Vec<u32>,
}

/// Tells the flags of one message. The UID comes along: RFC 3501 allows it, and clients that keep UIDs need no look-up.
pub(super) fn write_flags_of(number: u32, entry: &Entry, out: &mut Vec<u8>) {
    let flags = response::flags(&entry.flags);
    out.extend_from_slice(format!("* {number} FETCH (UID {} FLAGS {flags})\r\n", entry.uid).as_bytes());
}

#[cfg(test)]
#[path = "selected_tests.rs"]
pub(crate) mod tests;
