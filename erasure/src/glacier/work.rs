//! What takes longer than a message may: verifying, splitting, joining and rebuilding, as computations for the driver.

use super::coder::Coder;
use super::fragment;
use super::name::AggregateName;
use super::profile::Profile;
use bytes::Bytes;
use net::id::Key;
use net::machine::Work;

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
        let (name, fragments) = Coder::new().split(&self.payload, self.profile).ok()?;
        let mut made = vec![Bytes::copy_from_slice(name.bytes())];
        made.extend(fragments);
        Some(made)
    }

    fn bytes(&self) -> usize {
        self.payload.len() * (1 + usize::from(self.profile.total) / usize::from(self.profile.needed.max(1)))
    }
}

impl Work for Join {
    fn perform(&self) -> Option<Vec<Bytes>> {
        Coder::new().join(self.name, &self.values).ok().map(|payload| vec![payload])
    }

    fn bytes(&self) -> usize {
        2 * self.values.iter().map(Bytes::len).sum::<usize>()
    }
}

impl Work for Rebuild {
    fn perform(&self) -> Option<Vec<Bytes>> {
        let made = Coder::new().rebuild(self.name, &self.values, &self.missing).ok()?;
        Some(made.into_iter().map(|(_, value)| value).collect())
    }

    fn bytes(&self) -> usize {
        let one = self.values.first().map_or(0, Bytes::len);
        one * (self.values.len() + self.missing.len())
    }
}
