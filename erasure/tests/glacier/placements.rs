//! Goal: C36. Fragments lie where the formula says, on distinct hosts, by weight, and move only when they must. Method: brute
//! force over all seats; a second program, from the page that another node would be written from; every loss of 9 hosts of
//! 16; rings with a host more, fewer, gone, or declared dead, side by side.

use crate::rings::{hosts, name, placement, ring};
use erasure::glacier::placement::position;
use erasure::glacier::{AggregateName, Profile};
use net::id::Id;
use net::ring::{MemberState, RingDocument};
use net::roster::Host;
use std::collections::{BTreeMap, BTreeSet};

fn nobody(_: Host) -> bool {
    false
}

/// The seat nearest to a point, by looking at all of them.
fn nearest(seats: &[(Id, usize)], point: Id, may: impl Fn(usize) -> bool) -> (Id, usize) {
    let seats = seats.iter().copied().filter(|(_, host)| may(*host));
    seats.min_by_key(|(id, _)| (id.distance(point), *id)).expect("somebody is there")
}

#[test]
fn claim_36_fragments_lie_at_their_positions_on_as_many_hosts() {
    // With one seat each, one position in six million yields to its neighbour. With two, a position yields if one of those
    // before it has the other seat of its host: 27.5 in 1,000 on average, within 4 · √308 of 308.
    for (weight, yields) in [(1, 0..=0), (2, 238..=378)] {
        let document = ring(1, vec![weight; 500]);
        let seats: Vec<(Id, usize)> = document.node_ids().collect();
        let (placement, roster) = placement(document);
        assert!(placement.is_by_position(56));
        let mut yielded = 0;
        for nth in 0..200 {
            let name = name(nth, 5, 56);
            let holders = placement.holders(&name, &nobody);
            let distinct: BTreeSet<Host> = holders.iter().filter_map(|id| roster.host(*id)).collect();
            assert_eq!(distinct.len(), 56, "aggregate {nth}");
            let mut taken = BTreeSet::new();
            for (index, holder) in (0..56).zip(&holders) {
                let at = position(&name, index);
                let (id, host) = nearest(&seats, at, |host| !taken.contains(&host));
                assert_eq!(*holder, id, "fragment {index} of aggregate {nth}, weight {weight}");
                taken.insert(host);
                yielded += usize::from(id != nearest(&seats, at, |_| true).0);
            }
            assert_eq!(placement.holder_of_first(&name), Some(holders[0]));
        }
        assert!(yields.contains(&yielded), "{yielded} of 11,200 positions yielded, weight {weight}");
    }
}

#[test]
fn claim_36_every_object_has_as_many_holders_whatever_the_weights() {
    // Evenly weighted with two seats each, by position; unevenly weighted, by rendezvous; at the border between both.
    let rings = [("two seats", vec![2; 500], true), ("1 to 64", (0..500).map(|nth| 1 << (nth % 7)).collect(), false)];
    let border = [("border", vec![1; 224], true), ("below it", vec![1; 223], false)];
    for (what, weights, by_position) in rings.into_iter().chain(border) {
        let (placement, roster) = placement(ring(2, weights));
        assert_eq!(placement.is_by_position(56), by_position, "{what}");
        for nth in 0..500 {
            let name = name(nth, 5, 56);
            let distinct: BTreeSet<Host> = hosts(&placement, &roster, &name, &nobody).into_iter().collect();
            assert_eq!(distinct.len(), 56, "{what}, aggregate {nth}");
            assert_eq!(placement.holder_of_first(&name), placement.holders(&name, &nobody).first().copied());
        }
    }
}

#[test]
fn claim_36_of_sixteen_hosts_any_nine_may_be_killed() {
    let profile = Profile::DEFAULT.for_hosts(16);
    let weights: Vec<u16> = (0..16).map(|nth| 1 + nth % 5).collect();
    let (placement, roster) = placement(ring(3, weights));
    // As this ring makes aggregates, and as one made them that was larger.
    for (needed, total) in [(profile.needed, profile.total), (5, 56)] {
        for nth in 0..20 {
            let name = name(nth, needed, total);
            let holders = hosts(&placement, &roster, &name, &nobody);
            assert_eq!(holders.len(), usize::from(total));
            for killed in (0u32..1 << 16).filter(|killed| killed.count_ones() == 9) {
                let left = holders.iter().filter(|host| killed >> host.0 & 1 == 0).count();
                assert!(left >= usize::from(needed), "{left} of {total} left of aggregate {nth}, killed {killed:b}");
            }
        }
    }
}

#[test]
fn rounds_are_even_and_nobody_is_asked_who_is_gone() {
    for (weights, total) in
        [(vec![1; 16], 56), (vec![3, 1, 9, 1, 2], 56), (vec![1; 300], 56), (vec![1; 40], 20), (vec![7], 255)]
    {
        let count = weights.len() as u32;
        let (placement, roster) = placement(ring(4, weights));
        for nth in 0..30 {
            let name = name(nth, 1, total);
            for left in [count, count - count / 3, count - count * 3 / 5, 1, 0] {
                let is_gone = |host: Host| (host.0 * 7 + nth as u32) % count >= left;
                let holders = hosts(&placement, &roster, &name, &is_gone);
                assert_eq!(holders.len(), if left == 0 { 0 } else { usize::from(total) });
                let mut loads: BTreeMap<Host, usize> = BTreeMap::new();
                for host in holders {
                    assert!(!is_gone(host));
                    *loads.entry(host).or_default() += 1;
                }
                let expected = (left as usize).min(usize::from(total));
                assert_eq!(loads.len(), expected, "{left} of {count} hosts left, aggregate {nth}");
                let (least, most) = (loads.values().min(), loads.values().max());
                assert!(most.copied().unwrap_or(0) <= least.copied().unwrap_or(0) + 1, "{loads:?}");
            }
        }
    }
}

/// The hosts of an aggregate's fragments by rendezvous among active hosts, as docs/glacier.md tells it.
fn by_the_page(ring: &RingDocument, name: &AggregateName) -> Vec<usize> {
    let mix = |number: u64| {
        let first = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let second = (first ^ first >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let third = (second ^ second >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        third ^ third >> 31
    };
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let logarithm = |entry: u64| ((1.0 + entry as f64 / 256.0).log2() * 4_294_967_296.0) as u64;
    let mut loads = vec![0; ring.members.len()];
    (0..u64::from(name.total()))
        .map(|index| {
            let seed = mix(word(&name.bytes()[..8]) ^ mix(word(&name.bytes()[8..16]).wrapping_add(index + 1)));
            let draws = ring.members.iter().map(|member| {
                let salt = word(&RingDocument::node_id(&ring.ring, &member.nonce, 0).0[..8]);
                let draw = mix(seed ^ salt).max(1);
                let zeros = u64::from(draw.leading_zeros());
                let fraction = (u128::from(draw) << (zeros + 1)) as u64;
                let (low, high) = (logarithm(fraction >> 56), logarithm((fraction >> 56) + 1));
                let time = ((1 + zeros) << 32) - low - (((high - low) * (fraction << 8 >> 32)) >> 32);
                u128::from(time) * (1 << 64) / u128::from(member.weight)
            });
            let draws: Vec<u128> = draws.collect();
            let fewest = loads.iter().min().copied().expect("somebody is there");
            let host = (0..loads.len()).filter(|host| loads[*host] == fewest).min_by_key(|host| draws[*host]);
            let host = host.expect("somebody has fewest");
            loads[host] += 1;
            host
        })
        .collect()
}

#[test]
fn rendezvous_is_what_its_page_says() {
    for (weights, total) in [(vec![1; 16], 16), (vec![1, 2, 3, 50, 1, 9, 1], 56), (vec![1; 100], 56), (vec![7], 3)] {
        let document = ring(8, weights);
        let (placement, roster) = placement(document.clone());
        assert!(!placement.is_by_position(total));
        for nth in 0..50 {
            let name = name(nth, 1, total);
            let found: Vec<usize> =
                hosts(&placement, &roster, &name, &nobody).into_iter().map(|host| host.0 as usize).collect();
            assert_eq!(found, by_the_page(&document, &name), "aggregate {nth} of {total}");
        }
    }
}

/// Fragments of `names` aggregates that lie elsewhere in `after` than in `before`, and how many of those lay on, or lie
/// on, the host `changed`.
fn moved(
    before: &RingDocument,
    after: &RingDocument,
    changed: Host,
    total: u8,
    is_gone: &dyn Fn(Host) -> bool,
) -> (usize, usize) {
    let (placement_before, roster_before) = placement(before.clone());
    let (placement_after, roster_after) = placement(after.clone());
    let (mut all, mut of_changed) = (0, 0);
    for nth in 0..300 {
        let name = name(nth, 1, total);
        let were = hosts(&placement_before, &roster_before, &name, &nobody);
        let are = hosts(&placement_after, &roster_after, &name, is_gone);
        for (was, is) in were.into_iter().zip(are).filter(|(was, is)| was != is) {
            all += 1;
            of_changed += usize::from(was == changed || is == changed);
        }
    }
    (all, of_changed)
}

#[test]
fn only_what_must_moves_when_a_host_goes() {
    for (weights, total) in [
        (vec![1; 500], 56),
        (vec![1; 224], 56),
        (vec![2; 300], 20),
        (vec![1; 16], 16),
        (vec![1, 5, 2, 9, 4, 1, 7], 16),
        (vec![3; 60], 56),
    ] {
        let count = weights.len() as u32;
        let before = ring(5, weights.clone());
        let by_position = placement(before.clone()).0.is_by_position(total);
        for changed in [0, count / 2, count - 1].map(Host) {
            let (all, must) = moved(&before, &before, changed, total, &|host| host == changed);
            assert_eq!(all, must, "{weights:?}: gone");
            assert!(all > 0);
            let mut after = before.clone();
            after.members[changed.0 as usize].state = MemberState::Dead;
            assert!(placement(after.clone()).0.is_by_position(total) == by_position);
            let (all, must) = moved(&before, &after, changed, total, &nobody);
            assert_eq!(all, must, "{weights:?}: declared dead");
        }
    }
}

#[test]
fn what_a_new_host_takes_moves_little_else() {
    for (hosts, total) in [(500, 56), (17, 16), (60, 16), (100, 56)] {
        let after = ring(6, vec![1; hosts]);
        let before = ring(6, vec![1; hosts - 1]);
        let (all, must) = moved(&before, &after, Host(hosts as u32 - 1), total, &nobody);
        assert!(must > 0);
        if placement(after).0.is_by_position(total) {
            assert_eq!(all, must, "{hosts} hosts, {total} fragments");
        } else {
            // Whoever loses a home to the new host looks for another; at each later fragment it is the best of those left
            // with a chance of one in as many as are left.
            let chain = (hosts as f64 / (hosts - usize::from(total) + 1) as f64).ln();
            let bound = must as f64 * (1.0 + chain);
            assert!(
                all as f64 <= bound,
                "{hosts} hosts, {total} fragments: {all} moved, {must} must, {bound} expected"
            );
        }
    }
}

/// Fragments of `names` aggregates by the weight of their host, for one host.
fn loads_by_weight(weights: &[u16], total: u8, names: u64) -> BTreeMap<u16, f64> {
    let (placement, roster) = placement(ring(7, weights.to_vec()));
    let mut loads: BTreeMap<u16, f64> = BTreeMap::new();
    for nth in 0..names {
        for host in hosts(&placement, &roster, &name(nth, 1, total), &nobody) {
            let weight = weights[host.0 as usize];
            let alike = weights.iter().filter(|other| **other == weight).count();
            *loads.entry(weight).or_default() += 1.0 / alike as f64;
        }
    }
    loads
}

#[test]
fn load_follows_weight() {
    // One fragment by rendezvous: a host's share is its weight's share, but for chance (four standard deviations) and the
    // error of the logarithm.
    let weights: Vec<u16> = (0..8).map(|nth| [1, 2, 4, 32][nth % 4]).collect();
    let names = 40_000;
    assert!(!placement(ring(7, weights.clone())).0.is_by_position(1));
    for (weight, load) in loads_by_weight(&weights, 1, names) {
        let share = f64::from(weight) / 78.0;
        let expected = names as f64 * share;
        let deviation = (names as f64 * 2.0 * share).sqrt() / 2.0;
        let tolerance = 4.0 * deviation + 0.002 * expected;
        assert!((load - expected).abs() < tolerance, "weight {weight}: {load} instead of {expected} ± {tolerance}");
    }

    // Many on distinct hosts: no host has more than one, so that the heavy fall behind. Those of weight w are taken with
    // probability 1 − e^(−w·t), where t is such that 56 are. That is the limit for many hosts; with 500 it is right to a
    // few parts in a thousand, chance is another per cent.
    let weights: Vec<u16> = (0..500).map(|nth| [1, 2, 4, 16][nth % 4]).collect();
    let taken = |time: f64| [1.0, 2.0, 4.0, 16.0].map(|weight: f64| 1.0 - (-weight * time).exp());
    let time =
        (1..100_000).map(|step| f64::from(step) * 1e-6).find(|time| 125.0 * taken(*time).iter().sum::<f64>() >= 56.0);
    let expected = taken(time.expect("far below 0.1"));
    for ((weight, load), expected) in loads_by_weight(&weights, 56, 2_000).into_iter().zip(expected) {
        let ratio = load / 2_000.0 / expected;
        assert!((0.97..1.03).contains(&ratio), "weight {weight}: {ratio} of what is expected");
    }

    // By position a host's load is its arc, for one seat as uneven as chance (standard deviation √½ of the mean), and two
    // of weight 2 have four: the mean of 400 hosts is right to four times √½/√400, or 0.14; of their ratio, to 0.17.
    let weights: Vec<u16> = (0..800).map(|nth| [1, 2][nth % 2]).collect();
    let loads = loads_by_weight(&weights, 56, 2_000);
    assert!(placement(ring(7, weights)).0.is_by_position(56));
    let ratio = loads[&2] / loads[&1] / 2.0;
    assert!((0.83..1.17).contains(&ratio), "twice the weight has {ratio} of twice the load");
}
