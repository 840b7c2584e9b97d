//! What takes longer than a message may: verifying, splitting, joining and rebuilding, as computations for the driver.
//!
//! Whatever thread does one of them takes a coder from those kept, with its codes, plans and memory, and puts it back.

use super::coder::Coder;
use super::fragment;
use super::limits::CODERS_KEPT_MAX;
use super::name::AggregateName;
use super::profile::Profile;
use bytes::Bytes;
use net::id::Key;
use net::machine::Work;
use std::sync::Mutex;

/// Coders that nobody uses now, the latest at the end; at most [`CODERS_KEPT_MAX`].
static CODERS: Mutex<Vec<Coder>> = Mutex::new(Vec::new());

/// Has a coder do something. A poisoned list of them only costs making one anew.
fn with_coder<T>(work: impl FnOnce(&mut Coder) -> T) -> T {
    let kept = CODERS.lock().ok().and_then(|mut coders| coders.pop());
    let mut coder = kept.unwrap_or_default();
    let result = work(&mut coder);
    if let Ok(mut coders) = CODERS.lock()
        && coders.len() < CODERS_KEPT_MAX
    {
        coders.push(coder);
    }
    result
}

/// Is this a fragment of that key? Nothing, if it is.
#[derive(Debug)]
pub(super) struct Verify {
    pub(super) key: Key,
    pub(super) value: Bytes,
}

/// Cuts a payload into fragments: the aggregate's name, then all of them.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) payload: Bytes,
    pub(super) profile: Profile,
}

/// Makes the payload of fragments; those that are none are passed over, if enough are left.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) name: AggregateName,
    pub(super) values: Vec<Bytes>,
}

/// Makes the missing fragments of others, in their order.
#[derive(Debug)]
pub(super) struct Rebuild {
    pub(super) name: AggregateName,
    pub(super) values: Vec<Bytes>,
    pub(super) missing: Vec<u8>,
}

impl Work for Verify {
    fn perform(&self) -> Option<Vec<Bytes>> {
        fragment::verify(&self.key, &self.value).is_ok().then(Vec::new)
    }

    fn bytes(&self) -> usize {
        self.value.len()
    }
}

impl Work for Split {
    fn perform(&self) -> Option<Vec<Bytes>> {
        let (name, fragments) = with_coder(|coder| coder.split(&self.payload, self.profile)).ok()?;
        let mut made = vec![Bytes::copy_from_slice(name.bytes())];
        made.extend(fragments);
        Some(made)
    }

    fn bytes(&self) -> usize {
        let Profile { needed, total, .. } = self.profile;
        let one = fragment::value_bytes(self.payload.len(), needed.max(1), total);
        self.payload.len() + usize::from(total) * one
    }
}

impl Work for Join {
    fn perform(&self) -> Option<Vec<Bytes>> {
        with_coder(|coder| coder.join(self.name, &self.values)).ok().map(|payload| vec![payload])
    }

    fn bytes(&self) -> usize {
        coded_bytes(self.name, &self.values, 0)
    }
}

impl Work for Rebuild {
    fn perform(&self) -> Option<Vec<Bytes>> {
        let made = with_coder(|coder| coder.rebuild(self.name, &self.values, &self.missing)).ok()?;
        Some(made.into_iter().map(|(_, value)| value).collect())
    }

    fn bytes(&self) -> usize {
        coded_bytes(self.name, &self.values, self.missing.len())
    }
}

/// Bytes of fragments that are read, of those that are made of them to be hashed, which are all, and of those that are kept.
fn coded_bytes(name: AggregateName, values: &[Bytes], kept: usize) -> usize {
    let one = values.iter().map(Bytes::len).max().unwrap_or(0);
    one * (values.len() + usize::from(name.total()) + kept)
}
