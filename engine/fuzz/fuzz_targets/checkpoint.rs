//! Arbitrary bytes at the door `Checkpoint` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::Checkpoint.knock(bytes);
});
