//! The simulated network: latency by place, and losses, duplicates and partitions as ordered.
//!
//! Nodes live on a plane; the latency of a link follows from their distance, so no matrix of all pairs is kept. What
//! happens to a message depends on the seed, the link, and how many messages went before it, so that a change in one
//! corner of the world does not disturb the dice of another.

use super::mix;
use crate::limits::MILLISECOND;
use crate::machine::Micros;

/// How the network behaves.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Latency between two nodes in the same place.
    pub latency_min: Micros,
    /// Latency added across the whole plane.
    pub latency_span: Micros,
    /// Random latency added to each message, at most.
    pub jitter: Micros,
    /// Messages lost, of a million.
    pub loss_ppm: u32,
    /// Messages delivered twice, of a million.
    pub duplicates_ppm: u32,
}

impl Weather {
    /// 5 to about 65 ms, a little jitter (so that messages overtake each other), nothing lost.
    pub const FAIR: Weather = Weather {
        latency_min: 5 * MILLISECOND,
        latency_span: 60 * MILLISECOND,
        jitter: 3 * MILLISECOND,
        loss_ppm: 0,
        duplicates_ppm: 0,
    };

    /// As fair, but one message in a hundred is lost and one in two hundred comes twice, with much jitter.
    pub const ROUGH: Weather =
        Weather { jitter: 40 * MILLISECOND, loss_ppm: 10_000, duplicates_ppm: 5_000, ..Weather::FAIR };
}

/// The state of the network.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    /// How it behaves from now on.
    pub weather: Weather,
    sent: Vec<u64>,
    /// Where each node is, on a grid of 1,000 by 1,000.
    places: Vec<(i32, i32)>,
    /// Which side of a partition each node is on; nodes on different sides do not reach each other.
    sides: Vec<u8>,
}

impl Network {
    pub(super) fn new(seed: u64, weather: Weather) -> Network {
        Network { seed, weather, sent: Vec::new(), places: Vec::new(), sides: Vec::new() }
    }

    pub(super) fn add_node(&mut self) {
        let draw = mix(self.seed ^ mix(self.sent.len() as u64 ^ 0x000b_1ace));
        self.places.push(((draw % 1_000) as i32, (draw / 1_000 % 1_000) as i32));
        self.sent.push(0);
        self.sides.push(0);
    }

    /// Puts a node on a side.
    pub fn set_side(&mut self, node: usize, side: u8) {
        self.sides[node] = side;
    }

    /// When copies of the next message from one node to another arrive, as delays: none, one, or two.
    pub(super) fn carry(&mut self, from: usize, to: usize) -> [Option<Micros>; 2] {
        self.sent[from] += 1;
        if self.sides[from] != self.sides[to] {
            return [None, None];
        }
        let dice = mix(self.seed ^ mix(((from as u64) << 32) | to as u64) ^ mix(self.sent[from]));
        let lost = (dice % 1_000_000) < u64::from(self.weather.loss_ppm);
        let doubled = (mix(dice) % 1_000_000) < u64::from(self.weather.duplicates_ppm);
        let base = self.latency(from, to);
        let delay = |draw: u64| base + draw % (self.weather.jitter + 1);
        let first = (!lost).then(|| delay(mix(dice ^ 1)));
        let second = (!lost && doubled).then(|| delay(mix(dice ^ 2)) + self.weather.jitter);
        [first, second]
    }

    /// How long a message takes when nothing delays it.
    pub(super) fn latency(&self, from: usize, to: usize) -> Micros {
        self.weather.latency_min + self.distance(from, to)
    }

    fn distance(&self, a: usize, b: usize) -> Micros {
        let ((ax, ay), (bx, by)) = (self.places[a], self.places[b]);
        let squared = (ax - bx).pow(2) + (ay - by).pow(2);
        // The diagonal of the grid is the whole span.
        u64::from(squared.unsigned_abs().isqrt()) * self.weather.latency_span / 1_415
    }
}
