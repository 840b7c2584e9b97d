//! Taking in a notification: the recipient's side of a delivery.
//!
//! A notification is believed, its message fetched whole, checked against what the sender signed, and leased; only
//! then is it appended to the inbox at its quorum, and only then is the receipt signed. Should this node die in
//! between, the sender finds no receipt and tells again; the notification's id, remembered in the inbox's own log,
//! makes the repetition an acknowledgement and not a second mail.

use super::{AccountError, Shared};
use crate::author::is_sole_author;
use bytes::Bytes;
use mail_parser::DateTime;
use post::delivery::notification::Notification;
use post::delivery::receipt::sign_receipt;
use post::delivery::{Packet, Reason};
use post::mail::deliveries::Delivery;
use post::mail::folder::NewMessage;
use post::mail::header::{HeaderEdit, forged_fields};
use post::mail::mailbox::INBOX;
use post::mail::message::{MessageError, MessageReference, fetch_message};
use post::mail::references::refresh_messages;
use post::mail::view::Flags;
use post::store::ObjectStore;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Deliveries taken in at one time; further ones are told to come back.
pub(super) const DELIVERIES_MAX: usize = 32;

/// Why a notification was not taken in.
enum Refusal {
    /// For good.
    Reason(Reason),
    /// For now.
    Busy,
}

impl From<AccountError> for Refusal {
    fn from(error: AccountError) -> Refusal {
        match error {
            AccountError::TooLarge => Refusal::Reason(Reason::Unwanted),
            AccountError::Damaged => Refusal::Reason(Reason::BadMessage),
            _ => Refusal::Busy,
        }
    }
}

/// Takes in the sealed `notification` and returns the answer for the sender's node.
pub(super) async fn take_in<S: ObjectStore>(shared: &Arc<Shared<S>>, notification: &[u8]) -> Packet {
    let Ok(_place) = shared.inbox_places.try_acquire() else { return Packet::Busy };
    let services = &shared.services;
    let opened =
        post::delivery::notification::open(&shared.secrets, &services.trust(), notification, services.store.now());
    let notification = match opened {
        Ok(notification) => notification,
        Err(error) => {
            services.counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%error, "a notification was refused");
            return Packet::Refused(error.reason());
        }
    };
    match deliver(shared, &notification).await {
        Ok(is_new) => {
            let counter = if is_new { &services.counters.received } else { &services.counters.repeated };
            counter.fetch_add(1, Ordering::Relaxed);
            Packet::Receipt(sign_receipt(&shared.secrets, notification.letter.id, services.store.now()))
        }
        Err(Refusal::Busy) => Packet::Busy,
        Err(Refusal::Reason(reason)) => {
            services.counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::info!(?reason, "a message was refused");
            Packet::Refused(reason)
        }
    }
}

/// Whether the message came with this notification, and not with an earlier copy of it.
async fn deliver<S: ObjectStore>(shared: &Arc<Shared<S>>, notification: &Notification) -> Result<bool, Refusal> {
    let services = &shared.services;
    let inbox = shared.folder(INBOX).await?;
    let delivery = Delivery { id: notification.letter.id, at_s: services.now_s() };
    if inbox.has_delivered(&delivery) {
        return Ok(false);
    }
    let (reference, whole) = fetch(shared, notification).await?;
    let edit = edit_of(shared, notification, &whole)?;
    let whole = edit.apply(whole).map_err(|_| Refusal::Reason(Reason::BadMessage))?;
    let reference = reference.with_edit(edit).map_err(|_| Refusal::Reason(Reason::BadMessage))?;
    let leased = refresh_messages(&*services.store, [&reference], services.expiry()).await;
    if !leased.is_ok_and(|leased| leased.known == leased.asked) {
        return Err(Refusal::Busy);
    }
    let date_s = services.now_s().cast_signed();
    let mut new = NewMessage::new(&whole, reference, Flags::default(), date_s).map_err(AccountError::from)?;
    new.delivery = Some(delivery);
    Ok(inbox.take_in(new).await?.is_some())
}

/// The message as its sender stored it, whole and exactly what he signed.
async fn fetch<S: ObjectStore>(
    shared: &Shared<S>,
    notification: &Notification,
) -> Result<(MessageReference, Bytes), Refusal> {
    let services = &shared.services;
    let bad = || Refusal::Reason(Reason::BadMessage);
    let reference = MessageReference::decode(&notification.letter.message).map_err(|_| bad())?;
    // What is edited at delivery is the recipient's affair; a sender's edit would not be under his signature.
    let reference = reference.with_edit(HeaderEdit::default()).map_err(|_| bad())?;
    if reference.root() != notification.letter.root {
        return Err(bad());
    }
    if reference.size() > services.message_bytes_max {
        return Err(Refusal::Reason(Reason::Unwanted));
    }
    match fetch_message(&*services.store, &reference).await {
        Ok(whole) => Ok((reference, whole)),
        // A part that is missing now may be on a node that is down: the sender tells again.
        Err(MessageError::Open(post::seal::OpenError::Missing(_))) => Err(Refusal::Busy),
        Err(error) => Err(AccountError::from(error).into()),
    }
}

/// What this recipient's copy has before it and lacks: the trace, and fields that only we may write.
fn edit_of<S: ObjectStore>(
    shared: &Shared<S>,
    notification: &Notification,
    whole: &Bytes,
) -> Result<HeaderEdit, Refusal> {
    let services = &shared.services;
    let date = DateTime::from_timestamp(services.now_s().cast_signed()).to_rfc822();
    let id = notification.letter.id[..8].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    // Only then may it be shown as secure.
    let verdict = if is_sole_author(whole, &notification.sender) { "pass" } else { "fail" };
    let trace = format!(
        "Authentication-Results: {host}; x-epost={verdict} header.from={sender}\r\n\
         Received: by {host} with ePOST id {id};\r\n\t{date}\r\n",
        host = services.hostname,
        sender = notification.sender,
    );
    let removed = forged_fields(whole).map_err(|_| Refusal::Reason(Reason::BadMessage))?;
    HeaderEdit::new(trace.into(), removed).map_err(|_| Refusal::Reason(Reason::BadMessage))
}
