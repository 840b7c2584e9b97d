//! The task that owns one journal, and the handle through which everybody changes it.
//!
//! Everything a user changes goes through here: a folder, the list of folders, the outbox. A change is a closure
//! that looks at a draft of the state and records effects on it. The task takes the first waiting change and
//! every other one that has arrived while the last write was in flight, and commits their effects as *one* record
//! and one head: group commit, so that a hundred changes cost what one costs. Only when the head is replicated at
//! its quorum is the new state published and are the callers answered.
//!
//! ```text
//! callers ──change──▶ queue ──▶ task: draft = state; run changes; commit; publish; answer
//!                     (bounded)          └── below quorum: nothing is published, callers get the error,
//!                                            and the write is resolved before the next one
//! ```
//!
//! A write whose outcome stays unknown is answered as a failure, and made again until it is known: what its callers
//! were told failed may then turn out to stand, and is published. A client that tries again may so do a thing twice.
//!
//! Another device that opens the log ends the writing here: every change then fails with
//! [`AccountError::TakenOver`], until this node is started again. That is told loudly, once, and counted.
//!
//! Invariant: what is published has been replicated, in the order of the log.

use super::{AccountError, Services};
use net::machine::Seconds;
use post::log::LogError;
use post::log::journal::{EffectError, Journal, JournalError, JournalState};
use post::mail::references::{Refreshed, refresh_log};
use post::store::ObjectStore;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

/// Changes waiting for one journal; more wait in their callers.
const QUEUE_MAX: usize = 256;
/// Most changes in one commit.
const GROUP_MAX: usize = 128;
/// Waits between attempts at a write whose outcome is unknown, before the callers hear of it.
const RESOLVE_WAITS_MS: [u64; 4] = [200, 400, 800, 1600];
/// No further attempt begins this long after the first one: below the quorum the ring takes many seconds over each,
/// and a mail client waits a minute or two for its answer.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(10);
/// Wait before such a write is tried again when nobody asks for anything.
const RESOLVE_AGAIN: Duration = Duration::from_secs(10);

/// A state being changed.
pub(crate) struct Draft<T: JournalState> {
    base: Arc<T>,
    state: T,
    effects: Vec<T::Effect>,
}

impl<T: JournalState> Draft<T> {
    fn new(base: Arc<T>) -> Draft<T> {
        let state = T::clone(&base);
        Draft { base, state, effects: Vec::new() }
    }

    /// The state, with what was recorded so far.
    pub(crate) fn state(&self) -> &T {
        &self.state
    }

    /// Records one effect.
    ///
    /// # Errors
    /// If the effect is not legal in this state; nothing is recorded.
    pub(crate) fn record(&mut self, effect: T::Effect) -> Result<(), EffectError> {
        self.state.apply(&effect)?;
        self.effects.push(effect);
        Ok(())
    }

    /// Forgets all but the first `count` effects.
    fn rewind(&mut self, count: usize) {
        if self.effects.len() > count {
            self.effects.truncate(count);
            self.state = T::clone(&self.base);
            for effect in &self.effects {
                self.state.apply(effect).expect("an effect that was legal before is legal again");
            }
        }
    }
}

type Answer = Box<dyn FnOnce(Result<(), AccountError>) + Send>;
type Change<T> = Box<dyn FnOnce(&mut Draft<T>) -> Answer + Send>;

enum Order<T: JournalState> {
    Change(Change<T>),
    /// Extend the leases of every block that opening the log needs.
    Refresh(Seconds, oneshot::Sender<Result<Refreshed, AccountError>>),
    /// The version of the head.
    Version(oneshot::Sender<u64>),
    /// End the task.
    Close,
}

/// The handle; cheap to clone. The task ends when the last one is dropped.
pub(crate) struct Keeper<T: JournalState + 'static> {
    orders: mpsc::Sender<Order<T>>,
    state: watch::Receiver<Arc<T>>,
}

impl<T: JournalState> Clone for Keeper<T> {
    fn clone(&self) -> Self {
        Keeper { orders: self.orders.clone(), state: self.state.clone() }
    }
}

impl<T> Keeper<T>
where
    T: JournalState + 'static,
    T::Effect: 'static,
{
    /// Starts the task that owns `journal`. `show` is called with every state, just before it is published.
    pub(crate) fn start<S: ObjectStore>(
        services: Arc<Services<S>>,
        journal: Journal<S, T>,
        show: impl Fn(&T) + Send + 'static,
    ) -> Keeper<T> {
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        let (publish, state) = watch::channel(Arc::new(journal.state().clone()));
        tokio::spawn(Task { services, journal, publish, show, is_taken_over: false }.run(queue));
        Keeper { orders, state }
    }

    /// The state as last replicated.
    pub(crate) fn state(&self) -> Arc<T> {
        self.state.borrow().clone()
    }

    /// Changes at every commit; closed when the task has ended.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<T>> {
        self.state.clone()
    }

    /// Runs `decide` on a draft of the state, and returns its answer once everything it recorded is replicated.
    /// What it recorded before an error of its own is dropped.
    ///
    /// # Errors
    /// What `decide` says; [`AccountError::Unavailable`] below the quorum; [`AccountError::TakenOver`].
    pub(crate) async fn change<R: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Draft<T>) -> Result<R, AccountError> + Send + 'static,
    ) -> Result<R, AccountError> {
        let (answer, answered) = oneshot::channel();
        let change: Change<T> = Box::new(move |draft| {
            let recorded = draft.effects.len();
            let decided = decide(draft);
            if decided.is_err() {
                draft.rewind(recorded);
            }
            Box::new(move |committed| {
                // A caller that went away has no use for the answer.
                let _ = answer.send(decided.and_then(|value| committed.map(|()| value)));
            })
        });
        self.orders.send(Order::Change(change)).await.map_err(|_| AccountError::Unavailable)?;
        answered.await.map_err(|_| AccountError::Unavailable)?
    }

    /// Extends the leases of every block that opening the log needs.
    ///
    /// # Errors
    /// [`AccountError::Unavailable`]; what was refreshed before it stays refreshed.
    pub(crate) async fn refresh(&self, expiry: Seconds) -> Result<Refreshed, AccountError> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(Order::Refresh(expiry, answer)).await.map_err(|_| AccountError::Unavailable)?;
        answered.await.map_err(|_| AccountError::Unavailable)?
    }

    /// The version of the log's head, unless the task has ended.
    pub(crate) async fn version(&self) -> Option<u64> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(Order::Version(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Whether the task has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.orders.is_closed()
    }

    /// Ends the task, after what was ordered before: whoever watches sees the channel close.
    pub(crate) async fn close(&self) {
        // If the task has ended already, this is what was wanted.
        let _ = self.orders.send(Order::Close).await;
    }
}

/// The task: one group of changes after the other, until nobody is left who could ask for one.
struct Task<S, T: JournalState, F> {
    services: Arc<Services<S>>,
    journal: Journal<S, T>,
    publish: watch::Sender<Arc<T>>,
    show: F,
    is_taken_over: bool,
}

impl<S, T: JournalState, F> Drop for Task<S, T, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.services.counters.writers_failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the writer of a log has failed; this is a defect, see above; what it wrote is safe");
        }
    }
}

impl<S: ObjectStore, T: JournalState + 'static, F: Fn(&T)> Task<S, T, F> {
    async fn run(mut self, mut queue: mpsc::Receiver<Order<T>>) {
        let mut next = None;
        loop {
            let order = match next.take() {
                Some(order) => Some(order),
                None if self.journal.is_unresolved() => match timeout(RESOLVE_AGAIN, queue.recv()).await {
                    Ok(order) => order,
                    Err(_) => {
                        // Whether it worked shows in the next round.
                        let _ = self.settle(Instant::now()).await;
                        continue;
                    }
                },
                None => queue.recv().await,
            };
            match order {
                None | Some(Order::Close) => return,
                Some(Order::Version(answer)) => drop(answer.send(self.journal.version())),
                Some(Order::Refresh(expiry, answer)) => {
                    let refreshed = refresh_log(&*self.services.store, self.journal.writer(), expiry).await;
                    drop(answer.send(refreshed.map_err(|_| AccountError::Unavailable)));
                }
                Some(Order::Change(first)) => {
                    next = self.group(first, &mut queue).await;
                    if next.is_none() {
                        // A snapshot that could not be written stays due; the next commit tries again.
                        let _ = self.journal.maintain().await;
                    }
                }
            }
        }
    }

    /// Commits `first` and the changes that wait behind it. Returns an order of another sort, met on the way.
    async fn group(&mut self, first: Change<T>, queue: &mut mpsc::Receiver<Order<T>>) -> Option<Order<T>> {
        if let Err(error) = self.settle(Instant::now()).await {
            first(&mut Draft::new(self.publish.borrow().clone()))(Err(error.clone()));
            return self.refuse_waiting(queue, &error);
        }
        let mut draft = Draft::new(self.publish.borrow().clone());
        let mut answers = vec![first(&mut draft)];
        let mut other = None;
        while answers.len() < GROUP_MAX {
            match queue.try_recv() {
                Ok(Order::Change(change)) => answers.push(change(&mut draft)),
                Ok(order) => {
                    other = Some(order);
                    break;
                }
                Err(_) => break,
            }
        }
        let committed = self.commit(&draft.effects).await;
        for answer in answers {
            answer(committed.clone());
        }
        match committed {
            Err(error) if other.is_none() && self.journal.is_unresolved() => self.refuse_waiting(queue, &error),
            _ => other,
        }
    }

    /// Answers the changes that waited while a write's outcome could not be found out: one after the other, each
    /// would wait as long again. Returns an order of another sort, met on the way.
    fn refuse_waiting(&self, queue: &mut mpsc::Receiver<Order<T>>, error: &AccountError) -> Option<Order<T>> {
        loop {
            match queue.try_recv() {
                Ok(Order::Change(change)) => change(&mut Draft::new(self.publish.borrow().clone()))(Err(error.clone())),
                Ok(order) => return Some(order),
                Err(_) => return None,
            }
        }
    }

    async fn commit(&mut self, effects: &[T::Effect]) -> Result<(), AccountError> {
        if effects.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let committed = self.journal.commit(effects).await;
        self.publish();
        match committed {
            Err(JournalError::Log(LogError::Unresolved)) => self.settle(begun).await,
            Err(error) => Err(self.failure(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Finds out about a write whose outcome is unknown, by making the very same write again, a few times.
    /// At least once, however long ago the write began.
    async fn settle(&mut self, begun: Instant) -> Result<(), AccountError> {
        if !self.journal.is_unresolved() {
            return Ok(());
        }
        for wait_ms in RESOLVE_WAITS_MS {
            let resolved = self.journal.resolve().await;
            // Even if not all is written yet, a part of it may stand.
            self.publish();
            match resolved {
                Ok(()) => return Ok(()),
                Err(JournalError::Log(LogError::Unresolved)) if begun.elapsed() > RESOLVE_PATIENCE => break,
                Err(JournalError::Log(LogError::Unresolved)) => sleep(Duration::from_millis(wait_ms)).await,
                Err(error) => return Err(self.failure(error)),
            }
        }
        Err(AccountError::Unavailable)
    }

    /// What the callers hear of an error; that the log was taken over is told to the operator, once.
    fn failure(&mut self, error: JournalError) -> AccountError {
        if matches!(error, JournalError::Log(LogError::TakenOver { .. })) && !self.is_taken_over {
            self.is_taken_over = true;
            self.services.counters.logs_taken_over.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                "a log of an account was taken over by another device that holds its key file; this node does not \
                 change it any more; stop the account there and start this node again to have it back"
            );
        }
        error.into()
    }

    fn publish(&self) {
        (self.show)(self.journal.state());
        self.publish.send_replace(Arc::new(self.journal.state().clone()));
    }
}
