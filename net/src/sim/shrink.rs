//! Shrinking: the least part of a failing plan that still fails, by delta debugging.
//!
//! As published (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002): the list is cut into parts; if one part
//! alone, or all without one part, fails, that goes on; otherwise the parts become smaller. What is left in the end is
//! *1-minimal*: without any one of its items it does not fail. Each try is a fresh run, and tries are bounded; if they run out,
//! the smallest list known to fail is what is returned, and so is an empty one, if nothing at all needs to go wrong.

/// The least part found, and how it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk<T> {
    /// What still fails.
    pub least: Vec<T>,
    /// Runs that it took.
    pub tries: usize,
    /// Whether leaving out any one item was seen not to fail.
    pub is_minimal: bool,
}

/// Shrinks a list of which `fails` is known to hold, with at most so many tries.
pub fn shrink<T: Clone>(list: Vec<T>, tries_max: usize, mut fails: impl FnMut(&[T]) -> bool) -> Shrunk<T> {
    let mut tries = 0;
    let mut is_failing = |part: &[T]| {
        (tries < tries_max).then(|| {
            tries += 1;
            fails(part)
        })
    };
    let (least, is_minimal) = minimise(list, &mut is_failing);
    Shrunk { least, tries, is_minimal }
}

/// What cutting a list into parts has led to.
enum Cut<T> {
    /// This is less and fails; cut it into so many parts next.
    Smaller(Vec<T>, usize),
    /// No part fails alone, nor all without one.
    NoPart,
    /// No try is left.
    Exhausted,
}

/// The least part, and whether leaving out any one of its items was seen not to fail. `is_failing` says nothing when no try is
/// left.
fn minimise<T: Clone>(mut list: Vec<T>, is_failing: &mut impl FnMut(&[T]) -> Option<bool>) -> (Vec<T>, bool) {
    match is_failing(&[]) {
        Some(true) => return (Vec::new(), true),
        Some(false) => {}
        None => return (list, false),
    }
    let mut parts = 2;
    while list.len() > 1 {
        parts = parts.min(list.len());
        match cut(&list, parts, is_failing) {
            Cut::Smaller(smaller, next_parts) => (list, parts) = (smaller, next_parts),
            Cut::NoPart if parts == list.len() => return (list, true),
            Cut::NoPart => parts *= 2,
            Cut::Exhausted => return (list, false),
        }
    }
    (list, true)
}

fn cut<T: Clone>(list: &[T], parts: usize, is_failing: &mut impl FnMut(&[T]) -> Option<bool>) -> Cut<T> {
    let bounds = |part: usize| (part * list.len() / parts, (part + 1) * list.len() / parts);
    for part in 0..parts {
        let (begin, end) = bounds(part);
        match is_failing(&list[begin..end]) {
            Some(true) => return Cut::Smaller(list[begin..end].to_vec(), 2),
            Some(false) => {}
            None => return Cut::Exhausted,
        }
    }
    // Of two halves, each is all without the other.
    for part in (0..parts).filter(|_| parts > 2) {
        let (begin, end) = bounds(part);
        let others = [&list[..begin], &list[end..]].concat();
        match is_failing(&others) {
            Some(true) => return Cut::Smaller(others, (parts - 1).max(2)),
            Some(false) => {}
            None => return Cut::Exhausted,
        }
    }
    Cut::NoPart
}

#[cfg(test)]
mod tests {
    //! Goal: what is left fails, and fails no more without any one item; if a few items are needed, exactly those are left.
    //! Method: lists that fail when they hold certain items, drawn at random; a failure that no item is needed for; too few tries.

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn exactly_what_is_needed_is_left(length in 1usize..200, drawn in prop::collection::vec(any::<prop::sample::Index>(), 0..5)) {
            let needed: BTreeSet<usize> = drawn.iter().map(|index| index.index(length)).collect();
            let shrunk = shrink((0..length).collect(), 100_000, |part| needed.iter().all(|item| part.contains(item)));
            prop_assert_eq!(shrunk.least, needed.into_iter().collect::<Vec<usize>>());
            prop_assert!(shrunk.is_minimal);
        }

        #[test]
        fn what_is_left_is_minimal_though_not_the_least_there_is(length in 3usize..100, least in 1usize..8) {
            // Any `least` neighbours will do: a failure with many causes.
            let fails = |part: &[usize]| part.windows(least).any(|items| items[least - 1] == items[0] + least - 1);
            prop_assume!(least <= length);
            let shrunk = shrink((0..length).collect(), 100_000, fails);
            prop_assert!(fails(&shrunk.least));
            prop_assert_eq!(shrunk.least.len(), least);
        }
    }

    #[test]
    fn tries_are_bounded_and_what_is_left_fails() {
        let shrunk = shrink((0..1_000).collect(), 7, |part| part.contains(&17) && part.contains(&800));
        assert_eq!((shrunk.tries, shrunk.is_minimal), (7, false));
        assert!(shrunk.least.contains(&17) && shrunk.least.contains(&800));
    }
}
