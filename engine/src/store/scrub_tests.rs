//! Goal: scrub finds rot in any page of any run, counts it once in a pass, finds none where there is none, and answers stay right
//! whatever has rotted. Method: a store on the simulated disk whose runs are small and many; one bit of one page flipped, and back.
//! What is right is known from what was put. Seeds are fixed, and printed with a failure.

use super::{Flaw, Settings, Store, create, open};
use crate::disk::FileName;
use crate::format::record::RecordHeader;
use crate::format::run::PAGE;
use crate::key::{Class, Key};
use crate::request::{Request, Response};
use crate::sim_disk::{Chance, SimDisk};
use bytes::Bytes;

const OBJECTS: u64 = 300;

fn key(number: u64) -> Key {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut placement = [0; 20];
    placement[..8].copy_from_slice(&spread.to_be_bytes());
    Key { placement, name: [number as u8; 32], kind: 1 }
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!("object {number:06}").into_bytes())
}

/// Several runs of one level and of several pages.
fn settings() -> Settings {
    let (arc_objects_max, recents_max) = (64, 120);
    Settings { arc_objects_max, recents_max, run_fan_in: 4, ..crate::simulate::settings() }
}

fn opened(disk: &SimDisk, flaw: Flaw) -> Store<SimDisk> {
    open(disk.clone(), Settings { flaw, ..settings() }).unwrap()
}

fn filled(flaw: Flaw) -> (SimDisk, Store<SimDisk>) {
    let disk = SimDisk::new(5, u64::MAX);
    create(&mut disk.clone(), [1; 16], 99, 0, 1, 1).unwrap();
    let mut store = opened(&disk, flaw);
    (0..OBJECTS).for_each(|number| assert_eq!(call(&mut store, put_of(number)), Response::Put));
    settle(&mut store);
    (disk, store)
}

fn settle(store: &mut Store<SimDisk>) {
    store.request_checkpoint();
    while !store.is_idle() {
        match store.take() {
            Some((_, answer)) => assert!(answer.is_ok(), "{answer:?}"),
            None if store.turn() => {}
            None => store.wait(),
        }
    }
}

fn call(store: &mut Store<SimDisk>, request: Request) -> Response {
    store.submit(0, request);
    loop {
        if let Some((_, answer)) = store.take() {
            return answer.unwrap();
        }
        if !store.turn() {
            store.wait();
        }
    }
}

fn put_of(number: u64) -> Request {
    let (key, value) = (key(number), value(number));
    Request::Put { key, version: 0, account: 0, class: Class::Fresh, expiry_s: 1_000, value }
}

/// What a pass says it found: damaged records, and damaged pages of runs.
fn pass(store: &mut Store<SimDisk>, chance: &mut Chance) -> (u64, u64) {
    let mut found = (0, 0);
    loop {
        let budget_bytes = chance.below(20_000);
        match call(store, Request::Scrub { budget_bytes }) {
            Response::Scrubbed { damaged, damaged_pages, wrapped, .. } => {
                found = (found.0 + damaged, found.1 + damaged_pages);
                if wrapped {
                    return found;
                }
            }
            other => panic!("scrub answered {other:?}"),
        }
    }
}

fn everything_is_served(store: &mut Store<SimDisk>) {
    for number in 0..OBJECTS {
        match call(store, Request::Get { key: key(number) }) {
            Response::Got(Some(object)) => assert_eq!(object.value, value(number)),
            other => panic!("get of {number} answered {other:?}"),
        }
    }
}

fn listed(store: &mut Store<SimDisk>) -> Vec<Key> {
    let limit = crate::limits::SCAN_ENTRIES_MAX;
    match call(store, Request::Scan { from: [0; 20], to: [0xff; 20], after: None, limit }) {
        Response::Listed(entries) => entries.iter().map(|entry| entry.key).collect(),
        other => panic!("scan answered {other:?}"),
    }
}

/// Every page of every run that is in use.
fn pages(store: &Store<SimDisk>) -> Vec<(u32, u64)> {
    let pages = |run: &crate::format::run::Run| {
        let number = run.number;
        (0..run.file_bytes() / PAGE as u64).map(move |page| (number, page))
    };
    store.index.runs().iter().flat_map(pages).collect()
}

/// A bit of a page. Of the header page only what is not zeros counts.
fn bit(chance: &mut Chance, page: u64) -> u64 {
    page * PAGE as u64 * 8 + chance.below(if page == 0 { 72 } else { PAGE as u64 } * 8)
}

#[test]
fn a_flipped_bit_in_any_page_of_a_run_is_found_and_costs_no_answer() {
    let (disk, mut store) = filled(Flaw::None);
    let pages = pages(&store);
    assert!(store.stats().runs > 1 && pages.len() > 8, "{pages:?}");
    let mut chance = Chance::new(11);
    // The control: without rot nothing is found.
    assert_eq!(pass(&mut store, &mut chance), (0, 0));
    assert_eq!((store.stats().run_damage, store.stats().damaged_runs), (0, 0));
    for (number, page) in pages {
        let file = FileName::Run(number);
        let bit = bit(&mut chance, page);
        let before = store.stats().run_damage;
        disk.rot(file, bit);
        for passes in 1..3 {
            assert_eq!(pass(&mut store, &mut chance), (0, 1), "page {page} of {file}, bit {bit}");
            assert_eq!(store.stats().run_damage, before + passes, "counted once in a pass");
        }
        assert!(store.damaged_runs().any(|damaged| damaged == file), "{file} is not named");
        everything_is_served(&mut store);
        disk.rot(file, bit);
        assert_eq!(pass(&mut store, &mut chance), (0, 0), "the bit was flipped back");
    }
    assert_eq!(store.stats().damaged_runs, store.stats().runs);
    assert_eq!((store.stats().corrupt, store.stats().device_errors), (0, 0));
}

/// What recovery does not look at, scrub does, also on a store that was just opened; and what walks pass over is what the page
/// named, no more.
#[test]
fn rot_in_a_page_of_entries_is_found_after_an_opening_and_hides_its_entries_only() {
    let (disk, store) = filled(Flaw::None);
    let (number, _) = pages(&store)[0];
    drop(store);
    disk.kill();
    disk.rot(FileName::Run(number), PAGE as u64 * 8 + 777);
    let mut store = opened(&disk, Flaw::None);
    assert_eq!((store.stats().run_damage, store.stats().damaged_runs), (0, 0), "an opening reads no entries");
    assert_eq!(pass(&mut store, &mut Chance::new(12)), (0, 1));
    assert_eq!(store.damaged_runs().collect::<Vec<_>>(), [FileName::Run(number)]);
    everything_is_served(&mut store);
    let listed = listed(&mut store);
    let hidden = (0..OBJECTS).filter(|number| !listed.contains(&key(*number))).count();
    assert!((1..=crate::format::run::PAGE_ENTRIES).contains(&hidden), "{hidden} are not listed");
}

/// A store opened again after the oldest of its runs was merged away, with a page of entries damaged or without; and the objects
/// that it does not list.
fn merged(is_damaged: bool) -> (SimDisk, Store<SimDisk>, Vec<u64>) {
    let (disk, mut store) = filled(Flaw::None);
    let (number, _) = pages(&store)[0];
    if is_damaged {
        disk.rot(FileName::Run(number), PAGE as u64 * 8 + 777);
    }
    let others = OBJECTS..OBJECTS + 130;
    let mut rounds = 0;
    while store.index.runs().iter().any(|run| run.number == number) {
        others.clone().for_each(|other| store.submit(2, put_of(other)));
        settle(&mut store);
        others.clone().for_each(|other| store.submit(3, Request::RemoveIfOlder { key: key(other), version: 1 }));
        settle(&mut store);
        rounds += 1;
        assert!(rounds < 100, "{number} is not merged: {:?}", store.stats());
    }
    assert_eq!(store.stats().run_damage > 0, is_damaged, "the merge has met the page");
    drop(store);
    disk.kill();
    let mut store = opened(&disk, Flaw::None);
    let listed = listed(&mut store);
    let unnamed = (0..OBJECTS).filter(|number| !listed.contains(&key(*number))).collect();
    (disk, store, unnamed)
}

/// Damages the payload of an object, and returns how much damage of records is counted after a pass of scrub, and after a get.
fn found_of(disk: &SimDisk, store: &mut Store<SimDisk>, number: u64) -> (u64, u64) {
    let candidates: Vec<_> = store.index.candidates(&key(number)).collect();
    let [(locator, _)] = candidates[..] else { panic!("{number} may lie at {candidates:?}") };
    let payload = u64::from(locator.offset()) + RecordHeader::SIZE as u64;
    disk.rot(FileName::Segment(u32::from(locator.segment())), payload * 8 + 3);
    pass(store, &mut Chance::new(15));
    let by_scrub = store.stats().corrupt;
    assert_eq!(call(store, Request::Get { key: key(number) }), Response::Got(None), "{number}");
    (by_scrub, store.stats().corrupt)
}

/// What a merge over a damaged page has left without a name is known to nobody after the next opening: it is served, scrub cannot
/// drop it when it rots, and its reader does. The control is the same store without that page's damage, where scrub does.
#[test]
fn what_a_merge_has_lost_the_names_of_is_served_and_not_dropped_by_scrub() {
    let (disk, mut store, unnamed) = merged(true);
    assert!((1..=crate::format::run::PAGE_ENTRIES).contains(&unnamed.len()), "{unnamed:?}");
    everything_is_served(&mut store);
    assert_eq!(pass(&mut store, &mut Chance::new(13)), (0, 0), "nothing points to the missing names");
    assert_eq!((store.stats().run_damage, store.stats().damaged_runs), (0, 0));
    assert_eq!(found_of(&disk, &mut store, unnamed[0]), (0, 1));

    let (disk, mut store, none) = merged(false);
    assert!(none.is_empty(), "{none:?}");
    assert_eq!(found_of(&disk, &mut store, unnamed[0]), (1, 1));
}

#[test]
fn control_a_scrub_that_looks_away_finds_nothing() {
    let (disk, mut store) = filled(Flaw::ScrubLooksAway);
    let (number, _) = pages(&store)[0];
    disk.rot(FileName::Run(number), PAGE as u64 * 8 + 777);
    assert_eq!(pass(&mut store, &mut Chance::new(14)), (0, 0));
}

/// Runs that are merged and unlinked while scrub is among them are no damage, and the pass ends.
#[test]
fn runs_merged_meanwhile_are_left() {
    let (_disk, mut store) = filled(Flaw::None);
    let (mut steps, mut merged_meanwhile) = (0, 0);
    while store.stats().scrub_passes < 3 || merged_meanwhile < 3 {
        call(&mut store, Request::Scrub { budget_bytes: 1 });
        steps += 1;
        assert!(steps < 5_000, "passes do not end, or no run goes away: {:?}", store.stats());
        if store.scrub.runs.is_none() {
            continue;
        }
        let merged = store.stats().runs_merged;
        // A read is under way while the index changes, and files go.
        store.submit(1, Request::Scrub { budget_bytes: 1 });
        store.turn();
        (0..130).for_each(|number| store.submit(2, Request::RemoveIfOlder { key: key(number), version: 1 }));
        settle(&mut store);
        (0..130).for_each(|number| store.submit(3, put_of(number)));
        settle(&mut store);
        merged_meanwhile += u64::from(store.stats().runs_merged > merged && store.scrub.runs.is_some());
    }
    let stats = store.stats();
    assert_eq!((stats.run_damage, stats.damaged_runs, stats.scrub_damaged, stats.device_errors), (0, 0, 0, 0));
    everything_is_served(&mut store);
}
