//! Goal: reassembly is bit-identical for any bytes; the same attachment is one object however it is wrapped; a
//! reference cannot make a small mail grow. Method: the corpus, arbitrary bytes, mutated MIME; counts of objects in a
//! store; references altered by hand.

use super::{NOW, RING, Random, corpus, log_store, private_keys};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use post::log::journal::Journal;
use post::mail::folder::{Folder, NewMessage};
use post::mail::header::HeaderEdit;
use post::mail::message::{
    MessageError, MessageReference, MessageReferenceError, fetch_message, keys_of, store_message,
};
use post::mail::parts::{PartsError, Skeleton, assemble, split};
use post::mail::view::Flags;
use post::seal::{OpenError, RingSecret, SealError, Sealing};
use post::store::StoreError;
use post::store::memory::{MemoryStore, run};
use proptest::prelude::*;

const EXPIRY: u64 = NOW / 1_000_000 + 1_000;

fn convergent() -> Sealing {
    Sealing { ring: RING, shared: Some(RingSecret::new(1, [7; 32])) }
}

fn salted() -> Sealing {
    Sealing { ring: RING, shared: None }
}

fn check_round_trip(message: &Bytes) -> Result<(), TestCaseError> {
    let parts = split(message);
    let encoded = Bytes::from(parts.skeleton.encode());
    let skeleton = Skeleton::decode(&encoded).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&skeleton, &parts.skeleton);
    let assembled = assemble(&skeleton, &parts.parts);
    prop_assert_eq!(assembled.as_ref(), Ok(message));
    Ok(())
}

/// `file` in base64, in lines of `width` (0: one line) that end with `ending`.
fn wrapped(file: &[u8], width: usize, ending: &str) -> String {
    let text = STANDARD.encode(file);
    let width = if width == 0 { text.len().max(1) } else { width };
    let lines: Vec<&str> = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(ending)
}

/// A mail with a short text and `body` as a base64 attachment.
fn mail_with(subject: &str, body: &str, ending: &str) -> Bytes {
    let lines = [
        &format!("Subject: {subject}"),
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed; boundary=\"=_b\"",
        "",
        "--=_b",
        "",
        "Hello.",
        "--=_b",
        "Content-Type: application/pdf; name=\"a.pdf\"",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment; filename=\"a.pdf\"",
        "",
        body,
        "--=_b--",
        "",
    ];
    Bytes::from(lines.join(ending))
}

#[test]
fn every_message_of_the_corpus_reassembles_bit_for_bit() {
    let mut parts = 0;
    for (path, bytes) in corpus::messages() {
        let unix: Vec<u8> = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").into_bytes();
        let network = String::from_utf8_lossy(&unix).replace('\n', "\r\n").into_bytes();
        for bytes in [bytes, unix, network] {
            let message = Bytes::from(bytes);
            check_round_trip(&message).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            parts += split(&message).parts.len();
        }
    }
    // Most of the corpus is small; larger bodies are exercised by the generated messages below.
    assert!(parts > 0, "no message of the corpus has a part");
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let shape = (0usize..100, prop_oneof![Just("\r\n"), Just("\n")], 3_000usize..9_000, any::<u64>());
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..6);
    (shape, edits).prop_map(|((width, ending, length, seed), edits)| {
        let file = Random(seed).bytes(length);
        let mut message = mail_with("s", &wrapped(&file, width, ending), ending).to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(message.len());
            match kind {
                0 => message[at] = byte,
                1 => message.insert(at, byte),
                _ => drop(message.remove(at)),
            }
        }
        message
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_reassemble(message: Vec<u8>) {
        check_round_trip(&Bytes::from(message))?;
    }

    #[test]
    fn mutated_mime_reassembles(message in mutated()) {
        check_round_trip(&Bytes::from(message))?;
    }

    #[test]
    fn a_damaged_skeleton_is_an_error_or_another_skeleton(at: prop::sample::Index, byte: u8) {
        let message = mail_with("s", &wrapped(&[9; 9_000], 76, "\r\n"), "\r\n");
        let parts = split(&message);
        let mut encoded = parts.skeleton.encode();
        let at = at.index(encoded.len());
        let is_same = encoded[at] == byte;
        encoded[at] = byte;
        if let Ok(skeleton) = Skeleton::decode(&Bytes::from(encoded)) {
            let assembled = assemble(&skeleton, &parts.parts);
            prop_assert!(is_same == assembled.is_ok(), "{:?}", assembled.map(|message| message.len()));
        }
    }

    #[test]
    fn a_damaged_reference_never_panics(at: prop::sample::Index, byte: u8) {
        let store = MemoryStore::new(NOW);
        let message = mail_with("s", &wrapped(&[9; 9_000], 76, "\r\n"), "\r\n");
        let stored = run(store_message(&store, &convergent(), &message, EXPIRY)).unwrap();
        let mut encoded = stored.reference.encode().to_vec();
        let at = at.index(encoded.len());
        encoded[at] = byte;
        if let Ok(reference) = MessageReference::decode(&encoded) {
            let fetched = run(fetch_message(&store, &reference));
            prop_assert!(fetched.is_err() || fetched.as_ref() == Ok(&message));
        }
    }
}

#[test]
fn claim_66_an_attachment_wrapped_by_two_clients_is_one_object() {
    let file = Random(66).bytes(200_000);
    let wraps = [
        wrapped(&file, 76, "\r\n"),
        wrapped(&file, 60, "\r\n"),
        wrapped(&file, 72, "\r\n") + "\r\n",
        wrapped(&file, 0, "\r\n"),
        String::from("\r\n") + &wrapped(&file, 76, "\r\n") + "\r\n\r\n",
    ];
    let mut mails: Vec<Bytes> = wraps.iter().map(|wrap| mail_with("one", wrap, "\r\n")).collect();
    mails.push(mail_with("unix", &wrapped(&file, 64, "\n"), "\n"));
    let large = |store: &MemoryStore| store.objects().iter().filter(|(_, _, size)| *size >= 200_000).count();

    let store = MemoryStore::new(NOW);
    for (number, mail) in mails.iter().enumerate() {
        let stored = run(store_message(&store, &convergent(), mail, EXPIRY)).unwrap();
        assert_eq!(run(fetch_message(&store, &stored.reference)).as_ref(), Ok(mail));
        assert_eq!(large(&store), 1, "after wrapping {number}");
        assert_eq!(store.objects().len(), 2 + number, "the file, and a skeleton for each mail");
    }
    // Controls: without the ring's secret, and with lines that no encoder makes, it is another object each time.
    let store = MemoryStore::new(NOW);
    for mail in &mails {
        run(store_message(&store, &salted(), mail, EXPIRY)).unwrap();
    }
    assert_eq!(large(&store), mails.len());
    let store = MemoryStore::new(NOW);
    let uneven = wrapped(&file, 76, "\r\n").replacen("\r\n", "\n", 1);
    for wrap in [&wraps[0], &uneven] {
        run(store_message(&store, &convergent(), &mail_with("one", wrap, "\r\n"), EXPIRY)).unwrap();
    }
    assert_eq!(large(&store), 2);
}

#[test]
fn claim_66_fifty_recipients_add_less_than_two_percent() {
    // The message of the claim is taken to be one with a file of 10 MiB; each recipient's entry is of constant size.
    let file = Random(50).bytes(10 << 20);
    let mail = mail_with("to many", &wrapped(&file, 76, "\r\n"), "\r\n");
    let store = MemoryStore::new(NOW);
    let stored = run(store_message(&store, &convergent(), &mail, EXPIRY)).unwrap();
    let content = store.objects().len();
    let mut deliver = |number: u8| {
        let trace = format!("Received: by epost for user{number}@epost.test");
        let reference = stored.reference.with_edit(HeaderEdit::at_delivery(&mail, &trace).unwrap()).unwrap();
        let whole = run(fetch_message(&store, &reference)).unwrap();
        assert!(whole.starts_with(trace.as_bytes()) && whole.ends_with(&mail));
        let new = NewMessage::new(&whole, reference, Flags::default(), 0).unwrap();
        let open = Journal::open(log_store(&store), private_keys(number), None, Folder::new(1));
        let mut folder = run(open).unwrap();
        let planned = folder.state().plan_append(vec![new]).unwrap();
        run(folder.commit(&planned.effects)).unwrap();
        store.bytes_held()
    };
    let one = deliver(0);
    let fifty = (1..50).map(&mut deliver).last().unwrap();
    let added = (fifty - one) as f64 / one as f64;
    println!("one recipient {one} bytes, fifty {fifty} bytes: {:.2} % more", 100.0 * added);
    assert!(added < 0.02);
    // Control: a copy for each recipient would be fifty times as much.
    let copies = run(store_message(&store, &salted(), &mail, EXPIRY)).unwrap();
    assert_ne!(copies.reference.root(), stored.reference.root());
    assert!(store.bytes_held() - fifty > one / 2);
    assert!(content < store.objects().len());
}

#[test]
fn a_forwarded_message_shares_its_attachment() {
    let file = Random(68).bytes(100_000);
    let mail = mail_with("first", &wrapped(&file, 76, "\r\n"), "\r\n");
    let head = "Subject: Fwd\r\nContent-Type: multipart/mixed; boundary=f\r\n\r\n--f\r\n\r\nSee below.\r\n--f\r\n\
                Content-Type: message/rfc822\r\n\r\n";
    let forward = Bytes::from([head.as_bytes(), &mail, b"\r\n--f--\r\n"].concat());
    let store = MemoryStore::new(NOW);
    run(store_message(&store, &convergent(), &mail, EXPIRY)).unwrap();
    let before = store.objects().len();
    let stored = run(store_message(&store, &convergent(), &forward, EXPIRY)).unwrap();
    assert_eq!(store.objects().len(), before + 1, "only the skeleton is new");
    assert_eq!(run(fetch_message(&store, &stored.reference)), Ok(forward));
}

#[test]
fn a_repeated_reference_is_refused_before_anything_is_fetched() {
    let store = MemoryStore::new(NOW);
    let mail = mail_with("bomb", &wrapped(&Random(1).bytes(300_000), 76, "\r\n"), "\r\n");
    let stored = run(store_message(&store, &convergent(), &mail, EXPIRY)).unwrap();
    let encoded = stored.reference.encode();
    // [version, size, skeleton, parts, edit]: 0x85 01 1a size:4 | 58 80 skeleton:128 | 81 | 58 80 part:128 | f6
    let (front, part) = (&encoded[..7 + 130], &encoded[7 + 130 + 1..7 + 130 + 1 + 130]);
    assert_eq!([front, &[0x81], part, &[0xf6]].concat(), *encoded);
    let repeated = |count: u8| [front, &[0x98, count], &part.repeat(usize::from(count)), &[0xf6]].concat();
    let gets = store.counts().get;
    assert_eq!(MessageReference::decode(&repeated(200)), Err(MessageReferenceError::Inflated));
    // Twice still fits the declared size of the encoded message only if the skeleton has room for two.
    let two = [front, &[0x82], part, part, &[0xf6]].concat();
    assert_eq!(MessageReference::decode(&two), Err(MessageReferenceError::Inflated));
    assert_eq!(store.counts().get, gets);
    let none = MessageReference::decode(&[front, &[0x80, 0xf6]].concat()).unwrap();
    assert_eq!(run(fetch_message(&store, &none)), Err(MessageError::Parts(PartsError::WrongSize)));
    assert_eq!(store.counts().get, gets + 1, "only the skeleton");
}

#[test]
fn a_missing_or_false_object_is_told() {
    let store = MemoryStore::new(NOW);
    let mail = mail_with("x", &wrapped(&Random(2).bytes(9 << 20), 76, "\r\n"), "\r\n");
    let stored = run(store_message(&store, &convergent(), &mail, EXPIRY)).unwrap();
    let keys = run(keys_of(&store, &stored.reference)).unwrap();
    assert_eq!(keys.len(), 1 + 3 + 1, "skeleton, three chunks, their list");
    assert_eq!(keys.len(), store.objects().len());
    for key in keys {
        let block = run(post::store::ObjectStore::get(&store, key)).unwrap().unwrap();
        let mut broken = block.to_vec();
        broken[block.len() / 2] ^= 1;
        store.lie(key, Some(broken.into()));
        let fetched = run(fetch_message(&store, &stored.reference));
        assert_eq!(fetched, Err(MessageError::Open(OpenError::WrongHandle)));
        store.lie(key, None);
    }
    assert_eq!(run(fetch_message(&store, &stored.reference)), Ok(mail.clone()));
    store.set_writable(false);
    let refused = run(store_message(&store, &convergent(), &mail, EXPIRY)).map(|stored| stored.reference);
    assert_eq!(refused, Err(MessageError::Seal(SealError::Store(StoreError::Unavailable))));
}
