//! The notifications an account has taken in, so that each is one mail.
//!
//! An id is remembered until a notification signed at that time would be refused as too old anyway: so a replay is
//! known as one for as long as it could be believed, and the memory does not grow for ever. When it is full it takes
//! nothing more ([`SeenError::Full`]) and forgets nothing early.
//!
//! It is plain data; whoever appends to the folder writes it where the folder is, and remembers an id only in the
//! same step as the message.
//!
//! ```text
//! "ePS1" | count u32 LE | count × (id 32, signed time s u64 LE), ascending by id
//! ```

use crate::limits::{CLOCK_SKEW_S, NOTIFICATION_HOLD_S, SEEN_IDS_MAX};
use net::machine::Seconds;
use std::collections::BTreeMap;

const MAGIC: &[u8; 4] = b"ePS1";
const ENTRY_BYTES: usize = 40;

/// Why an id was not taken into the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    /// It is there already: a replay, or a sender who did not get the receipt. Answer with a receipt.
    #[error("this notification was seen before")]
    Replayed,
    /// It was signed so long ago that its id may have been forgotten.
    #[error("this notification is older than the memory")]
    TooOld,
    /// The memory is full of ids that must not be forgotten yet.
    #[error("too many notifications are remembered")]
    Full,
    /// The bytes are not a memory.
    #[error("not a memory of notifications")]
    Malformed,
}

/// The ids seen, with the times they were signed at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    ids: BTreeMap<[u8; 32], Seconds>,
}

impl Seen {
    /// Whether this id was taken in.
    #[must_use]
    pub fn has(&self, id: &[u8; 32]) -> bool {
        self.ids.contains_key(id)
    }

    /// How many ids are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Takes in an id that was signed at `signed`.
    ///
    /// # Errors
    /// [`SeenError`]; nothing is changed then.
    pub fn remember(&mut self, id: [u8; 32], signed: Seconds, now: Seconds) -> Result<(), SeenError> {
        if self.has(&id) {
            return Err(SeenError::Replayed);
        }
        if signed < oldest(now) {
            return Err(SeenError::TooOld);
        }
        if self.ids.len() >= SEEN_IDS_MAX {
            self.forget(now);
        }
        if self.ids.len() >= SEEN_IDS_MAX {
            return Err(SeenError::Full);
        }
        self.ids.insert(id, signed);
        Ok(())
    }

    /// Forgets the ids that could not be believed any more.
    pub fn forget(&mut self, now: Seconds) {
        let oldest = oldest(now);
        self.ids.retain(|_, signed| *signed >= oldest);
    }

    /// The memory as bytes.
    ///
    /// # Panics
    /// Never: the bound fits the count.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.ids.len()).expect("bounded by SEEN_IDS_MAX");
        let mut bytes = Vec::with_capacity(8 + ENTRY_BYTES * self.ids.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&count.to_le_bytes());
        for (id, signed) in &self.ids {
            bytes.extend_from_slice(id);
            bytes.extend_from_slice(&signed.to_le_bytes());
        }
        bytes
    }

    /// Reads a memory.
    ///
    /// # Errors
    /// [`SeenError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Seen, SeenError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SeenError::Malformed)?;
        let (count, entries) = rest.split_first_chunk::<4>().ok_or(SeenError::Malformed)?;
        let (entries, surplus) = entries.as_chunks::<ENTRY_BYTES>();
        let count = u32::from_le_bytes(*count) as usize;
        if !surplus.is_empty() || entries.len() != count || count > SEEN_IDS_MAX {
            return Err(SeenError::Malformed);
        }
        let mut ids = BTreeMap::new();
        for entry in entries {
            let (id, signed) = entry.split_first_chunk::<32>().ok_or(SeenError::Malformed)?;
            let signed = Seconds::from_le_bytes(signed.try_into().map_err(|_| SeenError::Malformed)?);
            if ids.last_key_value().is_some_and(|(last, _)| last >= id) {
                return Err(SeenError::Malformed);
            }
            ids.insert(*id, signed);
        }
        Ok(Seen { ids })
    }
}

/// The earliest signed time that `notification::open` still believes, less twice the clocks' difference.
fn oldest(now: Seconds) -> Seconds {
    now.saturating_sub(NOTIFICATION_HOLD_S + 3 * CLOCK_SKEW_S)
}

#[cfg(test)]
mod tests {
    //! Goal: an id is known for as long as it could be believed, and the memory stays bounded. Method: a year of
    //! notifications against a list that forgets nothing; every broken encoding of a small memory.
    use super::*;
    use crate::entropy::Entropy;

    #[test]
    fn a_year_of_replays_is_known() {
        let (mut seen, mut all) = (Seen::default(), Vec::<([u8; 32], Seconds)>::new());
        let mut entropy = Entropy::new([1; 32]);
        for hour in 0..24 * 365 {
            let now = 1_795_000_000 + hour * 3600;
            let id = entropy.draw();
            assert_eq!(seen.remember(id, now, now), Ok(()));
            all.push((id, now));
            let [pick] = entropy.draw::<1>();
            let (old, signed) = all[all.len() - 1 - (usize::from(pick) * 31).min(all.len() - 1)];
            let is_believable = signed + NOTIFICATION_HOLD_S + CLOCK_SKEW_S >= now;
            let replayed = seen.remember(old, signed, now);
            assert!(replayed == Err(SeenError::Replayed) || (!is_believable && replayed == Err(SeenError::TooOld)));
            seen.forget(now);
        }
        assert!(seen.len() <= 24 * 61);
        assert_eq!(Seen::decode(&seen.encode()), Ok(seen));
    }

    #[test]
    fn a_full_memory_takes_nothing_and_forgets_nothing_early() {
        let id = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            id
        };
        let mut seen = Seen { ids: (0..SEEN_IDS_MAX).map(|n| (id(n), 1_000_000_000)).collect() };
        assert_eq!(seen.remember(id(SEEN_IDS_MAX), 1_000_000_000, 1_000_000_000), Err(SeenError::Full));
        assert!(seen.has(&id(0)) && seen.len() == SEEN_IDS_MAX);
        let later = 1_000_000_000 + NOTIFICATION_HOLD_S + 3 * CLOCK_SKEW_S + 1;
        assert_eq!(seen.remember(id(SEEN_IDS_MAX), later, later), Ok(()));
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn only_its_own_bytes_are_read() {
        let mut seen = Seen::default();
        for n in [3, 1, 2] {
            seen.remember([n; 32], 9, 9).unwrap();
        }
        let bytes = seen.encode();
        assert_eq!(Seen::decode(&bytes), Ok(seen));
        for length in 0..bytes.len() {
            assert_eq!(Seen::decode(&bytes[..length]), Err(SeenError::Malformed));
        }
        let mut unsorted = bytes.clone();
        unsorted[8] = 9;
        assert_eq!(Seen::decode(&unsorted), Err(SeenError::Malformed));
    }
}
