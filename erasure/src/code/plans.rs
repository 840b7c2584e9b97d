//! Plans that come again, within a bound.
//!
//! After a failure the same few sets of fragments are missing from very many objects, and for a small object making the plan
//! costs more than using it. The plan used longest ago goes first.

use super::{Code, Plan};
use crate::error::Error;
use crate::limits::{FRAGMENTS_MAX, PLANS_MAX};
use std::collections::BTreeMap;

/// A bounded cache of the plans of one code.
///
/// Invariants: at most [`PLANS_MAX`] plans; `bytes` is the sum of their weights, and at most `bytes_max`; no two were used at
/// the same time.
#[derive(Clone, Debug)]
pub struct Plans {
    code: Code,
    bytes_max: usize,
    bytes: usize,
    /// Counts the calls, so that every use has a number of its own.
    calls: u64,
    kept: BTreeMap<Box<[u8]>, Kept>,
}

/// A plan, and the call that used it last.
#[derive(Clone, Debug)]
struct Kept {
    plan: Plan,
    used: u64,
}

/// The name of a plan: how many fragments are present (two bytes), which ones, and which are wanted.
const KEY_BYTES_MAX: usize = 2 + 2 * FRAGMENTS_MAX;

impl Plans {
    /// An empty cache, for plans of `bytes_max` bytes in all. A plan that alone is larger is made and used, but not kept.
    pub fn new(code: &Code, bytes_max: usize) -> Plans {
        Plans { code: code.clone(), bytes_max, bytes: 0, calls: 0, kept: BTreeMap::new() }
    }

    /// How many plans it holds.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What its plans and their names weigh, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the fragments `wanted` of the fragments `present`, of which the first r are used, as [`Plan::new`] and
    /// [`Plan::apply`] do. Allocates only when the plan is new.
    pub fn recover(
        &mut self,
        present: &[u8],
        fragments: &[&[u8]],
        wanted: &[u8],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        if fragments.len() != present.len() {
            return Err(Error::BufferCount { given: fragments.len(), expected: present.len() });
        }
        let mut name = [0; KEY_BYTES_MAX];
        let Some(name) = write_name(&mut name, present, wanted) else {
            // More than there are, so one of them comes twice or is out of range. Making the plan finds out which.
            return Plan::new(&self.code, present, wanted).map(|_| unreachable!("a code has no more fragments"));
        };
        self.calls += 1;
        if let Some(kept) = self.kept.get_mut(name) {
            kept.used = self.calls;
            return kept.plan.apply(fragments, outputs);
        }
        let plan = Plan::new(&self.code, present, wanted)?;
        let applied = plan.apply(fragments, outputs);
        self.keep(name, plan);
        applied
    }

    /// Makes room for a plan and keeps it.
    fn keep(&mut self, name: &[u8], plan: Plan) {
        let weight = weight(name, &plan);
        if weight > self.bytes_max {
            return;
        }
        while self.kept.len() >= PLANS_MAX || self.bytes + weight > self.bytes_max {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| name.clone());
            let oldest = oldest.expect("an empty cache has room, since the plan alone fits");
            let gone = self.kept.remove(&oldest).expect("found just now");
            self.bytes -= self::weight(&oldest, &gone.plan);
        }
        self.bytes += weight;
        let before = self.kept.insert(name.into(), Kept { plan, used: self.calls });
        assert!(before.is_none(), "looked up before it was made");
        assert!(self.bytes <= self.bytes_max);
    }
}

/// What a plan weighs in the cache.
fn weight(name: &[u8], plan: &Plan) -> usize {
    name.len() + size_of::<Kept>() + plan.bytes()
}

/// Writes a plan's name; none if there are more indexes than a code has fragments.
fn write_name<'a>(name: &'a mut [u8; KEY_BYTES_MAX], present: &[u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if present.len() > FRAGMENTS_MAX || wanted.len() > FRAGMENTS_MAX {
        return None;
    }
    let count = u16::try_from(present.len()).expect("at most 256");
    let length = 2 + present.len() + wanted.len();
    name[..2].copy_from_slice(&count.to_le_bytes());
    name[2..2 + present.len()].copy_from_slice(present);
    name[2 + present.len()..length].copy_from_slice(wanted);
    Some(&name[..length])
}

#[cfg(test)]
mod tests {
    //! Goal: the bounds hold, what is kept is what was used last, and a kept plan is the right one. Method: more plans than fit,
    //! each used on real fragments, beside a list of the names in order of use.
    use super::*;
    use crate::code::Encoder;

    /// Recovers fragment `lost` of a code 2 of 200 from fragments 0 and 1, which are random enough, and compares.
    fn recover(plans: &mut Plans, all: &[Vec<u8>], lost: u8) {
        let mut output = vec![0; all[0].len()];
        let result = plans.recover(&[0, 1], &[&all[0], &all[1]], &[lost], &mut [&mut output]);
        assert_eq!(result, Ok(()));
        assert_eq!(output, all[usize::from(lost)], "fragment {lost}");
    }

    fn fragments(code: &Code) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = (0..code.total()).map(|index| vec![(index as u8).wrapping_mul(7); 33]).collect();
        let (data, parity) = all.split_at_mut(code.needed());
        let data: Vec<&[u8]> = data.iter().map(|data| &data[..]).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|parity| &mut parity[..]).collect();
        Encoder::new(code).encode(&data, &mut parity).expect("sound");
        all
    }

    #[test]
    fn the_plans_used_last_stay_and_the_bytes_are_bounded() {
        let code = Code::new(2, 200).expect("a code");
        let all = fragments(&code);
        let one = weight(&[0; 5], &Plan::new(&code, &[0, 1], &[2]).expect("sound"));
        let mut plans = Plans::new(&code, 10 * one + 1);
        let mut by_use: Vec<u8> = Vec::new();
        for step in 0..2_000u32 {
            let lost = 2 + (step * step / 7 % 31) as u8;
            recover(&mut plans, &all, lost);
            by_use.retain(|other| *other != lost);
            by_use.push(lost);
            let first = by_use.len().saturating_sub(10);
            by_use.drain(..first);
            let mut expected = by_use.clone();
            expected.sort_unstable();
            let kept: Vec<u8> = plans.kept.keys().map(|name| name[4]).collect();
            assert_eq!(kept, expected, "step {step}");
            assert_eq!(plans.bytes(), one * kept.len());
        }
    }

    #[test]
    fn the_number_of_plans_is_bounded_too() {
        let code = Code::new(2, 200).expect("a code");
        let all = fragments(&code);
        let mut plans = Plans::new(&code, usize::MAX);
        for lost in 2..200 {
            recover(&mut plans, &all, lost);
            let mut outputs = [vec![0; 33], vec![0; 33]];
            let [first, second] = &mut outputs;
            let wanted = [lost, if lost == 2 { 3 } else { 2 }];
            plans.recover(&[0, 1], &[&all[0], &all[1]], &wanted, &mut [first, second]).expect("sound");
            assert_eq!(outputs[0], all[usize::from(lost)]);
            assert!(plans.len() <= PLANS_MAX);
        }
        assert_eq!(plans.len(), PLANS_MAX);
    }

    #[test]
    fn a_plan_larger_than_the_cache_is_used_and_not_kept() {
        let code = Code::new(2, 200).expect("a code");
        let all = fragments(&code);
        let mut plans = Plans::new(&code, 10);
        recover(&mut plans, &all, 9);
        assert!(plans.is_empty());
        assert_eq!(plans.bytes(), 0);
    }

    #[test]
    fn more_indexes_than_fragments_are_refused() {
        let code = Code::new(2, 200).expect("a code");
        let mut plans = Plans::new(&code, 1 << 20);
        let many: Vec<u8> = (0..300).map(|index| (index % 200) as u8).collect();
        let refused = plans.recover(&many, &vec![&[][..]; 300], &[], &mut []);
        assert_eq!(refused, Err(Error::IndexTwice { index: 0 }));
        let refused = plans.recover(&[0, 1], &[&[], &[]], &many, &mut []);
        assert_eq!(refused, Err(Error::IndexTwice { index: 0 }));
        assert!(plans.is_empty());
    }
}
