//! A trial: a ring is founded, follows a plan of faults, is asked all the while, and is judged.
//!
//! ```text
//! founding      the nodes start within two seconds and settle for a minute; objects are inserted
//! following     the plan; lookups and reads at a steady rate, at random nodes, judged as they are answered; disks looked at
//! calm          no fault begins any more; what should be right again by its end is looked at then
//! ```
//!
//! A trial is data: the same one gives the same run, event for event ([`Figures::trace`]). It ends at the first violation
//! ([`super::inspector`] says what that is). Time without a machine's clock: the caller, who is told how far it is, may keep one.

use super::faults::PlannedFault;
use super::inspector::{Inspector, PATIENCE, READ_PATIENCE, Violation};
use super::{Dice, Founding, Weather, World, mix};
use crate::id::{Key, Kind};
use crate::limits::{HOPS_MAX, MILLISECOND, SECOND};
use crate::machine::{Command, Micros, Reply};
use crate::overlay::Overlay;
use crate::ring::Parameters;

/// The nodes start one after the other within this: so soon that each is there before its neighbours give it up.
pub const STARTING: Micros = 2 * SECOND;
/// From the first start until the ring has settled.
pub const SETTLING: Micros = 60 * SECOND;
/// How often all disks are looked at.
const COUNT_EVERY: u64 = 30;
/// Of so many questions about objects and roots, one is about an object.
const READ_EVERY: u64 = 5;
/// Bytes of an object.
const OBJECT_BYTES: usize = 200;
/// Delay stretches are counted in steps of a fifth, the last being all that is more.
pub const STRETCH_STEP: f64 = 0.2;
/// As many steps.
pub const STRETCH_STEPS: usize = 60;
/// Types of the messages that lookups cause: [`crate::wire::Body`]'s Route, HopAck and Located.
const LOOKUP_TYPES: [u8; 3] = [7, 8, 9];

/// What is to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Decides everything that happens, besides the plan.
    pub seed: u64,
    /// Nodes of the ring.
    pub nodes: u32,
    /// How long the plan is followed.
    pub lasting: Micros,
    /// How long the ring is left alone afterwards; 0 to end without looking whether it comes right again.
    pub calm: Micros,
    /// Lookups a node and virtual hour.
    pub lookups: f64,
    /// Objects inserted before, and read all the while.
    pub objects: u32,
    /// What goes wrong.
    pub plan: Vec<PlannedFault>,
}

/// A virtual minute of traffic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Minute {
    /// Nodes that stand at its end.
    pub standing: usize,
    /// Messages sent that no lookup of a root caused.
    pub control: u64,
    /// All messages sent.
    pub messages: u64,
}

/// What was seen, from the moment the plan was followed.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Virtual time.
    pub passed: Micros,
    /// Events dealt with in founding the ring.
    pub founding_events: u64,
    /// Events dealt with since.
    pub events: u64,
    /// Messages sent.
    pub messages: u64,
    /// Of those, what no lookup of a root caused.
    pub control: u64,
    /// Lookups of roots.
    pub lookups: u64,
    /// That ended at the root.
    pub right: u64,
    /// That ended elsewhere, while a node stood for long that was nearer: a violation.
    pub wrong: u64,
    /// That ended elsewhere, while a node stood that was nearer, but not for long, or the ring was newly cut.
    pub astray: u64,
    /// That nobody answered, and the origin said so.
    pub lost: u64,
    /// The same while the ring was parted, or lately so.
    pub lost_parted: u64,
    /// To which the origin said nothing: a violation.
    pub unanswered: u64,
    /// Questions whose origin fell before it was answered, or about objects that faults have destroyed.
    pub abandoned: u64,
    /// Reads of objects.
    pub reads: u64,
    /// That returned the right bytes.
    pub read_right: u64,
    /// That returned none.
    pub reads_failed: u64,
    /// Objects all of whose disks were wiped.
    pub destroyed: u64,
    /// Lookups by the hops they took.
    pub hops: Vec<u64>,
    /// Lookups by the time they took on the way there, over that of the straight way, in steps of [`STRETCH_STEP`].
    pub stretches: Vec<u64>,
    /// Time on the way to the root, summed over lookups that left their node.
    pub travelled: Micros,
    /// Time that the straight way takes, summed likewise.
    pub straight: Micros,
    /// Traffic, minute by minute.
    pub traffic: Vec<Minute>,
    /// Objects by their copies on running nodes (0 to k), with the time.
    pub copies: Vec<(Micros, Vec<u32>)>,
    /// A hash over everything that happened.
    pub trace: u64,
}

impl Figures {
    /// A lookup has ended where it should.
    pub(super) fn arrived(&mut self, hops: u8, took: Micros, straight: Option<Micros>) {
        self.right += 1;
        self.hops[usize::from(hops)] += 1;
        if let Some(straight) = straight.filter(|straight| *straight > 0) {
            let travelled = took.saturating_sub(straight); // The answer comes straight.
            self.travelled += travelled;
            self.straight += straight;
            let step = (travelled as f64 / straight as f64 / STRETCH_STEP) as usize;
            self.stretches[step.min(STRETCH_STEPS - 1)] += 1;
        }
    }
}

/// How a trial ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was seen.
    pub figures: Figures,
    /// What went wrong, if anything.
    pub violation: Option<Violation>,
    /// Whether it was stopped before its end.
    pub is_interrupted: bool,
}

/// How far a trial is.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Whether the ring is still being founded.
    pub is_founding: bool,
    /// Virtual time since the first start.
    pub passed: Micros,
    /// Events dealt with so far.
    pub events: u64,
}

impl Trial {
    /// Virtual time of the whole.
    #[must_use]
    pub fn duration(&self) -> Micros {
        SETTLING + self.lasting + self.calm
    }

    /// Runs it. `attend` is told how far it is each virtual second, and may end it by saying false.
    pub fn run(&self, attend: impl FnMut(Stage) -> bool) -> Outcome {
        self.run_with(|_| {}, attend)
    }

    /// As [`Trial::run`], with nodes made faulty by `plant` before the plan is followed.
    pub fn run_with(&self, plant: impl FnOnce(&mut World<Overlay>), attend: impl FnMut(Stage) -> bool) -> Outcome {
        let mut run = Run::new(self, attend);
        let violation = run.go(plant).err();
        run.ended(violation)
    }
}

/// A trial that runs.
struct Run<'a, F> {
    trial: &'a Trial,
    attend: F,
    founding: Option<Founding>,
    world: World<Overlay>,
    dice: Dice,
    figures: Figures,
    is_interrupted: bool,
    /// When the plan began, and the counts of then: events, messages, those of lookups.
    begun: (Micros, u64, u64, u64),
}

impl<'a, F: FnMut(Stage) -> bool> Run<'a, F> {
    fn new(trial: &'a Trial, attend: F) -> Run<'a, F> {
        let founding = Founding::new(trial.seed, trial.nodes as usize, Parameters::DEFAULT);
        let world = World::new(trial.seed, Weather::FAIR, founding.trust(), founding.ring.parameters.grace_s);
        let hops = vec![0; usize::from(HOPS_MAX) + 1];
        let figures = Figures { hops, stretches: vec![0; STRETCH_STEPS], ..Figures::default() };
        let (dice, founding) = (Dice::new(trial.seed ^ 0x100c), Some(founding));
        Run { trial, attend, founding, world, dice, figures, is_interrupted: false, begun: (0, 0, 0, 0) }
    }

    fn go(&mut self, plant: impl FnOnce(&mut World<Overlay>)) -> Result<(), Violation> {
        self.found();
        let parameters = Parameters::DEFAULT;
        let k = usize::from(parameters.k).min(self.trial.nodes as usize);
        let stored = self.insert();
        let mut inspector = Inspector::new(&self.world, &self.trial.plan, k);
        self.begun = (self.world.now(), self.world.events(), self.world.messages(), by_lookups(&self.world));
        for (key, value, expiry) in stored? {
            inspector.stored(key, value, expiry);
        }
        plant(&mut self.world);
        self.follow();
        inspector.look(&self.world, &self.trial.plan);
        self.watch(&mut inspector)?;
        self.measure();
        if self.is_interrupted {
            return Ok(());
        }
        let seconds = if inspector.open() == 0 { 0 } else { PATIENCE.max(READ_PATIENCE) / SECOND };
        for _ in 0..=seconds {
            if inspector.open() > 0 {
                self.world.run_for(SECOND);
                inspector.look(&self.world, &self.trial.plan);
                inspector.judge(&mut self.world, &mut self.figures)?;
            }
        }
        if self.trial.calm > 0 { inspector.conclude(&self.world, usize::from(parameters.leaf_set)) } else { Ok(()) }
    }

    /// Starts all nodes and lets them settle.
    fn found(&mut self) {
        let Some(founding) = &self.founding else { return };
        let end = self.world.now() + SETTLING;
        let ids = founding.ids();
        // In the order of the document, which is not that of the ring; some at a time.
        let batch = ids.len().div_ceil((STARTING / MILLISECOND) as usize).max(1);
        for ids in ids.chunks(batch) {
            for id in ids {
                let node = self.world.add(*id);
                self.world.start(node, founding.overlay(*id, self.trial.seed, Vec::new()));
            }
            self.world.run_for(MILLISECOND);
        }
        while self.world.now() < end && !self.is_interrupted {
            let second = SECOND.min(end - self.world.now());
            self.world.run_for(second);
            self.tell(true);
        }
    }

    /// Inserts the objects, some at a time.
    fn insert(&mut self) -> Result<Vec<(Key, bytes::Bytes, u64)>, Violation> {
        let (mut dice, mut stored) = (Dice::new(self.trial.seed ^ 0x0b1ec7), Vec::new());
        let lasting_s = (self.trial.lasting + self.trial.calm) / SECOND;
        let expiry = self.world.now() / SECOND + lasting_s + 14 * 86_400;
        let mut left = self.trial.objects;
        while left > 0 && !self.is_interrupted {
            let mut asked = Vec::new();
            for _ in 0..left.min(256) {
                let value = dice.bytes(OBJECT_BYTES);
                let key = Key::of(Kind::Content, &value);
                let node = dice.below(self.world.nodes().len());
                let command = Command::Insert { key, value: value.clone(), expiry };
                asked.push((node, self.world.command(node, command), key, value));
            }
            self.world.run_for(20 * SECOND);
            for (node, request, key, value) in asked {
                match self.world.take_reply(node, request) {
                    Some(Reply::Stored { .. }) => stored.push((key, value, expiry)),
                    reply => {
                        let what = format!("an object was not stored before anything went wrong: {reply:?}");
                        return Err(Violation { at: 0, what });
                    }
                }
            }
            left -= left.min(256);
            self.tell(true);
        }
        self.figures.founding_events = self.world.events();
        Ok(stored)
    }

    fn follow(&mut self) {
        let Some(founding) = self.founding.take() else { return };
        let (ids, seed) = (founding.ids(), self.trial.seed);
        self.world
            .follow(self.trial.plan.clone(), move |node, now| founding.overlay(ids[node], seed ^ mix(now), Vec::new()));
        self.world.run_for(0); // What goes wrong at once has gone wrong before anybody looks.
    }

    /// Follows the plan and the calm behind it.
    fn watch(&mut self, inspector: &mut Inspector) -> Result<(), Violation> {
        let start = self.world.now();
        let per_second = self.trial.lookups * f64::from(self.trial.nodes) / 3_600.0;
        let (mut asked, mut minute) = (0, (self.world.messages(), by_lookups(&self.world)));
        for second in 1..=(self.trial.lasting + self.trial.calm) / SECOND {
            if self.is_interrupted {
                break;
            }
            let due = (second as f64 * per_second) as u64 - asked;
            for _ in 0..due {
                asked += 1;
                let reads = self.trial.objects > 0 && asked % READ_EVERY == 0;
                inspector.ask(&mut self.world, &mut self.dice, reads, &mut self.figures);
                self.world.run_for(SECOND / due);
            }
            let rest = (start + second * SECOND).saturating_sub(self.world.now());
            self.world.run_for(rest);
            inspector.look(&self.world, &self.trial.plan);
            inspector.judge(&mut self.world, &mut self.figures)?;
            if self.trial.objects > 0 && second % COUNT_EVERY == 0 {
                let copies = inspector.count(&self.world, &mut self.figures)?;
                self.figures.copies.push((second * SECOND, copies));
            }
            if second % 60 == 0 {
                let (messages, caused) = (self.world.messages(), by_lookups(&self.world));
                let (sent, control) = (messages - minute.0, messages - caused - (minute.0 - minute.1));
                self.figures.traffic.push(Minute { standing: inspector.standing(), control, messages: sent });
                minute = (messages, caused);
            }
            self.tell(false);
        }
        Ok(())
    }

    fn tell(&mut self, is_founding: bool) {
        let passed = self.world.now() - World::<Overlay>::GENESIS;
        self.is_interrupted |= !(self.attend)(Stage { is_founding, passed, events: self.world.events() });
    }

    fn measure(&mut self) {
        let (at, events, messages, caused) = self.begun;
        self.figures.passed = self.world.now().saturating_sub(at);
        self.figures.events = self.world.events() - events;
        self.figures.messages = self.world.messages() - messages;
        self.figures.control = self.figures.messages - (by_lookups(&self.world) - caused);
    }

    fn ended(mut self, violation: Option<Violation>) -> Outcome {
        if violation.is_some() {
            self.measure();
        }
        self.figures.trace = self.world.trace();
        Outcome { figures: self.figures, violation, is_interrupted: self.is_interrupted }
    }
}

fn by_lookups(world: &World<Overlay>) -> u64 {
    LOOKUP_TYPES.into_iter().map(|number| world.messages_of(number)).sum()
}
