//! Goal: C57, C58, C61 in part, C63: exact reverse history, a single writer, and a crash at any point that leaves the
//! old or the new state. Method: a list of what was appended as the model; every prefix of store operations, with
//! the failing one lost or done but denied; blocks flipped and exchanged.

use super::{NOW, Random, log_store, private_keys};
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use net::id::{Key, Kind};
use net::past::block::{decode_signed, encode_signed};
use post::log::LogError;
use post::log::head::{Head, hash_of};
use post::log::keys::WriteKeys;
use post::log::limits::CLUSTER_RECORDS;
use post::log::reader::LogReader;
use post::log::writer::{LogWriter, Opened};
use post::store::memory::{Loss, MemoryStore, run};
use post::store::{ObjectStore, StoreError};

fn open(store: &MemoryStore, remembered: Option<u64>) -> Result<Opened<MemoryStore>, LogError> {
    run(LogWriter::open(log_store(store), private_keys(1), remembered, vec![0]))
}

fn reader(store: &MemoryStore) -> LogReader<MemoryStore> {
    LogReader::new(log_store(store), private_keys(1).read().clone())
}

fn head(store: &MemoryStore) -> Head {
    run(reader(store).head(None)).unwrap().unwrap().0
}

fn entry(number: usize) -> Bytes {
    Bytes::from(format!("entry number {number}"))
}

/// A log of `count` records with one entry each.
fn filled(count: usize) -> (MemoryStore, LogWriter<MemoryStore>) {
    let store = MemoryStore::new(NOW);
    let mut writer = open(&store, None).unwrap().writer;
    for number in 1..=count {
        run(writer.append(vec![entry(number)], &[0])).unwrap();
    }
    (store, writer)
}

/// What a walk backwards yields: the numbers of records, and the errors in between.
fn walked(store: &MemoryStore) -> Vec<Result<u64, LogError>> {
    let reader = reader(store);
    let mut history = reader.history(&head(store));
    let mut walked = Vec::new();
    loop {
        match run(history.older()) {
            Ok(None) => return walked,
            Ok(Some(record)) => {
                assert_eq!(record.entries, [entry(record.sequence as usize)]);
                walked.push(Ok(record.sequence));
            }
            Err(error) => walked.push(Err(error)),
        }
    }
}

#[test]
fn claim_57_walking_yields_the_exact_reverse_history() {
    for count in [0, 1, 2, 49, 50, 51, 101, 173] {
        let (store, _) = filled(count);
        let expected: Vec<_> = (1..=count as u64).rev().map(Ok).collect();
        assert_eq!(walked(&store), expected);
        let tail = run(reader(&store).since(&head(&store), 0)).unwrap();
        let numbers: Vec<u64> = tail.records.iter().map(|(_, record)| record.sequence).collect();
        assert_eq!(numbers, (1..=count as u64).collect::<Vec<_>>());
    }
}

#[test]
fn claim_57_a_tampered_record_is_detected() {
    let (store, writer) = filled(120);
    let tail = run(reader(&store).since(writer.head(), 0)).unwrap();
    let key_of = |index: usize| Key { name: tail.records[index].0, kind: Kind::Content };
    let block_of = |index: usize| run(store.get(key_of(index))).unwrap().unwrap();
    for index in [0, 1, 49, 50, 99, 100, 118, 119] {
        let mut flipped = block_of(index).to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        let other = block_of((index + 7) % 120);
        for false_block in [Bytes::from(flipped), other, Bytes::new()] {
            store.lie(key_of(index), Some(false_block));
            assert_eq!(run(reader(&store).since(writer.head(), 0)).err(), Some(LogError::Tampered(key_of(index))));
            let walked = walked(&store);
            let wrong: Vec<_> = walked.iter().filter(|step| step.is_err()).collect();
            assert_eq!(wrong, [&Err(LogError::Tampered(key_of(index)))]);
            assert_eq!(walked.len(), 120, "the damaged record costs itself only");
            store.lie(key_of(index), None);
        }
    }
    // A cluster and the head likewise.
    let cluster = Key { name: writer.head().cluster.unwrap(), kind: Kind::Cluster };
    store.lie(cluster, Some(Bytes::from_static(b"ePC1 something else")));
    assert_eq!(run(reader(&store).since(writer.head(), 0)).err(), Some(LogError::Tampered(cluster)));
    store.lie(cluster, None);
    let head_key = private_keys(1).read().head_key();
    let mut block = run(store.get_signed(head_key)).unwrap().unwrap().to_vec();
    block[60] ^= 1;
    store.lie(head_key, Some(block.into()));
    assert_eq!(run(reader(&store).head(None)).err(), Some(LogError::BadHead));
}

#[test]
fn claim_58_another_keys_append_is_refused() {
    let (store, _) = filled(3);
    let head_key = private_keys(1).read().head_key();
    let block = run(store.get_signed(head_key)).unwrap().unwrap();
    let next = decode_signed(&block).unwrap().version + 1;
    let thief = SigningKey::from_bytes(&[99; 32]);
    let victim = private_keys(1).read().public_key().to_owned();
    let thief_key = thief.verifying_key().to_bytes();
    // Signed by the thief: in his own name, and in the victim's.
    for public_key in [thief_key, victim] {
        let forged = encode_signed(Kind::Head, &public_key, next, b"mine now", |bytes| thief.sign(bytes).to_bytes());
        assert_eq!(run(store.put_signed(head_key, forged, 1)), Err(StoreError::Refused));
    }
    // The whole writer with another signing key does not even find the log: its own is elsewhere.
    let other = run(LogWriter::open(log_store(&store), private_keys(2), None, vec![0])).unwrap();
    assert!(other.records.is_empty());
    assert_eq!(run(store.get_signed(head_key)), Ok(Some(block)));
    // A reader refuses a head of another log even when holders show it.
    let elsewhere = run(store.get_signed(private_keys(2).read().head_key())).unwrap();
    store.lie(head_key, elsewhere);
    assert_eq!(run(reader(&store).head(None)).err(), Some(LogError::BadHead));
}

#[test]
fn claim_58_an_append_is_one_record_and_one_head_write() {
    let (store, mut writer) = filled(0);
    for number in 1..=120 {
        let before = store.counts();
        run(writer.append(vec![entry(number), entry(number)], &[0])).unwrap();
        let after = store.counts();
        // With every 50th record, the cluster of the fifty before it.
        let has_cluster = number > 1 && (number - 1) % CLUSTER_RECORDS == 0;
        assert_eq!(after.put - before.put, 1 + u64::from(has_cluster));
        assert_eq!(after.put_signed - before.put_signed, 1);
        assert_eq!((after.get, after.get_signed, after.tell), (before.get, before.get_signed, before.tell));
    }
}

#[test]
fn a_second_device_takes_over_and_the_first_notices() {
    let (store, mut first) = filled(2);
    let mut second = open(&store, None).unwrap().writer;
    assert_eq!(second.head().epoch, first.head().epoch + 1);
    let late = run(first.append(vec![entry(3)], &[0]));
    assert!(matches!(late, Err(LogError::TakenOver { .. })), "{late:?}");
    assert!(matches!(run(first.append(vec![entry(3)], &[0])), Err(LogError::TakenOver { .. })));
    run(second.append(vec![entry(3)], &[0])).unwrap();
    assert_eq!(walked(&store), [Ok(3), Ok(2), Ok(1)]);
    // Each head names the one before it.
    let block = run(store.get_signed(private_keys(1).read().head_key())).unwrap().unwrap();
    run(second.append(vec![entry(4)], &[0])).unwrap();
    assert_eq!(second.head().previous, hash_of(&block));
}

#[test]
fn an_older_log_than_remembered_is_noticed() {
    let (store, mut writer) = filled(5);
    let head_key = private_keys(1).read().head_key();
    let old = run(store.get_signed(head_key)).unwrap();
    run(writer.append(vec![entry(6)], &[0])).unwrap();
    let (seen, remembered) = (writer.head().version - 1, writer.head().version);
    store.lie(head_key, old);
    assert_eq!(run(reader(&store).head(Some(remembered))).err(), Some(LogError::RolledBack { seen, remembered }));
    assert_eq!(open(&store, Some(remembered)).err(), Some(LogError::RolledBack { seen, remembered }));
    store.lie(head_key, None);
    assert!(open(&store, Some(remembered)).unwrap().is_tail_certain);
    assert!(!open(&store, None).unwrap().is_tail_certain);
}

#[test]
fn a_private_log_is_opaque_and_a_public_one_readable() {
    let (private, _) = filled(3);
    assert!(!private.has_seen(b"entry number"));
    let public = MemoryStore::new(NOW);
    let keys = WriteKeys::public(SigningKey::from_bytes(&[1; 32]));
    let mut writer = run(LogWriter::open(log_store(&public), keys.clone(), None, vec![])).unwrap().writer;
    run(writer.append(vec![entry(1)], &[])).unwrap();
    assert!(public.has_seen(b"entry number"));
    let stranger = post::log::keys::ReadKeys::public(*keys.read().public_key());
    let reader = LogReader::new(log_store(&public), stranger.clone());
    let (head, _) = run(reader.head(None)).unwrap().unwrap();
    assert_eq!(run(reader.since(&head, 0)).unwrap().records[0].1.entries, [entry(1)]);
    // A private log without its sealing key is nothing.
    let blind =
        LogReader::new(log_store(&private), post::log::keys::ReadKeys::public(*private_keys(1).read().public_key()));
    assert_eq!(run(blind.head(None)).err(), Some(LogError::BadHead));
}

#[test]
fn too_much_for_a_record_is_refused_and_changes_nothing() {
    let (store, mut writer) = filled(1);
    let large = Bytes::from(vec![0; 4 << 20]);
    assert_eq!(run(writer.append(vec![large], &[0])), Err(LogError::TooLarge));
    run(writer.append(vec![entry(2)], &[0])).unwrap();
    assert_eq!(walked(&store), [Ok(2), Ok(1)]);
}

#[test]
fn a_snapshot_may_be_of_several_objects_or_empty() {
    let (store, mut writer) = filled(3);
    for length in [0, 1, (32 << 20) + 1] {
        let state = Random(length as u64).bytes(length);
        run(writer.snapshot(&state)).unwrap();
        assert_eq!(writer.snapshot_objects().len(), if length > 32 << 20 { 2 } else { 1 });
        let opened = open(&store, None).unwrap();
        assert_eq!((opened.snapshot.as_ref(), opened.records.len()), (Some(&state), 0));
        writer = opened.writer;
    }
}

/// What a scripted writer does: enough to turn a cluster over, write a snapshot, and raise marks.
const STEPS: usize = 56;

/// Does one step of the script; the model is the list of entries that were appended.
fn step(writer: &mut LogWriter<MemoryStore>, number: usize) -> Result<(), LogError> {
    match number % 10 {
        7 => run(writer.snapshot(format!("state after {}", writer.head().entries).as_bytes())),
        8 => run(writer.reserve(&[number as u64 * 100])),
        _ => run(writer.append(vec![entry(number)], &[0])),
    }
}

fn appends(number: usize) -> bool {
    !matches!(number % 10, 7 | 8)
}

/// Everything the log holds, read through its clusters without the snapshot.
fn content(store: &MemoryStore) -> Vec<Bytes> {
    let tail = run(reader(store).since(&head(store), 0)).expect("the log is never broken");
    tail.records.into_iter().flat_map(|(_, record)| record.entries).collect()
}

/// Runs the script until it fails; returns what was acknowledged, the entry in flight, and the writer.
fn script(store: &MemoryStore) -> (Vec<Bytes>, Option<Bytes>, Option<LogWriter<MemoryStore>>, Option<LogError>) {
    let mut acknowledged = Vec::new();
    let mut writer = match open(store, None) {
        Ok(opened) => opened.writer,
        Err(error) => return (acknowledged, None, None, Some(error)),
    };
    for number in 0..STEPS {
        let in_flight = appends(number).then(|| entry(number));
        match step(&mut writer, number) {
            Ok(()) => acknowledged.extend(in_flight),
            Err(error) => return (acknowledged, in_flight, Some(writer), Some(error)),
        }
    }
    (acknowledged, None, Some(writer), None)
}

#[test]
fn claim_63_a_crash_at_any_write_leaves_the_old_or_the_new_state() {
    let (mut crashes, mut olds, mut news) = (0, 0, 0);
    for loss in [Loss::Lost, Loss::Unacknowledged] {
        for writes in 0.. {
            let store = MemoryStore::new(NOW);
            store.fail_writes_after(writes, loss);
            let (acknowledged, in_flight, writer, error) = script(&store);
            store.heal();
            let Some(error) = error else { break };
            crashes += 1;
            drop(writer); // The node dies here; a new one opens the log.
            let mut writer = open(&store, None).expect("the log opens after a crash").writer;
            let held = content(&store);
            let new: Vec<Bytes> = acknowledged.iter().chain(&in_flight).cloned().collect();
            assert!(held == acknowledged || held == new, "after {writes} writes, {loss:?}, {error}");
            if held.len() > acknowledged.len() {
                news += 1;
                assert_eq!(error, LogError::Unresolved, "what was not unresolved is not there");
            } else {
                olds += 1;
            }
            // It goes on from there, and every snapshot was of what it said.
            run(writer.append(vec![entry(1_000)], &[0])).unwrap();
            assert_eq!(content(&store), held.into_iter().chain([entry(1_000)]).collect::<Vec<_>>());
            if let Some(snapshot) = writer.head().snapshot.clone() {
                let state = run(reader(&store).snapshot(writer.head())).unwrap().unwrap();
                assert_eq!(state, format!("state after {}", snapshot.entries));
            }
        }
    }
    println!("{crashes} crashes: {olds} old states, {news} new");
    assert!(crashes > 200 && news > 30 && olds > 100);
}

#[test]
fn claim_63_without_a_crash_an_unresolved_head_is_resolved_first() {
    for loss in [Loss::Lost, Loss::Unacknowledged] {
        for writes in 1..60 {
            let store = MemoryStore::new(NOW);
            store.fail_writes_after(writes, loss);
            let (mut acknowledged, in_flight, writer, error) = script(&store);
            let Some(mut writer) = writer else { continue };
            if error == Some(LogError::Unresolved) {
                assert_eq!(run(writer.append(vec![entry(2_000)], &[0])), Err(LogError::Unresolved));
                assert_eq!(run(writer.resolve()), Err(LogError::Unresolved), "the fault still holds");
                store.heal();
                run(writer.resolve()).unwrap();
                acknowledged.extend(in_flight);
            }
            store.heal();
            run(writer.append(vec![entry(1_000)], &[0])).unwrap();
            acknowledged.push(entry(1_000));
            assert_eq!(content(&store), acknowledged);
        }
    }
}

#[test]
fn claim_63_control_a_head_before_its_record_would_be_broken() {
    // Were the head written first, a crash between the two would leave a head whose record nobody has.
    let (store, writer) = filled(7);
    let key = Key { name: writer.head().latest().unwrap(), kind: Kind::Content };
    assert!(store.remove(key));
    assert_eq!(open(&store, None).err(), Some(LogError::Missing(key)));
}

#[test]
fn arbitrary_bytes_are_no_blocks_of_a_log() {
    let seed = 0x1095_eed5;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let keys = private_keys(1);
    for _ in 0..2_000 {
        let length = random.below(400);
        let mut bytes = random.bytes(length).to_vec();
        bytes.splice(..4.min(length), *[b"ePR1", b"ePC1", b"ePB1"][random.below(3)]);
        let (record, cluster) = (Key::of(Kind::Content, &bytes), Key::of(Kind::Cluster, &bytes));
        assert!(post::log::record::Record::open(keys.read(), record.name, 1, &bytes).is_err());
        assert!(post::log::record::Cluster::open(keys.read(), cluster.name, 1, &bytes).is_err());
        assert!(Head::open(keys.read(), &Bytes::from(bytes)).is_err());
    }
}
