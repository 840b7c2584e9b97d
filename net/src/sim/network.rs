//! The simulated network: latency by place, and losses, duplicates and partitions as ordered.
//!
//! Nodes live on a plane; the latency of a link follows from their distance, so no matrix of all pairs is kept. What
//! happens to a message depends on the seed, the link, and the message alone: its type, the moment it was sent, and how many
//! such the sender sent the receiver in the same turn. Nothing is counted from the beginning of the world, so one message
//! more, anywhere, changes the fate of no other, and runs that differ in a fault can be compared.

use super::mix;
use crate::limits::MILLISECOND;
use crate::machine::Micros;
use std::collections::{BTreeMap, BTreeSet};

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

/// What is wrong with one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing gets through.
    Blocked,
    /// Everything takes this much longer.
    Slow(Micros),
}

/// What tells one message from every other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The number of its type.
    pub(super) number: u8,
    /// When it is sent.
    pub(super) at: Micros,
    /// How many of this type the sender has sent the receiver before in this turn.
    pub(super) nth: u32,
}

/// The state of the network.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    /// How it behaves from now on.
    pub weather: Weather,
    /// Where each node is, on a grid of 1,000 by 1,000.
    places: Vec<(i32, i32)>,
    /// Which side of a partition each node is on; nodes on different sides do not reach each other.
    sides: Vec<u8>,
    /// What is wrong with which directions, from and to.
    faults: BTreeMap<(usize, usize), Fault>,
    /// Sets of nodes cut off from all others, by name.
    cuts: BTreeMap<u32, BTreeSet<usize>>,
}

impl Network {
    pub(super) fn new(seed: u64, weather: Weather) -> Network {
        Network { seed, weather, places: Vec::new(), sides: Vec::new(), faults: BTreeMap::new(), cuts: BTreeMap::new() }
    }

    pub(super) fn add_node(&mut self) {
        let draw = mix(self.seed ^ mix(self.places.len() as u64 ^ 0x000b_1ace));
        self.places.push(((draw % 1_000) as i32, (draw / 1_000 % 1_000) as i32));
        self.sides.push(0);
    }

    /// Puts a node on a side.
    pub fn set_side(&mut self, node: usize, side: u8) {
        self.sides[node] = side;
    }

    /// Cuts these nodes off from all others, from now on. Cuts may cross: two nodes reach each other when no cut lies between.
    pub fn cut(&mut self, name: u32, nodes: impl IntoIterator<Item = usize>) {
        self.cuts.insert(name, nodes.into_iter().collect());
    }

    /// Heals the cut of this name.
    pub fn heal(&mut self, name: u32) {
        self.cuts.remove(&name);
    }

    /// Breaks one direction of a link, from now on; the other stays as it is.
    pub fn break_link(&mut self, from: usize, to: usize, fault: Fault) {
        self.faults.insert((from, to), fault);
    }

    /// Makes one direction of a link whole again.
    pub fn mend_link(&mut self, from: usize, to: usize) {
        self.faults.remove(&(from, to));
    }

    /// When copies of a message arrive, as delays: none, one, or two.
    pub(super) fn carry(&self, sending: Sending) -> [Option<Micros>; 2] {
        let Sending { from, to, number, at, nth } = sending;
        let is_between = |cut: &BTreeSet<usize>| cut.contains(&from) != cut.contains(&to);
        if self.sides[from] != self.sides[to] || self.cuts.values().any(is_between) {
            return [None, None];
        }
        let slowness = match self.faults.get(&(from, to)) {
            Some(Fault::Blocked) => return [None, None],
            Some(Fault::Slow(slowness)) => *slowness,
            None => 0,
        };
        let link = mix(((from as u64) << 32) | to as u64);
        let dice = mix(self.seed ^ link ^ mix(at ^ (u64::from(number) << 56)) ^ mix(u64::from(nth)));
        let lost = (dice % 1_000_000) < u64::from(self.weather.loss_ppm);
        let doubled = (mix(dice) % 1_000_000) < u64::from(self.weather.duplicates_ppm);
        let base = self.latency(from, to) + slowness;
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

#[cfg(test)]
mod tests {
    //! Goal: the weather is what it says, and each message has its own. Method: many messages counted against the rates; the
    //! same messages with others sent in between, to and from the same nodes, and without.

    use super::*;
    use crate::limits::SECOND;

    const ROUGH: Weather = Weather { loss_ppm: 100_000, duplicates_ppm: 50_000, ..Weather::ROUGH };

    fn network(seed: u64) -> Network {
        let mut network = Network::new(seed, ROUGH);
        (0..10).for_each(|_| network.add_node());
        network
    }

    fn ping(from: usize, to: usize, nth: u64) -> Sending {
        Sending { from, to, number: 2, at: 1_790_000_000 * SECOND + nth * 1_000, nth: 0 }
    }

    #[test]
    fn a_message_more_changes_no_other() {
        let (quiet, busy) = (network(1), network(1));
        for nth in 0..10_000 {
            for other in 3..8 {
                busy.carry(ping(1, other, nth));
                busy.carry(ping(other, 2, nth));
                busy.carry(Sending { number: 3, ..ping(1, 2, nth) });
            }
            assert_eq!(quiet.carry(ping(1, 2, nth)), busy.carry(ping(1, 2, nth)));
        }
    }

    #[test]
    fn each_message_has_a_fate_of_its_own() {
        let network = network(2);
        let one = ping(1, 2, 0);
        let fates =
            |vary: &dyn Fn(u64) -> Sending| (0..200).map(|nth| network.carry(vary(nth))).collect::<BTreeSet<_>>();
        assert!(fates(&|nth| Sending { at: one.at + nth, ..one }).len() > 100);
        assert!(fates(&|nth| Sending { nth: nth as u32, ..one }).len() > 100);
        assert!(fates(&|nth| Sending { number: nth as u8, ..one }).len() > 100);
    }

    #[test]
    fn losses_and_duplicates_are_as_ordered_and_delays_within_bounds() {
        let network = network(3);
        let (mut lost, mut doubled, mut overtaken, mut last) = (0, 0, 0, 0);
        for nth in 0..100_000 {
            let [first, second] = network.carry(ping(4, 7, nth));
            lost += u32::from(first.is_none());
            doubled += u32::from(second.is_some());
            let Some(delay) = first else { continue };
            let least = network.latency(4, 7);
            assert!((least..=least + ROUGH.jitter).contains(&delay));
            assert!(second.is_none_or(|delay| (least..=least + 2 * ROUGH.jitter).contains(&delay)));
            let arrival = nth * 1_000 + delay;
            overtaken += u32::from(arrival < last);
            last = arrival;
        }
        assert!((9_500..10_500).contains(&lost), "{lost} of 100,000 lost, ordered 10,000");
        assert!((4_200..4_800).contains(&doubled), "{doubled} of 90,000 doubled, ordered 4,500");
        assert!(overtaken > 20_000, "messages a millisecond apart overtake each other");
    }
}
