//! Goal: C72 and the promises of a folder's numbers. Method: random operations on a folder and on a naive model,
//! compared after every one and after reopening; lost tails, crashes inside a move, repeated deliveries.

use super::{NOW, RING, Random, log_store, private_keys};
use bytes::Bytes;
use post::log::journal::{Journal, JournalError, JournalState};
use post::log::{LogError, limits::SNAPSHOT_ENTRIES_MIN};
use post::mail::deliveries::Delivery;
use post::mail::folder::{Copies, Effect, FlagChange, Folder, FolderError, NewMessage};
use post::mail::limits::NOTIFICATION_MEMORY_S;
use post::mail::message::{MessageReference, fetch_message, store_message};
use post::mail::references::{of_folder, refresh_log, refresh_messages};
use post::mail::view::{Flags, FolderView};
use post::seal::Sealing;
use post::store::ObjectStore;
use post::store::memory::{Loss, MemoryStore, run};
use std::collections::BTreeSet;

type FolderJournal = Journal<MemoryStore, Folder>;

const EXPIRY: u64 = NOW / 1_000_000 + 1_000;

fn open_as(store: &MemoryStore, keys: u8, remembered: Option<u64>) -> Result<FolderJournal, JournalError> {
    run(Journal::open(log_store(store), private_keys(keys), remembered, Folder::new(u32::from(keys))))
}

fn open(store: &MemoryStore, remembered: Option<u64>) -> FolderJournal {
    open_as(store, 1, remembered).unwrap()
}

/// Stores a small mail and returns it with its reference.
fn stored(store: &MemoryStore, number: u64) -> (Bytes, MessageReference) {
    let mail = Bytes::from(format!("Subject: mail {number}\r\nX-Number: {number}\r\n\r\nbody {number}\r\n"));
    let sealing = Sealing { ring: RING, shared: None };
    let reference = run(store_message(store, &sealing, &mail, EXPIRY)).unwrap().reference;
    (mail, reference)
}

fn new_message(store: &MemoryStore, number: u64, flags: Flags) -> NewMessage {
    let (mail, reference) = stored(store, number);
    NewMessage::new(&mail, reference, flags, number as i64).unwrap()
}

fn append(journal: &mut FolderJournal, messages: Vec<NewMessage>) -> Vec<u32> {
    let planned = journal.state().plan_append(messages).unwrap();
    run(journal.commit(&planned.effects)).unwrap();
    planned.uids
}

fn random_flags(random: &mut Random) -> Flags {
    let mut bit = || random.below(2) == 0;
    let mut flags =
        Flags { seen: bit(), answered: bit(), flagged: bit(), deleted: bit(), draft: bit(), ..Flags::default() };
    for keyword in ["$Forwarded", "work", "Later"] {
        if bit() {
            flags.keywords.insert(keyword.to_owned());
        }
    }
    flags
}

/// A mailbox as simple as can be: a list of messages, searched from end to end.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    messages: Vec<(u32, BTreeSet<String>, i64, String)>,
}

fn words(flags: &Flags) -> BTreeSet<String> {
    let system = [
        (flags.seen, "\\Seen"),
        (flags.answered, "\\Answered"),
        (flags.flagged, "\\Flagged"),
        (flags.deleted, "\\Deleted"),
        (flags.draft, "\\Draft"),
    ];
    let system = system.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned());
    system.chain(flags.keywords.iter().cloned()).collect()
}

impl Model {
    fn of(view: &FolderView) -> Model {
        let headers = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let messages = view
            .entries
            .iter()
            .map(|entry| (entry.uid, words(&entry.flags), entry.internal_date_s, headers(&entry.headers)));
        Model { messages: messages.collect() }
    }

    fn change(&mut self, uids: &[u32], change: FlagChange, flags: &BTreeSet<String>) {
        for message in self.messages.iter_mut().filter(|message| uids.contains(&message.0)) {
            message.1 = match change {
                FlagChange::Replace => flags.clone(),
                FlagChange::Add => message.1.union(flags).cloned().collect(),
                FlagChange::Remove => message.1.difference(flags).cloned().collect(),
            };
        }
    }
}

/// Some UIDs, existing or not, in any order, perhaps twice.
fn some_uids(random: &mut Random, next: u32) -> Vec<u32> {
    (0..random.below(8)).map(|_| 1 + random.below(next as usize + 2) as u32).collect()
}

#[test]
fn claim_72_a_folder_equals_a_model_mailbox_and_does_so_after_reopening() {
    let mut snapshots = 0;
    for seed in 0..6u64 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let store = MemoryStore::new(NOW);
        let mut journal = open(&store, None);
        let mut model = Model::default();
        let (mut given, mut highest) = (BTreeSet::new(), 1);
        for number in 0..400u64 {
            let next = journal.state().view().uid_next;
            match random.below(10) {
                0..=3 => {
                    let flags = random_flags(&mut random);
                    let count = 1 + random.below(6);
                    let message = new_message(&store, number, flags.clone());
                    let headers = String::from_utf8(message.headers.to_vec()).unwrap();
                    for uid in append(&mut journal, vec![message; count]) {
                        assert!(given.insert(uid) && given.last() == Some(&uid), "UID {uid} is given out twice");
                        model.messages.push((uid, words(&flags), number as i64, headers.clone()));
                    }
                }
                4..=6 => {
                    let (uids, flags) = (some_uids(&mut random, next), random_flags(&mut random));
                    let change = [FlagChange::Replace, FlagChange::Add, FlagChange::Remove][random.below(3)];
                    let effects = journal.state().plan_flags(&uids, change, &flags).unwrap();
                    run(journal.commit(&effects)).unwrap();
                    model.change(&uids, change, &words(&flags));
                }
                7 => {
                    let uids = some_uids(&mut random, next);
                    let doomed = journal.state().deleted(if random.below(2) == 0 { None } else { Some(&uids) });
                    let effects = journal.state().plan_expunge(&doomed);
                    run(journal.commit(&effects)).unwrap();
                    model.messages.retain(|message| !doomed.contains(&message.0));
                }
                8 => snapshots += usize::from(run(journal.maintain()).unwrap()),
                _ => {
                    let remembered = if random.below(2) == 0 { Some(journal.version()) } else { None };
                    let before = journal.state().clone();
                    journal = open(&store, remembered);
                    if remembered.is_some() {
                        assert_eq!(*journal.state(), before);
                    }
                }
            }
            let view = journal.state().view();
            assert_eq!(Model::of(&view), model);
            assert!(view.highest_modseq >= highest && view.entries.iter().all(|entry| entry.modseq > 1));
            assert!(given.last().is_none_or(|last| *last < view.uid_next));
            highest = view.highest_modseq;
        }
        let written = Bytes::from(journal.state().encode());
        assert_eq!(Folder::decode(&written).as_ref(), Ok(journal.state()));
        for entry in &journal.state().view().entries {
            let whole = run(fetch_message(&store, &entry.message)).unwrap();
            assert_eq!((whole.len(), &whole[entry.structure.header()]), (entry.size as usize, &entry.headers[..]));
        }
    }
    assert!(snapshots > 0, "snapshots were written and read");
}

#[test]
fn opening_reads_the_snapshot_and_what_came_after() {
    let store = MemoryStore::new(NOW);
    let mut journal = open(&store, None);
    let message = new_message(&store, 1, Flags::default());
    for _ in 0..=SNAPSHOT_ENTRIES_MIN / 100 {
        append(&mut journal, vec![message.clone(); 100]);
    }
    assert!(run(journal.maintain()).unwrap() && !run(journal.maintain()).unwrap());
    append(&mut journal, vec![message.clone(); 3]);
    let before = store.counts();
    let reopened = open(&store, Some(journal.version()));
    assert_eq!(reopened.state(), journal.state());
    let after = store.counts();
    assert_eq!((after.get - before.get, after.get_signed - before.get_signed), (2, 1), "snapshot, record, head");
    // Leases: what opening needs is refreshed, and enough.
    let later = EXPIRY + 100 * 86_400;
    run(refresh_log(&store, reopened.writer(), later)).unwrap();
    run(refresh_messages(&store, of_folder(&reopened.state().view()), later)).unwrap();
    assert!(store.sweep(later - 1) > 0, "records before the snapshot go");
    let swept = open(&store, Some(reopened.version()));
    assert_eq!(swept.state(), journal.state());
    assert!(run(fetch_message(&store, &swept.state().view().entries[0].message)).is_ok());
}

#[test]
fn a_lost_tail_reuses_no_number() {
    let store = MemoryStore::new(NOW);
    let head_key = private_keys(1).read().head_key();
    let mut journal = open(&store, None);
    let message = new_message(&store, 1, Flags::default());
    append(&mut journal, vec![message.clone(); 5]);
    let old_head = run(store.get_signed(head_key)).unwrap().unwrap();
    let mut uids = BTreeSet::new();
    for _ in 0..40 {
        uids.extend(append(&mut journal, vec![message.clone(); 20]));
        let effects = journal.state().plan_flags(
            &[1],
            FlagChange::Replace,
            &Flags { seen: uids.len() % 40 == 0, ..Flags::default() },
        );
        run(journal.commit(&effects.unwrap())).unwrap();
    }
    let (given, modseq) = (*uids.last().unwrap(), journal.state().view().highest_modseq);
    assert!(given > 800 && modseq > 840);
    // All heads after the old one are lost with their replicas.
    store.remove(head_key);
    run(store.put_signed(head_key, old_head, EXPIRY)).unwrap();
    let remembered = journal.version();
    let refused = open_as(&store, 1, Some(remembered)).err();
    assert!(matches!(refused, Some(JournalError::Log(LogError::RolledBack { .. }))), "{refused:?}");
    let mut recovered = open(&store, None);
    assert_eq!(recovered.state().view().entries.len(), 5);
    assert!(recovered.state().view().uid_next > given && recovered.state().view().highest_modseq > modseq);
    let uid = append(&mut recovered, vec![message])[0];
    assert!(uid > given);
    assert_eq!(recovered.state().view().uid_validity, 1);
}

#[test]
fn numbers_are_reserved_before_they_are_used() {
    // More messages in one commit than a reservation holds: the marks are raised in an earlier head.
    let store = MemoryStore::new(NOW);
    let mut journal = open(&store, None);
    let message = new_message(&store, 1, Flags::default());
    append(&mut journal, vec![message.clone()]);
    let before = store.counts().put_signed;
    append(&mut journal, vec![message; 3_000]);
    assert_eq!(store.counts().put_signed - before, 2, "marks, then record");
    let marks = &journal.writer().head().marks;
    assert!(marks[0] > 3_001 && marks[1] > 3_001);
}

#[test]
fn claim_63_a_commit_is_all_or_nothing_and_an_unresolved_one_is_resolved() {
    for loss in [Loss::Lost, Loss::Unacknowledged] {
        for writes in 0..4 {
            let store = MemoryStore::new(NOW);
            let mut journal = open(&store, None);
            let message = new_message(&store, 1, Flags::default());
            append(&mut journal, vec![message.clone(); 2]);
            let before = journal.state().clone();
            let planned = journal.state().plan_append(vec![message.clone(); 3]).unwrap();
            store.fail_writes_after(writes, loss);
            let result = run(journal.commit(&planned.effects));
            let is_unresolved = journal.is_unresolved();
            assert_eq!(is_unresolved, result == Err(JournalError::Log(LogError::Unresolved)));
            if result.is_err() {
                assert_eq!(*journal.state(), before, "nothing is shown before it is durable");
            }
            store.heal();
            let crashed = open(&store.clone(), None);
            let count = crashed.state().view().entries.len();
            let is_new = result.is_ok() || (is_unresolved && count == 5);
            assert_eq!(count, if is_new { 5 } else { 2 });
            // The device that went on is told that it is not the writer any more.
            if is_unresolved {
                assert!(matches!(run(journal.resolve()), Err(JournalError::Log(LogError::TakenOver { .. }))));
            }
        }
    }
    let store = MemoryStore::new(NOW);
    let mut journal = open(&store, None);
    let message = new_message(&store, 1, Flags::default());
    let planned = journal.state().plan_append(vec![message.clone()]).unwrap();
    store.fail_writes_after(1, Loss::Lost);
    assert_eq!(run(journal.commit(&planned.effects)), Err(JournalError::Log(LogError::Unresolved)));
    assert_eq!(run(journal.commit(&planned.effects)), Err(JournalError::Log(LogError::Unresolved)));
    store.heal();
    run(journal.resolve()).unwrap();
    assert_eq!(journal.state().view().entries.len(), 1);
    append(&mut journal, vec![message]);
    assert_eq!(*open(&store, Some(journal.version())).state(), *journal.state());
}

#[test]
fn a_move_interrupted_by_a_crash_is_completed_and_not_doubled() {
    let store = MemoryStore::new(NOW);
    let mut source = open_as(&store, 1, None).unwrap();
    let mut target = open_as(&store, 2, None).unwrap();
    let messages = (0..3).map(|number| new_message(&store, number, Flags { flagged: true, ..Flags::default() }));
    append(&mut source, messages.collect());
    let copy = |source: &FolderJournal, target: &mut FolderJournal| {
        let Copies { pairs, effects } = target.state().plan_copy(&source.state().view(), &[3, 1, 9], true).unwrap();
        run(target.commit(&effects)).unwrap();
        pairs
    };
    let pairs = copy(&source, &mut target);
    // The node dies between the copy and the expunge; the client, which got no answer, tries again.
    let mut source = open_as(&store, 1, Some(source.version())).unwrap();
    let mut target = open_as(&store, 2, Some(target.version())).unwrap();
    assert_eq!(copy(&source, &mut target), pairs, "the same UIDs are told");
    assert_eq!(target.state().view().entries.len(), 2);
    let effects = source.state().plan_expunge(&[1, 3]);
    run(source.commit(&effects)).unwrap();
    assert_eq!(source.state().view().entries.len(), 1);
    assert!(target.state().view().entries.iter().all(|entry| entry.flags.flagged));
    // It survives a snapshot; a copy is a copy every time; and what has gone on may come again.
    let restored = Folder::decode(&Bytes::from(target.state().encode())).unwrap();
    assert_eq!(restored, *target.state());
    let copies = target.state().plan_copy(&source.state().view(), &[2], false).unwrap().effects;
    run(target.commit(&copies)).unwrap();
    let copies = target.state().plan_copy(&source.state().view(), &[2], false).unwrap().effects;
    run(target.commit(&copies)).unwrap();
    assert_eq!(target.state().view().entries.len(), 4);
    // Within one folder a move gives a fresh UID.
    let Copies { pairs, effects } = source.state().plan_copy(&source.state().view(), &[2], true).unwrap();
    run(source.commit(&effects)).unwrap();
    assert_eq!(pairs, [(2, 4)]);
}

/// A commit of several records whose first head is not acknowledged: once it is resolved, all of them stand.
#[test]
fn a_commit_of_many_records_stands_whole_once_it_is_resolved() {
    for writes in [1, 3, 5] {
        let store = MemoryStore::new(NOW);
        let mut journal = open(&store, None);
        let long = "X-Filler: 0123456789abcdef\r\n".repeat(8_000);
        let messages = (0..45).map(|number| {
            let mail = Bytes::from(format!("{long}Subject: {number}\r\n\r\nbody\r\n"));
            let sealing = Sealing { ring: RING, shared: None };
            let reference = run(store_message(&store, &sealing, &mail, EXPIRY)).unwrap().reference;
            NewMessage::new(&mail, reference, Flags::default(), 0).unwrap()
        });
        let planned = journal.state().plan_append(messages.collect()).unwrap();
        store.fail_writes_after(writes, Loss::Unacknowledged);
        let commit = run(journal.commit(&planned.effects));
        assert_eq!(commit, Err(JournalError::Log(LogError::Unresolved)), "after {writes} writes");
        store.heal();
        run(journal.resolve()).unwrap();
        assert_eq!(journal.state().view().entries.len(), 45, "after {writes} writes");
        assert_eq!(open(&store, Some(journal.version())).state(), journal.state());
    }
}

#[test]
fn a_notification_is_delivered_once() {
    let store = MemoryStore::new(NOW);
    let mut journal = open(&store, None);
    let delivered = |number: u8, at_s| {
        let mut message = new_message(&store, u64::from(number), Flags::default());
        message.delivery = Some(Delivery { id: [number; 32], at_s });
        message
    };
    let uids = append(&mut journal, vec![delivered(1, 100)]);
    let effects = journal.state().plan_expunge(&uids);
    run(journal.commit(&effects)).unwrap();
    let mut journal = open(&store, None);
    let again = journal.state().plan_append(vec![delivered(1, 200)]);
    assert_eq!(again.err(), Some(FolderError::Delivered), "even after it was expunged and the node restarted");
    let twice = journal.state().plan_append(vec![delivered(2, 200), delivered(2, 200)]);
    assert_eq!(twice.err(), Some(FolderError::Delivered));
    // A snapshot and a renamed inbox carry the memory along.
    let restored = Folder::decode(&Bytes::from(journal.state().encode())).unwrap();
    assert!(restored.has_delivered(&[1; 32]) && !restored.has_delivered(&[2; 32]));
    let mut inbox = Folder::new(9);
    for effect in inbox.plan_remember(journal.state()) {
        inbox.apply(&effect).unwrap();
    }
    assert_eq!(inbox.plan_append(vec![delivered(1, 300)]).err(), Some(FolderError::Delivered));
    // It is forgotten by time, when the same part of the memory is used again.
    let mut later = delivered(1, 100 + NOTIFICATION_MEMORY_S + 1);
    later.delivery = Some(Delivery {
        id: {
            let mut id = [1; 32];
            id[31] = 7;
            id
        },
        at_s: 101 + NOTIFICATION_MEMORY_S,
    });
    append(&mut journal, vec![later]);
    assert!(!journal.state().has_delivered(&[1; 32]));
    // A snapshot forgets neither more nor less, even of what is overdue in other parts of the memory.
    append(&mut journal, vec![delivered(4, 300 + 2 * NOTIFICATION_MEMORY_S), delivered(3, 5)]);
    assert_eq!(Folder::decode(&Bytes::from(journal.state().encode())).as_ref(), Ok(journal.state()));
}

#[test]
fn effects_for_another_state_change_nothing() {
    let store = MemoryStore::new(NOW);
    let mut journal = open(&store, None);
    append(&mut journal, vec![new_message(&store, 1, Flags::default()); 2]);
    let before = journal.state().clone();
    let modseq = before.view().highest_modseq;
    let planned = Folder::new(1).plan_append(vec![new_message(&store, 2, Flags::default())]).unwrap();
    let wrong = [
        planned.effects[0].clone(),
        Effect::SetFlags { uids: vec![1], flags: Flags::default(), modseq },
        Effect::SetFlags { uids: vec![7], flags: Flags::default(), modseq: modseq + 1 },
        Effect::Expunge { uids: vec![2, 1], modseq: modseq + 1 },
        Effect::Expunge { uids: vec![], modseq: modseq + 1 },
        Effect::Skip { uid_next: 1, modseq: modseq + 1 },
    ];
    for effect in wrong {
        let result = run(journal.commit(&[effect]));
        assert!(matches!(result, Err(JournalError::Effect(_))), "{result:?}");
        assert_eq!(*journal.state(), before);
    }
    let keywords = Flags { keywords: (0..200).map(|i| format!("k{i}")).collect(), ..Flags::default() };
    assert_eq!(before.plan_flags(&[1], FlagChange::Add, &keywords), Err(FolderError::BadKeywords));
    let lower = Flags { keywords: BTreeSet::from(["work".to_owned()]), ..Flags::default() };
    let upper = Flags { keywords: BTreeSet::from(["WORK".to_owned()]), ..Flags::default() };
    let effects = before.plan_flags(&[1], FlagChange::Add, &lower).unwrap();
    run(journal.commit(&effects)).unwrap();
    assert_eq!(journal.state().plan_flags(&[1], FlagChange::Add, &upper), Ok(vec![]));
    assert_eq!(journal.state().plan_flags(&[1], FlagChange::Remove, &upper).unwrap().len(), 1);
}

#[test]
fn damaged_effects_and_snapshots_never_panic() {
    let store = MemoryStore::new(NOW);
    let mut journal = open(&store, None);
    let mut message = new_message(&store, 1, random_flags(&mut Random(1)));
    message.delivery = Some(Delivery { id: [3; 32], at_s: 9 });
    let planned = journal.state().plan_append(vec![message]).unwrap();
    run(journal.commit(&planned.effects)).unwrap();
    let expunge = journal.state().plan_expunge(&[1]);
    let mut samples: Vec<Vec<u8>> = planned.effects.iter().chain(&expunge).map(Folder::encode_effect).collect();
    samples.push(journal.state().encode());
    let seed = 0xda3a_9ed0;
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
        if let Ok(effect) = Folder::decode_effect(&bytes) {
            let _ = journal.state().clone().apply(&effect);
            let _ = Folder::new(1).apply(&effect);
        }
        if let Ok(folder) = Folder::decode(&bytes) {
            assert_eq!(Folder::decode(&Bytes::from(folder.encode())), Ok(folder));
        }
    }
}
