//! When a node is ready: its overlay has joined, and nothing else that was announced is still under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a node still waits for before it calls itself ready. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// Something that is under way; the node is not ready until this is dropped.
#[derive(Debug)]
pub struct Pending {
    readiness: Readiness,
    what: &'static str,
}

impl Readiness {
    /// Holds the node back from being ready until the result is dropped; `what` is shown meanwhile.
    #[must_use]
    pub fn wait_for(&self, what: &'static str) -> Pending {
        *self.pending().entry(what).or_default() += 1;
        Pending { readiness: self.clone(), what }
    }

    /// What is still waited for.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.pending().keys().copied().collect()
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut pending = self.readiness.pending();
        let count = pending.get_mut(self.what).expect("what was announced is listed");
        *count -= 1;
        if *count == 0 {
            pending.remove(self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a node is ready when the last of what was announced is done. Method: two of one kind, one of another.
    use super::*;

    #[test]
    fn the_last_one_counts() {
        let readiness = Readiness::default();
        let one = readiness.wait_for("accounts");
        let two = readiness.wait_for("accounts");
        let overlay = readiness.wait_for("overlay");
        drop((one, overlay));
        assert_eq!(readiness.waiting_for(), ["accounts"]);
        drop(two);
        assert!(readiness.waiting_for().is_empty());
    }
}
