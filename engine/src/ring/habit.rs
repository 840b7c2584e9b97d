//! Which way of making batches durable is the faster one now, learnt from the batches themselves.
//!
//! The look at the disk when a store is opened (`probe`) sees the machine at rest. At work it is different: what is left to do
//! behind a write with RWF_DSYNC is done by a worker of the kernel that is bound to one processor, and while that one is
//! busy, with our own threads or with others', the worker waits for the scheduler: up to some milliseconds, where the
//! device needs a tenth of one. An fdatasync runs on a worker that any processor takes, and costs a little more when all are
//! idle. So every batch is timed, most go the way that has been faster lately, and one in [`LOOK_EVERY`] goes the other way, to see
//! whether that still holds.

use super::ceiling::Sync;
use super::probe::{Ways, is_large};
use std::time::Duration;

/// One batch in so many goes the way that has been slower.
const LOOK_EVERY: u32 = 64;
/// A new time counts for so much of what is believed: 1 / 8.
const WEIGHT: u32 = 8;
/// A longer time counts as this: a device that stalls says nothing about the ways.
const LONGEST: Duration = Duration::from_millis(10);
/// Times of large batches are compared as if they were of this size.
const STANDARD: usize = 64 * 1024;

/// What has been learnt, for small batches and for large ones.
#[derive(Debug, Default)]
pub(super) struct Habits {
    small: Habit,
    large: Habit,
}

/// What has been learnt about batches of one sort.
#[derive(Debug, Default)]
struct Habit {
    /// How long a batch took lately with RWF_DSYNC and with fdatasync, once there was one.
    times: [Option<Duration>; 2],
    /// Batches since the other way was looked at.
    since_look: u32,
}

impl Habits {
    /// The way of the next batch of so many bytes. `first` is believed until both ways have been seen.
    pub(super) fn choose(&mut self, bytes: usize, first: Ways) -> Sync {
        self.of(bytes).choose(first.of(bytes))
    }

    /// A batch of so many bytes took so long this way.
    pub(super) fn learn(&mut self, bytes: usize, way: Sync, took: Duration) {
        let standard = if is_large(bytes) { took.mul_f64(STANDARD as f64 / bytes as f64) } else { took };
        self.of(bytes).learn(way, standard);
    }

    fn of(&mut self, bytes: usize) -> &mut Habit {
        if is_large(bytes) { &mut self.large } else { &mut self.small }
    }
}

impl Habit {
    fn choose(&mut self, first: Sync) -> Sync {
        let faster = match self.times {
            [Some(with), Some(after)] if with <= after => Sync::WithWrite,
            [Some(_), Some(_)] => Sync::AfterWrite,
            _ => first,
        };
        self.since_look += 1;
        if self.since_look < LOOK_EVERY {
            return faster;
        }
        self.since_look = 0;
        match faster {
            Sync::WithWrite => Sync::AfterWrite,
            Sync::AfterWrite => Sync::WithWrite,
        }
    }

    fn learn(&mut self, way: Sync, took: Duration) {
        let believed = &mut self.times[usize::from(way == Sync::AfterWrite)];
        let took = took.min(LONGEST);
        *believed = Some(believed.map_or(took, |before| (before * (WEIGHT - 1) + took) / WEIGHT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of most batches, and how many of `count` went the other way, when each way takes so many microseconds.
    fn run(habits: &mut Habits, bytes: usize, micros: [u64; 2], count: usize) -> (Sync, usize) {
        let mut chosen = [0; 2];
        for _ in 0..count {
            let way = habits.choose(bytes, Ways::default());
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
        assert!(way == Sync::WithWrite && others <= rare(1000), "{others}");
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
