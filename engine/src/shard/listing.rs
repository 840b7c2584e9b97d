//! A scan over several shards: one listing out of theirs.
//!
//! Keys are spread over the shards by bits that have nothing to do with their order. So each shard is asked for its share of
//! the entries, and somewhat more, not for all that are wanted: all but the first of those would be thrown away. How far the
//! shares reach is known when they have come: a shard that had as many as it was asked for may have more behind its last
//! one. If what is wanted ends before all such *edges*, the listing is whole; chance lets that fail less than once in a
//! million listings, and keys chosen for it as often as they like. Then each shard is asked for everything.

use crate::key::Key;
use crate::limits;
use crate::request::{Entry, Request};
use std::cmp::Ordering;

/// A scan under way.
pub(super) struct Listing {
    from: [u8; 20],
    to: [u8; 20],
    after: Option<Key>,
    limit: usize,
    /// What each shard is asked for.
    share: usize,
    entries: Vec<Entry>,
    /// The first of the keys behind which a shard may have more.
    edge: Option<Key>,
}

impl Listing {
    /// The listing that a request asks for, if it is a scan.
    pub(super) fn of(request: &Request, shards: usize) -> Option<Box<Listing>> {
        let Request::Scan { from, to, after, limit } = *request else { return None };
        let limit = limit.min(limits::SCAN_ENTRIES_MAX);
        // Six deviations: the number of the first entries that lie in one shard is binomial.
        let mean = limit.div_ceil(shards);
        let share = if shards == 1 { limit } else { limit.min(mean + 6 * mean.isqrt() + 16) };
        Some(Box::new(Listing { from, to, after, limit, share, entries: Vec::new(), edge: None }))
    }

    /// What a shard is asked.
    pub(super) fn request(&self) -> Request {
        Request::Scan { from: self.from, to: self.to, after: self.after, limit: self.share }
    }

    /// Takes in a shard's part.
    pub(super) fn take(&mut self, part: Vec<Entry>) {
        if let Some(last) = part.last().filter(|_| part.len() >= self.share && self.share < self.limit) {
            let is_nearer = self.edge.is_none_or(|edge| order(&self.from, &last.key, &edge).is_lt());
            self.edge = if is_nearer { Some(last.key) } else { self.edge };
        }
        if self.entries.is_empty() {
            self.entries = part;
        } else {
            self.entries.extend(part);
        }
    }

    /// The entries in order, when all parts are there; or the listing to be asked for anew.
    pub(super) fn end(mut self: Box<Self>) -> Result<Vec<Entry>, Box<Listing>> {
        // Parts are in order already: the sort finds them, and merges.
        self.entries.sort_by(|one, other| order(&self.from, &one.key, &other.key));
        self.entries.truncate(self.limit);
        let is_whole = match (&self.edge, self.entries.get(self.limit.wrapping_sub(1))) {
            (None, _) => true,
            (Some(edge), Some(last)) => order(&self.from, &last.key, edge).is_le(),
            (Some(_), None) => false,
        };
        if is_whole {
            return Ok(self.entries);
        }
        (self.share, self.edge) = (self.limit, None);
        self.entries.clear();
        Err(self)
    }
}

/// The order in which a walk that begins at `from` meets two keys.
fn order(from: &[u8; 20], one: &Key, other: &Key) -> Ordering {
    let place = |key: &Key| u64::from_be_bytes(key.prefix());
    let begin = u64::from_be_bytes(*from.first_chunk().expect("an id is longer"));
    let (first, second) = (place(one).wrapping_sub(begin), place(other).wrapping_sub(begin));
    // Eight bytes tell, unless they are the same, or those of the beginning: of such keys some come first and some last.
    if first != second && first != 0 && second != 0 {
        return first.cmp(&second);
    }
    (one.placement < *from, one).cmp(&(other.placement < *from, other))
}

#[cfg(test)]
mod tests {
    //! Goal: listings are what one shard with all keys would answer, whatever shard each key lies in. Method: keys on a few
    //! places of the ring, spread evenly or all but a few in one shard, listed in shares against a sorted list; whoever
    //! asks again must be answered then.
    use super::*;
    use crate::sim_disk::Chance;

    fn key(chance: &mut Chance) -> Key {
        let mut placement = [0; 20];
        // Many share their first eight bytes with others, or with where walks begin.
        placement[0] = chance.below(4) as u8 * 60;
        placement[19] = chance.below(250) as u8;
        Key { placement, name: [chance.below(3) as u8; 32], kind: 1 }
    }

    fn entry(key: Key) -> Entry {
        Entry { key, version: 0, expiry_s: 0, len: 0 }
    }

    #[test]
    fn shares_make_the_whole() {
        let mut repeated = 0;
        for seed in 0..3_000 {
            let mut chance = Chance::new(seed);
            let mut keys: Vec<Key> = (0..chance.below(400)).map(|_| key(&mut chance)).collect();
            let from = key(&mut chance).placement;
            keys.sort_by_key(|key| (key.placement < from, *key));
            keys.dedup();
            let shards = 1 + chance.below(5) as usize;
            let uneven = chance.below(2) == 0;
            let mut parts = vec![Vec::new(); shards];
            for key in &keys {
                let shard = if uneven && chance.below(20) > 0 { 0 } else { chance.below(shards as u64) as usize };
                parts[shard].push(entry(*key));
            }
            let limit = chance.below(300) as usize;
            let request = Request::Scan { from, to: from, after: None, limit };
            let mut listing = Listing::of(&request, shards).unwrap();
            let mut asked = 0;
            let listed = loop {
                asked += 1;
                let Request::Scan { limit: share, .. } = listing.request() else { unreachable!() };
                for part in &parts {
                    listing.take(part[..share.min(part.len())].to_vec());
                }
                match listing.end() {
                    Ok(entries) => break entries,
                    Err(again) => listing = again,
                }
            };
            assert!(asked <= 2, "seed {seed}");
            repeated += asked - 1;
            let listed: Vec<Key> = listed.iter().map(|entry| entry.key).collect();
            assert_eq!(listed, keys[..limit.min(keys.len())], "seed {seed}");
        }
        assert!(repeated > 10, "uneven keys make it ask again");
    }
}
