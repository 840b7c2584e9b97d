//! Goal: no wake-up is lost between a shard and its ports, whatever the order of steps and of memory. Method: the file that
//! the engine uses for it (`src/shard/attention.rs`) is compiled into this test with loom's atomics, and loom runs the
//! interleavings the language allows. The queue is a counter with less order than the real one. Control: the same file with a
//! fence that does nothing loses a wake-up, and loom finds it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p engine --release --test loom` (elsewhere this file is empty).
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

#[path = "."]
mod sound {
    mod sync {
        pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
    }
    #[path = "../src/shard/attention.rs"]
    pub(super) mod attention;
}

#[path = "."]
mod unfenced {
    mod sync {
        pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
        pub(super) fn fence(_: Ordering) {}
    }
    #[path = "../src/shard/attention.rs"]
    pub(super) mod attention;
}

/// What the two kinds of attention have in common.
trait Protocol: Send + Sync + 'static {
    fn given() -> Self;
    fn wanted() -> Self;
    fn want(&self);
    fn want_next(&self);
    fn give(&self) -> bool;
    fn must_call(&self) -> bool;
}

macro_rules! protocol {
    ($kind:ty) => {
        impl Protocol for $kind {
            fn given() -> Self {
                <$kind>::given()
            }
            fn wanted() -> Self {
                <$kind>::wanted()
            }
            fn want(&self) {
                self.want();
            }
            fn want_next(&self) {
                self.want_next();
            }
            fn give(&self) -> bool {
                self.give()
            }
            fn must_call(&self) -> bool {
                self.must_call()
            }
        }
    };
}
protocol!(sound::attention::Attention);
protocol!(unfenced::attention::Attention);

/// A queue of which only the length matters: acquire and release, nothing more.
struct Queue(AtomicUsize);

impl Queue {
    fn new() -> Queue {
        Queue(AtomicUsize::new(0))
    }

    fn push(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn pop(&self) -> bool {
        let one_less = |length: usize| length.checked_sub(1);
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_less).is_ok()
    }

    /// A look that may be outdated, as a look at a queue may be.
    fn looks_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// Every order of steps in which a thread is interrupted at most so often where it would not have to wait. What goes wrong here
/// goes wrong with two; without a bound the larger models take hours.
fn model(interruptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check(run);
}

/// What wakes a sleeper, as an eventfd or a thread's token does: a call that comes first is remembered.
struct Calls(AtomicBool);

impl Calls {
    fn new() -> Calls {
        Calls(AtomicBool::new(false))
    }

    fn call(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }

    /// For who is about to sleep: whether he must wake at once.
    fn taken(&self) -> bool {
        self.0.swap(false, Ordering::Acquire)
    }
}

/// `putters` put one message each and ring the bell if they must; the taker goes to sleep when he finds nothing and was not
/// called. Nobody may sleep on beside a message.
fn mailbox<P: Protocol>(putters: usize) {
    let shared = Arc::new((Queue::new(), P::given(), Calls::new()));
    let threads: Vec<_> = (0..putters)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                let (queue, sleeper, bell) = &*shared;
                queue.push();
                if sleeper.must_call() {
                    bell.call();
                }
            })
        })
        .collect();
    let (queue, sleeper, bell) = &*shared;
    let mut taken = 0;
    while taken < putters {
        if queue.pop() {
            taken += 1;
            continue;
        }
        sleeper.want();
        if queue.looks_empty() && !bell.taken() {
            break;
        }
        sleeper.give();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(taken == putters || bell.taken(), "a message came, and the bell was not rung");
}

/// A port whose shard is about to see its queue of requests empty, or perhaps not, while the owner asks for something more and
/// then takes answers until there are none. A request left in the queue has its word, an answer left its wake-up.
fn port<P: Protocol>() {
    struct Shared<P> {
        asks: Queue,
        reader: P,
        word: Calls,
        answers: Queue,
        owner: P,
        wake: Calls,
    }
    let (asks, answers) = (Queue::new(), Queue::new());
    let (reader, owner) = (P::given(), P::wanted());
    let shared = Arc::new(Shared { asks, reader, word: Calls::new(), answers, owner, wake: Calls::new() });
    shared.asks.push();
    let port = shared.clone();
    let shard = thread::spawn(move || {
        loop {
            if !port.asks.pop() {
                port.reader.want();
                if !port.asks.pop() {
                    return;
                }
                port.reader.give();
            }
            port.answers.push();
            if port.owner.must_call() {
                port.wake.call();
            }
        }
    });
    let Shared { asks, reader, word, answers, owner, wake } = &*shared;
    owner.want_next();
    asks.push();
    if reader.must_call() {
        word.call();
    }
    loop {
        if !answers.pop() {
            owner.want();
            if !answers.pop() && !wake.taken() {
                break;
            }
        }
    }
    shard.join().unwrap();
    assert!(asks.looks_empty() || word.taken(), "a port was forgotten with mail in it");
    assert!(answers.looks_empty() || wake.taken(), "an answer came, and its owner sleeps on");
}

/// A shard ends while a request comes in: it is taken once, by the shard's last look or by the owner.
fn ending(fenced: bool) {
    let shared = Arc::new((Queue::new(), AtomicBool::new(false), AtomicUsize::new(0)));
    let fence = move || {
        if fenced {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    };
    let shard = {
        let shared = shared.clone();
        thread::spawn(move || {
            let (queue, ended, answers) = &*shared;
            ended.store(true, Ordering::Relaxed);
            fence();
            while queue.pop() {
                answers.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let (queue, ended, answers) = &*shared;
    queue.push();
    fence();
    if ended.load(Ordering::Relaxed) {
        while queue.pop() {
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
    shard.join().unwrap();
    assert!(answers.load(Ordering::Relaxed) <= 1, "answered twice");
    let left = usize::from(queue.pop());
    let seen = ended.load(Ordering::Relaxed);
    assert!(seen && answers.load(Ordering::Relaxed) + left == 1);
    assert_eq!(left, 0, "a request was left in the queue of a shard that has ended");
}

#[test]
fn a_sleeping_shard_is_called() {
    loom::model(|| mailbox::<sound::attention::Attention>(1));
    model(3, || mailbox::<sound::attention::Attention>(2));
}

#[test]
fn a_port_and_a_shard_call_each_other() {
    model(3, port::<sound::attention::Attention>);
}

#[test]
fn a_request_to_a_shard_that_ends_is_answered_once() {
    loom::model(|| ending(true));
}

#[test]
#[should_panic(expected = "the bell was not rung")]
fn control_without_its_fence_a_shard_sleeps_on() {
    model(3, || mailbox::<unfenced::attention::Attention>(1));
}

#[test]
#[should_panic(expected = "sleeps on")]
fn control_without_its_fence_a_port_is_forgotten() {
    model(3, port::<unfenced::attention::Attention>);
}

#[test]
#[should_panic(expected = "left in the queue")]
fn control_without_its_fence_a_request_is_left_behind() {
    loom::model(|| ending(false));
}
