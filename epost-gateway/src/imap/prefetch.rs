//! Whole messages, in order, fetched a little ahead of their use.
//!
//! A message is several objects on several nodes; fetching one after the other would cost a client one round trip
//! through the ring per message. [`Prefetch`] keeps a bounded number under way, does the caller's work on each as
//! it arrives, and hands the results out in order. What is under way ends when it is dropped.

use super::limits;
use crate::account::{AccountError, Folder};
use bytes::Bytes;
use post::store::ObjectStore;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::{self, JoinHandle};

/// One message wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) uid: u32,
    pub(super) octets: u32,
}

/// What is done with a message (of this UID) as it arrives. Large ones are worked on outside the reactor.
pub(super) type Work<T> = Arc<dyn Fn(u32, Bytes) -> T + Send + Sync>;

/// A task that ends with its handle.
struct Fetching<T> {
    wanted: Wanted,
    task: JoinHandle<Result<T, AccountError>>,
}

impl<T> Drop for Fetching<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Messages under way.
pub(super) struct Prefetch<S: ObjectStore, T> {
    folder: Folder<S>,
    wanted: std::iter::Peekable<std::vec::IntoIter<Wanted>>,
    under_way: VecDeque<Fetching<T>>,
    octets_under_way: u64,
    work: Work<T>,
}

impl<S: ObjectStore, T: Send + 'static> Prefetch<S, T> {
    pub(super) fn new(folder: Folder<S>, wanted: Vec<Wanted>, work: Work<T>) -> Self {
        let wanted = wanted.into_iter().peekable();
        Self { folder, wanted, under_way: VecDeque::new(), octets_under_way: 0, work }
    }

    /// The next of the wanted messages, in their order; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<(u32, Result<T, AccountError>)> {
        self.fill();
        let mut fetching = self.under_way.pop_front()?;
        let done = (&mut fetching.task).await;
        self.octets_under_way -= u64::from(fetching.wanted.octets);
        // The task is ours and is not aborted while it is awaited; should it panic, the message is what caused it.
        Some((fetching.wanted.uid, done.unwrap_or(Err(AccountError::Damaged))))
    }

    fn fill(&mut self) {
        while self.under_way.len() < limits::PREFETCH_MESSAGES_MAX {
            let octets_under_way = self.octets_under_way;
            let has_room = |next: &Wanted| octets_under_way + u64::from(next.octets) <= limits::PREFETCH_BYTES_MAX;
            let is_first = self.under_way.is_empty();
            let Some(wanted) = self.wanted.next_if(|next| is_first || has_room(next)) else { return };
            self.octets_under_way += u64::from(wanted.octets);
            let task = task::spawn(fetch(self.folder.clone(), wanted.uid, Arc::clone(&self.work)));
            self.under_way.push_back(Fetching { wanted, task });
        }
    }
}

async fn fetch<S: ObjectStore, T: Send + 'static>(
    folder: Folder<S>,
    uid: u32,
    work: Work<T>,
) -> Result<T, AccountError> {
    let message = folder.message(uid).await?;
    if message.len() <= limits::INLINE_WORK_BYTES_MAX {
        return Ok(work(uid, message));
    }
    task::spawn_blocking(move || work(uid, message)).await.map_err(|_| AccountError::Damaged)
}
