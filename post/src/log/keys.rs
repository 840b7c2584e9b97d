//! Who may write a log, and who may read it.
//!
//! Each log has a signing key of its own, and a private log a sealing key, both derived from the account's master
//! key by label (`identity`), so that nothing about the account shows in a log's handle.

use ed25519_dalek::{Signer, SigningKey};
use net::id::{Key, Kind};
use std::fmt;
use zeroize::Zeroizing;

/// What a reader of a log holds.
#[derive(Clone)]
pub struct ReadKeys {
    public: [u8; 32],
    seal: Option<Zeroizing<[u8; 32]>>,
}

/// What the writer of a log holds. The signing key is wiped when it is dropped.
#[derive(Clone)]
pub struct WriteKeys {
    signing: SigningKey,
    read: ReadKeys,
}

impl ReadKeys {
    /// Of a private log: its blocks are encrypted under `seal`.
    #[must_use]
    pub fn private(public: [u8; 32], seal: [u8; 32]) -> ReadKeys {
        ReadKeys { public, seal: Some(Zeroizing::new(seal)) }
    }

    /// Of a public log: anybody reads it.
    #[must_use]
    pub fn public(public: [u8; 32]) -> ReadKeys {
        ReadKeys { public, seal: None }
    }

    /// The key that the log's head is stored under.
    #[must_use]
    pub fn head_key(&self) -> Key {
        Key::of(Kind::Head, &self.public)
    }

    /// The log's public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    pub(super) fn seal(&self) -> Option<&[u8; 32]> {
        self.seal.as_deref()
    }
}

impl WriteKeys {
    /// Of a private log.
    #[must_use]
    pub fn private(signing: SigningKey, seal: [u8; 32]) -> WriteKeys {
        let read = ReadKeys::private(signing.verifying_key().to_bytes(), seal);
        WriteKeys { signing, read }
    }

    /// Of a public log.
    #[must_use]
    pub fn public(signing: SigningKey) -> WriteKeys {
        let read = ReadKeys::public(signing.verifying_key().to_bytes());
        WriteKeys { signing, read }
    }

    /// What is needed to read the log.
    #[must_use]
    pub fn read(&self) -> &ReadKeys {
        &self.read
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.signing.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for ReadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadKeys({:?}, private: {})", self.head_key().name, self.seal.is_some())
    }
}

impl fmt::Debug for WriteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteKeys({:?})", self.read)
    }
}
