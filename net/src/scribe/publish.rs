//! Publishing: from the publisher to the root, and from parents to children until every subscriber has it.
//!
//! The publisher finds the root by routing and hands it the publication directly, as objects go (no hop in between carries
//! it). If that is not the root any more, or silent, it looks again, until it has run out of patience. From the root on each
//! parent hands a copy to every child and sends it again until the child acknowledges. A child that says that it is not below
//! this parent is none any more; one that stays silent is, until Pastry finds it dead or it misses its heartbeats. A
//! publication is known by its publisher and number, and passes each node once, however often it comes.

use super::{Scribe, Waiting};
use crate::call::Owner;
use crate::id::Id;
use crate::limits::{COPIES_OPEN_MAX, PUBLISH_PATIENCE, PUBLISH_PAUSE, PUBLISHING_MAX};
use crate::machine::{Action, Metric, Micros, Reply, RequestId};
use crate::pastry::Pastry;
use crate::site::{Asker, Due, Turn};
use crate::wire::{Body, Publication, Taken, TakenOutcome, Way};
use bytes::Bytes;

/// A publication of ours that no root has yet.
#[derive(Debug)]
pub(super) struct Publishing {
    group: Id,
    payload: Bytes,
    request: RequestId,
    begun: Micros,
}

impl Scribe {
    pub(super) fn publish(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        request: RequestId,
        group: Id,
        payload: Bytes,
    ) {
        if self.publishing.len() >= PUBLISHING_MAX {
            turn.reply(request, Reply::Busy);
            return;
        }
        let number = turn.site.number();
        self.publishing.insert(number, Publishing { group, payload, request, begun: turn.now });
        self.find_root(pastry, turn, number);
    }

    pub(super) fn find_root(&mut self, pastry: &mut Pastry, turn: &mut Turn<'_>, number: u64) {
        if let Some(publishing) = self.publishing.get(&number) {
            pastry.locate(turn, publishing.group, Asker::Publication(number));
        }
    }

    /// The root was found, or not.
    pub(crate) fn root_located(&mut self, turn: &mut Turn<'_>, number: u64, root: Option<Id>) {
        let Some(publishing) = self.publishing.get(&number) else { return };
        let publication = Publication { group: publishing.group, publisher: turn.site.me, number, way: Way::Up };
        let body = Body::Publication(publication, publishing.payload.clone());
        let asked = root.and_then(|root| turn.call(root, body, Owner::Scribe(Waiting::Root(number))));
        if asked.is_none() {
            self.root_answered(turn, number, false);
        }
    }

    /// The root has taken a publication of ours, or somebody has not.
    pub(super) fn root_answered(&mut self, turn: &mut Turn<'_>, number: u64, is_taken: bool) {
        let Some(publishing) = self.publishing.get(&number) else { return };
        let (request, begun) = (publishing.request, publishing.begun);
        if !is_taken && turn.now < begun + PUBLISH_PATIENCE {
            turn.due_in(PUBLISH_PAUSE, Due::Publishing(number));
            return;
        }
        self.publishing.remove(&number);
        turn.reply(request, if is_taken { Reply::Done } else { Reply::Unavailable });
    }

    /// A publisher believes that we are the root.
    pub(super) fn publication_up(
        &mut self,
        pastry: &Pastry,
        turn: &mut Turn<'_>,
        from: Id,
        request: u64,
        publication: Publication,
        payload: Bytes,
    ) {
        if publication.publisher != from {
            turn.count(Metric::Unexpected); // Nobody publishes in another's name, as far as we can see.
            return;
        }
        let copies = self.groups.get(&publication.group).map_or(0, |it| it.branch.child_count());
        let outcome = if !pastry.is_root(turn.site.me, publication.group) {
            TakenOutcome::NotRoot
        } else if self.copies_open + copies > COPIES_OPEN_MAX {
            turn.count(Metric::Dropped);
            TakenOutcome::Busy
        } else {
            TakenOutcome::Taken
        };
        turn.send(from, request, Body::Taken(Taken { outcome }));
        if outcome == TakenOutcome::Taken {
            self.spread(turn, publication, &payload);
        }
    }

    /// A publication comes down the tree.
    pub(super) fn publication_down(
        &mut self,
        turn: &mut Turn<'_>,
        from: Id,
        request: u64,
        publication: Publication,
        payload: Bytes,
    ) {
        let it = self.groups.get_mut(&publication.group);
        let (is_parent, was_parent) = it.map_or((false, false), |it| {
            if it.branch.parent() == Some(from) {
                it.parent_heard = turn.now;
            }
            // It may have given us a place, and its answer be on its way.
            let is_asked = it.climb.as_ref().is_some_and(|climb| climb.to() == from);
            (is_asked || it.branch.parent() == Some(from), it.former == Some(from))
        });
        let outcome = if is_parent { TakenOutcome::Taken } else { TakenOutcome::Astray };
        turn.send(from, request, Body::Taken(Taken { outcome }));
        // From nobody else, who might put other bytes under a name that is yet to come.
        if is_parent || was_parent {
            self.spread(turn, publication, &payload);
        } else {
            turn.count(Metric::Unexpected);
        }
    }

    /// To the application here, and to every child; once.
    fn spread(&mut self, turn: &mut Turn<'_>, publication: Publication, payload: &Bytes) {
        let Publication { group, publisher, number, .. } = publication;
        let Some(it) = self.groups.get_mut(&group) else { return };
        if !it.passed.is_first((publisher, number)) {
            return;
        }
        if it.is_subscribed {
            turn.out.push(Action::Published { group, publisher, payload: payload.clone() });
        }
        let copy = Publication { way: Way::Down, ..publication };
        for child in it.branch.children() {
            if self.copies_open >= COPIES_OPEN_MAX {
                turn.count(Metric::Dropped);
                continue;
            }
            let body = Body::Publication(copy, payload.clone());
            if turn.call(child, body, Owner::Scribe(Waiting::Copy(group))).is_some() {
                self.copies_open += 1;
            }
        }
    }

    /// A child has taken its copy, or has not.
    pub(super) fn copy_answered(&mut self, turn: &mut Turn<'_>, group: Id, child: Id, outcome: Option<TakenOutcome>) {
        assert!(self.copies_open > 0, "each copy is answered once");
        self.copies_open -= 1;
        match outcome {
            Some(TakenOutcome::Taken | TakenOutcome::Busy) => {
                self.change(group, |it| it.branch.heard(child, turn.now));
            }
            Some(TakenOutcome::Astray | TakenOutcome::NotRoot) => {
                self.change(group, |it| it.branch.remove(child));
                self.prune(turn, group);
            }
            None => {}
        }
    }
}
