//! From an aggregate to its fragments, and back from any that suffice.
//!
//! Coming back ends with coding once more: the fragments made of what was decoded must have the root that the name stands
//! for. A writer who has put fragments of different objects under one root is found out by that, and by everybody: had it a
//! part in the answer which of the fragments were at hand, two readers could be shown two objects under one name. It is also
//! what rebuilding a lost fragment takes, since the path to the root goes past hashes of fragments that nobody sent.

use super::fragment::{self, Fragment, FragmentError};
use super::limits::{AGGREGATE_BYTES_MAX, CODES_KEPT_MAX, PLAN_BYTES_MAX};
use super::name::AggregateName;
use super::profile::Profile;
use crate::{Code, Encoder, Plans};
use bytes::Bytes;

/// Makes and joins fragments. Build it once and keep it: it remembers the codes it has used, and their plans.
#[derive(Clone, Debug, Default)]
pub struct Coder {
    /// The codes used last, the latest at the end.
    prepared: Vec<Prepared>,
}

/// A code, ready to be used.
#[derive(Clone, Debug)]
struct Prepared {
    needed: u8,
    total: u8,
    encoder: Encoder,
    plans: Plans,
}

impl Coder {
    /// A coder that has prepared nothing yet.
    #[must_use]
    pub fn new() -> Coder {
        Coder::default()
    }

    /// Makes all fragments of an aggregate, ready to be stored under the keys that the name gives, in the order of their
    /// indexes.
    ///
    /// # Errors
    /// [`FragmentError::Length`], or [`FragmentError::Code`] for a profile that is none.
    pub fn split(&mut self, payload: &[u8], profile: Profile) -> Result<(AggregateName, Vec<Bytes>), FragmentError> {
        if payload.is_empty() || payload.len() > AGGREGATE_BYTES_MAX {
            return Err(FragmentError::Length { bytes: payload.len() });
        }
        self.prepare(profile.needed, profile.total)?.split(payload)
    }

    /// The aggregate, from any of its fragments that suffice. Values that are not sound, or come twice, count for nothing.
    ///
    /// # Errors
    /// [`FragmentError::TooFew`] or [`FragmentError::Inconsistent`].
    pub fn join(&mut self, name: AggregateName, values: &[Bytes]) -> Result<Bytes, FragmentError> {
        self.recover(name, values).map(|(payload, _)| payload)
    }

    /// Makes the fragments `missing` anew, from any that suffice.
    ///
    /// # Errors
    /// As [`Coder::join`], and [`FragmentError::NoSuchFragment`].
    pub fn rebuild(
        &mut self,
        name: AggregateName,
        values: &[Bytes],
        missing: &[u8],
    ) -> Result<Vec<(u8, Bytes)>, FragmentError> {
        if let Some(&index) = missing.iter().find(|index| **index >= name.total()) {
            return Err(FragmentError::NoSuchFragment { index });
        }
        let (_, all) = self.recover(name, values)?;
        Ok(missing.iter().map(|&index| (index, all[usize::from(index)].clone())).collect())
    }

    /// The aggregate and all of its fragments.
    fn recover(&mut self, name: AggregateName, values: &[Bytes]) -> Result<(Bytes, Vec<Bytes>), FragmentError> {
        let sound = sound_fragments(name, values);
        let needed = usize::from(name.needed());
        let length = match sound.first() {
            Some(fragment) if sound.len() >= needed => fragment.length,
            _ => return Err(FragmentError::TooFew { sound: sound.len(), needed }),
        };
        let prepared = self.prepare(name.needed(), name.total())?;
        let payload = prepared.decode(&sound[..needed], length)?;
        let (found, all) = prepared.split(&payload)?;
        if found == name { Ok((Bytes::from(payload), all)) } else { Err(FragmentError::Inconsistent) }
    }

    /// The code of a profile, made unless it is kept.
    fn prepare(&mut self, needed: u8, total: u8) -> Result<&mut Prepared, FragmentError> {
        let kept = self.prepared.iter().position(|kept| (kept.needed, kept.total) == (needed, total));
        let prepared = match kept {
            Some(at) => self.prepared.remove(at),
            None => Prepared::new(needed, total)?,
        };
        if self.prepared.len() >= CODES_KEPT_MAX {
            self.prepared.remove(0);
        }
        self.prepared.push(prepared);
        Ok(self.prepared.last_mut().expect("pushed just now"))
    }
}

impl Prepared {
    fn new(needed: u8, total: u8) -> Result<Prepared, FragmentError> {
        let code = Code::new(usize::from(needed), usize::from(total))?;
        Ok(Prepared { needed, total, encoder: Encoder::new(&code), plans: Plans::new(&code, PLAN_BYTES_MAX) })
    }

    /// All fragments of `payload`, which has the length of an aggregate. Data is copied, and parity written, straight to where
    /// it stays.
    fn split(&self, payload: &[u8]) -> Result<(AggregateName, Vec<Bytes>), FragmentError> {
        let data_at = fragment::data_at(self.total);
        let value_bytes = fragment::value_bytes(payload.len(), self.needed, self.total);
        let share = value_bytes - data_at;
        // One by one: each is memory that the system hands out as zeros, where a copy of a vector would be written.
        let mut values: Vec<Vec<u8>> = (0..self.total).map(|_| vec![0; value_bytes]).collect();
        for (value, bytes) in values.iter_mut().zip(payload.chunks(share)) {
            value[data_at..data_at + bytes.len()].copy_from_slice(bytes);
        }
        let (data, parity) = values.split_at_mut(usize::from(self.needed));
        let data: Vec<&[u8]> = data.iter().map(|value| &value[data_at..]).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|value| &mut value[data_at..]).collect();
        self.encoder.encode(&data, &mut parity)?;
        let name = fragment::seal(self.needed, self.total, payload.len(), &mut values);
        Ok((name, values.into_iter().map(Bytes::from).collect()))
    }

    /// The aggregate of which these are fragments, as many as suffice, in the order of their indexes.
    fn decode(&mut self, fragments: &[Fragment], length: usize) -> Result<Vec<u8>, FragmentError> {
        let share = fragment::data_bytes(length, self.needed);
        let mut payload = vec![0; share * usize::from(self.needed)];
        let mut lost = Vec::new();
        let mut outputs = Vec::new();
        for (index, output) in (0..self.needed).zip(payload.chunks_mut(share)) {
            match fragments.binary_search_by_key(&index, |fragment| fragment.index) {
                Ok(at) => output.copy_from_slice(&fragments[at].data),
                Err(_) => {
                    lost.push(index);
                    outputs.push(output);
                }
            }
        }
        if !lost.is_empty() {
            let present: Vec<u8> = fragments.iter().map(|fragment| fragment.index).collect();
            let data: Vec<&[u8]> = fragments.iter().map(|fragment| &fragment.data[..]).collect();
            self.plans.recover(&present, &data, &lost, &mut outputs)?;
        }
        payload.truncate(length);
        Ok(payload)
    }
}

/// The values that are fragments of the aggregate, each once, in the order of their indexes.
fn sound_fragments(name: AggregateName, values: &[Bytes]) -> Vec<Fragment> {
    let verified = values.iter().filter_map(|value| {
        let index = fragment::claimed_index(value)?;
        fragment::verify_as(name, index, value).ok()
    });
    let mut sound: Vec<Fragment> = verified.collect();
    sound.sort_by_key(|fragment| fragment.index);
    sound.dedup_by_key(|fragment| fragment.index);
    sound
}
