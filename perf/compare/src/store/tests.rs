//! Goal: every store does what it is measured for. Method: a few hundred random changes on each, against a sorted map;
//! then the same again after closing and opening, since durable is what they are asked to be.

use super::{Change, Kind, Setting, Store};
use crate::data::{DAY_S, Dice, EPOCH_S, Objects, checksum, key_bytes};
use bytes::Bytes;
use engine::Key;
use std::collections::BTreeMap;

const SETTING: Setting = Setting { cache_bytes: 16 << 20, data_bytes: 64 << 20, cold: false };
const SEED: u64 = 0x5eed;

type Model = BTreeMap<Key, (u64, Bytes)>;

/// Some commits of a few changes each, the same to the store and to the model.
fn change(store: &dyn Store, model: &mut Model, objects: &Objects, dice: &mut Dice, base: usize) {
    for turn in 0..120 {
        let mut changes = Vec::new();
        for part in 0..1 + dice.below(5) {
            let number = base + turn * 5 + part;
            let size = [1, 100, 1023, 1024, 4000, 4096, 70_000][dice.below(7)];
            let (key, value) = (objects.key(number), objects.value(number, size));
            // Whole days, so that a store with coarse leases agrees to the second.
            let expiry_s = (EPOCH_S / DAY_S + 1 + dice.below(20) as u64) * DAY_S;
            model.insert(key, (expiry_s, value.clone()));
            changes.push(Change::Put { key, expiry_s, value });
        }
        store.commit(changes).expect("puts");
        let key = *model.keys().nth(dice.below(model.len())).expect("not empty");
        let expiry_s = model[&key].0 + DAY_S;
        model.entry(key).and_modify(|(expiry, _)| *expiry = expiry_s);
        store.commit(vec![Change::Extend { key, expiry_s }]).expect("extends");
    }
}

fn agree(store: &dyn Store, model: &Model, absent: &[Key], name: &str) {
    let mut reader = store.reader().expect("reads");
    for (key, (_, value)) in model {
        for round in 0..2 {
            let mut sum = None;
            let mut see = |bytes: &[u8]| sum = Some(checksum(bytes));
            let found = if round == 0 { store.get(key, &mut see) } else { reader.get(key, &mut see) };
            assert!(found.expect("reads"), "{name}: an object is missing");
            assert_eq!(sum, Some(checksum(value)), "{name}: other bytes");
        }
    }
    for key in absent {
        assert!(!store.get(key, &mut |_| ()).expect("reads"), "{name}: an object nobody put, or that was removed");
    }
    drop(reader);
    listed(store, model, [0; 20], [0xff; 20], name);
    let (mut from, mut to) = ([0; 20], [0xff; 20]);
    (from[0], to[0]) = (0x30, 0x3f);
    listed(store, model, from, to, name);
}

fn listed(store: &dyn Store, model: &Model, from: [u8; 20], to: [u8; 20], name: &str) {
    let mut seen = Vec::new();
    store.list(from, to, &mut |key, expiry_s| seen.push((key, expiry_s))).expect("lists");
    let due: Vec<(Key, u64)> = model
        .iter()
        .filter(|(key, _)| key.placement >= from && key.placement <= to)
        .map(|(key, (expiry_s, _))| (*key, *expiry_s))
        .collect();
    assert_eq!(seen, due, "{name}: another listing");
}

/// Expires half of the lease ends there are.
fn expire(store: &dyn Store, model: &mut Model, name: &str) -> Vec<Key> {
    let now_s = (EPOCH_S / DAY_S + 10) * DAY_S + DAY_S / 2;
    let dead: Vec<Key> = model.iter().filter(|(_, (expiry_s, _))| *expiry_s < now_s).map(|(key, _)| *key).collect();
    assert!(!dead.is_empty() && dead.len() < model.len());
    let gone = store.expire(now_s).expect("expires");
    assert_eq!(gone, dead.len() as u64, "{name}: another number expired");
    model.retain(|_, (expiry_s, _)| *expiry_s >= now_s);
    dead
}

fn check(kind: Kind) {
    if !kind.is_built() {
        return;
    }
    let name = kind.name();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let dir = scratch.path().join(name);
    let objects = Objects::new(SEED);
    let (mut model, mut dice) = (Model::new(), Dice::new(SEED));
    let store = kind.open(&dir, &SETTING).expect("opens");
    let mut absent = vec![objects.key(1_000_000)];
    change(&*store, &mut model, &objects, &mut dice, 0);
    agree(&*store, &model, &absent, name);
    absent.extend(expire(&*store, &mut model, name));
    agree(&*store, &model, &absent, name);
    store.settle().expect("settles");
    drop(store);
    let store = kind.open(&dir, &Setting { cold: true, ..SETTING }).expect("opens again");
    agree(&*store, &model, &absent, name);
    change(&*store, &mut model, &objects, &mut dice, 2_000);
    store.reclaim().expect("reclaims");
    agree(&*store, &model, &absent, name);
    assert_eq!(key_bytes(&absent[0]).len(), crate::data::KEY_BYTES);
}

#[test]
fn the_engine_agrees_with_a_map() {
    check(Kind::Engine);
}

#[test]
fn rocksdb_agrees_with_a_map() {
    check(Kind::Rocksdb);
}

#[test]
fn fjall_agrees_with_a_map() {
    check(Kind::Fjall);
}

#[test]
fn redb_agrees_with_a_map() {
    check(Kind::Redb);
}

#[test]
fn lmdb_agrees_with_a_map() {
    check(Kind::Lmdb);
}

#[test]
fn sqlite_agrees_with_a_map() {
    check(Kind::Sqlite);
}

#[test]
fn files_agree_with_a_map() {
    check(Kind::Files);
}
