//! Sequence sets: `1:4,9,12:*`.
//!
//! A client writes them in any order, with overlaps, and ranges either way round. [`SequenceSet::resolve`] makes of
//! one, once the largest number in use is known, a [`Numbers`]: sorted disjoint ranges with a binary search.

/// One range as written; `None` is `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRange {
    /// The number before the colon.
    pub first: Option<u32>,
    /// The number after the colon; the same as `first` for a single number.
    pub last: Option<u32>,
}

/// A sequence set as written: never empty, bounded by the parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceSet(pub Vec<SequenceRange>);

/// Sorted, disjoint, inclusive ranges of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Vec<(u32, u32)>);

impl SequenceSet {
    /// The numbers meant, where `*` is `largest`, the largest number in use. With nothing in use (`largest` 0)
    /// a `*` means no number at all, and `1:*` is empty rather than an error, because every client asks it.
    #[must_use]
    pub fn resolve(&self, largest: u32) -> Numbers {
        let mut ranges: Vec<(u32, u32)> = Vec::with_capacity(self.0.len());
        for range in &self.0 {
            if largest == 0 && (range.first.is_none() || range.last.is_none()) {
                continue;
            }
            let first = range.first.unwrap_or(largest);
            let last = range.last.unwrap_or(largest);
            ranges.push((first.min(last), first.max(last)));
        }
        Numbers::from_ranges(ranges)
    }

    /// The largest number written in a range without `*`: a message sequence number above the count is an error,
    /// while `7:*` in a folder of three is what clients send to look for new mail.
    #[must_use]
    pub fn largest_plain(&self) -> Option<u32> {
        self.0.iter().filter_map(|range| Some(range.first?.max(range.last?))).max()
    }
}

impl Numbers {
    fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// Whether the number is one of them.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        let after = self.0.partition_point(|range| range.0 <= number);
        after.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|range| number <= range.1)
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }
}

/// Writes ascending numbers as a set, `1:3,7`, as COPYUID wants them.
#[must_use]
pub fn render(numbers: impl IntoIterator<Item = u32>) -> String {
    let ranges = numbers.into_iter().map(|number| (number, number)).collect();
    let parts: Vec<String> = Numbers::from_ranges(ranges)
        .0
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}:{last}") })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    //! Goal: a resolved set holds exactly the numbers RFC 3501 says. Method: against the definition, number by
    //! number, over random sets of small numbers; and rendered sets against reading them back.
    use super::*;
    use proptest::prelude::*;

    fn meant(set: &SequenceSet, largest: u32, number: u32) -> bool {
        set.0.iter().any(|range| {
            if largest == 0 && (range.first.is_none() || range.last.is_none()) {
                return false;
            }
            let (first, last) = (range.first.unwrap_or(largest), range.last.unwrap_or(largest));
            (first <= number && number <= last) || (last <= number && number <= first)
        })
    }

    fn bound() -> impl Strategy<Value = Option<u32>> {
        prop_oneof![1 => Just(None), 5 => (1u32..40).prop_map(Some), 1 => Just(Some(u32::MAX))]
    }

    proptest! {
        #[test]
        fn resolved_set_is_the_definition(
            ranges in prop::collection::vec((bound(), bound()), 1..12),
            largest in 0u32..50,
        ) {
            let set = SequenceSet(ranges.into_iter().map(|(first, last)| SequenceRange { first, last }).collect());
            let numbers = set.resolve(largest);
            for number in (1..60).chain([u32::MAX - 1, u32::MAX]) {
                prop_assert_eq!(numbers.contains(number), meant(&set, largest, number), "number {}", number);
            }
            for pair in numbers.ranges().windows(2) {
                prop_assert!(u64::from(pair[0].1) + 1 < u64::from(pair[1].0), "disjoint and not adjacent");
            }
        }

        #[test]
        fn rendering_names_every_number_once(numbers in prop::collection::btree_set(1u32..200, 1..60)) {
            let text = render(numbers.iter().copied());
            let mut read = Vec::new();
            for part in text.split(',') {
                let (first, last) = part.split_once(':').unwrap_or((part, part));
                read.extend(first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap());
            }
            prop_assert_eq!(read, numbers.into_iter().collect::<Vec<_>>());
        }
    }
}
