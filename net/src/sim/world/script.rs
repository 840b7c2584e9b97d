//! The script: a plan of faults that the world follows as its time passes.
//!
//! Invariant: what is wrong with a node, link or the weather at any moment follows from the faults that are on then, and from
//! nothing else that the script did before; only what a clock has gained by drifting, and an emptied disk, stay. What tests do
//! to the same things by hand is overruled when a fault on them begins or ends.

use super::{Entry, NodeIndex, Occurrence, World};
use crate::machine::{Machine, Micros};
use crate::sim::faults::{FaultKind, PlannedFault};
use crate::sim::mix;
use crate::sim::network::Fault;
use std::collections::BTreeMap;

/// Makes the machine of a node that starts again.
type Restart<M> = Box<dyn FnMut(NodeIndex, Micros) -> M>;

pub(super) struct Script<M> {
    plan: Vec<PlannedFault>,
    is_on: Vec<bool>,
    /// How many faults keep a node down, of those that are.
    down: BTreeMap<NodeIndex, u32>,
    /// Messages lost and doubled when no fault is on.
    usual: (u32, u32),
    restart: Option<Restart<M>>,
}

impl<M> Default for Script<M> {
    fn default() -> Script<M> {
        Script { plan: Vec::new(), is_on: Vec::new(), down: BTreeMap::new(), usual: (0, 0), restart: None }
    }
}

impl<M: Machine> World<M> {
    /// Follows a plan from now on; nodes that come back run what `restart` makes, of the node and the time. A world follows one
    /// plan in its life.
    ///
    /// # Panics
    /// If a plan is followed already, or names a node that is not in the world.
    pub fn follow(&mut self, plan: Vec<PlannedFault>, restart: impl FnMut(NodeIndex, Micros) -> M + 'static) {
        assert!(self.script.restart.is_none(), "one plan is followed already");
        let count = self.nodes.len();
        let is_known = |fault: &PlannedFault| fault.kind.nodes().iter().all(|node| (*node as usize) < count);
        assert!(plan.iter().all(is_known), "a plan's nodes are in the world");
        for (number, fault) in (0u32..).zip(&plan) {
            self.fault_later(fault.at, number, true);
            if let Some(end) = fault.end() {
                self.fault_later(end, number, false);
            }
        }
        let usual = (self.network.weather.loss_ppm, self.network.weather.duplicates_ppm);
        let (is_on, down) = (vec![false; plan.len()], BTreeMap::new());
        self.script = Script { plan, is_on, down, usual, restart: Some(Box::new(restart)) };
    }

    fn fault_later(&mut self, delay: Micros, number: u32, begins: bool) {
        let at = self.now.saturating_add(delay);
        self.queue.push(at, Entry { node: 0, life: 0, what: Occurrence::Fault { number, begins } });
    }

    /// A fault begins or ends.
    pub(super) fn fault_turns(&mut self, number: u32, begins: bool) {
        let fault = self.script.plan[number as usize].clone();
        self.script.is_on[number as usize] = begins;
        self.trace = mix(self.trace ^ mix(self.now) ^ mix(u64::from(number) << 9 | 256 | u64::from(begins)));
        match fault.kind {
            FaultKind::Down { node, wiped } => self.down_turns(node as usize, wiped, begins),
            FaultKind::Asleep { node } => {
                let until = fault.lasting.map_or(Micros::MAX, |lasting| self.now.saturating_add(lasting));
                let node = &mut self.nodes[node as usize];
                if begins {
                    node.asleep_until = node.asleep_until.max(until);
                }
            }
            FaultKind::Cut { nodes } if begins => self.network.cut(number, nodes.iter().map(|node| *node as usize)),
            FaultKind::Cut { .. } => self.network.heal(number),
            FaultKind::Blocked { from, to, both_ways } | FaultKind::Slow { from, to, both_ways, .. } => {
                self.link_turns(from, to);
                if both_ways {
                    self.link_turns(to, from);
                }
            }
            FaultKind::Loss { .. } | FaultKind::Duplication { .. } => self.weather_turns(),
            FaultKind::ClockStep { node, by } => self.step_clock(node as usize, if begins { by } else { -by }),
            FaultKind::ClockDrift { node, .. } => self.drift_turns(node),
            FaultKind::SlowDisk { node, .. } | FaultKind::FullDisk { node } => self.disk_turns(node),
        }
    }

    fn kinds_on(&self) -> impl Iterator<Item = &FaultKind> {
        let both = self.script.plan.iter().zip(&self.script.is_on);
        both.filter(|(_, is_on)| **is_on).map(|(fault, _)| &fault.kind)
    }

    fn down_turns(&mut self, node: NodeIndex, wiped: bool, begins: bool) {
        let count = self.script.down.entry(node).or_default();
        if begins {
            *count += 1;
            self.kill(node);
            if wiped {
                self.wipe(node);
            }
            return;
        }
        *count = count.saturating_sub(1);
        if *count == 0
            && let Some(restart) = &mut self.script.restart
        {
            let machine = restart(node, self.now);
            self.start(node, machine);
        }
    }

    /// The worst that is said of this direction holds.
    fn link_turns(&mut self, from: u32, to: u32) {
        let concerns = |one: u32, other: u32, both_ways: bool| {
            (one, other) == (from, to) || (both_ways && (other, one) == (from, to))
        };
        let mut worst = None;
        for kind in self.kinds_on() {
            match kind {
                FaultKind::Blocked { from, to, both_ways } if concerns(*from, *to, *both_ways) => {
                    worst = Some(Fault::Blocked);
                    break;
                }
                FaultKind::Slow { from, to, both_ways, by } if concerns(*from, *to, *both_ways) => {
                    worst = match worst {
                        Some(Fault::Slow(known)) => Some(Fault::Slow(known.max(*by))),
                        _ => Some(Fault::Slow(*by)),
                    };
                }
                _ => {}
            }
        }
        match worst {
            Some(fault) => self.network.break_link(from as usize, to as usize, fault),
            None => self.network.mend_link(from as usize, to as usize),
        }
    }

    fn weather_turns(&mut self) {
        let (mut loss, mut doubled) = self.script.usual;
        for kind in self.kinds_on() {
            match kind {
                FaultKind::Loss { millionths } => loss = loss.saturating_add(*millionths),
                FaultKind::Duplication { millionths } => doubled = doubled.saturating_add(*millionths),
                _ => {}
            }
        }
        (self.network.weather.loss_ppm, self.network.weather.duplicates_ppm) = (loss, doubled);
    }

    fn drift_turns(&mut self, node: u32) {
        let of = |kind: &FaultKind| match kind {
            FaultKind::ClockDrift { node: drifting, millionths } if *drifting == node => Some(*millionths),
            _ => None,
        };
        let sum = self.kinds_on().filter_map(of).fold(0, i32::saturating_add);
        self.set_drift(node as usize, sum.clamp(-999_999, 999_999));
    }

    fn disk_turns(&mut self, node: u32) {
        let (mut slowness, mut is_full) = (0, false);
        for kind in self.kinds_on() {
            match kind {
                FaultKind::SlowDisk { node: slow, by } if *slow == node => slowness += by,
                FaultKind::FullDisk { node: full } if *full == node => is_full = true,
                _ => {}
            }
        }
        self.slow_disk(node as usize, slowness);
        self.store_mut(node as usize).is_full = is_full;
    }
}
