//! Signed blocks: written to and read from a quorum of the eligible members.
//!
//! Only the ring document says who these are. A write is done when the quorum has it durably; a read asks all, needs
//! definite answers (the block, or *absent*) from a quorum, waits a bounded time for the rest, and takes the newest
//! that verifies. Any two quorums share a correct replica, so what a write was told is stored, a read finds. Replicas
//! found behind are given the newest. Those known to be dead are asked, once, and not waited for. What a
//! replica has that is too new to its place to know of a newer version is looked at, but counts in no quorum. Nobody's word is taken for another's: a single replica cannot make a write fail
//! by claiming that it is superseded, nor hide a version.

use super::{Answer, Past, Then, rules};
use crate::call::Owner;
use crate::id::{Id, Key};
use crate::limits::{RETRY_PAUSE, SIGNED_PATIENCE, SIGNED_TRIES, STRAGGLER_WAIT};
use crate::machine::{Micros, Reply, RequestId, Seconds};
use crate::past::block::Refusal;
use crate::past::block::Verdict;
use crate::pastry::{Pastry, eligible};
use crate::site::{Due, Turn};
use crate::wire::{Body, Fetch, FetchAnswer, FetchOutcome, Place, StoreAnswer, StoreOutcome};
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    Awaited,
    Durable,
    Superseded(u64),
    Refused(Refusal),
    /// Silent, full, or of another epoch: asked again.
    Unsettled,
}

/// A signed block on its way to its quorum.
#[derive(Debug)]
pub(super) struct SignedWrite {
    request: RequestId,
    key: Key,
    value: Bytes,
    expiry: Seconds,
    replicas: BTreeMap<Id, Offered>,
    /// As verified.
    version: u64,
    rounds: u8,
    begun: Micros,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reported {
    Awaited,
    /// A block, verified.
    Has(u64, Bytes, Seconds),
    /// A block, verified, of a replica that does not know whether there is a newer one.
    MayBeOld(u64, Bytes, Seconds),
    Absent,
    /// It does not know; or sent what does not verify.
    Unknown,
    /// Silent, or of another epoch: asked again.
    Unsettled,
}

/// A block as a replica sent it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    value: Bytes,
    expiry: Seconds,
    is_certain: bool,
}

/// A signed block being read.
#[derive(Debug)]
pub(super) struct SignedRead {
    request: RequestId,
    key: Key,
    replicas: BTreeMap<Id, Reported>,
    rounds: u8,
    begun: Micros,
    /// The quorum has answered; only stragglers are waited for.
    is_enough: bool,
}

impl Past {
    pub(super) fn begin_write(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        key: Key,
        value: Bytes,
        expiry: Seconds,
    ) {
        let task = turn.site.number();
        let write = SignedWrite {
            request,
            key,
            value: value.clone(),
            expiry,
            replicas: BTreeMap::new(),
            version: 0,
            rounds: 0,
            begun: turn.now,
        };
        self.writes.insert(task, write);
        self.begin_verification(turn, key, value, Then::WriteVerified(task));
    }

    pub(super) fn write_verified(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64, result: Verdict) {
        match result {
            Ok(version) => {
                if let Some(write) = self.writes.get_mut(&task) {
                    write.version = version;
                }
                self.offer(pastry, turn, task);
            }
            Err(refusal) => self.end_write(turn, task, Reply::Refused(refusal)),
        }
    }

    /// Offers the block to every eligible member that has not settled.
    pub(super) fn offer(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64) {
        let Some(write) = self.writes.get_mut(&task) else { return };
        write.rounds += 1;
        let replicas = eligible(&turn.site.roster, &write.key);
        write.replicas.retain(|id, _| replicas.contains(id));
        let place = Place { scope: turn.site.scope(), key: write.key, expiry: write.expiry };
        for id in replicas {
            let offered = write.replicas.entry(id).or_insert(Offered::Unsettled);
            let is_departed = pastry.is_departed(id);
            if *offered == Offered::Unsettled && (write.rounds == 1 || !is_departed) {
                let body = Body::Store(place, write.value.clone());
                if turn.call(id, body, Owner::SignedWrite(task)).is_some() && !is_departed {
                    *offered = Offered::Awaited;
                }
            }
        }
        self.settle_write(turn, task);
    }

    pub(super) fn write_answered(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        task: u64,
        from: Id,
        answer: Answer,
    ) {
        let Some(write) = self.writes.get_mut(&task) else { return };
        let offered = match answer {
            Answer::Body(Body::StoreAnswer(StoreAnswer { outcome })) => match outcome {
                StoreOutcome::Durable => Offered::Durable,
                StoreOutcome::Superseded(version) => Offered::Superseded(version),
                StoreOutcome::Refused(refusal) => Offered::Refused(refusal),
                StoreOutcome::WrongScope(epoch) => {
                    pastry.compare_epochs(turn, from, epoch);
                    Offered::Unsettled
                }
                StoreOutcome::Failed | StoreOutcome::NotMine => Offered::Unsettled,
            },
            _ => Offered::Unsettled,
        };
        if offered == Offered::Unsettled && write.replicas.get(&from) != Some(&Offered::Awaited) {
            return; // Nobody waited for it.
        }
        write.replicas.insert(from, offered);
        self.settle_write(turn, task);
    }

    fn settle_write(&mut self, turn: &mut Turn<'_>, task: u64) {
        let Some(write) = self.writes.get(&task) else { return };
        let rules = rules(turn, write.replicas.len());
        let quorum = rules.head_quorum();
        let count = |matching: fn(&Offered) -> bool| write.replicas.values().filter(|o| matching(o)).count();
        let durable = count(|o| *o == Offered::Durable);
        if durable >= quorum {
            let version = write.version;
            return self.end_write(turn, task, Reply::Stored { copies: durable, version });
        }
        let awaited = count(|o| *o == Offered::Awaited);
        let unsettled = count(|o| *o == Offered::Unsettled);
        // The quorum can no longer be had, and more than the faulty few say why.
        let superseded = count(|o| matches!(o, Offered::Superseded(_)));
        if durable + awaited + unsettled < quorum && superseded > rules.head_faults() {
            let versions = write.replicas.values().filter_map(|offered| match offered {
                Offered::Superseded(version) => Some(*version),
                _ => None,
            });
            let version = versions.max().unwrap_or(0);
            return self.end_write(turn, task, Reply::Superseded { version });
        }
        if awaited > 0 {
            return;
        }
        let refusals = write.replicas.values().filter_map(|offered| match offered {
            Offered::Refused(refusal) => Some(*refusal),
            _ => None,
        });
        let refusals: Vec<Refusal> = refusals.collect();
        if let Some(refusal) = refusals.first().filter(|_| refusals.len() > rules.head_faults()) {
            return self.end_write(turn, task, Reply::Refused(*refusal));
        }
        if unsettled > 0 && may_retry(turn, write.rounds, write.begun) {
            turn.due_in(RETRY_PAUSE * u64::from(write.rounds), Due::Task(task));
        } else {
            self.end_write(turn, task, Reply::Unavailable);
        }
    }

    fn end_write(&mut self, turn: &mut Turn<'_>, task: u64, reply: Reply) {
        // Those that are silent are asked a few times more by their calls; upkeep brings the rest up to date.
        if let Some(write) = self.writes.remove(&task) {
            turn.reply(write.request, reply);
        }
    }

    pub(super) fn begin_read(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, request: RequestId, key: Key) {
        let task = turn.site.number();
        let read = SignedRead { request, key, replicas: BTreeMap::new(), rounds: 0, begun: turn.now, is_enough: false };
        self.reads.insert(task, read);
        self.ask_all(pastry, turn, task);
    }

    /// Asks every eligible member that has given no answer.
    fn ask_all(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64) {
        let Some(read) = self.reads.get_mut(&task) else { return };
        read.rounds += 1;
        let replicas = eligible(&turn.site.roster, &read.key);
        read.replicas.retain(|id, _| replicas.contains(id));
        let fetch = Fetch { scope: turn.site.scope(), key: read.key };
        for id in replicas {
            let reported = read.replicas.entry(id).or_insert(Reported::Unsettled);
            let is_open = matches!(reported, Reported::Unsettled | Reported::Unknown | Reported::MayBeOld(..));
            // A member that is taken for dead is asked once, in case it is not, and not waited for.
            let is_departed = pastry.is_departed(id);
            if is_open && (read.rounds == 1 || !is_departed) {
                let is_asked = turn.call(id, Body::Fetch(fetch), Owner::SignedRead(task)).is_some();
                if is_asked && !is_departed {
                    *reported = Reported::Awaited;
                }
            }
        }
        self.settle_read(turn, task);
    }

    pub(super) fn read_answered(
        &mut self,
        pastry: &mut Pastry,
        turn: &mut Turn<'_>,
        task: u64,
        from: Id,
        answer: Answer,
    ) {
        let Some(read) = self.reads.get_mut(&task) else { return };
        let reported = match answer {
            Answer::Body(Body::FetchAnswer(FetchAnswer { outcome }, value)) => match outcome {
                FetchOutcome::Found { expiry, .. } | FetchOutcome::Uncertain { expiry, .. } => {
                    let key = read.key;
                    let is_certain = matches!(outcome, FetchOutcome::Found { .. });
                    let then =
                        Then::ReadVerified { task, from, sent: Sent { value: value.clone(), expiry, is_certain } };
                    self.begin_verification(turn, key, value, then);
                    return; // Still awaited: its verification is.
                }
                FetchOutcome::Absent => Reported::Absent,
                FetchOutcome::Unknown => Reported::Unknown,
                FetchOutcome::WrongScope(epoch) => {
                    pastry.compare_epochs(turn, from, epoch);
                    Reported::Unsettled
                }
                FetchOutcome::Failed => Reported::Unsettled,
            },
            _ => Reported::Unsettled,
        };
        if reported != Reported::Absent && read.replicas.get(&from) != Some(&Reported::Awaited) {
            return; // Nobody waited for it.
        }
        read.replicas.insert(from, reported);
        self.settle_read(turn, task);
    }

    pub(super) fn read_verified(&mut self, turn: &mut Turn<'_>, task: u64, from: Id, sent: Sent, result: Verdict) {
        let Sent { value, expiry, is_certain } = sent;
        let Some(read) = self.reads.get_mut(&task) else { return };
        let reported = match result {
            // The version is the verified block's, not the one the replica claims.
            Ok(version) if is_certain => Reported::Has(version, value, expiry),
            Ok(version) => Reported::MayBeOld(version, value, expiry),
            Err(_) => Reported::Unknown,
        };
        read.replicas.insert(from, reported);
        self.settle_read(turn, task);
    }

    /// The stragglers have had their time, or it is time to ask again.
    pub(super) fn read_due(&mut self, pastry: &Pastry, turn: &mut Turn<'_>, task: u64) {
        if self.reads.get(&task).is_some_and(|read| read.is_enough) {
            self.end_read(turn, task);
        } else {
            self.ask_all(pastry, turn, task);
        }
    }

    fn settle_read(&mut self, turn: &mut Turn<'_>, task: u64) {
        let Some(read) = self.reads.get_mut(&task) else { return };
        let quorum = rules(turn, read.replicas.len()).head_quorum();
        let definite = read.replicas.values().filter(|r| matches!(r, Reported::Has(..) | Reported::Absent)).count();
        let awaited = read.replicas.values().filter(|r| **r == Reported::Awaited).count();
        if awaited == 0 {
            if definite >= quorum || !may_retry(turn, read.rounds, read.begun) {
                self.end_read(turn, task);
            } else {
                turn.due_in(RETRY_PAUSE * u64::from(read.rounds), Due::Task(task));
            }
        } else if definite >= quorum && !read.is_enough {
            read.is_enough = true;
            turn.due_in(STRAGGLER_WAIT, Due::Task(task));
        }
    }

    fn end_read(&mut self, turn: &mut Turn<'_>, task: u64) {
        let Some(read) = self.reads.remove(&task) else { return };
        let quorum = rules(turn, read.replicas.len()).head_quorum();
        let definite = read.replicas.values().filter(|r| matches!(r, Reported::Has(..) | Reported::Absent)).count();
        if definite < quorum {
            turn.reply(read.request, Reply::Unavailable);
            return;
        }
        // Of two blocks of one version (their owner contradicts himself) every reader takes the same.
        let blocks = read.replicas.values().filter_map(|reported| match reported {
            Reported::Has(version, value, expiry) | Reported::MayBeOld(version, value, expiry) => {
                Some((*version, value, *expiry))
            }
            _ => None,
        });
        let Some((version, value, expiry)) = blocks.max() else {
            turn.reply(read.request, Reply::Absent);
            return;
        };
        turn.reply(read.request, Reply::Found { value: value.clone(), version });
        let is_behind = |reported: &Reported| match reported {
            Reported::Has(held, _, _) | Reported::MayBeOld(held, _, _) => *held < version,
            Reported::Absent | Reported::Unknown => true,
            Reported::Awaited | Reported::Unsettled => false,
        };
        let behind: Vec<Id> = read.replicas.iter().filter(|(_, r)| is_behind(r)).map(|(id, _)| *id).collect();
        Past::mend(turn, read.key, value, expiry, &behind);
    }
}

fn may_retry(turn: &Turn<'_>, rounds: u8, begun: Micros) -> bool {
    rounds < SIGNED_TRIES && turn.now < begun + SIGNED_PATIENCE
}
