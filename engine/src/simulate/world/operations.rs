//! The random operations of a life, each submitted with what the model says must come of it.
//!
//! At most one change of a key is in flight: a key with one is *busy*. Reads go to any key, most often to a busy one, and
//! may see what was certain when they were submitted or what any change beside them leads to.

use super::{Verdict, World};
use crate::key::{Class, Key};
use crate::request::{Request, Response};
use crate::simulate::model::{Doing, Held, Known, bytes_of};
use crate::simulate::settings;
use std::collections::BTreeMap;

impl World {
    pub(super) fn step(&mut self) -> Verdict {
        self.now += self.chance.below(6);
        if self.doing.len() < 12 {
            match self.chance.below(100) {
                0..45 => self.put(),
                45..60 => self.touch(),
                60..85 => self.get(),
                85..92 => self.remove(),
                92..95 => self.sweep(),
                95..97 => self.scrub(),
                _ => self.pause()?,
            }
        }
        for _ in 0..self.chance.below(5) {
            self.advance();
            self.listen()?;
        }
        Ok(())
    }

    fn submit(&mut self, request: Request, doing: Doing) {
        let tag = self.tag_next;
        self.tag_next += 1;
        if let Doing::Change { results, .. } | Doing::Sweep { results, .. } = &doing {
            for (key, held) in results {
                for other in self.doing.values_mut() {
                    if let Doing::Get { key: read, allowed } = other
                        && read == key
                    {
                        allowed.push(*held);
                    }
                }
                self.busy.insert(*key);
            }
        }
        self.doing.insert(tag, doing);
        self.store().submit(tag, request);
    }

    fn idle_key(&mut self) -> Option<Key> {
        let key = self.keys[self.chance.below(self.keys.len() as u64) as usize];
        (!self.busy.contains(&key)).then_some(key)
    }

    pub(super) fn certain(&self, key: &Key) -> Option<Held> {
        self.known.get(key).and_then(|known| known.certain)
    }

    /// During a sweep, what it removes is left alone.
    fn is_expiring(&self, held: Held) -> bool {
        held.expiry + settings().grace_s < self.now
    }

    fn put(&mut self) {
        let Some(key) = self.idle_key() else { return };
        let held = self.certain(&key);
        let expiry = self.now + self.chance.below(250);
        let mutable = key.kind == 4;
        let (version, value) = match held {
            _ if !mutable => (0, u64::from(key.name[0]) << 32),
            None => (self.chance.below(5) + 1, self.fresh_value()),
            Some(held) => match self.chance.below(10) {
                0 => (held.version, held.value),
                1 => (held.version, self.fresh_value()),
                2 => (held.version.saturating_sub(1).max(1), self.fresh_value()),
                _ => (held.version + 1, self.fresh_value()),
            },
        };
        let superseded = |held: Held| (Some(held), Response::Superseded { version: held.version });
        let extended = |held: Held| (Some(Held { expiry: held.expiry.max(expiry), ..held }), Response::Put);
        let (result, expected) = match held {
            None => (Some(Held { version, value, expiry }), Response::Put),
            Some(held) if version > held.version => {
                (Some(Held { version, value, expiry: expiry.max(held.expiry) }), Response::Put)
            }
            Some(held) if version < held.version => superseded(held),
            Some(held) if value == held.value || bytes_of(value) == bytes_of(held.value) => extended(held),
            Some(held) => superseded(held),
        };
        self.known.entry(key).or_default().history.insert((version, value));
        let class = Class::ALL[self.chance.below(3) as usize];
        let (account, expiry_s) = (9, expiry);
        let request = Request::Put { key, version, account, class, expiry_s, value: bytes_of(value) };
        self.submit(request, Doing::Change { results: vec![(key, result)], expected });
    }

    fn fresh_value(&mut self) -> u64 {
        self.value_next += 1;
        self.value_next
    }

    fn touch(&mut self) {
        let mut leases = BTreeMap::new();
        for _ in 0..self.chance.below(8) + 1 {
            if let Some(key) = self.idle_key() {
                leases.insert(key, self.now + self.chance.below(400));
            }
        }
        let mut results = Vec::new();
        let mut known = 0;
        for (key, expiry) in &leases {
            let held = self.certain(key);
            known += usize::from(held.is_some());
            results.push((*key, held.map(|held| Held { expiry: held.expiry.max(*expiry), ..held })));
        }
        let request = Request::TouchMany { leases: leases.into_iter().collect() };
        self.submit(request, Doing::Change { results, expected: Response::Touched { known } });
    }

    fn remove(&mut self) {
        let Some(key) = self.idle_key() else { return };
        let held = self.certain(&key);
        let version = self.chance.below(6);
        let removes = held.is_some_and(|held| held.version < version);
        let result = if removes { None } else { held };
        let expected = Response::Removed(removes);
        self.submit(Request::RemoveIfOlder { key, version }, Doing::Change { results: vec![(key, result)], expected });
    }

    fn scrub(&mut self) {
        let budget_bytes = self.chance.below(200_000);
        self.submit(Request::Scrub { budget_bytes }, Doing::Scrub);
    }

    fn get(&mut self) {
        let mut key = self.keys[self.chance.below(self.keys.len() as u64) as usize];
        // Often one that is being changed.
        if !self.busy.is_empty() && self.chance.below(2) == 0 {
            let nth = self.chance.below(self.busy.len() as u64) as usize;
            key = *self.busy.iter().nth(nth).expect("counted");
        }
        let mut allowed = vec![self.certain(&key)];
        for doing in self.doing.values() {
            if let Doing::Change { results, .. } | Doing::Sweep { results, .. } = doing {
                allowed.extend(results.iter().filter(|(other, _)| *other == key).map(|(_, held)| *held));
            }
        }
        self.submit(Request::Get { key }, Doing::Get { key, allowed });
    }

    /// Only when it is clear which objects it will remove.
    fn sweep(&mut self) {
        let sweeping = self.doing.values().any(|doing| matches!(doing, Doing::Sweep { .. }));
        let unclear = self.busy.iter().any(|key| self.certain(key).is_some_and(|held| self.is_expiring(held)));
        let in_flight_expiring = self.doing.values().any(|doing| match doing {
            Doing::Change { results, .. } => {
                results.iter().any(|(_, held)| held.is_some_and(|held| self.is_expiring(held)))
            }
            Doing::Sweep { .. } | Doing::Get { .. } | Doing::Scrub => false,
        });
        if sweeping || unclear || in_flight_expiring {
            return;
        }
        let expiring =
            |(key, known): (&Key, &Known)| known.certain.filter(|held| self.is_expiring(*held)).map(|_| (*key, None));
        let results = self.known.iter().filter_map(expiring).collect();
        let now = self.now;
        self.submit(Request::Sweep { now_s: now }, Doing::Sweep { results, now });
    }
}
