//! Comparing the whole store with the model: every key after an opening, a walk and the digests of the ring when nothing is
//! in flight, and what is counted with what lies on the disk when all has come to rest.

use super::{Verdict, World, ensure};
use crate::key::Key;
use crate::limits;
use crate::request::{Error, Request, Response};
use crate::simulate::model::{Held, describe, is_object};

impl World {
    /// Lets everything finish and compares a walk of the ring with the model.
    pub(super) fn pause(&mut self) -> Verdict {
        self.drain()?;
        if self.disk.is_cut() || !self.doing.is_empty() {
            return Ok(());
        }
        let limit = self.chance.below(20) as usize + 1;
        let from = self.keys[self.chance.below(self.keys.len() as u64) as usize].placement;
        let mut to = from;
        for byte in to.iter_mut().rev() {
            let (lower, borrowed) = byte.overflowing_sub(1);
            *byte = lower;
            if !borrowed {
                break;
            }
        }
        let mut found = Vec::new();
        loop {
            let after = found.last().copied();
            let Some(page) = self.scan(from, to, after, limit)? else { return Ok(()) };
            let end = page.len() < limit;
            found.extend(page);
            if end {
                break;
            }
        }
        let mut expected: Vec<Key> =
            self.known.iter().filter(|(_, known)| known.certain.is_some()).map(|(key, _)| *key).collect();
        expected.sort_by_key(|key| (key.placement < from, *key));
        let lost: Vec<&Key> = expected.iter().filter(|key| !found.contains(key)).collect();
        let extra: Vec<&Key> = found.iter().filter(|key| !expected.contains(key)).collect();
        let same = found == expected || self.plan.disk_may_lose;
        let corrupt = self.store().stats().corrupt;
        ensure!(same, "a walk of the ring misses {lost:?} and has {extra:?} beside the model ({corrupt} damaged)");
        self.check_digest(expected.len() as u64)
    }

    /// The digest of the whole ring counts what the model holds, and is the sum of those of two parts.
    fn check_digest(&mut self, objects: u64) -> Verdict {
        let (mut middle, mut behind) = ([0xff; 20], [0; 20]);
        middle[0] = u8::try_from(self.chance.below(255)).expect("below 255");
        behind[0] = middle[0] + 1;
        let whole = self.digest([0; 20], [0xff; 20])?;
        if whole.is_none() || self.disk.is_cut() {
            return Ok(());
        }
        let (Some(low), Some(high)) = (self.digest([0; 20], middle)?, self.digest(behind, [0xff; 20])?) else {
            return Ok(());
        };
        let sum = (low.0 + high.0, low.1.wrapping_add(high.1));
        ensure!(
            whole == Some(sum) || self.plan.disk_may_lose,
            "the digest {whole:?} is not the sum of its parts {sum:?}"
        );
        let counts = sum.0 == objects || self.plan.disk_may_lose;
        ensure!(counts, "the digest counts {}, the model {objects}", sum.0);
        Ok(())
    }

    /// `None` if the power or a read fails.
    fn digest(&mut self, from: [u8; 20], to: [u8; 20]) -> Result<Option<(u64, u128)>, String> {
        let tag = self.tag_next;
        self.tag_next += 1;
        self.store().submit(tag, Request::Digest { from, to });
        while !self.disk.is_cut() {
            match self.store().take() {
                Some((_, Ok(Response::Digest { count, sum }))) => return Ok(Some((count, sum))),
                Some((_, Err(Error::Io))) if self.plan.is_faulty() => return Ok(None),
                Some((_, other)) => return Err(format!("digest answered {other:?}")),
                None => self.advance(),
            }
        }
        Ok(None)
    }

    fn scan(
        &mut self,
        from: [u8; 20],
        to: [u8; 20],
        after: Option<Key>,
        limit: usize,
    ) -> Result<Option<Vec<Key>>, String> {
        let tag = self.tag_next;
        self.tag_next += 1;
        self.store().submit(tag, Request::Scan { from, to, after, limit });
        while !self.disk.is_cut() {
            if let Some((answered, result)) = self.store().take() {
                ensure!(answered == tag, "only the scan was asked");
                if result == Err(Error::Io) && self.plan.is_faulty() {
                    return Ok(None);
                }
                let Ok(Response::Listed(entries)) = result else { return Err(format!("scan answered {result:?}")) };
                for entry in &entries {
                    let held = self.certain(&entry.key);
                    let same = held.is_some_and(|held| held.version == entry.version && held.expiry <= entry.expiry_s);
                    ensure!(same || self.plan.disk_may_lose, "scan lists {entry:?}, the model holds {held:?}");
                }
                return Ok(Some(entries.into_iter().map(|entry| entry.key).collect()));
            }
            self.advance();
        }
        // The power has failed. An answer that came with its last moment is not waited for by anybody later.
        while self.store().take().is_some() {}
        Ok(None)
    }

    /// After opening: every key is what was acknowledged, or what was possible.
    pub(super) fn check_everything(&mut self) -> Verdict {
        for key in self.keys.clone() {
            let tag = self.tag_next;
            self.tag_next += 1;
            self.store().submit(tag, Request::Get { key });
            let answer = loop {
                if let Some(answer) = self.store().take() {
                    break answer;
                }
                self.advance();
            };
            let (_, Ok(Response::Got(object))) = answer else { return Err(format!("get answered {answer:?}")) };
            let lossy = self.plan.disk_may_lose;
            if lossy {
                self.judge_bytes(key, object.as_ref())?;
            }
            let known = self.known.entry(key).or_default();
            let swept = std::mem::take(&mut known.may_be_swept).then_some(&None);
            let mut states = std::iter::once(&known.certain).chain(&known.possible).chain(swept);
            let state = states.find(|held| is_object(held.as_ref(), object.as_ref())).copied();
            known.certain = match (state, &object) {
                (Some(held), _) => held,
                (None, object) if lossy => object.as_ref().map(|object| Held {
                    version: object.version,
                    value: known.value_of(object),
                    expiry: object.expiry_s,
                }),
                (None, object) => {
                    return Err(format!(
                        "after restart {key:?} is {}, acknowledged {:?}, possible {:?}",
                        describe(object.as_ref()),
                        known.certain,
                        known.possible
                    ));
                }
            };
            known.possible.clear();
        }
        self.coverage.openings_checked += 1;
        self.store().check_live()
    }

    /// When nothing is in flight: what is counted is what lies on the disk, and within the capacity.
    pub(super) fn check_accounts(&mut self) -> Verdict {
        self.store().check_live()?;
        let on_disk = self.disk.taken_bytes();
        let counted = self.store().bytes_counted() + 2 * limits::BLOCK as u64;
        // Files whose making failed half-way are not counted and go at the next opening.
        let exact = on_disk == counted || self.plan.is_faulty();
        ensure!(exact, "{counted} bytes counted, {on_disk} on disk");
        let capacity = self.settings().capacity_bytes;
        ensure!(on_disk <= capacity + 128 * 1024, "{on_disk} bytes on disk, capacity {capacity}");
        Ok(())
    }
}
