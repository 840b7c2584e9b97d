//! How many fragments an aggregate has, how many of them suffice, and at how many it is repaired.
//!
//! The original kept 48 fragments of which any 5 sufficed: with all 48 there, an object is lost with probability 9.9·10⁻⁷ when
//! 60 % of the network fails at once, and with one fragment missing the promise of 10⁻⁶ was broken. Here the promise is held by
//! an object that is about to be repaired ([`super::survival`]), so that a ring which merely waits keeps it:
//!
//! ```text
//!                      needed   total   repaired at   lost at 60 %, all there / when repaired   bytes stored for each
//! DEFAULT                   5      56            50                     3.1·10⁻⁸ / 4.2·10⁻⁷                      11.2
//! WIDE                     20     116           106                     3.4·10⁻⁸ / 9.0·10⁻⁷                       5.8
//! ```
//!
//! More fragments than hosts are worth little: they fail together. A ring with fewer hosts has a fragment on each, in the same
//! proportion, and the survival that this gives, which is shown and not promised.

use net::ring::Parameters;

/// A way to code aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Fragments that suffice.
    pub needed: u8,
    /// Fragments that are made.
    pub total: u8,
    /// When no more than so many are left, the missing ones are made anew.
    pub repair_at: u8,
}

impl Profile {
    /// What a ring has unless it chooses.
    pub const DEFAULT: Profile = Profile { needed: 5, total: 56, repair_at: 50 };
    /// For large rings: half the bytes, more messages.
    pub const WIDE: Profile = Profile { needed: 20, total: 116, repair_at: 106 };

    /// The profile that the ring document asks for; none where it asks for no fragments, or for a profile that is none. One
    /// that is not named above is repaired in the proportion of the default.
    #[must_use]
    pub fn from_parameters(parameters: &Parameters) -> Option<Profile> {
        let (needed, total) = (parameters.fragments_needed, parameters.fragments_total);
        if needed == 0 || needed > total {
            return None;
        }
        let named = [Profile::DEFAULT, Profile::WIDE];
        let named = named.into_iter().find(|profile| (profile.needed, profile.total) == (needed, total));
        let repair_at = scaled(Profile::DEFAULT.repair_at, total, Profile::DEFAULT.total).max(needed);
        Some(named.unwrap_or(Profile { needed, total, repair_at }))
    }

    /// The same profile as far as `hosts` distinct hosts allow: no more fragments than hosts, at no more than the same cost.
    #[must_use]
    pub fn for_hosts(self, hosts: usize) -> Profile {
        let hosts = u8::try_from(hosts.max(1)).unwrap_or(u8::MAX);
        if hosts >= self.total {
            return self;
        }
        let needed = scaled(self.needed, hosts, self.total).max(1);
        let repair_at = scaled(self.repair_at, hosts, self.total).max(needed);
        Profile { needed, total: hosts, repair_at }
    }
}

/// `number · part / whole`, rounded up; at most `part` where `number` is at most `whole`.
fn scaled(number: u8, part: u8, whole: u8) -> u8 {
    let exact = (u16::from(number) * u16::from(part)).div_ceil(u16::from(whole));
    u8::try_from(exact).unwrap_or(u8::MAX).min(part)
}

const _: () = assert!(Profile::DEFAULT.total == Parameters::DEFAULT.fragments_total);
const _: () = assert!(Profile::DEFAULT.needed == Parameters::DEFAULT.fragments_needed);

#[cfg(test)]
mod tests {
    //! Goal: every profile that can come out is one, and costs no more than what it was made of. Method: all parameters a ring
    //! document can hold, and all small rings.
    use super::*;

    fn asked(needed: u8, total: u8) -> Option<Profile> {
        let parameters = Parameters { fragments_needed: needed, fragments_total: total, ..Parameters::DEFAULT };
        Profile::from_parameters(&parameters)
    }

    #[test]
    fn every_profile_is_one_on_any_number_of_hosts() {
        for (needed, total) in (0..=255).flat_map(|needed| (0..=255).map(move |total| (needed, total))) {
            let Some(profile) = asked(needed, total) else {
                assert!(needed == 0 || needed > total, "{needed} of {total}");
                continue;
            };
            assert_eq!((profile.needed, profile.total), (needed, total));
            for hosts in [0, 1, 2, 3, 7, 16, 55, 56, 100, 200, 255, 256, 4_096] {
                let small = profile.for_hosts(hosts);
                assert!(1 <= small.needed && small.needed <= small.repair_at && small.repair_at <= small.total);
                assert_eq!(usize::from(small.total), hosts.max(1).min(usize::from(total)));
                let (cost, before) =
                    (u32::from(small.total) * u32::from(needed), u32::from(total) * u32::from(small.needed));
                assert!(cost <= before, "{needed} of {total} costs more on {hosts} hosts: {small:?}");
            }
        }
    }

    #[test]
    fn named_profiles_and_a_ring_of_sixteen() {
        assert_eq!(asked(5, 56), Some(Profile::DEFAULT));
        assert_eq!(asked(20, 116), Some(Profile::WIDE));
        assert_eq!(Profile::DEFAULT.for_hosts(16), Profile { needed: 2, total: 16, repair_at: 15 });
        assert_eq!(Profile::DEFAULT.for_hosts(1), Profile { needed: 1, total: 1, repair_at: 1 });
    }
}
