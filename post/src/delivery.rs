//! Delivery: telling a user that a message is there for her, and being told that she has it.
//!
//! The message itself is in the ring, sealed. What goes from the sender's node to the recipient's is one small
//! [`notification`]: encrypted to the recipient, signed twice by the sender. The outer signature covers the
//! ciphertext, so that a node that cannot read it can still tell it from a forgery; the inner one covers what it
//! says, so that not even the recipient can pass it off as sent to somebody else. She answers with a signed
//! [`receipt`] once everything is fetched, checked and safe in her folder. The same notification twice is one mail:
//! the folder that took it in remembers its id for longer than one can be held ([`crate::mail::deliveries`]).
//!
//! What it is not: delegation to other nodes while the recipient is away is not here yet; until then, a
//! notification that reaches nobody stays in the sender's outbox. When to retry is the gateway's business.
//!
//! Where to start: [`Packet`] is what applications say to each other, [`notify`](notify::notify) sends one.

pub mod notification;
pub mod notify;
pub mod receipt;

use bytes::{BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const NOTIFICATION: u8 = 1;
const RECEIPT: u8 = 2;
const REFUSED: u8 = 3;
const BUSY: u8 = 4;

/// What the application on one node says to the application on another.
///
/// ```text
/// 0  version u8 = 1      1  kind u8      2  body
///                           1  notification        2  receipt
///                           3  refusal: reason u8  4  busy: nothing
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A sealed notification ([`notification`]).
    Notification(Bytes),
    /// A receipt ([`receipt`]): the answer to a notification that was taken in.
    Receipt(Bytes),
    /// The notification is not acceptable, and will not be when it is sent again as it is.
    Refused(Reason),
    /// Not now; try again later.
    Busy,
}

/// Why a notification was refused, as told to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The recipient's account is not on this node: read her identity block again.
    UnknownRecipient = 1,
    /// It does not decode.
    Malformed = 2,
    /// A signature or certificate is not good.
    NotAuthentic = 3,
    /// It is sealed to a key the recipient no longer has: read her identity block again.
    UnknownKey = 4,
    /// It was signed too long ago, or in the future.
    Untimely = 5,
    /// The message it refers to is not complete, or not what the notification says.
    BadMessage = 6,
    /// The recipient takes no mail from this sender, or none so large.
    Unwanted = 7,
    /// A reason this program does not know.
    Other = 255,
}

impl Reason {
    fn from_number(number: u8) -> Reason {
        match number {
            1 => Reason::UnknownRecipient,
            2 => Reason::Malformed,
            3 => Reason::NotAuthentic,
            4 => Reason::UnknownKey,
            5 => Reason::Untimely,
            6 => Reason::BadMessage,
            7 => Reason::Unwanted,
            _ => Reason::Other,
        }
    }
}

/// Why bytes are not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Too short, too long, or of an unknown kind.
    #[error("not a packet")]
    Malformed,
    /// Made by a newer program.
    #[error("a packet of version {0} is not known here")]
    Unknown(u8),
}

impl Packet {
    /// The packet as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (kind, body): (u8, &[u8]) = match self {
            Packet::Notification(body) => (NOTIFICATION, body),
            Packet::Receipt(body) => (RECEIPT, body),
            Packet::Refused(reason) => (REFUSED, &[*reason as u8]),
            Packet::Busy => (BUSY, &[]),
        };
        let mut bytes = BytesMut::with_capacity(2 + body.len());
        bytes.put_slice(&[VERSION, kind]);
        bytes.put_slice(body);
        bytes.freeze()
    }

    /// Reads a packet; bodies are slices of `bytes`, and not read further.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn decode(bytes: &Bytes) -> Result<Packet, PacketError> {
        let (&[version, kind], _) = bytes.split_first_chunk::<2>().ok_or(PacketError::Malformed)?;
        if version != VERSION {
            return Err(PacketError::Unknown(version));
        }
        let body = bytes.slice(2..);
        match (kind, body.len()) {
            (NOTIFICATION, 1..=crate::limits::NOTIFICATION_BYTES_MAX) => Ok(Packet::Notification(body)),
            (RECEIPT, 1..=crate::limits::RECEIPT_BYTES_MAX) => Ok(Packet::Receipt(body)),
            (REFUSED, 1) => Ok(Packet::Refused(Reason::from_number(body[0]))),
            (BUSY, 0) => Ok(Packet::Busy),
            _ => Err(PacketError::Malformed),
        }
    }
}

/// Splits `"magic" | CBOR | signature 64` into the signed bytes, the CBOR in them, and the signature.
fn split_signed<'a>(bytes: &'a [u8], magic: &[u8; 4]) -> Option<(&'a [u8], &'a [u8], &'a [u8; 64])> {
    let (signed, signature) = bytes.split_last_chunk::<64>()?;
    let body = signed.strip_prefix(magic)?;
    Some((signed, body, signature))
}

/// Lays out and signs `"magic" | CBOR | signature 64`.
fn sign(
    magic: &[u8; 4],
    body: &impl minicbor::Encode<()>,
    capacity: usize,
    key: &ed25519_dalek::SigningKey,
) -> Vec<u8> {
    use ed25519_dalek::Signer;
    let mut bytes = Vec::with_capacity(capacity + 68);
    bytes.extend_from_slice(magic);
    minicbor::encode(body, &mut bytes).expect("encoding into a Vec cannot fail");
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature.to_bytes());
    bytes
}

/// Whether `signature` is the holder's of `public_key` over `signed`.
fn is_signed_by(public_key: &[u8; 32], signed: &[u8], signature: &[u8; 64]) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    ed25519_dalek::VerifyingKey::from_bytes(public_key).is_ok_and(|key| key.verify_strict(signed, &signature).is_ok())
}

/// Reads exactly one CBOR item and nothing after it.
fn decode_all<'b, T: minicbor::Decode<'b, ()>>(bytes: &'b [u8]) -> Option<T> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let item = decoder.decode().ok()?;
    (decoder.position() == bytes.len()).then_some(item)
}

#[cfg(test)]
mod tests;
