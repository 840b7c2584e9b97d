//! One node as one machine: what the driver runs, the simulator tests, and nothing else.
//!
//! A node is several protocols over one identity. The driver should not know which: it hands every event to the
//! [`Stack`] and does what comes back. Below are two machines: the [`Overlay`] (Pastry, PAST, Scribe and direct messages), and
//! [`Glacier`], which a host's first node has. Each knows its own timer, messages and operations; start and loss of peers
//! concern both. Glacier is told of each block that the overlay has stored for somebody on this node, and its own
//! commands go to the overlay like anybody's. No decision is taken in this file, ever.
//!
//! What users do (sealing, logs, notifications) is not in here: those are workflows over the object store that the
//! driver offers on top of the stack's commands.

use erasure::glacier::{Entry, Glacier};
use net::machine::{Action, Actions, Command, Event, Machine, Micros, Reply, RequestId};
use net::overlay::{Overlay, OverlayConfig};
use std::collections::BTreeMap;

/// One node.
#[derive(Debug)]
pub struct Stack {
    overlay: Overlay,
    glacier: Option<Glacier>,
    /// Blocks that the overlay has yet to store.
    storing: BTreeMap<RequestId, Entry>,
    /// What the machine at work wants done; kept for its capacity.
    said: Actions,
    asked: Vec<(RequestId, Command)>,
}

impl Stack {
    /// A node that has not yet been told [`Event::Boot`].
    #[must_use]
    pub fn new(config: OverlayConfig) -> Stack {
        Stack {
            glacier: Glacier::new(config.id, config.roster.clone(), config.seed),
            overlay: Overlay::new(config),
            storing: BTreeMap::new(),
            said: Actions::default(),
            asked: Vec::new(),
        }
    }

    /// The overlay below, for tests that look inside.
    #[must_use]
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The Glacier below, if this node has it.
    #[must_use]
    pub fn glacier(&self) -> Option<&Glacier> {
        self.glacier.as_ref()
    }

    /// The overlay's part of an event, and what follows of its replies.
    fn overlay_handles(&mut self, now: Micros, event: Event, out: &mut Actions) {
        if let Event::Command { request, command } = &event {
            self.note(*request, command);
        }
        let mut said = std::mem::take(&mut self.said);
        self.overlay.handle(now, event, &mut said);
        for action in said.drain() {
            match action {
                Action::Reply { request, reply } => self.replied(now, request, reply, out),
                Action::RingAdopted { roster } => {
                    if let Some(glacier) = &mut self.glacier {
                        glacier.adopt(now, roster.clone(), out, &mut self.asked);
                    }
                    out.push(Action::RingAdopted { roster });
                }
                action => out.push(action),
            }
        }
        self.said = said;
    }

    /// Remembers what somebody on this node has stored, until it is.
    fn note(&mut self, request: RequestId, command: &Command) {
        if self.glacier.is_none() || Glacier::has_asked(request) {
            return;
        }
        if let Command::Insert { key, value, expiry } | Command::PutSigned { key, value, expiry } = command {
            let entry = Entry { key: *key, version: 0, expiry: *expiry, value: value.clone() };
            self.storing.insert(request, entry);
        }
    }

    fn replied(&mut self, now: Micros, request: RequestId, mut reply: Reply, out: &mut Actions) {
        let Some(glacier) = &mut self.glacier else { return out.push(Action::Reply { request, reply }) };
        if Glacier::has_asked(request) {
            return glacier.replied(now, request, &reply, out, &mut self.asked);
        }
        if let Some(entry) = self.storing.remove(&request)
            && let Reply::Stored { version, .. } = reply
        {
            glacier.add(now, Entry { version, ..entry }, out, &mut self.asked);
        }
        if let Reply::Status(status) = &mut reply {
            status.above = glacier.status(now).figures();
        }
        out.push(Action::Reply { request, reply });
    }
}

impl Machine for Stack {
    fn handle(&mut self, now: Micros, event: Event, out: &mut Actions) {
        let is_for_both = matches!(event, Event::Boot | Event::PeerUp(_) | Event::PeerDown(_));
        match &mut self.glacier {
            Some(glacier) if Glacier::concerns(&event) => glacier.handle(now, event, out, &mut self.asked),
            Some(glacier) if is_for_both => {
                glacier.handle(now, event.clone(), out, &mut self.asked);
                self.overlay_handles(now, event, out);
            }
            _ => self.overlay_handles(now, event, out),
        }
        // Glacier's commands may have replies at once, and those may have more commands after them.
        while let Some((request, command)) = self.asked.pop() {
            self.overlay_handles(now, Event::Command { request, command }, out);
        }
    }
}
#[cfg(test)]
mod tests {
    //! Goal: each machine is told what concerns it and no other, and Glacier learns of what was stored. Method: the same events
    //! to a stack and to an overlay, side by side, on a ring of one host, which needs nobody else to store.
    use super::*;
    use crate::entropy::Entropy;
    use crate::identity::organisation::{enrol_node, found};
    use bytes::Bytes;
    use net::id::{Id, Key, Kind};
    use net::machine::{ComputeJob, ComputeResult, StorageResult};
    use net::past::block::{Trust, verify};
    use net::ring::Parameters;
    use net::sim::MemoryStore;

    const NOW: Micros = 1_795_000_000_000_000;

    fn config() -> (OverlayConfig, Trust) {
        let mut entropy = Entropy::new([1; 32]);
        let founded = found("Test", "epost.test", Parameters::DEFAULT, 1_795_000_000, &mut entropy).unwrap();
        let node = enrol_node(&founded.authority, &founded.document, "a:1", 1, 1_795_000_000, &mut entropy).unwrap();
        let authority = founded.authority.public_key();
        let config = OverlayConfig::new(node.node_id, node.document, authority, 7).unwrap();
        let trust = Trust::new(authority, config.roster.ring());
        (config, trust)
    }

    /// Runs a machine on a disk of its own; returns its replies and what else it said, in words.
    fn run(machine: &mut impl Machine, trust: &Trust, events: Vec<Event>) -> (Vec<Reply>, Vec<String>) {
        let (mut store, mut replies, mut said) = (MemoryStore::default(), Vec::new(), Vec::new());
        let mut waiting: std::collections::VecDeque<Event> = events.into();
        for step in 0.. {
            let Some(event) = waiting.pop_front() else { break };
            let mut out = Actions::default();
            machine.handle(NOW + step * 1_000_000, event, &mut out);
            for action in out.drain() {
                match action {
                    Action::Storage { op, operation } => {
                        let result: StorageResult = store.perform(operation);
                        waiting.push_front(Event::Storage { op, result });
                    }
                    Action::Compute { op, job } => {
                        let result = match job {
                            ComputeJob::Verify { key, value } => match verify(&key, &value, trust) {
                                Ok(version) => ComputeResult::Verified { version },
                                Err(refusal) => ComputeResult::Refused(refusal),
                            },
                            ComputeJob::Work(work) => ComputeResult::Worked(work.perform()),
                        };
                        waiting.push_front(Event::Compute { op, result });
                    }
                    Action::Reply { reply, .. } => replies.push(reply),
                    Action::Arm { .. } => {}
                    other => said.push(format!("{other:?}")),
                }
            }
        }
        (replies, said)
    }

    fn events() -> Vec<Event> {
        let value = Bytes::from_static(b"a block");
        let insert = Command::Insert { key: Key::of(Kind::Content, &value), value, expiry: NOW / 1_000_000 + 86_400 };
        let commands = [insert, Command::Locate { target: Id::default() }, Command::Status];
        let command = |(number, command)| Event::Command { request: RequestId(number), command };
        [Event::Boot].into_iter().chain((0..).zip(commands).map(command)).collect()
    }

    #[test]
    fn it_says_what_the_overlay_says_and_adds_what_glacier_does() {
        let (config, trust) = config();
        let (mut stack, mut overlay) = (Stack::new(config.clone()), Overlay::new(config));
        let (said, expected) = (run(&mut stack, &trust, events()), run(&mut overlay, &trust, events()));
        assert_eq!(said.1, expected.1);
        assert_eq!(said.0.len(), expected.0.len());
        let shown = said.0.iter().find_map(|reply| match reply {
            Reply::Status(status) => Some(status.above.clone()),
            _ => None,
        });
        let shown = shown.expect("the status was asked for");
        let is_stored = expected.0.iter().any(|reply| matches!(reply, Reply::Stored { .. }));
        let exposed = shown.iter().find(|(name, _)| *name == "exposed_bytes").map(|(_, bytes)| *bytes);
        assert_eq!(exposed, Some(if is_stored { 7 } else { 0 }), "what was stored waits for an aggregate");
    }

    #[test]
    fn a_host_has_one_glacier() {
        let founding = net::sim::Founding::weighted(5, &[2, 1], Parameters::DEFAULT);
        let stacks = founding.roster.ids().map(|id| Stack::new(founding.node(id, 5, Vec::new())));
        assert_eq!(stacks.filter(|stack| stack.glacier().is_some()).count(), 2);
    }
}
