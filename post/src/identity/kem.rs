//! The numbered keys that mail is sealed to: X-Wing (X25519 with ML-KEM-768), used through HPKE.
//!
//! An account publishes its current key in the identity block; older numbers stay in the key file, so that
//! what was sealed to them before a rotation still opens. Suite: HPKE base mode, KEM 0x647a (X-Wing), KDF
//! TurboSHAKE128, AEAD ChaCha20-Poly1305.

use crate::entropy::Entropy;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::KdfTurboShake128;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use std::fmt;
use zeroize::Zeroizing;

type PublicKey = <XWing as Kem>::PublicKey;
type PrivateKey = <XWing as Kem>::PrivateKey;
type EncappedKey = <XWing as Kem>::EncappedKey;

/// Bytes of a public KEM key.
pub const KEM_PUBLIC_BYTES: usize = 1216;
/// Bytes of an encapsulated key.
pub const KEM_ENCAPSULATED_BYTES: usize = 1120;
/// Bytes that sealing adds to a plaintext, encapsulated key apart.
pub const KEM_TAG_BYTES: usize = 16;

/// Why bytes could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KemError {
    /// The public key is not one.
    #[error("not an X-Wing public key")]
    BadKey,
    /// Sealed to another key, for another purpose, or altered.
    #[error("the seal does not open under this key")]
    DoesNotOpen,
}

/// A public KEM key with its number.
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublic {
    number: u32,
    bytes: Box<[u8; KEM_PUBLIC_BYTES]>,
}

impl KemPublic {
    /// A key as published; checked to be one.
    ///
    /// # Errors
    /// [`KemError::BadKey`].
    pub fn new(number: u32, bytes: &[u8]) -> Result<KemPublic, KemError> {
        PublicKey::from_bytes(bytes).map_err(|_| KemError::BadKey)?;
        let bytes: Box<[u8; KEM_PUBLIC_BYTES]> =
            bytes.to_vec().into_boxed_slice().try_into().map_err(|_| KemError::BadKey)?;
        Ok(KemPublic { number, bytes })
    }

    /// Which of the account's keys this is.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The key as published.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEM_PUBLIC_BYTES] {
        &self.bytes
    }

    /// Seals `plaintext` to this key: the encapsulated key, then the ciphertext. `purpose` and `bound` must be
    /// given again to open it.
    ///
    /// # Errors
    /// [`KemError::BadKey`].
    pub fn seal(
        &self,
        purpose: &[u8],
        bound: &[u8],
        plaintext: &[u8],
        entropy: &mut Entropy,
    ) -> Result<Vec<u8>, KemError> {
        let key = PublicKey::from_bytes(&*self.bytes).map_err(|_| KemError::BadKey)?;
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, KdfTurboShake128, XWing>(
            &OpModeS::Base,
            &key,
            purpose,
            plaintext,
            bound,
            entropy,
        )
        .map_err(|_| KemError::BadKey)?;
        let mut sealed = encapsulated.to_bytes().to_vec();
        assert_eq!(sealed.len(), KEM_ENCAPSULATED_BYTES);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }
}

impl fmt::Debug for KemPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemPublic({})", self.number)
    }
}

/// A private KEM key with its number.
#[derive(Clone)]
pub struct KemSecret {
    number: u32,
    seed: Zeroizing<[u8; 32]>,
}

impl KemSecret {
    /// The key that follows from a secret 32-byte seed.
    #[must_use]
    pub fn new(number: u32, seed: [u8; 32]) -> KemSecret {
        KemSecret { number, seed: Zeroizing::new(seed) }
    }

    /// Which of the account's keys this is.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> KemPublic {
        let bytes = XWing::sk_to_pk(&self.private_key()).to_bytes();
        KemPublic::new(self.number, &bytes).expect("a derived key is a key")
    }

    /// Opens what was sealed to the public half for the same `purpose` and `bound`.
    ///
    /// # Errors
    /// [`KemError::DoesNotOpen`].
    pub fn open(&self, purpose: &[u8], bound: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KemError> {
        let (encapsulated, ciphertext) =
            sealed.split_at_checked(KEM_ENCAPSULATED_BYTES).ok_or(KemError::DoesNotOpen)?;
        let encapsulated = EncappedKey::from_bytes(encapsulated).map_err(|_| KemError::DoesNotOpen)?;
        hpke::single_shot_open::<ChaCha20Poly1305, KdfTurboShake128, XWing>(
            &OpModeR::Base,
            &self.private_key(),
            &encapsulated,
            purpose,
            ciphertext,
            bound,
        )
        .map(Zeroizing::new)
        .map_err(|_| KemError::DoesNotOpen)
    }

    fn private_key(&self) -> PrivateKey {
        PrivateKey::from_bytes(&*self.seed).expect("every 32 bytes are an X-Wing key")
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemSecret({})", self.number)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: only the right key, purpose and bound data open a seal. Method: change each in turn, and every byte.
    use super::*;

    #[test]
    fn only_the_right_key_purpose_and_bytes_open() {
        let (key, other) = (KemSecret::new(1, [1; 32]), KemSecret::new(1, [2; 32]));
        let mut entropy = Entropy::new([3; 32]);
        let sealed = key.public().seal(b"test", b"to bob", b"hello", &mut entropy).unwrap();
        assert_eq!(sealed.len(), KEM_ENCAPSULATED_BYTES + KEM_TAG_BYTES + 5);
        assert_eq!(&key.open(b"test", b"to bob", &sealed).unwrap()[..], b"hello");
        assert!(other.open(b"test", b"to bob", &sealed).is_err());
        assert!(key.open(b"else", b"to bob", &sealed).is_err());
        assert!(key.open(b"test", b"to eve", &sealed).is_err());
        for at in (0..sealed.len()).step_by(7).chain([sealed.len() - 1]) {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(key.open(b"test", b"to bob", &broken).is_err(), "byte {at}");
        }
        for length in [0, 1, KEM_ENCAPSULATED_BYTES - 1, KEM_ENCAPSULATED_BYTES, sealed.len() - 1] {
            assert!(key.open(b"test", b"to bob", &sealed[..length]).is_err());
        }
        assert_ne!(sealed, key.public().seal(b"test", b"to bob", b"hello", &mut entropy).unwrap());
        assert!(KemPublic::new(1, &[0; 7]).is_err());
    }
}
