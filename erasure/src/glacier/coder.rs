//! From an aggregate to its fragments, and back from any that suffice.
//!
//! Coming back ends with coding once more: the fragments made of what was decoded must have the root that the name stands
//! for. A writer who has put fragments of different objects under one root is found out by that, and by everybody: had it a
//! part in the answer which of the fragments were at hand, two readers could be shown two objects under one name. It is also
//! what rebuilding a lost fragment takes, since the path to the root goes past hashes of fragments that nobody sent.
//!
//! Most of the time goes into memory: a mebibyte becomes twelve of fragments. Therefore parity is made a few fragments at a
//! time and a block at a time, and hashed while the block is in the cache; what nobody asked for is hashed and then written over; what
//! was asked for lies in one piece (`slab`), which is used again when all who hold fragments of it have dropped them.

use super::fragment::{self, Fragment, FragmentError};
use super::limits::{
    AGGREGATE_BYTES_MAX, CODE_BLOCK_BYTES, CODE_ROWS, CODES_KEPT_MAX, FRAGMENT_STEP_BYTES, PLAN_BYTES_MAX,
};
use super::merkle::{self, Hash};
use super::name::AggregateName;
use super::profile::Profile;
use super::slab::{Pool, Slab};
use crate::{Code, Plan, Plans};
use bytes::Bytes;

/// Makes and joins fragments. Build it once and keep it: it remembers the codes it has used, and their plans.
#[derive(Clone, Debug, Default)]
pub struct Coder {
    /// The codes used last, the latest at the end.
    prepared: Vec<Prepared>,
    pool: Pool,
}

/// A code, ready to be used.
///
/// Invariant: `parity` makes the fragments from `needed` to `total`, [`CODE_ROWS`] with each plan and the rest with the last.
#[derive(Clone, Debug)]
struct Prepared {
    needed: u8,
    total: u8,
    parity: Vec<Plan>,
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
        let pool = self.pool.clone();
        let all = [true; 256];
        let (name, values) = self.prepare(profile.needed, profile.total)?.cut(payload, &all, &pool)?;
        Ok((name, values.into_iter().flatten().collect()))
    }

    /// The aggregate, from any of its fragments that suffice. Values that are not sound, or come twice, count for nothing.
    ///
    /// # Errors
    /// [`FragmentError::TooFew`] or [`FragmentError::Inconsistent`].
    pub fn join(&mut self, name: AggregateName, values: &[Bytes]) -> Result<Bytes, FragmentError> {
        self.recover(name, values, &[false; 256]).map(|(payload, _)| payload)
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
        let mut wanted = [false; 256];
        missing.iter().for_each(|index| wanted[usize::from(*index)] = true);
        let (_, made) = self.recover(name, values, &wanted)?;
        let value = |index: u8| made[usize::from(index)].clone().expect("it was wanted");
        Ok(missing.iter().map(|&index| (index, value(index))).collect())
    }

    /// The aggregate, and of its fragments those that are wanted.
    fn recover(
        &mut self,
        name: AggregateName,
        values: &[Bytes],
        wanted: &[bool; 256],
    ) -> Result<(Bytes, Vec<Option<Bytes>>), FragmentError> {
        let sound = sound_fragments(name, values);
        let needed = usize::from(name.needed());
        let length = match sound.first() {
            Some(fragment) if sound.len() >= needed => fragment.length,
            _ => return Err(FragmentError::TooFew { sound: sound.len(), needed }),
        };
        let pool = self.pool.clone();
        let prepared = self.prepare(name.needed(), name.total())?;
        let payload = prepared.decode(&sound[..needed], length)?;
        let (found, made) = prepared.cut(&payload, wanted, &pool)?;
        if found == name { Ok((Bytes::from(payload), made)) } else { Err(FragmentError::Inconsistent) }
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
        let data: Vec<u8> = (0..needed).collect();
        let parity: Vec<u8> = (needed..total).collect();
        let parity = parity.chunks(CODE_ROWS).map(|rows| Plan::new(&code, &data, rows)).collect::<Result<_, _>>()?;
        Ok(Prepared { needed, total, parity, plans: Plans::new(&code, PLAN_BYTES_MAX) })
    }

    /// The name of `payload`, which has the length of an aggregate, and of its fragments those that are wanted.
    fn cut(
        &self,
        payload: &[u8],
        wanted: &[bool; 256],
        pool: &Pool,
    ) -> Result<(AggregateName, Vec<Option<Bytes>>), FragmentError> {
        let shape = Shape::of(payload.len(), self.needed, self.total);
        let wanted = &wanted[..usize::from(self.total)];
        let count = wanted.iter().filter(|is_wanted| **is_wanted).count();
        let mut made = pool.take(shape.slab_bytes(count));
        let made_at = shape.first_at(&made);
        let mut scratch = pool.take(if count < wanted.len() { shape.slab_bytes(CODE_ROWS) } else { 0 });
        let scratch_at = shape.first_at(&scratch);

        // Whole shares as they lie there; the last ones filled up with zeros.
        let whole = payload.len() / shape.share;
        let mut rest = payload[whole * shape.share..].to_vec();
        rest.resize((usize::from(self.needed) - whole) * shape.share, 0);
        let data: Vec<&[u8]> = payload.chunks_exact(shape.share).chain(rest.chunks_exact(shape.share)).collect();

        let mut rows = shape.rows(&mut made, made_at);
        let mut places: Vec<Option<&mut [u8]>> =
            wanted.iter().map(|is_wanted| is_wanted.then(|| rows.next().expect("as many as are wanted"))).collect();
        drop(rows);
        let (of_data, of_parity) = places.split_at_mut(usize::from(self.needed));
        let mut leaves = Vec::with_capacity(wanted.len());
        for ((index, data), place) in (0..self.needed).zip(&data).zip(of_data) {
            leaves.push(merkle::leaf(index, data));
            if let Some(place) = place {
                place[shape.data_at..].copy_from_slice(data);
            }
        }
        let firsts = (self.needed..self.total).step_by(CODE_ROWS);
        for ((first, plan), places) in firsts.zip(&self.parity).zip(of_parity.chunks_mut(CODE_ROWS)) {
            let mut spare = shape.rows(&mut scratch, scratch_at);
            let rows: Vec<&mut [u8]> = places
                .iter_mut()
                .map(|place| place.take().unwrap_or_else(|| spare.next().expect("a spare row for each of a plan")))
                .collect();
            shape.code(plan, &data, first, rows, &mut leaves)?;
        }

        let rows = shape.rows(&mut made, made_at);
        let indexes = (0..self.total).zip(wanted).filter(|(_, is_wanted)| **is_wanted).map(|(index, _)| index);
        let name = fragment::seal(self.needed, self.total, payload.len(), leaves, indexes.zip(rows));
        let made = Bytes::from(made);
        let mut at = (made_at..).step_by(shape.stride);
        let value = |is_wanted: &bool| is_wanted.then(|| at.next().map(|at| made.slice(at..at + shape.value_bytes)));
        Ok((name, wanted.iter().map(value).map(Option::flatten).collect()))
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

/// How the fragments of an aggregate lie in one piece of memory.
///
/// Invariants: a fragment is `data_at` bytes and then `share` of data; data begins with a cache line; from one fragment to the
/// next it is an odd number of cache lines, so that the same bytes of all of them do not meet in one set of a cache.
#[derive(Clone, Copy, Debug)]
struct Shape {
    data_at: usize,
    share: usize,
    value_bytes: usize,
    stride: usize,
}

impl Shape {
    fn of(length: usize, needed: u8, total: u8) -> Shape {
        let value_bytes = fragment::value_bytes(length, needed, total);
        let stride = (value_bytes.div_ceil(FRAGMENT_STEP_BYTES) | 1) * FRAGMENT_STEP_BYTES;
        Shape { data_at: fragment::data_at(total), share: fragment::data_bytes(length, needed), value_bytes, stride }
    }

    /// Bytes that so many fragments take, wherever in memory they begin.
    fn slab_bytes(&self, count: usize) -> usize {
        if count == 0 { 0 } else { FRAGMENT_STEP_BYTES + count * self.stride }
    }

    /// Where in a slab the first fragment begins.
    fn first_at(&self, slab: &Slab) -> usize {
        let address = slab.as_ref().as_ptr().addr() + self.data_at;
        address.next_multiple_of(FRAGMENT_STEP_BYTES) - address
    }

    /// The fragments in a slab, from the first on; an empty slab has none.
    fn rows<'a>(&self, slab: &'a mut Slab, first_at: usize) -> impl Iterator<Item = &'a mut [u8]> + use<'a> {
        let value_bytes = self.value_bytes;
        let bytes = slab.bytes_mut().get_mut(first_at..).unwrap_or_default();
        bytes.chunks_exact_mut(self.stride).map(move |row| &mut row[..value_bytes])
    }

    /// Makes the data of the rows from `first` on, block by block, and their leaves.
    fn code(
        &self,
        plan: &Plan,
        data: &[&[u8]],
        first: u8,
        mut rows: Vec<&mut [u8]>,
        leaves: &mut Vec<Hash>,
    ) -> Result<(), FragmentError> {
        // What is hashed is the index and then the data. With the index where the path ends before that is written, both are
        // one piece, and all but the last update a multiple of what is hashed at once.
        let hashed_at = self.data_at - 1;
        let mut hashers: Vec<blake3::Hasher> = rows.iter().map(|_| merkle::leaf_hasher()).collect();
        (first..).zip(&mut rows).for_each(|(index, row)| row[hashed_at] = index);
        for at in (0..self.share).step_by(CODE_BLOCK_BYTES) {
            let end = self.share.min(at + CODE_BLOCK_BYTES);
            let sources: Vec<&[u8]> = data.iter().map(|data| &data[at..end]).collect();
            let mut outputs: Vec<&mut [u8]> =
                rows.iter_mut().map(|row| &mut row[self.data_at + at..self.data_at + end]).collect();
            plan.apply(&sources, &mut outputs)?;
            let end = if end == self.share { 1 + end } else { end };
            for (hasher, row) in hashers.iter_mut().zip(&rows) {
                hasher.update(&row[hashed_at + at..hashed_at + end]);
            }
        }
        leaves.extend(hashers.iter().map(|hasher| *hasher.finalize().as_bytes()));
        Ok(())
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
