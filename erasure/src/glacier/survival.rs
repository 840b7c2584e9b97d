//! What a profile is worth: the probability that an aggregate is lost when many hosts fail at once.
//!
//! m fragments lie on m of H hosts, and a fraction f of the hosts fails, drawn by chance: K = ⌈f·H⌉ of them. The fragments
//! that are left are as many as the survivors have when S = H − K are drawn without putting back (hypergeometric):
//!
//! ```text
//! P(lost) = Σ over i < r of  C(m, i) · C(H − m, S − i) / C(H, S)
//! ```
//!
//! Where there are more fragments than hosts every host has ⌊m / H⌋ of them and the m mod H others are drawn in the same way.
//! For many hosts this is the original's formula, Σ C(m, i)·(1 − f)^i·f^(m − i), in which each fragment fails by itself
//! ([`lost_if_independent`]); with fewer hosts less is lost, because a failed host cannot be drawn twice.
//!
//! **How it is computed.** Both are sums of a few terms of a distribution whose neighbouring terms have a simple ratio. From the
//! largest term, taken as 1, all others follow by multiplying; the sum of those below r is divided by the sum of all. Nothing
//! cancels, since all terms are positive, nothing overflows, since all are at most 1, and what underflows is less than
//! 10⁻³⁰⁰ of the rest. A term is the product of at most 255 ratios, each right to a few times 10⁻¹⁶: the result is right to
//! 10⁻¹². Only the four basic operations are used, so that it is the same on every processor.

use super::profile::Profile;

/// The probability that an aggregate with `present` fragments left, on different hosts as long as there are so many, is lost
/// when this fraction of all `hosts` fails at once, rounded up to whole hosts.
#[must_use]
pub fn lost_if_killed(profile: Profile, present: u8, hosts: usize, fraction: f64) -> f64 {
    let (needed, present) = (usize::from(profile.needed), usize::from(present));
    let survivors = hosts - killed(hosts, fraction);
    if hosts == 0 {
        return 1.0;
    }
    let (on_each, drawn) = (present / hosts, present % hosts);
    let Some(needed) = needed.checked_sub(on_each * survivors).filter(|needed| *needed > 0) else {
        return 0.0;
    };
    // Of `drawn` fragments at least those are left for which there are not enough failures, and at most the survivors'.
    let (least, most) = ((drawn + survivors).saturating_sub(hosts), drawn.min(survivors));
    let mode = (drawn + 1) * (survivors + 1) / (hosts + 2);
    let [all, chosen, left] = [hosts, drawn, survivors].map(|number| number as f64);
    let ratio = |term: f64| (chosen - term) * (left - term) / ((term + 1.0) * (all - chosen - left + term + 1.0));
    share_below(needed, least, most, mode, ratio)
}

/// The same if every fragment is lost by itself with this probability: the limit for many hosts.
#[must_use]
pub fn lost_if_independent(profile: Profile, present: u8, fraction: f64) -> f64 {
    let (needed, present) = (usize::from(profile.needed), usize::from(present));
    let fraction = fraction.clamp(0.0, 1.0);
    if fraction == 0.0 || fraction == 1.0 {
        let left = if fraction == 0.0 { present } else { 0 };
        return if left < needed { 1.0 } else { 0.0 };
    }
    let odds = (1.0 - fraction) / fraction;
    let drawn = present as f64;
    let mode = ((drawn + 1.0) * (1.0 - fraction)) as usize;
    share_below(needed, 0, present, mode, |term| (drawn - term) / (term + 1.0) * odds)
}

/// How many hosts may be lost at once, whichever they are, from an aggregate that is about to be repaired.
#[must_use]
pub fn hosts_that_may_be_lost(profile: Profile) -> u8 {
    profile.repair_at.saturating_sub(profile.needed)
}

/// How many hosts a failure of this fraction takes, rounded up.
#[must_use]
pub fn killed(hosts: usize, fraction: f64) -> usize {
    // Less what a fraction such as 0.07 is above what was meant, which would kill one more of 100.
    let exact = fraction.clamp(0.0, 1.0) * hosts as f64 - 1e-9;
    (exact.ceil().max(0.0) as usize).min(hosts)
}

/// The sum of a distribution's terms below `bound`, as a share of all its terms, `least` to `most`. `ratio` is what a term is
/// multiplied with to have the next one; `mode` is near the largest term.
fn share_below(bound: usize, least: usize, most: usize, mode: usize, ratio: impl Fn(f64) -> f64) -> f64 {
    let mode = mode.clamp(least, most);
    let mut sums = [0.0; 2];
    let mut add = |term: usize, size: f64| sums[usize::from(term >= bound)] += size;
    add(mode, 1.0);
    let mut size = 1.0;
    for term in mode..most {
        size *= ratio(term as f64);
        add(term + 1, size);
    }
    size = 1.0;
    for term in (least..mode).rev() {
        size /= ratio(term as f64);
        add(term, size);
    }
    let [below, rest] = sums;
    below / (below + rest)
}

#[cfg(test)]
mod tests {
    //! Goal: the sums are the probabilities. Method: all draws of up to 14 hosts counted one by one; exact fractions of whole
    //! numbers for up to 60; the published figures.
    use super::*;

    fn profile(needed: u8) -> Profile {
        Profile { needed, total: 255, repair_at: 255 }
    }

    fn assert_near(found: f64, expected: f64, what: &str) {
        let error = (found - expected).abs();
        assert!(error <= 1e-12 * expected, "{what}: {found:e} instead of {expected:e}");
    }

    #[test]
    fn every_draw_of_a_few_hosts_counted() {
        for hosts in 1..=12usize {
            for failed in 0..=hosts {
                let draws = || (0u32..1 << hosts).filter(|draw| draw.count_ones() as usize == failed);
                let fraction = failed as f64 / hosts as f64;
                assert_eq!(killed(hosts, fraction), failed);
                for present in 0..=30u8 {
                    // Fragment i is on host i mod H. As many draws leave each number of fragments:
                    let mut left = [0u32; 32];
                    for draw in draws() {
                        let count = (0..usize::from(present)).filter(|at| draw >> (at % hosts) & 1 == 0).count();
                        left[count] += 1;
                    }
                    for needed in 1..=6u8 {
                        let lost: u32 = left[..usize::from(needed)].iter().sum();
                        let expected = f64::from(lost) / draws().count() as f64;
                        let found = lost_if_killed(profile(needed), present, hosts, fraction);
                        let what = format!("{needed} needed, {present} present, {failed} of {hosts} failed");
                        assert_near(found, expected, &what);
                    }
                }
            }
        }
    }

    /// C(n, k), exactly.
    fn choose(all: u128, some: u128) -> u128 {
        if some > all { 0 } else { (0..some).fold(1, |product, step| product * (all - step) / (step + 1)) }
    }

    #[test]
    fn whole_numbers_give_the_same() {
        for (hosts, present, needed) in [(60, 56, 5), (60, 50, 5), (60, 48, 20), (40, 11, 3), (60, 1, 1), (56, 56, 5)] {
            for failed in 0..=hosts {
                let survivors = hosts - failed;
                let ways = |left: u128| choose(present, left) * choose(hosts - present, survivors.wrapping_sub(left));
                let lost: u128 = (0..needed).filter(|left| *left <= survivors).map(ways).sum();
                let expected = lost as f64 / choose(hosts, survivors) as f64;
                let fraction = failed as f64 / hosts as f64;
                let found = lost_if_killed(profile(needed as u8), present as u8, hosts as usize, fraction);
                assert_near(found, expected, &format!("{needed} of {present} on {hosts}, {failed} failed"));
            }
        }
        // f = 3/5: C(48, i) · 2^i · 3^(48 − i) of 5^48, in numbers that fit when the last digits are left to the end.
        let ways = (0..5u32)
            .map(|left| choose(48, u128::from(left)) as f64 * 2f64.powi(left as i32) * 3f64.powi(48 - left as i32));
        let expected = ways.sum::<f64>() / 5f64.powi(48);
        assert_near(lost_if_independent(profile(5), 48, 0.6), expected, "48/5 at 60 %");
    }

    #[test]
    fn the_published_figure() {
        // The original's 48 fragments of which 5 suffice lose 9.9·10⁻⁷ at 60 %, and no longer hold 10⁻⁶ at 60.03 %.
        let at = |fraction: f64| lost_if_independent(profile(5), 48, fraction);
        assert!((at(0.6) - 9.90e-7).abs() < 0.005e-7);
        assert!(at(0.6001) < 1e-6 && at(0.6003) > 1e-6);
    }

    #[test]
    fn ends_and_large_rings() {
        for hosts in [0, 1, 2, 56, 255, 256, 4_096] {
            for (present, needed) in [(0u8, 1u8), (1, 1), (255, 255), (255, 1), (4, 5), (56, 5), (200, 190)] {
                let at = |fraction: f64| lost_if_killed(profile(needed), present, hosts, fraction);
                assert_eq!(at(1.0), 1.0, "nobody left");
                assert_eq!(
                    at(0.0),
                    if present < needed || hosts == 0 { 1.0 } else { 0.0 },
                    "{present}/{needed}, {hosts}"
                );
                // More failures lose no less, but for the last digits.
                let all: Vec<f64> = (0..=100).map(|percent| at(f64::from(percent) / 100.0)).collect();
                assert!(all.iter().all(|lost| (0.0..=1.0).contains(lost)), "{all:?}");
                assert!(
                    all.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-12)),
                    "{present}/{needed}, {hosts}: {all:?}"
                );
            }
        }
        // Many hosts are the limit: 4,096 come within an eighth, from below.
        let (few, many) =
            (lost_if_killed(Profile::DEFAULT, 50, 4_096, 0.6), lost_if_independent(Profile::DEFAULT, 50, 0.6));
        assert!((0.875..1.0).contains(&(few / many)), "{few:e} {many:e}");
        assert_eq!(lost_if_independent(profile(1), 3, 0.0), 0.0);
        assert_eq!(lost_if_independent(profile(1), 3, 1.0), 1.0);
        assert_near(lost_if_independent(profile(1), 3, 0.6), 0.6 * 0.6 * 0.6, "three replicas");
        assert_eq!([Profile::DEFAULT, Profile::WIDE].map(hosts_that_may_be_lost), [45, 86]);
        assert_eq!([(16, 0.6), (100, 0.07), (5, 0.6), (1_000, 0.6)].map(|(h, f)| killed(h, f)), [10, 7, 3, 600]);
    }
}
