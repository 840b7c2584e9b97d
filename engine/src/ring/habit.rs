//! Which way of making batches durable is the faster one now, learnt from the batches themselves.
//!
//! Which way wins depends on the device, the file system and the kernel (decision 0006), and on the moment: what is left to do
//! behind a write with RWF_DSYNC is done by a worker of the kernel that is bound to one processor, and while that one is
//! busy, with our own threads or with others', the worker waits for the scheduler: up to some milliseconds, where the
//! device needs a tenth of one. An fdatasync runs on a worker that any processor takes, and costs a little more when all are
//! idle. So every batch is timed. The first ones go both ways by turns; from then on most go the way that has been faster
//! lately, and one in [`LOOK_EVERY`] goes the other way, to see whether that still holds. Nothing is tried out when a store is
//! opened: that would keep its first readers waiting, and see the machine at rest.

use super::ceiling::Sync;
use std::time::Duration;

/// So many batches go each way before one is believed to be faster.
const FIRST_LOOKS: u32 = 8;
/// One batch in so many goes the way that has been slower.
const LOOK_EVERY: u32 = 64;
/// A new time counts for so much of what is believed: 1 / 8, once there have been as many.
const WEIGHT: u32 = 8;
/// A longer time counts as this: a device that stalls says nothing about the ways.
const LONGEST: Duration = Duration::from_millis(10);
/// From this size on a batch counts as large.
const LARGE_FROM: usize = 64 * 1024;

/// What has been learnt, for small batches and for large ones.
#[derive(Debug, Default)]
pub(super) struct Habits {
    small: Habit,
    large: Habit,
}

/// What has been learnt about batches of one sort.
#[derive(Debug, Default)]
struct Habit {
    with_write: Times,
    after_write: Times,
    /// Batches since the other way was looked at.
    since_look: u32,
}

/// How one way has done.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// Batches that were sent this way, until there are enough.
    sent: u32,
    /// Batches whose time is known, until there are enough.
    seen: u32,
    /// How long one took lately.
    believed: Duration,
}

impl Habits {
    /// The way of the next batch of so many bytes.
    pub(super) fn choose(&mut self, bytes: usize) -> Sync {
        self.of(bytes).choose()
    }

    /// A batch of so many bytes took so long this way.
    pub(super) fn learn(&mut self, bytes: usize, way: Sync, took: Duration) {
        // Times of large batches are compared as if they were all of one size.
        let is_large = bytes >= LARGE_FROM;
        let standard = if is_large { took.mul_f64(LARGE_FROM as f64 / bytes as f64) } else { took };
        self.of(bytes).times(way).learn(standard);
    }

    fn of(&mut self, bytes: usize) -> &mut Habit {
        if bytes >= LARGE_FROM { &mut self.large } else { &mut self.small }
    }

    /// Habits that were learnt elsewhere: all batches but a few go this way.
    #[cfg(test)]
    pub(super) fn settled(way: Sync) -> Habits {
        let settled = || {
            let mut habit = Habit::default();
            for _ in 0..FIRST_LOOKS {
                habit.times(way).learn(Duration::ZERO);
                habit.times(other(way)).learn(LONGEST);
            }
            (habit.with_write.sent, habit.after_write.sent) = (FIRST_LOOKS, FIRST_LOOKS);
            habit
        };
        Habits { small: settled(), large: settled() }
    }
}

impl Habit {
    fn choose(&mut self) -> Sync {
        let (with, after) = (self.with_write, self.after_write);
        let way = if with.sent.min(after.sent) < FIRST_LOOKS {
            if with.sent <= after.sent { Sync::WithWrite } else { Sync::AfterWrite }
        } else {
            let faster = if with.believed <= after.believed { Sync::WithWrite } else { Sync::AfterWrite };
            self.since_look = (self.since_look + 1) % LOOK_EVERY;
            if self.since_look == 0 { other(faster) } else { faster }
        };
        let times = self.times(way);
        times.sent = (times.sent + 1).min(FIRST_LOOKS);
        way
    }

    fn times(&mut self, way: Sync) -> &mut Times {
        match way {
            Sync::WithWrite => &mut self.with_write,
            Sync::AfterWrite => &mut self.after_write,
        }
    }
}

impl Default for Times {
    /// A way on which nothing has succeeded yet is believed to be slow.
    fn default() -> Times {
        Times { sent: 0, seen: 0, believed: LONGEST }
    }
}

impl Times {
    /// The mean of the first few, then a mean in which the past fades.
    fn learn(&mut self, took: Duration) {
        self.seen = (self.seen + 1).min(WEIGHT);
        self.believed = (self.believed * (self.seen - 1) + took.min(LONGEST)) / self.seen;
    }
}

fn other(way: Sync) -> Sync {
    match way {
        Sync::WithWrite => Sync::AfterWrite,
        Sync::AfterWrite => Sync::WithWrite,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of most batches, and how many of `count` went the other way, when each way takes so many microseconds.
    fn run(habits: &mut Habits, bytes: usize, micros: [u64; 2], count: usize) -> (Sync, usize) {
        let mut chosen = [0; 2];
        for _ in 0..count {
            let way = habits.choose(bytes);
            chosen[usize::from(way == Sync::AfterWrite)] += 1;
            let took = micros[usize::from(way == Sync::AfterWrite)];
            habits.learn(bytes, way, Duration::from_micros(took));
        }
        if chosen[0] > chosen[1] { (Sync::WithWrite, chosen[1]) } else { (Sync::AfterWrite, chosen[0]) }
    }

    /// Goal: batches go the way that is faster, soon after that changes, and rarely the other; small and large ones each for
    /// themselves, and a batch twice as large that takes twice as long is no slower. Method: times of our own.
    #[test]
    fn batches_go_the_faster_way() {
        let mut habits = Habits::default();
        let rare = |count: usize| count / LOOK_EVERY as usize + 1;
        let (way, others) = run(&mut habits, 4096, [50, 70], 1000);
        let first = FIRST_LOOKS as usize;
        assert!(way == Sync::WithWrite && (first..=first + rare(1000)).contains(&others), "{others}");
        let (way, others) = run(&mut habits, 4096, [3000, 70], 1000);
        assert!(
            way == Sync::AfterWrite && others <= rare(1000) + 2,
            "a way that has become slow is left at once: {others}"
        );
        let (way, _) = run(&mut habits, 1 << 20, [500, 600], 1000);
        assert_eq!(way, Sync::WithWrite, "large batches are another matter");
        let (way, _) = run(&mut habits, 1 << 19, [250, 300], 1000);
        assert_eq!(way, Sync::WithWrite);
        run(&mut habits, 4096, [50, 70], 20_000);
        let (way, others) = run(&mut habits, 4096, [50, 70], 1000);
        assert!(way == Sync::WithWrite && others <= rare(1000), "and taken again when it is fast again: {others}");
    }

    /// Goal: a device that stalls once turns nobody away for long. Method: one batch of a minute, then usual ones.
    #[test]
    fn a_stall_is_forgotten() {
        let mut habits = Habits::default();
        run(&mut habits, 4096, [50, 70], 1000);
        habits.learn(4096, Sync::WithWrite, Duration::from_secs(60));
        run(&mut habits, 4096, [50, 70], 3000);
        let (way, others) = run(&mut habits, 4096, [50, 70], 1000);
        assert!(way == Sync::WithWrite && others <= 1000 / LOOK_EVERY as usize + 1, "{others}");
    }
}
