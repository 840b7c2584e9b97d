//! Sending: from a message accepted to a receipt for every recipient, however long it takes.
//!
//! The outbox is a replicated log, so what was accepted survives this node. One task watches it and notifies each
//! waiting recipient, a bounded number at a time; who cannot be reached is tried again, ever more slowly, until the
//! outbox gives up and puts a notice into the sender's inbox. Nothing is removed from the outbox before its
//! receipt, or that notice, is safe.

use super::undelivered::{Reason as NoticeReason, Undelivered};
use super::{AccountError, Services, Shared};
use bytes::Bytes;
use post::delivery::Reason;
use post::delivery::notification::Letter;
use post::delivery::notify::{Answer, NotifyError, notify};
use post::identity::resolve::{Contact, ResolveError, check, resolve};
use post::mail::header::{section_length, strip_bcc};
use post::mail::mailbox::INBOX;
use post::mail::message::{fetch_message, store_message};
use post::mail::outbox::{Submission, SubmissionId, notification_id};
use post::mail::view::Flags;
use post::store::ObjectStore;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Notifications under way at one time.
const SENDS_MAX: usize = 32;
/// The first wait after a failed attempt; doubled each time up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(300);
/// When the outbox gives up: five days, as mail systems do.
const LIFETIME_S: u64 = 5 * 86_400;
/// Contacts remembered.
const CONTACTS_MAX: usize = 4_096;
/// How long a contact is used without asking the ring again.
const CONTACT_LIFE: Duration = Duration::from_secs(600);

/// Contacts found before. A delivery then costs one message and no look-up.
#[derive(Default)]
pub(super) struct Contacts {
    found: Mutex<BTreeMap<String, (Arc<Contact>, Instant)>>,
}

impl Contacts {
    /// The contact of `address`, from memory or from the ring.
    pub(super) async fn resolve<S: ObjectStore>(
        &self,
        services: &Services<S>,
        address: &str,
    ) -> Result<Arc<Contact>, ResolveError> {
        let address = address.to_ascii_lowercase();
        let trust = services.trust();
        if let Some((contact, found_at)) = self.lock().get(&address)
            && found_at.elapsed() < CONTACT_LIFE
            && check(contact.certificate(), &trust, services.now_s()).is_ok()
        {
            return Ok(contact.clone());
        }
        let contact = Arc::new(resolve(&*services.store, &trust, &address).await?);
        let mut found = self.lock();
        if found.len() >= CONTACTS_MAX {
            found.clear();
        }
        found.insert(address, (contact.clone(), Instant::now()));
        Ok(contact)
    }

    /// Forgets a contact that turned out to be out of date.
    fn forget(&self, address: &str) {
        self.lock().remove(&address.to_ascii_lowercase());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Arc<Contact>, Instant)>> {
        self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Stores the message and queues it for its recipients; durable when it returns.
pub(super) async fn submit<S: ObjectStore>(
    shared: &Arc<Shared<S>>,
    recipients: Vec<String>,
    message: Bytes,
) -> Result<(), AccountError> {
    let services = &shared.services;
    let message = strip_bcc(&message);
    let stored = store_message(&*services.store, &services.sealing, &message, services.expiry()).await?;
    let submission = Submission {
        id: SubmissionId(services.store.entropy()),
        message: stored.reference,
        from: shared.secrets.address.clone(),
        recipients: recipients.iter().map(|address| address.to_ascii_lowercase()).collect(),
        at_s: services.now_s(),
    };
    let queue = move |draft: &mut super::keeper::Draft<post::mail::outbox::Outbox>| {
        let effect = draft.state().plan_queue(submission)?;
        Ok(draft.record(effect)?)
    };
    shared.outbox.change(queue).await?;
    services.counters.submitted.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// One recipient of one message.
type Target = (SubmissionId, String);

/// How an attempt ended.
enum Outcome {
    Delivered,
    /// Worth another attempt.
    Later,
    /// Not worth one.
    Never(NoticeReason),
}

/// When to try a target again.
struct Waiting {
    attempts: u32,
    until: Instant,
}

/// Sends what waits, for as long as the account is open.
pub(super) async fn send<S: ObjectStore>(shared: Arc<Shared<S>>) {
    let mut changes = shared.outbox.watch();
    let mut waiting: BTreeMap<Target, Waiting> = BTreeMap::new();
    let mut under_way: JoinSet<(Target, Outcome)> = JoinSet::new();
    let mut busy: std::collections::BTreeSet<Target> = std::collections::BTreeSet::new();
    loop {
        let outbox = changes.borrow_and_update().clone();
        let now = Instant::now();
        let mut next_attempt = now + WAIT_MAX;
        for submission in outbox.pending() {
            for recipient in &submission.recipients {
                let target = (submission.id, recipient.clone());
                let due = waiting.get(&target).map_or(now, |waiting| waiting.until);
                if busy.contains(&target) {
                    continue;
                }
                if due > now || under_way.len() >= SENDS_MAX {
                    next_attempt = next_attempt.min(due);
                    continue;
                }
                busy.insert(target.clone());
                let (shared, submission) = (shared.clone(), submission.clone());
                under_way.spawn(async move {
                    let outcome = attempt(&shared, &submission, &target.1).await;
                    let outcome = conclude(&shared, &submission, &target.1, outcome).await;
                    (target, outcome)
                });
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(ended) = under_way.join_next() => {
                // An attempt that panicked leaves its target busy: it is tried again after a restart.
                let Ok((target, outcome)) = ended else { continue };
                busy.remove(&target);
                if matches!(outcome, Outcome::Later) {
                    shared.services.counters.retried.fetch_add(1, Ordering::Relaxed);
                    let attempts = waiting.get(&target).map_or(0, |waiting| waiting.attempts) + 1;
                    let wait = WAIT_MIN.saturating_mul(1 << attempts.min(16)).min(WAIT_MAX);
                    waiting.insert(target, Waiting { attempts, until: Instant::now() + wait });
                } else {
                    waiting.remove(&target);
                }
            }
            () = tokio::time::sleep_until(next_attempt.into()), if under_way.len() < SENDS_MAX => {}
        }
    }
}

/// Tells the recipient once.
async fn attempt<S: ObjectStore>(shared: &Arc<Shared<S>>, submission: &Submission, recipient: &str) -> Outcome {
    let services = &shared.services;
    let contact = match shared.contacts.resolve(services, recipient).await {
        Ok(contact) => contact,
        Err(ResolveError::NotFound) => return Outcome::Never(NoticeReason::NoSuchRecipient),
        Err(_) => return Outcome::Later,
    };
    let letter = Letter {
        id: notification_id(submission.id, recipient),
        root: submission.message.root(),
        message: submission.message.encode(),
    };
    match notify(&*services.store, &services.trust(), &shared.secrets, &contact, &letter).await {
        Ok(Answer::Received(_)) => Outcome::Delivered,
        Ok(Answer::Busy) => Outcome::Later,
        Ok(Answer::Refused(Reason::Unwanted)) => Outcome::Never(NoticeReason::Refused),
        Ok(Answer::Refused(_)) | Err(NotifyError::NoNode | NotifyError::Store(_) | NotifyError::BadAnswer) => {
            // She may have moved to another node, or changed her keys.
            shared.contacts.forget(recipient);
            Outcome::Later
        }
        Err(NotifyError::Unsendable(_)) => Outcome::Never(NoticeReason::Refused),
    }
}

/// Writes the outcome into the outbox. An outcome that cannot be written is an outcome to come.
async fn conclude<S: ObjectStore>(
    shared: &Arc<Shared<S>>,
    submission: &Submission,
    recipient: &str,
    outcome: Outcome,
) -> Outcome {
    let services = &shared.services;
    let is_too_old = services.now_s().saturating_sub(submission.at_s) > LIFETIME_S;
    let outcome = match outcome {
        Outcome::Later if is_too_old => Outcome::Never(NoticeReason::Expired),
        outcome => outcome,
    };
    let counter = match &outcome {
        Outcome::Later => return outcome,
        Outcome::Delivered => &services.counters.delivered,
        Outcome::Never(reason) => {
            if let Err(error) = give_notice(shared, submission, recipient, *reason).await {
                tracing::warn!(%error, "a notice of non-delivery was not written; trying again");
                return Outcome::Later;
            }
            &services.counters.undelivered
        }
    };
    let (id, recipient) = (submission.id, recipient.to_owned());
    let reason = match &outcome {
        Outcome::Never(reason) => Some(reason.sentence()),
        _ => None,
    };
    let written = shared
        .outbox
        .change(move |draft| {
            let effect = match reason {
                None => draft.state().plan_sent(id, &recipient),
                Some(reason) => draft.state().plan_failed(id, &recipient, reason),
            };
            if let Some(effect) = effect {
                draft.record(effect)?;
            }
            Ok(())
        })
        .await;
    if written.is_err() {
        // Telling again is harmless: the recipient acknowledges what she has.
        return Outcome::Later;
    }
    counter.fetch_add(1, Ordering::Relaxed);
    outcome
}

/// Puts a notice into the sender's own inbox. Given twice if this node dies before the outbox knows of it.
async fn give_notice<S: ObjectStore>(
    shared: &Arc<Shared<S>>,
    submission: &Submission,
    recipient: &str,
    reason: NoticeReason,
) -> Result<(), AccountError> {
    let services = &shared.services;
    // The header is a courtesy: a mail whose objects cannot be read is given up all the same.
    let original = fetch_message(&*services.store, &submission.message).await.unwrap_or_default();
    let mut id = [0; 16];
    id.copy_from_slice(&services.store.entropy()[..16]);
    let notice = Undelivered {
        domain: &services.domain,
        sender: &shared.secrets.address,
        recipient,
        original_headers: &original[..section_length(&original)],
        reason,
        now_s: services.now_s().cast_signed(),
        id,
    };
    let inbox = shared.folder(INBOX).await?;
    inbox.append(Bytes::from(notice.render()), Flags::default(), None).await?;
    Ok(())
}
