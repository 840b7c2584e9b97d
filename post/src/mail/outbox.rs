//! The outbox: what has been accepted for sending and has not reached everybody, as a log of effects.
//!
//! `250` to a submitting client means that every part of the message is stored and a [`Effect::Queue`] naming every
//! recipient is replicated. A recipient leaves it by [`Effect::Sent`] or [`Effect::Failed`]; with its last recipient
//! the message leaves. Attempts are not replicated: after a restart everybody who is left is tried again, and the
//! notification's id, which follows from the message's and the recipient's ([`notification_id`]), keeps it from arriving twice.

use super::limits::{OUTBOX_MESSAGES_MAX, REASON_BYTES_MAX, RECIPIENTS_MAX};
use super::message::MessageReference;
use crate::limits::ADDRESS_BYTES_MAX;
use crate::log::journal::{EffectError, JournalState};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use net::machine::Seconds;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Format of a written outbox.
const VERSION: u8 = 1;

/// Names one submitted message; drawn at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct SubmissionId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// A message accepted for sending.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Submission {
    /// Its id.
    #[n(0)]
    pub id: SubmissionId,
    /// Where its objects are.
    #[cbor(n(1), with = "super::cbor::message")]
    pub message: MessageReference,
    /// The sender's address.
    #[n(2)]
    pub from: String,
    /// Who is still to get it.
    #[n(3)]
    pub recipients: BTreeSet<String>,
    /// When it was accepted.
    #[n(4)]
    pub at_s: Seconds,
}

/// One change of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Effect {
    /// A message is accepted.
    #[n(0)]
    Queue(#[n(0)] Box<Submission>),
    /// A recipient has it: the receipt is there.
    #[n(1)]
    Sent {
        /// The message.
        #[n(0)]
        id: SubmissionId,
        /// The recipient.
        #[n(1)]
        recipient: String,
    },
    /// A recipient will not get it.
    #[n(2)]
    Failed {
        /// The message.
        #[n(0)]
        id: SubmissionId,
        /// The recipient.
        #[n(1)]
        recipient: String,
        /// Why, for the sender to read.
        #[n(2)]
        reason: String,
    },
}

/// Why something cannot be planned. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// As many messages wait as may.
    #[error("too many messages wait to be sent")]
    Full,
    /// No recipient, or too many.
    #[error("no recipient, or more than {RECIPIENTS_MAX}")]
    BadRecipients,
    /// An address is empty or too long.
    #[error("an address is empty or too long")]
    BadAddress,
    /// A message with this id is there: ids are drawn at random.
    #[error("the id is taken")]
    Taken,
}

/// What waits to be sent at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    waiting: BTreeMap<SubmissionId, Arc<Submission>>,
}

/// The id of the notification that brings message `id` to `recipient`: the same at every attempt.
#[must_use]
pub fn notification_id(id: SubmissionId, recipient: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("ePOST 2026 notification id");
    hasher.update(&id.0).update(recipient.to_ascii_lowercase().as_bytes());
    *hasher.finalize().as_bytes()
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// What waits, with the recipients that are left, by id.
    pub fn pending(&self) -> impl Iterator<Item = &Arc<Submission>> {
        self.waiting.values()
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Plans to accept a message.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub fn plan_queue(&self, submission: Submission) -> Result<Effect, OutboxError> {
        check(&submission)?;
        if self.waiting.len() >= OUTBOX_MESSAGES_MAX {
            return Err(OutboxError::Full);
        }
        if self.waiting.contains_key(&submission.id) {
            return Err(OutboxError::Taken);
        }
        Ok(Effect::Queue(Box::new(submission)))
    }

    /// Plans that a recipient has the message; no effect if he is not waited for.
    #[must_use]
    pub fn plan_sent(&self, id: SubmissionId, recipient: &str) -> Option<Effect> {
        self.waits_for(id, recipient).then(|| Effect::Sent { id, recipient: recipient.to_owned() })
    }

    /// Plans that a recipient will not get the message; no effect if he is not waited for.
    #[must_use]
    pub fn plan_failed(&self, id: SubmissionId, recipient: &str, reason: &str) -> Option<Effect> {
        let reason = reason.chars().take(REASON_BYTES_MAX / 4).collect();
        self.waits_for(id, recipient).then(|| Effect::Failed { id, recipient: recipient.to_owned(), reason })
    }

    fn waits_for(&self, id: SubmissionId, recipient: &str) -> bool {
        self.waiting.get(&id).is_some_and(|submission| submission.recipients.contains(recipient))
    }

    fn queue(&mut self, submission: &Submission) -> Result<(), EffectError> {
        if self.waiting.len() >= OUTBOX_MESSAGES_MAX {
            return Err(EffectError::Full);
        }
        if check(submission).is_err() || self.waiting.contains_key(&submission.id) {
            return Err(EffectError::Illegal);
        }
        self.waiting.insert(submission.id, Arc::new(submission.clone()));
        Ok(())
    }

    fn settle(&mut self, id: SubmissionId, recipient: &str) -> Result<(), EffectError> {
        let submission = self.waiting.get_mut(&id).ok_or(EffectError::Illegal)?;
        if !submission.recipients.contains(recipient) {
            return Err(EffectError::Illegal);
        }
        let submission = Arc::make_mut(submission);
        submission.recipients.remove(recipient);
        if submission.recipients.is_empty() {
            self.waiting.remove(&id);
        }
        Ok(())
    }
}

fn check(submission: &Submission) -> Result<(), OutboxError> {
    if submission.recipients.is_empty() || submission.recipients.len() > RECIPIENTS_MAX {
        return Err(OutboxError::BadRecipients);
    }
    let mut addresses = submission.recipients.iter().chain([&submission.from]);
    let is_legal = addresses.all(|address| (1..=ADDRESS_BYTES_MAX).contains(&address.len()));
    if is_legal { Ok(()) } else { Err(OutboxError::BadAddress) }
}

/// An outbox as it is written in a snapshot.
#[derive(Encode, Decode)]
struct Written {
    #[n(0)]
    version: u8,
    #[n(1)]
    waiting: Vec<Submission>,
}

impl JournalState for Outbox {
    type Effect = Effect;

    fn apply(&mut self, effect: &Effect) -> Result<(), EffectError> {
        match effect {
            Effect::Queue(submission) => self.queue(submission),
            Effect::Sent { id, recipient } | Effect::Failed { id, recipient, .. } => self.settle(*id, recipient),
        }
    }

    fn encode_effect(effect: &Effect) -> Vec<u8> {
        minicbor::to_vec(effect).expect("encoding into a Vec does not fail")
    }

    fn decode_effect(bytes: &Bytes) -> Result<Effect, EffectError> {
        minicbor::decode(bytes).map_err(|_| EffectError::Malformed)
    }

    fn encode(&self) -> Vec<u8> {
        let waiting = self.waiting.values().map(|submission| Submission::clone(submission)).collect();
        minicbor::to_vec(Written { version: VERSION, waiting }).expect("encoding into a Vec does not fail")
    }

    fn decode(bytes: &Bytes) -> Result<Outbox, EffectError> {
        let written: Written = minicbor::decode(bytes).map_err(|_| EffectError::Malformed)?;
        if written.version != VERSION {
            return Err(EffectError::Malformed);
        }
        let mut outbox = Outbox::new();
        for submission in &written.waiting {
            outbox.queue(submission).map_err(|_| EffectError::Malformed)?;
        }
        Ok(outbox)
    }

    fn next_numbers(&self) -> Vec<u64> {
        Vec::new()
    }

    fn skip_past(&self, _marks: &[u64]) -> Vec<Effect> {
        Vec::new()
    }

    fn weight(&self) -> u64 {
        self.waiting.len() as u64
    }
}
