//! Goal: a client that believes every line it is told ends up believing the truth, whatever happens in the folder
//! and whenever it may be told. Method: random changes of a folder, a client that keeps a plain list by the rules
//! of RFC 3501 and knows nothing else, compared message by message. Control: a client that applies EXPUNGEs with
//! the numbers of before the command goes wrong.

use super::*;
use bytes::Bytes;
use post::mail::message::{MessageReference, store_message};
use post::mail::walk::structure_of;
use post::seal::Sealing;
use post::store::memory::MemoryStore;
use proptest::prelude::*;
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

/// A reference that is well formed and leads to some message: the entries here are only looked at.
fn some_reference() -> MessageReference {
    static REFERENCE: OnceLock<MessageReference> = OnceLock::new();
    let make = || {
        let store = MemoryStore::new(1_000_000);
        let sealing = Sealing { ring: [7; 16], shared: None };
        let message = Bytes::from_static(b"Subject: x\r\n\r\n");
        let mut storing = pin!(store_message(&store, &sealing, &message, 1_000));
        // A store in memory never waits.
        match storing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(stored) => stored.unwrap().reference,
            Poll::Pending => panic!("a store in memory waits for nothing"),
        }
    };
    REFERENCE.get_or_init(make).clone()
}

/// An entry as a folder would hold it for this message.
pub(crate) fn entry_of(uid: u32, message: &[u8]) -> Entry {
    let structure = structure_of(message);
    Entry {
        uid,
        modseq: u64::from(uid),
        flags: Flags::default(),
        internal_date_s: 0,
        size: message.len() as u32,
        headers: Bytes::copy_from_slice(&message[structure.header()]),
        structure: Arc::new(structure),
        message: some_reference(),
    }
}

fn view(entries: Vec<Arc<Entry>>) -> Arc<FolderView> {
    let uid_next = entries.last().map_or(1, |entry| entry.uid + 1);
    Arc::new(FolderView { uid_validity: 1, uid_next, highest_modseq: 1, entries })
}

/// A client that believes what it is told.
#[derive(Default)]
struct Client {
    /// Per message: its UID and flags, as far as it was told.
    messages: Vec<(Option<u32>, Option<String>)>,
}

impl Client {
    fn hear(&mut self, answers: &[u8], may_expunge: bool) {
        for line in String::from_utf8(answers.to_vec()).unwrap().lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let number = || words[1].parse::<usize>().unwrap();
            match words[2] {
                "EXPUNGE" => {
                    assert!(may_expunge, "told of an expunge at the wrong moment");
                    self.messages.remove(number() - 1);
                }
                "EXISTS" => {
                    assert!(number() >= self.messages.len(), "EXISTS never takes away");
                    self.messages.resize(number(), (None, None));
                }
                "FETCH" => {
                    let (uid, flags) = words[3].strip_prefix("(UID ").unwrap().split_once(" FLAGS ").unwrap();
                    let flags = flags.strip_suffix(')').unwrap();
                    let message = &mut self.messages[number() - 1];
                    let uid: u32 = uid.parse().unwrap();
                    assert!(message.0.is_none_or(|known| known == uid), "a message was renumbered");
                    *message = (Some(uid), Some(flags.to_owned()));
                }
                _ => assert!(line.starts_with("* FLAGS") || line.starts_with("* OK [PERMANENTFLAGS"), "{line}"),
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Append,
    Expunge(usize),
    Flag(usize, bool),
    Keyword(usize),
    Tell { may_expunge: bool },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => Just(Change::Append),
        2 => (0usize..20).prop_map(Change::Expunge),
        3 => ((0usize..20), any::<bool>()).prop_map(|(at, seen)| Change::Flag(at, seen)),
        1 => (0usize..20).prop_map(Change::Keyword),
        4 => any::<bool>().prop_map(|may_expunge| Change::Tell { may_expunge }),
    ]
}

proptest! {
    #[test]
    fn a_believing_client_believes_the_truth(changes in prop::collection::vec(change(), 1..80)) {
        let mut entries: Vec<Arc<Entry>> = (1..=3).map(|uid| Arc::new(entry_of(uid, b"A: b\r\n\r\n"))).collect();
        let mut next_uid = 4;
        let mut numbering = Numbering::new(&view(entries.clone()));
        let mut client = Client { messages: vec![(None, None); 3] };
        for change in changes.into_iter().chain([Change::Tell { may_expunge: true }]) {
            let edit = |entries: &mut Vec<Arc<Entry>>, at: usize, edit: &dyn Fn(&mut Entry)| {
                if let Some(slot) = entries.get_mut(at) {
                    let mut entry = Entry::clone(slot);
                    edit(&mut entry);
                    *slot = Arc::new(entry);
                }
            };
            match change {
                Change::Append => {
                    entries.push(Arc::new(entry_of(next_uid, b"A: b\r\n\r\n")));
                    next_uid += 1;
                }
                Change::Expunge(at) if at < entries.len() => {
                    entries.remove(at);
                }
                Change::Expunge(_) => {}
                Change::Flag(at, seen) => edit(&mut entries, at, &|entry| entry.flags.seen = seen),
                Change::Keyword(at) => edit(&mut entries, at, &|entry| {
                    entry.flags.keywords.insert(format!("k{}", entry.uid));
                }),
                Change::Tell { may_expunge } => {
                    let mut answers = Vec::new();
                    numbering.update(&view(entries.clone()), may_expunge, &Expected::default(), false, &mut answers);
                    client.hear(&answers, may_expunge);
                    prop_assert_eq!(client.messages.len(), numbering.entries().len());
                    for (number, (told, held)) in client.messages.iter().zip(numbering.entries()).enumerate() {
                        prop_assert!(told.0.is_none_or(|uid| uid == held.uid), "number {}", number + 1);
                        prop_assert_eq!(numbering.number_of(held.uid), Some(number as u32 + 1));
                        let present = entries.iter().any(|entry| entry.uid == held.uid);
                        prop_assert_eq!(numbering.is_present(held.uid), present);
                        if let Some(flags) = &told.1 {
                            prop_assert_eq!(flags, &response::flags(&held.flags), "told flags are held flags");
                        }
                    }
                }
            }
        }
        let held: Vec<u32> = numbering.entries().iter().map(|entry| entry.uid).collect();
        let truth: Vec<u32> = entries.iter().map(|entry| entry.uid).collect();
        prop_assert_eq!(held, truth);
        for (entry, held) in entries.iter().zip(numbering.entries()) {
            prop_assert_eq!(&entry.flags, &held.flags);
        }
    }
}

#[test]
fn expunges_count_down_as_the_client_does() {
    let entries: Vec<Arc<Entry>> = (1..=6).map(|uid| Arc::new(entry_of(uid, b"\r\n"))).collect();
    let mut numbering = Numbering::new(&view(entries.clone()));
    let left: Vec<Arc<Entry>> = entries.iter().filter(|entry| ![2, 3, 6].contains(&entry.uid)).cloned().collect();
    let mut answers = Vec::new();
    numbering.update(&view(left.clone()), false, &Expected::default(), false, &mut answers);
    assert!(answers.is_empty() && numbering.count() == 6 && numbering.missing == 3);
    numbering.update(&view(left), true, &Expected::default(), false, &mut answers);
    assert_eq!(answers, b"* 2 EXPUNGE\r\n* 2 EXPUNGE\r\n* 4 EXPUNGE\r\n");
    // Control: with the numbers of before, the wrong messages would go.
    let mut naive: Vec<u32> = (1..=6).collect();
    for number in [2usize, 3, 6] {
        if number <= naive.len() {
            naive.remove(number - 1);
        }
    }
    assert_ne!(naive, [1, 4, 5]);
}

#[test]
fn what_a_client_asked_for_itself_is_not_repeated() {
    let entries: Vec<Arc<Entry>> = (1..=2).map(|uid| Arc::new(entry_of(uid, b"\r\n"))).collect();
    let mut numbering = Numbering::new(&view(entries.clone()));
    let seen = Flags { seen: true, ..Flags::default() };
    let expected = Expected::of(entries.iter().map(Arc::as_ref), StoreMode::Add, &seen);
    let mut newer: Vec<Entry> = entries.iter().map(|entry| Entry::clone(entry)).collect();
    newer[0].flags.seen = true;
    newer[1].flags = Flags { seen: true, flagged: true, ..Flags::default() };
    let mut answers = Vec::new();
    numbering.update(&view(newer.into_iter().map(Arc::new).collect()), false, &expected, false, &mut answers);
    assert_eq!(answers, b"* 2 FETCH (UID 2 FLAGS (\\Flagged \\Seen))\r\n", "only what somebody else did too");
}
