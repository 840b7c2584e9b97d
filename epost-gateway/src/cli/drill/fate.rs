//! Who dies: a share of the nodes, drawn from a seed, so that a drill can be repeated.

use post::entropy::Entropy;
use std::str::FromStr;

/// A share of the nodes in whole percent: more than none, less than all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u16);

/// Why a share is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Not a number of percent.
    #[error("say which share of the nodes is to die in whole percent, such as 60%")]
    NotAShare,
    /// Nobody dies.
    #[error("a drill in which nobody dies shows nothing; use at least 1%")]
    None,
    /// Nobody is left.
    #[error("a ring of which nobody is left has nothing to recover from; use at most 99%")]
    All,
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let digits = text.strip_suffix('%').map(str::trim_end);
        // A bare 0 is wrong in whatever unit; any other number might be meant as one of nodes.
        let percent = match digits {
            None if text == "0" => 0,
            None => return Err(ShareError::NotAShare),
            Some(digits) => digits.parse::<u16>().map_err(|_| ShareError::NotAShare)?,
        };
        match percent {
            0 => Err(ShareError::None),
            1..=99 => Ok(Share(percent)),
            _ => Err(ShareError::All),
        }
    }
}

impl Share {
    /// In percent.
    pub fn percent(self) -> u16 {
        self.0
    }

    /// How many nodes that is, rounded down: of 16 nodes, 60 % are 9.
    pub fn of(self, nodes: usize) -> usize {
        nodes * usize::from(self.0) / 100
    }

    /// The least share of so many nodes that is one of them.
    pub fn least(nodes: usize) -> Share {
        assert!(nodes > 1);
        Share(100_usize.div_ceil(nodes) as u16)
    }
}

/// Numbers that follow from a seed and a purpose, each purpose having its own.
pub struct Dice(Entropy);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(purpose: &str, seed: u64) -> Dice {
        Dice(Entropy::new(blake3::derive_key(&format!("epost drill: {purpose}"), &seed.to_le_bytes())))
    }

    /// A number below `end`. That of 2^64 numbers some are likelier by one is of no account here.
    pub fn below(&mut self, end: usize) -> usize {
        assert!(end > 0);
        (u64::from_le_bytes(self.0.draw()) % end as u64) as usize
    }

    /// Octets without pattern.
    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        self.0.fill(&mut octets);
        octets
    }
}

/// Draws `count` of `nodes`, in ascending order, each set of them being as likely as any other.
pub fn draw(seed: u64, nodes: usize, count: usize) -> Vec<usize> {
    assert!(count <= nodes);
    let mut dice = Dice::new("who dies", seed);
    let mut places: Vec<usize> = (0..nodes).collect();
    for taken in 0..count {
        places.swap(taken, taken + dice.below(nodes - taken));
    }
    places.truncate(count);
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    //! Goal: shares that make a drill, and a fair draw that a seed repeats. Method: by hand; by counting over many seeds.
    use super::*;

    #[test]
    fn shares() {
        let share = |text: &str| text.parse::<Share>();
        assert_eq!(share("60%").map(|share| (share.percent(), share.of(16), share.of(5))), Ok((60, 9, 3)));
        assert_eq!(share("20 %").map(|share| share.of(5)), Ok(1));
        assert_eq!(
            (share("0%"), share("0"), share("100%")),
            (Err(ShareError::None), Err(ShareError::None), Err(ShareError::All))
        );
        assert_eq!(share("65535%"), Err(ShareError::All));
        for text in ["", "%", "60", "sixty%", "-5%", "6.5%", "65536%", "60%%"] {
            assert_eq!(share(text), Err(ShareError::NotAShare), "{text}");
        }
        assert_eq!(share("99%").map(|share| share.of(64)), Ok(63), "somebody is always left");
        for nodes in 2..=64 {
            let least = Share::least(nodes);
            assert!(least.of(nodes) >= 1);
            assert!(Share(least.0 - 1).of(nodes) == 0);
        }
    }

    #[test]
    fn nine_of_sixteen() {
        const SEEDS: u64 = 16_000;
        let mut dead = [0_u32; 16];
        for seed in 0..SEEDS {
            let drawn = draw(seed, 16, 9);
            assert_eq!(drawn, draw(seed, 16, 9), "seed {seed}");
            assert_eq!(drawn.len(), 9);
            assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]), "ascending, nobody twice: {drawn:?}");
            drawn.iter().for_each(|&node| dead[node] += 1);
        }
        // Each of them 9,000 times of 16,000, the first and the last too: five standard deviations of 63 either way.
        assert!(dead.iter().all(|&count| count.abs_diff(9_000) < 315), "{dead:?}");
        assert_eq!((draw(1, 5, 0), draw(1, 3, 3)), (vec![], vec![0, 1, 2]));
    }
}
