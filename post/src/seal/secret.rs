//! What a content key is derived from: the ring's convergence secret, or a fresh salt.

use crate::limits::CONVERGENT_BYTES_MIN;
use std::fmt;
use zeroize::Zeroizing;

/// A ring's convergence secret. Held by gateways only: without it, nobody can confirm a guess at a file's
/// content by sealing the guess. It may be replaced (a new epoch); what was sealed before still opens, because
/// references carry their key, but no longer coincides with what is sealed after.
#[derive(Clone)]
pub struct RingSecret {
    epoch: u32,
    bytes: Zeroizing<[u8; 32]>,
}

impl RingSecret {
    /// The secret of this epoch.
    #[must_use]
    pub fn new(epoch: u32, bytes: [u8; 32]) -> RingSecret {
        RingSecret { epoch, bytes: Zeroizing::new(bytes) }
    }

    /// Which of the ring's secrets this is; the highest is in use.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The secret itself, to be written to a gateway's protected file.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Debug for RingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingSecret(epoch {})", self.epoch)
    }
}

/// What a content key is derived from, together with the hash of the content.
#[derive(Clone, Debug)]
pub enum Secret {
    /// The same content gives the same block for everyone in the ring.
    Convergent(RingSecret),
    /// A fresh salt: the same content gives another block every time.
    Salted(Salt),
}

/// 32 fresh bytes for one object.
#[derive(Clone)]
pub struct Salt(Zeroizing<[u8; 32]>);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

impl Secret {
    /// A secret for one object from 32 fresh bytes.
    #[must_use]
    pub fn salted(salt: [u8; 32]) -> Secret {
        Secret::Salted(Salt(Zeroizing::new(salt)))
    }

    /// Whether nobody else can come to the same block.
    #[must_use]
    pub fn is_salted(&self) -> bool {
        matches!(self, Secret::Salted(_))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        match self {
            Secret::Convergent(secret) => &secret.bytes,
            Secret::Salted(salt) => &salt.0,
        }
    }
}

/// How a gateway seals: for which ring, and with which convergence secret, if its organisation uses one.
#[derive(Clone, Debug)]
pub struct Sealing {
    /// The ring that objects are stored in.
    pub ring: [u8; 16],
    /// The ring's current secret, or `None` where the organisation has switched convergence off.
    pub shared: Option<RingSecret>,
}

impl Sealing {
    /// The secret for an attachment of `length` bytes: the ring's, if it has one and the attachment is large
    /// enough to be worth sharing; otherwise `salt`, which must be fresh.
    #[must_use]
    pub fn for_attachment(&self, length: usize, salt: [u8; 32]) -> Secret {
        match &self.shared {
            Some(shared) if length >= CONVERGENT_BYTES_MIN => Secret::Convergent(shared.clone()),
            _ => Secret::salted(salt),
        }
    }
}
