//! Goal: the whole public API, on the real ring, agrees with a map: any classes, versions, leases, ranges and sizes, with the
//! store reopened in between.
//!
//! Method: proptest draws a list of requests; each is answered by an engine in a fresh directory and by a `HashMap`, one at a
//! time. A failure is shrunk to the shortest list that still fails, and printed with the line (`cc ...`) that repeats it
//! from `requests.proptest-regressions`. `PROPTEST_CASES` sets how many lists are tried. What it does not check:
//! requests in flight at once (`simulate`), and that space comes back by a certain time. A touch extends whatever shares
//! its key's tag in the index, so a lease may be longer than the map knows, which then learns it; none may be shorter.

use engine::{Class, Client, Config, Engine, Key, Request, Response};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestError, TestRunner};
use std::collections::HashMap;
use std::path::Path;

const KEYS: u8 = 40;
const GRACE_S: u64 = 7;
const TICK_S: u64 = 3;

/// What is asked, with keys by number and times from now.
#[derive(Clone, Debug)]
enum Asked {
    Put {
        key: u8,
        version: u64,
        class: Class,
        lease_s: u64,
        length: usize,
        filling: u8,
    },
    /// The very bytes and version that are there, with another lease.
    PutAgain {
        key: u8,
        lease_s: u64,
    },
    Get {
        key: u8,
    },
    Touch {
        leases: Vec<(u8, u64)>,
    },
    Scan {
        from: u8,
        to: u8,
        page: usize,
    },
    Digest {
        from: u8,
        to: u8,
    },
    Remove {
        key: u8,
        version: u64,
    },
    Sweep {
        later_s: u64,
    },
    Reopen,
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Fresh), Just(Class::Mutable), Just(Class::Fragment), Just(Class::Survivor)]
}

fn asked() -> impl Strategy<Value = Asked> {
    let key = || 0..KEYS;
    let length = prop_oneof![4 => 0usize..300, 2 => 300usize..5_000, 1 => 5_000usize..30_000];
    prop_oneof![
        12 => (key(), 0u64..5, class(), 0u64..300, length, any::<u8>()).prop_map(
            |(key, version, class, lease_s, length, filling)| Asked::Put { key, version, class, lease_s, length, filling }
        ),
        2 => (key(), 0u64..300).prop_map(|(key, lease_s)| Asked::PutAgain { key, lease_s }),
        8 => key().prop_map(|key| Asked::Get { key }),
        4 => vec((key(), 0u64..400), 0..6).prop_map(|leases| Asked::Touch { leases }),
        3 => (key(), key(), 1usize..9).prop_map(|(from, to, page)| Asked::Scan { from, to, page }),
        2 => (key(), key()).prop_map(|(from, to)| Asked::Digest { from, to }),
        3 => (key(), 0u64..6).prop_map(|(key, version)| Asked::Remove { key, version }),
        2 => (0u64..120).prop_map(|later_s| Asked::Sweep { later_s }),
        1 => Just(Asked::Reopen),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    version: u64,
    expiry_s: u64,
    bytes: Vec<u8>,
}

/// Keys from numbers: every other one immutable, some sharing their first eight bytes, some their whole placement.
fn key(number: u8) -> Key {
    let mut placement = [0; 20];
    placement[0] = number / 4 * 17;
    placement[8] = number % 4 / 2;
    placement[19] = number / 4;
    Key { placement, name: [number; 32], kind: 1 + number % 2 }
}

/// The end of a lease as the store keeps it: rounded up to its tick.
fn rounded(expiry_s: u64) -> u64 {
    expiry_s.next_multiple_of(TICK_S)
}

/// Whether a key lies clockwise from one id to another, both included.
fn is_inside(key: &Key, from: [u8; 20], to: [u8; 20]) -> bool {
    match from <= to {
        true => (from..=to).contains(&key.placement),
        false => key.placement >= from || key.placement <= to,
    }
}

/// The next id clockwise.
fn next(mut id: [u8; 20]) -> [u8; 20] {
    for byte in id.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    id
}

/// The next id anticlockwise.
fn previous(mut id: [u8; 20]) -> [u8; 20] {
    for byte in id.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            break;
        }
    }
    id
}

struct World<'a> {
    dir: &'a Path,
    engine: Option<Engine>,
    client: Client,
    model: HashMap<Key, Held>,
    now_s: u64,
    /// The control's: a map in which a touch extends a lease by a tick more than was asked.
    is_wrong: bool,
}

impl World<'_> {
    fn new(dir: &Path) -> World<'_> {
        let engine = open(dir);
        let client = engine.client();
        World { dir, engine: Some(engine), client, model: HashMap::new(), now_s: 10_000, is_wrong: false }
    }

    fn ask(&mut self, asked: &Asked) -> Result<(), TestCaseError> {
        match asked {
            Asked::Put { key: number, version, class, lease_s, length, filling } => {
                // Odd ones are mutable: their version is above 0.
                let version = if number % 2 == 0 { 0 } else { version + 1 };
                self.put(key(*number), version, *class, self.now_s + lease_s, vec![*filling; *length])
            }
            Asked::PutAgain { key: number, lease_s } => match self.model.get(&key(*number)).cloned() {
                Some(held) => self.put(key(*number), held.version, Class::Fresh, self.now_s + lease_s, held.bytes),
                None => Ok(()),
            },
            Asked::Get { key: number } => self.get(key(*number)),
            Asked::Touch { leases } => self.touch(leases),
            Asked::Scan { from, to, page } => self.scan(key(*from).placement, key(*to).placement, *page),
            Asked::Digest { from, to } => self.digests(key(*from).placement, key(*to).placement),
            Asked::Remove { key: number, version } => self.remove(key(*number), *version),
            Asked::Sweep { later_s } => self.sweep(*later_s),
            Asked::Reopen => self.reopen(),
        }
    }

    fn put(
        &mut self,
        key: Key,
        version: u64,
        class: Class,
        expiry_s: u64,
        bytes: Vec<u8>,
    ) -> Result<(), TestCaseError> {
        let value = bytes.clone().into();
        let answer = self.client.call(Request::Put { key, version, account: 3, class, expiry_s, value });
        let expiry_s = rounded(expiry_s);
        let (expected, held) = match self.model.get(&key) {
            None => (Response::Put, Held { version, expiry_s, bytes }),
            Some(held) => {
                let longest = expiry_s.max(held.expiry_s);
                let extended = Held { expiry_s: longest, ..held.clone() };
                if version > held.version {
                    (Response::Put, Held { version, expiry_s: longest, bytes })
                } else if version == 0 || (version == held.version && bytes == held.bytes) {
                    (Response::Put, extended)
                } else {
                    (Response::Superseded { version: held.version }, held.clone())
                }
            }
        };
        prop_assert_eq!(answer, Ok(expected));
        self.model.insert(key, held);
        Ok(())
    }

    fn get(&mut self, key: Key) -> Result<(), TestCaseError> {
        let got = self.client.get(key).map(|object| {
            object.map(|object| Held {
                version: object.version,
                expiry_s: object.expiry_s,
                bytes: object.value.to_vec(),
            })
        });
        if let Ok(Some(held)) = &got {
            self.learn(key, held.expiry_s);
        }
        prop_assert_eq!(got, Ok(self.model.get(&key).cloned()));
        Ok(())
    }

    /// A lease that is longer than was asked for.
    fn learn(&mut self, key: Key, expiry_s: u64) {
        self.model.entry(key).and_modify(|held| held.expiry_s = held.expiry_s.max(expiry_s));
    }

    /// Each key once. One that is not there may share its tag with one that is, and count as known.
    fn touch(&mut self, leases: &[(u8, u64)]) -> Result<(), TestCaseError> {
        let mut asked: Vec<(Key, u64)> = Vec::new();
        for (number, lease_s) in leases {
            if asked.iter().all(|(other, _)| *other != key(*number)) {
                asked.push((key(*number), self.now_s + lease_s));
            }
        }
        let known = asked.iter().filter(|(key, _)| self.model.contains_key(key)).count();
        let answer = self.client.touch_many(asked.clone());
        prop_assert!(answer.is_ok_and(|count| (known..=asked.len()).contains(&count)), "{answer:?}, at least {known}");
        for (key, expiry_s) in asked {
            let expiry_s = rounded(expiry_s) + if self.is_wrong { TICK_S } else { 0 };
            self.model.entry(key).and_modify(|held| held.expiry_s = held.expiry_s.max(expiry_s));
        }
        Ok(())
    }

    fn scan(&mut self, from: [u8; 20], to: [u8; 20], page: usize) -> Result<(), TestCaseError> {
        let mut found = Vec::new();
        loop {
            let after = found.last().map(|(key, _, _, _)| *key);
            let entries =
                self.client.scan(from, to, after, page).map_err(|error| TestCaseError::fail(error.to_string()))?;
            entries.iter().for_each(|entry| self.learn(entry.key, entry.expiry_s));
            found.extend(entries.iter().map(|entry| (entry.key, entry.version, entry.expiry_s, entry.len as usize)));
            if entries.len() < page {
                break;
            }
        }
        let mut expected: Vec<_> = self
            .model
            .iter()
            .filter(|(key, _)| is_inside(key, from, to))
            .map(|(key, held)| (*key, held.version, held.expiry_s, held.bytes.len()))
            .collect();
        expected.sort_by_key(|(key, ..)| (key.placement < from, *key));
        prop_assert_eq!(found, expected);
        Ok(())
    }

    /// The map cannot know the sum; but the sums of an arc and of the rest of the ring make the sum of the ring.
    fn digests(&mut self, from: [u8; 20], to: [u8; 20]) -> Result<(), TestCaseError> {
        let arc = self.digest(from, to)?;
        let ring = self.digest([0; 20], [0xff; 20])?;
        let (behind, before) = (next(to), previous(from));
        let rest = if behind == from { (0, 0) } else { self.digest(behind, before)? };
        prop_assert_eq!(ring, (arc.0 + rest.0, arc.1.wrapping_add(rest.1)));
        prop_assert!(ring.0 > 0 || ring.1 == 0);
        Ok(())
    }

    fn digest(&mut self, from: [u8; 20], to: [u8; 20]) -> Result<(u64, u128), TestCaseError> {
        let expected = self.model.keys().filter(|key| is_inside(key, from, to)).count() as u64;
        match self.client.call(Request::Digest { from, to }) {
            Ok(Response::Digest { count, sum }) => {
                prop_assert_eq!(count, expected);
                Ok((count, sum))
            }
            other => Err(TestCaseError::fail(format!("digest answered {other:?}"))),
        }
    }

    fn remove(&mut self, key: Key, version: u64) -> Result<(), TestCaseError> {
        let removes = self.model.get(&key).is_some_and(|held| held.version < version);
        prop_assert_eq!(self.client.remove_if_older(key, version), Ok(removes));
        if removes {
            self.model.remove(&key);
        }
        Ok(())
    }

    fn sweep(&mut self, later_s: u64) -> Result<(), TestCaseError> {
        self.now_s += later_s;
        let now_s = self.now_s;
        let ended = |held: &Held| held.expiry_s + GRACE_S < now_s;
        let mut expired: Vec<Key> = self.model.iter().filter(|(_, held)| ended(held)).map(|(key, _)| *key).collect();
        let (swept, _) = self.client.sweep(now_s).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(swept <= expired.len() as u64, "swept {} of {}", swept, expired.len());
        if swept < expired.len() as u64 {
            // What is left must have a longer lease than the map knew.
            for key in std::mem::take(&mut expired) {
                match self.client.get(key) {
                    Ok(Some(object)) => {
                        self.learn(key, object.expiry_s);
                        prop_assert!(object.expiry_s + GRACE_S >= now_s, "{:?} outlived a sweep", key);
                    }
                    _ => expired.push(key),
                }
            }
            prop_assert_eq!(swept, expired.len() as u64);
        }
        expired.iter().for_each(|key| drop(self.model.remove(key)));
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), TestCaseError> {
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        let engine = open(self.dir);
        self.client = engine.client();
        prop_assert_eq!(engine.stats().objects, self.model.len() as u64);
        self.engine = Some(engine);
        Ok(())
    }

    /// Everything, once more, in a newly opened store.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.reopen()?;
        (0..KEYS).try_for_each(|number| self.get(key(number)))?;
        self.scan([0; 20], [0xff; 20], 7)?;
        let stats = self.engine.as_ref().map(Engine::stats).unwrap_or_default();
        prop_assert_eq!(stats.corrupt, 0);
        Ok(())
    }
}

/// Small segments, so that lists of requests fill several.
fn open(dir: &Path) -> Engine {
    let config = Config {
        capacity_bytes: 16 << 20,
        segment_bytes: 64 << 10,
        tick_s: TICK_S as u32,
        grace_s: GRACE_S,
        clock_jump_s: u64::MAX,
        pin: false,
        ..Config::new(dir)
    };
    Engine::open(config).expect("a fresh or soundly closed store opens")
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_iters: 400, ..ProptestConfig::default() }
}

fn agree(requests: &[Asked], is_wrong: bool) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().map_err(|error| TestCaseError::fail(error.to_string()))?;
    let mut world = World::new(dir.path());
    world.is_wrong = is_wrong;
    requests.iter().try_for_each(|asked| world.ask(asked))?;
    world.end()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/requests.proptest-regressions"))),
        ..config(std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16))
    })]

    #[test]
    fn any_requests_agree_with_a_map(requests in vec(asked(), 1..200)) {
        agree(&requests, false)?;
    }
}

/// Control: a map that is wrong about one thing is told apart, by a list as short as the thing needs: put, touch, and
/// perhaps a look at it.
#[test]
fn control_a_wrong_map_is_told_apart_and_the_list_shrinks() {
    let config = ProptestConfig { failure_persistence: None, ..config(64) };
    let outcome = TestRunner::new(config).run(&vec(asked(), 1..60), |requests| agree(&requests, true));
    let Err(TestError::Fail(_, shortest)) = outcome else { panic!("not told apart: {outcome:?}") };
    println!("{shortest:?}");
    assert!(shortest.len() <= 4, "{shortest:?}");
}
