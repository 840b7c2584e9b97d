//! The key file: an account's secrets at rest, under one master key that several slots can unlock.
//!
//! ```text
//!   0  "ePOSTkey"        8 bytes
//!   8  version u8 = 1
//!   9  CBOR map   0 header  {0 address, 1 generation, 2 certificate DER}      in clear
//!                 1 slots   [{0 number, 1 kind, 2 salt 16, 3 memory KiB, 4 passes, 5 lanes, 6 nonce 12, 7 wrapped 48}]
//!                 2 nonce   12 bytes
//!                 3 body    AES-256-GCM-SIV: {0 root seed, 1 signing seed, 2 [[number, KEM seed], …]}
//! ```
//!
//! A slot is the 32-byte master key encrypted under a key from a password (Argon2id), or from the secret of one
//! node, which so opens its user's notifications and refreshes her leases after a restart, before she logs in.
//! Kinds 3 (application password) and 4 (recovery) are reserved: they are kept when a file is rewritten, and not
//! tried. The header and the version are associated data of body and slots, so a slot or a certificate moved
//! between files is noticed. Removing a slot locks out its password from this file; it cannot recall an old copy.
//!
//! What is in clear is public anyway: the certificate is in the ring. Whoever has the file can guess passwords at the
//! cost that Argon2id sets.

use super::kem::KemSecret;
use super::secrets::{MasterKey, Secrets};
use crate::entropy::Entropy;
use crate::limits::{
    ARGON2_LANES_MAX, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES_MAX, KEM_KEYS_MAX, KEY_FILE_BYTES_MAX, KEY_SLOTS_MAX,
};
use aes_gcm_siv::aead::Buffer;
use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit};
use argon2::{Algorithm, Argon2, Params, Version};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use zeroize::{Zeroize, Zeroizing};

const MAGIC: &[u8; 8] = b"ePOSTkey";
const VERSION: u8 = 1;
const KIND_PASSWORD: u8 = 1;
const KIND_NODE: u8 = 2;

/// Why a key file was not read, changed or unlocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Not a key file, damaged in its clear part, or over a bound.
    #[error("not a key file, or damaged")]
    Malformed,
    /// Written by a newer program.
    #[error("a key file of version {0} is not known here")]
    Unknown(u8),
    /// No password slot opens with this password, or the slots were altered.
    #[error("wrong password")]
    WrongPassword,
    /// No node slot opens with this node's secret, or the slots were altered.
    #[error("this key file is not for this node")]
    WrongNode,
    /// The master key is right for a slot but not for the body, or the body or header was altered.
    #[error("the key file's contents were altered")]
    Altered,
    /// There is no slot with this number.
    #[error("no such slot")]
    NoSuchSlot,
    /// It is the last slot: without it nobody could open the file again.
    #[error("the last slot cannot be removed")]
    LastSlot,
    /// All slots are taken.
    #[error("the key file has no room for another slot")]
    Full,
    /// The password cost is outside of what is accepted.
    #[error("the password cost is out of range")]
    BadCost,
}

/// What one guess at a password costs: Argon2id's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Independent lanes.
    pub lanes: u32,
}

impl PasswordCost {
    /// 64 MiB, three passes: the second recommendation of RFC 9106, in one lane.
    pub const DEFAULT: PasswordCost = PasswordCost { memory_kib: 64 << 10, passes: 3, lanes: 1 };

    fn parameters(self) -> Result<Params, KeyFileError> {
        let is_bounded = self.memory_kib <= ARGON2_MEMORY_KIB_MAX
            && self.passes <= ARGON2_PASSES_MAX
            && self.lanes <= ARGON2_LANES_MAX;
        let parameters = Params::new(self.memory_kib, self.passes, self.lanes, Some(32));
        parameters.ok().filter(|_| is_bounded).ok_or(KeyFileError::BadCost)
    }
}

/// What a slot is unlocked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// The user's password.
    Password,
    /// One node's own secret.
    Node,
    /// A kind this program does not use (3: application password, 4: recovery, or newer).
    Reserved(u8),
}

/// A key file.
#[derive(Clone, Debug)]
pub struct KeyFile {
    header: Header,
    slots: Vec<Slot>,
    nonce: [u8; 12],
    body: Vec<u8>,
}

#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct Header {
    #[n(0)]
    address: String,
    #[n(1)]
    generation: u32,
    #[cbor(n(2), with = "minicbor::bytes")]
    certificate: Vec<u8>,
}

#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct Slot {
    #[n(0)]
    number: u32,
    #[n(1)]
    kind: u8,
    #[cbor(n(2), with = "minicbor::bytes")]
    salt: [u8; 16],
    #[n(3)]
    memory_kib: u32,
    #[n(4)]
    passes: u32,
    #[n(5)]
    lanes: u32,
    #[cbor(n(6), with = "minicbor::bytes")]
    nonce: [u8; 12],
    #[cbor(n(7), with = "minicbor::bytes")]
    wrapped: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct File {
    #[n(0)]
    header: Header,
    #[n(1)]
    slots: Vec<Slot>,
    #[cbor(n(2), with = "minicbor::bytes")]
    nonce: [u8; 12],
    #[cbor(n(3), with = "minicbor::bytes")]
    body: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[cbor(n(0), with = "minicbor::bytes")]
    root: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    signing: [u8; 32],
    #[n(2)]
    kem: Vec<KemSeed>,
}

#[derive(Encode, Decode)]
struct KemSeed {
    #[n(0)]
    number: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    seed: [u8; 32],
}

impl Drop for Body {
    fn drop(&mut self) {
        self.root.zeroize();
        self.signing.zeroize();
        self.kem.iter_mut().for_each(|key| key.seed.zeroize());
    }
}

impl KeyFile {
    /// A key file with these secrets and no slot yet: add one before it is written.
    ///
    /// # Panics
    /// If there are more than [`KEM_KEYS_MAX`] KEM keys, or the certificate is far over its bound.
    #[must_use]
    pub fn new(secrets: &Secrets, entropy: &mut Entropy) -> KeyFile {
        let header = Header {
            address: secrets.address.clone(),
            generation: secrets.generation,
            certificate: secrets.certificate.to_vec(),
        };
        let mut file = KeyFile { header, slots: Vec::new(), nonce: [0; 12], body: Vec::new() };
        file.seal_body(secrets, entropy);
        file
    }

    /// Puts new secrets (a renewed certificate, another signing or KEM key) into the file of the same account.
    /// The slots stay.
    ///
    /// # Errors
    /// [`KeyFileError::Altered`], if they are of another account or another master key: nothing is changed.
    pub fn replace(&mut self, secrets: &Secrets, entropy: &mut Entropy) -> Result<(), KeyFileError> {
        self.open(&secrets.master)?;
        if self.header.address != secrets.address || self.header.generation != secrets.generation {
            return Err(KeyFileError::Altered);
        }
        self.header.certificate = secrets.certificate.to_vec();
        self.seal_body(secrets, entropy);
        Ok(())
    }

    /// Reads a key file, without unlocking it.
    ///
    /// # Errors
    /// [`KeyFileError::Malformed`] or [`KeyFileError::Unknown`].
    pub fn decode(bytes: &[u8]) -> Result<KeyFile, KeyFileError> {
        let rest = bytes.strip_prefix(MAGIC).filter(|_| bytes.len() <= KEY_FILE_BYTES_MAX);
        let (version, cbor) = rest.and_then(<[u8]>::split_first).ok_or(KeyFileError::Malformed)?;
        if *version != VERSION {
            return Err(KeyFileError::Unknown(*version));
        }
        let mut decoder = minicbor::Decoder::new(cbor);
        let file: File = decoder.decode().map_err(|_| KeyFileError::Malformed)?;
        let is_bounded = file.slots.len() <= KEY_SLOTS_MAX && file.slots.iter().all(|slot| slot.wrapped.len() <= 256);
        if decoder.position() != cbor.len() || !is_bounded {
            return Err(KeyFileError::Malformed);
        }
        Ok(KeyFile { header: file.header, slots: file.slots, nonce: file.nonce, body: file.body })
    }

    /// The file as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let file =
            File { header: self.header.clone(), slots: self.slots.clone(), nonce: self.nonce, body: self.body.clone() };
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        minicbor::encode(&file, &mut bytes).expect("encoding into a Vec cannot fail");
        assert!(bytes.len() <= KEY_FILE_BYTES_MAX);
        bytes
    }

    /// The account's address, as the file says in clear; true only once the file is opened.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.header.address
    }

    /// The slots: number and kind.
    pub fn slots(&self) -> impl Iterator<Item = (u32, SlotKind)> + '_ {
        self.slots.iter().map(|slot| {
            let kind = match slot.kind {
                KIND_PASSWORD => SlotKind::Password,
                KIND_NODE => SlotKind::Node,
                other => SlotKind::Reserved(other),
            };
            (slot.number, kind)
        })
    }

    /// Adds a slot for a password; returns its number.
    ///
    /// # Errors
    /// [`KeyFileError::Full`] or [`KeyFileError::BadCost`].
    pub fn add_password(
        &mut self,
        master: &MasterKey,
        password: &[u8],
        cost: PasswordCost,
        entropy: &mut Entropy,
    ) -> Result<u32, KeyFileError> {
        let salt = entropy.draw();
        let key = password_key(password, &salt, cost)?;
        self.add(KIND_PASSWORD, salt, cost, &key, master, entropy)
    }

    /// Adds a slot for the node with this secret; returns its number.
    ///
    /// # Errors
    /// [`KeyFileError::Full`].
    pub fn add_node(
        &mut self,
        master: &MasterKey,
        node_secret: &[u8; 32],
        entropy: &mut Entropy,
    ) -> Result<u32, KeyFileError> {
        let salt = entropy.draw();
        let none = PasswordCost { memory_kib: 0, passes: 0, lanes: 0 };
        self.add(KIND_NODE, salt, none, &node_key(node_secret, &salt), master, entropy)
    }

    /// Removes a slot.
    ///
    /// # Errors
    /// [`KeyFileError::NoSuchSlot`] or [`KeyFileError::LastSlot`].
    pub fn remove_slot(&mut self, number: u32) -> Result<(), KeyFileError> {
        let at = self.slots.iter().position(|slot| slot.number == number).ok_or(KeyFileError::NoSuchSlot)?;
        if self.slots.len() == 1 {
            return Err(KeyFileError::LastSlot);
        }
        self.slots.remove(at);
        Ok(())
    }

    /// Replaces the slot that `old` unlocks by one for `new`.
    ///
    /// # Errors
    /// [`KeyFileError::WrongPassword`], [`KeyFileError::Altered`] or [`KeyFileError::BadCost`]; nothing is changed.
    pub fn change_password(
        &mut self,
        old: &[u8],
        new: &[u8],
        cost: PasswordCost,
        entropy: &mut Entropy,
    ) -> Result<(), KeyFileError> {
        let (number, master) = self.try_passwords(old)?;
        self.open(&master)?;
        let mut changed = self.clone();
        changed.slots.retain(|slot| slot.number != number);
        changed.add_password(&master, new, cost, entropy)?;
        *self = changed;
        Ok(())
    }

    /// The master key, by password. Takes as long as the slots' cost demands: not for a thread that serves others.
    ///
    /// # Errors
    /// [`KeyFileError::WrongPassword`].
    pub fn unlock_password(&self, password: &[u8]) -> Result<MasterKey, KeyFileError> {
        self.try_passwords(password).map(|(_, master)| master)
    }

    /// The master key, by the secret of the node that the file lies on.
    ///
    /// # Errors
    /// [`KeyFileError::WrongNode`].
    pub fn unlock_node(&self, node_secret: &[u8; 32]) -> Result<MasterKey, KeyFileError> {
        let mut slots = self.slots.iter().filter(|slot| slot.kind == KIND_NODE);
        slots.find_map(|slot| self.unwrap(slot, &node_key(node_secret, &slot.salt))).ok_or(KeyFileError::WrongNode)
    }

    /// Opens the body.
    ///
    /// # Errors
    /// [`KeyFileError::Altered`].
    pub fn open(&self, master: &MasterKey) -> Result<Secrets, KeyFileError> {
        let mut plaintext = Zeroizing::new(self.body.clone());
        let buffer: &mut dyn Buffer = &mut *plaintext;
        body_cipher(master)
            .decrypt_in_place(&self.nonce.into(), &self.bound(), buffer)
            .map_err(|_| KeyFileError::Altered)?;
        let body: Body = minicbor::decode(&plaintext).map_err(|_| KeyFileError::Altered)?;
        if body.kem.len() > KEM_KEYS_MAX {
            return Err(KeyFileError::Altered);
        }
        Ok(Secrets {
            address: self.header.address.clone(),
            generation: self.header.generation,
            root: SigningKey::from_bytes(&body.root),
            signing: SigningKey::from_bytes(&body.signing),
            kem: body.kem.iter().map(|key| KemSecret::new(key.number, key.seed)).collect(),
            master: master.clone(),
            certificate: Bytes::from(self.header.certificate.clone()),
        })
    }

    fn seal_body(&mut self, secrets: &Secrets, entropy: &mut Entropy) {
        assert!(secrets.kem.len() <= KEM_KEYS_MAX);
        let kem = secrets.kem.iter().map(|key| KemSeed { number: key.number(), seed: *key.seed() }).collect();
        let body = Body { root: secrets.root.to_bytes(), signing: secrets.signing.to_bytes(), kem };
        // Room from the start, so that no growing Vec leaves a copy of the keys behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(256 + 64 * body.kem.len()));
        minicbor::encode(&body, &mut *sealed).expect("encoding into a Vec cannot fail");
        self.nonce = entropy.draw();
        let buffer: &mut dyn Buffer = &mut *sealed;
        body_cipher(&secrets.master)
            .encrypt_in_place(&self.nonce.into(), &self.bound(), buffer)
            .expect("a Vec grows, and the body is small");
        self.body = sealed.to_vec();
    }

    fn add(
        &mut self,
        kind: u8,
        salt: [u8; 16],
        cost: PasswordCost,
        key: &[u8; 32],
        master: &MasterKey,
        entropy: &mut Entropy,
    ) -> Result<u32, KeyFileError> {
        if self.slots.len() >= KEY_SLOTS_MAX {
            return Err(KeyFileError::Full);
        }
        let number = self.slots.iter().map(|slot| slot.number).max().map_or(1, |highest| highest.saturating_add(1));
        let mut wrapped = Vec::with_capacity(48);
        wrapped.extend_from_slice(master.bytes());
        let PasswordCost { memory_kib, passes, lanes } = cost;
        let nonce = entropy.draw();
        let mut slot = Slot { number, kind, salt, memory_kib, passes, lanes, nonce, wrapped };
        let bound = self.slot_bound(&slot);
        let buffer: &mut dyn Buffer = &mut slot.wrapped;
        Aes256GcmSiv::new(&(*key).into())
            .encrypt_in_place(&nonce.into(), &bound, buffer)
            .expect("a Vec grows, and a key is small");
        self.slots.push(slot);
        Ok(number)
    }

    fn try_passwords(&self, password: &[u8]) -> Result<(u32, MasterKey), KeyFileError> {
        for slot in self.slots.iter().filter(|slot| slot.kind == KIND_PASSWORD) {
            let cost = PasswordCost { memory_kib: slot.memory_kib, passes: slot.passes, lanes: slot.lanes };
            // A slot whose cost was raised out of bounds is a damaged slot; another may still open.
            let Ok(key) = password_key(password, &slot.salt, cost) else { continue };
            if let Some(master) = self.unwrap(slot, &key) {
                return Ok((slot.number, master));
            }
        }
        Err(KeyFileError::WrongPassword)
    }

    fn unwrap(&self, slot: &Slot, key: &[u8; 32]) -> Option<MasterKey> {
        let mut master = Zeroizing::new(slot.wrapped.clone());
        let buffer: &mut dyn Buffer = &mut *master;
        Aes256GcmSiv::new(&(*key).into()).decrypt_in_place(&slot.nonce.into(), &self.slot_bound(slot), buffer).ok()?;
        let master: [u8; 32] = master.as_slice().try_into().ok()?;
        Some(MasterKey::new(master))
    }

    /// What the body's seal also covers: the version and the whole header.
    fn bound(&self) -> Vec<u8> {
        let mut bound = vec![VERSION];
        minicbor::encode(&self.header, &mut bound).expect("encoding into a Vec cannot fail");
        bound
    }

    /// What a slot's seal also covers. Not the certificate, so that renewing it leaves the slots as they are.
    fn slot_bound(&self, slot: &Slot) -> Vec<u8> {
        let mut bound = vec![VERSION, slot.kind];
        for number in [slot.number, slot.memory_kib, slot.passes, slot.lanes, self.header.generation] {
            bound.extend_from_slice(&number.to_le_bytes());
        }
        bound.extend_from_slice(self.header.address.as_bytes());
        bound
    }
}

fn password_key(password: &[u8], salt: &[u8; 16], cost: PasswordCost) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.parameters()?);
    let mut key = Zeroizing::new([0; 32]);
    argon2.hash_password_into(password, salt, &mut *key).map_err(|_| KeyFileError::BadCost)?;
    Ok(key)
}

fn node_key(node_secret: &[u8; 32], salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key("ePOST 2026 key file node slot");
    hasher.update(node_secret);
    hasher.update(salt);
    Zeroizing::new(*hasher.finalize().as_bytes())
}

fn body_cipher(master: &MasterKey) -> Aes256GcmSiv {
    Aes256GcmSiv::new(&(*master.derive("ePOST 2026 key file body", "")).into())
}

#[cfg(test)]
mod tests;
