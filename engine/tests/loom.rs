//! Goal: no wake-up is lost between a shard and its ports, whatever the order of steps and of memory. Method: the file that
//! the engine uses for it (`src/shard/attention.rs`) is compiled into this test with loom's atomics, and loom runs every
//! interleaving the language allows. The queue is a counter with less order than the real one. Control: the same file with a
//! fence that does nothing loses a wake-up, and loom finds it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p engine --release --test loom` (elsewhere this file is empty).
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
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

/// A bell with a memory, as an eventfd or a parked thread's token.
struct Bell(loom::sync::Mutex<bool>, loom::sync::Condvar);

impl Bell {
    fn new() -> Bell {
        Bell(loom::sync::Mutex::new(false), loom::sync::Condvar::new())
    }

    fn ring(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.0.lock().unwrap();
        while !*rung {
            rung = self.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// `putters` put one message each and call if they must; the taker sleeps when it finds nothing. Were a call missing, all
/// threads would wait, which loom reports.
fn mailbox<P: Protocol>(putters: usize) {
    let shared = Arc::new((Queue::new(), P::given(), Bell::new()));
    let threads: Vec<_> = (0..putters)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                let (queue, sleeper, bell) = &*shared;
                queue.push();
                if sleeper.must_call() {
                    bell.ring();
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
        if queue.looks_empty() {
            bell.sleep();
        }
        sleeper.give();
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A port's two queues between its owner and a shard: the owner asks `rounds` times, one at a time, and sleeps until he is
/// answered; the shard forgets the queue of requests when it has seen it empty, and sleeps until there is word of it.
fn port<P: Protocol>(rounds: usize) {
    struct Shared<P> {
        asks: Queue,
        reader: P,
        word: Bell,
        answers: Queue,
        owner: P,
        wake: Bell,
    }
    let shared = Arc::new(Shared {
        asks: Queue::new(),
        reader: P::wanted(),
        word: Bell::new(),
        answers: Queue::new(),
        owner: P::wanted(),
        wake: Bell::new(),
    });
    let port = shared.clone();
    let shard = thread::spawn(move || {
        let mut answered = 0;
        while answered < rounds {
            port.word.sleep();
            loop {
                if !port.asks.pop() {
                    port.reader.want();
                    if !port.asks.pop() {
                        break;
                    }
                    port.reader.give();
                }
                answered += 1;
                port.answers.push();
                if port.owner.must_call() {
                    port.wake.ring();
                }
            }
        }
    });
    for _ in 0..rounds {
        shared.owner.want_next();
        shared.asks.push();
        if shared.reader.must_call() {
            shared.word.ring();
        }
        while !shared.answers.pop() {
            shared.owner.want();
            if shared.answers.pop() {
                break;
            }
            shared.wake.sleep();
        }
    }
    shard.join().unwrap();
}

/// A shard ends while a request comes in: it is taken once, by the shard's last look or by the owner.
fn ending(fenced: bool) {
    let shared = Arc::new((Queue::new(), loom::sync::atomic::AtomicBool::new(false), AtomicUsize::new(0)));
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
    loom::model(|| mailbox::<sound::attention::Attention>(2));
}

#[test]
fn a_port_and_a_shard_call_each_other() {
    loom::model(|| port::<sound::attention::Attention>(1));
    loom::model(|| port::<sound::attention::Attention>(2));
}

#[test]
fn a_request_to_a_shard_that_ends_is_answered_once() {
    loom::model(|| ending(true));
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_without_its_fence_a_shard_sleeps_on() {
    loom::model(|| mailbox::<unfenced::attention::Attention>(1));
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_without_its_fence_a_port_is_forgotten() {
    loom::model(|| port::<unfenced::attention::Attention>(2));
}

#[test]
#[should_panic(expected = "left in the queue")]
fn control_without_its_fence_a_request_is_left_behind() {
    loom::model(|| ending(false));
}
