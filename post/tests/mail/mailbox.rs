//! Goal: the list of folders behaves as RFC 3501 says, serials are never given out twice, and the outbox keeps what
//! was accepted until everybody has it. Method: examples through a journal, reopened.

use super::{NOW, RING, Random, log_store, private_keys};
use bytes::Bytes;
use post::log::journal::{Journal, JournalState};
use post::mail::mailbox::{Effect, FIRST_FOLDERS, Mailbox, MailboxError, legal_name};
use post::mail::message::store_message;
use post::mail::outbox::{Outbox, Submission, SubmissionId, notification_id};
use post::mail::references::{of_outbox, refresh_log, refresh_messages};
use post::mail::view::SpecialUse;
use post::seal::Sealing;
use post::store::memory::{MemoryStore, run};
use std::collections::BTreeSet;

fn open(store: &MemoryStore, remembered: Option<u64>) -> Journal<MemoryStore, Mailbox> {
    run(Journal::open(log_store(store), private_keys(3), remembered, Mailbox::new())).unwrap()
}

fn make(mailbox: &mut Mailbox, name: &str) {
    let effect = mailbox.plan_create(name, None).unwrap();
    mailbox.apply(&effect).unwrap();
}

fn names(mailbox: &Mailbox) -> Vec<String> {
    mailbox.listing().into_iter().filter(|folder| folder.selectable).map(|folder| folder.name).collect()
}

#[test]
fn every_account_begins_with_its_folders() {
    let listing = Mailbox::new().listing();
    assert_eq!(listing.len(), FIRST_FOLDERS.len());
    assert!(listing.iter().all(|folder| folder.subscribed && folder.selectable));
    let junk = listing.iter().find(|folder| folder.name == "Junk").unwrap();
    assert_eq!(junk.special_use, Some(SpecialUse::Junk));
}

#[test]
fn names_are_checked_and_the_inbox_has_one_name() {
    for (given, kept) in
        [("inbox", "INBOX"), ("iNbOx/a", "INBOX/a"), ("a/b/", "a/b"), ("Inboxes", "Inboxes"), ("ä/ö", "ä/ö")]
    {
        assert_eq!(legal_name(given).as_deref(), Ok(kept));
    }
    let (long, deep) = ("x".repeat(1_001), "a/".repeat(33) + "a");
    for bad in ["", "/", "/a", "a//b", "a*", "50%", "a\u{7}", "a\nb", &long, &deep] {
        assert_eq!(legal_name(bad), Err(MailboxError::BadName), "{bad:?}");
    }
}

#[test]
fn a_deleted_folder_made_again_is_another_folder() {
    let store = MemoryStore::new(NOW);
    let mut journal = open(&store, None);
    let mut serials = BTreeSet::new();
    for round in 0..6 {
        let effect = journal.state().plan_create("work", None).unwrap();
        run(journal.commit(&[effect])).unwrap();
        let serial = journal.state().folder("work").unwrap().serial;
        assert!(serials.iter().all(|earlier| *earlier < serial));
        assert!(serials.insert(serial));
        let effect = journal.state().plan_delete("work").unwrap();
        run(journal.commit(&[effect])).unwrap();
        let remembered = if round % 2 == 0 { Some(journal.version()) } else { None };
        let before = journal.state().clone();
        journal = open(&store, remembered);
        assert_eq!(names(journal.state()), names(&before));
    }
}

#[test]
fn parents_stay_as_names_and_rename_takes_what_is_below() {
    let mut mailbox = Mailbox::new();
    for name in ["a", "a/b", "a/b/c", "ab"] {
        make(&mut mailbox, name);
    }
    let serial = mailbox.folder("a/b/c").unwrap().serial;
    let effect = mailbox.plan_delete("a").unwrap();
    mailbox.apply(&effect).unwrap();
    let listing = mailbox.listing();
    assert!(listing.iter().any(|folder| folder.name == "a" && !folder.selectable));
    assert_eq!(mailbox.plan_delete("a"), Err(MailboxError::Forbidden));
    assert_eq!(mailbox.plan_rename("a", "a/x"), Err(MailboxError::Forbidden));
    assert_eq!(mailbox.plan_rename("a/b", "ab"), Err(MailboxError::Exists));
    assert_eq!(mailbox.plan_rename("nothing", "x"), Err(MailboxError::NoSuchFolder));
    let effect = mailbox.plan_rename("a", "z/y").unwrap();
    mailbox.apply(&effect).unwrap();
    assert_eq!(mailbox.folder("z/y/b/c").unwrap().serial, serial);
    assert!(mailbox.folder("a/b").is_none() && mailbox.folder("ab").is_some());
    // Names that would become too long, or collide below, leave everything as it is.
    make(&mut mailbox, &"q/".repeat(31));
    assert_eq!(mailbox.plan_rename("q", "w/w/w"), Err(MailboxError::BadName));
    make(&mut mailbox, "t/b");
    assert_eq!(mailbox.plan_rename("z/y", "t"), Err(MailboxError::BadName));
    assert_eq!(Mailbox::decode(&Bytes::from(mailbox.encode())), Ok(mailbox));
}

#[test]
fn renaming_the_inbox_leaves_an_empty_one() {
    let mut mailbox = Mailbox::new();
    make(&mut mailbox, "INBOX/below");
    let old = mailbox.folder("INBOX").unwrap().serial;
    assert_eq!(mailbox.plan_delete("inbox"), Err(MailboxError::Forbidden));
    let effect = mailbox.plan_rename("inbox", "old mail").unwrap();
    assert!(matches!(effect, Effect::RenameInbox { .. }));
    mailbox.apply(&effect).unwrap();
    assert_eq!(mailbox.folder("old mail").unwrap().serial, old);
    assert!(mailbox.folder("Inbox").unwrap().serial > old);
    assert!(mailbox.folder("INBOX/below").is_some());
}

#[test]
fn special_uses_and_subscriptions() {
    let mut mailbox = Mailbox::new();
    assert_eq!(mailbox.plan_create("Spam", Some(SpecialUse::Junk)), Err(MailboxError::UseTaken));
    assert_eq!(mailbox.plan_create("sent", None).map(|_| ()), Ok(()));
    assert_eq!(mailbox.plan_subscribe("Sent", true), Ok(None));
    let effect = mailbox.plan_subscribe("Sent", false).unwrap().unwrap();
    mailbox.apply(&effect).unwrap();
    assert!(!mailbox.folder("Sent").unwrap().is_subscribed);
    assert_eq!(mailbox.plan_subscribe("nothing", true), Err(MailboxError::NoSuchFolder));
    // Effects that were planned for another list change nothing.
    let before = mailbox.clone();
    for wrong in [
        Effect::Create { name: "x".into(), serial: 1, special_use: 0 },
        Effect::Create { name: "x".into(), serial: 99, special_use: 9 },
        Effect::Create { name: "a//b".into(), serial: 99, special_use: 0 },
        Effect::Delete { name: "INBOX".into() },
        Effect::Rename { from: "INBOX".into(), to: "x".into() },
        Effect::RenameInbox { to: "Sent".into(), serial: 99 },
        Effect::Skip { next_serial: 1 },
    ] {
        assert!(mailbox.apply(&wrong).is_err(), "{wrong:?}");
        assert_eq!(mailbox, before);
    }
}

#[test]
fn the_outbox_keeps_a_message_until_its_last_recipient() {
    let store = MemoryStore::new(NOW);
    let sealing = Sealing { ring: RING, shared: None };
    let mail = Bytes::from_static(b"Subject: s\r\n\r\nbody");
    let expiry = NOW / 1_000_000 + 1_000;
    let message = run(store_message(&store, &sealing, &mail, expiry)).unwrap().reference;
    let open = |remembered| run(Journal::open(log_store(&store), private_keys(4), remembered, Outbox::new())).unwrap();
    let mut journal = open(None);
    let (id, bob, carol) = (SubmissionId([5; 32]), "bob@epost.test", "carol@epost.test");
    let recipients = BTreeSet::from([bob.to_owned(), carol.to_owned()]);
    let submission = Submission { id, message, from: "alice@epost.test".into(), recipients, at_s: 7 };
    let effect = journal.state().plan_queue(submission.clone()).unwrap();
    run(journal.commit(&[effect])).unwrap();
    assert!(journal.state().plan_queue(submission.clone()).is_err());
    let later = expiry + 1_000;
    let refreshed = run(refresh_messages(&store, of_outbox(journal.state()), later)).unwrap();
    assert_eq!((refreshed.asked, refreshed.known), (1, 1));
    let refreshed = run(refresh_log(&store, journal.writer(), later)).unwrap();
    assert_eq!((refreshed.asked, refreshed.known), (2, 2), "head and record");

    let effect = journal.state().plan_sent(id, bob).unwrap();
    run(journal.commit(std::slice::from_ref(&effect))).unwrap();
    let mut journal = open(Some(journal.version()));
    assert_eq!(journal.state().pending().next().unwrap().recipients, BTreeSet::from([carol.to_owned()]));
    assert_eq!(journal.state().plan_sent(id, bob), None);
    assert!(run(journal.commit(&[effect])).is_err(), "what is done is not done again");
    let effect = journal.state().plan_failed(id, carol, "no such user").unwrap();
    run(journal.commit(&[effect])).unwrap();
    assert!(journal.state().is_empty() && open(Some(journal.version())).state().is_empty());
    assert_eq!(notification_id(id, bob), notification_id(id, "BOB@epost.test"));
    assert_ne!(notification_id(id, bob), notification_id(id, carol));
}

#[test]
fn damaged_lists_and_outboxes_never_panic() {
    let mut mailbox = Mailbox::new();
    make(&mut mailbox, "a/b");
    let store = MemoryStore::new(NOW);
    let sealing = Sealing { ring: RING, shared: None };
    let message = run(store_message(&store, &sealing, &Bytes::from_static(b"\r\nbody"), 1)).unwrap().reference;
    let recipients = BTreeSet::from(["bob@epost.test".to_owned()]);
    let submission =
        Submission { id: SubmissionId([5; 32]), message, from: "a@epost.test".into(), recipients, at_s: 7 };
    let mut outbox = Outbox::new();
    let queue = outbox.plan_queue(submission).unwrap();
    outbox.apply(&queue).unwrap();
    let samples = [
        mailbox.encode(),
        Mailbox::encode_effect(&mailbox.plan_rename("a", "c").unwrap()),
        outbox.encode(),
        Outbox::encode_effect(&queue),
    ];
    let seed = 0xda3a_9ed1;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for _ in 0..20_000 {
        let mut bytes = samples[random.below(samples.len())].clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(1 + random.below(bytes.len() * 4));
        let bytes = Bytes::from(bytes);
        if let Ok(effect) = Mailbox::decode_effect(&bytes) {
            let _ = mailbox.clone().apply(&effect);
        }
        if let Ok(effect) = Outbox::decode_effect(&bytes) {
            let _ = outbox.clone().apply(&effect);
        }
        if let Ok(mailbox) = Mailbox::decode(&bytes) {
            assert_eq!(Mailbox::decode(&Bytes::from(mailbox.encode())), Ok(mailbox));
        }
        if let Ok(outbox) = Outbox::decode(&bytes) {
            assert_eq!(Outbox::decode(&Bytes::from(outbox.encode())), Ok(outbox));
        }
    }
}
