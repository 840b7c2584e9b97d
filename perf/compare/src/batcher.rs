//! Group commit for stores that commit alone: the same small batcher in front of each of them.
//!
//! One thread takes whatever changes have arrived while its last commit was under way, up to the bytes the engine puts
//! into a batch, commits them together, and only then answers each. It is the least that a server around a single-writer store
//! would do, so a row "+ batcher" says what the store gives in such a server.

use crate::fault::Fault;
use crate::store::{Change, Store};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// A batch closes when its values have grown past this: the engine's own bound.
const BATCH_BYTES: usize = engine::limits::BATCH_BYTES;
/// Requests in one batch at most.
const BATCH_REQUESTS: usize = 4096;

/// Changes of one request, and where its answer goes.
struct Pending {
    tag: usize,
    changes: Vec<Change>,
    answers: Sender<(usize, Result<(), Fault>)>,
}

/// Runs `act` with a batcher in front of `store`; the committing thread has ended when this returns.
pub(crate) fn with_batcher<T>(store: &dyn Store, act: impl FnOnce(&Batcher) -> Result<T, Fault>) -> Result<T, Fault> {
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        scope.spawn(move || run(store, &receiver));
        let batcher = Batcher { sender };
        let done = act(&batcher);
        // Without senders the committing thread ends, and the scope with it.
        drop(batcher);
        done
    })
}

/// The way in for many callers.
pub(crate) struct Batcher {
    sender: Sender<Pending>,
}

impl Batcher {
    /// A door for one caller with many requests in flight.
    pub(crate) fn door(&self) -> BatchDoor {
        let (answers, answered) = channel();
        BatchDoor { sender: self.sender.clone(), answers, answered }
    }
}

/// One caller's door to a batcher.
pub(crate) struct BatchDoor {
    sender: Sender<Pending>,
    answers: Sender<(usize, Result<(), Fault>)>,
    answered: Receiver<(usize, Result<(), Fault>)>,
}

impl BatchDoor {
    /// Hands in changes; they are committed together with others.
    pub(crate) fn submit(&self, tag: usize, changes: Vec<Change>) -> Result<(), Fault> {
        let pending = Pending { tag, changes, answers: self.answers.clone() };
        self.sender.send(pending).map_err(|_| Fault::BatcherEnded)
    }

    /// The next answer, waiting for it.
    pub(crate) fn wait(&self) -> Result<(usize, Result<(), Fault>), Fault> {
        self.answered.recv().map_err(|_| Fault::BatcherEnded)
    }
}

/// The committing thread.
fn run(store: &dyn Store, receiver: &Receiver<Pending>) {
    while let Ok(first) = receiver.recv() {
        let mut batch = Vec::new();
        let mut waiting = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(pending) = next {
            bytes += pending.changes.iter().map(Change::bytes).sum::<usize>();
            batch.extend(pending.changes);
            waiting.push((pending.tag, pending.answers));
            let full = bytes >= BATCH_BYTES || waiting.len() >= BATCH_REQUESTS;
            next = if full { None } else { receiver.try_recv().ok() };
        }
        let committed = store.commit(batch).map_err(|fault| fault.to_string());
        for (tag, answers) in waiting {
            // Who no longer listens does not miss it.
            let _ = answers.send((tag, committed.clone().map_err(Fault::Batch)));
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: an answer comes only after the commit that holds its change, and every change is committed once. Method: a store
    //! that records commits and can be held in the middle of one; the control is a commit that fails.

    use super::*;
    use crate::data::Objects;
    use crate::store::{PlainReader, Reader, Reclaimed, See};
    use engine::Key;
    use std::sync::Mutex;
    use std::sync::mpsc::{SyncSender, sync_channel};

    /// Commits only when told to; fails when told so.
    struct Gate {
        entered: SyncSender<usize>,
        leave: Mutex<Receiver<bool>>,
        committed: Mutex<Vec<Key>>,
    }

    impl Store for Gate {
        fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
            self.entered.send(changes.len()).expect("the test listens");
            if !self.leave.lock().expect("no panic").recv().expect("the test decides") {
                return Err(Fault::BatcherEnded);
            }
            for change in changes {
                let (Change::Put { key, .. } | Change::Extend { key, .. }) = change;
                self.committed.lock().expect("no panic").push(key);
            }
            Ok(())
        }

        fn get(&self, _: &Key, _: &mut See<'_>) -> Result<bool, Fault> {
            Ok(false)
        }

        fn reader(&self) -> Result<Box<dyn Reader + '_>, Fault> {
            Ok(Box::new(PlainReader(self)))
        }

        fn list(&self, _: [u8; 20], _: [u8; 20], _: &mut dyn FnMut(Key, u64)) -> Result<(), Fault> {
            Ok(())
        }

        fn expire(&self, _: u64) -> Result<u64, Fault> {
            Ok(0)
        }

        fn reclaim(&self) -> Result<Reclaimed, Fault> {
            Ok(Reclaimed::Done)
        }
    }

    #[test]
    fn answers_come_after_the_commit_and_what_waited_shares_the_next_one() {
        let (entered, entries) = sync_channel(1);
        let (leave, leaves) = channel();
        let gate = Gate { entered, leave: Mutex::new(leaves), committed: Mutex::default() };
        let objects = Objects::new(1);
        let put =
            |number| vec![Change::Put { key: objects.key(number), expiry_s: 1, value: objects.value(number, 10) }];
        with_batcher(&gate, |batcher| {
            let door = batcher.door();
            door.submit(0, put(0))?;
            assert_eq!(entries.recv().expect("the batcher runs"), 1);
            // The first commit is under way: nothing is answered, and what comes now waits.
            for tag in 1..=20 {
                door.submit(tag, put(tag))?;
            }
            assert!(door.answered.try_recv().is_err());
            leave.send(true).expect("the gate listens");
            assert_eq!(door.wait()?.0, 0);
            assert_eq!(entries.recv().expect("the batcher runs"), 20, "all that waited are one commit");
            assert!(door.answered.try_recv().is_err());
            assert_eq!(gate.committed.lock().expect("no panic").len(), 1);
            leave.send(false).expect("the gate listens");
            for tag in 1..=20 {
                let (answered, result) = door.wait()?;
                assert_eq!(answered, tag);
                assert!(matches!(result, Err(Fault::Batch(_))), "a failed commit acknowledges nothing");
            }
            Ok(())
        })
        .expect("no fault");
        assert_eq!(gate.committed.lock().expect("no panic").len(), 1);
    }
}
