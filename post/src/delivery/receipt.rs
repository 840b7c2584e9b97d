//! The receipt: a recipient's signed word that a message is fetched, checked, and safe in her folder.
//!
//! ```text
//! "ePR1" | CBOR {0 id 32, 1 recipient, 2 time µs, 3 recipient's certificate DER} | signature 64 (Ed25519, over all before)
//! ```
//!
//! It ends the sender's retries, so nobody but the recipient can make one. It says nothing about what was read.

use super::{decode_all, is_signed_by, sign, split_signed};
use crate::identity::address;
use crate::identity::resolve::{CertificateRefusal, check, read_certificate};
use crate::identity::secrets::Secrets;
use crate::limits::{CLOCK_SKEW_S, RECEIPT_BYTES_MAX};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use net::machine::Micros;
use net::past::block::Trust;

const MAGIC: &[u8; 4] = b"ePR1";

/// Why a receipt was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It does not decode, or is over its bound.
    #[error("not a receipt")]
    Malformed,
    /// It is for another notification.
    #[error("the receipt is for another notification")]
    WrongNotification,
    /// It is somebody else's.
    #[error("the receipt is another recipient's")]
    WrongRecipient,
    /// The recipient's certificate is not good.
    #[error(transparent)]
    Certificate(#[from] CertificateRefusal),
    /// The signature is not the recipient's.
    #[error("the receipt is not signed by the recipient")]
    NotSigned,
    /// Signed in the future.
    #[error("the receipt is from the future")]
    Untimely,
}

/// A receipt that was believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The notification's id.
    pub id: [u8; 32],
    /// The recipient, as certified.
    pub recipient: String,
    /// When it was signed.
    pub time: Micros,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body<'b> {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 32],
    #[n(1)]
    recipient: &'b str,
    #[n(2)]
    time: Micros,
    #[cbor(n(3), with = "minicbor::bytes")]
    certificate: &'b [u8],
}

/// Signs a receipt for the notification `id`, as of `now`.
#[must_use]
pub fn sign_receipt(recipient: &Secrets, id: [u8; 32], now: Micros) -> Bytes {
    let body = Body { id, recipient: &recipient.address, time: now, certificate: &recipient.certificate };
    Bytes::from(sign(MAGIC, &body, 512 + recipient.certificate.len(), &recipient.signing))
}

/// Checks that `receipt` is `recipient`'s, for the notification `id`.
///
/// # Errors
/// [`ReceiptError`], telling which check failed.
pub fn verify_receipt(
    receipt: &[u8],
    trust: &Trust,
    id: [u8; 32],
    recipient: &str,
    now: Micros,
) -> Result<Receipt, ReceiptError> {
    if receipt.len() > RECEIPT_BYTES_MAX {
        return Err(ReceiptError::Malformed);
    }
    let (signed, body, signature) = split_signed(receipt, MAGIC).ok_or(ReceiptError::Malformed)?;
    let body: Body<'_> = decode_all(body).ok_or(ReceiptError::Malformed)?;
    if body.id != id {
        return Err(ReceiptError::WrongNotification);
    }
    let recipient = address::canonical(recipient).map_err(|_| ReceiptError::WrongRecipient)?;
    if body.recipient != recipient {
        return Err(ReceiptError::WrongRecipient);
    }
    let certificate = read_certificate(body.certificate, trust, &recipient)?;
    if !is_signed_by(&certificate.signing_key, signed, signature) {
        return Err(ReceiptError::NotSigned);
    }
    check(&certificate, trust, body.time / 1_000_000)?;
    if body.time > now.saturating_add(CLOCK_SKEW_S * 1_000_000) {
        return Err(ReceiptError::Untimely);
    }
    Ok(Receipt { id, recipient, time: body.time })
}
