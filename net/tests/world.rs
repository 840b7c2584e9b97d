//! Goal: the world itself can be trusted. Method: the same seed twice, in rough weather and through the wire codec.

use net::id::{Key, Kind};
use net::limits::SECOND;
use net::machine::Command;
use net::ring::Parameters;
use net::sim::{Founding, Weather};

fn run(seed: u64) -> (u64, u64) {
    let founding = Founding::new(seed, 40, Parameters::DEFAULT);
    let mut world = founding.world(seed, Weather::ROUGH);
    world.uses_codec = true;
    world.run_for(60 * SECOND);
    let expiry = world.now() / SECOND + 86_400;
    for i in 0..50u8 {
        let value = bytes::Bytes::from(vec![i; 300]);
        let key = Key::of(Kind::Content, &value);
        world.command(usize::from(i) % 40, Command::Insert { key, value, expiry });
        if i == 25 {
            world.kill(3);
        }
    }
    world.run_for(600 * SECOND);
    (world.trace(), world.events())
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first.0, run(8).0, "another seed gives another run");
}
