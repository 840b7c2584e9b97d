//! How the pieces of a folder are written in CBOR, for the derived encodings of effects and snapshots.
//!
//! Each module here is a `with` of `minicbor`'s derive. Decoding checks every bound before it keeps anything.

use super::limits::{FOLDER_ENTRIES_MAX, HEADER_BYTES_MAX, KEYWORD_BYTES_MAX, KEYWORDS_MAX};
use super::message::MessageReference;
use super::structure::Structure;
use super::view::Flags;
use bytes::Bytes;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decoder, Encoder};
use std::sync::Arc;

/// A header section.
pub(super) mod headers {
    use super::*;

    pub(crate) fn encode<C, W: Write>(
        headers: &Bytes,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.bytes(headers)?.ok()
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, DecodeError> {
        let headers = decoder.bytes()?;
        if headers.len() > HEADER_BYTES_MAX {
            return Err(DecodeError::message("headers over their bound"));
        }
        Ok(Bytes::copy_from_slice(headers))
    }
}

/// A MIME tree, as a byte string.
pub(super) mod structure {
    use super::*;

    pub(crate) fn encode<C, W: Write>(
        structure: &Arc<Structure>,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.bytes(&structure.encode())?.ok()
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Arc<Structure>, DecodeError> {
        let structure = Structure::decode(decoder.bytes()?);
        structure.map(Arc::new).map_err(|_| DecodeError::message("not a structure"))
    }
}

/// A message reference, as a byte string.
pub(super) mod message {
    use super::*;

    pub(crate) fn encode<C, W: Write>(
        message: &MessageReference,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.bytes(&message.encode())?.ok()
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<MessageReference, DecodeError> {
        MessageReference::decode(decoder.bytes()?).map_err(|_| DecodeError::message("not a message reference"))
    }
}

/// Flags: `[bits, keyword…]`.
pub(super) mod flags {
    use super::*;

    const ALL: u8 = 0b1_1111;

    pub(crate) fn encode<C, W: Write>(
        flags: &Flags,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let bits = u8::from(flags.seen)
            | u8::from(flags.answered) << 1
            | u8::from(flags.flagged) << 2
            | u8::from(flags.deleted) << 3
            | u8::from(flags.draft) << 4;
        encoder.array(1 + flags.keywords.len() as u64)?.u8(bits)?;
        for keyword in &flags.keywords {
            encoder.str(keyword)?;
        }
        Ok(())
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Flags, DecodeError> {
        let malformed = || DecodeError::message("not flags");
        let count = decoder.array()?.and_then(|count| count.checked_sub(1)).ok_or_else(malformed)?;
        let bits = decoder.u8()?;
        if bits & !ALL != 0 || count > KEYWORDS_MAX as u64 {
            return Err(malformed());
        }
        let mut flags = Flags {
            seen: bits & 1 != 0,
            answered: bits & 2 != 0,
            flagged: bits & 4 != 0,
            deleted: bits & 8 != 0,
            draft: bits & 16 != 0,
            keywords: Default::default(),
        };
        for _ in 0..count {
            let keyword = decoder.str()?;
            if keyword.len() > KEYWORD_BYTES_MAX || !flags.keywords.insert(keyword.to_owned()) {
                return Err(malformed());
            }
        }
        Ok(flags)
    }
}

/// Ascending UIDs, as runs: `[start, length, start, length…]`.
pub(super) mod uids {
    use super::*;

    pub(crate) fn encode<C, W: Write>(
        uids: &[u32],
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let runs = uids.chunk_by(|a, b| a.checked_add(1) == Some(*b));
        encoder.array(2 * runs.clone().count() as u64)?;
        for run in runs {
            encoder.u32(run[0])?.u32(run.len() as u32)?;
        }
        Ok(())
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u32>, DecodeError> {
        let malformed = || DecodeError::message("not UIDs");
        let count = decoder.array()?.filter(|count| count.is_multiple_of(2)).ok_or_else(malformed)?;
        let mut uids: Vec<u32> = Vec::new();
        for _ in 0..count / 2 {
            let (start, length) = (decoder.u32()?, decoder.u32()?);
            let end = start.checked_add(length).ok_or_else(malformed)?;
            let is_ascending = uids.last().is_none_or(|last| *last < start);
            if length == 0 || !is_ascending || length as usize > FOLDER_ENTRIES_MAX - uids.len().min(FOLDER_ENTRIES_MAX)
            {
                return Err(malformed());
            }
            uids.extend(start..end);
        }
        Ok(uids)
    }
}
