//! Arbitrary bytes at the door `Superblock` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::Superblock.knock(bytes);
});
