//! Direct messages between the applications on two nodes, each with one answer.
//!
//! The asking side may send twice; the answering side hands each message to its application once, while it remembers:
//! one that is being answered is not delivered again, and a small answer is kept for a while and repeated. Beyond that
//! memory the application must itself recognise what it has seen.

use crate::id::Id;
use crate::limits::{ANSWER_KEPT_BYTES_MAX, ANSWERS_KEPT_MAX, CONVERSATION_WAIT, CONVERSATIONS_MAX};
use crate::machine::{Action, Metric, Micros};
use crate::site::{Due, Turn};
use crate::wire::Body;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Who asked, and the number of the question.
type Question = (Id, u64);

/// The answering side.
#[derive(Debug, Default)]
pub(crate) struct Conversations {
    /// With the time by which the application must have answered.
    open: BTreeMap<u64, (Question, Micros)>,
    answered: VecDeque<(Question, Bytes)>,
}

impl Conversations {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// A peer's application speaks to ours.
    pub(crate) fn told(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, payload: Bytes) {
        let question = (from, request);
        if self.open.values().any(|(open, _)| *open == question) {
            return;
        }
        if let Some((_, answer)) = self.answered.iter().find(|(answered, _)| *answered == question) {
            turn.send(from, request, Body::Told(answer.clone()));
            return;
        }
        if self.open.len() >= CONVERSATIONS_MAX {
            turn.count(Metric::Dropped);
            return;
        }
        let conversation = turn.site.number();
        let due = turn.due_in(CONVERSATION_WAIT, Due::Conversation(conversation));
        self.open.insert(conversation, (question, due));
        turn.out.push(Action::Deliver { from, conversation, payload });
    }

    /// Our application answers.
    pub(crate) fn answer(&mut self, turn: &mut Turn<'_>, to: Id, conversation: u64, payload: Bytes) {
        if self.open.get(&conversation).is_none_or(|((from, _), _)| *from != to) {
            turn.count(Metric::Unexpected); // Too late, or never asked.
            return;
        }
        let Some((question, due)) = self.open.remove(&conversation) else { return };
        turn.not_due(due, Due::Conversation(conversation));
        if payload.len() <= ANSWER_KEPT_BYTES_MAX {
            self.answered.push_back((question, payload.clone()));
            if self.answered.len() > ANSWERS_KEPT_MAX {
                self.answered.pop_front();
            }
        }
        turn.send(to, question.1, Body::Told(payload));
    }

    /// Our application has not answered in time; the peer has given up.
    pub(crate) fn expire(&mut self, turn: &mut Turn<'_>, conversation: u64) {
        if self.open.remove(&conversation).is_some() {
            turn.count(Metric::Dropped);
        }
    }
}
