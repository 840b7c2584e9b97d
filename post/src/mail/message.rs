//! A message in the ring: the reference that names all its objects, storing it, and fetching it.
//!
//! ```text
//! MessageReference  CBOR [version, size, skeleton, [part…], edit]
//!   skeleton, part  sealed references of 128 bytes: whoever holds them can read the message
//!   edit            null, or [prepended bytes, [start, length, start, length…]]
//! ```
//!
//! The reference lists every object, so that leases are refreshed and sizes are checked without fetching any.
//! Parts are stored before the skeleton that names them, and both before anybody is given the reference. The
//! recipient's own trace and what is stripped at delivery are in the edit, so that the objects stay shared.

use super::header::{EditError, HeaderEdit};
use super::limits::{MESSAGE_BYTES_MAX, PARTS_MAX};
use super::parts::{PartsError, Skeleton, assemble, split};
use super::structure::Structure;
use crate::limits::MESSAGE_REFERENCE_BYTES_MAX;
use crate::seal::{self, OpenError, Reference, SealError, Sealing, Secret};
use crate::store::ObjectStore;
use crate::store::concurrent::try_all;
use bytes::Bytes;
use net::id::Key;
use net::machine::Seconds;
use zeroize::Zeroizing;

/// Format of an encoded reference.
const VERSION: u8 = 1;

/// Everything that is needed to fetch one message. It is a secret, as every reference in it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageReference {
    /// Octets of the message as it was stored, before the edit.
    stored_size: u32,
    skeleton: Reference,
    parts: Vec<Reference>,
    edit: HeaderEdit,
}

/// A message that has been stored.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Where its objects are.
    pub reference: MessageReference,
    /// Its MIME tree.
    pub structure: Structure,
}

/// Why a message could not be stored or fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The caller's message is larger than [`MESSAGE_BYTES_MAX`].
    #[error("the message is larger than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// An object of the message was not stored.
    #[error("an object of the message was not stored: {0}")]
    Seal(#[from] SealError),
    /// An object of the message could not be fetched or opened.
    #[error("an object of the message was not opened: {0}")]
    Open(#[from] OpenError),
    /// The objects are there, but do not make the message.
    #[error("the objects do not make the message: {0}")]
    Parts(#[from] PartsError),
    /// The reference's edit does not fit its message.
    #[error("the edit does not fit the message: {0}")]
    Edit(#[from] EditError),
}

/// Why bytes are not a message reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageReferenceError {
    /// Not the CBOR that a reference is encoded to, or over a bound.
    #[error("not a message reference")]
    Malformed,
    /// Its objects declare more bytes than the message has: it would grow when fetched.
    #[error("the parts declare more bytes than the message has")]
    Inflated,
}

impl MessageReference {
    /// Octets of the message as it is fetched: RFC822.SIZE.
    #[must_use]
    pub fn size(&self) -> usize {
        self.edit.edited_length(self.stored_size as usize).expect("checked when the edit was taken")
    }

    /// The references of all objects, the skeleton's first.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        std::iter::once(&self.skeleton).chain(&self.parts)
    }

    /// How many objects the message is made of.
    #[must_use]
    pub fn object_count(&self) -> usize {
        1 + self.parts.len()
    }

    /// What a recipient does to the header.
    #[must_use]
    pub fn edit(&self) -> &HeaderEdit {
        &self.edit
    }

    /// The same objects with another edit, replacing the one there is.
    pub fn with_edit(&self, edit: HeaderEdit) -> Result<MessageReference, EditError> {
        let length = edit.edited_length(self.stored_size as usize)?;
        if length > u32::MAX as usize {
            return Err(EditError::BadTrace);
        }
        Ok(MessageReference { edit, ..self.clone() })
    }

    /// The root of the whole message, which a sender signs: the hash of the reference without any edit. It commits
    /// to every object's content, because references hold the hashes of what they open to.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let encoded = self.encode_with(&HeaderEdit::default());
        *blake3::Hasher::new_derive_key("ePOST 2026 message root").update(&encoded).finalize().as_bytes()
    }

    /// The reference as bytes, keys included.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        self.encode_with(&self.edit)
    }

    fn encode_with(&self, edit: &HeaderEdit) -> Zeroizing<Vec<u8>> {
        // Sized so that the keys in it are not left behind by a reallocation.
        let capacity =
            64 + (Reference::LEN + 3) * self.object_count() + edit.prepended().len() + 11 * edit.removed().len();
        let mut encoder = minicbor::Encoder::new(Vec::with_capacity(capacity));
        self.write(&mut encoder, edit).expect("encoding into a Vec does not fail");
        let bytes = encoder.into_writer();
        assert!(bytes.len() <= MESSAGE_REFERENCE_BYTES_MAX);
        Zeroizing::new(bytes)
    }

    fn write(
        &self,
        encoder: &mut minicbor::Encoder<Vec<u8>>,
        edit: &HeaderEdit,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        encoder.array(5)?.u8(VERSION)?.u32(self.stored_size)?.encode(&self.skeleton)?;
        encoder.array(self.parts.len() as u64)?;
        for part in &self.parts {
            encoder.encode(part)?;
        }
        if edit.is_empty() {
            return encoder.null()?.ok();
        }
        encoder.array(2)?.bytes(edit.prepended())?.array(2 * edit.removed().len() as u64)?;
        for range in edit.removed() {
            encoder.u32(range.start)?.u32(range.end - range.start)?;
        }
        Ok(())
    }

    /// Reads a reference and checks that its sizes agree.
    pub fn decode(bytes: &[u8]) -> Result<MessageReference, MessageReferenceError> {
        if bytes.len() > MESSAGE_REFERENCE_BYTES_MAX {
            return Err(MessageReferenceError::Malformed);
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let reference = MessageReference::read(&mut decoder).map_err(|_| MessageReferenceError::Malformed)?;
        if decoder.position() != bytes.len() || reference.stored_size as usize > MESSAGE_BYTES_MAX {
            return Err(MessageReferenceError::Malformed);
        }
        if reference.edit.edited_length(reference.stored_size as usize).is_err() {
            return Err(MessageReferenceError::Malformed);
        }
        reference.check_sizes()?;
        Ok(reference)
    }

    fn read(decoder: &mut minicbor::Decoder<'_>) -> Result<MessageReference, minicbor::decode::Error> {
        let malformed = || minicbor::decode::Error::message("not a message reference");
        if decoder.array()? != Some(5) || decoder.u8()? != VERSION {
            return Err(malformed());
        }
        let stored_size = decoder.u32()?;
        let skeleton = decoder.decode()?;
        let count = decoder.array()?.filter(|count| *count <= PARTS_MAX as u64).ok_or_else(malformed)?;
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(decoder.decode()?);
        }
        let edit = if decoder.datatype()? == minicbor::data::Type::Null {
            decoder.null()?;
            HeaderEdit::default()
        } else {
            read_edit(decoder)?
        };
        Ok(MessageReference { stored_size, skeleton, parts, edit })
    }

    /// No part is larger than the message it is in, and no repetition of parts makes it grow: what is in a
    /// message is at least as long as what was stored of it. Checked before anything is fetched.
    fn check_sizes(&self) -> Result<(), MessageReferenceError> {
        let declared = self.parts.iter().try_fold(0u64, |sum, part| sum.checked_add(part.length()));
        // The skeleton holds the rest of the message, and a few bytes for each segment.
        let skeleton_max = u64::from(self.stored_size) + 64 + 32 * self.parts.len() as u64;
        if declared.is_none_or(|sum| sum > u64::from(self.stored_size)) || self.skeleton.length() > skeleton_max {
            return Err(MessageReferenceError::Inflated);
        }
        Ok(())
    }
}

fn read_edit(decoder: &mut minicbor::Decoder<'_>) -> Result<HeaderEdit, minicbor::decode::Error> {
    let malformed = || minicbor::decode::Error::message("not a header edit");
    if decoder.array()? != Some(2) {
        return Err(malformed());
    }
    let prepended = Bytes::copy_from_slice(decoder.bytes()?);
    let count = decoder.array()?.filter(|count| count.is_multiple_of(2)).ok_or_else(malformed)?;
    let mut removed = Vec::new();
    for _ in 0..count / 2 {
        let (start, length) = (decoder.u32()?, decoder.u32()?);
        removed.push(start..start.checked_add(length).ok_or_else(malformed)?);
    }
    HeaderEdit::new(prepended, removed).map_err(|_| malformed())
}

/// Takes a message apart, seals and stores its objects. When it returns, all are durable at their quorum.
///
/// # Errors
/// [`MessageError::TooLarge`] or [`MessageError::Seal`]. Objects stored before a failure stay until their
/// lease ends; trying again is harmless.
pub async fn store_message<S: ObjectStore>(
    store: &S,
    sealing: &Sealing,
    message: &Bytes,
    expiry: Seconds,
) -> Result<StoredMessage, MessageError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLarge);
    }
    let split = split(message);
    let puts = split.parts.iter().map(|part| {
        let secret = sealing.for_attachment(part.len(), store.entropy());
        async move { seal::store(store, sealing.ring, &secret, part, expiry).await }
    });
    let parts = try_all(puts.collect::<Vec<_>>()).await?;
    let salt = Secret::salted(store.entropy());
    let skeleton = seal::store(store, sealing.ring, &salt, &split.skeleton.encode(), expiry).await?;
    let reference =
        MessageReference { stored_size: split.skeleton.size(), skeleton, parts, edit: HeaderEdit::default() };
    assert_eq!(reference.check_sizes(), Ok(()));
    Ok(StoredMessage { reference, structure: split.structure })
}

/// Fetches a message, verified, byte for byte, with the reference's edit made.
///
/// # Errors
/// [`MessageError`]: an object is missing or damaged, or they do not make the message.
pub async fn fetch_message<S: ObjectStore>(store: &S, reference: &MessageReference) -> Result<Bytes, MessageError> {
    let skeleton = Skeleton::decode(&seal::fetch(store, &reference.skeleton).await?)?;
    if skeleton.size() != reference.stored_size {
        return Err(PartsError::WrongSize.into());
    }
    // Before the parts are fetched: they are exactly those that the skeleton has room for.
    let lengths: Vec<u64> = reference.parts.iter().map(Reference::length).collect();
    skeleton.check_lengths(&lengths)?;
    let gets = reference.parts.iter().map(|part| seal::fetch(store, part));
    let parts = try_all(gets.collect::<Vec<_>>()).await?;
    let message = assemble(&skeleton, &parts)?;
    Ok(reference.edit.apply(message)?)
}

/// The keys of every block of the message, for its leases. Fetches the chunk lists of parts over 4 MiB.
///
/// # Errors
/// [`OpenError`], if a chunk list cannot be read.
pub async fn keys_of<S: ObjectStore>(store: &S, reference: &MessageReference) -> Result<Vec<Key>, OpenError> {
    let lists = reference.references().map(|object| seal::keys_of(store, object));
    Ok(try_all(lists.collect::<Vec<_>>()).await?.into_iter().flatten().collect())
}
