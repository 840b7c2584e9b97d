//! The reference: what a store must hold, from what was acknowledged.
//!
//! For each key the model keeps what is *certain* (acknowledged, or seen by a reader) and what is *possible* after a
//! restart (operations in flight or failed when the power went). It learns from answers alone and never asks the store what
//! it should be. What it does not know: when space comes back, and the order of concurrent operations on one key (there is
//! at most one change in flight per key).

use crate::key::Key;
use crate::request::{Object, Response};
use crate::sim_disk::Chance;
use bytes::Bytes;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) version: u64,
    pub(super) value: u64,
    pub(super) expiry: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) certain: Option<Held>,
    pub(super) possible: Vec<Option<Held>>,
    /// A sweep may have removed it; the power failed before it was looked for.
    pub(super) may_be_swept: bool,
    /// Versions with the values they ever had.
    pub(super) history: BTreeSet<(u64, u64)>,
}

#[derive(Debug)]
pub(super) enum Doing {
    /// Changes with what each key will hold, and the expected answer.
    Change {
        results: Vec<(Key, Option<Held>)>,
        expected: Response,
    },
    Sweep {
        results: Vec<(Key, Option<Held>)>,
        now: u64,
    },
    Get {
        key: Key,
        allowed: Vec<Option<Held>>,
    },
    Scrub,
}

/// A value's bytes, from its number: lengths from nothing to 12 KiB, mostly small.
pub(crate) fn bytes_of(value: u64) -> Bytes {
    let mut chance = Chance::new(value);
    let most = [200, 2000, 6000, 12_000][chance.below(4) as usize];
    let length = chance.below(most) as usize;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&chance.draw().to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}
impl Known {
    pub(super) fn value_of(&self, object: &Object) -> u64 {
        let same = |(version, value): &&(u64, u64)| *version == object.version && bytes_of(*value) == object.value;
        self.history.iter().find(same).map_or(0, |(_, value)| *value)
    }
}

pub(super) fn is_object(held: Option<&Held>, object: Option<&Object>) -> bool {
    match (held, object) {
        (None, None) => true,
        (Some(held), Some(object)) => {
            // A lease may be longer than asked for: a touch extends whatever shares the tag. Never shorter.
            held.version == object.version && held.expiry <= object.expiry_s && bytes_of(held.value) == object.value
        }
        _ => false,
    }
}

pub(super) fn describe(object: Option<&Object>) -> String {
    object.map_or("absent".to_owned(), |object| {
        format!("version {}, expiry {}, {} bytes", object.version, object.expiry_s, object.value.len())
    })
}
