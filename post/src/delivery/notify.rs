//! Sending a notification: one direct message to the recipient's node, and what came back.

use super::notification::{self, Letter, NotificationError};
use super::receipt::{Receipt, verify_receipt};
use super::{Packet, Reason};
use crate::entropy::Entropy;
use crate::identity::resolve::Contact;
use crate::identity::secrets::Secrets;
use crate::store::{ObjectStore, StoreError};
use net::past::block::Trust;

/// How a notification was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The recipient has the message.
    Received(Receipt),
    /// The recipient's node does not take it as it is. After [`Reason::UnknownRecipient`] or [`Reason::UnknownKey`]
    /// renew the contact and try again: nothing is proved by a refusal, and it ends nothing by itself.
    Refused(Reason),
    /// Not now.
    Busy,
}

/// Why a notification was not answered. The message stays in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// The recipient has published no node.
    #[error("the recipient has no node at present")]
    NoNode,
    /// The letter cannot be sealed: the caller's defect.
    #[error("the notification cannot be made: {0}")]
    Unsendable(#[from] NotificationError),
    /// The node was not reached, or did not answer in time.
    #[error("the recipient's node did not answer: {0}")]
    Store(#[from] StoreError),
    /// The answer is not a packet, or not a receipt for this notification by this recipient.
    #[error("the recipient's node gave no acceptable answer")]
    BadAnswer,
}

/// Notifies `recipient` of a message whose every part is stored already. One message to her node, no look-up.
///
/// # Errors
/// [`NotifyError`]. Whether she got it is then unknown; trying again with the same id does no harm.
pub async fn notify<S: ObjectStore>(
    store: &S,
    trust: &Trust,
    sender: &Secrets,
    recipient: &Contact,
    letter: &Letter,
) -> Result<Answer, NotifyError> {
    let node = recipient.node().ok_or(NotifyError::NoNode)?.node;
    let mut entropy = Entropy::new(store.entropy());
    let sealed = notification::seal(sender, recipient, letter, store.now(), &mut entropy)?;
    let answer = store.tell(node, Packet::Notification(sealed).encode()).await?;
    match Packet::decode(&answer) {
        Ok(Packet::Receipt(receipt)) => verify_receipt(&receipt, trust, letter.id, recipient.address(), store.now())
            .map(Answer::Received)
            .map_err(|_| NotifyError::BadAnswer),
        Ok(Packet::Refused(reason)) => Ok(Answer::Refused(reason)),
        Ok(Packet::Busy) => Ok(Answer::Busy),
        Ok(Packet::Notification(_)) | Err(_) => Err(NotifyError::BadAnswer),
    }
}
