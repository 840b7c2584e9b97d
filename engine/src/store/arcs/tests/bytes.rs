//! Whatever bytes are decoded, nothing panics.

use super::{Chance, SEED, small_index};
use crate::format::{checksum, run};
use crate::store::arcs::codec::{ExpiryRow, decode_arc, decode_recents, encode_arc};
use crate::store::arcs::locator::Locator;
use crate::store::bare_index::Shelf;
use proptest::prelude::*;

/// Goal: no bytes make a decoder panic, or give a table that panics later. Method: flip bits of real arcs, with the checksum made
/// to fit so that the checks behind it are met, and use whatever is believed.
#[test]
fn flipped_bits_are_refused_or_harmless() {
    let (mut refused, mut believed) = (0, 0);
    for seed in 0..300 {
        let mut life = small_index(seed % 10, 60);
        let mut chance = Chance(seed);
        let arc = &life.index.arcs[chance.below(life.index.arcs.len())];
        let mut bytes = encode_arc(arc, SEED);
        for _ in 0..1 + chance.below(3) {
            // Half of them in the header and behind the arrays, where the counts and maps are.
            let at = if chance.below(2) == 0 { chance.below(72) } else { chance.below(bytes.len()) };
            bytes[at] ^= 1 << chance.below(8);
        }
        assert!(decode_arc(&bytes, SEED).is_err(), "seed {seed}: the checksum notices");
        let check = checksum::of(&bytes[8..], SEED);
        bytes[..8].copy_from_slice(&check.to_le_bytes());
        bytes.truncate(bytes.len() - chance.below(2) * chance.below(bytes.len()));
        let Ok((mut arc, _)) = decode_arc(&bytes, SEED) else {
            refused += 1;
            continue;
        };
        believed += 1;
        for entry in life.model.values() {
            let hash = life.index.address(&entry.key).hash;
            arc.table.extend(hash, chance.tick(), |_, _| ());
            let found: Vec<(Locator, u32)> = arc.table.candidates(hash).collect();
            found.iter().for_each(|(locator, _)| assert!(arc.table.remove(hash, *locator).is_some()));
            arc.table.insert(hash, entry.locator, chance.tick());
        }
        arc.table.check();
        life.model.clear();
    }
    assert!(refused > 50 && believed > 20, "{refused} refused, {believed} believed");
}

proptest! {
    #[test]
    fn any_bytes_can_be_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..400), resealed: bool) {
        let mut bytes = bytes;
        if resealed && bytes.len() >= 8 {
            let check = checksum::of(&bytes[8..], SEED);
            bytes[..8].copy_from_slice(&check.to_le_bytes());
        }
        let identity = Shelf::new(SEED).identity;
        let _ = decode_arc(&bytes, SEED);
        let _ = decode_recents(&bytes, SEED);
        let _ = run::Run::read_header(&bytes, &identity, 1);
        let _ = run::check_page(&bytes, &identity, 1, 0);
        prop_assert_eq!(ExpiryRow::all(&bytes).count(), bytes.len() / ExpiryRow::SIZE);
    }
}
