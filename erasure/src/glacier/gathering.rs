//! Fetching as many fragments as are needed, and no more: another for each that does not come.

use super::name::AggregateName;
use super::site::{Heard, Turn};
use super::wire::Said;
use bytes::Bytes;
use net::id::Id;
use std::collections::BTreeMap;

/// Fragments that are being fetched.
#[derive(Debug)]
pub(super) struct Gathering {
    name: AggregateName,
    /// Who has which, not yet asked, in drawn order.
    sources: Vec<(u8, Id)>,
    open: BTreeMap<u64, u8>,
    values: Vec<Bytes>,
}

/// How far a gathering is.
#[derive(Debug)]
pub(super) enum Progress {
    Waiting,
    /// Too few can be had.
    Failed,
    /// Enough have come; to be verified by whoever uses them.
    Complete(Vec<Bytes>),
}

impl Gathering {
    /// Asks the first of `sources` (one an index), which are drawn by chance.
    pub(super) fn new(turn: &mut Turn<'_>, name: AggregateName, mut sources: Vec<(u8, Id)>) -> Gathering {
        for at in (1..sources.len()).rev() {
            let other = (turn.site.random() % (at as u64 + 1)) as usize;
            sources.swap(at, other);
        }
        // The last is asked first: what is here costs nothing, and who did not answer lately may not now.
        let me = turn.site.me;
        let is_silent = |id: Id| turn.site.roster.host(id).is_none_or(|host| turn.site.is_silent(host));
        sources.sort_by_key(|(_, keeper)| (*keeper == me, !is_silent(*keeper)));
        let mut gathering = Gathering { name, sources, open: BTreeMap::new(), values: Vec::new() };
        gathering.ask(turn);
        gathering
    }

    fn ask(&mut self, turn: &mut Turn<'_>) {
        while self.open.len() + self.values.len() < usize::from(self.name.needed()) {
            let Some((index, keeper)) = self.sources.pop() else { return };
            let key = self.name.fragment_key(index);
            if let Some(call) = turn.call(keeper, Said::Fetch { key }, Bytes::new()) {
                self.open.insert(call, index);
            }
        }
    }

    pub(super) fn is_open(&self, request: u64) -> bool {
        self.open.contains_key(&request)
    }

    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, request: u64, heard: &Heard) {
        let Some(index) = self.open.remove(&request) else { return };
        if let Heard::Answer(_, Said::Fetched { expiry: Some(_) }, value) = heard
            && super::fragment::verify(&self.name.fragment_key(index), value).is_ok()
        {
            self.values.push(value.clone());
        }
        self.ask(turn);
    }

    pub(super) fn progress(&mut self) -> Progress {
        if self.values.len() >= usize::from(self.name.needed()) {
            Progress::Complete(std::mem::take(&mut self.values))
        } else if self.open.is_empty() {
            Progress::Failed
        } else {
            Progress::Waiting
        }
    }
}
