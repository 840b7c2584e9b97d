//! The secret half of an account: its permanent root key, its current signing key, the numbered keys that mail is
//! sealed to, and the master key from which every log's own keys follow.

use super::kem::KemSecret;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use std::fmt;
use zeroize::Zeroizing;

/// The key at the root of an account's secrets. Slots of the key file wrap it; logs' keys derive from it.
/// It lasts as long as the account: replacing the password or the signing key does not move any log.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A master key from 32 fresh bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> MasterKey {
        MasterKey(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A 32-byte key for one purpose: `context` is a constant of ours, `label` says which of its kind.
    pub(crate) fn derive(&self, context: &'static str, label: &str) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.bytes());
        hasher.update(label.as_bytes());
        Zeroizing::new(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// Everything secret that an account owns, with its certificate.
pub struct Secrets {
    /// The mail address, in its canonical spelling.
    pub address: String,
    /// Which account of this address it is.
    pub generation: u32,
    /// The permanent key: it names the account and signs its identity block.
    pub root: SigningKey,
    /// The current key: it signs notifications and receipts, and is the subject of the certificate.
    pub signing: SigningKey,
    /// Keys that mail is sealed to, oldest first; the last is the current one, the others still open.
    pub kem: Vec<KemSecret>,
    /// What log keys derive from.
    pub master: MasterKey,
    /// The user's certificate (DER).
    pub certificate: Bytes,
}

impl Secrets {
    /// The key that signs the head of the log `label`. Its public half, and with it the head's handle, tells a
    /// stranger neither the account nor the label.
    #[must_use]
    pub fn log_key(&self, label: &str) -> SigningKey {
        SigningKey::from_bytes(&self.master.derive("ePOST 2026 log signing key", label))
    }

    /// The key that the records of the private log `label` are encrypted under.
    #[must_use]
    pub fn log_seal_key(&self, label: &str) -> Zeroizing<[u8; 32]> {
        self.master.derive("ePOST 2026 log sealing key", label)
    }

    /// The KEM key with this number.
    #[must_use]
    pub fn kem_key(&self, number: u32) -> Option<&KemSecret> {
        self.kem.iter().find(|key| key.number() == number)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({}, generation {})", self.address, self.generation)
    }
}
