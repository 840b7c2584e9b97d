//! Judging answers: each must be one that the model allows, and teaches it what is certain now.

use super::{Verdict, World, ensure};
use crate::key::Key;
use crate::request::{Error, Object, Request, Response};
use crate::simulate::model::{Doing, Held, bytes_of, describe, is_object};
use crate::simulate::settings;

impl World {
    pub(super) fn listen(&mut self) -> Verdict {
        while let Some((tag, result)) = self.store().take() {
            if self.disk.is_cut() {
                // Errors of a machine without power are nobody's answers; successes were durable before.
                if result.is_err() || !self.doing.contains_key(&tag) {
                    continue;
                }
            }
            let Some(doing) = self.doing.remove(&tag) else {
                return Err(format!("an answer nobody asked for, or a second one: {result:?}"));
            };
            self.judge(doing, result)?;
        }
        Ok(())
    }

    fn judge(&mut self, doing: Doing, result: Result<Response, Error>) -> Verdict {
        match (doing, result) {
            (Doing::Get { key, allowed }, Ok(Response::Got(object))) => self.judge_get(key, &allowed, object),
            (Doing::Scrub, Ok(Response::Scrubbed { .. })) => Ok(()),
            (Doing::Get { .. }, Err(Error::Io)) => {
                ensure!(self.plan.faults.read_error > 0, "a read failed on a sound disk");
                Ok(())
            }
            (Doing::Change { results, expected }, Ok(answer)) => {
                let repaired = self.plan.disk_may_lose;
                let as_expected = match (&answer, &expected) {
                    // A key that is not here may share the tag of one that is.
                    (Response::Touched { known }, Response::Touched { known: least }) => {
                        (*least..=results.len()).contains(known)
                    }
                    _ => answer == expected,
                };
                ensure!(repaired || as_expected, "answered {answer:?}, expected {expected:?} for {results:?}");
                self.coverage.acknowledged += 1;
                if self.was_logged(&results, &answer) {
                    // Its segment makes void what failed before it: that must not come back any more.
                    self.known.values_mut().for_each(|known| known.possible.clear());
                }
                let refused = matches!(answer, Response::Superseded { .. });
                self.hold(results, !refused || answer == expected);
                Ok(())
            }
            (Doing::Sweep { results, now }, Ok(Response::Swept { expired, .. })) => {
                let count = results.len() as u64;
                ensure!(self.plan.disk_may_lose || expired <= count, "swept {expired} instead of {count}");
                self.coverage.expired += expired;
                if expired == count && !self.plan.disk_may_lose {
                    self.hold(results, true);
                    return Ok(());
                }
                self.look_what_is_left(results, Some(now))
            }
            (Doing::Sweep { results, .. }, Err(error)) => {
                ensure!(error != Error::Io || self.plan.is_faulty(), "a sweep failed on a sound disk");
                self.look_what_is_left(results, None)
            }
            (Doing::Change { results, .. }, Err(error)) => {
                match error {
                    Error::Full | Error::ReadOnly => self.coverage.refused += 1,
                    Error::Io => self.coverage.failed += 1,
                    Error::TooLarge | Error::Closed => return Err(format!("answered {error:?}")),
                }
                ensure!(error != Error::Io || self.plan.is_faulty(), "a write failed on a sound disk");
                for (key, _) in &results {
                    self.busy.remove(key);
                }
                self.may_hold(results);
                Ok(())
            }
            (doing, answer) => Err(format!("{doing:?} was answered {answer:?}")),
        }
    }

    /// After a sweep that has not removed all whose lease the model knows to have ended: a stranger with the same tag may have
    /// been touched, and with it this one; or the sweep was cut short. What is left must still be held, or not have been looked at.
    fn look_what_is_left(&mut self, results: Vec<(Key, Option<Held>)>, swept_at: Option<u64>) -> Verdict {
        for (key, _) in results {
            let found = self.get_now(key)?;
            self.busy.remove(&key);
            match found {
                Some(None) => self.known.entry(key).or_default().certain = None,
                Some(Some(object)) => {
                    let has_ended = swept_at.is_some_and(|now| object.expiry_s + settings().grace_s < now);
                    let sound = !self.plan.is_faulty();
                    ensure!(!(has_ended && sound), "{key:?} outlived a sweep, though it ended at {}", object.expiry_s);
                    if swept_at.is_none() {
                        // Its removal failed, and may yet be on the disk until a later record makes it void.
                        self.may_hold(vec![(key, None)]);
                    }
                }
                // The power failed: either way, and no later record changes that.
                None => self.known.entry(key).or_default().may_be_swept = true,
            }
        }
        Ok(())
    }

    /// Reads an object and waits for it. `None` if the power fails meanwhile.
    fn get_now(&mut self, key: Key) -> Result<Option<Option<Object>>, String> {
        let mut tag = self.tag_next;
        self.tag_next += 1;
        self.store().submit(tag, Request::Get { key });
        while !self.disk.is_cut() {
            self.advance();
            while let Some((answered, result)) = self.store().take() {
                if answered != tag {
                    // What was in flight when the power failed may have happened: it stays among what is being done.
                    if !self.disk.is_cut() || (result.is_ok() && self.doing.contains_key(&answered)) {
                        let doing = self.doing.remove(&answered).ok_or("an answer nobody asked for")?;
                        self.judge(doing, result)?;
                    }
                    continue;
                }
                match result {
                    Ok(Response::Got(object)) => return Ok(Some(object)),
                    Err(Error::Io) if !self.disk.is_cut() => {
                        tag = self.tag_next;
                        self.tag_next += 1;
                        self.store().submit(tag, Request::Get { key });
                    }
                    other => ensure!(self.disk.is_cut(), "get answered {other:?}"),
                }
            }
        }
        Ok(None)
    }

    /// Whether this change cannot have been answered without a record.
    fn was_logged(&self, results: &[(Key, Option<Held>)], answer: &Response) -> bool {
        let changed =
            |(key, held): &(Key, Option<Held>)| self.certain(key).map(|held| held.value) != held.map(|held| held.value);
        *answer == Response::Removed(true) || (*answer == Response::Put && results.iter().all(changed))
    }

    fn hold(&mut self, results: Vec<(Key, Option<Held>)>, changes: bool) {
        for (key, held) in results {
            self.busy.remove(&key);
            if changes {
                self.known.entry(key).or_default().certain = held;
            }
        }
    }

    fn judge_get(&mut self, key: Key, allowed: &[Option<Held>], object: Option<Object>) -> Verdict {
        if self.plan.disk_may_lose {
            return self.judge_bytes(key, object.as_ref());
        }
        let seen = allowed.iter().find(|held| is_object(held.as_ref(), object.as_ref()));
        let Some(seen) = seen else {
            return Err(format!("get {key:?} gave {}, allowed {allowed:?}", describe(object.as_ref())));
        };
        // What a reader has seen must not be taken back: if it is what a change in flight leads to (and not what
        // there was when it began to read), that is certain now.
        let is_older = allowed.first() == Some(seen);
        let in_flight = self.doing.values().any(|doing| match doing {
            Doing::Change { results, .. } | Doing::Sweep { results, .. } => results.contains(&(key, *seen)),
            Doing::Get { .. } | Doing::Scrub => false,
        });
        if in_flight && !is_older {
            self.known.entry(key).or_default().certain = *seen;
        }
        Ok(())
    }

    /// On a disk that loses things: whatever is served was once put under this key and version, whole.
    pub(super) fn judge_bytes(&self, key: Key, object: Option<&Object>) -> Verdict {
        let Some(object) = object else { return Ok(()) };
        let genuine = self.known.get(&key).is_some_and(|known| {
            known.history.iter().any(|(version, value)| *version == object.version && bytes_of(*value) == object.value)
        });
        ensure!(genuine, "wrong bytes served for {key:?}: {}", describe(Some(object)));
        Ok(())
    }
}
