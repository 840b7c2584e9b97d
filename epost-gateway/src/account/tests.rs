//! Goal: what IMAP and SMTP are promised. Method: two accounts on two nodes over one store in memory that checks
//! blocks as replicas do; the listener of each node is the real one. What the store does not check: quorums and
//! the network (the tests of the ring do).

use super::*;
use net::ring::{Parameters, RingDocument};
use post::entropy::Entropy;
use post::identity::keyfile::{KeyFile, PasswordCost};
use post::identity::organisation::{Founded, enrol_user, found, renew_user, revoke};
use post::mail::folder::NewMessage;
use post::mail::message::store_message;
use post::mail::view::Flags;
use post::seal::RingSecret;
use post::store::memory::{Loss, MemoryStore};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const NOW: u64 = 1_790_000_000;
const LEASE_S: u64 = 28 * 86_400;
const ALICE: &str = "alice@epost.test";
const BOB: &str = "bob@epost.test";

/// Cheap, because a test proves passwords by the dozen.
const COST: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

struct Org {
    store: MemoryStore,
    founded: Founded,
    ring: RingDocument,
    entropy: Entropy,
}

impl Org {
    fn new() -> Org {
        let mut entropy = Entropy::new([1; 32]);
        let founded =
            found("epost.test", "epost.test", Parameters::DEFAULT, NOW, &mut entropy).expect("an organisation");
        let ring = RingDocument::decode_verified(&founded.document, &founded.authority.public_key()).expect("a ring");
        let store = MemoryStore::new(NOW * 1_000_000);
        store.set_trust(Trust::new(founded.authority.public_key(), &ring));
        Org { store, founded, ring, entropy }
    }

    fn user(&mut self, address: &str) -> Secrets {
        enrol_user(&self.founded.authority, &self.founded.document, address, 1, NOW, &mut self.entropy).expect("a user")
    }

    fn services(&self, node: u8) -> Arc<Services<MemoryStore>> {
        Arc::new(Services {
            store: Arc::new(self.store.clone()),
            sealing: Sealing { ring: self.ring.ring, shared: Some(RingSecret::new(1, [9; 32])) },
            trust: RwLock::new(Arc::new(Trust::new(self.founded.authority.public_key(), &self.ring))),
            lease_s: LEASE_S,
            node: Id([node; 20]),
            domain: "epost.test".into(),
            hostname: "node.epost.test".into(),
            message_bytes_max: 1 << 20,
            counters: Counters::default(),
        })
    }

    /// An account that has done what it does by itself at its start: the first round of leases opens every folder, and
    /// each opening is a write that a test counting writes does not mean.
    async fn account(&self, secrets: Secrets, node: u8) -> Account<MemoryStore> {
        let account = self.starting_account(secrets, node).await;
        let refreshes = &account.shared.services.counters.refreshes;
        eventually("a round of leases", async || refreshes.load(Ordering::Relaxed) > 0).await;
        account
    }

    /// An account whose first round of leases goes on, or fails.
    async fn starting_account(&self, secrets: Secrets, node: u8) -> Account<MemoryStore> {
        Account::start(self.services(node), Arc::new(secrets), Arc::new(Remembered::nothing()))
            .await
            .expect("an account")
    }

    /// Lets what is told to node `n` be answered by the account at index `n`.
    fn connect(&self, accounts: Vec<Account<MemoryStore>>) {
        let runtime = tokio::runtime::Handle::current();
        self.store.set_listener(Box::new(move |to, payload| {
            let account = accounts.get(usize::from(to.0[0])).ok_or(StoreError::Unavailable)?.clone();
            let post::delivery::Packet::Notification(sealed) =
                post::delivery::Packet::decode(&payload).expect("a packet")
            else {
                panic!("only notifications are told")
            };
            let packet = tokio::task::block_in_place(|| runtime.block_on(account.take_in(&sealed)));
            Ok(packet.encode())
        }));
    }
}

fn mail(from: &str, body: &str) -> Bytes {
    Bytes::from(format!("From: {from}\r\nTo: {BOB}\r\nBcc: {ALICE}\r\nSubject: hello\r\n\r\n{body}\r\n"))
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < until, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn alice_and_bob(org: &mut Org) -> (Account<MemoryStore>, Account<MemoryStore>) {
    let (alice, bob) = (org.user(ALICE), org.user(BOB));
    let (alice, bob) = (org.account(alice, 0).await, org.account(bob, 1).await);
    org.connect(vec![alice.clone(), bob.clone()]);
    (alice, bob)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_arrives_once_whole_and_without_bcc() {
    let mut org = Org::new();
    let (alice, bob) = alice_and_bob(&mut org).await;
    assert_eq!(alice.is_recipient(BOB).await, Ok(true));
    assert_eq!(alice.is_recipient("carol@epost.test").await, Ok(false));
    alice.submit(vec![BOB.into()], mail(ALICE, "the body")).await.expect("accepted");
    let inbox = bob.open("inbox").await.expect("an inbox");
    eventually("one mail", async || inbox.view().entries.len() == 1).await;
    let whole = inbox.message(inbox.view().entries[0].uid).await.expect("the mail");
    let text = String::from_utf8(whole.to_vec()).expect("text");
    assert!(text.starts_with("Authentication-Results: node.epost.test; x-epost=pass header.from=alice@epost.test\r\n"));
    assert!(text.ends_with(&format!("From: {ALICE}\r\nTo: {BOB}\r\nSubject: hello\r\n\r\nthe body\r\n")));
    assert!(!text.contains("Bcc"));
    eventually("an empty outbox", async || alice.outbox_len() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_gets_his_mail_when_he_is_back_and_only_once() {
    let mut org = Org::new();
    let (alice, bob) = (org.user(ALICE), org.user(BOB));
    let (alice, bob) = (org.account(alice, 0).await, org.account(bob, 1).await);
    // Nobody listens: the mail is accepted and waits.
    alice.submit(vec![BOB.into()], mail(ALICE, "later")).await.expect("accepted");
    eventually("a failed attempt", async || alice.shared.services.counters.retried.load(Ordering::Relaxed) > 0).await;
    assert_eq!(alice.outbox_len(), 1);
    org.connect(vec![alice.clone(), bob.clone()]);
    eventually("an empty outbox", async || alice.outbox_len() == 0).await;
    // The same notification again is acknowledged and brings nothing.
    let (to, payload) = org.store.told().last().expect("told").clone();
    let again = org.store.tell(to, payload).await.expect("an answer");
    assert!(matches!(post::delivery::Packet::decode(&again), Ok(post::delivery::Packet::Receipt(_))));
    assert_eq!(bob.open("INBOX").await.expect("an inbox").view().entries.len(), 1);
    assert_eq!(bob.shared.services.counters.repeated.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_author_is_not_shown_as_secure() {
    let mut org = Org::new();
    let (alice, bob) = alice_and_bob(&mut org).await;
    let forged =
        format!("Authentication-Results: node.epost.test; x-epost=pass header.from={BOB}\r\nFrom: {BOB}\r\n\r\nx\r\n");
    alice.submit(vec![BOB.into()], Bytes::from(forged)).await.expect("accepted");
    let inbox = bob.open("INBOX").await.expect("an inbox");
    eventually("one mail", async || inbox.view().entries.len() == 1).await;
    let whole = inbox.message(inbox.view().entries[0].uid).await.expect("the mail");
    let text = String::from_utf8(whole.to_vec()).expect("text");
    assert!(text.starts_with("Authentication-Results: node.epost.test; x-epost=fail header.from=alice@epost.test\r\n"));
    assert!(!text.contains("x-epost=pass"), "a forged result came through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_sender_is_refused_as_soon_as_the_ring_says_so() {
    let mut org = Org::new();
    let (alice, bob) = alice_and_bob(&mut org).await;
    alice.submit(vec![BOB.into()], mail(ALICE, "before")).await.expect("accepted");
    eventually("an empty outbox", async || alice.outbox_len() == 0).await;
    let authority = org.founded.authority.public_key();
    let certificate = parse_user(&alice.shared.secrets.certificate, &authority).expect("a certificate");
    let revoked = revoke(&org.founded.authority, &org.founded.document, &certificate.serial, NOW).expect("revoked");
    let ring = RingDocument::decode_verified(&revoked, &authority).expect("a ring");
    bob.shared.services.renew_trust(Trust::new(authority, &ring));
    alice.submit(vec![BOB.into()], mail(ALICE, "after")).await.expect("accepted");
    eventually("a refusal", async || bob.shared.services.counters.refused.load(Ordering::Relaxed) > 0).await;
    assert_eq!(bob.open("INBOX").await.expect("an inbox").view().entries.len(), 1);
    assert_eq!(bob.is_recipient(ALICE).await, Ok(false), "a revoked account is nobody to write to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_published() {
    let mut org = Org::new();
    let mut secrets = org.user(ALICE);
    let (keys, file) = (secrets.master.clone(), KeyFile::new(&secrets, &mut org.entropy));
    let published = async |org: &Org| {
        let trust = org.services(0).trust();
        resolve::resolve(&org.store, &trust, ALICE).await.expect("published").certificate().clone()
    };
    let before = NOW - 30 * 86_400;
    secrets.certificate = renew_user(&org.founded.authority, &secrets, before, &mut org.entropy).expect("issued");
    drop(org.account(secrets, 0).await);
    assert_eq!(published(&org).await.not_before / 86_400, before / 86_400);
    let renewed = file.open(&keys).expect("the same secrets");
    drop(org.account(renewed, 0).await);
    assert_eq!(published(&org).await.not_before / 86_400, NOW / 86_400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_taken_over_is_left_alone_and_counted() {
    let mut org = Org::new();
    let secrets = org.user(ALICE);
    let (keys, file) = (secrets.master.clone(), KeyFile::new(&secrets, &mut org.entropy));
    let here = org.account(secrets, 0).await;
    let inbox = here.open("INBOX").await.expect("an inbox");
    let there = org.account(file.open(&keys).expect("the same secrets"), 1).await;
    for _ in 0..2 {
        let appended = inbox.append(mail(ALICE, "here"), Flags::default(), None).await;
        assert_eq!(appended, Err(AccountError::TakenOver));
    }
    assert_eq!(here.shared.services.counters.logs_taken_over.load(Ordering::Relaxed), 1);
    let inbox = there.open("INBOX").await.expect("an inbox");
    inbox.append(mail(ALICE, "there"), Flags::default(), None).await.expect("appended");
    assert_eq!(inbox.view().entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_whose_writer_failed_is_opened_again() {
    let mut org = Org::new();
    let secrets = org.user(ALICE);
    let account = org.account(secrets, 0).await;
    let folder = account.open("INBOX").await.expect("an inbox");
    let first = folder.append(mail(ALICE, "first"), Flags::default(), None).await.expect("appended");
    folder.fail().await;
    assert!(folder.append(mail(ALICE, "lost"), Flags::default(), None).await.is_err());
    assert_eq!(account.shared.services.counters.writers_failed.load(Ordering::Relaxed), 1);
    let folder = account.open("INBOX").await.expect("opened again");
    let second = folder.append(mail(ALICE, "second"), Flags::default(), None).await.expect("appended");
    assert!(second > first, "no number is given out twice");
    assert_eq!(folder.view().entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_67_nothing_is_told_unless_everything_is_stored() {
    let mut org = Org::new();
    let (alice, _bob) = alice_and_bob(&mut org).await;
    let told = org.store.told().len();
    // Every prefix of the writes a submission makes: parts, record, head.
    for writes in 0..3 {
        org.store.fail_writes_after(writes, Loss::Lost);
        let submitted = alice.submit(vec![BOB.into()], mail(ALICE, &"x".repeat(9000))).await;
        assert_eq!(submitted, Err(AccountError::Unavailable), "after {writes} writes");
        assert_eq!(org.store.told().len(), told, "a notification went out after {writes} writes");
        org.store.heal();
    }
    alice.submit(vec![BOB.into()], mail(ALICE, "now")).await.expect("accepted");
    eventually("a notification", async || org.store.told().len() > told).await;
    let first_told = org.store.written().len();
    assert!(first_told > 0);
}

/// While the outcome of a write cannot be found out, those who wait behind it hear so together with those who made it,
/// instead of each after another search; and nothing is lost by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_behind_an_unresolved_write_is_not_kept_waiting() {
    let mut org = Org::new();
    let (alice, bob) = alice_and_bob(&mut org).await;
    // The first round of leases opens every folder, which writes.
    let rounds = |account: &Account<MemoryStore>| account.shared.services.counters.refreshes.load(Ordering::Relaxed);
    eventually("leases", async || rounds(&alice) > 0 && rounds(&bob) > 0).await;
    let before = org.store.written().len();
    org.store.fail_writes_after(1, Loss::Lost);
    let mut changes = tokio::task::JoinSet::new();
    for number in 0..20 {
        let alice = alice.clone();
        changes.spawn(async move { alice.create(&format!("Folder {number}"), None).await });
    }
    while let Some(changed) = changes.join_next().await {
        assert_eq!(changed.expect("no panic"), Err(AccountError::Unavailable));
    }
    // A record, its head, the attempts to resolve it; and as many once more for those who came too late for that.
    let written = org.store.written().len() - before;
    assert!(written <= 2 + 4 + 4, "{written} writes");
    org.store.heal();
    alice.create("Later", None).await.expect("the unresolved write stands, and so does the next");
    assert!(alice.folders().iter().any(|folder| folder.name == "Later"));
}

/// C67, the trace: parts, then the outbox record and its head, then the first word to anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_67_data_is_stored_before_the_notification_is_sent() {
    let mut org = Org::new();
    let (alice, _bob) = alice_and_bob(&mut org).await;
    let told_after = Arc::new(std::sync::Mutex::new(None));
    let (first, store) = (told_after.clone(), org.store.clone());
    org.store.set_listener(Box::new(move |_, _| {
        first.lock().expect("no panic").get_or_insert(store.written().len());
        Err(StoreError::Unavailable)
    }));
    let before = org.store.written().len();
    let body = "x".repeat(9000);
    alice.submit(vec![BOB.into()], mail(ALICE, &body)).await.expect("accepted");
    eventually("a notification", async || told_after.lock().expect("no panic").is_some()).await;
    let told_after = told_after.lock().expect("no panic").expect("told");
    let trace: Vec<_> = org.store.written().drain(before..told_after).map(|(key, _)| key).collect();
    let message = alice.shared.outbox.state().pending().next().expect("it waits").message.clone();
    let parts = post::mail::message::keys_of(&org.store, &message).await.expect("keys");
    let outbox = alice.shared.secrets.log_key(OUTBOX_LABEL).verifying_key().to_bytes();
    let head = net::id::Key::of(net::id::Kind::Head, &outbox);
    let head_at = trace.iter().position(|key| *key == head).expect("the outbox was written before anybody was told");
    for part in parts {
        let part_at = trace.iter().position(|key| *key == part).expect("every part was written before");
        assert!(part_at < head_at, "a part was written after the outbox named it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_there_after_a_restart() {
    let mut org = Org::new();
    let secrets = org.user(ALICE);
    let (again, node) = (KeyFile::new(&secrets, &mut org.entropy), secrets.master.clone());
    let account = org.account(secrets, 0).await;
    account.create("Projects/2026", None).await.expect("created");
    let folder = account.open("Projects/2026").await.expect("a folder");
    let mut uids = Vec::new();
    for n in 0..5 {
        uids.push(folder.append(mail(ALICE, &format!("mail {n}")), Flags::default(), Some(n)).await.expect("appended"));
    }
    let seen = Flags { seen: true, ..Flags::default() };
    folder.change_flags(vec![uids[0], uids[1], 999], FlagChange::Add, seen).await.expect("flagged");
    let deleted = Flags { deleted: true, ..Flags::default() };
    folder.change_flags(vec![uids[4]], FlagChange::Add, deleted).await.expect("flagged");
    assert_eq!(folder.expunge(None).await, Ok(vec![uids[4]]));
    let archive = account.open("Archive").await.expect("a folder");
    assert_eq!(folder.copy_to(vec![uids[0]], &archive).await.expect("copied").len(), 1);
    assert_eq!(folder.move_to(vec![uids[1]], &archive).await.expect("moved").len(), 1);
    let (before, archived) = (folder.view(), archive.view());
    assert_eq!(before.entries.iter().map(|entry| entry.uid).collect::<Vec<_>>(), [uids[0], uids[2], uids[3]]);
    drop((account, folder, archive));

    let secrets = again.open(&node).expect("the same secrets");
    let account = org.account(secrets, 0).await;
    let folder = account.open("Projects/2026").await.expect("a folder");
    assert_eq!(folder.view().entries, before.entries);
    assert_eq!(folder.view().uid_validity, before.uid_validity);
    assert!(folder.view().uid_next >= before.uid_next);
    assert_eq!(account.open("Archive").await.expect("a folder").view().entries, archived.entries);
    assert!(account.folders().iter().any(|listing| listing.name == "Projects" && !listing.selectable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_fate_is_unknown_is_made_once() {
    let mut org = Org::new();
    let secrets = org.user(ALICE);
    let account = org.account(secrets, 0).await;
    let folder = account.open("INBOX").await.expect("an inbox");
    folder.append(mail(ALICE, "first"), Flags::default(), None).await.expect("appended");
    // The head gets through, its acknowledgement does not: part and record are the two writes before it.
    org.store.fail_writes_after(2, Loss::Unacknowledged);
    let appending = tokio::spawn({
        let folder = folder.clone();
        async move { folder.append(mail(ALICE, "second"), Flags::default(), None).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    org.store.heal();
    let uid = appending.await.expect("no panic").expect("settled");
    assert_eq!(folder.view().entries.iter().filter(|entry| entry.uid == uid).count(), 1);
    assert_eq!(folder.view().entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renaming_the_inbox_leaves_an_empty_one_that_remembers() {
    let mut org = Org::new();
    let (alice, bob) = alice_and_bob(&mut org).await;
    alice.submit(vec![BOB.into()], mail(ALICE, "old")).await.expect("accepted");
    eventually("delivery", async || alice.outbox_len() == 0).await;
    bob.rename("INBOX", "Old mail").await.expect("renamed");
    assert_eq!(bob.open("INBOX").await.expect("an inbox").view().entries.len(), 0);
    assert_eq!(bob.open("Old mail").await.expect("a folder").view().entries.len(), 1);
    let (to, payload) = org.store.told().last().expect("told").clone();
    org.store.tell(to, payload).await.expect("an answer");
    assert_eq!(bob.open("INBOX").await.expect("an inbox").view().entries.len(), 0, "delivered twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_folder_ends_for_those_who_watch() {
    let mut org = Org::new();
    let secrets = org.user(ALICE);
    let account = org.account(secrets, 0).await;
    account.create("Gone", None).await.expect("created");
    let folder = account.open("Gone").await.expect("a folder");
    let mut views = folder.watch();
    account.delete("Gone").await.expect("deleted");
    assert!(views.changed().await.is_err());
    assert_eq!(folder.name(), "");
    assert_eq!(account.delete("Gone").await, Err(AccountError::NoSuchFolder));
    assert_eq!(account.delete("inbox").await, Err(AccountError::Forbidden));
    assert!(folder.append(mail(ALICE, "x"), Flags::default(), None).await.is_err());
}

/// C25, owner present: what folders refer to survives ten lease periods; what was deleted is gone one lease later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_25_the_owner_keeps_what_he_refers_to_and_nothing_else() {
    let mut org = Org::new();
    let secrets = org.user(ALICE);
    let account = org.account(secrets, 0).await;
    let folder = account.open("INBOX").await.expect("an inbox");
    let keep = folder.append(mail(ALICE, &"keep ".repeat(20_000)), Flags::default(), None).await.expect("appended");
    let drop = folder.append(mail(ALICE, &"drop ".repeat(20_000)), Flags::default(), None).await.expect("appended");
    let dropped = folder.view().entries[1].message.clone();
    let keys = post::mail::message::keys_of(&org.store, &dropped).await.expect("keys");
    folder
        .change_flags(vec![drop], FlagChange::Add, Flags { deleted: true, ..Flags::default() })
        .await
        .expect("flagged");
    folder.expunge(None).await.expect("expunged");
    let held = |keys: &[net::id::Key]| {
        let objects = org.store.objects();
        keys.iter().filter(|key| objects.iter().any(|(held, _, _)| held == *key)).count()
    };
    assert_eq!(held(&keys), keys.len(), "nothing goes before its lease ends");
    for quarter in 1..=40 {
        org.store.advance(LEASE_S / 4 * 1_000_000);
        leases::refresh(&account.shared).await.expect("refreshed");
        org.store.sweep(org.store.now() / 1_000_000);
        if quarter > 4 {
            assert_eq!(held(&keys), 0, "deleted mail's objects are gone one lease and a sweep later");
        }
    }
    assert_eq!(folder.message(keep).await.expect("kept"), mail(ALICE, &"keep ".repeat(20_000)));
}

/// A folder whose log is lost, and a large object whose list of chunks is, take no other mail with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_25_what_is_lost_does_not_end_the_leases_of_what_is_not() {
    let mut org = Org::new();
    let secrets = org.user(ALICE);
    let (keys, file) = (secrets.master.clone(), KeyFile::new(&secrets, &mut org.entropy));
    let account = org.account(secrets, 0).await;
    account.create("A lost folder", None).await.expect("created");
    account.create("Z kept folder", None).await.expect("created");
    let lost = account.open("A lost folder").await.expect("a folder");
    let serial = lost.view().uid_validity;
    lost.append(mail(ALICE, "lost"), Flags::default(), None).await.expect("appended");
    let kept = account.open("Z kept folder").await.expect("a folder");
    let large = format!("From: {ALICE}\r\nContent-Type: application/pdf\r\n\r\n{}\r\n", "x".repeat(9 << 20));
    let sealing = account.shared.services.sealing.clone();
    let expiry = account.shared.services.expiry();
    let stored = store_message(&org.store, &sealing, &Bytes::from(large.clone()), expiry).await.expect("stored");
    let list = stored.reference.references().find(|object| object.is_chunked()).expect("a large object").block_key();
    let new = NewMessage::new(&Bytes::from(large), stored.reference, Flags::default(), 0).expect("a message");
    kept.take_in(new).await.expect("taken in");
    let uid = kept.append(mail(ALICE, &"kept ".repeat(9_000)), Flags::default(), None).await.expect("appended");
    drop((account, lost, kept));

    assert!(org.store.remove(list));
    let lost_log = WriteKeys::private(file.open(&keys).expect("secrets").log_key(&label_of(serial)), [0; 32]);
    assert!(org.store.remove(lost_log.read().head_key()));
    org.store.lie(lost_log.read().head_key(), Some(Bytes::from_static(b"not a head")));
    let account = org.starting_account(file.open(&keys).expect("the same secrets"), 0).await;
    assert!(account.open("A lost folder").await.is_err());
    for _ in 0..4 {
        org.store.advance(LEASE_S / 2 * 1_000_000);
        assert!(leases::refresh(&account.shared).await.is_err(), "what is lost is told");
        org.store.sweep(org.store.now() / 1_000_000);
    }
    let kept = account.open("Z kept folder").await.expect("a folder");
    assert_eq!(kept.message(uid).await.expect("kept"), mail(ALICE, &"kept ".repeat(9_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_logins_cost_one_proof_and_wrong_ones_are_counted() {
    let mut org = Org::new();
    let secrets = org.user(ALICE);
    let mut file = KeyFile::new(&secrets, &mut org.entropy);
    file.add_password(&secrets.master, b"correct horse", COST, &mut org.entropy).expect("a slot");
    let accounts = Accounts::new([file], [3; 32]);
    assert_eq!(accounts.login(ALICE, "correct horse").await.err(), Some(LoginError::Unavailable), "not open yet");
    accounts.opened(org.account(secrets, 0).await);
    let logins = (0..5).map(|_| {
        let accounts = accounts.clone();
        tokio::spawn(async move { accounts.login("Alice@epost.test", "correct horse").await.map(|_| ()) })
    });
    for login in logins.collect::<Vec<_>>() {
        assert_eq!(login.await.expect("no panic"), Ok(()));
    }
    assert_eq!(accounts.counters().proofs.load(Ordering::Relaxed), 1);
    assert_eq!(accounts.login(ALICE, "wrong").await.err(), Some(LoginError::WrongCredentials));
    assert_eq!(accounts.login("mallory@epost.test", "wrong").await.err(), Some(LoginError::WrongCredentials));
    assert_eq!(accounts.login("mallory@epost.test", "correct horse").await.err(), Some(LoginError::WrongCredentials));
    assert_eq!(accounts.counters().failed.load(Ordering::Relaxed), 3);
    assert_eq!(accounts.counters().proofs.load(Ordering::Relaxed), 4, "an unknown user costs a proof");
}
