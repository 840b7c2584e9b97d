//! Commands about the messages of the selected folder: FETCH, STORE, SEARCH, COPY, MOVE, EXPUNGE.

use super::{Outcome, Selected, refused, refused_at};
use crate::account::{Account, AccountError, FlagChange};
use crate::imap::command::{Command, FetchItem, SearchKey, StoreMode};
use crate::imap::fetch::{self, Answer};
use crate::imap::limits;
use crate::imap::prefetch::{Prefetch, Wanted};
use crate::imap::response::{Code, Completion};
use crate::imap::search::{Query, Text, Verdict};
use crate::imap::selected::{self, Expected};
use crate::imap::sequence::{self, SequenceSet};
use crate::imap::wire::{Wire, WireError};
use bytes::Bytes;
use post::mail::view::{Entry, Flags};
use post::store::ObjectStore;
use std::sync::Arc;
use tokio::task;

/// A message a command is about: what the client calls it, and what is known of it.
type Target = (u32, Arc<Entry>);

impl<S: ObjectStore> Selected<S> {
    pub(super) async fn dispatch(&mut self, account: &Account<S>, command: Command, wire: &mut Wire) -> Outcome {
        match command {
            // Every change here is durable when it is answered; there is nothing to check-point.
            Command::Check => Ok(Completion::ok("CHECK completed")),
            Command::Expunge { uids } => Ok(self.expunge(uids).await),
            Command::Search { uid, key } => self.search(uid, key, wire).await,
            Command::Fetch { uid, set, items } => self.fetch(uid, &set, items, wire).await,
            Command::Store { uid, set, mode, silent, flags } => {
                Ok(self.store(uid, &set, mode, silent, flags, wire).await)
            }
            Command::Copy { uid, set, folder, moving } => {
                Ok(self.copy(account, uid, &set, &folder, moving, wire).await)
            }
            _ => Ok(Completion::bad("not with a folder selected")),
        }
    }

    /// The messages of a set, in order. UIDs that are not there are no error, numbers are.
    fn targets(&self, uid: bool, set: &SequenceSet) -> Result<Vec<Target>, Completion> {
        let entries = self.numbering.entries();
        let mut targets = Vec::new();
        if uid {
            for &(first, last) in set.resolve(self.numbering.largest_uid()).ranges() {
                let from = entries.partition_point(|entry| entry.uid < first);
                let to = entries.partition_point(|entry| entry.uid <= last);
                let range = entries.iter().enumerate().take(to).skip(from);
                let present = range.filter(|(_, entry)| self.numbering.is_present(entry.uid));
                targets.extend(present.map(|(position, entry)| (position as u32 + 1, Arc::clone(entry))));
            }
            return Ok(targets);
        }
        if set.largest_plain().is_some_and(|largest| largest > self.numbering.count()) {
            return Err(Completion::bad("no message of this number"));
        }
        for &(first, last) in set.resolve(self.numbering.count()).ranges() {
            for number in first..=last.min(self.numbering.count()) {
                if let Some(entry) = entries.get(number as usize - 1) {
                    targets.push((number, Arc::clone(entry)));
                }
            }
        }
        Ok(targets)
    }

    /// Only those still in the folder, by UID; and whether some are not.
    fn present(&self, targets: &[Target]) -> (Vec<u32>, bool) {
        let uids = targets.iter().map(|(_, entry)| entry.uid);
        let present: Vec<u32> = uids.filter(|&uid| self.numbering.is_present(uid)).collect();
        let some_missing = present.len() < targets.len();
        (present, some_missing)
    }

    async fn fetch(&mut self, uid: bool, set: &SequenceSet, mut items: Vec<FetchItem>, wire: &mut Wire) -> Outcome {
        let targets = match self.targets(uid, set) {
            Ok(targets) => targets,
            Err(refusal) => return Ok(refusal),
        };
        if uid && !items.contains(&FetchItem::Uid) {
            items.insert(0, FetchItem::Uid);
        }
        let Fetched { answered, failure } = self.answer_fetch(&targets, &items, wire).await?;
        if items.iter().any(FetchItem::marks_seen) {
            self.mark_seen(answered, wire).await;
        }
        Ok(match failure {
            None => Completion::ok("FETCH completed"),
            Some(error) => refused(&error),
        })
    }

    async fn answer_fetch(
        &mut self,
        targets: &[Target],
        items: &[FetchItem],
        wire: &mut Wire,
    ) -> Result<Fetched, WireError> {
        let at_hand =
            |uid: u32| self.cached.iter().find(|(cached, _)| *cached == uid).map(|(_, message)| message.clone());
        // Decided once, before the cache moves on: which messages are at hand and which are to be fetched.
        let needs: Vec<(bool, Option<Bytes>)> = targets
            .iter()
            .map(|(_, entry)| {
                let needed = fetch::needs_message(entry, items);
                (needed, if needed { at_hand(entry.uid) } else { None })
            })
            .collect();
        let wanted = targets.iter().zip(&needs).filter(|(_, (needed, at_hand))| *needed && at_hand.is_none());
        let wanted = wanted.map(|((_, entry), _)| Wanted { uid: entry.uid, octets: entry.size }).collect();
        let mut prefetch = Prefetch::new(self.folder.clone(), wanted, Arc::new(|_, message: Bytes| message));
        let mut fetched = Fetched::default();
        for ((number, entry), (needed, at_hand)) in targets.iter().zip(needs) {
            let message = match (needed, at_hand) {
                (true, None) => match prefetch.next().await {
                    Some((uid, Ok(message))) => {
                        assert_eq!(uid, entry.uid, "messages come in the order asked for");
                        self.cache(uid, &message);
                        Some(message)
                    }
                    Some((_, Err(error))) => {
                        fetched.failure.get_or_insert(error);
                        continue;
                    }
                    None => continue,
                },
                (_, at_hand) => at_hand,
            };
            match Answer::new(*number, entry, items, message.as_ref()) {
                Ok(answer) => answer.write(wire).await?,
                Err(_) => {
                    fetched.failure.get_or_insert(AccountError::Damaged);
                    continue;
                }
            }
            fetched.answered.push(Arc::clone(entry));
        }
        Ok(fetched)
    }

    fn cache(&mut self, uid: u32, message: &Bytes) {
        self.cached.push_back((uid, message.clone()));
        let octets = |cached: &std::collections::VecDeque<(u32, Bytes)>| -> usize {
            cached.iter().map(|(_, message)| message.len()).sum()
        };
        while self.cached.len() > limits::CACHED_MESSAGES_MAX || octets(&self.cached) > limits::CACHED_BYTES_MAX {
            self.cached.pop_front();
        }
    }

    /// Sets `\Seen` on what was read, in one commit for the whole command. The client hears of it as of any change
    /// of flags. That it may fail does not take back what was read.
    async fn mark_seen(&mut self, read: Vec<Arc<Entry>>, wire: &mut Wire) {
        let unseen = read.iter().filter(|entry| !entry.flags.seen && self.numbering.is_present(entry.uid));
        let unseen: Vec<u32> = unseen.map(|entry| entry.uid).collect();
        if self.read_only || unseen.is_empty() {
            return;
        }
        let seen = Flags { seen: true, ..Flags::default() };
        if let Err(error) = self.folder.change_flags(unseen, FlagChange::Add, seen).await {
            let mut warning = refused(&error);
            warning.text = format!("\\Seen was not set: {error}").into();
            warning.write("*", wire.out());
        }
    }

    async fn store(
        &mut self,
        uid: bool,
        set: &SequenceSet,
        mode: StoreMode,
        silent: bool,
        flags: Flags,
        wire: &mut Wire,
    ) -> Completion {
        if self.read_only {
            return read_only();
        }
        let targets = match self.targets(uid, set) {
            Ok(targets) => targets,
            Err(refusal) => return refusal,
        };
        let (uids, some_missing) = self.present(&targets);
        let flags = self.numbering.spelled(flags, targets.iter().map(|(_, entry)| entry.as_ref()));
        let expected = Expected::of(targets.iter().map(|(_, entry)| entry.as_ref()), mode, &flags);
        let change = match mode {
            StoreMode::Replace => FlagChange::Replace,
            StoreMode::Add => FlagChange::Add,
            StoreMode::Remove => FlagChange::Remove,
        };
        if !uids.is_empty()
            && let Err(error) = self.folder.change_flags(uids.clone(), change, flags).await
        {
            return refused(&error);
        }
        self.tell_changes(false, &expected, wire.out());
        if !silent {
            for uid in uids {
                let Some(number) = self.numbering.number_of(uid) else { continue };
                if let Some(entry) = self.numbering.entries().get(number as usize - 1) {
                    selected::write_flags_of(number, entry, wire.out());
                }
            }
        }
        if some_missing { expunged_meanwhile() } else { Completion::ok("STORE completed") }
    }

    async fn search(&mut self, uid: bool, key: SearchKey, wire: &mut Wire) -> Outcome {
        let query = Query::new(key, &self.numbering);
        let mut found = Vec::new();
        let mut undecided = Vec::new();
        for (position, entry) in self.numbering.entries().iter().enumerate() {
            let number = position as u32 + 1;
            match query.judge(number, entry, None) {
                Verdict::True => found.push(if uid { entry.uid } else { number }),
                Verdict::False => {}
                Verdict::Unknown => undecided.push((number, Arc::clone(entry))),
            }
            if position % limits::SEARCH_TURN_MESSAGES == 0 {
                // A search through a large folder is work without a pause; other sessions want theirs.
                task::yield_now().await;
            }
        }
        match self.search_texts(&query, &undecided, wire).await {
            Ok(more) => found.extend(more.into_iter().map(|(number, of)| if uid { of } else { number })),
            Err(error) => return Ok(refused(&error)),
        }
        found.sort_unstable();
        wire.out().extend_from_slice(b"* SEARCH");
        for number in found {
            wire.out().extend_from_slice(format!(" {number}").as_bytes());
            wire.relieve().await?;
        }
        wire.out().extend_from_slice(b"\r\n");
        Ok(Completion::ok("SEARCH completed"))
    }

    /// Reads the undecided messages; those found, by number and UID.
    async fn search_texts(
        &self,
        query: &Query,
        undecided: &[Target],
        wire: &mut Wire,
    ) -> Result<Vec<(u32, u32)>, AccountError> {
        let wanted = undecided.iter().map(|(_, entry)| Wanted { uid: entry.uid, octets: entry.size }).collect();
        let mut texts = Prefetch::new(self.folder.clone(), wanted, Arc::new(|_, message: Bytes| Text::of(&message)));
        let mut found = Vec::new();
        for (number, entry) in undecided {
            match texts.next().await {
                Some((uid, Ok(text))) => {
                    assert_eq!(uid, entry.uid, "texts come in the order asked for");
                    if query.judge(*number, entry, Some(&text)) == Verdict::True {
                        found.push((*number, uid));
                    }
                }
                // Gone since: it cannot be found. One that is damaged must not make all others unfindable.
                Some((_, Err(AccountError::NoSuchMessage))) => {}
                Some((_, Err(AccountError::Damaged))) => refused(&AccountError::Damaged).write("*", wire.out()),
                Some((_, Err(error))) => return Err(error),
                None => {}
            }
        }
        Ok(found)
    }

    async fn copy(
        &mut self,
        account: &Account<S>,
        uid: bool,
        set: &SequenceSet,
        name: &str,
        moving: bool,
        wire: &mut Wire,
    ) -> Completion {
        if moving && self.read_only {
            return read_only();
        }
        let targets = match self.targets(uid, set) {
            Ok(targets) => targets,
            Err(refusal) => return refusal,
        };
        let (uids, some_missing) = self.present(&targets);
        if some_missing {
            // All or nothing (RFC 3501 §6.4.7).
            return expunged_meanwhile();
        }
        let destination = match account.open(name).await {
            Ok(destination) => destination,
            Err(error) => return refused_at(&error),
        };
        let done = if moving { "MOVE completed" } else { "COPY completed" };
        if uids.is_empty() {
            return Completion::ok(done);
        }
        let pairs = match moving {
            true => self.folder.move_to(uids, &destination).await,
            false => self.folder.copy_to(uids, &destination).await,
        };
        let pairs = match pairs {
            Ok(pairs) if pairs.is_empty() => return Completion::ok(done),
            Ok(pairs) => pairs,
            Err(error) => return refused_at(&error),
        };
        let code = Code::CopyUid {
            uid_validity: destination.view().uid_validity,
            from: sequence::render(pairs.iter().map(|(from, _)| *from)),
            to: sequence::render(pairs.iter().map(|(_, to)| *to)),
        };
        if moving {
            // Before the EXPUNGEs, which the session writes after this (RFC 6851 §4.3).
            Completion::ok_with(code, "moved").write("*", wire.out());
            return Completion::ok(done);
        }
        Completion::ok_with(code, done)
    }

    async fn expunge(&mut self, uids: Option<SequenceSet>) -> Completion {
        if self.read_only {
            return read_only();
        }
        let uids = match uids {
            None => None,
            Some(set) => match self.targets(true, &set) {
                Ok(targets) => Some(targets.iter().map(|(_, entry)| entry.uid).collect()),
                Err(refusal) => return refusal,
            },
        };
        match self.folder.expunge(uids).await {
            Ok(_) => Completion::ok("EXPUNGE completed"),
            Err(error) => refused(&error),
        }
    }
}

/// What came of a FETCH.
#[derive(Default)]
struct Fetched {
    answered: Vec<Arc<Entry>>,
    failure: Option<AccountError>,
}

fn read_only() -> Completion {
    Completion::no_with(Code::ReadOnly, "the folder was opened with EXAMINE")
}

fn expunged_meanwhile() -> Completion {
    Completion::no_with(Code::ExpungeIssued, "some of the messages were expunged meanwhile")
}
