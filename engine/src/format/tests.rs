//! Goal: the bytes are those drawn in `docs/formats.md`, and bytes that are not ours are errors, never panics.
//!
//! Method: each field is looked for at its drawn offset, by hand, not through the decoder; and every structure is decoded
//! from thousands of damaged copies.

use super::batch::{BatchHeader, BatchWriter, read_batch};
use super::checkpoint::{Checkpoint, CheckpointSegment, CheckpointWriter, Moment};
use super::record::{Action, LeaseRow, Place, RecordHeader};
use super::run::RunEntry;
use super::segment::{Era, SegmentHeader};
use super::superblock::Superblock;
use super::{Damage, Identity, checksum};
use crate::disk::Buffer;
use crate::key::Key;
use crate::limits::BLOCK;
use crate::sim_disk::Chance;
use crate::store::arcs::Address;
use crate::store::arcs::arc::Arc;
use crate::store::arcs::codec::{encode_arc, encode_recents};
use crate::store::arcs::hash::KeyHash;
use crate::store::arcs::locator::Locator;
use crate::store::arcs::table::Table;

const IDENTITY: Identity = Identity { store: *b"store-id-16bytes", shard: 2, seed: 0x1122_3344_5566_7788 };

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn key() -> Key {
    Key { placement: [0xaa; 20], name: [0xbb; 32], kind: 4 }
}

fn batch() -> Vec<u8> {
    let at = Place { segment: 7, generation: 9, offset: BLOCK as u32 };
    let mut writer = BatchWriter::new(IDENTITY, at, 5, 0xc0ffee, &[], Buffer::with_capacity(BLOCK));
    for payload in [&b"first"[..], &[3; 5000], b""] {
        let mut header = RecordHeader::new(Action::Put, &key(), writer.next_place(), payload.len() as u32);
        (header.version, header.account, header.expiry, header.class) = (77, 88, 99, 1);
        (header.replaces, header.replaced, header.replaced_version) = (1, [1, 2, 3, 4, 5, 6], 66);
        writer.push(&header, payload);
    }
    writer.finish().0.to_vec()
}

/// The batch where it belongs in a segment.
fn segment() -> Vec<u8> {
    let mut segment = SegmentHeader::new(&IDENTITY, 7, 9, 5, 0xc0ffee, Era::default()).to_block(&IDENTITY).to_vec();
    segment.extend(batch());
    segment
}

#[test]
fn superblock_is_as_drawn() {
    let file = Superblock::new(IDENTITY, 4, 3600).to_file();
    assert_eq!(file.len(), 2 * BLOCK);
    for copy in file.chunks(BLOCK) {
        assert_eq!(&copy[8..16], b"ePOSTsup");
        assert_eq!(&copy[16..32], b"store-id-16bytes");
        assert_eq!(long(copy, 32), IDENTITY.seed);
        assert_eq!([word(copy, 40), word(copy, 44), word(copy, 48), word(copy, 52)], [3, 2, 4, 3600]);
        assert!(copy[56..].iter().all(|byte| *byte == 0));
        assert_eq!(long(copy, 0), checksum::of(&copy[8..64], 0x6550_4f53_5420_0001));
    }
}

#[test]
fn another_version_of_superblock_is_told_apart_from_a_damaged_one_and_the_second_copy_counts() {
    let mut superblock = Superblock::new(IDENTITY, 4, 3600);
    let mut file = superblock.to_file();
    file[20] ^= 1;
    assert_eq!(Superblock::from_file(&file).unwrap().identity(), IDENTITY);
    file[BLOCK + 20] ^= 1;
    assert_eq!(Superblock::from_file(&file), Err(Damage::Checksum));
    superblock.version = 4;
    assert_eq!(Superblock::from_file(&superblock.to_file()), Err(Damage::Newer(4)));
    superblock.version = 2;
    assert_eq!(Superblock::from_file(&superblock.to_file()), Err(Damage::Older(2)));
    assert_eq!(Superblock::from_file(&[]), Err(Damage::Short));
}

#[test]
fn segment_header_is_as_drawn() {
    let era = Era { sequence: 3, generation: 8, class: 1 };
    let block = SegmentHeader::new(&IDENTITY, 7, 9, 5, 0xc0ffee, era).to_block(&IDENTITY);
    assert_eq!(&block[8..16], b"ePOSTseg");
    assert_eq!(&block[16..32], b"store-id-16bytes");
    assert_eq!([long(&block, 32), long(&block, 40)], [0xc0ffee, 5]);
    assert_eq!(long(&block, 48), 3);
    let words: Vec<u32> = (56..80).step_by(4).map(|at| word(&block, at)).collect();
    assert_eq!(words, [8, 1, 7, 9, 2, 3]);
    assert_eq!(SegmentHeader::from_block(&block, &IDENTITY, 8), Err(Damage::Elsewhere));
}

#[test]
fn batch_and_record_are_as_drawn() {
    let bytes = batch();
    assert_eq!(bytes.len() % BLOCK, 0);
    assert_eq!(&bytes[8..16], b"ePOSTbat");
    assert_eq!([long(&bytes, 32), long(&bytes, 40)], [0xc0ffee, 5]);
    let body = 192 + 5184 + 128;
    let words: Vec<u32> = (48..72).step_by(4).map(|at| word(&bytes, at)).collect();
    assert_eq!(words, [body as u32, 3, 7, 9, BLOCK as u32, 2]);
    // The first record.
    assert!(bytes[72..128].iter().all(|byte| *byte == 0));
    let record = &bytes[128..];
    assert_eq!([long(record, 16), long(record, 24), long(record, 32)], [77, 88, 0]);
    let words: Vec<u32> = (40..56).step_by(4).map(|at| word(record, at)).collect();
    assert_eq!(words, [5, 99, 9, BLOCK as u32 + 128]);
    assert_eq!(record[56..64], [7, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(long(record, 64), 66);
    assert_eq!(record[72..76], [1, 4, 1, 1]);
    assert_eq!(record[76..96], [0xaa; 20]);
    assert_eq!(record[96..128], [0xbb; 32]);
    assert_eq!(&record[128..133], b"first");
    assert_eq!(long(record, 0), checksum::of(&record[8..128], IDENTITY.seed));
    assert_eq!(long(record, 8), checksum::of(b"first", IDENTITY.seed));
    // The trailer, and the chain recomputed in one go.
    let trailer = &bytes[128 + body..];
    assert_eq!([long(trailer, 8), long(trailer, 16), long(trailer, 24)], [0x646e_6574_534f_5065, 5, body as u64]);
    let second = 128 + 192;
    let third = second + 5184;
    let mut headers = bytes[..128].to_vec();
    for start in [128, second, third] {
        headers.extend_from_slice(&bytes[start..start + 128]);
    }
    assert_eq!(long(trailer, 0), checksum::of(&headers, 0xc0ffee ^ IDENTITY.seed));
}

#[test]
fn lease_row_is_as_drawn() {
    let address = Address { position: 0x0102_0304_0506_0708, hash: KeyHash(9) };
    let row = LeaseRow { address, tick: 3 };
    let bytes = row.encode();
    assert_eq!(bytes[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((long(&bytes, 8), word(&bytes, 16)), (9, 3));
    assert_eq!(LeaseRow::all(&bytes).collect::<Vec<_>>(), [row]);
}

fn checkpoint() -> Vec<u8> {
    let moment = Moment { number: 20, sequence: 21, chain: 22, swept_s: Some(23), generation_next: 24 };
    let segment = CheckpointSegment { last_sequence: 11, generation: 3, segment: 2, reserved: 0 };
    let (key, version, locator) = (key(), 1, Locator::new(2, 4096, 192));
    let recent = RunEntry { key, version, locator, length: 5, generation: 3 };
    let recents = encode_recents([recent].into_iter(), IDENTITY.seed);
    let mut writer = CheckpointWriter::new(&IDENTITY, moment, &[segment], &[7, 8], &recents);
    writer.push_arc(&encode_arc(&Arc::new(0, u64::MAX, Table::new(16, 0)), IDENTITY.seed));
    let (offset, body) = writer.take(usize::MAX);
    assert_eq!(offset, BLOCK as u64);
    let mut file = writer.finish(&IDENTITY);
    file.extend(body);
    file
}

#[test]
fn checkpoint_is_as_drawn() {
    let bytes = checkpoint();
    assert_eq!(&bytes[8..16], b"ePOSTchk");
    let body = &bytes[BLOCK..];
    assert_eq!([long(&bytes, 32), long(&bytes, 40)], [checksum::of(body, IDENTITY.seed), body.len() as u64]);
    assert_eq!([long(&bytes, 48), long(&bytes, 56), long(&bytes, 64), long(&bytes, 72)], [20, 21, 22, 23]);
    let words: Vec<u32> = (80..104).step_by(4).map(|at| word(&bytes, at)).collect();
    assert_eq!(words, [1, 2, 1, 24, 2, 3]);
    assert!(bytes[104..BLOCK].iter().all(|byte| *byte == 0));
    assert_eq!([long(body, 0), u64::from(word(body, 8)), u64::from(word(body, 12))], [11, 3, 2]);
    assert_eq!([word(body, 16), word(body, 20)], [7, 8]);
    assert_eq!(long(body, 24 + 8), 1, "one recent entry");
    let mut longer = bytes;
    longer.extend([0xff; 100]);
    let read = Checkpoint::from_file(&longer, &IDENTITY).expect("leftovers behind the end do not matter");
    assert_eq!((read.moment.sequence, read.runs, read.recents.len(), read.arcs.len()), (21, vec![7, 8], 1, 1));
}

#[test]
fn a_whole_batch_reads_back() {
    let segment = segment();
    let place = Place { segment: 7, generation: 9, offset: BLOCK as u32 };
    let view = read_batch(&segment, place, &IDENTITY).unwrap();
    assert_eq!((view.header.sequence, view.header.chain_before, view.damaged), (5, 0xc0ffee, 0));
    assert_eq!(view.len(), segment.len() - BLOCK);
    let payloads: Vec<usize> = view.records.iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(payloads, [5, 5000, 0]);
    for (segment_number, generation) in [(6, 9), (7, 8)] {
        let place = Place { segment: segment_number, generation, offset: BLOCK as u32 };
        assert_eq!(read_batch(&segment, place, &IDENTITY).err(), Some(Damage::Elsewhere));
    }
}

#[test]
fn damaged_structures_are_errors_and_never_panics() {
    let mut chance = Chance::new(4);
    let place = Place { segment: 7, generation: 9, offset: BLOCK as u32 };
    let (segment, file) = (segment(), checkpoint());
    let trailer_end = BLOCK + 128 + word(&batch(), 48) as usize + 32;
    // Miri is a thousand times slower.
    let rounds = if cfg!(miri) { 20 } else { 20_000u32 };
    for round in 0..rounds {
        let mut damaged = segment.clone();
        let bit = chance.below((trailer_end - BLOCK) as u64 * 8) as usize;
        damaged[BLOCK + bit / 8] ^= 1 << (bit % 8);
        if let Ok(view) = read_batch(&damaged, place, &IDENTITY) {
            let padding = view.records.len() == 3;
            assert!(view.damaged == 1 || padding, "bit {bit} was not noticed");
        }
        damaged.truncate(chance.below(damaged.len() as u64) as usize);
        let _ = read_batch(&damaged, place, &IDENTITY);
        let mut damaged = file.clone();
        // What lies between header and body is padding.
        let bit = chance.below((104 + file.len() - BLOCK) as u64 * 8) as usize;
        let byte = if bit / 8 < 104 { bit / 8 } else { bit / 8 - 104 + BLOCK };
        damaged[byte] ^= 1 << (bit % 8);
        assert!(Checkpoint::from_file(&damaged, &IDENTITY).is_err(), "round {round}, bit {bit}");
        damaged.truncate(chance.below(file.len() as u64) as usize);
        assert!(Checkpoint::from_file(&damaged, &IDENTITY).is_err());
        let noise: Vec<u8> = (0..200).map(|_| chance.draw() as u8).collect();
        assert!(BatchHeader::open(&noise, IDENTITY.seed).is_err());
        assert!(RecordHeader::check_at(&noise, place, &IDENTITY).is_err());
    }
}
