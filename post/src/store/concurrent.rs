//! Several store operations of one workflow in flight at once, a bounded number of them.
//!
//! `post` knows no runtime, so this polls its operations itself: at most
//! [`STORE_OPERATIONS_MAX`] of them, all in the caller's task.

use crate::limits::STORE_OPERATIONS_MAX;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs `operations` in order, a bounded number at once, and returns what they returned, in the same order.
/// The first error ends it: operations not yet finished are dropped.
///
/// # Errors
/// The first error that any operation returned.
pub async fn try_all<F, T, E>(operations: impl IntoIterator<Item = F> + Send) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>> + Send,
    T: Send,
{
    let waiting: VecDeque<F> = operations.into_iter().collect();
    let finished = waiting.iter().map(|_| None).collect();
    InFlight { waiting, running: Vec::new(), finished, next: 0 }.await
}

/// The operations of one [`try_all`], by whether they wait, run, or have finished.
struct InFlight<F, T> {
    waiting: VecDeque<F>,
    running: Vec<(usize, Pin<Box<F>>)>,
    finished: Vec<Option<T>>,
    next: usize,
}

// The running futures are boxed and pinned on their own; nothing in here is pinned in place.
impl<F, T> Unpin for InFlight<F, T> {}

impl<F, T, E> Future for InFlight<F, T>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<Vec<T>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            while this.running.len() < STORE_OPERATIONS_MAX
                && let Some(operation) = this.waiting.pop_front()
            {
                this.running.push((this.next, Box::pin(operation)));
                this.next += 1;
            }
            let before = this.running.len();
            let mut at = 0;
            while at < this.running.len() {
                match this.running[at].1.as_mut().poll(context) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(value)) => {
                        let (index, _) = this.running.swap_remove(at);
                        this.finished[index] = Some(value);
                    }
                }
            }
            if this.running.is_empty() && this.waiting.is_empty() {
                let finished = std::mem::take(&mut this.finished);
                return Poll::Ready(Ok(finished.into_iter().flatten().collect()));
            }
            // Unless something finished and made room for a new operation, all that run have been polled.
            if this.running.len() == before || this.waiting.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: order is kept, the bound holds, and an error ends it. Method: operations that yield a few times
    //! and count how many are under way.
    use super::*;
    use crate::store::memory::run;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Yields(usize);

    impl Future for Yields {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if self.0 == 0 {
                return Poll::Ready(());
            }
            self.0 -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[test]
    fn results_keep_their_order_and_the_bound_holds() {
        let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let operations = (0..50usize).map(|i| {
            let (under_way, most) = (&under_way, &most);
            async move {
                most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                Yields(1 + i * 7 % 5).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                Ok::<usize, ()>(i)
            }
        });
        assert_eq!(run(try_all(operations.collect::<Vec<_>>())), Ok((0..50).collect()));
        assert_eq!(most.load(Ordering::SeqCst), STORE_OPERATIONS_MAX);
        assert_eq!(run(try_all(Vec::<std::future::Ready<Result<u8, ()>>>::new())), Ok(vec![]));
    }

    #[test]
    fn an_error_ends_it() {
        let operations = (0..20).map(|i| async move { if i == 11 { Err(i) } else { Ok(i) } });
        assert_eq!(run(try_all(operations.collect::<Vec<_>>())), Err(11));
    }
}
