//! The notification: what a sender says to one recipient about one message.
//!
//! ```text
//! outer   "ePN1"
//!         CBOR  [0 header bytes, 1 sealed bytes]
//!         signature 64            Ed25519 under the sender's signing key, over everything before it
//! header  CBOR  {0 recipient, 1 number of her KEM key, 2 expiry s, 3 sender's certificate DER}
//! sealed  X-Wing encapsulated key 1120, then ChaCha20-Poly1305 (HPKE base mode; `identity::kem`)
//!         purpose "ePOST 2026 notification"; associated data: the header's bytes
//! inner   "ePI1"
//!         CBOR  {0 sender, 1 recipient, 2 time µs, 3 id 32, 4 root 32, 5 message reference}
//!         signature 64            the same key, over everything before it
//! ```
//!
//! The header is what a delegate sees: to whom, until when, and from whom, with all that is needed to check the outer
//! signature without any look-up. The inner signature makes the statement the sender's for good: it names both
//! ends, so a recipient who seals it anew to somebody else is found out, and it carries the root of the whole message.
//! A notification is believed if the certificate was valid *when it was signed* and is not revoked now.

use super::{Reason, decode_all, is_signed_by, sign, split_signed};
use crate::entropy::Entropy;
use crate::identity::address;
use crate::identity::kem::KemError;
use crate::identity::resolve::{CertificateRefusal, Contact, check};
use crate::identity::secrets::Secrets;
use crate::limits::{CLOCK_SKEW_S, MESSAGE_REFERENCE_BYTES_MAX, NOTIFICATION_BYTES_MAX, NOTIFICATION_HOLD_S};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use net::machine::{Micros, Seconds};
use net::past::block::Trust;
use net::secure::certificate::{UserCertificate, parse_user};
use std::fmt;
use zeroize::Zeroizing;

const OUTER: &[u8; 4] = b"ePN1";
const INNER: &[u8; 4] = b"ePI1";
const PURPOSE: &[u8] = b"ePOST 2026 notification";

/// Why a notification could not be made or was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    /// It does not decode, or is over a bound: the sender's program is at fault, or the bytes were damaged.
    #[error("not a notification")]
    Malformed,
    /// It is for somebody else.
    #[error("the notification is for another recipient")]
    WrongRecipient,
    /// The sender's certificate is not good.
    #[error(transparent)]
    Certificate(#[from] CertificateRefusal),
    /// One of the two signatures is not the certified sender's, or the two ends named inside are not those outside.
    #[error("the notification is not signed by its sender")]
    NotSigned,
    /// It is sealed to a key that the recipient does not have.
    #[error("the notification is sealed to an unknown key")]
    UnknownKey,
    /// The seal does not open, though the key is there.
    #[error("the notification's seal does not open")]
    DoesNotOpen,
    /// Signed in the future, longer ago than a notification is held, or expired.
    #[error("the notification is not of the present")]
    Untimely,
}

impl NotificationError {
    /// What to tell the sender.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            NotificationError::Malformed => Reason::Malformed,
            NotificationError::WrongRecipient => Reason::UnknownRecipient,
            NotificationError::Certificate(_) | NotificationError::NotSigned => Reason::NotAuthentic,
            NotificationError::UnknownKey | NotificationError::DoesNotOpen => Reason::UnknownKey,
            NotificationError::Untimely => Reason::Untimely,
        }
    }
}

/// What is to be said about a message. The reference opens the message: it is a secret.
pub struct Letter {
    /// Names the delivery of this message to this recipient; the same at every attempt.
    pub id: [u8; 32],
    /// The root of the whole message.
    pub root: [u8; 32],
    /// The encoded reference of the whole message.
    pub message: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Letter({} bytes of reference)", self.message.len())
    }
}

/// A notification that was opened and believed.
pub struct Notification {
    /// The sender, as certified.
    pub sender: String,
    /// When it was signed.
    pub time: Micros,
    /// What it says.
    pub letter: Letter,
    /// The certificate it was signed under.
    pub certificate: UserCertificate,
}

impl Notification {
    /// Whether `address`, taken from a message's From field, is the signer's certified address: only then may the
    /// message be shown as secure.
    #[must_use]
    pub fn is_from(&self, address: &str) -> bool {
        address::canonical(address).as_ref() == Ok(&self.sender)
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification").field("time", &self.time).field("letter", &self.letter).finish_non_exhaustive()
    }
}

#[derive(Encode, Decode)]
struct Outer<'b> {
    #[cbor(n(0), with = "minicbor::bytes")]
    header: &'b [u8],
    #[cbor(n(1), with = "minicbor::bytes")]
    sealed: &'b [u8],
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Header<'b> {
    #[n(0)]
    recipient: &'b str,
    #[n(1)]
    kem: u32,
    #[n(2)]
    expiry: Seconds,
    #[cbor(n(3), with = "minicbor::bytes")]
    certificate: &'b [u8],
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Inner<'b> {
    #[n(0)]
    sender: &'b str,
    #[n(1)]
    recipient: &'b str,
    #[n(2)]
    time: Micros,
    #[cbor(n(3), with = "minicbor::bytes")]
    id: [u8; 32],
    #[cbor(n(4), with = "minicbor::bytes")]
    root: [u8; 32],
    #[cbor(n(5), with = "minicbor::bytes")]
    message: &'b [u8],
}

/// Seals `letter` from the account `sender` to `recipient`, signed as of `now`.
///
/// # Errors
/// [`NotificationError::Malformed`], if the letter is over its bound.
pub fn seal(
    sender: &Secrets,
    recipient: &Contact,
    letter: &Letter,
    now: Micros,
    entropy: &mut Entropy,
) -> Result<Bytes, NotificationError> {
    if letter.message.len() > MESSAGE_REFERENCE_BYTES_MAX {
        return Err(NotificationError::Malformed);
    }
    let inner = Inner {
        sender: &sender.address,
        recipient: recipient.address(),
        time: now,
        id: letter.id,
        root: letter.root,
        message: &letter.message,
    };
    let inner = Zeroizing::new(sign(INNER, &inner, letter.message.len() + 1024, &sender.signing));
    let header = Header {
        recipient: recipient.address(),
        kem: recipient.kem().number(),
        expiry: now / 1_000_000 + NOTIFICATION_HOLD_S,
        certificate: &sender.certificate,
    };
    let header = minicbor::to_vec(&header).expect("encoding into a Vec cannot fail");
    let sealed = recipient.kem().seal(PURPOSE, &header, &inner, entropy).map_err(|_| NotificationError::UnknownKey)?;
    let outer =
        sign(OUTER, &Outer { header: &header, sealed: &sealed }, header.len() + sealed.len() + 16, &sender.signing);
    if outer.len() > NOTIFICATION_BYTES_MAX {
        return Err(NotificationError::Malformed);
    }
    Ok(Bytes::from(outer))
}

/// For whom a notification is, so that a node with several accounts knows whom to ask. Nothing is checked yet.
///
/// # Errors
/// [`NotificationError::Malformed`].
pub fn recipient_of(notification: &[u8]) -> Result<String, NotificationError> {
    let (_, header) = read_outer(notification)?;
    address::canonical(header.recipient).map_err(|_| NotificationError::Malformed)
}

/// Checks a notification's outside: that it is in time, and that the certified sender signed these very bytes. This
/// is all that a delegate can check; it reads nothing of what is sealed. Returns the sender's certificate.
///
/// # Errors
/// [`NotificationError`].
pub fn check_outer(notification: &[u8], trust: &Trust, now: Micros) -> Result<UserCertificate, NotificationError> {
    let (_, header) = read_outer(notification)?;
    let now_s = now / 1_000_000;
    let is_timely = header.expiry.saturating_add(CLOCK_SKEW_S) >= now_s
        && header.expiry <= now_s.saturating_add(NOTIFICATION_HOLD_S + CLOCK_SKEW_S);
    let certificate = certificate_of(&header, trust)?;
    let (signed, _, signature) = split_signed(notification, OUTER).ok_or(NotificationError::Malformed)?;
    if !is_signed_by(&certificate.signing_key, signed, signature) {
        return Err(NotificationError::NotSigned);
    }
    if is_timely { Ok(certificate) } else { Err(NotificationError::Untimely) }
}

/// Opens a notification for the account `recipient`, and checks everything that can be checked without the message.
/// Whether it came before is for the folder to say ([`crate::mail::deliveries`]).
///
/// # Errors
/// [`NotificationError`], telling which check failed.
pub fn open(
    recipient: &Secrets,
    trust: &Trust,
    notification: &[u8],
    now: Micros,
) -> Result<Notification, NotificationError> {
    let (outer, header) = read_outer(notification)?;
    if address::canonical(header.recipient).as_ref() != Ok(&recipient.address) {
        return Err(NotificationError::WrongRecipient);
    }
    let certificate = check_outer(notification, trust, now)?;
    let key = recipient.kem_key(header.kem).ok_or(NotificationError::UnknownKey)?;
    let inner = key.open(PURPOSE, outer.header, outer.sealed).map_err(|error| match error {
        KemError::BadKey => NotificationError::UnknownKey,
        KemError::DoesNotOpen => NotificationError::DoesNotOpen,
    })?;
    believe(&inner, recipient, trust, certificate, now)
}

/// Checks the inside of a notification against its outside and the time.
fn believe(
    inner: &[u8],
    recipient: &Secrets,
    trust: &Trust,
    certificate: UserCertificate,
    now: Micros,
) -> Result<Notification, NotificationError> {
    let (signed, body, signature) = split_signed(inner, INNER).ok_or(NotificationError::Malformed)?;
    let inner: Inner<'_> = decode_all(body).ok_or(NotificationError::Malformed)?;
    if inner.message.len() > MESSAGE_REFERENCE_BYTES_MAX {
        return Err(NotificationError::Malformed);
    }
    let sender = address::canonical(&certificate.address).map_err(|_| NotificationError::Malformed)?;
    let names_both = inner.sender == sender && inner.recipient == recipient.address;
    if !names_both || !is_signed_by(&certificate.signing_key, signed, signature) {
        return Err(NotificationError::NotSigned);
    }
    let (time_s, now_s) = (inner.time / 1_000_000, now / 1_000_000);
    let oldest = now_s.saturating_sub(NOTIFICATION_HOLD_S + CLOCK_SKEW_S);
    if !(oldest..=now_s.saturating_add(CLOCK_SKEW_S)).contains(&time_s) {
        return Err(NotificationError::Untimely);
    }
    check(&certificate, trust, time_s)?;
    let message = Zeroizing::new(inner.message.to_vec());
    let letter = Letter { id: inner.id, root: inner.root, message };
    Ok(Notification { sender, time: inner.time, letter, certificate })
}

/// The outer parts, decoded and bounded, unchecked.
fn read_outer(notification: &[u8]) -> Result<(Outer<'_>, Header<'_>), NotificationError> {
    if notification.len() > NOTIFICATION_BYTES_MAX {
        return Err(NotificationError::Malformed);
    }
    let (_, body, _) = split_signed(notification, OUTER).ok_or(NotificationError::Malformed)?;
    let outer: Outer<'_> = decode_all(body).ok_or(NotificationError::Malformed)?;
    let header: Header<'_> = decode_all(outer.header).ok_or(NotificationError::Malformed)?;
    Ok((outer, header))
}

/// The sender's certificate, checked for its issuer and revocation; not for the time, which the inside tells.
fn certificate_of(header: &Header<'_>, trust: &Trust) -> Result<UserCertificate, NotificationError> {
    let certificate = parse_user(header.certificate, &trust.authority).map_err(CertificateRefusal::from)?;
    if trust.has_revoked(&certificate.serial) {
        return Err(CertificateRefusal::Revoked.into());
    }
    Ok(certificate)
}
