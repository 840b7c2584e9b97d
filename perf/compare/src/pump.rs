//! Load: many changes or reads in flight at a store, each timed from being handed in to being answered.
//!
//! Three ways in. *Native*: what the store offers by itself: for ours its asynchronous port from one thread, for a blocking
//! library one thread per operation in flight. *Batched*: one thread keeps the same number in flight at our batcher.
//! The loops are closed: the next operation starts when one ends.

use crate::batcher::with_batcher;
use crate::data::checksum;
use crate::fault::Fault;
use crate::latency::Latencies;
use crate::stop;
use crate::store::{Change, OursPort, Store};
use engine::{Key, Request, Response};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How changes reach a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the store offers it.
    Native,
    /// Through our batcher.
    Batched,
}

/// When a load ends: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Nothing is started after this.
    pub(crate) time: Duration,
    /// Operations in all.
    pub(crate) operations: usize,
}

/// What a load came to.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Operations answered.
    pub(crate) count: usize,
    /// From the first start to the last answer.
    pub(crate) elapsed: Duration,
    /// Of each operation.
    pub(crate) latencies: Latencies,
}

impl Done {
    /// Operations a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }
}

/// Makes the changes of operation number so-and-so.
pub(crate) type Make<'a> = dyn Fn(usize) -> Vec<Change> + Sync + 'a;

/// Keeps `depth` requests in flight until the limit.
pub(crate) fn changes(store: &dyn Store, way: Way, depth: usize, limit: Limit, make: &Make<'_>) -> Result<Done, Fault> {
    match (way, store.port(depth)) {
        (Way::Batched, _) => with_batcher(store, |batcher| {
            let door = batcher.door();
            keep_in_flight(depth, limit, |tag| door.submit(tag, make(tag)), || door.wait())
        }),
        (Way::Native, Some(port)) => {
            let port = std::cell::RefCell::new(port);
            let start = |tag| port.borrow_mut().change(tag, make(tag));
            keep_in_flight(depth, limit, start, || {
                let (tag, answer) = port.borrow_mut().wait()?;
                Ok((tag, answer.map(|_| ())))
            })
        }
        (Way::Native, None) => by_threads(depth, limit, |number| store.commit(make(number))),
    }
}

/// One thread, `depth` in flight.
fn keep_in_flight(
    depth: usize,
    limit: Limit,
    mut start: impl FnMut(usize) -> Result<(), Fault>,
    mut wait: impl FnMut() -> Result<(usize, Result<(), Fault>), Fault>,
) -> Result<Done, Fault> {
    let mut latencies = Latencies::default();
    let mut started: Vec<Instant> = Vec::new();
    let begin = Instant::now();
    let mut done = 0;
    loop {
        let may_start = begin.elapsed() < limit.time && stop::check().is_ok();
        while may_start && started.len() < limit.operations && started.len() - done < depth {
            started.push(Instant::now());
            start(started.len() - 1)?;
        }
        if started.len() == done {
            break;
        }
        let (tag, answer) = wait()?;
        answer?;
        latencies.note(started[tag].elapsed());
        done += 1;
    }
    stop::check()?;
    Ok(Done { count: done, elapsed: begin.elapsed(), latencies })
}

/// `depth` threads, one operation at a time each.
pub(crate) fn by_threads(
    depth: usize,
    limit: Limit,
    act: impl Fn(usize) -> Result<(), Fault> + Sync,
) -> Result<Done, Fault> {
    each_thread(depth, |next, begin| {
        let mut latencies = Latencies::default();
        while begin.elapsed() < limit.time && stop::check().is_ok() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= limit.operations {
                break;
            }
            let start = Instant::now();
            act(number)?;
            latencies.note(start.elapsed());
        }
        Ok(latencies)
    })
}

/// Runs the same loop on several threads and adds up what they did.
fn each_thread(
    threads: usize,
    run: impl Fn(&AtomicUsize, Instant) -> Result<Latencies, Fault> + Sync,
) -> Result<Done, Fault> {
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let mut done = Done::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| run(&next, begin))).collect();
        for worker in workers {
            let panicked = |_| Fault::Io(std::io::Error::other("a worker thread panicked"));
            let latencies = worker.join().map_err(panicked)??;
            done.count += latencies.count();
            done.latencies.absorb(latencies);
        }
        Ok::<(), Fault>(())
    })?;
    stop::check()?;
    done.elapsed = begin.elapsed();
    Ok(done)
}

/// What is done with a value that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Its first byte is touched.
    First,
    /// It is copied whole, as into a reply.
    Whole,
    /// Its hash is computed and compared with that of what was put.
    Verified,
}

/// An object that will be asked for, with the hash of its value.
pub(crate) type Wanted = (Key, u64);

/// How reads are put to a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// Threads that ask.
    pub(crate) callers: usize,
    /// In flight per thread, where the store has a door for more than one.
    pub(crate) depth: usize,
    /// What is done with the values.
    pub(crate) look: Look,
}

/// Reads in the order of `picks` until the limit.
pub(crate) fn gets(
    store: &dyn Store,
    name: &'static str,
    asking: Asking,
    limit: Limit,
    wanted: &[Wanted],
    picks: &[u32],
) -> Result<Done, Fault> {
    let pick = |number: usize| wanted[picks[number % picks.len()] as usize];
    each_thread(asking.callers, |next, begin| {
        let mut eye = Eye { look: asking.look, buffer: Vec::new(), wrong: 0 };
        let latencies = match store.port(asking.depth) {
            Some(port) => gets_in_flight(port, asking.depth, limit, (next, begin), &pick, &mut eye)?,
            None => gets_in_turn(store, limit, (next, begin), &pick, &mut eye)?,
        };
        if eye.wrong == 0 {
            return Ok(latencies);
        }
        let got = format!("{} missing or wrong", eye.wrong);
        Err(Fault::Wrong { store: name, expected: "every object with its bytes", got })
    })
}

/// Looks at values, and counts what is not as it should be.
struct Eye {
    look: Look,
    buffer: Vec<u8>,
    wrong: usize,
}

impl Eye {
    fn see(&mut self, value: &[u8], sum: u64) {
        match self.look {
            Look::First => {
                black_box(value.first().copied());
            }
            Look::Whole => {
                self.buffer.clear();
                self.buffer.extend_from_slice(value);
                black_box(&self.buffer);
            }
            Look::Verified if checksum(value) == sum => (),
            Look::Verified => self.wrong += 1,
        }
    }
}

fn gets_in_turn(
    store: &dyn Store,
    limit: Limit,
    (next, begin): (&AtomicUsize, Instant),
    pick: &dyn Fn(usize) -> Wanted,
    eye: &mut Eye,
) -> Result<Latencies, Fault> {
    let mut reader = store.reader()?;
    let mut latencies = Latencies::default();
    let mut start = Instant::now();
    while start - begin < limit.time && stop::check().is_ok() {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= limit.operations {
            break;
        }
        let (key, sum) = pick(number);
        if !reader.get(&key, &mut |value| eye.see(value, sum))? {
            eye.wrong += 1;
        }
        let end = Instant::now();
        latencies.note(end - start);
        start = end;
    }
    Ok(latencies)
}

fn gets_in_flight(
    mut port: OursPort,
    depth: usize,
    limit: Limit,
    (next, begin): (&AtomicUsize, Instant),
    pick: &dyn Fn(usize) -> Wanted,
    eye: &mut Eye,
) -> Result<Latencies, Fault> {
    let mut latencies = Latencies::default();
    // A place per operation in flight; its tag is the place.
    let mut places: Vec<(Instant, u64)> = vec![(begin, 0); depth];
    let mut free: Vec<usize> = (0..depth).collect();
    loop {
        while let Some(&place) = free.last() {
            let start = Instant::now();
            let number = if start - begin < limit.time && stop::check().is_ok() {
                next.fetch_add(1, Ordering::Relaxed)
            } else {
                usize::MAX
            };
            if number >= limit.operations {
                break;
            }
            let (key, sum) = pick(number);
            places[place] = (start, sum);
            free.pop();
            port.submit(place, Request::Get { key })?;
        }
        if free.len() == depth {
            return Ok(latencies);
        }
        let mut answered = Some(port.wait()?);
        while let Some((place, answer)) = answered {
            let (start, sum) = places[place];
            match answer? {
                Response::Got(Some(object)) => eye.see(&object.value, sum),
                _ => eye.wrong += 1,
            }
            latencies.note(start.elapsed());
            free.push(place);
            answered = port.poll();
        }
    }
}
