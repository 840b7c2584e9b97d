//! Faults as data: a list of what goes wrong when and for how long, drawn from a seed or written by hand.
//!
//! Each fault is whole: it names its own end, and what it did to a node is undone by it alone. So any part of a plan is a plan,
//! which is what lets a failing one be shrunk ([`super::shrink`]): leaving one fault out is the world in which it
//! did not happen. Faults may overlap; a node is down, a link blocked, as long as any of them says so, and rates add up.
//!
//! A plan is drawn node by node from sequences of their own, so that one node more changes the faults of no other.
//! Sessions (the time a node is up) and gaps (the time it is down) follow a Weibull distribution with a given mean; its shape is
//! 1 for the exponential one, and below that for what was measured in deployed systems: many short ones, some very long.
//! All nodes are up when the plan begins, and their first session begins then.

use super::{Dice, mix};
use crate::limits::{MILLISECOND, SECOND};
use crate::machine::Micros;

/// What can go wrong. Nodes are named by their number in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The node's process is killed; at the end it starts again, on its disk or, if it was wiped, on an empty one.
    Down {
        /// Which node.
        node: u32,
        /// Whether it loses its disk.
        wiped: bool,
    },
    /// The node sleeps, as a closed laptop; what reaches it meanwhile is dealt with when it wakes.
    Asleep {
        /// Which node.
        node: u32,
    },
    /// These nodes and all others do not reach each other.
    Cut {
        /// The one side.
        nodes: Vec<u32>,
    },
    /// Nothing gets through a link.
    Blocked {
        /// One end.
        from: u32,
        /// The other end.
        to: u32,
        /// Whether the way back is blocked, too.
        both_ways: bool,
    },
    /// Everything on a link takes longer.
    Slow {
        /// One end.
        from: u32,
        /// The other end.
        to: u32,
        /// Whether the way back is slow, too.
        both_ways: bool,
        /// By how much.
        by: Micros,
    },
    /// So many more messages of a million are lost.
    Loss {
        /// Of a million.
        millionths: u32,
    },
    /// So many more messages of a million come twice.
    Duplication {
        /// Of a million.
        millionths: u32,
    },
    /// The node's clock steps, ahead or (if negative) back; at the end it steps the other way. (See [`super::World::set_clock`].)
    ClockStep {
        /// Which node.
        node: u32,
        /// By how much, in microseconds.
        by: i64,
    },
    /// The node's clock goes faster, or (if negative) slower; at the end it goes right again, and keeps what it has gained.
    ClockDrift {
        /// Which node.
        node: u32,
        /// By so many of a million.
        millionths: i32,
    },
    /// Every operation of the node's disk takes longer.
    SlowDisk {
        /// Which node.
        node: u32,
        /// By how much.
        by: Micros,
    },
    /// The node's disk takes nothing new.
    FullDisk {
        /// Which node.
        node: u32,
    },
}

impl FaultKind {
    /// The nodes it happens to; none of what happens to all.
    #[must_use]
    pub fn nodes(&self) -> Vec<u32> {
        match self {
            FaultKind::Down { node, .. }
            | FaultKind::Asleep { node }
            | FaultKind::ClockStep { node, .. }
            | FaultKind::ClockDrift { node, .. }
            | FaultKind::SlowDisk { node, .. }
            | FaultKind::FullDisk { node } => vec![*node],
            FaultKind::Cut { nodes } => nodes.clone(),
            FaultKind::Blocked { from, to, .. } | FaultKind::Slow { from, to, .. } => vec![*from, *to],
            FaultKind::Loss { .. } | FaultKind::Duplication { .. } => Vec::new(),
        }
    }
}

/// One fault with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// When it begins, from the moment the plan is followed.
    pub at: Micros,
    /// How long it lasts; for good if not said.
    pub lasting: Option<Micros>,
    /// What it is.
    pub kind: FaultKind,
}

impl PlannedFault {
    /// When it ends, from the moment the plan is followed; never if not said.
    #[must_use]
    pub fn end(&self) -> Option<Micros> {
        self.lasting.map(|lasting| self.at.saturating_add(lasting))
    }
}

/// Times that vary about a mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spell {
    /// Their mean.
    pub mean: Micros,
    /// The shape of their Weibull distribution: 1 is the exponential one, less has more short and more long ones.
    pub shape: f64,
}

impl Spell {
    /// Exponential times of this mean.
    #[must_use]
    pub fn exponential(mean: Micros) -> Spell {
        Spell { mean, shape: 1.0 }
    }

    /// The next one, in whole milliseconds and at least one of them.
    pub fn draw(&self, dice: &mut Dice) -> Micros {
        let scale = self.mean as f64 / gamma(1.0 + 1.0 / self.shape);
        let drawn = scale * (-(1.0 - dice.fraction()).ln()).powf(1.0 / self.shape);
        (drawn as Micros / MILLISECOND).max(1) * MILLISECOND
    }
}

/// The gamma function for arguments from 1 on, by Lanczos' approximation.
fn gamma(x: f64) -> f64 {
    const TERMS: [f64; 6] = [
        76.180_091_729_471_46,
        -86.505_320_329_416_77,
        24.014_098_240_830_91,
        -1.231_739_572_450_155,
        0.120_865_097_386_617_5e-2,
        -0.539_523_938_495_3e-5,
    ];
    let shifted = x + 4.5;
    let series: f64 = TERMS.iter().enumerate().map(|(nth, term)| term / (x + nth as f64)).sum();
    (2.0 * std::f64::consts::PI).sqrt() * (1.000_000_000_190_015 + series) * shifted.powf(x - 0.5) * (-shifted).exp()
}

/// What plans are drawn from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hazards {
    /// How long nodes are up; for ever if not said.
    pub sessions: Option<Spell>,
    /// How long they are down then; for good if not said.
    pub gaps: Option<Spell>,
    /// Of a million nodes that fall, how many lose their disk.
    pub wiped: u32,
    /// Messages lost, of a million, all the time.
    pub loss: u32,
    /// Messages that come twice, of a million, all the time.
    pub duplication: u32,
    /// How many times a random part of the nodes is cut off, for a tenth to a quarter of the time.
    pub cuts: u32,
    /// How many nodes sleep, each for half a minute to a tenth of the time.
    pub sleeps: u32,
    /// How many links are blocked, half of them one way, all the time.
    pub blocked_links: u32,
    /// How many links are slower by 0.2 to 2 s, all the time.
    pub slow_links: u32,
    /// How many clocks step by up to an hour either way, and as many that drift by up to 200 millionths.
    pub clocks: u32,
    /// How many disks are slower by up to a second for a tenth of the time, and as many that are full for as long.
    pub disks: u32,
}

/// The plan that this seed draws for so many nodes and so long, by the time at which the faults begin.
#[must_use]
pub fn draw(seed: u64, nodes: u32, lasting: Micros, hazards: &Hazards) -> Vec<PlannedFault> {
    let mut plan = Vec::new();
    let mut all_along = |rate: u32, kind: FaultKind| {
        if rate > 0 {
            plan.push(PlannedFault { at: 0, lasting: Some(lasting), kind });
        }
    };
    all_along(hazards.loss, FaultKind::Loss { millionths: hazards.loss });
    all_along(hazards.duplication, FaultKind::Duplication { millionths: hazards.duplication });
    for node in 0..nodes {
        churn(&mut Dice::new(mix(seed) ^ mix(u64::from(node))), node, lasting, hazards, &mut plan);
    }
    let mut once = Once { dice: Dice::new(mix(seed ^ 0xfa17)), nodes, lasting };
    plan.extend((0..hazards.cuts).map(|_| once.cut()));
    plan.extend((0..hazards.sleeps).map(|_| once.sleep()));
    plan.extend((0..hazards.blocked_links).map(|_| once.blocked()));
    plan.extend((0..hazards.slow_links).map(|_| once.slow()));
    plan.extend((0..hazards.clocks).flat_map(|_| once.clocks()));
    plan.extend((0..hazards.disks).flat_map(|_| once.disks()));
    plan.sort_by_key(|fault| fault.at);
    plan
}

/// The sessions and gaps of one node.
fn churn(dice: &mut Dice, node: u32, lasting: Micros, hazards: &Hazards, plan: &mut Vec<PlannedFault>) {
    let Some(sessions) = hazards.sessions else { return };
    let mut at = sessions.draw(dice);
    while at < lasting {
        let gap = hazards.gaps.map(|gaps| gaps.draw(dice));
        let wiped = dice.below(1_000_000) < hazards.wiped as usize;
        plan.push(PlannedFault { at, lasting: gap, kind: FaultKind::Down { node, wiped } });
        let Some(gap) = gap else { return };
        at += gap + sessions.draw(dice);
    }
}

/// Draws faults that happen a given number of times.
struct Once {
    dice: Dice,
    nodes: u32,
    lasting: Micros,
}

impl Once {
    /// A moment before the end by which what begins there and lasts so long is over.
    fn during(&mut self, lasting: Micros, kind: FaultKind) -> PlannedFault {
        let lasting = lasting.min(self.lasting);
        let at = self.between(0, self.lasting - lasting);
        PlannedFault { at, lasting: Some(lasting), kind }
    }

    fn between(&mut self, least: Micros, most: Micros) -> Micros {
        let drawn = least + (self.dice.fraction() * most.saturating_sub(least) as f64) as Micros;
        drawn / MILLISECOND * MILLISECOND
    }

    fn node(&mut self) -> u32 {
        self.dice.below(self.nodes as usize) as u32
    }

    fn cut(&mut self) -> PlannedFault {
        let share = 0.1 + 0.4 * self.dice.fraction();
        let nodes = (0..self.nodes).filter(|_| self.dice.fraction() < share).collect();
        let lasting = self.between(self.lasting / 10, self.lasting / 4);
        self.during(lasting, FaultKind::Cut { nodes })
    }

    fn sleep(&mut self) -> PlannedFault {
        let node = self.node();
        let lasting = self.between(30 * SECOND, (self.lasting / 10).max(30 * SECOND));
        self.during(lasting, FaultKind::Asleep { node })
    }

    fn blocked(&mut self) -> PlannedFault {
        let (from, to, both_ways) = (self.node(), self.node(), self.dice.below(2) == 0);
        self.during(self.lasting, FaultKind::Blocked { from, to, both_ways })
    }

    fn slow(&mut self) -> PlannedFault {
        let (from, to, both_ways) = (self.node(), self.node(), self.dice.below(2) == 0);
        let by = self.between(200 * MILLISECOND, 2 * SECOND);
        self.during(self.lasting, FaultKind::Slow { from, to, both_ways, by })
    }

    fn clocks(&mut self) -> [PlannedFault; 2] {
        let either_way = |dice: &mut Dice, most: i64| dice.below(2 * most as usize + 1) as i64 - most;
        let step = FaultKind::ClockStep { node: self.node(), by: either_way(&mut self.dice, 3_600) * SECOND as i64 };
        let drift = FaultKind::ClockDrift { node: self.node(), millionths: either_way(&mut self.dice, 200) as i32 };
        [self.during(self.lasting / 2, step), self.during(self.lasting / 2, drift)]
    }

    fn disks(&mut self) -> [PlannedFault; 2] {
        let slow = FaultKind::SlowDisk { node: self.node(), by: self.between(MILLISECOND, SECOND) };
        let full = FaultKind::FullDisk { node: self.node() };
        [self.during(self.lasting / 10, slow), self.during(self.lasting / 10, full)]
    }
}

#[cfg(test)]
mod tests {
    //! Goal: plans are drawn as described, and a node more changes no other's faults. Method: means and medians of many draws
    //! against the closed forms (a Weibull median is scale × ln 2 ^ 1/shape); plans of two sizes side by side.

    use super::*;
    use std::f64::consts::{LN_2, PI};

    const HOUR: Micros = 3_600 * SECOND;

    #[test]
    fn spells_have_their_mean_and_their_shape() {
        for (shape, median) in [(1.0, LN_2), (0.5, LN_2 * LN_2 / 2.0), (2.0, LN_2.sqrt() / (PI.sqrt() / 2.0))] {
            let (spell, mut dice) = (Spell { mean: HOUR, shape }, Dice::new(1));
            let mut drawn: Vec<f64> = (0..200_000).map(|_| spell.draw(&mut dice) as f64 / HOUR as f64).collect();
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            drawn.sort_by(f64::total_cmp);
            assert!((mean - 1.0).abs() < 0.02, "shape {shape}: mean {mean}");
            let middle = drawn[drawn.len() / 2];
            assert!((middle - median).abs() < 0.01, "shape {shape}: median {middle}, not {median}");
        }
    }

    #[test]
    fn churn_takes_down_as_many_nodes_as_its_means_say() {
        let hazards = Hazards {
            sessions: Some(Spell::exponential(2 * HOUR)),
            gaps: Some(Spell::exponential(HOUR)),
            wiped: 250_000,
            ..Hazards::default()
        };
        let plan = draw(2, 1_000, 24 * HOUR, &hazards);
        let down = |at: Micros| plan.iter().filter(|fault| fault.at <= at && fault.end() > Some(at)).count();
        // In the long run a node is down for one hour in three.
        assert!((290..=376).contains(&down(20 * HOUR)), "{} of 1,000 are down", down(20 * HOUR));
        let wiped = plan.iter().filter(|fault| matches!(fault.kind, FaultKind::Down { wiped: true, .. })).count();
        assert!(
            (plan.len() * 23..plan.len() * 27).contains(&(wiped * 100)),
            "{wiped} of {} lose their disk",
            plan.len()
        );
    }

    #[test]
    fn a_node_more_changes_no_others_sessions() {
        let hazards = Hazards {
            sessions: Some(Spell::exponential(HOUR)),
            gaps: Some(Spell::exponential(HOUR)),
            ..Hazards::default()
        };
        let few = draw(3, 50, 12 * HOUR, &hazards);
        let mut more = draw(3, 51, 12 * HOUR, &hazards);
        more.retain(|fault| fault.kind.nodes() != [50]);
        assert_eq!(few, more);
        assert_ne!(few, draw(4, 50, 12 * HOUR, &hazards));
    }

    #[test]
    fn every_kind_is_drawn_and_over_by_the_end() {
        let hazards = Hazards {
            loss: 1,
            duplication: 1,
            cuts: 9,
            sleeps: 9,
            blocked_links: 9,
            slow_links: 9,
            clocks: 9,
            disks: 9,
            ..Hazards::default()
        };
        let plan = draw(5, 100, HOUR, &hazards);
        assert_eq!(plan.len(), 2 + 4 * 9 + 2 * 2 * 9);
        assert!(plan.is_sorted_by_key(|fault| fault.at));
        assert!(plan.iter().all(|fault| fault.end().is_some_and(|end| end <= HOUR)));
    }
}
