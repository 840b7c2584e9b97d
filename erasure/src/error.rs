//! What can be wrong with a request to the codec.
//!
//! Fragments come from strangers, and so do their number, their indexes and their lengths: nothing here panics for them.

use crate::limits::FRAGMENTS_MAX;
use std::fmt;

/// Why nothing was coded. No output was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such code: r is at least 1, at most n, and n at most [`FRAGMENTS_MAX`]. The fault of whoever chose
    /// the profile.
    Profile {
        /// Fragments that should suffice (r).
        needed: usize,
        /// Fragments in all (n).
        total: usize,
    },
    /// Fewer than r fragments: the object cannot be had from these. Nobody's fault; more must be fetched.
    TooFewFragments {
        /// Fragments that were handed in.
        given: usize,
        /// Fragments that are needed (r).
        needed: usize,
    },
    /// Not as many buffers as there are fragments to read or to write: the caller's fault.
    BufferCount {
        /// Buffers that were handed in.
        given: usize,
        /// Buffers that belong there.
        expected: usize,
    },
    /// Fragments of one object have one length; whoever made or sent this one is at fault, or the caller's buffer is.
    LengthsDiffer {
        /// Bytes in the first fragment.
        expected: usize,
        /// Bytes in the one that differs.
        found: usize,
    },
    /// There is no fragment of this index in the code: the fault of whoever named it.
    IndexOutOfRange {
        /// The index that was named.
        index: u8,
        /// Fragments in all (n); indexes are below it.
        total: usize,
    },
    /// A fragment is named twice: present twice, wanted twice, or wanted although it is present.
    IndexTwice {
        /// The index that was named twice.
        index: u8,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Profile { needed, total } => write!(
                formatter,
                "no code makes {total} fragments of which {needed} suffice (1 ≤ {needed} ≤ {total} ≤ {FRAGMENTS_MAX})"
            ),
            Error::TooFewFragments { given, needed } => {
                write!(formatter, "{given} fragments are too few, {needed} are needed")
            }
            Error::BufferCount { given, expected } => {
                write!(formatter, "{given} buffers for {expected} fragments")
            }
            Error::LengthsDiffer { expected, found } => {
                write!(formatter, "a fragment of {found} bytes beside one of {expected}")
            }
            Error::IndexOutOfRange { index, total } => {
                write!(formatter, "fragment {index} does not exist among {total}")
            }
            Error::IndexTwice { index } => write!(formatter, "fragment {index} is named twice"),
        }
    }
}

impl std::error::Error for Error {}
