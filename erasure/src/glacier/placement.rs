//! Where fragments lie: each on a host of its own, as long as there are so many.
//!
//! **By position**, in a ring of many hosts: fragment i of n belongs to the seat nearest to h + i/n (mod 1), h being the
//! aggregate's placement. Aggregates whose h are near each other share their holders, as objects share their replicas.
//!
//! **By rendezvous**, where positions would meet: every pair of fragment and host draws a number from the name, and a fragment
//! goes to the host with the best one, so that a host of twice the weight is chosen twice as often.
//!
//! *Which of both* follows from the share that the heaviest host has of all seats: positions while that is at most 1 in 4n, so that
//! no host expects more than a quarter of a fragment of any aggregate. In an evenly weighted ring these are 4n hosts, 224 of
//! them for 56 fragments; there one position in 600 has its neighbour's seat nearest, in a ring of 500 one in six million
//! ((1 + x)·e^(−2x) for x seats a position, seats being scattered by chance). A ring that grows past that border places its
//! aggregates anew, once. It does not fall back when hosts leave: all members that the document lists count, the dead included.
//!
//! **When a host is taken already**, or gone, the next best takes its place. First all fragments find their homes, whoever is gone;
//! only then do those whose home is gone find substitutes among the hosts that have fewest. So nothing moves for a host that
//! goes but what it had, and all of it comes home when it returns. Homes are sought among all members that have or had a
//! place, so that declaring a host dead moves nothing else either. What a *new* host takes by rendezvous may be the home of
//! another, which looks for a new one in turn, on average ln(H / (H − n + 1)) times among H hosts.
//!
//! **The same everywhere.** Names and ids are hashes, so a few multiplications mix them; the weighted draw needs a logarithm, and
//! takes it from a table of integers that the compiler makes. No floating point is involved, hence no library's rounding.

use super::name::AggregateName;
use bytes::Bytes;
use net::id::Id;
use net::ring::MemberState;
use net::roster::{Host, Roster};
use std::sync::Arc;

/// By position if the heaviest host has at most one seat in so many for each fragment.
const SEATS_PER_FRAGMENT_MIN: u64 = 4;

/// The holders of every aggregate, by one ring document.
#[derive(Clone, Debug)]
pub struct Placement {
    /// All members that have or had a place on the ring, as if they were active.
    everyone: Arc<Roster>,
    /// The same in the document's order.
    candidates: Vec<Candidate>,
    /// Of each member of the document, whether it is active.
    active: Vec<bool>,
    /// How many are.
    hosts: usize,
    /// The seats of all candidates together.
    seats: u64,
    /// The weight of the heaviest of them.
    heaviest: u16,
}

/// A member as rendezvous sees it.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    host: Host,
    weight: u16,
    /// The beginning of its first id, which is a hash.
    salt: u64,
}

/// The candidate that has drawn best so far.
#[derive(Clone, Copy, Debug)]
struct Best {
    draw: u64,
    cost: u64,
    candidate: Candidate,
}

impl Placement {
    /// Arranges the members of a ring.
    #[must_use]
    pub fn new(roster: Arc<Roster>) -> Placement {
        let active: Vec<bool> =
            roster.ring().members.iter().map(|member| member.state == MemberState::Active).collect();
        let hosts = active.iter().filter(|is_active| **is_active).count();
        let everyone = as_if_active(roster);
        let ring = everyone.ring();
        let members = ring.members.iter().zip(0..).filter(|(member, _)| member.state == MemberState::Active);
        let candidates = members.map(|(member, host)| {
            let id = everyone.id_of(Host(host), 0).expect("a member's id");
            Candidate { host: Host(host), weight: member.weight, salt: word(&id.0, 0) }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let seats = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
        let heaviest = candidates.iter().map(|candidate| candidate.weight).max().unwrap_or(0);
        Placement { everyone, candidates, active, hosts, seats, heaviest }
    }

    /// How many hosts are given fragments.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// Whether aggregates of so many fragments are placed by position, and not by rendezvous.
    #[must_use]
    pub fn is_by_position(&self, total: u8) -> bool {
        u64::from(self.heaviest) * u64::from(total) * SEATS_PER_FRAGMENT_MIN <= self.seats
    }

    /// The node that holds each fragment, in the order of their indexes: on distinct hosts while there are so many that are not
    /// gone, then round by round. Empty if nobody is left.
    #[must_use]
    pub fn holders(&self, name: &AggregateName, is_gone: &dyn Fn(Host) -> bool) -> Vec<Id> {
        let is_out = |host| !self.is_active(host) || is_gone(host);
        if self.is_by_position(name.total()) {
            self.assigned(name.total(), &is_out, &|index, may| self.nearest(name, index, may))
        } else {
            self.assigned(name.total(), &is_out, &|index, may| self.drawn(name, index, may))
        }
    }

    /// The first of [`Placement::holders`] while nobody is gone, for much less work; none in a ring without active members.
    #[must_use]
    pub fn holder_of_first(&self, name: &AggregateName) -> Option<Id> {
        let home = if self.is_by_position(name.total()) {
            self.nearest(name, 0, &|_| true)
        } else {
            self.drawn(name, 0, &|_| true)
        };
        match home {
            Some((id, host)) if self.is_active(host) => Some(id),
            // Its home is not active any more, and its substitute depends on the homes of the others.
            _ => self.holders(name, &|_| false).first().copied(),
        }
    }

    fn is_active(&self, host: Host) -> bool {
        self.active.get(host.0 as usize).is_some_and(|is_active| *is_active)
    }

    /// Finds homes for all fragments, then substitutes for the homes that are out. `finder` finds the best host for a fragment
    /// among those that may have it.
    fn assigned(&self, total: u8, is_out: &dyn Fn(Host) -> bool, finder: Finder<'_>) -> Vec<Id> {
        let mut rounds = Rounds { loads: vec![0; self.active.len()], fullest: 0, total };
        let homes: Option<Vec<(Id, Host)>> = (0..total).map(|index| rounds.place(index, &|_| true, finder)).collect();
        let Some(homes) = homes else { return Vec::new() };
        rounds.fullest = 0;
        let placed = (0..total).zip(homes).map(|(index, (id, host))| {
            if !is_out(host) {
                return Some(id);
            }
            rounds.place(index, &|host| !is_out(host), finder).map(|(id, _)| id)
        });
        placed.collect::<Option<Vec<Id>>>().unwrap_or_default()
    }

    /// The seat nearest to a fragment's position, on a host that may have it.
    fn nearest(&self, name: &AggregateName, index: u8, may: &dyn Fn(Host) -> bool) -> Option<(Id, Host)> {
        self.everyone.nearest_active(position(name, index)).find(|(_, host)| may(*host))
    }

    /// The host that drew best for a fragment, among those that may have it, by one of its ids.
    fn drawn(&self, name: &AggregateName, index: u8, may: &dyn Fn(Host) -> bool) -> Option<(Id, Host)> {
        let seed = seed(name, 1 + u64::from(index));
        let mut best: Option<Best> = None;
        for candidate in &self.candidates {
            let draw = mixed(seed ^ candidate.salt);
            // A lower draw never costs less, so at no more weight it does not win: most need no logarithm.
            if best.is_some_and(|best| draw <= best.draw && candidate.weight <= best.candidate.weight) {
                continue;
            }
            let cost = cost(draw);
            // The lower cost a weight, without dividing: cost / weight < cost' / weight'. Of equals the first member.
            let is_better = best
                .is_none_or(|best| cost * u64::from(best.candidate.weight) < best.cost * u64::from(candidate.weight));
            if is_better && may(candidate.host) {
                best = Some(Best { draw, cost, candidate: *candidate });
            }
        }
        best.map(|best| (self.id_of(name, best.candidate), best.candidate.host))
    }

    /// The id by which a host holds fragments of this aggregate: any of its ids, always the same.
    fn id_of(&self, name: &AggregateName, candidate: Candidate) -> Id {
        let draw = mixed(seed(name, 0) ^ candidate.salt);
        let index = (u128::from(draw) * u128::from(candidate.weight)) >> 64;
        let index = u16::try_from(index).expect("below the weight");
        self.everyone.id_of(candidate.host, index).expect("a candidate's id")
    }
}

/// Finds the best host for a fragment, of those that may have it, and the id by which it does.
type Finder<'a> = &'a dyn Fn(u8, &dyn Fn(Host) -> bool) -> Option<(Id, Host)>;

/// How many fragments each host has by now.
struct Rounds {
    loads: Vec<u8>,
    /// Every host that may have a fragment has at least so many.
    fullest: u8,
    total: u8,
}

impl Rounds {
    /// Gives a fragment to the best host among those that have fewest.
    fn place(&mut self, index: u8, may: &dyn Fn(Host) -> bool, finder: Finder<'_>) -> Option<(Id, Host)> {
        while self.fullest < self.total {
            let has_fewest = |host: Host| self.loads[host.0 as usize] <= self.fullest && may(host);
            if let Some((id, host)) = finder(index, &has_fewest) {
                self.loads[host.0 as usize] += 1;
                return Some((id, host));
            }
            self.fullest += 1;
        }
        None
    }
}

/// The roster in which all members that have or had a place are active.
fn as_if_active(roster: Arc<Roster>) -> Arc<Roster> {
    let had_place = |state: MemberState| matches!(state, MemberState::Draining | MemberState::Dead);
    if !roster.ring().members.iter().any(|member| had_place(member.state)) {
        return roster;
    }
    let mut ring = roster.ring().clone();
    for member in ring.members.iter_mut().filter(|member| had_place(member.state)) {
        member.state = MemberState::Active;
    }
    Arc::new(Roster::new(ring, Bytes::new()))
}

/// The position of a fragment: h + ⌊i · 2^160 / n⌋ (mod 2^160).
#[must_use]
pub fn position(name: &AggregateName, index: u8) -> Id {
    // Long division by n in digits of 32 bits; what is left of i is the first remainder.
    let divisor = u64::from(name.total());
    let mut remainder = u64::from(index) % divisor;
    let mut offset = [0; Id::LEN];
    for digit in offset.as_chunks_mut::<4>().0 {
        let dividend = remainder << 32;
        *digit = u32::try_from(dividend / divisor).expect("the remainder is below the divisor").to_be_bytes();
        remainder = dividend % divisor;
    }
    name.placement().wrapping_add(Id(offset))
}

/// The `at`-th eight bytes of an id or a name.
fn word(bytes: &[u8], at: usize) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.get(at).map_or(0, |word| u64::from_le_bytes(*word))
}

/// What a name contributes to the draws for one purpose.
fn seed(name: &AggregateName, purpose: u64) -> u64 {
    mixed(word(name.bytes(), 0) ^ mixed(word(name.bytes(), 1).wrapping_add(purpose)))
}

/// Every bit of the result depends on every bit of the number (the finisher of SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// −log₂ of a draw as a fraction of all, in 2⁻³² parts: how long a host takes, at weight one, until it claims the fragment.
/// Divided by their weights, these are waiting times of which a host has the shortest with the probability of its weight.
///
/// Between the entries of the table it is interpolated, which is wrong by 0.2 % of itself at most, where hosts win.
fn cost(draw: u64) -> u64 {
    let draw = draw.max(1);
    let zeros = draw.leading_zeros();
    // 1.xxx in 64 bits: the whole one, then eight bits that choose the entry, then what is interpolated by.
    let mantissa = draw << zeros;
    let entry = usize::from((mantissa << 1).to_be_bytes()[0]);
    let fraction = (mantissa << 9) >> 32;
    let (below, above) = (LOGARITHMS[entry], LOGARITHMS[entry + 1]);
    let logarithm = below + (((above - below) * fraction) >> 32);
    (u64::from(1 + zeros) << 32) - logarithm
}

/// log₂(1 + k / 256) for k = 0 to 256, in 2⁻³² parts.
static LOGARITHMS: [u64; 257] = logarithms();

/// Digit by digit: squaring doubles the logarithm, and its whole part is the next binary digit.
const fn logarithms() -> [u64; 257] {
    let mut all = [1 << 32; 257];
    let mut entry = 0;
    while entry < 256 {
        // In 2⁻⁶² parts, so that a square fits.
        let mut number = (256 + entry as u128) << 54;
        let mut digits = 0;
        let mut count = 0;
        while count < 32 {
            number = (number * number) >> 62;
            let is_two_or_more = number >> 63;
            number >>= is_two_or_more;
            digits = digits << 1 | is_two_or_more as u64;
            count += 1;
        }
        all[entry] = digits;
        entry += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    //! Goal: the integers are the logarithm, and positions are the fractions. Method: the floating-point logarithm; the
    //! fraction multiplied back.
    use super::*;

    #[test]
    fn the_cost_is_the_logarithm() {
        let mut draw = 1u64;
        let mut before = u64::MAX;
        loop {
            let expected = 64.0 - (draw as f64).log2();
            let found = cost(draw) as f64 / f64::from(2).powi(32);
            assert!((found - expected).abs() < 3e-6, "{draw}: {found} instead of {expected}");
            assert!(cost(draw) <= before, "a better draw costs more: {draw}");
            before = cost(draw);
            // Where hosts win, near all of it, what counts is the error as a part of the whole.
            if (1e-6..0.005).contains(&expected) {
                assert!((found / expected - 1.0).abs() < 0.0021, "{draw}: {found} instead of {expected}");
            }
            let Some(next) = draw.checked_add((u64::MAX - draw) / 1_000 + draw / 1_000_000 + 1) else { break };
            draw = next;
        }
        assert_eq!(cost(u64::MAX) >> 1, 0);
    }

    #[test]
    fn the_table_is_the_logarithm_rounded_down() {
        for (entry, found) in LOGARITHMS.into_iter().enumerate() {
            let expected = (1.0 + entry as f64 / 256.0).log2() * f64::from(2).powi(32);
            assert_eq!(found, expected as u64, "{entry}");
        }
    }

    #[test]
    fn positions_are_the_fractions_rounded_down() {
        for total in 1..=255u8 {
            let name = AggregateName::of_manifest(b"manifest", 1, total).expect("a profile");
            for index in 0..total {
                // n times the exact offset is i · 2^160, which is zero here; rounded down, it is less than n below that.
                let offset = position(&name, index).wrapping_sub(name.placement());
                let sum = (0..total).fold(Id::default(), |sum, _| sum.wrapping_add(offset));
                let missing = Id::default().wrapping_sub(sum);
                assert!(missing.0[..19] == [0; 19] && missing.0[19] < total, "{index} of {total}");
                // And it is that fraction, not another with the same product.
                let [high, low, ..] = offset.0;
                let expected = 65_536 * u32::from(index) / u32::from(total);
                assert_eq!(u32::from(high) << 8 | u32::from(low), expected);
            }
        }
    }
}
