//! Workers for what takes longer than a message may: hashing and checking blocks.
//!
//! A few threads serve all machines of the node. Small content blocks are not worth the hop to another thread, and when
//! the workers are busy beyond their bound the overlay thread works itself, which slows down what keeps them busy.

use super::inbox::Inbox;
use super::limits::{COMPUTE_BYTES_MAX, COMPUTE_INLINE_BYTES_MAX, COMPUTE_WAITING_MAX, COMPUTE_WORKERS};
use super::start::Ending;
use super::status::{Counter, Registry};
use super::transport::Admission;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use net::id::Kind;
use net::machine::{ComputeJob, ComputeResult, OpId};
use net::past::block;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

struct Work {
    op: OpId,
    job: ComputeJob,
    /// Whose operation it is.
    inbox: Arc<Inbox>,
}

/// The workers. They end when the last clone of this is dropped.
#[derive(Clone)]
pub(super) struct Workshop {
    queue: Sender<Work>,
    work: Receiver<Work>,
    /// Of the objects in `queue`.
    bytes: Arc<AtomicUsize>,
    admission: Arc<Admission>,
    inline: Counter,
}

impl Workshop {
    /// Starts the workers; users' certificates are checked by the ring document in force, as peers' are.
    pub(super) fn open(
        admission: &Arc<Admission>,
        ending: impl Fn() -> Ending,
        registry: &Registry,
    ) -> std::io::Result<(Workshop, Vec<JoinHandle<()>>)> {
        let (queue, work) = bounded(COMPUTE_WAITING_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let start = |i| {
            let (work, bytes, admission, ending) = (work.clone(), bytes.clone(), admission.clone(), ending());
            std::thread::Builder::new().name(format!("compute-{i}")).spawn(move || {
                let _ending = ending;
                labour(&work, &bytes, &admission);
            })
        };
        let workers = (0..COMPUTE_WORKERS).map(start).collect::<Result<_, _>>()?;
        let inline =
            registry.counter("computed_inline", "computations the overlay thread did because workers were busy");
        Ok((Workshop { queue, work, bytes, admission: admission.clone(), inline }, workers))
    }

    /// Does the job, or has it done. What comes back at once was done here; the rest arrives in `inbox`.
    pub(super) fn submit(&self, op: OpId, job: ComputeJob, inbox: &Arc<Inbox>) -> Option<ComputeResult> {
        let bytes = weight(&job);
        if is_quick(&job) {
            return Some(compute(&job, &self.admission));
        }
        if !inbox.expect_computed() {
            self.inline.increment();
            return Some(compute(&job, &self.admission));
        }
        let work = Work { op, job, inbox: inbox.clone() };
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent =
            if waiting + bytes > COMPUTE_BYTES_MAX { Err(TrySendError::Full(work)) } else { self.queue.try_send(work) };
        match sent {
            Ok(()) => None,
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                inbox.forgo_computed();
                self.inline.increment();
                Some(compute(&work.job, &self.admission))
            }
        }
    }

    /// A look at how many jobs wait, which does not keep the workers from ending.
    pub(super) fn waiting(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let work = self.work.clone();
        move || work.len() as u64
    }
}

fn labour(work: &Receiver<Work>, bytes: &AtomicUsize, admission: &Admission) {
    for Work { op, job, inbox } in work {
        bytes.fetch_sub(weight(&job), Ordering::Relaxed);
        inbox.computed(op, compute(&job, admission));
    }
}

/// How many bytes a job is about.
fn weight(job: &ComputeJob) -> usize {
    match job {
        ComputeJob::Verify { value, .. } => value.len(),
        ComputeJob::Work(work) => work.bytes(),
    }
}

/// Whether computing takes less than waking a worker (tens of microseconds).
fn is_quick(job: &ComputeJob) -> bool {
    match job {
        ComputeJob::Verify { key, value } => {
            matches!(key.kind, Kind::Content | Kind::Cluster) && value.len() <= COMPUTE_INLINE_BYTES_MAX
        }
        ComputeJob::Work(work) => work.bytes() <= COMPUTE_INLINE_BYTES_MAX,
    }
}

fn compute(job: &ComputeJob, admission: &Admission) -> ComputeResult {
    match job {
        ComputeJob::Verify { key, value } => match block::verify(key, value, admission.directory().trust()) {
            Ok(version) => ComputeResult::Verified { version },
            Err(refusal) => ComputeResult::Refused(refusal),
        },
        ComputeJob::Work(work) => ComputeResult::Worked(work.perform()),
    }
}
