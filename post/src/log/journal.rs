//! A journal: a log together with the state that its entries make.
//!
//! The state is pure ([`JournalState`]): it applies effects and can be written down and read back. The journal
//! brings effects to the log first and applies them after, so that the state never shows what is not durable.
//! Numbers that must never be given out twice (UIDs, modification sequences) are kept under high-water marks,
//! which stand in an *earlier* head than their first use: should the tail of the log be lost, opening it skips past them.
//!
//! [`Journal::open`], [`Journal::commit`], [`Journal::maintain`] (a snapshot when one is due), and after
//! [`LogError::Unresolved`] first of all [`Journal::resolve`].

use super::keys::WriteKeys;
use super::limits::{MARK_STEP, RECORD_ENTRIES_BYTES_MAX, RECORD_ENTRIES_MAX, SNAPSHOT_ENTRIES_MIN};
use super::writer::{LogWriter, Opened};
use super::{LogError, LogStore};
use crate::store::ObjectStore;
use bytes::Bytes;
use std::collections::VecDeque;

/// A state made by effects. Applying the same effects to the same state gives the same state.
pub trait JournalState: Clone + Send + Sync {
    /// What changes it: the result of a command, never the command.
    type Effect: Send + Sync;

    /// Applies one effect; an effect that is not legal here changes nothing.
    fn apply(&mut self, effect: &Self::Effect) -> Result<(), EffectError>;

    /// An effect as bytes.
    fn encode_effect(effect: &Self::Effect) -> Vec<u8>;

    /// Reads an effect.
    fn decode_effect(bytes: &Bytes) -> Result<Self::Effect, EffectError>;

    /// The whole state as bytes.
    fn encode(&self) -> Vec<u8>;

    /// Reads a state.
    fn decode(bytes: &Bytes) -> Result<Self, EffectError>;

    /// The next numbers that will be given out, one for each high-water mark. They never fall.
    fn next_numbers(&self) -> Vec<u64>;

    /// The effects after which no number below the `marks` is given out any more.
    fn skip_past(&self, marks: &[u64]) -> Vec<Self::Effect>;

    /// About how many effects would make this state: a snapshot is due when the log has grown by half of it.
    fn weight(&self) -> u64;
}

/// Why an effect or a written state is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EffectError {
    /// The bytes are not those of an effect or state of this kind.
    #[error("not an effect or state of this kind")]
    Malformed,
    /// The effect is not legal in this state: it was planned for another one, or the log is damaged.
    #[error("the effect is not legal in this state")]
    Illegal,
    /// A bound of the state would be exceeded.
    #[error("a bound of the state is reached")]
    Full,
}

/// Why a journal could not be opened or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An effect is not acceptable. In [`Journal::commit`] it is the caller's, and nothing was written; in
    /// [`Journal::open`] the log holds it.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

/// A log and its state, with the single writer.
#[derive(Debug)]
pub struct Journal<S, T> {
    writer: LogWriter<S>,
    state: T,
    /// The state once the writer's unresolved head is known to stand.
    awaited: Option<T>,
    /// What is to be written after that: the rest of a commit that takes several records.
    rest: VecDeque<Batch<T>>,
}

/// The entries of one record, and the state after it.
type Batch<T> = (Vec<Bytes>, T);

impl<S: ObjectStore, T: JournalState> Journal<S, T> {
    /// Opens the journal for writing, making it with the state `initial` if it does not exist. `initial` is also what the log's
    /// entries are applied to while there is no snapshot, so it is the same every time.
    ///
    /// `remembered` is the [`version`](Self::version) after the last commit that was shown to anybody, if this device
    /// has kept it durably since; an older head is then refused. Without it, numbers up to the marks may have been given
    /// out in a tail that is lost, and are skipped.
    ///
    /// # Errors
    /// [`JournalError`]; nothing is held that would have to be resolved.
    pub async fn open(
        log: LogStore<S>,
        keys: WriteKeys,
        remembered: Option<u64>,
        initial: T,
    ) -> Result<Journal<S, T>, JournalError> {
        let marks = raised(&initial.next_numbers());
        let marks_count = marks.len();
        let Opened { writer, snapshot, records, is_tail_certain } =
            LogWriter::open(log, keys, remembered, marks).await?;
        if writer.head().marks.len() != marks_count {
            return Err(EffectError::Malformed.into());
        }
        let mut state = match snapshot {
            Some(bytes) => T::decode(&bytes)?,
            None => initial,
        };
        for entry in records.iter().flat_map(|record| &record.entries) {
            state.apply(&T::decode_effect(entry)?)?;
        }
        let mut journal = Journal { writer, state, awaited: None, rest: VecDeque::new() };
        if !is_tail_certain {
            let skips = journal.state.skip_past(&journal.writer.head().marks);
            journal.commit(&skips).await?;
        }
        Ok(journal)
    }

    /// The state as of the last commit.
    pub fn state(&self) -> &T {
        &self.state
    }

    /// The log's version: what a device remembers, to notice when it is shown an older log.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.writer.head().version
    }

    /// The writer, for its keys and references.
    #[must_use]
    pub fn writer(&self) -> &LogWriter<S> {
        &self.writer
    }

    /// Appends the effects and applies them. When it returns they are durable at their quorum. Effects that fit into one
    /// record (3 MiB) stand or fall together; of more, a prefix may stand after an error.
    ///
    /// # Errors
    /// [`JournalError::Effect`]: nothing was written. [`LogError::Unavailable`]: nothing more was written than
    /// [`state`](Self::state) shows. [`LogError::Unresolved`]: call [`resolve`](Self::resolve) before anything else; the effects
    /// then stand. [`LogError::TakenOver`]: this journal is finished.
    pub async fn commit(&mut self, effects: &[T::Effect]) -> Result<(), JournalError> {
        self.settle_marks().await?;
        self.rest = self.batches(effects)?;
        self.write_rest().await
    }

    /// Finds out what became of an unresolved commit, by sending it again, and writes what was to follow. Once it
    /// returns, the whole commit stands and [`state`](Self::state) shows it. Does nothing if nothing is unresolved.
    ///
    /// # Errors
    /// [`LogError::Unresolved`], [`LogError::TakenOver`]; or as [`commit`](Self::commit), for what was to follow.
    pub async fn resolve(&mut self) -> Result<(), JournalError> {
        if !self.is_unresolved() {
            // A commit that was dropped before its head was sent has changed nothing.
            self.forget();
        }
        self.writer.resolve().await?;
        self.settle();
        self.write_rest().await
    }

    /// Writes the batches that are left, each after the one before stands.
    async fn write_rest(&mut self) -> Result<(), JournalError> {
        while let Some((entries, after)) = self.rest.pop_front() {
            let written = self.write(entries, after).await;
            if written.is_err() && !self.is_unresolved() {
                self.forget();
            }
            written?;
        }
        Ok(())
    }

    async fn write(&mut self, entries: Vec<Bytes>, after: T) -> Result<(), JournalError> {
        self.reserve_for(&after).await?;
        let numbers = after.next_numbers();
        let marks = self.marks_for(&numbers);
        self.awaited = Some(after);
        self.writer.append(entries, &marks).await?;
        self.settle();
        Ok(())
    }

    fn forget(&mut self) {
        self.awaited = None;
        self.rest.clear();
    }

    /// Whether a commit's fate is unknown.
    #[must_use]
    pub fn is_unresolved(&self) -> bool {
        self.awaited.is_some() && self.writer.is_unresolved()
    }

    /// Writes a snapshot if one is due: so many entries after the last that opening the log would be slow. Returns
    /// whether it wrote one. Failing is harmless; it stays due.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn maintain(&mut self) -> Result<bool, JournalError> {
        self.settle_marks().await?;
        let head = self.writer.head();
        let since = head.entries - head.snapshot.as_ref().map_or(0, |snapshot| snapshot.entries);
        if since < SNAPSHOT_ENTRIES_MIN.max(self.state.weight() / 2) {
            return Ok(false);
        }
        self.writer.snapshot(&self.state.encode()).await.map_err(stateless)?;
        Ok(true)
    }

    /// Before something new is written: refuses while a commit is unresolved, and finishes a write that changes no state.
    async fn settle_marks(&mut self) -> Result<(), JournalError> {
        if self.is_unresolved() {
            return Err(LogError::Unresolved.into());
        }
        self.forget();
        self.writer.resolve().await.map_err(stateless)?;
        Ok(())
    }

    fn settle(&mut self) {
        if let Some(state) = self.awaited.take() {
            self.state = state;
        }
    }

    /// The effects as the entries of as few records as they need, each with the state after it.
    fn batches(&self, effects: &[T::Effect]) -> Result<VecDeque<Batch<T>>, JournalError> {
        let mut batches = VecDeque::new();
        let mut state = self.state.clone();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for effect in effects {
            let entry = Bytes::from(T::encode_effect(effect));
            if entry.len() > RECORD_ENTRIES_BYTES_MAX {
                return Err(LogError::TooLarge.into());
            }
            if bytes + entry.len() > RECORD_ENTRIES_BYTES_MAX || entries.len() == RECORD_ENTRIES_MAX {
                batches.push_back((std::mem::take(&mut entries), state.clone()));
                bytes = 0;
            }
            state.apply(effect)?;
            bytes += entry.len();
            entries.push(entry);
        }
        if !entries.is_empty() {
            batches.push_back((entries, state));
        }
        Ok(batches)
    }

    /// Sees to it that an earlier head than the coming one has marks at or above every number that `after` has used.
    async fn reserve_for(&mut self, after: &T) -> Result<(), JournalError> {
        let used = after.next_numbers();
        let is_covered = used.iter().zip(&self.writer.head().marks).all(|(number, mark)| number <= mark);
        if !is_covered {
            self.writer.reserve(&raised(&used)).await.map_err(stateless)?;
        }
        Ok(())
    }

    /// The marks to write with the coming head: raised when half of what was reserved has been used.
    fn marks_for(&self, numbers: &[u64]) -> Vec<u64> {
        let marks = &self.writer.head().marks;
        let raise = |(number, mark): (&u64, &u64)| {
            if number.saturating_add(MARK_STEP / 2) > *mark { number.saturating_add(MARK_STEP) } else { *mark }
        };
        numbers.iter().zip(marks).map(raise).collect()
    }
}

fn raised(numbers: &[u64]) -> Vec<u64> {
    numbers.iter().map(|number| number.saturating_add(MARK_STEP)).collect()
}

/// The error of a write that changes no state: that it is unresolved is nothing the caller must act upon.
fn stateless(error: LogError) -> LogError {
    if error == LogError::Unresolved { LogError::Unavailable } else { error }
}
