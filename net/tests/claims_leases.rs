//! Goal: C28 whole, with what it must not cost of C24: no store deletes what was extended while its node was away, asleep, cut
//! off, or wrong about the time; and what nobody extended still goes, and does not come back.
//! Method: whole overlays in virtual time, with leases of an hour and a grace of ten minutes; every disk is looked at each
//! minute. The control of each is the same run with a node that claims to have agreed on all leases, whatever it has done.
//! Seeds are fixed and printed.

use ed25519_dalek::{Signer, SigningKey};
use net::id::{Id, Key, Kind};
use net::limits::SECOND;
use net::machine::{Action, Command, Micros, Reply, StorageOperation};
use net::overlay::Overlay;
use net::past::block::encode_signed;
use net::ring::{MemberState, Parameters};
use net::sim::{Dice, Founding, NodeIndex, Weather, World};

const MINUTE: Micros = 60 * SECOND;
const LEASE_S: u64 = 3_600;
const GRACE_S: u64 = 600;
const AWAY: NodeIndex = 3;

struct Run {
    founding: Founding,
    world: World<Overlay>,
    /// Objects on the node that goes away, which are extended.
    kept: Vec<Key>,
    /// Objects on it which are not.
    left: Vec<Key>,
    /// When the first leases end.
    expiry: u64,
}

impl Run {
    fn new(seed: u64, count: usize) -> Run {
        Run::with_heads_on(seed, count, Parameters::DEFAULT.k_head)
    }

    fn with_heads_on(seed: u64, count: usize, k_head: u8) -> Run {
        println!("seed {seed}, {count} nodes, heads on {k_head}");
        let parameters = Parameters { lease_s: LEASE_S, grace_s: GRACE_S, k_head, ..Parameters::DEFAULT };
        let founding = Founding::new(seed, count, parameters);
        let mut world = founding.world(seed, Weather::FAIR);
        world.run_for(MINUTE);
        let expiry = world.now() / SECOND + LEASE_S;
        let mut dice = Dice::new(seed);
        let mut keys = Vec::new();
        for _ in 0..80 {
            let value = dice.bytes(64);
            let key = Key::of(Kind::Content, &value);
            let reply = world.ask(0, Command::Insert { key, value, expiry });
            assert!(matches!(reply, Some(Reply::Stored { .. })), "{reply:?}");
            keys.push(key);
        }
        world.run_for(5 * SECOND);
        keys.retain(|key| world.store(AWAY).get(key).is_some());
        assert!(keys.len() >= 6, "the node that goes away holds something");
        let left = keys.split_off(keys.len() / 2);
        Run { founding, world, kept: keys, left, expiry }
    }

    /// Lets time pass until this moment, in seconds; extends the leases of `kept` every half hour.
    fn pass_until(&mut self, end_s: u64) {
        while self.now_s() < end_s {
            let expiry = self.now_s() + LEASE_S;
            let reply = self.world.ask(0, Command::Refresh { keys: self.kept.clone(), expiry });
            assert!(matches!(&reply, Some(Reply::Refreshed { known }) if *known == self.kept.len()), "{reply:?}");
            self.world.run_for((30 * MINUTE).min(end_s.saturating_sub(self.now_s()).max(1) * SECOND));
        }
    }

    /// Stores heads whose leases end with the others', and keeps those that all of these nodes hold.
    fn heads_on(&mut self, nodes: &[NodeIndex]) -> Vec<Key> {
        let mut heads = Vec::new();
        for of in 0..60 {
            let owner = SigningKey::from_bytes(&[of + 1; 32]);
            let public = owner.verifying_key().to_bytes();
            let key = Key::of(Kind::Head, &public);
            let value = encode_signed(Kind::Head, &public, 1, b"head", |bytes| owner.sign(bytes).to_bytes());
            let expiry = self.expiry;
            let reply = self.world.ask(0, Command::PutSigned { key, value, expiry });
            assert!(matches!(reply, Some(Reply::Stored { .. })), "{reply:?}");
            heads.push(key);
        }
        self.world.run_for(5 * SECOND);
        heads.retain(|key| nodes.iter().all(|node| self.world.store(*node).get(key).is_some()));
        assert!(heads.len() > 3, "some heads are there");
        heads
    }

    /// Declares these nodes dead, and lets the others learn of it.
    fn declare_dead(&mut self, nodes: &[NodeIndex]) {
        let dead: Vec<Id> = nodes.iter().map(|node| self.world.id(*node)).collect();
        let newer = self.founding.amended(|ring| {
            let hosts: Vec<usize> = ring.node_ids().filter(|(id, _)| dead.contains(id)).map(|(_, host)| host).collect();
            hosts.into_iter().for_each(|host| ring.members[host].state = MemberState::Dead);
        });
        assert!(matches!(self.world.ask(0, Command::AdoptRing { document: newer.document() }), Some(Reply::Done)));
    }

    /// How many copies of any of these the living have.
    fn copies_on_the_living(&self, keys: &[Key]) -> usize {
        self.world.nodes().filter(|node| self.world.is_alive(*node)).map(|node| self.on(node, keys)).sum()
    }

    fn now_s(&self) -> u64 {
        self.world.now() / SECOND
    }

    fn start(&mut self, node: NodeIndex) {
        let id = self.world.id(node);
        self.world.start(node, self.founding.overlay(id, self.world.now(), Vec::new()));
    }

    fn on(&self, node: NodeIndex, keys: &[Key]) -> usize {
        keys.iter().filter(|key| self.world.store(node).get(key).is_some()).count()
    }

    /// How many nodes hold any of the objects that nobody extended.
    fn holders_of_left(&self) -> usize {
        self.world.nodes().filter(|node| self.on(*node, &self.left) > 0).count()
    }

    /// Whether the node knows of the later leases of all that it held.
    fn has_adopted(&self) -> bool {
        let lease = |key| self.world.store(AWAY).get(key).map(|stored| stored.expiry);
        self.kept.iter().all(|key| lease(key).is_some_and(|expiry| expiry > self.now_s()))
    }

    /// Runs minute by minute; returns the least number of the extended objects seen on the node.
    fn watch(&mut self, minutes: u64) -> usize {
        let looks = (0..minutes).map(|_| {
            self.world.run_for(MINUTE);
            self.on(AWAY, &self.kept)
        });
        looks.min().unwrap_or(0)
    }

    /// From now on the node says that it has agreed on all leases there are.
    fn ignore_the_hold(&mut self) {
        let always = Action::LeasesAgreed { through: u64::MAX };
        self.world.corrupt(AWAY, Box::new(move |action| vec![action, always.clone()]));
    }
}

/// The node is away for ten times the grace after its leases ended; on return it is cut off for an hour before it can ask.
fn long_absence(ignores: bool) -> (Run, usize) {
    let mut run = Run::new(0xc28a, 12);
    run.world.kill(AWAY);
    run.pass_until(run.expiry + 10 * GRACE_S);
    assert_eq!(run.on(AWAY, &run.kept), run.kept.len(), "a dead process deletes nothing");
    run.world.network().set_side(AWAY, 1);
    if ignores {
        run.ignore_the_hold();
    }
    run.start(AWAY);
    let least = run.watch(60);
    (run, least)
}

#[test]
fn claim_28_a_holder_away_for_ten_graces_adopts_the_later_lease() {
    let (mut run, least) = long_absence(false);
    assert_eq!(least, run.kept.len(), "alone it deletes nothing");
    assert_eq!(run.on(AWAY, &run.left), run.left.len());
    assert_eq!(run.holders_of_left(), 1, "on the others what nobody extended has gone");
    run.world.network().set_side(AWAY, 0);
    run.pass_until(run.now_s() + 1);
    let least = run.watch(12);
    assert_eq!(least, run.kept.len());
    assert!(run.has_adopted());
    assert_eq!(run.on(AWAY, &run.left), 0, "what nobody extended goes, once the others were asked");
    assert_eq!(run.holders_of_left(), 0, "and does not come back");
}

#[test]
fn claim_28_control_a_store_that_does_not_wait_deletes() {
    let (run, least) = long_absence(true);
    assert_eq!(least, 0, "of {}", run.kept.len());
}

fn long_sleep(ignores: bool) -> (Run, usize) {
    let mut run = Run::new(0xc28b, 12);
    let length = LEASE_S + 10 * GRACE_S;
    run.world.sleep(AWAY, length * SECOND);
    // What is sent to a sleeper would be read when it wakes; its link is down, and still is then.
    run.world.network().set_side(AWAY, 1);
    if ignores {
        run.ignore_the_hold();
    }
    run.pass_until(run.now_s() + length - 30);
    let least = run.watch(20);
    (run, least)
}

#[test]
fn claim_28_a_sleeper_deletes_nothing_before_it_has_asked() {
    let (mut run, least) = long_sleep(false);
    assert_eq!(least, run.kept.len());
    run.world.network().set_side(AWAY, 0);
    run.pass_until(run.now_s() + 1);
    assert_eq!(run.watch(15), run.kept.len());
    assert!(run.has_adopted());
    assert_eq!(run.holders_of_left(), 0);
}

#[test]
fn claim_28_control_a_sleeper_that_does_not_wait_deletes() {
    let (run, least) = long_sleep(true);
    assert_eq!(least, 0, "of {}", run.kept.len());
}

fn wrong_clock(ignores: bool) -> (Run, usize) {
    let mut run = Run::new(0xc28c, 12);
    if ignores {
        run.ignore_the_hold();
    }
    run.world.set_clock(AWAY, 40 * 86_400 * SECOND as i64);
    let least = run.watch(30);
    (run, least)
}

/// By this node's clock all leases have long ended; its partners keep what is under the same lease, and it sees that.
#[test]
fn claim_28_a_clock_that_is_ahead_ends_no_lease() {
    let (mut run, least) = wrong_clock(false);
    assert_eq!(least, run.kept.len());
    assert_eq!(run.on(AWAY, &run.left), run.left.len());
    // Until the others delete, too; then there is nothing to contradict it.
    run.pass_until(run.expiry + GRACE_S + 20 * 60);
    assert_eq!(run.on(AWAY, &run.kept), run.kept.len());
}

#[test]
fn claim_28_control_a_clock_that_is_ahead_and_not_doubted_ends_leases() {
    let (run, least) = wrong_clock(true);
    assert_eq!(least, 0, "of {}", run.kept.len());
}

/// Members that never come back hold nothing up, as long as there are others for content, and enough eligible ones for signed
/// blocks.
#[test]
fn the_dead_hold_nothing_up_for_ever() {
    let mut run = Run::new(0xc28d, 12);
    let heads = run.heads_on(&[AWAY]);
    run.world.kill(AWAY);
    run.pass_until(run.expiry + GRACE_S + 10 * 60);
    assert_eq!(run.holders_of_left(), 1, "only the dead one's disk still has what nobody extended");
    assert_eq!(run.copies_on_the_living(&heads), 0, "four of five are enough to agree with");
}

/// Where too few of a head's members are left to agree with, the head stays until the CA has declared the missing dead, and
/// all that is content goes in its time.
fn heads_alone_wait(mut run: Run, dead: &[NodeIndex]) {
    let heads = run.heads_on(dead);
    dead.iter().for_each(|node| run.world.kill(*node));
    let before = run.copies_on_the_living(&heads);
    assert!(before > 0);
    // The hold-up would be for ever; what there is is looked at long after the time.
    for _ in 0..4 {
        run.pass_until(run.expiry.max(run.now_s()) + GRACE_S + 30 * 60);
        assert_eq!(run.copies_on_the_living(&heads), before, "nobody can say that they were not extended");
    }
    assert_eq!(run.copies_on_the_living(&run.left), 0, "content goes");
    assert!(
        run.kept.iter().all(|key| run.copies_on_the_living(std::slice::from_ref(key)) >= 2),
        "what is extended stays"
    );
    run.declare_dead(dead);
    run.pass_until(run.now_s() + GRACE_S + 15 * 60);
    assert_eq!(run.copies_on_the_living(&heads), 0);
    assert!(run.kept.iter().all(|key| run.copies_on_the_living(std::slice::from_ref(key)) >= 2));
}

#[test]
fn heads_on_three_wait_for_the_one_that_is_dead_and_nothing_waits_for_them() {
    heads_alone_wait(Run::with_heads_on(0xc290, 12, 3), &[AWAY]);
}

/// The control: nodes that cannot keep heads by themselves keep everything.
#[test]
fn control_content_waits_for_heads_that_are_not_kept_by_hand() {
    let mut run = Run::with_heads_on(0xc290, 12, 3);
    run.heads_on(&[AWAY]);
    run.world.kill(AWAY);
    let is_head = |leases: &[(Key, u64)]| leases.iter().all(|(key, _)| key.kind == Kind::Head);
    for node in run.world.nodes() {
        let without = move |action: Action| match action {
            Action::Storage { operation: StorageOperation::Touch { leases }, .. } if is_head(&leases) => vec![],
            other => vec![other],
        };
        run.world.corrupt(node, Box::new(without));
    }
    run.pass_until(run.expiry + GRACE_S + 150 * 60);
    assert!(run.copies_on_the_living(&run.left) > 0);
}

#[test]
fn heads_on_five_wait_for_two_that_are_dead_and_nothing_waits_for_them() {
    heads_alone_wait(Run::new(0xc28e, 5), &[1, 2]);
}

/// A node that is the whole ring agrees with itself.
#[test]
fn a_ring_of_one_deletes_by_itself() {
    let parameters = Parameters { lease_s: LEASE_S, grace_s: GRACE_S, ..Parameters::DEFAULT };
    let founding = Founding::new(0xc28f, 1, parameters);
    let mut world = founding.world(0xc28f, Weather::FAIR);
    world.run_for(MINUTE);
    let value = Dice::new(1).bytes(64);
    let key = Key::of(Kind::Content, &value);
    let expiry = world.now() / SECOND + LEASE_S;
    assert!(matches!(world.ask(0, Command::Insert { key, value, expiry }), Some(Reply::Stored { copies: 1, .. })));
    while world.now() / SECOND < expiry + GRACE_S {
        assert!(world.store(0).get(&key).is_some());
        world.run_for(30 * SECOND);
    }
    world.run_for(2 * MINUTE);
    assert!(world.store(0).get(&key).is_none());
}
