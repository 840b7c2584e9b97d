//! Goal: no bytes make a decoder panic, and what it accepts it writes the same; on a stable compiler, with every test run.
//!
//! Method: through each door go sound examples, the corpus that the fuzzer left (`engine/fuzz/corpus`), and seeded mutations
//! of both: flipped bits, words at their extremes, pieces cut out, doubled and spliced. The seed is in every message.

use super::Door;
use crate::sim_disk::Chance;
use std::path::Path;

/// Mutations of each example or file of the corpus.
const MUTATIONS: u64 = 500;

fn corpus(door: Door) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door.name());
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    let read = |path: &std::path::PathBuf| std::fs::read(path).expect("readable");
    files.iter().map(read).chain(door.examples()).collect()
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    for _ in 0..chance.below(3) + 1 {
        let at = chance.below(bytes.len() as u64 + 1) as usize;
        match chance.below(6) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            2 if at + 4 <= bytes.len() => {
                let extreme = [0, 1, u32::MAX, u32::MAX - 1, 1 << 31, 4096][chance.below(6) as usize];
                bytes[at..at + 4].copy_from_slice(&extreme.to_le_bytes());
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + 1 + chance.below(64) as usize).min(bytes.len());
                let piece = bytes[at.min(end)..end].to_vec();
                bytes.splice(at.min(end)..at.min(end), piece);
            }
            _ => {
                let from = chance.below(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

#[test]
fn no_bytes_make_a_decoder_panic_and_what_is_accepted_is_written_the_same() {
    for door in Door::ALL {
        let corpus = corpus(door);
        let (mut accepted, mut refused) = (0, 0);
        for (file, bytes) in corpus.iter().enumerate() {
            for seed in 0..MUTATIONS {
                let mut chance = Chance::new(seed ^ (file as u64) << 32);
                let mut bytes = bytes.clone();
                if seed > 0 {
                    let other = &corpus[chance.below(corpus.len() as u64) as usize];
                    mutate(&mut bytes, other, &mut chance);
                }
                let outcome = std::panic::catch_unwind(|| door.knock(&bytes));
                match outcome {
                    Ok(true) => accepted += 1,
                    Ok(false) => refused += 1,
                    Err(_) => panic!("door {}, file {file}, seed {seed}: {} bytes", door.name(), bytes.len()),
                }
            }
        }
        println!("{}: {} files, {accepted} accepted, {refused} refused", door.name(), corpus.len());
        assert!(accepted > 100, "{}: mended mutations get through", door.name());
    }
}

#[test]
fn every_example_is_accepted_and_sound_as_it_is() {
    for door in Door::ALL {
        for example in door.examples() {
            assert_eq!(door.decode(&example), Ok(()), "{}", door.name());
        }
    }
}

#[test]
#[ignore = "writes files: the examples, as the beginning of the corpus in engine/fuzz/corpus"]
fn examples_are_written_to_the_corpus() {
    for door in Door::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door.name());
        std::fs::create_dir_all(&folder).unwrap();
        for (number, example) in door.examples().iter().enumerate() {
            std::fs::write(folder.join(format!("example-{number}")), example).unwrap();
        }
    }
}
